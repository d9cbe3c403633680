"""The delivery log: every message that told people, with its rows and every attempt that is kept."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

STATE = """
CASE WHEN state <> 'PENDING' THEN state
ELSE coalesce((SELECT CASE WHEN outcome = '' THEN 'SENDING' WHEN n = 1 AND outcome = 'later' THEN 'PENDING'
    ELSE 'RETRY' END FROM delivery_attempt WHERE delivery_attempt.key = outbox.key ORDER BY n DESC LIMIT 1),
    'PENDING') END
"""
"""SQL: a row's state as people see it; of a row that waits, its newest attempt decides."""

MOST = 200


def deliveries(
    connection: sqlite3.Connection,
    *,
    occurrence: int | None = None,
    person: str | None = None,
    channel: str | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Messages, the newest first, each with those of its rows that fit.

    Args:
        occurrence: number of an alarm.
        person: id; also rows of groups that mention the person.
        channel: id.
        state: PENDING, SENDING, RETRY, ACCEPTED, DELIVERED, DEAD; or FAILING: late and still open, or not proven.
        before: messages with a smaller number; `seq` of the last one of the page before.
        limit: messages, at most `MOST`.

    Returns:
        `{seq, at, kind, priority, about, occurrence, name, name_en, rows: [{key, person, mentions, role, channel, step,
        state, failing, unreached, resent, born, ended, why, error, attempts: [{n, at, outcome, detail, uncertain,
        digest}]}]}`. `digest`: key of the message that told several rows, else empty.
    """
    where, values = _where(occurrence, person, channel, state)
    newest = f"SELECT DISTINCT message FROM outbox WHERE {where} AND message < ? ORDER BY message DESC LIMIT ?"  # noqa: S608
    page = (*values, 2**62 if before is None else before, max(1, min(limit, MOST)))
    messages = [message for (message,) in connection.execute(newest, page)]
    return [_message(connection, message, where, values) for message in messages]


def _where(
    occurrence: int | None, person: str | None, channel: str | None, state: str | None
) -> tuple[str, tuple[Any, ...]]:
    parts, values = ["1"], list[Any]()
    if occurrence is not None:
        parts.append("occurrence = ?")
        values.append(occurrence)
    if person is not None:
        parts.append("(person = ? OR instr(mentions, ?))")
        values += [person, json.dumps(person)]
    if channel is not None:
        parts.append("channel = ?")
        values.append(channel)
    if state == "FAILING":
        parts.append("failing")
    elif state is not None:
        parts.append(f"{STATE} = ?")
        values.append(state)
    return " AND ".join(parts), tuple(values)


def _message(connection: sqlite3.Connection, message: int, where: str, values: Sequence[Any]) -> dict[str, Any]:
    sql = (
        f"SELECT key, person, mentions, role, channel, step, {STATE}, failing, unreached, at, ended, over, error,"  # noqa: S608
        f" kind, priority, about, occurrence FROM outbox WHERE message = ? AND {where} ORDER BY seq, rowid"
    )
    found = connection.execute(sql, (message, *values)).fetchall()
    *_, kind, priority, about, occurrence = found[0]
    (data,) = connection.execute("SELECT data FROM record WHERE seq = ?", (message,)).fetchone()
    record = json.loads(data)
    named = _named(record["body"])
    return {
        "seq": message,
        "at": record["at"]["utc"],
        "kind": kind,
        "priority": priority,
        "about": about,
        "occurrence": occurrence,
        "name": named.get("name", ""),
        "name_en": named.get("name_en", ""),
        "rows": [_row(connection, row) for row in found],
    }


def _row(connection: sqlite3.Connection, row: Sequence[Any]) -> dict[str, Any]:
    key, person, mentions, role, channel, step, state, failing, unreached, at, ended, over, error, *_ = row
    attempts = _attempts(connection, key)
    return {
        "key": key,
        "person": person,
        "mentions": json.loads(mentions),
        "role": role,
        "channel": channel,
        "step": step,
        "state": state,
        "failing": bool(failing),
        "unreached": json.loads(unreached),
        "resent": any(attempt["uncertain"] for attempt in attempts[:-1]),
        "born": json.loads(at)["utc"],
        "ended": json.loads(ended)["utc"] if ended else "",
        "why": over,
        "error": error or next((attempt["detail"] for attempt in reversed(attempts)), ""),
        "attempts": attempts,
    }


def _attempts(connection: sqlite3.Connection, key: str) -> list[dict[str, Any]]:
    sql = "SELECT n, at, outcome, detail, uncertain, batch FROM delivery_attempt WHERE key = ? ORDER BY n"
    return [
        {
            "n": n,
            "at": at,
            "outcome": outcome or "sending",
            "detail": detail,
            "uncertain": bool(uncertain),
            "digest": batch if batch != key else "",
        }
        for n, at, outcome, detail, uncertain, batch in connection.execute(sql, (key,))
    ]


def _named(body: dict[str, Any]) -> dict[str, Any]:
    subject = (body.get("ladder") or body).get("subject") or (body.get("freeze") or {}).get("why")
    return body.get("alarm") or subject or {}
