import { createSSRApp } from 'vue'
import { renderToString } from 'vue/server-renderer'
import { createI18n } from 'vue-i18n'
import { describe, expect, it, vi } from 'vitest'
import { en } from '../src/i18n/en'
import { useWords } from '../src/i18n/words'
import { zh } from '../src/i18n/zh'

vi.mock('../src/i18n', () => ({ language: { value: 'zh' } }))

/** What the servers say in identifiers, word for word: the pages must have words for each. */
const SAID = {
  'alarm.event': ['raised', 'reraised', 'recurred', 'eased', 'reopened', 'returned', 'acked', 'repeated', 'shelved', 'unshelved', 'suppressed', 'unsuppressed', 'out_of_service', 'in_service', 'closed'],
  'alarm.reason': [
    'condition', 'during_outage', 'severity_up', 'person', 'realarm', 'acked_and_normal', 'superseded_unacked', 'reset', 'rule_removed',
    'time_up', 'by_design', 'uncovered', 'cleared_while_suppressed',
  ],
  'alarm.state': ['NORM', 'UNACK', 'ACKED', 'RTNUN', 'LATU', 'LATA'],
  'alarm.kind': [
    'hihi', 'hi', 'lo', 'lolo', 'stale', 'quality', 'roc', 'deviation', 'discrete', 'discrepancy', 'frozen', 'comm_loss', 'flood', 'chatter', 'standing',
    'delivery_failed', 'modem_down', 'broker_down', 'clock_step', 'disk', 'ladder_overdue', 'key_revoked', 'certificate', 'not_recorded',
  ],
  error: [
    'already_running', 'real_alarm', 'permit_active', 'flood', 'point_missing',
    'signed_out', 'wrong_pin', 'too_many_tries', 'csrf', 'not_your_role', 'not_your_area', 'role_not_required', 'already_acked', 'distinct_persons',
    'old_occurrence', 'not_in_alarm', 'no_such_alarm', 'ack_first', 'still_on', 'bad_quality', 'not_latched', 'no_such_point', 'bad_request', 'too_large',
    'not_found', 'wrong_method', 'not_allowed', 'not_covered', 'covered', 'too_long', 'reason_missing', 'permit_missing', 'life_safety', 'no_such_freeze',
    'no_such_position', 'no_such_deviation', 'still_frozen', 'unavailable', 'busy', 'no_parquet', 'not_recorded', 'disk_full',
    'no_such_plan', 'plan_changed', 'no_such_blob', 'wrong_type', 'damaged',
  ],
  why: [
    'timeout', 'no_connection', 'bad_frame', 'bus_noise', 'exception', 'exception_10', 'exception_11', 'driver_error', 'out_of_range', 'not_a_number', 'sentinel', 'unknown_state',
    'unknown_unit', 'bad_decimals', 'breaker_open', 'retained', 'missing', 'wrong_type', 'warm_up', 'inhibit', 'calibration', 'fault', 'status',
    'status_missing', 'status_unknown',
  ],
  'proof.part': ['source', 'alarm', 'journal', 'recipients', 'accepted', 'delivered', 'sounded', 'page', 'mqtt', 'cloud'],
  'proof.verdict': ['passed', 'failed', 'not_there', 'left_out'],
  'proof.result': ['running', 'passed', 'failed', 'incomplete', 'overridden', 'interrupted'],
} as const

/** Said by the page itself, or by what stands in front of the server. */
const OWN_ERRORS = ['title', 'network', 'export_failed', 'unexpected', 'http_404', 'http_500', 'http_502', 'http_503']

const at = (messages: object, path: string): Record<string, string> =>
  path.split('.').reduce<unknown>((node, key) => (node as Record<string, unknown>)[key], messages) as Record<string, string>

describe.each([['zh', zh], ['en', en]] as const)('in %s', (_, messages) => {
  it.each(Object.entries(SAID))('%s has words for everything that is said, and for nothing else', (path, said) => {
    const own = path === 'error' ? OWN_ERRORS : []
    expect(Object.keys(at(messages, path)).sort()).toEqual([...said, ...own].sort())
    for (const id of said) expect(at(messages, path)[id], id).toMatch(/\S/)
  })
})

it('keeps one pair of words for missing and bad data', () => {
  expect([zh.value.noData, zh.alarm.kind.stale]).toEqual(['无数据', '无数据'])
  expect([zh.value.bad, zh.alarm.kind.quality]).toEqual(['读数异常', '读数异常'])
  expect(en.value.noData).toBe(en.alarm.kind.stale)
  expect(en.value.bad).toBe(en.alarm.kind.quality)
})

it('says everything in both languages, with the same blanks', () => {
  const flat = (node: object, at = ''): Record<string, string> =>
    Object.fromEntries(Object.entries(node).flatMap(([key, value]) => (typeof value === 'string' ? [[at + key, value]] : Object.entries(flat(value, `${at}${key}.`)))))
  const blanks = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort()
  const chinese = flat(zh)
  const english = flat(en)
  expect(Object.keys(english).sort()).toEqual(Object.keys(chinese).sort())
  for (const [key, text] of Object.entries(chinese)) expect([key, blanks(english[key]!)]).toEqual([key, blanks(text)])
})

it.each([['zh', '设备拒绝（异常码 2）', '转换器后的设备无应答（异常码 11）'], ['en', 'device refused (exception 2)', 'device behind the converter is silent (exception 11)']])(
  'tells a refusal of the device from one of the converter before it, in %s', async (locale, ofDevice, ofConverter) => {
    let said: string[] = []
    const setup = (): (() => string) => {
      const { why } = useWords()
      said = ['exception_2', 'exception_11', ''].map(why)
      return () => ''
    }
    await renderToString(createSSRApp({ setup }).use(createI18n({ legacy: false, locale, messages: { zh, en } })))
    expect(said).toEqual([ofDevice, ofConverter, ''])
  },
)
