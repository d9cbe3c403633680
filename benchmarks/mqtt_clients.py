"""The processes that `bench_mqtt.py` compares: `paho`, `aiomqtt`, `sensors`, `edge`; and their `load`.

The load publishes, QoS 1, to devices/d0 … d19 JSON objects with 6 numbers. Every client counts messages and prints
`count N` twice a second.
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

DEVICES = 20
FIELDS = ("a", "b", "c", "d", "e", "f")
_count = 0


def _more(number: int) -> None:
    global _count  # noqa: PLW0603
    _count += number


async def _report() -> None:
    while True:
        print("count", _count, flush=True)
        await asyncio.sleep(0.5)


def load(port: int, rate: float) -> None:
    """Publish `rate` messages a second, with at most 500 unacknowledged."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="load")
    client.max_inflight_messages_set(500)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent, began = 0, time.monotonic()
    print("count 0", flush=True)
    while True:
        wanted = int((time.monotonic() - began) * rate)
        for number in range(sent, wanted):
            values = {name: round(20 + (number + i) % 50 / 10, 1) for i, name in enumerate(FIELDS)}
            client.publish(f"devices/d{number % DEVICES}", json.dumps(values), qos=1)
        sent = wanted
        time.sleep(0.01)


def paho(port: int) -> None:
    """paho-mqtt and json alone."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="consumer")

    def on_message(_client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        json.loads(message.payload)
        _more(1)

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe("devices/#", qos=1)

    def report() -> None:
        while True:
            print("count", _count, flush=True)
            time.sleep(0.5)

    threading.Thread(target=report, daemon=True).start()
    client.loop_forever()


async def aiomqtt(port: int) -> None:
    """aiomqtt and json alone."""
    from aiomqtt import Client

    async with Client("127.0.0.1", port, identifier="consumer") as client:
        await client.subscribe("devices/#", qos=1)
        async for message in client.messages:
            json.loads(message.payload)
            _more(1)


async def sensors(port: int) -> None:
    """Our ingest up to the Reading."""
    from sitewarden.sensors.mqtt_ingest import MqttDevice, MqttHealth, MqttPoint, run_mqtt

    points = tuple(MqttPoint(name=name, path=name) for name in FIELDS)
    devices = [MqttDevice(device=f"area.d{i}", topic=f"devices/d{i}", points=points) for i in range(DEVICES)]
    await run_mqtt(f"mqtt://127.0.0.1:{port}", None, devices, lambda _: _more(1), MqttHealth.of(devices))


async def edge(port: int, folder: Path) -> None:
    """The whole daemon: rules with two limits on every point, history, journal, dashboards; no cloud."""
    from meter import free_port
    from sitewarden.edge.app import run_edge
    from sitewarden.edge.pipeline import Pipeline

    text = f'[site]\nid = "bench"\nname = "b"\nname_en = "b"\n[gateway]\nid = "gw1"\n[web]\nport = {free_port()}\n'
    text += f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n[[area]]\nid = "area"\nname = "a"\nname_en = "a"\n'
    for i in range(DEVICES):
        text += f'[[mqtt_device]]\nid = "d{i}"\narea = "area"\ntopic = "devices/d{i}"\nevery_s = 1.0\n'
        for name in FIELDS:
            text += f'[[mqtt_device.point]]\nname = "{name}"\nlabel = "x"\nlabel_en = "x"\npath = "{name}"\n'
            text += 'unit = "x"\nquantity = "other"\n'
    for i in range(DEVICES):
        for name in FIELDS:
            text += f'[[alarm]]\npoint = "area.d{i}.{name}"\nhi = 200.0\nhihi = 300.0\n'
    (folder / "site.toml").write_text(text, "utf-8")
    people = "id,name,name_en,roles,areas,phone\nk,K,K,keeper,*,\no,O,O,officer,*,\n"
    (folder / "people.csv").write_text(people, "utf-8")
    accept = Pipeline.accept

    def counted(self: Pipeline, readings: list) -> None:
        _more(1)
        accept(self, readings)

    Pipeline.accept = counted
    await run_edge(folder / "site.toml", folder / "data", say=lambda _: None)


async def _with_report(work: object) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_report(), name="report")
        group.create_task(work, name="client")  # pyright: ignore[reportArgumentType]


def main() -> None:
    """Run one process until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=["paho", "aiomqtt", "sensors", "edge", "load"])
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=500)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    match options.client:
        case "load":
            load(options.port, options.rate)
        case "paho":
            paho(options.port)
        case "aiomqtt":
            asyncio.run(_with_report(aiomqtt(options.port)))
        case "sensors":
            asyncio.run(_with_report(sensors(options.port)))
        case _:
            with tempfile.TemporaryDirectory() as folder:
                asyncio.run(_with_report(edge(options.port, Path(folder))))


if __name__ == "__main__":
    main()
