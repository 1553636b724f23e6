// @vitest-environment jsdom
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { accessToken, forget, logIn, onLoggedOut, refresh } from './access'
import { address, api, send } from './client'
import { Problem } from './problem'
import { json, refusal, serve } from './testServer'

const token = (access_token: string) => () => json({ access_token, token_type: 'bearer', expires_in: 60 })

beforeEach(() => {
  vi.stubGlobal('navigator', { locks: { request: (_: string, act: () => unknown) => act() } })
})

afterEach(() => {
  forget()
  onLoggedOut(() => undefined)
  vi.unstubAllGlobals()
})

it('logs in by cookie, and sends the access token from then on', async () => {
  const asked = serve({
    '/api/auth/login': [token('one')],
    '/api/auth/me': [() => json({ user_id: 'alice' })],
  })
  await logIn('alice', 'secret')
  await api.get('/api/auth/me')
  expect(asked[0]?.body).toEqual({ username: 'alice', password: 'secret', cookie: true })
  expect(asked[1]?.authorization).toBe('Bearer one')
})

it('renews a token that has run out, once, and repeats the request', async () => {
  const asked = serve({
    '/api/auth/refresh': [token('new')],
    '/api/auth/me': [() => refusal(401, 'unauthenticated'), () => json({ user_id: 'alice' })],
  })
  await expect(api.get('/api/auth/me')).resolves.toMatchObject({ user_id: 'alice' })
  expect(asked.map((one) => one.url)).toEqual(['/api/auth/me', '/api/auth/refresh', '/api/auth/me'])
  expect(asked[2]?.authorization).toBe('Bearer new')
})

it('renews once for many requests at the same time: a refresh token works once', async () => {
  const asked = serve({ '/api/auth/refresh': [token('new')] })
  await Promise.all([refresh(), refresh(), refresh()])
  expect(asked).toHaveLength(1)
})

it('says that the log-in has ended, and drops the token', async () => {
  const ended = vi.fn()
  serve({
    '/api/auth/login': [token('one')],
    '/api/auth/refresh': [() => refusal(401, 'invalid_refresh_token')],
    '/api/auth/me': [() => refusal(401, 'unauthenticated')],
  })
  await logIn('alice', 'secret')
  onLoggedOut(ended)
  await expect(api.get('/api/auth/me')).rejects.toMatchObject({ status: 401, code: 'unauthenticated' })
  expect(ended).toHaveBeenCalledOnce()
  expect(accessToken()).toBeUndefined()
})

it('keeps the log-in when the server cannot be reached to renew it', async () => {
  serve({ '/api/auth/login': [token('one')], '/api/auth/me': [() => refusal(401, 'unauthenticated')] })
  await logIn('alice', 'secret')
  await expect(api.get('/api/auth/me')).rejects.toMatchObject({ code: 'offline' })
  expect(accessToken()).toBe('one')
})

it('throws what the server said of a refusal', async () => {
  serve({ '/api/sessions': [() => refusal(429, 'session_quota', { 'retry-after': '7' })] })
  const problem = await api
    .post('/api/sessions', { body: { title: '', assistant_id: 'agent' } })
    .catch((error: unknown) => error)
  expect(problem).toBeInstanceOf(Problem)
  expect(problem).toMatchObject({ status: 429, code: 'session_quota', retryAfter: 7, requestId: 'abc' })
})

it('makes a problem of an answer that is none of the server’s', async () => {
  serve({ '/info': [() => new Response('<h1>Bad gateway</h1>', { status: 502, statusText: 'Bad Gateway' })] })
  await expect(api.get('/info')).rejects.toMatchObject({ status: 502, code: 'error', detail: 'Bad Gateway' })
})

it('tells a lost connection from one that was given up', async () => {
  serve({})
  await expect(send('/info')).rejects.toMatchObject({ code: 'offline', status: 0 })
  const given = new AbortController()
  serve({ '/info': [() => json({})] })
  given.abort()
  await expect(send('/info', { signal: given.signal })).rejects.toMatchObject({ name: 'AbortError' })
})

it('puts parameters where they cannot become anything else', () => {
  expect(
    address('/api/files/{thread_id}', { thread_id: 'a/../b?c' }, { path: 'x y&z', cursor: undefined }),
  ).toBe('/api/files/a%2F..%2Fb%3Fc?path=x+y%26z')
})
