import { ref, shallowRef } from 'vue'
import { get, post } from '../shared/api'

export interface GatewayKey {
  kid: string
  fingerprint: string
  key: string
  source: 'config' | 'enrolled' | 'rotated'
  state: 'active' | 'ending' | 'ended' | 'revoked'
  valid_from: string | null
  valid_until: string | null
  revoked: string | null
  introduced_by: string
  approved_by: string
  revoked_by: string
  reason: string
}
export interface Asking {
  id: string
  gateway: string
  name: string
  name_en: string
  fingerprint: string
  address: string
  asked: string
  ends: string
  tries_left: number
  replaces: boolean
}
export interface Keys {
  time: string
  witness_key: string
  may_decide: boolean
  pending: Asking[]
  gateways: { gateway: string; name: string; name_en: string; keys: GatewayKey[] }[]
}
export interface Told {
  gateway: string
  request: string
  code: string
}

export const keys = shallowRef<Keys | null>(null)
/** The page was not reached for so long that the list may be old. */
export const keysLost = ref(false)

export async function fetchKeys(): Promise<void> {
  try {
    keys.value = await get<Keys>('/enrolment')
    keysLost.value = false
  } catch {
    keysLost.value = true
  }
}

/** What the QR code on a gateway's console says: `#enrol=gateway.request.code`. It never went to the server. */
export function toldBy(hash: string): Told | null {
  const found = /^#enrol=([a-z][a-z0-9_]{0,39})\.([0-9a-f]{8})\.([0-9A-Z-]{8,14})$/.exec(hash)
  return found ? { gateway: found[1]!, request: found[2]!, code: found[3]! } : null
}

export async function approve(one: Asking, code: string, replace: boolean): Promise<void> {
  await post('/enrolment/approve', { gateway: one.gateway, code, id: one.id, replace }).finally(fetchKeys)
}

export async function refuse(one: Asking): Promise<void> {
  await post('/enrolment/refuse', { gateway: one.gateway, id: one.id }).finally(fetchKeys)
}

export async function revoke(gateway: string, kid: string, reason: string): Promise<void> {
  await post('/enrolment/revoke', { gateway, kid, reason }).finally(fetchKeys)
}
