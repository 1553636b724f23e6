/** A piece of a text: as it is, or (`code`, as `U+202E`) one character that must be made visible. */
export interface Piece {
  text: string
  code?: string
  name?: string
}

const PLAIN = /^[\t\n\x20-\x7e]*$/
const SUSPECT = /[^\t\n\x20-\x7e]/gu
const WORD = /[\p{L}\p{N}_]+/gu
const SELECTOR = /^[\u180b-\u180d\u180f\ufe00-\ufe0f\u{e0100}-\u{e01ef}]$/u
const FORMAT = /^[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]$/u
const BETWEEN_EMOJI = /[\ufe0f\u{1f3fb}-\u{1f3ff}]/u
/** Letters and marks that show nothing, although Unicode does not call them format characters. */
const BLANK = new Set([...'\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0'])
/** Format characters with a shape of their own. */
const VISIBLE_FORMAT = new Set([...'\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2'])
/** Cyrillic and Greek letters that look like Latin ones. */
const LOOK_ALIKES = new Set([...'аеорсухіјѕһԁԛԝьАВЕЅІЈКМНОРСТУХԌԚԜαγιορνυΑΒΕΖΗΙΚΜΝΟΡΤΥΧϲϳ'])

const NAMES: Readonly<Record<string, string>> = {
  '\u0000': 'NULL',
  '\u0008': 'BACKSPACE',
  '\r': 'CARRIAGE RETURN',
  '\u001b': 'ESCAPE',
  '\u00ad': 'SOFT HYPHEN',
  '\u061c': 'ARABIC LETTER MARK',
  '\u200b': 'ZERO WIDTH SPACE',
  '\u200c': 'ZERO WIDTH NON-JOINER',
  '\u200d': 'ZERO WIDTH JOINER',
  '\u200e': 'LEFT-TO-RIGHT MARK',
  '\u200f': 'RIGHT-TO-LEFT MARK',
  '\u2028': 'LINE SEPARATOR',
  '\u2029': 'PARAGRAPH SEPARATOR',
  '\u202a': 'LEFT-TO-RIGHT EMBEDDING',
  '\u202b': 'RIGHT-TO-LEFT EMBEDDING',
  '\u202c': 'POP DIRECTIONAL FORMATTING',
  '\u202d': 'LEFT-TO-RIGHT OVERRIDE',
  '\u202e': 'RIGHT-TO-LEFT OVERRIDE',
  '\u2060': 'WORD JOINER',
  '\u2066': 'LEFT-TO-RIGHT ISOLATE',
  '\u2067': 'RIGHT-TO-LEFT ISOLATE',
  '\u2068': 'FIRST STRONG ISOLATE',
  '\u2069': 'POP DIRECTIONAL ISOLATE',
  '\u3164': 'HANGUL FILLER',
  '\ufeff': 'ZERO WIDTH NO-BREAK SPACE',
}

/**
 * A text in pieces, in which each character that hides, reorders or imitates others stands alone with its code. By the
 * server's rule for `facts.warnings`: joined emoji, Persian and Indic joiners and the ends of CRLF lines are as they
 * should be. The pieces' `text`s joined are the text.
 */
export function pieces(text: string): Piece[] {
  if (PLAIN.test(text)) return text ? [{ text }] : []
  const imitating = lookAlikes(text)
  const found: Piece[] = []
  let end = 0
  for (const match of text.matchAll(SUSPECT)) {
    const at = match.index
    const char = match[0]
    if (!imitating.has(at) && !isHidden(text, char, at)) continue
    if (at > end) found.push({ text: text.slice(end, at) })
    found.push(marked(char))
    end = at + char.length
  }
  if (end < text.length) found.push({ text: text.slice(end) })
  return found
}

export function hasHidden(text: string): boolean {
  return pieces(text).some((piece) => piece.code !== undefined)
}

function marked(char: string): Piece {
  const point = char.codePointAt(0) ?? 0
  const code = `U+${point.toString(16).toUpperCase().padStart(4, '0')}`
  const name = NAMES[char]
  return name === undefined ? { text: char, code } : { text: char, code, name }
}

/** Where letters of another script stand in words that otherwise hold Latin ones. */
function lookAlikes(text: string): Set<number> {
  const found = new Set<number>()
  for (const word of text.matchAll(WORD)) {
    if (!/[a-zA-Z]/.test(word[0]) || PLAIN.test(word[0])) continue
    let at = word.index
    for (const char of word[0]) {
      if (LOOK_ALIKES.has(char)) found.add(at)
      at += char.length
    }
  }
  return found
}

function isHidden(text: string, char: string, at: number): boolean {
  const before = text.slice(0, at)
  const after = text.slice(at + char.length)
  if (char === '\r') return !after.startsWith('\n')
  if (char === '\u200c' || char === '\u200d') return !joins(before, after)
  if (SELECTOR.test(char)) return !selects(lastOf(before), char)
  if (BLANK.has(char)) return true
  return FORMAT.test(char) && !VISIBLE_FORMAT.has(char)
}

function lastOf(text: string): string {
  const pair = text.slice(-2)
  return /^[\ud800-\udbff][\udc00-\udfff]$/.test(pair) ? pair : text.slice(-1)
}

/** Whether a joiner stands between two emoji, or between letters of a script that is written with joiners. */
function joins(before: string, after: string): boolean {
  const base = [...before.slice(-6)]
    .slice(-3)
    .reverse()
    .find((char) => !BETWEEN_EMOJI.test(char))
  const next = [...after.slice(0, 2)][0]
  if (base === undefined || next === undefined) return false
  if (/^\p{So}$/u.test(base) && /^\p{So}$/u.test(next)) return true
  return [base, next].every((char) => char >= '\u0600' && char <= '\u0dff')
}

/** Whether a variation selector follows something that has variants: emoji, symbols, keycaps, ideographs. */
function selects(before: string, selector: string): boolean {
  if (!before || SELECTOR.test(before)) return false
  if (selector < '\ufe00') return before >= '\u1800' && before <= '\u18af'
  if (selector > '\ufe0f') return /^\p{Script=Han}$/u.test(before)
  return /^[\p{So}\p{Sm}\p{Po}\p{Sk}0-9#*\p{Script=Han}]$/u.test(before)
}
