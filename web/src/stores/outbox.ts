import { createParser } from 'eventsource-parser'
import { onScopeDispose, shallowRef, watch, type ShallowRef } from 'vue'
import { send } from '@/api/client'
import { asProblem, offline, type Problem } from '@/api/problem'
import type { components } from '@/api/schema'
import type { Item } from '@/state/thread'

export type Policy = NonNullable<
  components['schemas']['moorage_api__chat__ChatMessage']['multitask_strategy']
>

/** A message on its way. `runId`: the server has it, and the log will show it. */
export interface Outgoing {
  /** Of the request: sent again with it, the message still arrives once. */
  key: string
  content: string
  policy: Policy
  state: 'sending' | 'waiting' | 'refused'
  runId?: string
  retryAt?: number
  problem?: Problem
}

const FIRST_WAIT = 1000
const LONGEST_WAIT = 15_000

/** The messages of a thread that its log does not show yet, in their order. They outlive a reload of the page. */
export function useOutbox(
  threadId: string,
  items: () => readonly Item[],
): {
  outbox: ShallowRef<readonly Outgoing[]>
  put: (content: string, policy: Policy) => void
  again: (key: string) => void
  drop: (key: string) => void
  hurry: () => void
} {
  const place = placeOf(threadId)
  const outbox = shallowRef<readonly Outgoing[]>(kept(place))
  const closed = new AbortController()
  let working = false
  let wake: () => void = () => undefined

  function change(key: string, now: Partial<Outgoing>): void {
    outbox.value = outbox.value.map((one) => (one.key === key ? { ...one, ...now } : one))
  }

  async function work(): Promise<void> {
    if (working) return
    working = true
    try {
      for (let wait = FIRST_WAIT; ;) {
        const next = outbox.value.find((one) => one.state !== 'refused' && one.runId === undefined)
        if (!next || closed.signal.aborted) return
        change(next.key, { state: 'sending' })
        try {
          change(next.key, { runId: await deliver(threadId, next, closed.signal) })
          wait = FIRST_WAIT
        } catch (error) {
          if (closed.signal.aborted) return
          const problem = asProblem(error)
          if (!passes(problem)) {
            change(next.key, { state: 'refused', problem })
            continue
          }
          const ms = Math.max(wait, (problem.retryAfter ?? 0) * 1000)
          change(next.key, { state: 'waiting', retryAt: Date.now() + ms, problem })
          await pause(ms)
          wait = Math.min(wait * 2, LONGEST_WAIT)
        }
      }
    } finally {
      working = false
    }
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  watch([items, outbox], ([shown, now]) => {
    const left = now.filter((one) => !isShown(one, shown))
    if (left.length < now.length) outbox.value = left
  })
  watch(outbox, (now) => {
    const stored = now.map(({ key, content, policy }) => ({ key, content, policy }))
    if (stored.length > 0) sessionStorage.setItem(place, JSON.stringify(stored))
    else sessionStorage.removeItem(place)
  })
  onScopeDispose(() => {
    closed.abort()
    wake()
  })
  void work()

  return {
    outbox,
    put(content, policy) {
      outbox.value = [...outbox.value, { key: crypto.randomUUID(), content, policy, state: 'sending' }]
      void work()
    },
    again(key) {
      change(key, { state: 'sending' })
      void work()
    },
    drop(key) {
      outbox.value = outbox.value.filter((one) => one.key !== key)
    },
    hurry: () => wake(),
  }
}

/** Whether the log shows this message. */
export function isShown(one: Outgoing, items: readonly Item[]): boolean {
  return one.runId !== undefined && items.some((item) => item.kind === 'user' && item.runId === one.runId)
}

/** Whether it may well be different next time. */
function passes(problem: Problem): boolean {
  const { status, retryAfter } = problem
  return status === 0 || status === 408 || status >= 500 || (status === 429 && retryAfter !== undefined)
}

/** Sends the message; answers the id of the run that it starts, with which the answer begins. */
async function deliver(threadId: string, message: Outgoing, closed: AbortSignal): Promise<string> {
  const enough = new AbortController() // a reader that goes away does not stop the run: the log has all of it
  const response = await send(`/api/chat/${encodeURIComponent(threadId)}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'text/event-stream',
      'idempotency-key': message.key,
    },
    body: JSON.stringify({ message: message.content, multitask_strategy: message.policy }),
    signal: AbortSignal.any([closed, enough.signal]),
  })
  try {
    return await firstRun(response)
  } finally {
    enough.abort()
  }
}

async function firstRun(response: Response): Promise<string> {
  let runId: string | undefined
  const parser = createParser({
    onEvent(frame) {
      if (frame.event === 'message_received') runId = (JSON.parse(frame.data) as { run_id: string }).run_id
    },
  })
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  for (;;) {
    const part = await reader?.read()
    if (!part || part.done) throw offline()
    parser.feed(part.value)
    if (runId !== undefined) return runId
  }
}

/** Leaves a message for a thread whose page is about to be opened: that sends it. */
export function putOut(threadId: string, content: string): void {
  const one = { key: crypto.randomUUID(), content, policy: 'enqueue' as const }
  sessionStorage.setItem(placeOf(threadId), JSON.stringify([one]))
}

function placeOf(threadId: string): string {
  return `moorage-outbox:${threadId}`
}

function kept(place: string): Outgoing[] {
  const stored = JSON.parse(sessionStorage.getItem(place) ?? '[]') as Pick<
    Outgoing,
    'key' | 'content' | 'policy'
  >[]
  return stored.map((one) => ({ ...one, state: 'sending' }))
}
