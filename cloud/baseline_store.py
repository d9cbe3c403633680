"""What headquarters keeps of its baseline: every revision, and how each site stands under it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .engine import Database, Step, Tx

STEPS = (
    Step(
        "m010_baseline",
        (
            """CREATE TABLE baseline (revision INTEGER NOT NULL, made_ms INTEGER NOT NULL, digest TEXT NOT NULL,
               body TEXT NOT NULL, PRIMARY KEY (revision))""",
            """CREATE TABLE config_report (gateway TEXT NOT NULL, at_ms INTEGER NOT NULL, revision INTEGER NOT NULL,
               body TEXT NOT NULL, PRIMARY KEY (gateway))""",
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One baseline that was in force. `revision` grows by one; 0: there was none yet."""

    revision: int = 0
    made_ms: int = 0
    digest: str = ""
    body: str = "{}"


class BaselineStore:
    """Revisions are never changed; reports are the newest of each gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self) -> Revision:
        """The revision in force."""
        return await self._database.read(_newest)

    async def advance(self, body: str, digest: str, now_ms: int) -> Revision:
        """A further revision, unless the newest one says the same already."""

        async def job(tx: Tx) -> Revision:
            await tx.lock("baseline")
            newest = await _newest(tx)
            if newest.digest == digest:
                return newest
            fresh = Revision(revision=newest.revision + 1, made_ms=now_ms, digest=digest, body=body)
            await tx.run("INSERT INTO baseline VALUES (?, ?, ?, ?)", fresh.revision, now_ms, digest, body)
            return fresh

        return await self._database.write(job)

    async def note_report(self, gateway: str, at_ms: int, report: dict[str, Any]) -> None:
        """How a gateway says that it stands."""
        upsert = (
            "INSERT INTO config_report VALUES (?, ?, ?, ?) ON CONFLICT (gateway) DO UPDATE SET"
            " at_ms = excluded.at_ms, revision = excluded.revision, body = excluded.body"
        )
        body, revision = json.dumps(report, ensure_ascii=False), report["revision"]
        await self._database.write(lambda tx: tx.run(upsert, gateway, at_ms, revision, body))

    async def reports(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Gateway to when its newest report came (UTC ms), and the report."""
        rows = await self._database.read(lambda tx: tx.all("SELECT gateway, at_ms, body FROM config_report"))
        return {gateway: (at_ms, json.loads(body)) for gateway, at_ms, body in rows}


async def _newest(tx: Tx) -> Revision:
    row = await tx.one("SELECT revision, made_ms, digest, body FROM baseline ORDER BY revision DESC LIMIT 1")
    return Revision(revision=row[0], made_ms=row[1], digest=row[2], body=row[3]) if row else Revision()
