"""Concentrations in every unit, exactly."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.sensors.gases import GASES, UNITS, convert, factor

SEEDED = settings(derandomize=True, deadline=None)


@pytest.mark.parametrize(
    ("value", "source", "target", "gas", "wanted"),
    [
        (20, "%LEL", "%vol", "CH4", Fraction(1)),
        (0.5, "%vol", "%LEL", "CH4", Fraction(10)),
        (100, "%LEL", "ppm", "C3H8", Fraction(21000)),
        (25, "%LEL", "%vol", "H2", Fraction(1)),
        (1, "%vol", "ppm", "O2", Fraction(10000)),
        (20.9, "%vol", "ppm", "", Fraction(209000)),
        (1, "ppm", "ppb", "H2S", Fraction(1000)),
        (24.055, "ppm", "mg/m³", "CO", Fraction("28.010")),
        ("28.010", "mg/m3", "ppm", "CO", Fraction("24.055")),
        (7, "ppm", "ppm", "SF6", Fraction(7)),
        (3, "%LEL", "%LEL", "", Fraction(3)),
    ],
)
def test_conversions(value: float | str, source: str, target: str, gas: str, wanted: Fraction) -> None:
    number = Decimal(value) if isinstance(value, str) else value
    assert convert(number, source, target, gas) == wanted


@pytest.mark.parametrize(
    ("gas", "ppm", "milligrams"),
    [("H2S", 7, 9.916), ("CO", 25, 29.11), ("NH3", 30, 21.24), ("SO2", 2, 5.326), ("Cl2", 1, 2.947)],
)
def test_milligrams_as_the_tables_of_the_trade_have_them(gas: str, ppm: float, milligrams: float) -> None:
    """mg/m³ = ppm x M / 24.055, with four digits."""
    assert float(convert(ppm, "ppm", "mg/m³", gas)) == pytest.approx(milligrams, rel=2e-4)


def test_a_head_that_is_calibrated_on_another_limit() -> None:
    assert GASES["CH4"].lel_iec_vol == Decimal("4.4")
    assert convert(20, "%LEL", "%vol", "CH4", lel_vol=Decimal("4.4")) == Fraction("0.88")


@pytest.mark.parametrize(
    ("source", "target", "gas", "message"),
    [
        ("ppm", "g/l", "CO", "'g/l' is no unit of a gas (known: ppb, ppm, %vol, mg/m³, %LEL)"),
        ("lel", "ppm", "CO", "'lel' is no unit of a gas (known: ppb, ppm, %vol, mg/m³, %LEL)"),
        ("%LEL", "%vol", "", "%LEL to %vol depends on the gas: say which it is"),
        ("ppm", "mg/m3", "", "ppm to mg/m³ depends on the gas: say which it is"),
        ("%LEL", "ppm", "O2", "%LEL to ppm: O2 (oxygen) has no lower explosive limit here"),
        ("ppm", "mg/m³", "gasoline", "ppm to mg/m³: gasoline (gasoline vapour) is a mixture without a molar mass"),
    ],
)
def test_what_does_not_convert_says_why(source: str, target: str, gas: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        factor(source, target, gas)


def test_an_unknown_gas_is_named() -> None:
    with pytest.raises(ValueError, match=r"^'Xe' is no known gas \(known: CH4, "):
        factor("ppm", "ppm", "Xe")


@SEEDED
@given(
    st.sampled_from(sorted(GASES)),
    st.sampled_from(UNITS),
    st.sampled_from(UNITS),
    st.sampled_from(UNITS),
    st.decimals(0, 10**6, allow_nan=False, places=3),
)
def test_conversions_agree_with_one_another(gas: str, a: str, b: str, c: str, value: Decimal) -> None:
    """There and back is where it began; the way over a third unit is as long."""
    try:
        direct = convert(value, a, c, gas)
        assert convert(convert(value, a, b, gas), b, c, gas) == direct
        assert convert(direct, c, a, gas) == Fraction(value)
    except ValueError:
        assert GASES[gas].molar_mass is None or GASES[gas].lel_vol is None


def test_gases_are_whole() -> None:
    for name, gas in GASES.items():
        assert gas.id == name
        assert gas.molar_mass is not None or gas.lel_vol is not None
        assert gas.lel_iec_vol is None or (gas.lel_vol is not None and gas.lel_iec_vol < gas.lel_vol)
        assert gas.lel_vol is None or 1 <= gas.lel_vol <= 15
