"""What `sitewarden bundle` says, in Chinese and English."""

from __future__ import annotations

from .language import Words

BUNDLE: Words = {
    "stream_journal": ("留痕", "journal"),
    "stream_history": ("历史", "history"),
    "stream_blobs": ("证据", "evidence"),
    "bundle_written": (
        "{0}：已写入：留痕 {1} 批，历史 {2} 段，证据 {3} 件，{4} MiB。请带到总部导入",
        "{0}: written: {1} journal batches, {2} history segments, {3} pieces of evidence, {4} MiB: for headquarters",
    ),
    "bundle_rest": (
        "没有全部装下：回执导入之后再导出一次，会接着写余下的",
        "not everything fitted: export again after the answer was imported, and the rest comes",
    ),
    "bundle_no_room": (
        "一批也装不下，没有写文件：U 盘空间或 --max-bytes 太小",
        "not one batch fits, so no file was written: the stick, or --max-bytes, is too small",
    ),
    "bundle_blobs_taken": ("证据：新 {0} 件，已有 {1} 件，未收 {2} 件", "evidence: {0} new, {1} known, {2} not taken"),
    "bundle_blobs_arrived": (
        "证据：总部已收到 {0} 件，还有 {1} 件待送",
        "evidence: {0} pieces are at headquarters, {1} are still to be taken there",
    ),
    "bundle_blobs_run": ("  证据：{0} 件，{1} MiB", "  evidence: {0} pieces, {1} MiB"),
    "bundle_config_trial": ("配置：第 {0} 版已生效，试运行中", "configuration: revision {0} is in force, on trial"),
    "bundle_config_confirmed": ("配置：第 {0} 版已生效", "configuration: revision {0} is in force"),
    "bundle_config_known": ("配置：第 {0} 版早已收到", "configuration: revision {0} was here already"),
    "bundle_config_refused": ("配置：第 {0} 版没有采用", "configuration: revision {0} was not taken"),
    "bundle_config_rolled_back": ("配置：第 {0} 版已撤回", "configuration: revision {0} was taken back"),
    "bundle_config_not_running": (
        "配置：回执带有第 {0} 版，但网关没有运行，尚未生效。网关运行后请再导入一次这份回执",
        "configuration: the answer brings revision {0}: import it again when the gateway runs, which then tries it",
    ),
    "bundle_nothing": ("总部都有了，没有写文件", "headquarters has everything: no file was written"),
    "bundle_bytes": ("已写 {0} MiB", "{0} MiB written"),
    "bundle_progress": ("已处理 {0} / {1} 批", "{0} of {1} batches"),
    "bundle_acked": (
        "{0}：总部已收到第 {1} 批为止，第 {2} 批为止已保全",
        "{0}: headquarters has batches up to {1}, safe up to {2}",
    ),
    "bundle_answer_empty": (
        "这份回执不涉及本网关现在的数据：总部还没有导入过",
        "this answer says nothing of this gateway's present stores: nothing of them was imported yet",
    ),
    "bundle_answer": ("回执：{0}。请带回网关导入", "the answer: {0}. Take it back to the gateway, and import it there"),
    "bundle_taken": (
        "{0}：新 {1} 批，已有 {2} 批，现在到第 {3} 批",
        "{0}: {1} new batches, {2} known ones, now up to {3}",
    ),
    "bundle_quarantined": ("，其中 {0} 批内容有问题已隔离", ", {0} of them unusable and set aside"),
    "bundle_batches": ("网关 {0} 的数据，{1} 生成，密钥 {2}", "batches of gateway {0}, made {1}, key {2}"),
    "bundle_answer_kind": ("给网关 {0} 的回执，{1} 生成，密钥 {2}", "answer for gateway {0}, made {1}, key {2}"),
    "bundle_run": ("  {0}，纪元 {1}：第 {2} 到 {3} 批", "  {0}, epoch {1}: batches {2} to {3}"),
    "bundle_whole": ("完整，签名正确", "whole, and signed by this key"),
    "bundle_whole_unknown": ("完整；没有核对签名人（--key）", "whole; nobody looked who signed it (--key)"),
    "bundle_seal_key": ("加密用的密钥（bundle export --seal）：{0}", "key to seal for (bundle export --seal): {0}"),
    "bundle_socket_hint": (
        "服务在运行吗？--data 是它的数据文件夹吗？当前用户有权限吗？",
        "does the service run, is --data its folder, and may this user use it?",
    ),
    "bundle_sealed_hint": ("只有总部能打开：在那里导入", "headquarters alone can open it: import it there"),
    "bundle_key_running": (
        "网关在运行：它按 site.toml 的 [cloud] public_key 核对，不要给 --key",
        "the gateway runs, and checks by public_key of [cloud] in its site.toml: leave --key out",
    ),
    "bundle_key_missing": (
        "网关没有运行：请用 --key 给出总部的公钥（在总部运行 sitewarden bundle key）",
        "no gateway runs: name headquarters' key with --key (`sitewarden bundle key` shows it there)",
    ),
    "bundle_refused_damaged": (
        "文件已损坏或不是数据包：请重新复制",
        "the file is damaged, or no bundle: copy it again",
    ),
    "bundle_refused_wrong_key": (
        "签名的密钥不被信任：网关核对 site.toml [cloud] 的 public_key，总部核对登记的网关公钥",
        "signed by a key that is not trusted here: gateways look at public_key of [cloud] in site.toml",
    ),
    "bundle_refused_bad_signature": ("签名不对：文件被改过", "the signature does not fit: the file was altered"),
    "bundle_refused_old_answer": ("已导入过更新的回执", "an answer that was made later was taken already"),
    "bundle_refused_other_gateway": ("这份回执是给另一个网关的", "this answer is for another gateway"),
    "bundle_refused_not_an_answer": ("这是带到总部的文件，不是回执", "this file goes to headquarters: it is no answer"),
    "bundle_refused_not_for_here": ("这是给网关的回执：请在网关上导入", "this is an answer: import it at its gateway"),
    "bundle_refused_unknown_gateway": (
        "总部不认识这个网关：请先登记",
        "headquarters does not know this gateway: enrol it",
    ),
    "bundle_refused_fork": (
        "回执与本网关的数据不符：数据被恢复或克隆过",
        "the answer does not fit this gateway's data: it was restored or cloned",
    ),
    "bundle_refused_not_kept": ("要导出的数据已不在本机", "what should be exported is not kept here any more"),
}
