"""Server-sent events: numbered events can be replayed after a lost connection, the others are only current."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ..words import mono_s

_QUEUE = 1000
_CURRENT = 60
"""Frames that wait for one page when one more comes without a number: these are large, and old as soon as they wait."""
_KEEP_ALIVE_S = 10.0


@dataclass(slots=True, eq=False)
class Listener:
    """One open page. When it does not read, `overrun` is set and its connection is ended: it replays on its return.

    Attributes:
        after: number of the newest event before the page was there.
        waiting: numbers of events that are not written yet.
    """

    after: int = 0
    queue: asyncio.Queue[tuple[bytes, int | None]] = field(default_factory=asyncio.Queue)
    waiting: set[int] = field(default_factory=set[int])
    overrun: bool = False
    transport: asyncio.Transport | None = None

    def end(self) -> None:
        """Give up on a page that does not read; a write that waits for it comes back at once."""
        self.overrun = True
        if self.transport is not None:
            self.transport.abort()


class Hub:
    """Spreads events to every open page without ever waiting for one."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._newest = 0

    def __len__(self) -> int:
        return len(self._listeners)

    def send(self, event: str, data: Any, *, seq: int | None = None) -> None:
        """Queue one event for every open page. `seq` makes it an event that `Last-Event-ID` can name."""
        self._newest = max(self._newest, seq or 0)
        if not self._listeners:
            return
        frame = encode(event, data, seq=seq)
        most = _QUEUE if seq is not None else _CURRENT
        for listener in self._listeners:
            if listener.queue.qsize() < most:
                listener.queue.put_nowait((frame, seq))
                if seq is not None:
                    listener.waiting.add(seq)
            else:
                listener.end()

    def has_written(self, seq: int) -> bool | None:
        """Whether the event of this number was written to every page that is open and was open then; None: no page."""
        then = [listener for listener in self._listeners if listener.after < seq]
        if not then:
            return None
        return seq <= self._newest and not any(seq in listener.waiting for listener in then)

    @contextmanager
    def listening(self):
        """Register a page; events that are sent from here on are queued for it."""
        listener = Listener(after=self._newest)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)


def encode(event: str, data: Any, *, seq: int | None = None) -> bytes:
    """One event as it goes over the wire. `data` that is bytes is JSON already, in one line."""
    number = f"id: {seq}\n" if seq is not None else ""
    text = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    return b"".join((f"{number}event: {event}\ndata: ".encode(), text, b"\n\n"))


async def stream(
    request: web.Request, listener: Listener, first: AsyncIterator[bytes], still: Callable[[], bool]
) -> web.StreamResponse:
    """Answer with `first` (greeting, replay), then with what the hub sends, until the page goes away.

    Args:
        request: of the page.
        listener: registered with the hub.
        first: frames to begin with.
        still: whether the person is still signed in; asked every ten seconds, the stream ends when not.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    response.headers["X-Accel-Buffering"] = "no"
    await response.prepare(request)
    listener.transport = request.transport
    try:
        async for frame in first:
            await response.write(frame)
        asked_s = mono_s()
        while not listener.overrun:
            try:
                async with asyncio.timeout(_KEEP_ALIVE_S):
                    frame, seq = await listener.queue.get()
            except TimeoutError:
                frame, seq = b": alive\n\n", None
            if mono_s() - asked_s >= _KEEP_ALIVE_S:
                if not still():
                    break
                asked_s = mono_s()
            await response.write(frame)
            if seq is not None:
                listener.waiting.discard(seq)
    except ConnectionError:
        pass
    return response
