"""Checkpoints, witness and `sitewarden verify` across epochs; kills in the middle of a change; clocks that lie."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sitewarden import words
from sitewarden.cli import main
from sitewarden.cloud.lineages import Begun, EpochRow, heads
from sitewarden.edge.stores import open_journal
from sitewarden.sync.checkpoints import Checkpoints
from sitewarden.sync.cloud_client import UplinkOptions
from sitewarden.sync.evidence import examine
from sitewarden.sync.evidence_state import EvidenceHealth
from sitewarden.sync.journal import Draft, verify_file
from sitewarden.sync.keys import load_or_create_key
from sitewarden.sync.rebuilding import compare
from sitewarden.sync.uplink import run_uplink
from sitewarden.sync.witnessing import Witnessing
from sitewarden.tests.peers.ends import KEY, Site, assert_all_there, headquarters, rows, running, site, until
from sitewarden.words import now

HERE = {"machine": "m1", "volume": "v1", "file": "f1"}
PUT_BACK = HERE | {"file": "f2"}


@contextlib.asynccontextmanager
async def signing(at: Site) -> AsyncIterator[Checkpoints]:
    """Signs when it is asked to."""
    checkpoints = Checkpoints(at.journal, KEY, EvidenceHealth(), every_s=3600)
    async with running(checkpoints.run()):
        await checkpoints.ready.wait()
        yield checkpoints


async def witnessed(at: Site, checkpoints: Checkpoints, port: int) -> None:
    """Until headquarters has countersigned everything."""
    options = UplinkOptions(url=f"http://127.0.0.1:{port}", gateway="gw1", backoff_max_s=0.05, contact_s=0.2)
    also = [Witnessing(checkpoints, look_s=0.1).run]
    async with running(run_uplink(at.journal, at.history, KEY, options, at.health, also=also)):
        await until(at.all_sent, "all sent")
        checkpoints.request()
        await until(lambda: checkpoints.health.witnessed == at.journal.head()[0], "all is witnessed")


def witness_key(data: Path) -> Ed25519PublicKey:
    return load_or_create_key(data / "witness.key").public_key()


def keys(data: Path) -> dict[str, Any]:
    return {"gateway_keys": [KEY.public_key()], "witness_keys": [witness_key(data)]}


async def two_epochs(tmp_path: Path) -> tuple[Path, Path]:
    """A gateway that was put back: 20 records of one epoch and 11 of the next, both witnessed. Its journal, and HQ."""
    edge, data = tmp_path / "edge", tmp_path / "cloud"
    async with headquarters(data) as port:
        async with site(edge, HERE) as at, signing(at) as checkpoints:
            await at.say(20)
            await witnessed(at, checkpoints, port)
        async with site(edge, PUT_BACK) as at, signing(at) as checkpoints:
            await at.say(10)
            await witnessed(at, checkpoints, port)
            assert checkpoints.health.signed == 31, "numbers of records, which go on"
    return edge / "journal.db", data


async def test_each_epoch_has_a_tree_of_its_own_and_headquarters_countersigns_both(tmp_path: Path):
    journal, data = await two_epochs(tmp_path)
    report = examine(journal, **keys(data))
    assert report.is_good, report.problems
    assert (report.signed, report.witnessed, [first for _, first in report.epochs]) == (31, 31, [1, 21])
    sizes = rows(data, "SELECT size FROM witnessed ORDER BY time_s, size")
    assert {size for (size,) in sizes} == {20, 11}


async def test_an_epoch_that_begins_while_the_daemon_runs_is_signed_at_once(tmp_path: Path):
    async with site(tmp_path / "edge") as at, signing(at) as checkpoints:
        await at.say(5)
        await at.journal.begin_epoch("fork", {})
        await until(lambda: checkpoints.health.signed == 6, "the new one is signed")
        await at.say(3)
        checkpoints.request()
        await until(lambda: checkpoints.health.signed == 9, "and goes on")
    report = examine(tmp_path / "edge/journal.db", gateway_keys=[KEY.public_key()])
    assert report.is_good, report.problems


async def test_a_checkpoint_of_an_earlier_epoch_is_checked_too(tmp_path: Path):
    """Somebody rewrites the first epoch, chain and all, and lets the second one name the new end."""
    journal, data = await two_epochs(tmp_path)
    with contextlib.closing(sqlite3.connect(journal)) as db:
        db.execute("UPDATE checkpoint SET note = replace(note, 'chain ', 'chain A') WHERE size = 20")
        db.commit()
    report = examine(journal, **keys(data))
    assert [problem.code for problem in report.problems] == ["note"]
    with contextlib.closing(sqlite3.connect(journal)) as db:
        db.execute("DELETE FROM checkpoint")
        db.commit()
    ((note, line),) = rows(data, "SELECT note, cosignature FROM witnessed WHERE size = 20")
    assert examine(journal, **keys(data), notes=[note + line]).is_good


async def test_what_an_earlier_epoch_has_forgotten_shows_by_headquarters_note(tmp_path: Path):
    """Put back from an hour-old image: the epoch's first record says so, and the note proves what is missing."""
    edge, backup, data = tmp_path / "edge", tmp_path / "backup", tmp_path / "cloud"
    async with headquarters(data) as port:
        async with site(edge) as at, signing(at) as checkpoints:
            await at.say(10)
            await witnessed(at, checkpoints, port)
            shutil.copytree(edge, backup)
            await at.say(10)
            await witnessed(at, checkpoints, port)
        async with site(backup) as at, signing(at) as checkpoints:
            await at.say(5)
            await witnessed(at, checkpoints, port)
            await at.say(10)
            await witnessed(at, checkpoints, port)
    report = examine(backup / "journal.db", **keys(data))
    assert (report.is_good, [gap.kind for gap in report.gaps]) == (True, ["journal.restored"])
    ((note, line),) = rows(data, "SELECT note, cosignature FROM witnessed WHERE size = 20")
    (problem,) = examine(backup / "journal.db", **keys(data), notes=[note + line]).problems
    assert (problem.code, problem.about[:2]) == ("forgotten", (15, 20))


async def test_the_command_names_the_epochs(tmp_path: Path):
    journal, _ = await two_epochs(tmp_path)
    said = CliRunner().invoke(main, ["verify", str(journal), "--lang", "en"])
    assert said.exit_code == 0, said.output
    epochs = verify_file(journal)
    assert "2 epochs, records are numbered through:" in said.output
    assert f"  {epochs.epoch}  21–31" in said.output
    assert "journal.restored" in said.output
    assert "2 个纪元" in CliRunner().invoke(main, ["verify", str(journal), "--lang", "zh"]).output


async def test_a_record_that_was_altered_after_it_was_numbered_holds_nothing_up(tmp_path: Path):
    """Headquarters refuses the batch as another history: what follows goes on under another name, and says so."""
    edge, data = tmp_path / "edge", tmp_path / "cloud"
    async with headquarters(data) as port:
        async with site(edge) as at:
            await at.say(5)
            await at.sync(port)
            await at.say(5)
            from sitewarden.sync.outbox import JournalOutbox

            outbox = JournalOutbox(at.journal)
            await outbox.open()
            assert await outbox.batch(2) is not None, "numbered, not sent"
        with contextlib.closing(sqlite3.connect(edge / "journal.db")) as db:
            db.execute("UPDATE record SET data = CAST(replace(data, '\"i\":3', '\"i\":7') AS BLOB) WHERE seq = 9")
            db.commit()
        async with site(edge) as at:
            await at.say(2)
            await at.sync(port)
            assert len(at.journal.epochs) == 2
            reasons = rows(data, "SELECT reason FROM journal_epoch")
            assert reasons == [("fork",)]
            assert len(rows(data, "SELECT 1 FROM quarantine")) == 1, "the batch with the altered record"
            assert rows(data, "SELECT seq FROM record WHERE epoch = ?", at.journal.epoch) == [(13,)]
            await at.say(2)
            await at.sync(port)
            assert rows(data, "SELECT max(seq) FROM record WHERE epoch = ?", at.journal.epoch) == [(15,)]


async def test_the_daemons_journal_carries_its_alarms_and_its_tables_follow_from_all_epochs(tmp_path: Path):
    alarm = {"id": "a.b.hot", "state": "UNACK", "occurrence": 1, "priority": 2, "active": None}
    alarm |= {
        "required_acks": [],
        "acks": [],
        "area": "a",
        "point": "a.b.c",
        "kind": "hi",
        "name": "热",
        "name_en": "Hot",
    }
    draft = Draft(kind="alarm.raised", at=now(), actor="gateway", body={"alarm": alarm})
    async with open_journal(tmp_path, "gw1") as journal:
        await journal.append([draft])
    original = tmp_path / "journal.db"
    shutil.copyfile(original, tmp_path / "copy")
    (tmp_path / "copy").replace(original)
    async with open_journal(tmp_path, "gw1") as journal:
        assert journal.began["reason"] == "restored"
        assert [one["id"] for one in journal.began["open_alarms"]] == ["a.b.hot"]
        await journal.append([draft])
    from sitewarden.edge.state_tables import TABLES

    assert all(table.is_equal for table in compare(original, TABLES))


# --- two machines with one key ------------------------------------------------------------------------------------


async def test_a_gateway_hears_of_its_twin_and_records_it_once(tmp_path: Path):
    edge, clone, data = tmp_path / "edge", tmp_path / "clone", tmp_path / "cloud"
    async with headquarters(data) as port:
        async with site(edge) as at:
            await at.say(3)
            await at.sync(port)
        shutil.copytree(edge, clone)
        async with site(edge) as first, site(clone) as second:
            await second.say(2)
            await second.sync(port)
            assert second.health.machines == 1, "nobody else has spoken"
            for _ in range(3):
                await first.say(2)
                await first.sync(port)
                await second.say(2)
                await second.sync(port)
            assert (first.health.machines, second.health.machines) == (2, 2)
            for one in (first, second):
                told = await one.journal.query(lambda c: c.execute(TWINS).fetchone()[0])
                assert (told, one.health.to_json()["machines"]) == (1, 2)


TWINS = "SELECT count(*) FROM record WHERE kind = 'sync.twin'"


def row(epoch: str, begun: int, last: int, seq: int = 10) -> EpochRow:
    return EpochRow(epoch=epoch, ack=1, seq=seq, begun_ms=begun, last_ms=last)


def begun(predecessor: str, last: int = 10) -> Begun:
    return Begun(predecessor=predecessor, last=last, reason="restored", at="")


@pytest.mark.parametrize(
    ("rows_", "starts", "alive"),
    [
        ([], {}, []),
        ([row("a", 1, 9)], {}, ["a"]),
        ([row("a", 1, 4), row("b", 5, 9)], {"b": begun("a")}, ["b"]),
        ([row("a", 1, 7), row("b", 5, 9)], {"b": begun("a")}, ["b"]),
        ([row("a", 1, 7, seq=11), row("b", 5, 9)], {"b": begun("a")}, ["b", "a"]),
        ([row("b", 5, 9), row("a", 6, 6)], {"b": begun("a")}, ["b"]),
        ([row("a", 5, 5), row("b", 5, 5), row("c", 5, 5)], {"b": begun("a"), "a": begun("c")}, ["b"]),
    ],
    ids=["none", "one", "followed", "its end came late", "cloned", "the later one came first", "all at once"],
)
def test_which_epochs_are_alive(rows_: list[EpochRow], starts: dict[str, Begun], alive: list[str]):
    assert [one.epoch for one in heads(rows_, starts, now_ms=10)] == alive


# --- kills in the middle ------------------------------------------------------------------------------------------

KILLED = """
import asyncio, sys
from pathlib import Path
from sitewarden.tests.peers.ends import site

async def life(folder, place, port):
    async with site(Path(folder), {"machine": place}) as at:
        async with at.linked(port):
            while True:
                await at.say(3)
                await at.measure(1)
                await asyncio.sleep(0.002)

asyncio.run(life(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_kills_at_random_points_of_epochs_that_begin(tmp_path: Path):
    """Each life finds its files elsewhere, or an hour older; headquarters ends with all of every history, once."""
    dice = random.Random(20_261_124)
    edge, backup, data = tmp_path / "edge", tmp_path / "backup", tmp_path / "cloud"
    async with headquarters(data) as port:
        for life in range(12):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", KILLED, str(edge), f"m{life // 2}", str(port), stderr=asyncio.subprocess.DEVNULL
            )
            before = (edge / "journal.db").stat().st_mtime_ns if edge.exists() else 0
            await until(lambda p=edge / "journal.db", b=before: p.exists() and p.stat().st_mtime_ns != b, "it writes")
            await asyncio.sleep(dice.random() * 0.15)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            if life == 4:
                shutil.copytree(edge, backup)
            if life in (7, 9):
                shutil.rmtree(edge)
                shutil.copytree(backup, edge)
        async with site(edge, {"machine": "m9"}) as at:
            await at.say(1)
            await at.sync(port)
            await assert_all_there(at, data)
            assert verify_file(at.journal.path).bad_seq is None
            assert len(at.journal.epochs) > 3
    assert rows(data, "SELECT epoch, seq FROM record GROUP BY epoch, seq HAVING count(*) > 1") == []
    numbers = rows(data, "SELECT epoch, count(*), max(seq) - min(seq) + 1 FROM record GROUP BY epoch")
    assert all(count == span for _, count, span in numbers), "no holes"


# --- clocks -------------------------------------------------------------------------------------------------------

YEAR_MS = 31_557_600_000


@pytest.mark.parametrize("wrong_ms", [-YEAR_MS, 5 * YEAR_MS], ids=["-1 y", "+5 y"])
async def test_a_clock_that_is_years_wrong_changes_no_order_and_headquarters_says_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_ms: int
):
    class Wrong:
        """The machine's clock: wrong from now on."""

        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

        def time_ns(self) -> int:
            return time.time_ns() + wrong_ms * 1_000_000

        def time(self) -> float:
            return time.time() + wrong_ms / 1000

    import time

    from sitewarden.edge import supervision
    from sitewarden.sync import cloud_client

    edge, data = tmp_path / "edge", tmp_path / "cloud"
    async with headquarters(data) as port, site(edge) as at:
        await at.say(5)
        await at.sync(port)
        monkeypatch.setattr(words, "time", Wrong())
        monkeypatch.setattr(cloud_client, "time", Wrong())
        monkeypatch.setattr(supervision, "_kernel_synced", lambda: False)
        watch = supervision.ClockWatch()
        await at.say(5, year="wrong")
        await at.sync(port)
        assert at.health.server_time is not None
        by_s = watch.step(at.health.server_time)
        assert by_s == pytest.approx(-wrong_ms / 1000, abs=60), "told, so that it is recorded"
        monkeypatch.undo()
        words.set_clock_shift(0)
        await at.say(5)
        await at.sync(port)
        await assert_all_there(at, data)
        assert [seq for (seq,) in rows(data, "SELECT seq FROM record ORDER BY seq")] == list(range(1, 16))
