"""Acknowledging by SMS: who may, what is answered, and what is recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge.alerts.lateness import Lateness
from sitewarden.edge.alerts.port import Outcome, Sent
from sitewarden.edge.alerts.replies import Desk, Replies, masked, number_in, same
from sitewarden.errors import RefusedError
from sitewarden.sync.journal import Draft
from sitewarden.tests.peers.alert_doubles import PEOPLE, FakeChannel, alarm, running, states
from sitewarden.words import ClockState, now

LI, WANG, STRANGER = "13800138001", "+86 138 0013 8002", "+8613911112222"


class Office:
    """An alarm list that a test decides."""

    def __init__(self, **alarms: Mapping[str, Any]) -> None:
        self.alarms = {int(number[1:]): fields for number, fields in alarms.items()}
        self.acks: list[tuple[str, int, str, str]] = []
        self.drafts: list[Draft] = []
        self.record: Callable[[Draft], Awaitable[None]] = self._keep
        self.refusal: RefusedError | None = None
        self.sms = FakeChannel()
        self.channel = "sms"
        self.off_duty: set[str] = set()
        desk = Desk(
            people=PEOPLE,
            find=self.find,
            may_act=lambda person, role, _area, _at: role in PEOPLE[person].roles and person not in self.off_duty,
            acknowledge=self.acknowledge,
            record=lambda draft: self.record(draft),
            channel=lambda: self.channel,
            channels={"sms": self.sms},
        )
        self.replies = Replies(desk)

    async def find(self, number: int) -> Mapping[str, Any] | None:
        return self.alarms.get(number)

    async def acknowledge(self, alarm_id: str, occurrence: int, role: str, person: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.acks.append((alarm_id, occurrence, role, person))

    async def _keep(self, draft: Draft) -> None:
        self.drafts.append(draft)

    @property
    def outcomes(self) -> list[str]:
        return [draft.body["outcome"] for draft in self.drafts]


def open_alarm(**changes: Any) -> dict[str, Any]:
    return alarm(occurrence=1234, **changes)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1234", 1234),
        (" 1234 ", 1234),
        ("１２３４", 1234),
        ("确认1234", 1234),
        ("确认 1234。", 1234),
        ("确认：１２３４", 1234),
        ("ack 1234", 1234),
        ("OK 1234!", 1234),
        ("报警号1234", 1234),
        ("#1234", 1234),
        ("1234号", 1234),
        ("1234收到", 1234),
        ("1234，已确认！", 1234),
        ("确认报警1234", 1234),
        ("收到1234号报警。", 1234),
        ("1234 ok", 1234),
        ("12345678901", None),
        ("1234误报", None),
        ("未确认1234", None),
        ("1234未收到", None),
        ("1234 确认 1235", None),
        ("1234 5678", None),
        ("好的", None),
        ("", None),
        ("我到了1234", None),
        ("不确认1234", None),
        ("-1234", None),
        ("1234" + " " * 4000 + "x", None),
        ("12.34", None),
    ],
)
def test_the_number_in_a_reply(text: str, number: int | None):
    assert number_in(text) == number


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("+86 138 0013 8001", "13800138001", True),
        ("008613800138001", "+8613800138001", True),
        ("13800138001", "13800138002", False),
        ("3800138001", "13800138001", False),
        ("", "", False),
    ],
)
def test_the_same_phone(one: str, other: str, is_same: bool):
    assert same(one, other) is is_same


def test_a_number_is_masked():
    assert (masked("+8613911112222"), masked("10086")) == ("***2222", "***")


async def test_a_person_acknowledges_in_the_role_that_is_missing():
    office = Office(n1234=open_alarm(acks=[{"role": "keeper", "person": "wu"}]))
    await office.replies.take(WANG, "确认 1234")
    assert office.acks == [(alarm()["id"], 1234, "officer", "wang")]
    (draft,) = office.drafts
    assert (draft.kind, draft.actor, draft.body["outcome"]) == ("reply.received", "wang", "acknowledged")
    (entry,) = draft.body["notify"]
    assert (entry["person"], entry["channel"]) == ("wang", "sms")


@pytest.mark.parametrize(
    ("fields", "text", "outcome"),
    [
        ({}, "1235", "unknown_number"),
        ({}, "哪个报警？", "not_understood"),
        ({"state": "NORM"}, "1234", "closed"),
        ({"occurrence": 1300}, "1234", "closed"),
        ({"acks": [{"role": "keeper", "person": "li"}]}, "1234", "already"),
        ({"acks": [{"role": "keeper", "person": "wu"}]}, "1234", "not_yours"),
        ({"required_acks": ["officer"]}, "1234", "not_yours"),
    ],
)
async def test_what_does_not_acknowledge_is_answered_and_recorded(fields: dict[str, Any], text: str, outcome: str):
    office = Office(n1234={**open_alarm(), **fields})
    await office.replies.take(LI, text)
    assert office.acks == []
    assert office.outcomes == [outcome]
    assert office.drafts[0].body["answer"]["zh"]
    assert len(office.drafts[0].body["notify"]) == 1


def _asked(ago_s: float) -> dict[str, Any]:
    at = now()
    return replace(at, utc_ms=at.utc_ms - int(ago_s * 1000), mono_s=at.mono_s - ago_s).to_json()


@pytest.mark.parametrize(
    ("asked_ago_s", "late_s", "outcome"),
    [
        (3600.0, 5.0, "acknowledged"),
        (120.0, 600.0, "changed"),  # written eight minutes before it got worse
        (700.0, 600.0, "acknowledged"),
        (20.0, 50.0, "acknowledged"),  # no network is quicker than that all the time
    ],
)
async def test_a_reply_that_came_late_does_not_acknowledge_what_got_worse_meanwhile(
    asked_ago_s: float, late_s: float, outcome: str, monkeypatch: pytest.MonkeyPatch
):
    """The centre's clock is wrong by eight hours: a prompt message shows that."""
    monkeypatch.setattr("sitewarden.edge.alerts.replies.now", lambda: replace(now(), clock=ClockState.SYNCED))
    office = Office(n1234=open_alarm(asked=_asked(asked_ago_s)))
    zone_ms = 8 * 3600 * 1000
    await office.replies.take(LI, "?", now().utc_ms + zone_ms - 4000)
    await office.replies.take(LI, "1234", now().utc_ms + zone_ms - int(late_s * 1000))
    assert office.outcomes == ["not_understood", outcome]
    assert len(office.acks) == (outcome == "acknowledged")


def test_a_message_is_not_late_by_a_clock_that_is_not_believed():
    at = replace(now(), clock=ClockState.SYNCED)
    lateness = Lateness()
    assert lateness.of(at.utc_ms - 1000, at) == 0
    assert lateness.of(at.utc_ms - 600_000, at) == pytest.approx(600)
    assert lateness.of(at.utc_ms - 601_000, replace(at, clock=ClockState.UNSYNCED)) == 0
    assert lateness.of(None, at) == 0


def test_a_first_message_that_is_late_by_no_whole_quarter_of_an_hour_is_late():
    at = replace(now(), clock=ClockState.SYNCED)
    assert Lateness().of(at.utc_ms - 400_000, at) == pytest.approx(400)
    assert Lateness().of(at.utc_ms - 8 * 3_600_000, at) == 0, "a zone"


async def test_who_is_off_duty_does_not_acknowledge():
    office = Office(n1234=open_alarm())
    office.off_duty.add("li")
    await office.replies.take(LI, "1234")
    assert (office.acks, office.outcomes) == ([], ["not_yours"])


@pytest.mark.parametrize(
    ("reason", "outcome"), [("distinct_persons", "already"), ("not_in_alarm", "closed"), ("odd", "refused")]
)
async def test_a_refusal_of_the_rules_is_said(reason: str, outcome: str):
    office = Office(n1234=open_alarm())
    office.refusal = RefusedError(reason, "no")
    await office.replies.take(LI, "1234")
    assert office.outcomes == [outcome]


async def test_strangers_are_answered_once_an_hour_and_not_stored(monkeypatch: pytest.MonkeyPatch):
    now_s = 5000.0
    monkeypatch.setattr("sitewarden.edge.alerts.replies.mono_s", lambda: now_s)
    office = Office(n1234=open_alarm())
    for _ in range(3):
        await office.replies.take(STRANGER, "1234")
    assert office.acks == []
    assert office.outcomes == ["stranger"] * 3
    assert [notice.to.phone for notice in office.sms.got] == [STRANGER]
    assert "3911112222" not in str([draft.body for draft in office.drafts])
    now_s += 3601
    await office.replies.take(STRANGER, "1234")
    assert len(office.sms.got) == 2
    await office.replies.take("10086", "您的话费余额不足")
    assert len(office.sms.got) == 2, "services are not answered"
    for n in range(30):
        await office.replies.take(f"+86139111133{n:02}", "1234")
    assert len(office.sms.got) < 12, "a bill that nobody wants"


async def test_a_person_who_writes_all_the_time_is_not_answered_all_the_time():
    office = Office(n1234=open_alarm())
    for _ in range(25):
        await office.replies.take(LI, "?")
    assert len(office.drafts) == 25
    assert sum(len(draft.body["notify"]) for draft in office.drafts) == 20


async def test_without_a_channel_it_acknowledges_all_the_same():
    office = Office(n1234=open_alarm())
    office.channel = ""
    await office.replies.take(LI, "1234")
    await office.replies.take(STRANGER, "1234")
    assert len(office.acks) == 1
    assert office.drafts[0].body["notify"] == []


async def test_a_reply_goes_through_the_outbox_and_its_answer_too(tmp_path: Path, eventually):
    office = Office(n1234=open_alarm())
    path = tmp_path / "journal.db"
    async with running(path, {"sms": office.sms}, answer=office.replies.take) as made:

        async def record(draft: Draft) -> None:
            await made.journal.append([draft])

        office.record = record
        made.outbox.reply(LI, "１２３４")
        await eventually(lambda: office.sms.got, "the answer")
        await eventually(lambda: list(states(path).values()) == ["ACCEPTED"], "accepted")
    assert office.acks == [(alarm()["id"], 1234, "keeper", "li")]
    assert office.sms.got[0].text == "【回复】已确认报警 1234。"


async def test_a_reply_that_breaks_the_desk_does_not_end_the_outbox(tmp_path: Path, eventually):
    taken: list[str] = []

    async def answer(phone: str, text: str, sent_ms: int | None = None) -> None:
        taken.append(text)
        if len(taken) == 1:
            raise ValueError("a defect")

    sms = FakeChannel(lambda _: Sent(outcome=Outcome.ACCEPTED))
    async with running(tmp_path / "journal.db", {"sms": sms}, answer=answer) as made:
        made.outbox.reply(LI, "1")
        made.outbox.reply(LI, "2")
        await eventually(lambda: taken == ["1", "2"], "both were taken")
        assert not made.task.done()
