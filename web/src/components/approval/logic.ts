import type { DecisionType, ToolInput } from '@/api/events'
import { prefixChoices, type PrefixChoices } from '@/lib/shellWords'
import type { Interrupt } from '@/state/thread'
import type { DecisionBody } from '@/stores/approvals'

/** What a card is doing: showing, or asking for what a decision needs. */
export type Mode = 'view' | 'edit' | 'reject' | 'respond' | 'remember'
export type Remember = NonNullable<DecisionBody['remember']>

/** The kinds of acts that there are words for. */
export type Act = 'execute' | 'write_file' | 'edit_file' | 'delete' | 'other'

const FILE_TOOLS = ['write_file', 'edit_file', 'delete']
const KEYS: Record<string, DecisionType> = { a: 'approve', e: 'edit', r: 'reject' }
const OWN_KEYS = 'input, textarea, select, [contenteditable], [role="combobox"], [role="textbox"]'

export function actOf(toolName: string): Act {
  return toolName === 'execute' || FILE_TOOLS.includes(toolName) ? (toolName as Act) : 'other'
}

/** The file that a call is about, if it is about one. */
export function pathOf(toolName: string, input: ToolInput): string | undefined {
  const path = input.file_path
  return FILE_TOOLS.includes(toolName) && typeof path === 'string' ? path : undefined
}

type Key = Pick<
  KeyboardEvent,
  | 'key'
  | 'ctrlKey'
  | 'metaKey'
  | 'altKey'
  | 'shiftKey'
  | 'repeat'
  | 'isComposing'
  | 'defaultPrevented'
  | 'target'
>

/** What a key that was pressed in a card asks for; undefined: nothing, or not from there, or not yet. */
export function keyAction(
  event: Key,
  card: { armed: boolean; mode: Mode; allowed: readonly DecisionType[] },
): DecisionType | undefined {
  if (!card.armed || card.mode !== 'view' || event.defaultPrevented || event.isComposing) return undefined
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.repeat) return undefined
  if (event.target instanceof Element && event.target.closest(OWN_KEYS)) return undefined
  const wanted = KEYS[event.key]
  return wanted && card.allowed.includes(wanted) ? wanted : undefined
}

/** Whether the server tells to look twice. */
export function isFlagged(asked: Pick<Interrupt, 'facts'>): boolean {
  return Boolean(asked.facts.warnings?.length || asked.facts.risks?.length)
}

/** How calls like this one can be remembered. */
export interface RememberChoices {
  prefix: PrefixChoices | undefined
  /** The file itself, then the folders above it, nearest first. */
  paths: string[] | undefined
}

/** undefined: it cannot be remembered, because each call like it deserves a look, or no such answer is allowed. */
export function rememberChoices(asked: Interrupt): RememberChoices | undefined {
  const answers: DecisionType[] = ['approve', 'reject']
  if (isFlagged(asked) || !answers.some((one) => asked.allowed_decisions.includes(one))) return undefined
  const path = pathOf(asked.tool_name, asked.tool_input)
  return {
    prefix: asked.tool_name === 'execute' ? prefixChoices(asked.tool_input.command) : undefined,
    paths: path === undefined ? undefined : pathChoices(path),
  }
}

function pathChoices(path: string): string[] | undefined {
  if (!path.startsWith('/') || path.includes('\\')) return undefined
  const choices = [path]
  if (path.split('/').some((part) => part === '..' || part === '.') || path.includes('//')) return choices
  for (let folder = parentOf(path); folder; folder = parentOf(folder)) choices.push(folder)
  return choices
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/'))
}

/** What a decision needs beside its type. */
export interface Answer {
  type: DecisionType
  args?: ToolInput
  message?: string
  remember?: Remember
}

/** The request for a decision on what is shown: bound to it by its digest. */
export function decisionBody(asked: Pick<Interrupt, 'digest' | 'tool_name'>, answer: Answer): DecisionBody {
  const body: DecisionBody = { type: answer.type, digest: asked.digest }
  if (answer.type === 'edit') body.edited_action = { name: asked.tool_name, args: answer.args ?? {} }
  const message = answer.message?.trim()
  if (message && (answer.type === 'reject' || answer.type === 'respond')) body.message = message
  if (answer.remember && (answer.type === 'approve' || answer.type === 'reject'))
    body.remember = answer.remember
  return body
}

/** How it was decided, of `decided_via`: `rule:<id>` is `rule`. */
export function viaKind(via: string): string {
  return via.startsWith('rule:') ? 'rule' : via
}

/** The seconds until a time, 0 when it has passed. */
export function secondsUntil(time: string, now: number): number {
  return Math.max(0, Math.ceil((new Date(time).getTime() - now) / 1000))
}
