"""What the cloud's database knows of blobs: which gateway sent which, how far unfinished ones are, what is wanted.

The bytes lie elsewhere (`blob_port.BlobStore`). `have` of an unfinished blob is committed after its bytes are durable
there: it is what `Upload-Offset` says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..errors import RefusedError
from .engine import Database, Step, Tx

STORED, WANTED = "stored", "wanted"
MOST_WANTED = 100

STEPS = (
    Step(
        "m001_blobs",
        (
            """CREATE TABLE blob (gateway TEXT, sha256 TEXT, size INTEGER NOT NULL, n INTEGER NOT NULL,
               stored_ms INTEGER NOT NULL, state TEXT NOT NULL, PRIMARY KEY (gateway, sha256)) WITHOUT ROWID""",
            "CREATE INDEX blob_number ON blob (gateway, n)",
            """CREATE TABLE blob_part (gateway TEXT, sha256 TEXT, size INTEGER NOT NULL, have INTEGER NOT NULL,
               changed_ms INTEGER NOT NULL, upload TEXT NOT NULL, parts TEXT NOT NULL,
               PRIMARY KEY (gateway, sha256)) WITHOUT ROWID""",
        ),
    ),
)
"""Keyed by gateway: one that two gateways sent is two rows, and one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one gateway may have.

    Attributes:
        size: bytes of one blob.
        quota: bytes of all, unfinished ones included.
        parts: unfinished ones at once.
    """

    size: int
    quota: int
    parts: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A blob that is whole in the store; `wanted`: it was, and was lost or damaged."""

    size: int
    n: int
    stored_ms: int
    is_wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An unfinished blob.

    Attributes:
        have: durable bytes.
        upload, parts: what the store remembers of putting it together: an id, and number to tag.
    """

    size: int
    have: int
    upload: str
    parts: dict[int, str]


class BlobRecords:
    """Rows about blobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stored(self, gateway: str, sha256: str) -> Stored | None:
        """One blob of a gateway."""
        return await self._database.read(lambda tx: _stored(tx, gateway, sha256))

    async def part(self, gateway: str, sha256: str) -> Part | None:
        """One unfinished blob of a gateway."""
        return await self._database.read(lambda tx: _part(tx, gateway, sha256))

    async def standing(self, gateway: str) -> tuple[int, list[str]]:
        """Number of the newest blob, 0 when there is none; and those that are wanted again."""

        async def read(tx: Tx) -> tuple[int, list[str]]:
            last = await tx.one("SELECT MAX(n) FROM blob WHERE gateway = ?", gateway)
            sql = "SELECT sha256 FROM blob WHERE gateway = ? AND state = ? ORDER BY n LIMIT ?"
            wanted = await tx.all(sql, gateway, WANTED, MOST_WANTED)
            return (last[0] if last else 0) or 0, [row[0] for row in wanted]

        return await self._database.read(read)

    async def begin(self, gateway: str, sha256: str, size: int, limits: Limits, now_ms: int) -> Part:
        """The unfinished blob, made when there is none. Another length than before begins anew.

        Raises:
            RefusedError: `too_large`, `quota`, `too_many_uploads`.
        """

        part = await self.part(gateway, sha256)
        if part is not None and part.size == size:
            return part

        async def write(tx: Tx) -> Part:
            await _check(tx, gateway, sha256, size, limits)
            upsert = (
                "INSERT INTO blob_part VALUES (?, ?, ?, 0, ?, '', '{}') ON CONFLICT (gateway, sha256) DO UPDATE SET"
                " size = excluded.size, have = 0, changed_ms = excluded.changed_ms, upload = '', parts = '{}'"
            )
            await tx.run(upsert, gateway, sha256, size, now_ms)
            return Part(size=size, have=0, upload="", parts={})

        return await self._database.write(write)

    async def advance(self, gateway: str, sha256: str, have: int, to: int, now_ms: int) -> bool:
        """The durable bytes are `to` now; False when they were not `have` any more."""
        sql = "UPDATE blob_part SET have = ?, changed_ms = ? WHERE gateway = ? AND sha256 = ? AND have = ?"
        count = await self._database.write(lambda tx: tx.run(sql, to, now_ms, gateway, sha256, have))
        return count == 1

    async def rewind(self, gateway: str, sha256: str, have: int) -> None:
        """The store has lost what lies behind `have`."""
        sql = "UPDATE blob_part SET have = ?, upload = '', parts = '{}' WHERE gateway = ? AND sha256 = ? AND have >= ?"
        await self._database.write(lambda tx: tx.run(sql, have, gateway, sha256, have))

    async def remember(self, gateway: str, sha256: str, upload: str, parts: dict[int, str]) -> None:
        """How far the store is in putting a blob together."""
        sql = "UPDATE blob_part SET upload = ?, parts = ? WHERE gateway = ? AND sha256 = ?"
        text = json.dumps({str(number): tag for number, tag in sorted(parts.items())})
        await self._database.write(lambda tx: tx.run(sql, upload, text, gateway, sha256))

    async def finish(self, gateway: str, sha256: str, size: int, now_ms: int) -> Stored:
        """The blob is whole in the store; it gets the next number, also when it comes again."""

        async def write(tx: Tx) -> Stored:
            row = await tx.one("SELECT MAX(n) FROM blob WHERE gateway = ?", gateway)
            n = ((row[0] if row else 0) or 0) + 1
            upsert = (
                "INSERT INTO blob VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (gateway, sha256) DO UPDATE SET"
                " n = excluded.n, stored_ms = excluded.stored_ms, state = excluded.state, size = excluded.size"
            )
            await tx.run(upsert, gateway, sha256, size, n, now_ms, STORED)
            await tx.run("DELETE FROM blob_part WHERE gateway = ? AND sha256 = ?", gateway, sha256)
            return Stored(size=size, n=n, stored_ms=now_ms, is_wanted=False)

        return await self._database.write(write)

    async def forget(self, gateway: str, sha256: str) -> None:
        """Nothing is left of an unfinished blob."""
        sql = "DELETE FROM blob_part WHERE gateway = ? AND sha256 = ?"
        await self._database.write(lambda tx: tx.run(sql, gateway, sha256))

    async def want(self, sha256: str) -> list[str]:
        """The store has lost a blob: every gateway that had sent it is asked for it. Their ids."""

        async def write(tx: Tx) -> list[str]:
            rows = await tx.all("SELECT gateway FROM blob WHERE sha256 = ? AND state = ?", sha256, STORED)
            for (gateway,) in rows:
                await tx.run("UPDATE blob SET state = ? WHERE gateway = ? AND sha256 = ?", WANTED, gateway, sha256)
            return [row[0] for row in rows]

        return await self._database.write(write)

    async def stale(self, before_ms: int) -> list[tuple[str, str]]:
        """Unfinished blobs that nobody went on with since then."""
        sql = "SELECT gateway, sha256 FROM blob_part WHERE changed_ms < ?"
        rows = await self._database.read(lambda tx: tx.all(sql, before_ms))
        return [(row[0], row[1]) for row in rows]


async def _stored(tx: Tx, gateway: str, sha256: str) -> Stored | None:
    sql = "SELECT size, n, stored_ms, state FROM blob WHERE gateway = ? AND sha256 = ?"
    row = await tx.one(sql, gateway, sha256)
    return Stored(size=row[0], n=row[1], stored_ms=row[2], is_wanted=row[3] == WANTED) if row else None


async def _part(tx: Tx, gateway: str, sha256: str) -> Part | None:
    sql = "SELECT size, have, upload, parts FROM blob_part WHERE gateway = ? AND sha256 = ?"
    row = await tx.one(sql, gateway, sha256)
    if row is None:
        return None
    parts = {int(number): tag for number, tag in json.loads(row[3]).items()}
    return Part(size=row[0], have=row[1], upload=row[2], parts=parts)


async def _check(tx: Tx, gateway: str, sha256: str, size: int, limits: Limits) -> None:
    if size > limits.size:
        raise RefusedError("too_large", f"a blob may have {limits.size} bytes, this one has {size}")
    whole = await tx.one("SELECT SUM(size) FROM blob WHERE gateway = ?", gateway)
    sql = "SELECT COUNT(*), SUM(size) FROM blob_part WHERE gateway = ? AND sha256 <> ?"
    part = await tx.one(sql, gateway, sha256)
    assert whole is not None
    assert part is not None
    if part[0] >= limits.parts:
        message = f"{part[0]} blobs of this gateway are unfinished"
        raise RefusedError("too_many_uploads", message, hint="finish them first", retry_s=60)
    if int(whole[0] or 0) + int(part[1] or 0) + size > limits.quota:
        hint = "raise quota_gb in cloud.toml"
        raise RefusedError("quota", f"this gateway may have {limits.quota} bytes of blobs here", hint=hint)
