"""Restored, copied, cloned, forked: a new epoch begins, nothing is lost, nothing is counted twice, both are seen."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sitewarden.cloud.config import CloudConfig
from sitewarden.sync.columns import decompress
from sitewarden.sync.gaps import unpack_gap
from sitewarden.sync.history_outbox import HistoryOutbox
from sitewarden.sync.identity import Reason, moved, read_identity
from sitewarden.sync.journal import Journal, verify_file, verify_rows
from sitewarden.sync.outbox import JournalOutbox
from sitewarden.tests.peers.ends import Site, assert_all_there, headquarters, rows, site

HERE = {"machine": "m1", "volume": "v1", "file": "f1"}
CARD = HERE | {"machine": "m2"}
COPY = {"machine": "m2", "volume": "v2", "file": "f2"}
PUT_BACK = HERE | {"file": "f2"}
REPLACE = "UPDATE record SET data = CAST(replace(data, '{}', '{}') AS BLOB) WHERE seq = {}"


def copy(source: Path, target: Path) -> None:
    """A folder as a backup program would take it."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock"))


# --- where a file lies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (HERE, None),
        (CARD, Reason.MOVED),
        (HERE | {"board": "b2", "volume": "v2"}, Reason.RESTORED),
        (COPY, Reason.CLONED),
        (HERE | {"volume": "v2"}, Reason.RESTORED),
        (PUT_BACK, Reason.RESTORED),
        ({}, None),
        ({"volume": "v1"}, None),
        ({"volume_id": "another kind of number"}, None),
    ],
)
def test_what_can_be_compared_tells_where_a_file_went(found: Mapping[str, str], reason: Reason | None) -> None:
    assert moved(HERE, found) == reason
    assert moved({}, found) is None, "nothing was known of it"


def machine(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / {"id": "etc/machine-id", "board": "proc/device-tree/serial-number", "env": ".dockerenv"}[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    mounted(root, "ext4")
    return root


def mounted(root: Path, kind: str) -> None:
    """All files lie on a file system of this kind."""
    mounts, device = root / "proc/self/mountinfo", root.parent.stat().st_dev
    mounts.parent.mkdir(parents=True, exist_ok=True)
    mounts.write_text(f"1 1 {os.major(device)}:{os.minor(device)} / / rw - {kind} /dev/x rw\n")


def test_a_file_is_known_by_machine_board_and_itself(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.touch()
    one = read_identity(file, "gw1", machine(tmp_path / "a", id="1234\n", board="1000abcd\0"))
    assert read_identity(file, "gw1", machine(tmp_path / "b", id="1234\n", board="1000abcd\0")) == one
    assert moved(one, read_identity(file, "gw1", machine(tmp_path / "c", id="1234", board="2"))) == Reason.MOVED
    assert not set(one.values()) & {"1234", "1000abcd"}, "hashed"
    assert read_identity(file, "gw2", tmp_path / "a")["machine"] != one["machine"], "two sites cannot be compared"
    file.unlink()
    file.touch()
    assert moved(one, read_identity(file, "gw1", tmp_path / "a")) == Reason.RESTORED, "another file of that name"


@pytest.mark.parametrize("text", ["", "\n", "uninitialized\n"])
def test_a_machine_without_an_id_says_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "journal.db"
    file.touch()
    assert "machine" not in read_identity(file, "gw1", machine(tmp_path / "a", id=text))
    assert "machine" not in read_identity(file, "gw1", tmp_path / "nowhere")


def test_a_container_has_the_id_of_its_image(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.touch()
    first = read_identity(file, "gw1", machine(tmp_path / "a", id="1", board="1", env=""))
    again = read_identity(file, "gw1", machine(tmp_path / "b", id="2", board="2", env=""))
    assert moved(first, again) is None


def test_a_file_system_is_known_by_its_uuid_or_by_what_its_kind_makes_of_it(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.touch()
    for kind, known in (("ext4", {"file", "volume_id"}), ("xfs", {"file"}), ("vfat", set()), ("overlay", set())):
        mounted(tmp_path / "root", kind)
        assert read_identity(file, "gw1", tmp_path / "root").keys() == known, kind


# --- the journal -------------------------------------------------------------------------------------------------


async def say(path: Path, where: Mapping[str, str] | None, count: int = 3) -> tuple[str, list[tuple[str, int]]]:
    """Open it there, commit some, close it; epoch and epochs."""
    async with site(path, where) as at:
        await at.say(count)
        return at.journal.epoch, at.journal.epochs


async def test_the_same_place_is_the_same_epoch(tmp_path: Path) -> None:
    first, _ = await say(tmp_path, HERE)
    assert await say(tmp_path, HERE) == (first, [(first, 1)])
    assert (await say(tmp_path, {}))[0] == first, "nothing can be read today"
    assert (await say(tmp_path, None))[0] == first
    assert (await say(tmp_path, HERE | {"board": "b1"}))[0] == first, "more can be read than before"
    assert (await say(tmp_path, HERE | {"board": "b2"}))[0] != first, "and that is remembered"


async def test_a_journal_of_an_earlier_version_stays_what_it_is(tmp_path: Path) -> None:
    first, _ = await say(tmp_path, None)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute("DROP TABLE epoch")
        db.execute("DELETE FROM _sqlite_migrations WHERE name = 'm003_epochs'")
        db.execute("DELETE FROM meta WHERE key = 'identity'")
        db.commit()
    assert verify_file(tmp_path / "journal.db").bad_seq is None
    assert await say(tmp_path, HERE) == (first, [(first, 1)])


async def test_elsewhere_a_new_epoch_begins_once_and_names_the_one_before(tmp_path: Path) -> None:
    old, _ = await say(tmp_path, HERE)
    async with site(tmp_path, COPY) as at:
        (record,) = await at.journal.read(3, 10)
        last = (await at.journal.raw(2, 1))[0]
        assert (record.seq, record.kind, record.epoch) == (4, "journal.restored", at.journal.epoch)
        assert record.body["predecessor"] == {"epoch": old, "seq": 3, "chain": last[2].hex()}
        assert (record.body["reason"], record.body["identity"], record.body["was"]) == ("cloned", COPY, HERE)
        assert at.journal.epochs == [(old, 1), (record.epoch, 4)]
        assert at.history.began["reason"] == "cloned"
    assert (await say(tmp_path, COPY))[1] == [(old, 1), (record.epoch, 4)], "not again"
    assert (await say(tmp_path, PUT_BACK))[1][2][1] == 8, "and again, elsewhere again"
    verdict = verify_file(tmp_path / "journal.db")
    assert (verdict.bad_seq, verdict.records) == (None, 11)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        one = db.execute("SELECT seq, data, chain FROM record WHERE seq BETWEEN 4 AND 7").fetchall()
    assert verify_rows("gw1", record.epoch, one, first_seq=4).bad_seq is None, "each epoch can be checked alone"


async def test_an_empty_journal_is_nobodys(tmp_path: Path) -> None:
    async with site(tmp_path, HERE):
        pass
    async with site(tmp_path, COPY) as at:
        assert len(at.journal.epochs) == 1


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        (REPLACE.format('"seq":3}', '"seq":2}', 4), 4),
        ('UPDATE record SET data = replace(data, \'"reason":"cloned"\', \'"reason":"moved"\') WHERE seq = 4', 4),
        (REPLACE.format("test.said", "test.xaid", 3), 3),
        ("DELETE FROM record WHERE seq = 3", 3),
        ("DELETE FROM record WHERE seq >= 4", 4),
        ("UPDATE epoch SET epoch = 'ffffffffffffffff' WHERE first = 1", 1),
        ("UPDATE meta SET value = 'ffffffffffffffff' WHERE key = 'epoch'", 8),
    ],
)
async def test_verify_sees_what_was_done_to_an_epochs_beginning(tmp_path: Path, statement: str, seq: int) -> None:
    await say(tmp_path, HERE)
    await say(tmp_path, COPY)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute(statement)
        db.commit()
    assert verify_file(tmp_path / "journal.db").bad_seq == seq


async def test_what_is_open_stands_in_the_first_record(tmp_path: Path) -> None:
    await say(tmp_path, HERE)
    where: dict[str, Any] = {"where": lambda _path, _gateway: COPY}
    async with Journal(tmp_path / "journal.db", "gw1", carried=lambda _: {"open_alarms": [1]}, **where) as journal:
        assert journal.began["open_alarms"] == [1]


# --- between gateway and headquarters ----------------------------------------------------------------------------


def kinds(data: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(data)["body"] for (data,) in rows(data, "SELECT data FROM record WHERE kind = ?", kind)]


async def shown(data: Path, config: CloudConfig | None = None) -> dict[str, Any]:
    """The site as headquarters' pages get it."""
    from sitewarden.cloud.engine import SqliteDatabase
    from sitewarden.cloud.epoch_store import EpochStore
    from sitewarden.cloud.ingest import Contacts
    from sitewarden.cloud.pages import Pages
    from sitewarden.cloud.snapshots import STEPS as SNAPSHOT_STEPS
    from sitewarden.cloud.snapshots import Snapshots
    from sitewarden.cloud.store import STEPS, Store
    from sitewarden.tests.peers.ends import cloud_config

    async with SqliteDatabase(data / "cloud.db", [*STEPS, *SNAPSHOT_STEPS]) as database:
        store = Store(database)
        pages = Pages(config or cloud_config(), store, Contacts(store, {}))
        pages.epochs, pages.snapshots = EpochStore(database), Snapshots(database, lambda _: None)
        (found,) = await pages.sites()
        return found


async def test_a_restart_elsewhere_goes_on_where_the_old_epoch_ended(tmp_path: Path) -> None:
    """The file was put back on the same machine with everything in it: the old epoch is sent to its end."""
    edge, data = tmp_path / "edge", tmp_path / "cloud"
    async with headquarters(data) as port:
        async with site(edge, HERE) as at:
            await at.say(10)
            await at.measure(2)
            await at.sync(port)
            await at.say(700)
            await at.measure(3)
        async with site(edge, PUT_BACK) as at:
            await at.say(5)
            await at.measure(1)
            await at.sync(port)
            await assert_all_there(at, data)
            legs = rows(data, "SELECT epoch, seq FROM ack WHERE stream = 'journal' ORDER BY begun_ms")
            assert legs == [(at.journal.epochs[0][0], 710), (at.journal.epoch, 716)]
            assert len(rows(data, "SELECT 1 FROM ack WHERE stream = 'history'")) == 2
    assert (await shown(data))["cloned"] is False


async def test_open_alarms_are_carried_into_the_new_epoch(tmp_path: Path) -> None:
    edge, data = tmp_path / "edge", tmp_path / "cloud"
    hot = {"id": "a.b.hot", "state": "UNACK"}
    async with headquarters(data) as port:
        async with site(edge, HERE) as at:
            await at.alarm("a.b.hot", "UNACK")
            await at.alarm("a.b.cold", "UNACK")
            await at.alarm("a.b.cold", "NORM")
            await at.sync(port)
        where: dict[str, Any] = {"where": lambda _path, _gateway: PUT_BACK}
        carried: dict[str, Any] = {"carried": lambda _: {"open_alarms": [hot]}}
        async with Journal(edge / "journal.db", "gw1", **where, **carried) as journal, site(tmp_path / "h") as other:
            await Site(journal, other.history).sync(port)
        assert [alarm["id"] for alarm in (await shown(data))["open_alarms"]] == ["a.b.hot"]


@pytest.mark.parametrize("identity", [COPY, None], ids=["told by its place", "told by headquarters"])
async def test_a_clone_beside_the_original_loses_nothing_and_both_are_seen(
    tmp_path: Path, identity: Mapping[str, str] | None
) -> None:
    """Whoever comes second with a number goes on under a new epoch; what it had not sent travels as a branch."""
    edge, clone, data = tmp_path / "edge", tmp_path / "clone", tmp_path / "cloud"
    original = HERE if identity else None
    async with headquarters(data) as port:
        async with site(edge, original) as at:
            await at.say(10)
            await at.alarm("a.b.old", "UNACK")
            await at.measure(2)
            await at.sync(port)
            await at.say(4)
            await at.measure(2)
        copy(edge, clone)
        async with site(edge, original) as first, site(clone, identity) as second:
            await second.alarm("a.b.second", "UNACK")
            await second.measure(1)
            await second.sync(port)
            for _ in range(2):
                await first.alarm("a.b.first", "UNACK")
                await first.measure(1)
                await first.sync(port)
                await second.say(3)
                await second.sync(port)
            for one in (first, second):
                await assert_all_there(one, data)
                assert verify_file(one.journal.path).bad_seq is None
            assert first.journal.epoch != second.journal.epoch
            assert len(first.journal.epochs) + len(second.journal.epochs) == 3, "one of them began a new epoch"
        seen = await shown(data)
        assert seen["cloned"] is True
        names = {alarm["id"]: alarm["epoch"] for alarm in seen["open_alarms"]}
        assert (names["a.b.first"], names["a.b.second"]) == (first.journal.epoch, second.journal.epoch)


async def test_a_database_that_was_put_back_goes_on_under_a_new_epoch(tmp_path: Path) -> None:
    """In place, so that nothing but headquarters can tell; with more said before the link came back."""
    edge, backup, data = tmp_path / "edge", tmp_path / "backup", tmp_path / "cloud"
    async with headquarters(data) as port:
        async with site(edge) as at:
            await at.say(20)
            await at.measure(3)
            await at.sync(port)
        copy(edge, backup)
        async with site(edge) as at:
            await at.say(30)
            await at.measure(4)
            await at.sync(port)
            lost = await at.journal.raw(20, 100)
        shutil.rmtree(edge)
        copy(backup, edge)
        async with site(edge) as at:
            await at.say(600, who="after")
            await at.measure(2)
            await at.sync(port)
            await assert_all_there(at, data)
            (began,) = kinds(data, "journal.restored")
            assert (began["reason"], began["predecessor"]["seq"]) == ("cloud_ahead", 620)
            assert began["common"]["seq"] == 20
            old = at.journal.epochs[0][0]
            assert rows(data, "SELECT seq, data, chain FROM record WHERE epoch = ? AND seq > 20", old) == lost
            assert verify_file(at.journal.path).bad_seq is None
        async with site(edge) as at:
            assert len(at.journal.epochs) == 2, "once"
    assert (await shown(data))["cloned"] is False


async def test_a_database_that_was_put_back_before_a_batch_was_heard_of(tmp_path: Path) -> None:
    """The newest batch of the copy was taken, and nothing else: it is the same on both sides, nothing has to begin."""
    edge, data = tmp_path / "edge", tmp_path / "cloud"
    async with headquarters(data) as port:
        async with site(edge) as at:
            await at.say(5)
            await at.sync(port)
            await at.say(5)
            await at.sync(port)
        async with site(edge) as at:
            await at.sync(port)
            assert len(at.journal.epochs) == 1


async def test_headquarters_an_hour_back_gets_again_what_is_still_there(tmp_path: Path) -> None:
    """Segments that were durable went meanwhile: they are a declared gap, and what follows them flows."""
    edge, data, backup = tmp_path / "edge", tmp_path / "cloud", tmp_path / "backup"
    async with site(edge, keep_days=0, settle_days=0) as at:
        async with headquarters(data) as port:
            await at.say(300)
            await at.measure(2)
            await at.sync(port)
        copy(data, backup)
        async with headquarters(data) as port:
            await at.say(300)
            await at.measure(4)
            await at.sync(port)
        assert await at.history.delete_through(5) == 3, "two went before"
        shutil.rmtree(data)
        copy(backup, data)
        async with headquarters(data) as port:
            await at.measure(1)
            await at.sync(port)
            await assert_all_there(at, data, gaps=3)
            assert (len(at.journal.epochs), len(await at.history.spans())) == (1, 1)
            lost = {body["stream"]: (body["had"], body["has"]) for body in kinds(data, "sync.cloud_lost")}
            assert lost["history"] == (5, 2), "what it knows that headquarters had"
            (gap,) = kinds(data, "sync.gap")
            assert (gap["first"], gap["last"], gap["reason"]) == (3, 5, "kept_out")
        async with headquarters(data) as port:
            await at.sync(port)
            assert len(kinds(data, "sync.gap")) == 1, "told once"


async def test_batches_that_a_stick_may_have_taken_are_not_missed_by_the_link(tmp_path: Path) -> None:
    """Numbered for a stick, never arrived: headquarters did not lose them. What it had acknowledged it did, also for
    the next process."""
    edge, data = tmp_path / "edge", tmp_path / "cloud"
    async with site(edge) as at:
        await at.say(1200)
        outbox = JournalOutbox(at.journal)
        await outbox.open()
        assert [await outbox.batch(n) is not None for n in (1, 2, 3, 4)] == [True, True, True, False]
        async with headquarters(data) as port:
            await at.sync(port)
            await at.say(3)
            await at.sync(port)
            assert kinds(data, "sync.cloud_lost") == []
    shutil.rmtree(data)
    for _ in range(2):
        async with site(edge) as at, headquarters(data) as port:
            await at.sync(port)
            (lost,) = kinds(data, "sync.cloud_lost")
            assert (lost["stream"], lost["had"], lost["has"]) == ("journal", 3, 0), "known when the newest was made"


async def test_a_gap_follows_what_was_just_acknowledged_without_asking_for_it(tmp_path: Path) -> None:
    """The disk dropped that too meanwhile: the outbox remembers which chain value headquarters has."""
    async with site(tmp_path / "edge") as at:
        await at.measure(2)
        outbox = HistoryOutbox(at.history)
        await outbox.open()
        first, second = [await outbox.batch(n) for n in (1, 2)]
        assert first is not None
        assert second is not None
        await outbox.acked(2, 0)
        await at.measure(1)
        assert await at.history.drop_oldest(2**30) is not None
        await at.measure(1)
        batch = await outbox.batch(3)
        assert batch is not None
        gap = unpack_gap(decompress(batch.body))
        assert gap is not None
        assert (gap.first, gap.last, gap.before) == (3, 3, second.chain)


async def test_headquarters_that_lost_everything_gets_all_epochs_again(tmp_path: Path) -> None:
    edge, data = tmp_path / "edge", tmp_path / "cloud"
    for n, where in enumerate((HERE, PUT_BACK, HERE)):
        async with headquarters(data) as port, site(edge, where) as at:
            await at.say(10 * n + 5)
            await at.measure(n + 1)
            await at.sync(port)
    shutil.rmtree(data)
    async with headquarters(data) as port, site(edge, HERE) as at:
        await at.say(1)
        await at.sync(port)
        assert len(at.journal.epochs) == 3
        await assert_all_there(at, data)


async def test_headquarters_lost_a_branch_too(tmp_path: Path) -> None:
    edge, backup, data = tmp_path / "edge", tmp_path / "backup", tmp_path / "cloud"
    async with headquarters(data) as port, site(edge) as at:
        await at.say(5)
        await at.sync(port)
    copy(edge, backup)
    async with headquarters(data) as port, site(edge) as at:
        await at.say(5)
        await at.sync(port)
    copy(data, tmp_path / "old")
    async with headquarters(data) as port, site(backup) as at:
        await at.say(7)
        await at.sync(port)
        await assert_all_there(at, data)
    shutil.rmtree(data)
    copy(tmp_path / "old", data)
    async with headquarters(data) as port, site(backup) as at:
        await at.sync(port)
        await assert_all_there(at, data)


async def test_headquarters_knows_that_its_database_was_put_back(tmp_path: Path) -> None:
    """The incarnation in its answers is another one then."""
    from sitewarden.cloud.engine import SqliteDatabase
    from sitewarden.cloud.epoch_store import EpochStore
    from sitewarden.cloud.store import STEPS

    async with SqliteDatabase(tmp_path / "cloud.db", STEPS) as database:
        epochs = EpochStore(database)
        first = await epochs.incarnation(HERE)
        assert await epochs.incarnation(HERE) == first
        second = await epochs.incarnation(PUT_BACK)
        assert len({first, second}) == 2
        assert await epochs.incarnation(None) == second
