"""A backup of headquarters, and what it makes durable: `sitewarden cloud backup` copies, the service raises `durable`.

The copy is one state of cloud.db, taken while the service runs. It is made beside the one before, put through to the
device and looked over; then it takes that one's name. Only then is what it holds called durable: never more than a
restore from it would bring back.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ..errors import PermanentError, RefusedError
from ..serving.web import body
from .engine import CopyError, copy_database
from .epoch_store import keep_fact, read_fact
from .transactions import Database, Tx

PATH = "/v1/backups"
DATABASE = "cloud.db"
_OTHERS = ("secrets.db", "witness.key", "seal.key")
_FACT = "backup"
_ACKS = "SELECT gateway, stream, epoch, ack FROM ack"
MOST_TOLD_BYTES = 256 * 2**20
"""Of what a command says about a backup: some 60 bytes for each stream of each gateway."""

Row = tuple[str, str, str, int]
"""Gateway, stream, epoch, newest batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A finished backup.

    Attributes:
        begun_ms: UTC milliseconds; blobs that were stored before are in it.
        batches: of each stream, the newest batch.
        blobs: how many were new. bytes: of the database.
    """

    begun_ms: int
    batches: tuple[Row, ...]
    blobs: int
    bytes: int


def copy(data: Path, target: Path, blobs: Path | None) -> Copied:
    """Copy a data folder of headquarters; the service may run. Blocks, as long as that takes.

    Args:
        target: folder of the backup, made when it is missing.
        blobs: folder of the evidence; None: it lies elsewhere (S3), which keeps it safe itself.

    Raises:
        PermanentError: something could not be read or written; the backup before this one is as it was.
    """
    begun_ms = int(time.time() * 1000)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        count = _copy_blobs(blobs, target / "blobs") if blobs is not None and blobs.is_dir() else 0
        for name in _OTHERS:
            if (data / name).exists():
                _copy_database(data / name, target / name) if name.endswith(".db") else _copy_file(data / name, target)
        batches = _copy_database(data / DATABASE, target / DATABASE)
    except (OSError, CopyError) as error:
        raise PermanentError(f"the backup in {target} was not made: {error}", hint="free space, rights") from error
    return Copied(begun_ms=begun_ms, batches=batches, blobs=count, bytes=(target / DATABASE).stat().st_size)


def is_same_device(data: Path, target: Path) -> bool:
    """Whether a backup would be lost together with what it is of, as far as that can be seen."""
    there = next(path for path in (target, *target.absolute().parents) if path.exists())
    return there.stat().st_dev == data.stat().st_dev


def _copy_database(source: Path, target: Path) -> tuple[Row, ...]:
    """One state of it; what a cloud.db holds by stream, nothing of others. In one go: a writer would begin it anew."""
    fresh = target.with_name(f"{target.name}.new")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    rows = copy_database(source, fresh, _ACKS if source.name == DATABASE else "")
    _finish(fresh, target)
    return tuple(rows)


def _copy_file(source: Path, folder: Path) -> None:
    fresh = folder / f"{source.name}.new"
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    shutil.copyfile(source, fresh)
    _finish(fresh, folder / source.name)


def _finish(fresh: Path, target: Path) -> None:
    _sync(fresh)
    fresh.replace(target)
    _sync(target.parent)


def _copy_blobs(source: Path, target: Path) -> int:
    """Those that are not there yet; a whole blob never changes, its name is its content."""
    count = 0
    for path in source.glob("??/??/*"):
        to = target / path.relative_to(source)
        if to.exists() or not path.is_file():
            continue
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy_file(path, to.parent)
        for folder in (to.parent.parent, target):
            _sync(folder)
        count += 1
    return count


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


# --- the service's side ------------------------------------------------------------------------------------------


class Backups:
    """What backups have made durable. `open` before anything is asked.

    Args:
        counts: whether only a backup makes durable; else what is committed is durable, and this only notes it.
    """

    def __init__(self, database: Database, *, counts: bool) -> None:
        self._database, self._counts = database, counts
        self.newest_ms: int | None = None

    async def open(self) -> None:
        """Read when the newest one was begun."""
        text = await self._database.read(lambda tx: read_fact(tx, _FACT))
        self.newest_ms = int(text) if text else None

    def covers(self, stored_ms: int) -> bool:
        """Whether what was stored at that time is durable."""
        return not self._counts or (self.newest_ms is not None and stored_ms < self.newest_ms)

    async def handle(self, request: web.Request) -> web.Response:
        """POST on the service's own socket: a backup is complete."""
        fields = await body(request, {"begun_ms": int, "batches": list})
        rows = [_row(entry) for entry in fields["batches"]]
        return web.json_response({"raised": await self.complete(fields["begun_ms"], rows), "counts": self._counts})

    async def complete(self, begun_ms: int, batches: Sequence[Row]) -> int:
        """A backup holds these; how many streams are durable further than before."""

        async def raise_them(tx: Tx) -> int:
            sql = "SELECT gateway, stream, epoch, ack, durable FROM ack"
            known = {row[:3]: row[3:] for row in await tx.all(sql)}
            higher = [
                (n, gateway, stream, epoch)
                for gateway, stream, epoch, n in batches
                if (at := known.get((gateway, stream, epoch))) is not None and at[1] < n <= at[0]
            ]
            update = "UPDATE ack SET durable = ? WHERE gateway = ? AND stream = ? AND epoch = ?"
            await tx.many(update, higher)
            await keep_fact(tx, _FACT, str(begun_ms))
            return len(higher)

        raised = await self._database.write(raise_them)
        self.newest_ms = begun_ms
        return raised


def _row(entry: Any) -> Row:
    match entry:
        case [str(gateway), str(stream), str(epoch), int(n)] if n >= 0:
            return gateway, stream, epoch, n
        case _:
            raise RefusedError("bad_request", f"not a stream of a backup: {json.dumps(entry)[:80]}")
