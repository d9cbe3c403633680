"""Register words to engineering values. Pure but for heartbeats, whose decoder remembers the last word."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction

from ..words import Instant, Quality, Reading, mono_s
from .layout import Decoded, Heartbeat, Loop, Part, Register, Status, ValueType, WordOrder

MAX_DECIMALS = 6
# NAMUR NE 43: a transmitter measures from 3.8 to 20.5 mA; it tells a failure with 3.6 mA or less, or 21 mA or more.
FAILED_LOW_MA, LEAST_MA, MOST_MA, FAILED_HIGH_MA = Decimal("3.6"), Decimal("3.8"), Decimal("20.5"), Decimal(21)
SAME_READS = 3  # two equal heartbeats can be a coincidence

Decoder = Callable[[Sequence[int]], tuple[float | None, Quality, str]]
"""From the words of a block to (value, quality, why)."""

_STRUCT_CODES = {"u": {2: "H", 4: "I", 8: "Q"}, "i": {2: "h", 4: "i", 8: "q"}, "f": {4: "f", 8: "d"}}
_GOOD, _UNCERTAIN, _BAD = Quality.GOOD, Quality.UNCERTAIN, Quality.BAD
_SATURATED = "saturated"
_NO_NUMBER = {ValueType.BCD16: "bad_bcd", ValueType.BCD32: "bad_bcd", ValueType.PARTS: "bad_digits"}


def decode(register: Register, words: Sequence[int]) -> Decoded:
    """Decode one value, without its heartbeat: one read cannot tell whether that is frozen.

    Args:
        words: the words (0..65535; bits 0/1) at `register.first` .. `register.end - 1`.

    Raises:
        ValueError: not that many words.
    """
    if len(words) != register.end - register.first:
        raise ValueError(f"{register.name}: {register.end - register.first} words wanted (got {len(words)})")
    value, quality, why = _cached_decoder(register)(words)
    return Decoded(value=value, quality=quality, why=why)


def decode_text(words: Sequence[int], *, swapped: bool = False) -> str:
    """ASCII in registers: up to the first NUL, without the spaces around it; "" when it is no text.

    Args:
        swapped: the second letter of each register stands in its high byte.
    """
    data = struct.pack(f"{'<' if swapped else '>'}{len(words)}H", *words).partition(b"\0")[0].strip()
    return data.decode("ascii") if all(0x20 <= byte < 0x7F for byte in data) else ""


def compile_decoder(register: Register, base: int, clock: Callable[[], float] = mono_s) -> Decoder:
    """A function that decodes `register` from the words of a block that starts at address `base`.

    With a heartbeat it must see every read of one device, and remembers its last word.

    Args:
        clock: monotonic seconds, for heartbeats.
    """
    if _is_plain(register):
        return _plain_decoder(register, base)
    run = _stateless_decoder(register, base)
    return run if register.heartbeat is None else _beating_decoder(run, register.heartbeat, base, clock)


def _stateless_decoder(register: Register, base: int) -> Decoder:
    low, high = _limits(register)
    raw = _raw_reader(register, base)
    scaled = _scaler(register, base)
    statuses = tuple(_status_reader(s, base) for s in register.status)
    sentinels = frozenset(s % (1 << 16 * register.type.words) for s in register.sentinels)
    no_number = _NO_NUMBER.get(register.type, "not_a_number")

    def run(words: Sequence[int]) -> tuple[float | None, Quality, str]:
        doubt = ""
        for status in statuses:
            why, is_doubt = status(words)
            if why and not is_doubt:
                return None, _BAD, why
            doubt = doubt or why
        pattern, number = raw(words)
        if pattern in sentinels:
            return None, _BAD, "sentinel"
        if not math.isfinite(number):
            return None, _BAD, no_number
        value, why = scaled(number, words)
        if why and why != _SATURATED:
            return None, _BAD, why
        if not low <= value <= high:
            return None, _BAD, "out_of_range"
        doubt = doubt or why
        return (value, _UNCERTAIN, doubt) if doubt else (value, _GOOD, "")

    return run


def _limits(register: Register) -> tuple[float, float]:
    low = -math.inf if register.low is None else register.low
    return low, math.inf if register.high is None else register.high


def _is_plain(register: Register) -> bool:
    """One 16-bit register with fixed scaling and nothing beside it: most of what plants have."""
    simple = register.type in (ValueType.U16, ValueType.I16) and register.word_order is WordOrder.BIG
    beside = (register.decimals_at, register.unit_at, register.heartbeat, register.loop)
    inside = (register.mask, register.negative_from)
    return simple and not register.sentinels and not register.status and all(p is None for p in (*beside, *inside))


def _plain_decoder(register: Register, base: int) -> Decoder:
    at, sign, a, b, c, low, high = _plain_row(register, base)

    def run(words: Sequence[int]) -> tuple[float | None, Quality, str]:
        value = (((words[at] ^ sign) - sign) * a + b) / c
        return (value, _GOOD, "") if low <= value <= high else (None, _BAD, "out_of_range")

    return run


BlockReader = Callable[[Sequence[int], Instant], list[Reading]]
"""From the words of a block and the time of the poll to a reading for each of its points."""


def compile_block(
    points: Sequence[tuple[str, Register]], base: int, clock: Callable[[], float] = mono_s
) -> BlockReader:
    """A function that decodes a whole block that starts at address `base`.

    Args:
        points: (point id, register), in the order of the readings.
        clock: monotonic seconds, for heartbeats.
    """
    if not all(_is_plain(register) for _, register in points):
        decoders = [(point, compile_decoder(register, base, clock)) for point, register in points]

        def read(words: Sequence[int], at: Instant) -> list[Reading]:
            found = [(point, *decode(words)) for point, decode in decoders]
            return [Reading(point=p, value=v, quality=q, why=why, at=at) for p, v, q, why in found]

        return read
    rows = [(point, *_plain_row(register, base)) for point, register in points]

    def read_plain(words: Sequence[int], at: Instant) -> list[Reading]:
        readings: list[Reading] = []
        for point, place, sign, a, b, c, low, high in rows:
            value = (((words[place] ^ sign) - sign) * a + b) / c
            if low <= value <= high:
                readings.append(Reading(point=point, value=value, quality=_GOOD, at=at))
            else:
                readings.append(Reading(point=point, value=None, quality=_BAD, why="out_of_range", at=at))
        return readings

    return read_plain


def _plain_row(register: Register, base: int) -> tuple[int, int, int, int, int, float, float]:
    """Place, sign bit, the line (a, b, c), and limits."""
    sign = 0x8000 if register.type is ValueType.I16 else 0
    return register.address - base, sign, *_linear(register), *_limits(register)


def _beating_decoder(run: Decoder, beat: Heartbeat, base: int, clock: Callable[[], float]) -> Decoder:
    at, frozen_s = beat.address - base, beat.frozen_s
    last, since_s, same = -1, 0.0, 0

    def beating(words: Sequence[int]) -> tuple[float | None, Quality, str]:
        nonlocal last, since_s, same
        now_s = clock()
        if words[at] != last:
            last, since_s, same = words[at], now_s, 1
        else:
            same += 1
        found = run(words)
        if found[1] is not _BAD and same >= SAME_READS and now_s - since_s >= frozen_s:
            return None, _BAD, "frozen"
        return found

    return beating


@functools.lru_cache(maxsize=1024)
def _cached_decoder(register: Register) -> Decoder:
    return _stateless_decoder(register, register.first)


# --- words to a raw number ---

_Raw = Callable[[Sequence[int]], tuple[int, float]]
"""From words to (bit pattern, number); NaN when the pattern is no number."""


def _raw_reader(register: Register, base: int) -> _Raw:
    kind, at = register.type, register.address - base
    if kind is ValueType.PARTS:
        return _parts_reader(register.parts, base)
    pattern = _pattern_reader(register, at)
    if kind.is_float:
        return _float_reader(kind, pattern)
    if kind in (ValueType.BCD16, ValueType.BCD32):
        return lambda words: ((found := pattern(words)), _bcd(found))
    turn = register.negative_from
    number = _integer(register)
    if turn is None:
        return lambda words: ((found := pattern(words)), number(found))
    return lambda words: ((found := pattern(words)), n if (n := number(found)) < turn else turn - n)


def _pattern_reader(register: Register, at: int) -> Callable[[Sequence[int]], int]:
    """The bits of a value as one unsigned number, most significant first, whatever their order on the wire."""
    count, order = register.type.words, register.word_order
    if register.type is ValueType.BIT or (count == 1 and not order.is_swapped):
        return lambda words: words[at]
    step = -1 if order.is_little else 1
    pack = struct.Struct(f"{'<' if order.is_swapped else '>'}{count}H").pack
    return lambda words: int.from_bytes(pack(*words[at : at + count][::step]), "big")


def _integer(register: Register) -> Callable[[int], int]:
    """From the pattern to the number that is meant, of integer types."""
    width = 16 * register.type.words
    mask = (1 << width) - 1 if register.mask is None else register.mask
    shift = lowest_bit(mask)
    sign = 1 << (mask.bit_length() - shift - 1) if register.type.is_signed else 0
    return lambda pattern: (((pattern & mask) >> shift) ^ sign) - sign


def _float_reader(kind: ValueType, pattern: Callable[[Sequence[int]], int]) -> _Raw:
    size = 2 * kind.words
    unpack = struct.Struct(">" + _STRUCT_CODES["f"][size]).unpack
    narrow = kind is ValueType.F32

    def read(words: Sequence[int]) -> tuple[int, float]:
        found = pattern(words)
        data = found.to_bytes(size, "big")
        number = unpack(data)[0]
        return found, _shortest_f32(number, data) if narrow else number

    return read


def _shortest_f32(number: float, data: bytes) -> float:
    """The shortest decimal that is the same float32: 0.35, not 0.3499999940395355."""
    for digits in (7, 8, 9):
        short = float(f"{number:.{digits}g}")
        try:
            if struct.pack(">f", short) == data:
                return short
        except OverflowError:
            break
    return number


def _bcd(pattern: int) -> float:
    """Binary-coded decimal: each nibble is a digit."""
    digits = f"{pattern:x}"
    return int(digits) if digits.isdecimal() else math.nan


def _parts_reader(parts: Sequence[Part], base: int) -> _Raw:
    places = tuple((p.address - base, p.mask, lowest_bit(p.mask), p.times, p.most) for p in parts)

    def read(words: Sequence[int]) -> tuple[int, float]:
        total = 0
        for at, mask, shift, times, most in places:
            found = (words[at] & mask) >> shift
            if most is not None and found > most:
                return -1, math.nan
            total += found * times
        return -1, total

    return read


def lowest_bit(mask: int) -> int:
    """How far the bits under a mask are shifted down: its lowest bit that is set."""
    return (mask & -mask).bit_length() - 1


# --- a raw number to the value ---

_Linear = tuple[int, int, int]  # value = (raw * a + b) / c
_Scaler = Callable[[float, Sequence[int]], tuple[float, str]]


def _scaler(register: Register, base: int) -> _Scaler:
    """From a raw number to (value, why); exact in fractions, rounded to float once."""
    if register.loop is not None:
        return _loop_scaler(register, register.loop)
    apply = _apply_float if register.type.is_float else _apply_int
    if register.decimals_at is None and register.unit_at is None:
        fixed = _linear(register)
        if fixed == (1, 0, 1):
            return lambda raw, _words: (float(raw), "")
        return lambda raw, _words: (apply(raw, fixed), "")
    decimals = _field_reader(register.decimals_at, register.decimals_mask, base)
    unit = _field_reader(register.unit_at, register.unit_mask, base)
    factors = dict(register.unit_factors)
    has_unit = register.unit_at is not None
    known: dict[tuple[int, int], _Linear] = {}  # bounded: decimals 0..6 x listed codes

    def scale(raw: float, words: Sequence[int]) -> tuple[float, str]:
        key = decimals(words), unit(words)
        if (line := known.get(key)) is None:
            if key[0] > MAX_DECIMALS:
                return 0.0, "bad_decimals"
            if has_unit and key[1] not in factors:
                return 0.0, "unknown_unit"
            line = known[key] = _linear(register, key[0], Fraction(factors.get(key[1], 1)))
        return apply(raw, line), ""

    return scale


def _field_reader(address: int | None, mask: int, base: int) -> Callable[[Sequence[int]], int]:
    if address is None:
        return lambda _words: 0
    at, shift = address - base, lowest_bit(mask)
    return lambda words: (words[at] & mask) >> shift


def _loop_scaler(register: Register, loop: Loop) -> _Scaler:
    """NAMUR NE 43: beyond what a transmitter can measure, the value is at least (or at most) its last true one."""
    apply = _apply_float if register.type.is_float else _apply_int
    slope, offset = Fraction(register.scale), Fraction(register.offset)
    per_ma = (Fraction(loop.high) - Fraction(loop.low)) / 16 * register.gain
    zero = Fraction(loop.low) * register.gain - 4 * per_ma
    current, line = _as_line(slope, offset), _as_line(slope * per_ma, offset * per_ma + zero)
    least, most = (float(zero + per_ma * Fraction(limit)) for limit in (LEAST_MA, MOST_MA))
    limits = (FAILED_LOW_MA, LEAST_MA, MOST_MA, FAILED_HIGH_MA)
    failed_low, low, high, failed_high = (float(limit) for limit in limits)

    def scale(raw: float, _words: Sequence[int]) -> tuple[float, str]:
        milliamperes = apply(raw, current)
        if milliamperes <= failed_low:
            return 0.0, "signal_low"
        if milliamperes >= failed_high:
            return 0.0, "signal_high"
        if milliamperes < low:
            return least, _SATURATED
        if milliamperes > high:
            return most, _SATURATED
        return apply(raw, line), ""

    return scale


def _linear(register: Register, decimals: int = 0, factor: Fraction = Fraction(1)) -> _Linear:
    slope = Fraction(register.scale) * factor / 10**decimals
    return _as_line(slope * register.gain, Fraction(register.offset) * register.gain)


def _as_line(slope: Fraction, offset: Fraction) -> _Linear:
    common = math.lcm(slope.denominator, offset.denominator)
    return int(slope * common), int(offset * common), common


def _apply_int(raw: float, line: _Linear) -> float:
    a, b, c = line
    return (raw * a + b) / c  # int / int rounds correctly: 583 / 10 is 58.3


def _apply_float(raw: float, line: _Linear) -> float:
    a, b, c = line
    return float(raw) if a == c and not b else float((Fraction(repr(raw)) * a + b) / c)


def _status_reader(status: Status, base: int) -> Callable[[Sequence[int]], tuple[str, bool]]:
    """From words to (why, the value may stand but is uncertain)."""
    at, mask, shift = status.address - base, status.mask, lowest_bit(status.mask)
    doubts = frozenset(status.uncertain)
    states = {code: (why, why in doubts) for code, why in status.states}
    ranges = tuple((low, high, (why, why in doubts)) for low, high, why in status.ranges)
    other = status.other, status.other in doubts

    def read(words: Sequence[int]) -> tuple[str, bool]:
        code = (words[at] & mask) >> shift
        if (found := states.get(code)) is not None:
            return found
        return next((found for low, high, found in ranges if low <= code <= high), other)

    return read
