"""Planning and decoding as tables."""

from __future__ import annotations

import itertools
import math
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.sensors.decoding import compile_block
from sitewarden.sensors.registers import (
    ONE_BY_ONE,
    Heartbeat,
    Loop,
    Part,
    Register,
    Status,
    Table,
    ValueType,
    WordOrder,
    compile_decoder,
    decode,
    decode_text,
    plan,
    resync_reads,
)
from sitewarden.words import Instant, Quality

SEEDED = settings(derandomize=True, deadline=None)


def reg(address: int = 0, kind: str = "u16", **more: Any) -> Register:
    fields: dict[str, Any] = {
        "name": f"r{address}",
        "table": Table.HOLDING,
        "address": address,
        "type": ValueType(kind),
    }
    return Register(**{**fields, **more})


def f32(value: float) -> list[int]:
    return list(struct.unpack(">2H", struct.pack(">f", value)))


# --- plan ---


@pytest.mark.parametrize(
    ("wanted", "max_gap", "max_count", "blocks"),
    [
        ([0, 1], 0, 125, [(0, 2)]),
        ([1, 0], 0, 125, [(0, 2)]),
        ([0, 2], 0, 125, [(0, 1), (2, 1)]),
        ([0, 2], 1, 125, [(0, 3)]),
        ([0, 3], 1, 125, [(0, 1), (3, 1)]),
        ([0, 1, 2, 3, 4], 0, 2, [(0, 2), (2, 2), (4, 1)]),
        ([0, 124, 125], 125, 125, [(0, 125), (125, 1)]),
        ([65535], 0, 125, [(65535, 1)]),
    ],
)
def test_plan(wanted: list[int], max_gap: int, max_count: int, blocks: list[tuple[int, int]]) -> None:
    planned = plan([reg(a) for a in wanted], max_gap=max_gap, max_count=max_count)
    assert [(b.address, b.count) for b in planned] == blocks


def test_plan_never_crosses_tables() -> None:
    planned = plan([reg(0), reg(1, table=Table.INPUT), reg(2)], max_gap=5)
    assert [(b.table, b.address, b.count) for b in planned] == [(Table.HOLDING, 0, 3), (Table.INPUT, 1, 1)]


def test_plan_reads_companions_with_their_value() -> None:
    status = Status(address=9, states=((1, ""),))
    planned = plan([reg(4, decimals_at=3, unit_at=2, status=(status,))], max_gap=0)
    assert [(b.address, b.count) for b in planned] == [(2, 8)]
    parts = (Part(address=4), Part(address=11))
    planned = plan([reg(4, "parts", parts=parts, heartbeat=Heartbeat(address=13, frozen_s=9))], max_gap=0)
    assert [(b.address, b.count) for b in planned] == [(4, 10)]


@pytest.mark.parametrize("bad", [reg(65535, "u32"), reg(0, "f64"), reg(200, decimals_at=190)])
def test_plan_refuses_what_no_read_can_hold(bad: Register) -> None:
    with pytest.raises(ValueError, match=r"leave|at most 3"):
        plan([bad], max_gap=0, max_count=3)


@SEEDED
@given(
    st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["u16", "u32", "f64"]), st.sampled_from(list(Table)[2:]))),
    st.integers(0, 20),
    st.integers(4, 125),
)
def test_plan_covers_each_register_once(wanted: list[tuple[int, str, Table]], max_gap: int, max_count: int) -> None:
    registers = [reg(a, k, name=f"n{i}", table=t) for i, (a, k, t) in enumerate(wanted)]
    blocks = plan(registers, max_gap=max_gap, max_count=max_count)
    assert sorted(r.name for b in blocks for r in b.registers) == sorted(r.name for r in registers)
    for block in blocks:
        assert 1 <= block.count <= max_count
        assert all(block.address <= r.first and r.end <= block.address + block.count for r in block.registers)
        assert {r.table for r in block.registers} == {block.table}


@SEEDED
@given(
    st.lists(
        st.tuples(
            st.integers(0, 400),
            st.sampled_from(["u16", "u32", "f64"]),
            st.sampled_from([Table.HOLDING, Table.INPUT]),
            st.none() | st.integers(-3, 3),
        ),
        max_size=40,
    ),
    st.integers(ONE_BY_ONE, 20),
    st.integers(8, 125),
)
def test_plan_reads_what_is_wanted_and_little_else(
    wanted: list[tuple[int, str, Table, int | None]], max_gap: int, max_count: int
) -> None:
    """With companions beside the values: once each, within the limits, no hole above max_gap, none at the ends."""
    registers = [
        reg(a, k, name=f"n{i}", table=t, decimals_at=None if c is None else max(0, a + c))
        for i, (a, k, t, c) in enumerate(wanted)
    ]
    blocks = plan(registers, max_gap=max_gap, max_count=max_count)
    assert sorted(r.name for b in blocks for r in b.registers) == sorted(r.name for r in registers)
    for block in blocks:
        assert 1 <= block.count <= max_count
        assert {r.table for r in block.registers} == {block.table}
        spans = sorted((r.first, r.end) for r in block.registers)
        reached = spans[0][0]
        assert reached == block.address
        for first, end in spans:
            assert first - reached <= max_gap or first == block.address
            reached = max(reached, end)
        assert reached == block.address + block.count
    for before, after in itertools.pairwise(blocks):
        if before.table is after.table:
            gap = after.address - (before.address + before.count)
            whole = max(before.address + before.count, after.registers[0].end) - before.address
            assert gap > max_gap or whole > max_count, "these two would fit in one request"


def test_plan_one_by_one() -> None:
    planned = plan([reg(0), reg(1), reg(2, "u32")], max_gap=ONE_BY_ONE)
    assert [(b.address, b.count) for b in planned] == [(0, 1), (1, 1), (2, 2)]


@SEEDED
@given(st.lists(st.tuples(st.integers(0, 65500), st.integers(0, 3)), min_size=1, max_size=20), st.integers(0, 20))
def test_resync_reads_have_a_length_of_their_own(wanted: list[tuple[int, int]], max_gap: int) -> None:
    tables = list(Table)
    registers = [reg(a, "bit" if t < 2 else "u16", name=f"n{i}", table=tables[t]) for i, (a, t) in enumerate(wanted)]
    blocks = plan(registers, max_gap=max_gap)
    reads = resync_reads(blocks)
    assert len(reads) > 1
    assert not {r.reply_bytes for r in reads} & {b.reply_bytes for b in blocks}
    assert all(r.address >= 0 and r.address + r.count <= 65536 for r in reads)


# --- decode ---


@pytest.mark.parametrize(
    ("register", "words", "value"),
    [
        (reg(scale=Decimal("0.1")), [583], 58.3),
        (reg(scale=Decimal("0.1")), [3], 0.3),
        (reg(kind="i16", scale=Decimal("0.1")), [0xFFFB], -0.5),
        (reg(kind="i16"), [0x8000], -32768),
        (reg(scale=Decimal("0.01"), offset=Decimal(-40)), [6543], 25.43),
        (reg(kind="u32"), [1, 2], 65538),
        (reg(kind="u32", word_order=WordOrder.LITTLE), [2, 1], 65538),
        (reg(kind="u32", word_order=WordOrder.BIG_SWAPPED), [0x0100, 0x0200], 65538),
        (reg(kind="u32", word_order=WordOrder.LITTLE_SWAPPED), [0x0200, 0x0100], 65538),
        (reg(kind="u16", word_order=WordOrder.BIG_SWAPPED), [0x3412], 0x1234),
        (reg(kind="i32"), [0xFFFF, 0xFFFE], -2),
        (reg(kind="u64"), [0, 0, 1, 0], 65536),
        (reg(kind="i64"), [0xFFFF] * 4, -1),
        (reg(kind="f32"), f32(0.35), 0.35),
        (reg(kind="f32", scale=Decimal("0.001")), f32(350), 0.35),
        (reg(kind="f32", word_order=WordOrder.LITTLE), f32(-1.5)[::-1], -1.5),
        (reg(kind="f64"), list(struct.unpack(">4H", struct.pack(">d", 0.1))), 0.1),
        (reg(kind="bit", table=Table.COIL), [1], 1),
        (reg(2, decimals_at=1, unit_at=0, unit_factors=((0, Decimal(1)), (1, Decimal("0.001")))), [0, 3, 350], 0.35),
        (reg(2, decimals_at=1, unit_at=0, unit_factors=((0, Decimal(1)), (1, Decimal("0.001")))), [1, 1, 3500], 0.35),
    ],
)
def test_good_values_are_exact(register: Register, words: list[int], value: float) -> None:
    decoded = decode(register, words)
    assert (decoded.value, decoded.quality, decoded.why) == (value, Quality.GOOD, "")


STATED = reg(1, status=(Status(address=0, mask=0x0F, states=((1, ""), (2, "warm_up"))),))


@pytest.mark.parametrize(
    ("register", "words", "why"),
    [
        (reg(kind="f32"), [0x7FC0, 0], "not_a_number"),
        (reg(kind="f32"), [0xFFC0, 1], "not_a_number"),
        (reg(kind="f32"), [0x7F80, 0], "not_a_number"),
        (reg(kind="f32"), [0xFF80, 0], "not_a_number"),
        (reg(kind="f64"), [0x7FF8, 0, 0, 0], "not_a_number"),
        (reg(sentinels=(0xFFFF,)), [0xFFFF], "sentinel"),
        (reg(kind="i16", sentinels=(-32768,)), [0x8000], "sentinel"),
        (reg(kind="i16", sentinels=(0x8000,)), [0x8000], "sentinel"),
        (reg(kind="f32", sentinels=(0xFF7FFFFF,)), [0xFF7F, 0xFFFF], "sentinel"),
        (reg(low=0, high=100, scale=Decimal("0.1")), [1001], "out_of_range"),
        (reg(kind="i16", low=0), [0xFFFF], "out_of_range"),
        (reg(1, decimals_at=0), [7, 350], "bad_decimals"),
        (reg(1, unit_at=0, unit_factors=((0, Decimal(1)),)), [9, 350], "unknown_unit"),
        (STATED, [2, 5], "warm_up"),
        (STATED, [3, 5], "unknown_state"),
    ],
)
def test_bad_values_have_no_value(register: Register, words: list[int], why: str) -> None:
    decoded = decode(register, words)
    assert (decoded.value, decoded.quality, decoded.why) == (None, Quality.BAD, why)


def test_status_mask_and_limits() -> None:
    assert decode(STATED, [0xFFF1, 5]).value == 5
    edge = reg(low=10, high=20)
    assert [decode(edge, [w]).quality for w in (9, 10, 20, 21)] == [
        Quality.BAD,
        Quality.GOOD,
        Quality.GOOD,
        Quality.BAD,
    ]


def test_decode_refuses_another_number_of_words() -> None:
    with pytest.raises(ValueError, match="2 words wanted"):
        decode(reg(kind="f32"), [1])


def test_compiled_decoder_finds_its_words_in_a_block() -> None:
    assert compile_decoder(reg(12, "i16", scale=Decimal("0.1")), 10)([1, 2, 241, 4]) == (24.1, Quality.GOOD, "")


AT = Instant(utc_ms=0, mono_s=0.0, boot="b")
MIXED = (
    reg(0, scale=Decimal("0.1"), high=5000),
    reg(1, "i16", low=-100, high=100),
    reg(2, "i16", offset=Decimal("0.5")),
    reg(3, status=(Status(address=0, mask=1, states=((0, ""),), other="fault"),)),
    reg(4, "f32", low=-10, high=10),
)


@SEEDED
@given(st.lists(st.integers(0, 65535), min_size=6, max_size=6), st.integers(1, len(MIXED)))
def test_a_block_reads_as_its_registers_do(words: list[int], count: int) -> None:
    """Blocks of plain registers have a shorter way of their own."""
    points = [(f"a.d.{r.name}", r) for r in MIXED[:count]]
    found = compile_block(points, 0)(words, AT)
    wanted = [(p, *compile_decoder(r, 0)(words), AT) for p, r in points]
    assert [(r.point, r.value, r.quality, r.why, r.at) for r in found] == wanted


@SEEDED
@given(st.integers(-32768, 32767), st.integers(0, 4))
def test_scaling_is_what_a_person_would_write(raw: int, decimals: int) -> None:
    decoded = decode(reg(kind="i16", scale=Decimal(1).scaleb(-decimals)), [raw % 65536])
    assert decoded.value == float(Decimal(raw).scaleb(-decimals))


@SEEDED
@given(st.floats(width=32))
def test_f32_is_the_same_float32(value: float) -> None:
    decoded = decode(reg(kind="f32"), f32(value))
    if math.isfinite(value):
        assert decoded.value is not None
        assert struct.pack(">f", decoded.value) == struct.pack(">f", value)
        assert len(repr(abs(decoded.value))) <= len(repr(abs(value)))
    else:
        assert (decoded.value, decoded.why) == (None, "not_a_number")


@SEEDED
@given(st.sampled_from(list(ValueType)), st.sampled_from(list(WordOrder)), st.lists(st.integers(0, 65535), min_size=4))
def test_decode_never_fails(kind: ValueType, order: WordOrder, words: list[int]) -> None:
    parts = (Part(address=0, mask=0x0FF0, most=200),) if kind is ValueType.PARTS else ()
    register = reg(kind=kind, word_order=order, scale=Decimal("0.1"), low=-1e9, high=1e9, parts=parts)
    decoded = decode(register, words[: register.end - register.first])
    assert (decoded.value is None) == (decoded.quality is Quality.BAD)


# --- round trips: encoded here without the code that decodes ---

SIZES = {"u16": 2, "i16": 2, "u32": 4, "i32": 4, "u64": 8, "i64": 8, "f32": 4, "f64": 8, "bcd16": 2, "bcd32": 4}
FORMATS = {"f32": ">f", "f64": ">d"}


def on_the_wire(data: bytes, order: WordOrder) -> list[int]:
    """Registers that carry `data` (most significant byte first): ABCD, CDAB, BADC or DCBA."""
    pairs = [data[i : i + 2] for i in range(0, len(data), 2)]
    if order in (WordOrder.LITTLE, WordOrder.LITTLE_SWAPPED):
        pairs.reverse()
    if order in (WordOrder.BIG_SWAPPED, WordOrder.LITTLE_SWAPPED):
        pairs = [pair[::-1] for pair in pairs]
    return [int.from_bytes(pair, "big") for pair in pairs]


def number(kind: str) -> st.SearchStrategy[Any]:
    bits = 8 * SIZES[kind]
    if kind in FORMATS:
        return st.floats(width=32 if kind == "f32" else 64, allow_nan=False, allow_infinity=False)
    if kind.startswith("bcd"):
        return st.integers(0, 10 ** (bits // 4) - 1)
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if kind[0] == "i" else st.integers(0, (1 << bits) - 1)


def encoded(kind: str, value: float) -> bytes:
    if kind in FORMATS:
        return struct.pack(FORMATS[kind], value)
    if kind.startswith("bcd"):
        return bytes.fromhex(f"{value:0{2 * SIZES[kind]}d}")
    return int(value).to_bytes(SIZES[kind], "big", signed=kind[0] == "i")


@pytest.mark.parametrize("order", list(WordOrder))
@pytest.mark.parametrize("kind", list(SIZES))
@SEEDED
@given(data=st.data())
def test_round_trip_of_each_type_and_order(kind: str, order: WordOrder, data: st.DataObject) -> None:
    value = data.draw(number(kind))
    words = on_the_wire(encoded(kind, value), order)
    decoded = decode(reg(kind=kind, word_order=order), words)
    assert decoded.quality is Quality.GOOD
    assert decoded.value is not None
    if kind in FORMATS:
        assert struct.pack(FORMATS[kind], decoded.value) == struct.pack(FORMATS[kind], value)
    else:
        assert decoded.value == float(value)


@SEEDED
@given(st.integers(0, 15), st.integers(1, 16), st.integers(0, 65535), st.booleans())
def test_round_trip_of_bit_fields(shift: int, width: int, rest: int, signed: bool) -> None:
    width = min(width, 16 - shift)
    mask = ((1 << width) - 1) << shift
    field = (rest * 7919) % (1 << width)
    word = (rest & ~mask & 0xFFFF) | field << shift
    meant = field - (1 << width) if signed and field >> width - 1 else field
    assert decode(reg(kind="i16" if signed else "u16", mask=mask), [word]).value == meant


@SEEDED
@given(st.integers(-9999, 9999))
def test_round_trip_of_ten_thousand_and_more_is_negative(value: int) -> None:
    word = value if value >= 0 else 10000 - value
    decoded = decode(reg(negative_from=10000, scale=Decimal("0.1")), [word])
    assert decoded.value == float(Decimal(value) / 10)


@SEEDED
@given(st.integers(0, (1 << 18) - 1), st.integers(0, 4), st.integers(0, 15))
def test_round_trip_of_parts(value: int, decimals: int, unit: int) -> None:
    """Unit, decimals and high bits share the first word."""
    words = [unit << 12 | decimals << 8 | (value >> 16) << 6 | 0x3F, value & 0xFFFF]
    parts = (Part(address=0, mask=0x00C0, times=65536), Part(address=1))
    factors = ((unit, Decimal(1)),)
    places = {"decimals_at": 0, "decimals_mask": 0x0F00, "unit_at": 0, "unit_mask": 0xF000, "unit_factors": factors}
    assert decode(reg(kind="parts", parts=parts, **places), words).value == float(Decimal(value).scaleb(-decimals))


BYTES = (Part(address=0, mask=0xFF00, times=10), Part(address=0, mask=0x00FF, most=9))


@pytest.mark.parametrize(
    ("register", "words", "found"),
    [
        (reg(kind="bcd16"), [0x1234], 1234.0),
        (reg(kind="bcd16"), [0x12A4], "bad_bcd"),
        (reg(kind="bcd16"), [0xFFFF], "bad_bcd"),
        (reg(kind="bcd32"), [0x0012, 0x3456], 123456.0),
        (reg(kind="bcd32", word_order=WordOrder.LITTLE), [0x3456, 0x0012], 123456.0),
        (reg(kind="bcd32", scale=Decimal("0.01")), [0x0012, 0xE456], "bad_bcd"),
        (reg(kind="u16", mask=0x0040), [0xFFBF], 0.0),
        (reg(kind="u16", mask=0x0040), [0x0040], 1.0),
        (reg(kind="i16", mask=0x00F0), [0x0F8F], -8.0),
        (reg(kind="u32", mask=0x0001_8000), [0x0001, 0x8000], 3.0),
        (reg(kind="u16", mask=0xFF00, sentinels=(0xFF00,)), [0xFF00], "sentinel"),
        (reg(kind="parts", parts=BYTES, scale=Decimal("0.1")), [0x1409], 20.9),
        (reg(kind="parts", parts=BYTES, scale=Decimal("0.1")), [0x140A], "bad_digits"),
        (reg(negative_from=0x8000), [0x8005], -5.0),
        (reg(negative_from=10000, low=-40), [10401], "out_of_range"),
        (reg(gain=Fraction(5, 9), offset=Decimal(-32)), [212], 100.0),
    ],
)
def test_numbers_that_are_put_together(register: Register, words: list[int], found: float | str) -> None:
    decoded = decode(register, words)
    assert (decoded.why or decoded.value) == found
    assert (decoded.value is None) == isinstance(found, str)


# --- status ---

STATES = Status(
    address=0,
    states=((1, ""), (2, "warm_up"), (9, "calibration_due")),
    ranges=((20, 29, ""), (30, 39, "fault")),
    uncertain=("calibration_due",),
)
FAULT_BIT = Status(address=1, mask=0x0040, states=((0, ""),), other="fault")
CALIBRATES = Status(address=1, mask=0x0800, states=((0, ""),), other="calibration")
HEAD = reg(2, status=(STATES, FAULT_BIT, CALIBRATES), high=100)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([1, 0, 5], (5.0, Quality.GOOD, "")),
        ([1, 0xF7BF, 5], (5.0, Quality.GOOD, "")),
        ([25, 0, 5], (5.0, Quality.GOOD, "")),
        ([2, 0, 5], (None, Quality.BAD, "warm_up")),
        ([33, 0, 5], (None, Quality.BAD, "fault")),
        ([3, 0, 5], (None, Quality.BAD, "unknown_state")),
        ([1, 0x0040, 5], (None, Quality.BAD, "fault")),
        ([1, 0x0800, 5], (None, Quality.BAD, "calibration")),
        ([2, 0x0840, 5], (None, Quality.BAD, "warm_up")),
        ([9, 0, 5], (5.0, Quality.UNCERTAIN, "calibration_due")),
        ([9, 0x0040, 5], (None, Quality.BAD, "fault")),
        ([9, 0, 101], (None, Quality.BAD, "out_of_range")),
    ],
)
def test_status_decides(words: list[int], found: tuple[float | None, Quality, str]) -> None:
    assert compile_decoder(HEAD, 0)(words) == found


@SEEDED
@given(st.lists(st.integers(0, 65535), min_size=3, max_size=3))
def test_no_value_is_good_in_a_state_that_is_not(words: list[int]) -> None:
    decoded = decode(HEAD, words)
    measuring = words[0] in (1, *range(20, 30)) and not words[1] & 0x0840
    assert decoded.quality is not Quality.GOOD or measuring


def test_status_codes_are_shifted_down() -> None:
    status = Status(address=0, mask=0xFF00, states=((2, ""),), other="other_gas")
    assert decode(reg(1, status=(status,)), [0x0264, 7]).value == 7
    assert decode(reg(1, status=(status,)), [0x0164, 7]).why == "other_gas"


def test_a_heartbeat_that_stands_still_is_frozen() -> None:
    now_s = 0.0
    run = compile_decoder(reg(0, heartbeat=Heartbeat(address=1, frozen_s=10)), 0, lambda: now_s)

    def at(moment_s: float, beat: int) -> str:
        nonlocal now_s
        now_s = moment_s
        return run([7, beat])[2]

    assert [at(0, 1), at(5, 1), at(9.9, 1)] == ["", "", ""]
    assert at(10, 1) == "frozen"
    assert at(11, 2) == ""
    assert at(60, 2) == "", "two equal reads can be a coincidence after a long silence"
    assert at(61, 2) == "frozen"
    assert at(62, 3) == ""


def test_a_heartbeat_says_nothing_of_a_value_that_is_bad_anyway() -> None:
    now_s = 0.0
    run = compile_decoder(reg(0, heartbeat=Heartbeat(address=1, frozen_s=1), high=5), 0, lambda: now_s)
    for _ in range(4):
        now_s += 1
        assert run([7, 1]) == (None, Quality.BAD, "out_of_range")


# --- 4-20 mA ---


def loop(low: str, high: str, kind: str = "u16", **more: Any) -> Register:
    fields = {"scale": Decimal("0.01"), **more}
    return reg(kind=kind, loop=Loop(low=Decimal(low), high=Decimal(high)), **fields)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (0, (None, Quality.BAD, "signal_low")),
        (360, (None, Quality.BAD, "signal_low")),
        (361, (-1.25, Quality.UNCERTAIN, "saturated")),
        (379, (-1.25, Quality.UNCERTAIN, "saturated")),
        (380, (-1.25, Quality.GOOD, "")),
        (400, (0.0, Quality.GOOD, "")),
        (1200, (50.0, Quality.GOOD, "")),
        (2000, (100.0, Quality.GOOD, "")),
        (2050, (103.125, Quality.GOOD, "")),
        (2051, (103.125, Quality.UNCERTAIN, "saturated")),
        (2099, (103.125, Quality.UNCERTAIN, "saturated")),
        (2100, (None, Quality.BAD, "signal_high")),
        (65535, (None, Quality.BAD, "signal_high")),
    ],
)
def test_namur_limits(raw: int, found: tuple[float | None, Quality, str]) -> None:
    assert compile_decoder(loop("0", "100"), 0)([raw]) == found


def test_loops_that_fall_or_are_floats() -> None:
    assert decode(loop("5", "0"), [400]).value == 5.0
    assert decode(loop("5", "0"), [2000]).value == 0.0
    assert decode(loop("-40", "80", "f32", scale=Decimal(1)), f32(12)).value == 20.0
    assert decode(loop("-40", "80", "f32", scale=Decimal(1)), [0x7FC0, 0]).why == "not_a_number"
    counts = loop("0", "10", scale=Decimal("0.00048828125"))  # 0..40960 for 0..20 mA
    assert decode(counts, [8192]).value == 0.0
    assert decode(counts, [40960]).value == 10.0


# --- texts ---


@pytest.mark.parametrize(
    ("words", "swapped", "text"),
    [
        ([0x4333, 0x3032, 0x3032, 0x3620], False, "C302026"),
        ([0x3343, 0x3230], True, "C302"),
        ([0x4348, 0x3400, 0x4141], False, "CH4"),
        ([0x2020, 0x434F], False, "CO"),
        ([0xFFFF, 0xFFFF], False, ""),
        ([0x0000], False, ""),
    ],
)
def test_texts(words: list[int], swapped: bool, text: str) -> None:
    assert decode_text(words, swapped=swapped) == text
