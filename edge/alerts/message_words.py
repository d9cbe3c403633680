"""The words of messages in both languages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROLES: Mapping[str, tuple[str, str]] = {
    "worker": ("员工", "worker"),
    "team_leader": ("班组长", "team leader"),
    "keeper": ("仓管员", "keeper"),
    "officer": ("安全员", "safety officer"),
    "control_room": ("中控", "control room"),
    "manager": ("经理", "manager"),
    "vice_president": ("副总", "vice president"),
    "contractor": ("承包商", "contractor"),
    "hr": ("人事", "HR"),
    "it": ("信息员", "IT"),
    "inspector": ("检查员", "inspector"),
    "admin": ("管理员", "administrator"),
}
LIMITS: Mapping[str, tuple[str, str]] = {
    "hihi": ("超过上上限", " above high-high"),
    "hi": ("超过上限", " above high"),
    "lo": ("低于下限", " below low"),
    "lolo": ("低于下下限", " below low-low"),
}
"""What is wrong; the names of all other kinds of alarms say it themselves."""

VALUES: Mapping[str, tuple[str, str]] = {
    "roc": ("每分钟变化{}", "Changes by {} a minute"),
    "deviation": ("偏差{}", "Off by {}"),
    "discrete": ("状态{}", "State {}"),
}
VALUE = ("实测{}", "Measured {}")
"""What the value of an alarm is: of the kinds that are not in `VALUES`, what the point reads."""

COLOURS: Mapping[str, tuple[str, str]] = {
    "red": ("红", "RED"),
    "orange": ("橙", "ORANGE"),
    "yellow": ("黄", "YELLOW"),
    "blue": ("蓝", "BLUE"),
}
OF_PRIORITY = ("red", "orange", "yellow", "blue")
LEVELS = (("一级", "P1"), ("二级", "P2"), ("三级", "P3"), ("四级", "P4"))


@dataclass(frozen=True, slots=True)
class Say:
    """What kind of news it is: a tag, and what to do; `{n}` in it is the alarm's number. Both in both languages."""

    tag: tuple[str, str] = ("", "")
    do: tuple[str, str] = ("", "")


_ACT = ("请处置并确认，报警号{n}", "act, ack no. {n}")
SAY: Mapping[str, Say] = {
    "alarm.raised": Say(("", ""), _ACT),
    "alarm.reraised": Say(("加重", "WORSE"), _ACT),
    "alarm.reopened": Say(("再次", "AGAIN"), _ACT),
    "alarm.repeated": Say(("仍未处理", "OPEN"), _ACT),
    "alarm.shelved": Say(("搁置", "SHELVED"), ("已搁置，请知悉，报警号{n}", "for information, no. {n}")),
    "alarm.out_of_service": Say(("停用", "DISABLED"), ("已停用，请知悉，报警号{n}", "for information, no. {n}")),
    "ladder.step": Say(("催办", "OVERDUE"), ("请立即处理{n}", "act now{n}")),
    "freeze.set": Say(("冻结", "FROZEN"), ("立即停止作业，解冻前不得恢复", "stop work until released")),
    "freeze.released": Say(("解冻", "RELEASED"), ("可以恢复作业", "work may go on")),
    "deviation.opened": Say(("偏差", "DEVIATION"), ("请填写偏差报告", "write the deviation report")),
    "delivery.clear": Say(("恢复", "CLEAR"), ("已关闭，无需处置，报警号{n}", "nothing to do, no. {n}")),
}
COMBINED = Say(("已恢复", "OVER"), ("曾报警，现已恢复，报警号{n}", "was on, is over, no. {n}"))
PROOF = Say(("", ""), ("系统测试，无需确认和处置", "a test, nothing to ack"))
OTHER = Say(("", ""), ("请查看大屏", "look at the screen"))
DIGEST = Say(("汇总", "LIST"), ("请到大屏查看并确认，首报号{n}", "see screen, no. {n}"))
ALL_OVER = Say(("恢复", "CLEAR"), ("已关闭，无需处置", "closed, nothing to do"))
REPLY = Say(("回复", "REPLY"), ("", ""))
TEST = ("测试", "TEST")
RESENT = ("重发", "RESENT")
UNRECORDED = ("未记录", "NOT RECORDED")
LATE = ("延迟", "LATE")
CLOSED_BY: Mapping[str, tuple[str, str]] = {
    "acked_and_normal": ("已恢复正常并确认", "back to normal and acknowledged"),
    "reset": ("已由安全员复位", "reset by an officer"),
    "cleared_while_suppressed": ("搁置期间恢复正常", "back to normal while suppressed"),
    "rule_removed": ("报警设置已撤销", "the alarm was removed from the settings"),
}
WORK: Mapping[str, tuple[str, str]] = {
    "*": ("全部作业", "all work"),
    "stock": ("出入库", "stock movements"),
    "hot_work": ("动火作业", "hot work"),
}
