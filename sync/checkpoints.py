"""The gateway signs how its journal stands: every 60 s or 256 records, and at once after a sign-off.

A checkpoint (`notes.Checkpoint`) holds the number of records, their Merkle root and their chain value. Signed notes lie
in the journal's file beside the records. The tree's compact range is stored with the newest checkpoint, in the same
transaction: a start hashes only the records after it, and it costs nothing while records are committed. Each epoch has
a tree of its own, from the record on that it begins with, which names the end of the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..errors import PermanentError
from ..words import mono_s
from .evidence_state import EvidenceHealth
from .journal import Journal, Record
from .keys import public_key_text
from .merkle import EMPTY, Range, extend, root
from .notes import Checkpoint, Note, NoteError, origin_of, parse_note, sign_note
from .sqlite import StoreError

_log = logging.getLogger(__name__)

EVERY_S = 60.0
EVERY_RECORDS = 256
LEAST_S = 1.0
"""In a flood of records no more often than this, but for sign-offs: each checkpoint covers all that came."""
SLICE = 1_000
"""Records that are hashed in one go, some milliseconds on a small machine: a first start goes through all of them."""

_NEVER = 2**62

GATEWAY, WITNESS = "gateway", "witness"

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS checkpoint (epoch TEXT NOT NULL, size INTEGER NOT NULL, note TEXT NOT NULL,
       cosignatures TEXT NOT NULL DEFAULT '', PRIMARY KEY (epoch, size)) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS checkpoint_tree (epoch TEXT PRIMARY KEY, size INTEGER NOT NULL, nodes BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS evidence_key (role TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (role, key))",
)
"""Not records: the notes prove themselves. `evidence_key`: who signed here, when nobody gives better keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A checkpoint as it is stored. `epoch`: whose records it counts."""

    epoch: str
    size: int
    chain: bytes
    note: Note


class Checkpoints:
    """Signs checkpoints of an open journal.

    Args:
        key: of the gateway.
        at_once: whether a record is a sign-off, which is not left waiting.
        every_s, every_records: at the latest.

    Attributes:
        ready: set when the tables are there.
    """

    def __init__(
        self,
        journal: Journal,
        key: Ed25519PrivateKey,
        health: EvidenceHealth,
        *,
        at_once: Callable[[Record], bool] = lambda _: False,
        every_s: float = EVERY_S,
        every_records: int = EVERY_RECORDS,
    ) -> None:
        self.journal, self.health = journal, health
        self._key, self._at_once = key, at_once
        self._every_s, self._every_records = every_s, every_records
        self._asked = False
        self._epoch = ""
        self._wake_at = 1
        self.ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        journal.subscribe(self._committed)

    def request(self) -> None:
        """Sign what is committed now, as soon as the loop turns."""
        self._asked = True
        self._wake.set()

    def use(self, key: Ed25519PrivateKey) -> None:
        """Sign with `key` from now on; a record introduced it, which the first checkpoint of it counts."""
        self._key = key
        self.request()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` on the loop after each new checkpoint."""
        self._listeners.append(listener)

    async def run(self) -> NoReturn:
        """Sign for ever; no more when the journal is not the one that was signed: that needs a person.

        Raises:
            StoreError: a checkpoint could not be stored.
        """
        await self.journal.write(self._prepare)
        self.ready.set()
        try:
            while True:
                self._epoch, first = self.journal.epochs[-1]
                await self._sign(first - 1, await self._restore(first - 1))
        except StoreError:
            raise
        except PermanentError as error:
            self.health.problem = error.message
            _log.error("no checkpoints are signed any more: %s", error)
            await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    @property
    def _goes_on(self) -> bool:
        """Whether the records are of the epoch that is signed."""
        return self._epoch == self.journal.epochs[-1][0]

    async def _sign(self, base: int, tree: Range) -> None:
        """Until another epoch begins. Args: base: number of the record before this epoch."""
        signed_s = mono_s() - self._every_s
        while self._goes_on:
            self._asked = False
            head = self.journal.head()[0]
            if head > base + tree.size:
                tree = await self._sign_through(head, base, tree)
                signed_s = mono_s()
                for listener in self._listeners:
                    listener()
            await self._until_due(base + tree.size, signed_s)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        for statement in SCHEMA:
            connection.execute(statement)
        row = (GATEWAY, public_key_text(self._key))
        connection.execute("INSERT OR IGNORE INTO evidence_key VALUES (?, ?)", row)

    def _committed(self, records: list[Record]) -> None:
        if not self._asked and any(map(self._at_once, records)):
            self.request()
        if records[-1].seq >= self._wake_at or not self._goes_on:
            self._wake.set()

    async def _until_due(self, signed: int, signed_s: float) -> None:
        """Returns when there are records after number `signed`, and enough time or records have passed or somebody
        asked; or another epoch has begun."""
        while self._goes_on:
            self._wake.clear()
            new = self.journal.head()[0] - signed
            is_many = new >= self._every_records
            left_s = signed_s + (min(LEAST_S, self._every_s) if is_many else self._every_s) - mono_s()
            if new and (self._asked or left_s <= 0):
                return
            self._wake_at = _NEVER if is_many else signed + (self._every_records if new else 1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s if new else None):  # wait_for can lose a cancellation (gh-86296)
                    await self._wake.wait()

    async def _restore(self, base: int) -> Range:
        """The tree of the newest checkpoint, after a look whether the journal still is the one that was signed."""
        journal, epoch = self.journal, self._epoch
        newest, tree = await journal.query(lambda connection: _stored(connection, epoch))
        if newest is None:
            return EMPTY
        wanted = Checkpoint.parse(newest.text)
        if tree.size != wanted.size or root(tree) != wanted.root:
            tree, _ = await self._extended(base, EMPTY, wanted.size)
        chain = await journal.query(lambda connection: _chain_at(connection, base + wanted.size))
        if root(tree) != wanted.root or chain != wanted.chain:
            problem = f"the journal is not the one whose {wanted.size} records this gateway has signed"
            raise PermanentError(problem, hint="run sitewarden verify")
        self.health.signed = base + wanted.size
        return tree

    async def _extended(self, base: int, tree: Range, size: int) -> tuple[Range, bytes]:
        """The tree of `size` records behind record `base`, and the chain value of the last of them."""
        chain = b""
        while tree.size < size:
            many = min(SLICE, size - tree.size)
            tree, chain = await self.journal.query(lambda connection, t=tree, n=many: _slice(connection, base, t, n))
        return tree, chain

    async def _sign_through(self, head: int, base: int, tree: Range) -> Range:
        tree, chain = await self._extended(base, tree, head - base)
        epoch = self._epoch
        origin = origin_of(self.journal.gateway, epoch)
        checkpoint = Checkpoint(origin=origin, size=tree.size, root=root(tree), chain=chain)
        key = self._key  # another one may follow meanwhile
        note = sign_note(checkpoint.text(), origin, key)
        key_text = public_key_text(key)
        await self.journal.write(lambda connection: _save(connection, epoch, str(note), tree, key_text))
        self.health.signed = head
        return tree


# --- the tables --------------------------------------------------------------------------------------------------


def unwitnessed(connection: sqlite3.Connection, epoch: str, most: int) -> Signed | None:
    """The newest checkpoint of at most `most` records, when neither it nor a later one is countersigned."""
    sql = "SELECT note, cosignatures FROM checkpoint WHERE epoch = ? AND size <= ? ORDER BY size DESC LIMIT 1"
    row = connection.execute(sql, (epoch, most)).fetchone()
    later = "SELECT 1 FROM checkpoint WHERE epoch = ? AND cosignatures <> '' AND size > ? LIMIT 1"
    if row is None or row[1] or connection.execute(later, (epoch, most)).fetchone():
        return None
    note = parse_note(row[0])
    checkpoint = Checkpoint.parse(note.text)
    return Signed(epoch=epoch, size=checkpoint.size, chain=checkpoint.chain, note=note)


def keep_cosignature(connection: sqlite3.Connection, epoch: str, size: int, line: str, key: str) -> bool:
    """Store what the witness answered; whether its key is a new one although another was known."""
    sql = "UPDATE checkpoint SET cosignatures = cosignatures || ? WHERE epoch = ? AND size = ?"
    connection.execute(sql, (line, epoch, size))
    known = {row[0] for row in connection.execute("SELECT key FROM evidence_key WHERE role = ?", (WITNESS,))}
    connection.execute("INSERT OR IGNORE INTO evidence_key VALUES (?, ?)", (WITNESS, key))
    return bool(known) and key not in known


def _stored(connection: sqlite3.Connection, epoch: str) -> tuple[Note | None, Range]:
    """The newest note of an epoch, and the tree beside it; an empty one when it cannot be used."""
    sql = "SELECT note FROM checkpoint WHERE epoch = ? ORDER BY size DESC LIMIT 1"
    row = connection.execute(sql, (epoch,)).fetchone()
    kept = connection.execute("SELECT size, nodes FROM checkpoint_tree WHERE epoch = ?", (epoch,)).fetchone()
    try:
        note = parse_note(row[0]) if row else None
    except NoteError as error:
        raise PermanentError(f"the newest checkpoint cannot be read: {error}", hint="run sitewarden verify") from error
    try:
        return note, Range.from_bytes(*kept) if kept else EMPTY
    except ValueError:
        return note, EMPTY


def _save(connection: sqlite3.Connection, epoch: str, note: str, tree: Range, key: str) -> None:
    connection.execute("INSERT OR IGNORE INTO evidence_key VALUES (?, ?)", (GATEWAY, key))
    connection.execute("INSERT INTO checkpoint (epoch, size, note) VALUES (?, ?, ?)", (epoch, tree.size, note))
    row = (epoch, tree.size, tree.to_bytes())
    connection.execute("INSERT OR REPLACE INTO checkpoint_tree VALUES (?, ?, ?)", row)


def _slice(connection: sqlite3.Connection, base: int, tree: Range, many: int) -> tuple[Range, bytes]:
    sql = "SELECT data, chain FROM record WHERE seq > ? ORDER BY seq LIMIT ?"
    rows = connection.execute(sql, (base + tree.size, many)).fetchall()
    if len(rows) != many:
        raise PermanentError(f"records after {base + tree.size} are missing", hint="run sitewarden verify")
    return extend(tree, (data for data, _ in rows)), rows[-1][1]


def _chain_at(connection: sqlite3.Connection, size: int) -> bytes | None:
    row = connection.execute("SELECT chain FROM record WHERE seq = ?", (size,)).fetchone()
    return row[0] if row else None
