"""Every device of the catalogue: decoded from frames, described in the documents."""

from __future__ import annotations

import re
import shutil
import textwrap
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sitewarden.cli import main
from sitewarden.edge.site import load_site
from sitewarden.errors import ConfigError
from sitewarden.sensors.frames import RtuGate, read_request
from sitewarden.sensors.gases import GASES, UNITS
from sitewarden.sensors.profile_words import TABLES
from sitewarden.sensors.profiles import CATALOGUE, Profile, load_catalogue, open_catalogue
from sitewarden.sensors.registers import Block, Table, compile_decoder, plan
from sitewarden.words import Quality

HERE = Path(__file__).parent
SHIPPED = load_catalogue()
FRAMES: list[dict[str, Any]] = tomllib.loads((HERE / "data" / "recorded_frames.toml").read_text("utf-8"))["frame"]
FUNCTIONS = {1: Table.COIL, 2: Table.DISCRETE, 3: Table.HOLDING, 4: Table.INPUT}
WAYS = [(profile.id, way) for profile in SHIPPED.values() for way in ("", *(v.id for v in profile.variants))]


def way(profile: str, variant: str = "") -> Profile:
    """A profile, or one of its variants."""
    found = SHIPPED[profile]
    return next(v.profile for v in found.variants if v.id == variant) if variant else found


def frames_of(profile: str, variant: str) -> list[dict[str, Any]]:
    return [f for f in FRAMES if (f["profile"], f.get("variant", "")) == (profile, variant)]


def answered(frame: dict[str, Any]) -> tuple[int, Block, tuple[int, ...]]:
    """Unit id, what was asked, and the words that the gate of the bus lets through."""
    asked = bytes.fromhex(frame["request"])
    unit_id, table = asked[0], FUNCTIONS[asked[1]]
    block = Block(table=table, address=int.from_bytes(asked[2:4], "big"), count=int.from_bytes(asked[4:6], "big"))
    request, gate = read_request(unit_id, block), RtuGate()
    assert gate.send(request) == asked
    reply = gate.feed(bytes.fromhex(frame["reply"]))
    assert reply is not None, "the gate takes it for no reply"
    return unit_id, block, request.words(reply)


def decoded(profile: Profile, block: Block, words: tuple[int, ...]) -> Iterator[tuple[str, float | str]]:
    """What is read of the registers that lie in a block: the number, the reason, or both."""
    for register in profile.registers:
        inside = block.address <= register.first and register.end <= block.address + block.count
        if register.table is not block.table or not inside:
            continue
        value, quality, why = compile_decoder(register, block.address)(words)
        match quality:
            case Quality.GOOD:
                assert value is not None
                yield register.name, value
            case Quality.UNCERTAIN:
                yield register.name, f"{value:g} {why}"
            case Quality.BAD:
                assert value is None
                yield register.name, why


# --- frames ---


@pytest.mark.parametrize("frame", FRAMES, ids=lambda f: f"{f['profile']}-{f.get('variant', '')}-{f['reply']}")
def test_what_a_device_sends(frame: dict[str, Any]) -> None:
    profile = way(frame["profile"], frame.get("variant", ""))
    _, block, words = answered(frame)
    found = dict(decoded(profile, block, words))
    wanted = {name: found[name] for name in frame["want"]}
    assert wanted == frame["want"]


@pytest.mark.parametrize(("profile", "variant"), WAYS)
def test_each_device_is_instantiated_and_decoded(profile: str, variant: str) -> None:
    """Good once, in reads that the planner makes; and not good once where the device has a status."""
    found, frames = way(profile, variant), frames_of(profile, variant)
    spec = found.unit("area.d", found.defaults.unit_id, 2.0)
    points = {p.id.rpartition(".")[2]: p for p in found.points("area.d", 2.0)}
    assert set(points) == {r.name for r in spec.registers}
    good = {name for f in frames for name, want in f["want"].items() if isinstance(want, float)}
    assert good == set(points), "each register is good in one frame"
    for register in spec.registers:
        if register.status:
            bad = {f["want"].get(register.name) for f in frames} & {w for s in register.status for w in _words(s)}
            assert bad, f"{register.name} has a status and is never bad by it"
    planned = {
        (b.table, b.address, b.count) for b in plan(spec.registers, max_gap=spec.max_gap, max_count=spec.max_count)
    }
    asked = {(b.table, b.address, b.count) for _, b, _ in map(answered, frames)}
    assert {p[0] for p in planned} == {a[0] for a in asked}
    assert planned <= asked or profile == "cosmos_ps7m", "the frames answer the reads that are planned"


def _words(status: Any) -> set[str]:
    return {why for _, why in status.states if why} | {why for *_, why in status.ranges if why} | {status.other}


def test_a_damaged_frame_is_not_taken() -> None:
    """The check above sees a wrong CRC."""
    broken = {**FRAMES[0], "reply": FRAMES[0]["reply"][:-2] + "00"}
    with pytest.raises(AssertionError, match="no reply"):
        answered(broken)


def test_frames_name_what_there_is() -> None:
    assert {(f["profile"], f.get("variant", "")) for f in FRAMES} == set(WAYS)
    assert all(f["source"] for f in FRAMES)


# --- the files ---


def test_ids_are_the_names_of_the_files() -> None:
    """Profiles are read by name, so a file under another name would never be found."""
    for path in CATALOGUE.glob("*.toml"):
        assert tomllib.loads(path.read_text("utf-8"))["id"] == path.stem
    assert list(open_catalogue()[0]) == list(SHIPPED) == sorted(p.stem for p in CATALOGUE.glob("*.toml"))
    assert len(SHIPPED) >= 20


@pytest.mark.parametrize(("profile", "variant"), WAYS)
def test_profiles_are_complete(profile: str, variant: str) -> None:
    found = way(profile, variant)
    assert found.source
    assert len(found.labels) == len(found.registers)
    for register, label in zip(found.registers, found.labels, strict=True):
        assert label.name_zh != label.name_en
        assert register.name == label.name
        if label.quantity == "gas":
            assert label.unit in UNITS
            assert not label.gas or label.gas in GASES
            assert register.low is not None
            assert register.high is not None


def test_a_gas_head_is_good_only_by_its_state() -> None:
    """Every gas value reads a state, except where the device is known to have none."""
    without = {(p, v) for p, v in WAYS for r, label in _pairs(way(p, v)) if label.quantity == "gas" and not r.status}
    assert without == {("sf6_o2", ""), ("sf6_o2", "hundredths")}


def _pairs(profile: Profile) -> Iterator[tuple[Any, Any]]:
    return zip(profile.registers, profile.labels, strict=True)


def test_a_frozen_head_is_noticed() -> None:
    (register,) = SHIPPED["sensepoint_xrl"].registers
    now_s = 100.0
    decode = compile_decoder(register, 102, lambda: now_s)
    words = list(answered(frames_of("sensepoint_xrl", "")[0])[2])
    assert decode(words) == (50.0, Quality.GOOD, "")
    now_s += 29.9
    assert decode(words) == (50.0, Quality.GOOD, "")
    now_s += 0.1
    assert decode(words) == (None, Quality.BAD, "frozen")
    words[5] += 1
    assert decode(words) == (50.0, Quality.GOOD, "")


# --- a site's own profiles ---

OWN = """
id = "own_head"
name = "自有探头"
name_en = "Own head"
source = "manual p. 3"
inter_frame_ms = 30

[[registers]]
name = "lel"
name_zh = "可燃气体"
name_en = "flammable gas"
unit = "%LEL"
quantity = "gas"
gas = "CH4"
decimals = 1
address = 0
type = "u16"
scale = 0.1
low = 0
high = 100
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The golden site with a folder of profiles of its own."""
    for name in ("site.toml", "people.csv"):
        shutil.copy(HERE / "golden" / "site" / "good" / name, tmp_path)
    file = tmp_path / "site.toml"
    text = file.read_text("utf-8").replace('profile = "xy_md02"', 'profile = "own_head"\nunit = "%vol"\nunit_id = 7', 1)
    text = text.replace('unit_id = 1\nprofile = "own_head"', 'profile = "own_head"', 1)
    file.write_text(text + '\n[profiles]\nfolder = "profiles"\n', "utf-8")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "own_head.toml").write_text(OWN, "utf-8")
    return file


def refused(file: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_site(file)
    return caught.value.problems


def test_a_profile_of_the_site_adds_to_the_catalogue(site: Path) -> None:
    found = load_site(site)
    point = next(p.point for p in found.points if p.point.id == "store.th2.lel")
    assert (point.unit, point.low, point.high, point.decimals) == ("%vol", 0.0, 5.0, 3)
    bus = next(b for b in found.buses if b.id == "net")
    (unit,) = bus.units
    assert bus.inter_frame_ms == 30, "the profile needs it"
    assert compile_decoder(unit.registers[0], 0)([200]) == (1.0, Quality.GOOD, "")


TAKEN = "is in the shipped catalogue already: give file and id another name"


def test_every_problem_of_the_sites_profiles_is_told(site: Path) -> None:
    folder = site.parent / "profiles"
    (folder / "own_head.toml").write_text(OWN.replace("address = 0", "address = 70000").replace("0.1", '"x"'), "utf-8")
    (folder / "rs_ws_n01.toml").write_text(OWN.replace("own_head", "rs_ws_n01"), "utf-8")
    assert refused(site) == [
        'profiles/own_head.toml: registers[0].address: must be 0..65535 (got 70000) [register "lel", line 16]',
        'profiles/own_head.toml: registers[0].scale: must be a number (got "x") [register "lel", line 18]',
        f'profiles/rs_ws_n01.toml: id: {TAKEN} (got "rs_ws_n01") [line 2]',
    ]


def test_a_folder_that_is_not_there(site: Path) -> None:
    shutil.rmtree(site.parent / "profiles")
    problems = refused(site)
    assert 'must be a folder with *.toml profiles, relative to site.toml (got "profiles")' in problems[-1]
    assert problems[-1].startswith("profiles.folder: ")
    assert "profile: must name a profile of the catalogue" in problems[0]


def test_only_what_a_site_names_is_read(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up does not pay for the catalogue."""
    from sitewarden.sensors import profiles

    read: list[str] = []
    load = profiles._load
    monkeypatch.setattr(profiles, "_load", lambda path, *more: (read.append(path.stem), load(path, *more))[1])
    profiles._shipped.cache_clear()
    load_site(site)
    assert sorted(read) == ["own_head", "rs_ws_n01"]


# --- documents ---

DEVICES = (HERE.parent / "docs" / "devices.md").read_text("utf-8")


def _section(heading: str) -> str:
    """What stands below a heading of level 2 or 3, up to the next of its level or above."""
    (mark,) = re.findall(rf"^(##+) {re.escape(heading)}$", DEVICES, re.MULTILINE)
    found = DEVICES.split(f"\n{mark} {heading}\n")[1]
    return re.split(rf"^#{{2,{len(mark)}}} ", found, flags=re.MULTILINE)[0]


def _rows(heading: str) -> list[list[str]]:
    rows = [re.split(r"(?<!\\\\)\|", line)[1:-1] for line in _section(heading).splitlines() if line.startswith("| `")]
    assert rows
    return [[cell.strip() for cell in row] for row in rows]


def points(profile: Profile) -> str:
    """Names with unit and gas."""
    if profile.takes_channels:
        return f"`{profile.labels[0].name}` to `{profile.labels[-1].name}` {profile.labels[0].unit}"
    words = ((f"`{label.name}`", label.unit, label.gas) for label in profile.labels)
    return ", ".join(" ".join(word for word in one if word) for one in words)


def line(profile: Profile) -> str:
    own = profile.defaults
    return f"{own.unit_id}, {own.baud} 8{own.parity}{own.stopbits}"


def device_row(profile: Profile) -> list[str]:
    outputs = (f"`{o.name}` ({', '.join(state for state, _ in o.states)})" for o in profile.outputs)
    return [
        f"`{profile.id}`",
        f"{profile.name}<br>{profile.name_en}",
        points(profile),
        line(profile),
        ", ".join(outputs) or "–",
        profile.evidence.replace("_", "-") + (", incomplete" if profile.incomplete else ""),
    ]


def variant_rows(profile: Profile) -> Iterator[list[str]]:
    for variant in profile.variants:
        both = [(tell(variant.profile), tell(profile)) for tell in (points, line)]
        changed = [own if own != before else "the same" for own, before in both]
        yield [f"`{profile.id}`", f"`{variant.id}`", variant.differs, variant.tell, *changed]


def test_the_document_lists_every_device() -> None:
    assert _rows("The catalogue") == [device_row(profile) for profile in SHIPPED.values()]


def test_the_document_lists_every_variant() -> None:
    assert _rows("Variants") == [row for profile in SHIPPED.values() for row in variant_rows(profile)]


def test_the_document_lists_every_gas() -> None:
    assert _rows("Gases and units") == [
        [
            f"`{g.id}`",
            g.name,
            g.name_en,
            *(str(n) if n is not None else "–" for n in (g.molar_mass, g.lel_vol, g.lel_iec_vol)),
        ]
        for g in GASES.values()
    ]


HEADINGS = {
    "the top of the file": "Top of the file",
    "registers.parts": "`parts` of a register",
    "registers.unit_factors": "`unit_factors` of a register",
    "registers.status.states": "`states` of a status",
    "registers.heartbeat": "`heartbeat` of a register",
}


def default(field: FieldInfo) -> str:
    """As the document writes it."""
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    match value:
        case None if field.is_required():
            return "required"
        case bool():
            return str(value).lower()
        case str() if value:
            return f'"{value}"'
        case Decimal() | int():
            return "0xFFFF" if value == 0xFFFF else str(value)
        case _:
            return "–"


def choices(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    for inner in get_args(annotation):
        yield from choices(inner) if not isinstance(inner, str | int) else ()


@pytest.mark.parametrize("where", TABLES)
def test_the_document_has_every_key(where: str) -> None:
    model = TABLES[where]
    rows = _rows(HEADINGS.get(where, f"`{where}`"))
    fields = [(field.alias or name, field) for name, field in model.model_fields.items()]
    assert [row[:2] for row in rows] == [[f"`{name}`", default(field)] for name, field in fields]
    for (name, field), (_, _, meaning) in zip(fields, rows, strict=True):
        assert meaning
        assert [c for c in choices(field.annotation) if f"`{c}`" not in meaning] == [], name


def test_every_table_of_a_profile_is_described() -> None:
    """A table that a model has is one of those that the document and the wording know."""
    known = set(TABLES.values())
    for model in known:
        for name, field in model.model_fields.items():
            inner = [m for m in (field.annotation, *get_args(field.annotation)) if isinstance(m, type)]
            for one in (m for m in inner if issubclass(m, BaseModel)):
                assert one in known, f"{model.__name__}.{name}"


def blocks(heading: str, language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", _section(heading), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def test_the_documents_first_profile_is_good(tmp_path: Path) -> None:
    folder, profile = blocks("Write your own profile", "toml")[:2]
    assert tomllib.loads(folder) == {"profiles": {"folder": "profiles"}}
    (tmp_path / "my_head.toml").write_text(profile, "utf-8")
    (register,) = load_catalogue(tmp_path)["my_head"].registers
    decode = compile_decoder(register, register.first)
    assert decode([125, 0, 0, 0, 1]) == (12.5, Quality.GOOD, "")
    assert decode([125, 0, 0, 0, 9]) == (12.5, Quality.UNCERTAIN, "calibration_due")
    assert decode([125, 0, 0, 0x40, 1])[2] == "fault"


def test_the_documents_siren_works(tmp_path: Path) -> None:
    """The profile, the lines of site.toml and the commands of the example fit one another."""
    heading = "A siren of your own, from the manual to the sound"
    profile, lines = blocks(heading, "toml")
    (commands,) = blocks(heading, "console")
    for name in ("site.toml", "people.csv"):
        shutil.copy(HERE / "golden" / "site" / "good" / name, tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "horn_box.toml").write_text(profile, "utf-8")
    with (tmp_path / "site.toml").open("a", encoding="utf-8") as file:
        file.write(f"\n{lines}")
    site = load_site(tmp_path / "site.toml")
    assert site.warnings == ()
    (output,) = site.outputs
    words = [command.removeprefix("$ ").split() for command in commands.splitlines()]
    written = [word[2:] for word in words if word[1] == "output" and len(word) == 4]
    assert [name for name, _ in written] == [output.id] * 2
    assert {state for _, state in written} <= set(output.states)
    for word in words:
        found = main.commands[word[1]]
        assert word[0] == "sitewarden"
        options = {option for parameter in found.params for option in parameter.opts}
        assert {part for part in word[2:] if part.startswith("--")} <= options
    unit = next(u for bus in site.buses for u in bus.units if u.device == output.device)
    assert (unit.outputs[0].table, unit.outputs[0].address) == (Table.HOLDING, 10)
    assert compile_decoder(unit.registers[0], 10)([2]) == (2.0, Quality.GOOD, "")
