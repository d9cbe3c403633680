"""The alarm of a proof test: beside the real one, in an engine of its own, by the real rule.

The same engine, rules and state machine judge a test reading that judge a real one; only the names are others
(`test.<point>`), so that nothing which asks for the point, its alarm or its history can ever meet the test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...sync.journal import Draft
from ...words import Instant, Quality, Reading, utc_text
from ..alarms.engine import Engine
from ..alarms.machine import Alarm, State
from ..alarms.rules import Rule

TEST = "test"
KIND = "proof.alarm"

Notify = Callable[[Draft], list[dict[str, Any]]]
"""For the draft of an alarm's record, its `notify` list: what the pipeline uses for real ones."""


def test_rule(rule: Rule) -> Rule:
    """The rule under another name, with its levels and delays. Nobody is told of a test again and again."""
    return replace(rule, id=f"{TEST}.{rule.id}", point=f"{TEST}.{rule.point}", repeat_s={}, realarm_s={})


def test_value(rule: Rule) -> float:
    """What raises the most severe level: its limit, which is in the alarm already."""
    return rule.levels[-1].limit


class Shadow:
    """One run's alarm.

    Args:
        rule: the real one.
        run: number of the run; the occurrence of its alarm.
        notify: whom a record must reach.
        start: now.
    """

    def __init__(self, rule: Rule, run: int, notify: Notify, start: Instant) -> None:
        self.rule = test_rule(rule)
        self._run = run
        self._notify = notify
        known = {self.rule.id: Alarm(id=self.rule.id, occurrence=run - 1)}
        self._engine = Engine([self.rule], known, start)

    def accept(self, readings: list[Reading], now: Instant) -> list[Draft]:
        """What drivers hand to the pipeline, marked as a test: the records that follow."""
        drafts: list[Draft] = []
        self._engine.read_all(readings, now, drafts)
        return [self._marked(draft) for draft in drafts]

    def tick(self, now: Instant) -> list[Draft]:
        """Time has passed: delays run out."""
        return [self._marked(draft) for draft in self._engine.tick(now)]

    def reading(self, now: Instant) -> Reading:
        """The test value, as a driver would bring it."""
        value = test_value(self.rule)
        return Reading(point=self.rule.point, value=value, quality=Quality.GOOD, why=TEST, at=now)

    def _marked(self, draft: Draft) -> Draft:
        alarm = {**draft.body["alarm"], "is_test": True}
        real = replace(draft, body={**draft.body, "alarm": alarm})
        change = draft.kind.removeprefix("alarm.")
        body = {"run": self._run, "is_test": True, "change": change, **real.body, "notify": self._notify(real)}
        return replace(draft, kind=KIND, body=body)


def closed(run: int, alarm: dict[str, Any], now: Instant) -> Draft:
    """The end of a test's alarm, as committed last: nobody is told of it any more."""
    over = {**alarm, "state": State.NORM.value, "active": None, "changed_at": utc_text(now.utc_ms)}
    body = {
        "run": run,
        "is_test": True,
        "change": "closed",
        "alarm": over,
        "reason": "proof_over",
        "rule": "",
        "trigger": None,
        "notify": [],
    }
    return Draft(kind=KIND, at=now, actor="gateway", body=body)
