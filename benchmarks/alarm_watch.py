"""Looks at the edge as a dashboard and as a page: when did each alarm come on there?

    alarm_watch.py BROKER_PORT WEB_PORT PERSON PIN

Prints `ready` when both listen. Each line `seen` on standard input is answered by `seen {json}`: `mqtt` and `page`, by
alarm the machine's monotonic time at which its `alarm.raised` came, and `bare`, at which a message to bare/ALARM did.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
import aiomqtt
from told import listen

SEEN: dict[str, dict[str, float]] = {"bare": {}, "mqtt": {}, "page": {}}


def note(where: str, event: dict[str, Any]) -> None:
    """An event of an alarm; only the first time that it comes on counts."""
    if event["kind"] == "alarm.raised":
        SEEN[where].setdefault(event["alarm"]["id"], time.monotonic())


async def dashboard(port: int, ready: asyncio.Event) -> None:
    """As any program that reads the MQTT tree."""
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe([("sw/v1/+/event/#", 1), ("bare/#", 1)])
        ready.set()
        async for message in client.messages:
            if message.topic.value.startswith("bare/"):
                SEEN["bare"].setdefault(message.topic.value[5:], time.monotonic())
                continue
            note("mqtt", json.loads(bytes(message.payload)))


async def page(port: int, person: str, pin: str, ready: asyncio.Event) -> None:
    """As an open page of the control room, which reads everything that comes."""
    base = f"http://127.0.0.1:{port}/api/v1/"
    timeout = aiohttp.ClientTimeout(total=None)
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout, read_bufsize=1 << 24) as http:
        async with http.post(base + "session", json={"person": person, "pin": pin}) as answer:
            answer.raise_for_status()
        async with http.get(base + "live") as stream:
            ready.set()
            kind = b""
            async for line in stream.content:
                if line.startswith(b"event: "):
                    kind = line[7:].strip()
                elif line.startswith(b"data: ") and kind == b"alarm":
                    note("page", json.loads(line[6:]))


async def watch(broker_port: int, web_port: int, person: str, pin: str) -> None:
    """Both, until the parent ends us."""
    listen(lambda _: print("seen", json.dumps(SEEN), flush=True))
    here, there = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(dashboard(broker_port, here), name="dashboard")
        group.create_task(page(web_port, person, pin, there), name="page")
        await here.wait()
        await there.wait()
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(watch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
