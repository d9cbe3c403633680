"""Records of what became of deliveries, and where a message goes next. Pure.

`delivery.accepted`, `delivery.delivered`, `delivery.failing`, `delivery.fallback` and `delivery.dead` are records: they
decide what the table holds. Attempts that failed are not; they stand in the delivery log alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...sync.journal import Draft
from ...words import Instant
from .port import Sent
from .rows import Row, Way, is_unreached, next_way, other_key

Ways = Callable[[Mapping[str, Any], str], Sequence[str]]
"""`ways(facts, person)`: that person's channels for a message, the best first."""

WHY = {
    "closed": "the alarm was closed before",
    "acked": "acknowledged before",
    "released": "released before",
    "told": "told on another channel that it is over",
    "old": "too old",
    "newer": "a newer reminder says the same",
    "no_channel": "the channel is no longer in site.toml",
    "no_way": "no channel reaches this person",
}
LATE = "not accepted in time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt that a channel answered. `combined`: keys of the rows that told both at once."""

    batch: str
    at: Instant
    sent: Sent
    combined: frozenset[str] = frozenset()


def facts_of(row: Row) -> dict[str, Any]:
    """What `Ways` may know of a message."""
    return {**row.body, "kind": row.kind, "role": row.role}


def arrived(row: Row, attempt: Attempt, now: Instant) -> Draft:
    """`delivery.accepted`, or `delivery.delivered` when nothing more will come."""
    sent = attempt.sent
    more = {**_attempted(row, attempt), "receipt": sent.receipt, "combined": row.key in attempt.combined}
    return _draft(row, f"delivery.{sent.outcome.value}", now, more)


def proven(row: Row, detail: str, now: Instant) -> Draft:
    """The proof of an accepted message has come."""
    return _draft(row, "delivery.delivered", now, {"detail": detail})


def dead(row: Row, why: str, now: Instant) -> Draft:
    """The row ends without a delivery."""
    return _draft(row, "delivery.dead", now, {"why": why, "error": WHY[why]})


def refused(row: Row, attempt: Attempt, now: Instant) -> Draft:
    """The channel will never take this message."""
    more = {**_attempted(row, attempt), "why": "refused", "error": attempt.sent.detail}
    return _draft(row, "delivery.dead", now, more)


@dataclass(slots=True)
class Onward:
    """Where messages go next, for rows that are judged at the same time.

    Args:
        used: on which channels each message to each person went, by number of the message and person.
        ways: of each person.
        live: ids of the channels that there are.
    """

    used: dict[tuple[int, str], list[Way]]
    ways: Ways
    live: Collection[str]
    now: Instant
    drafts: list[Draft] = field(default_factory=list[Draft])

    def fall(self, row: Row, error: str) -> bool:
        """Open a row on each recipient's next way. Whether there was one."""
        entries: list[dict[str, Any]] = []
        for person in row.persons:
            used = self.used[row.message, person]
            channel = next_way(self.ways(facts_of(row), person), used, self.live)
            if channel:
                used.append(Way(channel=channel, state="PENDING", failing=False))
                entries.append(_entry(row, person, channel))
        row.fell, row.no_way = bool(entries), not entries
        if entries:
            more = {"error": error, "to": [entry["channel"] for entry in entries], "notify": entries}
            self.drafts.append(_draft(row, "delivery.fallback", self.now, more))
        return bool(entries)

    def fail(self, row: Row, error: str) -> None:
        """It is late: record so, and whether nothing is left for somebody."""
        row.failing = True
        self._set(row, failing=True)
        self._failing(row, error, self._unreached(row))

    def lose(self, row: Row, error: str) -> None:
        """Its channel will not do it: go on at once; record when nothing is left for somebody."""
        self._set(row, state="DEAD")
        opened = not row.fell and self.fall(row, error)
        if not opened and (unreached := self._unreached(row)):
            self._failing(row, error, unreached)

    def doubt(self, row: Row, error: str) -> None:
        """It was accepted, and the proof is missing: go on, the row itself is not sent again."""
        self._set(row, state="ACCEPTED", failing=True)
        if not row.fell:
            self.fall(row, error)
        self._failing(row, error, self._unreached(row))

    def _failing(self, row: Row, error: str, unreached: list[str]) -> None:
        row.unreached = tuple(unreached)
        more = {"error": error, "all_ways": bool(unreached), "unreached": unreached}
        self.drafts.append(_draft(row, "delivery.failing", self.now, more))

    def _unreached(self, row: Row) -> list[str]:
        return [person for person in row.persons if is_unreached(self.used[row.message, person])]

    def _set(self, row: Row, **changes: Any) -> None:
        for person in row.persons:
            used = self.used[row.message, person]
            used[:] = [replace(way, **changes) if way.channel == row.channel else way for way in used]


def _entry(row: Row, person: str, channel: str) -> dict[str, Any]:
    """The same message on another channel: the key is made of the first row's key, so it is opened once."""
    return {
        "key": other_key(row.origin if row.person else f"{row.origin}\0{person}", channel),
        "person": person,
        "role": row.role,
        "channel": channel,
        "step": row.step,
        "kind": row.kind,
    }


def _attempted(row: Row, attempt: Attempt) -> dict[str, Any]:
    sent = attempt.sent
    return {
        "n": row.attempts + 1,
        "sent": attempt.at.to_json()["utc"],
        "outcome": sent.outcome.value,
        "detail": sent.detail,
        "batch": attempt.batch,
    }


def _draft(row: Row, kind: str, now: Instant, more: Mapping[str, Any]) -> Draft:
    body: dict[str, Any] = {
        "key": row.key,
        "kind": row.kind,
        "person": row.person,
        "role": row.role,
        "channel": row.channel,
        "about": row.about,
        "occurrence": row.occurrence,
        "priority": row.priority,
        "attempts": row.attempts + ("n" in more),
    }
    return Draft(kind=kind, at=now, actor="gateway", body={**body, **more})
