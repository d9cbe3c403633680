"""The list behind the pop-ups that fill the control room's screen."""

from __future__ import annotations

from aiohttp import web

from ...serving.web import signed_in
from ...words import now, utc_text
from ..notices import Source, escalations, freezes
from .parts import Ask

SOURCES: tuple[Source, ...] = (freezes, escalations)


class NoticeApi:
    """Handler of `/api/v1/notices`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.router.add_get("/api/v1/notices", signed_in(self._notices))

    async def _notices(self, _: web.Request) -> web.Response:
        """What must be seen now, the newest first."""
        instant = now()
        found = await self._ask().journal.query(lambda c: [one for source in SOURCES for one in source(c, instant)])
        found.sort(key=lambda notice: notice.since, reverse=True)
        return web.json_response({"time": utc_text(instant.utc_ms), "notices": [notice.to_json() for notice in found]})
