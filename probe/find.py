"""Who is on a wire: whom to ask at which settings, which profile fits what they answer, and the lines for site.toml.

Pure. `identify` judges each profile. Those of the same score are put in order by bits: how seldom random words would
decode as well. A pressure whose unit code and decimals fit says much, two small numbers little.
"""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..console.language import Say
from ..console.words import reason_text
from ..sensors.buses import BusKind, BusSpec
from ..sensors.identify import Answers, Match, Reason, identify_reads, match, name_lookalikes
from ..sensors.profile import Label, Profile
from ..sensors.registers import Block, Register, Table, decode
from ..words import Quality
from .interpret import Advice, Tally
from .words import ALL

HELLO_FIRST_UNITS = range(1, 21)
AUTO_BAUDS = (9600, 4800, 19200, 2400, 115200, 38400)
PARITIES = ("N", "E", "O")
WORTH_SHOWING = 25
POLL_S = 5.0
GOOD_ENOUGH = 40

# --- whom to ask ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a serial line is set."""

    baud: int
    parity: str
    stopbits: int = 1

    def __str__(self) -> str:
        return f"{self.baud} 8{self.parity}{self.stopbits}"


def settings(bauds: Sequence[int], parities: Sequence[str], stopbits: int = 1) -> tuple[Setting, ...]:
    """Every baud at the first parity, then at the next: few devices leave the factory with a parity bit."""
    return tuple(Setting(baud=b, parity=p, stopbits=stopbits) for p in parities for b in bauds)


def likely_units(catalogue: Mapping[str, Profile]) -> tuple[int, ...]:
    """1 to 20 and every address that a device of the catalogue leaves its factory with; those first."""
    factory = sorted({profile.defaults.unit_id for profile in catalogue.values()})
    return tuple(dict.fromkeys((*factory, *HELLO_FIRST_UNITS)))


# --- who it is ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What one register of a profile would mean with the words that came; `value` is None when it means nothing."""

    label: Label
    value: float | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A profile that may be the device's.

    Attributes:
        variant: of the profile; "" for the profile itself.
        score: 0..100, see `identify.Match`.
        bits: how unlikely it is that random words would decode as well; between equal scores it decides.
        reasons: the weightiest first.
    """

    profile: Profile
    variant: str
    score: int
    bits: float
    reasons: tuple[Reason, ...]
    values: tuple[Value, ...]


def reads_of(profiles: Collection[Profile]) -> tuple[Block, ...]:
    """What tells which of them a device is, each once."""
    return tuple(dict.fromkeys(block for profile in profiles for block in identify_reads(profile)))


def is_needless(block: Block, answers: Answers) -> bool:
    """Whether the answers so far say what `block` would bring: all of its words, or the refusal of one of them."""
    table = block.table
    wanted = set(range(block.address, block.address + block.count))
    for asked, answer in answers.items():
        if asked.table is not table:
            continue
        if not isinstance(answer, str):
            wanted -= set(range(asked.address, asked.address + asked.count))
        elif answer == "exception_1" or (answer == "exception_2" and asked.count == 1 and asked.address in wanted):
            return True  # the function is not known, or the address is not there
    return not wanted


def candidates(
    profiles: Collection[Profile], answers: Answers, *, unit_id: int, setting: Setting | None
) -> tuple[Candidate, ...]:
    """Profiles that fit by half or so, the best first."""
    found = name_lookalikes({profile.id: match(profile, answers, unit_id) for profile in profiles})
    judged = (_judge(profile, found[profile.id], answers, unit_id, setting) for profile in profiles)
    return tuple(
        sorted((c for c in judged if c.score >= WORTH_SHOWING), key=lambda c: (-c.score, -c.bits, c.profile.id))
    )


def _judge(profile: Profile, found: Match, answers: Answers, unit_id: int, setting: Setting | None) -> Candidate:
    mapped = next((v.profile for v in profile.variants if v.id == found.variant), profile)
    words = _words(answers)
    values: list[Value] = []
    bits = _factory_bits(mapped, unit_id, setting)
    for register, label in zip(mapped.registers, mapped.labels, strict=True):
        held = [words.get((register.table, address)) for address in range(register.first, register.end)]
        known = [word for word in held if word is not None]
        if len(known) < len(held):
            values.append(Value(label=label, value=None, why="no_answer"))
            continue
        decoded = decode(register, known)
        values.append(Value(label=label, value=decoded.value, why=decoded.why))
        if decoded.quality is not Quality.BAD and any(known):
            bits += _bits_of(register)
    return Candidate(
        profile=profile,
        variant=found.variant,
        score=round(100 * found.score),
        bits=bits,
        reasons=found.reasons,
        values=tuple(values),
    )


def _words(answers: Answers) -> dict[tuple[Table, int], int]:
    return {
        (block.table, block.address + i): word
        for block, found in answers.items()
        if not isinstance(found, str)
        for i, word in enumerate(found)
    }


def _factory_bits(profile: Profile, unit_id: int, setting: Setting | None) -> float:
    """Factory settings say a little: nearly every device begins as unit 1, many at 9600."""
    own = profile.defaults
    bits = 1.0 if unit_id == own.unit_id != 1 else 0.0
    is_factory_line = setting is not None and (setting.baud, setting.parity) == (own.baud, own.parity)
    return bits + (1.0 if is_factory_line else 0.0)


_TRIES = 512


@functools.lru_cache(maxsize=1024)
def _bits_of(register: Register) -> float:
    """How unlikely it is that random words decode to a good value, in bits, at most 9."""
    chance = random.Random(1)  # noqa: S311 - the same for everybody
    span = register.end - register.first
    top = 1 if register.table.is_bits else 0xFFFF
    good = sum(
        decode(register, [chance.randint(0, top) for _ in range(span)]).quality is Quality.GOOD for _ in range(_TRIES)
    )
    return -math.log2((good + 1) / (_TRIES + 1))


# --- what was found ---


@dataclass(slots=True, kw_only=True)
class FoundUnit:
    """A unit that answered.

    Attributes:
        setting: of the line when it did; None for Modbus TCP.
        hello: `holding 0 = 583`, or the exception that was the answer.
        device: `area.device` when the running gateway has it already.
        candidates: None until it was asked who it is.
    """

    unit_id: int
    setting: Setting | None
    hello: str
    tally: Tally
    device: str = ""
    candidates: tuple[Candidate, ...] | None = None

    @property
    def best(self) -> Candidate | None:
        """The candidate for site.toml: nothing contradicts it much, and nothing else fits as well."""
        fits = [c for c in self.candidates or () if c.score >= GOOD_ENOUGH]
        return fits[0] if fits else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SnippetPlace:
    """Where the lines go.

    Attributes:
        area: an `[[area]]` of the site.
        bus: id of the bus; `with_bus`: the `[[bus]]` table is written too.
        taken: ids of devices that the site has.
    """

    area: str
    bus: str
    with_bus: bool
    taken: frozenset[str] = frozenset()


def main_setting(units: Sequence[FoundUnit]) -> Setting | None:
    """The setting at which most units answered; the first of equals."""
    seen = [unit.setting for unit in units if unit.setting is not None]
    return max(dict.fromkeys(seen), key=seen.count, default=None)


def snippet(spec: BusSpec, units: Sequence[FoundUnit], place: SnippetPlace, advice: Advice | None, tr: Say) -> str:
    """Lines to append to a site.toml: one `[[bus]]`, and a `[[device]]` for each unit that is new and known."""
    setting = main_setting(units)
    lines = [*_bus_lines(spec, place, setting, advice, tr), ""] if place.with_bus else []
    taken = set(place.taken)
    for unit in units:
        if unit.device:
            lines += [f"# {tr('unit_is', unit.unit_id, unit.device)}", ""]
        elif spec.kind is BusKind.RTU and unit.setting != setting:
            lines += [f"# {tr('unit_elsewhere', unit.unit_id, unit.setting, setting)}", ""]
        elif unit.candidates is None:
            lines += [f"# {tr('unit_not_asked', unit.unit_id)}", ""]
        elif unit.best is None:
            look = f"sitewarden probe read --unit {unit.unit_id} --holding 0"
            near = ", ".join(f"{c.profile.id} {c.score} %" for c in unit.candidates[:4])
            lines += [f"# {tr('unit_unknown', unit.unit_id, look)}{tr('nearest', near) if near else ''}", ""]
        else:
            lines += [*_device_lines(unit, unit.best, place, taken, tr), ""]
    return "\n".join(lines)


def _bus_lines(
    spec: BusSpec, place: SnippetPlace, setting: Setting | None, advice: Advice | None, tr: Say
) -> list[str]:
    lines = ["[[bus]]", f"id = {_text(place.bus)}", f"kind = {_text(spec.kind)}"]
    if spec.kind is BusKind.RTU and setting is not None:
        lines += [f"serial = {_text(spec.serial)}", f"baud = {setting.baud}", f"parity = {_text(setting.parity)}"]
        lines += [f"stopbits = {setting.stopbits}"]
    else:
        lines += [f"host = {_text(spec.host)}", f"port = {spec.port}"]
    if advice is None:
        return lines
    timeout_ms = max(advice.timeout_ms, _LEAST_TIMEOUT_MS)
    lines.append(f"timeout_ms = {timeout_ms}")
    if spec.kind.is_rtu:
        late_ms = max(advice.late_max_ms or 0, _SAFE_LATE_MS, timeout_ms)
        lines.append(f"late_max_ms = {late_ms}   # {tr('measure_it')}")
    return lines


_LEAST_TIMEOUT_MS = 300  # a scan asks each unit a few times only
_SAFE_LATE_MS = 1500  # the default of site.toml


def _device_lines(unit: FoundUnit, best: Candidate, place: SnippetPlace, taken: set[str], tr: Say) -> list[str]:
    name = base = f"{place.bus}_unit{unit.unit_id}"[:36]
    number = 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    values = tr("comma").join(shown(v, tr) for v in best.values if v.value is not None)
    others = ", ".join(f"{c.profile.id} {c.score} %" for c in (unit.candidates or ())[:4] if c is not best)
    return [
        f"[[device]]   # {values}",
        f"id = {_text(name)}   # {tr('name_it')}",
        f"area = {_text(place.area)}   # {tr('where_it_hangs')}",
        f"bus = {_text(place.bus)}",
        f"unit_id = {unit.unit_id}",
        f"profile = {_text(best.profile.id)}   # {best.score} %" + (tr("also_possible", others) if others else ""),
        *([f"variant = {_text(best.variant)}"] if best.variant else []),
        f"poll_s = {min(POLL_S, best.profile.longest_poll_s)}",
    ]


def shown(value: Value, tr: Say) -> str:
    """`湿度 humidity 58.3 %RH`, or why there is no value."""
    label = value.label
    number = (
        f"({reason_text(value.why, tr, ALL)})"
        if value.value is None
        else f"{value.value:.{label.decimals}f} {label.unit}".rstrip()
    )
    return f"{label.name_zh} {label.name_en} {number}"


def _text(text: str) -> str:
    """A TOML basic string; what JSON escapes, TOML does too."""
    return json.dumps(text, ensure_ascii=False)


@dataclass(slots=True, kw_only=True)
class ScanResult:
    """What a scan has found so far.

    Attributes:
        garbled: units whose place in the scan brought bytes that were no reply, with the setting.
        answers_all: every unit id brings the same answer: one device that does not look at it.
        ended: the scan came to its end.
    """

    units: list[FoundUnit] = field(default_factory=list[FoundUnit])
    garbled: list[tuple[int, Setting | None]] = field(default_factory=list[tuple[int, "Setting | None"]])
    answers_all: bool = False
    ended: bool = False
