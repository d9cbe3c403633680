import type { Session } from './types'

/** A request that was refused or never arrived; `reason` is what the pages translate. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    message: string,
    readonly hint = '',
    readonly retryS: number | null = null,
  ) {
    super(message)
    this.name = 'ApiError'
  }
}

const TIMEOUT_MS = 10_000
let csrf = ''
let onSignedOut: () => void = () => {}

/** Keep the token that every unsafe call of this session needs. */
export function useSession(session: Session | null): void {
  csrf = session?.csrf ?? ''
}

/** Say what happens when the server ends the session. */
export function onSessionEnd(ended: () => void): void {
  onSignedOut = ended
}

interface ErrorBody {
  error?: { reason?: string; message?: string; hint?: string; retry_s?: number }
  retry_s?: number
}

async function failure(response: Response): Promise<ApiError> {
  const body = (await response.json().catch(() => ({}))) as ErrorBody
  const error = body.error ?? {}
  return new ApiError(
    response.status,
    error.reason ?? `http_${response.status}`,
    error.message ?? '',
    error.hint ?? '',
    error.retry_s ?? body.retry_s ?? null,
  )
}

/**
 * One call of the API.
 *
 * Throws ApiError: reason `network` when nothing answered in time, else the server's reason.
 */
export async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = { Accept: 'application/json' }
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  if (method !== 'GET' && csrf) headers['X-CSRF-Token'] = csrf
  let response: Response
  try {
    response = await fetch(`/api/v1${path}`, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
  } catch {
    throw new ApiError(0, 'network', '')
  }
  if (!response.ok) {
    const error = await failure(response)
    if (error.status === 401 && error.reason === 'signed_out') onSignedOut()
    throw error
  }
  if (response.status === 204) return undefined as T
  const text = await response.text()
  return (text ? JSON.parse(text) : undefined) as T
}

/**
 * Send bytes, or nothing, and give the answer as it comes.
 *
 * `timeoutMs`: for the whole answer. Throws ApiError as `call`.
 */
export async function send(method: string, path: string, body: Blob | null, timeoutMs: number, stop?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { 'Content-Type': 'application/octet-stream', 'X-CSRF-Token': csrf }
  const limit = AbortSignal.timeout(timeoutMs)
  const signal = stop ? AbortSignal.any([stop, limit]) : limit
  let response: Response
  try {
    response = await fetch(`/api/v1${path}`, { method, headers, body, credentials: 'same-origin', cache: 'no-store', signal })
  } catch {
    throw new ApiError(0, stop?.aborted ? 'stopped' : 'network', '')
  }
  if (response.ok) return response
  const error = await failure(response)
  if (error.status === 401 && error.reason === 'signed_out') onSignedOut()
  throw error
}

export const get = <T>(path: string): Promise<T> => call<T>('GET', path)
export const post = <T>(path: string, body: unknown): Promise<T> => call<T>('POST', path, body)
export const del = <T>(path: string): Promise<T> => call<T>('DELETE', path)
