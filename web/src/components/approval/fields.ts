import type { ToolInput } from '@/api/events'

/** The part of JSON Schema that forms are made of. */
export interface Schema {
  type?: string | string[]
  description?: string
  properties?: Record<string, Schema>
  required?: string[]
  enum?: unknown[]
  anyOf?: Schema[]
  minimum?: number
  maximum?: number
  [more: string]: unknown
}

export type Kind = 'text' | 'number' | 'integer' | 'boolean' | 'json'

/** One argument in a form. */
export interface Field {
  name: string
  kind: Kind
  required: boolean
  description: string | undefined
  schema: Schema
}

/** Why a field's value does not do; words for it are in `t.approval.invalid`. */
export type Invalid = 'required' | 'number' | 'integer' | 'json' | 'tooSmall' | 'tooLarge'

const LARGEST_BYTES = 256 * 1024

/** The fields of a call's arguments: by the tool's schema if it is known, else by the types of what is there. */
export function fieldsOf(input: ToolInput, schema?: Schema): Field[] {
  const known = schema?.properties ?? {}
  const names = [...new Set([...Object.keys(known), ...Object.keys(input)])]
  return names.map((name) => {
    const own = known[name] ?? {}
    return {
      name,
      kind: kindOf(own, input[name]),
      required: schema?.required?.includes(name) ?? name in input,
      description: own.description,
      schema: own,
    }
  })
}

function kindOf(schema: Schema, value: unknown): Kind {
  const types = typesOf(schema)
  if (types.length === 1) {
    if (types[0] === 'string' && (value === undefined || typeof value === 'string')) return 'text'
    if (types[0] === 'integer' && (value === undefined || typeof value === 'number')) return 'integer'
    if (types[0] === 'number' && (value === undefined || typeof value === 'number')) return 'number'
    if (types[0] === 'boolean' && (value === undefined || typeof value === 'boolean')) return 'boolean'
  }
  if (types.length > 0 && value === undefined) return 'json'
  if (typeof value === 'string') return 'text'
  if (typeof value === 'number') return 'number'
  return typeof value === 'boolean' ? 'boolean' : 'json'
}

/** The types that a schema allows beside null. */
function typesOf(schema: Schema): string[] {
  const own = schema.type === undefined ? (schema.anyOf ?? []).flatMap(typesOf) : [schema.type].flat()
  return own.filter((type) => type !== 'null')
}

/** What stands in a form: text for all but booleans. Empty text of an optional field that was not given: not given. */
export type Draft = Record<string, string | boolean>

export function draftOf(fields: readonly Field[], input: ToolInput): Draft {
  return Object.fromEntries(fields.map((field) => [field.name, shown(field, input[field.name])]))
}

function shown(field: Field, value: unknown): string | boolean {
  if (field.kind === 'boolean') return value === true
  if (value === undefined) return ''
  return typeof value === 'string' && field.kind === 'text' ? value : JSON.stringify(value, null, 2)
}

/** The arguments that a form says, and what is wrong with it by field; `args` hold only what is right. */
export function readDraft(
  fields: readonly Field[],
  draft: Draft,
  input: ToolInput,
): { args: ToolInput; invalid: Record<string, Invalid>; tooLarge: boolean } {
  const args: ToolInput = {}
  const invalid: Record<string, Invalid> = {}
  for (const field of fields) {
    const text = draft[field.name] ?? ''
    const wasGiven = field.name in input
    if (text === '' && field.kind !== 'text') {
      if (field.required) invalid[field.name] = 'required'
      continue
    }
    if (!wasGiven && !field.required && (text === '' || text === false)) continue
    const read = readField(field, text)
    if ('invalid' in read) invalid[field.name] = read.invalid
    else args[field.name] = read.value
  }
  const size = new TextEncoder().encode(JSON.stringify(args)).length
  return { args, invalid, tooLarge: size > LARGEST_BYTES }
}

function readField(field: Field, text: string | boolean): { value: unknown } | { invalid: Invalid } {
  if (typeof text === 'boolean' || field.kind === 'text') return { value: text }
  if (field.kind === 'json') {
    try {
      return { value: JSON.parse(text) as unknown }
    } catch {
      return { invalid: 'json' }
    }
  }
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value)) return { invalid: 'number' }
  if (field.kind === 'integer' && !Number.isInteger(value)) return { invalid: 'integer' }
  if (field.schema.minimum !== undefined && value < field.schema.minimum) return { invalid: 'tooSmall' }
  if (field.schema.maximum !== undefined && value > field.schema.maximum) return { invalid: 'tooLarge' }
  return { value }
}

/** The same arguments, whatever their order. */
export function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(sorted(one)) === JSON.stringify(sorted(other))
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([name, inner]) => [name, sorted(inner)]),
  )
}
