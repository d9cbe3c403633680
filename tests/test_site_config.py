"""site.toml: every mistake is told at once, exactly, and no input is answered with a traceback.

`tests/golden/site/good` is a site without problems. Each `NAME.toml` beside it says what a variant changes in it
(`old` text becomes `new`; without `old` the whole file is `new`; without both it is taken away), `NAME.expected` what
`sitewarden check` then prints.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sitewarden.cli import main
from sitewarden.edge import config, wording
from sitewarden.edge.alert_models import CHANNELS, ChannelTable
from sitewarden.edge.effective import describe
from sitewarden.edge.lines import place
from sitewarden.edge.models import REPEATED, SINGLE, DeviceTable
from sitewarden.edge.reach import _each_has_own
from sitewarden.edge.site import Site, load_site
from sitewarden.errors import ConfigError
from sitewarden.toml_file import number_lines

GOLDEN = Path(__file__).parent / "golden" / "site"
GOOD = GOLDEN / "good"
VARIANTS = sorted(path.stem for path in GOLDEN.glob("*.toml"))
SITE = (GOOD / "site.toml").read_text("utf-8")
PEOPLE = (GOOD / "people.csv").read_text("utf-8")
KEY = r'(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*")'
PATH = re.compile(rf"(?:file|end of file|line \d+|(?:people|site)\.(?:csv|toml)|{KEY}(?:\[\d+\]|\.{KEY})*): \S.*")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The good site in a folder of its own, which is the current one."""
    for name in ("site.toml", "people.csv"):
        shutil.copy(GOOD / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(folder: Path, changes: list[dict[str, str]]) -> None:
    """What a variant says."""
    for each in changes:
        file = folder / each.get("file", "site.toml")
        if "old" in each:
            text = file.read_text("utf-8")
            assert text.count(each["old"]) == 1, f"must stand once in {file.name}: {each['old']}"
            file.write_text(text.replace(each["old"], each["new"]), "utf-8")
        elif "new" in each:
            file.write_text(each["new"], "utf-8")
        else:
            file.unlink()


def apply_variant(folder: Path, name: str) -> str:
    """Break the good site; what `check` must print."""
    change(folder, tomllib.loads((GOLDEN / f"{name}.toml").read_text("utf-8"))["change"])
    return (GOLDEN / f"{name}.expected").read_text("utf-8")


def check(*arguments: str) -> Result:
    """`sitewarden check` in this process."""
    return CliRunner().invoke(main, ["check", *arguments], catch_exceptions=False)


def check_process(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`sitewarden check` as people start it."""
    command = [sys.executable, "-m", "sitewarden", "check", *arguments]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, timeout=60, check=False)


def problems_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_site(path)
    return caught.value.problems


# --- golden variants ---


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_gives_exactly_its_error(folder: Path, name: str):
    expected = apply_variant(folder, name)
    with pytest.raises(ConfigError) as caught:
        load_site(Path("site.toml"))
    assert f"{caught.value}\n" == expected
    result = check("site.toml")
    assert problem_lines(result.stderr) == expected.splitlines()[1:]
    assert (result.exit_code, result.stdout) == (1, "")


def problem_lines(printed: str) -> list[str]:
    """What `sitewarden check` prints between its head and its advice."""
    return [line for line in printed.splitlines() if line.startswith("  ")]


def test_there_are_enough_variants_and_none_is_an_orphan():
    assert len(VARIANTS) >= 30
    assert sorted(path.stem for path in GOLDEN.glob("*.expected")) == VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_each_problem_is_one_line_that_begins_with_its_path_and_tells_no_secret(name: str):
    head, *problems = (GOLDEN / f"{name}.expected").read_text("utf-8").splitlines()
    assert head == f"site.toml: {len(problems)} problem(s)"
    for problem in problems:
        assert PATH.fullmatch(problem.removeprefix("  ")), problem
        assert "hunter2" not in problem
        assert "abc123" not in problem


@pytest.mark.parametrize("name", ["many", "toml_curly_quotes", "people_one_for_both"])
def test_the_process_prints_the_same_and_exits_1(folder: Path, name: str):
    expected = apply_variant(folder, name)
    done = check_process("site.toml", cwd=folder)
    assert problem_lines(done.stderr.decode()) == expected.splitlines()[1:]
    assert (done.returncode, done.stdout) == (1, b"")


def test_good_sites_are_good(folder: Path, root: Path):
    done = check_process("site.toml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == ["site.toml: good: 2 areas, 3 devices, 5 points"]

    shipped = check(str(root / "config" / "site.toml"))
    assert (shipped.exit_code, shipped.stderr) == (0, "")
    good = f"{root / 'config' / 'site.toml'}: good: 5 areas, 6 devices, 11 points"
    assert shipped.stdout.splitlines() == [good], "without a warning: its siren is heard where no phone rings"


SUPPRESS = """
[[suppress]]
id = "off"
alarms = ["store.th1.humidity.high", "store.th1.humidity"]
when = { point = "pit.gas1.ch4", above = 90 }
why = "w"
"""


@pytest.mark.parametrize(
    "changes",
    [
        [('[[area]]\nid = "store"', '[[area]]\nidd = "store"')],  # who lacks an id may be the one that is meant
        [('id = "store"', 'id = "STORE"')],
        [('id = "line"', "id = 7")],
        [('id = "robot"', 'id = "Robot"')],
        [('id = "th1"', 'id = "TH 1"')],
        [('name = "ch4"', 'name = "CH 4"')],
        [("hi = 25\n", 'hi = 25\ndeadbnd = 30\nlo = "5"\n'), ("hihi = 50", "hihi = { limit = 50, deadband = -1 }")],
        [("hi = 75\n", 'hi = 1\ndeadband = "0.5"\n')],  # the default, 2, would be too much
        [("hi = 75\n", 'hi = { limit = 1, deadband = "0.5" }\n')],
        [('serial = "/dev/serial/by-id/usb-1"', "serial = 7")],
        [('kind = "rtu"', 'kind = "RTU"')],
        [('unit_id = 1\nprofile = "rs_ws_n01"', 'unit_id = "1"\nprofile = 7')],
        [("hi = 75\n", "hi = 75\nstale_s = 0.5\n"), ('profile = "rs_ws_n01"', 'profile = "rs_ws_n01"\npoll_s = "0.1"')],
        [('file = "people.csv"', 'file = "people.csv"\nfiles = 1')],
        [
            ('[[alarm]]\npoint = "pit.gas1.ch4"', f'{SUPPRESS}\n[[alarm]]\npoint = "pit.gas1.ch4"'),
            ("hi = 75\n", 'hi = "75"\n'),
        ],
    ],
)
def test_what_is_broken_in_shape_has_no_follow_ups(folder: Path, changes: list[tuple[str, str]]):
    change(folder, [{"old": old, "new": new} for old, new in changes])
    document, shapes = config.read_document(Path("site.toml"))
    told = [problem.partition(" [")[0] for problem in problems_of(Path("site.toml"))]
    wanted = [problem.partition(" [")[0] for problem in shapes]
    if "stale_s" in str(changes):
        wanted = [problem for problem in wanted if "poll_s" in problem]
        assert document.parts["device"][0].broken == {"poll_s"}
    assert sorted(told) == sorted(wanted)


def test_a_line_of_people_tells_its_unknown_areas_beside_everything_else(folder: Path):
    change(folder, [{"file": "people.csv", "old": "wang,王,Wang,officer,*", "new": "Wang,王,Wang,boss,moon sun"}])
    assert [problem.partition(" (got")[0].partition(" be ")[0] for problem in problems_of(Path("site.toml"))] == [
        "people.csv: line 3: id: must",
        "people.csv: line 3: roles: must",
        "people.csv: line 3: areas: must name an [[area]], or *",
        "people.csv: line 3: areas: must name an [[area]], or *",
    ]


def test_a_person_with_an_unknown_area_hides_no_role_that_nobody_has(folder: Path):
    change(folder, [{"file": "people.csv", "old": "keeper,store pit", "new": "worker,stor pit"}])
    area, *roles = problems_of(Path("site.toml"))
    assert area == 'people.csv: line 2: areas: must name an [[area]], or *; did you mean "store"? (got "stor")'
    assert [problem.partition(" for")[0] for problem in roles] == ["people.csv: nobody is keeper"]


# --- what will be used ---


def test_effective_prints_everything_with_defaults_and_units(folder: Path):
    assert check("site.toml", "--effective").stdout == (GOOD / "effective.expected").read_text("utf-8")


def test_effective_prints_every_delay_and_unit_of_the_shipped_site(root: Path):
    site = load_site(root / "config" / "site.toml")
    lines = check(str(site.path), "--effective").stdout.splitlines()
    for rule in site.rules:
        own = [line.removeprefix(f"{rule.id}: ") for line in lines if line.startswith(f"{rule.id}: ")]
        assert len(own) == len(rule.levels)
        for level, line in zip(rule.levels, own, strict=True):
            unit = re.escape(rule.unit)
            limit = {
                "stale": rf"stale after {level.limit:g} s without a reading",
                "quality": rf"quality after {level.on_delay_s:g} s of bad readings, off after {level.off_delay_s:g} s",
                "frozen": rf"frozen after {level.limit:g} s of the same value, off after {level.off_delay_s:g} s",
                "comm_loss": rf"comm_loss after {level.limit:g} s .*, off after {level.off_delay_s:g} s",
            }.get(
                level.kind,
                rf"{level.kind} at {level.limit:g} {unit}, deadband {level.deadband:g} {unit},"
                rf" on after {level.on_delay_s:g} s, off after {level.off_delay_s:g} s",
            )
            assert re.match(rf"{limit}, reopens within {rule.reopen_s:g} s, priority {level.priority}\b", line), line
    text = "\n".join(lines)
    for bus in site.buses:
        assert re.search(rf"^bus {bus.id}: .*timeout {bus.timeout_ms} ms", text, re.MULTILINE)
    for device in site.mqtt_devices:
        assert re.search(rf"^device {device.device}: .*fault after {device.stale_s:g} s", text, re.MULTILINE)


def test_effective_tells_what_is_really_polled(monkeypatch: pytest.MonkeyPatch):
    """Variants, gases, units, currents, a choice of points, a profile of the site: all as they end up on the wire."""
    monkeypatch.chdir(GOLDEN.parent / "effective")
    told = [line for line in describe(load_site(Path("site.toml"))) if "reopens within" not in line]
    assert told == Path("effective.expected").read_text("utf-8").splitlines()


def test_effective_names_each_register_of_each_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(GOLDEN.parent / "effective")
    site = load_site(Path("site.toml"))
    told = list(describe(site))
    for unit in (unit for bus in site.buses for unit in bus.units):
        reads = [line.partition(": reads ")[2] for line in told if line.startswith(f"device {unit.device}: reads FC")]
        named = [name for line in reads for name in line.partition(": ")[2].split(", ")]
        assert sorted(named) == sorted(register.name for register in unit.registers)
    points = [line.split(":")[0].removeprefix("point ") for line in told if line.startswith("point ")]
    mqtt = {f"{device.device}.{point.name}" for device in site.mqtt_devices for point in device.points}
    assert sorted(points) == sorted({meta.point.id for meta in site.points} - mqtt)


def test_a_terminal_that_lacks_a_sign_is_no_crash(folder: Path):
    change(folder, [{"old": 'unit = "%LEL"', "new": 'unit = "mg/m³"'}])
    done = check_process("site.toml", "--effective", cwd=folder, PYTHONIOENCODING="gbk")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"hi at 25 mg/m\\xb3, deadband" in done.stdout


# --- files ---


def test_what_editors_of_windows_write_is_read(folder: Path):
    plain = load_site(Path("site.toml"))
    Path("site.toml").write_bytes(b"\xef\xbb\xbf" + SITE.replace("\n", "\r\n").encode())
    Path("people.csv").write_bytes(b"\xef\xbb\xbf" + PEOPLE.replace("\n", "\r\n").encode())
    windows = load_site(Path("site.toml"))
    assert windows.points == plain.points
    assert windows.people == plain.people


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (SITE.encode("gbk"), "line 4: must be UTF-8 text: save the file as UTF-8 (got byte 0xb9)"),
        (SITE.encode("utf-16"), "line 1: must be UTF-8 text, not UTF-16: save the file as UTF-8"),
        (b"#" * (1 << 20) + b"\n", "file: is no site.toml: it is larger than 1024 KiB"),
        (b"x = " + b"[" * 5000, "file: holds too many lists in one another"),
        (b"x = " + b"9" * 5000, "file: holds a number with too many digits"),
        (b"x = 1\ry = 2\n", "line 1: has more behind the value: one key = value on each line, remarks behind #"),
        (b'a = """open\n', "end of file: comes before the quotes that close a text"),
    ],
)
def test_files_that_are_no_text_or_no_toml(folder: Path, data: bytes, problem: str):
    Path("site.toml").write_bytes(data)
    assert problems_of(Path("site.toml")) == [problem]


def test_no_file_and_a_folder(folder: Path):
    missing = "  file: is missing (a first one: copy config/site.toml and edit it)"
    assert problem_lines(check("none.toml").stderr) == [missing]
    Path("folder.toml").mkdir()
    result = check("folder.toml")
    assert result.exit_code == 1
    assert problem_lines(result.stderr) == ["  file: is a folder: name the file in it, such as site.toml"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            PEOPLE.encode("gbk"),
            "people.csv: must be UTF-8 text: save the file as UTF-8; a spreadsheet calls it CSV UTF-8",
        ),
        (
            PEOPLE.encode() + b"x," + b"y" * 200_000 + b",,keeper,*,\n",
            ("people.csv: line 6: is not CSV: field larger than field limit (131072)"),
        ),
    ],
)
def test_people_files_that_are_no_table(folder: Path, data: bytes, problem: str):
    Path("people.csv").write_bytes(data)
    assert problems_of(Path("site.toml")) == [problem]


def test_a_number_of_thousands_of_digits_is_shown_short(folder: Path):
    change(
        folder,
        [{"old": "port = 8080", "new": "port = 0x" + "f" * 5000}, {"old": "hi = 75", "new": "hi = 0x" + "f" * 5000}],
    )
    port, limit = problems_of(Path("site.toml"))
    assert port.startswith("web.port: must be 1..65535 (got 0xffff")
    assert limit.startswith("alarm[0].hi: must be a number (got 0xffff")
    assert max(len(port), len(limit)) < 160


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", 'mqtt.password_file: file is empty (got "pw") [line 15]'),
        (b"\xff", 'mqtt.password_file: file must be UTF-8 text (got "pw") [line 15]'),
        (None, 'mqtt.password_file: file cannot be read: Is a directory (got "pw") [line 15]'),
    ],
)
def test_password_files_that_hold_none(folder: Path, content: bytes | None, problem: str):
    change(folder, [{"old": "[mqtt]", "new": '[mqtt]\nusername = "gw1"\npassword_file = "pw"'}])
    if content is None:
        Path("pw").mkdir()
    else:
        Path("pw").write_bytes(content)
    assert problems_of(Path("site.toml")) == [problem]


# --- the site ---


def test_the_site_is_what_the_file_says(folder: Path):
    change(
        folder,
        [
            {"old": "[mqtt]", "new": '[mqtt]\nusername = "gw1"\npassword_file = "pw"'},
            {"old": "/dev/serial/by-id/usb-1", "new": "line-1"},
            {"old": 'url = "https://robot.example/send"', "new": 'url_file = "robot"'},
            {"old": 'unit_id = 1\nprofile = "xy_md02"', "new": 'unit_id = 255\nprofile = "xy_md02"\ntimeout_ms = 900'},
        ],
    )
    Path("pw").write_text("hunter2\n")
    Path("robot").write_text("https://robot.example/send?key=abc123\n")
    site = load_site(Path("site.toml"), Path("/data"))
    assert [meta.point.id for meta in site.points] == [
        "store.th1.humidity",
        "store.th1.temperature",
        "store.th2.temperature",
        "store.th2.humidity",
        "pit.gas1.ch4",
    ]
    assert (site.points[0].point.name, site.points[4].point.name_en) == ("库湿度", "Pit methane")
    assert site.points[0].limits == {"lolo": None, "lo": None, "hi": 75.0, "hihi": 85.0}
    assert [(bus.id, bus.serial, [unit.device for unit in bus.units]) for bus in site.buses] == [
        ("line", "/data/line-1", ["store.th1"]),
        ("net", "", ["store.th2"]),
    ]
    assert (site.buses[1].units[0].unit_id, site.buses[1].timeout_s(site.buses[1].units[0])) == (255, 0.9)
    (gas,) = site.mqtt_devices
    assert (gas.device, gas.topic, gas.stale_s, gas.status_ok) == ("pit.gas1", "devices/gas1", 30.0, frozenset({"ok"}))
    assert site.mqtt is not None
    assert site.mqtt_password == "hunter2"
    assert "hunter2" not in repr(site)
    assert site.channels[0].url == "https://robot.example/send?key=abc123"
    assert {rule.revision for rule in site.rules} == {site.revision}
    assert [rule.id for rule in site.rules if rule.area == "pit"] == [
        *(f"pit.gas1.ch4.{side}" for side in ("high", "stale", "quality")),
        "pit.gas1.comm",
    ]


def test_an_area_whose_points_name_their_own_roles_needs_no_others(folder: Path):
    change(
        folder,
        [
            {"old": "hi = 25\n", "new": 'hi = 25\nrequired_acks = ["officer"]\n'},
            {"file": "people.csv", "old": "store pit", "new": "store"},
        ],
    )
    assert load_site(Path("site.toml")).warnings == ()


def test_what_is_just_within_its_bounds_is_good(folder: Path):
    change(
        folder,
        [
            {"old": 'by-id/usb-1"', "new": 'by-id/usb-1"\nlate_max_ms = 500'},
            {"old": "hi = 75\nhihi = { limit = 85, priority = 2 }", "new": "lolo = 0\nhihi = 100\nstale_s = 10"},
            {"old": "hi = 25\nhihi = 50", "new": "lo = 40\nhi = 50\ndeadband = 9.9"},
        ],
    )
    assert load_site(Path("site.toml")).warnings == ()
    Path("site.toml").write_text(SITE + "#" * ((1 << 20) - len(SITE.encode())), "utf-8")
    assert load_site(Path("site.toml")).warnings == ()


def test_only_latching_alarms_need_somebody_to_reset_them(folder: Path):
    change(
        folder,
        [
            {"old": 'required_acks = ["keeper", "officer"]', "new": 'required_acks = ["keeper"]'},
            {"file": "people.csv", "old": "officer,*", "new": "officer,pit"},
        ],
    )
    assert "acknowledged by keeper, shelved" in check("site.toml", "--effective").stdout


def test_the_longest_ids_are_good(folder: Path):
    text = re.sub(r"\bstore\b", "s" * 40, SITE)
    Path("site.toml").write_text(re.sub(r"\bth1\b", "t" * 40, text), "utf-8")
    Path("people.csv").write_text(PEOPLE.replace("store", "s" * 40), "utf-8")
    assert len(load_site(Path("site.toml")).points) == 5


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        (
            "/dev/serial/by-id/usb-1",
            "/dev/ttyUSB0",
            (
                "bus[0].serial: can be another device after the next start: use /dev/serial/by-id/..."
                ' (got "/dev/ttyUSB0") [bus "line", line 44]'
            ),
        ),
        ('bus = "net"\nunit_id = 1', 'bus = "line"\nunit_id = 2', 'bus[1]: no device is on it [bus "net", line 46]'),
        ('[cloud]\nurl = "https://hq.example"\n', "", "cloud: there is no [cloud] table: the gateway works alone"),
        (
            "[web]",
            '[web]\nhost = "0.0.0.0"',
            (
                "web.host: PINs cross the network unencrypted: use 127.0.0.1, and [https] for other machines"
                ' (got "0.0.0.0") [line 11]'
            ),
        ),
        (
            "https://robot.example/send",
            "http://robot.example/send?room=1",
            (
                "channel[0].url: alarms cross the network unencrypted: use https://"
                ' (got "http://robot.example/send?...") [channel "robot", line 29]'
            ),
        ),
        (
            'channels = ["robot", "sms"]',
            'channels = ["sms"]',
            'channel[0]: nobody is told through it: alerts.channels does not name it [channel "robot", line 26]',
        ),
    ],
)
def test_what_works_but_hurts_is_a_warning(folder: Path, old: str, new: str, warning: str):
    change(folder, [{"old": old, "new": new}])
    result = check("site.toml")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"warning: {warning}", result.stdout.splitlines()[-1]]


HEAD = """
[[device]]
id = "head1"
area = "pit"
bus = "net"
unit_id = 7
profile = "sensepoint_xrl"
"""
CURRENTS = """
[[device]]
id = "loops1"
area = "pit"
bus = "net"
unit_id = 9
profile = "n4aib16"

  [[device.channel]]
  input = "ch1"
  name = "level"
  label = "液位"
  label_en = "level"
  unit = "m"
  quantity = "other"
  low = 0
  high = 5

  [[device.channel]]
  input = "ch3"
  name = "propane"
  label = "丙烷"
  label_en = "propane"
  unit = "%LEL"
  quantity = "gas"
  low = 0
  high = 100
"""
UNLIMITED = "has no alarm limits, so no concentration raises an alarm"
ADD = "add an [[alarm]] with hi, or lo for oxygen"


@pytest.mark.parametrize(
    ("more", "place", "point", "what"),
    [
        (HEAD, "device[2]", "pit.head1.lel", f'{ADD} [device "head1", line 97]'),
        (CURRENTS, "device[2].channel[1]", "pit.loops1.propane", f'{ADD} [device "loops1", line 114]'),
        (
            HEAD + '\n[[alarm]]\npoint = "pit.head1.lel"\nstale_s = 60\n',
            "alarm[2]",
            "pit.head1.lel",
            'set hi, or lo for oxygen [alarm "pit.head1.lel", line 104]',
        ),
    ],
)
def test_a_gas_without_limits_is_a_warning(folder: Path, more: str, place: str, point: str, what: str):
    Path("site.toml").write_text(SITE + more, "utf-8")
    assert load_site(Path("site.toml")).warnings == (f"{place}: gas point {point} {UNLIMITED}: {what}",)


@pytest.mark.parametrize("limit", ["lolo = 1", "lo = 2", "hi = 20", "hihi = { limit = 40, priority = 1 }"])
def test_one_limit_of_a_gas_is_enough(folder: Path, limit: str):
    Path("site.toml").write_text(f'{SITE}{HEAD}\n[[alarm]]\npoint = "pit.head1.lel"\n{limit}\n', "utf-8")
    assert load_site(Path("site.toml")).warnings == ()


def test_a_gas_over_mqtt_without_limits_is_a_warning(folder: Path):
    Path("site.toml").write_text(SITE.replace('[[alarm]]\npoint = "pit.gas1.ch4"\nhi = 25\nhihi = 50\n', ""), "utf-8")
    whose = '[mqtt_device "gas1", point "ch4", line 72]'
    warning = f"mqtt_device[0].point[0]: gas point pit.gas1.ch4 {UNLIMITED}: {ADD} {whose}"
    assert load_site(Path("site.toml")).warnings == (warning,)


def test_a_password_in_the_clear_is_a_warning(folder: Path):
    Path("pw").write_text("hunter2")
    broker = '[mqtt]\nusername = "gw1"\npassword_file = "pw"'
    change(folder, [{"old": "[mqtt]", "new": broker}, {"old": "mqtt://127.0.0.1:1883", "new": "mqtt://10.0.0.2"}])
    assert load_site(Path("site.toml")).warnings == (
        'mqtt.url: the password crosses the network unencrypted: use mqtts:// (got "mqtt://10.0.0.2") [line 16]',
    )


def test_a_site_without_devices_is_a_warning(folder: Path):
    text = SITE[: SITE.index("[[bus]]")].replace('"robot", "sms"', '"robot"')
    Path("site.toml").write_text(text, "utf-8")
    assert load_site(Path("site.toml")).warnings == (
        "device: there is no [[device]] and no [[mqtt_device]]: nothing is watched",
    )


@pytest.mark.parametrize(
    ("holders", "possible"),
    [
        ({"keeper": ["a"], "officer": ["a", "b"]}, True),
        ({"keeper": ["a", "b"], "officer": ["a"], "manager": ["a", "b", "c"]}, True),
        ({"keeper": ["a", "b"], "officer": ["a", "b"], "manager": ["b", "a"]}, False),
        ({f"role{i}": [f"p{j}" for j in range(11)] for i in range(12)}, False),
    ],
)
def test_different_persons_for_every_role(holders: dict[str, list[str]], possible: bool):
    assert _each_has_own(holders) is possible


# --- words ---


def test_a_kind_of_error_that_nobody_thought_of_is_still_told():
    item = {"type": "from_the_future", "loc": ("unit_id",), "input": 7, "msg": "Input should be prime"}
    assert wording.say_shape(DeviceTable, "device[0]", {"unit_id": 7}, item) == (
        "device[0].unit_id: is refused: Input should be prime (got 7)"
    )
    for kind in ("string_pattern_mismatch", "literal_error", "string_too_long", "greater_than", "list_type"):
        told = wording.say_shape(ChannelTable, "channel[0]", {"none": 7}, {"type": kind, "loc": ("none",), "input": 7})
        assert told.startswith("channel[0].none: ")
    assert wording.say_toml(tomllib.TOMLDecodeError("New words (at line 7, column 1)")) == (
        "line 7: is not TOML: New words (at line 7, column 1)"
    )


def test_every_shape_that_the_models_can_refuse_has_words(monkeypatch: pytest.MonkeyPatch):
    """No field answers a wrong value with the fallback for unknown kinds."""
    wrong = [None, True, 1, 1.5, -1, 10**9, "", "x" * 600, "A b", "\n", [], {}, [1], {"x": 1}, [{}], float("inf")]
    told: list[str] = []
    for tables in (SINGLE, REPEATED, CHANNELS):
        for name, model in tables.items():
            for field in model.model_fields:
                for value in wrong:
                    config._validate(model, {field: value}, name, told)
    assert len(told) > 500
    assert [problem for problem in told if "is refused" in problem] == []
    assert [problem for problem in told if not PATH.fullmatch(problem)] == []


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("password", True),
        ("api_key", True),
        ("accessToken", False),
        ("access_token", True),
        ("PIN", True),
        ("password_fil", False),
        ("keep_dayz", False),
    ],
)
def test_secret_keys(key: str, secret: bool):
    assert wording._is_secret(key, ["password_file", "keep_days"]) is secret


def test_lines_of_paths():
    text = '''top = 1
[site]
name = """
[web]
port = 1
"""
[[ bus ]] # remark
id = "a"
[[bus]]
  "id" = "b"
[[mqtt_device]]
[[mqtt_device.point]]
name = "x"
[[mqtt_device]]
id = "m"
[[mqtt_device.point]]
[[mqtt_device . point]]
name = "y"
acks = [
  "one",
]
'''
    assert number_lines(text) == {
        "top": 1,
        "site": 2,
        "site.name": 3,
        "bus[0]": 7,
        "bus[0].id": 8,
        "bus[1]": 9,
        "bus[1].id": 10,
        "mqtt_device[0]": 11,
        "mqtt_device[0].point[0]": 12,
        "mqtt_device[0].point[0].name": 13,
        "mqtt_device[1]": 14,
        "mqtt_device[1].id": 15,
        "mqtt_device[1].point[0]": 16,
        "mqtt_device[1].point[1]": 17,
        "mqtt_device[1].point[1].name": 18,
        "mqtt_device[1].point[1].acks": 19,
    }
    problems = ["people.csv: x", "mqtt_device[1].point[1].acks[0]: b", "bus[0].port: a", "cloud: c"]
    assert place(problems, tomllib.loads(text), text, elsewhere="people.csv") == [
        'bus[0].port: a [bus "a", line 7]',
        'mqtt_device[1].point[1].acks[0]: b [mqtt_device "m", point "y", line 19]',
        "people.csv: x",
        "cloud: c",
    ]


# --- anything at all ---

LINES = SITE.splitlines()
VALUES = [line.split("=", 1)[1].strip() for line in LINES if "=" in line]
KEYS = [key for model in (*SINGLE.values(), *REPEATED.values(), *CHANNELS.values()) for key in model.model_fields]
HEADERS = [line for line in LINES if line.strip().startswith("[")] + ["[area]", "[[site]]", "[device.x]", "[x]"]


def toml(value: Any) -> str:
    """A value as TOML; not always good TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {toml(each)}" for key, each in value.items())
            + "}"
        )
    return repr(value)


def simple() -> st.SearchStrategy[Any]:
    words = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
    wide = st.sampled_from([10**30, -(10**400), 0, -1, 1e308, "0x" + "f" * 90, "2026-11-22", "07:00:00", "'''", '"'])
    return st.one_of(st.integers(), st.floats(), st.booleans(), words, wide)


def values() -> st.SearchStrategy[str]:
    nested = st.recursive(
        simple(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=3)
        ),
        max_leaves=6,
    )
    return st.one_of(nested.map(toml), st.sampled_from(VALUES), st.text(max_size=12))


def edits() -> st.SearchStrategy[list[tuple[str, int, str]]]:
    at = st.integers(0, len(LINES) - 1)
    keys = st.sampled_from(KEYS) | st.text(max_size=6)
    return st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["delete", "double", "swap"]), at, st.just("")),
            st.tuples(st.just("value"), at, values()),
            st.tuples(st.just("key"), at, keys),
            st.tuples(st.just("header"), at, st.sampled_from(HEADERS)),
            st.tuples(st.just("add"), at, st.tuples(keys, values()).map(" = ".join)),
        ),
        min_size=1,
        max_size=4,
    )


def mutate(changes: list[tuple[str, int, str]]) -> str:
    lines = list(LINES)
    for what, at, text in changes:
        at %= len(lines)
        key, sign, value = lines[at].partition("=")
        if what == "delete":
            del lines[at]
        elif what == "double":
            lines.insert(at, lines[at])
        elif what == "swap":
            lines[at], lines[at - 1] = lines[at - 1], lines[at]
        elif what == "value" and sign:
            lines[at] = f"{key}= {text}"
        elif what == "key" and sign:
            lines[at] = f"{text} ={value}"
        elif what in ("header", "add"):
            lines.insert(at, text)
    return "\n".join(lines)


def judge(path: Path) -> None:
    """Either a site that can be told, or problems that each begin with a path and fit on one line."""
    try:
        site = load_site(path)
    except ConfigError as error:
        refused = error
    else:
        assert isinstance(site, Site)
        assert list(describe(site))
        return
    assert refused.source == str(path)
    assert refused.problems
    for problem in refused.problems:
        assert PATH.fullmatch(problem), problem
        assert len(problem) < 1500, problem


FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(FUZZ, max_examples=600)
@given(edits())
@example([("value", LINES.index('file = "people.csv"'), '"a\\u0000b"')])
@example([("value", LINES.index("port = 8080"), "0x" + "f" * 5000)])
@example([("value", LINES.index("[[area]]") + 1, "[[]]")])
@example([("value", LINES.index('file = "people.csv"'), '"site.toml"')])
@example([("value", LINES.index('file = "people.csv"'), '"/"')])
@example([("add", LINES.index("[mqtt]") + 1, 'password_file = "' + "x" * 300 + '"')])
@example([("value", LINES.index("  low = 0"), "1"), ("delete", LINES.index("  high = 100"), ""), ("value", 90, "0")])
def test_no_edit_of_a_good_site_crashes(folder: Path, changes: list[tuple[str, int, str]]):
    Path("site.toml").write_bytes(mutate(changes).encode("utf-8", "surrogatepass"))
    judge(Path("site.toml"))


@settings(FUZZ, max_examples=150)
@given(st.integers(0, len(SITE.encode())), st.binary(min_size=1, max_size=4), st.integers(0, 4))
def test_no_bytes_in_site_toml_crash(folder: Path, at: int, new: bytes, cut: int):
    data = SITE.encode()
    Path("site.toml").write_bytes(data[:at] + new + data[at + cut :])
    judge(Path("site.toml"))


@settings(FUZZ, max_examples=150)
@given(
    st.integers(0, len(PEOPLE.encode())), st.one_of(st.binary(max_size=6), st.sampled_from([b'"', b"\r", b",", b"\n"]))
)
def test_no_bytes_in_people_csv_crash(folder: Path, at: int, new: bytes):
    data = PEOPLE.encode()
    Path("people.csv").write_bytes(data[:at] + new + data[at:])
    judge(Path("site.toml"))


def test_the_fuzz_reaches_good_and_broken_sites(folder: Path):
    """Otherwise it would prove nothing."""
    seen = SimpleNamespace(good=0, toml=0, told=0)

    @settings(FUZZ, max_examples=200)
    @given(edits())
    def count(changes: list[tuple[str, int, str]]) -> None:
        Path("site.toml").write_bytes(mutate(changes).encode("utf-8", "surrogatepass"))
        try:
            load_site(Path("site.toml"))
            seen.good += 1
        except ConfigError as error:
            seen.toml += error.problems[0].startswith(("line", "end of file"))
            seen.told += not error.problems[0].startswith(("line", "end of file"))

    count()
    assert min(seen.good, seen.toml, seen.told) >= 10, seen
