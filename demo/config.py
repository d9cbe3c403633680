"""Fit the packaged configuration to this machine: free ports, the demo's wires, its broker and its keys. Pure but for
`choose_ports` and `read_people`."""

from __future__ import annotations

import csv
import random
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from ..errors import ConfigError

HOST = "127.0.0.1"
OTHER_PORTS = range(26_000, 32_500)
"""Below those that the kernel gives to clients: between the choice and the start one of them could be given away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports of the demo, all on 127.0.0.1; the defaults are the ones that the README prints."""

    mqtt: int = 1883
    modbus: int = 15020
    plant: int = 8091
    receiver: int = 8092
    cloud: int = 8090
    edge: int = 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPerson:
    """Somebody who can sign in to the demo. `servers` holds `edge`, `cloud` or both."""

    id: str
    name: str
    name_en: str
    roles: tuple[str, ...]
    servers: tuple[str, ...]


def choose_ports(*, free: bool) -> Ports:
    """The default ports where they are free, any free ones elsewhere; with `free` any free ones everywhere."""
    chosen: dict[str, int] = {}
    with ExitStack() as stack:  # all stay bound until the last is chosen, so that no port is chosen twice
        for item in fields(Ports):
            wanted = [] if free else [getattr(Ports(), item.name)]
            for port in (*wanted, *random.sample(OTHER_PORTS, 1_000), 0):
                probe = stack.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with suppress(OSError):
                    probe.bind((HOST, port))
                    probe.listen()
                    chosen[item.name] = probe.getsockname()[1]
                    break
    return Ports(**chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What the demo writes into site.toml and cloud.toml."""

    ports: Ports
    serial: str
    mqtt_username: str
    mqtt_password_file: str
    public_key: str

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Addresses:
        """Inverse of `asdict`. Raises KeyError, TypeError."""
        return cls(**{**stored, "ports": Ports(**stored["ports"])})


Slots = Iterator[tuple[MutableMapping[str, Any], str, object]]
"""A table, its key, and what the demo writes there."""


def fit_site(text: str, addresses: Addresses, source: str = "site.toml") -> str:
    """site.toml with the demo's addresses; comments and everything else stay.

    Changes `[[bus]]` `plant_tcp` (host, port) and `rs485` (serial), `[mqtt]` (url, username, password_file),
    `[web].port`, `[cloud].url`, and the url of every `[[channel]]` of kind `webhook`.

    Raises:
        ConfigError: a table that the demo needs is missing.
    """
    return _fit(text, source, lambda document, problems: _site_slots(document, addresses, problems))


def fit_cloud(text: str, addresses: Addresses, gateway: str, source: str = "cloud.toml") -> str:
    """cloud.toml with the demo's port and the gateway's public key.

    Changes `[cloud].port` and the `public_key` of the `[[gateway]]` whose id is `gateway`. Raises ConfigError.
    """
    return _fit(text, source, lambda document, problems: _cloud_slots(document, addresses, gateway, problems))


def refit_site(text: str, old: Addresses, new: Addresses, source: str) -> str:
    """An edited site.toml for other addresses: changes those that are still the demo's own, and nothing else.

    Raises:
        ConfigError: it is no TOML.
    """
    return _refit(text, source, *(lambda d, one=one: _site_slots(d, one, []) for one in (old, new)))


def refit_cloud(text: str, old: Addresses, new: Addresses, gateway: str, source: str) -> str:
    """As `refit_site`, of a cloud.toml."""
    return _refit(text, source, *(lambda d, one=one: _cloud_slots(d, one, gateway, []) for one in (old, new)))


def _fit(text: str, source: str, slots: Callable[[tomlkit.TOMLDocument, list[str]], Slots]) -> str:
    document = _parse(text, source)
    problems: list[str] = []
    for table, key, value in slots(document, problems):
        table[key] = value
    if problems:
        raise ConfigError(source, problems)
    return tomlkit.dumps(document)


def _refit(text: str, source: str, *slots: Callable[[tomlkit.TOMLDocument], Slots]) -> str:
    document = _parse(text, source)
    for (table, key, old), (_, _, new) in zip(*(slot(document) for slot in slots), strict=True):
        if old != new and table.get(key) == old:
            table[key] = new
    return tomlkit.dumps(document)


def _site_slots(document: tomlkit.TOMLDocument, addresses: Addresses, problems: list[str]) -> Slots:
    ports = addresses.ports
    tcp = _entry(document, "bus", "plant_tcp", problems)
    yield tcp, "host", HOST
    yield tcp, "port", ports.modbus
    yield _entry(document, "bus", "rs485", problems), "serial", addresses.serial
    mqtt = _table(document, "mqtt", problems)
    yield mqtt, "url", f"mqtt://{HOST}:{ports.mqtt}"
    yield mqtt, "username", addresses.mqtt_username
    yield mqtt, "password_file", addresses.mqtt_password_file
    yield _table(document, "web", problems), "port", ports.edge
    yield _table(document, "cloud", problems), "url", f"http://{HOST}:{ports.cloud}"
    webhooks = [entry for entry in _entries(document, "channel") if entry.get("kind") == "webhook"]
    for entry in webhooks:
        yield entry, "url", f"http://{HOST}:{ports.receiver}/robot/{entry.get('id', 'robot')}"
    if not webhooks:
        problems.append('channel: the demo needs a [[channel]] with kind = "webhook"')


def _cloud_slots(document: tomlkit.TOMLDocument, addresses: Addresses, gateway: str, problems: list[str]) -> Slots:
    yield _table(document, "cloud", problems), "port", addresses.ports.cloud
    yield _entry(document, "gateway", gateway, problems), "public_key", addresses.public_key


def port_in(text: str, table: str, otherwise: int) -> int:
    """The port that `[table]` of a file names, which a person may have changed."""
    port = _table(_parse(text, table), table, []).get("port", otherwise)
    return port if isinstance(port, int) else otherwise


def gateway_id(site_text: str) -> str:
    """`[gateway].id` of site.toml. Raises ConfigError."""
    problems: list[str] = []
    gateway = _table(_parse(site_text, "site.toml"), "gateway", problems)
    if "id" not in gateway:
        raise ConfigError("site.toml", ["gateway.id: is required"])
    return str(gateway["id"])


def read_people(folder: Path) -> list[DemoPerson]:
    """Who can sign in to the edge (site.toml `[people].file`) and the cloud (cloud.toml `[cloud].people`).

    Raises ConfigError when a file is missing or has no `id` column.
    """
    found: dict[str, DemoPerson] = {}
    for server, name, table, key in (
        ("edge", "site.toml", "people", "file"),
        ("cloud", "cloud.toml", "cloud", "people"),
    ):
        named = _parse((folder / name).read_text("utf-8"), name).get(table, {})
        file = str(named.get(key, "people.csv")) if isinstance(named, MutableMapping) else "people.csv"
        for row in _rows(folder / file):
            known = found.get(row["id"])
            found[row["id"]] = DemoPerson(
                id=row["id"],
                name=row.get("name") or row["id"],
                name_en=row.get("name_en") or row.get("name") or row["id"],
                roles=tuple((row.get("roles") or "").split()),
                servers=(*(known.servers if known else ()), server),
            )
    return list(found.values())


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise ConfigError(str(file), [f"cannot be read: {error.strerror}"]) from error
    if any(not row.get("id") for row in rows):
        raise ConfigError(str(file), ["every person needs an id"])
    return rows


def _parse(text: str, source: str) -> tomlkit.TOMLDocument:
    try:
        tomllib.loads(text)  # its errors have words of ours
        return tomlkit.parse(text)
    except tomllib.TOMLDecodeError as error:
        from ..wording import say_toml

        raise ConfigError(source, [say_toml(error)]) from error
    except TOMLKitError as error:
        raise ConfigError(source, [str(error)]) from error


def _entries(document: MutableMapping[str, Any], table: str) -> Iterator[MutableMapping[str, Any]]:
    entries = document.get(table, [])
    yield from (entry for entry in entries if isinstance(entry, MutableMapping)) if isinstance(entries, list) else ()


def _entry(document: MutableMapping[str, Any], table: str, name: str, problems: list[str]) -> MutableMapping[str, Any]:
    for entry in _entries(document, table):
        if entry.get("id") == name:
            return entry
    problems.append(f'{table}: the demo needs a [[{table}]] with id = "{name}"')
    return {}


def _table(document: MutableMapping[str, Any], name: str, problems: list[str]) -> MutableMapping[str, Any]:
    table = document.get(name)
    if isinstance(table, MutableMapping):
        return table
    problems.append(f"{name}: the demo needs the table [{name}]")
    return {}
