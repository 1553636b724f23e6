import { shallowRef } from 'vue'
import { api } from '@/api/client'
import { asProblem } from '@/api/problem'
import type { components } from '@/api/schema'

export type Info = components['schemas']['Info']

/** What the server is. */
export const info = shallowRef<Info>()
/** The server is another version than the one that this page came from. */
export const updated = shallowRef(false)

/** Never throws: who needs the server more than this tells of its absence. */
export async function refreshInfo(): Promise<void> {
  try {
    const now = await api.get('/info')
    if (info.value && info.value.version !== now.version) updated.value = true
    info.value = now
  } catch (error) {
    asProblem(error)
  }
}
