"""When the weekly proof test is due, in the site's own time. Pure.

A slot is the set hour of one day. One that passed while the gateway was off, or that was refused, is made up for until
that day ends; then it is missed and the next week's follows. What was handled is committed, so nothing comes twice.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

RETRY_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Which point, and when. `weekday`: 0 is Monday; `hour` and `minute` of the site's clock."""

    point: str
    weekday: int = 0
    hour: int = 10
    minute: int = 0

    def to_json(self) -> dict[str, Any]:
        """As records carry it."""
        return {"point": self.point, "weekday": self.weekday, "hour": self.hour, "minute": self.minute}


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """What is committed of the schedule.

    Attributes:
        schedule: as JSON; None when there is none.
        since_ms: UTC since when it is that one; slots before it are nobody's.
        day: of the last slot that was handled, ISO; empty before the first.
        refused_day, refused: of a slot that is not handled yet, why it was refused.
        missed_day, missed: the last slot that was missed, and why; empty once a later one is tested.
    """

    schedule: Mapping[str, Any] | None = None
    since_ms: int = 0
    day: str = ""
    refused_day: str = ""
    refused: str = ""
    missed_day: str = ""
    missed: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the state table keeps it."""
        return {
            "schedule": None if self.schedule is None else dict(self.schedule),
            "since_ms": self.since_ms,
            "day": self.day,
            "refused_day": self.refused_day,
            "refused": self.refused,
            "missed_day": self.missed_day,
            "missed": self.missed,
        }


class Turn(enum.StrEnum):
    """What is to be done about a slot."""

    DUE = "due"
    MISSED = "missed"


def newest_slot(schedule: Schedule, now_ms: int, timezone: str) -> tuple[str, int]:
    """Day (ISO) and UTC milliseconds of the newest slot that has begun.

    An hour that the clock leaps over in spring begins with the first moment after it; one that comes twice in autumn
    counts the first time.
    """
    zone = ZoneInfo(timezone)
    today = datetime.fromtimestamp(now_ms / 1000, zone).date()
    day = today - timedelta(days=(today.weekday() - schedule.weekday) % 7)
    start_ms = _start_ms(schedule, day, zone)
    if start_ms > now_ms:
        day -= timedelta(days=7)
        start_ms = _start_ms(schedule, day, zone)
    return day.isoformat(), start_ms


def turn(schedule: Schedule, week: Week, now_ms: int, timezone: str) -> tuple[Turn, str] | None:
    """What the newest slot asks for, and its day; None when it asks for nothing.

    What is committed of a time that has not come yet was written by a clock that was wrong: it does not count.
    """
    day, start_ms = newest_slot(schedule, now_ms, timezone)
    today = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(timezone)).date().isoformat()
    if day <= week.day <= today or start_ms < week.since_ms <= now_ms:
        return None
    return (Turn.DUE if day == today else Turn.MISSED), day


def why_missed(week: Week, day: str) -> str:
    """The reason that a missed slot is recorded with."""
    return week.refused if week.refused_day == day else "off"


def _start_ms(schedule: Schedule, day: date, zone: ZoneInfo) -> int:
    local = datetime.combine(day, time(schedule.hour, schedule.minute), zone)
    return round(local.timestamp() * 1000)
