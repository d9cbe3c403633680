"""How the cloud is called: sockets that notice a dead link, names that outlive a dead resolver, errors in plain words.

An error is *near* when nobody outside can have heard of the try: no route, no name, no answer to the first packet, nor
to any other for seconds. A near error is tried again within a second, for ever: it costs nobody anything, and the
link's return is seen at once. Whatever the other side did answer, were it a reset, is not near: all gateways at once
would try again.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from ..errors import ConfigError
from ..words import mono_s

CONNECT_S, PATIENT_CONNECT_S = 2.0, 6.0
"""A connect is a packet now and one a second later; each eighth try is for links with longer round trips."""

MAX_REPLY_BYTES = 256 * 1024

_MAX_RETRY_AFTER_S = 300.0
_SILENT_S, _MOST_SILENT_S, _SILENT_TRIPS = 2.0, 6.0, 4
_ALIVE_AFTER_S, _ALIVE_EVERY_S = 10, 2
_NAME_S, _NAME_KEPT_S = 1.0, 60.0
_NEAR = frozenset(
    {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.ENONET}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why the cloud was not reached.

    Attributes:
        reason: a word that stays the same while the cause does; pages translate it.
        near: nobody outside heard of the try.
    """

    reason: str
    text: str
    hint: str
    near: bool = False


def open_socket(address: tuple[Any, ...], trip_s: float = 0.0) -> socket.socket:
    """A socket on which data that nobody acknowledges, or a silent peer, ends the connection within two seconds.

    Without that a request which was on its way when the link broke would wait for its whole time, and the link's
    return would be seen by a packet that is repeated ever more rarely: after two seconds only every two seconds. A new
    connect is a packet a second. Any acknowledged byte counts as an answer, so a slow link is not a silent one.

    Args:
        trip_s: the link's round trip, as far as it is known; where it is long, so is the patience.
    """
    silent_ms = round(1000 * min(max(_SILENT_S, _SILENT_TRIPS * trip_s), _MOST_SILENT_S))
    family, kind, protocol = address[:3]
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_USER_TIMEOUT", silent_ms),
        ("TCP_KEEPIDLE", _ALIVE_AFTER_S),
        ("TCP_KEEPINTVL", _ALIVE_EVERY_S),
    ):
        if (number := getattr(socket, option, None)) is not None:
            opened.setsockopt(socket.IPPROTO_TCP, number, value)
    return opened


class Names(AbstractResolver):
    """Names as the system knows them; the last good answer when its resolver is silent for a second.

    A resolver behind the dead link takes many seconds to say so, and whoever waits for it misses the link's return. Old
    addresses do no harm: the certificate still has to fit the name.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], tuple[float, list[ResolveResult]]] = {}
        self._asked: dict[tuple[str, int, int], asyncio.Task[list[ResolveResult]]] = {}
        self._system = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError when the name is not known and was not known before."""
        key = (host, port, int(family))
        known = self._known.get(key)
        if known is not None and mono_s() - known[0] < _NAME_KEPT_S:
            return known[1]
        asked = self._asked.get(key)
        if asked is None:
            asked = asyncio.ensure_future(self._ask(key, family))
            self._asked[key] = asked
            asked.add_done_callback(lambda task: self._answered(key, task))
        await asyncio.wait([asked], timeout=_NAME_S if known is not None else None)
        if known is not None and (not asked.done() or asked.exception() is not None):
            return known[1]
        return asked.result()

    async def close(self) -> None:
        """A session ends; what is known serves the next one."""

    async def _ask(self, key: tuple[str, int, int], family: socket.AddressFamily) -> list[ResolveResult]:
        return await self._system.resolve(key[0], key[1], family)

    def _answered(self, key: tuple[str, int, int], task: asyncio.Task[list[ResolveResult]]) -> None:
        self._asked.pop(key, None)
        if not task.cancelled() and task.exception() is None:
            self._known[key] = (mono_s(), task.result())


def timed() -> aiohttp.TraceConfig:
    """For a session: the clock that a request brings (`trace_request_ctx`, a list) begins when it has a connection.

    Otherwise name, handshake and certificate would count as the link's round trip.
    """
    traces = aiohttp.TraceConfig()

    async def connected(_session: Any, context: Any, _parameters: Any) -> None:
        context.trace_request_ctx[0] = mono_s()

    traces.on_connection_create_end.append(connected)
    return traces


def trusted(ca_file: str | None) -> ssl.SSLContext:
    """Who is believed to be the cloud: whom the system's authorities certify, or the one in `ca_file` alone.

    Raises:
        ConfigError: the file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        problem = f"uplink.ca_file: must be a readable PEM certificate: {error} (got {ca_file!r})"
        raise ConfigError("uplink", [problem]) from error


async def read_json(reply: aiohttp.ClientResponse) -> Any:
    """A bounded JSON answer; anything else is None and judged by its status."""
    try:
        return json.loads(await read_most(reply, MAX_REPLY_BYTES))
    except ValueError:
        return None


async def read_most(reply: aiohttp.ClientResponse, most: int) -> bytes:
    """The first `most` bytes of an answer."""
    raw = b""
    while len(raw) <= most and (chunk := await reply.content.read(most)):
        raw += chunk
    return raw[:most]


def retry_after_s(text: str) -> float:
    """What a Retry-After field asks for; 0 when it asks for nothing that can be used."""
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdecimal() and len(text) < 9 else 0.0


def trouble(error: Exception, where: str) -> Trouble:
    """What went wrong on the way to `where`, and what to do about it."""
    match error:
        case aiohttp.ClientHttpProxyError(status=407):
            return _proxy_wants_login()
        case aiohttp.ClientHttpProxyError():
            text = f"the proxy answered {error.status} {error.message}"
            return Trouble(
                reason="proxy", text=text, hint="ask whoever runs the proxy whether it lets this address through"
            )
        case aiohttp.ClientConnectorCertificateError():
            return _certificate(error.certificate_error, where)
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Trouble(
                reason="tls", text=f"no encrypted connection to {where}: {error}", hint="is this address https?"
            )
        case aiohttp.ClientConnectorDNSError():
            return _no_name(error, where)
        case aiohttp.ConnectionTimeoutError():
            return _silent(where)
        case TimeoutError():
            return Trouble(reason="timeout", text=f"{where} took too long to answer", hint="the link is slow, or broke")
        case OSError(errno=errno.ETIMEDOUT):
            return _silent(where)
        case aiohttp.ClientConnectorError(os_error=cause) | (OSError() as cause):
            return _refused(error, cause, where)
    hint = "the connection broke; it is tried again"
    return Trouble(reason="broken", text=f"cannot talk to {where}: {_said(error)}", hint=hint)


def _silent(where: str) -> Trouble:
    hint = "check modem, router and firewall; the gateway goes on by itself"
    return Trouble(reason="silent", text=f"{where} does not answer", hint=hint, near=True)


def _refused(error: Exception, cause: OSError, where: str) -> Trouble:
    to_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
    if cause.errno in _NEAR:
        hint = "check the network cable, the modem and the gateway's address"
        return Trouble(reason="no_network", text=f"no way to {where}: {_said(cause)}", hint=hint, near=True)
    if to_proxy:
        hint = "check [cloud] proxy and that the proxy runs"
        return Trouble(reason="proxy", text=f"cannot reach the proxy: {_said(cause)}", hint=hint)
    if isinstance(cause, ConnectionRefusedError):
        hint = "the service does not run there, or a firewall refuses: check [cloud] url"
        return Trouble(reason="refused", text=f"{where} refuses connections", hint=hint)
    hint = "check network, address and certificate"
    return Trouble(reason="unreachable", text=f"cannot reach {where}: {_said(error)}", hint=hint)


def _no_name(error: aiohttp.ClientConnectorDNSError, where: str) -> Trouble:
    """A name that does not exist is a wrong address; a resolver that cannot say is a broken link."""
    again = getattr(error.os_error, "errno", None) != socket.EAI_NONAME
    hint = "check the network and the name server" if again else "check the host in [cloud] url"
    return Trouble(reason="dns", text=f"no address for {where}: {_said(error.os_error)}", hint=hint, near=again)


def _certificate(error: Exception, where: str) -> Trouble:
    said = getattr(error, "verify_message", "") or _said(error)
    code = getattr(error, "verify_code", 0)
    hints = {
        9: "its certificate is not valid yet: check the gateway's clock",
        10: "its certificate has expired: renew it there, or check the gateway's clock",
        62: "the certificate is of another name: check the host in [cloud] url",
    }
    hint = hints.get(
        code, "it is signed by an authority that is not trusted: put that authority's PEM into [cloud] ca_file"
    )
    return Trouble(reason="certificate", text=f"the certificate of {where} is refused: {said}", hint=hint)


def _proxy_wants_login() -> Trouble:
    hint = "put user:password into the file that [cloud] proxy_login_file names"
    return Trouble(reason="proxy_login", text="the proxy answered 407: it wants another user or password", hint=hint)


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
