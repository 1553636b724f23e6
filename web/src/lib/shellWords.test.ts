import { describe, expect, it } from 'vitest'
import { prefixChoices, prefixOf, shellWords } from './shellWords'

const texts = (command: string) => shellWords(command)?.map((word) => word.text)

describe('shellWords', () => {
  it('splits as the shell does', () => {
    expect(texts(' git  commit\t-m "two words" ')).toEqual(['git', 'commit', '-m', 'two words'])
    expect(texts(`echo 'a\\b' "c\\d \\"e\\\\" f\\ g ""`)).toEqual(['echo', 'a\\b', 'c\\d "e\\', 'f g', ''])
    expect(texts(`a"b"'c' #not-a-comment`)).toEqual(['abc', '#not-a-comment'])
    expect(texts('')).toEqual([])
  })

  it('knows no words of what is more than words, unprintable or unfinished', () => {
    for (const command of ['a; b', 'a && b', 'a | b', 'a > b', 'echo $A', 'echo `a`', '(a)', 'a\nb'])
      expect(shellWords(command)).toBeUndefined()
    for (const command of ['a\u200bb', 'a\u00a0b', 'a\rb', 'a\u2028', 'echo "a', "echo 'a", 'a \\'])
      expect(shellWords(command)).toBeUndefined()
  })
})

describe('prefixChoices', () => {
  it('offers beginnings that name the command', () => {
    const command = 'A=1 B=2 npm run "a b" -- x'
    const choices = prefixChoices(command)
    expect(choices?.least).toBe(3)
    expect(choices && prefixOf(command, choices, 3)).toBe('A=1 B=2 npm')
    expect(choices && prefixOf(command, choices, 5)).toBe('A=1 B=2 npm run "a b"')
  })

  it('offers none where there is none', () => {
    for (const command of ['A=1', '', 'a | b', undefined, 7]) expect(prefixChoices(command)).toBeUndefined()
  })
})
