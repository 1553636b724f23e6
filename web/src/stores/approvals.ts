import { onScopeDispose, shallowRef } from 'vue'
import { api } from '@/api/client'
import { asProblem, type Problem } from '@/api/problem'
import type { components } from '@/api/schema'
import type { Interrupt } from '@/state/thread'

export type Approval = components['schemas']['Approval']
export type ApprovalStatus = Approval['status']
export type DecisionBody = components['schemas']['DecisionBody']
export type Rule = components['schemas']['ShownRule']

/** A question as a card shows it; `status` and `decidedAt` are known only from the API, not from events. */
export type Asked = Interrupt & { status?: ApprovalStatus; decidedAt?: string }

/** What became of an attempt to decide. `changed`: look again, `asked` is what waits now. */
export type Outcome =
  | { kind: 'decided'; asked: Asked }
  | { kind: 'elsewhere'; asked: Asked }
  | { kind: 'changed'; asked: Asked }
  | { kind: 'problem'; problem: Problem }

const POLL_MS = 5000

/** How many approvals wait for this user, over all sessions; undefined until it is known. */
export const pendingCount = shallowRef<number>()
/** They themselves, latest first. */
export const pendingApprovals = shallowRef<Approval[]>()
/** Why they could not be asked for last time. */
export const pendingProblem = shallowRef<Problem>()

/** The keys of requests whose answer is not known, so that sending them again has no second effect. */
const keys = new Map<string, string>()

/** Decide one approval. Answers the outcome instead of throwing; the same decision sent again is the same request. */
export async function decide(interruptId: string, body: DecisionBody): Promise<Outcome> {
  const request = JSON.stringify([interruptId, body])
  const key = keys.get(request) ?? crypto.randomUUID()
  keys.set(request, key)
  try {
    const answer = await api.post('/api/approvals/{interrupt_id}/decision', {
      path: { interrupt_id: interruptId },
      body,
      headers: { 'idempotency-key': key },
    })
    keys.delete(request)
    void refreshPending()
    return { kind: 'decided', asked: askedOf(answer.approval) }
  } catch (error) {
    const problem = asProblem(error)
    if (!problem.offline && problem.status < 500) keys.delete(request)
    return problem.status === 409 ? await lookAgain(interruptId, problem) : { kind: 'problem', problem }
  }
}

async function lookAgain(interruptId: string, refused: Problem): Promise<Outcome> {
  try {
    const asked = await loadAsked(interruptId)
    void refreshPending()
    if (asked.decision) return { kind: 'elsewhere', asked }
    const changed = refused.code === 'file_changed' || refused.code === 'stale_digest'
    return changed ? { kind: 'changed', asked } : { kind: 'problem', problem: refused }
  } catch (error) {
    return { kind: 'problem', problem: asProblem(error) }
  }
}

/** One approval as it is now; throws `Problem`. */
export async function loadAsked(interruptId: string): Promise<Asked> {
  return askedOf(await api.get('/api/approvals/{interrupt_id}', { path: { interrupt_id: interruptId } }))
}

/** Approve what waits in a thread, as far as it was announced by the event `upToSeq`. */
export async function approveAll(threadId: string, upToSeq: number, key: string): Promise<void> {
  await api.post('/api/resume/{thread_id}', {
    path: { thread_id: threadId },
    body: { action: 'continue', up_to_seq: upToSeq },
    headers: { 'idempotency-key': key },
  })
  void refreshPending()
}

/** An approval in the form of a thread's interrupt. Its `seq` is not known and is 0. */
export function askedOf(approval: Approval): Asked {
  const {
    run_id: runId,
    status,
    decision,
    decided_by,
    decided_via,
    decided_at,
    executed_input,
    ...question
  } = approval
  const asked: Asked = { ...question, runId, seq: 0, status, decision: undefined }
  if (decided_at !== undefined) asked.decidedAt = decided_at
  if (status === 'pending') return asked
  return {
    ...asked,
    decision: {
      type: decision?.type ?? 'reject',
      by: decided_by,
      via: decided_via ?? (status === 'cancelled' ? 'cancel' : status),
      message: decision?.message,
      executedInput: executed_input ?? decision?.args,
    },
  }
}

let asking: Promise<void> | undefined

/** Ask what waits, now. Never throws: `pendingProblem` says what went wrong. */
export function refreshPending(): Promise<void> {
  asking ??= askPending().finally(() => (asking = undefined))
  return asking
}

async function askPending(): Promise<void> {
  try {
    const found: Approval[] = []
    let cursor: string | null = null
    do {
      const page: components['schemas']['ApprovalList'] = await api.get('/api/approvals', {
        query: { status: 'pending', limit: 100, ...(cursor === null ? {} : { cursor }) },
      })
      found.push(...page.items)
      cursor = page.next_cursor
    } while (cursor !== null)
    pendingApprovals.value = found
    pendingCount.value = found.length
    pendingProblem.value = undefined
  } catch (error) {
    pendingProblem.value = asProblem(error)
  }
}

let watchers = 0
let timer: ReturnType<typeof setInterval> | undefined

/** Keep `pendingApprovals` and `pendingCount` fresh as long as the calling scope lives and the page can be seen. */
export function usePendingApprovals(): void {
  if (watchers++ === 0) begin()
  onScopeDispose(() => {
    if (--watchers === 0) end()
  })
}

function begin(): void {
  timer = setInterval(tick, POLL_MS)
  document.addEventListener('visibilitychange', tick)
  window.addEventListener('online', tick)
  void refreshPending()
}

function end(): void {
  clearInterval(timer)
  document.removeEventListener('visibilitychange', tick)
  window.removeEventListener('online', tick)
}

function tick(): void {
  if (document.visibilityState === 'visible') void refreshPending()
}

/**
 * The seq up to which all that waits in a thread is what was shown; undefined when something else waits there now.
 * Those of a thread's events know theirs; for those of the API the thread is asked.
 */
export async function seqOf(threadId: string, shown: readonly Asked[]): Promise<number | undefined> {
  if (shown.every((one) => one.seq > 0)) return Math.max(...shown.map((one) => one.seq))
  const state = await api.get('/api/sessions/{thread_id}/state', { path: { thread_id: threadId } })
  const digests = new Set(shown.map((one) => one.digest))
  return state.pending.every((one) => digests.has(one.digest)) ? state.last_seq : undefined
}

/** The rules in force in a session, latest first. Throws `Problem`. */
export async function loadRules(threadId: string): Promise<Rule[]> {
  const rules: Rule[] = []
  let cursor: string | null = null
  do {
    const page: components['schemas']['RuleList'] = await api.get('/api/sessions/{thread_id}/rules', {
      path: { thread_id: threadId },
      query: { limit: 100, ...(cursor === null ? {} : { cursor }) },
    })
    rules.push(...page.items)
    cursor = page.next_cursor
  } while (cursor !== null)
  return rules
}
