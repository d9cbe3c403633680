"""What the outbox sends: one notice for each message, in the words of its receiver. Pure.

The title has at most 40 characters and the tags come first. The first 70 characters of the text, one SMS, say what,
where and what to do, however long the names are; what follows is the rest of the story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ...serving.people import Person
from .digest import Batch
from .message_words import (
    ALL_OVER,
    CLOSED_BY,
    COLOURS,
    COMBINED,
    DIGEST,
    LATE,
    LEVELS,
    LIMITS,
    OF_PRIORITY,
    OTHER,
    PROOF,
    REPLY,
    RESENT,
    ROLES,
    SAY,
    TEST,
    UNRECORDED,
    VALUE,
    VALUES,
    WORK,
    Say,
)
from .port import Notice, Receiver
from .rows import ANSWER, CLEAR, Row
from .speech.numbers import plain

HEAD = 70
TITLE = 40
_NAME_LEAST = 8
_WORK_MOST = 12
_NAMED = 10  # of a digest, beside the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Composer:
    """Composes messages for one site, with its names as they are today.

    Attributes:
        site: its name; one robot's group may hear of several plants.
        timezone: of the times in the text, an IANA name.
        people: by id.
        areas: names of areas by id, Chinese and English.
        has_modem: an answer by SMS reaches the gateway.
        is_recorded: what happens now is kept; else every message says that it is not.
    """

    site: str
    timezone: str
    people: Mapping[str, Person]
    areas: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    has_modem: bool = True
    is_recorded: bool = True

    def __call__(self, batch: Batch) -> Notice:
        """The notice of one message; `key`, `number` and `facts` are those of the row that it names."""
        row = batch.first
        mentions = tuple(map(self._receiver, dict.fromkeys(name for each in batch.rows for name in each.mentions)))
        to = self._receiver(row.person) if row.person else next(iter(mentions), Receiver())
        if any(receiver.lang != to.lang for receiver in mentions):
            to = replace(to, lang="zh")  # of one message for both, the site's own language
        telling = _Telling(self, batch, 1 if to.lang == "en" else 0)
        return Notice(
            key=batch.key,
            to=to,
            title=telling.title(),
            text=telling.text(),
            priority=batch.priority,
            resent=batch.resent,
            is_test=row.is_test,
            step=row.step > 0,
            number=telling.number,
            mentions=mentions,
            facts=_facts(batch),
        )

    def _receiver(self, person: str) -> Receiver:
        known = self.people.get(person)
        if known is None:
            return Receiver(person=person, name=person)
        lang = getattr(known, "lang", "") or "zh"
        name = known.name_en if lang == "en" else known.name
        return Receiver(person=person, name=name, phone=known.phone, email=getattr(known, "email", ""), lang=lang)


class _Telling:
    """One message in one language. `lang`: 0 Chinese, 1 English."""

    def __init__(self, composer: Composer, batch: Batch, lang: int) -> None:
        self._composer, self._batch, self._lang = composer, batch, lang
        self._row = row = batch.first
        self._matter = _matter(row)
        self._over = [row for row in batch.rows if _is_over(row)]
        self._say = self._choose()

    @property
    def number(self) -> int:
        """What a reply acknowledges."""
        row = self._row
        is_open = not _is_over(row) and row.kind.startswith(("alarm.", "ladder."))
        covered = row.kind in ("alarm.shelved", "alarm.out_of_service")
        return row.occurrence if is_open and not covered and not row.is_test else 0

    def title(self) -> str:
        tags = self._tags()
        return tags + shorten(self._place() + self._name() + self._wrong(), TITLE - len(tags))

    def text(self) -> str:
        if self._row.kind == ANSWER:
            return self._tags() + one_line(self._row.body["answer"][("zh", "en")[self._lang]])
        return self._head() + self._tail()

    # --- the head ---

    def _head(self) -> str:
        """`tags, where, what, what to do`: names give way, then the words for the limit, then how long it lasted."""
        tags, do = self._tags(), self._do()
        ends = ("，", "。") if not self._lang else (": ", ".")
        fixed = len(tags) + len(do) + len("".join(ends))
        said = (self._wrong(), self._more(), self._count())
        wrong = next((words for words in said if HEAD - fixed - len(words) >= _NAME_LEAST), said[-1])
        room = HEAD - fixed - len(wrong)
        place = _cut_place(self._place(), min(max(room // 3, room - len(self._name())), room - _NAME_LEAST))
        name = shorten(self._name(), room - len(place))
        return f"{tags}{place}{name}{wrong}{ends[0]}{do}{ends[1]}"

    def _tags(self) -> str:
        lang, left = self._lang, [TEST] if self._row.is_test else []
        left += [RESENT] if self._batch.resent else []
        left += [UNRECORDED] if not self._composer.is_recorded else []
        said = [name[lang] for name in self._kind_tags() if name[lang]]
        if lang:
            return "".join(f"[{name[1]}]" for name in left) + f"[{' '.join(said)}] "
        return "".join(f"【{name}】" for name in [*(name[0] for name in left), *said])

    def _kind_tags(self) -> list[tuple[str, str]]:
        row, batch = self._row, self._batch
        if row.kind == ANSWER:
            return [self._say.tag]
        if _is_over(row):
            return [self._say.tag, LEVELS[_index(self._matter.get("priority", row.priority))]]
        return [self._colour(), LEVELS[_index(batch.priority)], self._say.tag, *([LATE] if self._late_s() else [])]

    def _colour(self) -> tuple[str, str]:
        rung = self._row.body.get("step", {}).get("rung", {}) if self._row.kind == "ladder.step" else {}
        return COLOURS.get(rung.get("colour", ""), COLOURS[OF_PRIORITY[_index(self._batch.priority)]])

    def _name(self) -> str:
        matter, zh = self._matter, not self._lang
        return one_line(str(matter.get("name" if zh else "name_en") or matter.get("name") or matter.get("id") or ""))

    def _place(self) -> str:
        """The area, unless the name says it."""
        area = self._matter.get("area") or ""
        place = one_line(self._composer.areas.get(area, (area, area))[self._lang])
        if not place or place in self._name():
            return ""
        return f"{place} "

    def _wrong(self) -> str:
        """What is wrong with it, where the name does not say that."""
        return LIMITS.get(self._matter.get("kind") or "", ("", ""))[self._lang] + self._more()

    def _more(self) -> str:
        """What belongs to this kind of news."""
        row, lang = self._row, self._lang
        if row.kind.startswith("freeze."):
            work = WORK.get(row.body["freeze"]["what"], (row.body["freeze"]["what"],) * 2)
            return shorten(f"：{one_line(work[0])}" if not lang else f": {one_line(work[1])}", _WORK_MOST)
        return (self._lasted() if row.kind == "ladder.step" else "") + self._count()

    def _count(self) -> str:
        """How many more a digest tells."""
        count, over = len(self._batch.rows), len(self._over)
        if count == 1:
            return ""
        if over in (0, count):
            return f"等{count}条" if not self._lang else f" +{count - 1}"
        if not self._lang:
            return f"等{count - over}条，恢复{over}条"
        return f" +{count - over - 1}, {over} clear"

    def _lasted(self) -> str:
        """How long nobody has dealt with it, as the ladder's rung says."""
        at_s = float(self._row.body["step"]["rung"]["at_s"])
        return f"，{duration(at_s, 0)}未处理" if not self._lang else f", {duration(at_s, 1)} open"

    def _late_s(self) -> float:
        return float(self._row.body["step"].get("late_s", 0.0)) if self._row.kind == "ladder.step" else 0.0

    def _do(self) -> str:
        said = self._say.do[self._lang]
        if self._row.kind == "ladder.step":
            number = ("，报警号{n}", ", no. {n}")[self._lang] if self.number else ""
            said = said.format(n=number)
        return said.format(n=self._row.occurrence)

    def _choose(self) -> Say:
        row, batch = self._row, self._batch
        if row.kind == ANSWER:
            return REPLY
        if batch.is_digest:
            return ALL_OVER if len(self._over) == len(batch.rows) else DIGEST
        if row.closed is not None and row.kind != CLEAR:
            return COMBINED
        if row.is_test and row.kind != CLEAR:
            return PROOF
        return SAY.get(row.kind, OTHER)

    # --- the tail ---

    def _tail(self) -> str:
        parts = [self._measured(), self._story(), *self._others(), self._composer.site, self._when(), self._whom()]
        parts += [self._how()]
        stop = "。" if not self._lang else ". "
        said = [one_line(part) for part in parts if part]
        return (" " if self._lang else "") + "".join(f"{part}{stop}" for part in said).rstrip()

    def _measured(self) -> str:
        matter = self._matter
        value, unit, limit = matter.get("value"), matter.get("unit") or "", matter.get("limit")
        if value is None:
            return ""
        told = VALUES.get(matter.get("kind") or "", VALUE)[self._lang].format(f"{plain(value)}{unit}")
        if limit is None:
            return told
        return f"{told}{('，限值', ', limit ')[self._lang]}{plain(limit)}{unit}"

    def _story(self) -> str:
        """Why it is over, covered, late or released."""
        row, lang = self._row, self._lang
        closing = row.body if row.kind == CLEAR else row.closed
        if closing is not None:
            return CLOSED_BY.get(closing.get("reason", ""), ("", ""))[lang]
        if late_s := self._late_s():
            return f"延迟{duration(late_s, 0)}发出" if not lang else f"Sent {duration(late_s, 1)} late"
        overlay = self._matter.get("overlay")
        if overlay and row.kind.startswith("alarm."):
            who = self._person(overlay.get("who", ""))
            return f"{who}：{overlay.get('why', '')}" if not lang else f"{who}: {overlay.get('why', '')}"
        released = (row.body.get("freeze") or {}).get("released")
        if released:
            who = self._person(released["person"])
            return f"{who}：{released['reason']}" if not lang else f"{who}: {released['reason']}"
        return ""

    def _others(self) -> Iterable[str]:
        rows = self._batch.rows[1:]
        for row in rows[:_NAMED]:
            matter = _matter(row)
            name = matter.get("name_en" if self._lang else "name") or row.about
            over = (("恢复", "clear")[self._lang] + " ") if _is_over(row) else ""
            yield f"{over}{row.occurrence} {name}{LIMITS.get(matter.get('kind') or '', ('', ''))[self._lang]}"
        if len(rows) > _NAMED:
            rest = len(rows) - _NAMED
            yield f"其余{rest}条见大屏" if not self._lang else f"{rest} more on the screen"

    def _when(self) -> str:
        at = self._matter.get("changed_at") or (self._row.body.get("recorded") or {}).get("utc")
        if not at:
            return ""
        local = datetime.fromisoformat(at).astimezone(ZoneInfo(self._composer.timezone))
        return f"{local:%m-%d %H:%M}"

    def _whom(self) -> str:
        row = self._row
        if row.is_thing:
            return ""
        names = ("、", ", ")[self._lang].join(self._person(person) for person in row.persons)
        role = ROLES.get(row.role, (row.role, row.role))[self._lang]
        return f"致{role}{names}" if not self._lang else f"To {role} {names}"

    def _how(self) -> str:
        number = self.number
        if not number or self._row.is_thing or not self._composer.has_modem:
            return ""
        return f"可回复短信{number}确认" if not self._lang else f"Reply {number} by SMS to acknowledge"

    def _person(self, person: str) -> str:
        known = self._composer.people.get(person)
        return (known.name_en if self._lang else known.name) if known else person


def shorten(text: str, room: int) -> str:
    """The text in at most `room` characters, visibly cut where it is longer."""
    if len(text) <= room:
        return text
    return text[: room - 1] + "…" if room > 0 else ""


def _cut_place(place: str, room: int) -> str:
    """With the space behind it, or nothing where there is no room for it."""
    return place if len(place) <= room else f"{shorten(place[:-1], room - 1)} " if room > 1 else ""


def one_line(text: str) -> str:
    """The text without anything that breaks a line."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def duration(seconds: float, lang: int) -> str:
    """`2小时`, `2小时15分`, `5 min`; under a minute in seconds."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if seconds < 60:
        return f"{seconds:.0f}{('秒', ' s')[lang]}"
    parts = [f"{hours}{('小时', ' h')[lang]}"] if hours else []
    parts += [f"{minutes}{('分', ' min')[lang]}"] if minutes else []
    return ("", " ")[lang].join(parts)


def _matter(row: Row) -> Mapping[str, Any]:
    """What the message is about: the alarm, or the subject of a ladder, a freeze, a report."""
    body = row.body
    if isinstance(body.get("alarm"), Mapping):
        return body["alarm"]
    found = (body.get("ladder") or body).get("subject") or (body.get("freeze") or {}).get("why")
    return found or body


def _is_over(row: Row) -> bool:
    return row.kind == CLEAR or row.closed is not None


def _index(priority: int) -> int:
    return min(max(priority, 1), len(LEVELS)) - 1


def _facts(batch: Batch) -> dict[str, Any]:
    """For machines: the record's body, and the keys of the rows that it tells; of a digest also what else it tells."""
    row = batch.first
    facts = {name: value for name, value in row.body.items() if name != "notify"}
    if row.kind == "ladder.step":
        facts["ladder_step"] = facts.pop("step")
    facts |= {"kind": row.kind, "role": row.role, "step": row.step}
    if row.closed is not None:
        facts["closed"] = {name: value for name, value in row.closed.items() if name != "notify"}
    facts["keys"] = [each.key for each in batch.rows]
    if batch.is_digest:
        facts["others"] = [
            {"key": other.key, "kind": other.kind, "id": other.about, "occurrence": other.occurrence}
            for other in batch.rows[1:]
        ]
    return facts


Compose = Callable[[Batch], Notice]
