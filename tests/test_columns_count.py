"""Readings are counted exactly where they could be unpacked, and as many as there are."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sitewarden.sync.columns import MAX_ITEMS, DamagedError, compress, pack, unpack
from sitewarden.sync.columns_count import content_size, count_readings
from sitewarden.words import ClockState, Instant, Quality, Reading

VALUES = st.one_of(
    st.none(), st.integers(-10_000, 10_000).map(lambda n: n / 10), st.just(math.pi), st.just(1e300), st.just(-0.0)
)


@st.composite
def packed(draw: st.DrawFn) -> bytes:
    """What gateways pack: several points, boots, qualities, raw and scaled values."""
    readings: list[Reading] = []
    for n in range(draw(st.integers(0, 12))):
        boot = draw(st.sampled_from(["b", "c"]))
        at = Instant(utc_ms=1_795_000_000_000 + n, mono_s=float(n), boot=boot, clock=draw(st.sampled_from(ClockState)))
        for point in draw(st.lists(st.sampled_from(["a.b.c", "a.b.d", "a.b.e"]), unique=True)):
            quality, why = draw(st.sampled_from(Quality)), draw(st.sampled_from(["", "silent"]))
            readings.append(Reading(point=point, value=draw(VALUES), quality=quality, why=why, at=at))
    return pack(readings)


def _packed(value: Any) -> bytes:
    data = msgpack.packb(value)
    assert data is not None
    return data


def both(payload: bytes) -> tuple[int | None, int | None]:
    """Readings by unpacking and by counting; None: damaged."""

    def tried(work: Any) -> int | None:
        try:
            return work()
        except DamagedError:
            return None

    long = tried(lambda: sum(len(column.utc_ms) for block in unpack(payload) for column in block.columns))
    return long, tried(lambda: count_readings(payload))


@given(payload=packed())
def test_as_many_as_there_are(payload: bytes) -> None:
    long, short = both(payload)
    assert long is not None
    assert short == long


ODD = st.one_of(
    st.integers(-3, 9),
    st.sampled_from([None, True, False, 1.0, -1.0, "", "x", b"", b"\0" * 8, [], [1], [[]], 2**63, -(2**63), [1.0]]),
)


def _places(value: Any) -> list[tuple[list[Any], int]]:
    found = []
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += [(value, index), *_places(item)]
    return found


@settings(max_examples=400)
@given(payload=packed(), data=st.data())
def test_what_is_changed_anywhere_is_judged_as_by_unpacking(payload: bytes, data: st.DataObject) -> None:
    content = msgpack.unpackb(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(content)
        holder, index = data.draw(st.sampled_from(places))
        what = data.draw(st.sampled_from(["replace", "drop", "double"]))
        if what == "replace":
            holder[index] = copy.deepcopy(data.draw(ODD))
        elif what == "drop":
            del holder[index]
        else:
            holder.insert(index, copy.deepcopy(holder[index]))
        if not isinstance(content, list) or not _places(content):
            break
    long, short = both(_packed(content))
    assert short == long


@given(payload=packed(), at=st.integers(0, 2**16), byte=st.integers(0, 255))
@example(payload=b"", at=0, byte=0)
def test_a_changed_byte_is_judged_as_by_unpacking(payload: bytes, at: int, byte: int) -> None:
    changed = bytearray(payload or b"\xc1")
    changed[at % len(changed)] = byte
    long, short = both(bytes(changed))
    assert short == long


@pytest.mark.parametrize(
    "content",
    [
        [1, [["b", 0, 0, 0, [[0]], [["p", 0, [[1, 0, True, "", "more"]], 0, [5]]]]]],
        [1, [["b", 0, 0, 0, [[0]], [["p", 0, [[1, 0, 1, ""]], 0, [5]]]]]],
        [1, [["b", -1, 0, 0, [[0]], [["p", 0, [[1, 0, True, ""]], 0, [5]]]]]],
        [1, [["b", 0, 0, 0, [[]] * (MAX_ITEMS + 1), []]]],
        [1, [["b", 0, 0, 0, [[0] * 15_000] * 2, []]]],
        [1, [["b", 0, 0, 0, [[0] * 200], [["p", 0, [[200, 0, False, ""]], 0, []]] * 150]]],
        [2, []],
        [1, []],
        *(
            [1, [["b", clock, 0, 0, [[0, 1]], [["p", axis, [[length, quality, True, ""]], scale, values]]]]]
            for clock, axis, length, quality, scale, values in (
                (0, 0, 2, 0, 0, [1, 2]),
                (9, 0, 2, 0, 0, [1, 2]),
                (0, 1, 2, 0, 0, [1, 2]),
                (0, -1, 2, 0, 0, [1, 2]),
                (0, 0, 1, 0, 0, [1, 2]),
                (0, 0, 0, 0, 0, []),
                (0, 0, 2, len(Quality), 0, [1, 2]),
                (0, 0, 2, -1, 0, [1, 2]),
                (0, 0, 2, 0, 6, [1, 2]),
                (0, 0, 2, 0, 7, [1, 2]),
                (0, 0, 2, 0, -1, [1, 2]),
                (0, 0, 2, 0, -1, bytes(16)),
                (0, 0, 2, 0, 0, bytes(16)),
                (0, 0, 2, 0, 0, bytes(2)),
                (0, 0, 2, 0, 0, [1]),
            )
        ),
    ],
)
def test_odd_content_is_judged_as_by_unpacking(content: list[Any]) -> None:
    long, short = both(_packed(content))
    assert short == long


def test_a_large_payload_is_counted_too() -> None:
    dice = random.Random(1)
    at = [Instant(utc_ms=10**12 + n, mono_s=n / 1000, boot="b", clock=ClockState.SYNCED) for n in range(150)]
    readings = [
        Reading(point=f"a.b.p{p}", value=dice.random(), quality=Quality.GOOD, at=one) for one in at for p in range(100)
    ]
    payload = pack(readings)
    assert len(payload) > 100_000
    assert count_readings(payload) == len(readings)


def test_the_size_of_a_frame_is_what_it_says() -> None:
    assert content_size(compress(b"x" * 5000)) == 5000
    assert content_size(b"no frame") == -1
