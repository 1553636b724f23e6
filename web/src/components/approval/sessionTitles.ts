import { shallowReactive } from 'vue'
import { api } from '@/api/client'
import { asProblem } from '@/api/problem'

/** The titles of sessions by id; null: it has none, or is gone. Those not asked for yet are missing. */
export const sessionTitles = shallowReactive(new Map<string, string | null>())
const asked = new Set<string>()

/** Ask for the titles that are not known. What fails is asked for again the next time. */
export async function learnTitles(threadIds: Iterable<string>): Promise<void> {
  const missing = [...new Set(threadIds)].filter((id) => !sessionTitles.has(id) && !asked.has(id))
  await Promise.all(missing.map(learnTitle))
}

async function learnTitle(threadId: string): Promise<void> {
  asked.add(threadId)
  try {
    const session = await api.get('/api/sessions/{thread_id}', { path: { thread_id: threadId } })
    sessionTitles.set(threadId, session.title ?? null)
  } catch (error) {
    if (asProblem(error).status === 404) sessionTitles.set(threadId, null)
  } finally {
    asked.delete(threadId)
  }
}
