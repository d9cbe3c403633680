"""Brokers and the devices behind them, from a configuration without problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from ..sensors.mqtt_presets import expand
from ..sensors.mqtt_words import OFFLINE, ONLINE, LinkSpec, MqttCredentials, MqttDevice, MqttPoint
from .config import Document
from .models import MqttDeviceTable, MqttPointTable

MAIN = "mqtt"
"""The link of the devices that name no broker; no `[[broker]]` has this id."""


def mqtt_devices(document: Document) -> Iterator[MqttDevice]:
    """Every device, with what its format decides filled in."""
    zone = document.single["site"].timezone
    for table in document.entries("mqtt_device"):
        yield _device(table, zone)


def mqtt_links(document: Document, secret: Callable[[str], str]) -> Iterator[tuple[LinkSpec, tuple[MqttDevice, ...]]]:
    """Every broker that has a device, and its devices.

    Args:
        document: without problems.
        secret: the content of a file that it names.
    """
    behind: dict[str, list[MqttDevice]] = {}
    for table, device in zip(document.entries("mqtt_device"), mqtt_devices(document), strict=True):
        behind.setdefault(table.broker or MAIN, []).append(device)
    mqtt = document.single["mqtt"]
    brokers = [(MAIN, mqtt)] if mqtt is not None else []
    for name, table in (*brokers, *((broker.id, broker) for broker in document.entries("broker"))):
        if name in behind:
            yield _link(document, name, table, secret), tuple(behind[name])


def _link(document: Document, name: str, table: Any, secret: Callable[[str], str]) -> LinkSpec:
    folder = document.path.parent
    user = table.username
    return LinkSpec(
        id=name,
        url=table.url,
        credentials=MqttCredentials(username=user, password=secret(table.password_file)) if user else None,
        client_id=f"sitewarden-{document.single['site'].id}-{document.single['gateway'].id}-{name}",
        version=table.version,
        ca_file=str(folder / table.ca_file) if table.ca_file else "",
        cert_file=str(folder / table.cert_file) if table.cert_file else "",
        key_file=str(folder / table.key_file) if table.key_file else "",
        ack=table.ack,
    )


def _device(table: MqttDeviceTable, zone: str) -> MqttDevice:
    device = MqttDevice(
        device=f"{table.area}.{table.id}",
        topic=table.topic,
        points=tuple(_point(point) for point in table.point),
        stale_s=max(30.0, 3 * table.every_s),
        status_path=table.status_path or None,
        status_ok=frozenset(table.status_ok),
        time_path=table.time_path or None,
        time_format=table.time_format,
        zone=zone,
        max_skew_s=table.max_skew_s,
        availability_topic=table.availability_topic,
        online=frozenset(table.online or ONLINE),
        offline=frozenset(table.offline or OFFLINE),
        only=frozenset({str(table.f_port)}) if table.f_port is not None else frozenset(),
    )
    return expand(table.format, device)


def _point(point: MqttPointTable) -> MqttPoint:
    return MqttPoint(
        name=point.name,
        path=point.path,
        topic=point.topic,
        unit=point.unit,
        text=point.text,
        words=tuple((point.map or {}).items()),
        scale=Decimal(repr(point.scale)),
        low=point.low,
        high=point.high,
    )
