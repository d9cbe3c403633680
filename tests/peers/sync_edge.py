"""A gateway's journal, history and uplink in a process of its own, to be killed at any moment.

`python -m sitewarden.tests.peers.sync_edge FOLDER PORT SEED`: appends records and readings for ever (SEED < 0: only
seals and sends what there is), and prints `records N` and `readings N` after they were committed.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from sitewarden.sync.cloud_client import UplinkOptions
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.uplink import run_uplink
from sitewarden.tests.peers.linked_site import KEY
from sitewarden.words import Quality, Reading, now

POINT = "a.b.c"


def _say(what: str, count: int) -> None:
    sys.stdout.write(f"{what} {count}\n")
    sys.stdout.flush()


async def _record(journal: Journal, dice: random.Random) -> None:
    while True:
        texts = ["x" * dice.choice([10, 200, 3000]) for _ in range(dice.randrange(1, 8))]
        records = await journal.append(
            [Draft(kind="test.said", at=now(), actor="gateway", body={"text": text}) for text in texts]
        )
        _say("records", records[-1].seq)
        await asyncio.sleep(dice.random() * 0.02)


async def _measure(history: History, dice: random.Random) -> None:
    count = len(await history.read(POINT, 0, 2**60))
    while True:
        fresh = dice.randrange(1, 30)
        at = now()
        history.add([Reading(point=POINT, value=float(count + n), quality=Quality.GOOD, at=at) for n in range(fresh)])
        await history.flush(seal=dice.random() < 0.3)
        count += fresh
        _say("readings", count)
        await asyncio.sleep(dice.random() * 0.03)


async def main(folder: Path, port: int, seed: int) -> None:
    """Never returns."""
    options = UplinkOptions(
        url=f"http://127.0.0.1:{port}", gateway="gw1", backoff_max_s=0.1, contact_s=0.2, timeout_s=10
    )
    dice = random.Random(seed)
    async with (
        Journal(folder / "journal.db", "gw1") as journal,
        History(folder / "history.db", "gw1", flush_s=3600, seal_readings=40) as history,
        asyncio.TaskGroup() as group,
    ):
        if seed < 0:
            await history.flush(seal=True)
            _say("sealed", 1)
        group.create_task(run_uplink(journal, history, KEY, options, UplinkHealth()))
        if seed >= 0:
            group.create_task(_record(journal, dice))
            group.create_task(_measure(history, dice))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
