"""The configuration as it will be used: defaults filled in, every number with its unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..sensors.buses import BusKind, BusSpec
from ..sensors.mqtt_words import MqttDevice
from ..words import Point
from .conformity import Standard
from .effective_alarms import describe_rule, describe_suppressions
from .polled import Polled
from .site import Site


def describe(site: Site) -> Iterator[str]:
    """One line for each thing that was decided: gateway, channels, buses, devices, points, alarms.

    Reads the profiles of the site once more.
    """
    gateway = site.gateway
    kept = f"readings wait {gateway.flush_s:g} s in memory, are kept {gateway.keep_days} days"
    kept += f", their minutes {gateway.minutes_days} days"
    yield f"gateway {gateway.id}: {kept}"
    for channel in site.channels:
        used = "" if channel.id in site.alerts.channels else ", not in use"
        yield f"channel {channel.id}: {_channel(channel)}{used}"
    yield from _alerts(site)
    polled = Polled(site)
    for bus in site.buses:
        yield from _bus(bus, polled)
    points = {meta.point.id: meta.point for meta in site.points}
    for device in site.mqtt_devices:
        yield _mqtt_device(device, points)
    for rule in site.rules:
        yield from describe_rule(rule)
    if site.standard is not None:
        yield from _baseline(site.standard)
    yield from describe_suppressions(site.rules)


def _baseline(standard: Standard) -> Iterator[str]:
    """Where a value is not the site's own."""
    yield f"baseline {standard.name_en}: revision {standard.revision}"
    for one in standard.tightened:
        had = "the site says nothing" if one["site"] is None else f"instead of the site's {one['site']}"
        yield f"baseline: {one['point']}.{one['key']} is {one['now']}, {had}"
    for _, problem in standard.problems:
        yield f"baseline: {problem}"


def _channel(channel: Any) -> str:
    """Its kind and what it takes time and whom for; no secret."""
    said = [channel.kind]
    limits = ("timeout_s", "send_limit_s", "send_s")
    limit_s = next(getattr(channel, key) for key in limits if hasattr(channel, key))
    said.append(f"answers within {limit_s:g} s")
    if getattr(channel, "areas", ()):
        said.append(f"for {' and '.join(channel.areas)}")
    if getattr(channel, "roles", ()):
        said.append(f"to {' and '.join(channel.roles)}")
    return ", ".join(said)


def _alerts(site: Site) -> Iterator[str]:
    """Which ladder climbs, and how."""
    names = {
        **{f"priority {priority}": name for priority, name in site.ladder_of.items()},
        "system": site.system_ladder,
    }
    for what, name in names.items():
        yield f"ladder of {what}: {name}"
    for name in dict.fromkeys(names.values()):
        plan = site.ladders[name]
        for rung in plan.rungs:
            parts = [f"to {', '.join(rung.to)}" if rung.to else "", f"by {', '.join(rung.add)}" if rung.add else ""]
            parts += [rung.colour.value, rung.action.value]
            yield f"ladder {name} ({plan.basis}): after {rung.at_s:g} s {'; '.join(filter(None, parts))}"


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
