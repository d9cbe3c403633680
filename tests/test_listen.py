"""Connections that ask nothing cost little and end soon; whoever asks is answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from sitewarden.serving import listen
from sitewarden.serving.listen import LIVE_PATH, MAX_STREAMS, Limits, raise_file_limit, serving

BOUND_S = 30
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def _live(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b": alive\n\n")
            await asyncio.sleep(float(request.query.get("every_s", "0.05")))
    return response


@contextlib.asynccontextmanager
async def server(limits: Limits | None = None) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/", _hello)
    app.router.add_post("/", _echo)
    app.router.add_get(LIVE_PATH, _live)
    async with serving(app, "127.0.0.1", 0, limits) as port:
        yield port


@contextlib.asynccontextmanager
async def connections(port: int, count: int, sent: bytes = b"") -> AsyncIterator[list[Ends]]:
    async with contextlib.AsyncExitStack() as stack:
        ends: list[Ends] = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.transport.abort)
            writer.write(sent)
            ends.append((reader, writer))
        yield ends


async def ended(end: Ends) -> bytes:
    """What came until the server closed the connection."""
    data = b""
    async with asyncio.timeout(BOUND_S):
        with contextlib.suppress(ConnectionError):
            while chunk := await end[0].read(1000):
                data += chunk
    return data


async def count_ended(ends: list[Ends], wanted: int) -> int:
    """How many are closed by the server, once these are `wanted` or more."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ended(end), name="ended") for end in ends]
        while (done := sum(task.done() for task in tasks)) < wanted:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
    return done


async def get(port: int, path: str = "/") -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return await answer.text()


async def until_answered(port: int) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                assert await get(port) == "hello"
                return
            await asyncio.sleep(0.02)


async def test_connections_beyond_the_limit_are_closed_and_the_others_stay() -> None:
    async with server(Limits(connections=20)) as port, connections(port, 50) as ends:
        assert await count_ended(ends, 30) == 30
        with pytest.raises((aiohttp.ClientError, OSError)):
            await get(port)
        for _, writer in ends:
            writer.transport.abort()
        await until_answered(port)


async def test_one_address_cannot_take_all() -> None:
    async with server(Limits(connections=20, per_address=5)) as port, connections(port, 12) as ends:
        assert await count_ended(ends, 7) == 7


async def test_idle_connections_leave_descriptors_for_what_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit follows from the descriptors that there are."""
    monkeypatch.setattr(listen, "raise_file_limit", lambda: 60)
    async with server() as port, connections(port, 60) as ends:
        assert await count_ended(ends, 40) == 40


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["nothing", "half a head"])
async def test_who_does_not_ask_in_time_is_closed(sent: bytes) -> None:
    async with server(Limits(connections=10, head_s=0.5)) as port, connections(port, 10, sent) as ends:
        assert await count_ended(ends, 10) == 10
        assert await get(port) == "hello"


async def test_a_head_that_comes_drop_by_drop_is_late_too() -> None:
    head = b"GET / HTTP/1.1\r\nX-Slow: "
    async with server(Limits(head_s=0.5)) as port, connections(port, 1, head) as ends:
        reading = asyncio.ensure_future(ended(ends[0]))
        started_s = time.monotonic()
        while not reading.done() and time.monotonic() - started_s < BOUND_S:
            ends[0][1].write(b"G")
            await asyncio.sleep(0.05)
        assert await reading == b""


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    async with server(Limits(body_s=0.5)) as port, connections(port, 1, head) as ends:
        assert await ended(ends[0]) == b""


async def test_a_kept_connection_is_closed_when_it_is_idle() -> None:
    asked = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with server(Limits(idle_s=0.5)) as port, connections(port, 1, asked) as ends:
        data = await ended(ends[0])
        assert data.startswith(b"HTTP/1.1 200")
        assert data.endswith(b"hello")


async def test_requests_are_answered_while_others_are_idle() -> None:
    async with server(Limits(connections=30)) as port, connections(port, 25):
        for _ in range(40):
            assert await get(port) == "hello"


async def test_what_takes_its_time_after_the_request_is_not_cut() -> None:
    """Deadlines are for what the client still has to send."""
    async with (
        server(Limits(head_s=0.2, body_s=0.2, idle_s=0.2)) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{LIVE_PATH}") as live,
    ):
        started_s = time.monotonic()
        while time.monotonic() - started_s < 1.0:
            assert await live.content.readline()


async def test_a_large_body_passes_both_ways() -> None:
    body = bytes(range(256)) * 3000
    async with (
        server() as port,
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/", data=body) as answer,
    ):
        assert await answer.read() == body


async def test_live_streams_of_one_client_are_few_and_closed_ones_make_room() -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with server() as port, aiohttp.ClientSession(connector=connector) as session:
        url = f"http://127.0.0.1:{port}{LIVE_PATH}?every_s=600"
        streams = [await session.get(url) for _ in range(MAX_STREAMS)]
        assert {stream.status for stream in streams} == {200}
        async with session.get(url) as refused:
            assert refused.status == 429
            assert (await refused.json())["error"]["reason"] == "too_many_streams"
        streams.pop().close()
        async with asyncio.timeout(BOUND_S):
            while (again := await session.get(url)).status != 200:
                again.close()
        for stream in (*streams, again):
            stream.close()


async def test_a_taken_port_is_an_os_error_and_leaves_nothing_behind() -> None:
    async with server() as port:
        with pytest.raises(OSError, match="in use"):
            async with serving(web.Application(), "127.0.0.1", port):
                pytest.fail("listens twice")


def test_the_limit_of_files_goes_up_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(before[1], 512) if before[1] != resource.RLIM_INFINITY else 512
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
    try:
        got = raise_file_limit()
        assert got == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert got == (min(before[1], 65536) if before[1] != resource.RLIM_INFINITY else 65536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_limit_that_cannot_be_raised_is_lived_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_file_limit() == 300
