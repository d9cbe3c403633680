"""The shape of a profile's TOML file, read strictly; docs/devices.md tells how to write one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .gases import GASES, UNITS
from .layout import (
    ADDRESSES,
    WORD,
    Heartbeat,
    Output,
    Part,
    Register,
    Status,
    Table,
    Text,
    ValueType,
    WordOrder,
)
from .profile import Check, Defaults, Label, Profile, Variant, unit_factors
from .registers import MAX_REGISTERS, ONE_BY_ONE, plan

NAME = re.compile(r"[a-z0-9_]+")


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"must be a number (got {value!r})")
    return Decimal(value)


def _listed(value: object) -> object:
    """One `[registers.status]` table is a list of one."""
    return [value] if isinstance(value, dict) else value


Number = Annotated[Decimal, BeforeValidator(_number), Field(allow_inf_nan=False)]
Address = Annotated[int, Field(ge=0, lt=ADDRESSES)]
Word = Annotated[int, Field(ge=0, le=WORD)]
Mask = Annotated[int, Field(ge=1, le=WORD)]
Name = Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
Why = Annotated[str, Field(pattern=r"^[a-z0-9_]*$")]
Words = Annotated[str, Field(min_length=1)]
TableName = Literal["coil", "discrete", "holding", "input"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class StateFile(_Model):
    """One code, or with `to` all from `code` to it."""

    code: Word
    to: Word | None = None
    why: Why
    uncertain: bool = False


class StatusFile(_Model):
    """Either the states that are known, or `nonzero`: any bit under the mask means that."""

    address: Address
    mask: Mask = WORD
    states: list[StateFile] = []
    nonzero: Why = ""
    other: Why = ""

    @model_validator(mode="after")
    def _check(self) -> StatusFile:
        if bool(self.states) == bool(self.nonzero):
            raise ValueError("states or nonzero must be given, one of them")
        if self.nonzero and self.other:
            raise ValueError("other belongs to states, not to nonzero")
        return self

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


class FactorFile(_Model):
    """A unit code of the device: what its number is multiplied with, or of gases the unit."""

    code: Word
    factor: Number | None = None
    unit: Words | None = None

    @model_validator(mode="after")
    def _check(self) -> FactorFile:
        if (self.factor is None) == (self.unit is None):
            raise ValueError("factor or unit must be given, one of them")
        if self.unit is not None and self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)} (got {self.unit!r})")
        return self


class PartFile(_Model):
    address: Address
    mask: Mask = WORD
    times: Annotated[int, Field(ge=1)] = 1
    most: Word | None = None


class HeartbeatFile(_Model):
    address: Address
    frozen_s: Annotated[Number, Field(gt=0)]


class DefaultsFile(_Model):
    unit_id: Annotated[int, Field(ge=1, le=247)] = 1
    baud: Literal[1200, 2400, 4800, 9600, 14400, 19200, 38400, 57600, 115200] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    table: TableName = "holding"

    def build(self) -> Defaults:
        return Defaults(unit_id=self.unit_id, baud=self.baud, parity=self.parity, stopbits=self.stopbits)


class RegisterFile(_Model):
    name: Name
    name_zh: Words
    name_en: Words
    unit: str
    quantity: Literal["temperature", "humidity", "pressure", "gas", "other"]
    gas: str = ""
    decimals: Annotated[int, Field(ge=0, le=6)]
    evidence: Literal["", "read", "second_hand", "memory", "generic"] = ""
    address: Address
    table: TableName | None = None
    type: Literal["bit", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd16", "bcd32", "parts"]
    word_order: Literal["big", "little", "big_swapped", "little_swapped"] = "big"
    mask: Annotated[int, Field(ge=1)] | None = None
    negative_from: Annotated[int, Field(ge=1)] | None = None
    parts: list[PartFile] = []
    scale: Number = Decimal(1)
    offset: Number = Decimal(0)
    gain: Annotated[str, Field(pattern=r"^[1-9][0-9]*/[1-9][0-9]*$")] = "1/1"
    low: Number | None = None
    high: Number | None = None
    sentinels: list[int] = []
    decimals_at: Address | None = None
    decimals_mask: Mask = WORD
    unit_at: Address | None = None
    unit_mask: Mask = WORD
    unit_factors: list[FactorFile] = []
    status: Annotated[list[StatusFile], BeforeValidator(_listed)] = []
    heartbeat: HeartbeatFile | None = None

    @model_validator(mode="after")
    def _check(self) -> RegisterFile:
        kind = ValueType(self.type)
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be less than high (got {self.low} and {self.high})")
        if (self.unit_at is None) != (not self.unit_factors):
            raise ValueError("unit_at and unit_factors must be given together")
        if self.mask is not None and (not kind.is_integer or self.mask >> (16 * kind.words)):
            raise ValueError(f"mask must fit an integer type (got 0x{self.mask:X} of {self.type})")
        if self.negative_from is not None and (not kind.is_integer or kind.is_signed):
            raise ValueError(f"negative_from belongs to unsigned types (got {self.type})")
        if (kind is ValueType.PARTS) != bool(self.parts):
            raise ValueError("type parts and the list of parts must be given together")
        if self.parts and self.address != min(part.address for part in self.parts):
            raise ValueError(f"address must be the lowest of its parts (got {self.address})")
        self._check_gas()
        return self

    def _check_gas(self) -> None:
        by_unit = any(f.unit is not None for f in self.unit_factors)
        if self.gas and self.gas not in GASES:
            raise ValueError(f"gas must be one of {', '.join(GASES)} (got {self.gas!r})")
        if (self.gas or by_unit) and (self.quantity != "gas" or self.unit not in UNITS):
            raise ValueError(f"unit must be one of {', '.join(UNITS)}, and quantity gas (got {self.unit!r})")
        if by_unit and any(f.unit is None for f in self.unit_factors):
            raise ValueError("unit_factors must have either units or factors")

    def _factors(self) -> tuple[tuple[int, Any], ...]:
        codes = [(f.code, f.unit) for f in self.unit_factors if f.unit is not None]
        plain = tuple((f.code, f.factor) for f in self.unit_factors if f.factor is not None)
        return plain or unit_factors(codes, self.unit, self.gas)

    def build(self, table: Table) -> Register:
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
            heartbeat=self._heartbeat(),
        )

    def _heartbeat(self) -> Heartbeat | None:
        beat = self.heartbeat
        return None if beat is None else Heartbeat(address=beat.address, frozen_s=float(beat.frozen_s))

    def label(self) -> Label:
        return Label(
            name=self.name,
            name_zh=self.name_zh,
            name_en=self.name_en,
            unit=self.unit,
            quantity=self.quantity,
            decimals=self.decimals,
            gas=self.gas,
            unit_codes=tuple((f.code, f.unit) for f in self.unit_factors if f.unit is not None),
            evidence=self.evidence,
        )


class OutputFile(_Model):
    name: Name
    name_zh: Words
    name_en: Words
    table: Literal["coil", "holding"] = "coil"
    address: Address
    states: Annotated[dict[Name, Word], Field(min_length=1)]
    multiple: bool = False

    @model_validator(mode="after")
    def _check(self) -> OutputFile:
        if self.table == "coil" and not set(self.states.values()) <= {0, 1}:
            raise ValueError(f"states of a coil must be 0 or 1 (got {dict(self.states)})")
        return self

    def build(self) -> Output:
        return Output(
            name=self.name,
            table=Table(self.table),
            address=self.address,
            states=tuple(self.states.items()),
            multiple=self.multiple,
            name_zh=self.name_zh,
            name_en=self.name_en,
        )


class TextFile(_Model):
    name: Name
    table: TableName | None = None
    address: Address
    words: Annotated[int, Field(ge=1, le=64)]
    swapped: bool = False


class CheckFile(_Model):
    """Exactly one of values, low with high, `is`, text."""

    table: TableName | None = None
    address: Address
    words: Annotated[int, Field(ge=1, le=64)] = 1
    mask: Mask = WORD
    values: list[Word] = []
    low: Word | None = None
    high: Word | None = None
    is_: Annotated[Literal["", "unit_id"], Field(alias="is")] = ""
    text: str = ""
    decisive: bool = False
    note: Words

    @model_validator(mode="after")
    def _check(self) -> CheckFile:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high must be given together")
        ways = (bool(self.values), self.low is not None, bool(self.is_), bool(self.text))
        if sum(ways) != 1:
            raise ValueError('exactly one of values, low and high, is = "unit_id", text must be given')
        try:
            re.compile(self.text)
        except re.error as error:
            raise ValueError(f"text must be a regular expression: {error} (got {self.text!r})") from None
        return self

    def build(self, table: Table) -> Check:
        return Check(
            table=table,
            address=self.address,
            words=self.words,
            mask=self.mask,
            values=tuple(self.values),
            low=self.low,
            high=self.high,
            is_unit_id=self.is_ == "unit_id",
            text=self.text,
            decisive=self.decisive,
            note=self.note,
        )


class ProfileFile(_Model):
    """A profile without its variants."""

    id: Name
    name: Words
    name_en: Words
    source: Words
    evidence: Literal["read", "second_hand", "memory", "generic"] = "read"
    incomplete: str = ""
    max_gap: Annotated[int, Field(ge=0, le=MAX_REGISTERS)] = 0
    max_count: Annotated[int, Field(ge=1, le=MAX_REGISTERS)] = MAX_REGISTERS
    one_by_one: bool = False
    inter_frame_ms: Annotated[int, Field(ge=0, le=1000)] = 0
    takes_channels: bool = False
    defaults: DefaultsFile = DefaultsFile()
    registers: Annotated[list[RegisterFile], Field(min_length=1)]
    outputs: list[OutputFile] = []
    texts: list[TextFile] = []
    identify: list[CheckFile] = []

    @model_validator(mode="after")
    def _check(self) -> ProfileFile:
        wrong: list[str] = []
        for key, entries in (("registers", self.registers), ("outputs", self.outputs), ("texts", self.texts)):
            names = [entry.name for entry in entries]
            repeated = sorted({n for n in names if names.count(n) > 1})
            wrong += [f"{key}: name must be unique (got {n!r} again)" for n in repeated]
        for index, register in enumerate(self._registers()):
            if (register.type is ValueType.BIT) != register.table.is_bits:
                wrong.append(f"registers[{index}].type: {register.type} does not fit table {register.table}")
        if self.one_by_one and self.max_gap:
            wrong.append(f"max_gap: must be 0 beside one_by_one (got {self.max_gap})")
        if self.takes_channels and not any(r.unit == "mA" for r in self.registers):
            wrong.append("takes_channels: needs registers with the unit mA")
        try:
            plan(self._registers(), max_gap=self._gap(), max_count=self.max_count)
        except ValueError as error:
            wrong.append(f"registers: {error}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _gap(self) -> int:
        return ONE_BY_ONE if self.one_by_one else self.max_gap

    def _table(self, own: str | None) -> Table:
        return Table(own or self.defaults.table)

    def _registers(self) -> tuple[Register, ...]:
        return tuple(r.build(self._table(r.table)) for r in self.registers)

    def _texts(self) -> tuple[Text, ...]:
        return tuple(
            Text(name=t.name, table=self._table(t.table), address=t.address, words=t.words, swapped=t.swapped)
            for t in self.texts
        )

    def build(self, variants: tuple[Variant, ...] = ()) -> Profile:
        return Profile(
            id=self.id,
            name=self.name,
            name_en=self.name_en,
            source=self.source,
            evidence=self.evidence,
            incomplete=self.incomplete,
            defaults=self.defaults.build(),
            max_gap=self._gap(),
            max_count=self.max_count,
            inter_frame_ms=self.inter_frame_ms,
            takes_channels=self.takes_channels,
            registers=self._registers(),
            labels=tuple(r.label() for r in self.registers),
            outputs=tuple(o.build() for o in self.outputs),
            texts=self._texts(),
            checks=tuple(c.build(self._table(c.table)) for c in self.identify),
            variants=variants,
        )


class VariantFile(_Model):
    """What a variant changes: registers by name (only the keys that differ, `rename` to call one otherwise), `drop` of
    registers, other keys as a whole."""

    id: Name
    differs: Words
    tell: Words
    source: Words | None = None
    evidence: Literal["read", "second_hand", "memory", "generic"] | None = None
    incomplete: str | None = None
    defaults: dict[str, Any] = {}
    registers: list[dict[str, Any]] = []
    drop: list[Name] = []
    identify: list[dict[str, Any]] | None = None

    def merge(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The file's data as if this variant were the profile."""
        changes = {str(entry.get("name")): entry for entry in self.registers}
        kept = [entry for entry in data["registers"] if entry["name"] not in self.drop]
        known = [entry["name"] for entry in kept]
        merged = {**data, "defaults": {**data.get("defaults", {}), **self.defaults}}
        merged["registers"] = [_changed(entry, changes.get(entry["name"], {})) for entry in kept]
        merged["registers"] += [entry for name, entry in changes.items() if name not in known]
        whole = ("source", "evidence", "incomplete", "identify")
        return {**merged, **{key: getattr(self, key) for key in whole if getattr(self, key) is not None}}


def _changed(entry: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    both = {**entry, **change}
    name = both.pop("rename", both["name"])
    return {**both, "name": name}
