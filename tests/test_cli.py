"""What the commands say: `check`, `verify`, `pin set`."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sitewarden.cli import main
from sitewarden.serving.secrets import Secrets
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import Instant

PEOPLE = "id,name,name_en,roles,areas,phone\np_li,李伟,Li Wei,keeper,*,\n"


def run(*arguments: str | Path, given: str = "") -> Result:
    """The command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=given, catch_exceptions=False)


# --- check ---


def test_one_is_not_said_as_many(tmp_path: Path):
    site = """
        [site]
        id = "plant"
        name = "厂"
        name_en = "Plant"
        [gateway]
        id = "gw1"
        [[area]]
        id = "store"
        name = "库"
        name_en = "Store"
        [[bus]]
        id = "net"
        kind = "tcp"
        host = "192.168.1.10"
        port = 502
        [[device]]
        id = "p1"
        area = "store"
        bus = "net"
        unit_id = 1
        profile = "pressure_f32"
    """
    (tmp_path / "site.toml").write_text(site, "utf-8")
    (tmp_path / "people.csv").write_text(PEOPLE + "p_wang,王芳,,officer,*,\n", "utf-8")
    said = run("check", tmp_path / "site.toml")
    assert said.stdout.splitlines()[-1] == f"{tmp_path / 'site.toml'}: good: 1 area, 1 device, 1 point"
    (tmp_path / "cloud.toml").write_text(
        '[cloud]\nname = "总部"\nname_en = "HQ"\n[[gateway]]\nid = "gw1"\nname = "一"\nname_en = "One"\n', "utf-8"
    )
    said = run("check", tmp_path / "cloud.toml")
    assert said.stdout == f"{tmp_path / 'cloud.toml'}: good: 1 gateway, 2 people\n", said.stderr


def test_people_csv_is_not_what_is_checked(root: Path):
    said = run("check", root / "config" / "people.csv")
    assert said.exit_code == 1
    assert said.stderr.endswith("\n  file: is checked with the site.toml or cloud.toml that names it: name that\n")


# --- verify ---


@pytest.fixture
async def journal(tmp_path: Path) -> Path:
    """A journal of three records that a table beside them knows."""
    path = tmp_path / "journal.db"
    at = Instant(utc_ms=1_795_000_000_004, mono_s=12.3, boot="boot-1")
    async with Journal(path, "gw1") as opened:
        await opened.append([Draft(kind="test.noted", at=at, actor="gateway", body={"n": n}) for n in range(3)])
    change(path, "CREATE TABLE mqtt_cursor (id INTEGER, seq INTEGER)", "INSERT INTO mqtt_cursor VALUES (1, 3)")
    return path


def change(path: Path, *statements: str) -> None:
    """Run statements as somebody with the file could."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_whole_journal_is_good(journal: Path):
    said = run("verify", journal)
    assert said.exit_code == 0
    assert f"{journal}: good: 3 records of gateway gw1" in said.stdout


@pytest.mark.parametrize(("left", "before"), [(1, "1 record before it good"), (0, "0 records before it good")])
def test_a_journal_without_its_end_is_not_good(journal: Path, left: int, before: str):
    change(journal, f"DELETE FROM record WHERE seq > {left}")
    said = run("verify", journal)
    assert said.exit_code == 1
    problem = f"record 3 is missing: the journal ends at {left}, but table mqtt_cursor knows record 3"
    problem = f"the end is missing after record {left}: {problem}"
    assert f"{journal}: NOT GOOD: {problem} ({before})\n" in said.stderr
    assert "good:" not in said.stdout


def test_a_journal_without_records_is_not_called_good(journal: Path):
    change(journal, "DELETE FROM record", "DELETE FROM mqtt_cursor")
    said = run("verify", journal)
    assert said.exit_code == 1
    assert f"{journal}: no records of gateway gw1" in said.stderr
    assert "good" not in said.output


def test_help_says_what_only_headquarters_can_tell():
    assert "show only at headquarters" in " ".join(run("verify", "--help").stdout.split())


# --- pin set ---


def test_a_folder_that_does_not_exist_is_never_made(tmp_path: Path):
    secrets = tmp_path / "sitewardn" / "secrets.db"
    said = run("pin", "set", "p_li", "--secrets", secrets, "--pin-stdin", given="2468\n")
    assert said.exit_code == 1
    assert said.stderr == (
        f"sitewarden: {secrets.parent}: there is no such folder"
        " (the daemon or `sitewarden key` makes it; check the path)\n"
    )
    assert not secrets.parent.exists()


def test_a_person_whom_the_file_does_not_name_gets_no_pin(tmp_path: Path):
    people, secrets = tmp_path / "people.csv", tmp_path / "secrets.db"
    people.write_text(PEOPLE, "utf-8")
    options = ("--secrets", secrets, "--people", people, "--pin-stdin")
    said = run("pin", "set", "p_lee", *options, given="2468\n")
    assert said.exit_code == 1
    assert said.stderr == f"sitewarden: {people}: nobody has the id 'p_lee'; did you mean \"p_li\"? (no PIN was set)\n"
    assert not secrets.exists()


@pytest.mark.parametrize("with_people", [True, False])
async def test_a_pin_that_was_set_lets_its_person_in(tmp_path: Path, with_people: bool):
    people, secrets = tmp_path / "people.csv", tmp_path / "secrets.db"
    people.write_text(PEOPLE, "utf-8")
    more = ("--people", people) if with_people else ()
    said = run("pin", "set", "p_li", "--secrets", secrets, *more, "--pin-stdin", given="2468\n")
    assert (said.exit_code, said.stdout) == (0, "PIN of p_li set\n")
    store = Secrets(secrets)
    try:
        _, session = await store.sign_in("p_li", "2468", "127.0.0.1")
    finally:
        store.close()
    assert session.person == "p_li"
