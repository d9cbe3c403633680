"""The words of the probe in Chinese and English."""

from __future__ import annotations

from ..console.language import Say, Words
from ..console.language import translator as phrases_in
from ..console.words import WORDS as COMMON
from .error_words import ERRORS
from .identify_words import REASONS

WORDS: Words = {
    # plan
    "bus": ("总线", "bus"),
    "device": ("设备", "device"),
    "unit": ("站号", "unit"),
    "profile": ("型号", "profile"),
    "every": ("每 {0} s", "every {0} s"),
    "request": ("请求", "request"),
    "address": ("地址", "address"),
    "count": ("数量", "count"),
    "bytes": ("字节", "bytes"),
    "wanted": ("需要", "wanted"),
    "along": ("顺带", "along"),
    "wire": ("线时 ms", "wire ms"),
    "registers": ("寄存器", "registers"),
    "one_by_one": ("逐个读取", "one by one"),
    "output": ("可写输出", "output that may be written,"),
    "per_poll": ("每次轮询线时：{0} ms，占 {1} %", "on the wire per poll: {0} ms, {1} %"),
    "load": (
        "总线负载：{0} %（不含设备应答所需时间：每次请求最多 {1} ms）",
        "load of the bus: {0} % (without the time that devices take to answer: up to {1} ms each time)",
    ),
    "too_full": (
        "警告：总线过满（超过 {0}%）：放慢轮询、提高波特率或分线",
        "warning: the bus is too full (more than {0} %): poll slower, raise the baud rate or split the bus",
    ),
    "tcp_load": ("以太网：无串口线时", "Ethernet: no time on a serial wire"),
    "rtu_tcp_load": (
        "按转换器串口侧 {0} 波特计算",
        "as if the converter's serial side ran at {0} baud",
    ),
    # scan
    "asking": ("询问 {0}：{1} 个站号，最多 {2}（分:秒）", "asking {0}: {1} units, at most {2} (min:s)"),
    "found": ("站号 {0} 有应答（{1}）", "unit {0} answers ({1})"),
    "left": ("剩余", "left"),
    "elapsed": ("已用", "elapsed"),
    "identifying": ("识别站号 {0}", "asking unit {0} what it is"),
    "interrupted": ("已中断，以下为目前结果：", "interrupted; found so far:"),
    "nothing": ("没有任何设备应答。", "No unit answered."),
    "nothing_serial": (
        "检查：A/B 线是否接反、供电、终端电阻、站号；其他波特率和校验用 --baud / --parity；更长等待用 --timeout-ms。",
        "Check A and B (swapped?), power, termination, unit id. Try --baud, --parity, and a longer --timeout-ms.",
    ),
    "nothing_tcp": (
        "连接成功但无站号应答。检查站号（--units 0-255）、转换器的协议（--tcp 或 --rtu-tcp）和串口参数。",
        "Connected, but no unit answers. Check the unit id (--units 0-255), and whether a converter wants --rtu-tcp.",
    ),
    "asked_only": (
        "只询问了 {0} 个常用站号；--units {1} 询问全部。",
        "Only {0} usual unit ids were asked; --units {1} asks all.",
    ),
    "garbled": (
        "站号 {0}（{1}）：收到乱码：多半是波特率或校验不对，或两台设备同一站号",
        "unit {0} ({1}): something garbled came: probably another baud rate or parity, or two devices with one unit id",
    ),
    "not_possible": ("串口不支持 {0}：{1}", "the port cannot be set to {0}: {1}"),
    "answers_all": (
        "该设备对每个站号都应答：只有一台设备，用站号 {0}。",
        "Every unit id gets the same answer: this is one device that does not look at it. Use unit {0}.",
    ),
    "owned": ("网关已配置为 {0}", "the gateway has it as {0}"),
    "no_fit": ("没有匹配的型号", "fits no profile"),
    "no_fit_hint": ("用 sitewarden probe read 查看", "look at it with: sitewarden probe read"),
    "variant": ("变体", "variant"),
    "evidence_second_hand": (
        "寄存器表来自二手资料：使用前与设备核对",
        "its map is second-hand: compare it with the device before relying on it",
    ),
    "evidence_memory": (
        "寄存器表未经资料证实：使用前与设备核对",
        "its map is from memory: compare it with the device before relying on it",
    ),
    "evidence_generic": (
        "此类设备的通用寄存器表：使用前与设备手册核对",
        "its map is what such devices have in common: compare it with the device's manual",
    ),
    "incomplete": ("不完整", "incomplete"),
    "snippet": ("可加入 site.toml 的内容：", "To be added to site.toml:"),
    "written": ("已写入 {0}", "written to {0}"),
    "unit_is": ("站号 {0} 已是 {1}", "unit {0} is {1} already"),
    "unit_elsewhere": (
        "站号 {0} 在 {1} 下应答：先改为 {2}",
        "unit {0} answers at {1}: set it to {2} first",
    ),
    "unit_not_asked": ("站号 {0} 有应答；尚未询问型号", "unit {0} answers; it was not asked what it is"),
    "unit_unknown": (
        "站号 {0} 有应答，但没有匹配的型号：用 `{1}` 查看",
        "unit {0} answers, but fits no profile: look at it with `{1}`",
    ),
    "nearest": ("；最接近：{0}", "; nearest: {0}"),
    "measure_it": ("请实测：sitewarden probe watch --long", "measure it: sitewarden probe watch --long"),
    "name_it": ("按所监测的对象命名", "name it after what it watches"),
    "where_it_hangs": ("安装区域", "where it hangs"),
    "also_possible": ("；也可能是：{0}", "; also possible: {0}"),
    # read
    "read_of": ("站号 {0}，{1} {2}（0x{3:04X}）起 {4} 个", "unit {0}, {1} {2} (0x{3:04X}), {4} of them"),
    "reply": ("应答", "reply"),
    "bits_set": ("置位", "bits set"),
    "nibbles": ("半字节", "nibbles"),
    "order": ("字节序", "order"),
    "odd": ("? 看来不像测量值（NaN、过大或过小）", "? does not look like a measurement (NaN, huge or tiny)"),
    "text_high": ("文本（高字节在前）", "text, high byte first"),
    "text_low": ("文本（低字节在前）", "text, low byte first"),
    "fewer": ("设备拒绝读 {0} 个，只读 {1} 个", "the device refuses to read {0}; {1} were read"),
    "noted": ("寄存器 {0} 即 {1} 地址 {2}", "register {0} is {1} address {2}"),
    "as_sent": (
        "地址 {0} 按原样发送；若为手册上的寄存器号，用 --register {0}",
        "address {0} is sent as it is; if it is a manual's register number, say --register {0}",
    ),
    # watch
    "errors": ("错误", "errors"),
    "asked": ("请求", "requests"),
    "advice": ("site.toml 建议", "for site.toml"),
    "few": (
        "只有 {0} 次应答：多测几分钟再采用",
        "replies so far: {0}; let it run for some minutes before relying on this",
    ),
    "no_late": (
        "有请求在时限内无应答：用 --long 测量应答最晚多久到达（late_max_ms）",
        "some requests got no reply in time: --long measures how late replies come (late_max_ms)",
    ),
    "no_reply_long": (
        "{0} 次请求在 {1} 秒内始终无应答",
        "{0} requests got no reply within {1} s at all",
    ),
    # what to do when a read failed
    "hint_timeout": (
        "站号对吗？sitewarden probe scan 可找出总线上的设备",
        "is the unit id right? `sitewarden probe scan` finds who is there",
    ),
    "hint_bad_frame": (
        "多半是波特率或校验不对，或两台设备同一站号",
        "probably another baud rate or parity, or two devices with one unit id",
    ),
    "hint_bus_noise": (
        "检查 A/B 线、屏蔽和终端电阻；是否有别的主站在同一总线上？",
        "check A and B, shield and termination; is there another master on the bus?",
    ),
    "hint_exception_1": (
        "设备不支持该功能码：换一张表（--input / --holding）",
        "the device does not know this function: try another table, --input or --holding",
    ),
    "hint_exception_2": ("设备没有这个地址", "the device has no such address"),
    "hint_exception_3": ("设备不允许这个数量", "the device does not like the count"),
    "hint_exception_4": ("设备故障", "the device has failed"),
    "hint_exception_6": ("设备忙：稍后再试", "the device is busy: try again"),
    "hint_exception_10": (
        "转换器（网关）没有通往该站号的线路：检查其站号路由和串口设置",
        "the converter has no way to this unit: check its routing and its serial settings",
    ),
    "hint_exception_11": (
        "转换器（网关）在，但它后面的设备没有应答：检查站号、供电、A/B 线和串口参数",
        "the converter is there, but the unit behind it is silent: check unit id, power, A and B, baud and parity",
    ),
    # wires
    "through": ("通过运行中的网关（{0}），总线 {1}：{2}", "through the running gateway ({0}), bus {1}: {2}"),
    "alone": ("独占打开：{0}", "alone: {0}"),
    "no_gateway": ("{0} 中没有运行的网关", "no gateway runs in {0}"),
    "its_settings": (
        "网关以 {0} 使用该线；要试其他参数请先停止网关",
        "the gateway uses this wire at {0}; stop it to try other settings",
    ),
    "ports": ("本机串口：", "Serial ports of this machine:"),
    "no_ports": ("没有串口：适配器插好了吗？", "no serial port: is the adapter plugged in?"),
    "not_lasting": (
        "{0}：重启后可能变成另一台设备；没有 /dev/serial/by-id 名称",
        "{0}: can be another device after the next start, and has no name in /dev/serial/by-id",
    ),
}


ALL: Words = {**COMMON, **ERRORS, **REASONS, **WORDS}


def translator(lang: str) -> Say:
    """The probe's phrases in `zh` or `en`."""
    return phrases_in(lang, ALL)
