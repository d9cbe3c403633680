"""The newest snapshot of each gateway, and of each machine that speaks under its key: what is open there now, while its
records are still on their way.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ..errors import RefusedError
from ..sync.columns import DamagedError, decompress
from .config import GatewayTable
from .engine import Database, Row, Step, Tx
from .lineages import live
from .project import STATES

PATH = "/v1/gateways/{gateway}/snapshot"
MOST_BYTES = 1 << 20
_EPOCH = re.compile(r"[0-9a-f]{8,64}")
_PLAIN = b"{"
"""How JSON begins: gateways of before the compression send it so. A zstd frame begins otherwise."""

STEPS = (
    Step(
        "m030_snapshot",
        (
            """CREATE TABLE snapshot (gateway TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
               at_ms INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (gateway)) WITHOUT ROWID""",
        ),
    ),
    Step(
        "m041_snapshot_epochs",
        (
            """CREATE TABLE snapshot_epoch (gateway TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
               first_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (gateway, epoch))
               WITHOUT ROWID""",
            "INSERT INTO snapshot_epoch SELECT gateway, epoch, seq, at_ms, at_ms, body FROM snapshot",
            "DROP TABLE snapshot",
        ),
    ),
)
_MOST_EPOCHS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a gateway said last of itself.

    Attributes:
        seq: number of the newest record that it had.
        at_ms: when it came, by headquarters' clock.
        alarms: open ones, the most urgent first; `open` counts all of them.
    """

    epoch: str
    seq: int
    at_ms: int
    open: int
    alarms: list[dict[str, Any]]
    health: dict[str, Any]


class Snapshots:
    """Takes snapshots in; see `sync.snapshot`. Args: changed: called with the gateway when there is a newer one."""

    def __init__(
        self, database: Database, changed: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._database, self._changed, self._clock = database, changed, clock

    async def post(self, gateway: GatewayTable, body: bytes) -> web.Response:
        """A snapshot of a gateway that has signed the request. Raises RefusedError `bad_request`, `too_large`."""
        if len(body) > MOST_BYTES:
            raise RefusedError("too_large", f"a snapshot may have {MOST_BYTES} bytes")
        plain = _opened(body)
        epoch, seq = _judged(plain)
        at_ms = int(self._clock() * 1000)
        text = plain.decode()
        newer = await self._database.write(lambda tx: _keep(tx, gateway.id, epoch, seq, at_ms, text), key=gateway.id)
        if newer:
            self._changed(gateway.id)
        return web.json_response({"time_ms": at_ms, "kept": newer})

    async def live(self) -> dict[str, list[Snapshot]]:
        """By gateway, of each machine that still speaks under its key, the newest epoch first."""
        sql = "SELECT gateway, epoch, seq, first_ms, at_ms, body FROM snapshot_epoch"
        rows = await self._database.read(lambda tx: tx.all(sql))
        found: dict[str, dict[str, Row]] = {}
        for row in rows:
            found.setdefault(row[0], {})[row[1]] = row
        now_ms = int(self._clock() * 1000)
        return {
            gateway: [
                _read(epoch, rows[epoch][2], *rows[epoch][4:])
                for epoch in live([(row[1], row[3], row[4]) for row in rows.values()], now_ms)
            ]
            for gateway, rows in found.items()
        }


async def _keep(tx: Tx, gateway: str, epoch: str, seq: int, at_ms: int, body: str) -> bool:
    """Unless one of the same epoch knew more records: replayed, or overtaken on its way."""
    await tx.lock(f"snapshot/{gateway}")
    known = await tx.one("SELECT seq FROM snapshot_epoch WHERE gateway = ? AND epoch = ?", gateway, epoch)
    if known is not None and known[0] > seq:
        return False
    upsert = (
        "INSERT INTO snapshot_epoch VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (gateway, epoch) DO UPDATE SET"
        " seq = excluded.seq, at_ms = excluded.at_ms, body = excluded.body"
    )
    await tx.run(upsert, gateway, epoch, seq, at_ms, at_ms, body)
    if known is None:
        oldest = "SELECT epoch FROM snapshot_epoch WHERE gateway = ? ORDER BY at_ms DESC LIMIT 100"
        for (gone,) in (await tx.all(oldest, gateway))[_MOST_EPOCHS:]:
            await tx.run("DELETE FROM snapshot_epoch WHERE gateway = ? AND epoch = ?", gateway, gone)
    return True


def _opened(body: bytes) -> bytes:
    """The JSON: one zstd frame of at most `MOST_BYTES`."""
    if body.startswith(_PLAIN):
        return body
    try:
        return decompress(body, MOST_BYTES)
    except DamagedError as error:
        raise RefusedError("bad_request", f"not a snapshot: {error}") from error


def _judged(body: bytes) -> tuple[str, int]:
    try:
        fields = json.loads(body)
        epoch, seq, alarms = fields["epoch"], fields["seq"], fields["alarms"]
        right = isinstance(epoch, str) and _EPOCH.fullmatch(epoch) and type(seq) is int and 0 <= seq < 2**53
        right = right and isinstance(alarms, list) and isinstance(fields["health"], dict)
        right = right and type(fields["open"]) is int and fields["open"] >= len(alarms)
        if not right or not all(_is_alarm(alarm) for alarm in alarms):
            raise ValueError("a field has a wrong type")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError("bad_request", f"not a snapshot: {error!r:.200}") from error
    return epoch, seq


def _is_alarm(alarm: object) -> bool:
    return isinstance(alarm, dict) and isinstance(alarm.get("id"), str) and alarm.get("state") in STATES


def _read(epoch: str, seq: int, at_ms: int, body: str) -> Snapshot:
    fields = json.loads(body)
    return Snapshot(
        epoch=epoch, seq=seq, at_ms=at_ms, open=fields["open"], alarms=fields["alarms"], health=fields["health"]
    )
