import { onMounted, shallowRef, type ShallowRef } from 'vue'
import { asProblem, type Problem } from '@/api/problem'

export interface Loaded<T> {
  value: ShallowRef<T | undefined>
  problem: ShallowRef<Problem | undefined>
  busy: ShallowRef<boolean>
  load: () => Promise<void>
}

/** What `get` answers: asked when the component is there, and again by `load`. The latest question's answer counts. */
export function useLoaded<T>(get: () => Promise<T>): Loaded<T> {
  const value = shallowRef<T>()
  const problem = shallowRef<Problem>()
  const busy = shallowRef(false)
  let latest = 0

  async function load(): Promise<void> {
    const turn = ++latest
    busy.value = true
    problem.value = undefined
    try {
      const answer = await get()
      if (turn === latest) value.value = answer
    } catch (error) {
      if (turn === latest) problem.value = asProblem(error)
    } finally {
      if (turn === latest) busy.value = false
    }
  }

  onMounted(load)
  return { value, problem, busy, load }
}
