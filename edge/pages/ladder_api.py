"""Ladders under way, freezes and deviation reports; the release of a freeze, the end of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from ...serving.people import Person, named
from ...serving.web import PERSON, body, signed_in
from ...words import now, utc_text
from ..ladders import reports
from ..ladders.climb import Climb
from ..ladders.deviation import CLOSED_BY
from ..ladders.freeze import Freeze
from ..not_recorded import not_recorded_json
from . import asked
from .parts import Ask

_REPORTS = 200


class LadderApi:
    """Handlers of `/api/v1/ladders`, `/api/v1/freezes` and `/api/v1/deviations`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        app.router.add_get("/api/v1/ladders", signed_in(self._ladders))
        app.router.add_post("/api/v1/freezes/{freeze:.+}/release", signed_in(self._release))
        app.router.add_post("/api/v1/deviations/{report:.+}/close", signed_in(self._close))

    async def _ladders(self, request: web.Request) -> web.Response:
        """Ladders by the time of their next step, freezes that hold first, reports that are open first."""
        parts, person = self._ask(), request[PERSON]
        climbs, freezes, deviations = await parts.journal.query(
            lambda c: (reports.climbs(c), reports.freezes(c), reports.deviations(c, _REPORTS))
        )
        instant = now()
        views = [reports.climb_view(climb, instant) for climb in climbs.values()]
        views.sort(key=lambda view: (view["next"] is None, (view["next"] or view)["at" if view["next"] else "since"]))
        return web.json_response(
            {
                "time": utc_text(instant.utc_ms),
                "ladders": views,
                "freezes": [_freeze_view(freeze, parts.site.people, person) for freeze in freezes[:_REPORTS]],
                "deviations": [_report_view(report, freezes, parts.site.people, person) for report in deviations],
            }
        )

    async def _release(self, request: web.Request) -> web.Response:
        fields = await body(request, {"reason": str})
        freeze_id, person, parts = request.match_info["freeze"], request[PERSON], self._ask()
        await parts.acting.release(person, freeze_id, asked.reason(fields, "reason"))
        freezes = await parts.journal.query(reports.freezes)
        views = [_freeze_view(freeze, parts.site.people, person) for freeze in freezes if freeze.id == freeze_id]
        mark = not_recorded_json(parts.journal)
        return web.json_response({"freeze": views[0] if views else None, "not_recorded": mark})

    async def _close(self, request: web.Request) -> web.Response:
        fields = await body(request, {"cause": str, "measure": str})
        report_id, person, parts = request.match_info["report"], request[PERSON], self._ask()
        parts.check_sign_off()
        cause, measure = asked.reason(fields, "cause"), asked.reason(fields, "measure")
        await parts.acting.close_deviation(person, report_id, cause, measure)
        freezes, found = await parts.journal.query(
            lambda c: (reports.freezes(c), [one for one in reports.deviations(c) if one["id"] == report_id])
        )
        views = [_report_view(report, freezes, parts.site.people, person) for report in found]
        return web.json_response({"deviation": views[0] if views else None})


def _report_view(
    report: Mapping[str, Any], freezes: Iterable[Freeze], people: Mapping[str, Person], person: Person
) -> dict[str, Any]:
    """`mine`: the person who asks may close it; `frozen`: its work must be released before."""
    closed, work = report["closed"], f"freeze/{Climb.key_of(report['subject'])}"
    if closed is not None:
        who = named(people, closed["person"])
        closed = {**closed, "name": who["name"], "name_en": who["name_en"]}
    frozen = any(freeze.released is None and freeze.id == work for freeze in freezes)
    mine = bool(set(CLOSED_BY) & set(person.roles))
    return {**report, "closed": closed, "by": list(CLOSED_BY), "mine": mine, "frozen": frozen}


def _freeze_view(freeze: Freeze, people: Mapping[str, Person], person: Person) -> dict[str, Any]:
    """`mine`: the person who asks may release it."""
    released = freeze.released
    if released is not None:
        who = named(people, released["person"])
        released = {**released, "name": who["name"], "name_en": who["name_en"]}
    return {**freeze.to_json(), "released": released, "mine": bool(set(freeze.by) & set(person.roles))}
