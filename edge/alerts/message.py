"""What a channel sends: one text that fits a robot and an SMS, and the alarm for machines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ...serving.people import Person

_VERB = {
    "alarm.raised": "报警",
    "alarm.reraised": "报警升级",
    "alarm.reopened": "再次报警",
    "alarm.repeated": "仍未处理",
    "alarm.shelved": "报警已搁置",
    "alarm.out_of_service": "报警已停用",
}
_KIND = {"hihi": "超过上上限", "hi": "超过上限", "lo": "低于下限", "lolo": "低于下下限"}
_KIND_EN = {
    "hihi": "above the high-high limit",
    "hi": "above the high limit",
    "lo": "below the low limit",
    "lolo": "below the low-low limit",
}
_ROLE = {
    "worker": "员工",
    "team_leader": "班组长",
    "keeper": "仓管员",
    "officer": "安全员",
    "control_room": "中控",
    "manager": "经理",
    "vice_president": "副总",
    "contractor": "承包商",
    "hr": "人事",
    "it": "信息员",
    "inspector": "检查员",
    "admin": "管理员",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Composer:
    """Composes messages for one site.

    Attributes:
        site: its name; one robot's group may hear of several plants.
        timezone: of the times in the text, an IANA name.
        people: by id.
    """

    site: str
    timezone: str
    people: Mapping[str, Person]

    def __call__(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON message of one delivery.

        Args:
            facts: key, seq, person, role, resent, kind and alarm of an outbox row.
        """
        return {
            "key": facts["key"],
            "msgtype": "text",
            "text": {"content": self.text(facts)},
            "site": self.site,
            "person": facts["person"],
            "role": facts["role"],
            "resent": facts["resent"],
            "kind": facts["kind"],
            "alarm": facts["alarm"],
        }

    def text(self, facts: Mapping[str, Any]) -> str:
        """The words, most important first; 重发 marks a message that may have come before."""
        alarm = facts["alarm"]
        again = "（重发）" if facts["resent"] else ""
        value, unit = alarm["value"], alarm["unit"]
        named = alarm["kind"] in ("stale", "quality")  # the alarm's own name says it
        what = alarm["name"] + ("" if named else _KIND[alarm["kind"]])
        measured = "" if value is None else f" {value:g}{unit}（限值 {alarm['limit']:g}{unit}）"
        local = datetime.fromisoformat(alarm["changed_at"]).astimezone(ZoneInfo(self.timezone))
        head = f"【{alarm['priority']}级{_VERB.get(facts['kind'], '报警')}{again}】{what}{measured} {local:%H:%M}"
        person = self.people.get(facts["person"])
        who = f"请{_ROLE.get(facts['role'], facts['role'])}{person.name if person else ''}确认"
        english = alarm["name_en"] if named else f"{alarm['name_en']} {_KIND_EN[alarm['kind']]}"
        return f"{head}，{self.site}。{who}，报警号 {alarm['occurrence']}。{english}."
