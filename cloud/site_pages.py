"""One site for headquarters' pages: what it sent, what of it is missing, set aside, or contradicts itself."""

from __future__ import annotations

import time

from aiohttp import web

from ..errors import RefusedError
from ..serving.web import PERSON, signed_in
from ..words import utc_text
from .config import CloudConfig
from .pages import Pages
from .site_store import SetAside, SiteStore

SUPPORT = ("it", "admin")
"""Who may have what was set aside as it came: nobody knows what is in it."""


class SitePages:
    """GET /api/v1/sites/{gateway} and what belongs to it."""

    def __init__(self, config: CloudConfig, pages: Pages, store: SiteStore) -> None:
        self._config, self._pages, self._store = config, pages, store

    def add_routes(self, app: web.Application) -> None:
        """Both need a session, the second one also a role."""
        app.router.add_get("/api/v1/sites/{gateway}", signed_in(self._site))
        app.router.add_get("/api/v1/sites/{gateway}/quarantine/{id}", signed_in(self._set_aside))

    async def _site(self, request: web.Request) -> web.Response:
        gateway = self._gateway(request)
        (site,) = await self._pages.sites(gateway)
        details = await self._store.details(gateway)
        return web.json_response({"time": utc_text(int(time.time() * 1000)), "site": site, **details})

    async def _set_aside(self, request: web.Request) -> web.Response:
        person = request[PERSON]
        if not set(SUPPORT) & set(person.roles):
            raise RefusedError(
                "not_your_role", f"{person.id} is none of {', '.join(SUPPORT)}", hint="call a person who is"
            )
        gateway, number = self._gateway(request), request.match_info["id"]
        is_number = number.isascii() and number.isdecimal() and len(number) < 16
        found = await self._store.set_aside(gateway, int(number)) if is_number else None
        if found is None or found.body is None:
            raise RefusedError("not_found", "nothing of this number was set aside with its content")
        headers = {"Content-Disposition": f'attachment; filename="{_name(gateway, found)}"'}
        return web.Response(body=found.body, content_type="application/octet-stream", headers=headers)

    def _gateway(self, request: web.Request) -> str:
        gateway = self._config.find(request.match_info["gateway"])
        if gateway is None:
            raise RefusedError("not_found", "no such gateway")
        return gateway.id


def _name(gateway: str, found: SetAside) -> str:
    what = f"batch-{found.n}.zst" if found.seq is None else f"record-{found.seq}.json"
    return f"{gateway}-{found.stream}-{found.epoch}-{what}"
