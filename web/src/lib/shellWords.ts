/** One word of a command: what the shell makes of it, and where it ends in the command. */
export interface Word {
  text: string
  end: number
}

const MORE_THAN_WORDS = /[;&|<>$()`\n]/
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u
const ASSIGNMENT = /^[A-Za-z_][A-Za-z0-9_]*=/

/**
 * The words of a plain command, as the server splits it for remembered prefixes; undefined for a command that holds
 * more than words (pipes, variables, several commands), something unprintable, or an open quote.
 */
export function shellWords(command: string): Word[] | undefined {
  if (MORE_THAN_WORDS.test(command) || UNPRINTABLE.test(command.replaceAll('\t', ' '))) return undefined
  const words: Word[] = []
  let at = 0
  while (at < command.length) {
    if (isBlank(command[at])) {
      at += 1
      continue
    }
    const word = readWord(command, at)
    if (!word) return undefined
    words.push(word)
    at = word.end
  }
  return words
}

function readWord(command: string, begin: number): Word | undefined {
  let text = ''
  let quote = ''
  let at = begin
  for (; at < command.length; at += 1) {
    const char = command[at] as string
    if (quote === "'") {
      if (char === quote) quote = ''
      else text += char
    } else if (char === '\\') {
      const next = command[++at]
      if (next === undefined) return undefined
      text += quote && next !== '"' && next !== '\\' ? char + next : next
    } else if (char === quote) {
      quote = ''
    } else if (quote) {
      text += char
    } else if (char === '"' || char === "'") {
      quote = char
    } else if (isBlank(char)) {
      break
    } else {
      text += char
    }
  }
  return quote ? undefined : { text, end: at }
}

function isBlank(char: string | undefined): boolean {
  return char === ' ' || char === '\t'
}

/** How much of a command can be remembered as its beginning. */
export interface PrefixChoices {
  words: Word[]
  /** The fewest words that name a command: variables alone would allow any. */
  least: number
}

/** undefined: no beginning of this command can be remembered. */
export function prefixChoices(command: unknown): PrefixChoices | undefined {
  if (typeof command !== 'string') return undefined
  const words = shellWords(command)
  if (!words) return undefined
  const first = words.findIndex((word) => !ASSIGNMENT.test(word.text))
  return first < 0 ? undefined : { words, least: first + 1 }
}

/** The first `count` words, as they stand in the command. */
export function prefixOf(command: string, choices: PrefixChoices, count: number): string {
  return command.slice(0, choices.words[count - 1]?.end ?? 0).trim()
}
