"""The MQTT link for a long time: a real mosquitto that is killed and restarted, devices that also send garbage.

`SITEWARDEN_SOAK_S` real seconds; `SITEWARDEN_SEED` repeats the choices.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import pytest
from sitewarden.sensors.mqtt_ingest import LinkSpec, MqttDevice, MqttHealth, MqttLink, MqttPoint
from sitewarden.words import Quality, Reading

DEVICES = 8
RECOVERY_S = 60.0
MEMORY_BYTES = 256 * 1024
MORE_BLOCKS = 3000
MORE_OBJECTS = 1000
REMEMBERED = 2500  # messages; more than any memory of the link


@dataclass
class Broker:
    """mosquitto on a loopback port; it keeps its sessions on the disk, and saves them when it is asked to stop."""

    program: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence true"]
        lines += [f"persistence_location {self.folder}/", "max_queued_messages 5000"]
        if os.getuid() == 0:
            lines.append("user root")
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n", "utf-8")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([self.program, "-c", str(config)], stdout=log, stderr=log)

    def stop(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)


@dataclass
class Publisher:
    """The devices. Device i publishes the numbers i, i + 8, i + 16 ...; garbage between them."""

    port: int
    dice: random.Random
    sent: list[int] = field(default_factory=lambda: list(range(DEVICES)))
    garbage: int = 0
    numbers: int = 0
    silent: bool = False
    busy: bool = False

    async def run(self) -> None:
        """Publish until cancelled, whatever happens to the broker; a number is never sent twice."""
        task = asyncio.current_task()
        assert task is not None
        while not task.cancelling():  # aiomqtt, as it leaves, can put its own error in the place of a cancellation
            with contextlib.suppress(aiomqtt.MqttError, OSError):
                async with aiomqtt.Client("127.0.0.1", self.port, timeout=5) as client:
                    client.pending_calls_threshold = 1000  # else it warns, and the log keeps the warnings
                    while True:
                        await self.burst(client)
            await asyncio.sleep(0.2)

    async def burst(self, client: aiomqtt.Client) -> None:
        """Twenty messages at once; they keep their order."""
        self.busy = True
        messages = range(0 if self.silent else 20)
        done = await asyncio.gather(*(self.publish(client) for _ in messages), return_exceptions=True)
        self.busy = False
        for error in done:
            if error is not None:
                raise error
        await asyncio.sleep(0.01)

    async def publish(self, client: aiomqtt.Client) -> None:
        device = self.dice.randrange(DEVICES)
        if self.dice.random() < 0.3:
            self.garbage += 1
            topic = self.dice.choice((f"field/d{device}", f"wild/{self.dice.randrange(200)}/x"))
            retain = self.dice.random() < 0.02 and topic.startswith("field")
            await client.publish(topic, garbage(self.dice), qos=self.dice.choice((0, 1)), retain=retain)
        else:
            self.numbers += 1
            self.sent[device] += DEVICES
            await client.publish(f"field/d{device}", json.dumps({"n": self.sent[device]}), qos=1)


def garbage(dice: random.Random) -> bytes:
    match dice.randrange(8):
        case 0:
            return b""
        case 1:
            return dice.randbytes(dice.randrange(200))
        case 2:
            return b"[" * dice.randrange(5000)
        case 3:
            return b'{"n": ' + b"9" * dice.randrange(13, 500) + b"}"
        case 4:
            return b'{"n": "' + dice.randbytes(20).hex().encode() + b'"}'
        case 5:
            return bytes(dice.choice((70_000, 300_000)))
        case 6:
            return json.dumps({dice.randbytes(4).hex(): dice.random()}).encode()
        case _:
            return b'{"n": 1, "n": 2}'


@dataclass
class Watch:
    """The sinks. A fresh number is its device's, was sent, and is newer than all before."""

    publisher: Publisher
    fresh: Counter[str] = field(default_factory=Counter)
    newest: dict[str, float] = field(default_factory=dict)
    bad: Counter[str] = field(default_factory=Counter)
    old: int = 0

    def take(self, readings: list[Reading]) -> None:
        for reading in readings:
            if reading.quality is not Quality.GOOD:
                assert reading.value is None or reading.quality is Quality.UNCERTAIN
                self.bad[reading.why] += 1
                continue
            device, value = reading.point.split(".")[1], reading.value
            assert value is not None
            self.check(device, value)
            assert value > self.newest.get(device, -1), f"{reading} after {self.newest[device]}"
            self.newest[device] = value
            self.fresh[device] += 1

    def take_old(self, readings: list[Reading]) -> None:
        for reading in readings:
            if reading.value is not None:
                self.check(reading.point.split(".")[1], reading.value)
                self.old += 1

    def check(self, device: str, value: float) -> None:
        number = int(device[1:])
        assert value % DEVICES == number, (device, value)
        assert value <= self.publisher.sent[number], (device, value)


def devices() -> list[MqttDevice]:
    point = MqttPoint(name="n", path="n", low=0, high=1e12)
    named = [MqttDevice(device=f"field.d{i}", topic=f"field/d{i}", points=(point,)) for i in range(DEVICES)]
    return [*named, MqttDevice(device="field.wild", topic="wild/+/x", points=(point,))]


def uncounted(health: MqttHealth) -> int:
    """Messages that came and are not in a counter of a device."""
    counted = sum(d.messages + sum(d.rejects.values()) + d.duplicates for d in health.devices.values())
    return health.messages - health.strangers - counted


@dataclass(kw_only=True)
class Footprint:
    """What must not grow."""

    memory: int
    blocks: int
    objects: int
    tasks: int
    files: int

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        return cls(
            memory=tracemalloc.get_traced_memory()[0],
            blocks=sys.getallocatedblocks(),
            objects=len(gc.get_objects()),
            tasks=len(asyncio.all_tasks()),
            files=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        )


@dataclass
class Soak:
    """All of it."""

    broker: Broker
    publisher: Publisher
    watch: Watch
    health: MqttHealth
    eventually: Callable
    restarts: int = 0

    async def settled(self) -> None:
        """The broker is there, a fresh number of each device comes, and then nothing is under way."""
        before = dict(self.watch.fresh)
        await self.eventually(
            lambda: all(self.watch.fresh[f"d{i}"] > before.get(f"d{i}", 0) for i in range(DEVICES)),
            lambda: f"fresh numbers of every device: {self.watch.fresh} after {before}; {self.health}",
            bound_s=RECOVERY_S,
        )
        self.publisher.silent = True
        await self.eventually(
            lambda: (
                not self.publisher.busy
                and all(self.watch.newest[f"d{i}"] == sent for i, sent in enumerate(self.publisher.sent))
            ),
            lambda: f"the last number of every device: {self.publisher.sent}, but {self.watch.newest}; {self.health}",
            bound_s=RECOVERY_S,
        )
        assert self.health.waiting_bytes == 0
        assert 0 <= uncounted(self.health) <= 2 * self.restarts + 1, f"more than markers: {self.health}"

    async def warm(self) -> None:
        """What remembers the last few thousand messages is full, so that footprints can be compared."""
        enough = self.publisher.numbers + REMEMBERED
        await self.eventually(
            lambda: self.publisher.numbers > enough, lambda: f"{enough} numbers sent", bound_s=RECOVERY_S
        )
        await self.settled()

    async def misfortune(self, dice: random.Random) -> None:
        self.broker.stop(dice.choice((signal.SIGKILL, signal.SIGTERM)))
        await asyncio.sleep(dice.choice((0, 0.1, 2)))
        self.broker.start()
        self.restarts += 1
        await self.settled()
        self.publisher.silent = False
        await asyncio.sleep(dice.uniform(0, 3))


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> int:
    caplog.set_level(logging.CRITICAL)  # the log would keep its records
    number = int(os.environ.get("SITEWARDEN_SEED") or random.randrange(2**32))
    with capsys.disabled():
        print(f"\nSITEWARDEN_SEED={number}")
    return number


@pytest.mark.soak
async def test_link_outlives_its_broker(
    tmp_path: Path, need: Callable, free_port: Callable, eventually: Callable, seed: int, capsys
) -> None:
    dice = random.Random(seed)
    broker = Broker(need("mosquitto", "apt install mosquitto"), tmp_path, free_port())
    publisher = Publisher(broker.port, random.Random(seed + 1))
    watch, health = Watch(publisher), MqttHealth.of(devices())
    spec = LinkSpec(url=f"mqtt://127.0.0.1:{broker.port}", client_id="soak")
    link = MqttLink(spec, devices(), watch.take, health, late=watch.take_old)
    soak = Soak(broker, publisher, watch, health, eventually)
    prints: list[Footprint] = []
    broker.start()
    tracemalloc.start()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(link.run(), name="link"), group.create_task(publisher.run(), name="field")]
            begin_s = time.monotonic()
            budget_s = float(os.environ.get("SITEWARDEN_SOAK_S", "60"))
            await soak.warm()
            publisher.silent = False
            for part in (0.4, 0.7, 1.0):
                await soak.misfortune(dice)
                while time.monotonic() - begin_s < part * budget_s:
                    await soak.misfortune(dice)
                await soak.warm()
                prints.append(Footprint.now())
                publisher.silent = False
            for task in tasks:
                task.cancel()
    finally:
        tracemalloc.stop()
        broker.stop(signal.SIGKILL)
    with capsys.disabled():
        print(
            f"{soak.restarts} restarts, {health.messages} messages, {sum(watch.fresh.values())} fresh, {watch.old} old"
        )
        print(f"{publisher.garbage} garbage; bad {dict(watch.bad)}; duplicates {health.duplicates}")
        print("\n".join(map(str, prints)))
    first, *later = prints
    for print_ in later:
        assert print_.memory - first.memory < MEMORY_BYTES, prints
        assert print_.blocks - first.blocks < MORE_BLOCKS, prints
        assert print_.objects - first.objects < MORE_OBJECTS, prints
        assert (print_.tasks, print_.files) == (first.tasks, first.files), prints
