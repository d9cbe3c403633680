/** Chinese of the alarm pages: shelving, history, statistics, ladders and freezes, delivery log. */
export const pagesZh = {
  page: {
    room: '总览', history: '报警历史', statistics: '报警统计', ladders: '升级与冻结', deliveries: '通知记录', proof: '验证测试', plan: '厂区图', more: '更多',
    empty: '没有符合条件的记录', failed: '没有读到数据', updated: '更新于 {time}', refresh: '刷新', csv: '导出 CSV', print: '打印', all: '全部', older: '更早', newer: '更新的', newest: '回到最新',
    cancel: '取消', frozen: '连接中断，以下不是最新数据',
  },
  cover: {
    open: '搁置…', tab: '搁置', none: '没有被搁置、屏蔽或停用的报警', title: '搁置或停用报警', titleShelve: '搁置报警', lifeSafety: '（生命安全类报警，最多 30 分钟）', shelve: '搁置', takeOut: '停用', unshelve: '取消搁置', putBack: '恢复投用',
    shelved: '已搁置', out_of_service: '已停用', by_design: '按设计屏蔽', until: '至 {time}', left: '还剩 {time}', since: '{time} 起', by: '{name}', permit: '作业票 {permit}', oneShot: '恢复正常即结束',
    minutes: '时长', m15: '15 分钟', m30: '30 分钟', m60: '1 小时', m120: '2 小时', m240: '4 小时', m480: '8 小时',
    why: '原因（必填，至少 4 个字）', why1: '传感器检修中', why2: '工艺调整，现场已知情', why3: '故障已报修，等待更换', oneShotLabel: '恢复正常时提前结束搁置',
    permitLabel: '作业票编号（必填）', told: '搁置期间照常判断和留痕，但不通知任何人；安全员会收到这次搁置的通知。', toldOut: '停用期间照常判断和留痕，但不通知任何人，直到安全员恢复投用。',
    doShelve: '确认搁置', doTakeOut: '确认停用', firstOut: '首出', firstOutTip: '本组报警中最先触发的一条',
  },
  ladder: {
    title: '升级中', none: '没有正在升级的事项', next: '下一步', nextAt: '{time} {what}', inTime: '{time}后', due: '即将执行', top: '已到最后一步', step: '第 {n}/{of} 步', since: '{time} 起',
    paused: { acked: '已确认，升级暂停', returned: '已恢复正常，升级暂停', suppressed: '已搁置，升级暂停' },
    basis: { open: '关闭之前一直升级', unacked: '确认之前一直升级', condition: '恢复正常之前一直升级' },
    colour: { red: '红色', yellow: '黄色' },
    kind: { alarm: '报警', hazard: '隐患', approval: '审批', permit: '作业票' },
    tell: '通知{who}', add: { sms: '短信', siren: '声光报警', every: '全部渠道', mail: '邮件', speech: '语音广播', wecom: '企业微信', dingtalk: '钉钉', feishu: '飞书' }, via: '启用{what}', turn: '转为{colour}', freeze: '冻结作业并开偏差报告', steps: '全部步骤', done: '已执行', skipped: '待执行', allowed: '允许照常进行：通风、照明、疏散、暂停、签退、关闭',
  },
  freeze: {
    title: '冻结', none: '没有冻结', holds: '冻结中', released: '已解除', permit: '作业票 {what}', work: '{area}：{what}', any: '全部作业', since: '{time} 起', why: '原因：{name}', by: '可由{roles}解除',
    release: '解除冻结…', releaseTitle: '解除冻结', reason: '解除原因（必填：做了什么，为什么可以恢复作业）', doRelease: '确认解除', releasedBy: '{name} 于 {time} 解除：{reason}', history: '已解除的冻结',
  },
  deviation: { title: '偏差报告', none: '没有偏差报告', opened: '{time} 开立', open: '待关闭', closed: '已关闭', close: '关闭报告…', closeTitle: '关闭偏差报告', cause: '根本原因（必填）', measure: '纠正措施（必填：做了什么，防止再次发生）', doClose: '确认关闭', closedBy: '{role} {name} 于 {time} 关闭', causeWas: '原因：{text}', measureWas: '措施：{text}', frozen: '先解除冻结，才能关闭', by: '可由{roles}关闭' },
  history: {
    span: '时间', spans: { h24: '最近 24 小时', d7: '最近 7 天', d30: '最近 30 天', d90: '最近 90 天', any: '不限', custom: '自定义' }, from: '从', to: '到', area: '区域', priority: '优先级', kind: '类型', change: '变化', person: '操作人', text: '名称', filter: '筛选条件',
    find: '查询', clear: '清除条件', time: '时间', alarm: '报警', what: '变化', value: '数值', who: '操作人', state: '之后', textHint: '报警名称或标识的一部分',
  },
  statistics: {
    position: '岗位', positions: { control_room: '中控室（全部区域）' }, number: '指标', value: '数值', goal: '目标', verdict: '评价', says: '定义', source: '来源：{source}',
    verdicts: { met: '达标', near: '尚可', missed: '未达标' }, noGoal: '无目标', priorities: '优先级分布', goalMark: '竖线：目标（约）', top: '最频繁的十个报警', share: '占 {n}%', profile: '每 10 分钟报警数',
    profileNote: '虚线：10 条，超过即为泛滥；时段较长时，每根柱子取其中最高的 10 分钟。', profileText: '最高 {peak} 条，{busy} 个时段超过 10 条', floods: '报警泛滥', floodsNone: '没有泛滥', flood: '{count} 条，首出：{name}', lasts: '历时 {age}',
    chattering: '抖动报警', standing: '长期报警', nothing: '无', none: '这段时间没有报警', median: '—', perPosition: '按操作岗位统计，不是全厂平均；建议时段不少于 30 天。', priorityUnit: '{n} 级',
  },
  delivery: {
    none: '还没有通知', state: '状态', states: { PENDING: '待发', SENDING: '发送中', RETRY: '重试中', ACCEPTED: '对方已接收', DELIVERED: '已送达', DEAD: '未送达', FAILING: '超时未送达' }, channel: '渠道', person: '人员',
    kind: { raised: '报警', reraised: '再次报警', reopened: '再次报警', repeated: '重复提醒', shelved: '搁置告知', out_of_service: '停用告知', step: '催办', set: '冻结', released: '解冻', opened: '偏差', clear: '恢复', alarm: '【测试】无需确认' },
    attempts: '{n} 次尝试', attempt: '第 {n} 次', outcome: { accepted: '对方已接收', delivered: '已送达', later: '稍后再发', failed: '失败', refused: '被拒绝', sending: '发送中', interrupted: '中断，可能已到' }, resent: '重发', late: '超时', unreached: '所有途径都未通',
    why: { closed: '报警已关闭', told: '已一并告知', acked: '已确认', released: '已解除' }, thing: '设备或群', digest: '合并发送', summary: '{done}/{of} 已接收', number: '报警号 {n}', uncertain: '可能已到', step: '升级步骤',
  },
  proof: {
    what: '一个测试值走完报警的全部环节：规则、日志、短信、警号、页面、MQTT、总部，每一步都有结论和用时。不进报警列表、历史和统计。', point: '测点', choose: '请选择测点', begin: '开始验证测试…', beginTitle: '开始验证测试？', doBegin: '确认开始',
    warn1: '将要通知这条报警的所有人：消息以【测试】开头，不需要确认。', warn2: '警号会短响，红灯与绿灯一起慢闪。开始前请告知现场。', warn3: '如出现真实的 1、2 级报警，测试立即中止。', notMine: '安全员、中控或管理员可以开始测试',
    none: '还没有做过验证测试', runs: '最近的测试', run: '第 {n} 次', seconds: '{n} 秒', by: '由{name}开始', week: '按计划', total: '用时 {n} 秒', waiting: '等待中', problems: '{n} 项未通过',
    schedule: '每{day} {time} 自动测试', noSchedule: '没有每周计划（site.toml 的 [proof]）', next: '下次 {time}', refusedNow: '今天的测试推迟：{why}', missed: '{day} 的测试没有进行：{why}', off: '网关未运行', anyone: '设备',
    part: { source: '信号', alarm: '报警', journal: '日志', recipients: '收件人', accepted: '已接收', delivered: '已送达', sounded: '已响起', page: '页面', mqtt: 'MQTT', cloud: '总部' },
    says: { source: '该测点的读数正常到达', alarm: '规则按延时报警', journal: '记录已写入并读回', recipients: '应收到的人都在名单中', accepted: '对方系统已接收', delivered: '运营商回执：手机已收到', sounded: '警号和灯已读回', page: '已送到每个打开的页面', mqtt: '工厂消息服务器已确认', cloud: '总部已确认' },
    verdict: { passed: '通过', failed: '未通过', not_there: '无此项', left_out: '未测' },
    result: { running: '进行中', passed: '通过', failed: '未通过', incomplete: '不完整', overridden: '被真实报警中止', interrupted: '中断' },
  },
}
