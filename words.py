"""The values that everyone shares: Instant, Quality, Reading, Point. Pure; imports nothing of the house."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec


class ClockState(enum.StrEnum):
    """How far wall-clock time can be believed."""

    SYNCED = "synced"
    UNSYNCED = "unsynced"
    STEPPED = "stepped"


class Quality(enum.StrEnum):
    """Trust in a reading. `bad` has no value that anyone may act on."""

    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """One moment on two clocks.

    Attributes:
        utc_ms: milliseconds since 1970-01-01 UTC; may step.
        mono_s: CLOCK_BOOTTIME seconds; never steps, starts again at boot. Delays count on it.
        boot: id of the boot that `mono_s` belongs to.
        clock: whether `utc_ms` can be believed.
    """

    utc_ms: int
    mono_s: float
    boot: str
    clock: ClockState = ClockState.SYNCED

    def to_json(self) -> dict[str, Any]:
        """Fields of a record: RFC 3339 UTC with milliseconds, seconds with 3 decimals."""
        clock = self.clock.value
        return {"utc": utc_text(self.utc_ms), "mono": round(self.mono_s, 3), "boot": self.boot, "clock": clock}


class Reading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One measured value. `value` is None when nothing was measured; a value is never invented.

    A msgspec structure, not a dataclass: thousands are made every second, and it is made ten times as fast.

    Attributes:
        point: id of the point, `area.device.name`.
        value: engineering value in the point's unit, or None.
        quality: bad readings never clear and never raise a process alarm.
        why: reason for a quality that is not good (`timeout`, `warm_up`, `out_of_range` ...), else "".
        at: when the value was sampled, as well as the driver knows.
    """

    point: str
    value: float | None
    quality: Quality
    why: str = ""
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What is measured where.

    Attributes:
        id: `area.device.name`, each part `[a-z0-9_]+`.
        unit: engineering unit as people write it (`°C`, `%RH`, `MPa`, `%LEL`, `ppm`).
        quantity: family that picks alarm defaults (`temperature`, `humidity`, `pressure`, `gas`, `other`).
        decimals: digits after the point on displays.
        poll_s: how often a value is expected, seconds.
    """

    id: str
    name: str
    name_en: str
    unit: str
    quantity: str
    decimals: int
    poll_s: float
    low: float | None = None
    high: float | None = None

    @property
    def topic(self) -> str:
        """The id as MQTT levels: `area/device/name`."""
        return self.id.replace(".", "/")


def utc_text(utc_ms: int) -> str:
    """RFC 3339 UTC with milliseconds: `2026-11-22T13:06:31.004Z`."""
    whole, ms = divmod(utc_ms, 1000)
    return f"{_second_text(whole)}.{ms:03d}Z"


@lru_cache(maxsize=64)
def _second_text(utc_s: int) -> str:
    """Thousands of readings have the same few seconds."""
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def utc_from_text(text: str) -> int:
    """Inverse of `utc_text`; accepts any RFC 3339 time with an offset. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset")
    return round(moment.timestamp() * 1000)


def is_text(given: str) -> bool:
    """Without lone surrogates, which JSON can carry and nothing can store."""
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_boot_id() -> str:
    """The kernel's boot id, or a per-process substitute where /proc has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"no-boot-id-{time.monotonic_ns()}"


_BOOT = read_boot_id()
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def mono_s() -> float:
    """CLOCK_BOOTTIME in seconds: goes on through suspend, never steps."""
    return time.clock_gettime(_CLOCK)


_state = ClockState.UNSYNCED
_shift_ms = 0


def set_clock_shift(shift_ms: int) -> None:
    """Say how far the machine's clock is behind what is believed; the daemon's clock watch calls this."""
    global _shift_ms  # noqa: PLW0603
    _shift_ms = shift_ms


def set_clock_state(state: ClockState) -> None:
    """Say how far the wall clock can be believed from here on; the daemon's clock watch calls this."""
    global _state  # noqa: PLW0603
    _state = state


def now() -> Instant:
    """This moment on both clocks."""
    utc_ms = time.time_ns() // 1_000_000 + _shift_ms
    return Instant(utc_ms=utc_ms, mono_s=time.clock_gettime(_CLOCK), boot=_BOOT, clock=_state)
