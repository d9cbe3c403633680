"""`sitewarden verify`: what was done to a journal, what its checkpoints prove, and what it declares itself."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.cli import main
from sitewarden.errors import PermanentError
from sitewarden.sync.checkpoints import SCHEMA
from sitewarden.sync.declared import DECLARED
from sitewarden.sync.evidence import Report, examine
from sitewarden.sync.journal import Draft, Journal, canonical, next_chain
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.merkle import EMPTY, extend, root
from sitewarden.sync.notes import Checkpoint, Note, cosign, origin_of, sign_note, witness_name
from sitewarden.tests.peers.forger import forge
from sitewarden.words import Instant, utc_text

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
AT_MS = 1_795_000_000_000
WITNESSED_S = 1_795_000_100
RECORDS = 12


def at(seconds: float) -> Instant:
    return Instant(utc_ms=AT_MS + round(seconds * 1000), mono_s=seconds, boot="boot-1")


def draft(n: int, kind: str = "test.noted", **body: Any) -> Draft:
    return Draft(kind=kind, at=at(n), actor="gateway", body={"n": n, **body})


@contextlib.contextmanager
def opened(path: Path) -> Any:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def records(path: Path) -> list[tuple[int, str, bytes, bytes]]:
    with opened(path) as connection:
        return connection.execute("SELECT seq, kind, data, chain FROM record ORDER BY seq").fetchall()


def sql(path: Path, *statements: str) -> None:
    with opened(path) as connection:
        for statement in statements:
            connection.execute(statement)


def checkpoint(path: Path, size: int, *, key: Ed25519PrivateKey = KEY, witness: Ed25519PrivateKey | None = None) -> str:
    """Sign how the journal stood at `size`, and store it; the whole note."""
    with opened(path) as connection:
        for statement in SCHEMA:
            connection.execute(statement)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        rows = records(path)[:size]
        origin = origin_of(meta["gateway"], meta["epoch"])
        tree = extend(EMPTY, (data for _, _, data, _ in rows))
        text = Checkpoint(origin=origin, size=size, root=root(tree), chain=rows[-1][3]).text()
        note = str(sign_note(text, origin, key))
        line = cosign(text, witness_name(witness), witness, WITNESSED_S).line() if witness else ""
        connection.execute("INSERT INTO checkpoint VALUES (?, ?, ?, ?)", (meta["epoch"], size, note, line))
        connection.execute("INSERT OR IGNORE INTO evidence_key VALUES ('gateway', ?)", (public_key_text(KEY),))
        if witness:
            connection.execute("INSERT OR IGNORE INTO evidence_key VALUES ('witness', ?)", (public_key_text(witness),))
    return note + line


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Twelve records; signed at 4, 8 and 10, witnessed at 8."""
    file = tmp_path / "journal.db"
    async with Journal(file, "gw1") as journal:
        await journal.append([draft(n) for n in range(1, RECORDS + 1)])
    checkpoint(file, 4)
    checkpoint(file, 8, witness=WITNESS)
    checkpoint(file, 10)
    return file


def look(path: Path, **options: Any) -> Report:
    keys: dict[str, Any] = {"gateway_keys": [KEY.public_key()], "witness_keys": [WITNESS.public_key()]}
    return examine(path, **(keys | options))


def codes(report: Report) -> list[str]:
    return [problem.code for problem in report.problems]


def test_a_good_journal_says_how_far_it_is_proven(path: Path):
    report = look(path)
    assert report.is_good
    assert (report.verdict.records, report.checkpoints, report.signed) == (RECORDS, 3, 10)
    assert (report.witnessed, report.witnessed_s, report.own_keys) == (8, WITNESSED_S, False)
    assert examine(path).own_keys, "without given keys those of the file count, and it says so"


# --- what was done -----------------------------------------------------------------------------------------------


def renumbered(statement: str, after: int, by: int) -> tuple[str, ...]:
    """Something, and then everything behind it moved."""
    order = range(RECORDS, after, -1) if by > 0 else range(after + 1, RECORDS + 1)
    moves = [f"UPDATE record SET seq = {n + by} WHERE seq = {n}" for n in order]
    return (*moves, statement) if by > 0 else (statement, *moves)


COPY = "INSERT INTO record SELECT {0}, kind, data, chain FROM record WHERE seq = {1}"
DONE: dict[str, tuple[tuple[str, ...], str, int, int]] = {
    "a body": (("UPDATE record SET data = replace(data, '\"n\":5', '\"n\":6') WHERE seq = 5",), "altered", 5, 1),
    "a body, as bytes": (
        ("UPDATE record SET data = CAST(replace(data, '\"n\":5', '\"n\":6') AS BLOB) WHERE seq = 5",),
        "altered",
        5,
        1,
    ),
    "a body cut off": (("UPDATE record SET data = substr(data, 1, 9) WHERE seq = 5",), "altered", 5, 1),
    "a chain value": (("UPDATE record SET chain = zeroblob(32) WHERE seq = 5",), "altered", 5, 1),
    "a kind": (("UPDATE record SET kind = 'test.other' WHERE seq = 5",), "altered", 5, 1),
    "the last": (("UPDATE record SET data = x'7b7d' WHERE seq = 12",), "altered", 12, 1),
    "a number": (("UPDATE record SET seq = 20 WHERE seq = 12",), "altered", 12, 1),
    "one overwritten by another": (
        ("UPDATE record SET (data, chain) = (SELECT data, chain FROM record WHERE seq = 2) WHERE seq = 5",),
        "altered",
        5,
        1,
    ),
    "one gone": (("DELETE FROM record WHERE seq = 5",), "removed", 5, 1),
    "the first two gone": (("DELETE FROM record WHERE seq < 3",), "removed", 1, 2),
    "three gone, the gap closed": (
        renumbered("DELETE FROM record WHERE seq IN (5, 6, 7)", 7, -3),
        "removed",
        5,
        3,
    ),
    "a copy between": (renumbered(COPY.format(5, 2), 4, 1), "inserted", 5, 1),
    "a copy at the end": ((COPY.format(13, 3),), "inserted", 13, 1),
    "a copy before the first": ((COPY.format(0, 1),), "inserted", 1, 1),
    "a stranger between": (
        renumbered("INSERT INTO record VALUES (5, 'test.noted', x'7b7d', zeroblob(32))", 4, 1),
        "inserted",
        5,
        1,
    ),
    "two swapped": (
        (
            "UPDATE record SET seq = 99 WHERE seq = 5",
            "UPDATE record SET seq = 5 WHERE seq = 7",
            "UPDATE record SET seq = 7 WHERE seq = 99",
        ),
        "reordered",
        5,
        1,
    ),
    "one moved to the end": (
        (*renumbered("UPDATE record SET seq = 99 WHERE seq = 5", 5, -1), "UPDATE record SET seq = 12 WHERE seq = 99"),
        "reordered",
        5,
        1,
    ),
    "the epoch of the file": (("UPDATE meta SET value = 'ffffffffffffffff' WHERE key = 'epoch'",), "renamed", 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", DONE)
def test_it_says_which_of_the_four_was_done(path: Path, name: str):
    statements, deed, seq, count = DONE[name]
    sql(path, *statements)
    report = look(path)
    assert report.change is not None
    assert (report.change.deed.value, report.change.seq, report.change.count) == (deed, seq, count)
    assert codes(report)[0] == "change"


def test_a_stranger_with_a_right_chain_value_is_named_itself(path: Path):
    """Inserted with its own chain value computed: the chain breaks only behind it."""
    rows = records(path)
    data = canonical({**json.loads(rows[4][2]), "body": {"n": "forged"}})
    chain = next_chain(rows[3][3], data)
    sql(path, *renumbered(f"INSERT INTO record VALUES (5, 'test.noted', x'{data.hex()}', x'{chain.hex()}')", 4, 1))
    change = look(path).change
    assert change is not None
    assert (change.deed.value, change.seq) == ("inserted", 5)


@pytest.mark.parametrize(("touched", "between"), [(2, (1, 4)), (6, (5, 8)), (9, (9, 10))])
def test_a_chain_that_was_computed_again_breaks_at_the_next_checkpoint(
    path: Path, touched: int, between: tuple[int, int]
):
    """With a key of its own the forger could sign again; without the gateway's it cannot."""
    notes = [*kept(path)]

    def alter(fields: list[dict[str, Any]]) -> None:
        fields[touched - 1]["body"]["n"] = "altered"

    forge(path, alter, STRANGER)
    sql(path, "DELETE FROM checkpoint")
    for size, note, cosignatures in notes:
        with opened(path) as connection:
            epoch = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
            connection.execute("INSERT INTO checkpoint VALUES (?, ?, ?, ?)", (epoch, size, note, cosignatures))
    report = look(path)
    assert report.verdict.bad_seq is None, "the chain alone says nothing"
    (problem,) = report.problems
    assert problem.code == "rewritten"
    assert problem.about[:2] == between
    assert (problem.about[2] is not None) == (between[1] == 8), "whether headquarters says so"


def kept(path: Path) -> list[tuple[int, str, str]]:
    with opened(path) as connection:
        return connection.execute("SELECT size, note, cosignatures FROM checkpoint ORDER BY size").fetchall()


# --- checkpoints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "size", "by_witness"), [(9, 10, False), (7, 8, True), (3, 8, True)])
def test_an_end_that_was_removed_shows_at_a_checkpoint(path: Path, left: int, size: int, by_witness: bool):
    sql(path, f"DELETE FROM record WHERE seq > {left}")
    (problem,) = look(path).problems
    assert problem.code == "truncated"
    assert problem.about == (left, size, WITNESSED_S if by_witness else None)


def test_an_end_after_the_last_checkpoint_leaves_no_trace(path: Path):
    """What nobody has signed or seen elsewhere cannot be missed; headquarters may have it."""
    sql(path, "DELETE FROM record WHERE seq > 10")
    assert look(path).is_good


def test_a_note_that_was_kept_elsewhere_shows_what_the_file_forgot(path: Path):
    whole = "".join(kept(path)[1][1:])
    sql(path, "DELETE FROM record WHERE seq > 5", "DELETE FROM checkpoint WHERE size > 4")
    assert look(path, witness_keys=()).is_good
    assert codes(look(path)) == ["unwitnessed"], "headquarters' key is known, so something must be countersigned"
    assert codes(look(path, notes=[whole])) == ["truncated"]


def test_a_checkpoint_that_the_gateway_did_not_sign_is_not_taken(path: Path):
    checkpoint(path, 12, key=STRANGER)
    assert codes(look(path)) == ["signature"]


BAD = {
    "not a note": ("UPDATE checkpoint SET note = 'hello' WHERE size = 10", "note"),
    "another size beside it": ("UPDATE checkpoint SET size = 11 WHERE size = 10", "signature"),
    "an altered root": ("UPDATE checkpoint SET note = replace(note, 'chain ', 'chain A') WHERE size = 10", "note"),
    "an altered epoch": ("UPDATE checkpoint SET note = replace(note, '/gw1/', '/gw2/') WHERE size = 10", "foreign"),
    "an altered time": ("UPDATE checkpoint SET cosignatures = replace(cosignatures, ' ', ' A') WHERE size = 8", "note"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_checkpoint_that_was_touched_is_not_good(path: Path, name: str):
    statement, code = BAD[name]
    sql(path, statement)
    assert codes(look(path))[0] == code


def test_another_cosignature_under_the_witness_name_is_not_good(path: Path):
    """Name and key id of headquarters, made by somebody else."""
    note = sign_note("x\n", "n", KEY)
    line = cosign(note.text, witness_name(WITNESS), WITNESS, 5).line()
    with opened(path) as connection:
        connection.execute("UPDATE checkpoint SET cosignatures = ? WHERE size = 10", (line,))
    assert codes(look(path)) == ["signature"]
    assert isinstance(note, Note)


def test_a_note_of_another_journal_is_said(path: Path):
    origin = origin_of("gw1", "00000000")
    text = Checkpoint(origin=origin, size=1, root=bytes(32), chain=bytes(32)).text()
    assert codes(look(path, notes=[str(sign_note(text, origin, KEY))])) == ["foreign"]


def test_a_stranger_for_a_witness_is_no_witness(path: Path):
    assert codes(look(path, witness_keys=[STRANGER.public_key()])) == ["unwitnessed"]


async def test_a_journal_of_before_there_were_checkpoints(tmp_path: Path):
    file = tmp_path / "journal.db"
    async with Journal(file, "gw1") as journal:
        await journal.append([draft(1)])
    report = examine(file)
    assert report.is_good
    assert (report.checkpoints, report.witnessed_s) == (0, None)


def test_what_is_not_a_journal_is_said(tmp_path: Path):
    with pytest.raises(PermanentError, match="not a journal"):
        examine(tmp_path / "missing.db")


# --- what the gateway says itself, and times ----------------------------------------------------------------------


async def extended(path: Path, *drafts: Draft) -> None:
    async with Journal(path, "gw1") as journal:
        await journal.append(drafts)


async def test_declared_gaps_are_listed(path: Path):
    await extended(
        path,
        draft(20, "history.dropped", why="disk", points=3),
        draft(21),
        draft(22, "journal.restored", predecessor="abcd"),
        draft(23, "clock.stepped", by_s=-3600),
    )
    report = look(path)
    assert report.is_good
    assert [(gap.seq, gap.kind) for gap in report.gaps] == [
        (13, "history.dropped"),
        (15, "journal.restored"),
        (16, "clock.stepped"),
    ]
    assert report.gaps[0].body["why"] == "disk"
    assert report.gaps[0].at == utc_text(AT_MS + 20_000)


async def test_a_time_before_the_witnessed_one_is_named(path: Path):
    await extended(path, draft(-3600, claimed="an hour earlier"), draft(-30), draft(30))
    (late,) = look(path).backdated
    assert (late.seq, late.witnessed, late.witnessed_at) == (13, 8, utc_text(AT_MS + 8_000))


async def test_after_a_declared_step_of_the_clock_earlier_times_are_as_they_should_be(path: Path):
    await extended(path, draft(-3600, "clock.stepped", by_s=-3600), draft(-3500))
    assert look(path).backdated == ()


def test_every_declared_kind_is_explained_in_both_languages():
    assert all(chinese and english for chinese, english in DECLARED.values())


# --- the command -------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


KEYS = ("--gateway-key", public_key_text(KEY), "--witness-key", public_key_text(WITNESS))


def test_the_command_says_what_is_proven_and_what_is_not(path: Path):
    said = run("verify", path, *KEYS, "--lang", "en")
    assert said.exit_code == 0
    assert "headquarters countersigned up to record 8 at 2026-11-18T11:08:20.000Z; the 4 after it" in said.stdout
    assert "no gap was declared" in said.stdout
    assert "keys of the file itself" not in said.stdout
    assert "keys of the file itself" in run("verify", path, "--lang", "en").stdout


SAID: dict[str, tuple[tuple[str, ...], str, str]] = {
    "altered": (DONE["a body"][0], "record 5 was altered (or record 4 together", "第 5 条记录被改动"),
    "removed": (DONE["three gone, the gap closed"][0], "record 5 is missing: 3 removed", "第 5 条记录缺失：3 条被删除"),
    "inserted": (DONE["a copy between"][0], "record 5 does not belong here: 1 inserted", "第 5 条记录是插入的"),
    "reordered": (
        DONE["two swapped"][0],
        "record 5 is not in its place: records were reordered",
        "第 5 条记录不在原位",
    ),
    "truncated": (
        ("DELETE FROM record WHERE seq > 7",),
        "the journal ends at 7, but a checkpoint that headquarters countersigned at 2026-11-18T11:08:20.000Z has 8 rec",
        "留痕到第 7 条为止，但总部于 2026-11-18T11:08:20.000Z 会签的检查点有 8 条",
    ),
}


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("name", SAID)
def test_the_command_names_it_in_both_languages(path: Path, name: str, lang: str):
    statements, english, chinese = SAID[name]
    sql(path, *statements)
    said = run("verify", path, *KEYS, "--lang", lang)
    assert said.exit_code == 1
    assert (english if lang == "en" else chinese) in said.stderr


async def test_the_command_lists_gaps_with_what_they_mean(path: Path):
    await extended(path, draft(20, "history.dropped", why="磁盘"))
    said = run("verify", path, "--lang", "zh")
    assert said.exit_code == 0
    assert '13  2026-11-18T11:07:00.000Z  history.dropped：历史数据被丢弃  {"n": 20, "why": "磁盘"}' in said.stdout


def test_the_command_takes_a_note_that_was_kept_elsewhere(path: Path, tmp_path: Path):
    note = tmp_path / "note.txt"
    note.write_text("".join(kept(path)[1][1:]), "utf-8")
    assert run("verify", path, "--note", note).exit_code == 0
    sql(path, "DELETE FROM record WHERE seq > 5", "DELETE FROM checkpoint WHERE size > 4")
    assert run("verify", path).exit_code == 0
    assert run("verify", path, "--note", note).exit_code == 1


def test_a_key_that_is_none_is_wrong_usage(path: Path):
    said = run("verify", path, "--witness-key", "abc")
    assert said.exit_code == 2
    assert "--witness-key" in said.stderr
