import { createTwoFilesPatch } from 'diff'
import { describe, expect, it } from 'vitest'
import { diffTexts, lineCount, parseUnified, type Diff } from './diff'

/** A diff in short: `-1 old`, `+1 new`, `=1:1 same`. */
const short = (diff: Diff) =>
  diff.hunks.map((hunk) =>
    hunk.lines.map((line) => {
      const sign = { add: '+', remove: '-', same: '=' }[line.kind]
      const where = [line.old, line.new].filter((n) => n !== undefined).join(':')
      return `${sign}${where} ${line.text}${line.cr ? '␍' : ''}${line.noNewline ? '⊣' : ''}`
    }),
  )

describe('parseUnified', () => {
  it('reads hunks with their numbers, also lines that look like headers', () => {
    const diff = parseUnified(
      '--- a/x\n+++ b/x\n@@ -3,3 +3,3 @@\n a\n--- sql comment\n+++ i\n b\n@@ -20 +20,2 @@\n z\n+y\n',
    )
    expect(short(diff)).toEqual([
      ['=3:3 a', '-4 -- sql comment', '+4 ++ i', '=5:5 b'],
      ['=20:20 z', '+21 y'],
    ])
    expect(diff).toMatchObject({ added: 2, removed: 1, cut: false, created: false })
  })

  it('reads new files, missing line ends and CRLF', () => {
    const diff = parseUnified(
      '--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+a\r\n+b\n\\ No newline at end of file\n',
    )
    expect(short(diff)).toEqual([['+1 a␍', '+2 b⊣']])
    expect(diff.created).toBe(true)
  })

  it('says that a diff is cut', () => {
    const diff = parseUnified('--- a/x\n+++ b/x\n@@ -1,3 +1,9 @@\n a\n+b\n+c\n')
    expect(diff.cut).toBe(true)
    expect(lineCount(diff)).toBe(3)
  })

  it('reads nothing of an empty one', () => {
    expect(parseUnified('')).toEqual({ hunks: [], added: 0, removed: 0, cut: false, created: false })
  })
})

describe('diffTexts', () => {
  const numbered = (n: number) => Array.from({ length: n }, (_, at) => `line ${at + 1}\n`).join('')

  it('shows what differs with three lines around it', () => {
    const before = numbered(30)
    const diff = diffTexts(before, before.replace('line 5\n', 'five\n').replace('line 25\n', ''))
    expect(short(diff)).toEqual([
      [
        '=2:2 line 2',
        '=3:3 line 3',
        '=4:4 line 4',
        '-5 line 5',
        '+5 five',
        '=6:6 line 6',
        '=7:7 line 7',
        '=8:8 line 8',
      ],
      [
        '=22:22 line 22',
        '=23:23 line 23',
        '=24:24 line 24',
        '-25 line 25',
        '=26:25 line 26',
        '=27:26 line 27',
        '=28:27 line 28',
      ],
    ])
  })

  it('joins neighbouring changes in one hunk', () => {
    const before = numbered(12)
    const diff = diffTexts(before, before.replace('line 3\n', '').replace('line 9\n', ''))
    expect(diff.hunks).toHaveLength(1)
    expect(lineCount(diff)).toBe(12)
  })

  it('sees a line end that is missing, and one that changes', () => {
    expect(short(diffTexts('a\nb', 'a\nb\n'))).toEqual([['=1:1 a', '-2 b⊣', '+2 b']])
    expect(short(diffTexts('a\r\n', 'a\n'))).toEqual([['-1 a␍', '+1 a']])
  })

  it('knows new, empty and equal files', () => {
    expect(diffTexts(null, 'a\n')).toMatchObject({ created: true, added: 1 })
    expect(short(diffTexts('', 'a'))).toEqual([['+1 a⊣']])
    expect(short(diffTexts('a\n', ''))).toEqual([['-1 a']])
    expect(diffTexts('a\n', 'a\n').hunks).toEqual([])
    expect(diffTexts(null, '').hunks).toEqual([])
  })

  it('marks the words that changed, and not lines that have nothing in common', () => {
    const [hunk] = diffTexts('the old word here\n', 'the new word here\n').hunks
    expect(
      hunk?.lines.map((line) => line.parts?.filter((part) => part.changed).map((part) => part.text)),
    ).toEqual([['old'], ['new']])
    expect(diffTexts('abc def ghi\n', 'xyz 123 !!!\n').hunks[0]?.lines[0]?.parts).toBeUndefined()
  })

  it('compares huge texts that have little in common', () => {
    const made = (seed: number) =>
      Array.from({ length: 20_000 }, (_, at) => `${(at * seed) % 7919}\n`).join('')
    const diff = diffTexts(made(31), made(37))
    const lines = diff.hunks.flatMap((hunk) => hunk.lines)
    expect(lines.filter((line) => line.kind !== 'add').length).toBeLessThanOrEqual(20_000)
    expect(diff.added).toBe(diff.removed)
  })

  it('agrees with the diff of another maker', () => {
    const before = numbered(50)
    const after = before
      .replace('line 10\n', 'ten\nand more\n')
      .replace('line 48\n', '')
      .replace('line 50\n', 'end')
    expect(short(parseUnified(createTwoFilesPatch('x', 'x', before, after, '', '', { context: 3 })))).toEqual(
      short(diffTexts(before, after)),
    )
  })
})
