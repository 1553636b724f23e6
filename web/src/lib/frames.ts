const HIDDEN_MS = 250

/** Runs `work` once per frame at most, however often it is asked for; in a hidden page, which has no frames, by a timer. */
export function perFrame(work: () => void): { ask: () => void; now: () => void; stop: () => void } {
  let frame: number | undefined
  let timer: ReturnType<typeof setTimeout> | undefined

  function clear(): void {
    if (frame !== undefined) cancelAnimationFrame(frame)
    clearTimeout(timer)
    frame = timer = undefined
  }

  function run(): void {
    clear()
    work()
  }

  function ask(): void {
    if (frame !== undefined || timer !== undefined) return
    timer = setTimeout(run, HIDDEN_MS) // also for a page that is hidden before its frame comes
    if (!document.hidden) frame = requestAnimationFrame(run)
  }

  return { ask, now: run, stop: clear }
}
