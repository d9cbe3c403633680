"""How much one check or one value tells of what a device is. Pure.

A register that any device may hold proves little: half of all registers are 0, and small numbers are more frequent
than large ones. So each check and each value counts by how seldom another device would pass it, in bits.
"""

from __future__ import annotations

import enum
import functools
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .decoding import FAILED_HIGH_MA, FAILED_LOW_MA, decode, decode_text, lowest_bit
from .layout import WORD, Block, Decoded, Register, Table, ValueType
from .profile import Check

EMPTY = 0.25  # what counts of a value whose registers are all 0, or may be mere codes
UNSAID = 0.1  # ... of which the device says that it is none
MOST_BITS = 8.0  # that one check or value may tell
SMALL = 10  # numbers below it are codes and switches of other devices, more often than values
DUST = 1e-6  # floats below it come of words in the wrong order
NO_LOOP_MA = 0.5  # currents between this and a failure signal are none of a 4-20 mA transmitter
STRANGE = frozenset(
    {"out_of_range", "unknown_state", "unknown_unit", "bad_decimals", "bad_bcd", "bad_digits", "not_a_number"}
)

Place = tuple[Table, int]


class Sign(enum.StrEnum):
    """What was seen of a device; `Reason` has the particulars."""

    FITS = "fits"  # a check
    DIFFERS = "differs"
    MUST_DIFFER = "must_differ"  # a decisive check
    REFUSED = "refused"  # a decisive check whose place the device says it has not
    UNREAD = "unread"  # a check whose place does not answer
    PLAUSIBLE = "plausible"  # a value
    STRANGE = "strange"  # a value that such a device never has: `why`
    IDLE = "idle"  # the device itself says that it does not measure: `why`
    DUST = "dust"
    ZERO = "zero"
    SMALL = "small"  # only numbers below 10
    NO_LOOP = "no_loop"
    NO_ANSWER = "no_answer"
    NOTHING_READ = "nothing_read"  # no value of the profile
    BABBLE = "babble"  # it has something everywhere, so that what it has here proves nothing
    ONLY_NUMBERS = "only_numbers"  # nothing in the profile tells the device from others
    TEXT = "text"  # what the device says of itself
    VARIANT_TOO = "variant_too"  # another variant fits as well
    PROFILE_TOO = "profile_too"  # another profile fits as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that speaks for or against a profile.

    Attributes:
        name: of a value or text, of another variant ("" is the profile itself), of other profiles.
        table, address: of a check's place.
        note, note_zh: what a check is about, or how to tell a variant.
        shown: what was read.
        why: of a value that is none, as in readings.
    """

    sign: Sign
    name: str = ""
    table: Table = Table.HOLDING
    address: int = 0
    note: str = ""
    note_zh: str = ""
    shown: str = ""
    why: str = ""

    @property
    def is_telling(self) -> bool:
        """Whether it says more than that a value is plausible."""
        return self.sign is not Sign.PLAUSIBLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a device has answered.

    Attributes:
        words: by place.
        refused: places that the device says it has not (exception 2). tables: whose function it does not know (1).
    """

    words: Mapping[Place, int]
    refused: frozenset[Place] = frozenset()
    tables: frozenset[Table] = frozenset()

    def read(self, table: Table, address: int, count: int) -> list[int] | None:
        """The words of some registers; None where one of them is not known."""
        found = [self.words.get((table, a)) for a in range(address, address + count)]
        return None if None in found else [word for word in found if word is not None]

    def lacks(self, table: Table, address: int) -> bool:
        """Whether the device says that it has no such place."""
        return table in self.tables or (table, address) in self.refused


def heard(answers: Mapping[Block, Sequence[int] | str]) -> Heard:
    """The answers to some reads: the words of each, or why there are none."""
    words: dict[Place, int] = {}
    refused: set[Place] = set()
    tables: set[Table] = set()
    for block, found in answers.items():
        if not isinstance(found, str):
            words |= {(block.table, block.address + i): word for i, word in enumerate(found)}
        elif found == "exception_1":
            tables.add(block.table)
        elif found == "exception_2" and block.count == 1:
            refused.add((block.table, block.address))
    return Heard(words=words, refused=frozenset(refused), tables=frozenset(tables))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one check or value says.

    Attributes:
        weight: 0..1, how well it fits.
        bits: how seldom another device would fit, if it fits.
        is_number: of a check: it is about a number that is a value anyway.
    """

    reason: Reason
    weight: float
    bits: float
    is_number: bool = False

    @property
    def sign(self) -> Sign:
        return self.reason.sign


# --- checks ---


def judge_check(check: Check, said: Heard, unit_id: int | None, numbers: Mapping[Place, int]) -> Found:
    """One check. Args: numbers: the bits of each place that are a value, as `number_bits`."""
    found = said.read(check.table, check.address, check.words)
    sign, shown = Sign.UNREAD, ""
    if found is not None:
        differs = Sign.MUST_DIFFER if check.decisive else Sign.DIFFERS
        sign = Sign.FITS if _passes(check, found, unit_id) else differs
        shown = repr(decode_text(found)) if check.text else str(_number(check, found))
    elif check.decisive and said.lacks(check.table, check.address):
        sign = Sign.REFUSED
    reason = Reason(
        sign=sign, table=check.table, address=check.address, note=check.note, note_zh=check.note_zh, shown=shown
    )
    return Found(
        reason=reason,
        weight=float(sign is Sign.FITS),
        bits=_check_bits(check, unit_id),
        is_number=bool(numbers.get((check.table, check.address), 0) & check.mask) and check.words == 1,
    )


def _number(check: Check, words: Sequence[int]) -> int:
    return (words[0] & check.mask) >> lowest_bit(check.mask)


def _passes(check: Check, words: Sequence[int], unit_id: int | None) -> bool:
    if check.text:
        return re.fullmatch(check.text, decode_text(words)) is not None
    number = _number(check, words)
    if check.is_unit_id:
        return number == unit_id
    if check.values:
        return number in check.values
    return check.low is not None and check.high is not None and check.low <= number <= check.high


# --- values ---


def number_bits(registers: Iterable[Register]) -> dict[Place, int]:
    """Which bits of which places are the numbers of some values themselves; states, units and decimals are not."""
    found: dict[Place, int] = {}
    for register in registers:
        words = register.type.words
        mask = WORD if register.mask is None or words > 1 else register.mask
        places = [(register.address + i, mask) for i in range(words)]
        if register.type is ValueType.PARTS:
            places = [(part.address, part.mask) for part in register.parts]
        for address, bits in places:
            found[register.table, address] = found.get((register.table, address), 0) | bits
    return found


def judge_value(register: Register, said: Heard, *, is_loop: bool) -> Found:
    """One value. Args: is_loop: it is the current of a 4-20 mA transmitter."""
    found = said.read(register.table, register.first, register.end - register.first)
    if found is None:
        return Found(reason=Reason(sign=Sign.NO_ANSWER, name=register.name), weight=0.0, bits=0.0)
    decoded = decode(register, found)
    sign = _sign(register, found, decoded, is_loop=is_loop)
    shown = "" if decoded.value is None else f"{decoded.value:g}"
    bits = _value_bits(register, is_loop=is_loop) if sign is Sign.PLAUSIBLE else 0.0
    weight = {Sign.PLAUSIBLE: 1.0, Sign.ZERO: EMPTY, Sign.SMALL: EMPTY, Sign.IDLE: UNSAID}.get(sign, 0.0)
    reason = Reason(sign=sign, name=register.name, shown=shown, why=decoded.why)
    return Found(reason=reason, weight=weight, bits=bits)


def _sign(register: Register, words: Sequence[int], decoded: Decoded, *, is_loop: bool) -> Sign:
    if decoded.value is None:
        return Sign.STRANGE if decoded.why in STRANGE else Sign.IDLE
    if register.type.is_float and 0 < abs(_raw(register, words)) < DUST:
        return Sign.DUST
    most = max(words[address - register.first] for address in register.used)
    if most == 0 and not register.table.is_bits:
        return Sign.ZERO
    if is_loop and not float(FAILED_LOW_MA) <= decoded.value < float(FAILED_HIGH_MA):
        return Sign.NO_LOOP if decoded.value > NO_LOOP_MA else Sign.ZERO
    return Sign.SMALL if most < SMALL and not register.table.is_bits else Sign.PLAUSIBLE


def _raw(register: Register, words: Sequence[int]) -> float:
    """The number as it stands on the wire."""
    at = register.address - register.first
    value = decode(_bare(register), words[at : at + register.type.words]).value
    return math.nan if value is None else value


@functools.lru_cache(maxsize=256)
def _bare(register: Register) -> Register:
    return Register(
        name=register.name,
        table=register.table,
        address=register.address,
        type=register.type,
        word_order=register.word_order,
    )


# --- how much it proves ---

_STEPS = 1024
_TRIES = 256


@functools.cache
def _numbers() -> tuple[int, ...]:
    """Words that are not 0 as devices hold them: as many below 10 as from 10 to 100, and so on."""
    return tuple(max(1, round((WORD + 1) ** ((i + 0.5) / _STEPS)) - 1) for i in range(_STEPS))


@functools.lru_cache(maxsize=1024)
def _check_bits(check: Check, unit_id: int | None) -> float:
    """How seldom the place of another device would pass: half of all words are 0."""
    if check.words > 1:
        return MOST_BITS if check.text else 0.0
    passing = sum(_passes(check, (word,), unit_id) for word in _numbers()) / _STEPS
    return _bits((passing + _passes(check, (0,), unit_id)) / 2)


@functools.lru_cache(maxsize=1024)
def _value_bits(register: Register, *, is_loop: bool) -> float:
    """How seldom words that are not 0 would decode to a good value."""
    if register.table.is_bits:
        return 0.0
    chance = random.Random(1)  # noqa: S311 - the same for everybody
    found = [chance.choices(_numbers(), k=register.end - register.first) for _ in range(_TRIES)]
    signs = [_sign(register, words, decode(register, words), is_loop=is_loop) for words in found]
    return _bits(signs.count(Sign.PLAUSIBLE) / _TRIES)


def _bits(chance: float) -> float:
    return min(MOST_BITS, -math.log2(max(chance, 2.0**-MOST_BITS)))
