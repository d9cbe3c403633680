"""The delivery log: every message that told people, with every attempt."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ...errors import RefusedError
from ...serving.people import named
from ...serving.web import signed_in
from ..alerts.deliveries import MOST, deliveries
from . import asked
from .parts import Ask

STATES = ("PENDING", "SENDING", "RETRY", "ACCEPTED", "DELIVERED", "DEAD", "FAILING")
_NEVER = 2**62


class DeliveryApi:
    """Handler of `/api/v1/deliveries`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        app.router.add_get("/api/v1/deliveries", signed_in(self._log))

    async def _log(self, request: web.Request) -> web.Response:
        """Newest first. `older`: `before` of the next page, None where there is nothing more."""
        limit = asked.number(request, "limit", default=50, low=1, high=MOST)
        before = asked.number(request, "before", default=_NEVER, low=1, high=_NEVER)
        occurrence = asked.number(request, "occurrence", default=0, low=0, high=_NEVER) or None
        person, channel = asked.line(request, "person") or None, asked.line(request, "channel") or None
        state = asked.line(request, "state") or None
        if state is not None and state not in STATES:
            raise RefusedError("bad_request", f"state: must be one of {', '.join(STATES)} (got {state!r:.40})")
        parts = self._ask()
        found = await parts.journal.query(
            lambda c: deliveries(
                c, occurrence=occurrence, person=person, channel=channel, state=state, before=before, limit=limit
            )
        )
        people = parts.site.people

        def shown(row: dict[str, Any]) -> dict[str, Any]:
            who = named(people, row["person"])
            mentions = [{"person": each, **named(people, each)} for each in row["mentions"]]
            return {**row, "name": who["name"], "name_en": who["name_en"], "mentions": mentions}

        messages = [{**message, "rows": [shown(row) for row in message["rows"]]} for message in found]
        older = messages[-1]["seq"] if len(messages) == limit else None
        channels = [{"id": channel.id, "kind": channel.kind} for channel in parts.site.channels]
        return web.json_response({"messages": messages, "older": older, "channels": channels})
