"""people.csv: who works here, in which roles, for which areas. Names and phones live only here and can be erased."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
OPTIONAL_COLUMNS = ("email", "lang")
LANGS = ("zh", "en")
EVERYWHERE = "*"
_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")
_EMAIL = re.compile(r"([^@\s,;<>]+@[^@\s,;<>]+\.[^@\s,;<>]+)?")
_PHONE = re.compile(r"(\+?[0-9][0-9 -]{4,18})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One row of people.csv. `areas` are area ids, or `*` for all; `lang` is that of messages, `zh` or `en`."""

    id: str
    name: str
    name_en: str
    roles: tuple[str, ...]
    areas: tuple[str, ...]
    phone: str = ""
    email: str = ""
    lang: str = LANGS[0]

    def to_json(self) -> dict[str, Any]:
        """What a page may know of a person."""
        return {
            "id": self.id,
            "name": self.name,
            "name_en": self.name_en,
            "roles": list(self.roles),
            "areas": list(self.areas),
        }

    def answers_for(self, area: str) -> bool:
        """Whether the person's areas contain `area`."""
        return EVERYWHERE in self.areas or area in self.areas


def _any_area(_: str) -> str:
    return ""


def load_people(path: Path, judge: Callable[[str], str] = _any_area) -> dict[str, Person]:
    """Read people.csv (UTF-8, header row, roles and areas separated by spaces).

    Args:
        path: of the file.
        judge: what is wrong with the name of an area, "" when nothing is.

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
    return parse_people(text, str(path), judge)


def parse_people(text: str, source: str, judge: Callable[[str], str] = _any_area) -> dict[str, Person]:
    """The persons in `text`; see `load_people`."""
    rows = csv.DictReader(io.StringIO(text))
    try:
        return _people(rows, source, judge)
    except csv.Error as error:
        raise ConfigError(source, [f"line {rows.line_num + 1}: is not CSV: {error}"]) from error


def _people(rows: csv.DictReader[str], source: str, judge: Callable[[str], str]) -> dict[str, Person]:
    missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise ConfigError(source, [f"line 1: must have the columns {','.join(COLUMNS)} (missing {','.join(missing)})"])
    columns = (*COLUMNS, *(column for column in OPTIONAL_COLUMNS if column in (rows.fieldnames or ())))
    people: dict[str, Person] = {}
    problems: list[str] = []
    for row in rows:
        found = [f"line {rows.line_num}: {problem}" for problem in _row_problems(row, columns, people, judge)]
        problems += found
        if not found:
            people[row["id"]] = _person(row)
    if problems:
        raise ConfigError(source, problems)
    return people


def with_role(people: Mapping[str, Person], role: str, area: str) -> list[Person]:
    """Persons who hold `role` and answer for `area`, in file order."""
    return [person for person in people.values() if role in person.roles and person.answers_for(area)]


def named(people: Mapping[str, Person], person: str) -> dict[str, str]:
    """`name` and `name_en` of a person id as far as they are known here; records carry ids alone."""
    known = people.get(person)
    return {"name": known.name if known else person, "name_en": known.name_en if known else person}


def _person(row: Mapping[str, str]) -> Person:
    return Person(
        id=row["id"],
        name=row["name"].strip(),
        name_en=row["name_en"].strip() or row["name"].strip(),
        roles=tuple(row["roles"].split()),
        areas=tuple(row["areas"].split()),
        phone=row["phone"].strip(),
        email=row.get("email", "").strip(),
        lang=row.get("lang", "").strip() or LANGS[0],
    )


def _row_problems(
    row: Mapping[str, str | None], columns: Sequence[str], known: Iterable[str], judge: Callable[[str], str]
) -> list[str]:
    if any(row[column] is None for column in columns) or None in row:
        return [f"must have {len(columns)} values: {','.join(columns)}"]
    values = {column: row[column] or "" for column in columns}
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
    areas = values["areas"].split()
    if not areas:
        problems.append("areas: must name area ids, or * for all")
    problems += [f"areas: {problem}" for problem in map(judge, areas) if problem]
    if not _PHONE.fullmatch(values["phone"].strip()):
        problems.append(f"phone: must be digits, or empty (got {values['phone']!r})")
    if not _EMAIL.fullmatch(values.get("email", "").strip()):
        problems.append(f"email: must be one address, name@domain, or empty (got {values['email']!r})")
    if values.get("lang", "").strip() not in ("", *LANGS):
        problems.append(f"lang: must be {' or '.join(LANGS)}, or empty (got {values['lang']!r})")
    return problems
