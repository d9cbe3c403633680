"""Outputs: the coils and registers that may be written (a siren, a lamp), and nothing else ever is.

What a write did is recorded after the wire has confirmed it by reading back; what could not be confirmed is recorded as
failed: nobody may believe that a siren sounds when nobody knows.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import RefusedError, TransientError
from ..sensors.buses import Answer, ReplyError
from ..sync.journal import Draft, Journal, Record, StateTable
from ..words import now
from .metas import OutputMeta

_WAIT_S = 30.0

SCHEMA = """
CREATE TABLE output_state (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, data TEXT NOT NULL)
"""


def apply(connection: sqlite3.Connection, record: Record) -> None:
    """Keep what was tried last with each output."""
    body = record.body
    data = {
        "state": body["state"] if record.kind == "output.written" else None,
        "tried": body["state"],
        "by": body["by"],
        "at": record.at["utc"],
        "why": body.get("why", ""),
    }
    row = (body["output"], record.seq, json.dumps(data))
    connection.execute("INSERT OR REPLACE INTO output_state VALUES (?, ?, ?)", row)


TABLE = StateTable(name="output", version=1, schema=SCHEMA, tables=("output_state",), kinds=("output.",), apply=apply)


def stored_outputs(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """By id: `state` as it was confirmed last (None when the last write was not), `tried`, `by`, `at`, `why`."""
    return {name: json.loads(data) for name, data in connection.execute("SELECT id, data FROM output_state")}


Write = Callable[[OutputMeta, str], Awaitable[Answer]]


class Outputs:
    """Writes outputs, one write of each at a time.

    Args:
        outputs: of the site.
        write: sends one to the wire and reads back; raises ReplyError.
        commit: makes a draft a record, and returns when it is durable.
        journal: what was written before.
    """

    def __init__(
        self,
        outputs: Iterable[OutputMeta],
        write: Write,
        commit: Callable[[Draft], Awaitable[object]],
        journal: Journal,
    ) -> None:
        self._write = write
        self._commit = commit
        self._journal = journal
        self._turns: dict[str, asyncio.Lock] = {}
        self._newest: dict[str, tuple[str, ...]] = {}
        self._known: Mapping[str, OutputMeta] = {}
        self.change(outputs)

    def change(self, outputs: Iterable[OutputMeta]) -> None:
        """Go on with these. A write that is under way ends as it began."""
        self._known = {meta.id: meta for meta in outputs}

    def meta(self, name: str) -> OutputMeta:
        """Raises RefusedError `no_such_output`."""
        known = self._known.get(name)
        if known is None:
            hint = f"outputs of this site: {', '.join(self._known) or 'none'}"
            raise RefusedError("no_such_output", f"there is no output {name!r:.80}", hint=hint)
        return known

    async def views(self) -> Sequence[dict[str, Any]]:
        """Every output with its states and what was written last, as pages and commands show it."""
        stored = await self._journal.query(stored_outputs)
        nothing = {"state": None, "tried": None, "by": None, "at": None, "why": ""}
        return [
            {
                "id": meta.id,
                "area": meta.area,
                "name": meta.name,
                "name_en": meta.name_en,
                "states": list(meta.states),
                **stored.get(meta.id, nothing),
            }
            for meta in self._known.values()
        ]

    async def set(self, name: str, state: str, by: str, actor: str = "gateway") -> None:
        """Bring an output into one of its states; returns when the wire has confirmed it and the record is durable.

        Args:
            name: `area.device.output`.
            state: one of its states.
            by: who wanted it: a person's id, the ladder of an alarm, the console.
            actor: of the record: the person's id when it was one.

        Raises:
            RefusedError: `no_such_output`, `no_such_state`: nothing was sent.
            OutputError: it was not confirmed; that is recorded too.
        """
        await self._set(name, state, by, actor, repeats=False)

    async def keep(self, name: str, state: str, by: str) -> None:
        """As `set`, for whoever writes the same again and again: what came out as the last time makes no record."""
        await self._set(name, state, by, "gateway", repeats=True)

    async def _set(self, name: str, state: str, by: str, actor: str, *, repeats: bool) -> None:
        meta = self.meta(name)
        if state not in meta.states:
            raise RefusedError("no_such_state", f"{name} can be {', '.join(meta.states)} (got {state!r:.60})")
        async with self._turns.setdefault(name, asyncio.Lock()):
            try:
                async with asyncio.timeout(_WAIT_S):
                    answer = await self._write(meta, state)
            except (ReplyError, RefusedError, TimeoutError) as error:
                failed = _failed(name, error)
                body = {"output": name, "state": state, "by": by, "why": failed.why}
                await self._record("output.failed", actor, body, repeats=repeats)
                raise failed from error
            body = {"output": name, "state": state, "by": by, "read_back": answer.words[0]}
            await self._record("output.written", actor, body, repeats=repeats)

    async def _record(self, kind: str, actor: str, body: dict[str, Any], *, repeats: bool) -> None:
        outcome = (kind, body["state"], body["by"], body.get("why", ""))
        if repeats and self._newest.get(body["output"]) == outcome:
            return
        await self._commit(_draft(kind, actor, body))
        self._newest[body["output"]] = outcome


class OutputError(TransientError):
    """An output that was not confirmed. `why`: as in ReplyError; `code` of a Modbus exception, else 0."""

    def __init__(self, why: str, message: str, *, code: int = 0) -> None:
        super().__init__(message, hint="look at the device itself: nobody knows which state it is in")
        self.why = why
        self.code = code


def _failed(name: str, error: ReplyError | RefusedError | TimeoutError) -> OutputError:
    match error:
        case ReplyError():
            return OutputError(error.why, _about(name, error.message), code=error.code)
        case RefusedError():  # the configuration changed meanwhile
            return OutputError(error.reason, _about(name, error.message))
        case _:
            return OutputError("timeout", f"{name}: the bus did not come to it within {_WAIT_S:g} s")


def _about(name: str, message: str) -> str:
    """The message with the output's name before it, unless it begins with that or with the device's name."""
    device = name.rpartition(".")[0]
    return message if re.match(rf"{re.escape(device)}\b", message) else f"{name}: {message}"


def _draft(kind: str, actor: str, body: dict[str, Any]) -> Draft:
    return Draft(kind=kind, at=now(), actor=actor, body=body)
