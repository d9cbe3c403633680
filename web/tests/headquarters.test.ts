import { describe, expect, it } from 'vitest'
import { answerFile, answerName, isPartly, linesOf, reasonOf, type BundleResult } from '../src/headquarters/bundles'
import { filterRows, sortRows, type Row } from '../src/headquarters/order'
import { byPriority, offsetText, standingOf, urgency, wholeAlarm } from '../src/headquarters/standing'
import { en } from '../src/i18n/en'
import { zh } from '../src/i18n/zh'
import { sizeText } from '../src/shared/format'
import type { Alarm, FleetSite } from '../src/shared/types'

const NOW = Date.parse('2026-11-23T12:00:00Z')
const alarm = (priority: number, state = 'UNACK'): FleetSite['open_alarms'][number] => wholeAlarm({ id: `a${priority}`, state: state as 'UNACK', priority })
function site(gateway: string, more: Partial<FleetSite> = {}, health: Record<string, unknown> | null = {}): FleetSite {
  return {
    gateway,
    site: { id: gateway, name: `${gateway} 厂`, name_en: `Plant ${gateway}` },
    last_contact: '2026-11-23T11:59:55Z',
    contact_age_s: 5,
    state: 'online',
    version: '0.2.0',
    journal: { epoch: 'ab', ack: 1, records: 1, newest: '2026-11-23T11:58:00Z' },
    history: { epoch: 'cd', ack: 1, newest: null },
    quarantined: 0,
    witness: { last: null, forks: [] },
    snapshot: health && { as_of: '2026-11-23T11:59:55Z', open: 0, seq: 1, records_behind: 5, health },
    open_alarms: [],
    cloned: false,
    epochs: [],
    gaps: [],
    gap_count: 0,
    gap_readings: 0,
    ...more,
  }
}
const row = (one: FleetSite): Row => ({ site: one, standing: standingOf(one, one.contact_age_s, NOW) })
const names = (rows: Row[]): string[] => rows.map((one) => one.site.gateway)
const troubles = (one: FleetSite): string[] => standingOf(one, one.contact_age_s, NOW).troubles.map(({ name }) => name)

describe('how a site stands', () => {
  const waits = { streams: { journal: { waiting: 3, bytes: 900, oldest: '2026-11-23T11:59:00Z' }, history: { waiting: 0, bytes: 0, oldest: null } }, evidence: { waiting: 1, bytes: 5000 } }

  it('counts what waits in each lane, and how long the oldest has waited', () => {
    const standing = standingOf(site('a', {}, { ...waits, kbit_s: 12.5 }), 5, NOW)
    expect(standing.lanes).toEqual([
      { name: 'journal', waiting: 3, bytes: 900, oldestS: 60 },
      { name: 'history', waiting: 0, bytes: 0, oldestS: null },
      { name: 'blobs', waiting: 1, bytes: 5000, oldestS: null },
    ])
    expect([standing.backlogBytes, standing.lagS, standing.recordS, standing.rateKbit]).toEqual([5900, 60, 120, 12.5])
  })

  it('does not count records that have come since the gateway spoke', () => {
    const said = { as_of: '2026-11-23T11:59:55Z', open: 0, seq: 9, health: waits }
    const waiting = (behind: number | null): number => standingOf(site('a', { snapshot: { ...said, records_behind: behind } }), 5, NOW).lanes![0]!.waiting
    expect([0, -4, 2, 7, null].map(waiting)).toEqual([0, 0, 2, 3, 3])
    expect(standingOf(site('a', { snapshot: { ...said, records_behind: 0 } }), 5, NOW).lagS).toBe(0)
  })

  it('shares the disk by class, in percent of what each may have', () => {
    const use = { pct: 40, free_bytes: 7, journal: { bytes: 1, most: 4 }, history: { bytes: 2, most: 4 }, blobs: { bytes: 0, most: 0 } }
    const standing = standingOf(site('a', {}, { disk_use: use }), 5, NOW)
    expect(standing.disk).toEqual([{ name: 'journal', bytes: 1, pct: 25 }, { name: 'history', bytes: 2, pct: 50 }])
    expect([standing.diskPct, standing.diskFree]).toEqual([40, 7])
  })

  it('says that nothing is known rather than that all is well', () => {
    for (const health of [null, {}, { streams: 'x', disk_use: [], clock_offset_s: 'soon', evidence: null }]) {
      const standing = standingOf(site('a', {}, health), 5, NOW)
      expect([standing.lanes, standing.lagS, standing.backlogBytes, standing.disk, standing.clockOffsetS]).toEqual([null, null, null, null, null])
      expect(standing.troubles).toEqual([])
    }
  })

  it.each<[string, Partial<FleetSite>, Record<string, unknown>]>([
    ['silent', { state: 'silent' }, {}],
    ['late', { state: 'late' }, {}],
    ['never', { state: 'never', contact_age_s: null }, {}],
    ['fork', { witness: { last: null, forks: [{ epoch: 'a', size: 1, at: '', why: '' }] } }, {}],
    ['cloned', { cloned: true }, {}],
    ['quarantine', { quarantined: 2 }, {}],
    ['notRecorded', {}, { not_recorded: '2026-11-23T08:00:00.000Z' }],
    ['diskRefusing', {}, { disk: 'refusing' }],
    ['diskShort', {}, { disk: 'short' }],
    ['clockUntrusted', {}, { clock: 'unsynced' }],
    ['clockOff', {}, { clock: 'synced', clock_offset_s: -5.1 }],
    ['backlog', {}, { streams: { journal: { waiting: 1, bytes: 1, oldest: '2026-11-23T11:44:00Z' } } }],
    ['evidence', {}, { evidence: { waiting: 0, bytes: 0, damaged: 1 } }],
    ['devices', {}, { silent: 1 }],
    ['deliveries', {}, { deliveries: { failing: 1 } }],
  ])('%s is a reason to look', (name, more, health) => {
    expect(troubles(site('a', more, health))).toEqual([name])
  })

  it('leaves alone what is small', () => {
    const small = { clock: 'synced', clock_offset_s: 4.9, disk: 'enough', streams: { journal: { waiting: 1, bytes: 1, oldest: '2026-11-23T11:46:00Z' } }, silent: 0 }
    expect(troubles(site('a', {}, small))).toEqual([])
  })

  it('names the gravest first', () => {
    expect(troubles(site('a', { state: 'silent', quarantined: 1, cloned: true }, { silent: 3 }))).toEqual(['cloned', 'silent', 'quarantine', 'devices'])
  })

  it('counts open alarms by priority, and how many of them wait', () => {
    expect(byPriority(site('a', { open_alarms: [alarm(2), alarm(2, 'ACKED'), alarm(4)] }))).toEqual([{ priority: 2, n: 2, waiting: 1 }, { priority: 4, n: 1, waiting: 1 }])
  })

  it('shows an alarm of whatever shape a gateway sent', () => {
    const odd = wholeAlarm({ id: 'x', state: 'UNACK', priority: 'high', acks: {}, name: 7 } as unknown as Partial<Alarm>)
    expect([odd.name, odd.priority, odd.acks, odd.required_acks, odd.value]).toEqual(['x', 4, [], [], null])
  })
})

describe('the list of sites', () => {
  const quiet = site('gw10')
  const far = site('gw9', { state: 'silent', contact_age_s: 9000, version: '0.10.0' })
  const burning = site('gw2', { open_alarms: [alarm(1)] }, { clock_offset_s: -3, disk_use: { journal: { bytes: 1, most: 2 } } })
  const known = site('gw1', { open_alarms: [alarm(1, 'ACKED')], quarantined: 1 }, { clock_offset_s: 1 })
  const all = [quiet, far, burning, known].map(row)

  it('begins with what somebody must do something about', () => {
    expect(names(sortRows(all, 'urgency'))).toEqual(['gw2', 'gw1', 'gw9', 'gw10'])
    expect(urgency(burning, row(burning).standing)[0]).toBeGreaterThan(urgency(known, row(known).standing)[0]!)
  })

  it('puts the worst first by any number, and what nobody knows last', () => {
    expect(names(sortRows(all, 'contact'))[0]).toBe('gw9')
    expect(names(sortRows(all, 'clock'))).toEqual(['gw2', 'gw1', 'gw9', 'gw10'])
    expect(names(sortRows(all, 'disk'))[0]).toBe('gw2')
    expect(names(sortRows(all, 'quarantine'))[0]).toBe('gw1')
    expect(names(sortRows(all, 'quarantine', true)).at(-1)).toBe('gw1')
  })

  it('sorts numbers in names as numbers', () => {
    expect(names(sortRows(all, 'name'))).toEqual(['gw1', 'gw2', 'gw9', 'gw10'])
    expect(names(sortRows(all, 'name', true))).toEqual(['gw10', 'gw9', 'gw2', 'gw1'])
    expect(names(sortRows(all, 'version')).at(-1)).toBe('gw9')
  })

  it('finds by every word, in either language, and by what is wrong', () => {
    expect(names(filterRows(all, 'plant GW2', 'all'))).toEqual(['gw2'])
    expect(names(filterRows(all, ' gw1 厂', 'all'))).toEqual(['gw10', 'gw1'])
    expect(names(filterRows(all, '', 'trouble'))).toEqual(['gw9', 'gw2', 'gw1'])
    expect(names(filterRows(all, '', 'alarms'))).toEqual(['gw2', 'gw1'])
    expect(names(filterRows(all, '', 'away'))).toEqual(['gw9'])
  })
})

describe('words and numbers', () => {
  it('says sizes in steps of a thousand', () => {
    expect([0, 999, 1000, 1234, 999_600, 12_345_678, 4 * 2 ** 30].map(sizeText)).toEqual(['0 B', '999 B', '1.0 kB', '1.2 kB', '1.0 MB', '12 MB', '4.3 GB'])
  })

  it('says offsets with their sign', () => {
    expect([0, 0.24, -3.26, 42.6, -3600].map(offsetText)).toEqual(['0.0', '+0.2', '-3.3', '+43', '-3600'])
  })

  it.each([['zh', zh], ['en', en]] as const)('has words in %s for what servers say', (_, messages) => {
    for (const reason of ['cloned', 'moved', 'restored', 'fork', 'cloud_ahead', 'damaged']) expect(messages.hq.epoch.reason).toHaveProperty(reason)
    for (const why of ['budget', 'disk', 'kept_out']) expect(messages.hq.gap.why).toHaveProperty(why)
    for (const reason of ['gap', 'fork', 'too_large', 'quota', 'unavailable', 'wrong_content']) expect(messages.hq.bundle.problem).toHaveProperty(reason)
    const refused = ['damaged', 'wrong_key', 'bad_signature', 'not_for_here', 'unknown_gateway', 'disk_full', 'too_large', 'not_your_role', 'busy', 'offset', 'not_found', 'unavailable']
    for (const reason of refused) expect(messages.hq.bundle.refused).toHaveProperty(reason)
  })
})

describe('what a bundle brought', () => {
  const outcome = { stream: 'journal', epoch: 'ab', ack: 3, new: 2, known: 1, quarantined: 0, problem: '' }
  const result: BundleResult = { gateway: 'gw1', streams: [outcome], blobs: null, config: null, more: false, answer: btoa('PK') }

  it('is whole, or says so', () => {
    expect(isPartly(result)).toBe(false)
    expect(isPartly({ ...result, streams: [{ ...outcome, problem: 'gap: batch 5 comes first' }] })).toBe(true)
    expect(isPartly({ ...result, blobs: { new: 1, known: 0, refused: 1, problem: 'quota: full' } })).toBe(true)
    expect(reasonOf('gap: batch 5 comes first')).toBe('gap')
  })

  it('goes back under the name of what came', async () => {
    expect([answerName('plant.swx'), answerName('厂 2.SWX'), answerName('.swx')]).toEqual(['plant-answer.swx', '厂 2-answer.swx', 'bundle-answer.swx'])
    expect(await answerFile(result).text()).toBe('PK')
  })

  it('is told line by line, wherever the network cuts', async () => {
    const text = new TextEncoder().encode('{"done":1}\n{"站":2}\n{"end":3}')
    for (let cut = 1; cut < text.length; cut += 1) {
      const body = new ReadableStream({
        start(control) {
          control.enqueue(text.slice(0, cut))
          control.enqueue(text.slice(cut))
          control.close()
        },
      })
      const lines: string[] = []
      for await (const line of linesOf(new Response(body))) lines.push(line)
      expect(lines).toEqual(['{"done":1}', '{"站":2}', '{"end":3}'])
    }
  })
})
