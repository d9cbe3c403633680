export type AgeUnit = 's' | 'm' | 'h' | 'd'
export type AgePart = [count: number, unit: AgeUnit]

/** An age as its one or two largest parts: 75 s is 1 m 15 s, a week is 7 d. */
export function ageParts(seconds: number): AgePart[] {
  const whole = Number.isFinite(seconds) ? Math.max(0, Math.floor(seconds)) : 0
  if (whole < 60) return [[whole, 's']]
  if (whole < 3600) return pair(Math.floor(whole / 60), 'm', whole % 60, 's')
  if (whole < 86_400) return pair(Math.floor(whole / 3600), 'h', Math.floor((whole % 3600) / 60), 'm')
  return pair(Math.floor(whole / 86_400), 'd', Math.floor((whole % 86_400) / 3600), 'h')
}

function pair(major: number, majorUnit: AgeUnit, minor: number, minorUnit: AgeUnit): AgePart[] {
  return minor === 0 ? [[major, majorUnit]] : [[major, majorUnit], [minor, minorUnit]]
}

/** A running time as `mm:ss`, `h:mm:ss` or `d:hh:mm:ss`; digits do not jump while it counts. */
export function counter(seconds: number): string {
  const whole = Number.isFinite(seconds) ? Math.max(0, Math.floor(seconds)) : 0
  const two = (n: number): string => String(n).padStart(2, '0')
  const days = Math.floor(whole / 86_400)
  const hours = Math.floor((whole % 86_400) / 3600)
  const rest = `${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`
  if (days) return `${days}:${two(hours)}:${rest}`
  return hours ? `${hours}:${rest}` : rest
}

/** A value with its fixed number of decimals; an en dash when there is none. */
export function valueText(value: number | null | undefined, decimals: number): string {
  return value === null || value === undefined || !Number.isFinite(value) ? '–' : value.toFixed(decimals)
}

/** A value of a point whose decimals nobody told: one decimal, except where more of them carry the meaning. */
export function plainText(value: number | null | undefined, unit: string): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–'
  return Math.abs(value) < 1000 && unit !== 'MPa' ? value.toFixed(1) : limitText(value)
}

/** A limit as people write it: no zeros that say nothing. */
export function limitText(value: number | null | undefined): string {
  return value === null || value === undefined ? '–' : String(Number(value.toFixed(6)))
}

const two = (n: number): string => String(n).padStart(2, '0')

/** Local wall time `13:06:31`, with the date when it is not today. */
export function clockText(utc: string | number | null | undefined, nowMs: number): string {
  const date = new Date(utc ?? Number.NaN)
  if (Number.isNaN(date.getTime())) return '–'
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
  const today = new Date(nowMs)
  return date.toDateString() === today.toDateString() ? time : `${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`
}

/** A number of bytes as people read it, in steps of 1000: `1.2 MB`. */
export function sizeText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let value = Number.isFinite(bytes) ? Math.max(0, bytes) : 0
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit += 1
  }
  return `${unit && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`
}
