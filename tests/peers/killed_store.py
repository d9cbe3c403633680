"""A process that keeps batches and says which ones were acknowledged, until it is killed.

Args: URL of PostgreSQL, or path of a SQLite file; number of gateways.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.engine_postgres import PostgresDatabase
from sitewarden.cloud.store import PARTITIONED, STEPS, Store
from sitewarden.tests.peers.stores import Stream


async def send(store: Store, name: str) -> None:
    """Batches without end; those that are there already are known again."""
    stream = Stream(name)
    while True:
        taken = await store.take(stream.next())
        print(name, taken.cursor.ack, flush=True)


async def main(where: str, gateways: int) -> None:
    is_server = where.startswith("postgresql:")
    database = (
        PostgresDatabase(where, STEPS, partitioned=PARTITIONED) if is_server else SqliteDatabase(Path(where), STEPS)
    )
    async with database, asyncio.TaskGroup() as group:
        for n in range(gateways):
            group.create_task(send(Store(database), f"gw{n}"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
