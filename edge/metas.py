"""What a point and an output of the site are called and belong to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..words import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class PointMeta:
    """What `…/meta` says of a point."""

    point: Point
    area: str
    area_name: str
    stale_s: float
    limits: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Payload of the meta topic."""
        point = self.point
        return {
            "id": point.id,
            "name": point.name,
            "name_en": point.name_en,
            "unit": point.unit,
            "quantity": point.quantity,
            "area": self.area,
            "area_name": self.area_name,
            "stale_s": self.stale_s,
            "limits": dict(self.limits),
            "low": point.low,
            "high": point.high,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMeta:
    """One output of the site.

    Attributes:
        id: `area.device.output`.
        device: `area.device`, on `bus`.
        states: names of what it can be, in the profile's order.
    """

    id: str
    bus: str
    area: str
    device: str
    output: str
    name: str
    name_en: str
    states: tuple[str, ...]
