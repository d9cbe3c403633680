"""people.csv: who works here, in which roles, for which areas. Names and phones live only here and can be erased."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError

ROLES = (
    "worker",
    "team_leader",
    "keeper",
    "officer",
    "control_room",
    "manager",
    "vice_president",
    "contractor",
    "hr",
    "it",
    "inspector",
    "admin",
)
COLUMNS = ("id", "name", "name_en", "roles", "areas", "phone")
EVERYWHERE = "*"
_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PHONE = re.compile(r"(\+?[0-9][0-9 -]{4,18})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One row of people.csv. `areas` are area ids, or `*` for all."""

    id: str
    name: str
    name_en: str
    roles: tuple[str, ...]
    areas: tuple[str, ...]
    phone: str = ""

    def to_json(self) -> dict[str, Any]:
        """What a page may know of a person."""
        return {"id": self.id, "name": self.name, "name_en": self.name_en, "roles": list(self.roles)}

    def answers_for(self, area: str) -> bool:
        """Whether the person's areas contain `area`."""
        return EVERYWHERE in self.areas or area in self.areas


def load_people(path: Path) -> dict[str, Person]:
    """Read people.csv (UTF-8, header row, roles and areas separated by spaces).

    Raises:
        ConfigError: every problem, each with its line and column.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        hint = f"file is missing: make it, with the header {','.join(COLUMNS)}"
        raise ConfigError(str(path), [hint]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read as UTF-8 text: {error}"]) from error
    return parse_people(text, str(path))


def parse_people(text: str, source: str) -> dict[str, Person]:
    """The persons in `text`; see `load_people`."""
    rows = csv.DictReader(io.StringIO(text))
    try:
        return _people(rows, source)
    except csv.Error as error:
        raise ConfigError(source, [f"line {rows.line_num + 1}: is not CSV: {error}"]) from error


def _people(rows: csv.DictReader[str], source: str) -> dict[str, Person]:
    missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise ConfigError(source, [f"line 1: must have the columns {','.join(COLUMNS)} (missing {','.join(missing)})"])
    people: dict[str, Person] = {}
    problems: list[str] = []
    for row in rows:
        found = [f"line {rows.line_num}: {problem}" for problem in _row_problems(row, people)]
        problems += found
        if not found:
            people[row["id"]] = _person(row)
    if problems:
        raise ConfigError(source, problems)
    return people


def with_role(people: Mapping[str, Person], role: str, area: str) -> list[Person]:
    """Persons who hold `role` and answer for `area`, in file order."""
    return [person for person in people.values() if role in person.roles and person.answers_for(area)]


def _person(row: Mapping[str, str]) -> Person:
    return Person(
        id=row["id"],
        name=row["name"].strip(),
        name_en=row["name_en"].strip() or row["name"].strip(),
        roles=tuple(row["roles"].split()),
        areas=tuple(row["areas"].split()),
        phone=row["phone"].strip(),
    )


def _row_problems(row: Mapping[str, str | None], known: Iterable[str]) -> list[str]:
    if any(row[column] is None for column in COLUMNS) or None in row:
        return [f"must have {len(COLUMNS)} values: {','.join(COLUMNS)}"]
    values = {column: row[column] or "" for column in COLUMNS}
    problems = []
    if not _ID.fullmatch(values["id"]):
        problems.append(f"id: must be lower-case letters, digits and _ (got {values['id']!r})")
    elif values["id"] in known:
        problems.append(f"id: must be unique (got {values['id']!r} again)")
    if not values["name"].strip():
        problems.append("name: must not be empty")
    roles = values["roles"].split()
    if not roles:
        problems.append(f"roles: must name at least one of {', '.join(ROLES)}")
    problems += [f"roles: must be one of {', '.join(ROLES)} (got {role!r})" for role in roles if role not in ROLES]
    if not values["areas"].split():
        problems.append("areas: must name area ids, or * for all")
    if not _PHONE.fullmatch(values["phone"].strip()):
        problems.append(f"phone: must be digits, or empty (got {values['phone']!r})")
    return problems
