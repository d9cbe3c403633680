"""What headquarters keeps of epochs: how each began, and its own incarnation."""

from __future__ import annotations

import secrets
import time
from typing import Any

from ..sync.identity import Identity, identity_of, identity_text, moved
from ..sync.streams import JOURNAL
from ..words import utc_text
from .engine import Database, Step, Tx
from .gap_store import gaps_of
from .lineages import Begun, EpochRow, heads

STEPS = (
    Step(
        "m040_epochs",
        (
            """CREATE TABLE journal_epoch (gateway TEXT NOT NULL, epoch TEXT NOT NULL, predecessor TEXT NOT NULL,
               last INTEGER NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (gateway, epoch))
               WITHOUT ROWID""",
            "CREATE TABLE cloud_fact (name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name)) WITHOUT ROWID",
        ),
    ),
)
_MOST_GAPS = 20


async def keep_begun(tx: Tx, gateway: str, epoch: str, begun: Begun) -> None:
    """How an epoch began."""
    sql = "INSERT INTO journal_epoch VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (gateway, epoch) DO NOTHING"
    await tx.run(sql, gateway, epoch, begun.predecessor, begun.last, begun.reason, begun.at)


async def begun_of(tx: Tx, gateway: str) -> dict[str, Begun]:
    """By epoch, of all but first ones."""
    sql = "SELECT epoch, predecessor, last, reason, at FROM journal_epoch WHERE gateway = ?"
    return {
        row[0]: Begun(predecessor=row[1], last=row[2], reason=row[3], at=row[4]) for row in await tx.all(sql, gateway)
    }


async def heads_of(tx: Tx, gateway: str) -> list[EpochRow]:
    """The epochs of a gateway's journal that are alive, the newest first."""
    sql = "SELECT epoch, ack, seq, begun_ms FROM ack WHERE gateway = ? AND stream = ? ORDER BY begun_ms, epoch"
    found = await tx.all(sql, gateway, JOURNAL)
    rows = []
    for epoch, ack, seq, begun_ms in found:
        last_ms = begun_ms
        if len(found) > 1:
            sql = "SELECT received_ms FROM batch WHERE gateway = ? AND stream = ? AND epoch = ? AND n = ?"
            row = await tx.one(sql, gateway, JOURNAL, epoch, ack)
            last_ms = row[0] if row else begun_ms
        rows.append(EpochRow(epoch=epoch, ack=ack, seq=seq, begun_ms=begun_ms, last_ms=last_ms))
    return heads(rows, await begun_of(tx, gateway), int(time.time() * 1000))


class EpochStore:
    """What pages ask, and the service at its start."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def shown(self, gateway: str) -> dict[str, Any]:
        """For pages: `epochs` that are alive, the newest first, and the newest declared `gaps`."""

        async def read(tx: Tx) -> dict[str, Any]:
            begun = await begun_of(tx, gateway)
            epochs = [epoch_json(row, begun.get(row.epoch)) for row in await heads_of(tx, gateway)]
            gaps = [gap_json(gap) for gap in await gaps_of(tx, gateway, _MOST_GAPS)]
            return {"epochs": epochs, "gaps": gaps}

        return await self._database.read(read)

    async def incarnation(self, identity: Identity | None = None) -> str:
        """Name of this database's life; another one when its file lies elsewhere than it did: it was restored.

        Args:
            identity: of the file; None where there is none.
        """

        async def settle(tx: Tx) -> str:
            rows = await tx.all("SELECT name, value FROM cloud_fact WHERE name IN ('incarnation', 'identity')")
            known = {row[0]: row[1] for row in rows}
            stored = identity_of(known.get("identity"))
            name = known.get("incarnation", "")
            if not name or moved(stored, identity or {}) is not None:
                name = secrets.token_hex(8)
            await keep_fact(tx, "incarnation", name)
            await keep_fact(tx, "identity", identity_text({**stored, **(identity or {})}))
            return name

        return await self._database.write(settle)


async def read_fact(tx: Tx, name: str) -> str:
    """What the service wrote down about its database; "" for nothing."""
    row = await tx.one("SELECT value FROM cloud_fact WHERE name = ?", name)
    return row[0] if row else ""


async def keep_fact(tx: Tx, name: str, value: str) -> None:
    """Write something down about the database."""
    upsert = "INSERT INTO cloud_fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    await tx.run(upsert, name, value)


def epoch_json(row: EpochRow, begun: Begun | None) -> dict[str, Any]:
    """For pages: how an epoch began, and how far it is here."""
    return {
        "epoch": row.epoch,
        "records": row.seq,
        "since": utc_text(row.begun_ms),
        "last": utc_text(row.last_ms),
        "reason": begun.reason if begun else "",
        "predecessor": begun.predecessor if begun else None,
        "at": begun.at if begun else None,
    }


def gap_json(gap: dict[str, Any]) -> dict[str, Any]:
    """For pages. `from` and `to`: times of the readings that are missing, None when even that is not known any more."""
    t0_ms, t1_ms = gap.pop("t0_ms"), gap.pop("t1_ms")
    return {**gap, "from": utc_text(t0_ms) if t0_ms else None, "to": utc_text(t1_ms) if t1_ms else None}
