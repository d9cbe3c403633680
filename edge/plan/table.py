"""The state table of site plans, with their last versions. From records alone."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from ...sync.journal import Record, StateTable

SCHEMA = """
CREATE TABLE plan_picture (sha256 TEXT PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL);
CREATE TABLE plan_now (id TEXT PRIMARY KEY, rev INTEGER NOT NULL);
CREATE TABLE plan_version (id TEXT NOT NULL, rev INTEGER NOT NULL, at TEXT NOT NULL, by TEXT NOT NULL,
    data TEXT NOT NULL, PRIMARY KEY (id, rev))
"""
IMPORTED, SAVED, REMOVED = "plan.imported", "plan.saved", "plan.removed"
KEPT = 50
"""Versions of each plan; the journal holds all."""


def apply(connection: sqlite3.Connection, record: Record) -> None:
    """A plan's revision is the number of its record."""
    if record.kind == IMPORTED:
        picture = record.body["picture"]
        row = (picture["sha256"], picture["width"], picture["height"])
        connection.execute("INSERT OR REPLACE INTO plan_picture VALUES (?, ?, ?)", row)
        return
    id_ = record.body["id"]
    if record.kind == REMOVED:
        connection.execute("DELETE FROM plan_now WHERE id = ?", (id_,))
        return
    data = json.dumps(record.body["plan"], ensure_ascii=False)
    row = (id_, record.seq, record.at["utc"], record.actor, data)
    connection.execute("INSERT INTO plan_version VALUES (?, ?, ?, ?, ?)", row)
    connection.execute("INSERT OR REPLACE INTO plan_now VALUES (?, ?)", (id_, record.seq))
    connection.execute(
        "DELETE FROM plan_version WHERE id = ?1 AND rev NOT IN"
        " (SELECT rev FROM plan_version WHERE id = ?1 ORDER BY rev DESC LIMIT ?2)",
        (id_, KEPT),
    )


TABLE = StateTable(
    name="plan",
    version=1,
    schema=SCHEMA,
    tables=("plan_picture", "plan_now", "plan_version"),
    kinds=("plan.",),
    apply=apply,
)


def plans(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Every plan as it is now, by id: `id`, `rev`, `at`, `by`, and what `model.checked_plan` made."""
    rows = connection.execute(
        "SELECT v.id, v.rev, v.at, v.by, v.data FROM plan_now n JOIN plan_version v USING (id, rev) ORDER BY v.id"
    )
    return [_view(row) for row in rows]


def plan(connection: sqlite3.Connection, id_: str, rev: int | None = None) -> dict[str, Any] | None:
    """One plan, as it is now or as it was; None when there is none."""
    newest = "(SELECT rev FROM plan_now WHERE id = ?1)"
    sql = f"SELECT id, rev, at, by, data FROM plan_version WHERE id = ?1 AND rev = coalesce(?2, {newest})"  # noqa: S608
    row = connection.execute(sql, (id_, rev)).fetchone()
    return _view(row) if row else None


def versions(connection: sqlite3.Connection, id_: str) -> list[dict[str, Any]]:
    """The last versions of a plan, newest first, without what they hold: `rev`, `at`, `by`, `items` (how many)."""
    rows = connection.execute(
        "SELECT rev, at, by, json_array_length(data, '$.items') FROM plan_version WHERE id = ? ORDER BY rev DESC",
        (id_,),
    )
    return [{"rev": rev, "at": at, "by": by, "items": items} for rev, at, by, items in rows]


def picture(connection: sqlite3.Connection, sha256: str) -> dict[str, Any] | None:
    """What an import has made: `sha256`, `width`, `height`; None for anything else."""
    sql = "SELECT sha256, width, height FROM plan_picture WHERE sha256 = ?"
    row = connection.execute(sql, (sha256,)).fetchone()
    return dict(zip(("sha256", "width", "height"), row, strict=True)) if row else None


def _view(row: tuple[str, int, str, str, str]) -> dict[str, Any]:
    id_, rev, at, by, data = row
    return {"id": id_, "rev": rev, "at": at, "by": by, **json.loads(data)}
