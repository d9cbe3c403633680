/** The one file that knows the chart library: a trend with its band, limits, alarm marks and bad stretches. */
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { limitText } from '../shared/format'
import { axisTime, chartScale, extremes, runsOf, tickDigits, type RangeData } from '../shared/rangeChart'
import { columnsOf, type TrendColumns } from '../shared/trendData'

export interface Mark {
  ms: number
  priority: number
}

export interface Shown {
  data: RangeData
  limits: { name: string; text: string; value: number }[]
  marks: Mark[]
  gapMs: number
  leastSpan: number
}

export interface Told {
  /** Milliseconds of the place that is pointed at; null beside the chart. */
  onPoint(ms: number | null): void
  onDrag(fromMs: number, toMs: number): void
  onWheel(factor: number, at: number): void
}

export const PLOT_HEIGHT = 320
const WHEEL_FACTOR = 0.8

/** A plot in `box`; drawn anew by `show`, and freed by `close`. */
export class TrendPlot {
  private readonly plot: uPlot
  private shown: Shown | null = null
  private columns: TrendColumns = columnsOf([], 0)
  private readonly watcher: ResizeObserver

  constructor(
    private readonly box: HTMLElement,
    private readonly told: Told,
  ) {
    const width = Math.max(240, box.clientWidth)
    this.plot = new uPlot(this.options(width), [[], [], [], []], box)
    this.plot.over.addEventListener('wheel', this.onWheel, { passive: false })
    this.plot.over.addEventListener('pointerenter', () => this.plot.syncRect())
    this.watcher = new ResizeObserver(() => this.plot.setSize({ width: Math.max(240, box.clientWidth), height: PLOT_HEIGHT }))
    this.watcher.observe(box)
  }

  show(shown: Shown): void {
    this.shown = shown
    const { data } = shown
    this.columns = columnsOf(runsOf(data.buckets, Math.max(data.width_ms * 1.5, shown.gapMs)), data.width_ms)
    const { times, high, low, mean } = this.columns
    this.plot.setData([times, high, low, mean], false)
    const seen = extremes(data.buckets)
    const values = shown.limits.map((limit) => limit.value)
    const scale = seen ? chartScale(seen, values, shown.leastSpan) : { low: 0, high: 1 }
    this.plot.batch(() => {
      this.plot.setScale('x', { min: data.from / 1000, max: data.to / 1000 })
      this.plot.setScale('y', { min: scale.low, max: scale.high })
    })
  }

  close(): void {
    this.watcher.disconnect()
    this.plot.destroy()
  }

  private readonly onWheel = (event: WheelEvent): void => {
    event.preventDefault()
    const area = this.plot.over.getBoundingClientRect()
    this.told.onWheel(event.deltaY < 0 ? WHEEL_FACTOR : 1 / WHEEL_FACTOR, (event.clientX - area.left) / area.width)
  }

  private colour(name: string): string {
    return getComputedStyle(this.box).getPropertyValue(`--${name}`).trim()
  }

  private options(width: number): uPlot.Options {
    const line = (name: string, size: number) => ({ stroke: () => this.colour(name), width: size })
    const hidden = { points: { show: false } }
    const axis = { stroke: () => this.colour('muted'), font: '12px sans-serif', grid: { stroke: () => this.colour('line'), width: 1 }, ticks: { show: false } }
    return {
      width,
      height: PLOT_HEIGHT,
      padding: [10, 12, 0, 0],
      legend: { show: false },
      scales: { x: { time: true, auto: false }, y: { auto: false } },
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { show: false } },
      axes: [
        { ...axis, space: 110, values: (_, splits) => splits.map((at) => axisTime(at * 1000, this.spanMs())) },
        { ...axis, size: 60, values: (_, splits) => splits.map((value) => value.toFixed(tickDigits(splits))) },
      ],
      series: [
        {},
        { ...hidden, width: 0 },
        { ...hidden, width: 0 },
        { ...line('strong', 1.5), points: { show: true, size: 5, fill: () => this.colour('strong'), filter: () => this.columns.alone } },
      ],
      bands: [{ series: [1, 2], fill: () => `color-mix(in srgb, ${this.colour('muted')} 35%, transparent)` }],
      hooks: { draw: [() => this.drawMore()], setSelect: [() => this.chosen()], setCursor: [() => this.pointed()] },
    }
  }

  private spanMs(): number {
    return this.shown ? this.shown.data.to - this.shown.data.from : 0
  }

  private chosen(): void {
    const { left, width } = this.plot.select
    if (width > 4) this.told.onDrag(this.plot.posToVal(left, 'x') * 1000, this.plot.posToVal(left + width, 'x') * 1000)
    this.plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
  }

  private pointed(): void {
    const left = this.plot.cursor.left ?? -1
    this.told.onPoint(left < 0 ? null : this.plot.posToVal(left, 'x') * 1000)
  }

  private drawMore(): void {
    if (!this.shown) return
    const { ctx } = this.plot
    ctx.save()
    ctx.font = `${12 * devicePixelRatio}px sans-serif`
    this.drawBad()
    this.drawLimits()
    this.drawMarks()
    ctx.restore()
  }

  private x(ms: number): number {
    return this.plot.valToPos(ms / 1000, 'x', true)
  }

  /** Where something was bad, along the bottom; each wide enough to be seen. */
  private drawBad(): void {
    const { ctx, bbox } = this.plot
    const { data } = this.shown!
    ctx.fillStyle = this.colour('p2')
    const height = 6 * devicePixelRatio
    for (const [ms, , , , , bad] of data.buckets) {
      if (!bad) continue
      const at = Math.max(bbox.left, this.x(ms))
      ctx.fillRect(at, bbox.top + bbox.height - height, Math.max(2 * devicePixelRatio, this.x(ms + data.width_ms) - at), height)
    }
  }

  private drawLimits(): void {
    const { ctx, bbox } = this.plot
    ctx.textAlign = 'left' // the newest alarm's flag stands on the right
    ctx.lineWidth = devicePixelRatio
    for (const { text, value } of this.shown!.limits) {
      const y = this.plot.valToPos(value, 'y', true)
      if (y < bbox.top || y > bbox.top + bbox.height) continue
      ctx.strokeStyle = this.colour('p2')
      ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio])
      ctx.beginPath()
      ctx.moveTo(bbox.left, y)
      ctx.lineTo(bbox.left + bbox.width, y)
      ctx.stroke()
      ctx.fillStyle = this.colour('strong')
      ctx.fillText(`${text} ${limitText(value)}`, bbox.left + 6 * devicePixelRatio, y + (y - bbox.top < 20 * devicePixelRatio ? 14 : -5) * devicePixelRatio)
    }
    ctx.setLineDash([])
  }

  /** When alarms of this point were raised: a line, and on it a flag with the priority. */
  private drawMarks(): void {
    const { ctx, bbox } = this.plot
    const size = 8 * devicePixelRatio
    ctx.textAlign = 'center'
    for (const { ms, priority } of this.shown!.marks) {
      const at = this.x(ms)
      if (at < bbox.left || at > bbox.left + bbox.width) continue
      const name = `p${Math.min(4, Math.max(1, priority))}`
      ctx.strokeStyle = ctx.fillStyle = this.colour(name)
      ctx.beginPath()
      ctx.moveTo(at, bbox.top)
      ctx.lineTo(at, bbox.top + bbox.height)
      ctx.stroke()
      ctx.fillRect(at - size, bbox.top, size * 2, size * 2)
      ctx.fillStyle = this.colour(`${name}-ink`)
      ctx.fillText(String(priority), at, bbox.top + size * 1.55)
    }
  }
}
