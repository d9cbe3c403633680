"""What is said of an alarm, in Chinese and in English. Pure.

A sentence says how urgent it is, what and where, how much, since when, and what to do: whoever hears the first second
knows whether to run.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from ....words import utc_from_text
from ..opened import Open
from . import numbers


class Lang(enum.StrEnum):
    """The languages that are spoken."""

    ZH = "zh"
    EN = "en"


class Saying(enum.StrEnum):
    """What there is to say of an alarm."""

    ALARM = "alarm"
    RETURNED = "returned"


Sentence = Mapping[Lang, str]

_LONGEST = 300  # characters of a text: a minute and a half
LIMITS = ("hihi", "hi", "lo", "lolo")
_RANK = {1: "一级报警", 2: "二级报警", 3: "三级报警", 4: "四级报警"}
_RANK_EN = {1: "Emergency alarm", 2: "Priority two alarm", 3: "Priority three alarm", 4: "Priority four alarm"}
_KIND = {"hihi": "超过上上限", "hi": "超过上限", "lo": "低于下限", "lolo": "低于下下限"}
_KIND_EN = {
    "hihi": "above the high high limit",
    "hi": "above the high limit",
    "lo": "below the low limit",
    "lolo": "below the low low limit",
}
_VALUE = {"roc": "每分钟变化{}", "deviation": "偏差{}", "discrete": "状态{}"}
_VALUE_EN = {"roc": "Changing by {} per minute", "deviation": "Off by {}", "discrete": "State {}"}
TEST: Sentence = {
    Lang.ZH: "测试，测试。这是语音报警测试，没有发生报警。",
    Lang.EN: "Test, test. This is a test of the spoken alarms. There is no alarm.",
}


def saying_of(alarm: Open) -> Saying:
    """Which of the two the alarm is about now."""
    return Saying.ALARM if alarm.active else Saying.RETURNED


def sentence(alarm: Open, timezone: str) -> Sentence:
    """What is said of an alarm in its present state, in every language."""
    if saying_of(alarm) is Saying.RETURNED:
        return {Lang.ZH: _returned(alarm), Lang.EN: _returned_en(alarm)}
    return {Lang.ZH: _alarm(alarm, timezone), Lang.EN: _alarm_en(alarm, timezone)}


def more(count: int) -> Sentence:
    """There are more alarms than anybody can listen to."""
    return {
        Lang.ZH: f"另有{numbers.whole(count)}条报警，请看屏幕。",
        Lang.EN: f"{count} more alarm{'' if count == 1 else 's'}. Look at the screen.",
    }


def said(text: str) -> Sentence:
    """A text that somebody else has composed. What is not in English is not read by the English voice."""
    text = text[:_LONGEST]
    return {Lang.ZH: numbers.spelled(text), Lang.EN: text if text.isascii() else "A new message. Look at the screen."}


def _alarm(alarm: Open, timezone: str) -> str:
    value = "" if alarm.value is None else numbers.measured(alarm.value, alarm.unit)
    limit = "" if alarm.limit is None else numbers.measured(alarm.limit, alarm.unit)
    is_limit = alarm.kind in LIMITS
    parts = [
        "系统故障" if alarm.is_system else _RANK.get(alarm.priority, "报警"),
        numbers.spelled(alarm.name) + _KIND.get(alarm.kind, ""),
        value and _VALUE.get(alarm.kind, "现为{}").format(value),
        limit and is_limit and f"限值{limit}",
    ]
    told = "，".join(part for part in parts if part) + "。"
    if moment := _local(alarm, timezone):
        told += f"{numbers.clock(moment.hour, moment.minute)}发生。"
    return told + ("请立即处理并确认。" if alarm.priority == 1 else "请处理并确认。")


def _alarm_en(alarm: Open, timezone: str) -> str:
    value = "" if alarm.value is None else numbers.measured_en(alarm.value, alarm.unit)
    limit = "" if alarm.limit is None else numbers.measured_en(alarm.limit, alarm.unit)
    parts = [
        "System fault" if alarm.is_system else _RANK_EN.get(alarm.priority, "Alarm"),
        f"{alarm.name_en} {_KIND_EN.get(alarm.kind, '')}".strip(),
        value and _VALUE_EN.get(alarm.kind, "{}").format(value),
        f"The limit is {limit}" if limit and alarm.kind in LIMITS else "",
    ]
    told = ". ".join(part for part in parts if part) + "."
    if moment := _local(alarm, timezone):
        told += f" Since {moment.hour}:{moment.minute:02d}."
    return told + (" Act now, and acknowledge." if alarm.priority == 1 else " Please act and acknowledge.")


def _returned(alarm: Open) -> str:
    return f"{numbers.spelled(alarm.name)}，已恢复正常" + ("。" if alarm.acked else "，尚未确认，请确认。")


def _returned_en(alarm: Open) -> str:
    told = f"{alarm.name_en}: back to normal"
    return f"{told}." if alarm.acked else f"{told}, not acknowledged yet. Please acknowledge."


def _local(alarm: Open, timezone: str) -> datetime | None:
    if not alarm.raised_at:
        return None
    return datetime.fromtimestamp(utc_from_text(alarm.raised_at) / 1000, UTC).astimezone(ZoneInfo(timezone))
