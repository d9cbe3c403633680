"""The loudspeaker: words and queue are pure; the voice is Debian's espeak-ng; the player is a program on PATH."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import wave
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.edge.alarms.codec import alarm_json
from sitewarden.edge.alarms.machine import Alarm
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alerts.opened import Open, heard, silence
from sitewarden.edge.alerts.port import Channel, Fault, Notice, Outcome, Receiver, Sent
from sitewarden.edge.alerts.speech import clips, numbers, player, queue, words
from sitewarden.edge.alerts.speech.pinyin import READINGS, to_pinyin
from sitewarden.edge.alerts.speech.player import Speech, SpeechSettings
from sitewarden.edge.alerts.speech.programs import ProgramError, Programs
from sitewarden.edge.alerts.speech.queue import Queue, Rules
from sitewarden.edge.alerts.speech.voice import Voice, cut
from sitewarden.edge.alerts.speech.words import Lang, Saying, saying_of, sentence
from sitewarden.errors import ConfigError
from sitewarden.words import Instant

DOC = Path(__file__).resolve().parent.parent / "docs" / "speech.md"
ZONE = "Asia/Shanghai"
GAS = Open(
    id="pit.gas4.h2s.high",
    occurrence=1,
    priority=1,
    area="pit",
    point="pit.gas4.h2s",
    kind="hihi",
    name="污水池硫化氢",
    name_en="Sewage pit hydrogen sulphide",
    unit="ppm",
    value=20.5,
    limit=14.0,
    raised_at="2026-11-23T05:05:12.000Z",
)
HUMID = Open(
    id="store.th1.humidity.high",
    occurrence=2,
    priority=3,
    area="store",
    point="store.th1.humidity",
    kind="hi",
    name="1号助剂库湿度",
    name_en="Auxiliary store humidity",
    unit="%RH",
    value=75.25,
    limit=75.0,
)
MODEM = Open(id="modem", occurrence=3, priority=2, kind="modem_down", name="4G模块离线", name_en="4G modem is offline")
RULES = Rules()
BOUND_S = 60.0


# --- numbers ----------------------------------------------------------------------------------------------------------


def read_whole(text: str) -> int:
    """Hanzi to a number, written from the grammar: ...亿 ...万 ...千百十."""
    for sign, factor in (("亿", 10**8), ("万", 10**4), ("千", 1000), ("百", 100), ("十", 10)):
        before, found, after = text.rpartition(sign) if sign == "亿" else text.partition(sign)
        if found:
            return (read_whole(before) if before else 1) * factor + (read_whole(after) if after else 0)
    return numbers.DIGITS.index(text.lstrip("零")) if text.lstrip("零") else 0


@given(st.one_of(st.integers(0, 20_000), st.integers(0, 10**16 - 1), st.integers(0, 15).map(lambda n: 10**n)))
@settings(deadline=None)
def test_a_whole_number_is_read_back(number: int) -> None:
    said = numbers.whole(number)
    assert read_whole(said) == number
    assert "零零" not in said
    assert not said.endswith("零") or number == 0
    assert not said.startswith("一十")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "零"),
        (10, "十"),
        (12, "十二"),
        (105, "一百零五"),
        (110, "一百一十"),
        (1005, "一千零五"),
        (1015, "一千零一十五"),
        (10_010, "一万零一十"),
        (100_001, "十万零一"),
        (120_000_300, "一亿二千万零三百"),
        (1_000_000_000_000, "一万亿"),
    ],
)
def test_whole_numbers(number: int, said: str) -> None:
    assert numbers.whole(number) == said


@pytest.mark.parametrize("number", [-1, 10**16])
def test_what_is_no_number_to_say(number: int) -> None:
    with pytest.raises(ValueError, match="is not 0"):
        numbers.whole(number)


@given(st.floats(-1e15, 1e15))
@settings(deadline=None)
def test_a_value_is_said_with_four_digits_at_least(value: float) -> None:
    text = numbers.plain(value)
    assert re.fullmatch(r"-?\d+(\.\d+)?", text)
    assert text != "-0"
    said = float(text)
    assert abs(said - value) <= max(abs(value) * 0.001, 1e-6)
    assert said == 0 or (said < 0) is (value < 0)


@given(st.floats(-1e6, 1e6), st.sampled_from([u for u in numbers.UNITS if u]))
@settings(deadline=None)
def test_a_measured_value_has_its_number_and_its_sign(value: float, unit: str) -> None:
    text = numbers.plain(value)
    before, _, after = text.lstrip("-").partition(".")
    said = numbers.measured(value, unit)
    assert numbers.whole(int(before)) in said
    assert not after or f"点{numbers.digits(after)}" in said
    assert text.startswith("-") is said.startswith(("负", "零下"))
    assert not re.search(r"[0-9A-Za-z%]", said)
    assert numbers.measured_en(value, unit).startswith(text.replace("-", "minus "))


@pytest.mark.parametrize(
    ("value", "unit", "zh", "en"),
    [
        (52.5, "%LEL", "爆炸下限的百分之五十二点五", "52.5 percent of the lower explosive limit"),
        (30.0, "ppm", "百万分之三十", "30 parts per million"),
        (-5.3, "℃", "零下五点三摄氏度", "minus 5.3 degrees Celsius"),
        (0.805, "MPa", "零点八零五兆帕", "0.805 megapascals"),
        (-2.5, "kPa", "负二点五千帕", "minus 2.5 kilopascals"),
        (20.9, "%vol", "体积分数百分之二十点九", "20.9 percent by volume"),
        (1234.5678, "mg/m3", "一千二百三十五毫克每立方米", "1235 milligrams per cubic metre"),
        (90.0, "s", "九十秒", "90 seconds"),
        (7.0, "furlong", "七", "7"),
        (3.0, "", "三", "3"),
        (math.nan, "ppm", "", ""),
        (math.inf, "ppm", "", ""),
        (1e17, "ppm", "", ""),
    ],
)
def test_values_with_units(value: float, unit: str, zh: str, en: str) -> None:
    assert (numbers.measured(value, unit), numbers.measured_en(value, unit)) == (zh, en)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1号罐", "一号罐"),
        ("10#罐 -5.3℃", "十号罐 零下五点三摄氏度"),
        ("压力0.8MPa，25%LEL", "压力零点八兆帕,爆炸下限的百分之二十五"),
        ("13:05发生，8:00结束", "十三点零五分发生,八点整结束"),
        ("报警号 1024", "报警号 一千零二十四"),
        ("12345号，05号", "一二三四五号,零五号"),
        ("PT-4、H2S、4G、2A罐", "PT-4、H2S、4G、2A罐"),
        ("第2-3号", "第二-三号"),
        ("１２：３０", "十二点三十分"),
        ("1,000ppm，1,234,567Pa", "百万分之一千,一百二十三万四千五百六十七帕"),
        ("储罐1，200ppm", "储罐一,百万分之二百"),
    ],
)
def test_free_text(text: str, said: str) -> None:
    assert numbers.spelled(text) == said


@given(st.text(st.sampled_from("罐号℃。，-−.:%# 0123456789１%")))
@settings(deadline=None)
def test_no_digit_is_left_for_the_voice_to_guess(text: str) -> None:
    said = numbers.spelled(text)
    assert not re.search(r"[0-9%#℃]", numbers.LATIN.sub("", said))


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_is_cut_into_what_the_two_voices_can_say(text: str) -> None:
    for voice, said in cut(numbers.spelled(text)):
        assert said.isascii() if voice is Lang.EN else not re.search(r"[A-Za-z0-9]", said)


# --- sentences --------------------------------------------------------------------------------------------------------


def test_what_is_said_of_an_alarm() -> None:
    assert sentence(GAS, ZONE) == {
        Lang.ZH: "一级报警，污水池硫化氢超过上上限，现为百万分之二十点五，限值百万分之十四。"
        "十三点零五分发生。请立即处理并确认。",
        Lang.EN: "Emergency alarm. Sewage pit hydrogen sulphide above the high high limit. 20.5 parts per million. "
        "The limit is 14 parts per million. Since 13:05. Act now, and acknowledge.",
    }
    assert sentence(HUMID, ZONE)[Lang.ZH] == (
        "三级报警，一号助剂库湿度超过上限，现为百分之七十五点二五，限值百分之七十五。请处理并确认。"
    )
    assert sentence(MODEM, ZONE)[Lang.ZH] == "系统故障，4G模块离线。请处理并确认。"
    silent = replace(HUMID, kind="stale", value=None, unit="", limit=180.0, name="助剂库湿度无数据")
    assert sentence(silent, ZONE)[Lang.ZH] == "三级报警，助剂库湿度无数据。请处理并确认。"


@pytest.mark.parametrize(
    ("kind", "zh", "en"),
    [
        ("roc", "每分钟变化五摄氏度", "Changing by 5 degrees Celsius per minute"),
        ("deviation", "偏差五摄氏度", "Off by 5 degrees Celsius"),
        ("lo", "现为五摄氏度", "5 degrees Celsius"),
    ],
)
def test_a_rate_is_not_said_as_if_it_were_the_temperature(kind: str, zh: str, en: str) -> None:
    told = sentence(replace(HUMID, kind=kind, value=5.0, unit="°C", limit=3.0), ZONE)
    assert zh in told[Lang.ZH].rstrip("。").split("，")[2].split("。")[0]
    assert f". {en}. " in told[Lang.EN]


def test_what_is_said_when_it_is_over() -> None:
    back = replace(GAS, active=False)
    assert sentence(back, ZONE)[Lang.ZH] == "污水池硫化氢，已恢复正常，尚未确认，请确认。"
    assert sentence(replace(back, acked=True), ZONE)[Lang.ZH] == "污水池硫化氢，已恢复正常。"
    assert "back to normal, not acknowledged yet" in sentence(back, ZONE)[Lang.EN]
    assert words.more(12)[Lang.ZH] == "另有十二条报警，请看屏幕。"
    assert words.said("Pump 4")[Lang.EN] == "Pump 4"
    assert words.said("4号泵")[Lang.EN] == "A new message. Look at the screen."


# --- the queue --------------------------------------------------------------------------------------------------------

OPEN = st.builds(
    Open,
    id=st.sampled_from("abcdefgh"),
    occurrence=st.integers(1, 2),
    priority=st.integers(1, 4),
    point=st.just("p"),
    acked=st.booleans(),
    active=st.booleans(),
)
SHOWN = st.lists(OPEN, max_size=8, unique_by=lambda a: a.id)
DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("show"), SHOWN),
        st.tuples(st.just("say"), st.just([])),
        st.tuples(st.just("miss"), st.just([])),
        st.tuples(st.just("silence"), st.just([])),
        st.tuples(st.just("ask"), st.lists(OPEN, min_size=1, max_size=1)),
    ),
    max_size=25,
)


@given(DEEDS, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_the_most_urgent_is_said_next(deeds: list[tuple[str, list[Open]]], most: int) -> None:
    rules = Rules(most=most, repeat_s=30.0)
    now_s, waits, silenced = 0.0, Queue(), {}
    shown: list[Open] = []
    last: dict[str, float] = {}
    asks = 0
    for deed, alarms in deeds:
        asks += deed == "ask"
        now_s += 7.0
        match deed:
            case "show":
                shown = alarms
                waits = queue.observed(waits, shown, now_s, rules)
            case "ask":
                waits = queue.asked(waits, queue.new_item(alarms[0], now_s))
                found = queue.following(waits, silenced, now_s)
                assert found is not None
            case "silence":
                silenced = silence(silenced, heard(shown, silenced, rules.repeat, now_s), math.inf)
            case _:
                item = queue.following(waits, silenced, now_s)
                if item is None:
                    continue
                if deed == "say":
                    waits = queue.said(waits, item, now_s, rules)
                    last[item.id] = now_s
                else:
                    waits = queue.missed(waits, item, now_s, 10.0)
                    assert item.id not in waits.items or not waits.items[item.id].is_due(now_s)
        check_queue(waits, shown, silenced, now_s, replace(rules, most=most + asks), last)


def check_queue(
    waits: Queue, shown: list[Open], silenced: Any, now_s: float, rules: Rules, last: dict[str, float]
) -> None:
    items = waits.items
    assert all(item.id == name for name, item in items.items())
    due = [i for i in items.values() if i.is_due(now_s) and (not i.times or i.is_asked)]
    best = queue.following(waits, silenced, now_s)
    if due:
        assert best is not None
        assert best.rank <= min((i.rank for i in due if i.id not in waits.passed), default=9)
    unsaid = [i for i in items.values() if i.alarm and not i.times and i.due_s < math.inf and not i.is_asked]
    assert sum(i.priority not in rules.repeat for i in unsaid) <= rules.most, "bounded"
    for alarm in shown:
        if alarm.id not in items:
            continue
        item = items[alarm.id]
        if item.alarm == alarm and not alarm.acked and alarm.priority in rules.repeat:
            assert item.due_s <= now_s + max(rules.repeat_s, 10), "it is repeated for ever"
        if item.alarm == alarm and alarm.acked and not item.is_asked:
            assert item.due_s == math.inf, "what is acknowledged is not said again"
    if best is not None and best.times and best.alarm is not None and not best.is_asked:
        assert not now_s < silenced.get(best.alarm.key, -1), "what is silenced is not repeated"
        assert now_s - last.get(best.id, -math.inf) >= min(rules.repeat_s, 10)


@given(SHOWN, st.lists(SHOWN, max_size=3))
@settings(deadline=None)
def test_after_a_restart_the_same_is_repeated(shown: list[Open], before: list[list[Open]]) -> None:
    """From the open alarms alone, whatever was open before."""
    lived = Queue()
    for i, alarms in enumerate([*before, shown]):
        lived = queue.observed(lived, alarms, float(i), RULES)
    fresh = queue.observed(Queue(), shown, 100.0, RULES, is_first=True)
    repeated = {a.id for a in shown if not a.acked and a.priority == 1}
    assert {name for name, item in fresh.items.items() if item.due_s < math.inf} == repeated
    assert repeated <= {name for name, item in lived.items.items() if item.due_s < math.inf}


def follow(waits: Queue, now_s: float, silenced: Any = None) -> str:
    item = queue.following(waits, silenced or {}, now_s)
    return "" if item is None else item.id


def test_a_newer_state_takes_the_place_of_the_older_sentence() -> None:
    waits = queue.observed(Queue(), [HUMID], 0.0, RULES)
    item = queue.following(waits, {}, 0.0)
    assert item is not None
    worse = replace(HUMID, kind="hihi", priority=2, value=80.0)
    waits = queue.observed(waits, [worse], 1.0, RULES)  # while the first is being said
    waits = queue.said(waits, item, 2.0, RULES)
    item = queue.following(waits, {}, 2.0)
    assert item is not None
    assert item.alarm == worse
    waits = queue.said(waits, item, 3.0, RULES)
    assert follow(waits, 1000.0) == ""
    waits = queue.observed(waits, [replace(worse, active=False)], 1001.0, RULES)
    item = queue.following(waits, {}, 1001.0)
    assert item is not None
    assert item.alarm is not None
    assert saying_of(item.alarm) is Saying.RETURNED
    waits = queue.said(waits, item, 1002.0, RULES)
    waits = queue.observed(waits, [], 1003.0, RULES)
    assert waits.items == {}, "that it is over was said already"


def test_priority_1_is_repeated_until_acknowledged() -> None:
    waits = queue.observed(Queue(), [GAS], 0.0, RULES)
    for turn in range(3):
        item = queue.following(waits, {}, turn * 40.0)
        assert item is not None
        waits = queue.said(waits, item, turn * 40.0 + 6, RULES)
        assert follow(waits, turn * 40.0 + 35.9) == ""
    assert follow(waits, 200.0, {GAS.key: 300.0}) == "", "silenced"
    assert follow(waits, 300.0, {GAS.key: 300.0}) == GAS.id, "a silence ends"
    waits = queue.observed(waits, [replace(GAS, acked=True)], 300.0, RULES)
    assert follow(waits, 9000.0) == ""
    waits = queue.observed(waits, [GAS], 9001.0, RULES)
    assert follow(waits, 9001.0) == GAS.id, "it needs another acknowledgement"
    waits = queue.observed(waits, [replace(GAS, acked=True)], 9002.0, RULES)
    waits = queue.observed(waits, [], 9003.0, RULES)
    item = queue.following(waits, {}, 9003.0)
    assert item is not None
    assert item.alarm is not None
    assert sentence(item.alarm, ZONE)[Lang.ZH] == "污水池硫化氢，已恢复正常。"
    assert queue.said(waits, item, 9004.0, RULES).items == {}
    assert queue.expired(waits, 9004.0, RULES) == waits
    assert queue.expired(waits, 9400.0, RULES).items == {}, "nobody needs to hear that after five minutes"


def test_a_flood_is_counted_and_priority_1_is_not() -> None:
    many = [replace(HUMID, id=f"h{i}", occurrence=i) for i in range(30)]
    urgent = [replace(GAS, id=f"g{i}", occurrence=i) for i in range(25)]
    waits = queue.observed(Queue(), many + urgent, 0.0, RULES)
    assert waits.more == 10
    order: list[str] = []
    while (item := queue.following(waits, {}, 1.0)) is not None:
        order.append(item.id)
        if item.id == "":
            assert item.text == words.more(10)
        waits = queue.said(waits, item, 1.0, RULES)
    assert order == [a.id for a in urgent] + [a.id for a in many[:20]] + [""]
    assert waits.more == 0


def test_what_cannot_be_said_lets_the_others_pass() -> None:
    mute = replace(GAS, id="mute")
    waits = queue.observed(Queue(), [GAS, mute, HUMID, MODEM], 0.0, RULES)
    for _ in range(2):
        item = queue.following(waits, {}, 1.0)
        assert item is not None
        assert item.id in (GAS.id, "mute")
        waits = queue.missed(waits, item, 1.0, 0.0)
    item = queue.following(waits, {}, 1.0)
    assert item is not None
    assert item.id == MODEM.id
    waits = queue.said(waits, item, 1.0, RULES)
    assert follow(waits, 1.0) in (GAS.id, "mute"), "one other sentence, and they are tried again"
    waits = queue.asked(waits, queue.new_item(HUMID, 1.0))
    waits = queue.missed(queue.missed(waits, waits.items[GAS.id], 1.0, 9.0), waits.items["mute"], 1.0, 9.0)
    waits = queue.said(waits, waits.items[HUMID.id], 1.0, RULES)
    assert follow(waits, 2.0) == "", "with a pause"


def test_what_is_acknowledged_is_said_to_who_asks_and_to_nobody_else() -> None:
    done = replace(GAS, acked=True)
    waits = queue.observed(queue.asked(Queue(), queue.new_item(done, 0.0)), [done], 1.0, RULES)
    assert follow(waits, 1.0) == GAS.id
    assert follow(queue.missed(waits, waits.items[GAS.id], 1.0, 5.0), 100.0) == ""


def test_new_alarms_go_before_repetitions_as_far_as_they_are_urgent() -> None:
    waits = queue.observed(Queue(), [GAS], 0.0, RULES)
    item = queue.following(waits, {}, 0.0)
    assert item is not None
    waits = queue.said(waits, item, 0.0, RULES)
    waits = queue.observed(waits, [GAS, HUMID, MODEM], 31.0, RULES)
    order: list[str] = []
    for _ in range(3):
        item = queue.following(waits, {}, 31.0)
        assert item is not None
        order.append(item.id)
        waits = queue.said(waits, item, 31.0, RULES)
    assert order == [MODEM.id, GAS.id, HUMID.id]


# --- clips ------------------------------------------------------------------------------------------------------------


def write_wav(path: Path, length_s: float = 0.05, *, rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as clip:
        clip.setparams((1, 2, rate, 0, "NONE", ""))
        clip.writeframes(bytes(2 * round(length_s * rate)))
    return path


def test_which_clip_fits(tmp_path: Path) -> None:
    back = replace(GAS, active=False)
    silent = replace(GAS, id="pit.gas4.h2s.stale", kind="stale")
    expected = {
        "pit.gas4.h2s.high.hihi": GAS,
        "pit.gas4.h2s.high": GAS,
        "pit.gas4.h2s": GAS,
        "pit": GAS,
        "pit.gas4.h2s.high.returned": back,
        "pit.gas4.h2s.returned": back,
        "pit.returned": back,
        "pit.gas4.h2s.stale.stale": silent,
        "pit.gas4.h2s.stale": silent,
        "modem": MODEM,
    }
    assert {name for a in (GAS, back, silent, MODEM) for name in clips.names(a)} == {*expected, "modem.modem_down"}
    assert clips.names(silent) == ("pit.gas4.h2s.stale.stale", "pit.gas4.h2s.stale"), "never the clip of a limit"
    assert clips.names(MODEM) == ("modem.modem_down", "modem")
    for name, alarm in reversed(expected.items()):
        made = write_wav(tmp_path / "zh" / f"{name}.wav")
        assert clips.find(tmp_path, Lang.ZH, clips.names(alarm)) == made, "the most exact one wins"
        assert clips.find(tmp_path, Lang.EN, clips.names(alarm)) is None
    assert clips.find(None, Lang.ZH, clips.names(GAS)) is None
    write_wav(tmp_path / "evil.wav")
    assert clips.find(tmp_path, Lang.ZH, ("../evil",)) is None
    text = DOC.read_text("utf-8")
    assert all(
        f"`{name}.wav`" in text for name in [*expected, "test"] if name not in ("pit.gas4.h2s.stale.stale", "modem")
    )


def test_what_is_no_clip(tmp_path: Path) -> None:
    assert clips.length_s(write_wav(tmp_path / "a.wav", 0.5)) == pytest.approx(0.5)
    assert clips.length_s(write_wav(tmp_path / "empty.wav", 0.0)) is None
    (tmp_path / "b.wav").write_bytes(b"ID3 an mp3 with another name")
    assert clips.length_s(tmp_path / "b.wav") is None
    assert clips.length_s(tmp_path / "missing.wav") is None


# --- pinyin -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("重庆银行行长", "chong2 qing4 yin2 hang2 hang2 zhang3"),
        ("值班长，长度", "zhi2 ban1 zhang3, chang2 du4"),
        ("重新测量重量", "chong2 xin1 ce4 liang2 zhong4 liang4"),
        ("调节阀，调度", "tiao2 jie2 fa2, diao4 du4"),
        ("乙炔压差。", "yi3 que1 ya1 cha1."),
        ("氯气", "lv4 qi4"),
        ("单县", "shan4 xian4"),
        ("兆帕的", "zhao4 pa4 de5"),
    ],
)
def test_polyphones(text: str, said: str) -> None:
    assert to_pinyin([text], {"单县": "shan4 xian4"}) == [said]


SPOKEN = [
    sentence(replace(GAS, priority=p, kind=k, unit=u, value=v), ZONE)[Lang.ZH]
    for p, k, u, v in zip(
        range(1, 5), words.LIMITS, ("%LEL", "°C", "MPa", "mg/m³"), (1234.5, -0.6, 98.7, 10.0), strict=True
    )
]


@pytest.mark.parametrize("text", [*SPOKEN, words.TEST[Lang.ZH], words.more(120)[Lang.ZH]])
def test_every_hanzi_of_a_sentence_is_a_syllable(text: str) -> None:
    found = re.findall(r"[a-z]+[1-5]", to_pinyin([text], {})[0])
    assert len(found) == len(re.findall(r"[\u4e00-\u9fff]", text))


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=30)
def test_pinyin_is_ascii_whatever_comes(text: str) -> None:
    (said,) = to_pinyin([text], {})
    assert re.fullmatch(r"([a-z]+[1-5]|[,.]| )*", said)


def test_a_reading_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"单县: needs 2 syllable\(s\) \(got 'shan4'\)"):
        to_pinyin(["单县"], {"单县": "shan4"})
    for wrong in ("shan4", "shan xian", "SHAN4 xian4", ""):
        with pytest.raises(ConfigError, match=r"speech x: 1 problem\(s\)\n  readings\.单县: needs 2 syllable"):
            SpeechSettings(id="x", readings={"单县": wrong})
    SpeechSettings(id="x", readings=READINGS)
    with pytest.raises(ConfigError, match="command: is empty"):
        SpeechSettings(id="x", command=())


# --- the voice --------------------------------------------------------------------------------------------------------

NEED = "apt install --no-install-recommends espeak-ng"


@pytest.fixture
def espeak(need: Callable[[str, str], str]) -> str:
    return need("espeak-ng", NEED)


@pytest.fixture
def voice(espeak: str, tmp_path: Path) -> Voice:
    folder = tmp_path / "voice"
    folder.mkdir()
    return Voice(programs=Programs(beat=lambda: None), folder=folder)


def samples(path: Path) -> tuple[float, float]:
    """Seconds, and loudness: the root of the mean square, of at most 1."""
    with wave.open(str(path), "rb") as clip:
        assert (clip.getnchannels(), clip.getsampwidth()) == (1, 2)
        data = array("h", clip.readframes(clip.getnframes()))
        return len(data) / clip.getframerate(), math.sqrt(sum(s * s for s in data) / len(data)) / 32768


@pytest.mark.parametrize("lang", list(Lang))
async def test_a_sentence_becomes_sound(voice: Voice, lang: Lang) -> None:
    short = await voice.render(words.TEST[lang], lang)
    whole = await voice.render(sentence(GAS, ZONE)[lang], lang)
    (short_s, _), (whole_s, loudness) = samples(short), samples(whole)
    assert loudness > 0.02, "it is not silent"
    assert 8 < whole_s < 30
    assert 2 < short_s < whole_s
    assert clips.length_s(whole) == pytest.approx(whole_s)
    made_ns = whole.stat().st_mtime_ns
    assert await voice.render(sentence(GAS, ZONE)[lang], lang) == whole
    assert whole.stat().st_mtime_ns == made_ns, "kept for the repetition"
    assert {path.suffix for path in voice.folder.iterdir()} == {".wav"}, "no pieces are left behind"


async def test_the_voice_says_the_pinyin_and_not_the_hanzi(voice: Voice, espeak: str, tmp_path: Path) -> None:
    """Sample for sample what espeak-ng makes of the pinyin; a polyphone read otherwise sounds otherwise."""
    for text, pinyin, same in (("重庆", "chong2 qing4", True), ("重庆", "zhong4 qing4", False)):
        made = await voice.render(text, Lang.ZH)
        other = tmp_path / "other.wav"
        command = [espeak, "-v", "cmn-latn-pinyin", "-s", "150", "-a", "200", "--stdin", "-w", str(other)]
        subprocess.run(command, input=pinyin.encode(), check=True)
        assert (made.read_bytes()[44:] == other.read_bytes()[44:]) is same


def wrapper(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return path


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=15, deadline=None)
def test_espeak_never_gets_hanzi(text: str) -> None:
    class Seen(Programs):
        async def run(self, command: Any, limit_s: float, *, text: str = "") -> bytes:
            if "pinyin" in command[-1]:
                asked = json.loads(text)
                return json.dumps(to_pinyin(asked["texts"], asked["readings"])).encode()
            seen.append(text)
            write_wav(Path(command[-1]))
            return b""

    seen: list[str] = []

    async def render(lang: Lang) -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ProgramError):  # nothing in it can be said
            await Voice(programs=Seen(beat=lambda: None), folder=Path(folder)).render(numbers.spelled(text), lang)

    for lang in Lang:
        asyncio.run(render(lang))
    assert all(said.isascii() for said in seen)


async def test_letters_are_read_by_the_english_voice(voice: Voice, espeak: str, tmp_path: Path, monkeypatch) -> None:
    log = tmp_path / "said"
    wrapper(
        tmp_path / "bin",
        "espeak-ng",
        f'cat > "{tmp_path}/in"; echo "$2: $(cat "{tmp_path}/in")" >> "{log}"\n'
        f'exec {shlex.quote(espeak)} "$@" < "{tmp_path}/in"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    path = await voice.render(numbers.spelled("2号H2S探头PT-4离线"), Lang.ZH)
    assert log.read_text("utf-8").splitlines() == [
        "cmn-latn-pinyin: er4 hao4",
        "en: H 2 S",
        "cmn-latn-pinyin: tan4 tou2",
        "en: P T 4",
        "cmn-latn-pinyin: li2 xian4",
    ]
    assert samples(path)[0] > 2


async def test_no_name_is_read_as_phonemes(voice: Voice, tmp_path: Path, monkeypatch) -> None:
    """espeak-ng takes what stands in [[ ]] for phonemes: `high` would be lost."""
    wrapper(tmp_path / "bin", "espeak-ng", f'cat > "{tmp_path}/said"; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(ProgramError):
        await voice.render("Tank [[_:]] high", Lang.EN)
    assert (tmp_path / "said").read_text("utf-8").split() == ["Tank", "_:", "high"]


async def test_only_the_newest_sentences_are_kept(voice: Voice) -> None:
    for i in range(40):
        await voice.render(str(i), Lang.EN)
    kept = list(voice.folder.iterdir())
    assert len(kept) == 32


async def test_a_voice_that_is_missing_or_has_nothing_to_say(voice: Voice, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ProgramError, match="nothing in '。，！' that espeak-ng can say"):
        await voice.render("。，！", Lang.ZH)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramError, match=r"espeak-ng cannot be started.*apt-get install .*espeak-ng") as missing:
        await voice.render("Fire", Lang.EN)
    assert missing.value.fault is Fault.OFFLINE
    assert list(voice.folder.iterdir()) == []


def test_the_pinyin_program_is_light_until_it_runs() -> None:
    """The daemon never holds the dictionary."""
    code = "import sys, sitewarden.edge.alerts.speech.player; print('pypinyin' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- programs ---------------------------------------------------------------------------------------------------------


async def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path, eventually) -> None:
    beats: list[int] = []
    programs = Programs(beat=lambda: beats.append(1))
    pid = tmp_path / "pid"
    script = wrapper(tmp_path / "bin", "hang", f'sleep 1000 &\necho $! > "{pid}.new"; mv "{pid}.new" "{pid}"\nwait')
    with pytest.raises(ProgramError, match="hang hung and was killed") as hung:
        await programs.run((str(script),), 1.5)
    assert hung.value.fault is Fault.SILENT
    child = int(pid.read_text())
    await eventually(lambda: not is_alive(child), "the child is gone")
    assert len(beats) >= 2
    assert programs.undead == []


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_nothing_is_started_beside_one_that_cannot_be_killed(tmp_path: Path) -> None:
    class Stuck:
        returncode: int | None = None

    programs = Programs(beat=lambda: None)
    stuck: Any = Stuck()
    programs.undead.append(stuck)
    with pytest.raises(ProgramError, match="a true that was killed does not end"):
        await programs.run(("true",), 5.0)
    stuck.returncode = -9
    assert await programs.run(("echo", "x"), 5.0) == b"x\n"


async def test_what_a_program_says_is_told(tmp_path: Path) -> None:
    programs = Programs(beat=lambda: None)
    script = wrapper(tmp_path / "bin", "bad", "cat >&2; exit 3")
    with pytest.raises(ProgramError, match="bad ended with 3: audio open error: no such device") as wrong:
        await programs.run((str(script),), 20.0, text="audio open error:\n no such device")
    assert wrong.value.fault is Fault.OFFLINE
    task = asyncio.create_task(programs.run(("sleep", "1000"), 2000.0))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert programs.undead == []


# --- the loudspeaker --------------------------------------------------------------------------------------------------


@dataclass
class Room:
    """A fake `aplay` on PATH, which notes what it plays, and recorded clips that tell the alarms apart."""

    folder: Path
    made: list[Speech] = field(default_factory=list)

    @property
    def clips(self) -> Path:
        return self.folder / "clips"

    def behave(self, how: str) -> None:
        (self.folder / "how.new").write_text(how)
        (self.folder / "how.new").rename(self.folder / "how")

    def clip(self, name: str, lang: str = "zh") -> None:
        write_wav(self.clips / lang / f"{name}.wav")

    @property
    def played(self) -> list[str]:
        """What was played to its end: clips by their name, sentences of the voice as `voice`."""
        log = self.folder / "log"
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        return ["voice" if "sitewarden-speech-" in line else line.removeprefix(f"{self.clips}/") for line in lines]

    @asynccontextmanager
    async def speech(self, **more: Any) -> AsyncIterator[Speech]:
        more = {"clips": self.clips, "repeat_s": 0.3, **more}
        async with Speech(SpeechSettings(id="gate", **more)) as speech:
            yield speech


@pytest.fixture
def room(tmp_path: Path, monkeypatch, espeak: str) -> Room:
    made = Room(tmp_path)
    wrapper(
        tmp_path / "bin",
        "aplay",
        f'cd "{tmp_path}" || exit 9\n[ "$1" = -q ] && [ $# = 2 ] || exit 8\necho "$2" >> started\n'
        'case "$(cat how)" in\n'
        '  fail) echo "audio open error: No such file or directory" >&2; exit 1;;\n'
        '  no_clips) case "$2" in */clips/*) exit 1;; esac;;\n'
        '  no_gas) case "$2" in *gas4*|*sitewarden-speech*) echo no >&2; exit 1;; esac;;\n'
        "  hang) sleep 1000;;\n"
        "  slow) sleep 1;;\n"
        'esac\n[ -s "$2" ] || exit 7\necho "$2" >> log',
    )
    made.behave("fine")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(player, "_PAUSE_BASE_S", 0.2)
    for alarm in (GAS, HUMID, MODEM):
        made.clip(alarm.id)
        made.clip(f"{alarm.id}.returned")
    return made


RULE = Rule(
    id=GAS.id,
    point=GAS.point,
    area="pit",
    side=Side.HIGH,
    name=GAS.name,
    name_en=GAS.name_en,
    unit="ppm",
    levels=(Level(kind=Kind.HIHI, limit=14, priority=1),),
)


def notice(alarm: Open | None = GAS, **more: Any) -> Notice:
    facts: dict[str, Any] = {}
    if alarm is not None:
        plain = alarm_json(RULE, Alarm(id=alarm.id), Instant(utc_ms=0, mono_s=0.0, boot="b"))
        changed = {"occurrence": alarm.occurrence, "priority": alarm.priority, "area": alarm.area, "point": alarm.point}
        facts = {"alarm": {**plain, **changed, "kind": alarm.kind, "state": "UNACK", "active": alarm.kind}}
    given_ = {
        "key": "k1",
        "to": Receiver(),
        "title": "t",
        "text": "1号泵停",
        "priority": alarm.priority if alarm else 2,
    }
    return Notice(**{**given_, "facts": facts, **more})


async def sent(speech: Speech, what: Notice) -> Sent:
    async with asyncio.timeout(BOUND_S):
        return await speech.send(what)


async def test_it_is_a_channel_and_says_the_most_urgent_first(room: Room, eventually) -> None:
    async with room.speech() as speech:
        channel: Channel = speech
        channel.health.facts["x"] = 1
        speech.show([])
        speech.show([HUMID, MODEM, GAS])
        await eventually(lambda: len(room.played) >= 6, lambda: str(room.played))
        assert room.played[:2] == [f"zh/{GAS.id}.wav", f"zh/{MODEM.id}.wav"]
        assert room.played.count(f"zh/{HUMID.id}.wav") == room.played.count(f"zh/{MODEM.id}.wav") == 1
        assert room.played.count(f"zh/{GAS.id}.wav") >= 3, "repeated"
        assert speech.health.fault is Fault.NONE
        speech.show([replace(GAS, acked=True), HUMID])
        await eventually(lambda: f"zh/{MODEM.id}.returned.wav" in room.played, lambda: str(room.played))
        count = len(room.played)
        await asyncio.sleep(1.5)
        assert len(room.played) == count, "nothing is repeated any more"


async def test_silence_stops_the_repetition_of_what_is_open(room: Room, eventually) -> None:
    async with room.speech() as speech:
        speech.show([GAS])
        await eventually(lambda: len(room.played) >= 2, lambda: str(room.played))
        assert speech.silence() == (GAS.id,)
        assert speech.health.facts["silenced"] == [GAS.id]
        await asyncio.sleep(0.5)  # the one that is being said
        count = len(room.played)
        await asyncio.sleep(1.5)
        assert len(room.played) == count
        again = replace(GAS, id="pit.gas4.co.high", occurrence=9)
        room.clip(again.id)
        speech.show([GAS, again])
        await eventually(lambda: room.played.count(f"zh/{again.id}.wav") >= 2, "a new alarm is said and repeated")
        assert room.played[count:].count(f"zh/{GAS.id}.wav") == 0


async def test_after_a_start_only_what_must_be_repeated_is_said(room: Room, eventually) -> None:
    async with room.speech() as speech:
        speech.show([HUMID, GAS, MODEM])
        await eventually(lambda: len(room.played) >= 3, lambda: str(room.played))
        assert set(room.played) == {f"zh/{GAS.id}.wav"}


async def test_other_areas_and_priorities_are_not_said(room: Room, eventually) -> None:
    async with room.speech(areas=("store",), priorities=frozenset({2, 3})) as speech:
        speech.show([])
        speech.show([GAS, HUMID, MODEM, replace(HUMID, id="x", priority=4)])
        await eventually(lambda: len(room.played) >= 2, lambda: str(room.played))
        await asyncio.sleep(1)
        assert room.played == [f"zh/{MODEM.id}.wav", f"zh/{HUMID.id}.wav"]
        for alarm in (GAS, replace(HUMID, priority=4)):
            answer = await sent(speech, notice(alarm))
            assert answer.outcome is Outcome.REFUSED
            assert "not for this area" in answer.detail


async def test_without_a_clip_the_voice_says_it_in_both_languages(room: Room, eventually) -> None:
    alarm = replace(HUMID, id="store.th1.humidity.low", point="", area="", kind="lo")
    room.clip(alarm.id, "en")
    async with room.speech(langs=(Lang.ZH, Lang.EN)) as speech:
        answer = await sent(speech, notice(alarm))
        assert answer.outcome is Outcome.ACCEPTED, "accepted, and never delivered: nobody says that he has heard it"
        assert room.played == ["voice", f"en/{alarm.id}.wav"]
        assert (speech.health.accepted, speech.health.delivered) == (1, 0)


async def test_a_clip_that_cannot_be_played_is_said_by_the_voice(room: Room) -> None:
    (room.clips / "zh" / f"{GAS.id}.wav").write_bytes(b"no sound at all")
    async with room.speech(repeat_s=60) as speech:
        assert (await sent(speech, notice())).outcome is Outcome.ACCEPTED
        assert room.played == ["voice"]
        assert speech.health.facts["bad_clips"] == {f"zh/{GAS.id}.wav": "no PCM WAV file, or empty"}
        room.behave("no_clips")
        assert (await sent(speech, notice(HUMID))).outcome is Outcome.ACCEPTED
        assert room.played == ["voice", "voice"]
        assert "ended with 1" in speech.health.facts["bad_clips"][f"zh/{HUMID.id}.wav"]
        assert speech.health.fault is Fault.NONE
        room.behave("fine")
        assert (await sent(speech, notice(HUMID))).outcome is Outcome.ACCEPTED
        assert list(speech.health.facts["bad_clips"]) == [f"zh/{GAS.id}.wav"]


async def test_a_sound_device_that_fails_is_a_fault_until_it_works(room: Room, eventually) -> None:
    room.behave("fail")
    async with room.speech() as speech:
        answer = await sent(speech, notice())
        assert answer.outcome is Outcome.FAILED
        assert "audio open error" in answer.detail
        assert speech.health.fault is Fault.OFFLINE
        assert "aplay ended with 1: audio open error: No such file or directory" in speech.health.detail
        assert "alsa-utils" in speech.health.detail
        speech.show([GAS])
        room.behave("fine")
        await eventually(lambda: speech.health.fault is Fault.NONE, "tried again by itself")
        await eventually(lambda: f"zh/{GAS.id}.wav" in room.played, "said")
        assert speech.health.detail == ""


async def test_a_sound_device_that_hangs_is_killed(room: Room, eventually, monkeypatch) -> None:
    monkeypatch.setattr(player, "_SLACK_S", 0.5)
    room.behave("hang")
    async with room.speech() as speech:
        answer = await sent(speech, notice())
        assert answer.outcome is Outcome.FAILED
        assert "aplay hung and was killed" in answer.detail
        assert speech.health.fault is Fault.SILENT
        assert speech.health.facts["zh"].startswith("声卡卡死")
        assert len((room.folder / "started").read_text("utf-8").splitlines()) == 1, "the voice would hang as well"
        room.behave("fine")
        assert (await sent(speech, notice())).outcome is Outcome.ACCEPTED
        assert speech.health.fault is Fault.NONE


async def test_one_sentence_that_fails_does_not_hold_up_the_others(room: Room, eventually) -> None:
    """The most urgent one cannot be said: its turn passes to the next."""
    room.behave("no_gas")
    async with room.speech() as speech:
        speech.show([])
        speech.show([GAS, HUMID])
        await eventually(lambda: f"zh/{HUMID.id}.wav" in room.played, lambda: str(room.played))
        await eventually(lambda: speech.health.fault is Fault.OFFLINE, "it is still tried")
        room.behave("fine")
        await eventually(lambda: f"zh/{GAS.id}.wav" in room.played, lambda: str(room.played))


async def test_a_missing_player_is_a_fault_before_the_first_alarm(room: Room, eventually) -> None:
    async with room.speech(command=("no-such-player",)) as speech:
        await eventually(lambda: speech.health.fault is Fault.OFFLINE, "seen at the start")
        assert "no-such-player is not installed" in speech.health.detail
        answer = await sent(speech, notice())
        assert answer.outcome is Outcome.FAILED
        assert "no-such-player cannot be started" in answer.detail


async def test_what_a_loudspeaker_does_with_notices(room: Room, eventually) -> None:
    room.clip("test")
    async with room.speech() as speech:
        answer = await sent(speech, notice(to=Receiver(person="li")))
        assert answer.outcome is Outcome.REFUSED, "nobody knows who hears it"
        answer = await sent(speech, notice(None))
        assert answer.outcome is Outcome.ACCEPTED
        assert speech.health.facts["last"] == "一号泵停"
        assert (await sent(speech, notice(is_test=True))).outcome is Outcome.ACCEPTED
        assert room.played == ["voice", "zh/test.wav"]
        assert speech.health.facts["last"].startswith("测试")
        speech.show([replace(HUMID, id="x")])
        assert speech.health.facts["waiting"] == 0


async def test_a_notice_whose_alarm_closes_before_its_turn_is_refused(room: Room, eventually) -> None:
    room.behave("slow")
    async with room.speech() as speech:
        speech.show([])
        speech.show([GAS])
        await eventually(lambda: speech.health.facts["waiting"] == 1, "it begins")
        await asyncio.sleep(0.3)
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(sent(speech, notice(HUMID)), name="send")
            await asyncio.sleep(0.1)
            speech.show([GAS])
        assert answer.result().outcome is Outcome.REFUSED
        assert "closed" in answer.result().detail


async def test_a_notice_that_waits_too_long_comes_later(room: Room) -> None:
    room.behave("slow")
    async with room.speech(send_s=0.3) as speech:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(sent(speech, notice()), name="first")
            second = group.create_task(sent(speech, notice(HUMID)), name="second")
        for answer in (first.result(), second.result()):
            assert answer.outcome is Outcome.LATER
            assert answer.retry_s > 0
        assert (speech.health.accepted, speech.health.failed) == (0, 0)


async def test_the_real_player_takes_what_the_voice_makes(voice: Voice, need) -> None:
    aplay = need("aplay", "apt install --no-install-recommends alsa-utils")
    path = await voice.render(words.TEST[Lang.ZH], Lang.ZH)
    programs = Programs(beat=lambda: None)
    await programs.run((aplay, "-q", "-D", "null", str(path)), 60.0)
    with pytest.raises(ProgramError, match="aplay ended with 1"):
        await programs.run((aplay, "-q", "-D", "no_such_card", str(path)), 60.0)


def test_settings_of_the_document() -> None:
    section = DOC.read_text("utf-8").split("## Settings")[1]
    keys = re.findall(
        r"`(\w+)`", "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    )
    assert keys == [name for name in SpeechSettings.__dataclass_fields__ if name != "id"]
