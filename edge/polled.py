"""What is really polled of a Modbus device, in words: profile, requests, and how each number becomes a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from ..sensors.buses import UnitSpec
from ..sensors.fitting import fit
from ..sensors.gases import GASES
from ..sensors.layout import WORD, Part, Register, Table, WordOrder
from ..sensors.profile import Label, Profile
from ..sensors.profiles import open_catalogue
from ..sensors.registers import ONE_BY_ONE, plan
from ..words import Point
from .fitted import setting_of
from .site import Site

FUNCTIONS = {Table.COIL: 1, Table.DISCRETE: 2, Table.HOLDING: 3, Table.INPUT: 4}


class Polled:
    """The Modbus devices of a site with their profiles, which are read once more: the daemon does not keep them."""

    def __init__(self, site: Site) -> None:
        (profiles,) = site.tables["profiles"]
        self._catalogue = open_catalogue(site.path.parent / profiles.folder if profiles.folder else None)[0]
        self._entries: dict[str, Any] = {f"{entry.area}.{entry.id}": entry for entry in site.tables["device"]}
        self._points = {meta.point.id: meta.point for meta in site.points}

    def describe(self, unit: UnitSpec) -> Iterator[str]:
        """Lines about one device: its profile, each request of a poll, each point, each output."""
        entry = self._entries[unit.device]
        whole = self._catalogue[entry.profile]
        setting = setting_of(entry, enumerate(entry.channel))
        fitted, _ = fit(whole, setting)
        own = next((v.profile for v in whole.variants if v.id == setting.variant), whole)
        yield f"device {unit.device}: {_profile(entry, own, fitted)}"
        for block in plan(unit.registers, max_gap=unit.max_gap, max_count=unit.max_count):
            names = ", ".join(register.name for register in block.registers)
            yield f"device {unit.device}: reads {_span(block.table, block.address, block.count)}: {names}"
        before = {register.name: label for register, label in zip(own.registers, own.labels, strict=True)}
        inputs = {channel.name: channel.input for channel in entry.channel}
        for register, label in zip(fitted.registers, fitted.labels, strict=True):
            name = f"{unit.device}.{register.name}"
            source = before.get(inputs.get(register.name, register.name))
            parts = [
                _unit(label, source),
                *_number(register, inputs),
                *_beside(register, dict(label.unit_codes)),
                _range(self._points[name]),
            ]
            yield f"point {name}: {', '.join(part for part in parts if part)}"
        for output in unit.outputs:
            states = ", ".join(f"{state} = {raw}" for state, raw in output.states)
            yield f"output {unit.device}.{output.name}: {output.table} {_address(output.address)}: {states}"


def _profile(entry: Any, own: Profile, fitted: Profile) -> str:
    given = [f"{key} {value}" for key in ("variant", "gas", "unit") if (value := getattr(entry, key))]
    if len(own.registers) > len(fitted.registers) and not entry.channel:
        left = [register.name for register in own.registers if register.name not in (entry.only or ())]
        given.append(f"without {', '.join(left)}")
    if fitted.max_gap == ONE_BY_ONE:
        given.append("each value in a request of its own")
    elif fitted.max_gap:
        given.append(f"gaps of up to {fitted.max_gap} are read along")
    evidence = {"read": "", "second_hand": "second-hand map", "memory": "map from memory", "generic": "generic map"}
    given += [text for text in (evidence[fitted.evidence], "incomplete map" if fitted.incomplete else "") if text]
    return ", ".join([f"profile {fitted.id}", *given])


def _span(table: Table, address: int, count: int) -> str:
    to = f" to {_address(address + count - 1)}" if count > 1 else ""
    return f"FC{FUNCTIONS[table]:02d} {table} {_address(address)}{to}"


def _address(address: int) -> str:
    return f"{address} (0x{address:04X})" if address > 9 else str(address)


def _unit(label: Label, source: Label | None) -> str:
    """`%vol of CH4 (methane), from %LEL`."""
    gas = f" of {label.gas} ({GASES[label.gas].name_en})" if label.gas else ""
    was = f", from {source.unit}" if source and source.unit != label.unit and source.quantity == "gas" else ""
    return f"{label.unit or 'no unit'}{gas}{was}"


def _number(register: Register, inputs: Mapping[str, str]) -> Iterator[str]:
    """Where the number stands, and what is done with it; of a current, what its ends mean."""
    what = f"current {inputs[register.name]} at " if register.name in inputs else ""
    offset, gain = _plus(Fraction(register.offset)), _times(register.gain)
    value = f"{_raw(register)}{_times(Fraction(register.scale))}{offset}"
    if register.loop is not None:
        ends = (float(Fraction(end) * register.gain) for end in (register.loop.low, register.loop.high))
        yield what + value
        yield "4 mA = {:.6g}, 20 mA = {:.6g}".format(*ends)
    else:
        yield f"({value}){gain}" if offset and gain else value + gain
    if register.negative_from is not None:
        yield f"negative from {register.negative_from} on"


def _raw(register: Register) -> str:
    if register.parts:
        parts = " + ".join(_part(register.table, part) for part in register.parts)
        return f"({parts})" if len(register.parts) > 1 else parts
    order = "" if register.word_order is WordOrder.BIG else f" {register.word_order}"
    bits = "" if register.mask is None else f" under mask 0x{register.mask:04X}"
    return f"{register.table} {_address(register.address)} as {register.type}{order}{bits}"


def _part(table: Table, part: Part) -> str:
    bits = "" if part.mask == WORD else f" under mask 0x{part.mask:04X}"
    return f"{table} {_address(part.address)}{bits}{_times(Fraction(part.times))}"


def _times(factor: Fraction) -> str:
    return "" if factor == 1 else f" × {float(factor):.6g}"


def _plus(offset: Fraction) -> str:
    return "" if offset == 0 else f" {'+' if offset > 0 else '-'} {float(abs(offset)):.6g}"


def _beside(register: Register, units: Mapping[int, str]) -> Iterator[str]:
    """What else of the device decides."""
    if register.decimals_at is not None:
        yield f"decimals at {_address(register.decimals_at)}"
    if register.unit_at is not None:
        factors = ((code, units.get(code, ""), Fraction(factor)) for code, factor in register.unit_factors)
        codes = "; ".join(
            f"{code} is {unit}{_times(factor) or ' as it is'}".replace("  ", " ") for code, unit, factor in factors
        )
        yield f"unit code at {_address(register.unit_at)} ({codes or 'none converts: say which gas it is'})"
    if register.status:
        yield f"state at {', '.join(dict.fromkeys(_address(status.address) for status in register.status))}"
    if register.heartbeat is not None:
        beat = register.heartbeat
        yield f"heartbeat at {_address(beat.address)}, frozen after {beat.frozen_s:g} s"


def _range(point: Point) -> str:
    if point.low is None and point.high is None:
        return "no range"
    low, high = ("" if end is None else f"{end:.10g}" for end in (point.low, point.high))
    return f"{low or 'any'}..{high or 'any'}"
