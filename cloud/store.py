"""What the cloud keeps: a batch, its acknowledgement and what follows from it in one transaction.

A stream is known by (gateway, stream, epoch), a batch by its number in it, a record by (gateway, epoch, seq): what was
taken once is recognised for ever, not for a while. The tables need nothing across gateways.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

from ..errors import RefusedError
from ..sync.columns import DamagedError
from ..sync.epoch_table import RESTORED, is_branch
from ..sync.gaps import Gap
from ..sync.journal import Record, canonical, genesis_chain
from ..sync.streams import HISTORY, JOURNAL, UNKNOWN_CHAIN, link, stream_genesis
from ..sync.wire import Cursor
from .engine import Database, Step, Tx
from .epoch_store import STEPS as EPOCH_STEPS
from .epoch_store import heads_of, keep_begun
from .gap_store import STEPS as GAP_STEPS
from .gap_store import keep_gap, lies_in_gap
from .lineages import shown_of
from .project import AlarmNow, EpochNow, GatewayNow, change_of
from .transactions import Job, Quick

T = TypeVar("T")

_QUICK, _QUICK_BYTES = 40, 256 * 1024
"""Batches and records together, and bytes, that a quick job brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One batch, checked as far as that goes without the store.

    Attributes:
        chain: chain value that the gateway signed.
        digest: SHA-256 of the payload; None when the body could not be unpacked.
        problem: why the content cannot be used, "" when it can.
        records: of a journal batch, chained from `before` on.
        count: readings or records in it.
        gap: what the gateway declares to be missing from batch `n` on; None when this is no gap.
    """

    gateway: str
    stream: str
    epoch: str
    n: int
    chain: bytes
    body: bytes
    received_ms: int
    digest: bytes | None
    problem: str = ""
    before: bytes = b""
    records: tuple[Record, ...] = ()
    count: int = 0
    gap: Gap | None = None

    @property
    def last(self) -> int:
        """The last batch that it stands for."""
        return self.gap.last if self.gap is not None else self.n

    @property
    def key(self) -> tuple[str, str, str]:
        """Which stream."""
        return self.gateway, self.stream, self.epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a parcel. `new` is False for a repeat, which changed nothing."""

    cursor: Cursor
    new: bool
    problem: str = ""


class OutOfStepError(RefusedError):
    """`gap`: batches are missing before this one; `fork`: this is another history than the one that is kept."""

    def __init__(self, reason: str, message: str, ack: int, *, hint: str) -> None:
        super().__init__(reason, message, hint=hint)
        self.ack = ack


_NOW_MS = "(extract(epoch from clock_timestamp()) * 1000)::bigint"
PARTITIONED = ("batch", "record")
"""On PostgreSQL one part for each day of reception: a day goes by dropping it. That a batch comes once is the ack row's
business, so no key has to hold across days."""

STEPS = (
    Step(
        "m001_streams",
        (
            """CREATE TABLE ack (gateway TEXT, stream TEXT, epoch TEXT, ack INTEGER NOT NULL, durable INTEGER NOT NULL,
               chain BLOB NOT NULL, seq INTEGER NOT NULL, head BLOB, begun_ms INTEGER NOT NULL,
               PRIMARY KEY (gateway, stream, epoch)) WITHOUT ROWID""",
            """CREATE TABLE batch (gateway TEXT, stream TEXT, epoch TEXT, n INTEGER, chain BLOB NOT NULL,
               received_ms INTEGER NOT NULL, count INTEGER NOT NULL, body BLOB,
               PRIMARY KEY (gateway, stream, epoch, n))""",
            """CREATE TABLE record (gateway TEXT, epoch TEXT, seq INTEGER, kind TEXT NOT NULL, data BLOB NOT NULL,
               chain BLOB NOT NULL, PRIMARY KEY (gateway, epoch, seq)) WITHOUT ROWID""",
            """CREATE TABLE quarantine (id INTEGER PRIMARY KEY, gateway TEXT NOT NULL, stream TEXT NOT NULL,
               epoch TEXT NOT NULL, n INTEGER NOT NULL, seq INTEGER, received_ms INTEGER NOT NULL, reason TEXT NOT NULL,
               body BLOB)""",
            """CREATE TABLE open_alarm (gateway TEXT, epoch TEXT, alarm TEXT, seq INTEGER NOT NULL, data BLOB NOT NULL,
               PRIMARY KEY (gateway, epoch, alarm)) WITHOUT ROWID""",
            """CREATE TABLE gateway (gateway TEXT PRIMARY KEY, contact_ms INTEGER, site TEXT, version TEXT NOT NULL
               DEFAULT '') WITHOUT ROWID""",
        ),
        postgres=(
            """CREATE TABLE ack (gateway TEXT NOT NULL, stream TEXT NOT NULL, epoch TEXT NOT NULL, ack BIGINT NOT NULL,
               durable BIGINT NOT NULL, chain BYTEA NOT NULL, seq BIGINT NOT NULL, head BYTEA, begun_ms BIGINT NOT NULL,
               PRIMARY KEY (gateway, stream, epoch))""",
            """CREATE TABLE batch (gateway TEXT NOT NULL, stream TEXT NOT NULL, epoch TEXT NOT NULL, n BIGINT NOT NULL,
               chain BYTEA NOT NULL, received_ms BIGINT NOT NULL, count BIGINT NOT NULL, body BYTEA,
               PRIMARY KEY (gateway, stream, epoch, n, received_ms)) PARTITION BY RANGE (received_ms)""",
            "CREATE TABLE batch_rest PARTITION OF batch DEFAULT",
            f"""CREATE TABLE record (gateway TEXT NOT NULL, epoch TEXT NOT NULL, seq BIGINT NOT NULL,
               kind TEXT NOT NULL, data BYTEA NOT NULL, chain BYTEA NOT NULL,
               received_ms BIGINT NOT NULL DEFAULT {_NOW_MS},
               PRIMARY KEY (gateway, epoch, seq, received_ms)) PARTITION BY RANGE (received_ms)""",
            "CREATE TABLE record_rest PARTITION OF record DEFAULT",
            """CREATE TABLE quarantine (id BIGSERIAL, gateway TEXT NOT NULL, stream TEXT NOT NULL, epoch TEXT NOT NULL,
               n BIGINT NOT NULL, seq BIGINT, received_ms BIGINT NOT NULL, reason TEXT NOT NULL, body BYTEA,
               PRIMARY KEY (gateway, id))""",
            """CREATE TABLE open_alarm (gateway TEXT NOT NULL, epoch TEXT NOT NULL, alarm TEXT NOT NULL,
               seq BIGINT NOT NULL, data BYTEA NOT NULL, PRIMARY KEY (gateway, epoch, alarm))""",
            """CREATE TABLE gateway (gateway TEXT PRIMARY KEY, contact_ms BIGINT, site TEXT,
               version TEXT NOT NULL DEFAULT '')""",
        ),
    ),
    *GAP_STEPS,
    *EPOCH_STEPS,
)
"""Streams, batches, records, what could not be used, and what follows from the records."""


class Store:
    """What the service asks of its database, which the caller opens and closes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._safe: dict[tuple[str, str, str], int] = {}  # what later batches write down as durable

    async def take(self, parcel: Parcel) -> Taken:
        """Keep a batch, or recognise it; returns after the device has it.

        Raises:
            OutOfStepError: `gap` or `fork`; nothing was changed.
            StoreError: nothing was committed; the process must end.
            UnavailableError: nothing is known to have been committed.
        """
        before = self._safe.get(parcel.key, 0) if self.database.replicated else None
        taken = await self.database.write(_job_of([parcel], lambda tx: take(tx, parcel, before)), key=parcel.gateway)
        (cursor,) = await self._settled(parcel.gateway, parcel.stream, [taken.cursor])
        return taken if cursor is taken.cursor else replace(taken, cursor=cursor)

    async def take_several(self, parcels: Sequence[Parcel]) -> list[Taken]:
        """`take` for each in turn, in one transaction, as far as they fit; what fits is kept whatever comes after it.

        Args:
            parcels: consecutive ones of one stream.

        Raises:
            As `take`, when the first one does not fit; nothing was changed then.
        """
        key = parcels[0].key
        before = self._safe.get(key, 0) if self.database.replicated else None
        job = _job_of(parcels, lambda tx: _take_several(tx, parcels, before))
        taken = await self.database.write(job, key=key[0])
        last = replace(taken[-1], cursor=(await self._settled(key[0], key[1], [taken[-1].cursor]))[0])
        return [*taken[:-1], last]

    async def _settled(self, gateway: str, stream: str, cursors: Sequence[Cursor]) -> list[Cursor]:
        """Cursors that were read or written just now, with what is durable of them by now."""
        if not await self.database.settled():
            return list(cursors)
        if self.database.replicated:
            self._safe |= {(gateway, stream, cursor.epoch): cursor.ack for cursor in cursors}
        return [cursor if cursor.durable == cursor.ack else replace(cursor, durable=cursor.ack) for cursor in cursors]

    async def contacted(self, gateway: str, contact_ms: int) -> None:
        """Remember when a gateway was last heard of."""
        await self.database.write(lambda tx: _contact(tx, gateway, contact_ms), key=gateway)

    async def contacts(self) -> dict[str, int]:
        """When each gateway was last heard of, UTC milliseconds, as far as it was written down."""
        sql = "SELECT gateway, contact_ms FROM gateway WHERE contact_ms IS NOT NULL"
        return {row[0]: row[1] for row in await self.database.read(lambda tx: tx.all(sql))}

    async def progress(self) -> int:
        """A number that grows with each batch of any gateway."""
        row = await self.database.read(lambda tx: tx.one("SELECT SUM(ack) FROM ack"))
        return int(row[0] or 0) if row else 0

    async def until_broken(self) -> NoReturn:
        """Returns never; raises StoreError after a commit failed, so that the process ends and is started again."""
        await self.database.until_broken()

    async def cursors(self, gateway: str) -> dict[str, tuple[Cursor, ...]]:
        """Every epoch of each stream of a gateway, the one that began last at the end."""
        sql = "SELECT stream, epoch, ack, durable, chain FROM ack WHERE gateway = ? ORDER BY begun_ms, epoch"
        rows = await self.database.read(lambda tx: tx.all(sql, gateway))
        found: dict[str, list[Cursor]] = {JOURNAL: [], HISTORY: []}
        for stream, epoch, ack, durable, chain in rows:
            found.setdefault(stream, []).append(Cursor(epoch=epoch, ack=ack, durable=durable, chain=chain))
        return {stream: tuple(await self._settled(gateway, stream, cursors)) for stream, cursors in found.items()}

    async def last_record(self, gateway: str) -> tuple[int, str | None]:
        """Number and time (UTC, as its gateway says) of the newest record of a gateway's newest epoch; 0 for none."""
        sql = "SELECT seq, data FROM record WHERE gateway = ? AND epoch = ? ORDER BY seq DESC LIMIT 1"

        async def read(tx: Tx) -> tuple[int, str | None]:
            row = await tx.one(sql, gateway, await _newest_epoch(tx, gateway))
            if row is None:
                return 0, None
            at = json.loads(row[1]).get("at")
            return row[0], at.get("utc") if isinstance(at, dict) else None

        return await self.database.read(read)

    async def alarms(self, gateway: str) -> list[dict[str, Any]]:
        """Open alarms of a gateway, newest first; of every machine that sends with its key."""
        return [alarm for alarms in (await self.alarms_by_epoch(gateway)).values() for alarm in alarms]

    async def alarms_by_epoch(self, gateway: str) -> dict[str, list[dict[str, Any]]]:
        """The same by epoch, as many as there are machines that send; the newest epoch first."""
        sql = "SELECT alarm, data FROM open_alarm WHERE gateway = ? AND epoch = ? ORDER BY seq DESC"

        async def read(tx: Tx) -> dict[str, list[dict[str, Any]]]:
            found: dict[str, dict[str, Any]] = {}
            for head in await heads_of(tx, gateway):
                alarms = found.setdefault(head.epoch, {})
                for epoch in shown_of(head.epoch):
                    for alarm, data in await tx.all(sql, gateway, epoch):
                        alarms.setdefault(alarm, json.loads(data))
            return {epoch: list(alarms.values()) for epoch, alarms in found.items()}

        return await self.database.read(read)

    async def machines(self, gateway: str) -> int:
        """How many send with the key of a gateway; more than one: it was cloned."""
        return len(await self.database.read(lambda tx: heads_of(tx, gateway)))

    async def events(self, gateway: str, limit: int, before: int | None) -> list[Record]:
        """About `limit` alarm records with numbers below `before`, newest first; of every epoch, whose numbers go on.

        Two histories may have the same numbers: records that share one are never apart.
        """
        below = before if before is not None else 2**62

        async def read(tx: Tx) -> list[Record]:
            sql = (
                "SELECT data, chain FROM record WHERE gateway = ? AND epoch = ? AND seq < ? AND kind LIKE 'alarm.%'"
                " ORDER BY seq DESC LIMIT ?"
            )
            epochs = await tx.all("SELECT epoch FROM ack WHERE gateway = ? AND stream = ?", gateway, JOURNAL)
            rows = [row for (epoch,) in epochs for row in await tx.all(sql, gateway, epoch, below, limit)]
            found = {record.chain: record for record in (Record.from_bytes(row[0], bytes(row[1])) for row in rows)}
            records = sorted(found.values(), key=lambda record: (record.seq, record.epoch), reverse=True)
            last = records[limit - 1].seq if len(records) >= limit else 0
            return [record for record in records if record.seq >= last]

        return await self.database.read(read)

    async def chain_at(self, gateway: str, stream: str, epoch: str, n: int) -> bytes | None:
        """Chain value of a batch; None when there is none of this number."""
        sql = "SELECT chain FROM batch WHERE gateway = ? AND stream = ? AND epoch = ? AND n = ?"
        row = await self.database.read(lambda tx: tx.one(sql, gateway, stream, epoch, n))
        return bytes(row[0]) if row else None

    async def gateways(self) -> dict[str, dict[str, Any]]:
        """What is known of each gateway: contact_ms, site (or None), version, quarantined."""

        async def read(tx: Tx) -> dict[str, dict[str, Any]]:
            counts = {
                row[0]: row[1] for row in await tx.all("SELECT gateway, count(*) FROM quarantine GROUP BY gateway")
            }
            return {
                gateway: {
                    "contact_ms": contact_ms,
                    "site": json.loads(site) if site else None,
                    "version": version,
                    "quarantined": counts.get(gateway, 0),
                }
                for gateway, contact_ms, site, version in await tx.all(
                    "SELECT gateway, contact_ms, site, version FROM gateway"
                )
            }

        return await self.database.read(read)


# --- inside the transaction --------------------------------------------------------------------------------------


async def take(tx: Tx, parcel: Parcel, safe: int | None = None) -> Taken:
    """Decide about one batch and keep it; the caller holds the transaction. See `Store.take`.

    Args:
        safe: up to which batch standbys are known to have the stream; None: what is committed is durable.
    """
    key = {"gateway": parcel.gateway, "stream": parcel.stream, "epoch": parcel.epoch}
    row = await tx.locked("ack", "ack, durable, chain, seq, head", **key)
    ack, durable, chain, seq, head = (row and row[:5]) or (
        0,
        0,
        stream_genesis(*parcel.key),
        0,
        genesis_chain(parcel.gateway, parcel.epoch),
    )
    if parcel.n <= ack:
        await _must_be_the_same(tx, parcel, ack, chain)
        return Taken(cursor=Cursor(epoch=parcel.epoch, ack=ack, durable=durable, chain=chain), new=False)
    if parcel.n != ack + 1:
        raise OutOfStepError("gap", f"batch {ack + 1} comes first", ack, hint="ask where to go on")
    if not _follows(parcel, chain):
        raise OutOfStepError("fork", f"batch {parcel.n} does not follow the batch {ack} that is kept", ack, hint=_FORK)
    problem = parcel.problem or _does_not_follow(parcel, seq, head)
    if problem:
        await _quarantine(tx, parcel, problem, body=parcel.body)
        head = None
    elif parcel.stream == JOURNAL:
        seq, head = await _keep_records(tx, parcel)
    if parcel.gap is not None:
        await keep_gap(tx, parcel.key, parcel.gap, parcel.received_ms)
    durable = parcel.last if safe is None else max(durable, min(safe, ack))
    cursor = Cursor(epoch=parcel.epoch, ack=parcel.last, durable=durable, chain=parcel.chain)
    await _keep_batch(tx, parcel, cursor, seq, head, is_first=row is None, kept=not problem)
    return Taken(cursor=cursor, new=True, problem=problem)


async def _take_several(tx: Tx, parcels: Sequence[Parcel], safe: int | None) -> list[Taken]:
    taken: list[Taken] = []
    for parcel in parcels:
        try:
            taken.append(await take(tx, parcel, safe))
        except OutOfStepError:
            if not taken:
                raise
            break
    return taken


def _job_of(parcels: Sequence[Parcel], job: Job[T]) -> Job[T]:
    """Few small batches are quick."""
    records = sum(1 + len(parcel.records) for parcel in parcels)
    return Quick(job) if records <= _QUICK and sum(len(one.body) for one in parcels) <= _QUICK_BYTES else job


_FORK = "the gateway's data was restored or cloned: it needs a new epoch"


def _follows(parcel: Parcel, chain: bytes) -> bool:
    """Whether it goes on behind the batch with this chain value, as far as its content can be read."""
    if parcel.gap is not None:
        return parcel.gap.before == chain
    known = parcel.digest is not None and chain != UNKNOWN_CHAIN
    return not known or link(chain, parcel.n, parcel.digest or b"") == parcel.chain


async def _must_be_the_same(tx: Tx, parcel: Parcel, ack: int, newest: bytes) -> None:
    """A repeat changes nothing, also of what was declared to be missing meanwhile, or is declared only now."""
    if parcel.gap is not None and parcel.last <= ack:
        return
    sql = "SELECT chain FROM batch WHERE gateway = ? AND stream = ? AND epoch = ? AND n = ?"
    row = (newest,) if parcel.n == ack else await tx.one(sql, *parcel.key, parcel.n)
    if row is None and await lies_in_gap(tx, parcel.key, parcel.n):
        return
    if row is None or row[0] != parcel.chain:
        raise OutOfStepError("fork", f"another batch {parcel.n} is kept", ack, hint=_FORK)


def _does_not_follow(parcel: Parcel, seq: int, head: bytes | None) -> str:
    """Whether the records go on where the last ones ended. After a batch in quarantine only their numbers can tell."""
    if parcel.stream != JOURNAL:
        return ""
    first = parcel.records[0].seq
    if head is None or (is_branch(parcel.epoch) and not seq):
        return "" if first > seq else f"record {first} was already there"
    if first != seq + 1 and (seq or parcel.records[0].kind != RESTORED):
        return f"record {seq + 1} comes next, this batch begins with {first}"
    return "" if parcel.before == head else f"record {first} does not follow the record {seq} that is kept"


async def _keep_records(tx: Tx, parcel: Parcel) -> tuple[int, bytes]:
    rows = [
        (parcel.gateway, parcel.epoch, record.seq, record.kind, record.to_bytes(), record.chain)
        for record in parcel.records
    ]
    await tx.many("INSERT INTO record (gateway, epoch, seq, kind, data, chain) VALUES (?, ?, ?, ?, ?, ?)", rows)
    await _project(tx, parcel)
    return parcel.records[-1].seq, parcel.records[-1].chain


async def _project(tx: Tx, parcel: Parcel) -> None:
    """What the records change in the present: of each alarm, and of the gateway, the newest one counts."""
    alarms: dict[str, tuple[int, AlarmNow]] = {}
    about: GatewayNow | None = None
    for record in parcel.records:
        try:
            change = change_of(record)
        except DamagedError as error:
            await _quarantine(tx, parcel, str(error), seq=record.seq)
            continue
        if isinstance(change, AlarmNow):
            alarms[change.id] = (record.seq, change)
        elif isinstance(change, GatewayNow):
            about = change
        elif isinstance(change, EpochNow):
            await keep_begun(tx, parcel.gateway, parcel.epoch, change.begun)
            alarms |= {alarm.id: (record.seq, alarm) for alarm in change.alarms}
    if alarms:
        await _show_alarms(tx, parcel, alarms)
    if about is not None:
        upsert = (
            "INSERT INTO gateway (gateway, site, version) VALUES (?, ?, ?)"
            " ON CONFLICT (gateway) DO UPDATE SET site = excluded.site, version = excluded.version"
        )
        await tx.run(upsert, parcel.gateway, canonical(about.site).decode(), about.version)


async def _show_alarms(tx: Tx, parcel: Parcel, alarms: Mapping[str, tuple[int, AlarmNow]]) -> None:
    key = (parcel.gateway, parcel.epoch)
    delete = "DELETE FROM open_alarm WHERE gateway = ? AND epoch = ? AND alarm = ?"
    await tx.many(delete, [(*key, alarm) for alarm in alarms])
    rows = [(*key, name, seq, canonical(now.alarm)) for name, (seq, now) in alarms.items() if now.open]
    if rows:
        await tx.many("INSERT INTO open_alarm VALUES (?, ?, ?, ?, ?)", rows)


async def _keep_batch(
    tx: Tx, parcel: Parcel, cursor: Cursor, seq: int, head: bytes | None, *, is_first: bool, kept: bool
) -> None:
    """The batch and its acknowledgement. Records lie in their own table, segments as they came.

    Two that bring the first batch of a stream at the same time collide in the key of `ack`; one of them is run again.
    """
    if is_first:
        row = (*parcel.key, cursor.ack, cursor.durable, cursor.chain, seq, head, parcel.received_ms)
        await tx.many("INSERT INTO ack VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [row])
        await _contact(tx, parcel.gateway, parcel.received_ms)  # from now on the service notes it, once a minute
    else:
        update = "UPDATE ack SET ack = ?, durable = ?, chain = ?, seq = ?, head = ? WHERE gateway = ? AND stream = ?"
        row = (cursor.ack, cursor.durable, cursor.chain, seq, head, *parcel.key)
        await tx.many(f"{update} AND epoch = ?", [row])
    body = parcel.body if kept and parcel.stream != JOURNAL and parcel.gap is None else None
    row = (*parcel.key, parcel.last, parcel.chain, parcel.received_ms, parcel.count, body)
    await tx.many("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row])


async def _quarantine(
    tx: Tx, parcel: Parcel, reason: str, *, seq: int | None = None, body: bytes | None = None
) -> None:
    sql = "INSERT INTO quarantine (gateway, stream, epoch, n, seq, received_ms, reason, body) VALUES (?,?,?,?,?,?,?,?)"
    await tx.run(sql, *parcel.key, parcel.n, seq, parcel.received_ms, reason, body)


async def _contact(tx: Tx, gateway: str, contact_ms: int) -> None:
    upsert = (
        "INSERT INTO gateway (gateway, contact_ms) VALUES (?, ?)"
        " ON CONFLICT (gateway) DO UPDATE SET contact_ms = excluded.contact_ms"
        " WHERE gateway.contact_ms IS NULL OR gateway.contact_ms < excluded.contact_ms"
    )
    await tx.many(upsert, [(gateway, contact_ms)])


async def _newest_epoch(tx: Tx, gateway: str) -> str:
    sql = "SELECT epoch FROM ack WHERE gateway = ? AND stream = 'journal' ORDER BY begun_ms DESC, epoch DESC LIMIT 1"
    row = await tx.one(sql, gateway)
    return row[0] if row else ""
