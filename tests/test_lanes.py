"""Who is sent what now: lanes, pauses and channels without room. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sitewarden.edge.alerts.digest import Batch
from sitewarden.edge.alerts.lanes import Holds, Lane, one_at_a_time
from sitewarden.edge.alerts.port import Channel
from sitewarden.edge.alerts.rows import Row, Settings
from sitewarden.tests.peers.alert_doubles import (
    FakeChannel,
)

SETTINGS = Settings()


def row(seq: int, *, attempts: int = 0, priority: int = 3, **changes: Any) -> Row:
    given: dict[str, Any] = {
        "key": str(seq),
        "seq": seq,
        "message": seq,
        "origin": str(seq),
        "kind": "alarm.raised",
        "priority": priority,
        "person": "li",
        "role": "keeper",
        "channel": "robot",
        "step": 0,
        "mentions": (),
        "about": f"a{seq}",
        "occurrence": 1,
        "body": {},
        "born_s": 0.0,
        "first_s": 0.0,
        "attempts": attempts,
    }
    return Row(**{**given, **changes})


def alone(*given: Row) -> list[Batch]:
    return [Batch(each.key, (each,)) for each in given]


@pytest.mark.parametrize(
    ("lane", "waiting", "chosen"),
    [
        (Lane(), [row(1), row(2), row(3, priority=1)], [3, 1]),
        (Lane(), [row(1, attempts=9), row(2)], [1, 2]),
        (Lane(sending=1), [row(1), row(2)], [1]),
        (Lane(sending=2), [row(1)], []),
        (Lane(failures=1, due_s=200.0), [row(1, attempts=1)], []),
        (Lane(failures=1, due_s=200.0), [row(1, attempts=1), row(2)], [2]),  # new: does not wait for the refused one
        (Lane(failures=2, due_s=100.0), [row(1, attempts=1), row(2, attempts=1)], [1]),
        (Lane(failures=2, due_s=100.0, sending=1), [row(1, attempts=1)], []),
        (Lane(failures=3, due_s=200.0), [row(1), row(2)], []),
        (Lane(failures=3, due_s=200.0), [row(1), row(2, priority=1)], [2]),  # new and of priority 1: never waits
        (Lane(failures=3, due_s=200.0), [row(1), row(2, priority=1, attempts=1)], []),
        (Lane(failures=3, due_s=100.0), [row(1, attempts=4), row(2, attempts=1), row(3, attempts=1)], [2]),
        (Lane(failures=3, due_s=100.0), [row(1, attempts=4), row(2), row(3, priority=2)], [3]),
    ],
)
def test_what_a_lane_sends(lane: Lane, waiting: list[Row], chosen: list[int]):
    assert [picked.first.seq for picked in lane.choose(alone(*waiting), 100.0)] == chosen


def test_a_lane_waits_longer_each_time_up_to_the_cap():
    lane, pauses_s = Lane(), []
    for _ in range(40):
        lane.failed(100.0, SETTINGS)
        pauses_s.append(lane.due_s - 100.0)
    assert 2 <= pauses_s[0] <= 4
    assert 4 <= pauses_s[1] <= 8
    assert all(30 <= pause_s <= 60 for pause_s in pauses_s[5:])
    assert len({round(pause_s, 3) for pause_s in pauses_s[10:]}) > 10, "jitter"
    lane.failed(100.0, SETTINGS, 600.0)
    assert lane.due_s == 700.0, "the channel knows better"


def test_a_channel_without_room_holds_what_has_no_more_room_than_what_was_turned_away():
    holds = Holds()
    ordinary, urgent, step = row(1), row(2, priority=1), row(3, step=1)
    holds.hold(ordinary, 50.0)
    assert [holds.until_s(each) for each in (ordinary, urgent, step)] == [50.0, 0.0, 0.0]
    holds.hold(urgent, 70.0)
    assert [holds.until_s(each) for each in (ordinary, urgent, step)] == [70.0, 70.0, 0.0]
    assert holds.until_s(row(4, channel="sms")) == 0.0


def test_an_urgent_step_of_a_ladder_waits_for_no_storm():
    """It has the room of both: a storm of priority 1 and late steps of ordinary ladders leave it the other's."""
    holds = Holds()
    urgent, step, urgent_step = row(1, priority=1), row(2, step=1), row(3, priority=1, step=1)
    holds.hold(urgent, 50.0)
    assert [holds.until_s(each) for each in (urgent, step, urgent_step)] == [50.0, 0.0, 0.0]
    holds.hold(step, 60.0)
    assert holds.until_s(urgent_step) == 0.0
    holds.hold(urgent_step, 70.0)
    assert [holds.until_s(each) for each in (row(4), urgent, step, urgent_step)] == [70.0] * 4


def test_what_tells_both_at_once_waits_while_its_recipient_is_told_elsewhere():
    over = row(1, closed={}), row(1, closed={}, channel="sms", key="1s")
    assert [batch.key for batch in one_at_a_time(alone(*over), [])] == ["1"]
    assert one_at_a_time(alone(over[1]), [replace(over[0])]) == []
    assert len(one_at_a_time(alone(over[0], row(2)), [row(2)])) == 2


def test_the_fake_is_a_channel():
    channel: Channel = FakeChannel()
    assert channel.health.accepted == 0
