"""How pages, brokers and answers say that nothing is recorded."""

from __future__ import annotations

from typing import Any

from ..sync.journal import Journal
from ..words import utc_text


def not_recorded_json(journal: Journal) -> dict[str, Any] | None:
    """Since when, why, and how many records there are in memory; None while everything is recorded."""
    mark = journal.not_recorded
    if mark is None:
        return None
    return {"since": utc_text(mark.since_ms), "why": mark.why, "records": max(0, journal.head()[0] - mark.seq)}
