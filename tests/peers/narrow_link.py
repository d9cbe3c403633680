"""A link of a given rate and delay, as a TCP relay: for machines where the kernel may not shape one. Own code.

Both ways share nothing: each has its own rate. All connections of a way share it, first come, first served, in packets
of 1,400 bytes, as a modem's queue does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

_PACKET = 1_400
_BUFFER = 8 * 1024


class NarrowLink:
    """Relays to `port` of 127.0.0.1 while it is entered.

    Args:
        port: of the far end.
        rate: bytes a second each way.
        delay_s: one way.

    Attributes:
        port: where to connect.
        up, down: bytes that went to and came from the far end.
        connections: that were made.
        cut: while True nothing passes, and what was open hangs.
    """

    def __init__(self, port: int, *, rate: float = 1e9, delay_s: float = 0.0) -> None:
        self._far, self._rate, self._delay_s = port, rate, delay_s
        self._free_s = {"up": 0.0, "down": 0.0}
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = self.up = self.down = self.connections = 0

    @property
    def cut(self) -> bool:
        return not self._passes.is_set()

    @cut.setter
    def cut(self, value: bool) -> None:
        self._passes.clear() if value else self._passes.set()

    async def __aenter__(self) -> NarrowLink:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port, limit=_BUFFER)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with self._far_end() as (far_reader, far_writer):
                with contextlib.suppress(OSError):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._pump("up", reader, far_writer))
                        group.create_task(self._pump("down", far_reader, writer))
        except (OSError, ExceptionGroup):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    @contextlib.asynccontextmanager
    async def _far_end(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._far, limit=_BUFFER)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(_PACKET):
            await self._passes.wait()
            begin_s = max(self._free_s[way], loop.time())
            self._free_s[way] = begin_s + len(data) / self._rate
            await asyncio.sleep(self._free_s[way] + self._delay_s - loop.time())
            await self._passes.wait()
            writer.write(data)
            await writer.drain()
            setattr(self, way, getattr(self, way) + len(data))
        raise ConnectionResetError("closed")
