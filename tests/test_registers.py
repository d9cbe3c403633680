"""Planning and decoding as tables."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.sensors.registers import (
    Register,
    Status,
    Table,
    ValueType,
    WordOrder,
    compile_decoder,
    decode,
    plan,
    resync_reads,
)
from sitewarden.words import Quality


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
    planned = plan([reg(4, decimals_at=3, unit_at=2, status=status)], max_gap=0)
    assert [(b.address, b.count) for b in planned] == [(2, 8)]


@pytest.mark.parametrize("bad", [reg(65535, "u32"), reg(0, "f64"), reg(200, decimals_at=190)])
def test_plan_refuses_what_no_read_can_hold(bad: Register) -> None:
    with pytest.raises(ValueError, match=r"leave|at most 3"):
        plan([bad], max_gap=0, max_count=3)


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


STATED = reg(1, status=Status(address=0, mask=0x0F, states=((1, ""), (2, "warm_up"))))


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


@given(st.integers(-32768, 32767), st.integers(0, 4))
def test_scaling_is_what_a_person_would_write(raw: int, decimals: int) -> None:
    decoded = decode(reg(kind="i16", scale=Decimal(1).scaleb(-decimals)), [raw % 65536])
    assert decoded.value == float(Decimal(raw).scaleb(-decimals))


@given(st.floats(width=32))
def test_f32_is_the_same_float32(value: float) -> None:
    decoded = decode(reg(kind="f32"), f32(value))
    if math.isfinite(value):
        assert decoded.value is not None
        assert struct.pack(">f", decoded.value) == struct.pack(">f", value)
        assert len(repr(abs(decoded.value))) <= len(repr(abs(value)))
    else:
        assert (decoded.value, decoded.why) == (None, "not_a_number")


@given(st.sampled_from(list(ValueType)), st.sampled_from(list(WordOrder)), st.lists(st.integers(0, 65535), min_size=4))
def test_decode_never_fails(kind: ValueType, order: WordOrder, words: list[int]) -> None:
    register = reg(kind=kind, word_order=order, scale=Decimal("0.1"), low=-1e9, high=1e9)
    decoded = decode(register, words[: register.end - register.first])
    assert (decoded.value is None) == (decoded.quality is Quality.BAD)
