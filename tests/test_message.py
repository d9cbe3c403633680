"""What a person reads first: tags, what, where and what to do, within 40 and 70 characters, whatever the names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.edge.alerts.digest import Batch
from sitewarden.edge.alerts.message import HEAD, TITLE, Composer, duration, one_line, shorten
from sitewarden.edge.alerts.port import Notice
from sitewarden.edge.alerts.rows import Row
from sitewarden.serving.people import Person
from sitewarden.tests.peers.alert_doubles import PEOPLE, alarm


class Reader(Person):
    """A person as people.csv will have them."""

    __slots__ = ("email", "lang")


def english() -> Any:
    person = Reader(id="smith", name="史密斯", name_en="Smith", roles=("officer",), areas=("*",))
    object.__setattr__(person, "lang", "en")
    object.__setattr__(person, "email", "smith@example.com")
    return person


EVERYONE = {**PEOPLE, "smith": english()}
AREAS = {"aux_store": ("助剂库", "Aux store")}
COMPOSER = Composer(site="一厂", timezone="Asia/Shanghai", people=EVERYONE, areas=AREAS)
SUBJECT = {"kind": "alarm", "id": "a", "occurrence": 7, "area": "aux_store", "priority": 3}
SUBJECT |= {"name": "2号罐液位", "name_en": "Tank 2 level"}


def row(kind: str = "alarm.raised", body: dict[str, Any] | None = None, **changes: Any) -> Row:
    body = {"alarm": alarm(name="湿度", name_en="Humidity", occurrence=1234)} if body is None else body
    given: dict[str, Any] = {
        "key": "k",
        "seq": 1,
        "message": 1,
        "origin": "k",
        "kind": kind,
        "priority": (body.get("alarm") or SUBJECT)["priority"],
        "person": "li",
        "role": "keeper",
        "channel": "robot",
        "step": int(kind == "ladder.step"),
        "mentions": (),
        "about": "a",
        "occurrence": (body.get("alarm") or SUBJECT)["occurrence"],
        "body": {**body, "recorded": {"utc": "2026-11-22T15:04:05.000Z"}},
        "born_s": 0.0,
        "first_s": 0.0,
    }
    return Row(**{**given, **changes})


def told(*rows: Row) -> Notice:
    return COMPOSER(Batch("b" if len(rows) > 1 else "k", rows))


def step(late_s: float = 0.0, at_s: float = 7200.0) -> dict[str, Any]:
    rung = {"at_s": at_s, "to": [], "add": [], "colour": "red", "action": ""}
    return {"ladder": {"subject": SUBJECT}, "step": {"n": 1, "rung": rung, "late_s": late_s, "early": False}}


def freeze(released: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"freeze": {"id": "f", "scope": "work", "what": "hot_work", "why": SUBJECT, "released": released}}


def test_an_alarm_in_chinese():
    notice = told(row())
    assert notice.title == "【橙】【二级】助剂库 湿度超过上限"
    assert notice.text == (
        "【橙】【二级】助剂库 湿度超过上限，请处置并确认，报警号1234。实测78.2%RH，限值75%RH。一厂。11-22 23:04。"
        "致仓管员李。可回复短信1234确认。"
    )
    assert (notice.number, notice.priority, notice.step, notice.is_test) == (1234, 2, False, False)
    assert (notice.to.phone, notice.to.lang) == ("+8613800138001", "zh")
    assert notice.facts["alarm"]["id"] == alarm()["id"]


@pytest.mark.parametrize(
    ("kind", "zh", "en"),
    [
        ("roc", "。每分钟变化5°C，限值3°C。", " Changes by 5°C a minute, limit 3°C. "),
        ("deviation", "。偏差5°C，限值3°C。", " Off by 5°C, limit 3°C. "),
        ("hi", "。实测5°C，限值3°C。", " Measured 5°C, limit 3°C. "),
    ],
)
def test_a_rate_is_not_told_as_if_it_were_the_temperature(kind: str, zh: str, en: str):
    body = {"alarm": alarm(kind=kind, name="罐温变化过快", value=5.0, limit=3.0, unit="°C")}
    assert zh in told(row(body=body)).text
    assert en in told(row(body=body, person="smith", role="officer")).text


@pytest.mark.parametrize(("value", "shown"), [(1_013_250.0, "1013250Pa"), (0.1 + 0.2, "0.3Pa"), (0.00005, "0.00005Pa")])
def test_a_value_has_no_exponent(value: float, shown: str):
    assert f"。实测{shown}，" in told(row(body={"alarm": alarm(value=value, unit="Pa")})).text


def test_a_site_without_a_modem_offers_no_answer_by_sms():
    composer = replace(COMPOSER, has_modem=False)
    assert "短信" not in composer(Batch("k", (row(),))).text
    assert "SMS" not in composer(Batch("k", (row(person="smith", role="officer"),))).text


def test_an_alarm_in_english():
    notice = told(row(person="smith", role="officer"))
    assert notice.title == "[ORANGE P2] Aux store Humidity above hi…"
    assert notice.text.startswith("[ORANGE P2] Aux store Humidity above high: act, ack no. 1234. Measured 78.2%RH")
    assert "To safety officer Smith." in notice.text
    assert (notice.to.email, notice.to.lang, notice.to.name) == ("smith@example.com", "en", "Smith")


@pytest.mark.parametrize(
    ("kind", "body", "title", "do"),
    [
        ("alarm.reraised", None, "【橙】【二级】【加重】", "请处置并确认，报警号1234"),
        ("alarm.reopened", None, "【橙】【二级】【再次】", "请处置并确认，报警号1234"),
        ("alarm.repeated", None, "【橙】【二级】【仍未处理】", "请处置并确认，报警号1234"),
        ("ladder.step", step(), "【红】【三级】【催办】", "2小时未处理，请立即处理，报警号7"),
        ("ladder.step", step(late_s=8100), "【红】【三级】【催办】【延迟】", "请立即处理，报警号7"),
        ("freeze.set", freeze(), "【黄】【三级】【冻结】", "：动火作业，立即停止作业，解冻前不得恢复"),
        ("freeze.released", freeze(), "【黄】【三级】【解冻】", "可以恢复作业"),
        ("deviation.opened", {"id": "d", "subject": SUBJECT}, "【黄】【三级】【偏差】", "请填写偏差报告"),
        ("delivery.clear", None, "【恢复】【二级】", "已关闭，无需处置，报警号1234"),
        ("proof.started", {"name": "周测"}, "【测试】【黄】【三级】", "系统测试，无需确认和处置"),
        ("hazard.assigned", {"name": "护栏缺失"}, "【黄】【三级】", "请查看大屏"),
    ],
)
def test_each_kind_of_news_says_what_to_do(kind: str, body: dict[str, Any] | None, title: str, do: str):
    notice = told(row(kind, body))
    assert notice.title.startswith(title)
    assert do in notice.text[:HEAD]
    open_alarm = kind.startswith(("alarm.", "ladder."))
    assert (notice.number > 0) == open_alarm


@pytest.mark.parametrize(
    "kind", ["roc", "deviation", "discrete", "discrepancy", "frozen", "comm_loss", "stale", "flood"]
)
def test_kinds_without_a_limit_are_named_by_their_alarm(kind: str):
    notice = told(row(body={"alarm": alarm(kind=kind, name="1号泵反馈不符", value=None, limit=None, area="")}))
    assert notice.title == "【橙】【二级】1号泵反馈不符"
    assert "实测" not in notice.text


def test_a_shelved_alarm_says_who_and_why_and_asks_for_nothing():
    overlay = {"kind": "shelved", "who": "wang", "why": "传感器检修", "since": {"utc": "2026-11-22T15:00:00.000Z"}}
    notice = told(row("alarm.shelved", {"alarm": alarm(overlay=overlay, occurrence=9)}))
    assert "【搁置】" in notice.title
    assert "王：传感器检修" in notice.text
    assert notice.number == 0


def test_late_steps_say_how_late():
    assert "延迟2小时15分发出" in told(row("ladder.step", step(late_s=8100))).text


def test_what_was_over_before_it_was_told_says_both():
    notice = told(row(closed={"reason": "reset"}))
    assert notice.title.startswith("【已恢复】【二级】")
    assert "曾报警，现已恢复，报警号1234" in notice.text[:HEAD]
    assert "已由安全员复位" in notice.text
    assert notice.number == 0


def test_what_may_have_come_before_says_so():
    assert told(row(resent=True)).text.startswith("【重发】【橙】【二级】")
    assert told(row(resent=True, person="smith")).text.startswith("[RESENT][ORANGE P2] ")


def test_a_test_is_tagged_and_cannot_be_acknowledged():
    notice = told(row(kind="proof.alarm", body={"alarm": alarm(is_test=True), "is_test": True, "change": "raised"}))
    assert notice.is_test
    assert "系统测试，无需确认和处置" in notice.text[:HEAD]
    assert "报警号" not in notice.text
    assert "回复" not in notice.text
    english = told(row(kind="proof.alarm", body={"alarm": alarm(), "change": "raised"}, person="smith"))
    assert english.text.startswith("[TEST][ORANGE P2] ")
    assert "a test, nothing to ack." in english.text[:HEAD]
    assert notice.title.startswith("【测试】")
    assert notice.number == 0


def test_a_digest_names_the_first_and_counts_the_rest():
    rows = [
        row(key=str(n), body={"alarm": alarm(n, occurrence=n, name=f"{n}号", kind=None)}, occurrence=n)
        for n in range(1, 15)
    ]
    notice = told(*rows)
    assert notice.title == "【橙】【二级】【汇总】助剂库 1号等14条"
    assert "首报号1" in notice.text[:HEAD]
    assert "2 2号。" in notice.text
    assert "其余3条见大屏" in notice.text
    assert [other["occurrence"] for other in notice.facts["others"]] == list(range(2, 15))


def test_a_digest_counts_what_is_over_apart():
    mixed = told(row(), row("delivery.clear", key="c"), row("delivery.clear", key="d"))
    assert "等1条，恢复2条" in mixed.text[:HEAD]
    over = told(row("delivery.clear", key="c"), row("delivery.clear", key="d"))
    assert over.title.startswith("【恢复】【二级】")
    assert over.number == 0


def test_a_thing_is_told_without_a_recipient():
    notice = told(row(person="", role=""))
    assert notice.to.person == ""
    assert "致" not in notice.text
    assert "可回复" not in notice.text


def test_a_person_who_left_is_told_by_id():
    assert told(row(person="gone")).to.name == "gone"


def test_names_of_today_are_used():
    renamed = {**PEOPLE, "li": Person(id="li", name="李新", name_en="Li", roles=("keeper",), areas=("*",))}
    composer = Composer(site="s", timezone="UTC", people=renamed)
    assert "致仓管员李新" in composer(Batch("k", (row(),))).text


NAMES = st.text(max_size=120)
KINDS = st.sampled_from(
    [
        "alarm.raised",
        "alarm.reraised",
        "alarm.reopened",
        "alarm.repeated",
        "alarm.shelved",
        "alarm.out_of_service",
        "ladder.step",
        "freeze.set",
        "freeze.released",
        "deviation.opened",
        "delivery.clear",
        "proof.x",
    ]
)


@given(
    kind=KINDS,
    name=NAMES,
    place=NAMES,
    what=NAMES,
    level=st.sampled_from(["hihi", "hi", "lo", "lolo", "roc", None]),
    number=st.integers(1, 999_999),
    priority=st.integers(1, 4),
    late_s=st.sampled_from([0.0, 30.0, 86_399.0]),
    at_s=st.sampled_from([7200.0, 86_340.0]),
    resent=st.booleans(),
    over=st.booleans(),
    count=st.sampled_from([1, 2, 200]),
    person=st.sampled_from(["li", "smith"]),
)
def test_whatever_the_names_the_title_and_the_head_fit(
    kind: str, name: str, place: str, what: str, level: str, number: int, priority: int, late_s: float, **more: Any
):
    names = {"name": name, "name_en": name, "priority": priority, "occurrence": number}
    if kind.startswith(("alarm.", "delivery.")):
        body: dict[str, Any] = {"alarm": alarm(kind=level, **names)}
    elif kind == "ladder.step":
        body = {**step(late_s, more["at_s"]), "ladder": {"subject": {**SUBJECT, **names}}}
    elif kind.startswith("freeze."):
        body = {"freeze": {**freeze()["freeze"], "what": what, "why": {**SUBJECT, **names}}}
    else:
        body = {"id": "x", "subject": {**SUBJECT, **names}}
    rows = [
        row(kind, body, key=str(n), occurrence=number, priority=priority, person=more["person"], resent=more["resent"])
        for n in range(more["count"] if kind.startswith(("alarm.r", "delivery.")) else 1)
    ]
    if more["over"] and kind == "alarm.raised":
        rows[0].closed = {"reason": "reset"}
    composer = Composer(site="s", timezone="UTC", people=EVERYONE, areas={"aux_store": (place, place)})
    notice = composer(Batch("k", tuple(rows)))
    assert len(notice.title) <= TITLE
    assert "\n" not in notice.title + notice.text
    assert notice.title.startswith(("【", "["))
    head = notice.text[:HEAD]
    stop = "。" if more["person"] == "li" else "."
    assert stop in head, "it ends within one SMS"
    told_name = one_line(name)
    if told_name:
        assert told_name[:5] in head or shorten(told_name, 5)[:4] in head
    if "报警号" in notice.text or " no. " in notice.text:
        assert str(number) in head


@pytest.mark.parametrize(
    ("seconds", "zh", "en"),
    [(7200, "2小时", "2 h"), (8100, "2小时15分", "2 h 15 min"), (300, "5分", "5 min"), (9, "9秒", "9 s")],
)
def test_durations(seconds: float, zh: str, en: str):
    assert (duration(seconds, 0), duration(seconds, 1)) == (zh, en)
