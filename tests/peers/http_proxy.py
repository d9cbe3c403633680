"""An HTTP proxy as plants have them: CONNECT for https, absolute addresses for http, a login where it wants one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from urllib.parse import urlsplit

_MOST_HEAD = 16 * 1024


class HttpProxy:
    """Serves on a free port of 127.0.0.1 while it is entered.

    Args:
        login: `user:password` that it wants, "" for none.

    Attributes:
        asked: request lines, in order.
        refuses: status of every answer while it is not 0.
    """

    def __init__(self, login: str = "") -> None:
        self._login = login
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[str] = []
        self.refuses = 0
        self.port = 0

    async def __aenter__(self) -> HttpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ExceptionGroup):
                await self._one(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, _, rest = head.partition("\r\n")
        self.asked.append(line)
        fields = dict(field.split(": ", 1) for field in rest.strip().split("\r\n") if ": " in field)
        status = self.refuses or (0 if self._may(fields) else 407)
        if status:
            writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return
        method, target, _ = line.split(" ", 2)
        where = target if method == "CONNECT" else urlsplit(target).netloc
        host, _, port = where.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                parts = urlsplit(target)
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                far_writer.write(head.replace(target, path, 1).encode("latin-1"))
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer))
                group.create_task(_pump(far_reader, writer))
        finally:
            far_writer.close()

    def _may(self, fields: dict[str, str]) -> bool:
        given = next((value for name, value in fields.items() if name.lower() == "proxy-authorization"), "")
        return not self._login or given == f"Basic {base64.b64encode(self._login.encode()).decode()}"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(16 * 1024):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError("closed")
