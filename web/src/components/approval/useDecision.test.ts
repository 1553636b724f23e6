// @vitest-environment jsdom
import { effectScope, nextTick, shallowRef } from 'vue'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Interrupt } from '@/state/thread'
import { askedOf, seqOf, type Approval } from '@/stores/approvals'
import { useDecision, type Decision } from './useDecision'

const APPROVAL: Approval = {
  id: 'a'.repeat(32),
  thread_id: 'alice-1',
  run_id: 'run-1',
  call_id: 'call_1',
  tool_name: 'execute',
  tool_input: { command: 'ls' },
  description: 'Run a command in the sandbox',
  allowed_decisions: ['approve', 'edit', 'reject', 'respond'],
  facts: {
    sandbox: 'docker',
    runtime: 'default',
    profile: 'default',
    network: 'none',
    folder: '/workspace',
    limits: { cpus: 1, memory_mb: 1024, pids: 256, disk_mb: 1024, command_seconds: 60 },
  },
  digest: 'one',
  expires_at: '2030-01-01T00:00:00Z',
  agent: 'agent',
  status: 'pending',
}
const APPROVED: Approval = {
  ...APPROVAL,
  status: 'approved',
  decision: { type: 'approve' },
  decided_by: 'alice',
  decided_via: 'api',
  decided_at: '2029-12-31T00:00:00Z',
}

type Reply = { status: number; body: unknown } | 'offline'
let replies: Reply[]
let requests: { url: string; key: string | null; body: unknown }[]
const source = shallowRef<Interrupt>(askedOf(APPROVAL))
let scope = effectScope()

beforeEach(() => {
  replies = []
  requests = []
  source.value = askedOf(APPROVAL)
  scope = effectScope()
  vi.stubGlobal('fetch', async (url: string, request: RequestInit) => {
    if (url.startsWith('/api/approvals?')) return Response.json({ items: [], next_cursor: null }) // the badge
    const body: unknown = typeof request.body === 'string' ? JSON.parse(request.body) : undefined
    requests.push({ url, key: new Headers(request.headers).get('idempotency-key'), body })
    const reply = replies.shift()
    if (reply === undefined || reply === 'offline') throw new TypeError('no network')
    return Response.json(reply.body, { status: reply.status })
  })
})
afterEach(() => {
  scope.stop()
  vi.unstubAllGlobals()
})

const card = (): Decision => scope.run(() => useDecision(() => source.value)) as Decision
const refusal = (status: number, code: string): Reply => ({ status, body: { code, detail: code, status } })

describe('a card', () => {
  it('sends its digest, and shows by whom and when it was decided', async () => {
    replies = [{ status: 200, body: { success: true, run_id: 'run-2', approval: APPROVED } }]
    const one = card()
    expect(await one.answer({ type: 'approve' })).toBe('decided')
    expect(requests[0]?.body).toEqual({ type: 'approve', digest: 'one' })
    expect(one.asked.value).toMatchObject({
      decidedAt: APPROVED.decided_at,
      decision: { by: 'alice', via: 'api' },
    })
    expect(await one.answer({ type: 'reject' })).toBeUndefined()
    expect(requests).toHaveLength(1)
  })

  it('shows the new question when the file changed, and binds the next answer to it', async () => {
    const now = { ...APPROVAL, digest: 'two', diff: '@@ -1 +1 @@\n-a\n+b\n' }
    replies = [refusal(409, 'file_changed'), { status: 200, body: now }]
    const one = card()
    expect(await one.answer({ type: 'approve' })).toBe('changed')
    expect(one.notice.value).toBe('changed')
    expect(one.asked.value.diff).toBe(now.diff)
    replies = [
      { status: 200, body: { success: true, run_id: 'r', approval: { ...APPROVED, digest: 'two' } } },
    ]
    expect(await one.answer({ type: 'approve' })).toBe('decided')
    expect(requests.at(-1)?.body).toEqual({ type: 'approve', digest: 'two' })
    expect(requests.at(-1)?.key).not.toBe(requests[0]?.key)
  })

  it('shows how it was decided elsewhere', async () => {
    replies = [
      refusal(409, 'interrupt_decided'),
      { status: 200, body: { ...APPROVED, decided_via: 'langgraph' } },
    ]
    const one = card()
    expect(await one.answer({ type: 'reject', message: 'no' })).toBe('elsewhere')
    expect(one.notice.value).toBe('elsewhere')
    expect(one.asked.value.decision?.via).toBe('langgraph')
  })

  it('stays answerable after a refusal, whose words belong to the field', async () => {
    replies = [refusal(422, 'invalid_decision')]
    const one = card()
    one.mode.value = 'edit'
    expect(await one.answer({ type: 'edit', args: { command: '' } })).toBe('problem')
    expect(one.fault.value).toBe('invalid_decision')
    expect(one.mode.value).toBe('edit')
    expect(one.asked.value.decision).toBeUndefined()
  })

  it('keeps what was answered while offline, and sends the same request again', async () => {
    replies = ['offline', { status: 200, body: { success: true, run_id: 'r', approval: APPROVED } }]
    const one = card()
    expect(await one.answer({ type: 'approve' })).toBe('problem')
    expect(one.problem.value?.offline).toBe(true)
    expect(await one.again()).toBe('decided')
    expect(requests[1]).toEqual(requests[0])
  })

  it('follows its thread: a new digest is a new question, an older view changes nothing', async () => {
    const one = card()
    one.mode.value = 'reject'
    source.value = { ...source.value, seq: 9 }
    await nextTick()
    expect(one.mode.value).toBe('reject')
    expect(one.notice.value).toBeUndefined()
    source.value = { ...source.value, digest: 'two' }
    await nextTick()
    expect(one.mode.value).toBe('view')
    expect(one.notice.value).toBe('changed')
    source.value = askedOf(APPROVED)
    await nextTick()
    source.value = askedOf(APPROVAL)
    await nextTick()
    expect(one.asked.value.decision?.type).toBe('approve')
  })
})

describe('askedOf', () => {
  it('tells how what nobody answered came to its end', () => {
    const via = (status: Approval['status']) => askedOf({ ...APPROVAL, status }).decision?.via
    expect((['pending', 'expired', 'cancelled', 'superseded'] as const).map(via)).toEqual([
      undefined,
      'expired',
      'cancel',
      'superseded',
    ])
    const edited = askedOf({
      ...APPROVED,
      status: 'edited',
      decision: { type: 'edit', args: { command: 'pwd' } },
    })
    expect(edited.decision?.executedInput).toEqual({ command: 'pwd' })
  })
})

describe('seqOf', () => {
  it('takes the seq of events, or asks the thread whether it holds nothing else', async () => {
    const shown = [askedOf(APPROVAL)]
    expect(await seqOf('alice-1', [{ ...askedOf(APPROVAL), seq: 7 }])).toBe(7)
    const state = (pending: Approval[]) => ({
      status: 200,
      body: { last_seq: 12, pending, messages: [], thread: {} },
    })
    replies = [state([APPROVAL]), state([APPROVAL, { ...APPROVAL, id: 'b', digest: 'other' }])]
    expect(await seqOf('alice-1', shown)).toBe(12)
    expect(await seqOf('alice-1', shown)).toBeUndefined()
  })
})
