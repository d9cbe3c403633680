"""What the columns and identifiers of the exports are called, Chinese and English. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

CHANGES: Mapping[str, str] = {
    "raised": "触发",
    "reraised": "升级，再次触发",
    "recurred": "条件再次出现",
    "eased": "程度减轻",
    "reopened": "再次触发",
    "returned": "恢复正常",
    "acked": "确认",
    "repeated": "重复通知",
    "shelved": "搁置",
    "unshelved": "搁置结束",
    "suppressed": "按设计屏蔽",
    "unsuppressed": "屏蔽结束",
    "out_of_service": "停用",
    "in_service": "恢复投用",
    "closed": "关闭",
}
STATES: Mapping[str, str] = {
    "NORM": "正常",
    "UNACK": "未确认",
    "ACKED": "已确认，仍在报警",
    "RTNUN": "已恢复，未确认",
    "LATU": "已锁定，未确认",
    "LATA": "已锁定，待复位",
}
KINDS: Mapping[str, str] = {"hihi": "高高报", "hi": "高报", "lo": "低报", "lolo": "低低报"}
"""The names of all other kinds of alarms say themselves what they are about."""

HISTORY_HEADER = (
    "编号 No.",
    "时间 Time",
    "UTC",
    "区域 Area",
    "报警 Alarm",
    "Alarm (en)",
    "报警标识 Alarm id",
    "测点 Point",
    "类型 Kind",
    "优先级 Priority",
    "变化 Change",
    "之后的状态 State after",
    "原因 Reason",
    "数值 Value",
    "限值 Limit",
    "单位 Unit",
    "操作人 By",
    "说明 Words",
    "第几次 Occurrence",
)


def history_row(event: Mapping[str, Any], areas: Mapping[str, str], timezone: str) -> list[object]:
    """One event of the history under `HISTORY_HEADER`.

    Args:
        event: with today's names, as the API shows it.
        areas: names by id.
        timezone: of the column of local times, an IANA name.
    """
    alarm = event["alarm"]
    overlay = alarm["overlay"] or {}
    words = " ".join(str(overlay.get(key) or "") for key in ("permit", "why")).strip()
    local = datetime.fromisoformat(event["at"]).astimezone(ZoneInfo(timezone))
    return [
        event["seq"],
        local.strftime("%Y-%m-%d %H:%M:%S"),
        event["at"],
        areas.get(alarm["area"], alarm["area"]),
        alarm["name"],
        alarm["name_en"],
        alarm["id"],
        alarm["point"],
        _both(KINDS, alarm["kind"] or ""),
        alarm["priority"],
        _both(CHANGES, event["kind"].removeprefix("alarm.")),
        _both(STATES, alarm["state"]),
        event["reason"],
        alarm["value"],
        alarm["limit"] if alarm["kind"] in KINDS else None,
        alarm["unit"],
        event["actor_name"],
        words,
        alarm["occurrence"],
    ]


STATISTICS_HEADER = (
    "岗位 Position",
    "指标 Number",
    "Number (en)",
    "对象 Of",
    "数值 Value",
    "单位 Unit",
    "目标 Goal",
    "评价 Verdict",
    "定义 Definition",
    "Definition (en)",
    "来源 Source",
    "起 From",
    "止 To",
)
VERDICTS: Mapping[str, str] = {"met": "达标 met", "near": "尚可 near", "missed": "未达标 missed", "": ""}


def statistics_rows(answer: Mapping[str, Any]) -> list[list[object]]:
    """The numbers that the API answers, one a row, under `STATISTICS_HEADER`."""
    rows: list[list[object]] = []
    for position in answer["positions"]:
        for key, definition in answer["definitions"].items():
            for of, value in _values(key, position, answer["names"]):
                rows.append(
                    [
                        position["position"],
                        definition["name"],
                        definition["name_en"],
                        of,
                        value,
                        definition["unit"],
                        definition["goal"],
                        VERDICTS[position["verdicts"].get(key, "")],
                        definition["says"],
                        definition["says_en"],
                        definition["source"],
                        answer["from"],
                        answer["to"],
                    ]
                )
    return rows


def _values(key: str, position: Mapping[str, Any], names: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What a number consists of: itself, and what it counts by name."""
    value = position[key]
    if key == "priority_pct":
        return [(f"{priority}级 P{priority}", share) for priority, share in value.items()]
    if key == "top_ten_pct":
        return [("", value), *((_name(names, each["alarm"]), each["count"]) for each in position["top"])]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [("", len(value)), *((_name(names, alarm), 1) for alarm in value)]
    return [("", value)]


def _name(names: Mapping[str, Any], alarm: str) -> str:
    named = names.get(alarm)
    return f"{named['name']} {named['name_en']}" if named else alarm


def _both(words: Mapping[str, str], key: str) -> str:
    return f"{words[key]} {key}" if key in words else key
