"""secrets.db that went bad: the gateway starts all the same, and whoever had a PIN gets a new one."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest
from sitewarden.errors import RefusedError
from sitewarden.serving.secrets import Secrets


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of three people."""
    path = tmp_path_factory.mktemp("good") / "secrets.db"
    kept = Secrets(path)
    for person in ("wang", "li", "zhao"):
        kept.set_pin(person, "246813")
    kept.close()
    return path.read_bytes()


def damaged(good: bytes, seed: int) -> bytes:
    """Cut off, a run of it overwritten, or single bits flipped; by seed."""
    chance, data = random.Random(seed), bytearray(good)
    match seed % 3:
        case 0:
            return bytes(data[: chance.randrange(1, len(data))])
        case 1:
            begin = chance.randrange(len(data))
            data[begin : begin + 512] = chance.randbytes(min(512, len(data) - begin))
        case _:
            for _ in range(20):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("first", range(0, 240, 40))
async def test_whatever_went_bad_it_opens_and_takes_a_new_pin(tmp_path: Path, good: bytes, first: int) -> None:
    for seed in range(first, first + 40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = folder / "secrets.db"
        path.write_bytes(damaged(good, seed))
        kept = Secrets(path)
        assert path.stat().st_mode & 0o777 == 0o600
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
        if kept.set_aside is not None:
            assert kept.set_aside.read_bytes()
        kept.close()


async def test_a_damaged_file_is_kept_beside_the_new_one(tmp_path: Path, good: bytes, caplog) -> None:
    path = tmp_path / "secrets.db"
    path.write_bytes(b"x" * 8192)
    (tmp_path / "secrets.db-journal").write_bytes(b"y" * 512)
    kept = Secrets(path)
    assert kept.set_aside == tmp_path / "secrets.db.damaged-1"
    assert (tmp_path / "secrets.db.damaged-1").read_bytes() == b"x" * 8192
    assert not (tmp_path / "secrets.db-journal").exists()
    assert "sitewarden pin set" in caplog.text
    with pytest.raises(RefusedError, match="wrong"):
        await kept.sign_in("wang", "246813", "here")
    kept.set_pin("wang", "135790")
    token, _ = await kept.sign_in("wang", "135790", "here")
    assert kept.session(token) is not None
    kept.close()
    again = Secrets(path)
    assert again.set_aside is None
    assert again.session(token) is not None
    again.close()
    path.write_bytes(good)
    whole = Secrets(path)
    assert whole.set_aside is None
    await whole.sign_in("li", "246813", "here")
    whole.close()


async def test_of_many_damaged_files_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "secrets.db"
    for n in range(1, 15):
        path.write_bytes(b"%d" % n * 4096)
        Secrets(path).close()
    numbers = sorted(int(other.name.rpartition("-")[2]) for other in tmp_path.glob("secrets.db.damaged-*"))
    assert numbers == list(range(5, 15))


async def test_a_file_that_another_program_writes_is_not_damaged(tmp_path: Path, good: bytes, monkeypatch) -> None:
    path = tmp_path / "secrets.db"
    path.write_bytes(good)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    connect = sqlite3.connect
    monkeypatch.setattr("sqlite3.connect", lambda *args, **more: connect(*args, **(more | {"timeout": 0.05})))
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        Secrets(path)
    other.close()
    assert not list(tmp_path.glob("*damaged*"))


async def test_a_hash_that_went_bad_is_a_wrong_pin(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "secrets.db"
    path.write_bytes(good)
    db = sqlite3.connect(path)
    db.execute("UPDATE pin SET hash = '$argon2id$nonsense' WHERE person = 'li'")
    db.commit()
    db.close()
    kept = Secrets(path)
    with pytest.raises(RefusedError, match="wrong"):
        await kept.sign_in("li", "246813", "here")
    kept.close()
