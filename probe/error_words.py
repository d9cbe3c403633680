"""What the probe says when something is wrong, in Chinese and English."""

from __future__ import annotations

from ..console.language import Words

ERRORS: Words = {
    # the wire as it was named
    "name_one_wire": (
        "请指明一条线：--tcp、--rtu-tcp、--serial 或 --bus",
        "name one wire: --tcp, --rtu-tcp, --serial or --bus",
    ),
    "belongs_to_serial": ("--{0} 只用于 --serial", "--{0} belongs to --serial"),
    "wire_is": ("线应写成 {0}（现为 {1!r}）", "a wire is {0} (got {1!r})"),
    "host_port": ("HOST:PORT", "HOST:PORT"),
    "host_or_port": ("HOST 或 HOST:PORT", "HOST or HOST:PORT"),
    "config_has_no_bus": ("{0}：没有带设备的总线 {1!r}", "{0}: has no bus {1!r} with devices"),
    "no_gateway_has_bus": ("运行中的网关没有总线 {0!r}", "no running gateway has a bus {0!r}"),
    "buses_here": ("现有总线：{0}", "its buses: {0}"),
    "known": ("现有：{0}", "known: {0}"),
    "no_gateway_for_bus": (
        "没有运行的网关，无从知道总线 {0!r}；查找过：\n{1}",
        "no gateway runs that could have a bus {0!r}; looked in\n{1}",
    ),
    "no_gateway_for_bus_hint": (
        "请启动网关，用 --data 指明其数据文件夹，或用 --config 指明总线所在的 site.toml",
        "start it, name its --data folder, or name the --config that the bus is in",
    ),
    # the gateway
    "gateway_silent": ("{0}：网关没有应答：{1}", "{0}: the gateway does not answer: {1}"),
    "gateway_silent_hint": ("网关在运行吗？", "is it running?"),
    "gateway_said": ("{0}：网关回答：{1}", "{0}: the gateway answers: {1}"),
    "may_not_open": ("{0}：无权打开", "{0}: may not be opened"),
    "as_service_hint": (
        "以网关的用户运行（sudo -u sitewarden），或加入它的组",
        "run it as the gateway's user (sudo -u sitewarden) or as a member of its group",
    ),
    "no_folder": ("{0}：没有这个文件夹", "{0}: there is no such folder"),
    "no_folder_hint": (
        "请给出 sitewarden edge 的 --data 文件夹",
        "name the --data folder of `sitewarden edge`",
    ),
    # the port
    "no_such_port": ("{0}：没有这个串口", "{0}: there is no such serial port"),
    "ports_here": ("本机串口：{0}", "ports here: {0}"),
    "no_port_here": ("本机没有串口：适配器插好了吗？", "this machine has none: is the adapter plugged in?"),
    "dialout_hint": (
        "加入 dialout 组（sudo usermod -aG dialout $USER，然后重新登录）",
        "be in the group dialout (sudo usermod -aG dialout $USER, then sign in again)",
    ),
    "cannot_open": ("{0}：无法打开：{1}", "{0}: cannot be opened: {1}"),
    "in_use": ("{0}：正被 {1} 使用", "{0}: is in use by {1}"),
    "in_use_hint": (
        "若是网关，用 --data 指明其数据文件夹，探测会通过网关进行；否则请停止该程序",
        "if it is the gateway, pass its --data folder and the probe asks through it; else stop that program",
    ),
    "another_process": ("另一个程序", "another process"),
    "process": ("进程 {0} {1}", "process {0} {1}"),
    # the address
    "connection_refused": ("连接被拒绝", "the connection was refused"),
    "connection_refused_hint": (
        "该端口无人监听：Modbus TCP 默认为 502",
        "nothing listens on this port: Modbus TCP is 502 by default",
    ),
    "no_host": ("没有应答", "no answer"),
    "no_host_hint": (
        "设备通电了吗？地址对吗？本机在同一网络吗？",
        "is the device on, the address right, and this machine in its network?",
    ),
    "pulled_hint": ("适配器被拔掉了吗？", "was the adapter pulled out?"),
    # a read
    "unit_said": ("站号 {0}：{1}", "unit {0}: {1}"),
    "no_reply_within": ("{0} ms 内无应答", "no reply within {0} ms"),
    "not_the_reply": ("收到的不是应答：{0}", "not the reply, but {0}"),
    # options
    "one_place": (
        "请指明一个位置：--holding、--input、--coil、--discrete 或 --register",
        "name one place: --holding, --input, --coil, --discrete or --register",
    ),
    "bad_address": (
        "地址为 0..65535 或 0x0000..0xFFFF（现为 {0!r}）",
        "an address is 0..65535 or 0x0000..0xFFFF (got {0!r})",
    ),
    "bad_register": (
        "寄存器号为 5 或 6 位：4xxxx 保持、3xxxx 输入、1xxxx 离散、0xxxx 线圈，从 1 起（现为 {0!r}）",
        "a register number has 5 or 6 digits: 4xxxx holding, 3xxxx input, 1xxxx discrete, 0xxxx coil (got {0!r})",
    ),
    "bad_ranges": (
        "数字和范围，例如 1-20,245（现为 {0!r}）",
        "numbers and ranges such as 1-20,245 (got {0!r})",
    ),
    "range_outside": (
        "数字 {0}..{1}，小的在前（现为 {2!r}）",
        "numbers {0}..{1}, the smaller first (got {2!r})",
    ),
    "leaves_addresses": ("从 {1} 起 {0} 个超出 0..65535", "{0} from {1} leave 0..65535"),
    "bad_bauds": ("波特率，例如 9600,4800，或 auto（现为 {0!r}）", "rates such as 9600,4800, or auto (got {0!r})"),
    "bad_parities": ("N、E 和 O，或 auto（现为 {0!r}）", "N, E and O, or auto (got {0!r})"),
    "bad_type": ("--type 为 {0}；--order 为 {1}（现为 {2} {3}）", "--type {0}; --order {1} (got {2} {3})"),
    "no_profile": ("型号库中没有 {0!r}", "the catalogue has no profile {0!r}"),
    "profile_hint": ("写 ID 或 ID/变体", "ID or ID/variant"),
    "no_device": ("{0}：没有 Modbus 设备 {1!r}", "{0}: has no Modbus device {1!r}"),
    # files
    "exists": ("{0}：已存在", "{0}: exists already"),
    "exists_hint": ("请给一个新文件名，再把内容抄过去", "name a new file, then copy the lines over"),
    "cannot_write": ("{0}：无法写入", "{0}: cannot be written"),
    "cannot_write_hint": (
        "请给出已有且可写的文件夹中的文件名",
        "name a file in a folder that is there and that you may write to",
    ),
    "cannot_read": ("{0}：无法读取：{1}", "{0}: cannot be read: {1}"),
}
