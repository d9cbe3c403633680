"""The socket under an MQTT connection: reached without blocking the loop, read and written in large pieces.

Knows the frames of MQTT (MQTT 5.0 §2.1, §3.3), no client and no meaning.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from .mqtt_words import LinkSpec

PORTS = {"mqtt": 1883, "mqtts": 8883}
CONNECT_S = 10.0  # for one address of the broker, TLS included
MOST_BYTES = 256 * 1024  # of a packet that is held
OTHER_BYTES = 64 * 1024  # of a packet that is no PUBLISH
PUBLISH = 3
_HEADER = 70_000  # of a PUBLISH before its payload: a topic of 64 KiB, and properties that a broker does not send
_BUFFER = 64 * 1024


class LinkLostError(Exception):
    """The connection is lost, or was never made; says why."""


def check_url(url: str) -> None:
    """Raises ConfigError unless it is `mqtt://host[:port]` or `mqtts://host[:port]`, without user and password."""
    problem = "url: must be mqtt://host[:port] or mqtts://host[:port]"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigError("mqtt", [problem]) from None
    problems = [] if usable and parts.path in {"", "/"} and not parts.query else [problem]
    if parts.username is not None:
        problems.append("url: must not hold a user or password; they come from the credentials")
    if problems:
        raise ConfigError("mqtt", problems)


def tls_context(spec: LinkSpec) -> ssl.SSLContext:
    """Checks the broker's certificate and name. Raises LinkLostError when a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=spec.ca_file or None)
        if spec.cert_file:
            context.load_cert_chain(spec.cert_file, spec.key_file or None)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        names = ", ".join(name for name in (spec.ca_file, spec.cert_file, spec.key_file) if name)
        raise LinkLostError(f"TLS: the files cannot be used: {error}; check {names}") from error
    return context


# --- the socket ---


class Wire:
    """What paho takes for its socket: reads and writes in large pieces, and knows where a packet ends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._in = b""
        self._more = bytearray()  # behind `_in`, until the packet at the head is whole
        self._wanted = 0  # bytes in both by then
        self._at = 0
        self._end = 0
        self._skip = 0
        self._out = bytearray()

    def fill(self) -> bool:
        """Read what has come; whether there may be more. Raises OSError, also at the end."""
        try:
            data = self._sock.recv(_BUFFER)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        if not data:
            raise ConnectionResetError("the broker closed the connection")
        more = isinstance(self._sock, ssl.SSLSocket) or len(data) == _BUFFER
        if self._skip:
            skipped = min(self._skip, len(data))
            data, self._skip = data[skipped:], self._skip - skipped
        if len(self._in) + len(self._more) + len(data) < self._wanted:
            self._more += data
        else:
            if self._more:
                data = b"".join((self._more, data))
                self._more.clear()
            self._in = self._in[self._at :] + data if self._at < len(self._in) else data
            self._at = self._end = self._wanted = 0
        return more

    def head(self) -> tuple[int, int, int]:
        """First byte of the next packet, where its rest begins, and how long that is; (0, 0, 0) while it is not whole.

        Raises ValueError for a length that MQTT does not know, or that no packet but a PUBLISH needs.
        """
        data, at = self._in, self._at
        length, shift, begin = 0, 0, at + 1
        while True:
            if begin >= len(data):
                return 0, 0, 0
            byte = data[begin]
            length |= (byte & 127) << shift
            begin += 1
            if byte < 128:
                break
            shift += 7
            if shift > 21:
                raise ValueError("a packet longer than MQTT knows")
        if length > OTHER_BYTES and data[at] >> 4 != PUBLISH:
            raise ValueError(f"a packet of type {data[at] >> 4} with {length} bytes")
        wanted = begin + (length if length <= MOST_BYTES else _HEADER)
        if len(data) < wanted:
            self._wanted = wanted
            return 0, 0, 0
        return data[at], begin, length

    def publication(self, first: int, begin: int, length: int, five: bool) -> tuple[bytes, bytes, int]:
        """Topic, payload and number of the PUBLISH at the head, which is taken. Raises IndexError, ValueError."""
        data, end = self._in, begin + length
        at = begin + 2 + (data[begin] << 8 | data[begin + 1])
        topic, mid = data[begin + 2 : at], 0
        if first & 0x06:
            mid = data[at] << 8 | data[at + 1]
            at += 2
        if five:
            size, shift = 0, 0
            while True:
                byte = data[at]
                size |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if byte < 128:
                    break
            at += size
        if at > end or first & 0x06 == 0x06 or (first & 0x06 and not mid):
            raise ValueError("a malformed message")
        if end > len(data):
            self._skip, end = end - len(data), len(data)
        self._at = end
        return topic, data[at:end] if length <= MOST_BYTES else b"", mid

    def lend(self, begin: int, length: int) -> None:
        """Let paho read the packet at the head, and no further."""
        self._end = begin + length

    def recv(self, size: int) -> bytes:
        """For paho: a piece of what it is lent."""
        piece = self._in[self._at : min(self._at + size, self._end)]
        if not piece:
            raise BlockingIOError
        self._at += len(piece)
        return piece

    def send(self, data: bytes) -> int:
        """Takes all of it; `flush` sends it."""
        self._out += data
        return len(data)

    def flush(self) -> bool:
        """Write what waits; whether all of it is gone. Raises OSError."""
        while self._out:
            try:
                sent = self._sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            del self._out[:sent]
        return True

    def close(self) -> None:
        """Send what can be sent at once, and close."""
        with contextlib.suppress(OSError):
            self.flush()
        self._sock.close()

    def fileno(self) -> int:
        """For the loop."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """For paho."""
        self._sock.setblocking(flag)


async def connect(spec: LinkSpec) -> socket.socket:
    """A connected socket, with TLS done; tries every address of the name. Raises LinkLostError."""
    url = urlsplit(spec.url)
    host, port = url.hostname or "", url.port or PORTS[url.scheme]
    context = tls_context(spec) if url.scheme == "mqtts" else None
    failures: list[str] = []
    for family, address in await _resolve(host, port):
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            async with asyncio.timeout(CONNECT_S):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await asyncio.get_running_loop().sock_connect(sock, address)
                return sock if context is None else await _secure(sock, context, host)
        except TimeoutError:
            failures.append(f"no answer from {address[0]} port {address[1]} within {CONNECT_S:g} s")
        except ssl.SSLError as error:
            failures.append(_say_tls(error, spec))
        except OSError as error:
            failures.append(f"{error.strerror or error} ({address[0]} port {address[1]})")
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        if sock is not None:
            sock.close()
    raise LinkLostError("; ".join(dict.fromkeys(failures)) or f"{host} has no address")


async def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        return [(family, (host, port) if address.version == 4 else (host, port, 0, 0))]
    try:
        async with asyncio.timeout(CONNECT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise LinkLostError(f"the name {host} was not answered within {CONNECT_S:g} s; check the DNS") from None
    except (OSError, UnicodeError) as error:
        raise LinkLostError(f"the name {host} cannot be resolved: {error}") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


async def _secure(sock: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    loop = asyncio.get_running_loop()
    secure = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                await _until_ready(secure, loop.add_reader, loop.remove_reader)
            except ssl.SSLWantWriteError:
                await _until_ready(secure, loop.add_writer, loop.remove_writer)
            else:
                return secure
    except BaseException:
        secure.close()
        raise


async def _until_ready(sock: socket.socket, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    number = sock.fileno()
    add(number, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        remove(number)


def _say_tls(error: ssl.SSLError, spec: LinkSpec) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        trusted = f"by {spec.ca_file}" if spec.ca_file else "by the system's certificates; give its ca_file"
        what = error.verify_message or str(error)
        return f"TLS: the broker's certificate is not trusted ({what}): it is not signed {trusted}, or for another name"
    return f"TLS: {error.reason or error}; is it the broker's TLS port, and does it want a client certificate?"
