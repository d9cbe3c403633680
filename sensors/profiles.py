"""The catalogue: one TOML file for each kind of device, read strictly."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..errors import ConfigError
from ..words import Point
from .buses import UnitSpec
from .registers import ADDRESSES, MAX_REGISTERS, Register, Status, Table, ValueType, WordOrder, plan

CATALOGUE = Path(__file__).with_name("catalogue")
NAME = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """How people see one register: its words, unit and number format."""

    name: str
    name_zh: str
    name_en: str
    unit: str
    quantity: str
    decimals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """How the device leaves the factory; a site may have set it otherwise."""

    unit_id: int
    baud: int
    parity: str
    stopbits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of device.

    Attributes:
        source: the document that the register map was taken from.
        registers, labels: in the order of the file, one label for each register.
        max_gap, max_count: limits of block reads.
    """

    id: str
    name: str
    name_en: str
    source: str
    defaults: Defaults
    max_gap: int
    max_count: int
    registers: tuple[Register, ...]
    labels: tuple[Label, ...]

    def points(self, device: str, poll_s: float, *, place: str = "", place_en: str = "") -> tuple[Point, ...]:
        """Metadata of the points of one such device.

        Args:
            device: `area.device`.
            place, place_en: put before the names (`助剂库` + `湿度`, `Auxiliary store` + `humidity`).
        """
        return tuple(
            Point(
                id=f"{device}.{register.name}",
                name=f"{place}{label.name_zh}",
                name_en=f"{place_en} {label.name_en}".strip(),
                unit=label.unit,
                quantity=label.quantity,
                decimals=label.decimals,
                poll_s=poll_s,
                low=register.low,
                high=register.high,
            )
            for register, label in zip(self.registers, self.labels, strict=True)
        )

    def unit(self, device: str, unit_id: int, poll_s: float, *, timeout_ms: int | None = None) -> UnitSpec:
        """One such device (`area.device`) on a bus."""
        return UnitSpec(
            device=device,
            unit_id=unit_id,
            registers=self.registers,
            poll_s=poll_s,
            timeout_ms=timeout_ms,
            max_gap=self.max_gap,
            max_count=self.max_count,
        )


def load_catalogue(folder: Path | None = None) -> dict[str, Profile]:
    """Every profile of a folder (default: the one that is shipped), by id.

    Raises:
        ConfigError: with every problem of every file, each `file: path: what (got value)`.
    """
    folder = CATALOGUE if folder is None else folder
    profiles: dict[str, Profile] = {}
    problems: list[str] = []
    if not folder.is_dir():
        raise ConfigError(str(folder), ["must be a folder with *.toml profiles"])
    for path in sorted(folder.glob("*.toml")):
        found, wrong = _load(path)
        problems += [f"{path.name}: {text}" for text in wrong]
        if found is not None:
            profiles[found.id] = found
    if problems:
        raise ConfigError(str(folder), problems)
    return profiles


def _load(path: Path) -> tuple[Profile | None, list[str]]:
    try:
        data = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
        model = _ProfileFile.model_validate(data)
    except ValidationError as error:
        return None, [_problem(e) for e in error.errors()]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return None, [f"cannot be read: {error}"]
    if model.id != path.stem:
        return None, [f"id: must be the file's name, {path.stem!r} (got {model.id!r})"]
    return model.build(), []


def _problem(error: Any) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in {"missing", "value_error"} or isinstance(error["input"], dict):
        return f"{path}: {text}" if path else text
    got = float(error["input"]) if isinstance(error["input"], Decimal) else error["input"]
    return f"{path}: {text} (got {got!r})"


# --- the shape of the files ---


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"must be a number (got {value!r})")
    return Decimal(value)


Number = Annotated[Decimal, BeforeValidator(_number), Field(allow_inf_nan=False)]
Address = Annotated[int, Field(ge=0, lt=ADDRESSES)]
Word = Annotated[int, Field(ge=0, le=0xFFFF)]
Name = Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
Text = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _StateFile(_Model):
    code: Word
    why: Annotated[str, Field(pattern=r"^[a-z0-9_]*$")]


class _StatusFile(_Model):
    address: Address
    mask: Word = 0xFFFF
    states: Annotated[list[_StateFile], Field(min_length=1)]

    def build(self) -> Status:
        states = tuple((s.code, s.why) for s in self.states)
        return Status(address=self.address, mask=self.mask, states=states)


class _FactorFile(_Model):
    code: Word
    factor: Number


class _DefaultsFile(_Model):
    unit_id: Annotated[int, Field(ge=1, le=247)] = 1
    baud: Literal[1200, 2400, 4800, 9600, 14400, 19200, 38400, 57600, 115200] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    table: Literal["coil", "discrete", "holding", "input"] = "holding"

    def build(self) -> Defaults:
        return Defaults(unit_id=self.unit_id, baud=self.baud, parity=self.parity, stopbits=self.stopbits)


class _RegisterFile(_Model):
    name: Name
    name_zh: Text
    name_en: Text
    unit: str
    quantity: Literal["temperature", "humidity", "pressure", "gas", "other"]
    decimals: Annotated[int, Field(ge=0, le=6)]
    address: Address
    table: Literal["coil", "discrete", "holding", "input"] | None = None
    type: Literal["bit", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"]
    word_order: Literal["big", "little", "big_swapped", "little_swapped"] = "big"
    scale: Number = Decimal(1)
    offset: Number = Decimal(0)
    low: Number | None = None
    high: Number | None = None
    sentinels: list[int] = []
    decimals_at: Address | None = None
    unit_at: Address | None = None
    unit_factors: list[_FactorFile] = []
    status: _StatusFile | None = None

    @model_validator(mode="after")
    def _check(self) -> _RegisterFile:
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be less than high (got {self.low} and {self.high})")
        if (self.unit_at is None) != (not self.unit_factors):
            raise ValueError("unit_at and unit_factors must be given together")
        return self

    def build(self, table: Table) -> Register:
        return Register(
            name=self.name,
            table=table,
            address=self.address,
            type=ValueType(self.type),
            word_order=WordOrder(self.word_order),
            scale=self.scale,
            offset=self.offset,
            low=None if self.low is None else float(self.low),
            high=None if self.high is None else float(self.high),
            sentinels=tuple(self.sentinels),
            decimals_at=self.decimals_at,
            unit_at=self.unit_at,
            unit_factors=tuple((f.code, f.factor) for f in self.unit_factors),
            status=self.status.build() if self.status else None,
        )

    def label(self) -> Label:
        return Label(
            name=self.name,
            name_zh=self.name_zh,
            name_en=self.name_en,
            unit=self.unit,
            quantity=self.quantity,
            decimals=self.decimals,
        )


class _ProfileFile(_Model):
    id: Name
    name: Text
    name_en: Text
    source: Text
    max_gap: Annotated[int, Field(ge=0, le=MAX_REGISTERS)] = 0
    max_count: Annotated[int, Field(ge=1, le=MAX_REGISTERS)] = MAX_REGISTERS
    defaults: _DefaultsFile = _DefaultsFile()
    registers: Annotated[list[_RegisterFile], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> _ProfileFile:
        names = [r.name for r in self.registers]
        wrong = [f"registers: name must be unique (got {n!r} again)" for n in sorted(set(names)) if names.count(n) > 1]
        for index, register in enumerate(self._registers()):
            if (register.type is ValueType.BIT) != register.table.is_bits:
                wrong.append(f"registers[{index}].type: {register.type} does not fit table {register.table}")
        try:
            plan(self._registers(), max_gap=self.max_gap, max_count=self.max_count)
        except ValueError as error:
            wrong.append(f"registers: {error}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _registers(self) -> tuple[Register, ...]:
        return tuple(r.build(Table(r.table or self.defaults.table)) for r in self.registers)

    def build(self) -> Profile:
        return Profile(
            id=self.id,
            name=self.name,
            name_en=self.name_en,
            source=self.source,
            defaults=self.defaults.build(),
            max_gap=self.max_gap,
            max_count=self.max_count,
            registers=self._registers(),
            labels=tuple(r.label() for r in self.registers),
        )
