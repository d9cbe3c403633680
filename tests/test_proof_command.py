"""`sitewarden proof`, and what a run says in both languages."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import argon2
import pytest
from sitewarden.console.language import translator
from sitewarden.console.text import width
from sitewarden.console.words import WORDS
from sitewarden.edge.proof.plan import Part, Result, Verdict
from sitewarden.edge.proof.telling import in_chinese, week_view
from sitewarden.edge.proof.weekly import Schedule, Week
from sitewarden.proof_command import end_lines, run_lines, step_line
from sitewarden.serving import secrets as secrets_module
from sitewarden.tests.peers.robot_servers import TOKEN, RobotServers
from sitewarden.tests.peers.whole_gateway import DEVICE, Gateway, Page, Sensors, alarm_toml
from sitewarden.words import utc_from_text

Eventually = Callable[..., Awaitable[Any]]
POINT = "store.th1.humidity"
EN, ZH = translator("en", WORDS), translator("zh", WORDS)
STEP = {"part": "accepted", "key": "7", "channel": "sms", "kind": "sms", "person": "li", "verdict": "passed"}
STEP |= {"seconds": 1.26, "detail": "", "detail_zh": ""}
LATE = {**STEP, "verdict": "failed", "seconds": 60.0, "detail": "not within 60 s", "detail_zh": "60 秒内没有完成"}
GONE = {**STEP, "part": "sounded", "channel": "", "person": "", "verdict": "not_there", "seconds": None}


# --- words ---


def test_a_verdict_is_one_line():
    assert step_line(STEP, EN) == "  accepted      passed        1.3 s  sms li"
    assert step_line(LATE, EN) == "  accepted      failed       60.0 s  sms li: not within 60 s"
    assert step_line(LATE, ZH) == "  已接收  未通过   60.0 秒  sms li：60 秒内没有完成"
    assert step_line({**STEP, "detail": "record 3"}, EN).endswith("sms li"), "what has passed needs no reason"


def test_verdicts_stand_below_each_other():
    for tr in (EN, ZH):
        lines = [step_line({**STEP, "part": part.value, "verdict": one.value}, tr) for part in Part for one in Verdict]
        assert len({width(line.partition(" sms")[0]) for line in lines}) == 1


def test_every_part_verdict_and_result_has_its_word():
    for word in (*Part, *Verdict, *Result, "running"):
        assert all(WORDS[f"proof_{word}"]), word


def test_the_end_of_a_run():
    run = {"run": 3, "result": "passed", "seconds": 12.34, "why": "", "why_zh": ""}
    assert list(end_lines(run, EN)) == ["result: passed (12.3 s)"]
    left = {**run, "result": "interrupted", "seconds": None, "why": "it stopped", "why_zh": "停止"}
    assert list(end_lines(left, ZH)) == ["结果：中断（停止）"]
    listed = {**run, "at": "2026-11-22T05:01:02.003Z", "point": POINT, "by": "wang"}
    assert list(run_lines([listed], EN)) == [f"   3  2026-11-22 05:01Z  {POINT}: passed (wang)"]


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("not within 60 s; no proof that it arrived", "60 秒内没有完成；no proof that it arrived"),
        ("nobody is officer now; li is not told", "现在没有安全员；没有通知 li"),
        ("record 12", "第 12 条记录"),
        ("record 12 is not what was written", "第 12 条记录与写入的不一致"),
        ("overridden: pit.gas.high", "被真实报警中止：pit.gas.high"),
        ("", ""),
    ],
)
def test_reasons_in_chinese(english: str, chinese: str):
    assert in_chinese(english) == chinese


SENTENCES = [
    "no reading since the gateway has started",
    "its newest reading is bad: {reading.why}",
    "its newest reading is {now_s - reading.at.mono_s:.0f} s old",
    "the rules have not turned for {now_s - turned_s:.0f} s",
    "nobody is {role} now",
    "{person} is not told",
    "no channel of kind {kind} was used",
    "not within {step.bound_s:g} s",
    "an alarm is open: a test neither hides it nor is taken for one",
    "there was no alarm",
    "it was not accepted",
    "record {seq}",
    "record {seq} is not what was written",
    "the gateway stopped before it was over",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_each_reason_that_the_code_gives_has_its_chinese(root: Path, sentence: str):
    code = "".join((root / "edge" / "proof" / name).read_text("utf-8") for name in ("plan.py", "run.py"))
    assert sentence in code, "the code says it otherwise now: change the Chinese as well"
    assert not in_chinese(re.sub(r"\{[^}]*\}", "7", sentence)).isascii()


def test_the_week():
    """Schedule: Monday 10:00 in Shanghai."""
    monday, zone = Schedule(point=POINT), "Asia/Shanghai"
    now_ms = utc_from_text("2027-03-02T00:00:00.000Z")
    week = Week(refused_day="2027-03-01", refused="flood", missed_day="2027-02-22", missed="off")
    view = week_view(monday, week, now_ms, zone)
    assert (view["next"], view["next_day"]) == ("2027-03-08T02:00:00.000Z", "2027-03-08")
    assert (view["refused"], view["missed_day"], view["missed"]) == ("flood", "2027-02-22", "off")
    assert week_view(monday, week, now_ms + 7 * 86_400_000, zone)["refused"] == "", "of a day that is over"


# --- the command ---


@dataclass
class Bench:
    gateway: Gateway
    page: Page

    async def reads(self, quality: str) -> bool:
        points = (await self.page.get("points"))["points"]
        return any(point["id"] == POINT and point["q"] == quality for point in points)

    async def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own, in English unless the words say otherwise."""
        command = [sys.executable, "-m", "sitewarden", "proof", "--data", str(self.gateway.data), *words]
        plain = {key: value for key, value in os.environ.items() if key not in ("LC_ALL", "LC_MESSAGES", "LANG")}
        return await asyncio.to_thread(
            subprocess.run, command, env=plain, capture_output=True, text=True, timeout=100, check=False
        )


@pytest.fixture
async def bench(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> AsyncIterator[Bench]:
    """A gateway with a robot, and values that come."""
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(secrets_module, "_HASHER", cheap)
    servers = RobotServers()
    async with servers.running(), Sensors().serving() as sensors:
        site = f"""
[alerts]
channels = ["hall"]
unreachable_ok = true
[[channel]]
id = "hall"
kind = "webhook"
url = "{servers.url}/webhook/{TOKEN}"
{DEVICE.format(unit=1, poll_s=0.5)}
{alarm_toml(POINT, hi="{ limit = 75.0, priority = 3 }")}
"""
        gateway = Gateway(tmp_path, free_port(), sensors, site)
        gateway.prepare()
        async with gateway.running(), gateway.page("li") as page:
            made = Bench(gateway, page)
            await eventually(lambda: made.reads("good"), "a value")
            yield made


async def test_each_verdict_is_shown_and_the_exit_code_is_the_result(bench: Bench, eventually: Eventually):
    assert (await bench.run("--last")).stdout == "there has been no proof test yet\n"
    done = await bench.run(POINT)
    first, *steps, last = done.stdout.splitlines()
    assert (done.returncode, first) == (0, f"proof test 1: {POINT}"), done.stderr
    assert re.fullmatch(r"result: passed \(\d+\.\d s\)", last)
    assert [line.split()[0] for line in steps[:2]] == ["source", "alarm"], "in the order in which they came"
    told = sorted(line.split()[0] for line in steps)
    assert told == sorted([*(EN(f"proof_{part}") for part in Part), "accepted"]), "both people"
    (started,) = bench.gateway.records("proof.started")
    assert re.fullmatch(r"console uid \d+", started["actor"])
    bench.gateway.sensors.registers[1] = [0x8000, 240]  # out of range: its newest reading is bad
    await eventually(lambda: bench.reads("bad"), "a bad reading")
    zh = await bench.run(POINT, "--lang", "zh", "--json")
    run = json.loads(zh.stdout)
    assert (zh.returncode, run["run"], run["result"]) == (1, 2, "failed")
    shown = (await bench.run("--last", "--lang", "zh")).stdout.splitlines()
    assert re.fullmatch(rf"   2  \S+ \S+Z  {POINT}：未通过（console uid \d+）", shown[0])
    assert shown[-1].startswith("   1  ")
    assert any(line.startswith("  信号    未通过    0.0 秒  最新读数无效：") for line in shown), shown
    assert [one["run"] for one in json.loads((await bench.run("--last", "--json")).stdout)] == [2, 1]


async def test_why_it_does_not_begin(bench: Bench, eventually: Eventually):
    done = await bench.run()
    hint = "name a point, or add [proof] with one to site.toml"
    assert (done.returncode, done.stderr) == (1, f"sitewarden: which point's alarm is to be tested? ({hint})\n")
    zh = await bench.run("--lang", "zh")
    assert zh.stderr == "sitewarden：要测试哪个测点的报警？（写出测点，或在 site.toml 中加 [proof]）\n"
    assert "store.nothing.at_all has no alarm of a limit" in (await bench.run("store.nothing.at_all")).stderr
    bench.gateway.sensors.registers[1] = [800, 240]
    await eventually(lambda: bench.gateway.has(f"{POINT}.high", "raised"), "a real alarm")
    zh = await bench.run(POINT, "--lang", "zh")
    assert zh.stderr == "sitewarden：有真实报警，现在不能测试（等它关闭，或已确认且为 3、4 级）\n"
    assert (await bench.run(POINT, "--last")).returncode == 2
