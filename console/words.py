"""What the commands say, in Chinese and English; the probe has its own words beside these."""

from __future__ import annotations

from .bundle_words import BUNDLE
from .enrol_words import ENROL
from .evidence_words import EVIDENCE
from .history_words import HISTORY
from .language import Say, Words, spoken, translator
from .tls_words import TLS

WORDS: Words = {
    "moving": ("{0}：{1} / {2} 行", "{0}: {1} of {2} rows"),
    "moved": (
        '{0} 行（{1} 个表）已复制并核对。现在请在 cloud.toml 写入 [store] url = "{2}"，再启动服务',
        '{0} rows of {1} tables are copied and compared. Write [store] url = "{2}" into cloud.toml; start the service',
    ),
    "lang": ("zh", "en"),
    "colon": ("：", ": "),
    "comma": ("，", ", "),
    "open": ("（", " ("),
    "close": ("）", ")"),
    "did_you_mean": ("；是不是“{0}”？", '; did you mean "{0}"?'),
    "none": ("无", "none"),
    # what is wrong
    "sitewarden": ("sitewarden：", "sitewarden: "),
    "stopped": ("已中断", "stopped"),
    "one_problem": ("{0}：1 个问题（说明为英文）", "{0}: 1 problem"),
    "problems": ("{0}：{1} 个问题（说明为英文）", "{0}: {1} problems"),
    "mend_check": (
        "什么都没有改动。改正后再检查：sitewarden check {0}",
        "Nothing was changed. Mend the file, then check it: sitewarden check {0}",
    ),
    "os_hint": (
        "文件夹在吗？当前用户有权限吗？现场机器上用：sudo -u sitewarden ...",
        "is the folder there, and may this user use it? On a real machine: sudo -u sitewarden ...",
    ),
    "backed_up": (
        "{0}：备份完成：数据库 {1} 字节，新增证据文件 {2} 个；{3} 个流的持久位置前移",
        "{0}: complete: database of {1} bytes, {2} new pieces of evidence; {3} streams are durable further than before",
    ),
    "no_data": (
        "缺少 --data：存储文件夹；环境变量 $STATE_DIRECTORY（由 systemd 设置）也没有",
        "--data is missing: the folder of the stores; $STATE_DIRECTORY, which systemd sets, is not set either",
    ),
    # check
    "warning": ("警告：{0}", "warning: {0}"),
    "good_site": ("{0}：正确：{1} 个区域，{2} 台设备，{3} 个测点", "{0}: good: {1}, {2}, {3}"),
    "good_cloud": ("{0}：正确：{1} 个网关，{2} 人", "{0}: good: {1}, {2}"),
    "good_baseline": ("{0}：正确：{1} 类房间，{2} 条限值，{3} 级升级", "{0}: good: {1}, {2}, {3}"),
    # verify
    "record": ("{0} 条记录", "{0} record"),
    "records": ("{0} 条记录", "{0} records"),
    "good_journal": ("{0}：正确：{1}，网关 {2}，纪元 {3}", "{0}: good: {1} of gateway {2}, epoch {3}"),
    "no_records": ("{0}：没有网关 {1}（纪元 {2}）的记录", "{0}: no records of gateway {1}, epoch {2}"),
    "not_good": ("{0}：不正确：{1}（之前的 {2}正确）", "{0}: NOT GOOD: {1} ({2} before it good)"),
    **BUNDLE,
    **ENROL,
    **TLS,
    **EVIDENCE,
    **HISTORY,
    # pin set
    "no_secrets": ("{0}：没有这个文件夹", "{0}: there is no such folder"),
    "no_secrets_hint": (
        "网关或 sitewarden key 会建立它；请检查路径",
        "the daemon or `sitewarden key` makes it; check the path",
    ),
    "nobody": ("{0}：没有人的 id 是 {1!r}", "{0}: nobody has the id {1!r}"),
    "no_pin_set": ("未设置 PIN", "no PIN was set"),
    "pin_set": ("已设置 {0} 的 PIN", "PIN of {0} set"),
    # where the gateway is
    "nobody_runs": (
        "没有找到运行中的网关，查找过：\n{0}",
        "no running gateway was found; looked in\n{0}",
    ),
    "nobody_runs_hint": (
        "请启动网关，或用 --data 指明它的数据文件夹",
        "start it, or name its data folder with --data",
    ),
    "several_gateways": (
        "这里运行着 {0} 个网关：\n{1}",
        "{0} gateways run here:\n{1}",
    ),
    "several_hint": ("用 --data 指明是哪一个", "name the folder of one with --data"),
    "place_live": ("{0}：网关在运行", "{0}: a gateway runs"),
    "place_no_folder": ("{0}：没有这个文件夹", "{0}: there is no such folder"),
    "place_closed": (
        "{0}：当前用户无权进入（用 sudo -u sitewarden，或加入该组）",
        "{0}: may not be opened by this user (sudo -u sitewarden, or be in its group)",
    ),
    "place_silent": ("{0}：没有运行的网关", "{0}: no gateway runs there"),
    "place_too_long": (
        "{0}：路径太长，套接字最多 {1} 字节（可用较短的相对路径）",
        "{0}: too long for a socket, which may have {1} bytes (a relative path may be shorter)",
    ),
    "gateway_no_answer": ("{0}：网关没有应答：{1}", "{0}: the gateway does not answer: {1}"),
    "no_answer_hint": ("请看网关的日志", "look at its log"),
    "waiting": ("等待网关（{0}）…", "waiting for the gateway ({0}) …"),
    # replay
    "no_site_toml": (
        "没有找到 site.toml，查找过：{0}",
        "no site.toml was found; looked for {0}",
    ),
    "no_site_toml_hint": ("请用 --config 指明", "name it with --config"),
    "not_a_time": (
        '{0} 的值无效：{1} 不是时间，例如 2026-11-22、"2026-11-22 13:00" 或 2026-11-22T13:00:00+08:00',
        '{0}: {1} is not a time, such as 2026-11-22, "2026-11-22 13:00" or 2026-11-22T13:00:00+08:00',
    ),
    "not_a_length": (
        "--last 的值无效：{0} 不是时长，例如 90m、24h、7d、2w",
        "--last: {0} is not a length of time, such as 90m, 24h, 7d or 2w",
    ),
    "last_and_from": ("--last 和 --from 不能同时使用", "--last and --from cannot be used together"),
    # reload
    "applied": ("已应用：{0}，版本 {1}", "applied: {0}, revision {1}"),
    "same": ("没有变化：{0}，版本 {1}", "nothing was changed: {0}, revision {1}"),
    "only_comments": ("只有注释或顺序不同", "only comments or the order are different"),
    "needs_restart": (
        "{0}：已改动，重启后生效（sudo systemctl restart sitewarden-edge）",
        "{0}: was changed, and counts from the next start on (sudo systemctl restart sitewarden-edge)",
    ),
    "counted_device": (
        "设备：新增 {0}，移除 {1}，改动 {2}，未动 {3}",
        "devices: {0} added, {1} removed, {2} changed, {3} untouched",
    ),
    "counted_rule": (
        "报警规则：新增 {0}，移除 {1}，改动 {2}，未动 {3}",
        "alarm rules: {0} added, {1} removed, {2} changed, {3} untouched",
    ),
    "refused_one": ("被拒绝：{0}：1 个问题（说明为英文）", "refused: {0}: 1 problem"),
    "refused": ("被拒绝：{0}：{1} 个问题（说明为英文）", "refused: {0}: {1} problems"),
    "goes_on": (
        "什么都没有改动；网关继续使用版本 {0}。改正后再运行：{1}",
        "Nothing was changed; the gateway goes on with revision {0}. Mend the file, then: {1}",
    ),
    "reload_left": (
        "不再等待；网关可能仍会应用该文件，请看其日志",
        "no longer waiting; the gateway may still apply the file: look at its log",
    ),
    "busy": ("已有太多请求在等待", "too many requests wait already"),
    "busy_hint": ("稍后再试", "try again a little later"),
    # outputs
    "no_outputs": (
        "本厂没有可写输出：型号文件中列出才有（docs/devices.md）",
        "This site has no outputs: a device has some when its profile lists them (docs/devices.md).",
    ),
    "no_such_output": ("没有输出 {0}", "there is no output {0}"),
    "outputs_here": ("现有输出：{0}", "outputs of this site: {0}"),
    "no_such_state": ("{0} 没有状态 {1}", "{0} has no state {1}"),
    "states_here": ("可用状态：{0}", "it can be {0}"),
    "not_known": ("未知", "not known"),
    "not_written": ("未知：从未写过", "not known: never written from here"),
    "not_confirmed": ("未知：上次写 {0} 未得到确认：{1}", "not known: {0} was written, but not confirmed: {1}"),
    "is_now": ("已确认", "confirmed"),
    "failed_output": ("{0}：写 {1} 未得到确认：{2}", "{0}: {1} was not confirmed: {2}"),
    "failed_hint": (
        "请到设备旁查看：没有人知道它现在的状态",
        "look at the device itself: nobody knows which state it is in",
    ),
    # proof test
    "proof_began": ("验证测试 {0}：{1}", "proof test {0}: {1}"),
    "proof_left": (
        "不再等待；测试仍在进行：sitewarden proof --last",
        "no longer waiting; the test goes on: sitewarden proof --last",
    ),
    "proof_none": ("还没有做过验证测试", "there has been no proof test yet"),
    "proof_result": ("结果：{0}", "result: {0}"),
    "proof_seconds": ("{0} 秒", "{0} s"),
    "proof_running": ("进行中", "under way"),
    "proof_passed": ("通过", "passed"),
    "proof_failed": ("未通过", "failed"),
    "proof_incomplete": ("不完整", "incomplete"),
    "proof_overridden": ("被真实报警中止", "overridden by a real alarm"),
    "proof_interrupted": ("中断", "interrupted"),
    "proof_not_there": ("无此项", "not there"),
    "proof_left_out": ("未测", "left out"),
    "proof_source": ("信号", "source"),
    "proof_alarm": ("报警", "alarm"),
    "proof_journal": ("日志", "journal"),
    "proof_recipients": ("收件人", "recipients"),
    "proof_accepted": ("已接收", "accepted"),
    "proof_delivered": ("已送达", "delivered"),
    "proof_sounded": ("已响起", "sounded"),
    "proof_page": ("页面", "page"),
    "proof_mqtt": ("MQTT", "MQTT"),
    "proof_cloud": ("总部", "headquarters"),
    # why a request failed
    "why_timeout": ("时限内无应答", "no reply in time"),
    "why_bad_frame": ("应答报文损坏", "the reply is damaged"),
    "why_bus_noise": ("总线干扰", "noise on the bus"),
    "why_no_connection": ("连接不上", "no connection"),
    "why_driver_error": ("驱动程序出错", "driver error"),
    "why_not_taken": ("设备没有执行（读回不符）", "the device did not do it (it reads back otherwise)"),
    "why_no_such_output": ("该输出已被移除", "it has been taken out meanwhile"),
    "why_no_such_state": ("该状态已被移除", "this state has been taken out meanwhile"),
    "why_busy": ("总线太忙", "the bus is too busy"),
    "why_breaker_open": ("设备长时间无应答", "silent for long"),
    # exceptions: names of Modbus Application Protocol v1.1b3 §7
    "why_exception": ("Modbus 异常 {0}", "Modbus exception {0}"),
    "why_exception_1": ("Modbus 异常 1：功能码不支持", "Modbus exception 1: illegal function"),
    "why_exception_2": ("Modbus 异常 2：没有这个地址", "Modbus exception 2: illegal data address"),
    "why_exception_3": ("Modbus 异常 3：数量或数值不允许", "Modbus exception 3: illegal data value"),
    "why_exception_4": ("Modbus 异常 4：设备故障", "Modbus exception 4: device failure"),
    "why_exception_5": ("Modbus 异常 5：已收到，正在处理", "Modbus exception 5: acknowledged, still busy with it"),
    "why_exception_6": ("Modbus 异常 6：设备忙", "Modbus exception 6: device busy"),
    "why_exception_8": ("Modbus 异常 8：存储校验错误", "Modbus exception 8: memory parity error"),
    "why_exception_10": ("Modbus 异常 10：网关路径不可用", "Modbus exception 10: gateway path unavailable"),
    "why_exception_11": (
        "Modbus 异常 11：网关后的设备无响应",
        "Modbus exception 11: gateway target device failed to respond",
    ),
    # why a value is none
    "why_out_of_range": ("超出量程", "out of range"),
    "why_not_a_number": ("不是数值", "not a number"),
    "why_sentinel": ("仪表报故障值", "fault value"),
    "why_unknown_state": ("状态未知", "unknown state"),
    "why_unknown_unit": ("单位未知", "unknown unit"),
    "why_bad_decimals": ("小数位数无效", "invalid decimals"),
    "why_bad_bcd": ("不是 BCD 码", "no BCD"),
    "why_bad_digits": ("数字无效", "invalid digits"),
    "why_no_answer": ("未读到", "not read"),
    "why_warm_up": ("预热中", "warming up"),
    "why_inhibit": ("已屏蔽", "inhibited"),
    "why_calibration": ("标定中", "being calibrated"),
    "why_fault": ("设备故障", "device fault"),
}


def reason_text(why: str, tr: Say, words: Words = WORDS) -> str:
    """A reason word of readings and replies (`timeout`, `exception_11`, `status_fault`) for a person; an unknown one
    as it is."""
    word = why.removeprefix("status_")
    for known in (f"why_{why}", f"why_{word}"):
        if known in words:
            return tr(known)
    code = why.removeprefix("exception_")
    return tr("why_exception", code) if code != why else word


def phrases() -> Say:
    """`WORDS` in the language of the command that runs."""
    return translator(spoken(), WORDS)
