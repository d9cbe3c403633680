"""Who watches the gateway: faults that last become alarms, and an auditor looks whether what must happen does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..sync.journal import Record
from ..words import utc_text
from .alarms.floods import AlarmLoad
from .alarms.rules import Kind, Rule
from .alarms.system import Sight, system_rule
from .auditor import OVERDUE_S, Auditor
from .disk import DiskWatch
from .faults import ChannelState, Faults, broker_sights, certificate_sights, channel_sights, link_sights
from .positions import position_of

if TYPE_CHECKING:
    from .running import Running
    from .tls.keeper import Keeper

_SLACK_S = 30.0


@dataclass(slots=True)
class Watching:
    """The loops that watch. `start` before anything else that may fail is started.

    Args:
        running: what is watched.
        data: whose file system must have room.
        keeper: of the pages' certificates; None without [https].
    """

    running: Running
    data: Path
    keeper: Keeper | None = None
    disk: DiskWatch = field(init=False)
    faults: Faults = field(init=False)
    auditor: Auditor = field(init=False)

    def __post_init__(self) -> None:
        self.disk = DiskWatch(self.data)
        sources = (self.disk.sights, self._brokers, self._channels, self._link, self._not_recorded, self._certificates)
        load = AlarmLoad(lambda area: position_of(self.running.current.site.areas, area))
        self.faults = Faults(self.running.journal, load=load, sources=sources, report=self._report)
        self.auditor = Auditor(self.running.journal, self._report, patience_s=self._patience_s)

    def start(self) -> None:
        """Watch from now on. The watchdog is fed only while they look, and the auditor finds nothing wedged."""
        loops = self.running.loops
        loops.start("disk", self.disk.run)
        loops.start("faults", self.faults.run, lambda: self.faults.beat_s)
        loops.start("auditor", self.auditor.run, self.auditor.healthy)

    def _patience_s(self) -> float:
        site = self.running.current.site
        return max(OVERDUE_S, site.alerts.delivery_deadline_s + max(site.group_wait_s.values()) + _SLACK_S)

    def _not_recorded(self) -> Iterable[Sight]:
        mark = self.running.journal.not_recorded
        if mark is None:
            return []
        facts = {"since": utc_text(mark.since_ms), "error": mark.why}
        return [Sight(rule=system_rule(Kind.NOT_RECORDED), facts=facts)]

    def _brokers(self) -> Iterable[Sight]:
        running = self.running
        dashboards = running.health.broker if running.current.site.mqtt is not None else None
        return broker_sights(dashboards, running.health.links)

    def _certificates(self) -> Iterable[Sight]:
        keeper = self.keeper
        return certificate_sights(keeper.days_left(), keeper.problem or keeper.passed_over) if keeper else ()

    def _link(self) -> Iterable[Sight]:
        running = self.running
        return link_sights(running.health.uplink) if running.current.site.is_linked else ()

    def _channels(self) -> Iterable[Sight]:
        running = self.running
        kinds = {table.id: table.kind for table in running.current.site.channels}
        return channel_sights(
            ChannelState(id=name, kind=kinds[name], health=channel.health)
            for name, channel in running.channels.live.items()
            if name in kinds
        )

    async def _report(self, rule: Rule, on: bool, value: float | None) -> list[Record]:
        return await self.running.pipeline.command(lambda engine, at: engine.set_fault(rule, on, at, value))
