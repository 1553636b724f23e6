import { expect, it } from 'vitest'
import { plainOutput } from './terminal'

it('leaves out colours and titles', () => {
  expect(plainOutput('\u001b[1;31mred\u001b[0m and \u001b]0;title\u0007plain')).toBe('red and plain')
})

it('shows what is left of a line that was written over', () => {
  expect(plainOutput('10%\r50%\r100%\ndone\r\n')).toBe('100%\ndone\n')
  expect(plainOutput('abcdef\rxy\r')).toBe('xycdef')
})

it('keeps tabs and new lines, and no other control character', () => {
  expect(plainOutput('a\tb\n\u0000\u0007c')).toBe('a\tb\nc')
})
