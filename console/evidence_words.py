"""What `sitewarden verify` and `sitewarden journal` say, in Chinese and English."""

from __future__ import annotations

from .language import Words

EVIDENCE: Words = {
    # verify
    "deed_altered": (
        "第 {0} 条记录被改动（或第 {2} 条连同其链值被改动）",
        "record {0} was altered (or record {2} together with its chain value)",
    ),
    "deed_removed": ("第 {0} 条记录缺失：{1} 条被删除", "record {0} is missing: {1} removed"),
    "deed_inserted": ("第 {0} 条记录是插入的：{1} 条被插入", "record {0} does not belong here: {1} inserted"),
    "deed_reordered": (
        "第 {0} 条记录不在原位：记录被调换了顺序",
        "record {0} is not in its place: records were reordered",
    ),
    "deed_renamed": (
        "第 {0} 条记录属于另一个纪元：文件自称的网关或纪元被改动",
        "record {0} is of another epoch: what the file says of its gateway or epoch was altered",
    ),
    "trace": (
        "末尾缺失：留痕到第 {0} 条为止，但另一张表知道后面的记录（{1}）",
        "the end is missing after record {0}: {1}",
    ),
    "rewritten": (
        "第 {0} 至 {1} 条记录中有改动、删除、插入或调换，链已重新计算：与{2}不符",
        (
            "of records {0} to {1} some were altered, removed, inserted or reordered, and the chain computed again:"
            " {2} says otherwise"
        ),
    ),
    "truncated": (
        "末尾被删：留痕到第 {0} 条为止，但{2}有 {1} 条",
        "the end was removed: the journal ends at {0}, but {2} has {1} records",
    ),
    "forgotten": (
        "较早的纪元不完整：它在此文件中到第 {0} 条为止，但{2}有 {1} 条：此文件曾恢复到较早状态，或末尾被删",
        (
            "an earlier epoch is not whole: it ends at {0} here, but {2} has its records up to {1}: the file was put"
            " back to an earlier state, or the end was removed"
        ),
    ),
    "epochs": ("{0} 个纪元，记录编号连续：", "{0} epochs, records are numbered through:"),
    "by_gateway": ("网关签名的检查点", "a checkpoint that the gateway signed"),
    "by_witness": ("总部于 {0} 会签的检查点", "a checkpoint that headquarters countersigned at {0}"),
    "evidence_note": ("{0} 条记录的检查点无法读取：{1}", "the checkpoint of {0} records cannot be read: {1}"),
    "evidence_signature": (
        "{0} 条记录的检查点签名不正确：{1}",
        "the checkpoint of {0} records is not signed as it must be: {1}",
    ),
    "evidence_foreign": ("检查点属于 {0}，不是 {1}", "a checkpoint is of {0}, not of {1}"),
    "evidence_unwitnessed": (
        "没有任何检查点由给定的总部密钥会签",
        "no checkpoint is countersigned by the given key of headquarters",
    ),
    "witnessed": (
        "{0} 个检查点正确；到第 {1} 条为止由总部于 {2} 会签；之后的 {3} 条尚未会签，其改动无法由密码学发现",
        (
            "{0} checkpoints fit; headquarters countersigned up to record {1} at {2}; the {3} after it are not"
            " witnessed: no cryptography can show a change of those"
        ),
    ),
    "signed_only": (
        "{0} 个检查点正确，网关签名到第 {1} 条；总部尚未会签：持有网关密钥的人可以改写",
        (
            "{0} checkpoints fit, signed by the gateway up to record {1}; none is countersigned: whoever has the"
            " gateway's key could have written them anew"
        ),
    ),
    "no_checkpoints": ("没有检查点", "there are no checkpoints"),
    "own_keys": (
        "密钥取自文件本身：能改写文件的人也能换掉它们；请用 --gateway-key 和 --witness-key 给出",
        (
            "keys of the file itself were used: whoever could write the file could change them; give --gateway-key and"
            " --witness-key"
        ),
    ),
    "gaps": ("网关自己声明的缺口和疑点：{0}", "gaps and doubts that the gateway declared itself: {0}"),
    "no_gaps": ("网关没有声明缺口", "no gap was declared"),
    "backdated": (
        "第 {0} 条自称时间 {1}，却排在第 {2} 条（已会签，{3}）之后",
        "record {0} claims the time {1}, but follows record {2}, which is witnessed and of {3}",
    ),
    "and_more": ("还有 {0} 条", "and {0} more"),
    # journal rebuild
    "table_equal": ("{0}：一致，{1} 行", "{0}: the same, {1} rows"),
    "table_missing": ("{0}：文件中没有此表，或结构不同", "{0}: the file has no such table, or one of another shape"),
    "table_differs": (
        "{0}：不一致，应有 {1} 行，{2} 行不同",
        "{0}: DIFFERS, should have {1} rows, {2} are not the same",
    ),
    "row_stands": ("文件中：{0}", "in the file: {0}"),
    "row_follows": ("按记录：{0}", "from the records: {0}"),
    "tables_equal": ("{0}：全部 {1} 张表与记录一致", "{0}: all {1} tables follow from the records"),
    "tables_differ": (
        "{0}：{1} 个模块的表与记录不一致；未做任何改动。停止网关后加 --write 修复",
        (
            "{0}: tables of {1} modules do not follow from the records; nothing was changed. Stop the gateway, then use"
            " --write"
        ),
    ),
    "tables_written": (
        "{0}：已按记录重建 {1} 个模块的表",
        "{0}: tables of {1} modules were made again from the records",
    ),
    "not_whole": ("{0}：链不正确，不据此重建", "{0}: the chain is not good, nothing is rebuilt from it"),
    "still_runs": ("{0}：网关在运行", "{0}: a gateway runs"),
    "still_runs_hint": ("先停止它", "stop it first"),
}
