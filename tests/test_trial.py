"""`sitewarden replay`: changes of rules as people write them, and what the command prints."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sitewarden.cli import main
from sitewarden.edge.alarms.rules import Level
from sitewarden.edge.rule_changes import changed_site
from sitewarden.edge.site import Site, load_site
from sitewarden.errors import ConfigError
from sitewarden.tests.peers.recording import Gateway

HUMIDITY = "aux_store.th1.humidity"
CH4 = "sewage_pit.gas4.ch4"
STORE = "hazmat_store.th2.humidity"


@pytest.fixture
def site(root: Path) -> Site:
    return load_site(root / "config" / "site.toml")


# --- changes of the rules ---


def level(site: Site, alarm_id: str, kind: str) -> Level:
    (found,) = [one for r in site.rules if r.id == alarm_id for one in r.levels if one.kind == kind]
    return found


def test_a_change_is_laid_over_the_table_of_its_point(site: Site):
    changes = (f"{HUMIDITY}.hi=72.5", f"{HUMIDITY}.hihi.deadband=1", f"{HUMIDITY}.stale_s=600", f"{STORE}.hihi=none")
    changed = changed_site(site, changes)
    high = f"{HUMIDITY}.high"
    assert level(changed, high, "hi").limit == 72.5
    assert (level(changed, high, "hihi").limit, level(changed, high, "hihi").deadband) == (85, 1)
    assert level(changed, high, "hihi").priority == 2, "the rest stays"
    assert level(changed, f"{HUMIDITY}.stale", "stale").limit == 600
    (store,) = [r for r in changed.rules if r.id == f"{STORE}.high"]
    assert [one.kind for one in store.levels] == ["hi"]
    assert level(changed, f"{STORE}.high", "hi") == level(site, f"{STORE}.high", "hi")


def test_a_point_without_a_table_gets_one(site: Site):
    point = "boiler_room.boiler1.pressure"
    bare = changed_site(site, tuple(f"{point}.{key}=none" for key in ("lo", "hi", "hihi")))
    assert not [r for r in bare.rules if r.id == f"{point}.high"]
    changed = changed_site(site, ("hazmat_store.th2.humidity.lo = { limit = 30, priority = 1 }",))
    assert level(changed, "hazmat_store.th2.humidity.low", "lo").priority == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("humidity", "humidity: must be POINT.KEY=VALUE"),
        (f"{HUMIDITY}.hi=", f"{HUMIDITY}.hi: must be POINT.KEY=VALUE"),
        (f"{HUMIDITY}.hi=high", f"{HUMIDITY}.hi: must be a value as in site.toml, or none"),
        (f"{HUMIDITY}=84", f"{HUMIDITY}: must be POINT.KEY=VALUE, as in {HUMIDITY}.hi=75"),
        ("aux_store.th1.humidty.hi=70", f"aux_store.th1.humidty.hi: must begin with a point; did you mean {HUMIDITY}?"),
        (f"{HUMIDITY}.hihi=70", f"{HUMIDITY}.hihi: must be "),
        (f"{HUMIDITY}.on_delay_s=-1", f"{HUMIDITY}.on_delay_s: must be "),
        (f"{HUMIDITY}.hy=70", f"{HUMIDITY}.hy: unknown key"),
    ],
)
def test_a_change_that_site_toml_could_not_have_is_refused(site: Site, change: str, problem: str):
    with pytest.raises(ConfigError) as caught:
        changed_site(site, (change,))
    assert caught.value.source == "--set"
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(problem), caught.value.problems
    assert "line" not in caught.value.problems[0]


# --- the command ---


def run(*arguments: str | Path) -> Result:
    clean = {"LC_ALL": "", "LC_MESSAGES": "", "LANG": "", "STATE_DIRECTORY": "", "COLUMNS": "200"}
    words = [str(argument) for argument in arguments]
    return CliRunner(env=clean).invoke(main, words, catch_exceptions=False, prog_name="sitewarden")


@pytest.fixture
async def plant(tmp_path: Path, site: Site, root: Path) -> Path:
    """A demo's folder: site.toml, and the gateway's stores in `edge`; the humidity was at 78 for ten minutes."""
    shutil.copytree(root / "config" / "profiles", tmp_path / "profiles")
    for name in ("site.toml", "people.csv"):
        (tmp_path / name).write_bytes((root / "config" / name).read_bytes())
    (tmp_path / "edge").mkdir()
    humid = lambda point, at_s: 78.0 if point == HUMIDITY and 600 < at_s < 1200 else 20.0  # noqa: E731
    gateway = Gateway(tmp_path / "edge", site, values=humid)
    async with gateway.on():
        await gateway.run(1500)
    return tmp_path


async def test_the_command_compares_in_both_languages(plant: Path):
    said = run("replay", "--data", plant, "--set", f"{HUMIDITY}.hi=80", "--point", HUMIDITY)
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    (row,) = [line.split() for line in lines if line.startswith(f"{HUMIDITY}.high")]
    assert row[1:] == ["1", "0:10:03", "78", "0", "-", "-"]
    assert "The trial has no alarms." in lines
    said = run("replay", "--data", plant / "edge", "--lang", "zh", "--point", "aux_store.th1")
    assert said.stdout.startswith("阈值试算：2026-11-18 ")
    assert "助剂库" in said.stdout


async def test_csv_and_json_have_every_occurrence(plant: Path, tmp_path: Path):
    said = run("replay", "--data", plant, "--csv", tmp_path / "a.csv", "--json", "--set", f"{HUMIDITY}.hi=70")
    found = json.loads(said.stdout)
    (one,) = [a for a in found["alarms"] if a["id"] == f"{HUMIDITY}.high"]
    assert (one["was"]["times"], one["would"]["times"], one["would"]["worst"]) == (1, 1, 78.0)
    assert one["would"]["per_hour"] == pytest.approx(1 / found["hours"], rel=0.01)
    with (tmp_path / "a.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["was"]) + len(found["would"])
    assert {row["side"] for row in rows} == {"was", "would"}
    assert all(row["start"].endswith("+08:00") for row in rows)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--from", "yesterday"], "--from: yesterday is not a time"),
        (["--last", "7"], "--last: 7 is not a length of time"),
        (["--last", "7d", "--from", "2026-11-22"], "--last and --from cannot be used together"),
    ],
)
async def test_wrong_times_are_wrong_usage(plant: Path, arguments: list[str], problem: str):
    said = run("replay", "--data", plant, *arguments)
    assert (said.exit_code, problem in said.stderr) == (2, True), said.stderr


async def test_refusals_are_one_message(plant: Path, tmp_path: Path):
    said = run("replay", "--data", plant, "--set", f"{HUMIDITY}.hihi=70")
    assert said.exit_code == 1
    assert said.stderr.startswith(f"sitewarden: --set: 1 problem\n  {HUMIDITY}.hihi: must be")
    said = run("replay", "--data", plant, "--point", "aux_store.th9")
    assert (said.exit_code, "aux_store.th9" in said.stderr) == (1, True)
    (tmp_path / "none").mkdir()
    said = run("replay", "--data", tmp_path / "none" / "deeper")
    assert (said.exit_code, "no site.toml was found" in said.stderr) == (1, True)
