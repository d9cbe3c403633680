"""`sitewarden journal rebuild`: the state tables made again from the records, beside those that stand in the file."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sitewarden.cli import main
from sitewarden.edge.state_tables import TABLES
from sitewarden.errors import PermanentError
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.rebuilding import compare
from sitewarden.words import Instant

AT = Instant(utc_ms=1_795_000_000_004, mono_s=12.3, boot="boot-1")


def output(name: str, state: str) -> Draft:
    body = {"output": name, "state": state, "by": "p_li"}
    return Draft(kind="output.written", at=AT, actor="p_li", body=body)


def report(name: str, **more: Any) -> Draft:
    return Draft(kind="deviation.opened", at=AT, actor="gateway", body={"id": name, **more})


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def sql(path: Path, *statements: str) -> list[Any]:
    with opened(path) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A journal with every table of the gateway; two sirens were switched, and a report was opened."""
    file = tmp_path / "journal.db"
    async with Journal(file, "gw1", TABLES) as journal:
        await journal.append([output("store.siren.light", "on"), output("store.siren.sound", "on"), report("d1")])
        await journal.append([output("store.siren.sound", "off")])
        await journal.write(lambda c: c.execute("INSERT INTO mqtt_cursor VALUES (1, 3)").rowcount)
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_every_table_of_the_gateway_is_compared_but_for_those_that_follow_from_nothing(path: Path):
    found = compare(path, TABLES)
    assert all(each.is_equal for each in found), found
    rows = {"output_state": 2, "deviation_report": 1, "blob_case": 1}
    assert {each.table: each.rows for each in found if each.rows} == rows
    expected = {name for table in TABLES for name in table.tables} - {"mqtt_cursor", "mqtt_topic", "alive_last"}
    assert {each.table for each in found} == expected


TOUCHED: dict[str, tuple[str, int, Any, Any]] = {
    "a row altered": ("UPDATE output_state SET seq = 99 WHERE id = 'store.siren.sound'", 1, 99, 4),
    "a row removed": ("DELETE FROM output_state WHERE id = 'store.siren.sound'", 1, None, 4),
    "a row too many": ("INSERT INTO output_state VALUES ('a.b.c', 9, '{}')", 1, 9, None),
    "all": ("UPDATE output_state SET seq = seq + 10", 2, 11, 1),
}


@pytest.mark.parametrize("name", TOUCHED)
def test_the_first_row_that_differs_is_named_as_it_stands_and_as_it_follows(path: Path, name: str):
    statement, many, stands, follows = TOUCHED[name]
    sql(path, statement)
    before = path.read_bytes()
    (found,) = [each for each in compare(path, TABLES) if not each.is_equal]
    assert (found.module, found.table, found.differing) == ("output", "output_state", many)
    assert (found.stands and found.stands["seq"], found.follows and found.follows["seq"]) == (stands, follows)
    assert path.read_bytes() == before


def test_a_table_that_is_gone_or_of_another_shape_is_named(path: Path):
    sql(path, "DROP TABLE output_state", "ALTER TABLE deviation_report ADD COLUMN more TEXT")
    assert {each.table for each in compare(path, TABLES) if each.missing} == {"output_state", "deviation_report"}


async def test_it_works_beside_the_running_gateway_and_on_one_state(path: Path):
    async with Journal(path, "gw1", TABLES) as journal:
        await journal.append([report("d2")])
        assert all(each.is_equal for each in compare(path, TABLES))


def test_a_record_that_cannot_be_applied_is_named(path: Path):
    sql(path, "UPDATE record SET data = CAST(replace(data, '\"output\"', '\"putout\"') AS BLOB) WHERE seq = 2")
    with pytest.raises(PermanentError, match="record 2 cannot be applied: KeyError"):
        compare(path, TABLES)


def test_what_is_not_a_journal_is_said(tmp_path: Path):
    with pytest.raises(PermanentError, match="not a journal"):
        compare(tmp_path / "missing.db", TABLES)


# --- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--compare",)])
def test_all_the_same_is_exit_code_0(path: Path, arguments: tuple[str, ...]):
    said = run("journal", "rebuild", path, *arguments, "--lang", "en")
    assert said.exit_code == 0, said.stderr
    assert "output_state: the same, 2 rows" in said.stdout
    assert "all tables follow" not in said.stdout
    assert f"{path}: all" in said.stdout


def test_a_difference_is_shown_and_nothing_is_changed_without_write(path: Path):
    sql(path, "UPDATE output_state SET seq = 99 WHERE id = 'store.siren.sound'")
    said = run("journal", "rebuild", path, "--lang", "en")
    assert said.exit_code == 1
    assert "output_state: DIFFERS, should have 2 rows, 1 are not the same" in said.stdout
    assert 'in the file: {"id": "store.siren.sound", "seq": 99' in said.stdout
    assert 'from the records: {"id": "store.siren.sound", "seq": 4' in said.stdout
    assert "nothing was changed. Stop the gateway, then use --write" in said.stderr
    chinese = run("journal", "rebuild", path, "--lang", "zh")
    assert "不一致，应有 2 行，1 行不同" in chinese.stdout
    assert "未做任何改动" in chinese.stderr


def test_write_puts_it_right_and_keeps_what_does_not_follow_from_records(path: Path):
    sql(path, "UPDATE output_state SET data = '{}'", "DELETE FROM deviation_report")
    said = run("journal", "rebuild", path, "--write", "--lang", "en")
    assert said.exit_code == 0, said.stderr
    assert "tables of 2 modules were made again" in said.stdout
    assert run("journal", "rebuild", path).exit_code == 0
    assert sql(path, "SELECT seq FROM mqtt_cursor") == [(3,)]


def test_write_refuses_while_the_gateway_runs(path: Path):
    sql(path, "UPDATE output_state SET data = '{}'")
    with (path.parent / "edge.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = run("journal", "rebuild", path, "--write", "--lang", "en")
    assert said.exit_code == 1
    assert "a gateway runs" in said.stderr
    assert sql(path, "SELECT DISTINCT data FROM output_state") == [("{}",)]


def test_write_refuses_a_journal_whose_chain_is_broken(path: Path):
    sql(path, "UPDATE output_state SET data = '{}'", "UPDATE record SET chain = zeroblob(32) WHERE seq = 1")
    said = run("journal", "rebuild", path, "--write", "--lang", "en")
    assert said.exit_code == 1
    assert "the chain is not good" in said.stderr
    assert sql(path, "SELECT DISTINCT data FROM output_state") == [("{}",)]


def test_write_refuses_when_a_table_still_knows_records_that_are_gone(path: Path):
    """Making the tables again would remove the last trace."""
    sql(path, "DELETE FROM record WHERE seq = 4")
    assert run("journal", "rebuild", path, "--write").exit_code == 1
    assert sql(path, "SELECT max(seq) FROM output_state") == [(4,)]


def test_compare_and_write_together_make_no_sense(path: Path):
    assert run("journal", "rebuild", path, "--compare", "--write").exit_code == 2
