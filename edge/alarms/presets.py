"""Limits of GB/T 50493-2019 for a gas point (`preset = "gb50493"`): level 1 is hi, level 2 is hihi. Pure.

Combustible gases: at most 25 and 50 %LEL. Toxic ones: at most 100 and 200 % of the occupational exposure limit; the
limits below are those that are known here for sure. Oxygen: 19.5 and 23.5 %vol. What is converted is rounded down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from ...sensors.gases import GASES, UNITS, convert, spell
from ..models import AlarmTable, LevelTable

EXPOSURE_LIMIT: Mapping[str, float] = {"H2S": 10.0, "CO": 20.0, "NH3": 20.0, "Cl2": 1.0}
"""mg/m³."""
POISONS = frozenset({"HCN"})
"""Flammable, but poisonous far below: 25 %LEL of hydrogen cyanide is 14,000 ppm, 50 ppm is dangerous to life (IDLH)."""
_LEL = (25.0, 50.0)
_TOXIC = (1.0, 2.0)
_OXYGEN = {"lo": 19.5, "hi": 23.5}
_DIGITS = 3


def fill(table: AlarmTable, gas: str, unit: str, quantity: str) -> tuple[AlarmTable, str]:
    """The table with what its preset says; what stands in it goes before.

    Args:
        table: of one point.
        gas: id of `gases.GASES`; "" when it is not known.
        unit: of the point.
        quantity: of the point.

    Returns:
        The table and what is wrong: "", or what would be right.
    """
    if table.preset is None:
        return table, ""
    if quantity != "gas":
        return table, "belongs to a point of quantity gas: take it out, and set limits"
    try:
        limits = gb50493(gas, unit)
    except ValueError as error:
        return table, f"has no numbers here: {error}"
    given = {key: LevelTable(limit=limit) for key, limit in limits.items() if getattr(table, key) is None}
    life_safety = True if table.life_safety is None else table.life_safety
    return table.model_copy(update={**given, "life_safety": life_safety}), ""


def gb50493(gas: str, unit: str) -> dict[str, float]:
    """Limits by key (`lo`, `hi`, `hihi`) in `unit`. Raises ValueError: what to write instead."""
    unit = spell(unit)
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is none of {', '.join(UNITS)}")
    if gas and gas not in GASES:
        raise ValueError(f"{gas!r} is no known gas (known: {', '.join(GASES)})")
    if unit == "%LEL":
        if gas and GASES[gas].lel_vol is None:
            raise ValueError(f"{gas} ({GASES[gas].name_en}) has no lower explosive limit: take another unit")
        return dict(zip(("hi", "hihi"), _LEL, strict=True))
    if not gas:
        raise ValueError('say which gas it is, as in gas = "H2S"')
    if gas == "O2":
        return {key: _rounded(convert(limit, "%vol", unit, gas)) for key, limit in _OXYGEN.items()}
    known = GASES[gas]
    if gas in EXPOSURE_LIMIT:
        limits = [convert(EXPOSURE_LIMIT[gas] * times, "mg/m³", unit, gas) for times in _TOXIC]
    elif known.lel_vol is not None and gas not in POISONS:
        limits = [convert(share, "%LEL", unit, gas) for share in _LEL]
    else:
        what = f"100 % and 200 % of the occupational exposure limit of {known.name_en} in {unit}"
        raise ValueError(f"write hi and hihi: {what}")
    return {key: _rounded(limit) for key, limit in zip(("hi", "hihi"), limits, strict=True)}


def _rounded(limit: Fraction) -> float:
    """Down to three digits: never above what the standard allows."""
    step = Fraction(10) ** (math.floor(math.log10(limit)) + 1 - _DIGITS)
    return float(math.floor(limit / step) * step)
