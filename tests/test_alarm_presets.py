"""Limits of GB/T 50493-2019 by gas and unit, and what of a preset a site writes itself."""

from __future__ import annotations

from typing import Any

import pytest
from sitewarden.edge.alarms.presets import fill, gb50493
from sitewarden.edge.models import AlarmTable


def table(**fields: Any) -> AlarmTable:
    return AlarmTable.model_validate({"point": "pit.gas1.x", "preset": "gb50493", **fields})


@pytest.mark.parametrize(
    ("gas", "unit", "wanted"),
    [
        ("CH4", "%LEL", {"hi": 25, "hihi": 50}),
        ("", "%LEL", {"hi": 25, "hihi": 50}),  # any flammable gas
        ("CH4", "%vol", {"hi": 1.25, "hihi": 2.5}),
        ("H2", "ppm", {"hi": 10_000, "hihi": 20_000}),
        ("H2S", "mg/m³", {"hi": 10, "hihi": 20}),
        ("H2S", "mg/m3", {"hi": 10, "hihi": 20}),
        ("H2S", "ppm", {"hi": 7.05, "hihi": 14.1}),  # 7.059: never above the limit
        ("CO", "ppm", {"hi": 17.1, "hihi": 34.3}),
        ("NH3", "ppm", {"hi": 28.2, "hihi": 56.4}),
        ("Cl2", "ppm", {"hi": 0.339, "hihi": 0.678}),
        ("O2", "%vol", {"lo": 19.5, "hi": 23.5}),
    ],
)
def test_limits(gas: str, unit: str, wanted: dict[str, float]):
    assert gb50493(gas, unit) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("gas", "unit", "says"),
    [
        ("", "ppm", "say which gas it is"),
        (
            "SO2",
            "ppm",
            "write hi and hihi: 100 % and 200 % of the occupational exposure limit of sulphur dioxide in ppm",
        ),
        ("HCN", "ppm", "occupational exposure limit of hydrogen cyanide in ppm"),  # a quarter of its LEL kills
        ("HCN", "mg/m³", "occupational exposure limit of hydrogen cyanide"),
        ("Cl2", "%LEL", "no lower explosive limit"),
        ("O2", "%LEL", "no lower explosive limit"),
        ("XX", "%LEL", "no known gas"),
        ("XX", "ppm", "no known gas"),
        ("H2S", "kPa", "is none of"),
        ("gasoline", "mg/m³", "mixture"),
    ],
)
def test_what_has_no_numbers_says_what_to_write(gas: str, unit: str, says: str):
    with pytest.raises(ValueError, match=says):
        gb50493(gas, unit)
    assert says in fill(table(), gas, unit, "gas")[1]


def test_the_preset_fills_what_is_not_written():
    filled, problem = fill(table(), "H2S", "mg/m³", "gas")
    assert problem == ""
    assert filled.hi is not None
    assert filled.hihi is not None
    assert (filled.hi.limit, filled.hihi.limit, filled.life_safety) == (10, 20, True)


def test_what_is_written_goes_before():
    own = table(hi={"limit": 5, "priority": 1}, life_safety=False)
    filled, _ = fill(own, "H2S", "mg/m³", "gas")
    assert filled.hi is not None
    assert filled.hihi is not None
    assert (filled.hi.limit, filled.hi.priority, filled.hihi.limit, filled.life_safety) == (5, 1, 20, False)


def test_a_preset_is_for_gases_and_a_table_without_one_stays_as_it_is():
    assert "belongs to a point of quantity gas" in fill(table(), "", "%RH", "humidity")[1]
    plain = table(preset=None)
    assert fill(plain, "SO2", "ppm", "gas") == (plain, "")
