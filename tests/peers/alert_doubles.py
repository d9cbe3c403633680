"""An outbox on a real journal, channels whose answers a test decides, and records that tell people."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from unittest import mock

from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alerts.deliveries import STATE
from sitewarden.edge.alerts.message import Composer
from sitewarden.edge.alerts.outbox import Outbox, OutboxHealth, Parts
from sitewarden.edge.alerts.outbox_table import TABLE
from sitewarden.edge.alerts.port import Channel, ChannelHealth, Notice, Outcome, Sent
from sitewarden.edge.alerts.rows import Settings
from sitewarden.serving.people import Person
from sitewarden.sync.journal import Draft, Journal, Record
from sitewarden.sync.sqlite import Writer
from sitewarden.tests.peers.virtual_time import VirtualLoop, run_virtual
from sitewarden.words import now

TABLES = (alarm_table.TABLE, TABLE)
PEOPLE = {
    name: Person(id=name, name=zh, name_en=en, roles=(role,), areas=("*",), phone=phone)
    for name, zh, en, role, phone in (
        ("li", "李", "Li", "keeper", "+8613800138001"),
        ("wang", "王", "Wang", "officer", "+8613800138002"),
        ("wu", "吴", "Wu", "keeper", "+8613800138003"),
        ("zhao", "赵", "Zhao", "control_room", ""),
    )
}
OK = Sent(outcome=Outcome.ACCEPTED)


def failed(detail: str = "HTTP 502", **more: Any) -> Sent:
    return Sent(outcome=Outcome.FAILED, detail=detail, **more)


def alarm(n: int = 1, state: str = "UNACK", occurrence: int = 1, priority: int = 2, **changes: Any) -> dict[str, Any]:
    fields = {
        "id": f"aux_store.th{n}.humidity.high",
        "point": f"aux_store.th{n}.humidity",
        "area": "aux_store",
        "kind": "hi",
        "state": state,
        "priority": priority,
        "active": "hi",
        "changed_at": "2026-11-22T15:04:05.000Z",
        "raised_at": "2026-11-22T15:04:05.000Z",
        "occurrence": occurrence,
        "name": f"助剂库 {n}号湿度",
        "name_en": f"Aux store humidity {n}",
        "value": 78.2,
        "limit": 75.0,
        "unit": "%RH",
        "count": 1,
        "required_acks": ["keeper", "officer"],
        "acks": [],
    }
    return {**fields, **changes}


def notify(event: str, who: Sequence[str], step: int = 0) -> list[dict[str, Any]]:
    """`who`: person@channel; several persons of a group as `li+wang@robot`; nobody for a thing."""
    entries: list[dict[str, Any]] = []
    for name in who:
        person, _, channel = name.partition("@")
        entry = {"key": f"{event}-{name}", "person": person, "role": "keeper", "channel": channel, "step": step}
        if "+" in person:
            entry |= {"person": "", "mentions": person.split("+")}
        entries.append(entry)
    return entries


def draft(kind: str, body: dict[str, Any]) -> Draft:
    return Draft(kind=kind, at=now(), actor="gateway", body=body)


def raised(*who: str, n: int = 1, kind: str = "alarm.raised", event: str = "", **changes: Any) -> Draft:
    given = alarm(n, **changes)
    name = f"{n}-{given['occurrence']}{event}"
    return draft(kind, {"alarm": given, "notify": notify(name, who)})


def closed(n: int = 1, occurrence: int = 1, reason: str = "acked_and_normal", **changes: Any) -> Draft:
    return draft("alarm.closed", {"alarm": alarm(n, "NORM", occurrence, **changes), "reason": reason, "notify": []})


def acked(*persons: str, n: int = 1) -> Draft:
    acks = [{"role": "keeper", "person": person} for person in persons]
    return draft("alarm.acked", {"alarm": alarm(n, acks=acks), "notify": []})


def climbed(*who: str, n: int = 1, late_s: float = 0.0, at_s: float = 7200.0) -> Draft:
    """A step of an alarm's ladder."""
    subject = {"kind": "alarm", "id": alarm(n)["id"], "occurrence": 1, "area": "aux_store"}
    subject |= {"name": alarm(n)["name"], "name_en": alarm(n)["name_en"], "priority": 3}
    rung = {"at_s": at_s, "to": [], "add": [], "colour": "red", "action": ""}
    step = {"n": 1, "fence": f"f{n}", "rung": rung, "late_s": late_s, "early": False}
    return draft("ladder.step", {"ladder": {"subject": subject}, "step": step, "notify": notify(f"s{n}", who, 1)})


@dataclass(slots=True)
class FakeChannel:
    """Answers as the test says; a number instead of `Sent` is so many seconds of thinking before OK."""

    answer: Callable[[Notice], Any] = lambda _: OK
    got: list[Notice] = field(default_factory=list[Notice])
    arrived: list[Notice] = field(default_factory=list[Notice])
    health: ChannelHealth = field(default_factory=ChannelHealth)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, notice: Notice) -> Sent:
        self.got.append(notice)
        answer = self.answer(notice)
        sent = await answer if inspect.isawaitable(answer) else answer
        if sent.outcome in (Outcome.ACCEPTED, Outcome.DELIVERED) or sent.uncertain:
            self.arrived.append(notice)
        return sent

    @property
    def keys(self) -> list[str]:
        return [notice.key for notice in self.got]

    def tries(self) -> Counter[str]:
        return Counter(self.keys)


def rows(path: Path) -> list[dict[str, Any]]:
    """What is committed, seen from outside."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute(f"SELECT *, {STATE} AS shown FROM outbox ORDER BY seq, rowid")
        return [dict(row) for row in found]


def states(path: Path) -> dict[str, str]:
    return {row["key"]: row["shown"] for row in rows(path)}


def attempts(path: Path, key: str) -> list[str]:
    """The outcomes of a row's attempts."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        sql = "SELECT outcome FROM delivery_attempt WHERE key = ? ORDER BY n"
        return [outcome for (outcome,) in connection.execute(sql, (key,))]


@dataclass(slots=True, kw_only=True)
class Running:
    """An open journal and an outbox that runs on it."""

    journal: Journal
    outbox: Outbox
    health: OutboxHealth
    task: asyncio.Task[None]
    may_fail: bool = False

    async def records(self, kind: str) -> list[Record]:
        return [record for record in await self.journal.read(0, 100_000) if record.kind == kind]

    async def bodies(self, kind: str) -> list[dict[str, Any]]:
        return [record.body for record in await self.records(kind)]

    async def keys(self, kind: str) -> list[str]:
        return [body["key"] for body in await self.bodies(kind)]


def compose() -> Composer:
    return Composer(site="测试厂", timezone="Asia/Shanghai", people=PEOPLE)


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main()` on a loop whose time jumps; it stands still while the journal commits."""

    async def counted(loop: VirtualLoop) -> None:
        submit = Writer.submit

        def submit_counted(writer: Writer, job: Callable[[sqlite3.Connection], Any]) -> Future[Any]:
            """Who waits is told before the count goes down: in between, time would jump."""
            loop.jumping.threads += 1
            told: Future[Any] = Future()

            def tell(future: Future[Any]) -> None:
                error = future.exception()
                if error is None:
                    told.set_result(future.result())
                else:
                    told.set_exception(error)
                loop.call_soon_threadsafe(done)

            submit(writer, job).add_done_callback(tell)
            return told

        def done() -> None:
            loop.jumping.threads -= 1

        with mock.patch.object(Writer, "submit", submit_counted):
            await main()

    run_virtual(counted, seed=1)


QUICK = Settings(deadline_s=60.0, retry_base_s=0.02, retry_cap_s=0.1, group_wait_s={})


@asynccontextmanager
async def running(
    path: Path,
    channels: Mapping[str, Channel],
    *,
    ways: Callable[[Mapping[str, Any], str], Sequence[str]] = lambda _facts, _person: (),
    settings: Settings = QUICK,
    journal: type[Journal] = Journal,
    **more: Any,
) -> AsyncIterator[Running]:
    async with journal(path, "gw1", TABLES) as opened:
        health = OutboxHealth()
        given: dict[str, Any] = {"compose": compose(), "ways": ways, "health": health, "settings": settings, **more}
        outbox = Outbox(Parts(journal=opened, channels=channels, **given))
        task = asyncio.create_task(outbox.run(), name="outbox")
        made = Running(journal=opened, outbox=outbox, health=health, task=task)
        try:
            yield made
        finally:
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=20)
            assert done, "the outbox does not end"
            if not task.cancelled() and not made.may_fail:
                task.result()
