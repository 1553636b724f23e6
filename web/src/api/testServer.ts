import { vi } from 'vitest'

/** A request as the server got it. */
export interface Asked {
  method: string
  url: string
  authorization: string | null
  body: unknown
  signal: AbortSignal | undefined
}

type Answer = Response | Promise<Response>

/**
 * Stands in for the server: fetch is where this program ends. Each request gets the next answer of its path (without the
 * query), and the last one for ever after.
 */
export function serve(answers: Record<string, ((asked: Asked) => Answer)[]>): Asked[] {
  const all: Asked[] = []
  vi.stubGlobal('fetch', async (url: string, request: RequestInit = {}) => {
    const headers = new Headers(request.headers)
    const body: unknown = typeof request.body === 'string' ? JSON.parse(request.body) : undefined
    const asked = {
      method: request.method ?? 'GET',
      url,
      authorization: headers.get('authorization'),
      body,
      signal: request.signal ?? undefined,
    }
    all.push(asked)
    const of = answers[url.replace(/\?.*/, '')]
    const answer = of && of.length > 1 ? of.shift() : of?.[0]
    if (!answer) throw new TypeError(`Failed to fetch ${url}`)
    const reply = await answer(asked)
    request.signal?.throwIfAborted()
    return reply
  })
  return all
}

export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { 'content-type': 'application/json', ...headers },
  })
}

/** A refusal as the server makes it. */
export function refusal(status: number, code: string, headers: Record<string, string> = {}): Response {
  const body = { type: 'about:blank', title: code, status, detail: `It is ${code}`, code, request_id: 'abc' }
  return json(body, status, headers)
}

/** A stream of these pieces that then ends; or, with the signal of its request, stays open until that is given up. */
export function stream(pieces: string[], until?: AbortSignal): Response {
  const bytes = new TextEncoder()
  return new Response(
    new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(bytes.encode(piece))
        if (until) until.addEventListener('abort', () => controller.error(until.reason))
        else controller.close()
      },
    }),
    { headers: { 'content-type': 'text/event-stream' } },
  )
}
