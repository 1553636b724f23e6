import { describe, expect, it } from 'vitest'
import type { CallItem, EndItem, Item, MessageItem, UserItem } from '@/state/thread'
import { placeOfCall, tellingArgument, timeline } from './timeline'

function call(callId: string, toolName: string, more: Partial<CallItem> = {}): CallItem {
  return {
    kind: 'call',
    key: `key:${callId}:${toolName}`,
    runId: 'r',
    callId,
    toolName,
    input: {},
    agent: 'agent',
    parentCallId: undefined,
    status: 'success',
    output: [],
    truncated: false,
    result: '',
    exitCode: undefined,
    durationMs: 1,
    executedInput: undefined,
    interruptId: undefined,
    decision: undefined,
    ...more,
  }
}

const user: UserItem = { kind: 'user', key: 'u', runId: 'r', content: 'hi', queued: false }

function message(key: string, content: string, parentCallId?: string): MessageItem {
  return {
    kind: 'message',
    key,
    runId: 'r',
    agent: 'agent',
    parentCallId,
    content,
    thinking: '',
    complete: true,
    metadata: {},
  }
}

function end(status: EndItem['status']): EndItem {
  return { kind: 'end', key: `end:${status}`, runId: 'r', status, usage: {}, rolledBack: false }
}

function shape(items: Item[]): unknown[] {
  return timeline(items).map((entry) =>
    entry.kind === 'reads' ? entry.calls.map((c) => c.callId) : entry.key,
  )
}

describe('timeline', () => {
  it('puts consecutive reads in one group, which anything else ends', () => {
    const items = [user, call('a', 'ls'), call('b', 'read_file'), call('c', 'execute'), call('d', 'grep')]
    expect(shape(items)).toEqual(['u', ['a', 'b'], 'key:c:execute', ['d']])
  })

  it('keeps the key of a group that grows', () => {
    const [short] = timeline([call('a', 'ls')])
    const [long] = timeline([call('a', 'ls'), call('b', 'ls')])
    expect(long?.key).toBe(short?.key)
  })

  it('shows what a sub-agent did below the call that started it, at any depth', () => {
    const entries = timeline([
      call('t', 'task'),
      message('m', 'inside', 't'),
      call('t2', 'task', { parentCallId: 't' }),
      message('m2', 'deeper', 't2'),
      message('after', 'outside'),
    ])
    expect(entries.map((entry) => entry.key)).toEqual(['key:t:task', 'after'])
    const [task] = entries
    if (task?.kind !== 'call') throw new Error('the task is missing')
    expect(task.children.map((child) => child.key)).toEqual(['m', 'key:t2:task'])
    const inner = task.children[1]
    expect(inner?.kind === 'call' && inner.children.map((child) => child.key)).toEqual(['m2'])
  })

  it('takes the latest of the calls with one id as the parent', () => {
    const entries = timeline([
      call('call_1', 'task', { key: 'first' }),
      call('call_1', 'task', { key: 'second' }),
      message('m', 'x', 'call_1'),
    ])
    expect(entries.map((entry) => (entry.kind === 'call' ? entry.children.length : -1))).toEqual([0, 1])
  })

  it('shows what belongs to a call that nobody told of at the root', () => {
    expect(shape([message('m', 'x', 'unknown')])).toEqual(['m'])
  })

  it('tells of a run’s end only when nothing else does', () => {
    const statuses = ['success', 'interrupted', 'error', 'cancelled', 'timeout'] as const
    expect(shape(statuses.map(end))).toEqual(['end:cancelled', 'end:timeout'])
  })

  it('leaves out a message without any word', () => {
    expect(shape([message('m', '')])).toEqual([])
  })

  it('finds the entry of a question, also of a sub-agent’s', () => {
    const entries = timeline([
      user,
      call('t', 'task'),
      call('x', 'execute', { parentCallId: 't', interruptId: 'i' }),
    ])
    expect(placeOfCall(entries, 'i')).toBe(1)
    expect(placeOfCall(entries, 'other')).toBe(-1)
  })
})

describe('tellingArgument', () => {
  it('is the command, the path or the pattern, on one line', () => {
    expect(tellingArgument(call('a', 'execute', { input: { command: 'a\n  b', timeout: 5 } }))).toBe('a b')
    expect(tellingArgument(call('a', 'write_file', { input: { content: 'x', file_path: '/w/a' } }))).toBe(
      '/w/a',
    )
    expect(tellingArgument(call('a', 'grep', { input: { path: '/w', pattern: 'foo' } }))).toBe('foo')
    expect(tellingArgument(call('a', 'unknown', { input: { count: 1, name: 'n' } }))).toBe('n')
  })

  it('is that of what was executed', () => {
    const changed = call('a', 'execute', { input: { command: 'a' }, executedInput: { command: 'b' } })
    expect(tellingArgument(changed)).toBe('b')
  })
})
