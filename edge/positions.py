"""Operating positions: whose load the alarms of an area are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import AreaTable

CONTROL_ROOM = "control_room"
"""The position of every area that names none."""


def positions(areas: Iterable[AreaTable]) -> tuple[str, ...]:
    """Operating positions of a site, in the order of its areas."""
    return tuple(dict.fromkeys(area.position for area in areas))


def position_of(areas: Iterable[AreaTable], area_id: str) -> str:
    """Whose load an area's alarms are; of an area that is gone from the site, the control room's."""
    return next((area.position for area in areas if area.id == area_id), CONTROL_ROOM)
