"""What a gateway says of itself to headquarters once a minute, beside its open alarms."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..sync.link_state import UplinkHealth
from ..words import mono_s
from .disk import look

_OF_A_STREAM = ("waiting", "bytes", "oldest")
_OF_THE_DISK = ("level", "about", "pct", "free_bytes", "usable_bytes", "journal", "history", "blobs")


def own_word(status: Mapping[str, Any], uplink: UplinkHealth, data: Path) -> dict[str, Any]:
    """Small: it also goes over narrow links. Args: status: of the status page. data: the data folder."""
    link, disk = status["link"], status["disk"]
    return {
        "version": status["version"],
        "clock": status["clock"],
        "clock_offset_s": clock_offset_s(uplink),
        "uptime_s": status["uptime_s"],
        "backlog_records": link["backlog_records"],
        "backlog_segments": link["backlog_segments"],
        "streams": {name: {key: one[key] for key in _OF_A_STREAM} for name, one in link["streams"].items()},
        "evidence": link["blobs"],
        "kbit_s": link["kbit_s"],
        "link_kbit_s": link["link_kbit_s"],
        "broker": status["broker"]["state"],
        "silent": sum(unit["state"] != "ok" for bus in status["buses"] for unit in bus["units"]),
        "deliveries": status["deliveries"],
        "disk_free": look(data).free_bytes,
        "disk": (disk or {}).get("level", ""),
        "not_recorded": (status["not_recorded"] or {}).get("since", ""),
        "disk_use": None if disk is None else {key: disk[key] for key in _OF_THE_DISK},
    }


def clock_offset_s(uplink: UplinkHealth) -> float | None:
    """Headquarters' clock minus this machine's, seconds; None while no answer came quickly enough to tell."""
    there_ms = uplink.server_time.at(mono_s()) if uplink.server_time is not None else None
    return None if there_ms is None else round(there_ms / 1000 - time.time(), 1)
