"""What the demo says while it starts and runs, in Chinese and English; the box has both."""

from __future__ import annotations

from ..console.language import Say, Words, spoken, translator
from ..console.words import WORDS as COMMON

WORDS: Words = {
    "configured": ("本机配置在 {0}", "configuration for this machine in {0}"),
    "file_renewed": ("{0}：已更新，因为示例改动了", "{0}: renewed, because the example was changed"),
    "file_kept": ("{0}：您改过，保持不变", "{0}: kept as you edited it"),
    "file_kept_old": (
        "{0}：您改过，保持不变；示例此后也改动了：可与 {1} 比较，或用 --fresh 重新写出",
        "{0}: kept as you edited it; the example was changed since: compare {1}, or start anew with --fresh",
    ),
    "file_fresh": ("{0}：已重新写出；您改过的文件在 {1}", "{0}: written anew; the one that you edited is {1}"),
    "pins": ("已设置 {0} 人的 PIN", "PINs for {0} people"),
    "runs": ("{0} 已运行（进程 {1}）", "{0} runs (process {1})"),
    "ended_with": ("已结束，退出码 {0}", "ended with code {0}"),
    "killed_by": ("被 {0} 终止", "was killed by {0}"),
    "ended_starting": ("{0} 启动时{1}", "{0} {1} while starting"),
    "silent_after": ("{0} 在 {1} 秒后仍无应答", "{0} does not answer after {1} s"),
    "end_of": ("{0} 的末尾：", "the end of {0}:"),
    "empty": ("（空）", "(empty)"),
    "again": ("{0} {1}；{2} 秒后重新启动（见 {3}）", "{0} {1}; starting it again in {2} s (see {3})"),
    "cannot_start": ("{0} 无法启动：{1}", "{0} cannot be started: {1}"),
    "was_killed": ("{0} 未在 {1} 秒内停止，已被终止", "{0} did not stop within {1} s and was killed"),
    "stopping": ("正在停止 …", "stopping …"),
    "all_stopped": ("已停止", "stopped"),
    "already": ("{0} 中已有演示在运行", "a demo already runs in {0}"),
    "already_hint": (
        "在它的终端按 Ctrl-C 停止，或用 --data 另选文件夹",
        "stop it with Ctrl-C in its terminal, or choose another folder with --data",
    ),
    "mend_or_fresh": (
        "请改正该文件，或用 sitewarden demo --fresh 重新写出",
        "mend the file, or start with a new one: sitewarden demo --fresh",
    ),
    "not_started": ("{0} 中没有启动过演示", "no demo was started in {0}"),
    "is_stopped": ("{0} 中的演示已停止", "the demo in {0} is stopped"),
    "start_hint": (
        "用 sitewarden demo 启动，或用 --data 指明其文件夹",
        "start it with `sitewarden demo`, or name its folder with --data",
    ),
    "plant_silent": ("模拟工厂没有应答（{0}）：{1}", "the simulated plant does not answer at {0}: {1}"),
    "plant_silent_hint": ("演示还在运行吗？", "is the demo still running?"),
    "no_device": ("没有设备 {0}", "no device {0}"),
    "devices_here": ("现有：{0}", "one of {0}"),
    "held": ("{0} 保持在 {1} %RH", "{0} is held at {1} %RH"),
    "released": ("{0} 已恢复", "{0} is released"),
    "mode_ok": ("{0} 恢复正常", "{0} is ok"),
    "mode_late": ("{0} 应答变慢", "{0} is late"),
    "mode_dead": ("{0} 停止应答", "{0} is dead"),
}
ALL: Words = {**COMMON, **WORDS}


def phrases() -> Say:
    """In the language of the command that runs."""
    return translator(spoken(), ALL)
