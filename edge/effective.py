"""The configuration as it will be used: defaults filled in, every number with its unit."""

from __future__ import annotations

from collections.abc import Iterator

from ..sensors.buses import BusKind, BusSpec
from ..sensors.mqtt_words import MqttDevice
from ..words import Point
from .alarms.rules import Kind, Level, Rule
from .polled import Polled
from .site import Site


def describe(site: Site) -> Iterator[str]:
    """One line for each thing that was decided: gateway, channels, buses, devices, points, alarms.

    Reads the profiles of the site once more.
    """
    gateway = site.gateway
    kept = f"readings wait {gateway.flush_s:g} s in memory, trends are kept {gateway.keep_days} days"
    yield f"gateway {gateway.id}: {kept}"
    for channel in site.channels:
        used = "" if channel.id in site.alerts.channels else ", not in use"
        yield f"channel {channel.id}: {channel.kind}, answers within {channel.timeout_s:g} s{used}"
    polled = Polled(site)
    for bus in site.buses:
        yield from _bus(bus, polled)
    points = {meta.point.id: meta.point for meta in site.points}
    for device in site.mqtt_devices:
        yield _mqtt_device(device, points)
    for rule in site.rules:
        yield from _rule(rule)


def _bus(bus: BusSpec, polled: Polled) -> Iterator[str]:
    serial = bus.kind is BusKind.RTU
    wire = f"{bus.serial} {bus.baud} baud 8{bus.parity}{bus.stopbits}" if serial else f"{bus.host}:{bus.port}"
    late = f", late replies until {bus.late_max_ms} ms" if bus.kind.is_rtu else ""
    silence = f", {bus.gap_s * 1000:.3g} ms of silence before each request"
    yield f"bus {bus.id}: {bus.kind} {wire}, timeout {bus.timeout_ms} ms{late}{silence}"
    for unit in bus.units:
        timeout_ms = bus.timeout_s(unit) * 1000
        every = f"polled every {unit.poll_s:g} s, timeout {timeout_ms:g} ms"
        yield f"device {unit.device}: unit id {unit.unit_id} on bus {bus.id}, {every}"
        yield from polled.describe(unit)


def _mqtt_device(device: MqttDevice, points: dict[str, Point]) -> str:
    every_s = points[f"{device.device}.{device.points[0].name}"].poll_s
    silent = f"a fault after {device.stale_s:g} s without a message"
    return f"device {device.device}: topic {device.topic}, publishes every {every_s:g} s, {silent}"


def _rule(rule: Rule) -> Iterator[str]:
    who = f"acknowledged by {' and '.join(rule.required_acks)}"
    if rule.distinct_persons and len(rule.required_acks) > 1:
        who += ", different persons"
    for level in rule.levels:
        latching = ", latching" if level.latching else ""
        back = f"reopens within {rule.reopen_s:g} s"
        yield f"{rule.id}: {_when(rule, level)}, {back}, priority {level.priority}{latching}, {who}"


def _when(rule: Rule, level: Level) -> str:
    if level.kind is Kind.STALE:
        return f"stale after {level.limit:g} s without a reading"
    if level.kind is Kind.QUALITY:
        return f"quality after {level.on_delay_s:g} s of bad readings, off after {level.off_delay_s:g} s"
    unit = f" {rule.unit}".rstrip()
    return (
        f"{level.kind} at {level.limit:g}{unit}, deadband {level.deadband:g}{unit},"
        f" on after {level.on_delay_s:g} s, off after {level.off_delay_s:g} s"
    )
