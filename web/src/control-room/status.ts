import { computed, type ComputedRef } from 'vue'
import { useWords } from '../i18n/words'
import { utcMs } from '../shared/clock'
import type { Disk, Status } from '../shared/types'
import { lost, status } from './plant'

/** One thing that must work for the page to be believed. */
export interface Item {
  id: string
  label: string
  text: string
  bad: boolean
  /** What to do about it, where it is not as it should be but nothing is wrong now. */
  tip?: string
}

function gigabytes(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(bytes < 10 * 2 ** 30 ? 1 : 0)
}

/** The status bar's items, in the words of the chosen language. */
export function useStatusItems(): ComputedRef<Item[]> {
  const { t, known, age } = useWords()

  function uplink({ link }: Status): Item {
    const records = link.backlog_records > 0 ? ` · ${t('status.backlog', { n: link.backlog_records })}` : ''
    const segments = link.backlog_segments > 0 ? ` · ${t('status.backlogSegments', { n: link.backlog_segments })}` : ''
    const waiting = records + segments
    const ago = link.last_ok ? t('age.ago', { age: age((utcMs.value - Date.parse(link.last_ok)) / 1000) }) : ''
    const ok = link.state === 'down' && ago ? ` · ${t('status.lastOk', { age: ago })}` : ''
    const cloned = (link.machines ?? 1) > 1
    const twin = cloned ? ` · ${t('status.machines', { n: link.machines ?? 0 })}` : ''
    const text = `${t(`status.link.${link.state}`)}${twin}${waiting}${ok}`
    return { id: 'link', label: t('status.uplink'), text, bad: link.state === 'down' || cloned }
  }

  function buses(now: Status): Item {
    const units = now.buses.flatMap((bus) => bus.units)
    const faults = units.filter((unit) => unit.state !== 'ok').length
    const text = faults ? t('status.busFault', { n: faults }) : t('status.busOk', { n: units.length })
    return { id: 'buses', label: t('status.buses'), text, bad: faults > 0 }
  }

  function deliveries({ deliveries: { pending, failing } }: Status): Item {
    const text = pending + failing ? t('status.delivering', { pending, failing }) : t('status.delivered')
    return { id: 'deliveries', label: t('status.deliveries'), text, bad: failing > 0 }
  }

  function channels(now: Status): Item {
    const faults = now.channels.filter((channel) => channel.fault).length
    const text = faults ? t('status.channelsFault', { n: faults }) : t('status.channelsOk', { n: now.channels.length })
    return { id: 'channels', label: t('status.channels'), text, bad: faults > 0 }
  }

  function disk(found: Disk): Item {
    const free = t('status.diskFree', { size: gigabytes(found.free_bytes) })
    const bad = found.level !== 'enough'
    const what = bad ? ` · ${known('status.diskOf', found.about)} ${Math.round(found.pct)} %` : ''
    const dropped = found.dropped_segments ? ` · ${t('status.diskDropped', { n: found.dropped_segments })}` : ''
    return { id: 'disk', label: t('status.disk'), text: `${free}${what}${dropped}`, bad }
  }

  return computed(() => {
    const page = { id: 'page', label: t('status.page'), text: t(lost.value ? 'status.pageLost' : 'status.pageLive'), bad: lost.value }
    const now = status.value
    if (!now) return [page]
    const broker = { id: 'broker', label: t('status.broker'), text: known('status.brokerState', now.broker.state), bad: !['up', 'off'].includes(now.broker.state) }
    const unkept = Boolean(now.not_recorded)
    const journal = { id: 'journal', label: t('status.journal'), text: unkept ? t('alarm.kind.not_recorded') : `#${now.journal.seq}`, bad: unkept }
    const quiet = now.clock === 'unsynced'
    const clock = { id: 'clock', label: t('status.clock'), text: known('status.clockState', now.clock), bad: now.clock !== 'synced' && !quiet, tip: quiet ? t('status.clockTip') : '' }
    const always = [page, uplink(now), broker, buses(now), deliveries(now), ...(now.channels.length ? [channels(now)] : []), journal, clock]
    return now.disk ? [...always, disk(now.disk)] : always
  })
}
