"""Retained MQTT topics of what stands for a while: a ladder under way (`alarm/<id>/ladder`), a freeze that holds
(`freeze/…`). They come and go, so the list of retained topics is kept before one is published: an end that the broker
does not hear of leaves nothing behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..sync.journal import Journal, Record
from ..words import utc_text
from .ladders.climb import Climb
from .ladders.table import stored_climbs, stored_freezes

_KINDS = ("ladder.", "freeze.", "clock.stepped")


class StandingTopics:
    """What is published in a session, and what changed since.

    Args:
        journal: whose tables hold what stands.
        note: keeps (True) or drops (False) topics in the list of what is retained.
    """

    def __init__(self, journal: Journal, note: Callable[[set[str], bool], Awaitable[None]]) -> None:
        self._journal = journal
        self._note = note
        self._told: dict[str, Any] = {}
        self._news = True
        journal.subscribe(self._committed)

    @property
    def topics(self) -> set[str]:
        """Published in this session and not emptied, without the base."""
        return set(self._told)

    def begin(self) -> None:
        """A new session: the broker may have lost everything."""
        self._told, self._news = {}, True

    async def publish(self, retain: Callable[[str, Any], Awaitable[None]]) -> None:
        """Publish what is new or has changed, empty what is over."""
        if not self._news:
            return
        self._news = False
        climbs = await self._journal.query(stored_climbs)
        freezes = await self._journal.query(lambda c: stored_freezes(c, only_holding=True))
        wanted = {f"alarm/{c.subject.id}/ladder": ladder_view(c) for c in climbs.values() if c.subject.kind == "alarm"}
        wanted |= {freeze_id: freeze.to_json() for freeze_id, freeze in freezes.items()}
        fresh, gone = wanted.keys() - self._told.keys(), self._told.keys() - wanted.keys()
        if fresh:
            await self._note(set(fresh), True)
            self._told |= dict.fromkeys(fresh)
        for topic, payload in wanted.items():
            if self._told[topic] != payload:
                await retain(topic, payload)
                self._told[topic] = payload
        for topic in gone:
            await retain(topic, None)
            del self._told[topic]
        if gone:
            await self._note(set(gone), False)

    def _committed(self, records: list[Record]) -> None:
        self._news = self._news or any(record.kind.startswith(_KINDS) for record in records)


def ladder_view(climb: Climb) -> dict[str, Any]:
    """A ladder for dashboards and pages: how it is shown now, and what comes next, and when.

    `at` is UTC by the wall clock as it is set now; null while the ladder is paused.
    """
    colour = next((r.colour.value for r in reversed(climb.rungs[: climb.climbed]) if r.colour), "")
    following = climb.next
    at = None if climb.paused or following is None else utc_text(climb.t0_utc_ms + round(following.at_s * 1000))
    return {
        "subject": climb.subject.to_json(),
        "plan": climb.plan,
        "since": utc_text(climb.t0_utc_ms),
        "climbed": climb.climbed,
        "of": len(climb.rungs),
        "colour": colour,
        "paused": climb.paused,
        "next": None if following is None else {**following.to_json(), "at": at},
    }
