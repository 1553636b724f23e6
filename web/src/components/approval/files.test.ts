import { describe, expect, it } from 'vitest'
import { placeOf, textAfter } from './files'

describe('placeOf', () => {
  it('finds a tool’s path in the two folders that the API has', () => {
    expect(placeOf('/workspace/a/b.txt', '/workspace')).toEqual({ root: 'workspace', path: 'a/b.txt' })
    expect(placeOf('/workspace//a/./x/../b', '/workspace/')).toEqual({ root: 'workspace', path: 'a/b' })
    expect(placeOf('/shared/x', '/workspace')).toEqual({ root: 'shared', path: 'x' })
  })

  it('knows no other place', () => {
    for (const path of ['/etc/passwd', '/workspace', '/workspace/../etc/x', '/workspaces/a'])
      expect(placeOf(path, '/workspace')).toBeUndefined()
  })
})

describe('textAfter', () => {
  const edit = (old_string: string, new_string: string, more = {}) => ({ old_string, new_string, ...more })

  it('replaces what an edit names, with the line ends that the file has', () => {
    expect(textAfter('edit_file', edit('b', '$&'), 'abc')).toEqual({ text: 'a$&c' })
    expect(textAfter('edit_file', edit('a\nb', 'x\ny'), 'a\r\nb\r\n')).toEqual({ text: 'x\r\ny\r\n' })
    expect(textAfter('edit_file', edit('a', 'b', { replace_all: true }), 'a a')).toEqual({ text: 'b b' })
    expect(textAfter('write_file', { content: 'x' }, null)).toEqual({ text: 'x' })
  })

  it('says why it would fail', () => {
    expect(textAfter('edit_file', edit('a', 'b'), null)).toEqual({ fails: 'absent' })
    expect(textAfter('edit_file', edit('', 'b'), 'x')).toEqual({ fails: 'empty' })
    expect(textAfter('edit_file', edit('a', 'b'), 'x')).toEqual({ fails: 'missing' })
    expect(textAfter('edit_file', edit('a', 'b'), 'aa')).toEqual({ fails: 'ambiguous' })
  })
})
