import { onScopeDispose, shallowRef, type ShallowRef } from 'vue'

/** So long is a card deaf after it appeared or changed: what was meant for something else does not decide it. */
export const GUARD_MS = 600

const rearms = new Set<() => void>()

/** Whether a card may be decided yet; `rearm` makes it wait anew. Lives as long as the calling scope. */
export function useGuard(): { armed: Readonly<ShallowRef<boolean>>; rearm: () => void } {
  const armed = shallowRef(false)
  let timer: ReturnType<typeof setTimeout> | undefined
  const rearm = (): void => {
    clearTimeout(timer)
    armed.value = false
    timer = setTimeout(() => (armed.value = true), GUARD_MS)
  }
  rearms.add(rearm)
  onScopeDispose(() => {
    clearTimeout(timer)
    rearms.delete(rearm)
  })
  rearm()
  return { armed, rearm }
}

/** All cards wait anew: one of them was decided, and what is under the hand may be another one now. */
export function rearmAll(): void {
  for (const rearm of rearms) rearm()
}
