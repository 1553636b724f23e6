import type { components } from './schema'

export type ProblemBody = components['schemas']['Problem']

/** A request that the server refused, as it said so; or that did not reach it (`code` is `offline`, `status` 0). */
export class Problem extends Error {
  readonly status: number
  readonly code: string
  /** What the server said, in English. `words(problem)` of `i18n` says it in the reader's language where it can. */
  readonly detail: string
  /** Seconds until it makes sense to ask again. */
  readonly retryAfter: number | undefined
  readonly requestId: string | undefined
  readonly errors: { loc: (string | number)[]; msg: string }[]

  constructor(
    status: number,
    code: string,
    detail: string,
    more: Partial<ProblemBody> & { retryAfter?: number } = {},
  ) {
    super(detail)
    this.name = 'Problem'
    this.status = status
    this.code = code
    this.detail = detail
    this.retryAfter = more.retryAfter
    this.requestId = more.request_id
    this.errors = more.errors ?? []
  }

  get offline(): boolean {
    return this.status === 0
  }
}

export function offline(): Problem {
  return new Problem(0, 'offline', 'The server cannot be reached')
}

export async function problemOf(response: Response): Promise<Problem> {
  const seconds = Number(response.headers.get('retry-after'))
  const retry = Number.isFinite(seconds) && seconds > 0 ? { retryAfter: seconds } : {}
  try {
    const body = (await response.json()) as Partial<ProblemBody>
    return new Problem(response.status, body.code ?? 'error', body.detail ?? response.statusText, {
      ...body,
      ...retry,
    })
  } catch {
    return new Problem(response.status, 'error', response.statusText || `HTTP ${response.status}`, retry)
  }
}

/** Whether a request was given up by who made it. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError'
}

/** Whatever was thrown, as a problem. What is aborted is thrown on: nobody waits for it. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error
  if (isAbort(error)) throw error
  if (error instanceof TypeError) return offline() // what fetch throws when there is no answer
  throw error
}
