"""Alarm rules: limits, deadband, delays, bad quality, silence. Tables with a fake clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.edge.alarms.rules import (
    Condition,
    Kind,
    Level,
    Rule,
    Side,
    Track,
    evaluate,
    evaluate_quality,
    evaluate_silence,
    hold,
    quiet,
    resume,
    worst,
)
from sitewarden.words import ClockState, Instant, Quality, Reading

HI = Level(kind=Kind.HI, limit=75, deadband=2, priority=3, on_delay_s=10, off_delay_s=20)
HIHI = Level(kind=Kind.HIHI, limit=85, deadband=2, priority=2, on_delay_s=5, off_delay_s=20)
NO_DELAY = {"on_delay_s": 0.0, "off_delay_s": 0.0}


def rule(*levels: Level, side: Side = Side.HIGH) -> Rule:
    return Rule(
        id=f"a.b.c.{side}", point="a.b.c", area="a", side=side, name="n", name_en="n", unit="%RH", levels=levels
    )


def reading(value: float | None, at_s: float, quality: Quality = Quality.GOOD) -> Reading:
    at = Instant(utc_ms=round(at_s * 1000), mono_s=at_s, boot="b", clock=ClockState.SYNCED)
    return Reading(point="a.b.c", value=value, quality=Quality.BAD if value is None else quality, why="", at=at)


def active(condition: Condition) -> list[bool]:
    return [track.active for track in condition]


# (seconds, value | "bad" | None: time passes), then what is expected to be active
Script = Sequence[tuple[float, float | str | None, bool]]


def play(of: Rule, script: Script, start: Condition | None = None) -> None:
    condition = quiet(of) if start is None else start
    for at_s, what, wanted in script:
        seen = None if what is None else reading(None if what == "bad" else float(what), at_s)
        condition = evaluate(of, condition, seen, at_s)
        assert active(condition)[0] is wanted, f"at {at_s} s, {what}: {condition}"


HIGH = rule(replace(HI, **NO_DELAY))
LOW = rule(Level(kind=Kind.LO, limit=19.5, deadband=0.5, priority=2), side=Side.LOW)


@pytest.mark.parametrize(
    ("of", "value", "was", "now"),
    [
        (HIGH, 74.9, False, False),
        (HIGH, 75.0, False, True),  # the limit itself is reached
        (HIGH, 75.1, False, True),
        (HIGH, 74.9, True, True),  # within the deadband it stays
        (HIGH, 73.0, True, True),  # limit - deadband itself is not past
        (HIGH, 72.9, True, False),
        (HIGH, 73.0, False, False),  # the deadband does not shift the activation
        (HIGH, float("inf"), False, True),
        (HIGH, float("nan"), True, True),  # nothing is said about a number that is none
        (HIGH, float("nan"), False, False),
        (LOW, 19.6, False, False),
        (LOW, 19.5, False, True),
        (LOW, 20.0, True, True),
        (LOW, 20.1, True, False),
        (LOW, -5.0, False, True),
    ],
)
def test_limit_and_deadband(of: Rule, value: float, was: bool, now: bool):
    condition = evaluate(of, (Track(active=was),), reading(value, 1), 1)
    assert active(condition) == [now]


def test_uncertain_values_count():
    assert active(evaluate(HIGH, quiet(HIGH), reading(80, 1, Quality.UNCERTAIN), 1)) == [True]


def test_on_delay():
    play(rule(HI), [(0, 76, False), (9.9, 76, False), (10, 76, True)])
    play(rule(HI), [(0, 76, False), (9.9, None, False), (10, None, True)])  # without a reading too
    play(rule(HI), [(0, 76, False), (9, 74, False), (10, 76, False), (19, None, False), (20, None, True)])


def test_off_delay():
    on = (Track(active=True),)
    play(rule(HI), [(0, 70, True), (19.9, 70, True), (20, 70, False)], on)
    play(rule(HI), [(0, 70, True), (20, None, False)], on)
    play(rule(HI), [(0, 70, True), (19, 74, True), (20, 70, True), (39, None, True), (40, None, False)], on)


def test_a_value_inside_the_deadband_begins_no_off_delay():
    play(rule(HI), [(0, 74, True), (100, None, True), (100, 73, True), (500, None, True)], (Track(active=True),))


def test_bad_quality_freezes_a_delay():
    """Seconds in bad quality do not count, neither towards on nor towards off; the others go on counting."""
    play(rule(HI), [(0, 76, False), (4, "bad", False), (5, "bad", False), (60, None, False), (104, 76, False)])
    play(
        rule(HI),
        [(0, 76, False), (4, "bad", False), (104, 76, False), (109.9, None, False), (110, None, True)],
    )
    on = (Track(active=True),)
    play(rule(HI), [(0, 70, True), (5, "bad", True), (500, None, True), (505, 70, True), (519.9, None, True)], on)
    play(rule(HI), [(0, 70, True), (5, "bad", True), (505, 70, True), (520, None, False)], on)


def test_after_bad_quality_the_first_value_decides():
    play(rule(HI), [(0, 76, False), (9, "bad", False), (99, 70, False), (100, 76, False), (109, None, False)])
    play(rule(HI), [(0, 70, True), (19, "bad", True), (99, 76, True), (500, None, True)], (Track(active=True),))


def test_bad_quality_neither_clears_nor_raises():
    for was in (True, False):
        play(HIGH, [(t, "bad", was) for t in range(100)], (Track(active=was),))


def test_hold_is_bad_quality_without_a_reading():
    condition = evaluate(rule(HI), quiet(rule(HI)), reading(76, 0), 0)
    held = hold(hold(condition, 4), 50)
    assert active(evaluate(rule(HI), held, None, 1000)) == [False]
    again = evaluate(rule(HI), held, reading(76, 1004), 1004)
    assert active(evaluate(rule(HI), again, None, 1009.9)) == [False]
    assert active(evaluate(rule(HI), again, None, 1010)) == [True]


def test_levels_have_their_own_delays():
    both = rule(HI, HIHI)
    condition = evaluate(both, quiet(both), reading(90, 0), 0)
    assert worst(both, condition) is None
    condition = evaluate(both, condition, None, 5)
    assert worst(both, condition) is HIHI  # 5 s before hi
    condition = evaluate(both, condition, None, 10)
    assert active(condition) == [True, True]
    condition = evaluate(both, condition, reading(80, 11), 11)
    condition = evaluate(both, condition, None, 31)
    assert worst(both, condition) is HI


def test_resume_goes_on_with_what_was_committed():
    both = rule(HI, HIHI)
    assert resume(both, None) == quiet(both)
    assert active(resume(both, Kind.HI)) == [True, False]
    assert active(resume(both, Kind.HIHI)) == [True, True]
    assert worst(rule(HI), resume(rule(HI), Kind.HIHI)) is HI  # the level is gone from the configuration


QUALITY = rule(Level(kind=Kind.QUALITY, limit=0, priority=3, on_delay_s=30), side=Side.QUALITY)
STALE = rule(Level(kind=Kind.STALE, limit=180, priority=3), side=Side.STALE)


def test_the_quality_alarm():
    condition = quiet(QUALITY)
    script: list[tuple[float, Reading | None, bool]] = [
        (0, reading(None, 0), False),
        (29, None, False),
        (29.5, reading(1, 29.5), False),  # a good one between
        (30, reading(None, 30), False),
        (60, None, True),  # also when nothing came any more
        (61, reading(None, 61), True),
        (62, reading(1, 62, Quality.UNCERTAIN), False),
    ]
    for at_s, seen, wanted in script:
        condition = evaluate_quality(QUALITY, condition, seen, at_s)
        assert active(condition) == [wanted], at_s


@pytest.mark.parametrize(
    ("was", "silent_s", "bad", "heard", "now"),
    [
        (False, 179.9, False, True, False),
        (False, 180.0, False, True, True),
        (False, 180.0, False, False, True),  # nothing since the start
        (False, 999.0, True, True, False),  # known to be bad: the quality alarm's matter
        (True, 0.0, False, True, False),
        (True, 0.0, True, True, False),
        (True, 0.0, False, False, True),  # after a restart: only a reading ends a silence
        (True, 999.0, False, True, True),
    ],
)
def test_the_stale_alarm(was: bool, silent_s: float, bad: bool, heard: bool, now: bool):
    before = (Track(active=was),)
    after = evaluate_silence(STALE, before, last_s=1000, now_s=1000 + silent_s, bad=bad, heard=heard)
    assert active(after) == [now]


steps = st.lists(
    st.tuples(st.floats(0, 30), st.one_of(st.none(), st.just("bad"), st.sampled_from([70, 72.9, 73, 74, 75, 80]))),
    max_size=60,
)


@given(steps, st.booleans())
def test_a_change_needs_its_delay_of_good_time(script: list[tuple[float, float | str | None]], was: bool):
    """Against an independent model: opposite seen without a break for the delay, bad stretches not counted."""
    of, condition = rule(HI), (Track(active=was),)
    now_s, on, counted, counting, bad = 0.0, was, 0.0, False, False
    for passed_s, what in script:
        now_s += passed_s
        counted += 0 if bad else passed_s
        seen = None if what is None else reading(None if what == "bad" else float(what), now_s)
        condition = evaluate(of, condition, seen, now_s)
        if what == "bad":
            bad = True
        elif what is not None:
            bad = False
            opposite = float(what) < 73 if on else float(what) >= 75
            counted = counted if counting and opposite else 0.0
            counting = opposite
        delay_s = HI.off_delay_s if on else HI.on_delay_s
        if counting and not bad and counted >= delay_s + 1e-6:
            on, counting, counted = not on, False, 0.0
        elif counting and not bad and abs(counted - delay_s) <= 1e-6:
            return  # a tie that rounding decides
        assert active(condition) == [on]
