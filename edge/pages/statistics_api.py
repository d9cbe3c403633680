"""The numbers that ISA-18.2 and EEMUA 191 ask of an alarm system, per operating position, with their definitions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web

from ...errors import RefusedError
from ...serving.web import signed_in
from ...sync.journal import Journal
from ...words import now, utc_text
from ..alarms import load
from ..alarms.history_query import events_within, names_of, open_before, span
from ..alarms.statistics import DAY_MS, DEFINITIONS, PERIOD_MS, Event, Statistics, count
from ..positions import CONTROL_ROOM, positions
from ..site import Site
from . import asked, csv_file
from .csv_words import STATISTICS_HEADER, statistics_rows
from .parts import Ask

_USUAL_DAYS = 30
_MOST_DAYS = 366


class StatisticsApi:
    """Handlers of `/api/v1/alarms/statistics` and `…/statistics.csv`. One is counted at a time."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._counting = asyncio.Lock()

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        app.router.add_get("/api/v1/alarms/statistics", signed_in(self._numbers))
        app.router.add_get("/api/v1/alarms/statistics.csv", signed_in(self._export))

    async def _numbers(self, request: web.Request) -> web.Response:
        return web.json_response(await self._answer(request))

    async def _export(self, request: web.Request) -> web.StreamResponse:
        answer = await self._answer(request)
        response = await csv_file.begin(request, "alarm-statistics", STATISTICS_HEADER)
        await response.write(csv_file.lines(statistics_rows(answer)))
        await response.write_eof()
        return response

    async def _answer(self, request: web.Request) -> dict[str, Any]:
        from_ms, to_ms = _time(request)
        parts = self._ask()
        known = positions(parts.site.areas)
        position = asked.line(request, "position")
        if position and position not in known:
            hint = f"known: {', '.join(known)}"
            raise RefusedError("no_such_position", f"there is no position {position!r}", hint=hint)
        async with self._counting:
            events = await _events(parts.journal, parts.site, from_ms, to_ms)
            counted = await asyncio.to_thread(
                lambda: [_count(events, one, from_ms, to_ms) for one in ([position] if position else known)]
            )
        alarms = sorted({alarm for one in counted for alarm in one.pop("named")})
        return {
            "from": utc_text(from_ms),
            "to": utc_text(to_ms),
            "period_s": PERIOD_MS // 1000,
            "definitions": {key: asdict(definition) for key, definition in DEFINITIONS.items()},
            "priority_goals": {str(priority): goal for priority, goal in load.PRIORITY_GOALS.items()},
            "known_positions": list(known),
            "positions": counted,
            "names": await parts.journal.query(lambda c: names_of(c, alarms)),
        }


async def _events(journal: Journal, site: Site, from_ms: int, to_ms: int) -> list[Event]:
    """Everything that counts: of the time, and what was open at its begin. Read in chunks."""
    of_area = {area.id: area.position for area in site.areas}

    def position(area: str) -> str:
        return of_area.get(area, CONTROL_ROOM)

    found = await journal.query(lambda c: open_before(c, from_ms, position))
    within = await journal.query(lambda c: span(c, from_ms, to_ms))
    after: int | None = 0
    while after is not None:
        more, after = await journal.query(lambda c, n=after: events_within(c, from_ms, to_ms, within, n, position))
        found += more
    return found


def _count(events: Sequence[Event], position: str, from_ms: int, to_ms: int) -> dict[str, Any]:
    """As the API answers; `named` are the alarms that it mentions."""
    found: Statistics = count(events, position, from_ms, to_ms)
    storms = load.floods(events, position, from_ms, to_ms)
    mentioned = {alarm for alarm, _ in found.top} | {flood.first_out for flood in storms}
    return {
        **found.to_json(),
        "verdicts": {key: verdict.value for key, verdict in load.verdicts(found).items()},
        "profile": list(load.profile(events, position, from_ms, to_ms)),
        "flood_list": [flood.to_json() for flood in storms],
        "named": mentioned | set(found.chattering) | set(found.standing),
    }


def _time(request: web.Request) -> tuple[int, int]:
    to_ms = asked.moment_ms(request, "to")
    to_ms = now().utc_ms if to_ms is None else to_ms
    from_ms = asked.moment_ms(request, "from")
    from_ms = to_ms - _USUAL_DAYS * DAY_MS if from_ms is None else from_ms
    if not from_ms < to_ms <= from_ms + _MOST_DAYS * DAY_MS:
        raise RefusedError("bad_request", f"from, to: must be a time of at most {_MOST_DAYS} days")
    return from_ms, to_ms
