import { createParser } from 'eventsource-parser'
import { send } from './client'
import { asProblem, Problem } from './problem'
import type { ThreadEvent } from './events'

/** How a stream is doing. `retryAt` (ms since the epoch) is when the next attempt to reach the server begins. */
export type StreamState =
  | { kind: 'connecting' }
  | { kind: 'live' }
  | { kind: 'waiting'; retryAt: number; problem: Problem }
  | { kind: 'ended'; problem: Problem }

export interface Followed {
  /** Events in their order, as many as came at once. */
  onEvents: (events: ThreadEvent[]) => void
  onState: (state: StreamState) => void
  /** What was asked for is not kept any more: load the state, and follow from there. */
  onGap: () => void
}

const FIRST_WAIT = 500
const LONGEST_WAIT = 15_000
/** A heartbeat comes every 15 s: a connection that is silent for longer is dead, whatever the system thinks. */
const SILENCE = 40_000

/**
 * Follow a thread's events after `after` until stopped: over lost connections, servers that restart and tokens that run
 * out, without a gap or a copy.
 */
export function follow(
  threadId: string,
  after: number,
  to: Followed,
): { stop: () => void; retry: () => void } {
  const stopped = new AbortController()
  let lastSeq = after
  let wait = FIRST_WAIT
  let wake: () => void = () => undefined

  async function run(): Promise<void> {
    while (!stopped.signal.aborted) {
      to.onState({ kind: 'connecting' })
      try {
        const reason = await readOnce()
        if (reason === 'gap') return to.onGap()
        // The server said when to come back, or the connection ended: at once, but not in a tight loop.
        await pause(reason === undefined ? wait : Math.min(wait, FIRST_WAIT))
      } catch (error) {
        if (stopped.signal.aborted) return
        const problem = asProblem(error)
        if (
          problem.status !== 0 &&
          problem.status !== 429 &&
          problem.status < 500 &&
          problem.status !== 408
        ) {
          return to.onState({ kind: 'ended', problem })
        }
        const ms = Math.max(wait * (0.75 + Math.random() / 2), (problem.retryAfter ?? 0) * 1000)
        to.onState({ kind: 'waiting', retryAt: Date.now() + ms, problem })
        wait = Math.min(wait * 2, LONGEST_WAIT)
        await pause(ms)
      }
    }
  }

  /** Reads one connection to its end; answers why the server closed it, if it said so. */
  async function readOnce(): Promise<string | undefined> {
    const lost = new AbortController()
    const signal = AbortSignal.any([stopped.signal, lost.signal])
    let reason: string | undefined
    let batch: ThreadEvent[] = []
    const parser = createParser({
      onEvent(frame) {
        const data: unknown = JSON.parse(frame.data)
        if (frame.event === 'stream_closed') {
          reason = (data as { reason: string }).reason
        } else {
          const seq = Number(frame.id)
          if (seq > lastSeq) batch.push({ seq, type: frame.event, data } as ThreadEvent)
          lastSeq = Math.max(lastSeq, seq)
        }
      },
    })
    let timer = setTimeout(() => lost.abort(), SILENCE)
    try {
      const response = await send(`/api/sessions/${encodeURIComponent(threadId)}/events?after=${lastSeq}`, {
        headers: { accept: 'text/event-stream' },
        signal,
      })
      if (!response.body) throw new Problem(0, 'offline', 'The answer has no body')
      to.onState({ kind: 'live' })
      wait = FIRST_WAIT
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return reason
        clearTimeout(timer)
        timer = setTimeout(() => lost.abort(), SILENCE)
        parser.feed(value)
        if (batch.length > 0) {
          to.onEvents(batch)
          batch = []
        }
      }
    } catch (error) {
      if (stopped.signal.aborted) throw error
      if (error instanceof Problem) throw error
      return reason // the connection broke: come back for the rest
    } finally {
      clearTimeout(timer)
    }
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, ms)
      function done(): void {
        clearTimeout(timer)
        window.removeEventListener('online', done)
        stopped.signal.removeEventListener('abort', done)
        resolve()
      }
      wake = done
      window.addEventListener('online', done)
      stopped.signal.addEventListener('abort', done)
    })
  }

  void run()
  return { stop: () => stopped.abort(), retry: () => wake() }
}
