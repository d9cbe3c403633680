"""What ISA-18.2 / IEC 62682 and EEMUA 191 ask of an alarm system, counted from records. Pure.

Everything is per operating position: one person's load, never a plant's average. `DEFINITIONS` says what each number
is, in the words that pages and exports show.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .rules import SYSTEM_PREFIX

PERIOD_MS = 600_000
FLOOD_ENTERS = 10
"""A flood begins with more than this many annunciations within ten minutes …"""
FLOOD_EXITS = 5
"""… and ends with fewer than this many."""
CHATTER_COUNT, CHATTER_MS = 3, 60_000
FLEETING_MS = 10_000
STANDING_MS = 86_400_000
DAY_MS = 86_400_000
TOP = 10

ANNUNCIATED = ("alarm.raised", "alarm.reraised", "alarm.reopened")
COMES_ON = ("alarm.raised", "alarm.reopened")


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A number's meaning.

    Attributes:
        unit: of the number.
        goal: what the sources ask for, as text; empty when they ask for nothing.
        source: of the goal.
    """

    name: str
    name_en: str
    says: str
    says_en: str
    unit: str
    goal: str = ""
    source: str = ""


_ISA = "ISA-18.2-2016, EEMUA 191"
DEFINITIONS: Mapping[str, Definition] = {
    "annunciated": Definition(
        name="报警总数",
        name_en="Annunciated alarms",
        says="时段内发出的工艺和设备报警：新报警、升级、再次报警；不含重复提醒，不含被搁置、屏蔽、停用的报警，也不含系统报警",
        says_en="Alarms of the plant that were raised, made worse or come back within the time; repeats, alarms of the "
        "system itself and what was shelved, suppressed or out of service are not counted",
        unit="",
    ),
    "per_10_min": Definition(
        name="平均每10分钟",
        name_en="Average per 10 minutes",
        says="报警总数 ÷ 10分钟时段数",
        says_en="Annunciated alarms divided by the 10-minute periods of the time",
        unit="",
        goal="≤ 1 (≤ 2)",
        source=_ISA,
    ),
    "peak": Definition(
        name="10分钟峰值",
        name_en="Peak in 10 minutes",
        says="任一整10分钟时段内的最多报警数",
        says_en="The most in any of the 10-minute periods",
        unit="",
        goal="≤ 10",
        source=_ISA,
    ),
    "busy_periods_pct": Definition(
        name="超过10条的时段",
        name_en="Periods with more than 10",
        says="报警数超过10的10分钟时段所占比例",
        says_en="Share of the 10-minute periods with more than 10 alarms",
        unit="%",
        goal="< 1",
        source=_ISA,
    ),
    "flood_pct": Definition(
        name="报警泛滥时间",
        name_en="Time in flood",
        says="滚动10分钟内超过10条即开始，少于5条即结束",
        says_en="From more than 10 within ten minutes until fewer than 5 within ten minutes",
        unit="%",
        goal="< 1",
        source=_ISA,
    ),
    "top_ten_pct": Definition(
        name="前十名占比",
        name_en="Share of the ten most frequent",
        says="最频繁的十个报警占报警总数的比例",
        says_en="Of all annunciated alarms",
        unit="%",
        goal="≤ 1–5",
        source=_ISA,
    ),
    "chattering": Definition(
        name="抖动报警",
        name_en="Chattering",
        says="60秒内出现3次及以上的报警个数；不含被搁置、屏蔽、停用的",
        says_en="Alarms that came on 3 times or more within 60 seconds, without what was shelved, suppressed or out of "
        "service",
        unit="",
        goal="0",
        source=_ISA,
    ),
    "fleeting": Definition(
        name="瞬时报警",
        name_en="Fleeting",
        says="10秒内自行恢复的次数",
        says_en="Times that one went off by itself within 10 seconds",
        unit="",
        goal="0",
        source=_ISA,
    ),
    "standing": Definition(
        name="长期报警",
        name_en="Standing",
        says="时段结束时已持续超过24小时的报警个数；不含被搁置、屏蔽、停用的",
        says_en="On for more than 24 hours at its end, without what is shelved, suppressed or out of service",
        unit="",
        goal="< 5",
        source=_ISA,
    ),
    "priority_pct": Definition(
        name="优先级分布",
        name_en="Priorities",
        says="各优先级占报警总数的比例（1级最高）",
        says_en="Share of each priority, 1 the highest",
        unit="%",
        goal="3: ~80, 2: ~15, 1: ~5",
        source=_ISA,
    ),
    "acknowledged_s": Definition(
        name="确认时间中位数",
        name_en="Median time to acknowledgement",
        says="从报警到最后一个必需角色确认",
        says_en="From the alarm to the acknowledgement of the last required role",
        unit="s",
    ),
    "covered": Definition(
        name="搁置、屏蔽、停用",
        name_en="Shelved, suppressed, out of service",
        says="时段内开始的次数；每次都有责任人、原因和期限",
        says_en="Times within the time; each has a person, a reason and an end",
        unit="",
    ),
    "system": Definition(
        name="系统报警",
        name_en="Alarms of the system",
        says="全站时段内网关自身的报警（磁盘、短信模块、报警泛滥等），由信息和中控处理；不计入任何岗位的其他指标",
        says_en="The gateway's own (disk, modem, flood …) within the time, of the whole site; they are IT's and the "
        "control room's, and in no other number of any position",
        unit="",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What the statistics need of one `alarm.*` record.

    Attributes:
        at_ms: UTC milliseconds.
        kind: of the record.
        position: whose load it is.
        active: the condition is on after it.
        covered: it lies under an overlay: nobody was told.
        acked: every required role has acknowledged.
    """

    at_ms: int
    kind: str
    alarm: str
    occurrence: int
    position: str
    priority: int
    active: bool
    covered: bool = False
    acked: bool = False

    @property
    def is_annunciated(self) -> bool:
        """People were told that it is on, worse or back."""
        return self.kind in ANNUNCIATED and not self.covered

    @property
    def is_system(self) -> bool:
        """It is the gateway's own: no position's load."""
        return self.alarm.startswith(SYSTEM_PREFIX)

    @classmethod
    def of_record(cls, kind: str, at_ms: int, alarm: Mapping[str, Any], position: str) -> Event:
        """Of an `alarm.*` record: its kind, its time, the alarm object that it carries."""
        return cls(
            at_ms=at_ms,
            kind=kind,
            alarm=alarm["id"],
            occurrence=alarm["occurrence"],
            position=position,
            priority=alarm["priority"],
            active=alarm["active"] is not None,
            covered=alarm.get("overlay") is not None,
            acked=set(alarm["required_acks"]) <= {ack["role"] for ack in alarm["acks"]},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """One position's numbers; see `DEFINITIONS`. Shares are percent, 0 where nothing was annunciated."""

    position: str
    annunciated: int = 0
    per_10_min: float = 0.0
    peak: int = 0
    busy_periods_pct: float = 0.0
    flood_pct: float = 0.0
    floods: int = 0
    top_ten_pct: float = 0.0
    top: tuple[tuple[str, int], ...] = ()
    chattering: tuple[str, ...] = ()
    fleeting: int = 0
    standing: tuple[str, ...] = ()
    priority_pct: Mapping[int, float] = field(default_factory=dict[int, float])
    acknowledged_s: float | None = None
    covered: int = 0
    system: int = 0

    def to_json(self) -> dict[str, Any]:
        """As the API answers."""
        return {
            "position": self.position,
            "annunciated": self.annunciated,
            "per_10_min": round(self.per_10_min, 3),
            "peak": self.peak,
            "busy_periods_pct": round(self.busy_periods_pct, 2),
            "flood_pct": round(self.flood_pct, 2),
            "floods": self.floods,
            "top_ten_pct": round(self.top_ten_pct, 1),
            "top": [{"alarm": alarm, "count": count} for alarm, count in self.top],
            "chattering": list(self.chattering),
            "fleeting": self.fleeting,
            "standing": list(self.standing),
            "priority_pct": {str(priority): round(share, 1) for priority, share in self.priority_pct.items()},
            "acknowledged_s": self.acknowledged_s,
            "covered": self.covered,
            "system": self.system,
        }


def count(events: Iterable[Event], position: str, t0_ms: int, t1_ms: int) -> Statistics:
    """One position's numbers from `t0_ms` (included) to `t1_ms`.

    Args:
        events: in the order of their records, from before `t0_ms` as well: what was on at its begin stands.
        position: whose.
        t0_ms, t1_ms: UTC milliseconds; `t1_ms` is later.
    """
    if t1_ms <= t0_ms:
        raise ValueError("the time must end after it begins")
    before_t1 = [event for event in events if event.at_ms < t1_ms]
    mine = [event for event in before_t1 if event.position == position and not event.is_system]
    within = [event for event in mine if event.at_ms >= t0_ms]
    told = [event for event in within if event.is_annunciated]
    periods = _periods(told, t0_ms, t1_ms)
    flood_ms, floods = _floods([event.at_ms for event in told], t0_ms, t1_ms)
    top = Counter(event.alarm for event in told).most_common(TOP)
    share = 100 / len(told) if told else 0.0
    priorities = Counter(event.priority for event in told)
    return Statistics(
        position=position,
        annunciated=len(told),
        per_10_min=len(told) * PERIOD_MS / (t1_ms - t0_ms),
        peak=max(periods),
        busy_periods_pct=100 * sum(n > FLOOD_ENTERS for n in periods) / len(periods),
        flood_pct=100 * flood_ms / (t1_ms - t0_ms),
        floods=floods,
        top_ten_pct=share * sum(n for _, n in top),
        top=tuple(top),
        chattering=_chattering(within),
        fleeting=_fleeting(mine, t0_ms),
        standing=_standing(mine, t1_ms),
        priority_pct={priority: share * priorities[priority] for priority in sorted(priorities)},
        acknowledged_s=_acknowledged_s(mine, t0_ms),
        covered=sum(event.kind in ("alarm.shelved", "alarm.suppressed", "alarm.out_of_service") for event in within),
        system=sum(event.is_system and event.is_annunciated and event.at_ms >= t0_ms for event in before_t1),
    )


def _periods(told: Sequence[Event], t0_ms: int, t1_ms: int) -> list[int]:
    """Annunciations in each 10-minute period; the last one may be shorter."""
    periods = [0] * -(-(t1_ms - t0_ms) // PERIOD_MS)
    for event in told:
        periods[(event.at_ms - t0_ms) // PERIOD_MS] += 1
    return periods


def _floods(told_ms: Sequence[int], t0_ms: int, t1_ms: int) -> tuple[int, int]:
    """Milliseconds in flood, and how many floods began."""
    recent: deque[int] = deque()
    since: int | None = None
    in_flood_ms = floods = 0
    for at_ms in (*sorted(told_ms), t1_ms):
        while recent and recent[0] + PERIOD_MS <= at_ms:
            left_ms = recent.popleft() + PERIOD_MS
            if since is not None and len(recent) < FLOOD_EXITS:
                in_flood_ms += left_ms - since
                since = None
        if at_ms == t1_ms:
            break
        recent.append(at_ms)
        if since is None and len(recent) > FLOOD_ENTERS:
            since = at_ms
            floods += 1
    return in_flood_ms + (max(0, t1_ms - max(since, t0_ms)) if since is not None else 0), floods


def _chattering(within: Iterable[Event]) -> tuple[str, ...]:
    times: dict[str, deque[int]] = {}
    found: dict[str, None] = {}
    for event in within:
        if event.kind not in COMES_ON or event.covered:
            continue
        own = times.setdefault(event.alarm, deque(maxlen=CHATTER_COUNT))
        if own and event.at_ms < own[-1]:
            own.clear()  # the clock was set back: nobody knows how long it took
        own.append(event.at_ms)
        if len(own) == CHATTER_COUNT and own[-1] - own[0] <= CHATTER_MS:
            found[event.alarm] = None
    return tuple(found)


def _fleeting(events: Iterable[Event], t0_ms: int) -> int:
    on_ms: dict[str, int] = {}
    fleeting = 0
    for event in events:
        if event.active:
            on_ms.setdefault(event.alarm, event.at_ms)
            continue
        began_ms = on_ms.pop(event.alarm, None)
        if began_ms is not None and event.at_ms >= t0_ms and 0 <= event.at_ms - began_ms < FLEETING_MS:
            fleeting += 1
    return fleeting


def _standing(events: Iterable[Event], t1_ms: int) -> tuple[str, ...]:
    on_ms: dict[str, int] = {}
    covered: dict[str, bool] = {}
    for event in events:
        covered[event.alarm] = event.covered
        if event.active:
            on_ms.setdefault(event.alarm, event.at_ms)
        else:
            on_ms.pop(event.alarm, None)
    standing = (alarm for alarm, began_ms in on_ms.items() if t1_ms - began_ms > STANDING_MS)
    return tuple(alarm for alarm in standing if not covered[alarm])


def _acknowledged_s(events: Iterable[Event], t0_ms: int) -> float | None:
    """Median over the occurrences that were fully acknowledged since `t0_ms`."""
    began_ms: dict[tuple[str, int], int] = {}
    took: list[int] = []
    for event in events:
        key = (event.alarm, event.occurrence)
        if event.kind in ANNUNCIATED:
            began_ms[key] = event.at_ms
        elif event.kind == "alarm.acked" and event.acked:
            since_ms = began_ms.pop(key, None)
            if since_ms is not None and event.at_ms >= max(t0_ms, since_ms):
                took.append(event.at_ms - since_ms)
    if not took:
        return None
    took.sort()
    middle = len(took) // 2
    return (took[middle] if len(took) % 2 else (took[middle - 1] + took[middle]) / 2) / 1000
