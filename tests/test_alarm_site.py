"""From site.toml to rules: every key of `[[alarm]]` and `[[suppress]]`, and how `check --effective` tells it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sitewarden.edge.alarms.overlay import SHELVE_LIFE_SAFETY_S
from sitewarden.edge.alarms.rules import Rule
from sitewarden.edge.alarms.suppression import Suppression
from sitewarden.edge.effective import describe
from sitewarden.edge.reload import diff
from sitewarden.edge.site import Site, load_site

GOOD = Path(__file__).parent / "golden" / "site" / "good"
TABLES = """
[[mqtt_device]]
id = "fan1"
area = "pit"
topic = "devices/fan1"

  [[mqtt_device.point]]
  name = "state"
  label = "风机"
  label_en = "fan"
  path = "state"
  unit = ""
  quantity = "other"

  [[mqtt_device.point]]
  name = "command"
  label = "风机指令"
  label_en = "fan command"
  path = "command"
  unit = ""
  quantity = "other"

  [[mqtt_device.point]]
  name = "h2s"
  label = "硫化氢"
  label_en = "hydrogen sulphide"
  path = "h2s"
  unit = "ppm"
  quantity = "gas"

[[alarm]]
point = "pit.fan1.state"
discrepancy = { ref = "pit.fan1.command", after_s = 5, inverted = true }
discrete = { on = [3, 4], priority = 1, on_delay_s = 2 }

[[alarm]]
point = "pit.fan1.h2s"
preset = "gb50493"
gas = "H2S"
first_out_group = "pit"

[[alarm]]
point = "pit.fan1"
comm_loss = 12
required_acks = ["officer"]

[[alarm]]
point = "store.th1.temperature"
roc = { limit = 2, direction = "rising", period_s = 30 }
deviation = { ref = "store.th2.temperature", limit = 4, direction = "above", deadband = 1 }
frozen_s = 600
repeat_s = 60
realarm_s = 0
shelve_max_s = 900

[[suppress]]
id = "fan_off"
alarms = ["store.th1.temperature", "store.th1.humidity.high", "store.th1.comm"]
when = { point = "pit.fan1.state", is = 0 }
why = "风机停"
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("site.toml", "people.csv"):
        shutil.copy(GOOD / name, tmp_path)
    with (tmp_path / "site.toml").open("a", encoding="utf-8") as file:
        file.write(TABLES)
    return load_site(tmp_path / "site.toml")


def rules(site: Site) -> dict[str, Rule]:
    return {rule.id: rule for rule in site.rules}


def test_effective_tells_every_kind_with_its_delays_and_units(site: Site):
    told = {line.partition(": ")[0]: line.partition(": ")[2].partition(", reopens")[0] for line in describe(site)}
    wanted = {
        "store.th1.temperature.roc": "roc at 2 °C/min, deadband 0.2 °C/min rising over 30 s with at least 3 readings,"
        " on after 0 s, off after 60 s",
        "store.th1.temperature.deviation": "deviation from store.th2.temperature above it at 4 °C, deadband 1 °C,"
        " on after 60 s, off after 60 s",
        "store.th1.temperature.frozen": "frozen after 600 s of the same value, off after 0 s",
        "pit.fan1.state.discrete": "discrete at 3, 4, on after 2 s, off after 0 s",
        "pit.fan1.state.discrepancy": "discrepancy from the opposite of pit.fan1.command, tolerance 0,"
        " on after 5 s, off after 0 s",
        "pit.fan1.comm": "comm_loss after 12 s in which no point could be reached, off after 0 s",
    }
    assert {name: told[name] for name in wanted} == wanted


def test_effective_tells_how_often_for_how_long_and_what_is_suppressed(site: Site):
    told = list(describe(site))
    (roc,) = [line for line in told if line.startswith("store.th1.temperature.roc: ")]
    assert roc.endswith("different persons, told again every 60 s until then, shelved for at most 900 s")
    gas = [line for line in told if line.startswith("pit.fan1.h2s.high: ")]
    assert all(
        f"life safety, first-out group pit, shelved for at most {SHELVE_LIFE_SAFETY_S:g} s" in one for one in gas
    )
    assert told[-1] == (
        "suppress fan_off: while pit.fan1.state is 0 nobody is told of store.th1.humidity.high,"
        " store.th1.temperature.roc, store.th1.temperature.deviation, store.th1.comm: 风机停"
    )


def test_a_preset_is_in_the_rules_and_on_the_pages(site: Site):
    high = rules(site)["pit.fan1.h2s.high"]
    assert [(level.limit, level.priority, level.latching) for level in high.levels] == [
        (7.05, 2, False),
        (14.1, 1, True),
    ]
    assert high.life_safety
    (meta,) = [meta for meta in site.points if meta.point.id == "pit.fan1.h2s"]
    assert (meta.limits["hi"], meta.limits["hihi"]) == (7.05, 14.1)


def test_a_suppression_by_point_is_for_alarms_about_the_plant(site: Site):
    one = Suppression(id="fan_off", point="pit.fan1.state", why="风机停", equals=0.0)
    assert {name for name, rule in rules(site).items() if rule.suppressions == (one,)} == {
        "store.th1.humidity.high",
        "store.th1.temperature.roc",
        "store.th1.temperature.deviation",
        "store.th1.comm",
    }


def test_a_device_is_acknowledged_as_its_table_says_or_as_its_points(site: Site, tmp_path: Path):
    assert rules(site)["pit.fan1.comm"].required_acks == ("officer",)
    text = (tmp_path / "site.toml").read_text("utf-8")
    own = text.replace('point = "pit.gas1.ch4"', 'point = "pit.gas1.ch4"\nrequired_acks = ["keeper"]')
    (tmp_path / "site.toml").write_text(own, "utf-8")
    assert rules(load_site(tmp_path / "site.toml"))["pit.gas1.comm"].required_acks == ("keeper",)


def test_a_reload_says_what_changed_in_words(site: Site, tmp_path: Path):
    text = (tmp_path / "site.toml").read_text("utf-8")
    other = text.replace("limit = 2, direction", "limit = 3, direction").replace("is = 0", "below = 1")
    (tmp_path / "site.toml").write_text(other, "utf-8")
    lines = diff(site, load_site(tmp_path / "site.toml")).lines
    assert any(line.startswith("alarm store.th1.temperature: roc {limit = 2, ") for line in lines), lines
    assert any(line.startswith("suppress fan_off: when {") for line in lines), lines
