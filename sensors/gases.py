"""Gases and the units of their concentration: ppm, ppb, %vol, mg/m³, %LEL. Pure and exact.

- Molar mass, g/mol: sums of the IUPAC standard atomic weights (abridged, 2021).
- 100 %LEL is the lower explosive limit in %vol. Sources disagree: the classical limits (NFPA 497; Chinese practice:
  annex A of GB/T 50493-2019) have 5.0 %vol of methane, IEC 60079-20-1 has 4.4. The classical value is used here; the
  other one is kept beside it. What counts is what the head was calibrated on: its manual says so.
- mg/m³ is meant at 20 °C and 101.325 kPa, where a mole of an ideal gas takes 24.055 l.

A conversion corrects no cross-sensitivity: a head that is calibrated on one gas and meets another shows a wrong number
in every unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

LITRES_PER_MOLE = Fraction("24.055")
UNITS = ("ppb", "ppm", "%vol", "mg/m³", "%LEL")
_SPELLINGS = {"mg/m3": "mg/m³"}
_PPM = {"ppb": Fraction(1, 1000), "ppm": Fraction(1), "%vol": Fraction(10_000)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gas:
    """One gas.

    Attributes:
        molar_mass: g/mol; None for a mixture.
        lel_vol: lower explosive limit, %vol, see above; None where there is none, or none that sources agree on.
        lel_iec_vol: that of IEC 60079-20-1 where it is another one.
    """

    id: str
    name: str
    name_en: str
    molar_mass: Decimal | None
    lel_vol: Decimal | None = None
    lel_iec_vol: Decimal | None = None


def _gas(name: str, name_zh: str, name_en: str, mass: str, lel: str = "", iec: str = "") -> Gas:
    numbers = [Decimal(text) if text else None for text in (mass, lel, iec)]
    return Gas(
        id=name, name=name_zh, name_en=name_en, molar_mass=numbers[0], lel_vol=numbers[1], lel_iec_vol=numbers[2]
    )


GASES: dict[str, Gas] = {
    gas.id: gas
    for gas in (
        _gas("CH4", "甲烷", "methane", "16.043", "5.0", "4.4"),
        _gas("C2H6", "乙烷", "ethane", "30.070", "3.0", "2.4"),
        _gas("C3H8", "丙烷", "propane", "44.097", "2.1", "1.7"),
        _gas("C2H4", "乙烯", "ethylene", "28.054", "2.7", "2.3"),
        _gas("C2H2", "乙炔", "acetylene", "26.038", "2.5", "2.3"),
        _gas("H2", "氢气", "hydrogen", "2.016", "4.0"),
        _gas("NH3", "氨", "ammonia", "17.031", "15"),
        _gas("CO", "一氧化碳", "carbon monoxide", "28.010", "12.5", "10.9"),
        _gas("H2S", "硫化氢", "hydrogen sulphide", "34.076", "4.0"),
        _gas("C2H5OH", "乙醇", "ethanol", "46.069", "3.3", "3.1"),
        _gas("gasoline", "汽油蒸气", "gasoline vapour", "", "1.4"),
        _gas("O2", "氧气", "oxygen", "31.998"),
        _gas("SO2", "二氧化硫", "sulphur dioxide", "64.058"),
        _gas("NO", "一氧化氮", "nitric oxide", "30.006"),
        _gas("NO2", "二氧化氮", "nitrogen dioxide", "46.005"),
        _gas("Cl2", "氯气", "chlorine", "70.90"),
        _gas("HCl", "氯化氢", "hydrogen chloride", "36.458"),
        _gas("HCN", "氰化氢", "hydrogen cyanide", "27.026", "5.6", "5.4"),
        _gas("CO2", "二氧化碳", "carbon dioxide", "44.009"),
        _gas("SF6", "六氟化硫", "sulphur hexafluoride", "146.05"),
    )
}


def spell(unit: str) -> str:
    """A unit as it stands in `UNITS`: mg/m3 is mg/m³."""
    return _SPELLINGS.get(unit, unit)


def factor(from_unit: str, to_unit: str, gas: str, *, lel_vol: Decimal | None = None) -> Fraction:
    """What a number in one unit is multiplied with to be in the other, exactly.

    Args:
        from_unit, to_unit: two of `UNITS`; `mg/m3` is another spelling of mg/m³.
        gas: id of one of `GASES`; "" when it is not known: then only a unit to itself, ppb, ppm and %vol convert.
        lel_vol: instead of the gas's own, %vol: of a head that is calibrated on another limit.

    Raises:
        ValueError: a unit or gas is not known, or the gas has no such unit.
    """
    units = [spell(unit) for unit in (from_unit, to_unit)]
    for given, unit in zip((from_unit, to_unit), units, strict=True):
        if unit not in UNITS:
            raise ValueError(f"{given!r} is no unit of a gas (known: {', '.join(UNITS)})")
    if gas and gas not in GASES:
        raise ValueError(f"{gas!r} is no known gas (known: {', '.join(GASES)})")
    if units[0] == units[1]:
        return Fraction(1)
    return _ppm(units[0], units, gas, lel_vol) / _ppm(units[1], units, gas, lel_vol)


def convert(
    value: Fraction | Decimal | float, from_unit: str, to_unit: str, gas: str, *, lel_vol: Decimal | None = None
) -> Fraction:
    """A concentration in another unit, exactly; a float counts as the decimal number that it prints as.

    Raises:
        ValueError: as `factor`.
    """
    exact = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
    return exact * factor(from_unit, to_unit, gas, lel_vol=lel_vol)


def _ppm(unit: str, units: list[str], gas: str, lel_vol: Decimal | None) -> Fraction:
    """What one of `unit` is in ppm of volume."""
    if unit in _PPM:
        return _PPM[unit]
    both = f"{units[0]} to {units[1]}"
    if not gas:
        raise ValueError(f"{both} depends on the gas: say which it is")
    known = GASES[gas]
    if unit == "mg/m³":
        if known.molar_mass is None:
            raise ValueError(f"{both}: {known.id} ({known.name_en}) is a mixture without a molar mass")
        return LITRES_PER_MOLE / Fraction(known.molar_mass)
    limit = known.lel_vol if lel_vol is None else lel_vol
    if limit is None:
        raise ValueError(f"{both}: {known.id} ({known.name_en}) has no lower explosive limit here")
    return Fraction(limit) * 100  # 1 %LEL is a hundredth of the limit in %vol, which is 10,000 ppm
