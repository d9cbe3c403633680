"""Every device of the catalogue: decoded from frames, told from the others, described in the documents."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge.site import load_site
from sitewarden.errors import ConfigError
from sitewarden.sensors.frames import RtuGate, read_request
from sitewarden.sensors.gases import GASES, UNITS
from sitewarden.sensors.identify import Answers, identify_reads, match
from sitewarden.sensors.profiles import CATALOGUE, Profile, load_catalogue, open_catalogue
from sitewarden.sensors.registers import Block, Table, compile_decoder, plan
from sitewarden.words import Quality

HERE = Path(__file__).parent
SHIPPED = load_catalogue()
FRAMES: list[dict[str, Any]] = tomllib.loads((HERE / "data" / "recorded_frames.toml").read_text("utf-8"))["frame"]
TABLES = {1: Table.COIL, 2: Table.DISCRETE, 3: Table.HOLDING, 4: Table.INPUT}
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
    unit_id, table = asked[0], TABLES[asked[1]]
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


# --- which device answers ---


def answers_of(profile: str, variant: str) -> tuple[int, Answers]:
    """What a device of that kind says to `identify_reads`: its good frame, and what its checks want."""
    found = way(profile, variant)
    unit_id = found.defaults.unit_id
    words: dict[tuple[Table, int], int] = {}
    for frame in [f for f in frames_of(profile, variant) if all(isinstance(w, float) for w in f["want"].values())]:
        _, block, got = answered(frame)
        words |= {(block.table, block.address + i): word for i, word in enumerate(got)}
    for check in found.checks:
        place, shift = (check.table, check.address), (check.mask & -check.mask).bit_length() - 1
        wanted = unit_id if check.is_unit_id else (check.values[0] if check.values else check.low or 0)
        if check.text:
            words |= {(check.table, check.address + i): 0x4331 for i in range(check.words)}
        elif place not in words or check.is_unit_id:
            words[place] = (words.get(place, 0) & ~check.mask) | wanted << shift
    answers: dict[Block, tuple[int, ...] | str] = {}
    for block in identify_reads(SHIPPED[profile]):
        places = [(block.table, block.address + i) for i in range(block.count)]
        answers[block] = tuple(words[p] for p in places) if all(p in words for p in places) else "exception_2"
    return unit_id, answers


# Nothing that can be read tells these from another variant of their profile; then the reasons say so.
TWINS = {("setra_srh200", "fahrenheit"), ("pemtech_pt495", "h2s"), ("pemtech_pt495", "h2s_tenths")}


@pytest.mark.parametrize(("profile", "variant"), WAYS)
def test_a_device_matches_its_own_profile(profile: str, variant: str) -> None:
    unit_id, answers = answers_of(profile, variant)
    found = match(SHIPPED[profile], answers, unit_id)
    assert found.score >= (0.8 if way(profile, variant).checks else 0.45), found
    assert found.reasons
    if (profile, variant) in TWINS:
        assert any("fits variant" in reason for reason in found.reasons), found
    else:
        assert found.variant == variant, found


def test_a_gas_head_is_not_another_one() -> None:
    unit_id, answers = answers_of("sensepoint_xrl", "")
    other = {
        Block(table=b.table, address=b.address - 100, count=b.count): w for b, w in answers.items() if b.address > 99
    }
    assert match(SHIPPED["sensepoint_xcd_lel"], other, unit_id).score < 0.1
    assert match(SHIPPED["sensepoint_xrl"], answers, unit_id).score > 0.9


def test_a_silent_or_empty_device_is_nothing() -> None:
    reads = identify_reads(SHIPPED["rs_ws_n01"])
    silent = match(SHIPPED["rs_ws_n01"], dict.fromkeys(reads, "timeout"), 1)
    assert (silent.score, silent.variant) == (0.0, "")
    values, *checks = reads
    mute = match(SHIPPED["rs_ws_n01"], {values: "exception_2", **dict.fromkeys(checks, (1,))}, 1)
    assert (mute.score, mute.reasons) == (0.0, ("no value could be read",))
    empty = match(SHIPPED["rs_ws_n01"], {read: (0,) * read.count for read in reads}, 1)
    assert 0 < empty.score < 0.5


def test_identify_reads_stay_within_the_limits_of_the_device() -> None:
    for profile in SHIPPED.values():
        reads = identify_reads(profile)
        assert len(set(reads)) == len(reads)
        longest = max(profile.max_count, *(x.words for x in (*profile.checks, *profile.texts)), 1)
        assert all(read.count <= longest for read in reads)


def test_a_text_of_a_device_is_shown() -> None:
    profile = SHIPPED["sensepoint_xrl"]
    unit_id, answers = answers_of("sensepoint_xrl", "")
    name = Block(table=Table.HOLDING, address=145, count=7)
    assert name in answers
    letters = (0x4D65, 0x7468, 0x616E, 0x6500, 0, 0, 0)
    assert "gas: Methane" in match(profile, {**answers, name: letters}, unit_id).reasons
    assert not any(reason.startswith("gas:") for reason in match(profile, answers, unit_id).reasons)


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


def test_every_problem_of_the_sites_profiles_is_told(site: Path) -> None:
    folder = site.parent / "profiles"
    (folder / "own_head.toml").write_text(OWN.replace("address = 0", "address = 70000").replace("0.1", '"x"'), "utf-8")
    (folder / "rs_ws_n01.toml").write_text(OWN.replace("own_head", "rs_ws_n01"), "utf-8")
    assert refused(site) == [
        "profiles/own_head.toml: registers[0].address: Input should be less than 65536 (got 70000)",
        "profiles/own_head.toml: registers[0].scale: must be a number (got 'x')",
        "profiles/rs_ws_n01.toml: id: 'rs_ws_n01' is in the shipped catalogue already: give file and id another name",
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
    monkeypatch.setattr(profiles, "_load", lambda path: (read.append(path.stem), load(path))[1])
    profiles._shipped.cache_clear()
    load_site(site)
    assert sorted(read) == ["own_head", "rs_ws_n01"]


# --- documents ---


def _rows(heading: str) -> list[list[str]]:
    text = (HERE.parent / "docs" / "devices.md").read_text("utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (found,) = [part for part in section if part.startswith(heading)]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.splitlines() if line.startswith("| `")]
    assert rows
    return rows


def device_row(profile: Profile) -> list[str]:
    points = ", ".join(dict.fromkeys(x.name_en + (f" ({x.unit})" if x.unit else "") for x in profile.labels))
    line = profile.defaults
    return [
        f"`{profile.id}`",
        f"{profile.name}<br>{profile.name_en}",
        "16 currents of 4-20 mA" if profile.takes_channels else points,
        f"{line.unit_id}, {line.baud} 8{line.parity}{line.stopbits}",
        profile.evidence.replace("_", "-") + (", incomplete" if profile.incomplete else ""),
        ", ".join(f"`{v.id}`" for v in profile.variants) or "–",
    ]


def test_the_document_lists_every_device() -> None:
    assert _rows("The catalogue") == [device_row(profile) for profile in SHIPPED.values()]


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
