"""Which kind of device answers: what to read, and how well the answers fit a profile and its variants. Pure.

`evidence` says how much each check and each value tells; here they become a score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .decoding import decode_text
from .evidence import Found, Heard, Reason, Sign, heard, judge_check, judge_value, number_bits
from .layout import Block
from .profile import Check, Profile
from .registers import plan

__all__ = ["Answers", "Match", "Reason", "Sign", "identify_reads", "match", "name_lookalikes"]

Answers = Mapping[Block, Sequence[int] | str]
"""The words (bits as 0/1) of each block of `identify_reads`, or the reason why there are none (`timeout` ...)."""

NUMBERS_ONLY = 0.5  # most that numbers alone can score
ANSWERED = 0.55  # what is left of it when the numbers could be anything
ENOUGH_NUMBERS = 10.0  # bits of numbers that need no more: one device in a thousand has such numbers by chance
ENOUGH_CHECKS = 4.5  # bits of checks that need no more: a unit id has 4.6
DIFFERENT = 0.6  # what is left of a score for each place that holds something else than it should
UNREADABLE = 0.4  # ... when a value cannot be read: such a device could not be polled
UNMEASURED = 0.6  # ... when every value is 0
BABBLE = 0.3  # ... when the device has something else than 0 wherever it is asked
CONTRADICTED = 0.1  # ... when something decisive is not as it must be
BABBLE_SHARE = 0.35  # of the registers that no value or check of the profile is in
BABBLE_LEAST = 30  # such registers must have been asked for, or nobody can tell

_AGAINST = frozenset(
    {
        Sign.MUST_DIFFER,
        Sign.REFUSED,
        Sign.DIFFERS,
        Sign.STRANGE,
        Sign.DUST,
        Sign.NO_ANSWER,
        Sign.NO_LOOP,
        Sign.BABBLE,
    }
)
_RANK = {
    sign: rank
    for rank, signs in enumerate(
        (
            (Sign.MUST_DIFFER, Sign.REFUSED),
            (Sign.NO_ANSWER,),
            (Sign.DIFFERS,),
            (Sign.STRANGE, Sign.DUST, Sign.NO_LOOP),
            (Sign.FITS,),
            (Sign.UNREAD,),
            (Sign.IDLE, Sign.ZERO, Sign.SMALL),
            (Sign.PLAUSIBLE,),
        )
    )
    for sign in signs
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How well a device fits a profile.

    Attributes:
        score: 0 (another device, or silent) .. 1. Numbers that merely look plausible make 0.5 at most.
        reasons: what speaks against it, then for it, the weightiest first.
        variant: id of the variant that fits best, "" for the profile itself.
    """

    score: float
    reasons: tuple[Reason, ...]
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
    said, babbles = heard(answers), _babbles(profile, answers)
    ways = [("", profile), *((v.id, v.profile) for v in profile.variants)]
    judged = {name: _judge(one, said, unit_id, babbles=babbles) for name, one in ways}
    order = {name: (one.defaults.unit_id == unit_id, len(one.checks)) for name, one in ways}
    variant = max(judged, key=lambda name: (judged[name].fit, *order[name]))
    best = judged[variant]
    equal = [name for name, other in judged.items() if other.fit == best.fit and name != variant]
    ties = _ties(profile, variant, equal) if best.score > 0 else ()
    return Match(score=round(best.score, 3), reasons=(*best.reasons, *ties, *_texts(profile, said)), variant=variant)


def name_lookalikes(matches: Mapping[str, Match]) -> dict[str, Match]:
    """Of several profiles, by id: each that nothing speaks against names those which fit exactly as well."""
    alike: dict[int, list[str]] = {}
    for name, found in matches.items():
        if found.score > 0 and _AGAINST.isdisjoint(reason.sign for reason in found.reasons):
            alike.setdefault(round(100 * found.score), []).append(name)
    named = {name: ", ".join(n for n in group if n != name) for group in alike.values() for name in group}
    return {
        name: replace(found, reasons=(Reason(sign=Sign.PROFILE_TOO, name=others), *found.reasons))
        if (others := named.get(name))
        else found
        for name, found in matches.items()
    }


def _ties(profile: Profile, variant: str, equal: Sequence[str]) -> Iterator[Reason]:
    """The other variants that fit as well, with how to tell; of the profile itself with that of the one taken."""
    tells = {v.id: (v.tell, v.tell_zh) for v in profile.variants}
    for name in equal:
        note, note_zh = tells.get(name) or tells[variant]
        yield Reason(sign=Sign.VARIANT_TOO, name=name, note=note, note_zh=note_zh)


def _texts(profile: Profile, said: Heard) -> Iterator[Reason]:
    for text in profile.texts:
        found = said.read(text.table, text.address, text.words)
        if found is not None and (shown := decode_text(found, swapped=text.swapped)):
            yield Reason(sign=Sign.TEXT, name=text.name, shown=shown)


def _place(check: Check) -> Block:
    return Block(table=check.table, address=check.address, count=check.words)


def _babbles(profile: Profile, answers: Answers) -> bool:
    """Whether the device has something wherever it is asked, as simulators and some converters do."""
    own = {b.address + i for b in identify_reads(profile) for i in range(b.count)}
    words = heard(answers).words
    held: dict[int, bool] = {}  # by address: the same registers in two tables are one
    for block in (block for block in answers if not block.table.is_bits):
        for address in set(range(block.address, block.address + block.count)) - own:
            held[address] = held.get(address, False) or words.get((block.table, address), 0) != 0
    return len(held) >= BABBLE_LEAST and sum(held.values()) >= BABBLE_SHARE * len(held)


# --- one variant ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """`fit`: how well it fits, whatever that proves, for a choice between variants; `score`: as `Match`."""

    fit: float
    score: float
    reasons: tuple[Reason, ...]


def _judge(profile: Profile, said: Heard, unit_id: int | None, *, babbles: bool) -> _Verdict:
    values = _values(profile, said)
    if all(found.sign is Sign.NO_ANSWER for found in values):
        return _Verdict(fit=0.0, score=0.0, reasons=(Reason(sign=Sign.NOTHING_READ),))
    numbers = number_bits(profile.registers)
    asked = (check for check in profile.checks if unit_id is not None or not check.is_unit_id)
    checks = [judge_check(check, said, unit_id, numbers) for check in asked]
    telling = [found for found in checks if not found.is_number]
    left = _left([*checks, *values], babbles=babbles)
    fits = NUMBERS_ONLY * sum(found.weight for found in values) / len(values)
    tells = (1 - NUMBERS_ONLY) * _share(telling)
    ordered = sorted((*checks, *values), key=lambda one: (_RANK[one.sign], -one.bits))
    first = (Reason(sign=Sign.BABBLE),) if babbles else ()
    alone = () if telling else (Reason(sign=Sign.ONLY_NUMBERS),)
    return _Verdict(
        fit=left * (fits + tells),
        score=left * (fits * _proof([*values, *checks]) + tells),
        reasons=(*first, *(one.reason for one in ordered), *alone),
    )


def _values(profile: Profile, said: Heard) -> list[Found]:
    pairs = zip(profile.registers, profile.labels, strict=True)
    return [judge_value(r, said, is_loop=profile.takes_channels and label.unit == "mA") for r, label in pairs]


def _left(found: Sequence[Found], *, babbles: bool) -> float:
    """What is left of a score with what speaks against it."""
    signs = [one.sign for one in found]
    left = DIFFERENT ** signs.count(Sign.DIFFERS)
    left *= CONTRADICTED if Sign.MUST_DIFFER in signs or Sign.REFUSED in signs else 1.0
    left *= UNREADABLE if Sign.NO_ANSWER in signs else 1.0
    left *= UNMEASURED if all(one.sign is Sign.ZERO for one in found if one.reason.name) else 1.0
    return left * (BABBLE if babbles else 1.0)


def _proof(found: Sequence[Found]) -> float:
    """`ANSWERED` .. 1: whether the numbers could be anything. Where checks say who it is, they need prove nothing."""
    told = sum(one.bits for one in found if one.sign is Sign.FITS and not one.is_number)
    numbers = sum(one.bits for one in found if one.sign is Sign.PLAUSIBLE or (one.sign is Sign.FITS and one.is_number))
    return ANSWERED + (1 - ANSWERED) * min(1.0, max(numbers / ENOUGH_NUMBERS, told / ENOUGH_CHECKS))


def _share(checks: Sequence[Found]) -> float:
    """0..1: which part of what tells the device from others is right, and whether all of it together tells much."""
    right = sum(found.bits for found in checks if found.sign is Sign.FITS)
    return right / max(sum(found.bits for found in checks), ENOUGH_CHECKS)
