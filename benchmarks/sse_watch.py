"""Many open pages: when did each alarm come to each of them?

    sse_watch.py WEB_PORT PERSON PIN CLIENTS

Prints `ready` when all of them listen. Each line `seen` on standard input is answered by `seen {json}`: by alarm the
machine's monotonic times at which its `alarm.raised` came, one for each page that has it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
from sitewarden.serving.listen import MAX_STREAMS
from told import listen

SEEN: dict[str, list[float]] = {}
_RAISED = b'"kind": "alarm.raised"'


async def page(http: aiohttp.ClientSession, base: str, here: asyncio.Semaphore) -> None:
    """As an open page; only what counts is unpacked, so that 200 of them fit into one process."""
    async with http.get(base + "live") as stream:
        stream.raise_for_status()
        here.release()
        kind = b""
        async for line in stream.content:
            if line.startswith(b"event: "):
                kind = line[7:].strip()
            elif kind == b"alarm" and line.startswith(b"data: ") and _RAISED in line:
                at_s = time.monotonic()
                SEEN.setdefault(json.loads(line[6:])["alarm"]["id"], []).append(at_s)


async def watch(port: int, person: str, pin: str, clients: int) -> None:
    """All of them, as many to a session and an address as may be, until the parent ends us."""
    listen(lambda _: print("seen", json.dumps(SEEN), flush=True))
    base = f"http://127.0.0.1:{port}/api/v1/"
    here = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for first in range(0, clients, MAX_STREAMS):
            http = aiohttp.ClientSession(
                cookie_jar=aiohttp.CookieJar(unsafe=True),
                connector=aiohttp.TCPConnector(limit=0, local_addr=(f"127.0.1.{first // MAX_STREAMS + 1}", 0)),
                timeout=aiohttp.ClientTimeout(total=None),
                read_bufsize=1 << 24,
            )
            async with http.post(base + "session", json={"person": person, "pin": pin}) as answer:
                answer.raise_for_status()
            for n in range(first, min(clients, first + MAX_STREAMS)):
                group.create_task(page(http, base, here), name=f"page {n}")
        for _ in range(clients):
            await here.acquire()
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(watch(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
