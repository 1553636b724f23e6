import { accessToken, refresh } from './access'
import { isAbort, offline, problemOf } from './problem'
import type { paths } from './schema'

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete'
type Has<M extends Method> = {
  [P in keyof paths]: paths[P] extends Record<M, { responses: unknown }> ? P : never
}[keyof paths]
type Operation<P extends keyof paths, M extends Method> = paths[P] extends Record<M, infer O> ? O : never
type Json<T> = T extends { content: { 'application/json': infer B } } ? B : undefined
type Answers<O> = O extends { responses: infer R } ? R : never
type Answer<O> = Json<
  { [S in keyof Answers<O>]: S extends 200 | 201 | 202 | 204 ? Answers<O>[S] : never }[keyof Answers<O>]
>
type Part<O, K extends string> = O extends { parameters: infer Q }
  ? K extends keyof Q
    ? Q[K]
    : undefined
  : undefined
type Body<O> = O extends { requestBody?: infer B } ? Json<NonNullable<B>> : undefined

type Given<O> = {
  path?: Part<O, 'path'>
  query?: Part<O, 'query'>
  body?: Body<O>
  headers?: Record<string, string>
  signal?: AbortSignal
}

/** Ask the core API; answers the JSON body. Throws `Problem`, also when the server cannot be reached. */
async function ask<P extends keyof paths, M extends Method>(
  method: M,
  template: P,
  given: Given<Operation<P, M>> = {},
): Promise<Answer<Operation<P, M>>> {
  const headers: Record<string, string> = { accept: 'application/json', ...given.headers }
  const request: RequestInit = { method: method.toUpperCase(), headers }
  if (given.body !== undefined) {
    headers['content-type'] = 'application/json'
    request.body = JSON.stringify(given.body)
  }
  if (given.signal) request.signal = given.signal
  const response = await send(address(template, given.path, given.query), request)
  if (response.status === 204) return undefined as Answer<Operation<P, M>>
  return (await response.json()) as Answer<Operation<P, M>>
}

export const api = {
  get: <P extends Has<'get'>>(path: P, given?: Given<Operation<P, 'get'>>) => ask('get', path, given),
  post: <P extends Has<'post'>>(path: P, given?: Given<Operation<P, 'post'>>) => ask('post', path, given),
  put: <P extends Has<'put'>>(path: P, given?: Given<Operation<P, 'put'>>) => ask('put', path, given),
  patch: <P extends Has<'patch'>>(path: P, given?: Given<Operation<P, 'patch'>>) => ask('patch', path, given),
  delete: <P extends Has<'delete'>>(path: P, given?: Given<Operation<P, 'delete'>>) =>
    ask('delete', path, given),
}

/** A request with the caller's token, renewed once when it has run out. Throws `Problem` for every refusal. */
export async function send(url: string, request: RequestInit = {}): Promise<Response> {
  let response = await attempt(url, request)
  if (response.status === 401 && (await refresh())) response = await attempt(url, request)
  if (!response.ok) throw await problemOf(response)
  return response
}

async function attempt(url: string, request: RequestInit): Promise<Response> {
  const headers = new Headers(request.headers)
  const token = accessToken()
  if (token !== undefined) headers.set('authorization', `Bearer ${token}`)
  try {
    return await fetch(url, { ...request, headers })
  } catch (error) {
    if (isAbort(error)) throw error
    throw offline()
  }
}

/** The URL of a path such as `/api/files/{thread_id}` with its parameters in place. */
export function address(template: string, path: unknown = {}, query: unknown = {}): string {
  const named = path as Record<string, unknown>
  const place = template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(named[name])))
  const asked = new URLSearchParams()
  for (const [name, value] of Object.entries(query as Record<string, unknown>)) {
    if (value !== undefined && value !== null) asked.append(name, String(value))
  }
  const text = asked.toString()
  return text ? `${place}?${text}` : place
}
