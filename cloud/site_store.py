"""What headquarters' page of one site asks of the database, and what its list of sites counts. It owns no table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..sync.streams import JOURNAL
from ..words import utc_text
from .blob_store import WANTED
from .engine import Database, Tx
from .epoch_store import begun_of, epoch_json, gap_json, heads_of
from .gap_store import gaps_of
from .lineages import EpochRow

MOST_GAPS = 200
MOST_CHECKPOINTS = 50
MOST_QUARANTINED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of one gateway.

    Attributes:
        reading_ms: UTC ms of the newest reading that charts know.
        gaps, gap_readings: declared gaps of the history, and how many readings they held.
    """

    reading_ms: int | None = None
    gaps: int = 0
    gap_readings: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One thing in quarantine. `seq`: number of a single record; None: it is a whole batch. `body`: as it came."""

    stream: str
    epoch: str
    n: int
    seq: int | None
    body: bytes | None


class SiteStore:
    """Reads alone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counts(self) -> Mapping[str, Counts]:
        """Of every gateway of which there is any."""

        async def read(tx: Tx) -> dict[str, Counts]:
            newest = dict(await tx.all("SELECT gateway, MAX(last_ms) FROM chart_point GROUP BY gateway"))
            sql = "SELECT gateway, COUNT(*), SUM(readings) FROM declared_gap GROUP BY gateway"
            gaps = {row[0]: (row[1], int(row[2])) for row in await tx.all(sql)}
            return {
                gateway: Counts(
                    reading_ms=newest.get(gateway),
                    gaps=gaps.get(gateway, (0, 0))[0],
                    gap_readings=gaps.get(gateway, (0, 0))[1],
                )
                for gateway in newest.keys() | gaps.keys()
            }

        return await self._database.read(read)

    async def details(self, gateway: str) -> dict[str, Any]:
        """What the page of a site shows beside what the list of sites says: `epochs`, `gaps`, `checkpoints`,
        `quarantine`, `evidence`; see openapi.yaml."""

        async def read(tx: Tx) -> dict[str, Any]:
            return {
                "epochs": await _epochs(tx, gateway),
                "gaps": [gap_json(gap) for gap in await gaps_of(tx, gateway, MOST_GAPS)],
                "checkpoints": await _checkpoints(tx, gateway),
                "quarantine": await _quarantine(tx, gateway),
                "evidence": await _evidence(tx, gateway),
            }

        return await self._database.read(read)

    async def set_aside(self, gateway: str, number: int) -> SetAside | None:
        """One thing in quarantine, with its content; None when there is none of this number."""

        async def read(tx: Tx) -> SetAside | None:
            sql = "SELECT stream, epoch, n, seq, body FROM quarantine WHERE gateway = ? AND id = ?"
            row = await tx.one(sql, gateway, number)
            if row is None:
                return None
            stream, epoch, n, seq, body = row
            if body is None and seq is not None:  # a record of a batch that was kept: it lies among the others
                record = "SELECT data FROM record WHERE gateway = ? AND epoch = ? AND seq = ?"
                found = await tx.one(record, gateway, epoch, seq)
                body = found[0] if found else None
            return SetAside(stream=stream, epoch=epoch, n=n, seq=seq, body=None if body is None else bytes(body))

        return await self._database.read(read)


async def _epochs(tx: Tx, gateway: str) -> list[dict[str, Any]]:
    """Every one, the newest first; `alive`: what it says is shown as the present."""
    begun = await begun_of(tx, gateway)
    alive = {row.epoch: row for row in await heads_of(tx, gateway)}
    sql = "SELECT epoch, ack, seq, begun_ms FROM ack WHERE gateway = ? AND stream = ? ORDER BY begun_ms DESC, epoch"
    found = []
    for epoch, ack, seq, begun_ms in await tx.all(sql, gateway, JOURNAL):
        sql = "SELECT received_ms FROM batch WHERE gateway = ? AND stream = ? AND epoch = ? AND n = ?"
        last = await tx.one(sql, gateway, JOURNAL, epoch, ack)
        row = EpochRow(epoch=epoch, ack=ack, seq=seq, begun_ms=begun_ms, last_ms=last[0] if last else begun_ms)
        found.append({**epoch_json(row, begun.get(epoch)), "alive": epoch in alive})
    return found


async def _checkpoints(tx: Tx, gateway: str) -> list[dict[str, Any]]:
    sql = "SELECT epoch, size, time_s FROM witnessed WHERE gateway = ? ORDER BY time_s DESC, size DESC LIMIT ?"
    rows = await tx.all(sql, gateway, MOST_CHECKPOINTS)
    return [{"epoch": epoch, "records": size, "at": utc_text(time_s * 1000)} for epoch, size, time_s in rows]


async def _quarantine(tx: Tx, gateway: str) -> list[dict[str, Any]]:
    sql = (
        "SELECT id, stream, epoch, n, seq, received_ms, reason, LENGTH(body) FROM quarantine WHERE gateway = ?"
        " ORDER BY id DESC LIMIT ?"
    )
    names = ("id", "stream", "epoch", "n", "seq", "at", "reason", "bytes")
    rows = [dict(zip(names, row, strict=True)) for row in await tx.all(sql, gateway, MOST_QUARANTINED)]
    return [{**row, "at": utc_text(row["at"])} for row in rows]


async def _evidence(tx: Tx, gateway: str) -> dict[str, int]:
    whole = await tx.one("SELECT COUNT(*), SUM(size) FROM blob WHERE gateway = ?", gateway)
    wanted = await tx.one("SELECT COUNT(*) FROM blob WHERE gateway = ? AND state = ?", gateway, WANTED)
    part = await tx.one("SELECT COUNT(*) FROM blob_part WHERE gateway = ?", gateway)
    assert whole is not None
    assert wanted is not None
    assert part is not None
    return {"count": whole[0], "bytes": int(whole[1] or 0), "wanted": wanted[0], "unfinished": part[0]}
