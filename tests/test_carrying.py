"""Parts of the way into memory and back: what the disk refused goes along, what arrived all the same is not written
twice, and what cannot be kept is said to be lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sitewarden.cloud.pages import _now_open
from sitewarden.cloud.snapshots import Snapshot
from sitewarden.edge import footing as footing_module
from sitewarden.edge.disk_keeping import DiskHealth, DiskKeeper, refuse
from sitewarden.edge.footing import DiskIsBackError, Footing, try_disk
from sitewarden.edge.lock import only_one
from sitewarden.edge.memory_home import MemoryHome
from sitewarden.edge.models import DiskTable
from sitewarden.edge.stores import open_in_memory, open_journal
from sitewarden.errors import PermanentError, RefusedError
from sitewarden.sync.damage import is_out_of_room, why_refused
from sitewarden.sync.disk_policy import MB, Judged, Level, Use, budgets, history_excess, history_limit
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, StoreError, verify_file
from sitewarden.sync.reserve import Reserve
from sitewarden.sync.sqlite import Writer
from sitewarden.words import now


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This test's own."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def said(text: str) -> Draft:
    return Draft(kind="test.said", at=now(), actor="li", body={"text": text})


def texts(records: list[Any]) -> list[str]:
    return [record.body["text"] for record in records if record.kind == "test.said"]


def refused(code: int = sqlite3.SQLITE_IOERR) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


def failed(code: int = sqlite3.SQLITE_IOERR) -> StoreError:
    error = StoreError("journal.db")
    error.__cause__ = refused(code)
    return error


# --- the writer ---


def _writer(path: Path, wrong: list[int]) -> Writer:
    """Each of `wrong` is what SQLite answers to one try."""

    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE said (text TEXT)")

    writer = Writer(path, prepare, patience=(0.0, 0.0))
    writer.open()
    return writer


@pytest.mark.parametrize(("answers", "is_kept"), [([10, 8], True), ([10, 14, 10], False), ([11], False)])
def test_a_commit_is_tried_again_while_the_disk_may_change_its_mind(
    tmp_path: Path, answers: list[int], is_kept: bool
) -> None:
    """Damage (11) is not tried again: it stays."""
    left = list(answers)
    writer = _writer(tmp_path / "a.db", left)

    def job(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO said VALUES ('x')")
        if left:
            raise refused(left.pop(0))
        return connection.execute("SELECT count(*) FROM said").fetchone()[0]

    future = writer.submit(job)
    if is_kept:
        assert future.result() == 1, "nothing of the tries before stays"
    else:
        assert isinstance(future.exception(), StoreError)
    writer.close()


# --- there ---


async def test_what_the_disk_refused_comes_first_in_memory(data: Path) -> None:
    footing = Footing(data, "gw1")
    async with open_journal(data, "gw1") as journal:
        await journal.append([said("before")])
    journal.unkept = [said("refused"), said("queued")]
    assert footing.falls(failed(), journal)
    assert footing.in_memory
    async with open_in_memory(footing.folder, "gw1") as there:
        await footing.begin(there)
        records = await there.read(0, 100)
        assert there.epoch != journal.epoch
    assert texts(records) == ["before", "refused", "queued"]
    assert [record.seq for record in records] == [1, 2, 3, 4]


async def test_what_was_refused_and_arrived_all_the_same_is_not_written_twice(data: Path) -> None:
    """A sync can fail when everything is on the disk already."""
    footing = Footing(data, "gw1")
    drafts = [said("one"), said("two")]
    async with open_journal(data, "gw1") as journal:
        await journal.append(drafts)
    journal.unkept = [*drafts, said("three")]
    assert footing.falls(failed(), journal)
    async with open_in_memory(footing.folder, "gw1") as there:
        await footing.begin(there)
        assert texts(await there.read(0, 100)) == ["one", "two", "three"]


async def test_what_arrived_after_the_memory_was_made_is_not_written_twice(data: Path) -> None:
    """Frames of a commit that failed are found when the file is opened the next time."""
    footing = Footing(data, "gw1")
    drafts = [said("one"), said("two")]
    async with open_journal(data, "gw1") as journal:
        await journal.append([said("before")])
    journal.unkept = drafts
    assert footing.falls(failed(), journal)
    async with open_in_memory(footing.folder, "gw1") as there:
        await footing.begin(there)
        await there.append([said("three")])
        numbers = {record.body["text"]: record.seq for record in await there.read(1, 100) if "text" in record.body}
    async with open_journal(data, "gw1") as journal:
        await journal.append(drafts)
    assert footing.falls(DiskIsBackError(), None)
    async with open_journal(data, "gw1") as journal:
        await footing.begin(journal)
        records = await journal.read(0, 100)
    assert texts(records) == ["before", "one", "two", "three"]
    assert records[-1].seq == numbers["three"], "who names the record by its number still means it"
    assert verify_file(data / "journal.db").problem == ""


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(bytes(8192))])
async def test_a_disk_that_cannot_be_read_either_begins_an_empty_memory(
    data: Path, damage: Callable[[Path], object]
) -> None:
    async with open_journal(data, "gw1") as journal:
        await journal.append([said("before")])
    damage(data / "journal.db")
    home = MemoryHome(data)
    home.make("gw1", "Input/output error")
    async with open_in_memory(home.folder, "gw1") as there:
        assert there.not_recorded is not None
        assert (there.not_recorded.seq, there.head()[0]) == (0, 0)
        await there.append([said("goes on")])


def test_a_folder_that_somebody_else_has_put_there_is_not_used(data: Path, memory: Path) -> None:
    home = MemoryHome(data)
    home.make("gw1", "why")
    assert home.holds()
    home.folder.chmod(0o777)
    assert not home.holds()
    assert memory.exists()


# --- back ---


async def test_memory_is_carried_over_once(data: Path) -> None:
    """The power may fail between the commit and the end of the memory."""
    home = MemoryHome(data)
    async with open_journal(data, "gw1") as journal:
        await journal.append([said("before")])
    home.make("gw1", "why")
    async with open_in_memory(home.folder, "gw1") as there:
        await there.append([said("meanwhile")])
    async with open_journal(data, "gw1") as journal:
        first = await journal.carry_over(home.journal, (), 7)
        assert [record.kind for record in first] == ["journal.gap", "test.said"]
        assert (first[0].body["readings"], first[1].body["recovered"]) == (7, True)
        assert await journal.carry_over(home.journal, (), 7) == []
        assert journal.head()[0] == 3


async def test_what_does_not_fit_is_kept_aside_and_told(
    data: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that no table can take must not keep the gateway from recording again."""
    home = MemoryHome(data)
    home.make("gw1", "why")
    async with open_in_memory(home.folder, "gw1") as there:
        await there.append([said("meanwhile")])

    async def broken(*_: object) -> None:
        raise KeyError("alarm")

    async with open_journal(data, "gw1") as journal:
        monkeypatch.setattr(journal, "carry_over", broken)
        await Footing(data, "gw1").begin(journal)
        (gap,) = await journal.read(0, 10)
    assert (gap.kind, gap.body["carried"]) == ("journal.gap", 0)
    assert (memory / gap.body["kept_as"] / "journal.db").exists()
    assert not home.holds()


async def test_a_memory_that_is_full_is_counted_and_begun_anew(data: Path) -> None:
    footing = Footing(data, "gw1")
    assert footing.falls(failed(), None)
    async with open_in_memory(footing.folder, "gw1") as there:
        await footing.begin(there)
        await there.append([said("one"), said("two")])
    assert footing.falls(ExceptionGroup("g", [failed(sqlite3.SQLITE_FULL)]), None)
    async with open_in_memory(footing.folder, "gw1") as there:
        assert there.not_recorded is not None
        assert there.not_recorded.forgotten == {"test.said": 2}
        assert there.head()[0] == 0


async def test_memory_takes_no_more_than_it_may(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sitewarden.sync.journal.MOST_BYTES", 400 * 1024)
    monkeypatch.setattr("sitewarden.sync.journal._PATIENCE_S", ())
    home = MemoryHome(data)
    home.make("gw1", "why")
    async with open_in_memory(home.folder, "gw1") as there:
        answers = [await asyncio.gather(there.append([said("x" * 4000)]), return_exceptions=True) for _ in range(200)]
    (last,) = answers[-1]
    assert isinstance(last, StoreError)
    assert is_out_of_room(last)


# --- what is a disk's, and what is not ---


@pytest.mark.parametrize(
    ("error", "is_disks"),
    [
        (failed(), True),
        (ExceptionGroup("g", [ExceptionGroup("h", [failed(sqlite3.SQLITE_READONLY)])]), True),
        (failed(sqlite3.SQLITE_FULL), True),
        (refused(sqlite3.SQLITE_CANTOPEN), True),
        (failed(sqlite3.SQLITE_CORRUPT), False),
        (ExceptionGroup("g", [failed(), failed(sqlite3.SQLITE_CORRUPT)]), False),
        (ValueError("a rule"), False),
        (OSError(errno.EIO, "a serial port"), False),
        (PermissionError(errno.EACCES, "not ours"), False),
    ],
)
def test_only_a_disk_that_refuses_sends_the_gateway_to_memory(data: Path, error: Exception, is_disks: bool) -> None:
    """The disk itself is well here, so an error that may be another device's is taken for that."""
    footing = Footing(data, "gw1")
    assert footing.falls(error, None) is is_disks
    assert footing.in_memory is is_disks
    assert footing.falls(ValueError("a bug"), None) is False, "in memory a bug still ends the process"


def history_failed(data: Path, code: int = sqlite3.SQLITE_IOERR) -> StoreError:
    error = StoreError("history.db", path=data / "history.db")
    error.__cause__ = refused(code)
    return error


async def test_a_part_of_the_disk_that_went_bad_under_the_history_costs_no_record(data: Path) -> None:
    (data / "history.db").write_bytes(b"x")
    footing = Footing(data, "gw1")
    assert footing.falls(ExceptionGroup("g", [history_failed(data)]), None)
    assert not footing.in_memory
    (aside,) = data.glob("history.db.damaged-*")
    async with open_journal(data, "gw1") as journal:
        await footing.begin(journal)
        (told,) = [record for record in await journal.read(0, 100) if record.kind == "history.damaged"]
        assert told.body["kept_as"] == aside.name
        await footing.begin(journal)
        assert sum(record.kind == "history.damaged" for record in await journal.read(0, 100)) == 1, "told once"
    (data / "history.db").write_bytes(b"x")
    assert footing.falls(history_failed(data), None)
    assert footing.in_memory, "the next one goes bad soon: the disk is not trusted any more"


@pytest.mark.parametrize("also", ["journal", "full", "disk"])
def test_a_history_that_fails_with_others_is_the_disk(data: Path, also: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [history_failed(data, sqlite3.SQLITE_FULL if also == "full" else sqlite3.SQLITE_IOERR)]
    errors += [failed()] if also == "journal" else []
    if also == "disk":
        monkeypatch.setattr(footing_module, "_refusal", lambda _: os.strerror(errno.EIO))
    footing = Footing(data, "gw1")
    assert footing.falls(ExceptionGroup("g", errors), None)
    assert footing.in_memory
    assert not list(data.glob("history.db.damaged-*"))


def test_where_memory_takes_nothing_either_the_process_ends(data: Path, memory: Path) -> None:
    memory.write_text("a file in the place of the folder")
    assert not Footing(data, "gw1").falls(failed(), None)


def test_a_folder_without_permission_is_somebodys_mistake(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", no)
    with pytest.raises(PermissionError):
        Footing(data, "gw1").settle(Reserve(data / "reserve", 0))


def test_a_full_disk_gets_its_reserve_back_before_it_is_given_up(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = Reserve(data / "reserve", MB)
    assert reserve.keep(64 * MB)
    full = [os.strerror(errno.ENOSPC)]
    monkeypatch.setattr(footing_module, "_refusal", lambda _: full[0] if reserve.is_kept() else "")
    footing = Footing(data, "gw1")
    footing.settle(reserve)
    assert not footing.in_memory
    assert not reserve.is_kept()


async def test_the_disk_is_tried_with_growing_pauses_and_by_writing_to_the_journal(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_journal(data, "gw1") as journal:
        await journal.append([said("x")])
    assert try_disk(data) == ""
    with contextlib.closing(sqlite3.connect(data / "journal.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("sitewarden.sync.memory_journal.connect_for_writing", _impatient)
        assert "locked" in try_disk(data)
    pauses, answers = list[float](), ["no", "no", "no", ""]

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(footing_module, "try_disk", lambda _: answers.pop(0))
    with pytest.raises(DiskIsBackError):
        await Footing(data, "gw1").watch()
    assert pauses == [5, 10, 20, 40]


def _impatient(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def test_the_chain_of_causes_says_what_the_disk_answered() -> None:
    assert why_refused(failed()) == "disk I/O error"
    assert why_refused(OSError(errno.EROFS, "Read-only file system")) == "Read-only file system"
    assert why_refused(StoreError("is closed")) == ""


def test_the_lock_holds_where_no_file_can_be_made(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: Any, flags: int, *more: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *more)

    monkeypatch.setattr("sitewarden.edge.lock.os.open", read_only)
    with only_one(data), pytest.raises(PermanentError, match="another gateway"), only_one(data):
        pass


# --- nearly full ---


@pytest.mark.parametrize(("level", "is_refused"), [(Level.SHORT, False), (Level.REFUSING, True)])
async def test_from_95_percent_on_nobody_puts_a_name_under_anything_new(
    data: Path, level: Level, is_refused: bool
) -> None:
    health = DiskHealth(use=Use(journal=0, history=0, blobs=0, free=1, usable=100))
    health.judged = Judged(level=level, about="device", pct=96.0)

    async def record(*_: object) -> None:
        return None

    async with History(data / "history.db", "gw1") as history:
        keeper = DiskKeeper(data, history, Reserve(data / "reserve", 0), lambda: DiskTable(), record, health)
        if is_refused:
            with pytest.raises(RefusedError) as answer:
                keeper.check_sign_off()
            assert answer.value.reason == "disk_full"
        else:
            keeper.check_sign_off()


def test_what_is_handed_in_while_nothing_is_kept_is_refused_with_what_to_do() -> None:
    with pytest.raises(RefusedError) as answer:
        refuse(10)
    assert answer.value.reason == "not_recorded"
    assert "保存原件" in answer.value.hint


def test_trends_count_towards_the_budget_of_the_history() -> None:
    limits = budgets(1000 * MB, history_mb=100)
    use = Use(journal=0, history=80 * MB, blobs=0, free=900 * MB, usable=1000 * MB)
    assert history_excess(use, limits, can_shrink=True) is None
    more = Use(journal=0, history=80 * MB, blobs=0, free=900 * MB, usable=1000 * MB, trends=40 * MB)
    excess = history_excess(more, limits, can_shrink=True)
    assert excess is not None
    assert excess.is_budget
    huge = Use(journal=0, history=80 * MB, blobs=0, free=900 * MB, usable=1000 * MB, trends=500 * MB)
    assert history_limit(huge, limits) == 25 * MB, "trends alone never take all of it"


# --- headquarters ---


@pytest.mark.parametrize(("mark", "shown"), [("", "recorded"), ("2026-11-23T12:00:00.000Z", "in memory")])
def test_headquarters_believes_the_snapshot_of_a_gateway_that_does_not_record(mark: str, shown: str) -> None:
    """All its records have come, and it knows more."""
    alarms = [{"id": "in memory"}]
    word = Snapshot(epoch="e", seq=5, at_ms=0, open=1, alarms=alarms, health={"not_recorded": mark})
    found = _now_open({"e": [{"id": "recorded"}]}, [word], {"e": 5})
    assert [alarm["id"] for alarm in found["e"]] == [shown]
