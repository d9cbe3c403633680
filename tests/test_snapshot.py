"""Snapshots: headquarters sees what is open now, while records are still on their way; an older one hides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sitewarden.cloud import pages
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.ingest import Contacts
from sitewarden.cloud.pages import Pages
from sitewarden.cloud.snapshots import MOST_BYTES, STEPS, Snapshots
from sitewarden.cloud.store import STEPS as STORE_STEPS
from sitewarden.cloud.store import Store
from sitewarden.edge.own_word import own_word
from sitewarden.errors import RefusedError
from sitewarden.sync.columns import compress, decompress
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.retrying import LinkError
from sitewarden.sync.snapshot import MOST_ALARMS
from sitewarden.sync.snapshot import Snapshots as Sender
from sitewarden.words import mono_s, now

EPOCH = "ab" * 8


def alarm(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "state": "UNACK", "priority": 3, "rev": 1, **fields}


def body(seq: int = 5, epoch: str = EPOCH, **fields: Any) -> bytes:
    alarms = fields.pop("alarms", [alarm("store.th1.humidity.high")])
    said = {"epoch": epoch, "seq": seq, "open": len(alarms), "alarms": alarms, "health": {}}
    return compress(json.dumps({**said, **fields}).encode())


# --- headquarters ------------------------------------------------------------------------------------------------


class Hq:
    """A store with pages, and one gateway that it knows."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.gateway = GatewayTable(id="gw1", name="厂", name_en="Plant")
        config = CloudConfig(cloud=CloudTable(name="x", name_en="x"), gateway=(self.gateway,))
        self.changed: list[str] = []
        store = Store(database)
        self.pages = Pages(config, store, Contacts(store, {}))
        self.snapshots = self.pages.snapshots = Snapshots(database, self.changed.append, lambda: 1_795_000_000)

    async def post(self, text: bytes) -> bool:
        answer = await self.snapshots.post(self.gateway, text)
        assert isinstance(answer.body, bytes)
        return json.loads(answer.body)["kept"]

    async def site(self) -> dict[str, Any]:
        (site,) = await self.pages.sites()
        return site


@pytest.fixture
async def hq(tmp_path: Path) -> AsyncIterator[Hq]:
    async with SqliteDatabase(tmp_path / "cloud.db", [*STORE_STEPS, *STEPS]) as database:
        yield Hq(database)


async def test_a_fire_is_seen_before_its_record_has_come(hq: Hq):
    assert (await hq.site())["snapshot"] is None
    assert await hq.post(body(seq=90_000, open=3))
    site = await hq.site()
    assert [one["id"] for one in site["open_alarms"]] == ["store.th1.humidity.high"]
    assert (site["snapshot"]["open"], site["snapshot"]["as_of"]) == (3, "2026-11-18T11:06:40.000Z")
    assert site["snapshot"]["records_behind"] is None, "of that epoch nothing has come at all"
    assert hq.changed == ["gw1"]


@pytest.mark.parametrize(
    ("records", "behind"), [({"ab" * 8: 5}, 4), ({"ab" * 8: 9}, 0), ({"ab" * 8: 30}, 0), ({}, None)]
)
async def test_records_that_came_after_the_word_are_not_missing(
    hq: Hq, records: dict[str, int], behind: int | None
) -> None:
    assert await hq.post(body(seq=9))
    (word,) = (await hq.snapshots.live())["gw1"]
    assert pages._word_json(word, records)["records_behind"] == behind


async def test_a_gateway_of_before_the_compression_is_understood(hq: Hq):
    assert await hq.post(decompress(body(seq=9)))
    assert [one["id"] for one in (await hq.site())["open_alarms"]] == ["store.th1.humidity.high"]


async def test_one_that_was_overtaken_or_replayed_changes_nothing(hq: Hq):
    assert await hq.post(body(seq=9))
    assert not await hq.post(body(seq=8, alarms=[]))
    assert len((await hq.site())["open_alarms"]) == 1
    assert await hq.post(body(seq=9, alarms=[])), "the same records, and something else in it: the newer word"
    assert await hq.post(body(seq=1, epoch="cd" * 8)), "a new epoch begins at the front"


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 5000,
        compress(b"[" * 5000),
        compress(bytes(MOST_BYTES + 1)),
        body()[:-1],
        body(seq=-1),
        body(epoch="../x"),
        body(health=[]),
        body(alarms=[{"id": 7}]),
        body(alarms=[alarm("x", state="BURNING")]),
        body(open=0),
        body(open=True),
    ],
)
async def test_what_is_no_snapshot_is_refused(hq: Hq, wrong: bytes):
    with pytest.raises(RefusedError) as caught:
        await hq.post(wrong)
    assert caught.value.reason == "bad_request"
    assert (await hq.site())["snapshot"] is None


# --- the gateway -------------------------------------------------------------------------------------------------


class Wire:
    """A client that keeps what it is given, and fails when it is told to."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.fails = 0
        self.retry_s = 0.0
        self.back = asyncio.Event()

    def session(self) -> contextlib.AbstractAsyncContextManager[Any]:
        return contextlib.nullcontext()

    async def post(self, session: Any, path: str, body: bytes, chain: bytes) -> Any:
        assert path == "/v1/gateways/gw1/snapshot"
        assert len(chain) == 32
        if self.fails:
            self.fails -= 1
            raise LinkError("unreachable", "down", retry_s=self.retry_s)
        self.sizes.append(len(body))
        self.sent.append(json.loads(decompress(body)))


@pytest.fixture
async def sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SimpleNamespace]:
    monkeypatch.setattr("sitewarden.sync.snapshot._PAUSE_S", 0.01)
    wire, found = Wire(), [alarm("a", priority=3), alarm("b", priority=1)]
    async with Journal(tmp_path / "journal.db", "gw1") as journal:

        async def alarms() -> list[dict[str, Any]]:
            return found

        sender = Sender(journal, alarms, lambda: {"version": "x"})
        task = asyncio.create_task(sender.run(wire))
        yield SimpleNamespace(wire=wire, found=found, journal=journal)
        task.cancel()
        await asyncio.wait([task])


async def test_an_alarm_record_sends_one_at_once_and_other_records_do_not(sending: SimpleNamespace, eventually: Any):
    wire = sending.wire
    await eventually(lambda: len(wire.sent) == 1, "the first")
    assert [one["id"] for one in wire.sent[0]["alarms"]] == ["b", "a"], "the most urgent first"
    await sending.journal.append([Draft(kind="gateway.noted", at=now(), actor="gateway", body={})])
    await sending.journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body={})])
    await eventually(lambda: len(wire.sent) == 2, "the second")
    assert (wire.sent[1]["seq"], wire.sent[1]["epoch"]) == (2, sending.journal.epoch)


async def test_what_could_not_be_sent_is_sent_with_what_is_true_then(sending: SimpleNamespace, eventually: Any):
    wire = sending.wire
    await eventually(lambda: wire.sent, "the first")
    wire.fails = 2
    await sending.journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body={})])
    sending.found.append(alarm("c", priority=2))
    await eventually(lambda: len(wire.sent) == 2, "it came through")
    assert wire.sent[1]["open"] == 3


@pytest.mark.parametrize("asked_s", [0.0, 0.3])
async def test_it_goes_at_once_when_the_link_is_back_unless_the_cloud_asked_for_a_pause(
    sending: SimpleNamespace, eventually: Any, monkeypatch: pytest.MonkeyPatch, asked_s: float
):
    monkeypatch.setattr("sitewarden.sync.snapshot._PAUSE_S", 60 if not asked_s else 0.01)
    wire, loop = sending.wire, asyncio.get_running_loop()
    await eventually(lambda: wire.sent, "the first")
    await sending.journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body={})])
    await eventually(lambda: len(wire.sent) == 2, "from now on pauses are as long as that")
    wire.fails, wire.retry_s = 1, asked_s
    await sending.journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body={})])
    await eventually(lambda: not wire.fails, "it failed")
    failed_s = loop.time()
    wire.back.set()
    await eventually(lambda: len(wire.sent) == 3, "it came through", every_s=0.01)
    assert loop.time() - failed_s >= asked_s - 0.15


async def test_a_flood_of_alarms_is_cut_and_counted(sending: SimpleNamespace, eventually: Any):
    sending.found += [alarm(f"x{n}", priority=4) for n in range(1000)]
    await sending.journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body={})])
    await eventually(lambda: sending.wire.sent and sending.wire.sent[-1]["open"] == 1002, "all counted")
    assert len(sending.wire.sent[-1]["alarms"]) == MOST_ALARMS
    assert sending.wire.sent[-1]["alarms"][0]["id"] == "b"


async def test_hundreds_of_open_alarms_pass_a_narrow_link_in_a_second(sending: SimpleNamespace, eventually: Any):
    """256 kbit/s are 32,000 bytes a second. The alarms are as the gateway keeps them."""
    at = {"boot": "5c1e0f" * 5, "clock": "synced", "mono_s": 1234.567, "utc": "2026-11-18T11:06:40.123Z"}
    more = {"area": "store", "name": "危化品库 温度 高", "name_en": "Hazmat store temperature high", "raised": at}
    kept = {**more, "acks": [], "required_acks": ["keeper", "officer"], "occurrence": 3, "basis": "GB 15603", "x": 400}
    sending.found[:] = [
        alarm(f"store.th{n}.temperature.high", value=30 + n / 7, limit=30.0) | kept for n in range(MOST_ALARMS)
    ]
    await sending.journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body={})])
    await eventually(lambda: sending.wire.sent and sending.wire.sent[-1]["open"] == MOST_ALARMS, "all of them")
    assert sending.wire.sizes[-1] < 32_000


def test_a_gateway_says_how_far_how_full_and_how_right_its_clock_is(tmp_path: Path) -> None:
    uplink, disk = UplinkHealth(), {"bytes": 1, "most": 4}
    uplink.waits("journal", 3)
    about = {"version": "1", "clock": "synced", "uptime_s": 5, "broker": {"state": "up"}, "deliveries": {"failing": 0}}
    shares = {"level": "short", "about": "history", "pct": 91.0, "free_bytes": 7, "usable_bytes": 9}
    shares |= dict.fromkeys(("journal", "history", "blobs"), disk)
    units = [{"units": [{"state": "ok"}, {"state": "fault"}]}]
    status = about | {"buses": units, "link": uplink.to_json(), "disk": shares, "not_recorded": None}
    word = own_word(status, uplink, tmp_path)
    assert (word["streams"]["journal"]["waiting"], word["evidence"]["waiting"], word["silent"]) == (3, 0, 1)
    assert (word["disk"], word["disk_use"]["pct"], word["disk_use"]["history"]) == ("short", 91.0, disk)
    assert word["clock_offset_s"] is None, "nobody has told yet"
    uplink.told_time(round((time.time() + 42) * 1000), mono_s())
    assert own_word(status, uplink, tmp_path)["clock_offset_s"] == pytest.approx(42, abs=0.5)
    assert own_word(status | {"disk": None}, uplink, tmp_path)["disk_use"] is None
    in_memory = {"not_recorded": {"since": "2026-11-23T08:00:00.000Z", "why": "x", "records": 3}}
    assert own_word(status | in_memory, uplink, tmp_path)["not_recorded"] == "2026-11-23T08:00:00.000Z"
