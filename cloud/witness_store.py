"""What the witness keeps: the checkpoints that it countersigned, its own tree of each journal, and contradictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..sync.epoch_table import RESTORED
from ..sync.merkle import EMPTY, Range, extend
from .engine import Database, Row, Step, Tx

MOST_FORKS = 100
"""Contradicting checkpoints that are kept of one epoch: who has the key could send others for ever."""
_HOUR_S = 3600

STEPS = (
    Step(
        "m001_witness",
        (
            """CREATE TABLE witnessed (gateway TEXT, epoch TEXT, size INTEGER, note TEXT NOT NULL,
               cosignature TEXT NOT NULL, time_s INTEGER NOT NULL, PRIMARY KEY (gateway, epoch, size)) WITHOUT ROWID""",
            """CREATE TABLE witness_tree (gateway TEXT, epoch TEXT, size INTEGER NOT NULL, nodes BLOB NOT NULL,
               PRIMARY KEY (gateway, epoch)) WITHOUT ROWID""",
            """CREATE TABLE witness_fork (gateway TEXT, epoch TEXT, n INTEGER, size INTEGER NOT NULL,
               received_ms INTEGER NOT NULL, note TEXT NOT NULL, why TEXT NOT NULL,
               PRIMARY KEY (gateway, epoch, n)) WITHOUT ROWID""",
        ),
    ),
)
"""Keyed by gateway and epoch. What is in `witness_fork` is never deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """A countersigned checkpoint. `time_s`: seconds since 1970."""

    epoch: str
    size: int
    note: str
    cosignature: str
    time_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of an epoch before a checkpoint of `size` records is judged.

    Attributes:
        last: the newest one that was countersigned. same: the one of the same size.
        chain: chain value of the record that is number `size` of its epoch, as it is kept here; None without one.
        newest: how many records of the epoch are here, as far as that can be told.
    """

    last: Witnessed | None
    same: Witnessed | None
    chain: bytes | None
    newest: int


class WitnessStore:
    """What the witness asks of the cloud's database, which the caller opens and closes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def standing(self, gateway: str, epoch: str, size: int) -> Standing:
        """See `Standing`."""

        async def read(tx: Tx) -> Standing:
            sql = "SELECT MAX(size) FROM witnessed WHERE gateway = ? AND epoch = ?"
            row = await tx.one(sql, gateway, epoch)
            last = await _witnessed(tx, gateway, epoch, row[0]) if row and row[0] is not None else None
            same = await _witnessed(tx, gateway, epoch, size)
            base = await _base(tx, gateway, epoch)
            if base is None:
                return Standing(last=last, same=same, chain=None, newest=0)
            sql = "SELECT chain FROM record WHERE gateway = ? AND epoch = ? AND seq = ?"
            found = await tx.one(sql, gateway, epoch, base + size)
            row = await tx.one("SELECT MAX(seq) FROM record WHERE gateway = ? AND epoch = ?", gateway, epoch)
            newest = row[0] - base if row and row[0] is not None else 0
            return Standing(last=last, same=same, chain=bytes(found[0]) if found else None, newest=newest)

        return await self._database.read(read)

    async def tree(self, gateway: str, epoch: str) -> Range:
        """The tree of the records here, as far as it was stored last."""
        sql = "SELECT size, nodes FROM witness_tree WHERE gateway = ? AND epoch = ?"
        row = await self._database.read(lambda tx: tx.one(sql, gateway, epoch))
        return Range.from_bytes(row[0], bytes(row[1])) if row else EMPTY

    async def grown(self, gateway: str, epoch: str, tree: Range, through: int) -> Range:
        """`tree` with the first `through` records of its epoch; it ends before the first that is not here."""

        async def read(tx: Tx) -> Range:
            base = await _base(tx, gateway, epoch)
            if base is None:
                return tree
            sql = "SELECT seq, data FROM record WHERE gateway = ? AND epoch = ? AND seq > ? AND seq <= ? ORDER BY seq"
            rows = await tx.all(sql, gateway, epoch, base + tree.size, base + through)
            return extend(tree, _unbroken(rows, base + tree.size))

        return await self._database.read(read)

    async def keep_tree(self, gateway: str, epoch: str, tree: Range) -> None:
        """Go on from here next time."""
        await self._database.write(lambda tx: _keep_tree(tx, gateway, epoch, tree))

    async def keep(self, gateway: str, witnessed: Witnessed, tree: Range) -> Witnessed:
        """Store a countersignature; the one that counts, when another service of the same cloud was faster.

        Of each hour the last one stays: the newest covers all before it, the others say when.
        """

        async def write(tx: Tx) -> Witnessed:
            epoch, size = witnessed.epoch, witnessed.size
            other = await _witnessed(tx, gateway, epoch, size)
            if other is not None:
                return other
            hour_s = witnessed.time_s - witnessed.time_s % _HOUR_S
            sql = "DELETE FROM witnessed WHERE gateway = ? AND epoch = ? AND size < ? AND time_s >= ?"
            await tx.run(sql, gateway, epoch, size, hour_s)
            row = (gateway, epoch, size, witnessed.note, witnessed.cosignature, witnessed.time_s)
            await tx.run("INSERT INTO witnessed VALUES (?, ?, ?, ?, ?, ?)", *row)
            await _keep_tree(tx, gateway, epoch, tree)
            return witnessed

        return await self._database.write(write)

    async def keep_fork(self, gateway: str, epoch: str, size: int, note: str, why: str, received_ms: int) -> bool:
        """Keep a contradiction as evidence; whether it is a new one."""

        async def write(tx: Tx) -> bool:
            same = "SELECT 1 FROM witness_fork WHERE gateway = ? AND epoch = ? AND note = ?"
            known = await tx.one(same, gateway, epoch, note)
            row = await tx.one("SELECT count(*) FROM witness_fork WHERE gateway = ? AND epoch = ?", gateway, epoch)
            assert row is not None
            if known is not None or row[0] >= MOST_FORKS:
                return False
            values = (gateway, epoch, row[0] + 1, size, received_ms, note, why)
            await tx.run("INSERT INTO witness_fork VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
            return True

        return await self._database.write(write)

    async def shown(self, gateway: str) -> dict[str, Any]:
        """For pages: the newest countersigned checkpoint of a gateway, and its contradictions."""

        async def read(tx: Tx) -> dict[str, Any]:
            sql = (
                "SELECT epoch, size, note, cosignature, time_s FROM witnessed WHERE gateway = ?"
                " ORDER BY time_s DESC, size DESC LIMIT 1"
            )
            row = await tx.one(sql, gateway)
            fork = "SELECT epoch, size, received_ms, why, note FROM witness_fork WHERE gateway = ? ORDER BY received_ms"
            forks = await tx.all(fork, gateway)
            names = ("epoch", "size", "received_ms", "why", "note")
            return {"last": _read(row), "forks": [dict(zip(names, each, strict=True)) for each in forks]}

        return await self._database.read(read)


async def _base(tx: Tx, gateway: str, epoch: str) -> int | None:
    """Number of the record before an epoch; None when its first record is not here."""
    sql = "SELECT seq, kind FROM record WHERE gateway = ? AND epoch = ? ORDER BY seq LIMIT 1"
    row = await tx.one(sql, gateway, epoch)
    return row[0] - 1 if row is not None and (row[0] == 1 or row[1] == RESTORED) else None


async def _witnessed(tx: Tx, gateway: str, epoch: str, size: int) -> Witnessed | None:
    sql = "SELECT epoch, size, note, cosignature, time_s FROM witnessed WHERE gateway = ? AND epoch = ? AND size = ?"
    return _read(await tx.one(sql, gateway, epoch, size))


def _read(row: Row | None) -> Witnessed | None:
    if row is None:
        return None
    epoch, size, note, cosignature, time_s = row
    return Witnessed(epoch=epoch, size=size, note=note, cosignature=cosignature, time_s=time_s)


async def _keep_tree(tx: Tx, gateway: str, epoch: str, tree: Range) -> None:
    upsert = (
        "INSERT INTO witness_tree VALUES (?, ?, ?, ?) ON CONFLICT (gateway, epoch) DO UPDATE SET"
        " size = excluded.size, nodes = excluded.nodes WHERE witness_tree.size < excluded.size"
    )
    await tx.run(upsert, gateway, epoch, tree.size, tree.to_bytes())


def _unbroken(rows: list[Row], after: int) -> list[bytes]:
    """The records that follow number `after` without a gap."""
    found = []
    for expected, (seq, data) in enumerate(rows, after + 1):
        if seq != expected:
            break
        found.append(bytes(data))
    return found
