"""The catalogue that is shipped, and every way in which a profile can be wrong."""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sitewarden.errors import ConfigError
from sitewarden.sensors.fitting import Channel, Setting, fit
from sitewarden.sensors.profile_words import TABLES
from sitewarden.sensors.profiles import Profile, load_catalogue, open_catalogue
from sitewarden.sensors.registers import (
    ONE_BY_ONE,
    Heartbeat,
    Output,
    Part,
    Status,
    Table,
    Text,
    compile_decoder,
    decode,
    plan,
)
from sitewarden.wording import names_of
from sitewarden.words import Point, Quality

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


FOLDER = Path(__file__).parent / "golden" / "profile"
METER = (FOLDER / "meter.toml").read_text("utf-8")
CASES: list[dict[str, Any]] = tomllib.loads((FOLDER / "cases.toml").read_text("utf-8"))["case"]
FILE_NAME = "file: its name must be lower-case letters, digits and _: it is the profile's id"
PATH = r"file|[a-z_]+(?:\[\d+\]|\.[A-Za-z_]+)*"


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
        ("pressure_transmitter", ("holding", 2, 3), [9, 2, 350], {"pressure": None}),
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_mistake_gives_exactly_its_problems(tmp_path: Path, case: dict[str, Any]) -> None:
    assert problems(catalogue(tmp_path, changed(case["changes"]), "meter.toml")) == case["problems"]


def changed(changes: list[dict[str, str]]) -> str:
    """The profile that says everything, with a mistake in it."""
    text = METER
    for change in changes:
        assert text.count(change["old"]) == 1, change
        text = text.replace(change["old"], change["new"])
    return text


def test_there_is_a_case_for_every_word(tmp_path: Path) -> None:
    """What the models can refuse on their own has a case, and no case is told with words that are not ours."""
    told = "\n".join(problem for case in CASES for problem in case["problems"])
    assert len(CASES) >= 90
    assert all(case["problems"] for case in CASES)
    assert "is refused" not in told
    assert "Input should" not in told
    for file in ("profile_files.py", "register_files.py"):
        source = (Path(__file__).parent.parent / "sensors" / file).read_text("utf-8")
        words = [found[1] for found in re.findall(r"""yield [^\n]*?, f?(["'])(.*?)(?:\1|{)""", source)]
        assert len(words) > 10
        assert [each for each in words if each not in told] == [], file


@pytest.mark.parametrize("problem", [p for case in CASES for p in case["problems"]])
def test_each_problem_is_one_line_with_file_path_and_place(problem: str) -> None:
    assert re.fullmatch(rf"meter\.toml: (?:{PATH}|line \d+): \S.*", problem)
    at_top = re.match(r"meter\.toml: [a-z]+: is required", problem)
    assert at_top or re.search(r"(?: |^meter\.toml: )\[?(?:.*, )?line (\d+)", problem)


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    catalogue(tmp_path, GOOD.replace("decimals = 1", "decimals = 9").replace('unit = "°C"', "unit = 3"))
    catalogue(tmp_path, "id =\n", "broken.toml")
    (tmp_path / "latin.toml").write_bytes(b'id = "\xff"')
    catalogue(tmp_path, (GOOD + GOOD[GOOD.index("[[") :]).replace('"x1"', '"x2"'), "x2.toml")
    (tmp_path / "folder.toml").mkdir()
    catalogue(tmp_path, GOOD, "My head.toml")
    assert problems(tmp_path) == [
        f'My head.toml: {FILE_NAME} (got "My head.toml")',
        'broken.toml: line 1: is not a value: text needs straight quotes, as in name = "..."',
        "folder.toml: file: is a folder: name the file in it, such as my_head.toml",
        "latin.toml: line 1: must be UTF-8 text: save the file as UTF-8 (got byte 0xff)",
        'x1.toml: registers[0].unit: must be text in quotes (got 3) [register "t", line 11]',
        'x1.toml: registers[0].decimals: must be 0..6 (got 9) [register "t", line 13]',
        'x2.toml: registers[1].name: must be unique: registers[0] has it too (got "t") [register "t", line 20]',
    ]


def test_what_editors_of_windows_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "x1.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_catalogue(tmp_path)["x1"].name == "某仪表"


def test_no_folder(tmp_path: Path) -> None:
    assert problems(tmp_path / "none") == ["must be a folder with *.toml profiles"]


# --- anything at all ---

LINES = METER.splitlines()
KEYS = sorted({key for model in TABLES.values() for key in names_of(model)})
VALUES = [line.split("=", 1)[1].strip() for line in LINES if "=" in line]
HEADERS = [line for line in LINES if line.startswith("[")] + ["[registers]", "[[defaults]]", "[[x]]", "[variants]"]
ODD = ["-1", "70000", "1.5", "nan", "-inf", "1e999999", "true", "[]", "{}", "[[]]", "[{}]", '""', '"x y"', "2026-11-22"]


def edits() -> st.SearchStrategy[list[tuple[str, int, str]]]:
    at = st.integers(0, len(LINES) - 1)
    values = st.sampled_from([*VALUES, *ODD])
    return st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["delete", "double"]), at, st.just("")),
            st.tuples(st.just("value"), at, values),
            st.tuples(st.just("key"), at, st.sampled_from(KEYS)),
            st.tuples(st.just("add"), at, st.sampled_from(HEADERS)),
            st.tuples(st.just("add"), at, st.tuples(st.sampled_from(KEYS), values).map(" = ".join)),
        ),
        min_size=1,
        max_size=4,
    )


def mutate(changes: list[tuple[str, int, str]]) -> str:
    lines = list(LINES)
    for what, at, text in changes:
        at %= len(lines)
        key, sign, value = lines[at].partition("=")
        if what == "delete":
            del lines[at]
        elif what == "double":
            lines.insert(at, lines[at])
        elif what == "value" and sign:
            lines[at] = f"{key}= {text}"
        elif what == "key" and sign:
            lines[at] = f"{text} ={value}"
        elif what == "add":
            lines.insert(at, text)
    return "\n".join(lines)


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=500,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits())
def test_no_edit_of_a_profile_crashes(tmp_path: Path, changes: list[tuple[str, int, str]]) -> None:
    found, told = open_catalogue(catalogue(tmp_path, mutate(changes), "meter.toml"))
    assert ("meter" in found) is not bool(told)
    for problem in told:
        assert re.fullmatch(rf"meter\.toml: (?:{PATH}|line \d+|end of file): \S.*", problem), problem
        assert "is refused" not in problem
        assert len(problem) < 900, problem


# --- everything that a file can say ---

RICH = """
id = "x1"
name = "某仪表"
name_en = "Some meter"
source = "manual p. 3"
evidence = "memory"
incomplete = "no serial number"
one_by_one = true
inter_frame_ms = 20

[defaults]
unit_id = 3
table = "input"

[[registers]]
name = "ch4"
name_zh = "甲烷"
name_en = "methane"
unit = "%LEL"
quantity = "gas"
gas = "CH4"
decimals = 1
address = 4
type = "parts"
parts = [{ address = 4, mask = 0x000F, times = 100, most = 9 }, { address = 5 }]
unit_at = 6
unit_mask = 0x00F0
unit_factors = [{ code = 1, unit = "%LEL" }, { code = 2, unit = "%vol" }, { code = 3, unit = "mg/m³" }]
low = 0
high = 100
heartbeat = { address = 7, frozen_s = 20 }
status = [
  { address = 8, mask = 0x00FF, nonzero = "fault" },
  { address = 9, states = [{ code = 1, why = "" }, { code = 5, to = 7, why = "over_range" }], other = "off" },
]

[[outputs]]
name = "horn"
name_zh = "警号"
name_en = "horn"
table = "holding"
address = 30
states = { off = 0, on = 255 }
multiple = true

[[texts]]
name = "serial"
address = 40
words = 4
swapped = true

[[variants]]
id = "toxic"
differs = "another gas"
tell = "the label"
source = "manual p. 9"
drop = []

[variants.defaults]
unit_id = 4

[[variants.registers]]
name = "ch4"
rename = "co"
unit = "ppm"
gas = "CO"
high = 1000

[[variants.registers]]
name = "extra"
name_zh = "附加"
name_en = "extra"
unit = ""
quantity = "other"
decimals = 0
address = 20
type = "u16"
"""


def test_all_that_a_file_can_say(tmp_path: Path) -> None:
    profile = load_catalogue(catalogue(tmp_path, RICH))["x1"]
    (register,) = profile.registers
    assert (profile.evidence, profile.incomplete, profile.inter_frame_ms) == ("memory", "no serial number", 20)
    assert (profile.one_by_one, profile.max_gap, profile.longest_poll_s) == (True, ONE_BY_ONE, 5.0)
    assert register.parts == (Part(address=4, mask=0xF, times=100, most=9), Part(address=5))
    assert register.heartbeat == Heartbeat(address=7, frozen_s=20.0)
    assert register.status == (
        Status(address=8, mask=0xFF, states=((0, ""),), other="fault"),
        Status(address=9, states=((1, ""),), ranges=((5, 7, "over_range"),), other="off"),
    )
    horn = Output(
        name="horn",
        table=Table.HOLDING,
        address=30,
        states=(("off", 0), ("on", 255)),
        multiple=True,
        name_zh="警号",
        name_en="horn",
    )
    assert profile.outputs == profile.unit("a.d", 3, 1.0).outputs == (horn,)
    assert profile.texts == (Text(name="serial", table=Table.INPUT, address=40, words=4, swapped=True),)
    run = compile_decoder(register, 4)
    assert run([0xFFF1, 25, 0x10, 0, 0, 1]) == (None, Quality.BAD, "out_of_range")
    assert run([0xFFF0, 25, 0x10, 0, 0, 1]) == (25.0, Quality.GOOD, "")
    assert run([0xFFF0, 2, 0x20, 0, 0, 1]) == (40.0, Quality.GOOD, ""), "2 %vol of methane"
    assert run([0xFFF0, 2, 0x40, 0, 0, 1])[2] == "unknown_unit"


def test_a_variant_is_a_whole_profile(tmp_path: Path) -> None:
    profile = load_catalogue(catalogue(tmp_path, RICH))["x1"]
    (variant,) = profile.variants
    found, problems = fit(profile, Setting(variant="toxic"))
    assert problems == ()
    assert (variant.differs, variant.tell, found.source, found.defaults.unit_id) == (
        "another gas",
        "the label",
        "manual p. 9",
        4,
    )
    assert [(x.name, x.unit, x.gas) for x in found.labels] == [("co", "ppm", "CO"), ("extra", "", "")]
    assert [r.name for r in profile.registers] == ["ch4"]
    assert found.variants == profile.variants


# --- the catalogue of a site ---


def test_own_profiles_beside_the_shipped_ones(tmp_path: Path) -> None:
    catalogue(tmp_path, GOOD)
    catalogue(tmp_path, "id =", "x2.toml")
    found, problems = open_catalogue(tmp_path)
    assert [p.partition(":")[0] for p in problems] == ["x2.toml"]
    assert (found["x1"].name_en, found["sdm120"].id, found.broken) == ("Some meter", "sdm120", {"x2"})
    assert "x1" in found
    assert "x2" not in found
    assert len(found) == len(list(found)) == len(load_catalogue()) + 1
    with pytest.raises(KeyError):
        found["x2"]


# --- a device as a site has it set up ---

SHIPPED = load_catalogue()


def channel(**more: Any) -> Channel:
    fields: dict[str, Any] = {
        "index": 0,
        "register": "ch3",
        "name": "level",
        "name_zh": "液位",
        "name_en": "level",
        "unit": "m",
        "quantity": "other",
        "decimals": 2,
        "low": Decimal(5),
        "high": Decimal(0),
    }
    return Channel(**{**fields, **more})


def values(profile: Profile, words: list[int], base: int) -> dict[str, float | str]:
    found = {r.name: compile_decoder(r, base)(words) for r in profile.registers}
    return {name: why if value is None else value for name, (value, _, why) in found.items()}


def test_a_gas_in_another_unit() -> None:
    found, problems = fit(SHIPPED["hh4_four_gas"], Setting(unit="%vol"))
    assert problems == ()
    (point,) = found.points("a.d", 2.0)
    assert (point.unit, point.low, point.high, point.decimals) == ("%vol", 0.0, 5.0, 3)
    assert values(found, [0x0100, 125, 0, 0, 0, 1], 0) == {"ch4": 0.625}
    propane, problems = fit(SHIPPED["hh4_four_gas"], Setting(unit="%vol", gas="C3H8"))
    assert problems == ()
    assert values(propane, [0x0100, 1000, 0, 0, 0, 1], 0) == {"ch4": 2.1}


def test_a_head_that_says_its_unit() -> None:
    """ppm of CO, mg/m³ and %vol of one head: each becomes the unit that the site wants, or no value."""
    head = SHIPPED["sensepoint_xrl"]
    found, problems = fit(head, Setting(variant="toxic", gas="CO", unit="mg/m³"))
    assert problems == ()
    words = [0x41F0, 0, 0, 0, 1, 0, 0, 0, 6]  # 30
    assert values(found, words, 102)["gas"] == pytest.approx(34.932, abs=1e-3)
    assert values(found, [*words[:8], 3], 102) == {"gas": 30.0}
    assert values(found, [*words[:8], 2], 102) == {"gas": "unknown_unit"}
    bare, _ = fit(head, Setting(variant="toxic"))
    assert values(bare, [*words[:8], 3], 102) == {"gas": "unknown_unit"}, "which gas, nobody has said"
    assert values(bare, words, 102) == {"gas": 30.0}


def test_what_does_not_convert_stays_as_it_is() -> None:
    found, problems = fit(SHIPPED["sf6_o2"], Setting(unit="%LEL"))
    assert [key for key, _ in problems] == ["unit"]
    assert "O2 (oxygen) has no lower explosive limit here" in problems[0][1]
    assert found.registers == SHIPPED["sf6_o2"].registers
    mixed, problems = fit(SHIPPED["sf6_o2"], Setting(unit="mg/m3"))
    assert problems == ()
    assert {label.unit for label in mixed.labels} == {"mg/m³"}


def test_only_what_is_wanted() -> None:
    found, problems = fit(SHIPPED["xy_md02"], Setting(only=("humidity",)))
    assert problems == ()
    assert [p.id for p in found.points("a.d", 2.0)] == ["a.d.humidity"]
    assert [(b.address, b.count) for b in plan(found.registers, max_gap=0)] == [(2, 1)]


def test_currents_and_what_they_stand_for() -> None:
    other = channel(index=1, register="ch1", name="gas", unit="%LEL", quantity="gas", low=Decimal(0), high=Decimal(100))
    found, problems = fit(SHIPPED["n4aib16"], Setting(channels=(channel(), other)))
    assert problems == ()
    points = {p.id: (p.unit, p.low, p.high) for p in found.points("a.d", 2.0)}
    assert points == {"a.d.level": ("m", 0.0, 5.0), "a.d.gas": ("%LEL", 0.0, 100.0)}
    assert values(found, [1200, 0, 400], 0) == {"level": 5.0, "gas": 50.0}
    assert values(found, [0, 0, 2000], 0) == {"level": 0.0, "gas": "signal_low"}
    propane, problems = fit(SHIPPED["n4aib16"], Setting(channels=(other,), gas="C3H8", unit="%vol"))
    assert problems == ()
    assert [(p.unit, p.low, p.high) for p in propane.points("a.d", 2.0)] == [("%vol", 0.0, 2.1)]
    assert values(propane, [2000], 0) == {"gas": 2.1}
    assert values(propane, [2051], 0) == {"gas": 2.165625}, "saturated"


@pytest.mark.parametrize(
    ("profile", "setting", "key", "text"),
    [
        ("rs_ws_n01", {"variant": "x"}, "variant", "must name a variant of profile rs_ws_n01 (known: soil)"),
        ("sdm120", {"variant": "x"}, "variant", "must name a variant of profile sdm120 (known: none)"),
        ("hh4_four_gas", {"gas": "Xe"}, "gas", "must be one of CH4, "),
        ("sf6_o2", {"gas": "CO"}, "gas", "does not belong to profile sf6_o2: it measures SF6, O2, take it out"),
        ("xy_md02", {"unit": "ppm"}, "unit", "does not belong to profile xy_md02: it measures no gas, take it out"),
        ("sf6_o2", {"unit": "ppt"}, "unit", "must be one of ppb, ppm, %vol, mg/m³, %LEL"),
        ("sensepoint_xrl", {"unit": "%vol"}, "unit", "lel: %LEL to %vol depends on the gas: say which it is"),
        ("xy_md02", {"only": ("x",)}, "only[0]", "must name a point of profile xy_md02 (known: temperature, humidity)"),
        (
            "xy_md02",
            {"channels": (channel(),)},
            "channel",
            "does not belong to profile xy_md02: it has no 4-20 mA inputs",
        ),
        (
            "n4aib16",
            {"channels": (channel(register="c"),)},
            "channel[0].input",
            "must name a current of profile n4aib16 (known:",
        ),
        (
            "n4aib16",
            {"channels": (channel(), channel(index=1, register="ch2"))},
            "channel[1].name",
            "must be unique in the device",
        ),
        ("n4aib16", {"channels": (channel(high=Decimal(5)),)}, "channel[0].high", "must not be low, 5: "),
    ],
)
def test_a_setting_that_does_not_fit(profile: str, setting: dict[str, Any], key: str, text: str) -> None:
    _, problems = fit(SHIPPED[profile], Setting(**setting))
    assert [found for found, _ in problems] == [key]
    assert problems[0][1].startswith(text)
