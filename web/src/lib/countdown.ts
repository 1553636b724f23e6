import { onScopeDispose, ref, watchEffect, type Ref } from 'vue'

/** Whole seconds until a time (ms since the epoch), counting down to 0; 0 without one. */
export function useCountdown(until: () => number | undefined): Ref<number> {
  const seconds = ref(0)
  let timer: ReturnType<typeof setTimeout> | undefined

  function tick(): void {
    clearTimeout(timer)
    const rest = (until() ?? 0) - Date.now()
    seconds.value = Math.max(0, Math.ceil(rest / 1000))
    if (rest > 0) timer = setTimeout(tick, rest % 1000 || 1000)
  }

  watchEffect(tick)
  onScopeDispose(() => clearTimeout(timer))
  return seconds
}
