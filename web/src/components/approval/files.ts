import { address, send } from '@/api/client'
import { asProblem } from '@/api/problem'
import type { ToolInput } from '@/api/events'

const SHARED = '/shared'
const LARGEST_BYTES = 1024 * 1024

/** A file as it is now. `text`: null when there is none; `unknown`: it cannot be shown here. */
export type Present = { text: string | null } | { unknown: 'place' | 'size' | 'binary' | 'unreadable' }

/** Why an edit would fail. */
export type Failure = 'absent' | 'empty' | 'missing' | 'ambiguous'

/** Where the API has a tool's path: of `/workspace/a/b` `a/b`; undefined for what is in neither of the two folders. */
export function placeOf(
  path: string,
  workspace: string,
): { root: 'workspace' | 'shared'; path: string } | undefined {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  const plain = `/${parts.join('/')}`
  for (const [root, folder] of [
    ['workspace', workspace],
    ['shared', SHARED],
  ] as const) {
    const head = `${folder.replace(/\/+$/, '')}/`
    if (plain.startsWith(head)) return { root, path: plain.slice(head.length) }
  }
  return undefined
}

/** A thread's file as it is now, by the path that tools use. Throws `Problem` when the server cannot be asked. */
export async function presentFile(threadId: string, path: string, workspace: string): Promise<Present> {
  const place = placeOf(path, workspace)
  if (!place) return { unknown: 'place' }
  const url =
    place.root === 'shared'
      ? address('/api/shared/content', {}, { path: place.path })
      : address('/api/files/{thread_id}/content', { thread_id: threadId }, { path: place.path })
  let response: Response
  try {
    response = await send(url)
  } catch (error) {
    const problem = asProblem(error)
    if (problem.status === 404) return { text: null }
    if (problem.offline || problem.status >= 500 || problem.status === 429) throw problem
    return { unknown: 'unreadable' }
  }
  if (Number(response.headers.get('content-length') ?? 0) > LARGEST_BYTES) {
    await response.body?.cancel()
    return { unknown: 'size' }
  }
  try {
    return {
      text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await response.arrayBuffer()),
    }
  } catch (error) {
    if (error instanceof TypeError) return { unknown: 'binary' }
    throw error
  }
}

/** What a file would hold after a `write_file` or an `edit_file`, as the server works it out; or why it would fail. */
export function textAfter(
  tool: string,
  args: ToolInput,
  present: string | null,
): { text: string } | { fails: Failure } {
  if (tool === 'write_file') return { text: String(args.content ?? '') }
  const [old, now] = [String(args.old_string ?? ''), String(args.new_string ?? '')]
  if (present === null) return { fails: 'absent' }
  if (old === '') return { fails: 'empty' }
  for (const [oldForm, nowForm] of lineEndForms(old, now)) {
    const count = present.split(oldForm).length - 1
    if (count > 1 && args.replace_all !== true) return { fails: 'ambiguous' }
    if (count > 0) return { text: present.split(oldForm).join(nowForm) }
  }
  return { fails: 'missing' }
}

/** As given, then with CRLF, then with LF: the first form that the file holds says how its lines end. */
function lineEndForms(old: string, now: string): [string, string][] {
  const [oldLf, nowLf] = [old.replaceAll('\r\n', '\n'), now.replaceAll('\r\n', '\n')]
  return [
    [old, now],
    [oldLf.replaceAll('\n', '\r\n'), nowLf.replaceAll('\n', '\r\n')],
    [oldLf, nowLf],
  ]
}
