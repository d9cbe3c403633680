"""Handlers of `/api/v1` on the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
from aiohttp import web

from ...errors import RefusedError
from ...serving.live import encode, stream
from ...serving.web import PERSON, body, signed_in, still_signed_in
from ...sync.journal import Record
from ...words import now, utc_text
from ..alarms.table import alarm_events_after
from ..metas import PointMeta
from ..outputs import OutputError
from ..pauses import in_slices
from ..site import Site
from ..values import reading_view
from . import asked
from .alarm_api import AlarmApi
from .alarm_view import alarm_view
from .chart_api import ChartApi
from .delivery_api import DeliveryApi
from .history_api import HistoryApi
from .ladder_api import LadderApi
from .notice_api import NoticeApi
from .parts import Parts
from .proof_api import ProofApi
from .statistics_api import StatisticsApi

OUTPUT_ROLES = ("officer", "control_room", "admin")
RELOAD_ROLES = ("it", "admin")
REPLAY_AT_ONCE = 500
_TREND_SAMPLES = 600
_STATUS_EVERY_S = 5.0
_CLIMBING = ("ladder.", "freeze.", "deviation.")


class Pages:
    """The gateway's API. `add_to` registers the routes; `live` must run in a task."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._points = {meta.point.id: meta for meta in parts.site.points}
        self._changed = parts.values.cursor()
        parts.journal.subscribe(self._committed)

    def now(self) -> Parts:
        """The parts as they are now, for handlers that are registered beside these."""
        return self._parts

    def change(self, site: Site) -> None:
        """Show another site from now on."""
        self._parts = replace(self._parts, site=site)
        self._points = {meta.point.id: meta for meta in site.points}

    def tell_of_site(self) -> None:
        """Tell open pages that the site is another one: they ask for it again."""
        self._parts.hub.send("site", {"revision": self._parts.site.revision})

    def has_written(self, seq: int) -> bool | None:
        """Whether every open page was sent the event of this record; None: no page is open."""
        return self._parts.hub.has_written(seq)

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        router = app.router
        for path, handler in (
            ("site", self._site),
            ("points", self._all_points),
            ("points/{point}/trend", self._trend),
            ("status", self._status),
            ("live", self._live),
            ("outputs", self._outputs),
        ):
            router.add_get(f"/api/v1/{path}", signed_in(handler))
        router.add_post("/api/v1/outputs/{output}", signed_in(self._set_output))
        router.add_post("/api/v1/config/reload", signed_in(self._reload))
        for api in (AlarmApi, ChartApi, HistoryApi, StatisticsApi, LadderApi, DeliveryApi, ProofApi, NoticeApi):
            api(lambda: self._parts).add_to(app)

    async def live(self) -> None:
        """Send changed values once a second and the status every five, for ever."""
        turn = 0
        while True:
            await asyncio.sleep(1.0)
            changed = list(self._changed)
            self._changed.clear()
            if changed and len(self._parts.hub):
                self._parts.hub.send("values", b'{"points": %b}' % await self._views(changed))
            turn += 1
            if turn % _STATUS_EVERY_S == 0 and len(self._parts.hub):
                self._parts.hub.send("status", self._parts.status())

    def _committed(self, records: list[Record]) -> None:
        for record in records:
            if record.kind.startswith("alarm."):
                alarm = self._view({**record.body["alarm"], "rev": record.seq})
                self._parts.hub.send("alarm", {"kind": record.kind, "alarm": alarm}, seq=record.seq)
            elif record.kind.startswith("proof."):
                body = {name: value for name, value in record.body.items() if name != "notify"}
                self._parts.hub.send("proof", {"kind": record.kind, **body}, seq=record.seq)
        for told, kinds in (("ladders", _CLIMBING), ("deliveries", ("delivery.",))):
            newest = max((record.seq for record in records if record.kind.startswith(kinds)), default=0)
            if newest:
                self._parts.hub.send(told, {"seq": newest})

    async def _views(self, points: list[str]) -> bytes:
        """Of the newest readings, a JSON list. Alarms are announced in between: thousands take a while."""
        made: list[bytes] = []
        async for some in in_slices(points):
            instant = now()
            readings = [self._parts.values.get(point) for point in some if point in self._points]
            views = [reading_view(reading, instant) for reading in readings if reading is not None]
            if views:
                made.append(msgspec.json.encode(views)[1:-1])
        return b"[%b]" % b",".join(made)

    def _view(self, alarm: dict[str, Any]) -> dict[str, Any]:
        return alarm_view(alarm, self._parts.site.people)

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
        points = await self._views(list(self._points))
        text = b'{"ts": "%b", "points": %b}' % (utc_text(now().utc_ms).encode(), points)
        return web.Response(body=text, content_type="application/json", charset="utf-8")

    async def _trend(self, request: web.Request) -> web.Response:
        point = request.match_info["point"]
        minutes = asked.number(request, "minutes", default=30, low=1, high=60 * 24 * 31)
        t1_ms = now().utc_ms
        samples = await self._parts.history.trend(point, t1_ms - minutes * 60_000, t1_ms, _TREND_SAMPLES)
        if not samples and point not in self._points:  # what was measured stays readable when the device is gone
            raise RefusedError("no_such_point", f"there is no point {point!r}")
        return web.json_response({"id": point, "samples": [[sample[0], sample[1]] for sample in samples]})

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(self._parts.status())

    async def _outputs(self, _: web.Request) -> web.Response:
        return web.json_response({"outputs": await self._parts.outputs.views()})

    async def _set_output(self, request: web.Request) -> web.Response:
        fields = await body(request, {"state": str})
        person, meta = request[PERSON], self._parts.outputs.meta(request.match_info["output"])
        asked.require_role(person, OUTPUT_ROLES)
        asked.require_area(person, meta.area)
        try:
            await self._parts.outputs.set(meta.id, fields["state"], person.id, person.id)
        except OutputError as error:
            told = {"reason": error.why, "message": error.message, "hint": error.hint}
            return web.json_response({"error": told}, status=502)
        return web.json_response({"state": fields["state"]})

    async def _reload(self, request: web.Request) -> web.Response:
        await body(request, {})
        person = request[PERSON]
        asked.require_role(person, RELOAD_ROLES)
        outcome = await self._parts.reload(person.id, person.id)
        return web.json_response(outcome.to_json(), status=422 if outcome.problems else 200)

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
                data = {"kind": event["kind"], "alarm": self._view(event["alarm"])}
                yield encode("alarm", data, seq=event["seq"])
        yield encode("values", b'{"points": %b}' % await self._views(list(self._points)))
        yield encode("status", self._parts.status())

    async def _events_after(self, after: int) -> AsyncIterator[dict[str, Any]]:
        journal = self._parts.journal
        while events := await journal.query(lambda c, n=after: alarm_events_after(c, n, REPLAY_AT_ONCE)):
            for event in events:
                yield event
            after = events[-1]["seq"]


def _point_json(meta: PointMeta) -> dict[str, Any]:
    return {**meta.to_json(), "decimals": meta.point.decimals}
