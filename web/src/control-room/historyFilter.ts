/** What a search of the history asks for, in the page's address and in the API's words. */
export interface Filter {
  span: Span
  /** `datetime-local` values, of the browser's time zone; of a custom span alone. */
  from: string
  to: string
  area: string
  priority: string
  kind: string
  change: string
  person: string
  text: string
}

export const SPANS = ['h24', 'd7', 'd30', 'd90', 'any', 'custom'] as const
export type Span = (typeof SPANS)[number]

const HOUR_MS = 3_600_000
export const SPAN_MS: Partial<Record<Span, number>> = { h24: 24 * HOUR_MS, d7: 7 * 24 * HOUR_MS, d30: 30 * 24 * HOUR_MS, d90: 90 * 24 * HOUR_MS }
const FIELDS = ['from', 'to', 'area', 'priority', 'kind', 'change', 'person', 'text'] as const

export const everything = (): Filter => ({ span: 'any', from: '', to: '', area: '', priority: '', kind: '', change: '', person: '', text: '' })

export function fromQuery(query: URLSearchParams): Filter {
  const filter = everything()
  for (const field of FIELDS) filter[field] = query.get(field) ?? ''
  const span = query.get('span') as Span | null
  if (span && SPANS.includes(span)) filter.span = span
  return filter
}

export function asQuery(filter: Filter): URLSearchParams {
  const query = new URLSearchParams()
  if (filter.span !== 'any') query.set('span', filter.span)
  for (const field of FIELDS) if (filter[field]) query.set(field, filter[field])
  return query
}

/** `from` and `to` in milliseconds since 1970, as far as they are set. */
export function times(filter: Pick<Filter, 'span' | 'from' | 'to'>, nowMs: number): { from?: number; to?: number } {
  const lengthMs = SPAN_MS[filter.span]
  if (lengthMs) return { from: nowMs - lengthMs }
  if (filter.span !== 'custom') return {}
  const [from, to] = [Date.parse(filter.from), Date.parse(filter.to)]
  return { ...(Number.isNaN(from) ? {} : { from }), ...(Number.isNaN(to) ? {} : { to }) }
}

/** The query of the API. */
export function toParameters(filter: Filter, nowMs = Date.now()): string {
  const query = new URLSearchParams()
  for (const [key, value] of Object.entries(times(filter, nowMs))) query.set(key, String(Math.max(0, Math.round(value))))
  for (const field of FIELDS) if (field !== 'from' && field !== 'to' && filter[field].trim()) query.set(field, filter[field].trim())
  return query.toString()
}
