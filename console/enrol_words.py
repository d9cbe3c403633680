"""What `sitewarden enrol`, `key` and `cloud gateways` say, in Chinese and English."""

from __future__ import annotations

from .language import Words

ENROL: Words = {
    "enrol_tell": (
        "请把以下内容告诉总部操作员（电话或当面）：\n  网关  {0}\n  认领码  {1}\n  指纹  {2}",
        "Tell headquarters' operator, by telephone or in person:\n  gateway {0}\n  claim code {1}\n  fingerprint {2}",
    ),
    "enrol_waits": ("等待总部批准 … 还有 {0}", "waiting for headquarters … {0} left"),
    "enrol_known": ("总部已认识本网关（密钥 {0}）", "headquarters knows this gateway already (key {0})"),
    "enrol_approved": (
        "总部已批准本网关。从现在起信任的总部公钥：\n  {0}",
        "Headquarters has approved this gateway. Its key, believed from now on:\n  {0}",
    ),
    "enrol_refused": ("总部拒绝了本网关", "headquarters has refused this gateway"),
    "enrol_refused_hint": ("请联系总部操作员", "talk to its operator"),
    "enrol_dropped": ("认领码被输错 5 次，申请已作废", "five wrong codes were typed: the request was dropped"),
    "enrol_again_hint": ("再运行一次，会有新的认领码", "run it again for another code"),
    "enrol_expired": ("认领码已过期，换一个新的：", "the code has expired; here is another one:"),
    "enrol_revoked": ("总部已吊销本网关的密钥", "headquarters has revoked this gateway's key"),
    "enrol_revoked_hint": (
        "先问总部；确认后停止网关，运行 sitewarden enrol --new-key",
        "ask headquarters first; then stop the gateway and run: sitewarden enrol --new-key",
    ),
    "enrol_new_key": ("已换新密钥；旧密钥保存在 {0}", "there is a new key; the old one is kept in {0}"),
    "enrol_no_cloud": (
        "site.toml 没有写总部地址（[cloud] url）",
        "site.toml names no headquarters ([cloud] url)",
    ),
    "enrol_no_cloud_hint": (
        "用 --cloud 指明，或用 --file 走 U 盘",
        "name it with --cloud, or use --file and a USB stick",
    ),
    "enrol_no_gateway": (
        "不知道本网关叫什么：请用 --config 指明 site.toml，或用 --gateway",
        "what is this gateway called? Name its site.toml with --config, or use --gateway",
    ),
    "enrol_file": (
        "已写入 {0}。文件和认领码请分开送到总部",
        "{0} is written. Take it to headquarters, and tell the code apart from it",
    ),
    "enrol_no_claim": (
        "本网关没有等待答复的文件申请",
        "no request of this gateway by file waits for an answer",
    ),
    "enrol_no_claim_hint": ("先运行 sitewarden enrol --file", "first: sitewarden enrol --file"),
    "not_json": ("{0}：不是这种文件", "{0}: is no such file"),
    # the key
    "key_turned": (
        "从现在起用新密钥 {0} 签名；旧密钥在总部还有 7 天有效",
        "the key {0} signs from now on; the old one is good at headquarters for seven days more",
    ),
    "key_waits": (
        "新密钥已准备好，总部知道以后自动换用{0}",
        "the new key is there, and follows by itself once headquarters has heard of it{0}",
    ),
    # headquarters
    "gateways_none": ("还没有网关", "no gateway is known yet"),
    "gateways_pending": ("等待批准：", "Waiting for approval:"),
    "gateway_pending": (
        "  {0}  {1}  指纹 {2}  来自 {3}  {4}  编号 {5}",
        "  {0}  {1}  fingerprint {2}  from {3}  {4}  id {5}",
    ),
    "gateway_no_key": ("  （没有密钥）", "  (no key)"),
    "key_active": ("有效", "active"),
    "key_ending": ("有效至 {0}", "good until {0}"),
    "key_ended": ("已结束 {0}", "ended {0}"),
    "key_revoked": ("已吊销 {0}（{1}：{2}）", "revoked {0} ({1}: {2})"),
    "source_config": ("cloud.toml", "cloud.toml"),
    "source_enrolled": ("认领码", "claim code"),
    "source_rotated": ("由旧密钥引入", "introduced by the old key"),
    "gateway_approved": (
        "已批准网关 {0}，密钥 {1}，指纹 {2}",
        "gateway {0} is approved: key {1}, fingerprint {2}",
    ),
    "answer_written": ("答复已写入 {0}，请带回网关", "the answer is in {0}: take it back to the gateway"),
    "gateway_refused": ("已拒绝", "refused"),
    "gateway_revoked": (
        "网关 {0}：已吊销密钥 {1}。立即生效",
        "gateway {0}: key {1} is revoked, from this moment on",
    ),
    "really_revoke": (
        "吊销后网关 {0} 立即不能上传，须重新认领。确定吗？",
        "Gateway {0} can send nothing from then on, and must be enrolled anew. Really?",
    ),
    "no_cloud_runs": ("{0}：云端服务没有运行", "{0}: no cloud service runs there"),
    "no_cloud_runs_hint": (
        "启动它，或用 --data 指明它的数据文件夹",
        "start it, or name its data folder with --data",
    ),
    "enrol_reason_no_code": (
        "认领码是 8 个字母和数字（文件为 12 个）",
        "a claim code has 8 letters and digits, 12 with a file",
    ),
    "enrol_reason_wrong_code": ("认领码不对", "that is not the code which this gateway shows"),
    "enrol_reason_request_ended": ("申请已结束，请让网关重新申请", "the request has ended: have the gateway ask again"),
    "enrol_reason_no_such_request": (
        "这个网关没有申请认领（认领码 15 分钟有效）",
        "this gateway does not ask to be enrolled (a code is good for 15 minutes)",
    ),
    "enrol_reason_several": (
        "有几台机器用同一个名字申请，请用 --request 指明",
        "several machines ask as this one: use --request",
    ),
    "enrol_reason_already_enrolled": (
        "这个网关已有有效密钥；若确是换机，请加 --replace",
        "this gateway has a key already; if this machine takes its place, add --replace",
    ),
}
