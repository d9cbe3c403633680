"""Numbers, units and times as they are spoken in Chinese and in English. Pure.

A voice that is given digits and signs reads them as it likes; so everything is spelled before.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

DIGITS = "零一二三四五六七八九"
_PLACES = ("", "十", "百", "千")
_GROUPS = ("", "万", "亿", "万")  # the last one is 万 of 亿
_LARGEST = 10**16
_SIGNIFICANT = 4


@dataclass(frozen=True, slots=True)
class _Unit:
    """How a unit is spoken: before and after the number, and what a negative number begins with."""

    before: str
    after: str
    en: str
    minus: str = "负"


_UNITS = {
    "": _Unit("", "", ""),
    "%": _Unit("百分之", "", "percent"),
    "%RH": _Unit("百分之", "", "percent relative humidity"),
    "%LEL": _Unit("爆炸下限的百分之", "", "percent of the lower explosive limit"),
    "%vol": _Unit("体积分数百分之", "", "percent by volume"),
    "ppm": _Unit("百万分之", "", "parts per million"),
    "ppb": _Unit("十亿分之", "", "parts per billion"),
    "mg/m³": _Unit("", "毫克每立方米", "milligrams per cubic metre"),
    "°C": _Unit("", "摄氏度", "degrees Celsius", minus="零下"),
    "K": _Unit("", "开", "kelvins"),
    "Pa": _Unit("", "帕", "pascals"),
    "kPa": _Unit("", "千帕", "kilopascals"),
    "MPa": _Unit("", "兆帕", "megapascals"),
    "bar": _Unit("", "巴", "bar"),
    "mbar": _Unit("", "毫巴", "millibars"),
    "m": _Unit("", "米", "metres"),
    "cm": _Unit("", "厘米", "centimetres"),
    "mm": _Unit("", "毫米", "millimetres"),
    "m/s": _Unit("", "米每秒", "metres per second"),
    "mm/s": _Unit("", "毫米每秒", "millimetres per second"),
    "m³/h": _Unit("", "立方米每小时", "cubic metres per hour"),
    "L/min": _Unit("", "升每分钟", "litres per minute"),
    "L": _Unit("", "升", "litres"),
    "m³": _Unit("", "立方米", "cubic metres"),
    "t": _Unit("", "吨", "tonnes"),
    "kg": _Unit("", "千克", "kilograms"),
    "mA": _Unit("", "毫安", "milliamperes"),
    "A": _Unit("", "安", "amperes"),
    "V": _Unit("", "伏", "volts"),
    "W": _Unit("", "瓦", "watts"),
    "kW": _Unit("", "千瓦", "kilowatts"),
    "kWh": _Unit("", "千瓦时", "kilowatt hours"),
    "Hz": _Unit("", "赫兹", "hertz"),
    "rpm": _Unit("", "转每分钟", "revolutions per minute"),
    "dB": _Unit("", "分贝", "decibels"),
    "ms": _Unit("", "毫秒", "milliseconds"),
    "s": _Unit("", "秒", "seconds"),
    "min": _Unit("", "分钟", "minutes"),
    "h": _Unit("", "小时", "hours"),
}
_OTHER_SPELLINGS = {
    "℃": "°C",
    "％": "%",
    "%Vol": "%vol",
    "mg/m3": "mg/m³",
    "m3": "m³",
    "m3/h": "m³/h",
    "l/min": "L/min",
}
UNITS = (*_UNITS, *_OTHER_SPELLINGS)

# Names such as PT-4, H2S and 4G: read by another voice.
LATIN = re.compile(r"(?=[0-9./-]*[A-Za-z])[A-Za-z0-9]+(?:[-./][A-Za-z0-9]+)*", re.ASCII)
_APART = r"(?<![A-Za-z0-9.])"
_MINUS = r"(?:(?<![\w)）])[-−])"
_IN_TEXT = [unit for unit in UNITS if len(unit) > 1 or not unit.isalpha()]  # 2A is a name before it is a current
_LONGEST_FIRST = "|".join(re.escape(unit) for unit in sorted(_IN_TEXT, key=len, reverse=True) if unit)
_TIME = re.compile(rf"{_APART}([01]?\d|2[0-3]):([0-5]\d)(?!\d)", re.ASCII)
_MEASURED = re.compile(rf"{_APART}({_MINUS}?)(\d+(?:\.\d+)?)\s*({_LONGEST_FIRST})(?![A-Za-z0-9])", re.ASCII)
_NUMBER = re.compile(rf"({_MINUS}?)(?<![0-9.])(\d+(?:\.\d+)?)(?![.]?\d)", re.ASCII)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)
_MOST_READ_AS_NUMBER = 4  # digits; longer ones, and those that begin with 0, name something


def whole(number: int) -> str:
    """A whole number from 0 in hanzi: 10010 is 一万零一十. Raises ValueError beyond 10^16."""
    if not 0 <= number < _LARGEST:
        raise ValueError(f"{number} is not 0..{_LARGEST - 1}")
    if number == 0:
        return DIGITS[0]
    said, gap = "", False
    for place in reversed(range(len(_GROUPS))):
        group = number // 10_000**place % 10_000
        if not group:
            gap = bool(said)
            continue
        if said and (gap or group < 1000):
            said += DIGITS[0]
        said += _group(group) + _GROUPS[place]
        if place == 3 and not number // 10**8 % 10_000:
            said += _GROUPS[2]
        gap = False
    return said.removeprefix("一") if said.startswith("一十") else said


def _group(number: int) -> str:
    """1 to 9999."""
    said, gap = "", False
    for place in reversed(range(len(_PLACES))):
        digit = number // 10**place % 10
        if digit:
            said += (DIGITS[0] if gap and said else "") + DIGITS[digit] + _PLACES[place]
        gap = not digit
    return said


def digits(text: str) -> str:
    """Each digit by its name: 0571 is 零五七一."""
    return "".join(DIGITS[int(digit)] for digit in text)


def decimal(text: str) -> str:
    """An unsigned decimal number, as it is written: 52.50 is 五十二点五零."""
    before, _, after = text.partition(".")
    return whole(int(before)) + ("点" + digits(after) if after else "")


def plain(value: float) -> str:
    """A number as people would write it: at most four significant digits behind the point, no exponent."""
    exact = Decimal(repr(float(value)))
    places = max(0, _SIGNIFICANT - 1 - exact.adjusted()) if exact else 0
    text = f"{exact:.{min(places, 6)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def measured(value: float, unit: str) -> str:
    """A value with its unit in Chinese; empty when there is no number to say. A unit that is not known is not said."""
    if not math.isfinite(value) or abs(value) >= _LARGEST:
        return ""
    text = plain(value)
    return _with_unit(text.startswith("-"), text.lstrip("-"), unit)


def measured_en(value: float, unit: str) -> str:
    """A value with its unit in English."""
    if not math.isfinite(value) or abs(value) >= _LARGEST:
        return ""
    text = plain(value)
    said = _UNITS[unit].en if (unit := _OTHER_SPELLINGS.get(unit, unit)) in _UNITS else ""
    return f"{'minus ' if text.startswith('-') else ''}{text.lstrip('-')} {said}".strip()


def clock(hour: int, minute: int) -> str:
    """A time of day: 13:05 is 十三点零五分, 8:00 is 八点整."""
    if minute == 0:
        return f"{whole(hour)}点整"
    return f"{whole(hour)}点{DIGITS[0] if minute < 10 else ''}{whole(minute)}分"


def spelled(text: str) -> str:
    """Free Chinese text with its numbers, units and times in hanzi; only names with letters (`LATIN`) keep theirs."""
    text = unicodedata.normalize("NFKC", _THOUSANDS.sub("", text))  # ℃, full-width digits and signs
    text = _TIME.sub(lambda m: clock(int(m[1]), int(m[2])), text)
    text = _MEASURED.sub(lambda m: _with_unit(bool(m[1]), m[2], m[3]), text)
    told, end = "", 0
    for name in LATIN.finditer(text):
        told += _spelled(text[end : name.start()]) + name[0]
        end = name.end()
    return told + _spelled(text[end:])


def _spelled(text: str) -> str:
    """Text without letters."""
    text = _NUMBER.sub(lambda m: ("负" if m[1] else "") + _named(m[2]), text)
    text = _DIGITS.sub(lambda m: digits(m[0]), text)
    return text.replace("#", "号").replace("%", "百分号")


def _with_unit(negative: bool, text: str, unit: str) -> str:
    known = _UNITS.get(_OTHER_SPELLINGS.get(unit, unit), _UNITS[""])
    return (known.minus if negative else "") + known.before + _number(text) + known.after


def _number(text: str) -> str:
    """What is too long for a number is read digit by digit."""
    before, point, after = text.partition(".")
    if len(before) < len(str(_LARGEST)):
        return decimal(text)
    return digits(before) + ("点" + digits(after) if point else "")


def _named(text: str) -> str:
    """A number in a name: long ones, and those that begin with 0, digit by digit."""
    before = text.partition(".")[0]
    if "." in text:
        return _number(text)
    if len(before) > _MOST_READ_AS_NUMBER or (len(before) > 1 and before.startswith("0")):
        return digits(before)
    return whole(int(before))
