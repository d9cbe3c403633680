"""The door of edge and cloud: how many connections there may be, and how long one may wait without asking anything.

A connection costs a file descriptor before anybody has signed in. Without a limit, idle connections would use up all
descriptors of the process, and alerts could not be sent any more.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from ..words import mono_s
from .web import COOKIE, Handler

_log = logging.getLogger(__name__)

LIVE_PATH = "/api/v1/live"
MAX_STREAMS = 20
"""Live streams of one session."""
_MAX_FILES = 65536
_FILES_UNKNOWN = 1024
_STOP_S = 1.0
_TELL_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may take.

    Attributes:
        connections: in total; never more than a third of the file descriptors of the process.
        per_address: of these, from one address; None: all of them, because behind a proxy everybody is one address.
        head_s: until the first request's head is complete, from the beginning of the connection.
        body_s: until a request's body is complete, from the end of its head.
        idle_s: until the next request's head is complete, from the end of the answer before it.
        backlog: connections that wait to be accepted.
    """

    connections: int = 300
    per_address: int | None = None
    head_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 30.0
    backlog: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Secure:
    """A second door to the same application, with TLS.

    Attributes:
        sock: bound already, closed at the end.
        context: asked at the beginning of each connection, so that another certificate ends none; None: there is no
            certificate yet, and the connection is closed.
    """

    sock: socket.socket
    context: Callable[[], ssl.SSLContext | None]


@asynccontextmanager
async def serving(
    app: web.Application,
    host: str | None = None,
    port: int = 0,
    limits: Limits | None = None,
    *,
    sock: socket.socket | None = None,
    secure: Secure | None = None,
) -> AsyncIterator[int]:
    """Serve `app` for the length of the block; gives the port (0 takes a free one).

    Args:
        host, port: where to listen; or
        sock: bound already, closed at the end.
        secure: another door; the limits count both together.

    Raises:
        OSError: the address cannot be listened on.
    """
    limits = limits or Limits()
    most = max(1, min(limits.connections, raise_file_limit() // 3))
    app.middlewares.append(_Streams().few)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S, keepalive_timeout=limits.idle_s)
    await runner.setup()
    try:
        assert runner.server is not None
        guard = _Guard(runner.server, limits, most)
        loop = asyncio.get_running_loop()
        if sock is not None:
            listener = await loop.create_server(guard.door, sock=sock, backlog=limits.backlog)
        else:
            listener = await loop.create_server(guard.door, host, port, backlog=limits.backlog)
        listeners = [listener]
        try:
            if secure is not None:
                tls = partial(guard.door, secure.context)
                listeners.append(await loop.create_server(tls, sock=secure.sock, backlog=limits.backlog))
            yield listener.sockets[0].getsockname()[1]
        finally:
            for one in listeners:
                one.close()
    finally:
        await runner.cleanup()


def raise_file_limit() -> int:
    """Raise the soft limit of file descriptors as far as it goes without privileges; returns what holds now."""
    soft = _FILES_UNKNOWN
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
        if soft == resource.RLIM_INFINITY:
            return _MAX_FILES
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    except (OSError, ValueError) as error:  # a filter of system calls may forbid it; LimitNOFILE= does it then
        _log.info("the limit of open files stays at %d: %s", soft, error)
    return soft


class _Guard:
    """Counts what is open, and hears from the server when a request's head is complete."""

    def __init__(self, server: web.Server, limits: Limits, most: int) -> None:
        self.server, self.limits = server, limits
        self._most = most
        self._per_address = min(most, limits.per_address or most)
        self._addresses: Counter[str] = Counter()
        self._doors: dict[web.RequestHandler, _Door] = {}
        self._next_telling_s = 0.0
        self._make_request = server.request_factory
        server.request_factory = self._requested

    def door(self, tls: Callable[[], ssl.SSLContext | None] | None = None) -> _Door:
        return _Door(self, tls)

    def admit(self, door: _Door) -> web.RequestHandler | None:
        """Who answers this connection; None when there are too many."""
        if len(self._doors) >= self._most or self._addresses[door.address] >= self._per_address:
            self._tell(door.address)
            return None
        handler = self.server()
        self._doors[handler] = door
        self._addresses[door.address] += 1
        return handler

    def leave(self, handler: web.RequestHandler) -> None:
        """The connection that was admitted is closed."""
        address = self._doors.pop(handler).address
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def _tell(self, address: str) -> None:
        if mono_s() >= self._next_telling_s:
            self._next_telling_s = mono_s() + _TELL_EVERY_S
            count, own = len(self._doors), self._addresses[address]
            _log.warning("connections from %s are refused: %d are open, %d from there", address, count, own)

    def _requested(self, message: Any, payload: Any, protocol: web.RequestHandler, *others: Any) -> web.BaseRequest:
        door = self._doors.get(protocol)
        if door is not None:
            door.head_complete(payload)
        return self._make_request(message, payload, protocol, *others)


class _Door(asyncio.Protocol):
    """One connection: passes everything on to aiohttp's handler, and ends what takes too long."""

    def __init__(self, guard: _Guard, tls: Callable[[], ssl.SSLContext | None] | None) -> None:
        self._guard, self._tls = guard, tls
        self._is_made = False
        self._early = b""
        self._securing: asyncio.Task[None] | None = None
        self._handler: web.RequestHandler | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.address = str((transport.get_extra_info("peername") or ("",))[0])
        self._transport = transport
        self._handler = self._guard.admit(self)
        if self._handler is None:
            transport.abort()
            return
        self._end_in(self._guard.limits.head_s)
        if self._tls is None:
            self._made(transport)
            return
        context = self._tls()
        if context is None:
            transport.abort()
            return
        transport.pause_reading()  # the first bytes are for the handshake
        self._securing = asyncio.get_running_loop().create_task(self._secure(transport, context))

    async def _secure(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        """The handshake; it counts as a connection from its first byte, and must end in time like a head."""
        try:
            loop = asyncio.get_running_loop()
            secured = await loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=self._guard.limits.head_s
            )
        except (OSError, ssl.SSLError):  # also a timeout
            secured = None
        if secured is None or transport.is_closing():
            transport.abort()
            self.connection_lost(None)
        elif self._handler is not None:
            self._made(secured)

    def _made(self, transport: asyncio.Transport) -> None:
        assert self._handler is not None
        self._is_made = True
        self._handler.connection_made(transport)
        if self._early:  # it came together with the end of the handshake
            early, self._early = self._early, b""
            self._handler.data_received(early)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        self._end_in(None)
        if self._handler is not None:
            self._guard.leave(self._handler)
            if self._is_made:
                self._handler.connection_lost(exc)
            self._handler = None

    def data_received(self, data: bytes) -> None:
        if self._handler is not None and self._is_made:
            self._handler.data_received(data)
        else:
            self._early += data

    def eof_received(self) -> bool | None:
        return self._handler.eof_received() if self._handler is not None and self._is_made else None

    def pause_writing(self) -> None:
        if self._handler is not None and self._is_made:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._handler is not None and self._is_made:
            self._handler.resume_writing()

    def head_complete(self, payload: Any) -> None:
        """A request begins to be answered; its body must follow."""
        deadline = self._end_in(self._guard.limits.body_s)
        assert deadline is not None
        payload.on_eof(deadline.cancel)

    def _end_in(self, wait_s: float | None) -> asyncio.TimerHandle | None:
        """Set the one deadline of this connection, or none."""
        if self._deadline is not None:
            self._deadline.cancel()
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(wait_s, self._transport.abort) if wait_s is not None else None
        return self._deadline


class _Streams:
    """At most MAX_STREAMS live streams of one session: a page that leaves them open shuts out no others."""

    def __init__(self) -> None:
        self._open: dict[str, list[web.Request]] = {}

    @property
    def few(self) -> Any:
        """The middleware."""

        @web.middleware
        async def few(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await (self._counted(request, handler) if request.path == LIVE_PATH else handler(request))

        return few

    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        cookie = request.app.get(COOKIE)
        key = request.cookies.get(cookie, "") if cookie else ""
        key = key or request.remote or ""
        streams = self._open.setdefault(key, [])
        if sum(_is_open(other) for other in streams) >= MAX_STREAMS:
            message, hint = f"{MAX_STREAMS} live streams are open in this session", "close other tabs of this page"
            error = {"reason": "too_many_streams", "message": message, "hint": hint}
            return web.json_response({"error": error}, status=429)
        streams.append(request)
        try:
            return await handler(request)
        finally:
            streams.remove(request)
            if not streams:
                self._open.pop(key, None)


def _is_open(request: web.Request) -> bool:
    """A page that went away is noticed at the next write to it, up to ten seconds later."""
    return request.transport is not None and not request.transport.is_closing()
