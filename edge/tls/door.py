"""Who gets what over plain HTTP: this machine all, everybody else the way to HTTPS.

A reverse proxy on this machine is this machine, unless it says that its own client came without encryption.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from ...errors import RefusedError
from ...serving.web import Handler
from .install_api import OPEN_PATHS
from .names import Names

_HSTS = "max-age=15552000"


def guard_plain_http(names: Names, port: int) -> Middleware:
    """A middleware. Args: names: of the gateway. port: of its HTTPS.

    The redirect's host is the gateway's own, never what the request says.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_private(request) or request.path in OPEN_PATHS:
            return await handler(request)
        if request.method not in ("GET", "HEAD"):
            raise RefusedError(
                "https_only", "nothing is taken over plain HTTP", hint=f"use {address_of(names.host, port)}"
            )
        raise web.HTTPTemporaryRedirect(address_of(names.host, port) + request.raw_path.split("#")[0].lstrip("/\\"))

    return guard


def add_hsts(app: web.Application, is_public: Callable[[], bool]) -> None:
    """Browsers stay with HTTPS, where that needs no local CA: without it they could not come to /install any more."""

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        if request.secure and is_public():
            response.headers.setdefault("Strict-Transport-Security", _HSTS)

    app.on_response_prepare.append(add)


def is_private(request: web.Request) -> bool:
    """Whether nobody on the network can read along: HTTPS, or this machine."""
    if request.secure:
        return True
    forwarded = request.headers.get("X-Forwarded-Proto", "https").strip().lower()
    return _is_loopback(request) and forwarded == "https"


def address_of(host: str, port: int) -> str:
    """`https://host:port/`."""
    shown = f"[{host}]" if ":" in host else host
    return f"https://{shown}/" if port == 443 else f"https://{shown}:{port}/"


def _is_loopback(request: web.Request) -> bool:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    try:
        found = ipaddress.ip_address(str(peer[0]).partition("%")[0]) if peer else None
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return found is not None and (mapped or found).is_loopback
