"""What sounds follows what is committed: from the first moment, through changes, until somebody silences it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alerts.opened import Open
from sitewarden.edge.sounding import Sounding
from sitewarden.errors import RefusedError
from sitewarden.serving.people import Person
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import now

OFFICER = Person(id="wang", name="王", name_en="Wang", roles=("officer",), areas=("*",))
KEEPER = Person(id="li", name="李", name_en="Li", roles=("keeper",), areas=("store",))
WORKER = Person(id="sun", name="孙", name_en="Sun", roles=("worker",), areas=("*",))


@dataclass
class Siren:
    """Notes what it was shown."""

    areas: tuple[str, ...] = ()
    shown: list[list[str]] = field(default_factory=list)
    silenced: int = 0

    @property
    def settings(self) -> Siren:
        return self

    def show(self, alarms: Any) -> None:
        found: list[Open] = list(alarms)
        self.shown.append(sorted(f"{alarm.id} {alarm.occurrence} {alarm.priority}" for alarm in found))

    def silence(self) -> tuple[str, ...]:
        self.silenced += 1
        return tuple(name.split()[0] for name in self.shown[-1])


def alarm(name: str, state: str = "UNACK", occurrence: int = 1, priority: int = 1) -> Draft:
    fields = {
        "id": name,
        "state": state,
        "occurrence": occurrence,
        "priority": priority,
        "area": name.partition(".")[0],
        "point": name,
        "active": "hi",
        "kind": "hi",
        "name": "氨",
        "name_en": "ammonia",
        "unit": "ppm",
        "value": 30.0,
        "limit": 25.0,
        "raised_at": None,
        "overlay": None,
    }
    return Draft(kind="alarm.raised", at=now(), actor="gateway", body={"alarm": fields, "reason": "condition"})


@pytest.fixture
async def journal(tmp_path: Path):
    async with Journal(tmp_path / "journal.db", "gw1", (alarm_table.TABLE,)) as made:
        yield made


async def test_from_the_start_and_after_each_commit(journal: Journal):
    await journal.append([alarm("store.a"), alarm("store.b", "NORM")])
    siren = Siren()
    sounding = Sounding(journal, {"siren": siren, "robot": object()})
    await sounding.start()
    assert siren.shown == [["store.a 1 1"]]
    await journal.append([alarm("store.c", priority=2), Draft(kind="gateway.note", at=now(), actor="gateway", body={})])
    assert siren.shown[-1] == ["store.a 1 1", "store.c 1 2"]
    await journal.append([alarm("store.a", "NORM")])
    assert siren.shown[-1] == ["store.c 1 2"]
    seen = len(siren.shown)
    await journal.append([Draft(kind="gateway.note", at=now(), actor="gateway", body={})])
    assert len(siren.shown) == seen, "only alarms make it look again"


async def test_what_is_committed_before_the_start_is_not_missed(journal: Journal):
    siren = Siren()
    sounding = Sounding(journal, {"siren": siren})
    await journal.append([alarm("store.a")])
    assert siren.shown == [], "half a picture is none"
    await journal.append([alarm("store.a", "NORM"), alarm("store.b")])
    await sounding.start()
    assert siren.shown == [["store.b 1 1"]]


async def test_what_is_committed_while_the_start_reads_is_not_missed(journal: Journal, monkeypatch):
    siren, query = Siren(), journal.query

    async def slow(read: Any) -> Any:
        found = await query(read)
        await journal.append([alarm("store.a")])
        return found

    sounding = Sounding(journal, {"siren": siren})
    monkeypatch.setattr(journal, "query", slow)
    await sounding.start()
    assert siren.shown == [["store.a 1 1"]]


async def test_a_channel_that_is_new_is_shown_what_is_open(journal: Journal):
    channels: dict[str, object] = {}
    sounding = Sounding(journal, channels)
    await sounding.start()
    await journal.append([alarm("store.a")])
    channels["siren"] = siren = Siren()
    sounding.tell()
    assert siren.shown == [["store.a 1 1"]]


async def test_who_may_silence_what(journal: Journal):
    near, far, everywhere = Siren(("store",)), Siren(("pit",)), Siren()
    sounding = Sounding(journal, {"near": near, "far": far, "everywhere": everywhere})
    await journal.append([alarm("store.a")])
    await sounding.start()
    assert sounding.silence(KEEPER) == ("store.a",)
    assert (near.silenced, far.silenced, everywhere.silenced) == (1, 0, 1)
    with pytest.raises(RefusedError) as error:
        sounding.silence(WORKER)
    assert error.value.reason == "not_your_role"
    await journal.append([alarm("store.a", "NORM")])
    with pytest.raises(RefusedError) as error:
        sounding.silence(OFFICER)
    assert error.value.reason == "nothing_sounds"
