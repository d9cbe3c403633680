"""What a channel sends: one text that fits a robot and an SMS, and the alarm for machines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VERB = {"alarm.raised": "报警", "alarm.reraised": "报警升级", "alarm.reopened": "再次报警"}
_KIND = {
    "hihi": "超过上上限",
    "hi": "超过上限",
    "lo": "低于下限",
    "lolo": "低于下下限",
    "stale": "无数据",
    "quality": "读数异常",
}
_KIND_EN = {
    "hihi": "above the high-high limit",
    "hi": "above the high limit",
    "lo": "below the low limit",
    "lolo": "below the low-low limit",
    "stale": "no data",
    "quality": "bad readings",
}
_ROLE = {"keeper": "仓管员", "officer": "安全员", "control_room": "中控", "vice_president": "副总"}


def compose(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON message of one delivery.

    Args:
        facts: key, seq, person, role, resent, kind and alarm of an outbox row.
    """
    alarm = facts["alarm"]
    return {
        "key": facts["key"],
        "msgtype": "text",
        "text": {"content": text(facts["kind"], alarm, facts["role"], resent=facts["resent"])},
        "person": facts["person"],
        "role": facts["role"],
        "resent": facts["resent"],
        "kind": facts["kind"],
        "alarm": alarm,
    }


def text(kind: str, alarm: Mapping[str, Any], role: str, *, resent: bool) -> str:
    """The words, most important first; 重发 marks a message that may have come before."""
    again = "（重发）" if resent else ""
    value, unit = alarm["value"], alarm["unit"]
    measured = f"{value:g}{unit}，限值 {alarm['limit']:g}{unit}" if value is not None else ""
    head = f"【{alarm['priority']}级{_VERB.get(kind, '报警')}{again}】{alarm['name']}{_KIND[alarm['kind']]} {measured}"
    who = f"请{_ROLE.get(role, role)}确认 #{alarm['occurrence']}"
    english = f"{alarm['name_en']} {_KIND_EN[alarm['kind']]}"
    return f"{head.strip()}。{who}。{english}."
