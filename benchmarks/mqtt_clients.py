"""The processes that `bench_mqtt.py` compares: `paho`, `aiomqtt`, `sensors`, `edge`.

    mqtt_clients.py CLIENT BROKER_PORT [--folder FOLDER]

All take the messages of `mqtt_load.py`. Each line `took` on standard input is answered by `took {json}`: `messages` so
far, `distinct` numbers among them, `first_s` and `last_s` on the machine's monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

from sites import FIELDS, MQTT_DEVICES, mqtt_site
from told import listen


class Took:
    """What a client had in its hands."""

    def __init__(self) -> None:
        self.messages = self.distinct = 0
        self.seen = bytearray(1 << 22)
        self.first_s = self.last_s = 0.0

    def number(self, n: int) -> None:
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        self.messages += 1
        self.distinct += not self.seen[n]
        self.seen[n] = 1

    def readings(self, readings: list[Any]) -> None:
        """One or more messages as readings: the first point of each is the number. Bad ones do not count."""
        for at in range(0, len(readings), len(FIELDS)):
            if readings[at].value is not None:
                self.number(int(readings[at].value))

    def answer(self) -> None:
        """One line in, one out."""
        found = {"messages": self.messages, "distinct": self.distinct}
        print("took", json.dumps({**found, "first_s": self.first_s, "last_s": self.last_s}), flush=True)


TOOK = Took()


def paho(port: int) -> None:
    """paho-mqtt and json alone."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="paho")

    def on_message(_client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        TOOK.number(json.loads(message.payload)["n"])

    def on_connect(*_: object) -> None:
        client.subscribe("devices/#", qos=1)

    client.on_message = on_message
    client.on_connect = on_connect
    client.connect("127.0.0.1", port)

    def listen() -> None:
        for _ in sys.stdin:
            TOOK.answer()

    threading.Thread(target=listen, daemon=True).start()
    client.loop_forever()


async def aiomqtt(port: int, _folder: Path) -> None:
    """aiomqtt and json alone."""
    from aiomqtt import Client

    async with Client("127.0.0.1", port, identifier="aiomqtt") as client:
        await client.subscribe("devices/#", qos=1)
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            TOOK.number(json.loads(message.payload)["n"])


async def sensors(port: int, _folder: Path) -> None:
    """Our ingest up to the Reading."""
    from sitewarden.sensors.mqtt_ingest import MqttDevice, MqttHealth, MqttPoint, run_mqtt

    points = tuple(MqttPoint(name=name, path=name) for name in FIELDS)
    devices = [MqttDevice(device=f"area.d{i}", topic=f"devices/d{i}", points=points) for i in range(MQTT_DEVICES)]
    await run_mqtt(f"mqtt://127.0.0.1:{port}", None, devices, TOOK.readings, MqttHealth.of(devices))


async def edge(port: int, folder: Path) -> None:
    """The whole daemon: rules with two limits on every point, history, journal, dashboards; no cloud."""
    from sitewarden.edge.app import run_edge
    from sitewarden.edge.pipeline import Pipeline

    accept = Pipeline.accept

    def counted(self: Pipeline, readings: list[Any]) -> None:
        accept(self, readings)
        TOOK.readings(readings)

    with mock.patch.object(Pipeline, "accept", counted):
        await run_edge(mqtt_site(folder, port), folder / "data", say=lambda _: None)


async def _run(work: Any, port: int, folder: Path) -> None:
    listen(lambda _: TOOK.answer())
    await work(port, folder)


def main() -> None:
    """Run one client until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=["paho", "aiomqtt", "sensors", "edge"])
    parser.add_argument("port", type=int)
    parser.add_argument("--folder", type=Path, help="of the edge's site and stores; by default a temporary one")
    options = parser.parse_args()
    if options.client == "paho":
        paho(options.port)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = {"aiomqtt": aiomqtt, "sensors": sensors, "edge": edge}[options.client]
        asyncio.run(_run(work, options.port, options.folder or Path(folder)))


if __name__ == "__main__":
    main()
