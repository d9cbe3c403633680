"""The proof test in the gateway that runs: what it goes through, and when it begins by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import RefusedError
from ..sync.journal import Draft, Journal, Record
from ..words import now
from .alarms.codec import alarm_json
from .alarms.overlay import OverlayKind
from .alarms.rules import Kind
from .alarms.system import system_id
from .alerts.opened import Open, opened
from .alerts.outbox_queries import last_said
from .proof.chain import Chain, headquarters
from .proof.plan import Part, Way, way_of
from .proof.run import ProofTest
from .proof.table import last_runs, stored_week
from .proof.telling import run_view, week_view
from .proof.weekly import Schedule

if TYPE_CHECKING:
    from .running import Running
    from .site import Site

_FLOOD = system_id(Kind.FLOOD)


def make_proof(running: Running) -> ProofTest:
    """The proof test of the gateway, with the schedule of its site. Its loop is not started yet."""
    proof = ProofTest(_Surroundings(running).chain())
    proof.use(schedule_of(running.current.site), running.current.site.site.timezone)
    return proof


def schedule_of(site: Site) -> Schedule | None:
    """When the site wants a test every week; None: only when somebody asks for it."""
    table = site.proof
    if table is None or not table.weekly:
        return None
    return Schedule(point=table.point, weekday=table.weekday, hour=table.hour, minute=table.minute)


def point_to_test(site: Site, wanted: str | None) -> str:
    """The point that somebody named, else that of site.toml. Raises RefusedError `point_missing`."""
    point = wanted or (site.proof.point if site.proof is not None else "")
    if not point:
        hint = "name a point, or add [proof] with one to site.toml"
        raise RefusedError("point_missing", "which point's alarm is to be tested?", hint=hint)
    return point


async def proof_view(site: Site, journal: Journal, proof: ProofTest, limit: int) -> dict[str, Any]:
    """What people are shown: the newest runs, newest first, as `run_view`; `schedule` is `[proof]`, and with `weekly`
    also what `week_view` says; None without one."""
    runs, week = await journal.query(lambda c: (last_runs(c, limit), stored_week(c)))
    shown: dict[str, Any] | None = None if site.proof is None else {**vars(site.proof)}
    weekly = schedule_of(site)
    if shown is not None and weekly is not None:
        shown |= week_view(weekly, week, now().utc_ms, site.site.timezone)
    return {"running": proof.is_running, "schedule": shown, "runs": [run_view(run) for run in runs]}


class _Surroundings:
    """What the proof test must know of the gateway, asked of its parts as they are now."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def chain(self) -> Chain:
        running = self._running
        site_has_cloud = lambda: running.current.site.is_linked  # noqa: E731
        return Chain(
            journal=running.journal,
            commit=self._commit,
            notify=running.current.notify,
            holders=self._holders,
            rules=lambda point: [rule for rule in running.current.site.rules if rule.point == point],
            reading=running.values.get,
            turned_s=lambda: running.health.pipeline.tick_s,
            open_alarms=self._open_alarms,
            permit_active=self._permit_active,
            in_flood=self._in_flood,
            ways=self._ways,
            said=self._said,
            witnesses={
                Part.PAGE: self._has_page,
                Part.MQTT: self._has_broker,
                Part.CLOUD: headquarters(running.journal, running.health.uplink, site_has_cloud),
            },
        )

    async def _commit(self, drafts: list[Draft]) -> list[Record]:
        return await self._running.pipeline.command(lambda _engine, _at: drafts)

    async def _said(self, key: str) -> str:
        return await self._running.journal.query(lambda connection: last_said(connection, key))

    def _holders(self, role: str, area: str) -> list[str]:
        return [holder.person for holder in self._running.current.site.roster.holders(role, area, now())]

    def _open_alarms(self) -> tuple[Open, ...]:
        """As the rules know them, also what is not committed yet."""
        at = now()
        return opened(alarm_json(rule, alarm, at) for rule, alarm in self._running.pipeline.engine.busy())

    def _permit_active(self, area: str) -> bool:
        """An alarm of the area that is out of service names the permit of the work that goes on there."""
        return any(
            alarm.overlay is not None and alarm.overlay.kind is OverlayKind.OUT_OF_SERVICE and rule.area == area
            for rule, alarm in self._running.pipeline.engine.busy()
        )

    def _in_flood(self) -> bool:
        """A flood of any operating position."""
        return any(
            alarm.active is not None and (rule.id == _FLOOD or rule.id.startswith(f"{_FLOOD}."))
            for rule, alarm in self._running.pipeline.engine.busy()
        )

    def _ways(self) -> Mapping[str, Way]:
        tables = self._running.current.site.channels
        return {table.id: way_of(table.kind, getattr(table, "report_s", 0.0)) for table in tables}

    async def _has_page(self, seq: int) -> bool | None:
        pages = self._running.pages
        return pages.has_written(seq) if pages is not None else None

    async def _has_broker(self, seq: int) -> bool | None:
        dashboards, site = self._running.dashboards, self._running.current.site
        return dashboards.has_test(seq) if dashboards is not None and site.mqtt is not None else None
