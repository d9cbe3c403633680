"""Pure alarm rules: a reading in, the level that is active out. No clock, no I/O.

Definitions: ISA-18.2 / IEC 62682 (deadband, on-delay, off-delay). A limit is reached at the limit itself; it
clears only strictly past limit ∓ deadband; the deadband does not shift the activation.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...words import Quality, Reading
from .sources import Source, is_state
from .suppression import Suppression

REPEAT_S: Mapping[int, float] = {1: 300.0, 2: 900.0}
REALARM_S: Mapping[int, float] = {1: 1800.0, 2: 7200.0}


SYSTEM_PREFIX = "system."
"""How ids of the gateway's own alarms begin; no area may be called that."""


class Kind(enum.StrEnum):
    """What an alarm is about."""

    HIHI = "hihi"
    HI = "hi"
    LO = "lo"
    LOLO = "lolo"
    ROC = "roc"
    DEVIATION = "deviation"
    DISCRETE = "discrete"
    DISCREPANCY = "discrepancy"
    STALE = "stale"
    QUALITY = "quality"
    FROZEN = "frozen"
    COMM_LOSS = "comm_loss"
    FLOOD = "flood"
    CHATTER = "chatter"
    STANDING = "standing"
    DELIVERY_FAILED = "delivery_failed"
    MODEM_DOWN = "modem_down"
    BROKER_DOWN = "broker_down"
    CLOCK_STEP = "clock_step"
    DISK = "disk"
    LADDER_OVERDUE = "ladder_overdue"
    KEY_REVOKED = "key_revoked"
    CERTIFICATE = "certificate"
    NOT_RECORDED = "not_recorded"


class Side(enum.StrEnum):
    """What one alarm object watches. hi and hihi are two levels of one `high` alarm.

    It is the last part of the id, but for `system`: the gateway's own alarms are `system.<kind>[.<thing>]`.
    """

    HIGH = "high"
    LOW = "low"
    ROC = "roc"
    DEVIATION = "deviation"
    DISCRETE = "discrete"
    DISCREPANCY = "discrepancy"
    STALE = "stale"
    QUALITY = "quality"
    FROZEN = "frozen"
    COMM = "comm"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One limit. `limit` and `deadband` in the rule's unit, delays in seconds.

    Where a time is the matter, `limit` has its seconds: silence, a value that stands still, a discrepancy that lasts.

    Attributes:
        priority: 1 (highest) to 4.
        latching: stays after return to normal until an officer resets it.
    """

    kind: Kind
    limit: float
    priority: int
    deadband: float = 0.0
    on_delay_s: float = 0.0
    off_delay_s: float = 0.0
    latching: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One alarm object of one point.

    Attributes:
        point: of side `comm` its device, `area.device`; "" of side `system`: nothing is measured, `Engine.set_fault`
            says whether it is on.
        source: what is judged instead of the value; of sides `roc`, `deviation`, `discrete`, `discrepancy`, `frozen`.
        unit: of value, limit and deadband; "" where there is none.
        levels: least severe first; `high`: hi, hihi; `low`: lo, lolo; the other sides: exactly one.
        required_acks: roles that must each acknowledge.
        distinct_persons: one person may answer for one role only.
        fresh_s: a reading older than this does not let an officer reset a latched alarm.
        life_safety: never suppressed by design; shelved by an officer alone, and for half an hour at most.
        shelve_max_s: the longest time it may be shelved for.
        repeat_s, realarm_s: by priority, seconds after which people are told again: of one that is not acknowledged; of
            one that is, and is still on. A priority that is not there is not repeated.
        reopen_s: a condition that comes back within this time after an unacknowledged return is the same occurrence.
        first_out_group: the first alarm that is raised while no other of its group is open is marked; "" for none.
        suppressions: while one of them holds, nobody is told.
        revision: of the configuration; every record carries it.
    """

    id: str
    point: str
    area: str
    side: Side
    name: str
    name_en: str
    unit: str
    levels: tuple[Level, ...]
    required_acks: tuple[str, ...] = ("keeper", "officer")
    distinct_persons: bool = True
    life_safety: bool = False
    shelve_max_s: float = 28_800.0
    repeat_s: Mapping[int, float] = field(default_factory=lambda: REPEAT_S)
    realarm_s: Mapping[int, float] = field(default_factory=lambda: REALARM_S)
    reopen_s: float = 300.0
    fresh_s: float = math.inf
    source: Source | None = None
    first_out_group: str = ""
    suppressions: tuple[Suppression, ...] = ()
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Track:
    """One level's condition.

    Attributes:
        active: after delays and deadband.
        since: monotonic seconds since when the opposite is seen, None when it is not.
        frozen_at: monotonic seconds since when quality is bad: time that does not count towards a delay.
    """

    active: bool = False
    since: float | None = None
    frozen_at: float | None = None


Condition = tuple[Track, ...]


def quiet(rule: Rule) -> Condition:
    """The condition of a rule that never saw a reading."""
    return tuple(Track() for _ in rule.levels)


def set_all(rule: Rule, *, active: bool) -> Condition:
    """The condition of a rule that nothing measures: every level on, or every level off."""
    return tuple(Track(active=active) for _ in rule.levels)


def is_quiet(condition: Condition) -> bool:
    """Whether no level is on and none is counting."""
    return not any(track.active or track.since is not None or track.frozen_at is not None for track in condition)


def worst(rule: Rule, condition: Condition) -> Level | None:
    """The most severe active level, None when the condition is off."""
    for level, track in zip(reversed(rule.levels), reversed(condition), strict=True):
        if track.active:
            return level
    return None


def resume(rule: Rule, kind: Kind | None) -> Condition:
    """The condition after a restart: every level up to `kind` active, as it was committed."""
    if kind is None:
        return quiet(rule)
    kinds = [level.kind for level in rule.levels]
    reached = kinds.index(kind) if kind in kinds else len(kinds) - 1
    return tuple(Track(active=i <= reached) for i in range(len(kinds)))


def adopt(before: Rule, condition: Condition, rule: Rule) -> Condition:
    """The condition of `before` under `rule`, its successor, until a reading is judged.

    A level that stays keeps what is on. A delay that runs goes on when the delay changed, and begins anew when what it
    waits for changed.
    """
    known = {level.kind: (level, track) for level, track in zip(before.levels, condition, strict=True)}
    same_source = before.source == rule.source
    tracks = []
    for level in rule.levels:
        old, track = known.get(level.kind, (None, Track()))
        same = same_source and old is not None and (old.limit, old.deadband) == (level.limit, level.deadband)
        tracks.append(track if same else Track(active=track.active))
    return tuple(tracks)


def evaluate(rule: Rule, condition: Condition, reading: Reading | None, now_s: float) -> Condition:
    """The condition after `reading`, or after time has passed (`None`).

    Args:
        rule: of side `high` or `low`; every other has a function of its own, but time passes for all of them here.
        condition: as returned before.
        reading: bad quality freezes the condition: it neither clears nor raises.
        now_s: monotonic seconds; never goes backwards.
    """
    if reading is None:
        return tuple([_pass_time(level, track, now_s) for level, track in zip(rule.levels, condition, strict=True)])
    value = reading.value
    if value is None or reading.quality is Quality.BAD:
        return hold(condition, now_s)
    high = rule.side is Side.HIGH
    tracks = []
    for level, track in zip(rule.levels, condition, strict=True):
        if high:
            reached, past = value >= level.limit, value < level.limit - level.deadband
        else:
            reached, past = value <= level.limit, value > level.limit + level.deadband
        tracks.append(_see(level, track, reached=reached, past=past, now_s=now_s))
    return tuple(tracks)


def evaluate_source(rule: Rule, condition: Condition, measured: float | None, now_s: float) -> Condition:
    """The condition of a rule with a `source`.

    Args:
        rule: that has one, and so one level.
        condition: as returned before; the same object is returned when nothing changes.
        measured: by `sources.measure`; None holds the condition.
        now_s: monotonic seconds.
    """
    if measured is None:
        return hold(condition, now_s)
    level, track = rule.levels[0], condition[0]
    if is_state(rule.source):
        reached, past = measured > 0, measured <= 0
    else:
        reached, past = measured >= level.limit, measured < level.limit - level.deadband
    after = _see(level, track, reached=reached, past=past, now_s=now_s)
    return condition if after is track else (after,)


def hold(condition: Condition, now_s: float) -> Condition:
    """The condition while nobody knows: time in bad quality or silence does not count towards a delay."""
    return tuple([_freeze(track, now_s) for track in condition])


def evaluate_quality(rule: Rule, condition: Condition, reading: Reading | None, now_s: float) -> Condition:
    """`quality`: on while the newest reading is bad."""
    (level,), (track,) = rule.levels, condition
    if reading is None:
        return (_pass_time(level, track, now_s),)
    bad = reading.quality is Quality.BAD
    return (_see(level, track, reached=bad, past=not bad, now_s=now_s),)


def evaluate_silence(
    rule: Rule, condition: Condition, last_s: float, now_s: float, *, bad: bool, heard: bool
) -> Condition:
    """`stale`: on when nothing came for the limit's seconds. A point known to be bad is the quality alarm's matter.

    Args:
        rule: of side `stale`.
        condition: as returned before.
        last_s: monotonic seconds of the last reading, or of the start when there was none.
        now_s: monotonic seconds.
        bad: the newest reading was bad.
        heard: there was a reading since the start; a silence from before it ends with a reading, not with a restart.
    """
    (level,), (track,) = rule.levels, condition
    silent = not bad and now_s - last_s >= level.limit
    return (_see(level, track, reached=silent, past=heard and not silent, now_s=now_s),)


def evaluate_contact(rule: Rule, condition: Condition, gone_s: float | None, now_s: float, *, heard: bool) -> Condition:
    """`comm`: on when the device could not be reached for the limit's seconds.

    Args:
        rule: of side `comm`.
        condition: as returned before.
        gone_s: since when none of its points can be reached, monotonic seconds; None while one can.
        now_s: monotonic seconds.
        heard: one of its points said something since the start: a restart does not bring a device back.
    """
    (level,), (track,) = rule.levels, condition
    reached = gone_s is not None and now_s - gone_s >= level.limit
    return (_see(level, track, reached=reached, past=gone_s is None and heard, now_s=now_s),)


def _see(level: Level, track: Track, *, reached: bool, past: bool, now_s: float) -> Track:
    since = track.since
    if track.frozen_at is not None and since is not None:
        since += now_s - track.frozen_at  # what passed in bad quality does not count
    opposite = past if track.active else reached
    if not opposite:
        return track if track.since is None and track.frozen_at is None else Track(active=track.active)
    if since is None:
        since = now_s
    delay_s = level.off_delay_s if track.active else level.on_delay_s
    if now_s - since >= delay_s:
        return Track(active=not track.active)
    return Track(active=track.active, since=since)


def _pass_time(level: Level, track: Track, now_s: float) -> Track:
    if track.since is None or track.frozen_at is not None:
        return track
    delay_s = level.off_delay_s if track.active else level.on_delay_s
    return Track(active=not track.active) if now_s - track.since >= delay_s else track


def _freeze(track: Track, now_s: float) -> Track:
    return track if track.frozen_at is not None or track.since is None else replace(track, frozen_at=now_s)
