import { afterEach, expect, it, vi } from 'vitest'
import { accessToken, changePassword, logIn, refresh } from './access'

const CHANGE = { current_password: 'old', new_password: 'new', keep_keys: false }

/** What the server is asked for, and how it answers to a change of the password. */
function serve(changed: Promise<Response>): string[] {
  const asked: string[] = []
  let token = 0
  vi.stubGlobal('fetch', (path: string) => {
    asked.push(path)
    return path === '/api/auth/password'
      ? changed
      : Promise.resolve(Response.json({ access_token: `token ${++token}` }))
  })
  return asked
}

afterEach(() => vi.unstubAllGlobals())

it('has whoever meets a dead token wait for the log-in with the new password', async () => {
  let answer: (response: Response) => void = () => undefined
  const asked = serve(new Promise((resolve) => (answer = resolve)))
  await logIn('ada', 'old')
  const done = changePassword('ada', CHANGE)
  const renewed = refresh()
  answer(new Response(null, { status: 204 }))
  expect(await renewed).toBe(true)
  await done
  expect(accessToken()).toBe('token 2')
  expect(asked).toEqual(['/api/auth/login', '/api/auth/password', '/api/auth/login'])
})

it('goes on with the token that is there when the password is refused', async () => {
  serve(Promise.resolve(Response.json({ code: 'wrong_credentials', detail: 'Wrong' }, { status: 401 })))
  await logIn('ada', 'old')
  const done = changePassword('ada', CHANGE)
  expect(await Promise.all([refresh(), done.catch((problem: Error) => problem.message)])).toEqual([
    true,
    'Wrong',
  ])
  expect(accessToken()).toBe('token 1')
})
