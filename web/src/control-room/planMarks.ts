import { computed, type ComputedRef, type Ref } from 'vue'
import { useWords } from '../i18n/words'
import { isUnacknowledged } from '../shared/acks'
import { monoMs } from '../shared/clock'
import { valueText } from '../shared/format'
import { freshness } from '../shared/freshness'
import type { Plan, PlanItem, PlanMark } from '../shared/plan/plan'
import type { Alarm } from '../shared/types'
import { alarmOfPoint, alarms } from './alarms'
import { lost, points, site } from './plant'
import { values } from './values'

const level = (alarm: Alarm | undefined): Pick<PlanMark, 'priority' | 'acknowledged'> => ({
  priority: alarm?.priority ?? 0,
  acknowledged: alarm ? !isUnacknowledged(alarm) : true,
})

/** What the control room says of the things on a plan: values as they are now, and the worst alarm of each. */
export function usePlanMarks(plan: Readonly<Ref<Pick<Plan, 'items'> | null>>): ComputedRef<Map<string, PlanMark>> {
  const { t, name, known, alarmKind } = useWords()

  function ofPoint(item: PlanItem): PlanMark {
    const point = points.value.get(item.ref)
    if (!point) return { title: `${name(item) || item.ref} (${t('plan.unknown')})`, text: '', dead: true, ...level(undefined) }
    const seen = values.get(point.id)
    const fresh = freshness(point, seen, monoMs.value)
    const dead = lost.value || ['stale', 'bad', 'none'].includes(fresh)
    const alarm = alarmOfPoint.value.get(point.id)
    const said = alarm ? alarmKind(alarm) : ''
    const value = `${valueText(fresh === 'bad' ? null : seen?.v, point.decimals)} ${point.unit}`
    const title = [name(item) || name(point), said, dead ? t(fresh === 'none' ? 'value.noData' : fresh === 'bad' ? 'value.bad' : 'value.frozen') : ''].filter(Boolean).join(' · ')
    return { title, text: value, dead, ...level(alarm) }
  }

  function ofPlace(item: PlanItem): PlanMark {
    const area = site.value?.areas.find((one) => one.id === item.ref)
    const own = item.kind === 'zone' && area ? alarms.value.filter((alarm) => alarm.area === area.id) : []
    const title = name(item) || (area ? name(area) : '') || known('plan.kind', item.kind)
    return { title, text: item.kind === 'zone' ? title : '', dead: false, ...level(own[0]) }
  }

  return computed(() => new Map((plan.value?.items ?? []).map((item) => [item.id, item.kind === 'point' ? ofPoint(item) : ofPlace(item)])))
}
