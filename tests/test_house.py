"""The house holds together: names, packages, locks, units, and documents that say what the code does."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import sitewarden
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sitewarden.cli import main
from sitewarden.cloud import config as cloud_config
from sitewarden.edge import alert_models, models
from sitewarden.edge.alarms.defaults import BY_QUANTITY, QUALITY_DELAY_S
from sitewarden.edge.alarms.machine import (
    Ack,
    Acknowledge,
    Alarm,
    Change,
    Event,
    Off,
    On,
    Realarm,
    Reason,
    Reset,
    State,
    step,
)
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.errors import RefusedError
from sitewarden.serving.people import COLUMNS, OPTIONAL_COLUMNS, ROLES
from sitewarden.words import Instant

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS: dict[str, Any] = PROJECT["tool"]["setuptools"]
NO_PACKAGES = {"tests", "benchmarks", "docs", "web", "build", "dist", "var", "systemd"}
IN_CI = os.environ.get("CI") == "true"


def _run(*command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


# --- names and packages ---------------------------------------------------------------------------------------------

WHICH_NFC = "import nfc, nfc.clf; print(nfc.__file__)"


def _is_nfcpy(file: str | None) -> bool:
    return file is not None and not Path(file).resolve().is_relative_to(ROOT / "nfc") and "site-packages" in file


def test_nfc_is_nfcpy_here() -> None:
    import nfc

    assert _is_nfcpy(nfc.__file__)


@pytest.mark.parametrize(
    "runner", [("-m", "pytest"), ("-c", "import sys, pytest; sys.path.remove(''); sys.exit(pytest.main(sys.argv[1:]))")]
)
def test_nfc_is_nfcpy_under_pytest(runner: tuple[str, ...], tmp_path: Path) -> None:
    """`python -m pytest` puts the root before everything else; plain `pytest` does not."""
    probe = tmp_path / "test_probe.py"
    probe.write_text(f"def test_it():\n    {WHICH_NFC.replace('; ', chr(10) + '    ')}\n", "utf-8")
    said = _run(
        sys.executable, *runner, "-q", "-s", "-p", "no:cacheprovider", "--rootdir", str(ROOT), str(probe)
    ).stdout
    assert any(_is_nfcpy(line) for line in said.splitlines()), said


def test_nfc_is_nfcpy_under_python_c() -> None:
    assert _is_nfcpy(_run(sys.executable, "-c", WHICH_NFC).stdout.strip())


def test_nfc_folder_stays_without_init() -> None:
    assert (ROOT / "nfc" / "README.md").is_file()
    assert not (ROOT / "nfc" / "__init__.py").exists()


@pytest.mark.parametrize("module", ["sitewarden.edge.app", "sitewarden.cloud.app", "sitewarden.cli"])
def test_daemons_load_no_heavy_library(module: str) -> None:
    heavy = ["tflite_runtime", "ai_edge_litert", "cv2", "numpy", "nfc", "usb1", "amqtt", "boto3", "asyncpg"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert _run(sys.executable, "-c", code).stdout.strip() == "[]"


def test_importing_the_daemon_can_show_a_heavy_library() -> None:
    """The check above sees what it looks for."""
    code = "import sys, sitewarden.edge.app, nfc; print('nfc' in sys.modules)"
    assert _run(sys.executable, "-c", code).stdout.strip() == "True"


def _folders(suffixes: set[str]) -> Iterable[Path]:
    """Folders of the packages that hold such files, and the files."""
    for folder, inner, files in os.walk(ROOT):
        at = Path(folder)
        inner[:] = [name for name in inner if not name.startswith((".", "__")) and not name.endswith(".egg-info")]
        if at == ROOT:
            inner[:] = [name for name in inner if name not in NO_PACKAGES]
        for name in files:
            if Path(name).suffix in suffixes:
                yield at / name


def test_every_package_is_listed() -> None:
    found = {file.parent.relative_to(ROOT) for file in _folders({".py"})}
    names = {".".join(("sitewarden", *folder.parts)) for folder in found}
    listed = set(SETUPTOOLS["packages"])
    assert names <= listed, "pyproject.toml does not list these packages: they would not be installed"
    assert listed - names <= {"sitewarden.nfc"}, "pyproject.toml lists packages without a module: a clone lacks them"
    for name in listed:
        assert ROOT.joinpath(*name.split(".")[1:]).is_dir()


def test_every_data_file_is_shipped() -> None:
    shipped: set[Path] = set()
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            found = {path for path in folder.glob(pattern) if path.is_file()}
            assert found or pattern.startswith("web/dist"), f"{package}: nothing fits {pattern}"
            shipped |= found
    wanted = {file for file in _folders({".toml", ".csv", ".html", ".json", ".sql", ".typed"}) if file.parent != ROOT}
    assert wanted
    assert not wanted - shipped
    assert {ROOT / "py.typed", ROOT / "config" / "site.toml", ROOT / "config" / "people.csv"} <= shipped
    assert any(file.parent.name == "catalogue" for file in shipped)


def test_versions_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == sitewarden.__version__
    assert importlib.metadata.version("sitewarden") == sitewarden.__version__, "make setup installs the new version"
    assert sitewarden.__version__ in _run(sys.executable, "-m", "sitewarden", "--version").stdout


LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-cloud.lock", "requirements-vision.lock")


@pytest.mark.parametrize("name", LOCKS)
def test_locks_are_exact_and_hold_no_address(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert not re.findall(r"\w+://|--(?:extra-)?index-url|--find-links|--trusted-host|^-e|@ ", text, re.MULTILINE)
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_lock_has_every_dependency() -> None:
    locked = {
        line.split("==")[0] for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines() if "==" in line
    }
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.split(r"[^a-z0-9-]", requirement)[0] in locked, f"{requirement}: run make lock"


def test_npm_lock_holds_no_address() -> None:
    assert '"resolved"' not in (ROOT / "web" / "package-lock.json").read_text("utf-8")


# --- systemd --------------------------------------------------------------------------------------------------------

SYSTEMD = ROOT / "systemd"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not IN_CI, reason="systemd-analyze is missing: apt install systemd"
)


def _unit(folder: Path, name: str, text: str) -> Path:
    """The unit with a program that exists, as `systemd-analyze verify` wants it."""
    program = folder / "sitewarden"
    program.write_text("#!/bin/sh\n", "utf-8")
    program.chmod(0o755)
    unit = folder / name
    unit.write_text(text.replace("/opt/sitewarden/bin/sitewarden", str(program)), "utf-8")
    return unit


@needs_systemd
@pytest.mark.parametrize("drop_ins", [False, True])
@pytest.mark.parametrize("name", ["sitewarden-edge.service", "sitewarden-cloud.service"])
def test_systemd_accepts_the_units(name: str, drop_ins: bool, tmp_path: Path) -> None:
    unit = _unit(tmp_path, name, (SYSTEMD / name).read_text("utf-8"))
    if drop_ins:
        shutil.copytree(SYSTEMD / "edge.service.d", tmp_path / "sitewarden-edge.service.d")
    said = _run("systemd-analyze", "verify", "--man=no", str(unit), check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@needs_systemd
def test_systemd_refuses_a_broken_unit(tmp_path: Path) -> None:
    """The check above can fail."""
    name = "sitewarden-edge.service"
    text = (SYSTEMD / name).read_text("utf-8").replace("ProtectHome=yes", "ProtectHomes=yes")
    said = _run("systemd-analyze", "verify", "--man=no", str(_unit(tmp_path, name, text)), check=False)
    assert "ProtectHomes" in said.stderr


@needs_systemd
@pytest.mark.parametrize("name", ["sitewarden-edge.service", "sitewarden-cloud.service"])
def test_units_are_hardened(name: str, tmp_path: Path) -> None:
    unit = _unit(tmp_path, name, (SYSTEMD / name).read_text("utf-8"))
    said = _run("systemd-analyze", "security", "--offline=yes", "--threshold=25", "--no-pager", str(unit), check=False)
    assert said.returncode == 0, said.stdout[-2000:]


def test_units_call_commands_that_exist() -> None:
    for file in SYSTEMD.glob("*.service"):
        text = file.read_text("utf-8")
        start = re.search(r"^ExecStart=\S+ (\w+) --config", text, re.MULTILINE)
        assert start is not None
        assert start[1] in main.commands
        for line in ("Type=notify", "WatchdogSec=30", "Restart=always", "NoNewPrivileges=yes"):
            assert f"\n{line}\n" in text


def test_installer_says_what_it_would_do() -> None:
    done = _run("bash", str(SYSTEMD / "install.sh"), "both", "--dry-run")
    for name in (
        "sitewarden-edge.service",
        "sitewarden-cloud.service",
        "60-sitewarden.rules",
        "requirements.lock",
        "stack_light.toml",
    ):
        assert name in done.stdout
    assert not Path("/etc/systemd/system/sitewarden-edge.service").exists() or "kept" in done.stdout


def test_installer_refuses_what_it_cannot_do() -> None:
    wrong = _run("bash", str(SYSTEMD / "install.sh"), "--nope", check=False)
    assert wrong.returncode == 1
    assert "unknown argument: --nope" in wrong.stderr
    script = (SYSTEMD / "install.sh").read_text("utf-8")  # by standard input: another user may not read this folder
    done = subprocess.run(
        ["bash", "-s"],
        input=script,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=65534 if os.geteuid() == 0 else None,
    )
    assert done.returncode == 1
    assert "must run as root" in done.stderr


# --- documents ------------------------------------------------------------------------------------------------------


def _sections(file: str) -> dict[str, str]:
    """Headings of levels 2 and 3 and what stands under each."""
    parts = re.split(r"^###? (.+)$", (ROOT / "docs" / file).read_text("utf-8"), flags=re.MULTILINE)
    return {name.strip("` "): text for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _rows(text: str) -> list[list[str]]:
    """Cells of the Markdown tables in `text`, without their header rows."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    rules = [i for i, row in enumerate(cells) if set("".join(row)) <= set("-: ")]
    return [row for i, row in enumerate(cells) if i not in rules and i + 1 not in rules]


def _commands(group: click.Group, prefix: str) -> Iterable[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix} {name}")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{prefix} {name}", command


def _parameter(parameter: click.Parameter) -> str:
    name = parameter.name or ""
    return name.upper() if isinstance(parameter, click.Argument) else max(parameter.opts, key=len)


def test_cli_document_names_every_command_and_option() -> None:
    sections = _sections("cli.md")
    code = {name: {_parameter(p) for p in command.params} for name, command in _commands(main, "sitewarden")}
    code["sitewarden"] = {_parameter(p) for p in main.params}
    documented = {
        name: {match[0] for row in _rows(text) if (match := re.search(r"--[a-z-]+|[A-Z]+", row[0]))}
        for name, text in sections.items()
        if name.startswith("sitewarden")
    }
    documented["sitewarden"] -= {"--help"}
    assert documented == code


def _range(schema: Mapping[str, Any]) -> str:
    """What a value may be, as docs/configuration.md writes it."""
    if "anyOf" in schema:
        return " or ".join(_range(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "$ref" in schema:
        return "number or table" if schema["$ref"].rpartition("/")[2] in FROM_NUMBER else "table"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_range(schema['items'])}"
    if schema.get("type") == "boolean":
        return "true, false"
    if schema.get("type") in ("integer", "number"):
        return _number_range(schema)
    return "name" if schema.get("pattern") == models.NAME else "text"


FROM_NUMBER = ("LevelTable", "RocTable", "CommLossTable")
"""A bare number is their limit."""


def _number_range(schema: Mapping[str, Any]) -> str:
    low, high, above = (schema.get(key) for key in ("minimum", "maximum", "exclusiveMinimum"))
    if above is not None:
        return f"more than {above:g}" + (f", at most {high:g}" if high is not None else "")
    if low is not None and high is not None:
        return f"{low:.10g}..{high:.10g}"
    if low is not None:
        return f"{low:g} or more"
    return "number"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    match value:
        case None:
            return "–"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return f"{value:g}"


def expected_rows(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    """(key, default, range) of every key of a table, in order; nested tables have sections of their own."""
    schema = model.model_json_schema()
    properties = {name: part for name, part in schema["properties"].items() if "$ref" not in part.get("items", {})}
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return [(f"`{name}`", _default(fields[name]), _range(part)) for name, part in properties.items()]


TABLES: dict[str, type[BaseModel]] = {
    **{f"[{name}]": model for name, model in models.SINGLE.items()},
    **{f"[[{name}]]": model for name, model in models.REPEATED.items()},
    "[[device.channel]]": models.DeviceChannelTable,
    "[[mqtt_device.point]]": models.MqttPointTable,
    "A limit as a table": models.LevelTable,
    **{f'[[channel]] of kind "{kind}"': model for kind, model in alert_models.CHANNELS.items() if kind != "lark"},
    "[[ladder.steps]]": alert_models.LadderStepTable,
    "Rate of change: roc": models.RocTable,
    "Deviation: deviation": models.DeviationTable,
    "States: discrete": models.DiscreteTable,
    "Discrepancy: discrepancy": models.DiscrepancyTable,
    "A device that cannot be reached: comm_loss": models.CommLossTable,
    "When alarms are suppressed: when": models.WhenTable,
    "cloud.toml [cloud]": cloud_config.CloudTable,
    "cloud.toml [store]": cloud_config.StoreTable,
    "cloud.toml [blobs]": cloud_config.BlobsTable,
    "cloud.toml [[gateway]]": cloud_config.GatewayTable,
}


@pytest.mark.parametrize("heading", TABLES)
def test_configuration_document_names_every_key(heading: str) -> None:
    sections = _sections("configuration.md")
    assert heading in sections
    rows = _rows(sections[heading])
    assert all(len(row) == 5 and all(row) for row in rows), "key, unit, default, range, meaning"
    assert [(row[0], row[2], row[3]) for row in rows] == expected_rows(TABLES[heading])


def test_configuration_document_has_no_other_table() -> None:
    tables = {name for name in _sections("configuration.md") if "[" in name}
    assert tables == {name for name in TABLES if "[" in name}


def test_configuration_document_names_columns_and_roles_of_people() -> None:
    section = _sections("configuration.md")["people.csv"]
    assert [row[0] for row in _rows(section)] == [f"`{name}`" for name in (*COLUMNS, *OPTIONAL_COLUMNS)]
    for role in ROLES:
        assert f"`{role}`" in section


NOW = Instant(utc_ms=1_000_000_000_000, mono_s=1000.0, boot="b")
LEVELS = {kind: Level(kind=kind, limit=1.0, priority=2) for kind in (Kind.HI, Kind.HIHI)}
RULE = Rule(
    id="a.b.c.high",
    point="a.b.c",
    area="a",
    side=Side.HIGH,
    name="n",
    name_en="n",
    unit="",
    levels=tuple(LEVELS.values()),
)
KEEPER = Ack(role="keeper", person="li", at=NOW)
ON = (State.UNACK, State.ACKED)


def _alarm(state: State, **fields: Any) -> Alarm:
    if state is State.NORM:
        return Alarm(id=RULE.id)
    both = (KEEPER, Ack(role="officer", person="wang", at=NOW))
    given: dict[str, Any] = {
        "kind": Kind.HI,
        "active": Kind.HI if state in ON else None,
        "occurrence": 7,
        "count": 1,
        "raised_at": NOW,
        "returned_at": None if state in ON else NOW,
        "required_acks": RULE.required_acks,
        "acks": both if state in (State.ACKED, State.LATA) else (KEEPER,),
        "latched": state in (State.LATU, State.LATA),
    }
    return Alarm(id=RULE.id, state=state, **{**given, **fields})


def _cell(alarm: Alarm, event: Event, now: Instant = NOW) -> str:
    try:
        steps = step(RULE, alarm, event, now, 8)
    except RefusedError as refused:
        return f"refused: {refused.reason}"
    return ", ".join(f"{one.change} → {one.alarm.state}" for one in steps) or "–"


def alarm_row(state: State) -> list[str]:
    """The cells of table A for one state: what `step` does."""
    on, worse = On(level=LEVELS[Kind.HI]), On(level=LEVELS[Kind.HIHI])
    late = Instant(utc_ms=NOW.utc_ms, mono_s=NOW.mono_s + RULE.reopen_s + 1, boot="b")
    plain = _alarm(state)
    is_on = state in ON
    occurrence = plain.occurrence
    return [
        "" if is_on else _cell(plain, on),
        "" if is_on or state is State.NORM else _cell(plain, on, late),
        _cell(plain, worse) if is_on else "",
        _cell(_alarm(state, kind=Kind.HIHI, active=Kind.HIHI), on) if is_on else "",
        _cell(plain, Off()) if is_on else "",
        _cell(_alarm(state, latched=True), Off()) if is_on else "",
        _cell(plain, Acknowledge(occurrence=occurrence, role="officer", person="wang")),
        _cell(plain, Reset(occurrence=occurrence, person="wang", quality_good=True)),
        _cell(plain, Realarm()),
    ]


def test_alarm_document_table_a_is_the_machine() -> None:
    section = _sections("alarms.md")["A. States and events"]
    documented = {row[0]: [cell.replace("`", "") for cell in row[1:]] for row in _rows(section)}
    assert documented == {f"`{state}`": alarm_row(state) for state in State}


def test_alarm_document_names_every_word_of_the_records() -> None:
    rows = _rows(_sections("alarms.md")["Words of the records"])
    words = [word for row in rows for word in re.findall(r"`(\w+)`", row[0])]
    assert sorted(words) == sorted(Change)
    assert {reason for row in rows for reason in re.findall(r"`(\w+)`", row[2])} == set(Reason)


def default_row(name: str) -> list[str]:
    """The cells of table B for one quantity."""
    one = BY_QUANTITY[name]
    deadband = f"{one.deadband_share:.0%} of the limit" if one.deadband is None else f"{one.deadband:g}"
    return [
        deadband,
        f"{one.on_delay_s:g}",
        f"{one.off_delay_s:g}",
        f"{one.stale_s:g}",
        str(one.priority),
        str(one.priority_severe),
        "yes" if one.latch_severe else "no",
    ]


def test_alarm_document_table_b_is_the_defaults() -> None:
    section = _sections("alarms.md")["B. Defaults by quantity"]
    assert {row[0]: row[1:] for row in _rows(section)} == {f"`{name}`": default_row(name) for name in BY_QUANTITY}
    assert f"{QUALITY_DELAY_S:g} s" in section


def test_documents_link_to_files_that_exist() -> None:
    for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "nfc").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)\)", file.read_text("utf-8")):
            if "://" not in target and not target.startswith("docs/img/"):
                assert (file.parent / target).exists(), f"{file.name}: {target} is missing"


def test_readme_names_both_commands_and_the_safety_statement() -> None:
    for name, words in (("README.md", "not a safety instrumented system"), ("README.zh-CN.md", "不是安全仪表系统")):
        text = (ROOT / name).read_text("utf-8")
        assert "make run" in text
        assert "make test" in text
        assert words in text


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_first_site_toml_of_the_readme_is_good(name: str, tmp_path: Path) -> None:
    text = (ROOT / name).read_text("utf-8")
    blocks = dict(re.findall(r"^```(toml|csv)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    (tmp_path / "site.toml").write_text(blocks["toml"], "utf-8")
    (tmp_path / "people.csv").write_text(blocks["csv"], "utf-8")
    done = _run(sys.executable, "-m", "sitewarden", "check", str(tmp_path / "site.toml"))
    assert "good: 1 area, 1 device, 2 points" in done.stdout
