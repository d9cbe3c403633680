"""Plan block reads and decode register words to engineering values. Pure."""

from __future__ import annotations

import enum
import functools
import itertools
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from ..words import Quality

ADDRESSES = 0x1_0000
MAX_REGISTERS = 125  # one read, Modbus Application Protocol v1.1b3 §6.3
MAX_BITS = 2000  # one read, §6.1
MAX_DECIMALS = 6


class Table(enum.StrEnum):
    """The four tables of Modbus; each is read with its own function code (1, 2, 3, 4)."""

    COIL = "coil"
    DISCRETE = "discrete"
    HOLDING = "holding"
    INPUT = "input"

    @property
    def is_bits(self) -> bool:
        return self in (Table.COIL, Table.DISCRETE)


class ValueType(enum.StrEnum):
    """How the words of one value are read. `bit` belongs to coils and discrete inputs, the others to registers."""

    BIT = "bit"
    U16 = "u16"
    I16 = "i16"
    U32 = "u32"
    I32 = "i32"
    U64 = "u64"
    I64 = "i64"
    F32 = "f32"
    F64 = "f64"

    @property
    def words(self) -> int:
        """Registers (or bits) that one value takes."""
        return 1 if self is ValueType.BIT else int(self.value[1:]) // 16

    @property
    def is_float(self) -> bool:
        return self in (ValueType.F32, ValueType.F64)


class WordOrder(enum.StrEnum):
    """Order on the wire of the bytes ABCD (A most significant)."""

    BIG = "big"  # ABCD
    LITTLE = "little"  # CDAB: least significant register first
    BIG_SWAPPED = "big_swapped"  # BADC: bytes of each register exchanged
    LITTLE_SWAPPED = "little_swapped"  # DCBA


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A state register beside the value: warm-up, inhibit and calibration are not measurements.

    Attributes:
        address: in the same table as the value.
        mask: applied to the word before it is looked up.
        states: (code, why); an empty `why` means measuring. A code that is not listed is bad `unknown_state`.
    """

    address: int
    states: tuple[tuple[int, str], ...]
    mask: int = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One value of a device.

    Value = raw x scale / 10**decimals x factor of the unit code + offset, exact in decimals, rounded once to float.

    Attributes:
        name: last part of the point id, `[a-z0-9_]+`.
        address: of the first word, 0..65535, as it is sent on the wire (not 4xxxx notation).
        low, high: outside of them the value is bad `out_of_range`.
        sentinels: raw bit patterns that mean "no value", signed or unsigned notation.
        decimals_at: address of a register with the number of decimals (0..6) of the raw value.
        unit_at, unit_factors: address of a unit code and (code, factor to the point's unit); another code is bad
            `unknown_unit`.
        status: where the device says whether it measures at all.
    """

    name: str
    table: Table
    address: int
    type: ValueType
    word_order: WordOrder = WordOrder.BIG
    scale: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)
    low: float | None = None
    high: float | None = None
    sentinels: tuple[int, ...] = ()
    decimals_at: int | None = None
    unit_at: int | None = None
    unit_factors: tuple[tuple[int, Decimal], ...] = ()
    status: Status | None = None

    @property
    def first(self) -> int:
        """Lowest address that must be read in one request to decode this value."""
        return min(self.address, *self._companions())

    @property
    def end(self) -> int:
        """One past the highest address."""
        return max(self.address + self.type.words, *(a + 1 for a in self._companions()))

    def _companions(self) -> tuple[int, ...]:
        places = (self.address, self.decimals_at, self.unit_at, self.status.address if self.status else None)
        return tuple(a for a in places if a is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A coil or holding register that may be written, and the only values that may be written to it.

    Attributes:
        states: (name, raw value); a coil's values are 0 and 1.
        multiple: write with function code 15 or 16 instead of 5 or 6; some devices know only those.
    """

    name: str
    table: Table
    address: int
    states: tuple[tuple[str, int], ...]
    multiple: bool = False
    name_zh: str = ""
    name_en: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One read request and the registers that it answers."""

    table: Table
    address: int
    count: int
    registers: tuple[Register, ...] = ()

    @property
    def reply_bytes(self) -> int:
        """Data bytes of the right reply; what tells replies of one unit and function apart."""
        return (self.count + 7) // 8 if self.table.is_bits else 2 * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """`value` is None unless `quality` is good; `why` is empty when it is."""

    value: float | None
    quality: Quality
    why: str = ""


# --- planning ---


def plan(registers: Iterable[Register], *, max_gap: int, max_count: int = MAX_REGISTERS) -> tuple[Block, ...]:
    """Few requests that cover every register exactly once, with the registers that belong to it.

    Args:
        max_gap: unwanted addresses that may be read between two wanted ones; 0 where a device refuses holes.
        max_count: most addresses in one request (device limit); bit tables have the same limit.

    Raises:
        ValueError: one register with its companions needs more than `max_count`, or leaves 0..65535.
    """
    blocks: list[Block] = []
    ordered = sorted(registers, key=lambda r: (r.table, r.first, r.end, r.name))
    for table, members in itertools.groupby(ordered, key=lambda r: r.table):
        run: list[Register] = []
        for register in members:
            _check_span(register, max_count)
            if run and not _fits(run, register, max_gap, max_count):
                blocks.append(_block(table, run))
                run = []
            run.append(register)
        blocks.append(_block(table, run))
    return tuple(blocks)


def _check_span(register: Register, max_count: int) -> None:
    if register.first < 0 or register.end > ADDRESSES:
        raise ValueError(f"{register.name}: addresses {register.first}..{register.end - 1} leave 0..65535")
    if register.end - register.first > max_count:
        span = register.end - register.first
        raise ValueError(f"{register.name}: needs {span} addresses in one read, at most {max_count}")


def _fits(run: Sequence[Register], register: Register, max_gap: int, max_count: int) -> bool:
    end = max(r.end for r in run)
    return register.first - end <= max_gap and max(end, register.end) - run[0].first <= max_count


def _block(table: Table, run: Sequence[Register]) -> Block:
    first = run[0].first
    return Block(table=table, address=first, count=max(r.end for r in run) - first, registers=tuple(run))


_OTHER = {
    Table.HOLDING: Table.INPUT,
    Table.INPUT: Table.HOLDING,
    Table.COIL: Table.DISCRETE,
    Table.DISCRETE: Table.COIL,
}


def resync_reads(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Reads whose reply no reply to `blocks` can be mistaken for: each has another length than all of them.

    An RTU reply carries no transaction id; whoever has missed one makes such a read first. An exception answer serves
    as well. Best first: inside a block, beyond one, before one, the same addresses of the other table; a caller whose
    device stays silent at one of them tries the next.
    """
    taken = {block.reply_bytes for block in blocks}
    found: dict[tuple[Table, int, int], Block] = {}
    for candidate in itertools.chain.from_iterable(_resync_candidates(blocks, taken)):
        found.setdefault((candidate.table, candidate.address, candidate.count), candidate)
    return tuple(found.values())


def _resync_candidates(blocks: Sequence[Block], taken: set[int]) -> Iterator[Iterator[Block]]:
    yield (r for b in blocks for r in _first_free(b.table, b.address, range(1, b.count), taken))
    yield (r for b in blocks for r in _first_free(b.table, b.address, range(b.count + 1, _limit(b.table) + 1), taken))
    yield (
        r
        for b in blocks
        if b.address > 0
        for r in _first_free(b.table, b.address - 1, range(b.count + 1, _limit(b.table) + 1), taken)
    )
    yield (r for b in blocks for r in _first_free(_OTHER[b.table], b.address, range(1, _limit(b.table) + 1), taken))


def _limit(table: Table) -> int:
    return MAX_BITS if table.is_bits else MAX_REGISTERS


def _first_free(table: Table, address: int, counts: Iterable[int], taken: set[int]) -> tuple[Block, ...]:
    for count in counts:
        read = Block(table=table, address=address, count=count)
        if address + count <= ADDRESSES and read.reply_bytes not in taken:
            return (read,)
    return ()


# --- decoding ---

_STRUCT_CODES = {"u": {2: "H", 4: "I", 8: "Q"}, "i": {2: "h", 4: "i", 8: "q"}, "f": {4: "f", 8: "d"}}

Decoder = Callable[[Sequence[int]], tuple[float | None, Quality, str]]
"""From the words of a block to (value, quality, why)."""

_GOOD, _BAD = Quality.GOOD, Quality.BAD


def decode(register: Register, words: Sequence[int]) -> Decoded:
    """Decode one value.

    Args:
        words: the words (0..65535; bits 0/1) at `register.first` .. `register.end - 1`.

    Raises:
        ValueError: not that many words.
    """
    if len(words) != register.end - register.first:
        raise ValueError(f"{register.name}: {register.end - register.first} words wanted (got {len(words)})")
    value, quality, why = _cached_decoder(register)(words)
    return Decoded(value=value, quality=quality, why=why)


def compile_decoder(register: Register, base: int) -> Decoder:
    """A function that decodes `register` from the words of a block that starts at address `base`."""
    at = register.address - base
    low = -math.inf if register.low is None else register.low
    high = math.inf if register.high is None else register.high
    if _is_plain(register):
        return _plain_decoder(at, 0x8000 if register.type is ValueType.I16 else 0, _linear(register), low, high)
    raw = _raw_reader(register, at)
    scaled = _scaler(register, base)
    status = _status_reader(register, base)
    bits = 16 * register.type.words
    sentinels = frozenset(s % (1 << bits) for s in register.sentinels)

    def run(words: Sequence[int]) -> tuple[float | None, Quality, str]:
        if status is not None and (why := status(words)):
            return None, _BAD, why
        pattern, number = raw(words)
        if pattern in sentinels:
            return None, _BAD, "sentinel"
        if number != number or number in (math.inf, -math.inf):
            return None, _BAD, "not_a_number"
        value, why = scaled(number, words)
        if why:
            return None, _BAD, why
        if not low <= value <= high:
            return None, _BAD, "out_of_range"
        return value, _GOOD, ""

    return run


def _is_plain(register: Register) -> bool:
    """One 16-bit register with fixed scaling and nothing beside it: most of what plants have."""
    simple = register.type in (ValueType.U16, ValueType.I16) and register.word_order is WordOrder.BIG
    beside = (register.status, register.decimals_at, register.unit_at)
    return simple and not register.sentinels and all(place is None for place in beside)


def _plain_decoder(at: int, sign: int, line: _Linear, low: float, high: float) -> Decoder:
    a, b, c = line

    def run(words: Sequence[int]) -> tuple[float | None, Quality, str]:
        value = (((words[at] ^ sign) - sign) * a + b) / c
        return (value, _GOOD, "") if low <= value <= high else (None, _BAD, "out_of_range")

    return run


@functools.lru_cache(maxsize=1024)
def _cached_decoder(register: Register) -> Decoder:
    return compile_decoder(register, register.first)


def _raw_reader(register: Register, at: int) -> Callable[[Sequence[int]], tuple[int, float]]:
    """From words to (bit pattern, number)."""
    kind, count = register.type, register.type.words
    if register.word_order is WordOrder.BIG or kind is ValueType.BIT:
        if kind in (ValueType.BIT, ValueType.U16):
            return lambda words: (words[at], words[at])
        if kind is ValueType.I16:
            return lambda words: (words[at], (words[at] ^ 0x8000) - 0x8000)
    swapped = register.word_order in (WordOrder.BIG_SWAPPED, WordOrder.LITTLE_SWAPPED)
    step = -1 if register.word_order in (WordOrder.LITTLE, WordOrder.LITTLE_SWAPPED) else 1
    pack = struct.Struct(f"{'<' if swapped else '>'}{count}H").pack
    unpack = struct.Struct(">" + _STRUCT_CODES[kind.value[0]][2 * count]).unpack
    narrow = kind is ValueType.F32

    def read(words: Sequence[int]) -> tuple[int, float]:
        data = pack(*words[at : at + count][::step])
        number = unpack(data)[0]
        return int.from_bytes(data, "big"), _shortest_f32(number, data) if narrow else number

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


_Linear = tuple[int, int, int]  # value = (raw * a + b) / c
_Scaler = Callable[[float, Sequence[int]], tuple[float, str]]


def _scaler(register: Register, base: int) -> _Scaler:
    """From a raw number to (value, why); exact in decimals, rounded to float once."""
    apply = _apply_float if register.type.is_float else _apply_int
    if register.decimals_at is None and register.unit_at is None:
        fixed = _linear(register)
        if fixed == (1, 0, 1):
            return lambda raw, _words: (float(raw), "")
        return lambda raw, _words: (apply(raw, fixed), "")
    decimals_at = None if register.decimals_at is None else register.decimals_at - base
    unit_at = None if register.unit_at is None else register.unit_at - base
    factors = dict(register.unit_factors)
    known: dict[tuple[int, int], _Linear] = {}  # bounded: decimals 0..6 x listed codes

    def scale(raw: float, words: Sequence[int]) -> tuple[float, str]:
        decimals = 0 if decimals_at is None else words[decimals_at]
        code = 0 if unit_at is None else words[unit_at]
        if (line := known.get((decimals, code))) is None:
            if decimals > MAX_DECIMALS:
                return 0.0, "bad_decimals"
            if unit_at is not None and code not in factors:
                return 0.0, "unknown_unit"
            line = known[decimals, code] = _linear(register, decimals, factors.get(code, Decimal(1)))
        return apply(raw, line), ""

    return scale


def _linear(register: Register, decimals: int = 0, factor: Decimal = Decimal(1)) -> _Linear:
    slope = Fraction(register.scale) * Fraction(factor) / 10**decimals
    offset = Fraction(register.offset)
    common = math.lcm(slope.denominator, offset.denominator)
    return int(slope * common), int(offset * common), common


def _apply_int(raw: float, line: _Linear) -> float:
    a, b, c = line
    return (raw * a + b) / c  # int / int rounds correctly: 583 / 10 is 58.3


def _apply_float(raw: float, line: _Linear) -> float:
    a, b, c = line
    return float((Fraction(repr(raw)) * a + b) / c)


def _status_reader(register: Register, base: int) -> Callable[[Sequence[int]], str] | None:
    status = register.status
    if status is None:
        return None
    at, mask, states = status.address - base, status.mask, dict(status.states)
    return lambda words: states.get(words[at] & mask, "unknown_state")
