"""A simulated plant on real sockets: Modbus TCP, Modbus RTU on a pseudo-terminal, MQTT devices, and a control page.

It is a process of its own and shares no code with the gateway's drivers, so what the gateway reads from it went over
a wire. Values move plausibly and cross no limit by themselves; the page (or `sitewarden demo --humid`) pushes a point,
kills a device or makes it late.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import aiomqtt
from aiohttp import web
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import ConfigError, PermanentError
from .plant_devices import Wire
from .plant_model import DeviceMode, DeviceState, Plant
from .plant_web import plant_app
from .plant_wire import ModbusTcpServer, RtuSlave

_LOG = logging.getLogger(__name__)
_RETRY_MAX_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantOptions:
    """Where the plant listens and how it moves. Port 0 takes a free one.

    Attributes:
        serial_link: where the RTU line appears (a symlink to the pseudo-terminal); None leaves the line out.
        mqtt_url: `mqtt://host:port` of the broker; None leaves the MQTT devices out.
        mqtt_password_file: file that holds the password of `mqtt_username`.
        publish_s: seconds between two messages of an MQTT device.
        step_s: seconds between two steps of the model.
        seed: of the random walk; None differs at each start.
        day_s: length of the simulated day.
    """

    http_host: str = "127.0.0.1"
    http_port: int = 8091
    modbus_host: str = "127.0.0.1"
    modbus_port: int = 15020
    serial_link: Path | None = None
    mqtt_url: str | None = None
    mqtt_username: str | None = None
    mqtt_password_file: Path | None = None
    publish_s: float = 2.0
    step_s: float = 1.0
    seed: int | None = None
    day_s: float = 3600.0

    __pydantic_config__ = ConfigDict(extra="forbid")

    def to_json(self) -> dict[str, object]:
        """The fields as JSON; paths as text."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantAddresses:
    """Where a running plant really is."""

    http_port: int
    modbus_port: int
    serial_link: Path | None


def load_plant_options(path: Path) -> PlantOptions:
    """Read PlantOptions from a JSON file that has the same keys. Raises ConfigError with every problem."""
    try:
        return TypeAdapter(PlantOptions).validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc']))}: {item['msg']} (got {item['input']!r})" for item in error.errors()
        ]
        raise ConfigError(str(path), problems) from error


async def run_plant(options: PlantOptions, ready: Callable[[PlantAddresses], None] | None = None) -> NoReturn:
    """Run the plant until cancelled. Calls `ready` once when every socket listens.

    Raises:
        PermanentError: a port is taken, or something that is not a symlink lies at `serial_link`.
    """
    plant = Plant(seed=options.seed, day_s=options.day_s)
    async with AsyncExitStack() as stack:
        addresses = await _listen(plant, options, stack)
        if ready is not None:
            ready(addresses)
        async with asyncio.TaskGroup() as group:
            group.create_task(_move(plant, options.step_s), name="plant-model")
            if options.mqtt_url is not None:
                for state in plant.devices.values():
                    if state.spec.wire is Wire.MQTT:
                        group.create_task(_publish_for_ever(plant, state, options), name=f"plant-mqtt-{state.spec.id}")
    raise AssertionError("the plant's tasks never end by themselves")


async def _listen(plant: Plant, options: PlantOptions, stack: AsyncExitStack) -> PlantAddresses:
    try:
        modbus = await stack.enter_async_context(ModbusTcpServer(plant, options.modbus_host, options.modbus_port))
        if options.serial_link is not None:
            await stack.enter_async_context(RtuSlave(plant, options.serial_link))
        runner = web.AppRunner(plant_app(plant), access_log=None, shutdown_timeout=1.0)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.TCPSite(runner, options.http_host, options.http_port).start()
    except OSError as error:
        raise PermanentError(
            f"plant: cannot open {error.filename or 'a socket'}: {error.strerror or error}",
            hint="is another plant running on these ports?",
        ) from error
    return PlantAddresses(http_port=runner.addresses[0][1], modbus_port=modbus.port, serial_link=options.serial_link)


async def _move(plant: Plant, step_s: float) -> NoReturn:
    while True:
        await asyncio.sleep(step_s)
        plant.step(step_s)


async def _publish_for_ever(plant: Plant, state: DeviceState, options: PlantOptions) -> NoReturn:
    """Publish one MQTT device; a lost broker is logged once and tried again for ever."""
    retry_s, lost = 0.5, False
    while True:
        try:
            async with _client(state, options) as client:
                _LOG.info("%s: connected to %s", state.spec.id, options.mqtt_url)
                retry_s, lost = 0.5, False
                await _publish(plant, state, client, options.publish_s)
        except (aiomqtt.MqttError, OSError) as error:
            if not lost:
                _LOG.warning("%s: broker %s lost: %s; trying again for ever", state.spec.id, options.mqtt_url, error)
            lost = True
        await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
        retry_s = min(_RETRY_MAX_S, 2 * retry_s)


def _client(state: DeviceState, options: PlantOptions) -> aiomqtt.Client:
    address = urlsplit(options.mqtt_url or "")
    password = options.mqtt_password_file.read_text("utf-8").strip() if options.mqtt_password_file else None
    name = f"plant-{state.spec.device}"
    return aiomqtt.Client(
        address.hostname or "127.0.0.1",
        address.port or 1883,
        username=options.mqtt_username,
        password=password,
        identifier=name,
        keepalive=10,
        timeout=5,
    )


async def _publish(plant: Plant, state: DeviceState, client: aiomqtt.Client, publish_s: float) -> NoReturn:
    while True:
        if state.mode is not DeviceMode.DEAD:
            payload = json.dumps({**plant.values(state.spec), "status": "ok"})
            await asyncio.sleep(state.delay_s)
            await client.publish(state.spec.topic, payload, qos=1)
            state.requests += 1
        await asyncio.sleep(publish_s)
