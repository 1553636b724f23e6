// @vitest-environment jsdom
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import type { ThreadEvent } from './events'
import { follow, type StreamState } from './eventStream'
import { refusal, serve, stream, type Asked } from './testServer'

const EVENTS = '/api/sessions/t/events'
const frame = (id: number, text = String(id)) =>
  `id: ${id}\nevent: content_stream\ndata: {"message_id":"m","content_delta":"${text}","agent":"a"}\n\n`
const closed = (reason: string) => `event: stream_closed\ndata: {"reason":"${reason}","last_seq":2}\n\n`

let stops: (() => void)[] = []

beforeEach(() => vi.useFakeTimers())
afterEach(() => {
  stops.forEach((stop) => stop())
  stops = []
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

interface Heard {
  asked: Asked[]
  seqs: number[]
  states: StreamState['kind'][]
  last: () => StreamState | undefined
  gap: ReturnType<typeof vi.fn>
  retry: () => void
}

async function listen(answers: ((asked: Asked) => Response)[], after = 0): Promise<Heard> {
  const asked = serve({ [EVENTS]: answers })
  const events: ThreadEvent[] = []
  const states: StreamState[] = []
  const gap = vi.fn()
  const { stop, retry } = follow('t', after, {
    onEvents: (more) => events.push(...more),
    onState: (state) => states.push(state),
    onGap: gap,
  })
  stops.push(stop)
  await vi.advanceTimersByTimeAsync(10)
  return {
    asked,
    gap,
    retry,
    last: () => states.at(-1),
    get seqs() {
      return events.map((event) => event.seq)
    },
    get states() {
      return states.map((state) => state.kind)
    },
  }
}

it('reads frames however the bytes come', async () => {
  const text = frame(1, 'grüß 你好') + ': heartbeat\n\n' + frame(2)
  const pieces = [text.slice(0, 30), text.slice(30, 31), text.slice(31)]
  const heard = await listen([({ signal }) => stream(pieces, signal)])
  expect(heard.seqs).toEqual([1, 2])
  expect(heard.states).toEqual(['connecting', 'live'])
})

it('comes back for the exact rest when the connection breaks, and takes nothing twice', async () => {
  const heard = await listen([
    () => stream([frame(1), frame(2)]),
    ({ signal }) => stream([frame(2), frame(3)], signal),
  ])
  await vi.advanceTimersByTimeAsync(1000)
  expect(heard.asked.map((one) => one.url)).toEqual([`${EVENTS}?after=0`, `${EVENTS}?after=2`])
  expect(heard.seqs).toEqual([1, 2, 3])
})

it('comes back when the server restarts', async () => {
  const heard = await listen([
    () => stream([frame(1), closed('server_restart')]),
    ({ signal }) => stream([frame(2)], signal),
  ])
  await vi.advanceTimersByTimeAsync(1000)
  expect(heard.seqs).toEqual([1, 2])
})

it('says when it tries again, later each time, and at once when told to', async () => {
  const heard = await listen([() => refusal(503, 'server_stopping', { 'retry-after': '30' })])
  const state = heard.last()
  expect(state?.kind).toBe('waiting')
  if (state?.kind === 'waiting') expect(state.retryAt - Date.now()).toBeGreaterThan(29_000)
  heard.retry()
  await vi.advanceTimersByTimeAsync(10)
  expect(heard.asked).toHaveLength(2)
})

it('tells what ends it: there is nothing to wait for', async () => {
  const heard = await listen([() => refusal(403, 'permission_denied')])
  expect(heard.last()).toMatchObject({ kind: 'ended', problem: { status: 403 } })
  await vi.advanceTimersByTimeAsync(60_000)
  expect(heard.asked).toHaveLength(1)
})

it('says so when what it asked for is not kept any more', async () => {
  const heard = await listen([() => stream([closed('gap')])], 5)
  expect(heard.gap).toHaveBeenCalledOnce()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(heard.asked).toHaveLength(1)
})

it('gives up a connection on which nothing comes, not even a heartbeat', async () => {
  const heard = await listen([
    ({ signal }) => stream([frame(1)], signal),
    ({ signal }) => stream([frame(2)], signal),
  ])
  await vi.advanceTimersByTimeAsync(50_000)
  expect(heard.asked.length).toBeGreaterThan(1)
})
