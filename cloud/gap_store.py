"""Declared gaps of a stream: what a gateway said in place of batches that it had to drop."""

from __future__ import annotations

from ..sync.gaps import Gap
from .engine import Step, Tx

STEPS = (
    Step(
        "m030_gaps",
        (
            """CREATE TABLE declared_gap (gateway TEXT NOT NULL, stream TEXT NOT NULL, epoch TEXT NOT NULL,
               first_n INTEGER NOT NULL, last_n INTEGER NOT NULL, t0_ms INTEGER NOT NULL, t1_ms INTEGER NOT NULL,
               readings INTEGER NOT NULL, why TEXT NOT NULL, received_ms INTEGER NOT NULL,
               PRIMARY KEY (gateway, stream, epoch, first_n)) WITHOUT ROWID""",
        ),
    ),
)


async def keep_gap(tx: Tx, key: tuple[str, str, str], gap: Gap, received_ms: int) -> None:
    """Remember what was declared for (gateway, stream, epoch)."""
    row = (*key, gap.first, gap.last, gap.t0_ms, gap.t1_ms, gap.readings, gap.why, received_ms)
    await tx.many("INSERT INTO declared_gap VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [row])


async def lies_in_gap(tx: Tx, key: tuple[str, str, str], n: int) -> bool:
    """Whether batch `n` was declared to be missing."""
    sql = (
        "SELECT 1 FROM declared_gap WHERE gateway = ? AND stream = ? AND epoch = ? AND first_n <= ? AND last_n >= ?"
        " LIMIT 1"
    )
    return await tx.one(sql, *key, n, n) is not None


async def gaps_of(tx: Tx, gateway: str, limit: int) -> list[dict[str, object]]:
    """The newest declared gaps of a gateway: epoch, first, last, t0_ms, t1_ms, readings, why."""
    sql = (
        "SELECT epoch, first_n, last_n, t0_ms, t1_ms, readings, why FROM declared_gap WHERE gateway = ?"
        " ORDER BY received_ms DESC, last_n DESC LIMIT ?"
    )
    names = ("epoch", "first", "last", "t0_ms", "t1_ms", "readings", "why")
    return [dict(zip(names, row, strict=True)) for row in await tx.all(sql, gateway, limit)]
