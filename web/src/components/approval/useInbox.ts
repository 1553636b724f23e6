import { computed, shallowRef, watch, type ComputedRef } from 'vue'
import { asProblem } from '@/api/problem'
import {
  askedOf,
  loadAsked,
  pendingApprovals,
  pendingProblem,
  usePendingApprovals,
  type Approval,
  type Asked,
} from '@/stores/approvals'
import { learnTitles } from './sessionTitles'

/** One line of the inbox. */
export interface Entry {
  threadId: string
  asked: Asked
}

/**
 * What waits, and what was decided while one looked: that stays in its place. undefined until the server has answered.
 * `waiting` are those that still wait, by thread.
 */
export function useInbox(): {
  entries: ComputedRef<Entry[] | undefined>
  waiting: ComputedRef<Map<string, Asked[]>>
} {
  const known = shallowRef<ReadonlyMap<string, Entry>>(new Map())
  const isLoaded = shallowRef(pendingApprovals.value !== undefined)
  usePendingApprovals()

  watch(
    pendingApprovals,
    (now) => {
      if (now) void merge(now)
    },
    { immediate: true },
  )

  async function merge(pending: readonly Approval[]): Promise<void> {
    const there = new Set(pending.map((one) => one.id))
    const next = new Map<string, Entry>()
    // Latest first, as the server has them; what is new comes before what was known.
    for (const one of pending) {
      if (!known.value.has(one.id)) next.set(one.id, { threadId: one.thread_id, asked: askedOf(one) })
    }
    const fresh = new Map(pending.map((one) => [one.id, one]))
    for (const [id, entry] of known.value) {
      const now = fresh.get(id)
      const isSame = now === undefined || now.digest === entry.asked.digest
      next.set(id, isSame ? entry : { threadId: entry.threadId, asked: askedOf(now) })
    }
    known.value = next
    isLoaded.value = true
    void learnTitles(pending.map((one) => one.thread_id))
    const gone = [...next].filter(([id, entry]) => !there.has(id) && !entry.asked.decision)
    await Promise.all(gone.map(([id]) => settle(id)))
  }

  /** It does not wait any more: what became of it? */
  async function settle(id: string): Promise<void> {
    try {
      const asked = await loadAsked(id)
      const entry = known.value.get(id)
      if (entry) known.value = new Map(known.value).set(id, { ...entry, asked })
    } catch (error) {
      const problem = asProblem(error)
      if (problem.status !== 404) pendingProblem.value = problem
      else known.value = new Map([...known.value].filter(([other]) => other !== id)) // its session was deleted
    }
  }

  const entries = computed(() => (isLoaded.value ? [...known.value.values()] : undefined))
  const waiting = computed(() => {
    const byThread = new Map<string, Asked[]>()
    for (const { threadId, asked } of known.value.values()) {
      if (!asked.decision) byThread.set(threadId, [...(byThread.get(threadId) ?? []), asked])
    }
    return byThread
  })
  return { entries, waiting }
}
