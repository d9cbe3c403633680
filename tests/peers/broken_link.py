"""A link that breaks answers: a relay between a gateway and headquarters that knows where an answer begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_METHOD = re.compile(rb"^(GET|PUT|POST|PATCH|HEAD) (\S+) HTTP/1\.1\r\n")


class BrokenLink:
    """Relays to `port` of 127.0.0.1 while it is entered. One request is on its way on each connection.

    Attributes:
        port: where to connect.
        answered: what happens to each answer; see `Answer`.
        up: while False, connections are refused and what was open is reset.
        answers, broken: how many there were, and how many did not pass whole.
    """

    def __init__(self, port: int) -> None:
        self._far = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._up = True
        self.answered: Answer = whole
        self.port = self.answers = self.broken = 0

    @property
    def up(self) -> bool:
        return self._up

    @up.setter
    def up(self, value: bool) -> None:
        self._up = value
        if not value:
            self.reset()

    def reset(self) -> None:
        """End what is open."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> BrokenLink:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._up:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far)
        self._writers |= {writer, far_writer}
        try:
            while True:
                request = await _message(reader)
                far_writer.write(request)
                answer = await _message(far_reader)
                found = _METHOD.match(request)
                assert found is not None, request[:80]
                self.answers += 1
                passed = 0
                async for part in self.answered(f"{found[1].decode()} {found[2].decode()}", answer):
                    writer.write(part)
                    await writer.drain()
                    passed += len(part)
                if passed < len(answer):
                    self.broken += 1
                    return
        finally:
            self._writers -= {writer, far_writer}
            far_writer.transport.abort()


Answer = Callable[[str, bytes], AsyncIterator[bytes]]
"""`answered("PUT /path", answer)` gives the parts that pass; when some are missing the connection is reset then."""


async def whole(_what: str, answer: bytes) -> AsyncIterator[bytes]:
    """As it should be."""
    yield answer


async def never(_what: str, _answer: bytes) -> AsyncIterator[bytes]:
    """The request has arrived, and its answer does not: nothing, not even a reset."""
    await asyncio.Event().wait()
    yield b""


async def slowly(_what: str, answer: bytes) -> AsyncIterator[bytes]:
    """A byte now and then: there is always something, and never an end."""
    for at in range(len(answer)):
        await asyncio.sleep(0.05)
        yield answer[at : at + 1]


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One request or answer with its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + await reader.readexactly(int(length[1]) if length else 0)
