import type { CallItem, Interrupt, Item } from '@/state/thread'

/** One change of a file that took effect. `unified` is the diff that was approved, where there was one. */
export interface Change {
  key: string
  toolName: string
  unified: string | undefined
  /** What an edit replaced and put in its place; for a whole file only `after`. */
  before: string | null
  after: string
}

export interface ChangedFile {
  path: string
  deleted: boolean
  changes: Change[]
}

const TOOLS = new Set(['write_file', 'edit_file', 'delete'])

/** What the agent did to files, by file, in the order in which each was first touched. */
export function changedFiles(
  items: readonly Item[],
  interrupts: ReadonlyMap<string, Interrupt>,
): ChangedFile[] {
  const files = new Map<string, ChangedFile>()
  for (const item of items) {
    if (item.kind !== 'call' || !TOOLS.has(item.toolName) || item.status !== 'success') continue
    const input = item.executedInput ?? item.input
    const path = String(input.file_path ?? input.path ?? '')
    const file = files.get(path) ?? { path, deleted: false, changes: [] }
    file.deleted = item.toolName === 'delete'
    file.changes.push(changeOf(item, interrupts))
    files.set(path, file)
  }
  return [...files.values()]
}

function changeOf(call: CallItem, interrupts: ReadonlyMap<string, Interrupt>): Change {
  const input = call.executedInput ?? call.input
  const asked = call.interruptId === undefined ? undefined : interrupts.get(call.interruptId)
  return {
    key: call.key,
    toolName: call.toolName,
    unified: call.executedInput === undefined ? asked?.diff : undefined, // it shows what was asked, not the edited form
    before: call.toolName === 'edit_file' ? String(input.old_string ?? '') : null,
    after: String(call.toolName === 'edit_file' ? (input.new_string ?? '') : (input.content ?? '')),
  }
}
