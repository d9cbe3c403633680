"""Which device answers: every device of the catalogue against every profile, and devices that are none of them."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sitewarden.probe.find import GOOD_ENOUGH, WORTH_SHOWING, FoundUnit, candidates
from sitewarden.probe.identify_words import REASONS, reason_json, say_reason
from sitewarden.probe.interpret import Tally
from sitewarden.probe.text import unit_lines
from sitewarden.probe.words import translator
from sitewarden.sensors.frames import RtuGate, read_request
from sitewarden.sensors.identify import Answers, Match, Reason, Sign, identify_reads, match, name_lookalikes
from sitewarden.sensors.plant_devices import Wire
from sitewarden.sensors.plant_model import Plant
from sitewarden.sensors.profiles import Profile, load_catalogue
from sitewarden.sensors.registers import Block, Table

HERE = Path(__file__).parent
SHIPPED = load_catalogue()
FRAMES: list[dict[str, Any]] = tomllib.loads((HERE / "data" / "recorded_frames.toml").read_text("utf-8"))["frame"]
READS = tuple(dict.fromkeys(block for profile in SHIPPED.values() for block in identify_reads(profile)))
WAYS = [(profile.id, way) for profile in SHIPPED.values() for way in ("", *(v.id for v in profile.variants))]
TABLES = {1: Table.COIL, 2: Table.DISCRETE, 3: Table.HOLDING, 4: Table.INPUT}
H, I = Table.HOLDING, Table.INPUT  # noqa: E741

Words = dict[tuple[Table, int], int]

# --- devices ---


def letters(text: str, at: int) -> dict[int, int]:
    """Two in each register."""
    data = text.encode("ascii")
    return {at + i: int.from_bytes(data[2 * i : 2 * i + 2], "big") for i in range(len(data) // 2)}


def beside(unit_id: int) -> dict[str, dict[Table, dict[int, int]]]:
    """What is in the registers beside the values of recorded_frames.toml, as the sources of the profiles have it."""
    return {
        "rs_ws_n01": {H: {0x07D0: unit_id, 0x07D1: 1}},
        "zts_3008_ws_n01": {H: {0x07D0: unit_id, 0x07D1: 1}},
        "xy_md02": {H: {0x0101: unit_id, 0x0102: 9600}},
        "xy_md02/baud_code": {H: {0x0101: unit_id, 0x0102: 0}},
        "sonbest_th": {H: {0: 2345, 1: 4850, 0x0064: 0x7820, 0x0065: 2, 0x0066: unit_id}},
        "r444a01": {H: {2: unit_id, 3: 3}},
        "r444a01/baud_19200": {H: {2: unit_id, 3: 4}},
        "setra_srh200": {I: letters("SRH20012345678  ", 0)},
        "cosmos_ps7m": {H: {1: 20, 2: 40, 10: 1, 16: 0, 18: 200, **letters("CO  ", 8), **letters("7M001234", 12)}},
        "pemtech_pt495": {H: {2: 20, 3: 0, 4: 40, 5: 1, 6: 0}},
        "pressure_transmitter": {H: {0: unit_id, 1: 3, 5: 0, 6: 1000, 12: 0}},
        "pressure_f32": {H: {0: unit_id, 1: 3}},
        "qdy30a_level": {H: {0: unit_id, 1: 3, 5: 0, 6: 5000}},
        "sensepoint_xcd_lel": {H: {0: 0x2500 + unit_id, **letters("Methane       ", 45)}},
        "sensepoint_xrl": {H: {100: 0x2600 + unit_id, **letters("Methane       ", 145)}},
        "sdm120": {I: {0x46: 0x4248, 0x47: 0}},
    }


# Variants that are other ways to read one and the same device.
SAME_DEVICE = {"kincony_ts": ("", "holding", "float"), "setra_srh200": ("", "int16")}
# Nothing that can be read tells these from the variant that is taken; the reasons name them.
VARIANT_TAKEN = {
    ("kincony_ts", ""): "float",
    ("kincony_ts", "holding"): "float",
    ("setra_srh200", "int16"): "",
    ("setra_srh200", "fahrenheit"): "",
    ("pemtech_pt495", "h2s_tenths"): "h2s",
}
# One map under two names.
LOOKALIKES = (
    {("rs_ws_n01", ""), ("zts_3008_ws_n01", "")},
    {("pressure_transmitter", ""), ("qdy30a_level", "pressure")},
)
BY_NUMBERS_ALONE = {"hh4_four_gas", "kincony_ts", "n4aib16", "relay_siren", "sf6_o2"}
SURROUNDINGS = {
    "refuses the rest": {},
    "has 0 in the rest": {"filled": True},
    "has them in both tables": {"mirrored": True},
    "has them in both tables and 0 in the rest": {"filled": True, "mirrored": True},
}


def way(profile: str, variant: str = "") -> Profile:
    found = SHIPPED[profile]
    return next(v.profile for v in found.variants if v.id == variant) if variant else found


def answered(frame: dict[str, Any]) -> tuple[Block, tuple[int, ...]]:
    asked = bytes.fromhex(frame["request"])
    block = Block(
        table=TABLES[asked[1]], address=int.from_bytes(asked[2:4], "big"), count=int.from_bytes(asked[4:6], "big")
    )
    request, gate = read_request(asked[0], block), RtuGate()
    gate.send(request)
    reply = gate.feed(bytes.fromhex(frame["reply"]))
    assert reply is not None
    return block, request.words(reply)


def device(profile: str, variant: str, unit_id: int) -> Words:
    """What the registers of such a device hold while it measures."""
    ways = SAME_DEVICE.get(profile, ())
    words: Words = {}
    for frame in FRAMES:
        is_own = frame["profile"] == profile and frame.get("variant", "") in (variant, *ways)
        if is_own and all(isinstance(want, float) for want in frame["want"].values()):
            block, found = answered(frame)
            fresh = {(block.table, block.address + i): word for i, word in enumerate(found)}
            words = {**words, **fresh} if frame.get("variant", "") == variant else {**fresh, **words}
    more = beside(unit_id)
    for table, held in (more.get(f"{profile}/{variant}") or more.get(profile, {})).items():
        words |= {(table, at): word for at, word in held.items()}
    return words


def answers_of(words: Mapping[tuple[Table, int], int], *, filled: bool = False, mirrored: bool = False) -> Answers:
    """What it says to everything that the profiles ask."""
    other = {H: I, I: H}
    held = {**{(other.get(table, table), at): word for (table, at), word in words.items() if mirrored}, **words}
    tables = {table for table, _ in held}
    found: dict[Block, tuple[int, ...] | str] = {}
    for block in READS:
        places = [(block.table, block.address + i) for i in range(block.count)]
        if block.table not in tables:
            found[block] = "exception_1"
        elif filled or all(place in held for place in places):
            found[block] = tuple(held.get(place, 0) for place in places)
        else:
            found[block] = "exception_2"
    return found


def judged(answers: Answers, unit_id: int) -> dict[str, Match]:
    return name_lookalikes({name: match(profile, answers, unit_id) for name, profile in SHIPPED.items()})


def percent(found: Match) -> int:
    return round(100 * found.score)


def best_of(found: Mapping[str, Match]) -> dict[str, Match]:
    most = max(map(percent, found.values()))
    return {name: one for name, one in found.items() if percent(one) == most}


# --- the matrix ---


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize(("profile", "variant"), WAYS)
def test_each_device_is_known_as_itself(profile: str, variant: str, surroundings: str) -> None:
    """It has the best score, or ties with a lookalike that the reasons name."""
    for unit_id in (way(profile, variant).defaults.unit_id, 17):
        found = judged(answers_of(device(profile, variant, unit_id), **SURROUNDINGS[surroundings]), unit_id)
        best = best_of(found)
        assert profile in best, best
        others = {(name, one.variant) for name, one in best.items() if name != profile}
        twins = next((group for group in LOOKALIKES if (profile, variant) in group), set())
        assert others <= twins, best
        named = [reason.name for reason in best[profile].reasons if reason.sign is Sign.PROFILE_TOO]
        assert named == ([", ".join(name for name, _ in others)] if others else [])


@pytest.mark.parametrize(("profile", "variant"), WAYS)
def test_the_variant_is_told_or_named(profile: str, variant: str) -> None:
    unit_id = way(profile, variant).defaults.unit_id
    found = match(SHIPPED[profile], answers_of(device(profile, variant, unit_id)), unit_id)
    wanted = VARIANT_TAKEN.get((profile, variant), variant)
    assert found.variant == wanted
    named = {reason.name for reason in found.reasons if reason.sign is Sign.VARIANT_TOO}
    if wanted != variant and profile != "kincony_ts":
        assert variant in named


@pytest.mark.parametrize(("profile", "variant"), WAYS)
def test_a_device_is_sure_when_something_tells_it(profile: str, variant: str) -> None:
    unit_id = way(profile, variant).defaults.unit_id
    found = match(SHIPPED[profile], answers_of(device(profile, variant, unit_id)), unit_id)
    if profile not in BY_NUMBERS_ALONE:
        assert percent(found) >= 85
        return
    assert WORTH_SHOWING <= percent(found) <= 50
    assert Sign.ONLY_NUMBERS in {reason.sign for reason in found.reasons}


def matrix() -> str:
    """Of each device the scores that are shown, best first."""
    lines: list[str] = []
    for profile, variant in WAYS:
        unit_id = way(profile, variant).defaults.unit_id
        for surroundings in ("refuses the rest", "has 0 in the rest"):
            found = judged(answers_of(device(profile, variant, unit_id), **SURROUNDINGS[surroundings]), unit_id)
            shown = sorted((-percent(one), name, one.variant) for name, one in found.items())
            texts = [f"{-score} {name}{'/' * bool(v)}{v}" for score, name, v in shown if -score >= WORTH_SHOWING]
            lines.append(f"{profile}{'/' * bool(variant)}{variant}, {surroundings}: {', '.join(texts)}\n")
    return "".join(lines)


def test_the_matrix_is_as_it_was() -> None:
    """A change of a profile or of the scoring shows here, for every device at once."""
    assert matrix() == (HERE / "golden" / "identify.txt").read_text("utf-8")


# --- whatever it measures ---

CLIMATE = {
    "rs_ws_n01": ("", (H, 0), (H, 1), 1),
    "rs_ws_n01/soil": ("soil", (H, 1), (H, 0), 1),
    "xy_md02": ("", (I, 2), (I, 1), 1),
    "r444a01": ("", (H, 1), (H, 0), 1),
    "sonbest_th": ("", (H, 1), (H, 0), 10),
}


@pytest.mark.parametrize("name", CLIMATE)
def test_no_weather_makes_a_climate_sensor_something_else(name: str) -> None:
    """51.2 to 76.7 %RH has the type code of a gas head in its high byte."""
    variant, humidity, temperature, times = CLIMATE[name]
    profile = name.partition("/")[0]
    twin = {"zts_3008_ws_n01"} if profile == "rs_ws_n01" else set[str]()
    for unit_id in (1, 17):
        words = device(profile, variant, unit_id)
        for rh in range(105, 1000, 47):
            for t in (-105, 15, 85, 215, 300, 515):
                words |= {humidity: rh * times, temperature: t * times & 0xFFFF}
                best = best_of(judged(answers_of(words, filled=rh % 2 == 0), unit_id))
                assert {profile} <= best.keys() <= {profile} | twin, (rh, t, best)


# --- devices that are none of them ---


def responder(word: Callable[[Table, int], int]) -> Answers:
    """Answers everything."""
    return {
        block: tuple(
            word(block.table, block.address + i) & (1 if block.table.is_bits else 0xFFFF) for i in range(block.count)
        )
        for block in READS
    }


def counting() -> Callable[[Table, int], int]:
    state = [0]

    def word(_table: Table, _address: int) -> int:
        state[0] += 1
        return state[0]

    return word


def rolling(seed: int, most: int) -> Callable[[Table, int], int]:
    chance, held = random.Random(seed), dict[tuple[Table, int], int]()

    def word(table: Table, address: int) -> int:
        return held.setdefault((table, address), chance.randint(0, most))

    return word


STRANGERS: dict[str, Callable[[], Answers]] = {
    "only zeros": lambda: responder(lambda *_: 0),
    "its address": lambda: responder(lambda _, at: at),
    "its address and one": lambda: responder(lambda _, at: at + 1),
    "its register number": lambda: responder(lambda _, at: 40001 + at),
    "its address and a thousand": lambda: responder(lambda _, at: at + 1000),
    "a counter of its answers": lambda: responder(counting()),
    **{
        f"{word} everywhere": lambda word=word: responder(lambda *_: word)
        for word in (1, 2, 5, 20, 0x0100, 0x0200, 0x4248, 0xFFFF)
    },
    **{f"random {seed}": lambda seed=seed: responder(rolling(seed, 0xFFFF)) for seed in range(20)},
    **{f"random up to 1000, {seed}": lambda seed=seed: responder(rolling(seed, 1000)) for seed in range(20)},
    **{f"random up to 9, {seed}": lambda seed=seed: responder(rolling(seed, 9)) for seed in range(20)},
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_who_answers_everything_is_nobody(kind: str) -> None:
    answers = STRANGERS[kind]()
    for unit_id in (1, 2, 7):
        for name, found in judged(answers, unit_id).items():
            assert percent(found) < GOOD_ENOUGH, (name, found)


@pytest.mark.parametrize("why", ["exception_1", "exception_2", "exception_4", "timeout"])
def test_who_refuses_everything_is_nobody(why: str) -> None:
    for found in judged(dict.fromkeys(READS, why), 1).values():
        assert (found.score, found.reasons) == (0.0, (Reason(sign=Sign.NOTHING_READ),))


def test_devices_that_nobody_has_described_are_seldom_taken_for_one() -> None:
    """Some registers from 0 on, half of them 0, small numbers more often than large ones."""
    taken = asked = 0
    for seed in range(150):
        chance = random.Random(seed)
        table, size = chance.choice((H, I)), chance.choice((2, 4, 8, 16, 32))
        numbers = [0 if chance.random() < 0.5 else round(65536 ** chance.random()) - 1 for _ in range(size)]
        words = {(table, at): number for at, number in enumerate(numbers)}
        for filled in (False, True):
            asked += 1
            found = judged(answers_of(words, filled=filled), chance.choice((1, 2, 5)))
            taken += any(percent(one) >= GOOD_ENOUGH for one in found.values())
    assert asked == 300
    assert taken <= 12, "one in 25"


@pytest.mark.parametrize("profile", ["hh4_four_gas", "pemtech_pt495", "detcon_1000"])
def test_a_gas_head_needs_more_than_registers_in_its_places(profile: str) -> None:
    """A climate sensor with 0 wherever else it is asked: its zeros are the states and decimals of gas heads."""
    for rh in range(100, 1000, 9):
        words: Words = {(H, 0): rh, (H, 1): 1005 - rh}
        for filled in (False, True):
            found = match(SHIPPED[profile], answers_of(words, filled=filled), 1)
            assert percent(found) < GOOD_ENOUGH, (rh, found)


def test_a_head_in_trouble_is_still_known() -> None:
    """Warm-up, inhibit and fault are no values, and say who it is all the same."""
    for state, why in ((2, "warm_up"), (3, "inhibit"), (12, "calibration")):
        words = {**device("sensepoint_xrl", "", 1), (H, 106): state}
        best = best_of(judged(answers_of(words), 1))
        assert best.keys() == {"sensepoint_xrl"}
        assert percent(best["sensepoint_xrl"]) >= 50
        assert Reason(sign=Sign.IDLE, name="lel", why=why) in best["sensepoint_xrl"].reasons


def test_a_gas_head_is_not_another_one() -> None:
    words = device("sensepoint_xrl", "", 1)
    shifted = {(table, at - 100): word for (table, at), word in words.items()}
    assert match(SHIPPED["sensepoint_xcd_lel"], answers_of(shifted), 1).score < 0.1
    assert match(SHIPPED["sensepoint_xrl"], answers_of(words), 1).score > 0.9


@pytest.mark.parametrize("wire", [Wire.RS485, Wire.TCP])
def test_the_simulated_plant_is_known(wire: Wire) -> None:
    wanted = {"th1": "rs_ws_n01", "steamer1": "pressure_transmitter", "th2": "xy_md02", "boiler1": "pressure_f32"}
    plant = Plant(seed=1)
    for unit_id, state in plant.units(wire).items():
        if state.board is not None:
            continue  # of a profile of the site, which tells nobody how to know it
        image = plant.image(state.spec)
        words = {**{(H, at): w for at, w in image.holding.items()}, **{(I, at): w for at, w in image.input.items()}}
        best = best_of(judged(answers_of(words), unit_id))
        assert next(iter(best)) == wanted[state.spec.device]
        assert percent(next(iter(best.values()))) == 100


# --- reads ---


def test_identify_reads_stay_within_the_limits_of_the_device() -> None:
    for profile in SHIPPED.values():
        reads = identify_reads(profile)
        assert len(set(reads)) == len(reads)
        longest = max(profile.max_count, *(x.words for x in (*profile.checks, *profile.texts)), 1)
        assert all(read.count <= longest for read in reads)


def test_without_a_unit_id_its_checks_are_passed_over() -> None:
    answers = answers_of(device("rs_ws_n01", "", 1))
    known, unknown = (match(SHIPPED["rs_ws_n01"], answers, unit_id) for unit_id in (1, None))
    assert (percent(known), len(known.reasons) - len(unknown.reasons)) == (100, 1)
    assert percent(unknown) < percent(known)


def test_a_timeout_at_a_check_decides_nothing() -> None:
    place = Block(table=H, address=0x07D1, count=1)
    answers = {**answers_of(device("rs_ws_n01", "", 1)), place: "timeout"}
    found = match(SHIPPED["rs_ws_n01"], answers, 1)
    assert percent(found) >= 90
    reason = next(reason for reason in found.reasons if reason.sign is Sign.UNREAD)
    assert (reason.note, reason.note_zh, reason.table, reason.address) == ("baud code", "波特率代码", H, 0x07D1)


# --- reasons ---


def reasons_of(profile: str, words: Words, unit_id: int = 1, **surroundings: bool) -> tuple[Reason, ...]:
    return judged(answers_of(words, **surroundings), unit_id)[profile].reasons


def test_the_weightiest_reason_comes_first() -> None:
    words = {**device("pemtech_pt495", "", 1), (H, 1): 0x02F0, (H, 2): 0}
    signs = [reason.sign for reason in reasons_of("pemtech_pt495", words)]
    assert signs[:2] == [Sign.MUST_DIFFER, Sign.DIFFERS]
    assert signs.index(Sign.FITS) > signs.index(Sign.DIFFERS)
    known = reasons_of("pemtech_pt495", device("pemtech_pt495", "", 1))
    assert (known[0].note, known[0].shown) == ("sensor type", "2"), "what says most of who it is"


EN, ZH = translator("en"), translator("zh")
SAID: dict[Sign, tuple[Callable[[], tuple[Reason, ...]], str, str]] = {
    Sign.FITS: (
        lambda: reasons_of("rs_ws_n01", device("rs_ws_n01", "", 7), 7),
        "holding 0x07D0, unit id: 7 fits",
        "保持寄存器 0x07D0，站号：7，符合",
    ),
    Sign.DIFFERS: (
        lambda: reasons_of("rs_ws_n01", device("rs_ws_n01", "", 7), 8),
        "holding 0x07D0, unit id: 7 does not fit",
        "保持寄存器 0x07D0，站号：7，不符",
    ),
    Sign.MUST_DIFFER: (
        lambda: reasons_of("r444a01", {**device("r444a01", "", 1), (H, 2): 9}),
        "holding 0x0002, unit id: 9 does not fit, so it is another device",
        "保持寄存器 0x0002，站号：9，不符，应是另一种设备",
    ),
    Sign.REFUSED: (
        lambda: reasons_of("pemtech_pt495", {(H, 0): 12, (H, 1): 0x0200}),
        "holding 0x0003, alarm 1 relay, 0 or 1 for latching: the device refuses to read it, so it is another device",
        "保持寄存器 0x0003，一级报警继电器，0 或 1（锁存）：设备拒绝读取，应是另一种设备",
    ),
    Sign.UNREAD: (
        lambda: reasons_of("rs_ws_n01", {(H, 0): 583, (H, 1): 215}),
        "holding 0x07D0, unit id: no answer",
        "保持寄存器 0x07D0，站号：读不到",
    ),
    Sign.PLAUSIBLE: (
        lambda: reasons_of("rs_ws_n01", {(H, 0): 583, (H, 1): 215}),
        "humidity: 58.3 is plausible",
        "humidity：58.3，合理",
    ),
    Sign.STRANGE: (
        lambda: reasons_of("rs_ws_n01", {(H, 0): 5830, (H, 1): 215}),
        "humidity: out of range, which such a device never has",
        "humidity：超出量程，这种设备不会如此",
    ),
    Sign.IDLE: (
        lambda: reasons_of("sensepoint_xrl", {**device("sensepoint_xrl", "", 1), (H, 106): 2}),
        "lel: the device itself has no value (warming up), which says little",
        "lel：设备自称没有测量值（预热中），说明不了什么",
    ),
    Sign.DUST: (
        lambda: reasons_of("sdm120", {**device("sdm120", "", 1), (I, 0): 0x0001, (I, 1): 0x4366}),
        "voltage: too small to be measured: another word order?",
        "voltage：数值小得不可能是测量值，字序可能不同",
    ),
    Sign.ZERO: (
        lambda: reasons_of("rs_ws_n01", {(H, 0): 0, (H, 1): 215}),
        "humidity: all registers are 0, which says little",
        "humidity：寄存器全为 0，说明不了什么",
    ),
    Sign.SMALL: (
        lambda: reasons_of("rs_ws_n01", {(H, 0): 583, (H, 1): 3}),
        "temperature: 0.3 may be a mere code: such small numbers say little",
        "temperature：0.3，很小的整数，也可能只是代码",
    ),
    Sign.NO_LOOP: (
        lambda: reasons_of("n4aib16", {**device("n4aib16", "", 1), (I, 0): 200}),
        "ch1: 2 mA is no current of a 4-20 mA transmitter",
        "ch1：2 mA，不是 4-20 mA 变送器的电流",
    ),
    Sign.NO_ANSWER: (
        lambda: reasons_of("sdm120", {(I, 0): 0x4366, (I, 1): 0x8000}),
        "current: no answer, and such a device must have one",
        "current：读不到，这种设备必须能读",
    ),
    Sign.NOTHING_READ: (
        lambda: reasons_of("sdm120", {(H, 0): 1}),
        "no value could be read",
        "一个测量值也读不到",
    ),
    Sign.BABBLE: (
        lambda: judged(responder(lambda _, at: at + 1), 1)["rs_ws_n01"].reasons,
        "the device has numbers wherever it is asked, so those here prove nothing",
        "该设备在任何地址都有数值，因此这里的数值证明不了什么",
    ),
    Sign.ONLY_NUMBERS: (
        lambda: reasons_of("relay_siren", {(Table.COIL, 0): 1, (Table.COIL, 1): 0}),
        "judged by its numbers alone: the profile has nothing that tells such a device from others",
        "只凭数值判断：该型号没有可供辨认的寄存器",
    ),
    Sign.TEXT: (
        lambda: reasons_of("sensepoint_xrl", device("sensepoint_xrl", "", 1)),
        "gas: Methane",
        "gas：Methane",
    ),
    Sign.VARIANT_TOO: (
        lambda: reasons_of("pemtech_pt495", device("pemtech_pt495", "h2s_tenths", 1)),
        "variant h2s_tenths fits as well (the high byte of register 1 is 1; the display has tenths)",
        "变体 h2s_tenths 同样符合（寄存器 1 的高字节为 1；显示带一位小数）",
    ),
    Sign.PROFILE_TOO: (
        lambda: reasons_of("rs_ws_n01", device("rs_ws_n01", "", 1)),
        "cannot be told from zts_3008_ws_n01: look at the device's label",
        "无法与 zts_3008_ws_n01 区分：看设备铭牌",
    ),
}


@pytest.mark.parametrize("sign", Sign)
def test_each_reason_has_words_in_both_languages(sign: Sign) -> None:
    given, english, chinese = SAID[sign]
    own = [reason for reason in given() if reason.sign is sign]
    assert english in [say_reason(reason, EN) for reason in own]
    assert chinese in [say_reason(reason, ZH) for reason in own]
    assert all(reason_json(reason)["sign"] == sign.value for reason in own)
    assert f"reason_{sign}" in REASONS


def test_the_profile_itself_is_named_as_a_variant_that_fits_too() -> None:
    """Unit 2 of a four-gas module is that of oxygen, and every other gas would fit the number too."""
    found = match(
        SHIPPED["hh4_four_gas"], answers_of({(H, at): w for at, w in enumerate((0x1100, 150, 0, 0, 0, 1))}), 2
    )
    assert found.variant == "o2"
    said = [say_reason(reason, EN) for reason in found.reasons]
    assert "without a variant it fits as well (it answers as unit 2, unless that was changed)" in said
    assert "variant co fits as well (it answers as unit 3, unless that was changed)" in said


def test_a_reason_for_a_program_has_what_belongs_to_it() -> None:
    check, value = Reason(sign=Sign.FITS, address=7, note="unit id", shown="1"), Reason(sign=Sign.ZERO, name="t")
    assert reason_json(check) == {"sign": "fits", "note": "unit id", "shown": "1", "table": "holding", "address": 7}
    assert reason_json(value) == {"sign": "zero", "name": "t"}


def test_every_note_of_the_catalogue_is_in_both_languages() -> None:
    for profile, variant in WAYS:
        for check in way(profile, variant).checks:
            assert check.note_zh != check.note, (profile, variant, check)
    for variant in (v for profile in SHIPPED.values() for v in profile.variants):
        assert variant.tell_zh != variant.tell


def test_candidates_have_reasons_and_name_their_lookalikes() -> None:
    found = candidates(SHIPPED.values(), answers_of(device("zts_3008_ws_n01", "", 3)), unit_id=3, setting=None)
    assert [(c.profile.id, c.score) for c in found[:2]] == [("rs_ws_n01", 100), ("zts_3008_ws_n01", 100)]
    assert [c.reasons[0] for c in found[:2]] == [
        Reason(sign=Sign.PROFILE_TOO, name="zts_3008_ws_n01"),
        Reason(sign=Sign.PROFILE_TOO, name="rs_ws_n01"),
    ]
    assert all(c.reasons for c in found)


@pytest.mark.parametrize(("lang", "wanted"), [("en", EN), ("zh", ZH)])
def test_every_candidate_that_is_printed_has_its_reasons(lang: str, wanted: Callable[..., str]) -> None:
    answers = answers_of(device("zts_3008_ws_n01", "", 3))
    unit = FoundUnit(
        unit_id=3,
        setting=None,
        hello="holding 0 = 655",
        tally=Tally(),
        candidates=candidates(SHIPPED.values(), answers, unit_id=3, setting=None),
    )
    assert unit.candidates is not None
    lines = [line.strip() for line in unit_lines(unit, wanted)]
    heads = [at for at, line in enumerate(lines) if " %  " in line]
    assert len(heads) == 4
    for at, end, candidate in zip(heads, [*heads[1:], len(lines)], unit.candidates, strict=False):
        said = [say_reason(reason, wanted) for reason in candidate.reasons if reason.is_telling]
        assert said
        assert [line for line in lines[at:end] if line in said] == said[: 4 if candidate is not unit.best else None]
