"""What speaks for and against a profile, in Chinese and English: the reasons of `sensors.identify`."""

from __future__ import annotations

from ..console.language import Say, Words
from ..console.words import WORDS as COMMON
from ..console.words import reason_text
from ..sensors.identify import Reason

# {0} the place of a check, {1} what it is about, {2} what was read, {3} name of a value, {4} why it is none
REASONS: Words = {
    "table_holding": ("保持寄存器", "holding"),
    "table_input": ("输入寄存器", "input"),
    "table_coil": ("线圈", "coil"),
    "table_discrete": ("离散输入", "discrete"),
    "reason_fits": ("{0}，{1}：{2}，符合", "{0}, {1}: {2} fits"),
    "reason_differs": ("{0}，{1}：{2}，不符", "{0}, {1}: {2} does not fit"),
    "reason_must_differ": (
        "{0}，{1}：{2}，不符，应是另一种设备",
        "{0}, {1}: {2} does not fit, so it is another device",
    ),
    "reason_refused": (
        "{0}，{1}：设备拒绝读取，应是另一种设备",
        "{0}, {1}: the device refuses to read it, so it is another device",
    ),
    "reason_unread": ("{0}，{1}：读不到", "{0}, {1}: no answer"),
    "reason_plausible": ("{3}：{2}，合理", "{3}: {2} is plausible"),
    "reason_strange": ("{3}：{4}，这种设备不会如此", "{3}: {4}, which such a device never has"),
    "reason_idle": (
        "{3}：设备自称没有测量值（{4}），说明不了什么",
        "{3}: the device itself has no value ({4}), which says little",
    ),
    "reason_dust": ("{3}：数值小得不可能是测量值，字序可能不同", "{3}: too small to be measured: another word order?"),
    "reason_zero": ("{3}：寄存器全为 0，说明不了什么", "{3}: all registers are 0, which says little"),
    "reason_small": (
        "{3}：{2}，很小的整数，也可能只是代码",
        "{3}: {2} may be a mere code: such small numbers say little",
    ),
    "reason_no_loop": ("{3}：{2} mA，不是 4-20 mA 变送器的电流", "{3}: {2} mA is no current of a 4-20 mA transmitter"),
    "reason_no_answer": ("{3}：读不到，这种设备必须能读", "{3}: no answer, and such a device must have one"),
    "reason_nothing_read": ("一个测量值也读不到", "no value could be read"),
    "reason_babble": (
        "该设备在任何地址都有数值，因此这里的数值证明不了什么",
        "the device has numbers wherever it is asked, so those here prove nothing",
    ),
    "reason_only_numbers": (
        "只凭数值判断：该型号没有可供辨认的寄存器",
        "judged by its numbers alone: the profile has nothing that tells such a device from others",
    ),
    "reason_text": ("{3}：{2}", "{3}: {2}"),
    "reason_variant_too": ("变体 {3} 同样符合（{1}）", "variant {3} fits as well ({1})"),
    "reason_no_variant_too": ("不选变体也同样符合（{1}）", "without a variant it fits as well ({1})"),
    "reason_profile_too": (
        "无法与 {3} 区分：看设备铭牌",
        "cannot be told from {3}: look at the device's label",
    ),
}


def say_reason(reason: Reason, tr: Say) -> str:
    """One line for a person; `tr` has `REASONS`."""
    note = reason.note_zh if tr("lang") == "zh" else reason.note
    place = f"{tr(f'table_{reason.table}')} 0x{reason.address:04X}"
    why = reason_text(reason.why, tr, COMMON) if reason.why else ""
    sign = "no_variant_too" if reason.sign == "variant_too" and not reason.name else reason.sign
    return tr(f"reason_{sign}", place, note, reason.shown, reason.name, why)


def reason_json(reason: Reason) -> dict[str, object]:
    """The same for a program: what does not belong to its kind is left out."""
    has_place = bool(reason.note) and not reason.name and reason.sign != "variant_too"
    fields: dict[str, object] = {"sign": reason.sign.value}
    fields |= {key: text for key in ("name", "note", "shown", "why") if (text := getattr(reason, key))}
    return {**fields, **({"table": reason.table.value, "address": reason.address} if has_place else {})}
