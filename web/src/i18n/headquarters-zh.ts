/** Chinese of headquarters: the list of sites, one site, bundles from USB sticks. */
export const headquartersZh = {
  hq: {
    sites: '站点', bundles: '导入 U 盘', back: '全部站点', open: '打开 {name}', notFound: '没有这个网关：{id}', details: '详情', since: '{time} 起', more: '还有 {n} 条，见详情',
    list: {
      find: '查找', findHint: '站点或网关', show: '显示', sort: '排序', none: '没有符合条件的站点', of: '{n} / {all} 个站点', up: '升序', down: '降序', clear: '清除条件',
      which: { all: '全部', trouble: '需要处理', alarms: '有报警', away: '未在线' },
      by: { urgency: '最紧急在前', name: '名称', contact: '最近联系', lag: '数据滞后', backlog: '待传数据量', clock: '时钟偏差', disk: '磁盘占用', alarms: '未关闭报警', quarantine: '隔离', version: '版本' },
    },
    fact: {
      contact: '最近联系', lag: '最新记录', reading: '读数 {age}前', backlog: '待传', clock: '时钟', disk: '磁盘', witness: '见证', quarantine: '隔离', gaps: '缺口', rate: '{n} kbit/s', unknown: '未报告', asOf: '网关 {time} 的自述', version: '版本', journal: '留痕已收',
      nothing: '无积压', waits: '{what} {n} {unit}', oldest: '最早 {age}前', offset: '{n} 秒', pct: '{what} {n}%', free: '剩余 {size}',
      countersigned: '第 {n} 条', never: '尚无', batches: '{n} 批', pieces: '{n} 处', alive: '{n} 个在用',
    },
    lane: { journal: '留痕', history: '历史', blobs: '证据' },
    unit: { journal: '条', history: '段', blobs: '件' },
    clockState: { synced: '已同步', unsynced: '未同步，不可信', stepped: '刚被拨动，不可信' },
    trouble: {
      silent: '失联 {age}', late: '联系延迟 {age}', never: '从未连接', fork: '见证不一致 {n} 次', cloned: '密钥被两台机器使用', notRecorded: '未记录', diskRefusing: '磁盘将满 {n}%', diskShort: '磁盘紧张 {n}%', clockOff: '时钟偏差 {n} 秒', clockUntrusted: '时钟未同步',
      backlog: '积压已 {age}', quarantine: '隔离 {n} 批', devices: '{n} 台设备无应答', evidence: '证据损坏或未收 {n} 件', deliveries: '{n} 条通知送不出去',
    },
    alarms: '未关闭报警', noAlarms: '没有未关闭的报警', history: '报警记录', charts: '历史曲线', evidence: '证据文件', evidenceHas: '总部存有 {n} 件，共 {size}', evidenceMore: '未收完 {unfinished} 件，丢失待补 {wanted} 件',
    epoch: {
      title: '纪元', what: '留痕每次重新开始都另起一个纪元，并写明前一个。', first: '首个纪元', alive: '在用', ended: '已结束', records: '收到第 {n} 条', span: '{from} 至 {to}', before: '前一个：{epoch}', name: '纪元 {epoch}',
      twin: '两台机器在用同一把密钥发送：一台是克隆。请停掉错误的一台，并为它另发密钥。',
      reason: { cloned: '数据被复制到另一台机器', moved: '磁盘换到了另一台机器', restored: '从备份恢复', fork: '与总部收到的内容不同', cloud_ahead: '本机数据比总部旧（从旧备份恢复）', damaged: '留痕文件损坏，抢救后重新开始' },
    },
    witness: {
      title: '见证', what: '总部核对网关签名的检查点，一致才副签：之后谁也不能悄悄改动这些记录。', none: '还没有副签过检查点', signed: '第 {n} 条为止，已副签', fork: '不一致：{n} 条记录的检查点与总部保存的内容矛盾：{why}', proof: '网关签了名的矛盾检查点已作为证据保存。请在网关上运行 sitewarden verify。',
      why: { chain: '总部保存的这条记录链值不同', root: '同样多的记录，默克尔根不同', witnessed: '同样多的记录，先前见证过另一个根' },
    },
    gap: { title: '已声明的缺口', what: '网关自己声明丢弃的历史：不是悄悄少了，而是写明了哪些、为什么。', none: '没有缺口', batches: '第 {first} 至 {last} 段', batch: '第 {first} 段', readings: '{n} 个读数', unknownTime: '时间不详', span: '{from} 至 {to}', total: '共 {n} 处，{readings} 个读数', why: { budget: '历史超过配置的容量', disk: '磁盘已满', kept_out: '超过保留期，总部后来又丢了' } },
    quarantine: { title: '隔离', what: '收到了但内容无法使用的批次：原样保留，不影响后面的数据。', none: '没有隔离的内容', batch: '{stream} 第 {n} 批', record: '{stream} 第 {n} 批的第 {seq} 条记录', download: '下载原文', support: '下载供技术支持分析，需要信息员或管理员', },
    bundle: {
      title: '导入 U 盘数据', what: '没有网络的站点：在网关上 sitewarden bundle export 写出 .swx 文件，拿到这里导入，再把回执带回网关。同一个文件导入两次不会重复。', choose: '选择 .swx 文件', drop: '或把文件拖到这里', limit: '最大 {size}；放心导入，重复的会自动跳过', notYours: '导入需要安全员、经理、信息员或管理员',
      sending: '正在上传 {name}', taking: '正在核对并收入', progress: '{n}%', sentOf: '{done} / {of}', batchesOf: '{done} / {of} 批', cancel: '取消', again: '导入下一个文件', waiting: '等待…',
      done: '{gateway} 的数据已收入', partly: '{gateway} 的数据只收入了一部分', failed: '没有导入', answer: '下载回执 {name}', answerWhat: '把回执拷到 U 盘带回网关，运行：sitewarden bundle import {name}。网关由此知道哪些已到达。', config: '回执带有第 {n} 版基线配置', noConfig: '回执不带配置', more: '这不是最后一个文件：请接着导入同批的下一个（…-2.swx 等）。',
      taken: '新收 {n} 批', known: '已有 {n} 批', takenBlobs: '新收 {n} 件', knownBlobs: '已有 {n} 件', quarantined: '隔离 {n} 批', refusedBlobs: '未收 {n} 件', upTo: '现在到第 {n} 批', nothing: '文件里没有数据',
      problem: { gap: '前面缺批次：请先导入更早的文件', fork: '与总部保存的历史不同：把回执带回网关，它会另起纪元再导出', too_large: '有文件超过大小限制', quota: '这个站点的证据容量已满', unavailable: '总部存储暂时不可用，请再导入一次', wrong_content: '有证据文件内容不对，没有保存', damaged: '文件后半部分已损坏：请重新拷贝后再导入' },
      refused: {
        damaged: '文件已损坏，或不是 .swx 数据包：请从网关重新拷贝', wrong_key: '签名的密钥不是这个网关登记的密钥', bad_signature: '签名不对：文件被改过', not_for_here: '这是给网关的回执，请拿到网关上导入', unknown_gateway: '这个网关还没有在总部登记密钥', disk_full: '总部磁盘空间不足，请联系信息员', too_large: '文件超过大小限制', not_your_role: '您没有可以导入的角色',
        busy: '别人正在导入，请稍后再试', offset: '上传中断了，请重新选择文件', not_found: '上传已过期，请重新选择文件', network: '连接中断，请重新选择文件', unavailable: '总部暂时不能收入，请再导入一次', empty: '文件是空的', broken: '回答没有收完：请再导入一次，已收入的不会重复',
      },
    },
  },
}
