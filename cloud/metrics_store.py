"""What headquarters' metrics ask of the database: sums, never rows."""

from __future__ import annotations

import json
from typing import Any

from .engine import Database, Tx


class MetricsStore:
    """Reads alone. It owns no table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def streams(self) -> list[tuple[Any, ...]]:
        """(gateway, stream, acknowledged, durable, epochs), summed over epochs."""
        sql = (
            "SELECT gateway, stream, SUM(ack), SUM(durable), COUNT(*) FROM ack"
            " GROUP BY gateway, stream ORDER BY gateway, stream"
        )
        return await self._database.read(lambda tx: tx.all(sql))

    async def quarantined(self) -> dict[str, int]:
        """Gateway to how many batches and records lie in quarantine."""
        sql = "SELECT gateway, COUNT(*) FROM quarantine GROUP BY gateway"
        return dict(await self._database.read(lambda tx: tx.all(sql)))

    async def open_alarms(self) -> list[tuple[str, str]]:
        """(gateway, priority) of each open alarm of a gateway's newest epoch."""

        async def read(tx: Tx) -> list[tuple[str, str]]:
            sql = "SELECT gateway, epoch FROM ack WHERE stream = 'journal' ORDER BY begun_ms, epoch"
            newest = dict(await tx.all(sql))
            rows = await tx.all("SELECT gateway, epoch, data FROM open_alarm")
            now = [(gateway, data) for gateway, epoch, data in rows if newest.get(gateway) == epoch]
            return [(gateway, str(json.loads(data).get("priority", ""))) for gateway, data in now]

        return await self._database.read(read)
