"""What the probe computes: addresses, interpretations, plans, candidates, advice, the lines for site.toml."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import re
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sitewarden.console.language import Say
from sitewarden.console.text import pad, table, width
from sitewarden.console.words import WORDS as COMMON
from sitewarden.edge.site import load_site
from sitewarden.errors import ConfigError, PermanentError, TransientError
from sitewarden.probe.error_words import ERRORS
from sitewarden.probe.find import (
    Candidate,
    FoundUnit,
    ScanResult,
    Setting,
    SnippetPlace,
    candidates,
    is_needless,
    likely_units,
    main_setting,
    reads_of,
    settings,
    snippet,
)
from sitewarden.probe.identify_words import REASONS
from sitewarden.probe.interpret import (
    Advice,
    Tally,
    Word,
    advise,
    is_plausible,
    narrower,
    parse_address,
    parse_ranges,
    parse_register,
    texts_of,
    wides_of,
)
from sitewarden.probe.link import (
    check_port,
    lasting_name,
    lock_holder,
    same_place,
    serial_ports,
    through_gateway,
)
from sitewarden.probe.plan import plan_bus
from sitewarden.probe.run import Asked, Round, identify, look, scan_units, watch
from sitewarden.probe.scan import bar_line
from sitewarden.probe.text import clock, hello_text, plan_lines, round_text, summary_lines, tally_line, word_lines
from sitewarden.probe.words import ALL, WORDS, translator
from sitewarden.sensors.buses import Answer, BusKind, BusSpec, ReplyError, UnitSpec
from sitewarden.sensors.plant_devices import Wire as PlantWire
from sitewarden.sensors.plant_model import Plant
from sitewarden.sensors.profiles import load_catalogue
from sitewarden.sensors.registers import (
    ONE_BY_ONE,
    Block,
    Output,
    Register,
    Table,
    ValueType,
    WordOrder,
    decode,
)

EN = translator("en")
ZH = translator("zh")
AT_9600 = Setting(baud=9600, parity="N")
CATALOGUE = load_catalogue()


def holding(address: int, count: int = 1) -> Block:
    return Block(table=Table.HOLDING, address=address, count=count)


# --- addresses ---


@pytest.mark.parametrize(("text", "address"), [("0", 0), ("65535", 65535), ("0x0010", 16), ("0XFFFF", 65535)])
def test_an_address_is_decimal_or_hexadecimal(text: str, address: int):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "65536", "-1", "0x10000", "4.5", "ten", "0o17", "FF"])
def test_what_is_no_address_is_refused_with_its_text(text: str):
    with pytest.raises(ValueError, match="bad_address") as refused:
        parse_address(text)
    assert EN(*refused.value.args).endswith(f"(got {text!r})")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("40001", (Table.HOLDING, 0)),
        ("40003", (Table.HOLDING, 2)),
        ("49999", (Table.HOLDING, 9998)),
        ("400003", (Table.HOLDING, 2)),
        ("465536", (Table.HOLDING, 65535)),
        ("30001", (Table.INPUT, 0)),
        ("10017", (Table.DISCRETE, 16)),
        ("00001", (Table.COIL, 0)),
    ],
)
def test_a_register_number_names_table_and_address(text: str, place: tuple[Table, int]):
    assert parse_register(text) == place


@pytest.mark.parametrize("text", ["40000", "4001", "465537", "50001", "20001", "4x001", "", "4000001", "４0001"])
def test_what_is_no_register_number_is_refused(text: str):
    with pytest.raises(ValueError, match="bad_register") as refused:
        parse_register(text)
    assert "4xxxx holding" in EN(*refused.value.args)
    assert "4xxxx 保持" in ZH(*refused.value.args)


def test_ranges_keep_their_order_and_name_each_once():
    assert parse_ranges("245,1-3, 2", 0, 247) == (245, 1, 2, 3)


@pytest.mark.parametrize("text", ["", "a", "1-", "5-3", "248", "0-300", "1,,2", "-5"])
def test_what_is_no_range_is_refused(text: str):
    with pytest.raises(ValueError, match=r"bad_ranges|range_outside") as refused:
        parse_ranges(text, 0, 247)
    assert "(got" in EN(*refused.value.args)


# --- interpretations ---


@pytest.mark.parametrize(
    ("raw", "ways"),
    [
        (0x0000, (0, 0, 0, 0, 0, (0, 0, 0, 0), ())),
        (0xFFFF, (-1, -55535, None, 255, 255, (15, 15, 15, 15), tuple(range(15, -1, -1)))),
        (0x8001, (-32767, -22769, 8001, 128, 1, (8, 0, 0, 1), (15, 0))),
        (10250, (10250, -250, None, 40, 10, (2, 8, 0, 10), (13, 11, 3, 1))),
        (9999, (9999, 9999, None, 39, 15, (2, 7, 0, 15), (13, 10, 9, 8, 3, 2, 1, 0))),
        (0x1234, (4660, 4660, 1234, 18, 52, (1, 2, 3, 4), (12, 9, 5, 4, 2))),
    ],
)
def test_a_word_in_every_way(raw: int, ways: tuple[Any, ...]):
    """Signed, 10000 and more negative, BCD, bytes, nibbles, bits."""
    word = Word(address=7, raw=raw)
    got = (word.signed, word.above_10000, word.bcd, word.high, word.low, word.nibbles, word.bits)
    assert got == ways


@hypothesis_settings(deadline=None)
@given(st.lists(st.integers(0, 0xFFFF), min_size=4, max_size=4))
def test_wide_numbers_are_what_the_gateway_decodes(raws: list[int]):
    """A `word_order` and `type` chosen from the probe's table give the same number in site.toml."""
    seen = 0
    for size, letters in ((2, ("u32", "i32", "f32")), (4, ("u64", "i64", "f64"))):
        for wide in wides_of(100, raws, size):
            held = raws[wide.address - 100 : wide.address - 100 + size]
            for kind, ours in zip(letters, (wide.unsigned, wide.signed, wide.floating), strict=True):
                register = Register(
                    name="x", table=Table.HOLDING, address=0, type=ValueType(kind), word_order=wide.order
                )
                theirs = decode(register, held)
                seen += 1
                if theirs.value is None:
                    assert theirs.why == "not_a_number"
                    assert not math.isfinite(ours)
                elif kind == "f32":
                    assert struct.pack(">f", theirs.value) == struct.pack(">f", ours)
                else:
                    assert theirs.value == float(ours)
    assert seen == (3 + 1) * 4 * 3


def test_every_order_of_one_float():
    high, low = struct.unpack(">HH", struct.pack(">f", 0.35))
    swap = lambda word: (word & 0xFF) << 8 | word >> 8  # noqa: E731
    sent = {
        WordOrder.BIG: (high, low),
        WordOrder.LITTLE: (low, high),
        WordOrder.BIG_SWAPPED: (swap(high), swap(low)),
        WordOrder.LITTLE_SWAPPED: (swap(low), swap(high)),
    }
    for order, raws in sent.items():
        found = {wide.order: wide for wide in wides_of(0, raws, 2)}
        assert found[order].floating == pytest.approx(0.35), order
        assert [o for o, wide in found.items() if wide.plausible and 0.1 < wide.floating < 1] == [order]


@pytest.mark.parametrize("number", [0.0, 20.9, -40.0, 1e-6, 1e9])
def test_measurements_are_plausible(number: float):
    assert is_plausible(number)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e-40, -1e-7, 1.1e9, 1e38])
def test_dust_and_monsters_are_not(number: float):
    assert not is_plausible(number)


def test_text_in_both_byte_orders():
    assert texts_of((0x4142, 0x0043)) == ("AB·C", "BAC·")


def test_the_table_of_words_keeps_its_columns_with_chinese_in_it():
    dimmed: list[str] = []
    lines = list(
        word_lines(holding(4, 2), (0x3EB3, 0x3333), translator("zh"), lambda line: dimmed.append(line) or line)
    )
    assert any("0.35" in line and "ABCD" in line for line in lines)
    head, first = lines[0], lines[1]
    assert width(head[: head.index("hex") + 3]) == width(first[: first.index("3EB3") + 4])
    assert all("e-" in line or "e+" in line for line in dimmed)


def test_a_table_measures_columns_in_cells():
    assert list(table([["地址", "b"], ["x", "1"]], right="lr", indent=0)) == ["地址  b", "x     1"]
    assert (width("湿度 %RH"), width("é"), pad("湿", 4), pad("湿", 4, right=True)) == (8, 1, "湿  ", "  湿")


def test_fewer_and_fewer_registers():
    assert [block.count for block in narrower(holding(5, 4))] == [4, 2, 1]
    assert {block.address for block in narrower(holding(5, 4))} == {5}


# --- reply times ---


def tally(*times_ms: float, **failures: int) -> Tally:
    made = Tally(times_ms=list(times_ms))
    made.failures.update(failures)
    return made


def test_shares_of_reply_times_are_by_nearest_rank():
    one = tally(*range(1, 101))
    assert (one.at(0.5), one.at(0.95), one.at(1.0), one.max_ms) == (50, 95, 100, 100)
    assert (tally(7).at(0.5), tally(7).at(0.95), tally().at(0.5), tally().max_ms) == (7, 7, 0, 0)


def test_errors_are_a_share_of_all_requests():
    one = tally(1, 2, 3, timeout=1)
    assert (one.asked, one.error_pct) == (4, 25.0)
    assert tally().error_pct == 0.0


@pytest.mark.parametrize(
    ("times_ms", "failures", "waited_ms", "advice"),
    [
        ((), {}, 500, None),
        ((), {"timeout": 3}, 5000, None),
        ((4.0,), {}, 500, Advice(timeout_ms=100, late_max_ms=100)),
        ((40.0,) * 30, {}, 500, Advice(timeout_ms=150, late_max_ms=150)),
        ((40.0,) * 19 + (700.0,), {}, 5000, Advice(timeout_ms=150, late_max_ms=1100)),
        ((40.0,) * 19 + (400.0,), {"timeout": 1}, 500, Advice(timeout_ms=150, late_max_ms=None)),
        ((40.0,) * 19 + (400.0,), {"timeout": 1}, 5000, Advice(timeout_ms=150, late_max_ms=600)),
        ((40.0,) * 19 + (400.0,), {"exception_2": 1}, 500, Advice(timeout_ms=150, late_max_ms=600)),
    ],
)
def test_advice(times_ms: tuple[float, ...], failures: dict[str, int], waited_ms: int, advice: Advice | None):
    assert advise([tally(*times_ms, **failures)], waited_ms=waited_ms) == advice


def test_a_summary_says_when_lateness_was_not_seen():
    one = tally(40.0, timeout=2)
    short = "\n".join(summary_lines(one, advise([one], waited_ms=500), 500, EN, is_rtu=True))
    assert "errors 66.7 % (no reply in time × 2)" in short
    assert "--long" in short
    assert "late_max_ms =" not in short
    long = "\n".join(summary_lines(one, advise([one], waited_ms=5000), 5000, EN, is_rtu=True))
    assert "for site.toml: timeout_ms = 150, late_max_ms = 150" in long
    assert "2 requests got no reply within 5 s at all" in long
    assert "replies so far: 1;" in long
    tcp = "\n".join(summary_lines(one, advise([one], waited_ms=500), 500, EN, is_rtu=False))
    assert "late_max_ms" not in tcp


# --- plan ---


def register(name: str, address: int, kind: ValueType = ValueType.U16, **more: Any) -> Register:
    return Register(name=name, table=more.pop("table", Table.HOLDING), address=address, type=kind, **more)


def unit(unit_id: int, *registers: Register, poll_s: float = 1.0, **more: Any) -> UnitSpec:
    return UnitSpec(device=f"area.u{unit_id}", unit_id=unit_id, registers=registers, poll_s=poll_s, **more)


def bus(*units: UnitSpec, kind: BusKind = BusKind.RTU, **more: Any) -> BusSpec:
    place = {"serial": "/dev/ttyX"} if kind is BusKind.RTU else {"host": "10.0.0.1"}
    return BusSpec(id="b", kind=kind, units=units, **place, **more)


@pytest.mark.parametrize(
    ("line", "wire_ms"),
    [
        # 8 + 5 + 4 bytes of 10 bits, and twice the silence of 3.5 characters
        ({"baud": 9600}, 17 * 10 / 9.6 + 7 * 10 / 9.6),
        ({"baud": 9600, "parity": "E"}, 17 * 11 / 9.6 + 7 * 11 / 9.6),
        ({"baud": 9600, "stopbits": 2}, 17 * 11 / 9.6 + 7 * 11 / 9.6),
        ({"baud": 115200}, 17 * 10 / 115.2 + 2 * 1.75),
        ({"baud": 9600, "inter_frame_ms": 20}, 17 * 10 / 9.6 + 40),
    ],
)
def test_time_on_the_wire(line: dict[str, Any], wire_ms: float):
    planned = plan_bus(bus(unit(1, register("a", 0), register("b", 1)), **line))
    assert planned.units[0].wire_ms == pytest.approx(wire_ms)
    assert planned.load_pct == pytest.approx(wire_ms / 10)


def test_ethernet_takes_no_time_on_a_serial_wire():
    planned = plan_bus(bus(unit(1, register("a", 0)), kind=BusKind.TCP))
    assert planned.load_pct == 0
    assert "%" not in "\n".join(plan_lines(planned, EN, {}))


def test_wanted_and_read_along():
    scaled = register("p", 4, decimals_at=3, unit_at=1, unit_factors=((0, 1),))
    planned = plan_bus(bus(unit(1, scaled, register("q", 8, ValueType.F32), max_gap=5)))
    (read,) = planned.units[0].reads
    assert (read.function, read.block.address, read.block.count) == (3, 1, 9)
    assert (read.wanted, read.along, read.names) == (5, 4, ("p", "q"))


def test_a_plan_is_what_the_gateway_asks():
    inputs = register("i", 0, table=Table.INPUT)
    coil = register("c", 3, ValueType.BIT, table=Table.COIL)
    planned = plan_bus(bus(unit(1, inputs, coil, register("h", 0), register("far", 50))))
    asked = sorted((read.function, read.block.address, read.block.count) for read in planned.units[0].reads)
    assert asked == [(1, 3, 1), (3, 0, 1), (3, 50, 1), (4, 0, 1)]


def test_quirks_and_outputs_are_named():
    siren = Output(name="siren", table=Table.COIL, address=3, states=(("off", 0), ("on", 1)))
    plain = unit(1, register("a", 0), register("b", 1), max_gap=ONE_BY_ONE, max_count=16, timeout_ms=900)
    planned = plan_bus(bus(plain, unit(2, outputs=(siren,))))
    assert [len(one.reads) for one in planned.units] == [2, 1]
    (read,) = planned.units[1].reads
    assert (read.function, read.block.address, read.names, read.wanted, read.along) == (1, 3, ("siren",), 1, 0)
    text = "\n".join(plan_lines(planned, EN, {}))
    assert "area.u1: unit 1, every 1 s, one by one, max_count 16, timeout_ms 900\n" in text
    assert "output that may be written, siren: coil 3: off = 0, on = 1" in text


def test_a_full_bus_is_warned_of_and_an_easy_one_is_not():
    easy = plan_bus(bus(unit(1, register("a", 0), poll_s=1.0)))
    assert "warning" not in "\n".join(plan_lines(easy, EN, {}))
    full = plan_bus(bus(*(unit(n, register("a", 0), poll_s=0.1) for n in range(1, 5))))
    text = "\n".join(plan_lines(full, EN, {"area.u1": "xy_md02"}))
    assert full.load_pct > 70
    assert full.room_ms < 0
    assert "warning: the bus is too full (more than 70 %)" in text
    assert "area.u1: unit 1, xy_md02, every 0.1 s, max_gap 0, max_count 125" in text
    alone = "\n".join(plan_lines(full, EN, {}, only="area.u2"))
    assert "area.u1" not in alone
    assert "warning: the bus is too full" in alone  # the others fill it all the same


# --- whom to ask ---


def test_bauds_go_before_parities():
    got = [str(setting) for setting in settings((9600, 4800), ("N", "E"))]
    assert got == ["9600 8N1", "4800 8N1", "9600 8E1", "4800 8E1"]


def test_factory_addresses_are_asked_first_and_each_unit_once():
    units = likely_units(CATALOGUE)
    assert set(range(1, 21)) <= set(units)
    assert len(units) == len(set(units))
    odd = replace(CATALOGUE["xy_md02"], defaults=replace(CATALOGUE["xy_md02"].defaults, unit_id=245))
    assert likely_units({"odd": odd})[:2] == (245, 1)


# --- who it is ---


def answers_of(image: Mapping[Table, Mapping[int, int]]) -> dict[Block, tuple[int, ...] | str]:
    """What a device with these registers answers to everything that the catalogue asks."""
    found: dict[Block, tuple[int, ...] | str] = {}
    for block in reads_of(CATALOGUE.values()):
        words = [image.get(block.table, {}).get(block.address + i) for i in range(block.count)]
        known = tuple(word for word in words if word is not None)
        function = 1 if block.table.is_bits else 2
        found[block] = known if len(known) == block.count else f"exception_{function}"
    return found


@pytest.mark.parametrize(
    ("wire", "unit_id", "profile", "values"),
    [
        (PlantWire.RS485, 1, "rs_ws_n01", {"humidity", "temperature"}),
        (PlantWire.RS485, 2, "pressure_transmitter", {"pressure"}),
        (PlantWire.TCP, 1, "xy_md02", {"humidity", "temperature"}),
        (PlantWire.TCP, 2, "pressure_f32", {"pressure"}),
    ],
)
def test_the_plants_devices_are_known(wire: PlantWire, unit_id: int, profile: str, values: set[str]):
    plant = Plant(seed=1)
    spec = plant.units(wire)[unit_id].spec
    image = plant.image(spec)
    answers = answers_of({Table.HOLDING: image.holding, Table.INPUT: image.input})
    best = candidates(CATALOGUE.values(), answers, unit_id=unit_id, setting=None)[0]
    assert (best.profile.id, best.score) == (profile, 100)
    now = {value.label.name: value.value for value in best.values}
    assert now == {name: pytest.approx(plant.value(f"{spec.id}.{name}")) for name in values}


def test_nobody_is_known_by_refusals():
    answers: dict[Block, tuple[int, ...] | str] = dict.fromkeys(reads_of(CATALOGUE.values()), "exception_2")
    assert candidates(CATALOGUE.values(), answers, unit_id=1, setting=None) == ()


def test_between_equal_scores_the_less_likely_coincidence_wins():
    """Two profiles that are told by the unit id alone: one takes any word, the other a narrow range."""
    plain = replace(CATALOGUE["pressure_f32"], variants=())
    anything = replace(plain, id="anything", registers=(register("pressure", 1),))
    narrow = replace(plain, id="narrow", registers=(register("pressure", 1, low=0, high=100),))
    found = candidates([anything, narrow], {holding(0): (7,), holding(1): (58,)}, unit_id=7, setting=None)
    assert [(c.profile.id, c.score) for c in found] == [("narrow", 100), ("anything", 100)]


def test_factory_settings_break_a_tie():
    plain = replace(CATALOGUE["pressure_f32"], checks=(), variants=(), registers=(register("pressure", 0, high=100),))
    slow = replace(plain, id="slow", defaults=replace(plain.defaults, baud=4800))
    found = candidates([plain, slow], {holding(0): (58,)}, unit_id=1, setting=Setting(baud=4800, parity="N"))
    assert found[0].profile.id == "slow"


@pytest.mark.parametrize(
    ("answers", "needless"),
    [
        ({}, False),
        ({holding(0, 4): (1, 2, 3, 4)}, True),
        ({holding(1, 1): (2,), holding(2, 2): (3, 4)}, True),
        ({holding(1, 1): (2,)}, False),
        ({holding(2, 1): "exception_2"}, True),
        ({holding(0, 8): "exception_2"}, False),
        ({holding(7, 1): "exception_2"}, False),
        ({holding(2, 1): "timeout"}, False),
        ({holding(9, 1): "exception_1"}, True),
        ({Block(table=Table.INPUT, address=0, count=9): tuple(range(9))}, False),
    ],
)
def test_what_is_known_is_not_asked_again(answers: dict[Block, Any], needless: bool):
    assert is_needless(holding(1, 3), answers) is needless


# --- the lines for site.toml ---

SITE = """[site]
id = "plant"
name = "厂"
name_en = "Plant"
[gateway]
id = "gw1"
[[area]]
id = "store"
name = "库"
name_en = "Store"
"""
PEOPLE = "id,name,name_en,roles,areas,phone\np_li,李伟,,keeper,*,\np_wang,王芳,,officer,*,\n"


def found(unit_id: int, profile: str = "rs_ws_n01", *, score: int = 100, variant: str = "", **more: Any) -> FoundUnit:
    candidate = Candidate(profile=CATALOGUE[profile], variant=variant, score=score, bits=0.0, reasons=(), values=())
    fields: dict[str, Any] = {"setting": AT_9600, "hello": "", "tally": Tally(), "candidates": (candidate,), **more}
    return FoundUnit(unit_id=unit_id, **fields)


def site_with(folder: Path, lines: str) -> Path:
    (folder / "people.csv").write_text(PEOPLE, "utf-8")
    (folder / "site.toml").write_text(f"{SITE}\n{lines}\n", "utf-8")
    return folder / "site.toml"


WIRES = [
    bus(kind=BusKind.RTU),
    bus(kind=BusKind.TCP, port=5020),
    bus(kind=BusKind.RTU_TCP, port=4196),
]


@pytest.mark.parametrize("tr", [ZH, EN], ids=["zh", "en"])
@pytest.mark.parametrize("spec", WIRES, ids=lambda spec: spec.kind)
def test_the_lines_are_a_good_site(tmp_path: Path, spec: BusSpec, tr: Say):
    setting = AT_9600 if spec.serial else None
    names = ("rs_ws_n01", "pressure_transmitter", "pressure_f32")
    units = [found(n, name, setting=setting) for n, name in enumerate(names, 1)]
    place = SnippetPlace(area="store", bus="wire", with_bus=True)
    lines = snippet(spec, units, place, Advice(timeout_ms=2000, late_max_ms=None), tr)
    assert ("按所监测的对象命名" in lines) is (tr is ZH)
    site = load_site(site_with(tmp_path, lines))
    (made,) = site.buses
    assert made.same_wire(replace(spec, id="wire"))
    assert [(u.device, u.unit_id) for u in made.units] == [(f"store.wire_unit{n}", n) for n in (1, 2, 3)]
    assert made.timeout_ms == 2000
    assert made.late_max_ms >= made.timeout_ms or not made.kind.is_rtu


WAYS = [(name, way) for name, profile in CATALOGUE.items() for way in ("", *(v.id for v in profile.variants))]


@pytest.mark.parametrize(("name", "variant"), WAYS)
def test_the_lines_of_every_profile_and_variant_are_good(tmp_path: Path, name: str, variant: str):
    """What only the site can know is asked for: the gas of a head, what a current stands for."""
    place = SnippetPlace(area="store", bus="wire", with_bus=True)
    lines = snippet(WIRES[0], [found(1, name, variant=variant)], place, None, EN)
    assert (f'variant = "{variant}"' in lines) is bool(variant)
    problems = _problems(site_with(tmp_path, lines))
    assert not [text for text in problems if not re.search(r"\.(gas|unit|channel): ", text)]


def _problems(file: Path) -> list[str]:
    try:
        load_site(file)
    except ConfigError as error:
        return error.problems
    return []


def test_a_missing_area_is_pointed_at(tmp_path: Path):
    lines = snippet(WIRES[0], [found(1)], SnippetPlace(area="change_me", bus="wire", with_bus=True), None, EN)
    with pytest.raises(ConfigError) as caught:
        load_site(site_with(tmp_path, lines))
    (problem,) = caught.value.problems
    assert "device[0].area: must name a [[area]] (known: store)" in problem
    assert "change_me" in problem


def test_what_needs_no_lines_or_cannot_have_them_is_said(tmp_path: Path):
    slow = found(4, setting=Setting(baud=4800, parity="N"))
    strange = found(5, score=30)
    units = [found(1), found(2), found(3, device="store.th3"), slow, strange, found(6, candidates=None)]
    lines = snippet(WIRES[0], units, SnippetPlace(area="store", bus="wire", with_bus=True), None, EN)
    assert main_setting(units) == AT_9600
    assert "# unit 3 is store.th3 already" in lines
    assert "# unit 4 answers at 4800 8N1: set it to 9600 8N1 first" in lines
    assert "# unit 5 answers, but fits no profile: look at it with `sitewarden probe read --unit 5" in lines
    assert "# unit 6 answers; it was not asked what it is" in lines
    assert [u.unit_id for u in load_site(site_with(tmp_path, lines)).buses[0].units] == [1, 2]


def test_names_that_the_site_has_are_not_taken_again():
    place = SnippetPlace(area="a", bus="wire", with_bus=False, taken=frozenset({"wire_unit1", "wire_unit1_2"}))
    lines = snippet(WIRES[0], [found(1)], place, None, EN)
    assert 'id = "wire_unit1_3"' in lines
    assert "[[bus]]" not in lines


# --- asking ---


class Fake:
    """A wire whose units answer as a table says: words, an exception's code, a reason, or an error to raise."""

    def __init__(self, answer: Callable[[int, Block], Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[int, Block]] = []

    async def read(self, unit_id: int, block: Block, timeout_s: float | None = None) -> Answer:
        self.asked.append((unit_id, block))
        given = self.answer(unit_id, block)
        if isinstance(given, int):
            raise ReplyError(f"exception_{given}", "refused", asked=True, code=given)
        if isinstance(given, str):
            raise ReplyError(given, given, asked=True)
        return Answer(words=given, reply_ms=5.0)


async def scanned(wire: Fake, units: range, **more: Any) -> tuple[ScanResult, list[Asked]]:
    result = ScanResult()
    steps = scan_units(wire, units, timeout_s=0.1, setting=more.pop("setting", AT_9600), result=result, **more)
    return result, [asked async for asked in steps]


async def test_any_answer_is_a_unit_and_a_converters_refusal_is_none():
    given = {1: (583,), 2: 2, 3: "timeout", 4: 11, 5: 10, 6: "bad_frame", 7: 1}
    result, steps = await scanned(Fake(lambda unit_id, _: given[unit_id]), range(1, 8))
    assert [(u.unit_id, u.hello) for u in result.units] == [
        (1, "holding 0 = 583"),
        (2, "exception_2"),
        (7, "exception_1"),
    ]
    assert result.garbled == [(6, AT_9600)]
    assert [asked.unit_id for asked in steps] == list(range(1, 8))


@pytest.mark.parametrize("why", ["no_connection", "bus_noise"])
async def test_a_wire_that_is_gone_ends_a_scan(why: str):
    with pytest.raises(ReplyError, match=why):
        await scanned(Fake(lambda *_: why), range(1, 8))


async def test_one_device_that_answers_to_every_unit_id():
    wire = Fake(lambda *_: (7,))
    result, _ = await scanned(wire, range(1, 100), setting=None, is_tcp=True)
    assert result.answers_all
    assert [u.unit_id for u in result.units] == [1]
    assert len(wire.asked) == 6
    result, _ = await scanned(wire, range(1, 20))  # on a serial line these are many devices
    assert len(result.units) == 19


async def test_many_devices_with_different_answers_are_many():
    result, _ = await scanned(Fake(lambda unit_id, _: (unit_id,)), range(1, 20), setting=None, is_tcp=True)
    assert len(result.units) == 19
    assert not result.answers_all


async def test_a_unit_that_falls_silent_is_left_alone():
    wire = Fake(lambda *_: "timeout")
    one = found(9, candidates=None)
    await identify(wire, one, CATALOGUE.values(), timeout_s=0.1)
    assert len(wire.asked) == 3
    assert one.candidates == ()
    assert one.best is None


async def test_identifying_counts_replies_and_skips_what_is_known():
    plant = Plant(seed=1)
    image = plant.image(plant.units(PlantWire.RS485)[1].spec).holding

    def answer(_: int, block: Block) -> Any:
        words = [image.get(block.address + i) for i in range(block.count)]
        return 1 if block.table is not Table.HOLDING else 2 if None in words else tuple(words)

    wire, one = Fake(answer), found(1, candidates=None)
    await identify(wire, one, CATALOGUE.values(), timeout_s=0.1)
    assert one.best is not None
    assert one.best.profile.id == "rs_ws_n01"
    assert len(wire.asked) < len(reads_of(CATALOGUE.values()))
    assert sum(block.table is Table.INPUT for _, block in wire.asked) == 1  # it does not know the function
    assert one.tally.asked == len(one.tally.times_ms) > 0  # a refusal is no failure of the wire


async def test_a_look_takes_what_the_device_has():
    wire = Fake(lambda _, block: 2 if block.count > 1 else (8,))
    part, answer = await look(wire, 1, holding(0, 4), 0.1, shrink=True)
    assert (part.count, answer.words) == (1, (8,))
    assert [block.count for _, block in wire.asked] == [4, 2, 1]
    with pytest.raises(ReplyError, match="refused"):
        await look(wire, 1, holding(0, 4), 0.1, shrink=False)


@pytest.mark.parametrize("given", [2, 4, "timeout"])
async def test_a_look_that_fails_says_why(given: Any):
    wire = Fake(lambda *_: given)
    with pytest.raises(ReplyError):
        await look(wire, 1, holding(0, 4), 0.1, shrink=True)
    assert len(wire.asked) == (3 if given == 2 else 1)


async def test_a_watch_counts_everything_and_ends():
    said = iter([(1,), "timeout", 2, (4,), "no_connection"])
    wire, seen = Fake(lambda *_: next(said)), Tally()
    rounds = watch(wire, 1, [holding(0)], timeout_s=0.1, every_s=0.0, times=5, seconds=None, tally=seen)
    assert [one.answers async for one in rounds] == [
        ((1,),),
        ("timeout",),
        ("exception_2",),
        ((4,),),
        ("no_connection",),
    ]
    assert seen.times_ms == [5.0, 5.0]
    assert seen.failures == {"timeout": 1, "exception_2": 1, "no_connection": 1}


async def test_a_watch_ends_by_time():
    rounds = watch(
        Fake(lambda *_: (1,)), 1, [holding(0)], timeout_s=0.1, every_s=0.0, times=None, seconds=0.05, tally=Tally()
    )
    assert [one.number async for one in rounds][:2] == [1, 2]


# --- words ---


def test_both_languages_say_the_same_things():
    for key, (chinese, english) in ALL.items():
        assert sorted(re.findall(r"{\d[^}]*}", chinese)) == sorted(re.findall(r"{\d[^}]*}", english)), key
        assert chinese
        assert english


def test_no_phrase_hides_another():
    parts = (COMMON, ERRORS, REASONS, WORDS)
    assert len(ALL) == sum(map(len, parts))


@pytest.mark.parametrize(
    ("why", "chinese", "english"),
    [
        ("exception_10", "Modbus 异常 10：网关路径不可用", "Modbus exception 10: gateway path unavailable"),
        (
            "exception_11",
            "Modbus 异常 11：网关后的设备无响应",
            "Modbus exception 11: gateway target device failed to respond",
        ),
        ("exception_99", "Modbus 异常 99", "Modbus exception 99"),
        ("timeout", "时限内无应答", "no reply in time"),
        ("something_new", "something_new", "something_new"),
    ],
)
def test_why_there_was_no_value_is_told_in_words(why: str, chinese: str, english: str):
    for tr, words in ((ZH, chinese), (EN, english)):
        one = tally(40.0, **{why: 2})
        assert " 66.7 %" in tally_line(one, tr)
        assert f"{words} × 2" in tally_line(one, tr)
        assert round_text(Round(number=1, answers=(why,)), [holding(0)], {}, tr) == f"1:  ({words})"


def test_a_refusal_of_the_first_request_has_a_name():
    assert hello_text("exception_2", ZH) == "Modbus 异常 2：没有这个地址"
    assert hello_text("holding 0 = 583", ZH) == "holding 0 = 583"


def test_a_watch_without_any_reply_says_what_to_check():
    (_, hint) = summary_lines(tally(exception_11=3, timeout=1), None, 500, EN, is_rtu=False)
    assert hint.startswith("the converter is there, but the unit behind it is silent")


def test_a_bar_says_how_far_it_is():
    line = bar_line(5, 20, 10.0, "unit 5", EN)
    assert line == "[######------------------] 5/20  elapsed 0:10, left 0:30  unit 5"
    assert bar_line(0, 0, 0.0, "", EN).startswith("[########################] 0/0")
    assert clock(725) == "12:05"


# --- whose wire ---


def test_lasting_names_come_first_and_stand_for_their_port(tmp_path: Path):
    for name in ("ttyUSB0", "ttyUSB1", "ttyACM0", "null"):
        (tmp_path / name).touch()
    by_id = tmp_path / "serial" / "by-id"
    assert serial_ports(tmp_path) == tuple(str(tmp_path / name) for name in ("ttyUSB0", "ttyUSB1", "ttyACM0"))
    by_id.mkdir(parents=True)
    (by_id / "usb-FTDI-if00").symlink_to(tmp_path / "ttyUSB1")
    assert serial_ports(tmp_path) == tuple(
        str(path) for path in (by_id / "usb-FTDI-if00", tmp_path / "ttyUSB0", tmp_path / "ttyACM0")
    )
    assert lasting_name(str(tmp_path / "ttyUSB1"), tmp_path) == str(by_id / "usb-FTDI-if00")
    assert lasting_name(str(tmp_path / "ttyUSB0"), tmp_path) == str(tmp_path / "ttyUSB0")


def test_a_port_that_somebody_uses_is_refused_with_their_name(tmp_path: Path):
    port = tmp_path / "port"
    port.touch()
    check_port(str(port), EN)
    with port.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PermanentError, match=r"is in use by (an|process \d+ ).*--data"):
            check_port(str(port), EN)
    check_port(str(port), EN)


def test_the_holder_of_one_lock_among_many():
    locks = [
        "1: POSIX  ADVISORY  WRITE 11 00:1a:3 0 EOF",
        "2: FLOCK  ADVISORY  WRITE 12 00:1a:4 0 EOF",
        "2: -> FLOCK  ADVISORY  WRITE 13 00:1a:3 0 EOF",
        "3: FLOCK  ADVISORY  WRITE 14 00:1a:3 0 EOF",
    ]
    assert lock_holder(locks, "00:1a:3") == "14"
    assert lock_holder(locks, "00:1a:5") == ""


def test_a_port_that_is_not_there(tmp_path: Path):
    with pytest.raises(PermanentError, match="there is no such serial port"):
        check_port(str(tmp_path / "nope"), EN)


def test_one_wire_under_two_names(tmp_path: Path):
    port, link = tmp_path / "port", tmp_path / "link"
    port.touch()
    link.symlink_to(port)
    one, other = (replace(WIRES[0], serial=str(path), baud=baud) for path, baud in ((port, 9600), (link, 4800)))
    assert same_place(one, other)
    assert not same_place(one, replace(other, serial=str(tmp_path / "third")))
    assert same_place(WIRES[1], replace(WIRES[1], id="other", kind=BusKind.RTU_TCP))
    assert not same_place(WIRES[1], WIRES[2])
    assert not same_place(WIRES[0], WIRES[1])


BUS = {
    "id": "rs485",
    "kind": "rtu",
    "host": "",
    "port": 502,
    "serial": "/dev/ttyX",
    "baud": 4800,
    "parity": "E",
    "stopbits": 1,
    "timeout_ms": 500,
    "late_max_ms": 1500,
    "connected": True,
    "units": [{"device": "store.th1", "unit_id": 1}],
}


@contextlib.asynccontextmanager
async def gateway(path: Path, read: Callable[[dict[str, Any]], Awaitable[web.Response]]):
    """A control socket as `docs` describe it, with one bus."""

    async def buses(_: web.Request) -> web.Response:
        return web.json_response({"buses": [BUS]})

    async def asked(request: web.Request) -> web.Response:
        return await read(await request.json())

    app = web.Application()
    app.add_routes([web.get("/v1/buses", buses), web.post("/v1/buses/rs485/read", asked)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that is short enough for a socket."""
    return tmp_path_factory.mktemp("gw") / "control.sock"


async def test_a_read_through_the_gateway(control: Path):
    asked: list[dict[str, Any]] = []

    async def read(body: dict[str, Any]) -> web.Response:
        asked.append(body)
        if body["unit_id"] == 9:
            fault = {"why": "exception_2", "message": "no such address", "code": 2}
            return web.json_response({"error": fault})
        return web.json_response({"words": [583, 241][: body["count"]], "reply_ms": 12.5})

    async with gateway(control, read), through_gateway((control,), "rs485", EN) as wire:
        assert wire is not None
        assert (wire.socket, wire.spec.baud, wire.devices) == (control, 4800, {1: "store.th1"})
        assert await wire.guest.read(1, holding(0, 2), 0.25) == Answer(words=(583, 241), reply_ms=12.5)
        with pytest.raises(ReplyError, match="no such address") as refused:
            await wire.guest.read(9, holding(0, 1))
        assert (refused.value.why, refused.value.code) == ("exception_2", 2)
        with pytest.raises(ReplyError, match="3 words asked, 2 came"):
            await wire.guest.read(1, holding(0, 3))
    assert asked[0] == {"unit_id": 1, "table": "holding", "address": 0, "count": 2, "timeout_ms": 250}
    assert asked[1]["timeout_ms"] == 500  # the bus's own


@pytest.mark.parametrize(
    ("wanted", "is_it"), [("rs485", True), ("other", False), (WIRES[0], True), (WIRES[1], False)], ids=str
)
async def test_only_the_wire_that_was_named_goes_through_the_gateway(control: Path, wanted: Any, is_it: bool):
    async def read(_: dict[str, Any]) -> web.Response:
        raise AssertionError("nobody reads")

    async with gateway(control, read), through_gateway((control,), wanted, EN) as wire:
        assert (wire is not None) is is_it


async def test_a_socket_that_was_left_behind_is_no_gateway(control: Path):
    async with gateway(control, lambda _: asyncio.sleep(0, web.Response())):
        os.link(control, control.with_name("left.sock"))
    async with through_gateway((control.with_name("left.sock"), control), "rs485", EN) as wire:
        assert wire is None


async def test_a_gateway_that_answers_nonsense_is_an_error(control: Path):
    async def read(_: dict[str, Any]) -> web.Response:
        return web.Response(text="oops", status=500)

    async with gateway(control, read), through_gateway((control,), "rs485", EN) as wire:
        assert wire is not None
        with pytest.raises(TransientError, match="the gateway does not answer"):
            await wire.guest.read(1, holding(0))
