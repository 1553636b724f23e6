import { reactive, shallowRef, type ShallowRef } from 'vue'
import { asProblem, type Problem } from '@/api/problem'
import { folderOf, keep, type FileEntry, type FileRoot, type FileUsage } from '@/lib/fileRoot'

/** What is known of an open folder. `entries` undefined: not loaded yet. `cursor`: there is more. */
export interface Folder {
  entries?: FileEntry[]
  cursor?: string | null
  problem?: Problem
}

export interface FileTree {
  root: FileRoot
  /** The open folders, by path; '' is the top, which is always open. */
  folders: Map<string, Folder>
  usage: ShallowRef<FileUsage | undefined>
  problem: ShallowRef<Problem | undefined>
  /** Where uploads and new folders go. */
  place: ShallowRef<string>
  /** What is being fetched for a download, by path; '' for all. */
  fetching: ReadonlySet<string>
  toggle: (path: string) => Promise<void>
  more: (path: string) => Promise<void>
  /** Ask again for all that is open. */
  refresh: () => Promise<void>
  makeFolder: (name: string) => Promise<boolean>
  move: (from: string, to: string) => Promise<boolean>
  remove: (entry: FileEntry) => Promise<boolean>
  /** What is now known of this file; undefined when it is known to be gone. */
  latest: (entry: FileEntry) => FileEntry | undefined
  download: (entry: FileEntry) => Promise<void>
  downloadAll: (name: string) => Promise<void>
}

function isIn(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`)
}

/** A tree of files whose folders are loaded when they are opened, page by page. */
export function useFileTree(root: FileRoot): FileTree {
  const folders = reactive(new Map<string, Folder>([['', {}]]))
  const usage = shallowRef<FileUsage>()
  const problem = shallowRef<Problem>()
  const place = shallowRef('')
  const fetching = reactive(new Set<string>())

  async function load(path: string): Promise<void> {
    try {
      const page = await root.list(path)
      folders.set(path, { entries: page.items, cursor: page.next_cursor })
    } catch (error) {
      const found = asProblem(error)
      const before = folders.get(path)
      if (found.status === 404 && path !== '') close(path)
      else folders.set(path, { ...before, problem: found })
    }
  }

  /** Nothing goes to a folder that is not open, or is gone. */
  function close(path: string): void {
    for (const open of folders.keys()) if (isIn(open, path)) folders.delete(open)
    if (isIn(place.value, path)) place.value = folderOf(path)
  }

  async function loadUsage(): Promise<void> {
    try {
      usage.value = await root.usage()
    } catch (error) {
      problem.value = asProblem(error)
    }
  }

  async function refresh(): Promise<void> {
    problem.value = undefined
    await Promise.all([...[...folders.keys()].map(load), loadUsage()])
  }

  /** Whether it went well; what went wrong is in `problem`. */
  async function attempt(act: () => Promise<void>): Promise<boolean> {
    problem.value = undefined
    try {
      await act()
      return true
    } catch (error) {
      problem.value = asProblem(error)
      return false
    }
  }

  async function change(act: () => Promise<void>): Promise<boolean> {
    const done = await attempt(act)
    if (done) await refresh()
    return done
  }

  async function fetchAs(path: string, name: string, get: () => Promise<Blob>): Promise<void> {
    fetching.add(path)
    await attempt(async () => keep(await get(), name))
    fetching.delete(path)
  }

  return {
    root,
    folders,
    usage,
    problem,
    place,
    fetching,
    async toggle(path) {
      if (folders.has(path)) {
        close(path)
        place.value = folderOf(path)
      } else {
        place.value = path
        folders.set(path, {})
        await load(path)
      }
    },
    async more(path) {
      const folder = folders.get(path)
      if (!folder?.cursor) return
      await attempt(async () => {
        const page = await root.list(path, folder.cursor ?? undefined)
        folders.set(path, { entries: [...(folder.entries ?? []), ...page.items], cursor: page.next_cursor })
      })
    },
    refresh,
    makeFolder: (name) => change(() => root.makeFolder(place.value ? `${place.value}/${name}` : name)),
    move: (from, to) =>
      change(async () => {
        await root.move(from, to)
        close(from)
      }),
    remove: (entry) =>
      change(async () => {
        await root.remove(entry.path)
        close(entry.path)
      }),
    latest(entry) {
      for (let path = entry.path; path !== ''; path = folderOf(path)) {
        const folder = folders.get(folderOf(path))
        if (!folder?.entries) continue
        const found = folder.entries.find((one) => one.path === path)
        if (!found && !folder.cursor) return undefined
        return found && path === entry.path ? found : entry
      }
      return entry
    },
    download: (entry) =>
      entry.type === 'dir'
        ? fetchAs(entry.path, `${entry.name}.zip`, () => root.zip(entry.path))
        : fetchAs(entry.path, entry.name, () => root.content(entry.path)),
    downloadAll: (name) => fetchAs('', `${name}.zip`, () => root.zip('')),
  }
}
