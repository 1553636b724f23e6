import { describe, expect, it } from 'vitest'
import { draftOf, fieldsOf, isSame, readDraft, type Schema } from './fields'

const SCHEMA: Schema = {
  properties: {
    command: { type: 'string', description: 'What to run' },
    timeout: { anyOf: [{ type: 'integer' }, { type: 'null' }], minimum: 1, maximum: 600 },
    quiet: { type: 'boolean' },
    tags: { type: 'array' },
  },
  required: ['command'],
}

describe('fieldsOf', () => {
  it('follows the schema, then what else is there', () => {
    const fields = fieldsOf({ command: 'ls', more: { a: 1 } }, SCHEMA)
    expect(fields.map(({ name, kind, required }) => [name, kind, required])).toEqual([
      ['command', 'text', true],
      ['timeout', 'integer', false],
      ['quiet', 'boolean', false],
      ['tags', 'json', false],
      ['more', 'json', false],
    ])
    expect(fields[0]?.description).toBe('What to run')
  })

  it('follows the values without a schema, or where they do not fit it', () => {
    const kinds = (input: Record<string, unknown>, schema?: Schema) =>
      fieldsOf(input, schema).map(({ kind }) => kind)
    expect(kinds({ a: 'x', b: 1.5, c: false, d: null, e: [1] })).toEqual([
      'text',
      'number',
      'boolean',
      'json',
      'json',
    ])
    expect(kinds({ command: ['ls'] }, { properties: { command: { type: 'string' } } })).toEqual(['json'])
  })
})

describe('readDraft', () => {
  const input = { command: 'ls', timeout: 5 }
  const fields = fieldsOf(input, SCHEMA)
  const draft = draftOf(fields, input)

  it('gives back what it was made of', () => {
    expect(draft).toEqual({ command: 'ls', timeout: '5', quiet: false, tags: '' })
    expect(readDraft(fields, draft, input)).toEqual({ args: input, invalid: {}, tooLarge: false })
  })

  it('reads what was typed, and leaves out what was emptied', () => {
    const typed = { command: '', timeout: '', quiet: true, tags: '["a"]' }
    expect(readDraft(fields, typed, input).args).toEqual({ command: '', quiet: true, tags: ['a'] })
  })

  it('says what is wrong', () => {
    const wrong = (timeout: string, tags = '') =>
      readDraft(fields, { ...draft, timeout, tags }, input).invalid
    expect(wrong('x')).toEqual({ timeout: 'number' })
    expect(wrong('1.5')).toEqual({ timeout: 'integer' })
    expect(wrong('0')).toEqual({ timeout: 'tooSmall' })
    expect(wrong('601')).toEqual({ timeout: 'tooLarge' })
    expect(wrong('5', '[')).toEqual({ tags: 'json' })
    expect(readDraft(fieldsOf({ n: 1 }), { n: '' }, { n: 1 }).invalid).toEqual({ n: 'required' })
    expect(readDraft(fields, { ...draft, command: 'ä'.repeat(140_000) }, input).tooLarge).toBe(true)
  })
})

it('compares arguments whatever their order', () => {
  expect(isSame({ a: 1, b: { c: 2, d: 3 } }, { b: { d: 3, c: 2 }, a: 1 })).toBe(true)
  expect(isSame({ a: 1 }, { a: '1' })).toBe(false)
  expect(isSame(undefined, null)).toBe(false)
})
