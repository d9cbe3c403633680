"""The bucket of a robot: no window ever holds too much, what is kept back stays, and a new one is careful."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.edge.alerts.budget import LIMIT, WINDOW_S, Budget, take_all

BORN_S = 1_000.0


def full(**changes: int) -> Budget:
    """One that is one window old."""
    budget = Budget(**changes, born_s=BORN_S - WINDOW_S)
    budget.left(BORN_S)
    return budget


def drain(budget: Budget, priority: int, is_escalation: bool = False, now_s: float = BORN_S) -> int:
    """How many go out at one moment."""
    return next(n for n in itertools.count() if budget.take(priority, is_escalation, now_s))


@dataclass(frozen=True, slots=True)
class Ask:
    after_s: float
    priority: int
    is_escalation: bool


asks = st.lists(
    st.builds(
        Ask,
        after_s=st.one_of(st.just(0.0), st.floats(0.0, 5.0), st.floats(0.0, 90.0)),
        priority=st.integers(1, 4),
        is_escalation=st.booleans(),
    ),
    max_size=200,
)


@given(asks=asks, limit=st.integers(3, 20), kept=st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_no_window_holds_more_than_the_limit(asks: list[Ask], limit: int, kept: tuple[int, int]) -> None:
    urgent, ladder = min(kept[0], (limit - 1) // 2), min(kept[1], (limit - 1) // 2)
    budget = Budget(limit=limit, urgent=urgent, ladder=ladder, born_s=BORN_S)
    now_s, taken = BORN_S, []
    for ask in asks:
        now_s += ask.after_s
        wait_s = budget.take(ask.priority, ask.is_escalation, now_s)
        assert wait_s >= 0
        if not wait_s:
            taken.append(now_s)
    for first_s in taken:
        assert sum(first_s <= at < first_s + WINDOW_S for at in taken) <= limit


@given(asks=asks)
def test_what_is_kept_back_is_there(asks: list[Ask]) -> None:
    """Priority 1 waits only when priority 1 itself has used its part up, a step of a ladder only when steps have."""
    budget = full()
    now_s, urgent, steps = BORN_S, list[float](), list[float]()
    for ask in asks:
        now_s += ask.after_s
        urgent = [at for at in urgent if at > now_s - WINDOW_S]
        steps = [at for at in steps if at > now_s - WINDOW_S]
        wait_s = budget.take(ask.priority, ask.is_escalation, now_s)
        if ask.priority == 1 and len(urgent) < 4:
            assert not wait_s
        if ask.is_escalation and len(steps) < 4:
            assert not wait_s
        if not wait_s:
            urgent += [now_s] * (ask.priority == 1)
            steps += [now_s] * ask.is_escalation


@given(asks=asks)
def test_the_wait_is_true(asks: list[Ask]) -> None:
    """Whoever waits as long as he was told gets a token when nobody else asks."""
    budget = full()
    now_s = BORN_S
    for ask in asks:
        now_s += ask.after_s
        if wait_s := budget.take(ask.priority, ask.is_escalation, now_s):
            assert budget.wait_s(ask.priority, ask.is_escalation, now_s + wait_s * 0.99)
            now_s += wait_s + 1e-6
            assert budget.take(ask.priority, ask.is_escalation, now_s) == 0.0


def test_a_full_one() -> None:
    budget = full()
    assert budget.left(BORN_S) == LIMIT
    assert drain(budget, 3) == 10
    assert drain(budget, 1) == 4
    assert drain(budget, 2, is_escalation=True) == 4
    assert budget.left(BORN_S) == 0
    assert budget.take(1, True, BORN_S) == WINDOW_S
    assert budget.take(1, True, BORN_S + 59.0) == 1.0
    assert budget.take(1, True, BORN_S + 60.0) == 0.0


def test_an_escalation_of_priority_1_may_use_both_parts() -> None:
    budget = full()
    assert drain(budget, 1, is_escalation=True) == LIMIT


def test_a_storm_of_priority_1_leaves_the_ladder_its_own() -> None:
    budget = full()
    assert drain(budget, 1) == LIMIT - 4
    assert drain(budget, 3, is_escalation=True) == 4


def test_a_new_one_is_half_full_and_full_after_a_window() -> None:
    budget = Budget(born_s=BORN_S)
    assert budget.left(BORN_S) == LIMIT / 2
    assert (drain(budget, 4), drain(budget, 1), drain(budget, 4, is_escalation=True)) == (5, 2, 2)
    assert drain(budget, 1, is_escalation=True, now_s=BORN_S + 59.9) == 0
    other = Budget(born_s=BORN_S)
    assert other.left(BORN_S + WINDOW_S) == LIMIT


def test_a_clock_that_steps_back_gives_nothing() -> None:
    budget = full()
    drain(budget, 1, is_escalation=True)
    assert budget.take(1, True, BORN_S - 1_000.0) == WINDOW_S
    assert budget.take(1, True, BORN_S + WINDOW_S) == 0.0


@pytest.mark.parametrize(("limit", "parts"), [(1, (1, 0, 0)), (5, (3, 1, 1)), (20, (12, 4, 4)), (90, (50, 20, 20))])
def test_what_is_kept_follows_the_limit(limit: int, parts: tuple[int, int, int]) -> None:
    budget = full(limit=limit)
    assert (drain(budget, 4), drain(budget, 1), drain(budget, 4, is_escalation=True)) == parts


@pytest.mark.parametrize("changes", [{"limit": 0}, {"limit": 8, "urgent": 4, "ladder": 4}, {"urgent": -1}])
def test_one_that_could_never_give_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must leave something"):
        Budget(**changes, born_s=BORN_S)


def test_of_two_buckets_both_give_or_none() -> None:
    minute, second = full(), Budget(limit=4, window_s=1.0, urgent=0, ladder=0, born_s=BORN_S - 1)
    both = (minute, second)
    assert [take_all(both, 4, False, BORN_S) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert minute.left(BORN_S) == LIMIT - 4
    assert take_all(both, 4, False, BORN_S + 1) == 0.0
    assert drain(minute, 4, now_s=BORN_S + 2) == 5
    assert take_all(both, 4, False, BORN_S + 3) == WINDOW_S - 3
    assert second.left(BORN_S + 3) == 4
