import { reactive } from 'vue'
import { accessToken, refresh } from '@/api/access'
import { offline, Problem } from '@/api/problem'

/** A file on its way into a workspace or the shared folder. `path` is where it is, once it is there. */
export interface Upload {
  key: string
  file: File
  name: string
  /** 0 to 100 */
  percent: number
  path?: string
  problem?: Problem
}

const TRIES = 50

/** Files that are sent to `url` (a folder's upload address) one after another, each under a name that is free. */
export function useUploads(url: () => string): {
  uploads: Upload[]
  add: (files: Iterable<File>) => void
  again: (upload: Upload) => void
  remove: (key: string) => void
  clear: () => void
} {
  const uploads = reactive<Upload[]>([])
  let turn = Promise.resolve()

  function queue(upload: Upload): void {
    turn = turn.then(() => put(upload))
  }

  async function put(upload: Upload): Promise<void> {
    if (!uploads.some((one) => one.key === upload.key)) return
    delete upload.problem
    try {
      upload.path = await store(upload)
    } catch (error) {
      if (!(error instanceof Problem)) throw error
      upload.problem = error
    }
  }

  /** Something of that name may be there, and be needed: then another one is taken. */
  async function store(upload: Upload): Promise<string> {
    for (let number = 1; ; number++) {
      const name = number === 1 ? upload.name : numbered(upload.name, number)
      try {
        return await sendFile(url(), upload.file, name, (percent) => (upload.percent = percent))
      } catch (error) {
        if (!(error instanceof Problem) || error.code !== 'file_exists' || number === TRIES) throw error
      }
    }
  }

  return {
    uploads,
    add(files) {
      for (const file of files) {
        uploads.push({ key: crypto.randomUUID(), file, name: file.name, percent: 0 })
        const added = uploads.at(-1)
        if (added) queue(added)
      }
    },
    again: queue,
    remove(key) {
      const place = uploads.findIndex((one) => one.key === key)
      if (place >= 0) uploads.splice(place, 1)
    },
    clear: () => uploads.splice(0),
  }
}

/** "a.tar" and 2: "a-2.tar". */
export function numbered(name: string, number: number): string {
  const dot = name.lastIndexOf('.')
  return dot > 0 ? `${name.slice(0, dot)}-${number}${name.slice(dot)}` : `${name}-${number}`
}

async function sendFile(
  url: string,
  file: File,
  name: string,
  onProgress: (percent: number) => void,
): Promise<string> {
  let answer = await attempt(url, file, name, onProgress)
  if (answer.status === 401 && (await refresh())) answer = await attempt(url, file, name, onProgress)
  const body = answer.body as { path?: string; code?: string; detail?: string }
  if (answer.status >= 300 || body.path === undefined) {
    throw new Problem(answer.status, body.code ?? 'error', body.detail ?? `HTTP ${answer.status}`)
  }
  return body.path
}

/** With XMLHttpRequest: fetch does not tell how much of a request is sent. */
function attempt(
  url: string,
  file: File,
  name: string,
  onProgress: (percent: number) => void,
): Promise<{ status: number; body: unknown }> {
  const form = new FormData()
  form.append('file', file, name)
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('POST', url)
    request.setRequestHeader('authorization', `Bearer ${accessToken() ?? ''}`)
    request.responseType = 'json'
    request.upload.onprogress = (event) => onProgress(Math.round((100 * event.loaded) / event.total))
    request.onload = () => resolve({ status: request.status, body: request.response ?? {} })
    request.onerror = () => reject(offline())
    request.send(form)
  })
}
