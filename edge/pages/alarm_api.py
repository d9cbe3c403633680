"""The alarm list and what people do to an alarm: acknowledge, reset, shelve, take out of service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from ...serving.web import PERSON, body, signed_in
from ...words import Instant, now
from ..alarms.machine import State
from ..alarms.overlay import Overlay, OverlayKind
from ..alarms.table import stored_alarms
from ..ladders import reports
from ..ladders.climb import Climb
from ..not_recorded import not_recorded_json
from . import asked
from .alarm_view import alarm_view
from .parts import Ask

_MOST_MINUTES = 1_000_000  # longer than any shelf may last; an integer of JSON has no end


class AlarmApi:
    """Handlers under `/api/v1/alarms`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        app.router.add_get("/api/v1/alarms", signed_in(self._open))
        for verb, handler in (
            ("ack", self._acknowledge),
            ("reset", self._reset),
            ("shelve", self._shelve),
            ("unshelve", self._unshelve),
            ("out-of-service", self._take_out),
            ("in-service", self._put_back),
        ):
            app.router.add_post(f"/api/v1/alarms/{{alarm}}/{verb}", signed_in(handler))
        app.router.add_post("/api/v1/silence", signed_in(self._silence))

    async def _open(self, request: web.Request) -> web.Response:
        """`alarms`: in alarm. `covered`: not in alarm, and nobody would be told if they were.

        `stands_in_for`: who is away, and in whose roles the person who asks may act now.
        """
        parts = self._ask()
        seq = parts.journal.head()[0]
        stored, climbs = await parts.journal.query(lambda c: (stored_alarms(c), reports.climbs(c)))
        instant, people, knows = now(), parts.site.people, parts.acting.knows
        views = [
            {**alarm_view(alarm, people), "ladder": _ladder(alarm, climbs, instant)}
            for alarm in sorted(stored.values(), key=lambda alarm: alarm["rev"], reverse=True)
            if alarm["state"] != State.NORM.value or alarm.get("overlay")
        ]
        live = [view for view in views if view["state"] != State.NORM.value]
        covered = [view for view in views if view["state"] == State.NORM.value and knows(view["id"])]
        others = [one.to_json() for one in parts.site.roster.stands_in_for(request[PERSON].id, instant)]
        return web.json_response({"alarms": live, "covered": covered, "seq": seq, "stands_in_for": others})

    async def _acknowledge(self, request: web.Request) -> web.Response:
        fields = await body(request, {"occurrence": int, "role": (str, type(None))})
        alarm_id, person = request.match_info["alarm"], request[PERSON]
        await self._ask().acting.acknowledge(person, alarm_id, fields["occurrence"], fields["role"])
        return await self._answer(alarm_id)

    async def _reset(self, request: web.Request) -> web.Response:
        fields = await body(request, {"occurrence": int})
        alarm_id, person = request.match_info["alarm"], request[PERSON]
        await self._ask().acting.reset(person, alarm_id, fields["occurrence"])
        return await self._answer(alarm_id)

    async def _shelve(self, request: web.Request) -> web.Response:
        kinds: dict[str, Any] = {
            "occurrence": (int, type(None)),
            "minutes": (int, float),
            "why": str,
            "one_shot": (bool, type(None)),
        }
        fields = await body(request, kinds)
        why, one_shot = asked.reason(fields, "why"), bool(fields["one_shot"])

        def overlay(who: str, at: Instant) -> Overlay:
            for_s = min(fields["minutes"], _MOST_MINUTES) * 60.0
            return Overlay(kind=OverlayKind.SHELVED, who=who, why=why, since=at, for_s=for_s, one_shot=one_shot)

        return await self._cover(request, overlay, fields["occurrence"])

    async def _take_out(self, request: web.Request) -> web.Response:
        fields = await body(request, {"permit": str, "why": str})
        why, permit = asked.reason(fields, "why"), asked.reason(fields, "permit")

        def overlay(who: str, at: Instant) -> Overlay:
            return Overlay(kind=OverlayKind.OUT_OF_SERVICE, who=who, why=why, since=at, permit=permit)

        return await self._cover(request, overlay)

    async def _unshelve(self, request: web.Request) -> web.Response:
        return await self._uncover(request, OverlayKind.SHELVED)

    async def _put_back(self, request: web.Request) -> web.Response:
        return await self._uncover(request, OverlayKind.OUT_OF_SERVICE)

    async def _cover(
        self, request: web.Request, overlay: Callable[[str, Instant], Overlay], occurrence: int | None = None
    ) -> web.Response:
        alarm_id, person = request.match_info["alarm"], request[PERSON]
        await self._ask().acting.cover(person, alarm_id, lambda at: overlay(person.id, at), occurrence)
        return await self._answer(alarm_id)

    async def _uncover(self, request: web.Request, kind: OverlayKind) -> web.Response:
        await body(request, {})
        alarm_id = request.match_info["alarm"]
        await self._ask().acting.uncover(request[PERSON], alarm_id, kind)
        return await self._answer(alarm_id)

    async def _silence(self, request: web.Request) -> web.Response:
        """`silenced`: ids of the alarms that sounded in the person's areas. Nothing is acknowledged by it."""
        await body(request, {})
        parts = self._ask()
        silenced = list(parts.silence(request[PERSON]))
        return web.json_response({"silenced": silenced, "not_recorded": not_recorded_json(parts.journal)})

    async def _answer(self, alarm_id: str) -> web.Response:
        """The alarm as it was committed; `not_recorded`: in memory alone, since when."""
        parts = self._ask()
        stored = await parts.journal.query(stored_alarms)
        mark = not_recorded_json(parts.journal)
        return web.json_response({"alarm": alarm_view(stored[alarm_id], parts.site.people), "not_recorded": mark})


def _ladder(alarm: dict[str, Any], climbs: dict[str, Climb], instant: Instant) -> dict[str, Any] | None:
    subject = {"kind": "alarm", "id": alarm["id"], "occurrence": alarm["occurrence"]}
    climb = climbs.get(Climb.key_of(subject))
    return reports.climb_view(climb, instant) if climb is not None else None
