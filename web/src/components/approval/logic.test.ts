// @vitest-environment jsdom
import { describe, expect, it } from 'vitest'
import type { Facts } from '@/api/events'
import type { Interrupt } from '@/state/thread'
import { actOf, decisionBody, keyAction, rememberChoices, secondsUntil, viaKind } from './logic'

const FACTS: Facts = {
  sandbox: 'docker',
  runtime: 'default',
  network: 'none',
  folder: '/workspace',
  limits: {},
}

function asked(
  tool_name: string,
  tool_input: Record<string, unknown>,
  more: Partial<Interrupt> = {},
): Interrupt {
  return {
    id: '0'.repeat(32),
    call_id: 'call_1',
    tool_name,
    tool_input,
    description: '',
    allowed_decisions: ['approve', 'edit', 'reject', 'respond'],
    facts: FACTS,
    digest: 'abc',
    expires_at: '2030-01-01T00:00:00Z',
    seq: 1,
    runId: 'run',
    decision: undefined,
    ...more,
  }
}

describe('keyAction', () => {
  const card = { armed: true, mode: 'view', allowed: ['approve', 'edit', 'reject'] } as const
  const key = (name: string, more: Partial<KeyboardEvent> = {}) => ({
    key: name,
    ctrlKey: false,
    metaKey: false,
    altKey: false,
    shiftKey: false,
    repeat: false,
    isComposing: false,
    defaultPrevented: false,
    target: document.createElement('button') as EventTarget | null,
    ...more,
  })

  it('knows A, E and R', () => {
    expect(['a', 'e', 'r', 'x', 'A', 'Enter'].map((name) => keyAction(key(name), card))).toEqual([
      'approve',
      'edit',
      'reject',
      undefined,
      undefined,
      undefined,
    ])
  })

  it('is deaf at first, while something is filled in, and to what is not allowed', () => {
    expect(keyAction(key('a'), { ...card, armed: false })).toBeUndefined()
    for (const mode of ['edit', 'reject', 'respond', 'remember'] as const)
      expect(keyAction(key('a'), { ...card, mode })).toBeUndefined()
    expect(keyAction(key('e'), { ...card, allowed: ['approve'] })).toBeUndefined()
  })

  it('is deaf to modifiers, held keys, input methods and what others have handled', () => {
    for (const name of [
      'ctrlKey',
      'metaKey',
      'altKey',
      'shiftKey',
      'repeat',
      'isComposing',
      'defaultPrevented',
    ])
      expect(keyAction(key('a', { [name]: true }), card)).toBeUndefined()
  })

  it('is deaf to what is typed into a field', () => {
    for (const tag of ['input', 'textarea', 'select'])
      expect(keyAction(key('a', { target: document.createElement(tag) }), card)).toBeUndefined()
    const box = document.createElement('div')
    box.setAttribute('role', 'combobox')
    const inside = document.createElement('span')
    box.append(inside)
    expect(keyAction(key('a', { target: inside }), card)).toBeUndefined()
  })
})

describe('rememberChoices', () => {
  it('offers prefixes of plain commands only', () => {
    expect(rememberChoices(asked('execute', { command: 'git status' }))?.prefix?.least).toBe(1)
    expect(rememberChoices(asked('execute', { command: 'a | b' }))).toEqual({
      prefix: undefined,
      paths: undefined,
    })
  })

  it('offers the file and the folders above it, and never the root', () => {
    expect(rememberChoices(asked('write_file', { file_path: '/workspace/a/b.txt' }))?.paths).toEqual([
      '/workspace/a/b.txt',
      '/workspace/a',
      '/workspace',
    ])
    expect(rememberChoices(asked('delete', { file_path: '/workspace/../x' }))?.paths).toEqual([
      '/workspace/../x',
    ])
    for (const file_path of ['a.txt', '/a\\b', 7])
      expect(rememberChoices(asked('edit_file', { file_path }))?.paths).toBeUndefined()
  })

  it('offers nothing for what deserves a look each time', () => {
    const warnings = [{ field: 'command', characters: ['U+200B'], count: 1 }]
    for (const facts of [
      { ...FACTS, warnings },
      { ...FACTS, risks: ['deletes_recursively'] },
    ])
      expect(rememberChoices(asked('execute', { command: 'ls' }, { facts }))).toBeUndefined()
    const nothing = asked('execute', { command: 'ls' }, { allowed_decisions: ['edit', 'respond'] })
    expect(rememberChoices(nothing)).toBeUndefined()
    const quiet = { ...FACTS, warnings: [], risks: [] }
    expect(rememberChoices(asked('execute', { command: 'ls' }, { facts: quiet }))).toBeDefined()
  })
})

describe('decisionBody', () => {
  const call = asked('execute', { command: 'ls' })

  it('always holds the digest of what was shown', () => {
    expect(decisionBody(call, { type: 'approve' })).toEqual({ type: 'approve', digest: 'abc' })
    expect(decisionBody(call, { type: 'edit', args: { command: 'pwd' } })).toEqual({
      type: 'edit',
      digest: 'abc',
      edited_action: { name: 'execute', args: { command: 'pwd' } },
    })
  })

  it('holds a message and a rule only where they belong', () => {
    expect(decisionBody(call, { type: 'reject', message: '  ' })).toEqual({ type: 'reject', digest: 'abc' })
    expect(decisionBody(call, { type: 'reject', message: ' no ' }).message).toBe('no')
    expect(decisionBody(call, { type: 'approve', message: 'x' }).message).toBeUndefined()
    const remember = { match: 'same', expires_in_seconds: 3600 } as const
    expect(decisionBody(call, { type: 'approve', remember }).remember).toEqual(remember)
    expect(decisionBody(call, { type: 'respond', message: 'x', remember }).remember).toBeUndefined()
  })
})

it('names acts and ways', () => {
  expect(['execute', 'delete', 'task'].map(actOf)).toEqual(['execute', 'delete', 'other'])
  expect(['rule:123', 'api'].map(viaKind)).toEqual(['rule', 'api'])
})

it('counts down to nothing', () => {
  const end = '2030-01-01T00:00:10Z'
  const at = (text: string) => new Date(text).getTime()
  expect(secondsUntil(end, at('2030-01-01T00:00:00.500Z'))).toBe(10)
  expect(secondsUntil(end, at('2030-01-01T00:01:00Z'))).toBe(0)
})
