"""`sitewarden demo`: broker, simulated plant, chat robot, cloud and gateway, started in order, watched until Ctrl-C."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt

from ..console.language import Say
from ..errors import ConfigError, PermanentError
from .box import summary_lines
from .broker import USERS, Broker, new_password, prepare_broker, write_private
from .children import Child, ChildSpec, ask, stop_all
from .config import (
    HOST,
    Addresses,
    DemoPerson,
    Ports,
    choose_ports,
    fit_cloud,
    fit_site,
    gateway_id,
    port_in,
    read_people,
    refit_cloud,
    refit_site,
)
from .keep import Fate, Fit, Note, plain_files, settle
from .pins import new_pins, set_pins
from .push import STATE_FILE
from .words import phrases

_CONFIG = Path(__file__).resolve().parent.parent / "config"
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What to start, and where.

    Attributes:
        data: folder of everything that the demo writes; kept, so that the next start goes on.
        free_ports: take free ports everywhere, also where the default ones are free.
        fresh: write the configuration anew, also where it was edited.
        broker: `auto` (mosquitto when installed), `mosquitto` or `amqtt`.
        config: folder with site.toml, cloud.toml and people.csv to start from.
        program: how to call sitewarden.
        command: the same as a person types it.
        seed: of the plant's random walk; None differs at each start.
    """

    data: Path = Path("var/demo")
    free_ports: bool = False
    fresh: bool = False
    broker: str = "auto"
    config: Path = _CONFIG
    program: tuple[str, ...] = (sys.executable, "-m", "sitewarden")
    command: str = "sitewarden"
    seed: int | None = None


@dataclass(slots=True, kw_only=True)
class _State:
    """demo.json: what a second terminal (and the next start) needs to know. Private to its owner."""

    path: Path
    running: bool = False
    pid: int = 0
    broker: str = ""
    addresses: dict[str, str] = field(default_factory=dict[str, str])
    pids: dict[str, int] = field(default_factory=dict[str, int])
    people: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    pins: dict[str, str] = field(default_factory=dict[str, str])
    pins_set: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    mqtt_passwords: dict[str, str] = field(default_factory=dict[str, str])
    notes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    written: dict[str, Any] = field(default_factory=dict[str, Any])

    def save(self) -> None:
        """Write the file, mode 0600."""
        body = {key: value for key, value in asdict(self).items() if key != "path"}
        write_private(self.path, json.dumps(body, indent=2, ensure_ascii=False) + "\n")


async def run_demo(options: DemoOptions, say: Tell | None = None) -> None:
    """Start the demo, print where it is, and keep it running until SIGINT or SIGTERM; then stop it within ~5 s.

    Raises:
        SitewardenError: the demo cannot start; whatever was started is stopped again.
    """
    main, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert main is not None
    told: list[int] = []

    def stop() -> None:
        told.append(1)
        if len(told) == 1:
            main.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        await _run(options, say or _print)
    except asyncio.CancelledError:
        if not told:
            raise
        main.uncancel()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _run(options: DemoOptions, say: Tell) -> None:
    data = options.data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)
    tr = phrases()
    with _only_one(data, tr):
        state = _load(data / STATE_FILE)
        children: list[Child] = []
        try:
            people = await _start(options, data, state, children, say, tr)
            for line in summary_lines(
                options.data, state.addresses, people, state.pins, state.mqtt_passwords, options.command
            ):
                say(line)
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(child.watch(), name=f"demo-{child.spec.name}")
        finally:
            if children:
                say(tr("stopping"))
                await stop_all(children)
                say(tr("all_stopped"))
            state.running, state.pids = False, {}
            state.save()


async def _start(
    options: DemoOptions, data: Path, state: _State, children: list[Child], say: Tell, tr: Say
) -> list[DemoPerson]:
    """Prepare and start everything in order; `children` grows as they run."""
    ports = choose_ports(free=options.free_ports)
    state.mqtt_passwords = {user: state.mqtt_passwords.get(user) or new_password() for user in USERS}
    broker = prepare_broker(data / "broker", ports.mqtt, state.mqtt_passwords, kind=options.broker)
    state.pid, state.broker = os.getpid(), broker.name
    say(tr("configured", options.data))
    ports, edited = await _configure(options, data, ports, broker, state, say, tr)
    state.addresses = _addresses(ports, data)
    people = read_people(data)
    state.pins = new_pins([person.id for person in people], state.pins)
    state.people = [asdict(person) for person in people]
    state.save()
    await set_pins(options.program, data, people, state.pins, state.pins_set)
    say(tr("pins", len(people)))

    async with AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(total=2)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        for spec in _specs(options, data, ports, broker, session):

            def changed() -> None:
                state.pids = {item.spec.name: item.pid for item in children if item.pid is not None}
                state.save()

            child = Child(spec, say, changed)
            children.append(child)
            try:
                await child.start()
            except PermanentError:
                if edited and spec.name in ("edge", "cloud"):
                    say(tr("mend_or_fresh"))
                raise
            say(tr("runs", f"{spec.name:<9}", child.pid))
    state.running = True
    state.save()
    return people


async def _configure(
    options: DemoOptions, data: Path, ports: Ports, broker: Broker, state: _State, say: Tell, tr: Say
) -> tuple[Ports, bool]:
    """Make site.toml, cloud.toml, plant.json and what they refer to ready.

    Returns:
        The ports that they name, and whether somebody edited one of them.
    """
    plant = {
        "http_port": ports.plant,
        "modbus_port": ports.modbus,
        "serial_link": str(data / "rs485"),
        "mqtt_url": f"mqtt://{HOST}:{ports.mqtt}",
        "mqtt_username": "devices",
        "mqtt_password_file": str(broker.password_files["devices"].resolve()),
        "seed": options.seed,
    }
    (data / "plant.json").write_text(json.dumps(plant, indent=2) + "\n", "utf-8")
    for server in ("edge", "cloud"):
        (data / server).mkdir(exist_ok=True, mode=0o700)
    key = (await ask((*options.program, "key", "--data", str(data / "edge")))).split()
    if not key:
        raise PermanentError("`sitewarden key` printed no public key")
    new = Addresses(
        ports=ports,
        serial=str(data / "rs485"),
        mqtt_username="gateway",
        mqtt_password_file=str(broker.password_files["gateway"].resolve()),
        public_key=key[-1],
    )
    try:
        edited = _settle_all(options, data, state, new, say, tr)
    except ConfigError as error:
        say(tr("mend_or_fresh"))
        raise error
    state.written = asdict(new)
    state.save()
    edge, cloud = ((data / name).read_text("utf-8") for name in ("site.toml", "cloud.toml"))
    named = replace(ports, edge=port_in(edge, "web", Ports().edge), cloud=port_in(cloud, "cloud", Ports().cloud))
    return named, edited


def _settle_all(options: DemoOptions, data: Path, state: _State, new: Addresses, say: Tell, tr: Say) -> bool:
    """Every file that a person may edit. Returns whether somebody edited one. Raises ConfigError."""
    try:
        old = Addresses.from_json(state.written)
    except (KeyError, TypeError):
        old = new
    gateway = gateway_id((options.config / "site.toml").read_text("utf-8"))
    site, cloud = str(options.data / "site.toml"), str(options.data / "cloud.toml")
    fits: dict[str, tuple[Fit, Fit]] = {
        "site.toml": (
            lambda raw: fit_site(raw.decode(), new).encode(),
            lambda raw: refit_site(_text(raw, site), old, new, site).encode(),
        ),
        "cloud.toml": (
            lambda raw: fit_cloud(raw.decode(), new, gateway).encode(),
            lambda raw: refit_cloud(_text(raw, cloud), old, new, gateway, cloud).encode(),
        ),
    }
    names, edited = ["site.toml", "cloud.toml", *map(str, plain_files(options.config))], False
    for name in names:
        fit, refit = fits.get(name, (_as_it_is, _as_it_is))
        note = Note(**state.notes[name]) if name in state.notes else None
        example = options.config / name
        done = settle(data / name, example.read_bytes(), note, fit=fit, refit=refit, fresh=options.fresh)
        state.notes[name] = asdict(done.note)
        state.save()  # whatever happens next, what was written here is known as ours
        if done.fate is not Fate.WRITTEN:
            about = done.spare.name if done.spare is not None else example
            say(tr(f"file_{done.fate}", options.data / name, about))
        edited = edited or done.fate in (Fate.KEPT, Fate.KEPT_OLD)
    return edited


def _as_it_is(raw: bytes) -> bytes:
    return raw


def _text(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(source, [f"line {raw[: error.start].count(10) + 1}: must be UTF-8 text"]) from error


def _specs(
    options: DemoOptions, data: Path, ports: Ports, broker: Broker, session: aiohttp.ClientSession
) -> Iterator[ChildSpec]:
    """The children in the order of their start."""

    def child(name: str, command: tuple[str, ...], healthy: Callable[[], Awaitable[bool]]) -> ChildSpec:
        return ChildSpec(name=name, command=command, log=data / "log" / f"{name}.log", healthy=healthy)

    def answers(port: int, path: str) -> Callable[[], Awaitable[bool]]:
        return lambda: _http_answers(session, f"http://{HOST}:{port}{path}")

    def server(name: str) -> tuple[str, ...]:
        return (
            *options.program,
            name,
            "--config",
            str(data / f"{'site' if name == 'edge' else name}.toml"),
            "--data",
            str(data / name),
        )

    plant = (*options.program, "plant", "--config", str(data / "plant.json"))
    receiver = (*options.program, "receiver", "--port", str(ports.receiver))
    yield child("broker", broker.command, lambda: _broker_answers(broker))
    yield child("plant", plant, answers(ports.plant, "/api/points"))
    yield child("receiver", receiver, answers(ports.receiver, "/api/messages"))
    yield child("cloud", server("cloud"), answers(ports.cloud, "/api/v1/people"))
    yield child("edge", server("edge"), answers(ports.edge, "/api/v1/people"))


def _addresses(ports: Ports, data: Path) -> dict[str, str]:
    return {
        "edge": f"http://{HOST}:{ports.edge}/",
        "cloud": f"http://{HOST}:{ports.cloud}/",
        "plant": f"http://{HOST}:{ports.plant}/",
        "receiver": f"http://{HOST}:{ports.receiver}/",
        "mqtt": f"mqtt://{HOST}:{ports.mqtt}",
        "modbus": f"{HOST}:{ports.modbus}",
        "serial": str(data / "rs485"),
    }


async def _http_answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _broker_answers(broker: Broker) -> bool:
    password = broker.password_files["dashboard"].read_text("utf-8").strip()
    try:
        async with aiomqtt.Client(HOST, broker.port, username="dashboard", password=password, timeout=2):
            return True
    except aiomqtt.MqttError:
        return False


@contextmanager
def _only_one(data: Path, tr: Say) -> Iterator[None]:
    with (data / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PermanentError(tr("already", data), hint=tr("already_hint")) from error
        yield


def _load(path: Path) -> _State:
    """What the last demo in this folder left: its PINs and passwords. An unreadable file is begun anew."""
    try:
        old = json.loads(path.read_text("utf-8"))
        return _State(
            path=path,
            pins=dict(old["pins"]),
            pins_set=dict(old["pins_set"]),
            mqtt_passwords=dict(old["mqtt_passwords"]),
            notes={name: dict(note) for name, note in old.get("notes", {}).items()},
            written=dict(old.get("written", {})),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return _State(path=path)


def _print(line: str) -> None:
    print(line, flush=True)
