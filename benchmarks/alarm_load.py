"""Publishes the numbers of many points, QoS 1, and pushes one after the other over its limit.

    alarm_load.py PORT DEVICES POINTS RATE ALARMS SECONDS

DEVICES devices of POINTS numbers each; RATE messages a second in all. ALARMS points come on, evenly over SECONDS, each
in a message of its own that is sent at that moment. Prints `ready`, begins with the first line on standard input, and
at the end `pushed {json}`: for each alarm the machine's monotonic time just before its message was sent. Behind it
comes a message to bare/ALARM, which nobody but `alarm_watch.py` takes: what the broker alone needs just then.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiomqtt
from sites import OVER

REST = 20.0


async def publish(port: int, devices: int, points: int, rate: float, alarms: int, seconds: float) -> None:
    """Everything at rest, then the run."""
    values = [dict.fromkeys([f"p{p}" for p in range(points)], REST) for _ in range(devices)]
    pushed: dict[str, float] = {}
    bare: dict[str, float] = {}
    async with aiomqtt.Client("127.0.0.1", port, max_inflight_messages=1000) as client:

        async def send(device: int) -> None:
            await client.publish(f"devices/d{device}", json.dumps(values[device]), qos=1)

        for device in range(devices):
            await send(device)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        start_s, sent = time.monotonic(), 0
        while (past_s := time.monotonic() - start_s) < seconds:
            if len(pushed) < min(alarms, past_s * alarms / seconds):
                point, device = divmod(len(pushed), devices)
                alarm, values[device][f"p{point}"] = f"area.d{device}.p{point}.high", OVER
                pushed[alarm] = time.monotonic()
                await send(device)
                bare[alarm] = time.monotonic()
                await client.publish(f"bare/{alarm}", b"x", qos=1)
            elif sent < past_s * rate:
                await send(sent % devices)
                sent += 1
            else:
                await asyncio.sleep(0.002)
    print("pushed", json.dumps({"alarms": pushed, "bare": bare, "messages": sent}), flush=True)


if __name__ == "__main__":
    port_, devices_, points_, rate_, alarms_, seconds_ = map(float, sys.argv[1:7])
    asyncio.run(publish(int(port_), int(devices_), int(points_), rate_, int(alarms_), seconds_))
