"""Handlers of `/api/v1` on the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from ...errors import RefusedError
from ...serving.live import Hub, encode, stream
from ...serving.people import Person, named
from ...serving.web import PERSON, body, signed_in, still_signed_in
from ...sync.history import History
from ...sync.journal import Journal, Record
from ...words import now, utc_text
from ..acting import Acting
from ..alarms.machine import State
from ..alarms.table import alarm_events, alarm_events_after, stored_alarms
from ..metas import PointMeta
from ..outputs import OutputError, Outputs
from ..reloading import Outcome
from ..site import Site
from ..values import Values, reading_view

OUTPUT_ROLES = ("officer", "control_room", "admin")
RELOAD_ROLES = ("it", "admin")
REPLAY_AT_ONCE = 500
_MOST_DIGITS = 19
_TREND_SAMPLES = 600
_STATUS_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the handlers stand on. `reload` gets who asked, and the actor of the record."""

    site: Site
    journal: Journal
    history: History
    acting: Acting
    values: Values
    hub: Hub
    status: Callable[[], dict[str, Any]]
    outputs: Outputs
    reload: Callable[[str, str], Awaitable[Outcome]]


class Pages:
    """The gateway's API. `add_to` registers the routes; `live` must run in a task."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._points = {meta.point.id: meta for meta in parts.site.points}
        self._changed = parts.values.cursor()
        parts.journal.subscribe(self._committed)

    def change(self, site: Site) -> None:
        """Show another site from now on."""
        self._parts = replace(self._parts, site=site)
        self._points = {meta.point.id: meta for meta in site.points}

    def tell_of_site(self) -> None:
        """Tell open pages that the site is another one: they ask for it again."""
        self._parts.hub.send("site", {"revision": self._parts.site.revision})

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        router = app.router
        for path, handler in (
            ("site", self._site),
            ("points", self._all_points),
            ("points/{point}/trend", self._trend),
            ("alarms", self._alarms),
            ("alarms/history", self._alarm_history),
            ("status", self._status),
            ("live", self._live),
            ("outputs", self._outputs),
        ):
            router.add_get(f"/api/v1/{path}", signed_in(handler))
        router.add_post("/api/v1/alarms/{alarm}/ack", signed_in(self._acknowledge))
        router.add_post("/api/v1/alarms/{alarm}/reset", signed_in(self._reset))
        router.add_post("/api/v1/outputs/{output}", signed_in(self._set_output))
        router.add_post("/api/v1/config/reload", signed_in(self._reload))

    async def live(self) -> None:
        """Send changed values once a second and the status every five, for ever."""
        turn = 0
        while True:
            await asyncio.sleep(1.0)
            changed = list(self._changed)
            self._changed.clear()
            if changed and len(self._parts.hub):
                self._parts.hub.send("values", {"points": self._views(changed)})
            turn += 1
            if turn % _STATUS_EVERY_S == 0 and len(self._parts.hub):
                self._parts.hub.send("status", self._parts.status())

    def _committed(self, records: list[Record]) -> None:
        for record in records:
            if record.kind.startswith("alarm."):
                alarm = self._named({**record.body["alarm"], "rev": record.seq})
                self._parts.hub.send("alarm", {"kind": record.kind, "alarm": alarm}, seq=record.seq)

    def _views(self, points: list[str]) -> list[dict[str, Any]]:
        instant = now()
        readings = (self._parts.values.get(point) for point in points if point in self._points)
        return [reading_view(reading, instant) for reading in readings if reading is not None]

    def _named(self, alarm: Mapping[str, Any]) -> dict[str, Any]:
        """Put today's names beside the person ids of the record."""
        people = self._parts.site.people
        acks = [{**ack, **named(people, ack["person"])} for ack in alarm.get("acks", ())]
        return {**alarm, "acks": acks}

    async def _site(self, _: web.Request) -> web.Response:
        site = self._parts.site
        areas = [
            {
                "id": area.id,
                "name": area.name,
                "name_en": area.name_en,
                "points": [_point_json(meta) for meta in site.points if meta.area == area.id],
            }
            for area in site.areas
        ]
        names = {"id": site.site.id, "name": site.site.name, "name_en": site.site.name_en}
        version = self._parts.status()["version"]
        return web.json_response(
            {
                "site": names,
                "gateway": {"id": site.gateway.id, "version": version},
                "revision": site.revision,
                "areas": areas,
            }
        )

    async def _all_points(self, _: web.Request) -> web.Response:
        return web.json_response({"ts": utc_text(now().utc_ms), "points": self._views(list(self._points))})

    async def _trend(self, request: web.Request) -> web.Response:
        point = request.match_info["point"]
        minutes = _number(request, "minutes", default=30, low=1, high=60 * 24 * 31)
        t1_ms = now().utc_ms
        samples = await self._parts.history.trend(point, t1_ms - minutes * 60_000, t1_ms, _TREND_SAMPLES)
        if not samples and point not in self._points:  # what was measured stays readable when the device is gone
            raise RefusedError("no_such_point", f"there is no point {point!r}")
        return web.json_response({"id": point, "samples": [[sample[0], sample[1]] for sample in samples]})

    async def _alarms(self, _: web.Request) -> web.Response:
        seq = self._parts.journal.head()[0]
        stored = await self._parts.journal.query(stored_alarms)
        live = [self._named(alarm) for alarm in stored.values() if alarm["state"] != State.NORM.value]
        live.sort(key=lambda alarm: alarm["rev"], reverse=True)
        return web.json_response({"alarms": live, "seq": seq})

    async def _alarm_history(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", default=100, low=1, high=500)
        before = _number(request, "before", default=2**62, low=1, high=2**62)
        events = await self._parts.journal.query(lambda c: alarm_events(c, before=before, limit=limit))
        return web.json_response({"events": [self._event(event) for event in events]})

    def _event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        who = named(self._parts.site.people, event["actor"])
        return {**event, "actor_name": who["name"], "alarm": self._named(event["alarm"])}

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(self._parts.status())

    async def _acknowledge(self, request: web.Request) -> web.Response:
        fields = await body(request, {"occurrence": int, "role": (str, type(None))})
        alarm_id, person = request.match_info["alarm"], request[PERSON]
        await self._parts.acting.acknowledge(person, alarm_id, fields["occurrence"], fields["role"])
        return await self._answer(alarm_id)

    async def _reset(self, request: web.Request) -> web.Response:
        fields = await body(request, {"occurrence": int})
        alarm_id, person = request.match_info["alarm"], request[PERSON]
        await self._parts.acting.reset(person, alarm_id, fields["occurrence"])
        return await self._answer(alarm_id)

    async def _outputs(self, _: web.Request) -> web.Response:
        return web.json_response({"outputs": await self._parts.outputs.views()})

    async def _set_output(self, request: web.Request) -> web.Response:
        fields = await body(request, {"state": str})
        person, meta = request[PERSON], self._parts.outputs.meta(request.match_info["output"])
        _require(person, OUTPUT_ROLES)
        if not person.answers_for(meta.area):
            hint = "call the person who answers for this area"
            raise RefusedError("not_your_area", f"{person.id} does not answer for {meta.area}", hint=hint)
        try:
            await self._parts.outputs.set(meta.id, fields["state"], person.id, person.id)
        except OutputError as error:
            told = {"reason": error.why, "message": error.message, "hint": error.hint}
            return web.json_response({"error": told}, status=502)
        return web.json_response({"state": fields["state"]})

    async def _reload(self, request: web.Request) -> web.Response:
        await body(request, {})
        person = request[PERSON]
        _require(person, RELOAD_ROLES)
        outcome = await self._parts.reload(person.id, person.id)
        return web.json_response(outcome.to_json(), status=422 if outcome.problems else 200)

    async def _answer(self, alarm_id: str) -> web.Response:
        stored = await self._parts.journal.query(stored_alarms)
        return web.json_response({"alarm": self._named(stored[alarm_id])})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        last = request.headers.get("Last-Event-ID", "")
        with self._parts.hub.listening() as listener:
            after = int(last) if last.isdecimal() and len(last) < 18 else None
            return await stream(request, listener, self._greeting(after), lambda: still_signed_in(request))

    async def _greeting(self, after: int | None) -> AsyncIterator[bytes]:
        journal = self._parts.journal
        yield encode("hello", {"seq": journal.head()[0], "time": utc_text(now().utc_ms)})
        if after is not None:
            async for event in self._events_after(after):
                data = {"kind": event["kind"], "alarm": self._named(event["alarm"])}
                yield encode("alarm", data, seq=event["seq"])
        yield encode("values", {"points": self._views(list(self._points))})
        yield encode("status", self._parts.status())

    async def _events_after(self, after: int) -> AsyncIterator[dict[str, Any]]:
        journal = self._parts.journal
        while events := await journal.query(lambda c, n=after: alarm_events_after(c, n, REPLAY_AT_ONCE)):
            for event in events:
                yield event
            after = events[-1]["seq"]


def _require(person: Person, roles: tuple[str, ...]) -> None:
    if not set(roles) & set(person.roles):
        raise RefusedError("not_your_role", f"{person.id} is none of {', '.join(roles)}", hint="call a person who is")


def _point_json(meta: PointMeta) -> dict[str, Any]:
    return {**meta.to_json(), "decimals": meta.point.decimals}


def _number(request: web.Request, name: str, *, default: int, low: int, high: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isdecimal() and len(text) <= _MOST_DIGITS and low <= int(text) <= high):
        raise RefusedError("bad_request", f"{name}: must be {low}..{high} (got {text!r:.40})")
    return int(text)
