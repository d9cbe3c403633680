import { computed, ref, shallowRef } from 'vue'
import { ApiError, post, send } from '../shared/api'

/** What became of one stream of a bundle; `problem` begins with a word for why the rest was not taken. */
export interface StreamOutcome {
  stream: string
  epoch: string
  ack: number
  new: number
  known: number
  quarantined: number
  problem: string
}
export interface BundleResult {
  gateway: string
  streams: StreamOutcome[]
  blobs: { new: number; known: number; refused: number; problem: string } | null
  /** Revision of the configuration that goes back. */
  config: number | null
  /** Another file of the same export follows. */
  more: boolean
  /** Base64 of the file to carry back. */
  answer: string
}
export type Step = 'idle' | 'sending' | 'taking' | 'done' | 'failed'

export const MOST_BYTES = 4 * 2 ** 30
const PIECE_MS = 55_000
const TAKE_MS = 6 * 3_600_000
const TRIES = 4

/** Lives on while another page is looked at. */
export const step = ref<Step>('idle')
export const fileName = ref('')
export const done = ref(0)
export const of = ref(0)
export const result = shallowRef<BundleResult | null>(null)
/** Why it failed: a reason of the API, and what the server says. */
export const failed = shallowRef<{ reason: string; message: string } | null>(null)
export const isBusy = computed(() => step.value === 'sending' || step.value === 'taking')
export const percent = computed(() => (of.value ? Math.min(100, Math.floor((100 * done.value) / of.value)) : 0))
let stop = new AbortController()

export const isPartly = (found: BundleResult): boolean => found.streams.some((one) => one.problem !== '') || Boolean(found.blobs?.refused)
/** `gap: batch 5 comes first` begins with its reason. */
export const reasonOf = (problem: string): string => problem.split(':')[0] ?? ''

export function answerName(name: string): string {
  const stem = name.replace(/\.swx$/i, '')
  return `${stem || 'bundle'}-answer.swx`
}

/** The file to carry back. */
export function answerFile(found: BundleResult): Blob {
  const bytes = Uint8Array.from(atob(found.answer), (letter) => letter.charCodeAt(0))
  return new Blob([bytes], { type: 'application/octet-stream' })
}

export function reset(): void {
  stop.abort()
  step.value = 'idle'
  result.value = null
  failed.value = null
}

/** Bring one file: up in pieces, then taken in. Never throws; `step` says how it ended. */
export async function bring(file: File): Promise<void> {
  if (isBusy.value) return
  reset()
  const mine = (stop = new AbortController())
  fileName.value = file.name
  done.value = 0
  of.value = file.size
  step.value = 'sending'
  try {
    if (!file.size) throw new ApiError(0, 'empty', '')
    if (file.size > MOST_BYTES) throw new ApiError(0, 'too_large', '')
    const { upload, piece_bytes } = await post<{ upload: string; piece_bytes: number }>('/bundles', { size: file.size })
    while (done.value < file.size) done.value = await sendPiece(upload, file, done.value, piece_bytes, mine.signal)
    step.value = 'taking'
    done.value = of.value = 0
    result.value = await take(upload, mine.signal)
    step.value = 'done'
  } catch (error) {
    if (mine.signal.aborted) return
    const known = error instanceof ApiError ? error : new ApiError(0, 'broken', String(error))
    failed.value = { reason: known.reason, message: known.message }
    step.value = 'failed'
  }
}

/** One piece, tried again where the link broke; returns how many bytes are there. */
async function sendPiece(upload: string, file: File, offset: number, size: number, signal: AbortSignal): Promise<number> {
  for (let tries = 1; ; tries += 1) {
    try {
      const answer = await send('PUT', `/bundles/${upload}/${offset}`, file.slice(offset, offset + size), PIECE_MS, signal)
      return ((await answer.json()) as { offset: number }).offset
    } catch (error) {
      if (!(error instanceof ApiError) || error.reason !== 'network' || tries >= TRIES) throw error
      await new Promise((resolve) => setTimeout(resolve, 1000 * tries))
    }
  }
}

async function take(upload: string, signal: AbortSignal): Promise<BundleResult> {
  const answer = await send('POST', `/bundles/${upload}`, null, TAKE_MS, signal)
  let last: Partial<BundleResult> & { error?: { reason: string; message: string } } = {}
  for await (const line of linesOf(answer)) {
    const said = JSON.parse(line) as Record<string, unknown>
    if (typeof said.done === 'number' && typeof said.of === 'number') [done.value, of.value] = [said.done, said.of]
    else last = said
  }
  if (last.error) throw new ApiError(0, last.error.reason, last.error.message)
  if (!last.streams || typeof last.answer !== 'string') throw new ApiError(0, 'broken', '')
  return last as BundleResult
}

/** The lines of an answer, each as soon as it is complete. */
export async function* linesOf(answer: Response): AsyncGenerator<string> {
  const reader = answer.body?.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  while (reader) {
    const { value, done: ended } = await reader.read()
    rest += decoder.decode(value, { stream: !ended })
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    yield* lines.filter(Boolean)
    if (ended) break
  }
  if (rest) yield rest
}
