"""The system's own alarms: which there are, what they are called, and the rules that they follow. Pure.

They are alarms like others (`system.<kind>` or `system.<kind>.<thing>`, side `system`, for the whole site): raised,
acknowledged by IT and the control room, recorded. They never count as load of an operating position, and their ladder
never freezes a plant. What each means and what to do: docs/system-alarms.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .machine import State
from .rules import SYSTEM_PREFIX, Kind, Level, Rule, Side

REQUIRED_ACKS = ("it", "control_room")

Report = Callable[[Rule, bool, float | None], Awaitable[object]]
"""Tell the owner of the alarms that a fault is there, or is over; returns when that is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One kind of fault: what people are told is wrong, how urgent it is, and the unit of its value."""

    name: str
    name_en: str
    priority: int
    limit: float = 0.0
    unit: str = ""


MEANINGS: Mapping[Kind, Meaning] = {
    Kind.FLOOD: Meaning(name="报警泛滥", name_en="Alarm flood", priority=2, limit=10),
    Kind.CHATTER: Meaning(name="报警抖动", name_en="Chattering alarm", priority=3, limit=3),
    Kind.STANDING: Meaning(name="报警持续超过24小时", name_en="Alarms on for more than 24 hours", priority=4, limit=1),
    Kind.DELIVERY_FAILED: Meaning(name="通知送不到", name_en="Not reached", priority=2),
    Kind.MODEM_DOWN: Meaning(name="短信模块故障", name_en="SMS modem down", priority=2),
    Kind.BROKER_DOWN: Meaning(name="MQTT服务器断开", name_en="MQTT broker lost", priority=3),
    Kind.CLOCK_STEP: Meaning(name="系统时钟跳变", name_en="The clock jumped", priority=3, limit=5, unit="s"),
    Kind.DISK: Meaning(name="磁盘空间不足", name_en="Disk nearly full", priority=2, limit=10, unit="%"),
    Kind.LADDER_OVERDUE: Meaning(
        name="升级或通知逾期", name_en="Escalation or messages overdue", priority=2, limit=120, unit="s"
    ),
    Kind.KEY_REVOKED: Meaning(name="密钥已被总部吊销，请联系总部", name_en="Key revoked: ask headquarters", priority=3),
    Kind.CERTIFICATE: Meaning(
        name="网页证书即将到期或不可用", name_en="Certificate of the pages", priority=3, limit=21, unit="d"
    ),
    Kind.NOT_RECORDED: Meaning(name="未记录：磁盘写不进", name_en="NOT RECORDED: the disk takes nothing", priority=2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """How long a fault must last, and how long it must be away, before its alarm follows; seconds."""

    on_s: float = 0.0
    off_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A fault that is there now. One that nobody sees any more is over.

    Attributes:
        value: in the rule's unit; None where there is nothing to measure.
        facts: for pages: what it is about. JSON-able.
    """

    rule: Rule
    value: float | None = None
    delays: Delays = Delays()
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


def system_id(kind: Kind, thing: str = "") -> str:
    """Id of a system alarm. `thing`: what it is about, empty where there is one of its kind."""
    return f"{SYSTEM_PREFIX}{kind.value}.{thing}" if thing else f"{SYSTEM_PREFIX}{kind.value}"


def system_rule(
    kind: Kind,
    thing: str = "",
    *,
    name: str = "",
    name_en: str = "",
    about: str = "",
    about_en: str = "",
    priority: int = 0,
    required_acks: tuple[str, ...] = REQUIRED_ACKS,
    revision: str = "",
) -> Rule:
    """The rule of one fault.

    Args:
        kind: one of `MEANINGS`.
        thing: part of the id: a person, a channel, another alarm.
        name, name_en: what is wrong; the kind's own words when empty.
        about, about_en: put behind it; `about_en` is `about` when empty. Persons by their id alone: records
            outlive the list of persons.
        priority: 0: the kind's own.
        required_acks: roles that must each acknowledge; one person may answer for both.
        revision: of the configuration.
    """
    meaning = MEANINGS[kind]
    level = Level(kind=kind, limit=meaning.limit, priority=priority or meaning.priority)
    return _rule(
        system_id(kind, thing),
        level,
        name=_joined(name or meaning.name, "：", about),
        name_en=_joined(name_en or meaning.name_en, ": ", about_en or about),
        unit=meaning.unit,
        required_acks=required_acks,
        revision=revision,
    )


def is_system(alarm: Mapping[str, Any]) -> bool:
    """Whether an alarm object (JSON) is the system's own."""
    return alarm["kind"] in _KINDS


def stored_system_rules(stored: Mapping[str, Mapping[str, Any]]) -> list[Rule]:
    """Rules of the system alarms that are open or covered, so that a restart goes on with them.

    Args:
        stored: committed alarm objects (`alarms.table.stored_alarms`) by id.
    """
    return [
        _stored_rule(fields)
        for fields in stored.values()
        if is_system(fields) and (fields["state"] != State.NORM.value or fields.get("overlay") is not None)
    ]


def active_system_rules(stored: Mapping[str, Mapping[str, Any]]) -> list[Rule]:
    """Those of them whose fault was there when it was committed last."""
    return [rule for rule in stored_system_rules(stored) if stored[rule.id]["active"] is not None]


def _stored_rule(fields: Mapping[str, Any]) -> Rule:
    level = Level(kind=Kind(fields["kind"]), limit=fields["limit"], priority=fields["priority"])
    acks = tuple(fields["required_acks"])
    name, name_en, unit = fields["name"], fields["name_en"], fields["unit"]
    return _rule(fields["id"], level, name=name, name_en=name_en, unit=unit, required_acks=acks)


def _rule(
    alarm_id: str,
    level: Level,
    *,
    name: str,
    name_en: str,
    unit: str,
    required_acks: tuple[str, ...],
    revision: str = "",
) -> Rule:
    return Rule(
        id=alarm_id,
        point="",
        area="",
        side=Side.SYSTEM,
        name=name,
        name_en=name_en,
        unit=unit,
        levels=(level,),
        required_acks=required_acks,
        distinct_persons=False,
        revision=revision,
    )


def _joined(what: str, between: str, about: str) -> str:
    return f"{what}{between}{about}" if about else what


_KINDS = frozenset(kind.value for kind in MEANINGS)
