"""While the database is away: the service goes on, says so, and is itself again when the database is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from aiohttp import web

from .transactions import UnavailableError

log = logging.getLogger(__name__)

AWAY_S = 2
"""When to ask again."""
_AWAY = "the database is away for a moment"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def through_outages(work: Callable[[], Awaitable[object]], what: str) -> NoReturn:
    """Run what runs for ever, and again after an outage; told when it begins and when it is over.

    Args:
        work: makes the coroutine; it must be good to begin anew. One that returns has begun again.
    """
    away = False
    while True:
        try:
            await work()
        except UnavailableError as error:
            if not away:
                log.warning("%s waits: %s", what, error)
            away = True
            await asyncio.sleep(AWAY_S)
        else:
            if away:
                log.warning("%s goes on", what)
            away = False


@web.middleware
async def answer_outages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """503 for what needs the database."""
    try:
        return await handler(request)
    except UnavailableError as error:
        log.debug("%s: %s", request.path, error)
        answer = {"error": {"reason": "unavailable", "message": _AWAY, "hint": "try again"}}
        return web.json_response(answer, status=503, headers={"Retry-After": str(AWAY_S)})
