import { beforeEach, describe, expect, it } from 'vitest'
import { Problem } from '@/api/problem'
import { folderOf, type FileEntry, type FileRoot } from '@/lib/fileRoot'
import { useFileTree, type FileTree } from './files'

/** By path: the size of a file, or `dir`. */
let files: Map<string, number | 'dir'>
let tree: FileTree

function entry(path: string): FileEntry {
  const size = files.get(path)
  const name = path.slice(path.lastIndexOf('/') + 1)
  const type = size === 'dir' ? 'dir' : 'file'
  return { name, path, type, size: typeof size === 'number' ? size : 0, modified_at: '2026-01-01T00:00:00Z' }
}

function place(): FileRoot {
  return {
    url: (part) => part,
    async list(path) {
      if (path !== '' && !files.has(path)) throw new Problem(404, 'not_found', 'gone')
      const items = [...files.keys()].filter((one) => folderOf(one) === path).map(entry)
      return Promise.resolve({ items, next_cursor: null })
    },
    preview: () => Promise.reject(new Error('not asked here')),
    usage: () => Promise.resolve({ used_bytes: 0, used_files: 0, limit_bytes: null, limit_files: null }),
    content: () => Promise.reject(new Error('not asked here')),
    zip: () => Promise.reject(new Error('not asked here')),
    makeFolder: (path) => Promise.resolve(void files.set(path, 'dir')),
    move: () => Promise.resolve(),
    remove(path) {
      for (const one of files.keys()) if (one === path || one.startsWith(`${path}/`)) files.delete(one)
      return Promise.resolve()
    },
  }
}

beforeEach(async () => {
  files = new Map<string, number | 'dir'>([
    ['drafts', 'dir'],
    ['drafts/old', 'dir'],
    ['drafts/old/a.txt', 1],
    ['b.txt', 1],
  ])
  tree = useFileTree(place())
  await tree.refresh()
})

describe('where uploads and new folders go', () => {
  it('is the folder that was opened last, and above it when it is closed', async () => {
    await tree.toggle('drafts')
    expect(tree.place.value).toBe('drafts')
    await tree.makeFolder('new')
    expect(files.get('drafts/new')).toBe('dir')
    await tree.toggle('drafts')
    expect(tree.place.value).toBe('')
  })

  it('is never a folder that is gone', async () => {
    await tree.toggle('drafts')
    await tree.toggle('drafts/old')
    await tree.remove(entry('drafts'))
    expect(tree.place.value).toBe('')
    expect([...tree.folders.keys()]).toEqual([''])
  })
})

describe('the file that is looked at', () => {
  it('is the one of now', async () => {
    const before = entry('b.txt')
    files.set('b.txt', 2)
    await tree.refresh()
    expect(tree.latest(before)?.size).toBe(2)
  })

  it('stays while its folder is closed, and goes with it', async () => {
    await tree.toggle('drafts')
    await tree.toggle('drafts/old')
    const file = entry('drafts/old/a.txt')
    await tree.toggle('drafts')
    expect(tree.latest(file)).toEqual(file)
    await tree.remove(entry('drafts'))
    expect(tree.latest(file)).toBeUndefined()
  })
})
