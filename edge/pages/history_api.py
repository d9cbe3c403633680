"""The alarm history: pages of it by filter, and the same as CSV."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ...errors import RefusedError
from ...serving.people import Person, named
from ...serving.web import signed_in
from ...sync.journal import Journal
from ..alarms.history_query import NEVER, Wanted, Way, search, span
from . import asked, csv_file
from .alarm_view import alarm_view
from .csv_words import HISTORY_HEADER, history_row
from .parts import Ask

AT_ONCE = 500
"""Events that are read for one part of an export."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cursor:
    way: Way
    seq: int


class HistoryApi:
    """Handlers of `/api/v1/alarms/history` and `…/history.csv`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        app.router.add_get("/api/v1/alarms/history", signed_in(self._page))
        app.router.add_get("/api/v1/alarms/history.csv", signed_in(self._export))

    async def _page(self, request: web.Request) -> web.Response:
        """Newest first. `older`, `newer`: the cursor of the page on that side, None where there is nothing more."""
        limit = asked.number(request, "limit", default=100, low=1, high=500)
        wanted, cursor = _wanted(request), _cursor(request)
        parts = self._ask()
        found: list[dict[str, Any]] = []
        async with aclosing(_events(parts.journal, wanted, cursor, limit + 1)) as events:
            async for event in events:
                found.append(event)
                if len(found) > limit:
                    break
        page, more = found[:limit], len(found) > limit
        if cursor.way is Way.NEWER:
            page.reverse()
        older = bool(page) and (more if cursor.way is Way.OLDER else True)
        newer = bool(page) and (more if cursor.way is Way.NEWER else cursor.seq < NEVER)
        people = parts.site.people
        return web.json_response(
            {
                "events": [_view(event, people) for event in page],
                "older": page[-1]["seq"] if older else None,
                "newer": page[0]["seq"] if newer else None,
            }
        )

    async def _export(self, request: web.Request) -> web.StreamResponse:
        """Oldest first, everything that is committed now."""
        wanted, parts = _wanted(request), self._ask()
        last = parts.journal.head()[0]
        areas = {area.id: area.name for area in parts.site.areas}
        people, timezone = parts.site.people, parts.site.site.timezone
        response = await csv_file.begin(request, "alarm-history", HISTORY_HEADER)
        rows: list[list[object]] = []
        async with aclosing(_events(parts.journal, wanted, _Cursor(way=Way.NEWER, seq=0), AT_ONCE)) as events:
            async for event in events:
                if event["seq"] > last:
                    break
                rows.append(history_row(_view(event, people), areas, timezone))
                if len(rows) >= AT_ONCE:
                    await response.write(csv_file.lines(rows))
                    rows.clear()
        await response.write(csv_file.lines(rows))
        await response.write_eof()
        return response


async def _events(
    journal: Journal, wanted: Wanted, cursor: _Cursor, at_once: int
) -> AsyncGenerator[dict[str, Any], None]:
    """Everything that fits, from the cursor on; between two readings others get their turn."""
    within = await journal.query(lambda c: span(c, wanted.from_ms, wanted.to_ms))
    reached: int | None = cursor.seq
    while reached is not None:
        chunk = await journal.query(lambda c, at=reached: search(c, wanted, within, cursor.way, at, at_once))
        for event in chunk.events:
            yield event
        reached = chunk.reached


def _cursor(request: web.Request) -> _Cursor:
    before = asked.number(request, "before", default=NEVER, low=1, high=NEVER)
    after = asked.number(request, "after", default=-1, low=0, high=NEVER)
    if after >= 0 and before < NEVER:
        raise RefusedError("bad_request", "before and after: one of them", hint="before goes back, after goes forward")
    return _Cursor(way=Way.NEWER, seq=after) if after >= 0 else _Cursor(way=Way.OLDER, seq=before)


def _wanted(request: web.Request) -> Wanted:
    priorities = asked.words(request, "priority")
    for priority in priorities:
        if priority not in ("1", "2", "3", "4"):
            raise RefusedError("bad_request", f"priority: must be 1..4 (got {priority!r:.40})")
    return Wanted(
        from_ms=asked.moment_ms(request, "from"),
        to_ms=asked.moment_ms(request, "to"),
        areas=asked.words(request, "area"),
        points=asked.words(request, "point"),
        alarms=asked.words(request, "alarm"),
        priorities=tuple(map(int, priorities)),
        kinds=asked.words(request, "kind"),
        changes=asked.words(request, "change"),
        persons=asked.words(request, "person"),
        text=asked.line(request, "text"),
    )


def _view(event: Mapping[str, Any], people: Mapping[str, Person]) -> dict[str, Any]:
    who = named(people, event["actor"])
    alarm = alarm_view(event["alarm"], people)
    return {**event, "actor_name": who["name"], "actor_name_en": who["name_en"], "alarm": alarm}
