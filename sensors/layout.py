"""What a register map is made of: tables, types, status, heartbeat, 4-20 mA. Values without behaviour."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from ..words import Quality

ADDRESSES = 0x1_0000
WORD = 0xFFFF


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
    BCD16 = "bcd16"  # four decimal digits
    BCD32 = "bcd32"  # eight
    PARTS = "parts"  # a whole number that is put together from `Register.parts`

    @property
    def words(self) -> int:
        """Registers (or bits) that one value takes; `parts` counts the first of its own."""
        if self in (ValueType.BIT, ValueType.PARTS):
            return 1
        return int(self.value[-2:]) // 16

    @property
    def is_float(self) -> bool:
        return self in (ValueType.F32, ValueType.F64)

    @property
    def is_integer(self) -> bool:
        """Two's complement or unsigned, of 16 to 64 bits."""
        return self.value[0] in "ui"

    @property
    def is_signed(self) -> bool:
        return self.value[0] == "i"


class WordOrder(enum.StrEnum):
    """Order on the wire of the bytes ABCD (A most significant)."""

    BIG = "big"  # ABCD
    LITTLE = "little"  # CDAB: least significant register first
    BIG_SWAPPED = "big_swapped"  # BADC: bytes of each register exchanged
    LITTLE_SWAPPED = "little_swapped"  # DCBA

    @property
    def is_swapped(self) -> bool:
        return self in (WordOrder.BIG_SWAPPED, WordOrder.LITTLE_SWAPPED)

    @property
    def is_little(self) -> bool:
        return self in (WordOrder.LITTLE, WordOrder.LITTLE_SWAPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some bits of one word, and what they count for in a value of type `parts`.

    Attributes:
        mask: which bits; they are shifted down to bit 0.
        times: what one of them is worth.
        most: the greatest number that they may hold, such as 9 for a decimal digit; above it the value is bad
            `bad_digits`.
    """

    address: int
    mask: int = WORD
    times: int = 1
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A place beside the value where the device says whether it measures: warm-up and inhibit are no measurements.

    The bits under `mask` are shifted down to bit 0 and looked up in `states`, then in `ranges`.

    Attributes:
        address: in the same table as the value.
        states: (code, why); an empty `why` means measuring.
        ranges: (lowest code, highest code, why).
        other: `why` of a code that is listed nowhere.
        uncertain: reasons that leave a value, but an uncertain one.
    """

    address: int
    states: tuple[tuple[int, str], ...] = ()
    ranges: tuple[tuple[int, int, str], ...] = ()
    other: str = "unknown_state"
    mask: int = WORD
    uncertain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A word that a living device keeps changing.

    Attributes:
        frozen_s: the value is bad `frozen` when this word was the same for so long, and in at least three reads.
    """

    address: int
    frozen_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A current of 4-20 mA and what it stands for.

    Attributes:
        low, high: value at 4 mA and at 20 mA; a falling range has low above high.
    """

    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One value of a device.

    Value = (raw x scale / 10**decimals x factor of the unit code + offset) x gain, exact in fractions, rounded once to
    float. With `loop` that is a current in mA, and the value is what the current stands for.

    Attributes:
        name: last part of the point id, `[a-z0-9_]+`.
        address: of the first word, 0..65535, as it is sent on the wire (not 4xxxx notation).
        mask: of an integer type: only these bits, shifted down to bit 0; a signed type is signed at their width.
        negative_from: raw numbers from here on mean `negative_from - raw`: 10250 is -250 when this is 10000.
        parts: of type `parts`: the value is the sum; `address` is the lowest address of them.
        low, high: outside of them the value is bad `out_of_range`.
        sentinels: raw bit patterns that mean "no value", signed or unsigned notation.
        decimals_at: address of a register with the number of decimals (0..6) of the raw value, under `decimals_mask`.
        unit_at, unit_factors: address of a unit code, under `unit_mask`, and (code, factor to the point's unit);
            another code is bad `unknown_unit`.
        gain: to another unit of the same quantity.
        status: where the device says whether it measures at all; the first that says no wins.
    """

    name: str
    table: Table
    address: int
    type: ValueType
    word_order: WordOrder = WordOrder.BIG
    mask: int | None = None
    negative_from: int | None = None
    parts: tuple[Part, ...] = ()
    scale: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)
    low: float | None = None
    high: float | None = None
    sentinels: tuple[int, ...] = ()
    decimals_at: int | None = None
    decimals_mask: int = WORD
    unit_at: int | None = None
    unit_mask: int = WORD
    unit_factors: tuple[tuple[int, Decimal | Fraction], ...] = ()
    gain: Fraction = Fraction(1)
    status: tuple[Status, ...] = ()
    heartbeat: Heartbeat | None = None
    loop: Loop | None = None

    @property
    def first(self) -> int:
        """Lowest address that must be read in one request to decode this value."""
        return min(self.address, *self._companions())

    @property
    def end(self) -> int:
        """One past the highest address."""
        return max(self.address + self.type.words, *(a + 1 for a in self._companions()))

    @property
    def used(self) -> tuple[int, ...]:
        """Addresses that decide what the value is; those between them are only read along."""
        own = range(self.address, self.address + self.type.words)
        return tuple(sorted({*own, *self._companions()}))

    def _companions(self) -> tuple[int, ...]:
        beat = self.heartbeat.address if self.heartbeat else None
        places = (self.address, self.decimals_at, self.unit_at, beat)
        several = (*(s.address for s in self.status), *(p.address for p in self.parts))
        return (*(a for a in places if a is not None), *several)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """ASCII letters in registers, two in each: serial numbers, names of gases. Never a reading; see `decode_text`.

    Attributes:
        words: registers that it takes.
        swapped: the second letter stands in the high byte.
    """

    name: str
    table: Table
    address: int
    words: int
    swapped: bool = False


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
    """`value` is None when `quality` is bad; `why` is empty when it is good."""

    value: float | None
    quality: Quality
    why: str = ""
