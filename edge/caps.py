"""The bandwidth cap of `[cloud]`: how much, and in which hours of the site's clock."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo


def cap_of(cloud: Any, timezone: str, clock: Callable[[], float] = time.time) -> Callable[[], float | None]:
    """Bytes a second that the uplink may use now; None: as many as there are.

    Args:
        cloud: the `[cloud]` table.
        timezone: of the site; past midnight where `max_to` is not later than `max_from`.
        clock: UTC seconds. With a wrong clock the cap holds in wrong hours, and nothing else goes wrong.
    """
    if cloud.max_kbit_s is None:
        return lambda: None
    rate = cloud.max_kbit_s * 1000 / 8
    if not cloud.max_from:
        return lambda: rate
    zone, begin, end = ZoneInfo(timezone), dt.time.fromisoformat(cloud.max_from), dt.time.fromisoformat(cloud.max_to)

    def now() -> float | None:
        at = dt.datetime.fromtimestamp(clock(), zone).time()
        return rate if (begin <= at < end if begin < end else at >= begin or at < end) else None

    return now
