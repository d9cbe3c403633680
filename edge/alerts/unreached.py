"""Persons who must be told and were not, on any of their ways, past the deadline. Pure; fed with records in order.

A message is what one person must hear of one alarm or other subject. It has failed when each of its rows was recorded
as late or dead and none was accepted. A person counts as reached again with the next message that is accepted; a
message ends with its subject, or when the person acknowledges, who then knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..alarms.machine import State
from ..alarms.rules import Kind
from ..alarms.system import Delays, Sight, system_id, system_rule

About = tuple[str, int]
"""A subject and its occurrence: an alarm's id, or `kind/id` of another one."""

ON_S = 5.0
"""A way that is opened because another one failed is known by then."""
_OWN = system_id(Kind.DELIVERY_FAILED)


@dataclass(slots=True, kw_only=True)
class _Message:
    """`rows`: by key: number of its record, and whether it failed. `has_failed`: at some look, and nobody was reached
    since: to be told again is no success."""

    rows: dict[str, tuple[int, bool]] = field(default_factory=dict[str, tuple[int, bool]])
    has_failed: bool = False

    def judge(self) -> bool:
        """Whether it has failed, as far as is known now."""
        self.has_failed = self.has_failed or all(failed for _, failed in self.rows.values())
        return self.has_failed


class Unreached:
    """Follows what people must be told."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, About], _Message] = {}
        self._by_key: dict[str, list[tuple[str, About]]] = {}

    def see(self, kind: str, seq: int, body: Mapping[str, Any]) -> None:
        """A record was committed: its kind, number and body."""
        match kind:
            case "delivery.accepted" | "delivery.delivered":
                self._reached(body)
            case "delivery.failing" | "delivery.dead":
                self._failed(body["key"])
                for person in body.get("unreached") or ():
                    self._lost(person, seq, body)
            case "alarm.closed":
                alarm = body["alarm"]
                self._end(lambda about: about[0] == alarm["id"] and about[1] <= alarm["occurrence"])
            case "alarm.acked":
                alarm = body["alarm"]
                knows = {ack["person"] for ack in alarm["acks"]}
                for person in knows:
                    self._forget(person, (alarm["id"], alarm["occurrence"]))
            case "ladder.stopped":
                ended = _subject(body["subject"])
                self._end(lambda about: about == ended)
            case _:
                pass
        about = self._about(kind, body) if body.get("notify") else None
        if about is not None:
            for entry in body["notify"]:
                for person in [entry["person"]] if entry["person"] else entry.get("mentions") or ():
                    self._put(person, about, entry["key"], seq, failed=False)

    def failed(self) -> dict[str, list[About]]:
        """What each person who is not reached does not know. A look: what is judged between commits is judged whole."""
        found: dict[str, list[About]] = {}
        for (person, about), message in self._messages.items():
            if message.judge():
                found.setdefault(person, []).append(about)
        return found

    def sights(self) -> list[Sight]:
        """One for each person who is not reached; its value is how many messages failed."""
        return [
            Sight(
                rule=system_rule(Kind.DELIVERY_FAILED, person, about=person),
                value=len(abouts),
                delays=Delays(on_s=ON_S),
                facts={"person": person, "unknown": [subject for subject, _ in abouts]},
            )
            for person, abouts in self.failed().items()
        ]

    def _put(self, person: str, about: About, key: str, seq: int, *, failed: bool) -> None:
        """A row of a message: a way that it goes."""
        if about[0].startswith(_OWN):
            return  # what says that somebody is not reached must not keep itself alive
        self._messages.setdefault((person, about), _Message()).rows[key] = (seq, failed)
        names = self._by_key.setdefault(key, [])
        if (person, about) not in names:
            names.append((person, about))

    def _lost(self, person: str, seq: int, body: Mapping[str, Any]) -> None:
        """The record itself says that nothing is left for a person: also of what was accepted and never proven."""
        self._put(person, (body["about"], body["occurrence"]), body["key"], seq, failed=True)

    def _failed(self, key: str) -> None:
        for name in self._by_key.get(key, ()):
            rows = self._messages[name].rows
            rows[key] = (rows[key][0], True)

    def _reached(self, body: Mapping[str, Any]) -> None:
        key = body["key"]
        names = list(self._by_key.get(key, ()))
        for name in names:  # they know what it said, and what was said before
            told, _ = self._messages[name].rows[key]
            self._drop(name, [k for k, (seq, _) in self._messages[name].rows.items() if seq <= told])
        for person in {person for person, _ in names} | ({body["person"]} if body.get("person") else set[str]()):
            for name in [n for n in self._messages if n[0] == person]:
                self._messages[name].has_failed = False
                self._drop(name, [k for k, (_, failed) in self._messages[name].rows.items() if failed])

    def _end(self, is_over: Callable[[About], bool]) -> None:
        for name in [n for n in self._messages if is_over(n[1])]:
            self._forget(*name)

    def _forget(self, person: str, about: About) -> None:
        message = self._messages.get((person, about))
        if message is not None:
            self._drop((person, about), list(message.rows))

    def _drop(self, name: tuple[str, About], keys: Iterable[str]) -> None:
        rows = self._messages[name].rows
        for key in keys:
            del rows[key]
            self._by_key[key].remove(name)
            if not self._by_key[key]:
                del self._by_key[key]
        if not rows:
            del self._messages[name]

    def _about(self, kind: str, body: Mapping[str, Any]) -> About | None:
        """What the record's message is about; None when nothing is open that somebody must know."""
        if kind == "delivery.fallback":
            names = self._by_key.get(body["key"])
            return names[0][1] if names else None
        alarm = body.get("alarm")
        if isinstance(alarm, Mapping):
            is_open = alarm["state"] != State.NORM.value and not alarm.get("is_test")
            return (alarm["id"], alarm["occurrence"]) if is_open else None
        subject = (body.get("ladder") or body).get("subject") or (body.get("freeze") or {}).get("why")
        return None if subject is None or body.get("is_test") else _subject(subject)


def _subject(subject: Mapping[str, Any]) -> About:
    name = subject["id"] if subject["kind"] == "alarm" else f"{subject['kind']}/{subject['id']}"
    return name, subject["occurrence"]
