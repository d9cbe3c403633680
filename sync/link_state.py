"""How the link to the cloud fares: what the uplink writes and pages show. Light: it needs nothing of the uplink."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..words import mono_s, utc_text
from .pacing import Flow
from .server_time import ServerTime, heard
from .streams import HISTORY, JOURNAL

if TYPE_CHECKING:
    from .outbox import Lag

log = logging.getLogger(__name__)

_LAG_EVERY_S = 2.0


def _utc_ms() -> int:
    return int(time.time() * 1000)


def _utc_now() -> str:
    return utc_text(_utc_ms())


@dataclass(slots=True)
class Backlog:
    """What of one stream the cloud does not have yet, and how fast it gets it.

    Attributes:
        waiting: records, segments or blobs.
        bytes: about, as they will travel.
        oldest_ms: UTC milliseconds of the oldest one; None when nothing waits, or nobody has looked yet.
        ack, durable: number of the newest batch that the cloud has, and will not lose.
        rows, bytes_sent: flows of records or readings, and of bytes that were acknowledged.
        total_bytes: acknowledged since the start.
    """

    waiting: int = 0
    bytes: int = 0
    oldest_ms: int | None = None
    ack: int = 0
    durable: int = 0
    rows: Flow = field(default_factory=Flow)
    bytes_sent: Flow = field(default_factory=Flow)
    total_bytes: int = 0
    looked_s: float = float("-inf")

    def to_json(self, now_s: float) -> dict[str, Any]:
        return {
            "waiting": self.waiting,
            "bytes": self.bytes,
            "oldest": None if self.oldest_ms is None else utc_text(self.oldest_ms),
            "ack": self.ack,
            "durable": self.durable,
            "rows_s": round(self.rows.per_s(now_s), 1),
        }


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
        streams: name of a stream to what of it waits; blobs are there once their sender has told of them.
        last_ok: UTC text of the last good answer.
        last_error: what is wrong now, "" when nothing is; names the stream.
        clock_offset_s: cloud's clock minus ours, as far as signing needed it.
        server_time: what time it is there, as the newest answer that came quickly said; None before the first.
        machines: how many speak to headquarters with this gateway's key; more than one is a clone.
        beat_s: monotonic seconds; the loops turned then.
        errors, reasons, hints: stream to what is wrong with it now, in full, as a word, and what to do about it.
        forks: how often the cloud knew other data than there is here.
        link_bytes_s: rate of the link as measured; None while nothing large enough was sent.
        blobs: how the blobs fare.
        enrolment: while headquarters does not know this gateway: the claim code and how its request stands.
    """

    state: str = "off"
    since: str = field(default_factory=_utc_now)
    streams: dict[str, Backlog] = field(default_factory=lambda: {JOURNAL: Backlog(), HISTORY: Backlog()})
    last_ok: str | None = None
    last_error: str = ""
    clock_offset_s: float = 0.0
    server_time: ServerTime | None = None
    machines: int = 1
    beat_s: float = field(default_factory=mono_s)
    errors: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)
    forks: int = 0
    link_bytes_s: float | None = None
    blobs: BlobHealth = field(default_factory=BlobHealth)
    enrolment: dict[str, Any] | None = None

    @property
    def backlog_records(self) -> int:
        """Records that are committed here and not yet acknowledged by the cloud."""
        return self.streams[JOURNAL].waiting

    @property
    def backlog_segments(self) -> int:
        """The same of the history's segments."""
        return self.streams[HISTORY].waiting

    def started(self) -> None:
        """There is an uplink; whether it works is not known yet."""
        self.errors[JOURNAL] = "not connected yet"
        self._settle("down")

    def succeeded(self, stream: str, ack: int = 0, durable: int = 0) -> bool:
        """A request of `stream` was answered well; whether that ended a fault."""
        self.last_ok = _utc_now()
        backlog = self.of(stream)
        backlog.ack, backlog.durable = ack, durable
        self.errors.pop(stream, None)
        self.hints.pop(stream, None)
        again = self.reasons.pop(stream, None) is not None
        if again:
            log.warning("uplink %s: the cloud accepts again", stream, extra={"stream": stream})
        self._settle("up" if JOURNAL not in self.errors else self.state)
        return again

    def failed(self, stream: str, reason: str, error: str, hint: str = "") -> None:
        """A request of `stream` failed; logged when the reason changes."""
        if self.reasons.get(stream) != reason:
            log.warning("uplink %s: %s", stream, error, extra={"stream": stream, "reason": reason})
            self.forks += reason == "fork"
        self.errors[stream], self.reasons[stream], self.hints[stream] = error, reason, hint
        self._settle("down" if stream == JOURNAL else self.state)

    def told_time(self, time_ms: int, asked_s: float) -> None:
        """An answer to what was asked at monotonic second `asked_s` names its time."""
        self.server_time = heard(time_ms, asked_s, mono_s()) or self.server_time

    def of(self, stream: str) -> Backlog:
        """The backlog of `stream`; a sender that is new tells of itself so."""
        return self.streams.setdefault(stream, Backlog())

    def waits(self, stream: str, count: int) -> None:
        """So many records, segments or blobs of `stream` are not with the cloud."""
        backlog = self.of(stream)
        if not count:
            backlog.bytes, backlog.oldest_ms = 0, None
        elif not backlog.waiting:
            backlog.oldest_ms = _utc_ms()
        backlog.waiting = count

    def sent(self, stream: str, size: int, rows: int) -> None:
        """`rows` records or readings in `size` bytes were acknowledged."""
        now_s, backlog = mono_s(), self.of(stream)
        backlog.rows.add(rows, now_s)
        backlog.bytes_sent.add(size, now_s)
        backlog.total_bytes += size

    def is_lag_due(self, stream: str) -> bool:
        """Whether it is time to look how much waits: that takes a read from the card."""
        backlog = self.of(stream)
        if not backlog.waiting or mono_s() - backlog.looked_s < _LAG_EVERY_S:
            return False
        backlog.looked_s = mono_s()
        return True

    def lags(self, stream: str, lag: Lag) -> None:
        """So much of `stream` waits."""
        backlog = self.of(stream)
        backlog.bytes, backlog.oldest_ms = lag.bytes, lag.oldest_ms

    def _settle(self, state: str) -> None:
        self.last_error = "; ".join(f"{stream}: {error}" for stream, error in sorted(self.errors.items()))
        if state != self.state:
            self.state, self.since = state, _utc_now()

    def to_json(self) -> dict[str, Any]:
        """What `/api/v1/status` shows of the link: see docs/uplink.md."""
        now_s, worst = mono_s(), JOURNAL if JOURNAL in self.errors else next(iter(sorted(self.errors)), "")
        flow_s = sum(backlog.bytes_sent.per_s(now_s) for backlog in self.streams.values())
        waiting = sum(backlog.bytes for backlog in self.streams.values()) + self.blobs.bytes
        oldest = [backlog.oldest_ms for backlog in self.streams.values() if backlog.oldest_ms is not None]
        return {
            "state": self.state,
            "since": self.since,
            "backlog_records": self.backlog_records,
            "backlog_segments": self.backlog_segments,
            "backlog_bytes": waiting,
            "oldest": utc_text(min(oldest)) if oldest else None,
            "blobs": self.blobs.to_json(),
            "streams": {name: backlog.to_json(now_s) for name, backlog in self.streams.items()},
            "kbit_s": round(flow_s * 8 / 1000, 1),
            "link_kbit_s": None if self.link_bytes_s is None else round(self.link_bytes_s * 8 / 1000),
            "drained_in_s": round(waiting / flow_s) if waiting and flow_s > 1 else None,
            "last_ok": self.last_ok,
            "error": self.last_error,
            "reason": self.reasons.get(worst, ""),
            "hint": self.hints.get(worst, ""),
            "clock_offset_s": self.clock_offset_s,
            "machines": self.machines,
            "enrolment": self.enrolment,
        }
