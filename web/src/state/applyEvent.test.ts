import { describe, expect, it } from 'vitest'
import type { EventData, EventType, ThreadEvent } from '@/api/events'
import { applyEvent, applyEvents, fromSnapshot } from './applyEvent'
import { type CallItem, EMPTY, type MessageItem, type ThreadState, type UserItem } from './thread'

const FILES = import.meta.glob<string>('../../../tests/recordings/*.jsonl', {
  query: '?raw',
  import: 'default',
  eager: true,
})
const SCENES = new Map(
  Object.entries(FILES).map(([path, text]) => [path.replace(/^.*\/|\.jsonl$/g, ''), text]),
)

function recorded(scene: string): ThreadEvent[] {
  const lines = SCENES.get(scene)?.trim().split('\n') ?? []
  expect(lines.length).toBeGreaterThan(0)
  return lines.map((line) => JSON.parse(line) as ThreadEvent)
}

const replay = (scene: string): ThreadState => applyEvents(EMPTY, recorded(scene))
const calls = (state: ThreadState): CallItem[] => state.items.filter((item) => item.kind === 'call')
const messages = (state: ThreadState): MessageItem[] => state.items.filter((item) => item.kind === 'message')
const users = (state: ThreadState): UserItem[] => state.items.filter((item) => item.kind === 'user')

let seq = 0
function event<T extends EventType>(type: T, data: EventData[T]): ThreadEvent {
  return { seq: ++seq, type, data } as ThreadEvent
}
function after(...events: ThreadEvent[]): ThreadState {
  return applyEvents(EMPTY, events)
}
const received = (run: string, content = 'hi') =>
  event('message_received', { message_id: `m-${run}`, run_id: run, thread_id: 't', content })
const started = (run: string, attempt?: number) =>
  event('agent_start', { run_id: run, agent: 'agent', ...(attempt ? { attempt } : {}) })
const said = (id: string, content_delta: string) =>
  event('content_stream', { message_id: id, content_delta, agent: 'agent' })
const ended = (run: string, status: EventData['run_end']['status'] = 'success') =>
  event('run_end', { run_id: run, status, usage: {} })
const called = (call_id: string) =>
  event('tool_call', {
    call_id,
    message_id: 'a',
    tool_name: 'execute',
    tool_input: { command: 'ls' },
    agent: 'agent',
  })

describe.each([...SCENES.keys()])('the recording %s', (scene) => {
  const events = recorded(scene)

  it('gives the same state in one piece, event by event, and twice over', () => {
    const whole = applyEvents(EMPTY, events)
    expect(events.reduce(applyEvent, EMPTY)).toEqual(whole)
    expect(applyEvents(whole, events)).toBe(whole)
  })

  it('gives the same state wherever the stream broke', () => {
    const whole = applyEvents(EMPTY, events)
    for (let cut = 0; cut <= events.length; cut++) {
      const before = applyEvents(EMPTY, events.slice(0, cut))
      expect(applyEvents(before, events.slice(Math.max(0, cut - 2)))).toEqual(whole)
    }
  })

  it('never changes a state that somebody has', () => {
    let state = EMPTY
    for (const one of events) {
      const frozen = structuredClone(state)
      const next = applyEvent(state, one)
      expect(state).toEqual(frozen)
      state = next
    }
  })

  it('leaves nothing going on', () => {
    const state = applyEvents(EMPTY, events)
    expect(state.run).toBeUndefined()
    expect(state.pending).toEqual([])
    expect(calls(state).filter((call) => call.status === 'running' || call.status === 'waiting')).toEqual([])
    expect(messages(state).every((message) => message.complete)).toBe(true)
  })
})

describe('what a recording shows', () => {
  it('shows both turns of a talk', () => {
    const state = replay('hello')
    expect(users(state).map((item) => item.content)).toEqual(['hello', 'and again'])
    expect(messages(state).at(-1)?.content).toContain('We have spoken before')
  })

  it('keeps reasoning apart from what is said', () => {
    const [message] = messages(replay('reasoning'))
    expect(message?.thinking).toContain('Pairs from both ends')
    expect(message?.content).toBe('The sum is 5050.')
  })

  it('shows a plan, an approved write and a command with its output', () => {
    const state = replay('demo')
    expect(state.todos.every((todo) => todo.status === 'completed')).toBe(true)
    expect([...state.interrupts.values()].map((asked) => asked.decision?.type)).toEqual([
      'approve',
      'approve',
    ])
    const command = calls(state).find((call) => call.toolName === 'execute')
    expect(command?.status).toBe('success')
    expect(command?.output.map((part) => part.text).join('')).not.toBe('')
  })

  it('keeps two calls of one message apart, by their ids', () => {
    const [edited, rejected] = calls(replay('edit-and-reject'))
    expect(edited?.input).toEqual({ command: 'echo one' })
    expect(edited?.executedInput).toEqual({ command: 'echo ONE' })
    expect(edited?.status).toBe('success')
    expect(rejected?.status).toBe('rejected')
    expect(rejected?.decision).toMatchObject({ type: 'reject', message: 'not this one', by: 'alice' })
  })

  it('shows what a sub-agent did below the call that started it', () => {
    const state = replay('subagent')
    const task = calls(state).find((call) => call.toolName === 'task')
    const below = state.items.filter((item) => 'parentCallId' in item && item.parentCallId === task?.callId)
    expect(below.map((item) => item.kind)).toEqual(['call', 'call', 'message'])
  })

  it('tells that a rule decided', () => {
    const [, second] = calls(replay('remembered'))
    expect(second?.decision?.via).toBe('rule:rule-0')
    expect(second?.status).toBe('success')
  })

  it('gives each of two calls with the same id its own result', () => {
    const outputs = calls(replay('repeated-ids')).map((call) => call.result)
    expect(outputs[0]).toContain('first')
    expect(outputs[1]).toContain('second')
  })

  it('tells who ended what waited', () => {
    expect(calls(replay('cancelled'))[0]?.decision?.via).toBe('cancel')
    expect(calls(replay('superseded'))[0]?.status).toBe('rejected')
  })

  it('shows the error of a run that failed', () => {
    const state = replay('failed')
    expect(state.items.find((item) => item.kind === 'error')).toMatchObject({ code: 'model_unauthorized' })
    expect(state.lastStatus).toBe('error')
  })
})

describe('what no scene shows', () => {
  it('drops what a lost server had not finished saying', () => {
    const state = after(
      received('r'),
      started('r'),
      said('a', 'half a sen'),
      started('r', 2),
      said('b', 'Again.'),
    )
    expect(messages(state).map((message) => message.content)).toEqual(['Again.'])
    expect(state.run).toEqual({ id: 'r', attempt: 2 })
  })

  it('keeps what a lost server had finished saying', () => {
    const state = after(received('r'), started('r'), said('a', 'I call. '), called('c'), started('r', 2))
    expect(messages(state).map((message) => message.content)).toEqual(['I call. '])
  })

  it('shows a message as queued until its run begins', () => {
    const waiting = after(received('one'), started('one'), received('two'))
    expect(users(waiting).map((item) => item.queued)).toEqual([false, true])
    const between = applyEvent(waiting, ended('one'))
    expect(between.run?.id).toBe('two')
    expect(users(applyEvent(between, started('two'))).map((item) => item.queued)).toEqual([false, false])
  })

  it('forgets a queued message’s run that was cancelled before it began', () => {
    const state = after(received('one'), started('one'), received('two'), ended('two', 'cancelled'))
    expect(state.run?.id).toBe('one')
    expect(users(state).map((item) => item.queued)).toEqual([false, false])
  })

  it('asks again when the file changed meanwhile: same question, new digest', () => {
    const [first] = recorded('demo').filter((one) => one.type === 'interrupt')
    if (first?.type !== 'interrupt') throw new Error('no interrupt')
    const again = structuredClone(first)
    again.data.interrupts.forEach((asked) => (asked.digest = 'another'))
    const state = applyEvents(EMPTY, [
      { ...first, seq: 1 },
      { ...again, seq: 2 },
    ])
    expect([...state.interrupts.values()].map((asked) => [asked.digest, asked.seq])).toEqual([['another', 2]])
  })

  it('says that a call’s outcome is not known when its run ended without telling', () => {
    const state = after(received('r'), started('r'), called('c'), ended('r', 'timeout'))
    expect(calls(state)[0]?.status).toBe('outcome_unknown')
  })

  it('marks output that was cut', () => {
    const told = { call_id: 'c', stream: 'stdout' as const, agent: 'agent' }
    const state = after(
      received('r'),
      started('r'),
      called('c'),
      event('tool_output', { ...told, delta: 'a' }),
      event('tool_output', { ...told, delta: 'b' }),
      event('tool_output', { ...told, truncated: true }),
    )
    expect(calls(state)[0]?.output).toEqual([{ stream: 'stdout', text: 'ab' }])
    expect(calls(state)[0]?.truncated).toBe(true)
  })
})

it('builds a thread from its history when its first events are gone', () => {
  const state = fromSnapshot({
    thread: { run_status: 'interrupted' },
    messages: [
      { id: '1', run_id: 'r', role: 'user', content: 'do it' },
      {
        id: '2',
        run_id: 'r',
        role: 'assistant',
        content: 'So be it.',
        thinking: 'hm',
        tool_calls: [{ call_id: 'c', tool_name: 'ls', tool_input: { path: '/' } }],
      },
      { id: '3', run_id: 'r', role: 'tool', content: 'a.txt', call_id: 'c' },
    ],
    pending: [],
    last_seq: 77,
  })
  expect(state.seq).toBe(77)
  expect(state.run).toBeUndefined()
  expect(state.items.map((item) => item.kind)).toEqual(['user', 'message', 'call'])
  expect(calls(state)[0]).toMatchObject({ status: 'finished', result: 'a.txt' })
  expect(messages(state)[0]).toMatchObject({ content: 'So be it.', thinking: 'hm', complete: true })
})
