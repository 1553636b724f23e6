import { describe, expect, it } from 'vitest'
import { hasHidden, pieces } from './hiddenText'

const codes = (text: string) => pieces(text).flatMap((piece) => piece.code ?? [])

describe('pieces', () => {
  it('leaves plain text, and text of other languages, in one piece', () => {
    for (const text of [
      'ls -la\n\tpwd',
      '你好，世界',
      'грüß Gott',
      'naïve café',
      '👩‍👩‍👧 ok',
      '❤️',
      '#️⃣',
      'می‌خواهم',
    ])
      expect(pieces(text)).toEqual([{ text }])
    expect(pieces('')).toEqual([])
  })

  it('marks what hides and reorders, and keeps every character', () => {
    const text = 'echo visible\u200b # \u202egnp.tac\u202c'
    expect(codes(text)).toEqual(['U+200B', 'U+202E', 'U+202C'])
    expect(pieces(text)[1]).toEqual({ text: '\u200b', code: 'U+200B', name: 'ZERO WIDTH SPACE' })
    expect(
      pieces(text)
        .map((piece) => piece.text)
        .join(''),
    ).toBe(text)
  })

  it('marks letters that imitate Latin ones in Latin words only', () => {
    expect(codes('сurl example.org')).toEqual(['U+0441'])
    expect(codes('курс')).toEqual([])
  })

  it('marks tags, controls, fillers, lone carriage returns, halves of characters and stray joiners', () => {
    expect(codes('a\u{e0041}b')).toEqual(['U+E0041'])
    expect(codes('a\u001b[2K\u0007')).toEqual(['U+001B', 'U+0007'])
    expect(codes('x\u3164\u2800')).toEqual(['U+3164', 'U+2800'])
    expect(codes('rm\rls')).toEqual(['U+000D'])
    expect(codes('one\r\ntwo\r\n')).toEqual([])
    expect(codes('a\ud800b')).toEqual(['U+D800'])
    expect(codes('a\u200db')).toEqual(['U+200D'])
    expect(codes('a\ufe0f')).toEqual(['U+FE0F'])
    expect(codes('line\u2028more')).toEqual(['U+2028'])
  })

  it('is quick with long texts', () => {
    expect(codes('é\u200b'.repeat(20_000))).toHaveLength(20_000)
  })

  it('answers whether there is any', () => {
    expect(hasHidden('ok')).toBe(false)
    expect(hasHidden('o\u2060k')).toBe(true)
  })
})
