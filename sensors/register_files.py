"""The shape of a register in a profile's TOML file, read strictly; docs/devices.md tells what its keys mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ..wording import show, suggest
from .decoding import lowest_bit
from .gases import GASES, UNITS
from .layout import ADDRESSES, WORD, Heartbeat, Part, Register, Status, Table, ValueType, WordOrder
from .profile import Label, unit_factors

NAME = re.compile(r"[a-z0-9_]+")
NAME_PATTERN = rf"^{NAME.pattern}$"
WHY_PATTERN = r"^[a-z0-9_]*$"
FRACTION_PATTERN = r"^[1-9][0-9]*/[1-9][0-9]*$"
_MOST_DIGITS = 30  # of a number, before or behind its point


class TableError(ValueError):
    """What is wrong with a table although each of its keys has the right shape.

    Args:
        problems: (key of the table, or "" for the table itself; what would be right, with the value).
    """

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{key}: {text}" for key, text in self.problems))


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise PydanticCustomError("float_type", "must be a number")
    number = Decimal(value)
    if number.is_finite() and number and abs(number.adjusted()) > _MOST_DIGITS:
        raise PydanticCustomError("too_far", "must be a number of at most 30 digits")
    return number


def _listed(value: object) -> object:
    """One `[registers.status]` table is a list of one."""
    return [value] if isinstance(value, dict) else value


Number = Annotated[Decimal, BeforeValidator(_number), Field(allow_inf_nan=False)]
Address = Annotated[int, Field(ge=0, le=ADDRESSES - 1)]
Word = Annotated[int, Field(ge=0, le=WORD)]
Mask = Annotated[int, Field(ge=1, le=WORD)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Why = Annotated[str, Field(pattern=WHY_PATTERN)]
Words = Annotated[str, Field(min_length=1)]
TableName = Literal["coil", "discrete", "holding", "input"]
Evidence = Literal["read", "second_hand", "memory", "generic"]


class Model(BaseModel):
    """A TOML table. `check` tells what its keys mean together; it runs when each of them has the right shape."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    @model_validator(mode="after")
    def _check(self) -> Model:
        if found := tuple(self.check()):
            raise TableError(found)
        return self

    def check(self) -> Iterator[tuple[str, str]]:
        """As `TableError`."""
        yield from ()


def one_of(names: Iterable[str], got: str) -> str:
    """`must be one of …`, with the one that is meant."""
    known = tuple(names)
    return f"must be one of {', '.join(known)}{suggest(got, known)} {show(got)}"


def unseen(mask: int, numbers: Iterable[tuple[str, int]]) -> Iterator[tuple[str, str]]:
    """Of (key, number) those that never come through a mask."""
    most = mask >> lowest_bit(mask)
    for key, number in numbers:
        if number > most or number << lowest_bit(mask) & ~mask:
            yield key, f"must be a number that mask 0x{mask:04X} lets through, at most {most} {show(number)}"


class StateFile(Model):
    """One code, or with `to` all from `code` to it."""

    code: Word
    to: Word | None = None
    why: Why
    uncertain: bool = False

    def check(self) -> Iterator[tuple[str, str]]:
        if self.to is not None and self.to <= self.code:
            yield "to", f"must be more than code, {self.code} {show(self.to)}"


class StatusFile(Model):
    """Either the states that are known, or `nonzero`: any bit under the mask means that."""

    address: Address
    mask: Mask = WORD
    states: list[StateFile] = Field(default_factory=list[StateFile])
    nonzero: Why = ""
    other: Why = ""

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.states and not self.nonzero:
            yield "", 'needs states = [{ code = 1, why = "" }, ...], or nonzero = "fault"'
        if self.states and self.nonzero:
            yield "nonzero", f"does not go with states: take one of the two out {show(self.nonzero)}"
        if self.other and self.nonzero:
            yield "other", f"belongs to states, not to nonzero: take it out {show(self.other)}"
        codes = [state.code for state in self.states]
        yield from unseen(self.mask, ((f"states[{i}].code", code) for i, code in enumerate(codes)))
        for i, code in enumerate(codes):
            if code in codes[:i]:
                yield f"states[{i}].code", f"must be unique: states[{codes.index(code)}] has it too {show(code)}"

    def build(self) -> Status:
        if self.nonzero:
            return Status(address=self.address, mask=self.mask, states=((0, ""),), other=self.nonzero)
        return Status(
            address=self.address,
            mask=self.mask,
            states=tuple((s.code, s.why) for s in self.states if s.to is None),
            ranges=tuple((s.code, s.to, s.why) for s in self.states if s.to is not None),
            other=self.other or "unknown_state",
            uncertain=tuple(dict.fromkeys(s.why for s in self.states if s.uncertain)),
        )


class FactorFile(Model):
    """A unit code of the device: what its number is multiplied with, or of gases the unit."""

    code: Word
    factor: Number | None = None
    unit: Words | None = None

    def check(self) -> Iterator[tuple[str, str]]:
        if self.factor is None and self.unit is None:
            yield "", "needs a factor, or of gases a unit"
        if self.factor is not None and self.unit is not None:
            yield "unit", f"does not go with factor: take one of the two out {show(self.unit)}"
        elif self.unit is not None and self.unit not in UNITS:
            yield "unit", one_of(UNITS, self.unit)


class PartFile(Model):
    """Some bits of a word, and what one of them counts for."""

    address: Address
    mask: Mask = WORD
    times: Annotated[int, Field(ge=1)] = 1
    most: Word | None = None


class HeartbeatFile(Model):
    """A word that a living device keeps changing."""

    address: Address
    frozen_s: Annotated[Number, Field(gt=0)]


class RegisterFile(Model):
    """One value of the device."""

    name: Name
    name_zh: Words
    name_en: Words
    unit: str
    quantity: Literal["temperature", "humidity", "pressure", "gas", "other"]
    gas: str = ""
    decimals: Annotated[int, Field(ge=0, le=6)]
    evidence: Evidence | None = None
    address: Address
    table: TableName | None = None
    type: Literal["bit", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd16", "bcd32", "parts"]
    word_order: Literal["big", "little", "big_swapped", "little_swapped"] = "big"
    mask: Annotated[int, Field(ge=1)] | None = None
    negative_from: Annotated[int, Field(ge=1)] | None = None
    parts: list[PartFile] = Field(default_factory=list[PartFile])
    scale: Number = Decimal(1)
    offset: Number = Decimal(0)
    gain: Annotated[str, Field(pattern=FRACTION_PATTERN)] = "1/1"
    low: Number | None = None
    high: Number | None = None
    sentinels: list[int] = Field(default_factory=list[int])
    decimals_at: Address | None = None
    decimals_mask: Mask = WORD
    unit_at: Address | None = None
    unit_mask: Mask = WORD
    unit_factors: list[FactorFile] = Field(default_factory=list[FactorFile])
    status: Annotated[list[StatusFile], BeforeValidator(_listed)] = Field(default_factory=list[StatusFile])
    heartbeat: HeartbeatFile | None = None

    def check(self) -> Iterator[tuple[str, str]]:
        if self.scale == 0:
            yield "scale", "must not be 0: every value would be the same (got 0)"
        if self.low is not None and self.high is not None and self.low >= self.high:
            yield "low", f"must be less than high, {self.high} {show(self.low)}"
        if self.unit_at is not None and not self.unit_factors:
            yield "unit_factors", "is required beside unit_at: a list of { code, factor }, or of gases { code, unit }"
        if self.unit_at is None and self.unit_factors:
            yield "unit_at", "is required beside unit_factors: the address of the unit code"
        yield from self._check_bits()
        yield from self._check_gas()

    def _check_bits(self) -> Iterator[tuple[str, str]]:
        kind = ValueType(self.type)
        if self.mask is not None and not kind.is_integer:
            yield "mask", f"belongs to whole numbers, not to type {self.type}: take it out (got 0x{self.mask:X})"
        elif self.mask is not None and self.mask >> (16 * kind.words):
            yield "mask", f"must have at most {16 * kind.words} bits, as type {self.type} has (got 0x{self.mask:X})"
        if self.negative_from is not None and (not kind.is_integer or kind.is_signed):
            what = f"belongs to the types u16, u32 and u64, not to {self.type}: take it out"
            yield "negative_from", f"{what} {show(self.negative_from)}"
        if kind is ValueType.PARTS and not self.parts:
            yield "parts", 'is required beside type = "parts": a list of { address, mask, times }'
        if kind is not ValueType.PARTS and self.parts:
            yield "parts", f'belongs to type = "parts", not to {self.type}: take it out'
        if self.parts and self.address != (lowest := min(part.address for part in self.parts)):
            yield "address", f"must be the lowest address of its parts, {lowest} {show(self.address)}"

    def _check_gas(self) -> Iterator[tuple[str, str]]:
        by_unit = [factor for factor in self.unit_factors if factor.unit is not None]
        if self.gas and self.gas not in GASES:
            yield "gas", one_of(GASES, self.gas)
        if self.gas and self.quantity != "gas":
            yield "quantity", f'must be "gas" where a gas is named {show(self.quantity)}'
        elif by_unit and self.quantity != "gas":
            yield "quantity", f'must be "gas" where unit_factors have units {show(self.quantity)}'
        elif (self.gas or by_unit) and self.unit not in UNITS:
            yield "unit", one_of(UNITS, self.unit)
        if by_unit and len(by_unit) < len(self.unit_factors):
            yield "unit_factors", "must all have a unit, or all a factor"

    def _factors(self) -> tuple[tuple[int, Any], ...]:
        codes = [(f.code, f.unit) for f in self.unit_factors if f.unit is not None]
        plain = tuple((f.code, f.factor) for f in self.unit_factors if f.factor is not None)
        return plain or unit_factors(codes, self.unit, self.gas)

    def build(self, table: Table) -> Register:
        """The register, in the table of the file where it names none of its own."""
        beat = self.heartbeat
        return Register(
            name=self.name,
            table=table,
            address=self.address,
            type=ValueType(self.type),
            word_order=WordOrder(self.word_order),
            mask=self.mask,
            negative_from=self.negative_from,
            parts=tuple(Part(address=p.address, mask=p.mask, times=p.times, most=p.most) for p in self.parts),
            scale=self.scale,
            offset=self.offset,
            gain=Fraction(self.gain),
            low=None if self.low is None else float(self.low),
            high=None if self.high is None else float(self.high),
            sentinels=tuple(self.sentinels),
            decimals_at=self.decimals_at,
            decimals_mask=self.decimals_mask,
            unit_at=self.unit_at,
            unit_mask=self.unit_mask,
            unit_factors=self._factors(),
            status=tuple(s.build() for s in self.status),
            heartbeat=None if beat is None else Heartbeat(address=beat.address, frozen_s=float(beat.frozen_s)),
        )

    def label(self) -> Label:
        """What people see of it."""
        return Label(
            name=self.name,
            name_zh=self.name_zh,
            name_en=self.name_en,
            unit=self.unit,
            quantity=self.quantity,
            decimals=self.decimals,
            gas=self.gas,
            unit_codes=tuple((f.code, f.unit) for f in self.unit_factors if f.unit is not None),
            evidence=self.evidence or "",
        )
