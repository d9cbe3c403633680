"""A profile as one device of a site is set up: its variant, gas and unit, what its currents stand for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from .gases import GASES, UNITS, factor, spell
from .layout import Loop, Register
from .profile import Label, Profile, unit_factors

_Pair = tuple[Register, Label]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """What one current of 4-20 mA stands for.

    Attributes:
        index: in the site's list, for problems.
        register: of the profile, with the unit mA.
        low, high: value at 4 and at 20 mA.
    """

    index: int
    register: str
    name: str
    name_zh: str
    name_en: str
    unit: str
    quantity: str
    decimals: int
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a site says of one device beyond its profile; empty: as the profile has it.

    Attributes:
        gas: that a flammable head is calibrated on. unit: that its gases are wanted in.
        only: names of the points that are polled, None for all.
    """

    variant: str = ""
    gas: str = ""
    unit: str = ""
    only: tuple[str, ...] | None = None
    channels: tuple[Channel, ...] = ()


Problem = tuple[str, str]
"""(key, what is wrong): `unit`, `only[1]`, `channel[0].input`."""


def fit(profile: Profile, setting: Setting) -> tuple[Profile, tuple[Problem, ...]]:
    """The profile as this device has it, and what of the setting does not fit; that is left out of it."""
    problems: list[Problem] = []
    profile = _variant(profile, setting.variant, problems)
    pairs: list[_Pair] = list(zip(profile.registers, profile.labels, strict=True))
    pairs = _channels(profile, pairs, setting.channels, problems)
    pairs = _gas(profile, pairs, setting.gas, problems)
    pairs = _unit(profile, pairs, setting.unit, problems)
    pairs = _only(profile, pairs, setting.only, problems)
    fitted = replace(profile, registers=tuple(r for r, _ in pairs), labels=tuple(label for _, label in pairs))
    return fitted, tuple(problems)


def _variant(profile: Profile, name: str, problems: list[Problem]) -> Profile:
    if not name:
        return profile
    found = next((v.profile for v in profile.variants if v.id == name), None)
    if found is None:
        names = ", ".join(v.id for v in profile.variants) or "none"
        problems.append(("variant", f"must name a variant of profile {profile.id} (known: {names})"))
        return profile
    return replace(found, variants=profile.variants)


# --- currents ---


def _channels(
    profile: Profile, pairs: list[_Pair], channels: Sequence[Channel], problems: list[Problem]
) -> list[_Pair]:
    """The registers that the site has channels for, as what they stand for, and those that are no currents."""
    currents = {register.name: register for register, label in pairs if label.unit == "mA"}
    if not profile.takes_channels:
        if channels:
            problems.append(("channel", f"does not belong to profile {profile.id}: it has no 4-20 mA inputs"))
        return pairs
    if not channels:
        return pairs
    found: list[_Pair] = []
    for channel in channels:
        where = f"channel[{channel.index}]"
        register = currents.get(channel.register)
        if register is None:
            known = _range_of(tuple(currents))
            problems.append((f"{where}.input", f"must name a current of profile {profile.id} (known: {known})"))
        elif any(channel.name == r.name for r, _ in found):
            problems.append((f"{where}.name", "must be unique in the device"))
        elif channel.low == channel.high:
            same = f"must not be low, {float(channel.low):g}: every current would be the same value"
            problems.append((f"{where}.high", same))
        else:
            found.append((_loop(register, channel), _label(channel)))
    return [pair for pair in pairs if pair[1].unit != "mA"] + found


def _range_of(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]} ... {names[-1]}"


def _loop(register: Register, channel: Channel) -> Register:
    loop = Loop(low=channel.low, high=channel.high)
    return replace(register, name=channel.name, low=None, high=None, loop=loop)


def _label(channel: Channel) -> Label:
    return Label(
        name=channel.name,
        name_zh=channel.name_zh,
        name_en=channel.name_en,
        unit=channel.unit,
        quantity=channel.quantity,
        decimals=channel.decimals,
    )


# --- gases ---


def _gas(profile: Profile, pairs: list[_Pair], gas: str, problems: list[Problem]) -> list[_Pair]:
    """The gas of every register that is not fixed to one: no gas in the profile, or a flammable head in %LEL."""
    if not gas:
        return pairs
    free = [label for _, label in pairs if label.quantity == "gas" and (not label.gas or label.unit == "%LEL")]
    if gas not in GASES:
        problems.append(("gas", f"must be one of {', '.join(GASES)}"))
        return pairs
    if not free:
        own = ", ".join(dict.fromkeys(label.gas for _, label in pairs if label.gas)) or "no gas"
        problems.append(("gas", f"does not belong to profile {profile.id}: it measures {own}, take it out"))
        return pairs
    return [(r, replace(label, gas=gas)) if label in free else (r, label) for r, label in pairs]


def _unit(profile: Profile, pairs: list[_Pair], unit: str, problems: list[Problem]) -> list[_Pair]:
    """Every gas in the unit that is wanted, if it has it; it is a problem when none has."""
    unit = spell(unit)
    gases = [label for _, label in pairs if label.quantity == "gas"]
    if unit and unit not in UNITS:
        problems.append(("unit", f"must be one of {', '.join(UNITS)}"))
    elif unit and not gases:
        problems.append(("unit", f"does not belong to profile {profile.id}: it measures no gas, take it out"))
    elif unit:
        refused: list[str] = []
        converted = [_in_unit(pair, unit, refused) for pair in pairs]
        if len(refused) < len(gases):
            return converted
        problems.append(("unit", "; ".join(refused)))
    return [_with_factors(pair, pair[1].unit) for pair in pairs]


def _in_unit(pair: _Pair, unit: str, refused: list[str]) -> _Pair:
    register, label = pair
    if label.quantity != "gas":
        return pair
    try:
        times = factor(label.unit, unit, label.gas)
    except ValueError as error:
        refused.append(f"{register.name}: {error}")
        return _with_factors(pair, label.unit)
    low, high = (
        None if limit is None else float(Fraction(repr(limit)) * times) for limit in (register.low, register.high)
    )
    decimals = _decimals(label.decimals, times)
    return _with_factors((replace(register, low=low, high=high, gain=times), replace(label, decimals=decimals)), unit)


def _with_factors(pair: _Pair, unit: str) -> _Pair:
    """With the factors of its unit codes for a unit of its point; without codes the gain converts."""
    register, label = pair
    if label.unit_codes:
        factors = unit_factors(label.unit_codes, unit, label.gas)
        register = replace(register, unit_factors=factors, gain=Fraction(1))
    return register, replace(label, unit=unit)


def _decimals(decimals: int, times: Fraction) -> int:
    """Digits after the point that show about as much as before, at most six: 12.5 %LEL is 0.625 %vol."""
    while times < 1 and decimals < 6:
        times, decimals = times * 10, decimals + 1
    while times >= 10 and decimals > 0:
        times, decimals = times / 10, decimals - 1
    return decimals


# --- a choice ---


def _only(profile: Profile, pairs: list[_Pair], only: Iterable[str] | None, problems: list[Problem]) -> list[_Pair]:
    if only is None:
        return pairs
    names = [register.name for register, _ in pairs]
    wanted = list(only)
    for index, name in enumerate(wanted):
        if name not in names:
            known = ", ".join(names)
            problems.append((f"only[{index}]", f"must name a point of profile {profile.id} (known: {known})"))
        elif name in wanted[:index]:
            problems.append((f"only[{index}]", "must stand in the list only once"))
    kept = [pair for pair in pairs if pair[0].name in wanted]
    return kept or pairs
