"""The auditor: does what must happen happen? It trusts nobody.

Every minute it reads the stored tables, with statements and arithmetic of its own and none of the code that it
audits. It asks two questions. Is a rung of a ladder due for more than two minutes, by the absolute times that were
stored when the ladder began? Does a message about something open wait for more than two minutes without the outbox
having said a word: neither accepted, nor dead, nor recorded as late? What is found twice in a row becomes the alarm
`system.ladder_overdue`.

A loop that worked and does so no more is wedged: then `healthy` goes stale, systemd's watchdog is not fed, and the
daemon is started again. Where a start did not help, starting again and again would only blind the site: an auditor
that never saw everything in order raises the alarm and leaves the watchdog alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..words import Instant, now, utc_from_text
from .alarms.rules import Kind, Rule
from .alarms.system import Report, active_system_rules, system_id, system_rule
from .alarms.table import stored_alarms

_log = logging.getLogger(__name__)

T = TypeVar("T")

AUDIT_S = 60.0
AGAIN_S = 5.0
"""What is found is looked at again this soon: a ladder that was resumed a moment ago climbs within a second."""
OVERDUE_S = 120.0
"""More than the usual deadline of a delivery and the usual wait for others to share a message with."""
SLOW_S = 180.0
"""An audit that does not come to its end for this long is itself a sign that something hangs."""
REPORT_S = 10.0


class Tables(Protocol):
    """The store, as far as the auditor uses it: a journal."""

    async def query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Run `read` on a read-only connection."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that should have happened.

    Attributes:
        what: `ladder/<key>/<rung>` or `outbox/<key>`.
        late_s: for how long.
    """

    what: str
    late_s: float


class Auditor:
    """Looks every minute.

    Args:
        tables: the open journal.
        report: told when something is overdue and when nothing is any more.
        instant: the clock; tests give their own.
        patience_s: how long a message may wait without a word; a site may ask for slower ones than usual.

    Attributes:
        findings: of the last look, as far as they were there in the look before.
    """

    def __init__(
        self,
        tables: Tables,
        report: Report,
        instant: Callable[[], Instant] = now,
        patience_s: Callable[[], float] = lambda: OVERDUE_S,
    ) -> None:
        self._tables = tables
        self._report = report
        self._instant = instant
        self._patience_s = patience_s
        self._suspects: frozenset[str] = frozenset()
        self._told: Rule | None = None
        self._was_in_order = False
        self._looked_s = instant().mono_s
        self._fine_s = self._looked_s
        self.findings: tuple[Finding, ...] = ()

    def healthy(self) -> float:
        """A heartbeat for the watchdog, monotonic seconds: now, or when everything was in order last."""
        now_s = self._instant().mono_s
        wedged = bool(self.findings) and self._was_in_order
        return self._fine_s if wedged or now_s - self._looked_s > SLOW_S else now_s

    async def run(self) -> None:
        """Look for ever; the first time after a minute, so that what was overdue at the start could be caught up."""
        stored = await self._tables.query(stored_alarms)
        own = system_id(Kind.LADDER_OVERDUE)
        self._told = next((rule for rule in active_system_rules(stored) if rule.id == own), None)
        pause_s = AUDIT_S
        while True:
            await asyncio.sleep(pause_s)
            await self.look()
            pause_s = AGAIN_S if len(self._suspects) > len(self.findings) else AUDIT_S

    async def look(self) -> None:
        """Look once, and report when the answer changed."""
        instant, patience_s = self._instant(), self._patience_s()
        found = await self._tables.query(lambda connection: audit(connection, instant, patience_s))
        self.findings = tuple(finding for finding in found if finding.what in self._suspects)
        self._suspects = frozenset(finding.what for finding in found)
        self._looked_s = self._instant().mono_s
        if not found:
            self._was_in_order = True
        if not self.findings:
            self._fine_s = self._looked_s
        await self._tell()

    async def _tell(self) -> None:
        """Bounded: when the alarms are what hangs, the watchdog must still starve."""
        try:
            async with asyncio.timeout(REPORT_S):
                if self.findings and self._told is None:
                    names = ", ".join(finding.what for finding in self.findings[:5])
                    _log.error("overdue: %d, among them %s", len(self.findings), names)
                    rule = system_rule(Kind.LADDER_OVERDUE)
                    await self._report(rule, True, max(finding.late_s for finding in self.findings))
                    self._told = rule
                elif not self._suspects and self._told is not None:
                    _log.warning("nothing is overdue any more")
                    await self._report(self._told, False, None)
                    self._told = None
        except TimeoutError:
            _log.error("the alarm that something is overdue is not committed: the commits hang")


def audit(connection: sqlite3.Connection, at: Instant, patience_s: float = OVERDUE_S) -> list[Finding]:
    """Everything that is overdue at this moment, as the tables tell it. What cannot be read is overdue as well."""
    return [*_rungs(connection, at), *_messages(connection, at, patience_s)]


def _rungs(connection: sqlite3.Connection, at: Instant) -> Iterable[Finding]:
    for key, data in connection.execute("SELECT key, data FROM ladder_state"):
        try:
            ladder = json.loads(data)
            rungs, n = ladder["rungs"], ladder["climbed"]
            if ladder["paused"] or n >= len(rungs):
                continue
            passed_s = _since_s(ladder["t0"], at, wall_ms=ladder["t0_utc_ms"])
            late_s = passed_s - rungs[n]["at_s"]
        except (ValueError, KeyError, TypeError):
            yield Finding(what=f"ladder/{key}/?", late_s=OVERDUE_S)
            continue
        if late_s > OVERDUE_S:
            yield Finding(what=f"ladder/{key}/{n}", late_s=round(late_s, 1))


_UNHEARD = (
    "SELECT outbox.key, record.data FROM outbox JOIN record ON record.seq = outbox.seq"
    " WHERE outbox.failing = 0 AND outbox.state NOT IN ('ACCEPTED', 'DELIVERED', 'DEAD')"
)
_LONGEST_QUIET_S = 86_400.0
_MUST_ARRIVE = ("alarm.", "ladder.", "freeze.", "deviation.", "delivery.fallback")
"""Records whose lateness is recorded; answers to people and tests of the ways are of no use when they are late."""
_CLOSED = "SELECT 1 FROM alarm_state WHERE id = ? AND (occurrence > ? OR occurrence = ? AND state = 'NORM')"


def _messages(connection: sqlite3.Connection, at: Instant, patience_s: float) -> Iterable[Finding]:
    for key, data in connection.execute(_UNHEARD).fetchall():
        try:
            record = json.loads(data)
            late_s = _since_s(record["at"], at) - _quiet_s(record["body"], key)
            must = record["kind"].startswith(_MUST_ARRIVE) and not _is_over(connection, record["body"])
        except (ValueError, KeyError, TypeError):
            yield Finding(what=f"outbox/{key}", late_s=OVERDUE_S)
            continue
        if must and late_s > patience_s:
            yield Finding(what=f"outbox/{key}", late_s=round(late_s, 1))


def _quiet_s(body: Mapping[str, Any], key: str) -> float:
    """For how long a message is kept because its recipient sleeps; at most a day, whatever the record says."""
    said = [float(entry.get("hold_s", 0.0)) for entry in body.get("notify") or () if entry["key"] == key]
    return min(max(said, default=0.0), _LONGEST_QUIET_S)


def _is_over(connection: sqlite3.Connection, body: Mapping[str, Any]) -> bool:
    """Whether the alarm that a record is about is closed, or a test. What is about no alarm is not over."""
    alarm = body.get("alarm") or body.get("about")
    if alarm is None:
        return False
    if isinstance(alarm, Mapping) and alarm.get("is_test"):
        return True
    alarm_id, n = (alarm, body["occurrence"]) if isinstance(alarm, str) else (alarm["id"], alarm["occurrence"])
    return connection.execute(_CLOSED, (alarm_id, n, n)).fetchone() is not None


def _since_s(then: Mapping[str, Any], at: Instant, wall_ms: int | None = None) -> float:
    """Seconds since a stored moment: by the clock that never steps within one boot, else by the wall clock.

    After a boot no less has passed than the machine is up: also with a wall clock that is lost.
    """
    if then["boot"] == at.boot:
        return at.mono_s - then["mono"]
    stored_ms = utc_from_text(then["utc"]) if wall_ms is None else wall_ms
    return max(at.mono_s, (at.utc_ms - stored_ms) / 1000)
