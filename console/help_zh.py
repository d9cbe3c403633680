"""The help in Chinese: of each text its first paragraph, on one line, and what is said instead of the whole text."""

from __future__ import annotations

from collections.abc import Mapping

HELP_ZH: Mapping[str, str] = {
    # every command
    "Show the version and exit.": "显示版本后退出",
    "Show this message and exit.": "显示本帮助后退出",
    "Language [default: the locale's].": "语言：zh 或 en [默认：按系统区域设置]",
    "Log more (to standard error).": "输出更多日志（到标准错误）",
    "Print JSON.": "输出 JSON",
    # bundle
    "Sync by USB stick: export, import, show.": "用 U 盘同步：导出、导入、查看",
    "Carry what a gateway recorded to headquarters on a USB stick, and the answer back.": (
        "用 U 盘把网关的记录带到总部，再把回执带回来。"
    ),
    "Write what headquarters does not have yet.": "写出总部还没有的数据",
    "From the beginning, also what headquarters has.": "从头开始，总部已有的也写",
    "Encrypt for this x25519: key of headquarters.": "为总部的这个 x25519: 密钥加密",
    "About how much all files may take: 500M, 4G.": "所有文件合计大约多大：500M、4G [默认：U 盘的剩余空间]",
    "Write what headquarters does not have yet into FILE; where it is much, into FILE-2, FILE-3 … as well.": (
        "把总部还没有的数据写入 FILE；数据多时再写 FILE-2、FILE-3 …\n\n"
        "网关可以继续运行。总部的回执导入之前，网关上什么都不删。同一个文件可以导入两次，也可以和网络同步混用，不会重复。\n\n"
        "退出码 0：已写出；1：写不出；2：用法错误。"
    ),
    "Take in a bundle at headquarters, or an answer at a gateway.": "在总部导入数据，或在网关导入回执",
    "Where to write the answer [default: FILE with -answer].": "回执写到哪里 [默认：FILE 加 -answer]",
    "Headquarters' ed25519: key, where no gateway runs that knows it.": "总部的 ed25519: 公钥，网关没有运行时用",
    (
        "Take in FILE: batches of a gateway at headquarters, whose cloud service must run, or an answer at its gateway."
    ): (
        "导入 FILE：在总部导入网关的数据（云端服务须在运行），或在网关导入回执。\n\n"
        "在总部导入后会写出回执，请带回网关：网关由此知道哪些已到达。\n\n"
        "退出码 0：全部导入；1：有的没有导入；2：用法错误。"
    ),
    "Show what a bundle holds, and whether it is whole.": "查看数据包的内容和是否完整",
    "Check that this ed25519: key signed it.": "核对是否由这个 ed25519: 密钥签名",
    "Show what FILE holds and check every byte of it. Without --key nobody looks who signed it.": (
        "查看 FILE 的内容并逐字节核对。不给 --key 时不核对签名人。\n\n"
        "退出码 0：完整；1：不完整，或不是该密钥签名；2：用法错误。"
    ),
    "Headquarters' keys: what gateways trust and seal for.": "总部的密钥：网关信任和加密用",
    "Folder of the cloud.": "云端服务的数据文件夹",
    "Print headquarters' public keys: `public_key` of [cloud] in a site.toml, and KEY of `bundle export --seal`.": (
        "打印总部的公钥：site.toml [cloud] 的 public_key，以及 bundle export --seal 的 KEY。"
    ),
    # enrol, key, keys at headquarters
    "Become known at headquarters, by a claim code.": "用认领码让总部认识本网关",
    "Headquarters [default: url in site.toml].": "总部地址 [默认：site.toml 的 url]",
    "Certificate authority of headquarters [default: site.toml's].": "总部的证书机构 [默认：site.toml 所写]",
    "Id of this gateway [default: site.toml's].": "本网关的 id [默认：site.toml 所写]",
    "Write the request here, for a USB stick.": "把申请写入此文件，走 U 盘",
    "Headquarters' answer to such a file.": "总部对该文件的答复",
    "Put a new key in the place of a revoked one; the gateway is stopped.": "换掉被吊销的密钥；网关须已停止",
    "Ask headquarters to know this gateway, and show the code that its operator needs for that.": (
        "向总部申请认领本网关，并显示总部操作员需要的认领码。\n\n"
        "网关可以继续运行：它显示同一个码，批准后自动继续。认领码 15 分钟有效，只用一次，过期换新的。"
        "用 --file 时申请走 U 盘，答复用 --answer 导入。\n\n"
        "退出码 0：总部已认识本网关，或文件已写出；1：没有；2：用法错误；130：Ctrl-C。"
    ),
    "The gateway's key: print it, or change it.": "网关的密钥：打印或更换",
    "Sign with a new key from now on.": "从现在起用新密钥签名",
    "Let the running gateway make a new key, introduce it at headquarters by the old one, and sign with it.": (
        "让运行中的网关生成新密钥，用旧密钥向总部引入，然后用它签名。\n\n"
        "期间什么都不停，留痕中有记录。旧密钥还有 7 天有效。\n\n"
        "退出码 0：已用新密钥签名；1：还没有，或没有连到网关；2：用法错误；130：Ctrl-C。"
    ),
    "Gateways with their keys, and who asks.": "列出网关及其密钥、谁在申请",
    "List every gateway with its keys, and those that ask to be known.": (
        "列出每个网关及其密钥，以及正在申请认领的网关。\n\n退出码 0：已列出；1：云端服务没有运行；2：用法错误。"
    ),
    "Approve a gateway by the code that it shows.": "按网关显示的认领码批准",
    "Id of the gateway that shows the code.": "显示该码的网关的 id",
    "Its request, from a USB stick.": "U 盘带来的申请文件",
    "It takes the place of another machine, whose key ends at once.": "它替换另一台机器，旧密钥立即结束",
    "Which one, where several ask alike.": "有几个同名申请时指明是哪一个",
    "Let the gateway that shows CODE send from now on. Whoever stands there reads the code aloud.": (
        "从现在起允许显示 CODE 的网关上传。由站在网关旁的人念出认领码。\n\n"
        "输错 5 次，申请作废，网关会显示新的码。\n\n退出码 0：已批准；1：没有；2：用法错误。"
    ),
    "Refuse a gateway that asks.": "拒绝一个申请",
    "Refuse the request of GATEWAY; it says so, and shows another code after a while.": (
        "拒绝 GATEWAY 的申请；网关会显示被拒绝，过一会儿换新的码。\n\n退出码 0：已拒绝；1：它没有申请；2：用法错误。"
    ),
    "End a gateway's keys at once.": "立即吊销网关的密钥",
    "This key alone [default: all that are good].": "只吊销这个密钥 [默认：所有有效的]",
    "Why; it is kept with the key.": "原因，与密钥一起保存",
    "Do not ask.": "不再询问",
    ("End the keys of GATEWAY: from the next request on nothing that they sign is taken. Nothing is deleted."): (
        "吊销 GATEWAY 的密钥：从下一个请求起，其签名一律不收。什么都不删除。\n\n"
        "网关的记录留在网关上，换新密钥重新认领后再上传。\n\n退出码 0：已吊销；1：没有；2：用法错误。"
    ),
    # sitewarden
    "Sitewarden 岗哨: a safety gateway for small plants.": (
        "Sitewarden 岗哨：小型工厂的安全网关。\n\n先试 sitewarden demo：在本机模拟一整座工厂。"
    ),
    "Run the gateway until SIGTERM or Ctrl-C.": "运行网关，直到 SIGTERM 或 Ctrl-C",
    "Run the gateway daemon until SIGTERM or Ctrl-C.": "运行网关守护进程，直到 SIGTERM 或 Ctrl-C。",
    "site.toml of this gateway.": "本网关的 site.toml",
    "Folder of the stores [default: $STATE_DIRECTORY].": "存储文件夹 [默认：$STATE_DIRECTORY]",
    "Run the cloud service until SIGTERM or Ctrl-C.": "运行云端服务，直到 SIGTERM 或 Ctrl-C",
    "cloud.toml of this service.": "本服务的 cloud.toml",
    "Copy the data folder of headquarters.": "备份总部的数据文件夹",
    "Copy database, keys and evidence of headquarters into TARGET, while the service runs, and tell it.": (
        "在服务运行时把总部的数据库、密钥和证据文件复制到 TARGET，并告知服务。\n\n"
        'TARGET 中始终有一份完整的备份：新的一份完成后才取代旧的。cloud.toml 中写 durable = "backup" 时，'
        "网关只删除备份中已有的数据，且再保留七天。\n\n"
        "退出码 0：完成。1：未完成，或没有数据因此成为持久。2：用法错误。"
    ),
    "Call it durable although it lies on the same disk.": "备份虽在同一磁盘上，也视为持久",
    "Move cloud.db to PostgreSQL.": "把 cloud.db 迁移到 PostgreSQL",
    "Copy all of cloud.db to PostgreSQL, while the service is stopped, and compare every row.": (
        "在服务停止时把 cloud.db 的全部内容复制到 PostgreSQL，并逐行核对。\n\n"
        "中断后再次运行即从中断处继续。cloud.db 不会改动。完成后 cloud.toml 的 [store] 必须写同一地址："
        "服务不再用 cloud.db 启动。\n\n"
        "退出码 0：全部就绪；1：没有完成；2：用法错误。"
    ),
    "postgresql://user@host:port/database, empty.": "postgresql://用户@主机:端口/数据库，须为空库",
    "File with the password of that user.": "该用户密码所在的文件",
    "Apply a changed site.toml without a restart.": "不重启，应用改动后的 site.toml",
    "Let the running gateway apply its changed site.toml and people.csv: what stays the same goes on untouched.": (
        "让运行中的网关应用改动后的 site.toml 和 people.csv：未改动的部分不受影响。\n\n"
        "文件有错时什么都不改，并列出每个问题。\n\n"
        "退出码 0：已应用，或没有变化；1：文件被拒绝，或找不到网关；2：用法错误；130：Ctrl-C。"
    ),
    "Form of the log on standard error.": "标准错误上日志的格式",
    "Folder of the running gateway, or of the demo [default: looked for].": (
        "运行中的网关或演示的文件夹 [默认：自动查找]"
    ),
    "List what may be switched (siren, lamp), or switch it.": "列出或操作可写输出（警号、灯）",
    "List the outputs of the running gateway, or bring OUTPUT (area.device.output) into STATE and read it back.": (
        "列出运行中网关的输出，或把 OUTPUT（区域.设备.输出）置为 STATE 并读回确认。\n\n"
        "退出码 0：设备已确认；1：未确认，或找不到网关；2：用法错误；130：Ctrl-C。"
    ),
    "Test an alarm's whole chain: siren, SMS, pages.": "验证测试：报警的全部环节（警号、短信、页面）",
    "Let the running gateway test the whole chain of POINT's alarm, and show each step as its verdict comes.": (
        "让运行中的网关测试 POINT（测点）报警的全部环节，每一步有结论即显示。\n\n"
        "报警时会通知的人都会收到以【测试】开头的消息，警号短响。不写 POINT 时测试 site.toml 中 [proof] 的测点。\n\n"
        "退出码 0：通过；1：未通过、不能开始、被中止，或找不到网关；2：用法错误；130：Ctrl-C，测试继续进行。"
    ),
    "Begin nothing: show the last tests.": "不测试：显示最近的测试",
    "Check a site.toml or cloud.toml offline.": "离线检查 site.toml 或 cloud.toml",
    "Check a site.toml or cloud.toml offline: every problem at once.": (
        "离线检查 site.toml 或 cloud.toml：一次列出所有问题。\n\n"
        "people.csv 随引用它的文件一起检查。文件名以 cloud 开头的按 cloud.toml 检查，"
        "以 baseline 开头的按 baseline.toml 检查。\n\n"
        "退出码 0：正确；1：有问题；2：用法错误。"
    ),
    "Print every delay, limit and unit as they will be used.": "打印实际使用的每个延时、限值和单位（英文）",
    "Under this baseline.toml of headquarters.": "按总部的这个 baseline.toml 检查",
    "Check chain, checkpoints and gaps of a journal.db.": "检查 journal.db 的链、检查点和缺口",
    "Check the chain, the signed checkpoints and the countersignatures of a journal.db, offline.": (
        "离线检查 journal.db 的链、签名检查点和总部会签。\n\n"
        "指出第一条被改动、删除、插入或调换的记录，检查点所知的末尾缺失，以及网关自己声明的每个缺口。"
        "不给密钥时使用文件中的密钥：能改写文件的人也能换掉它们。最后一次会签之后的记录，只有总部才能核对。\n\n"
        "退出码 0：正确；1：不正确，或无法读取；2：用法错误。"
    ),
    "Public key of the gateway, as it shows it.": "网关的公钥，按网关显示的写",
    "Public key of headquarters as witness.": "总部作为见证方的公钥",
    "A checkpoint that was kept elsewhere; may be given again.": "另行保存的检查点；可多次使用",
    "The journal's state tables.": "留痕的状态表",
    "What follows from the records of a journal.": "由留痕记录推出的内容。",
    "Make the state tables again from the records, and compare.": "按记录重建状态表并比较",
    "Make every state table again from the records of a journal.db, in a copy, and compare row by row.": (
        "在副本中按 journal.db 的记录重建每张状态表，并逐行比较。\n\n"
        "网关可以继续运行。不加 --write 时什么都不改动。\n\n"
        "退出码 0：全部一致，或已修复；1：有不一致，或文件无法读取；2：用法错误。"
    ),
    "Change nothing, say what differs [the default].": "不改动，只列出不一致 [默认]",
    "Put right what differs; the gateway must be stopped.": "修复不一致；网关必须先停止",
    "Folder for the temporary copy.": "临时副本所在文件夹",
    "Try other limits on recorded readings.": "阈值试算：用已记录的读数试新限值",
    "Run recorded readings through changed alarm rules: what would have alarmed, beside what did.": (
        "阈值试算：把已记录的读数送入改动后的报警规则，列出会出现的报警，并与实际发生的对比。\n\n"
        "只读：site.toml 和存储都不改动，网关可以继续运行。限值用 --set 改，例如\n\n"
        '  sitewarden replay --last 7d --set "aux_store.th1.humidity.hi=75"\n\n'
        "没有人在重放中确认报警：假定每个必需角色都在 --ack-after 秒后确认。\n\n"
        "退出码 0：已试算；1：改动不成立，或没有读数；2：用法错误；130：Ctrl-C。"
    ),
    "Folder of the gateway's stores, or of the demo [default: $STATE_DIRECTORY].": (
        "网关的存储文件夹，或演示的文件夹 [默认：$STATE_DIRECTORY]"
    ),
    "site.toml [default: beside the data, else /etc/sitewarden].": "site.toml [默认：数据旁边，否则 /etc/sitewarden]",
    "Begin here [default: the oldest reading].": "开始时间 [默认：最早的读数]",
    "End here [default: the newest].": "结束时间 [默认：最新]",
    "So long before the end: 90m, 24h, 7d.": "结束前多长时间：90m、24h、7d",
    "Only this point, device or area; may be given again.": "只看该测点、设备或区域；可重复",
    "Change a rule: aux_store.th1.humidity.hi=75; may be given again.": (
        "改一条规则：aux_store.th1.humidity.hi=75；可重复"
    ),
    "Compare with what happened, or with the unchanged rules.": "与实际发生的（journal）或与现行规则（rules）对比",
    "Seconds until all acknowledge.": "多少秒后全部确认",
    "Write every occurrence to this file.": "把每一次报警写入该文件",
    # history
    "Write recorded readings as CSV or Parquet.": "把历史读数写成 CSV 或 Parquet",
    ("Write what was measured: every reading, or with --bucket the lowest, mean, highest and last of so long each."): (
        "写出测量值：每个读数；或用 --bucket 写每段时间的最小、平均、最大和最后值。\n\n"
        "只读，网关可以继续运行；网关内存里的读数（最多 flush_s）还不在其中。没有时差的时间按现场时区。"
        "分段值比单个读数保存得久：分钟值数月，小时值十年。\n\n"
        "退出码 0：已写出；1：没有历史、没有该测点，或没有安装 Parquet；2：用法错误。"
    ),
    "This point; may be given again.": "测点；可重复",
    "Min, mean, max, last of so long each: 1m, 15m, 1h, 1d.": "每段时间的最小、平均、最大、最后值：1m、15m、1h、1d",
    "Form.": "格式",
    "Write to this file [default: standard output].": "写入该文件 [默认：标准输出]",
    "Print the public key of this gateway; makes the key pair on first use.": (
        "打印本网关的公钥；首次使用时生成密钥对。"
    ),
    "PINs of the people who sign in.": "登录人员的 PIN",
    "Set somebody's PIN.": "设置某人的 PIN",
    "Set the PIN (4 to 12 digits) of a person of people.csv; ends that person's sessions.": (
        "设置 people.csv 中某人的 PIN（4 至 12 位数字），并结束其登录。\n\n不给 --people 时不检查此人是否存在。"
    ),
    "secrets.db in the data folder of edge or cloud.": "网关或云端数据文件夹中的 secrets.db",
    "people.csv; refuses a person who is not in it.": "people.csv；其中没有的人会被拒绝",
    "Read the PIN from standard input instead of asking.": "从标准输入读取 PIN，不提问",
    # demo, plant, receiver
    "Start a whole simulated plant here, or disturb it.": "在本机启动模拟工厂，或给它制造异常",
    "Start a whole plant on this machine; with --humid, --dry, --kill, --late or --ok: disturb the running one.": (
        "在本机启动一整座工厂；加 --humid、--dry、--kill、--late 或 --ok 时，对运行中的演示制造异常。\n\n"
        "配置文件写入演示文件夹后即保留：改过的文件不会被覆盖。"
    ),
    "Folder of the demo.": "演示的文件夹",
    "Take free ports everywhere.": "全部使用空闲端口",
    "Write the configuration anew; an edited file is kept beside as *.edited.": (
        "重新写出配置；改过的文件另存为 *.edited"
    ),
    "Which MQTT broker to start.": "启动哪个 MQTT 服务器",
    "Push the store's humidity to so many %RH (82).": "把助剂库湿度推到该值，%RH（82）",
    "Release the humidity.": "恢复湿度",
    "A device stops answering.": "某设备停止应答",
    "A device answers late.": "某设备应答变慢",
    "A device works again.": "某设备恢复正常",
    "Run only the simulated plant.": "只运行模拟工厂",
    "Run only the simulated plant: Modbus TCP, Modbus RTU on a pseudo-terminal, MQTT, and its control page.": (
        "只运行模拟工厂：Modbus TCP、伪终端上的 Modbus RTU、MQTT 及其控制页面。"
    ),
    "JSON file with the options (ports, serial link, broker).": "选项的 JSON 文件（端口、串口链接、MQTT 服务器）",
    "Run a chat robot's endpoint that shows its messages.": "运行群机器人接收端并显示消息",
    "Run a chat robot's endpoint that shows what it was sent.": "运行群机器人接收端，显示收到的消息。",
    "Address to listen on.": "监听地址",
    "Port; 0: a free one.": "端口；0 为任一空闲端口",
    # probe
    "Look at Modbus wires: scan, read, watch, plan.": "查看 Modbus 线路：扫描、读取、观察、规划",
    "Look at Modbus wires: scan, identify, read, watch; through the running gateway or alone.": (
        "查看 Modbus 线路：扫描、识别、读取、观察；通过运行中的网关，或独占打开。只读不写。\n\n"
        "sitewarden probe --plan --config site.toml 打印寄存器如何合并成请求。"
    ),
    "Print which requests a site makes, and what they cost.": "打印一个厂的请求及其占用的线时",
    "Print how registers are grouped into requests, and what they cost the wire.": (
        "打印寄存器如何合并成请求，以及占用多少线时。"
    ),
    "site.toml.": "site.toml",
    "Only this device.": "只看这台设备",
    "Find the units of a wire, and write lines for site.toml.": "找出线上的站号，生成 site.toml 内容",
    "Find the units of a wire, say what each may be, and write the lines for site.toml.": (
        "找出线上的站号，判断各是什么设备，并写出 site.toml 的内容。\n\n不指明线路时列出本机串口。"
    ),
    "Modbus TCP; port 502.": "Modbus TCP；端口 502",
    "RTU frames through a transparent converter.": "经透明转换器的 RTU 帧",
    "RTU on a serial port, best /dev/serial/by-id/...": "串口 RTU，最好用 /dev/serial/by-id/...",
    "A bus of the running gateway, or of --config.": "运行中网关的总线，或 --config 中的总线",
    "site.toml: has --bus, and what there is already.": "site.toml：含有 --bus 及已有的设备",
    "Folder of the running gateway, or of the demo.": "运行中的网关或演示的文件夹",
    "Such as 1-247 [default: 1-20 and factory addresses].": "例如 1-247 [默认：1-20 和出厂站号]",
    "Such as 9600,4800.": "例如 9600,4800",
    "Such as N,E.": "例如 N,E",
    "Wait so many ms for a reply.": "等待应答的毫秒数",
    "Area of the devices in the lines for site.toml.": "site.toml 内容中设备的区域",
    "Write the lines for site.toml to a new file.": "把 site.toml 的内容写入新文件",
    "Read registers once, in every interpretation.": "读一次寄存器，列出各种解释",
    "Read registers once and print them in every interpretation, side by side.": ("读一次寄存器，并列打印各种解释。"),
    "Unit id.": "站号",
    "Holding register, as sent: from 0, or 0x...": "保持寄存器，按发送的地址：从 0 起，或 0x...",
    "Input register.": "输入寄存器",
    "Coil.": "线圈",
    "Discrete input.": "离散输入",
    "As manuals number them: 40003 is holding 2.": "手册编号：40003 即保持寄存器 2",
    "How many.": "个数",
    "Of --serial [default: 9600].": "用于 --serial [默认：9600]",
    "Of --serial [default: N].": "用于 --serial [默认：N]",
    "Of --serial [default: 1].": "用于 --serial [默认：1]",
    "Read again and again: values, reply times, errors.": "反复读取：数值、应答时间、错误",
    "Read again and again: value, reply times, errors; at the end what site.toml should say about waiting.": (
        "反复读取：数值、应答时间、错误；结束时给出 site.toml 中等待时间的建议。"
    ),
    "Watch the values of this profile instead of an address.": "按该型号的测点观察，不用地址",
    "u16, i16, u32, i32, f32 ... [default: raw words].": "u16、i16、u32、i32、f32 ... [默认：原始字]",
    "big, little, big_swapped ...": "字序：big、little、big_swapped ...",
    "Seconds from look to look.": "每次间隔的秒数",
    "End after so many looks.": "读取多少次后结束",
    "End after so many seconds.": "多少秒后结束",
    "Wait up to 5 s: measures how late replies come.": "最多等 5 秒：测量应答最晚多久到达",
    "A new line for each look.": "每次一行",
    # tls
    "Certificates of the pages: show, make, install.": "页面的证书：查看、生成、安装",
    "The certificates that the gateway's pages are served with. A running gateway takes them up within seconds.": (
        "网关页面使用的证书。运行中的网关几秒内自动启用新证书。"
    ),
    "Show what there is, and how long it is good.": "查看有哪些证书、有效期多久",
    "Show the local CA, its leaf and the installed chain; changes nothing.": (
        "查看本地 CA、本地证书和已安装的证书链；不改动任何内容。\n\n"
        "退出码 0：有可用证书；1：还没有或已损坏；2：用法错误。"
    ),
    "Make the local CA and its leaf, where they are missing.": "生成本地 CA 和证书（缺什么生成什么）",
    "Another CA: it must be installed on every phone again.": "换新 CA：每部手机都要重新安装",
    "Make a CA that can sign for this gateway's name and addresses alone, and a leaf; keeps what is there.": (
        "生成只能为本网关名称和地址签名的 CA 和一张证书；已有的保留。\n\n退出码 0：都有了；1：无法生成；2：用法错误。"
    ),
    "Make another leaf now.": "现在换一张本地证书",
    "Make another leaf of the same CA; the gateway does so by itself when a third of its life is left.": (
        "用同一个 CA 换一张证书；剩余三分之一有效期时网关会自动更换。\n\n退出码 0：已生成；1：没有生成；2：用法错误。"
    ),
    "Install a public chain.": "安装公共证书链",
    "Check CHAIN, leaf first, and KEY, and serve the pages with them. Without KEY: that of `tls csr`.": (
        "检查 CHAIN（服务器证书在前）和 KEY，页面改用它们。不给 KEY 时用 tls csr 的密钥。\n\n"
        "退出码 0：已安装；1：不能用；2：用法错误。"
    ),
    "Print a signing request for a public certificate.": "打印公共证书的申请（CSR）",
    "Print a request for the gateway's name; its key stays in the data folder, for `tls install`.": (
        "打印本网关名称的证书申请；密钥留在数据文件夹，供 tls install 使用。\n\n"
        "退出码 0：已打印；1：没有；2：用法错误。"
    ),
    "Write it here [default: standard output].": "写入此文件 [默认：标准输出]",
    "Write the A4 sheet with QR codes and fingerprint.": "生成带二维码和指纹的 A4 张贴页",
    "Write a page (HTML, for a browser's printer) with QR codes and the CA's fingerprint, to post at the gateway.": (
        "生成带二维码和 CA 指纹的页面（HTML，用浏览器打印），张贴在网关旁。\n\n"
        "退出码 0：已写出；1：没有本地 CA；2：用法错误。"
    ),
}
