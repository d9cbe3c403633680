/** Chinese of the pop-ups, of zooming in trends, and of the site plan. */
export const planZh = {
  mustSee: {
    title: '必须马上处理', count: '{n} 项必须马上处理', seen: '已看到（本屏收起 15 分钟）', next: '还有 {n} 项', go: '去处理', open: '再次全屏显示',
    kind: { freeze: '作业已冻结', escalation: '升级仍无人处理' }, since: '{time} 起', lasts: '已持续', step: '已升到第 {n}/{of} 步', by: '可由{roles}解除', notAck: '“已看到”不是确认，也不会停止升级',
  },
  strip: { areas: '区域', points: '{n} 个测点', silent: '{n} 个无有效数据' },
  zoom: {
    in: '放大', out: '缩小', left: '更早', right: '更晚', live: '回到实时', hint: '拖动选择一段，滚轮缩放；键盘：+ − ← → 0', frozen: '已停在所选时间段', alarms: '这段时间的报警', alarm: '{time} {name}（{priority} 级）', none: '这段时间没有报警', shown: '{from} 至 {to}', more: '只标出最近 {n} 条报警',
  },
}
