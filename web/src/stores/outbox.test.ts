// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { effectScope, shallowRef, type EffectScope } from 'vue'
import type { Item } from '@/state/thread'
import { putOut, useOutbox } from './outbox'

const THREAD = 'alice-1'

/** What the server is asked, and answers in turn. */
let asked: { key: string | null; message: string }[]
let answers: (() => Response | Promise<Response>)[]
let scope: EffectScope

function accepted(runId: string): Response {
  const data = JSON.stringify({ message_id: 'm', run_id: runId, thread_id: THREAD, content: '' })
  return new Response(`id: 1\nevent: message_received\ndata: ${data}\n\n`)
}

function refused(status: number, code: string): Response {
  return new Response(JSON.stringify({ code, detail: code }), { status })
}

function lost(): Promise<Response> {
  return Promise.reject(new TypeError('Failed to fetch'))
}

function open(items = shallowRef<readonly Item[]>([])) {
  const outbox = scope.run(() => useOutbox(THREAD, () => items.value))
  if (!outbox) throw new Error('the scope has ended')
  return { ...outbox, items }
}

function userItem(runId: string): Item {
  return { kind: 'user', key: runId, runId, content: '', queued: false }
}

beforeEach(() => {
  asked = []
  answers = []
  scope = effectScope()
  sessionStorage.clear()
  vi.stubGlobal('fetch', (_url: string, request: RequestInit) => {
    const { message } = JSON.parse(String(request.body)) as { message: string }
    asked.push({ key: new Headers(request.headers).get('idempotency-key'), message })
    const next = answers.shift()
    return next ? next() : new Promise(() => undefined)
  })
})

afterEach(() => {
  scope.stop()
  vi.unstubAllGlobals()
})

describe('useOutbox', () => {
  it('keeps a message until the log shows the run that it started', async () => {
    answers = [() => accepted('r1')]
    const { outbox, put, items } = open()
    put('hi', 'enqueue')
    await vi.waitFor(() => expect(outbox.value[0]?.runId).toBe('r1'))
    items.value = [userItem('another')]
    await vi.waitFor(() => expect(outbox.value).toHaveLength(1))
    items.value = [userItem('r1')]
    await vi.waitFor(() => expect(outbox.value).toEqual([]))
    await vi.waitFor(() => expect(sessionStorage.length).toBe(0))
  })

  it('sends a message again with the same key when the connection was lost', async () => {
    answers = [lost, () => accepted('r1')]
    const { outbox, put, hurry } = open()
    put('hi', 'enqueue')
    await vi.waitFor(() => expect(outbox.value[0]?.state).toBe('waiting'))
    hurry()
    await vi.waitFor(() => expect(outbox.value[0]?.runId).toBe('r1'))
    expect(asked.map((one) => one.key)).toEqual([outbox.value[0]?.key, outbox.value[0]?.key])
  })

  it('sends a second message only when the server has the first', async () => {
    answers = [lost, () => accepted('r1'), () => accepted('r2')]
    const { outbox, put, hurry } = open()
    put('first', 'enqueue')
    put('second', 'enqueue')
    await vi.waitFor(() => expect(outbox.value[0]?.state).toBe('waiting'))
    hurry()
    await vi.waitFor(() => expect(outbox.value[1]?.runId).toBe('r2'))
    expect(asked.map((one) => one.message)).toEqual(['first', 'first', 'second'])
  })

  it('shows why a message was refused, and tries again only when asked to', async () => {
    answers = [() => refused(409, 'session_closed'), () => accepted('r1')]
    const { outbox, put, again } = open()
    put('hi', 'enqueue')
    await vi.waitFor(() => expect(outbox.value[0]?.problem?.code).toBe('session_closed'))
    expect(asked).toHaveLength(1)
    again(outbox.value[0]?.key ?? '')
    await vi.waitFor(() => expect(outbox.value[0]?.runId).toBe('r1'))
  })

  it('goes on after a reload with what the page before could not send', async () => {
    answers = [lost]
    const before = open()
    before.put('hi', 'enqueue')
    await vi.waitFor(() => expect(before.outbox.value[0]?.state).toBe('waiting'))
    scope.stop()
    scope = effectScope()
    answers = [() => accepted('r1')]
    const { outbox } = open()
    await vi.waitFor(() => expect(outbox.value[0]?.runId).toBe('r1'))
    expect(asked[1]?.key).toBe(asked[0]?.key)
  })

  it('sends what was left for a thread before its page opened', async () => {
    answers = [() => accepted('r1')]
    putOut(THREAD, 'from the home page')
    const { outbox } = open()
    await vi.waitFor(() => expect(outbox.value[0]?.runId).toBe('r1'))
    expect(asked[0]?.message).toBe('from the home page')
  })
})
