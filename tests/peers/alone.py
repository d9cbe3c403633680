"""A gateway alone: started in a network without any route, with an address of headquarters that nobody answers.

    unshare -n sh -c 'ip link set lo up; python -m sitewarden.tests.peers.alone FOLDER'

The last line that it prints is what happened, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sitewarden.tests.peers.ports import free_port
from sitewarden.tests.peers.robot_servers import TOKEN, RobotServers
from sitewarden.tests.peers.whole_gateway import DEVICE, QUIET, Gateway, Sensors, alarm_toml, reconcile

FAR_AWAY = "192.0.2.1"  # RFC 5737
HUMID = "store.th1.humidity.high"


def route() -> str:
    """What the kernel says of the way out; empty when there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        code = probe.connect_ex((FAR_AWAY, 9))
    return os.strerror(code) if code else ""


async def until(check: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(90):
        while not check():
            await asyncio.sleep(0.1)
    assert check(), what


async def main(folder: Path) -> dict[str, Any]:
    servers, sensors = RobotServers(), Sensors()
    told = servers.groups["webhook"].taken
    async with servers.running(), sensors.serving():
        site = f"""
[alerts]
channels = ["hall"]
unreachable_ok = true
[[channel]]
id = "hall"
kind = "webhook"
url = "{servers.url}/webhook/{TOKEN}"
[mqtt]
url = "mqtt://{FAR_AWAY}:1883"
[cloud]
url = "https://{FAR_AWAY}"
{DEVICE.format(unit=1, poll_s=0.5)}
{alarm_toml("store.th1.humidity", hi="{ limit = 75.0, priority = 2 }")}
"""
        gateway = Gateway(folder, free_port(), sensors, site)
        gateway.prepare()
        command = [
            sys.executable,
            "-m",
            "sitewarden",
            "edge",
            "--config",
            str(gateway.config),
            "--data",
            str(gateway.data),
        ]
        edge = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        try:
            sensors.registers[1] = [800, 240]
            await until(lambda: len(told) == 2, "both are told")
            states = [await gateway.acknowledge(HUMID, person) for person in ("li", "wang")]
            async with gateway.page("zhao") as page:
                link = (await page.get("status"))["link"]["state"]
            sensors.registers[1] = list(QUIET)
            await until(lambda: gateway.has(HUMID, "closed"), "closed")
        finally:
            edge.terminate()
            await edge.wait()
    persons = sorted(message.body["person"] for message in told)
    return {"route": route(), "told": persons, "states": states, "link": link, "closed": reconcile(gateway)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
