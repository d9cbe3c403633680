/** Chinese of the pop-ups, of zooming in trends, and of the site plan. */
export const planZh = {
  mustSee: {
    title: '必须马上处理', count: '{n} 项必须马上处理', seen: '已看到（本屏收起 15 分钟）', next: '还有 {n} 项', go: '去处理', open: '再次全屏显示',
    kind: { freeze: '作业已冻结', escalation: '升级仍无人处理' }, since: '{time} 起', lasts: '已持续', step: '已升到第 {n}/{of} 步', by: '可由{roles}解除', notAck: '“已看到”不是确认，也不会停止升级',
  },
  strip: { none: '这里没有测点', areas: '区域', points: '{n} 个测点', silent: '{n} 个无有效数据' },
  plan: {
    title: '厂区图', none: '还没有厂区图', noneHint: '安全员或管理员可以导入图纸（PNG、JPEG、SVG、PDF），再把测点、检查点、分区、围栏和摄像头拖到位置上。', view: '图面：方向键滚动', zoom: '缩放', corner: '第 {n} 个角：拖动或方向键移动，双击加一个角，Delete 删除', noPicture: '还没有图纸', broken: '图纸没有读到', unknown: '现有配置中没有',
    kind: { point: '测点', checkpoint: '检查点', zone: '分区', fence: '围栏', camera: '摄像头' }, edit: '编辑', add: '新建厂区图', saved: '保存于 {time}，{name}', offNote: '下列报警不在图上', version: '版本', versions: '恢复旧版本…', versionOf: '{time} {name}，{n} 项',
    editing: '编辑厂区图', save: '保存', cancel: '放弃修改', discard: '有未保存的修改，确定放弃？', undo: '撤销', picture: '导入图纸…', page: '第几页（PDF）', pages: '共 {n} 页', importing: '正在导入…', name: '名称', nameEn: '英文名称', put: '放到图上', pointsLeft: '未放置的测点', allPlaced: '测点已全部放置', find: '查找', item: '选中的', ref: '对应', refNone: '不对应', angle: '朝向（度）', remove: '从图上移除', moreCorner: '加一个角', removePlan: '删除本图…', removeSure: '确定删除“{name}”？记录保留，但页面不再显示。',
    hint: '拖动或用方向键移动（Shift 为小步），Delete 移除，Ctrl+Z 撤销。', changed: '有修改未保存', changedElse: '别人刚保存了新版本，您看到的是旧版本',
  },
  zoom: {
    in: '放大', out: '缩小', left: '更早', right: '更晚', live: '回到实时', hint: '拖动选择一段，滚轮缩放；键盘：+ − ← → 0', frozen: '已停在所选时间段', alarms: '这段时间的报警', alarm: '{time} {name}（{priority} 级）', none: '这段时间没有报警', shown: '{from} 至 {to}', more: '只标出最近 {n} 条报警',
  },
}
