"""Which kind of device answers: what to read, and how well the answers fit a profile and its variants. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..words import Quality
from .decoding import decode, decode_text, lowest_bit
from .layout import Block, Register, Table
from .profile import Check, Profile
from .registers import plan

Answers = Mapping[Block, Sequence[int] | str]
"""The words (bits as 0/1) of each block of `identify_reads`, or the reason why there are none (`timeout` ...)."""

# A number that could be a measurement proves little, a register that says who the device is proves much.
EMPTY = 0.25  # of a value whose registers are all 0
DUST = 1e-6  # floats below it come of words in the wrong order
PLAIN_ONLY = 0.5  # most that numbers alone can score
CONTRADICTED = 0.1  # what is left of a score when something decisive is not as it must be
STRANGE = frozenset(
    {"out_of_range", "unknown_state", "unknown_unit", "bad_decimals", "bad_bcd", "bad_digits", "not_a_number"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How well a device fits a profile.

    Attributes:
        score: 0 (another device, or silent) .. 1. Numbers that merely look plausible make 0.5 at most.
        reasons: for a person, one line each, first what decided.
        variant: id of the variant that fits best, "" for the profile itself.
    """

    score: float
    reasons: tuple[str, ...]
    variant: str


def identify_reads(profile: Profile) -> tuple[Block, ...]:
    """What to read of a device to see whether it is of this kind, in all variants: values, checks, texts; each once."""
    profiles = (profile, *(v.profile for v in profile.variants))
    found: dict[Block, None] = {}
    for one in profiles:
        blocks = plan(one.registers, max_gap=one.max_gap, max_count=one.max_count)
        found.update(dict.fromkeys(Block(table=b.table, address=b.address, count=b.count) for b in blocks))
    for one in profiles:
        found.update(dict.fromkeys(_place(check) for check in one.checks))
    found.update(dict.fromkeys(Block(table=t.table, address=t.address, count=t.words) for t in profile.texts))
    return tuple(found)


def match(profile: Profile, answers: Answers, unit_id: int | None = None) -> Match:
    """How well what was read fits, in the best variant.

    A tie goes to the one with the factory unit id that it answers to, then to the one that more checks speak for, then
    to the profile itself; the reasons name the others.

    Args:
        unit_id: that the device answers to; without it checks of the unit id are passed over.
    """
    words = _known(answers)
    ways = [("", profile), *((v.id, v.profile) for v in profile.variants)]
    judged = [(name, *_judge(one, words, unit_id)) for name, one in ways]
    order = [(one.defaults.unit_id == unit_id, len(one.checks)) for _, one in ways]
    (variant, score, reasons), _ = max(zip(judged, order, strict=True), key=lambda found: (found[0][1], *found[1]))
    equal = [name or "none" for name, other, _ in judged if other == score and name != variant]
    if equal and score > 0:
        told = [f"{v.id}: {v.tell}" for v in profile.variants if v.id in (*equal, variant)]
        reasons = (*reasons, f"fits variant {', '.join(equal)} as well ({'; '.join(told)})")
    return Match(score=round(score, 3), reasons=(*reasons, *_texts(profile, words)), variant=variant)


def _texts(profile: Profile, words: Mapping[tuple[Table, int], int]) -> Iterator[str]:
    for text in profile.texts:
        found = _words(text.table, text.address, text.words, words)
        if found is not None and (shown := decode_text(found, swapped=text.swapped)):
            yield f"{text.name}: {shown}"


def _place(check: Check) -> Block:
    return Block(table=check.table, address=check.address, count=check.words)


def _known(answers: Answers) -> dict[tuple[Table, int], int]:
    return {
        (block.table, block.address + i): word
        for block, found in answers.items()
        if not isinstance(found, str)
        for i, word in enumerate(found)
    }


def _judge(
    profile: Profile, words: Mapping[tuple[Table, int], int], unit_id: int | None
) -> tuple[float, tuple[str, ...]]:
    plain = [_value(register, words) for register in profile.registers]
    if not any(answered for _, _, answered in plain):
        return 0.0, ("no value could be read",)
    telling = [_check(check, words, unit_id) for check in profile.checks if unit_id or not check.is_unit_id]
    fits = sum(weight for weight, _, _ in plain) / len(plain)
    score = PLAIN_ONLY * fits
    if telling:
        score += (1 - PLAIN_ONLY) * sum(right for right, _, _ in telling) / len(telling)
    if any(decisive and not right for right, _, decisive in telling):
        score *= CONTRADICTED
    return score, (*(text for _, text, _ in telling), *(text for _, text, _ in plain))


def _check(check: Check, words: Mapping[tuple[Table, int], int], unit_id: int | None) -> tuple[bool, str, bool]:
    """(right, reason, decisive); a place that does not answer is wrong, but decides nothing."""
    where = f"{check.table} 0x{check.address:04X}, {check.note}"
    found = _words(check.table, check.address, check.words, words)
    if found is None:
        return False, f"{where}: no answer", False
    if check.text:
        shown = decode_text(found)
        right = re.fullmatch(check.text, shown) is not None
        return right, f"{where}: {shown!r} {_verdict(right)}", check.decisive
    number = (found[0] & check.mask) >> lowest_bit(check.mask)
    if check.is_unit_id:
        right = number == unit_id
    elif check.values:
        right = number in check.values
    else:
        right = check.low is not None and check.high is not None and check.low <= number <= check.high
    return right, f"{where}: {number} {_verdict(right)}", check.decisive


def _verdict(right: bool) -> str:
    return "fits" if right else "does not fit"


def _value(register: Register, words: Mapping[tuple[Table, int], int]) -> tuple[float, str, bool]:
    """(0..1, reason, answered) of one value."""
    found = _words(register.table, register.first, register.end - register.first, words)
    if found is None:
        return 0.0, f"{register.name}: no answer", False
    decoded = decode(register, found)
    if decoded.quality is Quality.BAD and decoded.why in STRANGE:
        return 0.0, f"{register.name}: {decoded.why}", True
    if register.type.is_float and decoded.value is not None and 0 < abs(decoded.value) < DUST:
        return 0.0, f"{register.name}: {decoded.value:g} is too small to be measured", True
    shown = decoded.why if decoded.value is None else f"{decoded.value:g}"
    if not any(found) and not register.table.is_bits:
        return EMPTY, f"{register.name}: all registers are 0, which says little", True
    return 1.0, f"{register.name}: {shown} is plausible", True


def _words(table: Table, address: int, count: int, words: Mapping[tuple[Table, int], int]) -> list[int] | None:
    found = [words.get((table, a)) for a in _span(address, count)]
    return None if None in found else [word for word in found if word is not None]


def _span(address: int, count: int) -> Iterable[int]:
    return range(address, address + count)
