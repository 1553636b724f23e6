import { computed, ref, shallowRef } from 'vue'
import { address, api, send } from '@/api/client'
import { asProblem, type Problem } from '@/api/problem'
import type { components } from '@/api/schema'
import { keep } from '@/lib/fileRoot'

export type Session = components['schemas']['Session']
export type FoundMessage = components['schemas']['FoundMessage']
export type SessionChange = components['schemas']['SessionChange']

const PAGE = 20
const LARGEST_PAGE = 100

/** Those that wait for an answer. */
export const waiting = shallowRef<readonly Session[]>([])
export const pinned = shallowRef<readonly Session[]>([])
/** Latest activity first: the list, what was searched for, or the archive. */
export const listed = shallowRef<readonly Session[]>([])
export const foundMessages = shallowRef<readonly FoundMessage[]>([])
export const hasMore = ref(false)
export const loaded = ref(false)
/** Why the list is not as new as it should be. */
export const listProblem = shallowRef<Problem>()
export const query = ref('')
export const showsArchive = ref(false)
/** How many approvals wait in all sessions. */
export const pendingCount = computed(() => waiting.value.reduce((sum, one) => sum + one.pending_count, 0))

let wanted = PAGE
let asking = 0

/** Ask for the lists anew; never throws. Of several at once the latest counts. */
export async function refreshSessions(): Promise<void> {
  const turn = ++asking
  try {
    const q = query.value.trim()
    const [open, kept, all, found] = await Promise.all([
      api.get('/api/sessions', { query: { run_status: 'interrupted', limit: LARGEST_PAGE } }),
      api.get('/api/sessions', { query: { pinned: true, limit: LARGEST_PAGE } }),
      fetchListed(q),
      q ? api.get('/api/messages', { query: { q, limit: PAGE } }) : undefined,
    ])
    if (turn !== asking) return
    waiting.value = open.items
    pinned.value = kept.items
    listed.value = all.items
    hasMore.value = all.more
    foundMessages.value = found?.items ?? []
    loaded.value = true
    listProblem.value = undefined
  } catch (error) {
    if (turn === asking) listProblem.value = asProblem(error)
  }
}

async function fetchListed(q: string): Promise<{ items: Session[]; more: boolean }> {
  const items: Session[] = []
  let cursor: string | null | undefined
  do {
    const limit = Math.min(wanted - items.length, LARGEST_PAGE)
    const filter = { limit, archived: showsArchive.value, ...(q ? { q } : {}), ...(cursor ? { cursor } : {}) }
    const page = await api.get('/api/sessions', { query: filter })
    items.push(...page.items)
    cursor = page.next_cursor
  } while (cursor && items.length < wanted)
  return { items, more: Boolean(cursor) }
}

export async function showMore(): Promise<void> {
  wanted += PAGE
  await refreshSessions()
}

export async function search(text: string): Promise<void> {
  query.value = text
  wanted = PAGE
  await refreshSessions()
}

export async function showArchive(archive: boolean): Promise<void> {
  showsArchive.value = archive
  listed.value = []
  loaded.value = false
  wanted = PAGE
  await refreshSessions()
}

/** Another user may log in next, who must not see these for a moment. */
export function forgetSessions(): void {
  asking++
  waiting.value = pinned.value = listed.value = []
  foundMessages.value = []
  loaded.value = hasMore.value = showsArchive.value = false
  query.value = ''
  wanted = PAGE
}

/** The id of a session that nothing was said in yet: the latest one, if it is such, else a new one. */
export async function newSession(): Promise<string> {
  const page = await api.get('/api/sessions', { query: { limit: 1 } })
  const [latest] = page.items
  if (
    latest?.status === 'active' &&
    latest.message_count === 0 &&
    latest.title === '' &&
    latest.last_seq === 0
  )
    return latest.thread_id
  const made = await api.post('/api/sessions')
  void refreshSessions()
  return made.thread_id
}

export async function changeSession(threadId: string, change: SessionChange): Promise<void> {
  await api.patch('/api/sessions/{thread_id}', { path: { thread_id: threadId }, body: change })
  await refreshSessions()
}

export async function deleteSession(threadId: string): Promise<void> {
  await api.delete('/api/sessions/{thread_id}', { path: { thread_id: threadId } })
  await refreshSessions()
}

/** Saves the session's messages as a Markdown file where the browser keeps downloads. */
export async function exportSession(threadId: string): Promise<void> {
  const response = await send(address('/api/sessions/{thread_id}/export', { thread_id: threadId }))
  const name = /filename\*=UTF-8''([^;]+)/.exec(response.headers.get('content-disposition') ?? '')?.[1]
  keep(await response.blob(), name === undefined ? `${threadId}.md` : decodeURIComponent(name))
}
