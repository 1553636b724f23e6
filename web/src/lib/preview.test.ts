import { describe, expect, it } from 'vitest'
import { LARGEST_LOOK, lookOf, parseCsv } from './preview'

const file = (name: string, mime: string, text: string | null = 'x', size = 1) => ({ name, mime, text, size })

describe('how a file is shown', () => {
  it('goes by what the server found and by the name', () => {
    expect(lookOf(file('a.png', 'image/png', null))).toBe('image')
    expect(lookOf(file('a.svg', 'image/svg+xml'))).toBe('image')
    expect(lookOf(file('a.pdf', 'application/pdf', null))).toBe('pdf')
    expect(lookOf(file('README.md', 'text/markdown'))).toBe('markdown')
    expect(lookOf(file('a.CSV', 'text/csv'))).toBe('csv')
    expect(lookOf(file('a.html', 'text/html'))).toBe('html')
    expect(lookOf(file('a.py', 'text/x-python'))).toBe('text')
    expect(lookOf(file('a.bin', 'application/octet-stream', null))).toBe('none')
  })

  it('does not fetch what is large', () => {
    expect(lookOf(file('a.png', 'image/png', null, LARGEST_LOOK + 1))).toBe('none')
  })
})

describe('comma-separated values', () => {
  it('have quotes, separators and line ends in quoted cells', () => {
    expect(parseCsv('a,b\r\n"x, ""y""",\n"two\nlines",3', 10)).toEqual([
      ['a', 'b'],
      ['x, "y"', ''],
      ['two\nlines', '3'],
    ])
  })

  it('may have tabs', () =>
    expect(parseCsv('a\tb\n1\t2\n', 10)).toEqual([
      ['a', 'b'],
      ['1', '2'],
    ]))
  it('end where enough is read', () => expect(parseCsv('1\n2\n3\n', 2)).toEqual([['1'], ['2']]))
  it('may be empty', () => expect(parseCsv('', 2)).toEqual([]))
})
