import { address, send } from '@/api/client'
import type { components, paths } from '@/api/schema'

export type FileEntry = components['schemas']['File']
export type FileUsage = components['schemas']['FileUsage']
export type FilePreview = components['schemas']['FilePreview']
type Page = components['schemas']['FileList']
type SharedPath = Extract<keyof paths, `/api/shared${string}`>

/** A folder with all that is in it: a thread's workspace, or the user's shared one. Every call throws `Problem`. */
export interface FileRoot {
  url: (
    part: '' | 'content' | 'preview' | 'usage' | 'zip' | 'upload',
    query?: Record<string, unknown>,
  ) => string
  list: (path: string, cursor?: string) => Promise<Page>
  preview: (path: string) => Promise<FilePreview>
  usage: () => Promise<FileUsage>
  content: (path: string) => Promise<Blob>
  zip: (path: string) => Promise<Blob>
  makeFolder: (path: string) => Promise<void>
  move: (from: string, to: string) => Promise<void>
  remove: (path: string) => Promise<void>
}

export function workspaceOf(threadId: string): FileRoot {
  return rootAt(address('/api/files/{thread_id}', { thread_id: threadId }))
}

export function sharedFolder(): FileRoot {
  return rootAt('/api/shared' satisfies SharedPath)
}

function rootAt(base: string): FileRoot {
  const url: FileRoot['url'] = (part, query = {}) => address(part ? `${base}/${part}` : base, {}, query)
  const json = async <T>(at: string): Promise<T> => (await (await send(at)).json()) as T
  const post = async (part: string, body: unknown): Promise<void> => {
    const headers = { 'content-type': 'application/json' }
    await send(`${base}/${part}`, { method: 'POST', headers, body: JSON.stringify(body) })
  }
  return {
    url,
    list: (path, cursor) => json(url('', { path, cursor, limit: 100 })),
    preview: (path) => json(url('preview', { path })),
    usage: () => json(url('usage')),
    content: async (path) => await (await send(url('content', { path }))).blob(),
    zip: async (path) => await (await send(url('zip', { path }))).blob(),
    makeFolder: (path) => post('mkdir', { path }),
    move: (from, to) => post('move', { from, to }),
    remove: async (path) => void (await send(url('content', { path }), { method: 'DELETE' })),
  }
}

/** The folder that `path` is in; of what is at the top, ''. */
export function folderOf(path: string): string {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? '' : path.slice(0, slash)
}

export function joined(folder: string, name: string): string {
  return folder ? `${folder}/${name}` : name
}

/** Have the browser keep these bytes as a file. */
export function keep(bytes: Blob, name: string): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(bytes)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}
