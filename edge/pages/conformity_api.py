"""How this site stands under headquarters' baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from ...serving.web import signed_in


def add_conformity(app: web.Application, report: Callable[[], dict[str, Any]]) -> None:
    """GET /api/v1/conformity: what headquarters is told."""

    async def conformity(_: web.Request) -> web.Response:
        return web.json_response({"report": report()})

    app.router.add_get("/api/v1/conformity", signed_in(conformity))
