"""Sync against a list: whatever is appended, sent, lost, crashed, restored, evicted or carried on a stick, headquarters
ends with every record and every segment once, in order, byte for byte.

A hypothesis state machine over the real journal, history, outboxes, store and bundles.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sitewarden.cloud.bundles import Bundles
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.parcels import open_parcel
from sitewarden.cloud.store import STEPS, OutOfStepError, Store
from sitewarden.edge.bundling import Bundling
from sitewarden.errors import RefusedError
from sitewarden.sync.bundle import BundleReader
from sitewarden.sync.history import History
from sitewarden.sync.history_outbox import HistoryOutbox
from sitewarden.sync.journal import Draft, Journal, verify_rows
from sitewarden.sync.keys import key_id
from sitewarden.sync.outbox import Batch, JournalOutbox, Outbox
from sitewarden.sync.streams import HISTORY, JOURNAL
from sitewarden.words import ClockState, Instant, Quality, Reading, now

T = TypeVar("T")

KEY, CLOUD_KEY, SEAL = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
KEYS, CLOUD_KEYS = ({key_id(key): key.public_key()} for key in (KEY, CLOUD_KEY))
STREAMS = st.sampled_from([JOURNAL, HISTORY])
_OLD_MS = 1_600_000_000_000  # older than any retention


class SyncMachine(RuleBasedStateMachine):
    """One gateway, one headquarters, a link that loses, and a drawer of sticks."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="sync"))
        for name in ("edge", "cloud"):
            (self.folder / name).mkdir()
        self.said = 0
        self.segments: dict[int, bytes] = {}
        self.sticks: list[bytes] = []
        self.sent: dict[str, list[tuple[str, Batch]]] = {JOURNAL: [], HISTORY: []}
        self.backed_up: dict[str, int] = {JOURNAL: 0, HISTORY: 0}
        self.measured = 0
        self.run(self._open_edge())
        self.run(self._open_cloud())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    # --- what may happen ---

    @rule(count=st.integers(1, 30), size=st.sampled_from([0, 10, 20_000]))
    def append(self, count: int, size: int) -> None:
        drafts = [
            Draft(kind="test.said", at=now(), actor="gateway", body={"n": self.said + i, "x": "x" * size})
            for i in range(count)
        ]
        self.run(self.journal.append(drafts))
        self.said += count

    @rule(count=st.integers(1, 40), sealed=st.booleans())
    def measure(self, count: int, sealed: bool) -> None:
        self.history.add([self._reading() for _ in range(count)])
        if sealed:
            self.run(self.history.flush(seal=True))
            self._note_segments()

    @rule(stream=STREAMS, times=st.integers(1, 4), hears=st.booleans())
    def send(self, stream: str, times: int, hears: bool) -> None:
        """The edge asks where it is, then sends; the last answer may be lost."""

        async def work() -> None:
            outbox = self.outboxes[stream]
            cursor = await self._where(outbox)
            assert await outbox.agrees(cursor[0], cursor[1]) or cursor[0] == 0
            ack = cursor[0]
            for turn in range(times):
                batch = await outbox.batch(ack + 1)
                if batch is None:
                    return
                taken = await self._take(stream, outbox.epoch, batch)
                assert taken.new
                self.sent[stream].append((outbox.epoch, batch))
                ack = taken.cursor.ack
                if hears or turn < times - 1:
                    await outbox.acked(ack, min(taken.cursor.durable, self.backed_up[stream]))

        self.run(work())

    @precondition(lambda self: any(self.sent.values()))
    @rule(stream=STREAMS, data=st.data())
    def replay(self, stream: str, data: st.DataObject) -> None:
        """A proxy sends an old request again: known, or no more (headquarters was restored)."""
        if not self.sent[stream]:
            return
        epoch, batch = self.sent[stream][data.draw(st.integers(0, len(self.sent[stream]) - 1))]

        async def work() -> None:
            ack = (await self._where(self.outboxes[stream]))[0]
            if batch.n <= ack:
                assert not (await self._take(stream, epoch, batch)).new
            elif batch.n == ack + 1:
                assert (await self._take(stream, epoch, batch)).new
            else:
                with pytest.raises(OutOfStepError, match=f"batch {ack + 1} comes first"):
                    await self._take(stream, epoch, batch)

        self.run(work())

    @rule()
    def edge_crashes(self) -> None:
        """What waited in memory is gone; nothing else."""
        self.history._buffer.clear()
        self.run(self._close_edge())
        self.run(self._open_edge())
        self._note_segments()

    @rule()
    def cloud_restarts(self) -> None:
        self.run(self._close_cloud())
        self.run(self._open_cloud())

    @rule(evicts=st.booleans())
    def cloud_is_backed_up(self, evicts: bool) -> None:
        with (
            contextlib.closing(sqlite3.connect(self.folder / "cloud" / "cloud.db")) as source,
            contextlib.closing(sqlite3.connect(self.folder / "backup.db")) as target,
        ):
            source.backup(target)
        known = self.run(self.store.cursors("gw1"))
        self.backed_up = {stream: cursors[-1].ack if cursors else 0 for stream, cursors in known.items()}
        if evicts:
            self.what_is_durable_is_evicted()

    @precondition(lambda self: (self.folder / "backup.db").exists())
    @rule()
    def cloud_is_restored(self) -> None:
        self.run(self._close_cloud())
        for path in (self.folder / "cloud").glob("cloud.db*"):
            path.unlink()
        shutil.copy(self.folder / "backup.db", self.folder / "cloud" / "cloud.db")
        self.run(self._open_cloud())

    def what_is_durable_is_evicted(self) -> None:
        self.run(self.history.delete_through(self.backed_up[HISTORY]))

    @rule(everything=st.booleans())
    def stick_is_written(self, everything: bool) -> None:
        async def work() -> bytes:
            parts: list[bytes] = []

            async def put(piece: bytes) -> None:
                parts.append(piece)

            await self.bundling.export(await self.bundling.begin(everything=everything), put)
            return b"".join(parts)

        self.sticks.append(self.run(work()))
        self._note_segments()

    @precondition(lambda self: self.sticks)
    @rule(data=st.data(), comes_back=st.booleans())
    def stick_is_read(self, data: st.DataObject, comes_back: bool) -> None:
        """Headquarters takes a backup before it gives an answer: what the answer calls durable is."""
        stick = self.sticks[data.draw(st.integers(0, len(self.sticks) - 1))]

        async def tell(_: dict[str, Any]) -> None: ...

        result = self.run(self.importer.take(io.BytesIO(stick), tell))
        assert not any("fork" in one["problem"] or one["quarantined"] for one in result["streams"])
        if comes_back:
            self.cloud_is_backed_up(False)
            answer = BundleReader(io.BytesIO(base64.b64decode(result["answer"])))
            with contextlib.suppress(RefusedError):
                self.run(self.bundling.take_answer(answer))

    # --- what must hold ---

    @invariant()
    def headquarters_has_a_beginning_of_what_was_said(self) -> None:
        with contextlib.closing(sqlite3.connect(self.folder / "cloud" / "cloud.db")) as db:
            there = db.execute("SELECT seq, data, chain FROM record ORDER BY seq").fetchall()
            segments = db.execute("SELECT n, chain FROM batch WHERE stream = 'history' ORDER BY n").fetchall()
            assert db.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)
        here = self.run(self.journal.raw(0, len(there) + 1))
        assert there == here[: len(there)]
        assert [n for n, _ in segments] == list(range(1, len(segments) + 1))
        assert all(self.segments[n] == chain for n, chain in segments)

    def teardown(self) -> None:
        """At last the link works."""
        try:
            self.run(self.history.flush(seal=True))
            self._note_segments()
            for stream in (JOURNAL, HISTORY):
                for _ in range(10_000):
                    before = self.run(self._where(self.outboxes[stream]))
                    self.send(stream, 4, True)
                    if self.run(self._where(self.outboxes[stream])) == before:
                        break
            with contextlib.closing(sqlite3.connect(self.folder / "cloud" / "cloud.db")) as db:
                there = db.execute("SELECT seq, data, chain FROM record ORDER BY seq").fetchall()
                segments = dict(db.execute("SELECT n, chain FROM batch WHERE stream = 'history'").fetchall())
            assert there == self.run(self.journal.raw(0, 1_000_000))
            assert len(there) == self.said
            assert verify_rows("gw1", self.journal.epoch, there).bad_seq is None
            assert segments == self.segments
        finally:
            self.run(self._close_edge())
            self.run(self._close_cloud())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- how ---

    def _reading(self) -> Reading:
        self.measured += 1
        at = Instant(utc_ms=_OLD_MS + self.measured, mono_s=float(self.measured), boot="b", clock=ClockState.SYNCED)
        return Reading(point="a.b.c", value=self.measured / 10, quality=Quality.GOOD, at=at)

    def _note_segments(self) -> None:
        for segment in self.run(self.history.sealed_after(0, 100_000)):
            assert self.segments.setdefault(segment.n, segment.chain) == segment.chain, "a number is never used twice"

    async def _where(self, outbox: Outbox) -> tuple[int, bytes]:
        cursors = [one for one in (await self.store.cursors("gw1"))[outbox.stream] if one.epoch == outbox.epoch]
        return (cursors[0].ack, cursors[0].chain) if cursors else (0, b"")

    async def _take(self, stream: str, epoch: str, batch: Batch) -> Any:
        parcel = open_parcel("gw1", stream, epoch, batch.n, batch.chain, batch.body, 1_795_000_000_000)
        return await self.store.take(parcel)

    async def _open_edge(self) -> None:
        edge = self.folder / "edge"
        self.journal = await Journal(edge / "journal.db", "gw1").__aenter__()
        history = History(edge / "history.db", "gw1", seal_readings=25, keep_days=0, settle_days=0)
        self.history = await history.__aenter__()
        self.outboxes: dict[str, Outbox] = {JOURNAL: JournalOutbox(self.journal), HISTORY: HistoryOutbox(self.history)}
        for outbox in self.outboxes.values():
            await outbox.open()
        self.bundling = Bundling(self.journal, self.history, KEY, lambda: CLOUD_KEYS)

    async def _close_edge(self) -> None:
        await self.history.__aexit__()
        await self.journal.__aexit__()

    async def _open_cloud(self) -> None:
        self.database = await SqliteDatabase(self.folder / "cloud" / "cloud.db", STEPS).__aenter__()
        self.store = Store(self.database)

        async def keys_of(_: str) -> Any:
            return KEYS

        self.importer = Bundles(self.store, keys_of, CLOUD_KEY, SEAL, self.folder / "cloud", lambda _: None)

    async def _close_cloud(self) -> None:
        await self.database.__aexit__()


_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def test_headquarters_ends_with_the_list():
    chosen = settings(
        max_examples=25, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=_SLOW
    )
    run_state_machine_as_test(SyncMachine, settings=chosen)


def test_what_the_link_brought_and_was_deleted_is_no_gap_on_the_next_stick():
    """An answer to a stick of long ago says less than the link has heard since."""
    site = SyncMachine()
    site.measure(1, False)
    site.stick_is_written(False)
    site.measure(1, True)
    first: Any = SimpleNamespace(draw=lambda _: 0)
    site.stick_is_read(first, True)
    site.send(HISTORY, 1, False)
    site.cloud_is_backed_up(True)
    site.stick_is_written(False)
    site.teardown()


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_headquarters_ends_with_the_list_for_long():
    examples = int(float(os.environ.get("SITEWARDEN_SOAK_S", "600")))
    chosen = settings(max_examples=examples, stateful_step_count=60, deadline=None, suppress_health_check=_SLOW)
    run_state_machine_as_test(SyncMachine, settings=chosen)
