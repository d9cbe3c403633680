"""What the alarm rules cost a reading, beside a bare comparison of the same value with the same four limits.

10,000 points with four limits each (lolo, lo, hi, hihi), and their silence and quality alarms; one reading of each per
round, all in the same process and taking turns. CPU of this thread; the fastest round counts, and ratios are medians
over rounds. The other rows add what a reading then has to pass as well.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from meter import Goals, columns, ratio_rows
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alarms.sources import Deviation, Discrete, Frozen, Rate
from sitewarden.sync.journal import Draft
from sitewarden.words import Instant, Quality, Reading

POINTS = 10_000
ROUNDS = 15
LIMITS = (10.0, 20.0, 80.0, 90.0)
KINDS = (Kind.LOLO, Kind.LO, Kind.HI, Kind.HIHI)


def at(seconds: float) -> Instant:
    return Instant(utc_ms=1_795_000_000_000 + round(seconds * 1000), mono_s=seconds, boot="b")


def rule(point: str, side: Side, *levels: Level) -> Rule:
    return Rule(id=f"{point}.{side}", point=point, area="a", side=side, name="", name_en="", unit="", levels=levels)


def with_limits(index: int) -> list[Rule]:
    """Four limits, silence and quality, as a site.toml gives them."""
    point = f"a.d{index}.x"
    lolo, lo, hi, hihi = (
        Level(kind=kind, limit=limit, deadband=0.5, priority=2, on_delay_s=60, off_delay_s=60)
        for kind, limit in zip(KINDS, LIMITS, strict=True)
    )
    return [
        rule(point, Side.HIGH, hi, hihi),
        rule(point, Side.LOW, lo, lolo),
        rule(point, Side.STALE, Level(kind=Kind.STALE, limit=180, priority=3)),
        rule(point, Side.QUALITY, Level(kind=Kind.QUALITY, limit=0, priority=3, on_delay_s=30)),
    ]


def with_frozen(index: int) -> list[Rule]:
    rules = with_limits(index)
    level = Level(kind=Kind.FROZEN, limit=3600, priority=3)
    own = rule(rules[0].point, Side.FROZEN, level)
    return [*rules, replace(own, source=Frozen(after_s=3600, gap_s=180))]


def with_rate(index: int) -> list[Rule]:
    rules = with_limits(index)
    own = rule(rules[0].point, Side.ROC, Level(kind=Kind.ROC, limit=1e6, priority=3))
    return [*rules, replace(own, source=Rate())]


def with_all(index: int) -> list[Rule]:
    """Standstill, rate, deviation from the point before, states."""
    rules = [*with_frozen(index), with_rate(index)[-1]]
    point, ref = rules[0].point, f"a.d{(index - 1) % POINTS}.x"
    deviation = rule(point, Side.DEVIATION, Level(kind=Kind.DEVIATION, limit=1e6, priority=3))
    discrete = rule(point, Side.DISCRETE, Level(kind=Kind.DISCRETE, limit=0, priority=3))
    return [*rules, replace(deviation, source=Deviation(ref=ref)), replace(discrete, source=Discrete(on=(1.5,)))]


@dataclass
class Rules:
    """An engine, and time that passes from round to round."""

    make: Callable[[int], list[Rule]]
    now_s: float = 0.0
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = Engine([one for i in range(POINTS) for one in self.make(i)], {}, at(0))

    def __call__(self, readings: Sequence[Reading]) -> None:
        self.now_s += 1
        drafts: list[Draft] = []
        self.engine.read_all(readings, at(self.now_s), drafts)
        if drafts:
            raise SystemExit("an ordinary value raised an alarm: this measures something else")


def bare(readings: Sequence[Reading]) -> None:
    """What any Python needs at least: the value of each reading against four numbers."""
    lolo, lo, hi, hihi = LIMITS
    for reading in readings:
        value = reading.value
        if value is not None and (value >= hi or value >= hihi or value <= lo or value <= lolo):
            raise SystemExit("an ordinary value reached a limit")


def alarming(engine: Engine) -> Iterator[float]:
    """Microseconds that each of 300 readings takes which raise an alarm of their own."""
    for index in range(300):
        now = at(10_000 + index / 1000)
        reading = Reading(point=f"a.d{index}.x", value=99.0, quality=Quality.GOOD, at=now)
        began = time.thread_time()
        engine.read(reading, now)
        yield (time.thread_time() - began) * 1e6


def measure(subjects: dict[str, Callable[[Sequence[Reading]], None]]) -> dict[str, list[float]]:
    """Microseconds a reading, for each subject in each round."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    values = random.Random(1)
    for _ in range(ROUNDS):
        readings = [
            Reading(point=f"a.d{i}.x", value=values.uniform(40, 60), quality=Quality.GOOD, at=at(0))
            for i in range(POINTS)
        ]
        for name, subject in subjects.items():
            began = time.thread_time()
            subject(readings)
            found[name].append((time.thread_time() - began) / POINTS * 1e6)
    return found


def main() -> None:
    """Print what a reading costs, then the goals."""
    goals = Goals()
    limits = Rules(with_limits)
    subjects = {
        "bare comparison with 4 limits": bare,
        "rules: 4 limits, silence, quality": limits,
        "the same and standstill": Rules(with_frozen),
        "the same and rate of change": Rules(with_rate),
        "every kind": Rules(with_all),
    }
    found = measure(subjects)
    ratios = ratio_rows(found, "bare comparison with 4 limits")
    rows = [(name, f"{min(us):.3f}", f"{ratios[name]:.1f}") for name, us in found.items()]
    columns(f"A reading that changes nothing, {POINTS} points", ("", "us", "x bare"), rows)
    began = time.thread_time()
    limits.engine.tick(at(limits.now_s + 0.5))
    tick_ms = (time.thread_time() - began) * 1e3
    raised = sorted(
        alarming(Rules(lambda index: [replace(one, levels=_at_once(one)) for one in with_limits(index)]).engine)
    )
    columns(
        "Beside it",
        ("", "median", "p99"),
        [
            (f"tick over {POINTS} quiet points, ms", f"{tick_ms:.2f}", "-"),
            ("a reading that raises an alarm, us", f"{raised[150]:.0f}", f"{raised[297]:.0f}"),
        ],
    )
    goals.most("a reading through 4 limits", min(found["rules: 4 limits, silence, quality"]), 5, " us")
    goals.most("a reading through every kind", min(found["every kind"]), 20, " us")
    goals.print()


def _at_once(one: Rule) -> tuple[Level, ...]:
    return tuple(replace(level, on_delay_s=0.0) for level in one.levels)


if __name__ == "__main__":
    main()
