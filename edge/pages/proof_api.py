"""The proof test: begin one, and what came of the last ones."""

from __future__ import annotations

from aiohttp import web

from ...serving.people import named
from ...serving.web import PERSON, body, signed_in
from ..proving import point_to_test, proof_view
from . import asked
from .parts import Ask

ROLES = ("officer", "control_room", "admin")
_MOST_RUNS = 100


class ProofApi:
    """Handlers of `/api/v1/proof`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        app.router.add_get("/api/v1/proof", signed_in(self._runs))
        app.router.add_post("/api/v1/proof", signed_in(self._begin))

    async def _runs(self, request: web.Request) -> web.Response:
        """The newest runs with their steps, newest first; `mine`: the person who asks may begin one."""
        parts, person = self._ask(), request[PERSON]
        limit = asked.number(request, "limit", default=20, low=1, high=_MOST_RUNS)
        view = await proof_view(parts.site, parts.journal, parts.proof, limit)
        for run in view["runs"]:
            run["by_name"] = named(parts.site.people, run["by"])
            for step in run["steps"]:
                step |= {f"person_{key}": name for key, name in named(parts.site.people, step["person"]).items()}
        return web.json_response({**view, "mine": bool(set(ROLES) & set(person.roles))})

    async def _begin(self, request: web.Request) -> web.Response:
        fields, parts, person = await body(request, {"point": (str, type(None))}), self._ask(), request[PERSON]
        asked.require_role(person, ROLES)
        point = point_to_test(parts.site, fields["point"])
        area = next((meta.area for meta in parts.site.points if meta.point.id == point), None)
        if area is not None:
            asked.require_area(person, area)
        return web.json_response({"run": await parts.proof.ask(point, person.id)})
