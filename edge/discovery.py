"""What Home Assistant is told of this gateway, by MQTT discovery: one entity for each point, alarm and the gateway.

The form of single components, `<prefix>/<component>/<node>/<object>/config`, which every Home Assistant since 2023.8
understands (Home Assistant's documentation, "MQTT", section "MQTT discovery"). The states are those of the MQTT tree;
nothing is published twice. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import __version__
from .alarms.rules import Rule
from .metas import PointMeta

_UNITS = {"%RH": "%"}
"""As Home Assistant writes them; it takes a class of device with its own units only."""
_CLASSES = {
    ("humidity", "%"): "humidity",
    **{("temperature", unit): "temperature" for unit in ("°C", "°F", "K")},
    **{("pressure", unit): "pressure" for unit in ("Pa", "hPa", "kPa", "mbar", "bar", "psi", "mmHg")},
}
_ONLINE = "{{ 'online' if value_json.online else 'offline' }}"
_MEASURED = "{{ 'offline' if value_json.q == 'bad' else 'online' }}"
_ON = "{{ 'ON' if value_json.state != 'NORM' else 'OFF' }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What is announced.

    Attributes:
        birth: topic on which Home Assistant says `online` when it has started: then all is published again; "": nobody
            is told anything.
        configs: retained payload by topic.
    """

    birth: str = ""
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


def discovery_of(
    prefix: str, site: str, gateway: str, name: str, points: Sequence[PointMeta], rules: Sequence[Rule]
) -> Discovery:
    """Everything about a gateway.

    Args:
        prefix: of the topics, as Home Assistant is set up (`homeassistant`); "": nothing is announced.
        site, gateway: ids. name: of the site, for people.
    """
    if not prefix:
        return Discovery()
    announced = _Announced(prefix, site, gateway, name)
    areas = {meta.area: meta.area_name for meta in points}
    configs = dict(announced.of_gateway())
    configs |= dict(announced.of_point(meta) for meta in points)
    lasting = [rule for rule in rules if not rule.id.startswith("system.")]  # the others' topics come and go
    configs |= dict(announced.of_rule(rule, areas.get(rule.area, "")) for rule in lasting)
    return Discovery(birth=f"{prefix}/status", configs=configs)


@dataclass(frozen=True, slots=True)
class _Announced:
    prefix: str
    site: str
    gateway: str
    name: str

    @property
    def _base(self) -> str:
        return f"sw/v1/{self.site}"

    @property
    def _node(self) -> str:
        return f"sitewarden_{self.site}_{self.gateway}"

    def of_gateway(self) -> list[tuple[str, dict[str, Any]]]:
        """Whether it is there, and how many alarms are open and wait for somebody."""
        status, summary = self._status(), f"{self._base}/alarm/summary"
        link = {
            "name": "Gateway",
            "state_topic": status["topic"],
            "value_template": "{{ 'ON' if value_json.online else 'OFF' }}",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
        }
        counts = {"alarms_open": ("Open alarms", "open"), "alarms_unacked": ("Unacknowledged alarms", "unacked")}
        device = self._gateway_device()
        return [
            self._entity("binary_sensor", "gateway", device, link),
            *(
                self._entity(
                    "sensor",
                    object_id,
                    device,
                    {
                        "name": title,
                        "state_topic": summary,
                        "value_template": f"{{{{ value_json.{key} }}}}",
                        "state_class": "measurement",
                        "availability": [status],
                    },
                )
                for object_id, (title, key) in counts.items()
            ),
        ]

    def of_point(self, meta: PointMeta) -> tuple[str, dict[str, Any]]:
        """A value goes grey with the gateway, when it is bad, and when it does not come."""
        point, topic = meta.point, f"{self._base}/{meta.point.topic}/value"
        unit = _UNITS.get(point.unit, point.unit)
        config: dict[str, Any] = {
            "name": point.name,
            "state_topic": topic,
            "value_template": "{{ value_json.v }}",
            "state_class": "measurement",
            "suggested_display_precision": point.decimals,
            "availability": [self._status(), {"topic": topic, "value_template": _MEASURED}],
            "availability_mode": "all",
            "expire_after": max(30, round(meta.stale_s)),
            "json_attributes_topic": topic,
        }
        if unit:
            config["unit_of_measurement"] = unit
        if kind := _CLASSES.get((point.quantity, unit)):
            config["device_class"] = kind
        return self._entity("sensor", point.id.replace(".", "_"), self._device(point.id, meta.area_name), config)

    def of_rule(self, rule: Rule, area_name: str) -> tuple[str, dict[str, Any]]:
        """On from the raise until it is normal and acknowledged: who clears it here is not Home Assistant."""
        topic = f"{self._base}/alarm/{rule.id}/state"
        config: dict[str, Any] = {
            "name": rule.name,
            "state_topic": topic,
            "value_template": _ON,
            "device_class": "safety" if rule.life_safety else "problem",
            "availability": [self._status()],
            "json_attributes_topic": topic,
        }
        device = self._device(rule.point, area_name) if rule.point else self._gateway_device()
        return self._entity("binary_sensor", f"alarm_{rule.id.replace('.', '_')}", device, config)

    def _entity(
        self, component: str, name: str, device: Mapping[str, Any], config: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        whole = {"unique_id": f"{self._node}_{name}", "object_id": f"{self._node}_{name}", "qos": 1, **config}
        origin = {"name": "Sitewarden", "sw_version": __version__}
        return f"{self.prefix}/{component}/{self._node}/{name}/config", {**whole, "device": device, "origin": origin}

    def _status(self) -> dict[str, str]:
        return {"topic": f"{self._base}/gw/{self.gateway}/status", "value_template": _ONLINE}

    def _gateway_device(self) -> dict[str, Any]:
        return {
            "identifiers": [self._node],
            "name": f"{self.name} {self.gateway}",
            "manufacturer": "Sitewarden",
            "model": "gateway",
            "sw_version": __version__,
        }

    def _device(self, point: str, area_name: str) -> dict[str, Any]:
        """The device of a point or of an alarm about a device, `area.device` and more."""
        area, device = point.split(".")[:2]
        return {
            "identifiers": [f"sitewarden_{self.site}_{area}_{device}"],
            "name": f"{area_name or area} {device}",
            "suggested_area": area_name or area,
            "via_device": self._node,
        }
