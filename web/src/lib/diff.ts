import { diffArrays, diffWordsWithSpace } from 'diff'

export interface Part {
  text: string
  changed: boolean
}

/** A line of a diff, without its line end. `old` and `new` are its numbers, from 1. */
export interface Line {
  kind: 'same' | 'add' | 'remove'
  text: string
  old?: number
  new?: number
  /** It ends with CRLF. */
  cr?: true
  /** The file ends here, without a line end. */
  noNewline?: true
  /** What of it changed, where another line took its place. */
  parts?: Part[]
}

export interface Hunk {
  oldStart: number
  newStart: number
  lines: Line[]
}

/** `cut`: it ends before it is complete. `created`: there was no file before. */
export interface Diff {
  hunks: Hunk[]
  added: number
  removed: number
  cut: boolean
  created: boolean
}

const CONTEXT = 3
const PATIENCE_MS = 500
const MAX_WORD_LINE = 400
const MAX_WORD_PAIRS = 200
const HEADER = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/
const KINDS: Record<string, Line['kind']> = { ' ': 'same', '+': 'add', '-': 'remove' }

/** Read a unified diff of one file. One that was cut, inside a hunk, is read as far as it goes. */
export function parseUnified(text: string): Diff {
  const lines = text.split('\n')
  if (lines.at(-1) === '') lines.pop()
  const hunks: Hunk[] = []
  let at = 0
  let cut = false
  const created = lines[0]?.startsWith('--- /dev/null') ?? false
  while (at < lines.length) {
    const header = HEADER.exec(lines[at++] ?? '')
    if (!header) continue
    const [oldStart, oldLeft, newStart, newLeft] = [1, 2, 3, 4].map((n) => Number(header[n] ?? 1)) as [
      number,
      number,
      number,
      number,
    ]
    const hunk: Hunk = { oldStart, newStart, lines: [] }
    at = readHunk(lines, at, hunk, { old: oldLeft, new: newLeft })
    cut = hunk.lines.filter((line) => line.kind !== 'add').length < oldLeft
    cut ||= hunk.lines.filter((line) => line.kind !== 'remove').length < newLeft
    hunks.push(hunk)
  }
  return summed(hunks, { cut, created })
}

function readHunk(lines: string[], from: number, hunk: Hunk, left: { old: number; new: number }): number {
  let at = from
  let [oldNumber, newNumber] = [hunk.oldStart, hunk.newStart]
  for (; at < lines.length; at += 1) {
    const raw = lines[at] ?? ''
    if (raw.startsWith('\\')) {
      const last = hunk.lines.at(-1)
      if (last) last.noNewline = true
      continue
    }
    if (left.old <= 0 && left.new <= 0) break
    const kind = KINDS[raw[0] ?? ' ']
    if (!kind) break
    const line: Line = { kind, ...ended(raw.slice(1)) }
    if (kind !== 'add') {
      line.old = oldNumber++
      left.old -= 1
    }
    if (kind !== 'remove') {
      line.new = newNumber++
      left.new -= 1
    }
    hunk.lines.push(line)
  }
  return at
}

function ended(text: string): { text: string; cr?: true } {
  return text.endsWith('\r') ? { text: text.slice(0, -1), cr: true } : { text }
}

/** What differs between two texts, with three lines around it; `before` is null for a new file. */
export function diffTexts(before: string | null, after: string): Diff {
  const old = linesOf(before ?? '')
  const now = linesOf(after)
  const all = compared(old, now)
  return summed(hunksOf(all), { cut: false, created: before === null })
}

/** The lines of a text with their ends; the last has none if the text does not end with one. */
function linesOf(text: string): string[] {
  const lines = text.split('\n')
  const last = lines.pop()
  return [...lines.map((line) => `${line}\n`), ...(last ? [last] : [])]
}

function compared(old: string[], now: string[]): Line[] {
  const start = commonLength(old, now)
  const rest = Math.min(old.length, now.length) - start
  let end = 0
  while (end < rest && old[old.length - 1 - end] === now[now.length - 1 - end]) end += 1
  const oldPart = old.slice(start, old.length - end)
  const newPart = now.slice(start, now.length - end)
  const changes = diffArrays(oldPart, newPart, { timeout: PATIENCE_MS }) ?? [
    { value: oldPart, removed: true, added: false },
    { value: newPart, removed: false, added: true },
  ]
  const lines: Line[] = []
  let [oldNumber, newNumber] = [1, 1]
  const put = (kind: Line['kind'], raws: string[]): void => {
    for (const raw of raws) {
      const line: Line = raw.endsWith('\n')
        ? { kind, ...ended(raw.slice(0, -1)) }
        : { kind, text: raw, noNewline: true }
      if (kind !== 'add') line.old = oldNumber++
      if (kind !== 'remove') line.new = newNumber++
      lines.push(line)
    }
  }
  put('same', old.slice(0, start))
  for (const change of changes) put(change.removed ? 'remove' : change.added ? 'add' : 'same', change.value)
  put('same', old.slice(old.length - end))
  return lines
}

function commonLength(one: string[], other: string[]): number {
  let count = 0
  while (count < one.length && count < other.length && one[count] === other[count]) count += 1
  return count
}

function hunksOf(lines: Line[]): Hunk[] {
  const hunks: Hunk[] = []
  let kept = -1 // the last line that is in a hunk
  lines.forEach((line, at) => {
    if (line.kind === 'same') return
    const from = Math.max(kept + 1, at - CONTEXT)
    const hunk = hunks.at(-1)
    const joined = hunk !== undefined && from <= kept + 1
    const target = joined ? hunk : { oldStart: 0, newStart: 0, lines: [] }
    if (!joined) hunks.push(target)
    const to = Math.min(lines.length - 1, untilQuiet(lines, at))
    for (let one = from; one <= to; one += 1) if (one > kept) target.lines.push(lines[one] as Line)
    kept = Math.max(kept, to)
  })
  for (const hunk of hunks) {
    hunk.oldStart = hunk.lines.find((line) => line.old !== undefined)?.old ?? 0
    hunk.newStart = hunk.lines.find((line) => line.new !== undefined)?.new ?? 0
  }
  return hunks
}

/** The last line of the context behind a changed line. */
function untilQuiet(lines: Line[], at: number): number {
  let to = at
  while (to + 1 < lines.length && to - at < CONTEXT && lines[to + 1]?.kind === 'same') to += 1
  return to
}

function summed(hunks: Hunk[], more: { cut: boolean; created: boolean }): Diff {
  const lines = hunks.flatMap((hunk) => hunk.lines)
  markWords(hunks)
  const count = (kind: Line['kind']): number => lines.filter((line) => line.kind === kind).length
  return { hunks, added: count('add'), removed: count('remove'), ...more }
}

/** Say of lines that took the place of others what changed in them. */
function markWords(hunks: Hunk[]): void {
  let left = MAX_WORD_PAIRS
  for (const { lines } of hunks) {
    for (let at = 0; at < lines.length && left > 0;) {
      const removed = run(lines, at, 'remove')
      const added = run(lines, at + removed, 'add')
      for (let pair = 0; pair < Math.min(removed, added) && left-- > 0; pair += 1) {
        markPair(lines[at + pair] as Line, lines[at + removed + pair] as Line)
      }
      at += removed + added || 1
    }
  }
}

function run(lines: Line[], from: number, kind: Line['kind']): number {
  let at = from
  while (lines[at]?.kind === kind) at += 1
  return at - from
}

function markPair(old: Line, now: Line): void {
  if (Math.max(old.text.length, now.text.length) > MAX_WORD_LINE) return
  const changes = diffWordsWithSpace(old.text, now.text)
  const same = changes.filter((one) => !one.added && !one.removed).map((one) => one.value.trim())
  if (same.join('').length * 3 < Math.min(old.text.length, now.text.length)) return // another line altogether
  const parts = (left: 'added' | 'removed'): Part[] =>
    changes.filter((one) => !one[left]).map((one) => ({ text: one.value, changed: one.added || one.removed }))
  old.parts = parts('added')
  now.parts = parts('removed')
}

/** How many lines there are to be shown. */
export function lineCount(diff: Diff): number {
  return diff.hunks.reduce((sum, hunk) => sum + hunk.lines.length, 0)
}
