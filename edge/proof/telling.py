"""What a run says to people, in Chinese beside the English of its records; and the week that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...words import utc_text
from ..alerts.message_words import ROLES
from .weekly import Schedule, Week, newest_slot

_WEEK_MS = 7 * 86_400_000
_PIECES = (
    (r"no reading since the gateway has started", "网关启动后还没有读数"),
    (r"its newest reading is bad: (.*)", r"最新读数无效：\1"),
    (r"its newest reading is (\d+) s old", r"最新读数是 \1 秒前的"),
    (r"the rules have not turned for (\d+) s", r"报警规则已 \1 秒没有运行"),
    (r"record (\d+)", r"第 \1 条记录"),
    (r"record (\d+) is not what was written", r"第 \1 条记录与写入的不一致"),
    (r"(\S+) is not told", r"没有通知 \1"),
    (r"no channel of kind (\S+) was used", r"没有用到 \1 通道"),
    (r"not within (\S+) s", r"\1 秒内没有完成"),
    (r"an alarm is open: a test neither hides it nor is taken for one", "有报警未关闭：测试不掩盖它，也不与它混淆"),
    (r"there was no alarm", "没有产生报警"),
    (r"it was not accepted", "没有被接收"),
    (r"overridden: (.*)", r"被真实报警中止：\1"),
    (r"interrupted: (.*)", r"中断：\1"),
    (r"the gateway stopped before it was over", "网关在测试结束前停止"),
)
_NOBODY = re.compile(r"nobody is (\S+) now")


def in_chinese(detail: str) -> str:
    """A step's detail or a run's reason; what a device or a receiver's system said stays as it is."""
    return "；".join(_piece(piece) for piece in detail.split("; "))


def run_view(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run of `table.last_runs` with `why_zh` and, in each step, `detail_zh`."""
    steps = [{**step, "detail_zh": in_chinese(step["detail"])} for step in run["steps"]]
    return {**run, "steps": steps, "why_zh": in_chinese(run.get("why", ""))}


def week_view(schedule: Schedule, week: Week, now_ms: int, timezone: str) -> dict[str, Any]:
    """What is known of the schedule beside its hour.

    Returns:
        next, next_day: the slot that comes next, UTC and its day at the site.
        refused: why this day's slot has been refused so far, empty when it was not.
        missed_day, missed: the slot that was missed last, until one is tested again.
    """
    day = newest_slot(schedule, now_ms, timezone)[0]
    next_day, next_ms = newest_slot(schedule, now_ms + _WEEK_MS, timezone)
    return {
        "next": utc_text(next_ms),
        "next_day": next_day,
        "refused": week.refused if week.refused_day == day else "",
        "missed_day": week.missed_day,
        "missed": week.missed,
    }


def _piece(text: str) -> str:
    if nobody := _NOBODY.fullmatch(text):
        return f"现在没有{ROLES.get(nobody[1], (nobody[1],))[0]}"
    found = ((re.fullmatch(pattern, text), chinese) for pattern, chinese in _PIECES)
    return next((match.expand(chinese) for match, chinese in found if match), text)
