"""Whom nobody has reached: on every way, past the deadline, and not before."""

from __future__ import annotations

from typing import Any

from sitewarden.edge.alerts.unreached import Unreached


def message(*rows: str, alarm: str = "a.b.c.high", occurrence: int = 1, **changes: Any) -> dict[str, Any]:
    """A body that tells people; `rows`: person@channel, which is the key as well."""
    notify = [{"key": f"{row}/{occurrence}", "person": row.partition("@")[0]} for row in rows]
    fields = {"id": alarm, "occurrence": occurrence, "state": "UNACK", "kind": "hi", "acks": [], **changes}
    return {"alarm": fields, "notify": notify}


def delivery(row: str, occurrence: int = 1) -> dict[str, Any]:
    body = {"key": f"{row}/{occurrence}", "person": row.partition("@")[0], "alarm": "a.b.c.high"}
    return {**body, "occurrence": occurrence}


def unreached(*records: tuple[str, dict[str, Any]]) -> list[str]:
    made = Unreached()
    for seq, (kind, body) in enumerate(records):
        made.see(kind, seq, body)
    return sorted(made.failed())


RAISED = ("alarm.raised", message("li@robot", "li@sms", "wang@robot"))


def failing(row: str, occurrence: int = 1) -> tuple[str, dict[str, Any]]:
    return "delivery.failing", delivery(row, occurrence)


def accepted(row: str, occurrence: int = 1) -> tuple[str, dict[str, Any]]:
    return "delivery.accepted", delivery(row, occurrence)


def test_a_person_is_not_reached_when_every_way_has_failed() -> None:
    assert unreached(RAISED) == []
    assert unreached(RAISED, failing("li@robot")) == [], "the other way may still do it"
    assert unreached(RAISED, failing("li@robot"), failing("li@sms")) == ["li"]
    assert unreached(RAISED, failing("li@robot"), ("delivery.dead", delivery("li@sms"))) == ["li"]
    assert unreached(RAISED, accepted("li@robot"), failing("li@sms")) == [], "one way is enough"
    assert unreached(RAISED, failing("li@robot"), failing("li@sms"), failing("wang@robot")) == ["li", "wang"]


def test_one_persons_success_never_hides_that_another_is_not_reached() -> None:
    assert unreached(RAISED, accepted("wang@robot"), failing("li@robot"), failing("li@sms")) == ["li"]


def test_any_later_success_reaches_them_again() -> None:
    lost = (RAISED, failing("li@robot"), failing("li@sms"))
    assert unreached(*lost, accepted("li@sms")) == []
    other = ("alarm.raised", message("li@robot", alarm="x.y.z.low", occurrence=2))
    assert unreached(*lost, other, accepted("li@robot", 2)) == []
    assert unreached(*lost, other, ("delivery.delivered", delivery("li@robot", 2))) == []
    assert unreached(*lost, other, accepted("li@robot", 2), failing("li@robot")) == [], "what was said is said"


def test_a_new_message_can_fail_after_an_older_one_arrived() -> None:
    repeated = ("alarm.repeated", {**message("li@robot"), "notify": [{"key": "again", "person": "li"}]})
    late = ("delivery.failing", {"key": "again", "person": "li"})
    assert unreached(RAISED, accepted("li@robot"), repeated, late) == ["li"]
    assert unreached(RAISED, repeated, accepted("li@robot"), late) == ["li"], "a newer one is not told by an older one"
    assert unreached(RAISED, repeated, ("delivery.accepted", {"key": "again", "person": "li"}), failing("li@sms")) == []


def test_it_ends_with_its_subject_and_with_an_acknowledgement() -> None:
    lost = (RAISED, failing("li@robot"), failing("li@sms"))
    assert unreached(*lost, ("alarm.closed", message(state="NORM"))) == []
    assert unreached(*lost, ("alarm.closed", message(state="NORM", occurrence=0))) == ["li"], "an older one"
    assert unreached(*lost, ("alarm.closed", message(state="NORM", alarm="a.b.c.low"))) == ["li"]
    assert unreached(*lost, ("alarm.acked", message(acks=[{"person": "li", "role": "keeper"}]))) == [], "they know"
    assert unreached(*lost, ("alarm.acked", message(acks=[{"person": "wang", "role": "keeper"}]))) == ["li"]


def test_a_way_that_is_opened_for_a_failed_one_belongs_to_the_same_message() -> None:
    raised = ("alarm.raised", message("li@robot"))
    fallback = ("delivery.fallback", {**delivery("li@robot"), "notify": [{"key": "sms", "person": "li"}]})
    late = ("delivery.failing", {"key": "sms", "person": "li"})
    assert unreached(raised, fallback, failing("li@robot")) == []
    assert unreached(raised, fallback, failing("li@robot"), late) == ["li"]
    assert unreached(raised, accepted("li@robot"), fallback, late) == [], "it had arrived"


def test_what_was_accepted_and_is_never_proven_has_not_reached_anybody() -> None:
    doubt = {**delivery("li@sms"), "about": "a.b.c.high", "unreached": ["li"]}
    assert unreached(RAISED, accepted("li@sms"), ("delivery.failing", doubt)) == ["li"]
    assert unreached(RAISED, accepted("li@sms"), ("delivery.failing", {**doubt, "unreached": []})) == []
    lost = (RAISED, accepted("li@sms"), ("delivery.failing", doubt), ("delivery.failing", doubt))
    assert unreached(*lost, ("delivery.delivered", delivery("li@sms"))) == [], "the proof came late"
    assert unreached(*lost, ("alarm.closed", message(state="NORM"))) == []


def test_steps_of_ladders_and_group_messages_count_and_tests_do_not() -> None:
    subject = {"kind": "hazard", "id": "h1", "occurrence": 2}
    step = ("ladder.step", {"ladder": {"subject": subject}, "notify": [{"key": "k", "person": "li"}]})
    group = ("alarm.raised", {**message(), "notify": [{"key": "k", "person": "", "mentions": ["li", "wang"]}]})
    late = ("delivery.failing", {"key": "k", "person": ""})
    assert unreached(step, late) == ["li"]
    stopped = ("ladder.stopped", {"subject": subject, "why": "closed"})
    assert unreached(step, late, stopped) == []
    doubt = ("delivery.failing", {"key": "k", "about": "hazard/h1", "occurrence": 2, "unreached": ["li"]})
    assert unreached(step, ("delivery.accepted", {"key": "k", "person": "li"}), doubt) == ["li"]
    assert unreached(step, ("delivery.accepted", {"key": "k", "person": "li"}), doubt, stopped) == []
    assert unreached(group, late) == ["li", "wang"]
    assert unreached(group, late, ("delivery.accepted", {"key": "k", "person": ""})) == []
    siren = ("alarm.raised", {**message(), "notify": [{"key": "k", "person": ""}]})
    assert unreached(siren, late) == []
    proof = ("alarm.raised", {**message(is_test=True), "notify": [{"key": "k", "person": "li"}]})
    assert unreached(proof, late) == []
    rehearsal = ("ladder.step", {"ladder": {"subject": subject}, "is_test": True, "notify": step[1]["notify"]})
    assert unreached(rehearsal, late) == []


def test_that_something_was_shelved_before_it_was_open_is_nothing_that_ends() -> None:
    shelved = ("alarm.shelved", {**message(state="NORM"), "notify": [{"key": "k", "person": "li"}]})
    assert unreached(shelved, ("delivery.failing", {"key": "k", "person": "li"})) == []


def test_the_alarm_that_somebody_is_not_reached_does_not_keep_itself_alive() -> None:
    own = ("alarm.raised", message("li@sms", alarm="system.delivery_failed.li", kind="delivery_failed", occurrence=2))
    lost = (RAISED, failing("li@robot"), failing("li@sms"), own, failing("li@sms", 2))
    assert unreached(*lost) == ["li"]
    assert unreached(*lost, ("alarm.closed", message(state="NORM"))) == []
    assert unreached(*lost, accepted("li@sms", 2)) == [], "and yet it is a message that arrives"


def test_persons_are_named_by_their_id_alone_and_what_they_do_not_know_is_named() -> None:
    made = Unreached()
    for seq, (kind, body) in enumerate((RAISED, failing("li@robot"), failing("li@sms"))):
        made.see(kind, seq, body)
    (found,) = made.sights()
    assert (found.rule.id, found.rule.name, found.value) == ("system.delivery_failed.li", "通知送不到：li", 1)
    assert found.facts == {"person": "li", "unknown": ["a.b.c.high"]}
    made.see("alarm.closed", 9, message(state="NORM"))
    assert made.sights() == []
    assert not made._by_key, "nothing is left behind"
