"""Headquarters' baseline: what every site must have at least. Read from `baseline.toml`, sent down signed.

A baseline adds and tightens: a limit may be stricter at a site, a step may come sooner, a room may have more sensors
and equipment; never less. Rooms are known by their kind, which a site's `[[area]]` names.

This module loads pydantic: it is for headquarters and for the process that reads site.toml, never for the daemon.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ..errors import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Kind = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=40)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=80)]
Priority = Annotated[int, Field(ge=1, le=4)]
Seconds = Annotated[float, Field(ge=0, le=31_536_000)]

QUANTITIES = ("temperature", "humidity", "pressure")
"""What is measured, beside gases, which go by their formula: `H2S`."""
EVERYWHERE = "*"
LOW, HIGH = ("lolo", "lo"), ("hi", "hihi")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Thing(_Table):
    """Equipment that must stand in a room: a leak kit."""

    id: Name
    name: Label
    name_en: Label


class Room(_Table):
    """[[room]]: a kind of room, what must be measured in each and what must stand there."""

    kind: Name
    name: Label
    name_en: Label
    sensors: tuple[Kind, ...] = Field(default=(), strict=False)
    equipment: tuple[Thing, ...] = Field(default=(), strict=False)


class Bound(_Table):
    """[[limit]]: the least strict limits of one type of sensor in one kind of room, or in every room (`*`).

    Attributes:
        type: a quantity or the formula of a gas.
        unit: of the limits; those of gases convert.
        on_delay_s: an alarm may wait no longer.
        priority: of the level that has no other in `priorities`, as urgent at least.
        required_acks: roles that must acknowledge, beside those of the site.
    """

    room: Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9_]*)$")] = EVERYWHERE
    type: Kind
    unit: Annotated[str, StringConstraints(max_length=20)]
    lolo: float | None = None
    lo: float | None = None
    hi: float | None = None
    hihi: float | None = None
    priority: Priority | None = None
    priorities: dict[Literal["lolo", "lo", "hi", "hihi"], Priority] = Field(default_factory=dict)
    on_delay_s: Seconds | None = None
    required_acks: tuple[Name, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _in_order(self) -> Bound:
        given = [value for value in (self.lolo, self.lo, self.hi, self.hihi) if value is not None]
        if not given:
            raise ValueError("names no limit: lolo, lo, hi or hihi")
        if any(low >= high for low, high in itertools.pairwise(given)):
            raise ValueError("lolo, lo, hi and hihi must ascend")
        return self


class Step(_Table):
    """[[step]]: what must have happened at the latest while an alarm of a priority is not dealt with."""

    priority: Priority
    by_s: Seconds
    to: tuple[Name, ...] = Field(default=(), strict=False)
    add: tuple[Annotated[str, StringConstraints(pattern=r"^(\*|[a-z]+)$")], ...] = Field(default=(), strict=False)
    colour: Literal["", "yellow", "red"] = ""
    action: Literal["", "freeze"] = ""


class Baseline(_Table):
    """The whole. `checklists`: texts by name, for the checkpoints of the sites."""

    name: Label
    name_en: Label
    room: tuple[Room, ...] = Field(default=(), strict=False)
    limit: tuple[Bound, ...] = Field(default=(), strict=False)
    step: tuple[Step, ...] = Field(default=(), strict=False)
    checklists: dict[Name, str] = Field(default_factory=dict)

    def room_of(self, kind: str) -> Room | None:
        """The room of this kind; None for one that the baseline does not know."""
        return next((room for room in self.room if room.kind == kind), None)

    def bounds(self, kind: str, sensor: str) -> Iterator[Bound]:
        """The limits for a type of sensor in a kind of room."""
        yield from (bound for bound in self.limit if bound.type == sensor and bound.room in (EVERYWHERE, kind))

    def to_json(self) -> dict[str, Any]:
        """What is sent down; `parse_baseline` reads it."""
        return self.model_dump(mode="json", exclude_defaults=True)


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.toml, and the checklists in the folder `checklists` beside it.

    Raises:
        ConfigError: with every problem.
    """
    try:
        raw = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"byte {error.start}: must be UTF-8 text; save the file as UTF-8"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from error
    return parse_baseline(raw, str(path))


def parse_baseline(raw: Mapping[str, Any], source: str) -> Baseline:
    """A baseline from what a file or headquarters says.

    Raises:
        ConfigError: with every problem.
    """
    try:
        baseline = Baseline.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(source, [_problem(dict(item)) for item in error.errors(include_url=False)]) from error
    problems = list(_contradictions(baseline))
    if problems:
        raise ConfigError(source, problems)
    return baseline


def _problem(item: Mapping[str, Any]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
    message = str(item["msg"]).removeprefix("Value error, ")
    got = item["input"]
    shown = "" if isinstance(got, (dict, list)) or item["type"] == "missing" else f" (got {got!r:.60})"
    return f"{path or 'file'}: {message}{shown}"


def _contradictions(baseline: Baseline) -> Iterator[str]:
    kinds: dict[str, int] = {}
    for i, room in enumerate(baseline.room):
        if (first := kinds.setdefault(room.kind, i)) != i:
            yield f"room[{i}].kind: must be its own, room[{first}] has it too (got {room.kind!r})"
        things = [thing.id for thing in room.equipment]
        if len(things) != len(set(things)):
            yield f"room[{i}].equipment: names a thing twice"
    for i, bound in enumerate(baseline.limit):
        if bound.room != EVERYWHERE and bound.room not in kinds:
            yield f"limit[{i}].room: must be the kind of a [[room]], or * (got {bound.room!r})"
        for key in bound.priorities:
            if getattr(bound, key) is None:
                yield f"limit[{i}].priorities: {key} has no limit here"
    for i, step in enumerate(baseline.step):
        if not (step.to or step.add or step.colour or step.action):
            yield f"step[{i}]: does nothing: name to, add, colour or action"
