"""A trial of alarm limits for people: the table "as it was / as it would be", as JSON, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ..console.language import Say, Words, translator
from ..console.text import table
from ..words import utc_text
from .alarms.trial import HOUR_MS, Count, Episode, Tally, count, within
from .replaying import Trial

MOST_LINES = 40
_HEAD_CSV = (
    *("side", "alarm", "name", "name_en", "level", "priority", "start", "end"),
    *("seconds", "worst", "unit"),
)

WORDS: Words = {
    "title": ("阈值试算：{0} 至 {1}（{2} 小时，{3}）", "Trial of limits: {0} to {1} ({2} hours, {3})"),
    "readings": ("读数 {0} 个", "{0} readings"),
    "change": ("改动：{0}", "changed: {0}"),
    "no_change": ("没有改动（--set），以现行规则重放", "nothing was changed (--set): the rules as they are"),
    "alarm": ("报警", "alarm"),
    "journal": ("实际", "happened"),
    "rules": ("现行规则", "rules now"),
    "would": ("试算", "trial"),
    "times": ("次数", "times"),
    "on": ("时长", "time on"),
    "worst": ("最严重", "worst"),
    "all": ("合计", "all"),
    "per_hour": ("每小时次数", "times per hour"),
    "announced": ("通知次数", "people told"),
    "nothing": ("两边都没有报警", "no alarms on either side"),
    "list": ("试算中的报警：", "Alarms of the trial:"),
    "no_list": ("试算中没有报警", "The trial has no alarms."),
    "start": ("开始", "start"),
    "end": ("结束", "end"),
    "level": ("级别", "level"),
    "still_on": ("未恢复", "still on"),
    "more": ("……还有 {0} 次：用 --csv 或 --json 看全部", "... and {0} more: --csv or --json has them all"),
    "acks": (
        "假定所有必需角色在 {0} 秒后确认，锁存的立即复位；系统报警和通信中断报警不重放",
        "Required roles are taken to acknowledge after {0} s and to reset at once. Not replayed: alarms of the system.",
    ),
    "restarts": ("期间网关启动 {0} 次", "The gateway was started {0} times meanwhile."),
    "delayed": (
        "{0} 个迟到的读数不参与判断，与运行时相同",
        "{0} readings that came too late are not judged, as when they came.",
    ),
    "lost": ("{0} 个数据段读不出，缺少其中的读数", "{0} segments could not be read: their readings are missing."),
}


def trial_lines(trial: Trial, lang: str) -> Iterator[str]:
    """What the command prints, in `zh` or `en`."""
    tr = translator(lang, WORDS)
    yield from _head(trial, tr)
    yield ""
    yield from _comparison(trial, tr)
    yield ""
    yield from _list(trial, tr, lang)
    yield ""
    yield from _notes(trial, tr)


def trial_json(trial: Trial) -> dict[str, Any]:
    """What `--json` prints."""
    hours = _hours(trial)
    was, would = _counts(trial, trial.was), _counts(trial, trial.would)
    return {
        "from": utc_text(trial.t0_ms),
        "to": utc_text(trial.t1_ms),
        "hours": round(hours, 4),
        "against": trial.order.against,
        "set": list(trial.order.changes),
        "ack_after_s": trial.order.ack_after_s,
        "readings": trial.readings,
        "delayed": trial.delayed,
        "lost_segments": trial.lost,
        "restarts": trial.restarts,
        "alarms": [
            {
                "id": alarm,
                "was": was.get(alarm, Count()).to_json(hours),
                "would": would.get(alarm, Count()).to_json(hours),
            }
            for alarm in sorted({*was, *would})
        ],
        "announced": {"was": trial.was.announced, "would": trial.would.announced},
        "was": [_episode_json(trial, episode) for episode in _within(trial, trial.was)],
        "would": [_episode_json(trial, episode) for episode in _within(trial, trial.would)],
    }


def csv_text(trial: Trial) -> str:
    """Every occurrence of both sides, `was` and `would`; times in the site's time zone with their offset."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEAD_CSV)
    zone = ZoneInfo(trial.site.site.timezone)
    for side, tally in (("was", trial.was), ("would", trial.would)):
        for e in _within(trial, tally):
            times = [
                _moment(ms, zone).isoformat(timespec="milliseconds") if ms else "" for ms in (e.start_ms, e.end_ms)
            ]
            seconds = f"{e.duration_s(trial.t0_ms, trial.t1_ms):.3f}"
            worst = "" if e.worst is None else f"{e.worst:.10g}"
            writer.writerow([side, e.alarm, e.name, e.name_en, e.kind, e.priority, *times, seconds, worst, e.unit])
    return text.getvalue()


def _head(trial: Trial, tr: Say) -> Iterator[str]:
    zone = ZoneInfo(trial.site.site.timezone)
    times = (_minute(trial.t0_ms, zone), _minute(trial.t1_ms, zone))
    yield tr("title", *times, f"{_hours(trial):.2f}", zone.key)
    yield tr("readings", f"{trial.readings:,}")
    yield from (tr("change", change) for change in trial.order.changes)
    if not trial.order.changes:
        yield tr("no_change")


def _comparison(trial: Trial, tr: Say) -> Iterator[str]:
    was, would = _counts(trial, trial.was), _counts(trial, trial.would)
    if not was and not would:
        yield tr("nothing")
        return
    sides = (tr(trial.order.against), tr("would"))
    names = (tr("times"), tr("on"), tr("worst"))
    rows = [(tr("alarm"), *(f"{side} {name}" for side in sides for name in names))]
    rows += [(alarm, *_cells(was.get(alarm)), *_cells(would.get(alarm))) for alarm in sorted({*was, *would})]
    totals = [sum(one.times for one in side.values()) for side in (was, would)]
    spent = [_duration(sum(one.on_s for one in side.values())) for side in (was, would)]
    rows.append((tr("all"), str(totals[0]), spent[0], "", str(totals[1]), spent[1], ""))
    rates = [f"{total / _hours(trial):.2f}" if _hours(trial) else "-" for total in totals]
    rows.append((tr("per_hour"), rates[0], "", "", rates[1], "", ""))
    rows.append((tr("announced"), str(trial.was.announced), "", "", str(trial.would.announced), "", ""))
    yield from table(rows, right=" rrrrrr", indent=0)


def _cells(counted: Count | None) -> tuple[str, str, str]:
    if counted is None:
        return "0", "-", "-"
    return str(counted.times), _duration(counted.on_s), "-" if counted.worst is None else f"{counted.worst:g}"


def _list(trial: Trial, tr: Say, lang: str) -> Iterator[str]:
    episodes, zone = _within(trial, trial.would), ZoneInfo(trial.site.site.timezone)
    if not episodes:
        yield tr("no_list")
        return
    yield tr("list")
    rows = [(tr("start"), tr("end"), tr("on"), tr("worst"), tr("level"), tr("alarm"))]
    for e in episodes[:MOST_LINES]:
        end = tr("still_on") if e.end_ms is None else _second(e.end_ms, zone)
        worst = "-" if e.worst is None else f"{e.worst:g} {e.unit}".rstrip()
        name = e.name if lang == "zh" else e.name_en
        spent = _duration(e.duration_s(trial.t0_ms, trial.t1_ms))
        rows.append((_second(e.start_ms, zone), end, spent, worst, e.kind, f"{e.alarm} {name}"))
    yield from table(rows, right="  rr")
    if len(episodes) > MOST_LINES:
        yield "  " + tr("more", len(episodes) - MOST_LINES)


def _notes(trial: Trial, tr: Say) -> Iterable[str]:
    yield tr("acks", f"{trial.order.ack_after_s:g}")
    for key, number in (("restarts", trial.restarts), ("delayed", trial.delayed), ("lost", trial.lost)):
        if number:
            yield tr(key, number)


def _episode_json(trial: Trial, episode: Episode) -> dict[str, Any]:
    return {
        "alarm": episode.alarm,
        "level": episode.kind,
        "priority": episode.priority,
        "start": utc_text(episode.start_ms),
        "end": None if episode.end_ms is None else utc_text(episode.end_ms),
        "seconds": round(episode.duration_s(trial.t0_ms, trial.t1_ms), 3),
        "worst": episode.worst,
        "unit": episode.unit,
    }


def _counts(trial: Trial, tally: Tally) -> dict[str, Count]:
    return count(tally.episodes, trial.t0_ms, trial.t1_ms)


def _within(trial: Trial, tally: Tally) -> list[Episode]:
    return within(tally.episodes, trial.t0_ms, trial.t1_ms)


def _hours(trial: Trial) -> float:
    return (trial.t1_ms - trial.t0_ms) / HOUR_MS


def _duration(seconds: float) -> str:
    """`3:20:10`, hours without an end."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _moment(utc_ms: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(utc_ms / 1000, zone)


def _minute(utc_ms: int, zone: ZoneInfo) -> str:
    return _moment(utc_ms, zone).strftime("%Y-%m-%d %H:%M")


def _second(utc_ms: int, zone: ZoneInfo) -> str:
    return _moment(utc_ms, zone).strftime("%m-%d %H:%M:%S")
