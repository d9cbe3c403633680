"""Requests whose end two readers could see in different places: none of them brings a second one in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from sitewarden.serving.listen import serving
from sitewarden.serving.secrets import Secrets
from sitewarden.serving.web import make_app

PAIR = b"POST /api/v1/thing HTTP/1.1\r\nHost: x\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
END = b"GET /end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CHUNKED = b"0\r\n\r\n" + HIDDEN
ATTEMPTS = {
    "length and chunks": PAIR + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunks and length": PAIR + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + CHUNKED,
    "two lengths": PAIR + b"Content-Length: 0\r\nContent-Length: 33\r\n\r\n" + HIDDEN,
    "two lengths in one": PAIR + b"Content-Length: 0, 33\r\n\r\n" + HIDDEN,
    "a length with a sign": PAIR + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a length that is no number": PAIR + b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "a length below zero": PAIR + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "an unknown coding": PAIR + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "a coding after chunks": PAIR + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKED,
    "a space before the colon": PAIR + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "a folded line": PAIR + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "a zero in a name": PAIR + b"Content-Len\0gth: 3\r\n\r\n" + HIDDEN,
    "a zero in a value": PAIR + b"X: a\0b\r\n\r\n" + HIDDEN,
    "chunks of a wrong size": PAIR + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + HIDDEN,
    "a chunk that is longer than it says": PAIR + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n" + HIDDEN,
    "a head without end": PAIR + b"X: " + b"a" * 100_000,
    "heads without end": PAIR + b"".join(b"X%d: a\r\n" % n for n in range(20_000)),
    "no protocol": b"GET /\r\n\r\n" + HIDDEN,
    "another protocol": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n" + HIDDEN,
    "what is no text": bytes(range(256)) * 4 + b"\r\n\r\n" + HIDDEN,
}


@pytest.fixture
async def reached(tmp_path: Path) -> AsyncIterator[tuple[int, list[str]]]:
    """A server's port, and the paths that handlers were asked for."""
    seen: list[str] = []
    secrets = Secrets(tmp_path / "secrets.db")

    async def hidden(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(text="hidden")

    app = make_app({}, secrets, cookie="edge")
    app.router.add_get("/hidden", hidden)
    async with serving(app, "127.0.0.1", 0) as port:
        yield port, seen
    secrets.close()


async def sent(port: int, data: bytes) -> bytes:
    """What the server answers until it closes the connection; it is asked to, in a request of its own behind `data`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    with contextlib.suppress(ConnectionError):
        writer.write(data + END)
        async with asyncio.timeout(30):
            while piece := await reader.read(65536):
                got += piece
    writer.close()
    return got


async def test_what_is_sent_behind_a_whole_request_is_one(reached):
    port, seen = reached
    got = await sent(port, PAIR + b"Content-Length: 0\r\n\r\n" + HIDDEN)
    assert got.count(b"HTTP/1.1 ") == 3, "so the attempts below would be seen"
    assert seen == ["/hidden"]


@pytest.mark.parametrize("data", ATTEMPTS.values(), ids=ATTEMPTS)
async def test_what_is_hidden_in_a_request_is_never_asked_for(reached, data: bytes):
    port, seen = reached
    got = await sent(port, data)
    assert seen == []
    assert got.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), got[:200]
    assert got.count(b"\r\nServer: ") == 1, "and then the connection is closed"
    assert b"Traceback" not in got
    assert (await sent(port, HIDDEN)).startswith(b"HTTP/1.1 200"), "the server goes on"
