"""The shape of a profile's TOML file, read strictly; docs/devices.md tells how to write one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from ..wording import show
from .layout import WORD, Output, Register, Table, Text, ValueType
from .profile import Check, Defaults, Profile, Variant
from .register_files import NAME, Address, Evidence, Mask, Model, Name, RegisterFile, TableName, Word, Words, unseen
from .registers import MAX_REGISTERS, ONE_BY_ONE

__all__ = ["NAME", "ProfileFile", "VariantFile"]


class DefaultsFile(Model):
    """The device as it leaves the factory."""

    unit_id: Annotated[int, Field(ge=1, le=247)] = 1
    baud: Literal[1200, 2400, 4800, 9600, 14400, 19200, 38400, 57600, 115200] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    table: TableName = "holding"

    def build(self) -> Defaults:
        return Defaults(unit_id=self.unit_id, baud=self.baud, parity=self.parity, stopbits=self.stopbits)


class OutputFile(Model):
    """A coil or a holding register that may be written."""

    name: Name
    name_zh: Words
    name_en: Words
    table: Literal["coil", "holding"] = "coil"
    address: Address
    states: Annotated[dict[Name, Word], Field(min_length=1)]
    multiple: bool = False

    def check(self) -> Iterator[tuple[str, str]]:
        for state, raw in self.states.items():
            if self.table == "coil" and raw > 1:
                yield f"states.{state}", f"must be 0 or 1, as the output is a coil {show(raw)}"

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


class TextFile(Model):
    """Letters in registers."""

    name: Name
    table: TableName | None = None
    address: Address
    words: Annotated[int, Field(ge=1, le=64)]
    swapped: bool = False


class CheckFile(Model):
    """What one place of such a device holds: exactly one of values, low with high, `is`, text."""

    table: TableName | None = None
    address: Address
    words: Annotated[int, Field(ge=1, le=64)] = 1
    mask: Mask = WORD
    values: list[Word] = Field(default_factory=list[Word])
    low: Word | None = None
    high: Word | None = None
    is_: Annotated[Literal["unit_id"] | None, Field(alias="is")] = None
    text: str = ""
    decisive: bool = False
    note: Words
    note_zh: str = ""

    def check(self) -> Iterator[tuple[str, str]]:
        if self.low is None and self.high is not None:
            yield "low", "is required beside high"
        if self.high is None and self.low is not None:
            yield "high", "is required beside low"
        if self.low is not None and self.high is not None and self.low > self.high:
            yield "low", f"must be at most high, {self.high} {show(self.low)}"
        ways = (bool(self.values), self.low is not None or self.high is not None, bool(self.is_), bool(self.text))
        if sum(ways) != 1:
            yield "", 'needs exactly one of values = [...], low with high, is = "unit_id", text'
        numbers = [(f"values[{i}]", value) for i, value in enumerate(self.values)]
        numbers += [(key, value) for key, value in (("low", self.low), ("high", self.high)) if value is not None]
        yield from unseen(self.mask, numbers)
        try:
            re.compile(self.text)
        except re.error as error:
            yield "text", f"must be a regular expression: {error} {show(self.text)}"

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
            note_zh=self.note_zh or self.note,
        )


class ProfileFile(Model):
    """A profile without its variants."""

    id: Name
    name: Words
    name_en: Words
    source: Words
    evidence: Evidence = "read"
    incomplete: str = ""
    max_gap: Annotated[int, Field(ge=0, le=MAX_REGISTERS)] = 0
    max_count: Annotated[int, Field(ge=1, le=MAX_REGISTERS)] = MAX_REGISTERS
    one_by_one: bool = False
    inter_frame_ms: Annotated[int, Field(ge=0, le=1000)] = 0
    takes_channels: bool = False
    defaults: DefaultsFile = DefaultsFile()
    registers: Annotated[list[RegisterFile], Field(min_length=1)]
    outputs: list[OutputFile] = Field(default_factory=list[OutputFile])
    texts: list[TextFile] = Field(default_factory=list[TextFile])
    identify: list[CheckFile] = Field(default_factory=list[CheckFile])

    def check(self) -> Iterator[tuple[str, str]]:
        for key, entries in (("registers", self.registers), ("outputs", self.outputs), ("texts", self.texts)):
            names = [entry.name for entry in entries]
            for i, name in enumerate(names):
                if name in names[:i]:
                    yield f"{key}[{i}].name", f"must be unique: {key}[{names.index(name)}] has it too {show(name)}"
        for i, register in enumerate(self._registers()):
            yield from ((f"registers[{i}]{key}", text) for key, text in self._place(register))
        if self.one_by_one and self.max_gap:
            yield "max_gap", f"must be 0 beside one_by_one {show(self.max_gap)}"
        if self.takes_channels and not any(r.unit == "mA" for r in self.registers):
            yield "takes_channels", 'needs registers with unit = "mA": the currents (got true)'

    def _place(self, register: Register) -> Iterator[tuple[str, str]]:
        """Whether a request can bring it."""
        is_bit, table = register.type is ValueType.BIT, register.table
        if is_bit and not table.is_bits:
            yield ".type", f"must be a number's type, such as u16, in table {table} {show(register.type.value)}"
        if table.is_bits and not is_bit:
            yield ".type", f'must be "bit" in table {table} {show(register.type.value)}'
        first, last = register.first, register.end - 1
        if last > WORD:
            yield ".address", f"must leave room for {last - first + 1} words up to 65535 {show(register.address)}"
        if last - first >= self.max_count:
            span = f"{last - first + 1} addresses, {first} to {last}, for its value and what stands beside it"
            yield "", f"must fit one request of at most {self.max_count} (max_count): it needs {span}"

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
        """The profile, with its variants."""
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


class VariantFile(Model):
    """What a variant changes: registers by name (only the keys that differ, `rename` to call one otherwise), `drop` of
    registers, other keys as a whole."""

    id: Name
    differs: Words
    tell: Words
    tell_zh: str = ""
    source: Words | None = None
    evidence: Evidence | None = None
    incomplete: str | None = None
    defaults: dict[str, Any] = Field(default_factory=dict[str, Any])
    registers: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    drop: list[Name] = Field(default_factory=list[Name])
    identify: list[dict[str, Any]] | None = None

    def merge(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The file's data as if this variant were the profile."""
        changes = {str(entry.get("name")): entry for entry in self.registers}
        kept = [entry for entry in data["registers"] if entry["name"] not in self.drop]
        known = [entry["name"] for entry in kept]
        merged = {**data, "defaults": {**data.get("defaults", {}), **self.defaults}}
        merged["registers"] = [_changed(entry, changes.get(entry["name"], {})) for entry in kept]
        merged["registers"] += [_changed(entry, {}) for name, entry in changes.items() if name not in known]
        whole = ("source", "evidence", "incomplete", "identify")
        return {**merged, **{key: getattr(self, key) for key in whole if getattr(self, key) is not None}}


def _changed(entry: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    both = {**entry, **change}
    name = both.pop("rename", both["name"])
    return {**both, "name": name}
