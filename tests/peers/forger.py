"""A root insider on the gateway: writes a journal anew, with the gateway's own key, as well as anybody can."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.sync.journal import canonical, genesis_chain, next_chain
from sitewarden.sync.merkle import EMPTY, extend, root
from sitewarden.sync.notes import Checkpoint, origin_of, parse_note, sign_note

Fields = list[dict[str, Any]]


def forge(path: Path, deed: Callable[[Fields], Fields | None], key: Ed25519PrivateKey) -> None:
    """Do `deed` to the records, number them again, compute the chain again, and sign every checkpoint again.

    Checkpoints that still fit keep their countersignatures; those of a longer journal are thrown away.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        gateway, epoch = meta["gateway"], meta["epoch"]
        records: Fields = [json.loads(data) for (data,) in connection.execute("SELECT data FROM record ORDER BY seq")]
        records = deed(records) or records
        connection.execute("DELETE FROM record")
        chain, rows = genesis_chain(gateway, epoch), []
        for seq, record in enumerate(records, 1):
            data = canonical({**record, "seq": seq})
            chain = next_chain(chain, data)
            rows.append((seq, record["kind"], data, chain))
        connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", rows)
        connection.execute("DELETE FROM checkpoint_tree")
        with contextlib.suppress(sqlite3.OperationalError):  # no such table: nothing was ever sent
            connection.execute("DELETE FROM batch WHERE last > ?", (len(rows),))  # a trace of what is gone
        sizes = connection.execute("SELECT size, note FROM checkpoint").fetchall()
        for size, old in sizes:
            if size > len(rows):
                connection.execute("DELETE FROM checkpoint WHERE size = ?", (size,))
                continue
            tree = extend(EMPTY, (row[2] for row in rows[:size]))
            origin = origin_of(gateway, epoch)
            now = Checkpoint(origin=origin, size=size, root=root(tree), chain=rows[size - 1][3])
            if now != Checkpoint.parse(parse_note(old).text):
                note = str(sign_note(now.text(), origin, key))
                sql = "UPDATE checkpoint SET note = ?, cosignatures = '' WHERE size = ?"
                connection.execute(sql, (note, size))
