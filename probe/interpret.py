"""What a technician's look at a bus needs to compute: addresses, every reading of some words, reply times. Pure."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..sensors.registers import ADDRESSES, Block, Table, WordOrder

LATE_FACTOR = 1.5
TIMEOUT_FACTOR = 3.0
HUGE = 1e9
TINY = 1e-6
GATEWAY_EXCEPTIONS = (10, 11)  # a TCP gateway says so for a unit that is not there; no unit has answered

# --- addresses: a ValueError's arguments are a phrase of the probe and what it is about ---

_DIGITS = {"0": Table.COIL, "1": Table.DISCRETE, "3": Table.INPUT, "4": Table.HOLDING}


def parse_address(text: str) -> int:
    """An address as it is sent, decimal or 0x hexadecimal, 0..65535. Raises ValueError."""
    try:
        address = int(text, 0) if text.lower().startswith("0x") else int(text)
    except ValueError:
        raise ValueError("bad_address", text) from None
    if not 0 <= address < ADDRESSES:
        raise ValueError("bad_address", text)
    return address


def parse_register(text: str) -> tuple[Table, int]:
    """A register number of a manual (`40003`, `400003`, `30001`) as table and address: the first digit names the table,
    the others count from 1 (Modbus Application Protocol v1.1b3 §4.4). Raises ValueError."""
    table = _DIGITS.get(text[:1])
    number = int(text[1:]) if text.isascii() and text.isdigit() and len(text) in (5, 6) else 0
    if table is None or not 1 <= number <= ADDRESSES:
        raise ValueError("bad_register", text)
    return table, number - 1


def parse_ranges(text: str, low: int, high: int) -> tuple[int, ...]:
    """`1-20,245` as numbers in the order written, each once. Raises ValueError."""
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError("bad_ranges", text)
        numbers = range(int(first), int(last if dash else first) + 1)
        if not numbers or numbers[0] < low or numbers[-1] > high:
            raise ValueError("range_outside", low, high, part.strip())
        found.update(dict.fromkeys(numbers))
    return tuple(found)


# --- every way to read some words ---

LETTERS = {
    WordOrder.BIG: "ABCD",
    WordOrder.LITTLE: "CDAB",
    WordOrder.BIG_SWAPPED: "BADC",
    WordOrder.LITTLE_SWAPPED: "DCBA",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One register by itself."""

    address: int
    raw: int

    @property
    def signed(self) -> int:
        return (self.raw ^ 0x8000) - 0x8000

    @property
    def above_10000(self) -> int:
        """Where 10000 and more means negative: 10250 is -250 (KinCony)."""
        return 10000 - self.raw if self.raw >= 10000 else self.raw

    @property
    def bcd(self) -> int | None:
        """Four decimal digits, or None when a nibble is no digit."""
        text = f"{self.raw:04x}"
        return int(text) if text.isdecimal() else None

    @property
    def high(self) -> int:
        return self.raw >> 8

    @property
    def low(self) -> int:
        return self.raw & 0xFF

    @property
    def nibbles(self) -> tuple[int, int, int, int]:
        return self.raw >> 12, self.raw >> 8 & 15, self.raw >> 4 & 15, self.raw & 15

    @property
    def bits(self) -> tuple[int, ...]:
        """Numbers of the bits that are set, 15 first."""
        return tuple(bit for bit in range(15, -1, -1) if self.raw >> bit & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wide:
    """Two or four registers as one number in one word order."""

    address: int
    words: int
    order: WordOrder
    unsigned: int
    signed: int
    floating: float

    @property
    def plausible(self) -> bool:
        """Whether the float looks like a measurement."""
        return is_plausible(self.floating)


def is_plausible(number: float) -> bool:
    """No NaN or infinity, not huge, no denormal dust: 0 or 1e-6 <= |number| <= 1e9."""
    return math.isfinite(number) and (number == 0 or TINY <= abs(number) <= HUGE)


def words_of(address: int, raws: Sequence[int]) -> tuple[Word, ...]:
    """Each register by itself."""
    return tuple(Word(address=address + i, raw=raw) for i, raw in enumerate(raws))


def wides_of(address: int, raws: Sequence[int], words: int) -> Iterator[Wide]:
    """Every `words` (2 or 4) registers in a row in the four orders of `WordOrder`."""
    for start in range(len(raws) - words + 1):
        for order in WordOrder:
            data = ordered_bytes(raws[start : start + words], order)
            yield Wide(
                address=address + start,
                words=words,
                order=order,
                unsigned=int.from_bytes(data, "big"),
                signed=int.from_bytes(data, "big", signed=True),
                floating=struct.unpack(">f" if words == 2 else ">d", data)[0],
            )


def ordered_bytes(raws: Sequence[int], order: WordOrder) -> bytes:
    """The bytes of the words, most significant first, when the device sends them in `order`."""
    swapped = order in (WordOrder.BIG_SWAPPED, WordOrder.LITTLE_SWAPPED)
    step = -1 if order in (WordOrder.LITTLE, WordOrder.LITTLE_SWAPPED) else 1
    return struct.pack(f"{'<' if swapped else '>'}{len(raws)}H", *raws[::step])


def texts_of(raws: Sequence[int]) -> tuple[str, str]:
    """The words as ASCII, high byte first and low byte first; what cannot be printed is `·`."""
    return tuple(
        "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in ordered_bytes(raws, order))
        for order in (WordOrder.BIG, WordOrder.BIG_SWAPPED)
    )  # pyright: ignore[reportReturnType]


def narrower(block: Block) -> Iterator[Block]:
    """`block` and then fewer and fewer registers from the same address: a device may refuse to read past its end."""
    count = block.count
    while count:
        yield Block(table=block.table, address=block.address, count=count)
        count //= 2


# --- reply times ---


@dataclass(slots=True, kw_only=True)
class Tally:
    """Replies and failures of a unit.

    Attributes:
        times_ms: from request to reply, in order.
        failures: reason to how often (`timeout`, `bad_frame`, `exception_2`, ...).
    """

    times_ms: list[float] = field(default_factory=list[float])
    failures: Counter[str] = field(default_factory=Counter[str])

    def replied(self, reply_ms: float) -> None:
        self.times_ms.append(reply_ms)

    def failed(self, why: str) -> None:
        self.failures[why] += 1

    @property
    def asked(self) -> int:
        return len(self.times_ms) + self.failures.total()

    @property
    def error_pct(self) -> float:
        """Requests without a usable reply, % of all."""
        return 100 * self.failures.total() / self.asked if self.asked else 0.0

    def at(self, share: float) -> float:
        """The reply time that `share` (0..1) of the replies kept, ms, by nearest rank; 0 without a reply."""
        ordered = sorted(self.times_ms)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0

    @property
    def max_ms(self) -> float:
        return max(self.times_ms, default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What site.toml should say about waiting, ms. `late_max_ms` is None when nobody saw how late replies come."""

    timeout_ms: int
    late_max_ms: int | None


def advise(tallies: Iterable[Tally], *, waited_ms: int) -> Advice | None:
    """Times for site.toml from what was measured; None without a reply.

    `timeout_ms` is three times what 95 % of the replies kept, rounded up to 50, at least 100. `late_max_ms` is 1.5
    times the longest reply seen, rounded up to 100, and never below the timeout. A request that ended without its reply
    may still have had one after `waited_ms`; then `late_max_ms` is given only if we waited 2 s or more.
    """
    all_of = list(tallies)
    merged = Tally(times_ms=[t for one in all_of for t in one.times_ms])
    if not merged.times_ms:
        return None
    missed = any(one.failures["timeout"] for one in all_of)
    timeout_ms = max(100, _up(TIMEOUT_FACTOR * merged.at(0.95), 50))
    late_ms = max(_up(LATE_FACTOR * merged.max_ms, 100), timeout_ms)
    return Advice(timeout_ms=timeout_ms, late_max_ms=None if missed and waited_ms < LONG_WAIT_MS else late_ms)


LONG_WAIT_MS = 2000


def _up(number: float, step: int) -> int:
    return math.ceil(number / step) * step
