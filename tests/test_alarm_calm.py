"""Most readings change nothing and are not judged: the records are those that judging all of them would make."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.sync.journal import Draft
from sitewarden.words import Instant, Quality, Reading

POINT = "store.th1.humidity"


def level(kind: Kind, limit: float, on_delay_s: float = 0.0, off_delay_s: float = 0.0) -> Level:
    return Level(kind=kind, limit=limit, deadband=2, priority=3, on_delay_s=on_delay_s, off_delay_s=off_delay_s)


def rule(side: Side, *levels: Level) -> Rule:
    return Rule(
        id=f"{POINT}.{side}", point=POINT, area="store", side=side, name="湿度", name_en="", unit="", levels=levels
    )


RULES = (
    rule(Side.HIGH, level(Kind.HI, 75), level(Kind.HIHI, 85, on_delay_s=3)),
    rule(Side.LOW, level(Kind.LO, 20, off_delay_s=4), level(Kind.LOLO, 10)),
    rule(Side.STALE, level(Kind.STALE, 30)),
    rule(Side.QUALITY, level(Kind.QUALITY, 0, on_delay_s=5)),
)
VALUES = (
    50.0,
    73.0,
    72.9,
    74.9,
    75.0,
    80.0,
    83.0,
    82.9,
    84.9,
    85.0,
    90.0,
    22.0,
    22.1,
    20.0,
    15.0,
    12.0,
    12.1,
    10.0,
    5.0,
)
steps = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0, 4.0, 40.0]), st.sampled_from([*VALUES, None, "tick"])), min_size=1, max_size=40
)


class Careful(Engine):
    """Judges every reading, and every rule at every look at the time."""

    def read_all(self, readings: Iterable[Reading], now: Instant, drafts: list[Draft]) -> None:
        self._distrust()
        super().read_all(readings, now, drafts)

    def tick(self, now: Instant) -> list[Draft]:
        self._distrust()
        return super().tick(now)

    def _distrust(self) -> None:
        for watched in self._points.values():
            watched.still = watched.calm = False


def at(seconds: float) -> Instant:
    return Instant(utc_ms=round(1_795_000_000_000 + seconds * 1000), mono_s=seconds, boot="b1")


def history_of(engine: Engine, taken: list[tuple[float, float | str | None]]) -> list[Draft]:
    drafts: list[Draft] = []
    now_s = 0.0
    for passed_s, what in taken:
        now_s += passed_s
        if what == "tick":
            drafts += engine.tick(at(now_s))
            continue
        value = what if isinstance(what, float) else None
        quality = Quality.BAD if value is None else Quality.GOOD
        engine.read_all((Reading(point=POINT, value=value, quality=quality, at=at(now_s)),), at(now_s), drafts)
    return drafts


@settings(max_examples=400, deadline=None)
@given(taken=steps)
def test_a_reading_that_is_not_judged_would_have_changed_nothing(taken: list[tuple[float, float | str | None]]) -> None:
    assert history_of(Engine(RULES, {}, at(0)), taken) == history_of(Careful(RULES, {}, at(0)), taken)


@pytest.mark.parametrize("value", [80.0, 73.0, 15.0, 50.0])
def test_a_point_that_stays_over_its_limit_costs_no_more_than_one_at_rest(value: float) -> None:
    engine = Engine(RULES, {}, at(0))
    history_of(engine, [(1.0, 80.0 if value > 50 else value), (1.0, value), (1.0, "tick")])
    (watched,) = engine._points.values()
    assert watched.calm
    assert watched.low < value < watched.high
