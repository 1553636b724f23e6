import { shallowRef } from 'vue'
import { forget, isLoggedIn, logIn, logOut, refresh } from '@/api/access'
import { api } from '@/api/client'
import type { components } from '@/api/schema'

export type Me = components['schemas']['Me']

/** Who is logged in here; undefined: nobody. */
export const me = shallowRef<Me>()

/** Take up this browser's log-in, if it has one. */
export async function comeBack(): Promise<boolean> {
  if (me.value && isLoggedIn()) return true
  if (!isLoggedIn() && !(await refresh())) return false
  await loadMe()
  return true
}

export async function loadMe(): Promise<void> {
  me.value = await api.get('/api/auth/me')
}

export async function enter(username: string, password: string): Promise<void> {
  await logIn(username, password)
  await loadMe()
}

export async function leave(everywhere = false): Promise<void> {
  await logOut(everywhere)
  me.value = undefined
}

/** This log-in has ended elsewhere: nobody is here any more. */
export function thrownOut(): void {
  forget()
  me.value = undefined
}
