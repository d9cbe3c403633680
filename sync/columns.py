"""Readings to compact bytes and back: columns per point, msgpack, zstd. Pure.

A packed run of readings is `zstd(msgpack([1, blocks]))`. A block holds readings of one boot and one clock state whose
UTC and monotonic clocks move together; normally there is one. Inside it every point is a column: when (differences of
differences of UTC milliseconds), how far it can be trusted (runs of quality, reason and "has a value"), and the values
(differences of exactly scaled integers where every value comes back bit for bit, else raw little-endian float64).
The order of readings is kept per point, not between points.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise
from typing import Any

import msgpack
import zstandard

from ..errors import PermanentError
from ..words import ClockState, Instant, Quality, Reading

VERSION = 1
MAX_SCALE = 6
RAW = -1
DRIFT_MS = 250
"""A block ends where UTC moved this far against the monotonic clock; `mono_s` comes back this exactly."""
MAX_PACKED_BYTES = 4 * 1024 * 1024
MAX_ITEMS = 20_000
"""Of one list, and readings of one run: ten times what is sealed at most."""
MAX_LISTS = 100_000
"""Of one payload; 2,000 readings, each of another boot, need 16,000."""

_EXACT = 2**53
_POWERS = tuple(10**scale for scale in range(MAX_SCALE + 1))
_QUALITIES = tuple(Quality)
_QUALITY_CODE = {quality: code for code, quality in enumerate(_QUALITIES)}
_CLOCKS = tuple(ClockState)
_own = threading.local()

Sample = tuple[int, float | None, Quality]
"""UTC milliseconds, value or None, quality."""


class DamagedError(PermanentError):
    """Bytes that are not what they should be: a wrong checksum, shape, type or length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One point's readings, in the order in which they came; all tuples are equally long."""

    point: str
    utc_ms: tuple[int, ...]
    values: tuple[float | None, ...]
    qualities: tuple[Quality, ...]
    whys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Readings of one boot whose two clocks moved together.

    Attributes:
        utc_ms: UTC of the block's first reading.
        mono_ms: monotonic time of the same reading, rounded to milliseconds.
    """

    boot: str
    clock: ClockState
    utc_ms: int
    mono_ms: int
    columns: tuple[Column, ...]


# --- zstd and msgpack with bounds --------------------------------------------------------------------------------


def compress(payload: bytes) -> bytes:
    """One zstd frame with its content size and a checksum in it."""
    return _compressor().compress(payload)


def decompress(body: bytes, limit: int = MAX_PACKED_BYTES) -> bytes:
    """The content of exactly one zstd frame that declares its size.

    Raises:
        DamagedError: not such a frame, larger than `limit` bytes, or a wrong checksum.
    """
    if not isinstance(body, bytes):  # of a database that went bad
        raise DamagedError(f"not a zstd frame but {type(body).__name__}")
    try:
        size = zstandard.frame_content_size(body)
        if size < 0:
            raise DamagedError("the zstd frame does not say how large its content is")
        if size > limit:
            raise DamagedError(f"the content would be {size} bytes, at most {limit} are allowed")
        return _decompressor().decompress(body, max_output_size=limit, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedError(f"not a valid zstd frame: {error}") from error


def _compressor() -> zstandard.ZstdCompressor:
    """One for each thread: zstandard lets go of the interpreter's lock, and two that use one disturb each other."""
    found = getattr(_own, "compressor", None)
    if found is None:
        found = _own.compressor = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    """One for each thread; to make it takes as long as to unpack a segment."""
    found = getattr(_own, "decompressor", None)
    if found is None:
        found = _own.decompressor = zstandard.ZstdDecompressor()
    return found


def pack_msgpack(value: Any) -> bytes:
    """Plain values as msgpack; text that is not valid Unicode loses the characters that are not."""
    return _packer().pack(value)


def _packer() -> msgpack.Packer:
    return msgpack.Packer(unicode_errors="replace")


def unpack_msgpack(payload: bytes) -> Any:
    """Strict msgpack of numbers, text, bytes and lists of them; what it holds takes at most some 100 MB.

    A byte can be a whole list, map or extension of 60 bytes and more: lists are counted, the others refused.

    Raises DamagedError.
    """
    lists = count(1)

    def counted(items: list[Any]) -> list[Any]:
        if next(lists) > MAX_LISTS:
            raise DamagedError(f"more than {MAX_LISTS} lists")
        return items

    try:
        return msgpack.unpackb(
            payload,
            raw=False,
            list_hook=counted,
            object_pairs_hook=_refuse_map,
            ext_hook=_refuse_extension,
            max_str_len=len(payload),
            max_bin_len=len(payload),
            max_array_len=MAX_ITEMS,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise DamagedError(f"not valid msgpack: {error}") from error


def _refuse_map(_: Any) -> Any:
    raise DamagedError("there are no maps here")


def _refuse_extension(_code: int, _data: bytes) -> Any:
    raise DamagedError("there are no extensions here")


# --- columns of numbers ------------------------------------------------------------------------------------------


def scale_values(values: Sequence[float]) -> tuple[int, list[int]] | None:
    """The smallest decimal scale at which every value is an integer that divides back to the same 64 bits.

    Returns:
        (digits after the point, integers), or None when some value needs raw float64 (NaN, infinity, -0.0, 1/3 ...).
    """
    wanted = list(values)
    try:
        for scale, power in enumerate(_POWERS):
            numbers = [round(value * power) for value in wanted]
            if [number / power for number in numbers] == wanted:  # in one go: thousands of values a second
                return None if _is_lossy(numbers, wanted) else (scale, numbers)
            if max(numbers) > _EXACT or min(numbers) < -_EXACT:
                return None
    except (OverflowError, ValueError):  # infinity, NaN
        return None
    return None


def _is_lossy(numbers: list[int], values: list[float]) -> bool:
    """Integers that float64 cannot hold, or a -0.0 that would come back as 0.0."""
    if not numbers:
        return False
    if max(numbers) > _EXACT or min(numbers) < -_EXACT:
        return True
    return 0 in numbers and any(value == 0.0 and math.copysign(1.0, value) < 0 for value in values)


def _differences(numbers: Sequence[int]) -> list[int]:
    if len(numbers) < 2:
        return list(numbers)
    return [*numbers[:1], *(after - before for before, after in pairwise(numbers))]


def _integers(data: Any, what: str) -> list[int]:
    if not isinstance(data, list) or not all(type(item) is int for item in data):
        raise DamagedError(f"{what} is not a list of integers")
    return data


# --- packing -----------------------------------------------------------------------------------------------------


def pack(readings: Sequence[Reading], rest: Callable[[], None] = lambda: None) -> bytes:
    """Readings as bytes before compression; `compress` makes what is stored and sent. Equal input, equal bytes.

    Args:
        readings: in the order in which they came.
        rest: called after each column, so that a thread that packs thousands can let others run.
    """
    blocks = [_pack_block(group, rest) for group in _groups(readings)]
    return b"".join((_list_of(2), pack_msgpack(VERSION), _list_of(len(blocks)), *blocks))


def _list_of(items: int) -> bytes:
    """How a msgpack list begins."""
    return msgpack.Packer().pack_array_header(items)


def _groups(readings: Iterable[Reading]) -> Iterator[list[Reading]]:
    """Consecutive readings of the same boot and clock state with the same distance between the two clocks."""
    group: list[Reading] = []
    last: Instant | None = None  # the readings of one poll share it
    for reading in readings:
        if reading.at is not last:
            last = reading.at
            if group and not _moves_with(group[0].at, last):
                yield group
                group = []
        group.append(reading)
    if group:
        yield group


def _moves_with(first: Instant, at: Instant) -> bool:
    if (first.boot, first.clock) != (at.boot, at.clock):
        return False
    return abs((at.utc_ms - first.utc_ms) - (at.mono_s - first.mono_s) * 1000) <= DRIFT_MS


def _pack_block(readings: list[Reading], rest: Callable[[], None]) -> bytes:
    first = readings[0].at
    times: dict[tuple[int, ...], int] = {}
    columns: dict[str, list[Reading]] = {}
    for reading in readings:
        point = reading.point
        if point in columns:
            columns[point].append(reading)
        else:
            columns[point] = [reading]
    packed: list[bytes] = []
    packer = _packer()  # one for all: to make it takes longer than to pack a column of a few values
    for point in sorted(columns):
        column = columns.pop(point)
        values = [reading.value for reading in column]
        stamps = tuple([reading.at.utc_ms - first.utc_ms for reading in column])
        states = _pack_states(column, values)
        packed.append(packer.pack([point, times.setdefault(stamps, len(times)), states, *_pack_values(values)]))
        rest()
    twice = [_differences(_differences(stamps)) for stamps in times]
    head = (first.boot, _CLOCKS.index(first.clock), first.utc_ms, round(first.mono_s * 1000), twice)
    return b"".join((_list_of(6), *map(pack_msgpack, head), _list_of(len(packed)), *packed))


def _pack_states(column: list[Reading], values: list[float | None]) -> list[list[Any]]:
    """Runs of (length, quality, has a value, why)."""
    if None not in values and len({(reading.quality, reading.why) for reading in column}) == 1:  # as nearly always
        return [[len(column), _QUALITY_CODE[column[0].quality], True, column[0].why]]
    runs: list[list[Any]] = []
    for reading in column:
        state = [_QUALITY_CODE[reading.quality], reading.value is not None, reading.why]
        if runs and runs[-1][1:] == state:
            runs[-1][0] += 1
        else:
            runs.append([1, *state])
    return runs


def _pack_values(given: list[float | None]) -> tuple[int, list[int] | bytes]:
    values = [float(value) for value in given if value is not None]
    scaled = scale_values(values)
    if scaled is None:
        return RAW, struct.pack(f"<{len(values)}d", *values)
    return scaled[0], _differences(scaled[1])


# --- unpacking ---------------------------------------------------------------------------------------------------


def unpack(payload: bytes, *, point: str | None = None, points: Container[str] | None = None) -> list[Block]:
    """Inverse of `pack`; with `point`, or `points`, only their columns are worked out.

    Raises:
        DamagedError: the payload is not what `pack` writes.
    """
    data = unpack_msgpack(payload)
    if not isinstance(data, list) or len(data) != 2 or data[0] != VERSION or not isinstance(data[1], list):
        raise DamagedError(f"not a packed run of readings of version {VERSION}")
    wanted = points if point is None else (point,)
    try:
        _check_size(data[1])
        return [_unpack_block(block, wanted) for block in data[1]]
    except (ValueError, TypeError, IndexError, OverflowError, struct.error) as error:
        raise DamagedError(f"a block of readings has a wrong shape: {error}") from error


def _check_size(blocks: list[Any]) -> None:
    """Columns share their times: a few bytes could stand for any number of readings."""
    total = sum(len(block[4][column[1]]) for block in blocks for column in block[5])
    total = max(total, sum(len(axis) for block in blocks for axis in block[4]))
    if total > MAX_ITEMS:
        raise DamagedError(f"{total} readings in one run, at most {MAX_ITEMS} are allowed")


def _unpack_block(data: list[Any], wanted: Container[str] | None) -> Block:
    boot, clock, utc_ms, mono_ms, times, packed = data
    if not isinstance(boot, str) or type(utc_ms) is not int or type(mono_ms) is not int or type(clock) is not int:
        raise DamagedError("a block's boot id or clock has a wrong type")
    axes = [[utc_ms + t for t in accumulate(accumulate(_integers(axis, "a time column")))] for axis in times]
    columns = tuple(_unpack_column(column, axes) for column in packed if wanted is None or column[0] in wanted)
    return Block(boot=boot, clock=_CLOCKS[clock], utc_ms=utc_ms, mono_ms=mono_ms, columns=columns)


def _unpack_column(data: list[Any], axes: list[list[int]]) -> Column:
    point, axis, runs, scale, numbers = data
    if not isinstance(point, str) or type(axis) is not int or axis < 0:
        raise DamagedError("a column's point or time index has a wrong type")
    stamps = axes[axis]
    if sum(_integers([run[0] for run in runs], "a run length")) != len(stamps):
        raise DamagedError(f"{point}: the runs of quality do not add up to {len(stamps)} readings")
    if any(run[0] < 1 or type(run[1]) is not int or run[1] < 0 or not isinstance(run[3], str) for run in runs):
        raise DamagedError(f"{point}: a run of quality has a wrong shape")
    present = sum(run[0] for run in runs if run[2])
    values = iter(_unpack_values(point, scale, numbers, present))
    return Column(
        point=point,
        utc_ms=tuple(stamps),
        values=tuple(next(values) if run[2] else None for run in runs for _ in range(run[0])),
        qualities=tuple(_QUALITIES[run[1]] for run in runs for _ in range(run[0])),
        whys=tuple(run[3] for run in runs for _ in range(run[0])),
    )


def _unpack_values(point: str, scale: Any, data: Any, count: int) -> Sequence[float]:
    if scale == RAW and isinstance(data, bytes) and len(data) == 8 * count:
        return struct.unpack(f"<{count}d", data)
    if type(scale) is not int or not 0 <= scale <= MAX_SCALE or not isinstance(data, list) or len(data) != count:
        raise DamagedError(f"{point}: the values do not fit the {count} readings that have one")
    return [number / _POWERS[scale] for number in accumulate(_integers(data, "a value column"))]


def readings(blocks: Iterable[Block]) -> list[Reading]:
    """Blocks as readings, point by point. `mono_s` is exact to DRIFT_MS, everything else is as it was."""
    result: list[Reading] = []
    for block in blocks:
        for column in block.columns:
            rows = zip(column.utc_ms, column.values, column.qualities, column.whys, strict=True)
            for utc_ms, value, quality, why in rows:
                mono_s = (block.mono_ms + utc_ms - block.utc_ms) / 1000
                at = Instant(utc_ms=utc_ms, mono_s=mono_s, boot=block.boot, clock=block.clock)
                result.append(Reading(point=column.point, value=value, quality=quality, why=why, at=at))
    return result


# --- trends ------------------------------------------------------------------------------------------------------


def thin(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """At most about `limit` samples that keep a curve's shape: each bucket of time gives its lowest, its highest and
    one gap, in order of time. Missing values are kept as gaps, never bridged."""
    if len(samples) <= limit or limit < 3:
        return list(samples)
    first, last = samples[0][0], samples[-1][0]
    width = max(1, math.ceil((last - first + 1) / max(1, limit // 3)))
    buckets: dict[int, list[Sample]] = {}
    for sample in samples:
        buckets.setdefault((sample[0] - first) // width, []).append(sample)
    return [sample for number in sorted(buckets) for sample in _extremes(buckets[number])]


def _extremes(bucket: list[Sample]) -> list[Sample]:
    numbers = [(value, index) for index, (_, value, _) in enumerate(bucket) if value is not None]
    keep = {min(numbers)[1], max(numbers)[1]} if numbers else set()
    keep.update([index for index, sample in enumerate(bucket) if sample[1] is None][:1])
    return [bucket[index] for index in sorted(keep)]
