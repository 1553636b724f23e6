import { shallowRef } from 'vue'
import { offline, Problem, problemOf } from './problem'
import type { components } from './schema'

type TokenAnswer = components['schemas']['TokenAnswer']

/** In memory only. What outlives the page is the refresh token, in a cookie that no script can read. */
const token = shallowRef<string>()
const LOCK = 'moorage-refresh'
let refreshing: Promise<boolean> | undefined
let listener: () => void = () => undefined

export function accessToken(): string | undefined {
  return token.value
}

export function isLoggedIn(): boolean {
  return token.value !== undefined
}

/** Called when this log-in has ended: by the server, or in another tab. */
export function onLoggedOut(call: () => void): void {
  listener = call
}

export async function logIn(username: string, password: string): Promise<void> {
  const answer = await post('/api/auth/login', { username, password, cookie: true })
  token.value = ((await answer.json()) as TokenAnswer).access_token
}

export interface PasswordChange {
  current_password: string
  new_password: string
  keep_keys: boolean
}

/** Every token dies with the old password: requests that meet that wait for the new log-in, as for a refresh. */
export function changePassword(username: string, change: PasswordChange): Promise<void> {
  const changed = changeAndLogIn(username, change)
  const renewed = changed.then(
    () => true,
    () => isLoggedIn(),
  )
  refreshing = renewed.finally(() => (refreshing = undefined))
  return changed
}

async function changeAndLogIn(username: string, change: PasswordChange): Promise<void> {
  await post('/api/auth/password', change, token.value)
  await logIn(username, change.new_password)
}

export async function logOut(everywhere = false): Promise<void> {
  const given = token.value
  if (given === undefined) return
  await post(everywhere ? '/api/auth/logout-all' : '/api/auth/logout', undefined, given)
  forget()
}

/** Drop the access token, as after a password change. */
export function forget(): void {
  token.value = undefined
}

/**
 * A new access token for the cookie's refresh token; false when there is no log-in any more. A refresh token works once
 * and using it twice ends the log-in, so tabs take turns.
 */
export function refresh(): Promise<boolean> {
  refreshing ??= inTurn().finally(() => (refreshing = undefined))
  return refreshing
}

async function inTurn(): Promise<boolean> {
  return await navigator.locks.request(LOCK, renew)
}

async function renew(): Promise<boolean> {
  try {
    const answer = await post('/api/auth/refresh', undefined)
    token.value = ((await answer.json()) as TokenAnswer).access_token
    return true
  } catch (error) {
    if (!(error instanceof Problem) || (error.status !== 401 && error.status !== 403)) throw error
    const had = token.value !== undefined
    token.value = undefined
    if (had) listener()
    return false
  }
}

async function post(path: string, body: unknown, bearer?: string): Promise<Response> {
  const headers: Record<string, string> = {}
  if (body !== undefined) headers['content-type'] = 'application/json'
  if (bearer !== undefined) headers.authorization = `Bearer ${bearer}`
  const request: RequestInit = { method: 'POST', headers, credentials: 'same-origin' }
  if (body !== undefined) request.body = JSON.stringify(body)
  let response: Response
  try {
    response = await fetch(path, request)
  } catch {
    throw offline()
  }
  if (!response.ok) throw await problemOf(response)
  return response
}
