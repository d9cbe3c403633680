"""One kind of device: its registers, the words that people see, its factory settings, what tells it from others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ..words import Point
from .buses import UnitSpec
from .gases import factor
from .layout import WORD, Output, Register, Table, Text
from .registers import ONE_BY_ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """How people see one register: its words, unit and number format.

    Attributes:
        gas: id of `gases.GASES`; "" when it measures none, or the site must say which.
        unit_codes: (code, unit) that the device may be set to, of gases.
        evidence: as `Profile.evidence`, where it is another one for this register.
    """

    name: str
    name_zh: str
    name_en: str
    unit: str
    quantity: str
    decimals: int
    gas: str = ""
    unit_codes: tuple[tuple[int, str], ...] = ()
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """How the device leaves the factory; a site may have set it otherwise."""

    unit_id: int
    baud: int
    parity: str
    stopbits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one place must hold when a device is of this kind; exactly one of the conditions is set.

    Attributes:
        words: registers that are read; more than one for texts.
        mask: which bits; they are shifted down to bit 0.
        values: one of these. low, high: both, and the number lies within. is_unit_id: the unit id that it answers to.
        text: ASCII that fits this regular expression as a whole.
        decisive: another content means another device.
        note, note_zh: what it is, for people.
    """

    table: Table
    address: int
    words: int = 1
    mask: int = WORD
    values: tuple[int, ...] = ()
    low: int | None = None
    high: int | None = None
    is_unit_id: bool = False
    text: str = ""
    decisive: bool = False
    note: str = ""
    note_zh: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Another map, or other factory settings, that devices of the same name have.

    Attributes:
        differs: from the profile itself. tell, tell_zh: how a person or a probe sees which one it is.
        profile: the whole profile, with the id of the profile that it is a variant of.
    """

    id: str
    differs: str
    tell: str
    tell_zh: str
    profile: Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of device.

    Attributes:
        source: the document that the register map was taken from.
        evidence: `read` (in that document), `second_hand`, `memory` (compare with the device before relying on it) or
            `generic` (what such devices have in common).
        incomplete: what is missing; "" when the map is whole.
        registers, labels: in the order of the file, one label for each register.
        max_gap, max_count: limits of block reads. inter_frame_ms: silence that it needs between frames.
        takes_channels: it measures currents, and a site says what each one stands for.
        checks: what tells it from others; texts: what a probe can show of it.
    """

    id: str
    name: str
    name_en: str
    source: str
    defaults: Defaults
    max_gap: int
    max_count: int
    registers: tuple[Register, ...]
    labels: tuple[Label, ...]
    evidence: str = "read"
    incomplete: str = ""
    inter_frame_ms: int = 0
    takes_channels: bool = False
    outputs: tuple[Output, ...] = ()
    texts: tuple[Text, ...] = ()
    checks: tuple[Check, ...] = ()
    variants: tuple[Variant, ...] = ()

    @property
    def one_by_one(self) -> bool:
        return self.max_gap == ONE_BY_ONE

    @property
    def longest_poll_s(self) -> float:
        """Polls that are farther apart cannot judge a heartbeat; infinite without one."""
        beats = [r.heartbeat.frozen_s / 4 for r in self.registers if r.heartbeat is not None]
        return min(beats, default=float("inf"))

    def points(self, device: str, poll_s: float, *, place: str = "", place_en: str = "") -> tuple[Point, ...]:
        """Metadata of the points of one such device.

        Args:
            device: `area.device`.
            place, place_en: put before the names (`助剂库` + `湿度`, `Auxiliary store` + `humidity`).
        """
        return tuple(
            Point(
                id=f"{device}.{register.name}",
                name=f"{place}{label.name_zh}",
                name_en=f"{place_en} {label.name_en}".strip(),
                unit=label.unit,
                quantity=label.quantity,
                decimals=label.decimals,
                poll_s=poll_s,
                low=low,
                high=high,
            )
            for register, label in zip(self.registers, self.labels, strict=True)
            for low, high in (_range(register),)
        )

    def unit(self, device: str, unit_id: int, poll_s: float, *, timeout_ms: int | None = None) -> UnitSpec:
        """One such device (`area.device`) on a bus."""
        return UnitSpec(
            device=device,
            unit_id=unit_id,
            registers=self.registers,
            poll_s=poll_s,
            timeout_ms=timeout_ms,
            max_gap=self.max_gap,
            max_count=self.max_count,
            outputs=self.outputs,
        )


def _range(register: Register) -> tuple[float | None, float | None]:
    if register.loop is None:
        return register.low, register.high
    low, high = sorted(float(Fraction(end) * register.gain) for end in (register.loop.low, register.loop.high))
    return low, high


def unit_factors(codes: Iterable[tuple[int, str]], unit: str, gas: str) -> tuple[tuple[int, Fraction], ...]:
    """What the number of a device is multiplied with to be in `unit`, for each unit that the device may be set to.

    A unit that does not convert is left out, so the device's number is bad `unknown_unit` and never a wrong one.
    """
    found: list[tuple[int, Fraction]] = []
    for code, own in codes:
        try:
            found.append((code, factor(own, unit, gas)))
        except ValueError:
            continue
    return tuple(found)
