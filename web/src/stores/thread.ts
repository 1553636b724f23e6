import { computed, onScopeDispose, shallowRef, watch, type ComputedRef, type ShallowRef } from 'vue'
import { api } from '@/api/client'
import { follow, type StreamState } from '@/api/eventStream'
import type { ThreadEvent } from '@/api/events'
import { asProblem, type Problem } from '@/api/problem'
import { perFrame } from '@/lib/frames'
import { applyEvents, fromSnapshot, type Snapshot } from '@/state/applyEvent'
import { EMPTY, type ThreadState } from '@/state/thread'
import { useOutbox, type Outgoing, type Policy } from './outbox'
import { refreshSessions, type Session } from './sessions'

export interface ThreadStore {
  threadId: string
  /** All that the log said so far. */
  state: Readonly<ShallowRef<ThreadState>>
  stream: Readonly<ShallowRef<StreamState>>
  session: Readonly<ShallowRef<Session | undefined>>
  /** Why the session cannot be shown. */
  problem: Readonly<ShallowRef<Problem | undefined>>
  /** The stored events are there: what is missing now is not there. */
  caughtUp: Readonly<ShallowRef<boolean>>
  /** The first events are not kept any more: there is only what they led to. */
  partial: Readonly<ShallowRef<boolean>>
  busy: ComputedRef<boolean>
  outbox: Readonly<ShallowRef<readonly Outgoing[]>>
  send: (content: string, policy?: Policy) => void
  sendAgain: (key: string) => void
  dropOutgoing: (key: string) => void
  /** Stops what runs and what waits. */
  stop: () => Promise<void>
  retryNow: () => void
}

/** How long after a stream begins what was stored is taken to be there, or to be under way, in ms. */
const CATCH_UP = 600
const STATE_WAIT = 3000

/**
 * A thread as its event log tells it, from the first event on, and live. The log is the only thing that changes the
 * state: what is sent from here shows when the log has it.
 */
export function useThread(threadId: string): ThreadStore {
  const state = shallowRef<ThreadState>(EMPTY)
  const stream = shallowRef<StreamState>({ kind: 'connecting' })
  const session = shallowRef<Session>()
  const problem = shallowRef<Problem>()
  const caughtUp = shallowRef(false)
  const partial = shallowRef(false)
  let waiting: ThreadEvent[] = []
  let following: { stop: () => void; retry: () => void } = { stop: () => undefined, retry: () => undefined }
  let catching: ReturnType<typeof setTimeout> | undefined
  let closed = false

  const frames = perFrame(() => {
    const events = waiting
    waiting = []
    state.value = applyEvents(state.value, events)
  })

  function begin(after: number): void {
    following = follow(threadId, after, {
      onEvents(events) {
        waiting.push(...events)
        frames.ask()
      },
      onState(now) {
        stream.value = now
        if (now.kind === 'live') catching ??= setTimeout(() => (caughtUp.value = true), CATCH_UP)
        if (now.kind === 'live') outbox.hurry()
        if (now.kind === 'ended') problem.value = now.problem
      },
      onGap: () => void beginFromState(),
    })
  }

  /** The first events are not kept any more: what they led to is. */
  async function beginFromState(): Promise<void> {
    try {
      const snapshot = await api.get('/api/sessions/{thread_id}/state', { path: { thread_id: threadId } })
      if (closed) return
      waiting = []
      state.value = fromSnapshot(snapshot as unknown as Snapshot)
      session.value = snapshot.thread
      partial.value = true
      begin(snapshot.last_seq)
    } catch (error) {
      if (closed) return
      const found = asProblem(error)
      const passes = found.status === 0 || found.status === 429 || found.status >= 500
      if (!passes) {
        problem.value = found
        stream.value = { kind: 'ended', problem: found }
        return
      }
      const ms = Math.max(STATE_WAIT, (found.retryAfter ?? 0) * 1000)
      stream.value = { kind: 'waiting', retryAt: Date.now() + ms, problem: found }
      const timer = setTimeout(() => void beginFromState(), ms)
      following = {
        stop: () => clearTimeout(timer),
        retry() {
          clearTimeout(timer)
          void beginFromState()
        },
      }
    }
  }

  /** Title and status; the stream tells of lost connections, so nothing is said of one here. */
  async function loadSession(): Promise<void> {
    try {
      session.value = await api.get('/api/sessions/{thread_id}', { path: { thread_id: threadId } })
    } catch (error) {
      const found = asProblem(error)
      if (found.status >= 400 && found.status < 500 && found.status !== 429) problem.value = found
    }
  }

  const outbox = useOutbox(threadId, () => state.value.items)
  const runId = computed(() => state.value.run?.id)
  watch([state, session], () => {
    if (session.value && state.value.seq >= session.value.last_seq) caughtUp.value = true
  })
  // Getters: a shallow ref among several sources would make every frame a change (Vue 3.5).
  watch([() => caughtUp.value, () => runId.value, () => state.value.pending], () => {
    if (!caughtUp.value) return
    void loadSession()
    refreshSessions()
  })

  begin(0)
  void loadSession()
  onScopeDispose(() => {
    closed = true
    clearTimeout(catching)
    frames.stop()
    following.stop()
  })

  return {
    threadId,
    state,
    stream,
    session,
    problem,
    caughtUp,
    partial,
    busy: computed(() => runId.value !== undefined),
    outbox: outbox.outbox,
    send: (content, policy = 'enqueue') => outbox.put(content, policy),
    sendAgain: outbox.again,
    dropOutgoing: outbox.drop,
    async stop() {
      session.value = await api.post('/api/sessions/{thread_id}/cancel', { path: { thread_id: threadId } })
    },
    retryNow() {
      following.retry()
      outbox.hurry()
    },
  }
}
