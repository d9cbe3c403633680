"""The state table of proof tests: the last runs, and what is committed of the weekly schedule. From records alone."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from typing import Any

from ...sync.journal import Record, StateTable
from ...words import utc_from_text
from .weekly import Week

SCHEMA = """
CREATE TABLE proof_run (run INTEGER PRIMARY KEY, result TEXT NOT NULL, data TEXT NOT NULL);
CREATE TABLE proof_week (id INTEGER PRIMARY KEY CHECK (id = 1), data TEXT NOT NULL)
"""
KEPT = 100
RUNNING = "running"


def apply(connection: sqlite3.Connection, record: Record) -> None:
    """Keep each run as far as it came, and the schedule."""
    body = record.body
    match record.kind:
        case "proof.started":
            run = {**body, "at": record.at["utc"], "by": record.actor, "result": RUNNING, "alarm": None, "steps": []}
            _keep(connection, run)
            connection.execute("DELETE FROM proof_run WHERE run <= ?", (body["run"] - KEPT,))
            if body["day"]:
                _keep_week(connection, _handled(connection, body["day"]))
        case "proof.alarm":
            _change(connection, body["run"], alarm=body["alarm"])
        case "proof.step":
            run = _run(connection, body["run"])
            _keep(connection, {**run, "steps": [*run["steps"], body["step"]]})
        case "proof.finished":
            ended = {name: body[name] for name in ("result", "why", "seconds", "steps")}
            _change(connection, body["run"], **ended, ended=record.at["utc"])
        case "proof.scheduled":
            now_ms = utc_from_text(record.at["utc"])
            _keep_week(connection, replace(stored_week(connection), schedule=body["schedule"], since_ms=now_ms))
        case "proof.refused":
            week = replace(stored_week(connection), refused_day=body["day"], refused=body["why"])
            _keep_week(connection, week)
        case "proof.missed":
            _keep_week(connection, _handled(connection, body["day"], missed_day=body["day"], missed=body["why"]))
        case _:
            raise AssertionError(record.kind)


TABLE = StateTable(
    name="proof", version=2, schema=SCHEMA, tables=("proof_run", "proof_week"), kinds=("proof.",), apply=apply
)


def last_runs(connection: sqlite3.Connection, limit: int = 20) -> list[dict[str, Any]]:
    """The newest runs, newest first.

    Each has run, point, area, test (id of its alarm), day (of the schedule, else empty), by, at, result, steps as
    `plan.Step.to_json`; when it is over also ended, seconds and why.
    """
    rows = connection.execute("SELECT data FROM proof_run ORDER BY run DESC LIMIT ?", (limit,))
    return [json.loads(data) for (data,) in rows]


def unfinished(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Runs that nobody has ended, oldest first."""
    rows = connection.execute("SELECT data FROM proof_run WHERE result = ? ORDER BY run", (RUNNING,))
    return [json.loads(data) for (data,) in rows]


def newest_run(connection: sqlite3.Connection) -> int:
    """Number of the newest run, 0 before the first."""
    return connection.execute("SELECT coalesce(max(run), 0) FROM proof_run").fetchone()[0]


def stored_week(connection: sqlite3.Connection) -> Week:
    """What is committed of the schedule."""
    row = connection.execute("SELECT data FROM proof_week").fetchone()
    return Week(**json.loads(row[0])) if row else Week()


def _handled(connection: sqlite3.Connection, day: str, missed_day: str = "", missed: str = "") -> Week:
    week = stored_week(connection)
    return replace(week, day=day, refused_day="", refused="", missed_day=missed_day, missed=missed)


def _run(connection: sqlite3.Connection, run: int) -> dict[str, Any]:
    (data,) = connection.execute("SELECT data FROM proof_run WHERE run = ?", (run,)).fetchone()
    return json.loads(data)


def _change(connection: sqlite3.Connection, run: int, **fields: Any) -> None:
    _keep(connection, {**_run(connection, run), **fields})


def _keep(connection: sqlite3.Connection, run: dict[str, Any]) -> None:
    row = (run["run"], run["result"], json.dumps(run, ensure_ascii=False))
    connection.execute("INSERT OR REPLACE INTO proof_run VALUES (?, ?, ?)", row)


def _keep_week(connection: sqlite3.Connection, week: Week) -> None:
    connection.execute("INSERT OR REPLACE INTO proof_week VALUES (1, ?)", (json.dumps(week.to_json()),))
