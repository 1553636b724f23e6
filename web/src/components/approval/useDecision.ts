import { computed, shallowRef, watch, type ComputedRef, type ShallowRef } from 'vue'
import { asProblem, type Problem } from '@/api/problem'
import { words } from '@/i18n'
import type { Interrupt } from '@/state/thread'
import { decide, loadAsked, type Asked, type Outcome } from '@/stores/approvals'
import { decisionBody, type Answer, type Mode } from './logic'

/** What a card must say beside the question: it changed under the reader's eyes, or another answer came first. */
export type Notice = 'changed' | 'elsewhere'

export interface Decision {
  /** The question as it is now, decided or not. */
  asked: ShallowRef<Asked>
  mode: ShallowRef<Mode>
  busy: Readonly<ShallowRef<boolean>>
  notice: Readonly<ShallowRef<Notice | undefined>>
  /** Why the last answer was not taken; `fault` is what of it belongs to a form's field. */
  problem: Readonly<ShallowRef<Problem | undefined>>
  fault: ComputedRef<string | undefined>
  answer: (answer: Answer) => Promise<Outcome['kind'] | undefined>
  /** Send the last answer once more, as the same request. */
  again: () => Promise<Outcome['kind'] | undefined>
  /** Ask the server how it stands; what went wrong is a `problem`. */
  look: () => Promise<void>
}

/** The state of one card: the question as `source` tells it, and what its own answers found out. */
export function useDecision(source: () => Interrupt): Decision {
  const asked = shallowRef<Asked>(source())
  const mode = shallowRef<Mode>('view')
  const busy = shallowRef(false)
  const notice = shallowRef<Notice>()
  const problem = shallowRef<Problem>()
  const fault = computed(() => (problem.value?.status === 422 ? words(problem.value) : undefined))
  let last: Answer | undefined

  watch(source, (now) => {
    if (now.decision === undefined && asked.value.decision) return // an older view of it
    take(now)
  })

  function take(now: Asked): void {
    const before = asked.value
    asked.value = before.decidedAt && !('decidedAt' in now) ? { ...now, decidedAt: before.decidedAt } : now
    if (now.decision) mode.value = 'view'
    else if (now.digest !== before.digest) changed()
  }

  function changed(): void {
    notice.value = 'changed'
    problem.value = undefined
    if (mode.value !== 'edit') mode.value = 'view'
  }

  async function send(given: Answer): Promise<Outcome['kind'] | undefined> {
    if (busy.value || asked.value.decision) return undefined
    last = given
    busy.value = true
    problem.value = undefined
    notice.value = undefined
    try {
      const outcome = await decide(asked.value.id, decisionBody(asked.value, given))
      if (outcome.kind === 'problem') {
        problem.value = outcome.problem
      } else {
        take(outcome.asked)
        if (outcome.kind === 'changed') changed()
        if (outcome.kind === 'elsewhere') notice.value = 'elsewhere'
      }
      return outcome.kind
    } finally {
      busy.value = false
    }
  }

  async function look(): Promise<void> {
    try {
      const now = await loadAsked(asked.value.id)
      if (!asked.value.decision) take(now.decision ? now : { ...now, seq: asked.value.seq })
    } catch (error) {
      problem.value = asProblem(error)
    }
  }

  return {
    asked,
    mode,
    busy,
    notice,
    problem,
    fault,
    answer: send,
    again: async () => (last ? await send(last) : undefined),
    look,
  }
}
