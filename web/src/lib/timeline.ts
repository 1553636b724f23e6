import type { CallItem, EndItem, ErrorItem, Item, MessageItem, UserItem } from '@/state/thread'

/** A call, and below a `task` call what its sub-agent did. */
export interface CallEntry {
  kind: 'call'
  key: string
  call: CallItem
  children: readonly Entry[]
}

/** Consecutive calls that only read. */
export interface ReadsEntry {
  kind: 'reads'
  key: string
  calls: readonly CallItem[]
}

export interface ItemEntry {
  kind: 'item'
  key: string
  item: UserItem | MessageItem | ErrorItem | EndItem
}

export type Entry = CallEntry | ReadsEntry | ItemEntry

const READS = new Set(['ls', 'read_file', 'glob', 'grep'])

/** What the page shows of a thread's items: reads in groups, sub-agents below the call that started them. */
export function timeline(items: readonly Item[]): Entry[] {
  const root: Entry[] = []
  const below = new Map<string, Entry[]>() // by call id, of which the latest counts
  for (const item of items) {
    const parent = 'parentCallId' in item ? item.parentCallId : undefined
    const list = (parent === undefined ? undefined : below.get(parent)) ?? root
    if (item.kind !== 'call') {
      if (isTold(item)) list.push({ kind: 'item', key: item.key, item })
      continue
    }
    if (READS.has(item.toolName) && item.interruptId === undefined) {
      addRead(list, item)
      continue
    }
    const children: Entry[] = []
    below.set(item.callId, children)
    list.push({ kind: 'call', key: item.key, call: item, children })
  }
  return root
}

function addRead(list: Entry[], call: CallItem): void {
  const last = list.at(-1)
  if (last?.kind !== 'reads') list.push({ kind: 'reads', key: call.key, calls: [call] })
  else list[list.length - 1] = { ...last, calls: [...last.calls, call] }
}

/** The end of a run that went well, or that asks somebody, is told by what is there. */
function isTold(item: UserItem | MessageItem | ErrorItem | EndItem): boolean {
  if (item.kind === 'message') return item.content !== '' || item.thinking !== ''
  if (item.kind === 'end')
    return item.rolledBack || !['success', 'interrupted', 'error'].includes(item.status)
  return true
}

/** Where the entry is, at any depth, that shows this call; the place of its outermost one. -1: nowhere. */
export function placeOfCall(entries: readonly Entry[], interruptId: string): number {
  return entries.findIndex((entry) => holds(entry, interruptId))
}

function holds(entry: Entry, interruptId: string): boolean {
  if (entry.kind !== 'call') return false
  return entry.call.interruptId === interruptId || entry.children.some((child) => holds(child, interruptId))
}

/** The argument that tells most about a call, on one line. */
export function tellingArgument(call: CallItem): string {
  const input = call.executedInput ?? call.input
  const { todos } = input
  if (Array.isArray(todos)) return String(todos.length)
  const preferred = ['command', 'file_path', 'path', 'pattern', 'description', 'query']
  const named = call.toolName === 'grep' || call.toolName === 'glob' ? ['pattern'] : preferred
  const value = named.map((name) => input[name]).find((one) => typeof one === 'string')
  const text = value ?? Object.values(input).find((one) => typeof one === 'string') ?? ''
  return String(text).replace(/\s+/g, ' ').trim()
}
