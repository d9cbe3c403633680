"""The catalogue that is shipped, and every way in which a profile can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from sitewarden.errors import ConfigError
from sitewarden.sensors.profiles import load_catalogue
from sitewarden.sensors.registers import decode, plan
from sitewarden.words import Point

GOOD = """
id = "x1"
name = "某仪表"
name_en = "Some meter"
source = "manual p. 3"

[[registers]]
name = "t"
name_zh = "温度"
name_en = "temperature"
unit = "°C"
quantity = "temperature"
decimals = 1
address = 1
type = "i16"
scale = 0.1
low = -40
high = 80.5
"""


def catalogue(folder: Path, text: str, name: str = "x1.toml") -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder


def problems(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_catalogue(folder)
    assert caught.value.source == str(folder)
    return caught.value.problems


def test_shipped_catalogue() -> None:
    shipped = load_catalogue()
    assert set(shipped) >= {"rs_ws_n01", "xy_md02", "pressure_transmitter", "pressure_f32"}
    for profile in shipped.values():
        assert profile.source
        assert len(profile.labels) == len(profile.registers)


# What a device sends (words of its one block), and what a person reads on its display.
@pytest.mark.parametrize(
    ("profile", "block", "words", "values"),
    [
        ("rs_ws_n01", ("holding", 0, 2), [583, 0xFF9B], {"humidity": 58.3, "temperature": -10.1}),
        ("xy_md02", ("input", 1, 2), [221, 504], {"temperature": 22.1, "humidity": 50.4}),
        ("pressure_transmitter", ("holding", 2, 3), [0, 3, 350], {"pressure": 0.35}),
        ("pressure_transmitter", ("holding", 2, 3), [1, 1, 3500], {"pressure": 0.35}),
        ("pressure_transmitter", ("holding", 2, 3), [3, 2, 350], {"pressure": 0.35}),
        ("pressure_transmitter", ("holding", 2, 3), [5, 2, 350], {"pressure": None}),
        ("pressure_f32", ("holding", 22, 2), [0x3F4C, 0xCCCD], {"pressure": 0.8}),
        ("qdy30a_level", ("holding", 2, 3), [17, 1, 2345], {"level": 2.345}),
        ("sensepoint_xcd_lel", ("holding", 2, 9), [0x4148, 0, 0, 0, 1, 0, 0, 0, 5], {"lel": 12.5}),
        ("sensepoint_xcd_lel", ("holding", 2, 9), [0x4148, 0, 0, 0, 3, 0, 0, 0, 5], {"lel": None}),
        ("sensepoint_xcd_lel", ("holding", 2, 9), [0x4148, 0, 0, 0, 1, 0, 0, 0, 4], {"lel": None}),
    ],
)
def test_what_devices_send(
    profile: str, block: tuple[str, int, int], words: list[int], values: dict[str, float | None]
) -> None:
    found = load_catalogue()[profile]
    (planned,) = plan(found.registers, max_gap=found.max_gap, max_count=found.max_count)
    assert (planned.table, planned.address, planned.count) == block
    start = planned.address
    assert {r.name: decode(r, words[r.first - start : r.end - start]).value for r in found.registers} == values


def test_points_and_unit_of_a_device(tmp_path: Path) -> None:
    profile = load_catalogue(catalogue(tmp_path, GOOD))["x1"]
    assert profile.points("area.d", 2.0, place="库房", place_en="Store") == (
        Point(
            id="area.d.t",
            name="库房温度",
            name_en="Store temperature",
            unit="°C",
            quantity="temperature",
            decimals=1,
            poll_s=2.0,
            low=-40.0,
            high=80.5,
        ),
    )
    unit = profile.unit("area.d", 7, 2.0, timeout_ms=900)
    assert (unit.unit_id, unit.timeout_ms, unit.registers) == (7, 900, profile.registers)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("address = 1", "address = 70000", "registers[0].address: Input should be less than 65536 (got 70000)"),
        ("address = 1", "address = true", "registers[0].address: Input should be a valid integer (got True)"),
        ("address = 1", "", "registers[0].address: Field required"),
        ("address = 1", "adress = 1\naddress = 1", "registers[0].adress: Extra inputs are not permitted (got 1)"),
        ("scale = 0.1", 'scale = "0.1"', "registers[0].scale: must be a number (got '0.1')"),
        ("scale = 0.1", "scale = 0", "registers[0]: scale must not be 0"),
        ("scale = 0.1", "scale = nan", "registers[0].scale: Input should be a finite number (got nan)"),
        ("low = -40", "low = 90", "registers[0]: low must be less than high (got 90 and 80.5)"),
        ('name = "t"', 'name = "T 1"', "registers[0].name: String should match pattern '^[a-z0-9_]+$' (got 'T 1')"),
        ('type = "i16"', 'type = "bit"', "registers[0].type: bit does not fit table holding"),
        ("decimals = 1", "decimals = 1\nunit_at = 4", "registers[0]: unit_at and unit_factors must be given together"),
        (
            "decimals = 1",
            "decimals = 1\ndecimals_at = 200",
            "registers: t: needs 200 addresses in one read, at most 125",
        ),
        ('source = "manual p. 3"', "", "source: Field required"),
        ('id = "x1"', 'id = "x2"', "id: must be the file's name, 'x1' (got 'x2')"),
    ],
)
def test_each_problem_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    assert problems(catalogue(tmp_path, GOOD.replace(old, new))) == [f"x1.toml: {problem}"]


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    catalogue(tmp_path, GOOD.replace("decimals = 1", "decimals = 9").replace('unit = "°C"', "unit = 3"))
    catalogue(tmp_path, "id =\n", "broken.toml")
    (tmp_path / "latin.toml").write_bytes(b'id = "\xff"')
    catalogue(tmp_path, GOOD + GOOD[GOOD.index("[[") :], "x2.toml")
    found = problems(tmp_path)
    assert [p.partition(":")[0] for p in found] == ["broken.toml", "latin.toml", "x1.toml", "x1.toml", "x2.toml"]
    assert "line 1" in found[0]
    assert found[2:] == [
        "x1.toml: registers[0].unit: Input should be a valid string (got 3)",
        "x1.toml: registers[0].decimals: Input should be less than or equal to 6 (got 9)",
        "x2.toml: registers: name must be unique (got 't' again)",
    ]


def test_no_folder(tmp_path: Path) -> None:
    assert problems(tmp_path / "none") == ["must be a folder with *.toml profiles"]
