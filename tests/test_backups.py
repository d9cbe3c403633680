"""`sitewarden cloud backup`: what it copies, what is durable by it and when; and headquarters brought back from it."""

from __future__ import annotations

import asyncio
import shutil
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sitewarden.cli import main
from sitewarden.cloud import backups
from sitewarden.cloud.backing_up import back_up
from sitewarden.cloud.backups import Backups
from sitewarden.cloud.config import CloudConfig, StoreTable
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.store import STEPS
from sitewarden.errors import PermanentError
from sitewarden.sync.journal import verify_rows
from sitewarden.tests.peers.ends import cloud_config, headquarters, rows, site, until

DURABLE = "SELECT stream, ack, durable FROM ack ORDER BY stream"


def config(durable: str = "backup") -> CloudConfig:
    return cloud_config(durable=durable)


async def test_only_what_a_complete_backup_holds_is_durable(tmp_path: Path):
    data, target = tmp_path / "cloud", tmp_path / "backup"
    async with site(tmp_path / "edge", keep_days=0, settle_days=0) as at, headquarters(data, durable="backup") as port:
        await at.say(5)
        await at.measure(3)
        await at.sync(port)
        assert rows(data, DURABLE) == [("history", 3, 0), ("journal", 1, 0)]
        _, raised = await back_up(config(), data, target, same_disk=True)
        assert raised == 2
        await at.say(5)
        await at.measure(2)
        await at.sync(port)
        assert rows(data, DURABLE) == [("history", 5, 3), ("journal", 2, 1)]
        assert at.health.streams["history"].durable == 3, "the gateway hears of it"
        assert await at.history.delete_through(at.health.streams["history"].durable) == 0, "its own task was first"
        assert await at.history.oldest() == 4, "and deletes what is durable alone"
        _, raised = await back_up(config(), data, target, same_disk=True)
        assert (raised, rows(data, DURABLE)) == (2, [("history", 5, 5), ("journal", 2, 2)])


async def test_without_backups_what_is_committed_is_durable(tmp_path: Path):
    async with site(tmp_path / "edge") as at, headquarters(tmp_path / "cloud", durable="committed") as port:
        await at.say(5)
        await at.sync(port)
        assert at.health.streams["journal"].durable == 1


async def test_headquarters_comes_back_from_a_backup_and_misses_nothing(tmp_path: Path):
    """Everything since the backup is still at the gateway: it deletes nothing that no backup has."""
    data, target = tmp_path / "cloud", tmp_path / "backup"
    async with site(tmp_path / "edge", keep_days=0, settle_days=0) as at:
        async with headquarters(data, durable="backup") as port:
            for _ in range(3):
                await at.say(20)
                await at.measure(2)
                await at.sync(port)
                if not target.exists():
                    await back_up(config(), data, target, same_disk=True)
        shutil.rmtree(data)
        shutil.copytree(target, data)
        async with headquarters(data, durable="backup") as port:
            await at.sync(port)
            records = rows(data, "SELECT seq, data, chain FROM record ORDER BY seq")
            assert verify_rows("gw1", at.journal.epoch, records).bad_seq is None
            assert [n for (n,) in rows(data, "SELECT n FROM batch WHERE stream = 'history' ORDER BY n")] == [
                *range(1, 7)
            ]
            assert rows(data, "SELECT * FROM declared_gap") == []
            assert len(at.journal.epochs) == 1, "nobody had to begin anew"


async def test_it_is_complete_or_the_one_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, target = tmp_path / "cloud", tmp_path / "backup"
    async with site(tmp_path / "edge") as at, headquarters(data, durable="backup") as port:
        await at.say(5)
        await at.sync(port)
        await back_up(config(), data, target, same_disk=True)
        before = (target / "cloud.db").read_bytes()
        await at.say(5)
        await at.sync(port)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(backups, "_finish", full)
        with pytest.raises(PermanentError, match="No space left"):
            await back_up(config(), data, target, same_disk=True)
        assert (target / "cloud.db").read_bytes() == before
        assert rows(data, "SELECT durable FROM ack") == [(1,)]
        assert {path.name for path in target.iterdir()} >= {"cloud.db", "secrets.db", "witness.key", "seal.key"}
        assert all(not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) for path in target.glob("*.*"))


async def test_while_the_service_is_stopped_the_command_writes_it_down(tmp_path: Path):
    data, target = tmp_path / "cloud", tmp_path / "backup"
    async with site(tmp_path / "edge") as at, headquarters(data, durable="backup") as port:
        await at.say(5)
        await at.sync(port)
    _, raised = await back_up(config(), data, target, same_disk=True)
    assert (raised, rows(data, "SELECT durable FROM ack")) == (1, [(1,)])


async def test_a_copy_on_the_same_disk_makes_nothing_durable(tmp_path: Path):
    data = tmp_path / "cloud"
    async with site(tmp_path / "edge") as at, headquarters(data, durable="backup") as port:
        await at.say(5)
        await at.sync(port)
        with pytest.raises(PermanentError, match="same disk"):
            await back_up(config(), data, tmp_path / "backup")
        assert (tmp_path / "backup" / "cloud.db").exists()
        assert rows(data, "SELECT durable FROM ack") == [(0,)]


async def test_evidence_is_copied_once_and_durable_when_it_was_there_before(tmp_path: Path):
    data, target = tmp_path / "cloud", tmp_path / "backup"
    async with headquarters(data, durable="backup"):
        whole = data / "blobs" / "ab" / "cd" / f"abcd{'0' * 60}"
        whole.parent.mkdir(parents=True)
        whole.write_bytes(b"a photo")
        assert (await back_up(config(), data, target, same_disk=True))[0].blobs == 1
        assert (target / whole.relative_to(data)).read_bytes() == b"a photo"
        assert (await back_up(config(), data, target, same_disk=True))[0].blobs == 0
    async with SqliteDatabase(data / "cloud.db", STEPS) as database:
        kept = Backups(database, counts=True)
        assert not kept.covers(1)
        await kept.open()
        assert kept.newest_ms is not None
        assert (kept.covers(kept.newest_ms - 1), kept.covers(kept.newest_ms)) == (True, False)
        assert Backups(database, counts=False).covers(2**50)


async def test_a_backup_never_makes_durable_what_is_not_here_any_more(tmp_path: Path):
    """An old copy, told late, or of another database."""
    data = tmp_path / "cloud"
    async with site(tmp_path / "edge") as at, headquarters(data, durable="backup") as port:
        await at.say(5)
        await at.sync(port)
    async with SqliteDatabase(data / "cloud.db", STEPS) as database:
        epoch = rows(data, "SELECT epoch FROM ack")[0][0]
        told = [("gw1", "journal", epoch, 2), ("gw1", "journal", "ffffffffffffffff", 1), ("gw9", "journal", epoch, 1)]
        assert await Backups(database, counts=True).complete(1, told) == 0
    assert rows(data, "SELECT durable FROM ack") == [(0,)]


async def test_a_server_has_its_own_means(tmp_path: Path):
    other = config().model_copy(update={"store": StoreTable(url="postgresql://a@b/c")})
    with pytest.raises(PermanentError, match="PostgreSQL"):
        await back_up(other, tmp_path, tmp_path / "backup")


# --- the command -------------------------------------------------------------------------------------------------


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_says_what_it_did_in_both_languages(tmp_path: Path):
    (tmp_path / "cloud.toml").write_text('[cloud]\nname = "总部"\nname_en = "HQ"\nport = 0\ndurable = "backup"\n')
    (tmp_path / "people.csv").write_text("id,name,name_en,roles,areas,phone\n")
    data = tmp_path / "cloud"

    async def once() -> None:
        async with headquarters(data):
            await until(lambda: (data / "cloud.db").exists())

    asyncio.run(once())
    words = ("cloud", "backup", tmp_path / "backup", "--config", tmp_path / "cloud.toml", "--data", data)
    said = run(*words, "--same-disk", "--lang", "en")
    assert (said.exit_code, "complete: database of" in said.output) == (0, True), said.output
    assert "备份完成" in run(*words, "--same-disk", "--lang", "zh").output
    assert run(*words).exit_code == 1
