"""How the link to the cloud fares: what the uplink writes and pages show. Light: it needs nothing of the uplink."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from ..words import mono_s, utc_text
from .streams import JOURNAL

log = logging.getLogger(__name__)


def _utc_now() -> str:
    return utc_text(int(time.time() * 1000))


@dataclass(slots=True, kw_only=True)
class BlobHealth:
    """Evidence that is not with the cloud as it should be.

    Attributes:
        waiting, bytes: that records name and the cloud does not have; bytes are what is left of them.
        open: how many of them belong to open cases.
        refused: how many the cloud does not want; `refusal`: why the last one.
        damaged: what this disk has lost and the cloud has not given back.
    """

    waiting: int = 0
    bytes: int = 0
    open: int = 0
    refused: int = 0
    refusal: str = ""
    damaged: int = 0

    def to_json(self) -> dict[str, Any]:
        """Fields of the status page."""
        return {name: getattr(self, name) for name in ("waiting", "bytes", "open", "refused", "refusal", "damaged")}


@dataclass(slots=True, kw_only=True)
class UplinkHealth:
    """What pages and the status topic show. Changed by the uplink alone.

    Attributes:
        state: `up`, `down`, or `off` when the site has no uplink.
        since: UTC text of the last change of `state`.
        backlog_records, backlog_segments: committed here, not yet acknowledged by the cloud.
        last_ok: UTC text of the last good answer.
        last_error: what is wrong now, "" when nothing is; names the stream.
        clock_offset_s: cloud's clock minus ours, as far as signing needed it.
        beat_s: monotonic seconds; the loops turned then.
        errors, reasons: stream to what is wrong with it now, in full and as a word.
        blobs: how the blobs fare.
    """

    state: str = "off"
    since: str = field(default_factory=_utc_now)
    backlog_records: int = 0
    backlog_segments: int = 0
    last_ok: str | None = None
    last_error: str = ""
    clock_offset_s: float = 0.0
    beat_s: float = field(default_factory=mono_s)
    errors: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    blobs: BlobHealth = field(default_factory=BlobHealth)

    def started(self) -> None:
        """There is an uplink; whether it works is not known yet."""
        self.errors[JOURNAL] = "not connected yet"
        self._settle("down")

    def succeeded(self, stream: str) -> None:
        """A request of `stream` was answered well."""
        self.last_ok = _utc_now()
        self.errors.pop(stream, None)
        if self.reasons.pop(stream, None) is not None:
            log.warning("uplink %s: the cloud accepts again", stream)
        self._settle("up" if JOURNAL not in self.errors else self.state)

    def failed(self, stream: str, reason: str, error: str) -> None:
        """A request of `stream` failed; logged when the reason changes."""
        if self.reasons.get(stream) != reason:
            log.warning("uplink %s: %s", stream, error)
        self.errors[stream], self.reasons[stream] = error, reason
        self._settle("down" if stream == JOURNAL else self.state)

    def _settle(self, state: str) -> None:
        self.last_error = "; ".join(f"{stream}: {error}" for stream, error in sorted(self.errors.items()))
        if state != self.state:
            self.state, self.since = state, _utc_now()

    def to_json(self) -> dict[str, Any]:
        """Fields of the status page."""
        names = ("state", "since", "backlog_records", "backlog_segments", "last_ok", "last_error", "clock_offset_s")
        return {name: getattr(self, name) for name in names}
