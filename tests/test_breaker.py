"""The breaker as a table: when a unit may be asked."""

from __future__ import annotations

import pytest
from sitewarden.sensors.breaker import Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy(threshold=3, base_s=2.0, cap_s=60.0, jitter=0.2)


def after(failures: int, now_s: float = 100.0, draw: float = 0.5) -> Breaker:
    breaker = Breaker()
    for _ in range(failures):
        breaker = breaker.failed(now_s, POLICY, draw)
    return breaker


@pytest.mark.parametrize(
    ("failures", "pause_s"),
    [(0, None), (1, None), (2, None), (3, 2), (4, 4), (5, 8), (7, 32), (8, 60), (9, 60), (10_000, 60)],
)
def test_pauses_grow_and_are_bounded(failures: int, pause_s: float | None) -> None:
    breaker = after(failures)
    if pause_s is None:
        assert breaker.state(100.0) is BreakerState.CLOSED
        assert breaker.allows(100.0)
    else:
        assert breaker.state(100.0 + pause_s - 0.001) is BreakerState.OPEN
        assert not breaker.allows(100.0 + pause_s - 0.001)
        assert breaker.state(100.0 + pause_s) is BreakerState.HALF_OPEN
        assert breaker.allows(100.0 + pause_s)


@pytest.mark.parametrize(("draw", "until_s"), [(0.0, 101.6), (0.5, 102.0), (1.0, 102.4)])
def test_jitter(draw: float, until_s: float) -> None:
    assert after(3, draw=draw).until_s == pytest.approx(until_s)


def test_woken() -> None:
    assert after(8).woken(101.0).allows(101.0)
    assert after(8).woken(101.0).failures == 8
    assert after(2).woken(101.0) == after(2)
    assert after(3).woken(500.0).until_s == 102.0  # never later than it was
