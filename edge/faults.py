"""From states of the gateway's parts to alarms of the system: each fault that lasts is raised, and returns when it is
over.

Every second each source says what is wrong now (`Sight`); `Steady` says which of that has lasted, so that a blip is no
alarm; what changed is reported to the owner of the alarms. The detectors follow the records that were committed, and
after a restart those of the last day, so that they go on where they were.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..sync.journal import Journal, Record
from ..sync.link_state import UplinkHealth
from ..sync.streams import JOURNAL
from ..words import ClockState, Instant, mono_s, now, utc_from_text
from .alarms.floods import AlarmLoad, Seen
from .alarms.overlay import seconds_between
from .alarms.rules import Kind, Rule
from .alarms.system import Delays, Report, Sight, active_system_rules, system_id, system_rule
from .alarms.table import stored_alarms
from .alerts.port import ChannelHealth, Fault
from .alerts.unreached import Unreached

if TYPE_CHECKING:
    from ..sensors.mqtt_words import MqttHealth
    from .dashboards import DashboardHealth

_log = logging.getLogger(__name__)

LOOK_S = 1.0
BROKER = Delays(on_s=60.0, off_s=30.0)
MODEM = Delays(on_s=60.0, off_s=60.0)
CHANNEL = Delays(on_s=300.0, off_s=60.0)
KEY = Delays(on_s=5.0, off_s=30.0)
CERTIFICATE = Delays(on_s=60.0, off_s=5.0)
RESUMED = Delays(off_s=120.0)
"""After a restart nobody may have looked yet: a fault that was there is over when nobody sees it for this long."""
CLOCK_S = 600.0
SMS = "sms"
_DAY_S = 86_400.0
_MOST_RECORDS = 20_000
_PAGE = 200

Source = Callable[[], Iterable[Sight]]
"""What is wrong now. Cheap, does not wait, does not raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """A live channel. `kind`: as in site.toml."""

    id: str
    kind: str
    health: ChannelHealth


def broker_sights(dashboards: DashboardHealth | None, links: Mapping[str, MqttHealth]) -> list[Sight]:
    """Brokers that are not reached.

    Args:
        dashboards: the link to the dashboards' broker; None when site.toml has no [mqtt].
        links: to brokers of devices, by id.
    """
    found = []
    if dashboards is not None and dashboards.state != "up":
        facts = {"error": dashboards.error}
        found.append(Sight(rule=system_rule(Kind.BROKER_DOWN), delays=BROKER, facts=facts))
    for name, link in links.items():
        if not link.connected:
            facts = {"link": name, "error": link.last_error}
            found.append(Sight(rule=system_rule(Kind.BROKER_DOWN, name, about=name), delays=BROKER, facts=facts))
    return found


def link_sights(uplink: UplinkHealth) -> list[Sight]:
    """A key that headquarters takes nothing from any more: records stay here until a person has settled it."""
    if uplink.reasons.get(JOURNAL) not in ("revoked", "key_ended"):
        return []
    facts = {"error": uplink.errors.get(JOURNAL, "")}
    return [Sight(rule=system_rule(Kind.KEY_REVOKED), delays=KEY, facts=facts)]


def certificate_sights(days_left: float | None, error: str) -> list[Sight]:
    """A certificate of the pages that ends soon, is not served although it was installed, or could not be made.

    Args:
        days_left: of what is served; None while nothing is.
        error: why another one is served than should be, or none; empty when all is well.
    """
    rule = system_rule(Kind.CERTIFICATE)
    if not error and days_left is not None and days_left >= rule.levels[0].limit:
        return []
    value = None if days_left is None else round(days_left, 1)
    return [Sight(rule=rule, value=value, delays=CERTIFICATE, facts={"error": error, "days_left": value})]


def channel_sights(channels: Iterable[ChannelState]) -> list[Sight]:
    """Channels that say that they cannot work."""
    found = []
    for channel in channels:
        if channel.health.fault is Fault.NONE:
            continue
        if channel.kind == SMS:
            rule, delays = system_rule(Kind.MODEM_DOWN, channel.id, about=channel.id), MODEM
        else:  # `channel.`: a person may have the same id
            rule = system_rule(
                Kind.DELIVERY_FAILED,
                f"channel.{channel.id}",
                name="通知通道故障",
                name_en="Channel down",
                about=channel.id,
            )
            delays = CHANNEL
        facts = {"channel": channel.id, "fault": channel.health.fault.value, "detail": channel.health.detail}
        found.append(Sight(rule=rule, delays=delays, facts=facts))
    return found


class ClockFault:
    """A clock that jumped is a fault for ten minutes: nothing says when people have looked at the times."""

    def __init__(self) -> None:
        self._by_s = 0.0
        self._until_s = 0.0

    def stepped(self, by_s: float, at_s: float) -> None:
        """It jumped by so many seconds, at that monotonic time."""
        self._by_s, self._until_s = by_s, at_s + CLOCK_S

    def sights(self, now_s: float) -> list[Sight]:
        """What is wrong now; its value is the jump in seconds."""
        return [Sight(rule=system_rule(Kind.CLOCK_STEP), value=self._by_s)] if now_s < self._until_s else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A fault that has lasted, or is over."""

    rule: Rule
    on: bool
    value: float | None = None


@dataclass(slots=True, kw_only=True)
class _Kept:
    """A fault that is seen, or was told. `since_s`: since when it is the other way than told; None when it is not."""

    sight: Sight
    on: bool
    since_s: float | None


class Steady:
    """Which faults have lasted. Pure.

    Args:
        on: rules of those that were there before a restart.
    """

    def __init__(self, on: Iterable[Rule] = ()) -> None:
        self._kept = {rule.id: _Kept(sight=Sight(rule=rule, delays=RESUMED), on=True, since_s=None) for rule in on}

    @property
    def facts(self) -> dict[str, Mapping[str, Any]]:
        """What is known of each fault that was told, by the alarm's id."""
        return {alarm: kept.sight.facts for alarm, kept in self._kept.items() if kept.on}

    def see(self, sights: Iterable[Sight], now_s: float) -> list[Told]:
        """What must be told now: `sights` is everything that is wrong."""
        seen = {sight.rule.id: sight for sight in sights}
        told = []
        for sight in seen.values():
            kept = self._kept.setdefault(sight.rule.id, _Kept(sight=sight, on=False, since_s=now_s))
            kept.sight = sight
            if kept.on:
                kept.since_s = None
            elif now_s - (kept.since_s or 0.0) >= sight.delays.on_s:
                kept.on, kept.since_s = True, None
                told.append(Told(rule=sight.rule, on=True, value=sight.value))
        for alarm in [alarm for alarm in self._kept if alarm not in seen]:
            told += self._unseen(alarm, now_s)
        return told

    def _unseen(self, alarm: str, now_s: float) -> list[Told]:
        kept = self._kept[alarm]
        if not kept.on:
            del self._kept[alarm]
            return []
        if kept.since_s is None:
            kept.since_s = now_s
        if now_s - kept.since_s < kept.sight.delays.off_s:
            return []
        del self._kept[alarm]
        return [Told(rule=kept.sight.rule, on=False)]


class Faults:
    """Watches for ever, and reports what changed.

    Args:
        journal: open; its records are followed from now on.
        load: floods, chatter and standing alarms.
        sources: what else may be wrong.
        report: told of each change, one after the other.
        instant: the clock; tests give their own.

    Attributes:
        beat_s: monotonic seconds; fresh while the loop turns.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        load: AlarmLoad,
        sources: Sequence[Source],
        report: Report,
        instant: Callable[[], Instant] = now,
    ) -> None:
        self._journal = journal
        self._load = load
        self._sources = tuple(sources)
        self._report = report
        self._instant = instant
        self._unreached = Unreached()
        self._clock = ClockFault()
        self._steady = Steady()
        self._seq = 0
        self._last_s = -math.inf
        self._waiting: list[Record] | None = []
        self.beat_s = mono_s()
        journal.subscribe(self._committed)

    @property
    def facts(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of each fault that is there, by the alarm's id, for pages."""
        return self._steady.facts

    async def run(self) -> None:
        """Go on where the last process was, then look every second."""
        await self.resume()
        while True:
            self.beat_s = mono_s()
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once, and report what changed."""
        now_s = self._instant().mono_s
        sights = [*self._load.sights(now_s), *self._unreached.sights(), *self._clock.sights(now_s)]
        for source in self._sources:
            sights += source()
        for told in self._steady.see(sights, now_s):
            _log.log(logging.WARNING if told.on else logging.INFO, "%s %s", told.rule.id, "on" if told.on else "over")
            await self._report(told.rule, told.on, told.value)

    async def resume(self) -> None:
        """See the records of the last day, and of everything that is open; then those that were committed meanwhile."""
        stored = await self._journal.query(stored_alarms)
        instant = self._instant()
        own = system_id(Kind.LADDER_OVERDUE)  # the auditor's
        self._steady = Steady(rule for rule in active_system_rules(stored) if rule.id != own)
        raised = [alarm["raised"] for alarm in stored.values() if alarm["state"] != "NORM"]
        reach_s = max([_DAY_S, *(_age_s(at, instant) for at in raised)])
        after = max(0, self._journal.head()[0] - _MOST_RECORDS)
        while records := await self._journal.read(after, _PAGE):
            after = records[-1].seq
            for record in records:
                if _age_s(record.at, instant) <= reach_s:
                    self._see(record, instant)
        self._load.resume(stored.values(), instant.mono_s, lambda at: _age_s(at, instant))
        waiting, self._waiting = self._waiting or [], None
        for record in waiting:
            self._see(record, instant)

    def _committed(self, records: list[Record]) -> None:
        if self._waiting is not None:
            self._waiting += records
            return
        instant = self._instant()
        for record in records:
            self._see(record, instant)

    def _see(self, record: Record, instant: Instant) -> None:
        if record.seq <= self._seq:
            return
        self._seq = record.seq
        self._last_s = at_s = max(self._last_s, instant.mono_s - _age_s(record.at, instant))
        if record.kind.startswith("alarm."):
            self._load.see(Seen.of_record(record.kind, record.body["alarm"], at_s))
        if record.kind in ("clock.stepped", "clock.behind"):
            self._clock.stepped(float(record.body["by_s"]), at_s)
        self._unreached.see(record.kind, record.seq, record.body)


def _age_s(at: Mapping[str, Any], instant: Instant) -> float:
    """Seconds since an instant (JSON): exact within one boot, by the wall clock and never negative across boots."""
    then = Instant(
        utc_ms=utc_from_text(at["utc"]), mono_s=float(at["mono"]), boot=at["boot"], clock=ClockState(at["clock"])
    )
    return max(0.0, seconds_between(then, instant))
