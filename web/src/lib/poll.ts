import { onScopeDispose } from 'vue'

/** Does `work` now, and again `ms` after each end of it, while the page can be seen. It must not throw. */
export function usePoll(work: () => Promise<void>, ms: number): void {
  let timer: ReturnType<typeof setTimeout> | undefined
  let working = false
  let stopped = false

  async function turn(): Promise<void> {
    clearTimeout(timer)
    if (working || stopped || document.hidden) return
    working = true
    try {
      await work()
    } finally {
      working = false
      timer = setTimeout(() => void turn(), ms)
    }
  }

  function seen(): void {
    void turn()
  }

  document.addEventListener('visibilitychange', seen)
  onScopeDispose(() => {
    stopped = true
    clearTimeout(timer)
    document.removeEventListener('visibilitychange', seen)
  })
  void turn()
}
