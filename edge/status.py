"""The gateway's own state, for pages and the MQTT tree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..sensors.buses import BusHealth
from ..sensors.mqtt_ingest import MqttHealth
from ..sync.journal import Journal
from ..sync.uplink import UplinkHealth
from ..words import now, utc_text
from .alerts.outbox import OutboxHealth
from .dashboards import DashboardHealth
from .pipeline import PipelineHealth
from .site import Site

_STARTED_S = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Every part's live counters; each is written by its part alone."""

    pipeline: PipelineHealth
    outbox: OutboxHealth
    broker: DashboardHealth
    mqtt: MqttHealth
    uplink: UplinkHealth
    buses: Sequence[BusHealth]


def status_json(site: Site, journal: Journal, health: Health) -> dict[str, Any]:
    """What `/api/v1/status` answers."""
    instant = now()
    uplink, broker = health.uplink, health.broker
    return {
        "version": __version__,
        "site": site.site.id,
        "gateway": site.gateway.id,
        "time": utc_text(instant.utc_ms),
        "clock": instant.clock.value,
        "uptime_s": round(time.monotonic() - _STARTED_S),
        "link": {
            "state": uplink.state if site.cloud is not None else "off",
            "since": uplink.since,
            "backlog_records": uplink.backlog_records,
            "backlog_segments": uplink.backlog_segments,
            "last_ok": uplink.last_ok,
            "error": uplink.last_error,
        },
        "broker": {
            "state": broker.state if site.mqtt is not None else "off",
            "since": utc_text(broker.since.utc_ms),
            "error": broker.error,
        },
        "buses": [_bus_json(bus) for bus in health.buses],
        "mqtt_devices": _mqtt_json(health.mqtt),
        "deliveries": {"pending": health.outbox.pending, "failing": health.outbox.failing},
        "journal": {"seq": journal.head()[0], "epoch": journal.epoch},
        "config": site.revision,
    }


def _bus_json(bus: BusHealth) -> dict[str, Any]:
    units = [
        {
            "device": unit.device,
            "unit_id": unit.unit_id,
            "state": unit.state,
            "why": unit.why,
            "polls": unit.polls,
            "good": unit.good,
            "bad": unit.bad,
            "skipped": unit.skipped,
        }
        for unit in bus.units.values()
    ]
    return {"id": bus.id, "state": "up" if bus.connected else "down", "error": bus.last_error, "units": units}


def _mqtt_json(health: MqttHealth) -> list[dict[str, Any]]:
    return [
        {"device": name, "messages": device.messages, "rejects": dict(device.rejects)}
        for name, device in health.devices.items()
    ]
