// @vitest-environment jsdom
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { effectScope } from 'vue'
import { json, serve } from '@/api/testServer'
import { useThread } from './thread'

const bytes = new TextEncoder()
const frame = (id: number, type: string, data: object) =>
  bytes.encode(`id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`)

beforeEach(() => vi.useFakeTimers())
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

it('asks the server nothing while a message streams', async () => {
  let tell: (frame: Uint8Array) => void = () => undefined
  const events = new ReadableStream({ start: (stream) => void (tell = (part) => stream.enqueue(part)) })
  const session = { thread_id: 't', last_seq: 0, title: '', run_status: 'idle' }
  const asked = serve({
    '/api/sessions/t/events': [() => new Response(events)],
    '/api/sessions/t': [() => json(session)],
    '/api/sessions': [() => json({ items: [], next_cursor: null, total: 0 })],
  })
  const scope = effectScope()
  const thread = scope.run(() => useThread('t'))
  await vi.advanceTimersByTimeAsync(5000)
  tell(frame(1, 'message_received', { message_id: 'u', run_id: 'r', thread_id: 't', content: 'hi' }))
  tell(frame(2, 'agent_start', { run_id: 'r', agent: 'agent' }))
  await vi.advanceTimersByTimeAsync(1000)
  const before = asked.length
  for (let seq = 3; seq < 53; seq++) {
    tell(frame(seq, 'content_stream', { message_id: 'm', content_delta: `${seq} `, agent: 'agent' }))
    await vi.advanceTimersByTimeAsync(50)
  }
  expect(thread?.state.value.seq).toBe(52)
  expect(asked.slice(before).map((one) => one.url)).toEqual([])
  tell(frame(53, 'run_end', { run_id: 'r', status: 'success', usage: {} }))
  await vi.advanceTimersByTimeAsync(50)
  expect(asked.length).toBeGreaterThan(before)
  scope.stop()
})
