"""The gateway's own state, for pages and the MQTT tree."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..sensors.buses import BusHealth
from ..sensors.mqtt_ingest import MqttHealth
from ..sync.evidence_state import EvidenceHealth
from ..sync.journal import Journal
from ..sync.link_state import UplinkHealth
from ..words import Instant, now, utc_text
from .alerts.outbox import OutboxHealth
from .dashboards import DashboardHealth
from .disk_keeping import DiskHealth
from .not_recorded import not_recorded_json
from .pipeline import PipelineHealth
from .site import Site

if TYPE_CHECKING:
    from .alerts.port import Channel

_CHANNEL_FACTS = ("operator", "registration", "signal_dbm", "signal_bars", "left")
"""What pages show of a channel: the network of a modem, and how many messages the budget of a robot still allows."""
_STARTED_S = time.monotonic()


def uptime_s() -> float:
    """Since this process started, in seconds."""
    return time.monotonic() - _STARTED_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Every part's live counters; each is written by its part alone. Buses and links come and go with the site."""

    pipeline: PipelineHealth
    outbox: OutboxHealth
    broker: DashboardHealth
    uplink: UplinkHealth
    buses: Mapping[str, BusHealth]
    links: Mapping[str, MqttHealth]
    evidence: EvidenceHealth = field(default_factory=EvidenceHealth)
    disk: DiskHealth = field(default_factory=DiskHealth)


def status_json(site: Site, journal: Journal, health: Health, channels: Mapping[str, Channel]) -> dict[str, Any]:
    """What `/api/v1/status` answers. Args: channels: those that are open, by id."""
    instant = now()
    uplink, broker = health.uplink, health.broker
    return {
        "version": __version__,
        "site": site.site.id,
        "gateway": site.gateway.id,
        "time": utc_text(instant.utc_ms),
        "clock": instant.clock.value,
        "uptime_s": round(uptime_s()),
        "link": uplink.to_json() | ({} if site.is_linked else {"state": "off"}),
        "broker": {
            "state": broker.state if site.mqtt is not None else "off",
            "since": utc_text(broker.since.utc_ms),
            "error": broker.error,
        },
        "buses": [_bus_json(health.buses[bus.id]) for bus in site.buses if bus.id in health.buses],
        "mqtt_links": [_link_json(link) for link in health.links.values()],
        "mqtt_devices": [device for link in health.links.values() for device in _mqtt_json(link)],
        "deliveries": {"pending": health.outbox.pending, "failing": health.outbox.failing},
        "channels": [_channel_json(table, channels[table.id]) for table in site.channels if table.id in channels],
        "not_recorded": not_recorded_json(journal),
        "journal": {"seq": journal.head()[0], "epoch": journal.epoch},
        "evidence": health.evidence.to_json(journal.head()[0]),
        "disk": health.disk.to_json(),
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


def _channel_json(table: Any, channel: Channel) -> dict[str, Any]:
    health = channel.health
    return {
        "id": table.id,
        "kind": table.kind,
        "fault": health.fault.value,
        "error": health.detail,
        "error_zh": health.facts.get("zh") or health.detail,
        "accepted": health.accepted,
        "delivered": health.delivered,
        "failed": health.failed,
        "facts": {name: health.facts[name] for name in _CHANNEL_FACTS if health.facts.get(name) is not None},
    }


def _link_json(link: MqttHealth) -> dict[str, Any]:
    return {
        "id": link.id,
        "state": "up" if link.connected else "down",
        "error": link.last_error,
        "reconnects": link.reconnects,
        "catching_up": link.catching_up,
        "messages": link.messages,
        "strangers": link.strangers,
        "duplicates": link.duplicates,
        "backlog": link.backlog,
        "last": _time(link.last_message_at),
    }


def _mqtt_json(link: MqttHealth) -> list[dict[str, Any]]:
    return [
        {
            "device": name,
            "link": link.id,
            "why": device.why,
            "messages": device.messages,
            "rejects": dict(device.rejects),
            "duplicates": device.duplicates,
            "backlog": device.backlog,
            "delayed": device.delayed,
            "skew_s": None if device.skew_s is None else round(device.skew_s, 3),
            "backwards": device.backwards,
            "last": _time(device.last_message_at),
        }
        for name, device in link.devices.items()
    ]


def _time(at: Instant | None) -> str | None:
    return None if at is None else utc_text(at.utc_ms)
