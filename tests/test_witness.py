"""Headquarters as witness, over real sockets; and the tamper table: what a root insider on the gateway can do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pymerkle import InmemoryTree
from sitewarden.cloud import witness as cloud_witness
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.witness_store import MOST_FORKS, WitnessStore
from sitewarden.serving.people import Person
from sitewarden.sync import wire
from sitewarden.sync.checkpoints import Checkpoints
from sitewarden.sync.cloud_client import CloudClient, UplinkOptions
from sitewarden.sync.evidence import Report, examine
from sitewarden.sync.evidence_state import EvidenceHealth
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.keys import load_or_create_key, parse_public_key, public_key_text
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.notes import Checkpoint, cosign, parse_note, sign_note, witness_name
from sitewarden.sync.uplink import run_uplink
from sitewarden.sync.witnessing import Witnessing
from sitewarden.tests.peers.forger import Fields, forge
from sitewarden.words import Instant, now, utc_text

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
LI = Person(id="p_li", name="李敏", name_en="Li Min", roles=("officer",), areas=("*",))
WITNESSED, AFTER = 20, 8
"""Records before and after the last witnessed checkpoint of the tamper table."""


@contextlib.asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task for the length of the block; when it fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine)
        yield task
        task.cancel()


@contextlib.asynccontextmanager
async def cloud(data: Path) -> AsyncIterator[int]:
    """Headquarters on a real socket; gives its port."""
    gateways = (
        GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(KEY)),
        GatewayTable(id="gw2", name="二厂", name_en="Plant 2", public_key=public_key_text(OTHER_KEY)),
    )
    table = CloudTable(name="总部", name_en="HQ", port=0)
    config = CloudConfig(cloud=table, gateway=gateways, people={LI.id: LI})
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with running(run_cloud(config, data, ready=up.set_result)):
        yield await up


@dataclass
class Edge:
    journal: Journal
    checkpoints: Checkpoints
    health: UplinkHealth = field(default_factory=UplinkHealth)

    @property
    def evidence(self) -> EvidenceHealth:
        return self.checkpoints.health

    async def say(self, count: int = 1, at: Instant | None = None, **body: Any) -> None:
        await self.journal.append(
            [Draft(kind="test.said", at=at or now(), actor="gateway", body=body | {"i": i}) for i in range(count)]
        )

    def linked(self, port: int, *, witnessing: bool = True) -> contextlib.AbstractAsyncContextManager[Any]:
        options = UplinkOptions(
            url=f"http://127.0.0.1:{port}", gateway="gw1", backoff_max_s=0.05, contact_s=0.2, timeout_s=10
        )
        also = [Witnessing(self.checkpoints, look_s=0.1).run] if witnessing else []
        return running(run_uplink(self.journal, None, KEY, options, self.health, also=also))


@contextlib.asynccontextmanager
async def edge(folder: Path) -> AsyncIterator[Edge]:
    """A gateway that signs when it is asked to."""
    folder.mkdir(exist_ok=True)
    async with Journal(folder / "journal.db", "gw1") as journal:
        checkpoints = Checkpoints(journal, KEY, EvidenceHealth(), every_s=3600)
        async with running(checkpoints.run()):
            await checkpoints.ready.wait()
            yield Edge(journal, checkpoints)


def rows(file: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(sql, values).fetchall()


async def post(port: int, note: str, *, key: Ed25519PrivateKey = KEY, gateway: str = "gw1") -> tuple[int, Any]:
    """One checkpoint, sent by whoever has `key`."""
    uri = f"http://127.0.0.1:{port}{wire.checkpoint_path(gateway)}"
    body = note.encode()
    message = wire.Message(
        method="POST", target_uri=uri, digest=wire.content_digest(body), chain=wire.bytes_text(bytes(32))
    )
    headers = wire.sign(message, key, created_s=int(time.time()), nonce="0" * 32)
    async with aiohttp.ClientSession() as session, session.post(uri, data=body, headers=headers) as reply:
        return reply.status, await reply.json()


def newest(journal: Path) -> tuple[str, str]:
    """Note and countersignature of the newest checkpoint."""
    return rows(journal, "SELECT note, cosignatures FROM checkpoint ORDER BY size DESC LIMIT 1")[0]


def witness_key(data: Path) -> Ed25519PrivateKey:
    return load_or_create_key(data / "witness.key")


# --- the way that it should be -----------------------------------------------------------------------------------


async def test_headquarters_countersigns_and_the_gateway_keeps_it(tmp_path: Path, eventually):
    hq = tmp_path / "hq"
    async with cloud(hq) as port, edge(tmp_path / "gw") as site:
        await site.say(5)
        async with site.linked(port):
            await eventually(lambda: site.evidence.witnessed == 5, "the first checkpoint is witnessed")
            await site.say(300)
            await eventually(lambda: site.evidence.witnessed == 305, "the next one, too")
        assert site.evidence.to_json(305)["unwitnessed"] == 0
        assert site.evidence.refused == ""
    assert stat.S_IMODE((hq / "witness.key").stat().st_mode) == 0o600
    report = examine(
        tmp_path / "gw" / "journal.db",
        gateway_keys=[KEY.public_key()],
        witness_keys=[witness_key(hq).public_key()],
    )
    assert report.is_good
    assert (report.witnessed, report.checkpoints, report.own_keys) == (305, 2, False)


async def test_it_may_be_checked_with_pymerkle_and_plain_cryptography_alone(tmp_path: Path, eventually):
    hq, file = tmp_path / "hq", tmp_path / "gw" / "journal.db"
    async with cloud(hq) as port, edge(tmp_path / "gw") as site:
        await site.say(17)
        async with site.linked(port):
            await eventually(lambda: site.evidence.witnessed == 17, "it is witnessed")
    assert independent(file, KEY.public_key(), witness_key(hq).public_key()) == 17
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE record SET data = CAST(replace(data, '\"i\":3', '\"i\":4') AS BLOB) WHERE seq = 4")
    with pytest.raises(AssertionError, match="root"):
        independent(file, KEY.public_key(), witness_key(hq).public_key())


def independent(file: Path, gateway: Ed25519PublicKey, witness: Ed25519PublicKey) -> int:
    """How many records the newest countersigned checkpoint of a journal proves; none of our code is used."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        sql = "SELECT note, cosignatures FROM checkpoint WHERE cosignatures <> '' ORDER BY size DESC LIMIT 1"
        note, cosignature = connection.execute(sql).fetchone()
        records = [data for (data,) in connection.execute("SELECT data FROM record ORDER BY seq")]
    text, _, line = note.rpartition("\n\n")
    text += "\n"
    origin, size, root, _ = text.splitlines()
    dash, name, value = line.split()
    assert (dash, name) == ("—", origin)
    gateway.verify(base64.b64decode(value)[4:], text.encode())
    value = base64.b64decode(cosignature.split()[2])[4:]
    time_s = int.from_bytes(value[:8], "big")
    witness.verify(value[8:], f"cosignature/v1\ntime {time_s}\n{text}".encode())
    tree = InmemoryTree(algorithm="sha256")
    for data in records[: int(size)]:
        tree.append_entry(data)
    assert tree.get_root() == base64.b64decode(root), "root"
    return int(size)


async def test_a_checkpoint_ahead_of_its_records_waits_for_them(tmp_path: Path, eventually):
    async with cloud(tmp_path / "hq") as port, edge(tmp_path / "gw") as site:
        await site.say(6)
        await eventually(lambda: site.evidence.signed == 6, "it is signed")
        note, _ = newest(site.journal.path)
        status, answer = await post(port, note)
        assert (status, answer["state"], answer["have"]) == (200, "not_yet", 0)
        async with site.linked(port, witnessing=False):
            await eventually(lambda: site.health.state == "up" and not site.health.backlog_records, "records are sent")
        status, answer = await post(port, note)
        assert (status, answer["state"]) == (200, "witnessed")
        assert (await post(port, note))[1]["cosignature"] == answer["cosignature"], "a repeat gets the same"


async def test_during_a_backlog_what_headquarters_has_by_now_is_witnessed(tmp_path: Path, eventually):
    async with cloud(tmp_path / "hq") as port, edge(tmp_path / "gw") as site:
        await site.say(4)
        await eventually(lambda: site.evidence.signed == 4, "the first is signed")
        async with site.linked(port, witnessing=False):
            await eventually(lambda: site.health.state == "up" and not site.health.backlog_records, "4 are sent")
        await site.say(3)
        site.checkpoints.request()
        await eventually(lambda: site.evidence.signed == 7, "the second is signed")
        options = UplinkOptions(url=f"http://127.0.0.1:{port}", gateway="gw1", contact_s=0.2)
        client = _client(options)
        async with running(Witnessing(site.checkpoints, look_s=0.1).run(client)):
            await eventually(lambda: site.evidence.witnessed == 4, "what it has is witnessed")


def _client(options: UplinkOptions) -> Any:
    return CloudClient(options, KEY, UplinkHealth(state="up"))


async def test_a_long_journal_is_taken_in_parts(tmp_path: Path, eventually, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cloud_witness, "SLICE", 10)
    monkeypatch.setattr(cloud_witness, "MOST_AT_ONCE", 40)
    async with cloud(tmp_path / "hq") as port, edge(tmp_path / "gw") as site:
        await site.say(150)
        async with site.linked(port):
            await eventually(lambda: site.evidence.witnessed == 150, "after several requests")
    assert rows(tmp_path / "hq" / "cloud.db", "SELECT size FROM witness_tree") == [(150,)]


async def test_headquarters_goes_on_after_a_restart(tmp_path: Path, eventually):
    async with edge(tmp_path / "gw") as site:
        for records in (5, 9):
            await site.say(records - site.journal.head()[0])
            site.checkpoints.request()
            async with cloud(tmp_path / "hq") as port, site.linked(port):
                await eventually(lambda n=records: site.evidence.witnessed == n, f"{records} are witnessed")
    keys = rows(tmp_path / "gw" / "journal.db", "SELECT role FROM evidence_key ORDER BY role")
    assert keys == [("gateway",), ("witness",)], "one key, made at the first start"


async def test_of_each_hour_headquarters_keeps_the_last_one(tmp_path: Path, eventually):
    async with cloud(tmp_path / "hq") as port, edge(tmp_path / "gw") as site, site.linked(port):
        for records in (2, 4, 6):
            await site.say(2)
            site.checkpoints.request()
            await eventually(lambda n=records: site.evidence.witnessed == n, f"{records} are witnessed")
    kept = rows(tmp_path / "hq" / "cloud.db", "SELECT size, time_s FROM witnessed ORDER BY size")
    assert kept[-1][0] == 6
    assert len({time_s // 3600 for _, time_s in kept}) == len(kept)


async def test_pages_show_the_newest_checkpoint_and_contradictions(tmp_path: Path, eventually):
    hq = tmp_path / "hq"
    async with cloud(hq) as port, edge(tmp_path / "gw") as site:
        await site.say(5)
        async with site.linked(port):
            await eventually(lambda: site.evidence.witnessed == 5, "it is witnessed")
        epoch = site.journal.epoch
        assert (await post(port, contradiction(newest(site.journal.path)[0])))[0] == 409
    async with SqliteDatabase(hq / "cloud.db", ()) as database:
        shown = cloud_witness.witness_json(await WitnessStore(database).shown("gw1"))
    assert (shown["last"]["epoch"], shown["last"]["records"]) == (epoch, 5)
    assert shown["last"]["note"] == "".join(newest(tmp_path / "gw" / "journal.db")), "an inspector may take it along"
    (fork,) = shown["forks"]
    assert (fork["size"], fork["epoch"]) == (5, epoch)
    assert fork["at"].startswith("20")


# --- what is refused ---------------------------------------------------------------------------------------------


def contradiction(note: str, key: Ed25519PrivateKey = KEY, **fields: Any) -> str:
    """The same size with another root, or whatever else is said."""
    claimed = Checkpoint.parse(parse_note(note).text)
    values = {"origin": claimed.origin, "size": claimed.size, "root": bytes(32), "chain": claimed.chain} | fields
    other = Checkpoint(**values)
    return str(sign_note(other.text(), other.origin, key))


REFUSED: dict[str, tuple[Callable[[str], str], int, str]] = {
    "not a note": (lambda _: "hello", 400, "bad_request"),
    "of another gateway": (lambda note: note.replace("gw1", "gw2"), 400, "bad_request"),
    "of no records": (lambda note: contradiction(note, size=0), 400, "bad_request"),
    "signed by another": (lambda note: contradiction(note, OTHER_KEY), 401, "bad_signature"),
    "altered after signing": (lambda note: note.replace("\n5\n", "\n4\n"), 401, "bad_signature"),
    "another root": (contradiction, 409, "fork"),
    "another chain": (lambda note: contradiction(note, chain=bytes(32)), 409, "fork"),
    "another chain of fewer": (lambda note: contradiction(note, size=3), 409, "fork"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_and_only_contradictions_are_kept(tmp_path: Path, eventually, name: str):
    hq = tmp_path / "hq"
    change, status, reason = REFUSED[name]
    async with cloud(hq) as port, edge(tmp_path / "gw") as site:
        await site.say(5)
        async with site.linked(port):
            await eventually(lambda: site.evidence.witnessed == 5, "it is witnessed")
        note, _ = newest(site.journal.path)
        for _ in range(2):
            got, answer = await post(port, change(note))
            assert (got, answer["error"]["reason"]) == (status, reason)
        assert (await post(port, note))[1]["state"] == "witnessed", "the true one is still good"
    forks = rows(hq / "cloud.db", "SELECT size, note FROM witness_fork")
    assert len(forks) == (reason == "fork")
    assert all(note == change(newest(tmp_path / "gw" / "journal.db")[0]) for _, note in forks)


async def test_a_wrong_root_over_the_right_records_is_never_countersigned(tmp_path: Path, eventually):
    async with cloud(tmp_path / "hq") as port, edge(tmp_path / "gw") as site:
        await site.say(6)
        await eventually(lambda: site.evidence.signed == 6, "it is signed")
        async with site.linked(port, witnessing=False):
            await eventually(lambda: site.health.state == "up" and not site.health.backlog_records, "records are sent")
        status, answer = await post(port, contradiction(newest(site.journal.path)[0]))
        assert (status, answer["error"]["reason"]) == (409, "fork")
        assert "Merkle root" in answer["error"]["message"]
    assert rows(tmp_path / "hq" / "cloud.db", "SELECT count(*) FROM witnessed") == [(0,)]


async def test_an_older_true_checkpoint_is_behind_and_no_fork(tmp_path: Path, eventually):
    async with cloud(tmp_path / "hq") as port, edge(tmp_path / "gw") as site:
        await site.say(3)
        await eventually(lambda: site.evidence.signed == 3, "the first is signed")
        older, _ = newest(site.journal.path)
        await site.say(4)
        site.checkpoints.request()
        async with site.linked(port):
            await eventually(lambda: site.evidence.witnessed == 7, "the second is witnessed")
        status, answer = await post(port, older)
        assert (status, answer["error"]["reason"]) == (409, "behind")
    assert rows(tmp_path / "hq" / "cloud.db", "SELECT count(*) FROM witness_fork") == [(0,)]


async def test_one_gateway_cannot_speak_for_another(tmp_path: Path):
    async with cloud(tmp_path / "hq") as port:
        status, answer = await post(port, "hello", key=OTHER_KEY)
        assert (status, answer["error"]["reason"]) == (401, "wrong_key")


async def test_evidence_does_not_fill_the_disk(tmp_path: Path):
    async with SqliteDatabase(tmp_path / "cloud.db", cloud_steps()) as database:
        store = WitnessStore(database)
        kept = [await store.keep_fork("gw1", "e", 1, f"note {n}", "why", n) for n in range(MOST_FORKS + 5)]
        assert kept.count(True) == MOST_FORKS
        assert not await store.keep_fork("gw1", "e", 1, "note 0", "why", 9), "nor twice"


def cloud_steps() -> Any:
    from sitewarden.cloud.witness_store import STEPS

    return STEPS


# --- the tamper table (facts, section 4) -------------------------------------------------------------------------


@dataclass
class Case:
    """A gateway that is stopped: its newest checkpoint is witnessed, and it has newer records that nobody has seen."""

    gateway: Path
    hq: Path
    kept_elsewhere: str

    @property
    def journal(self) -> Path:
        return self.gateway / "journal.db"

    @property
    def epoch(self) -> str:
        return self.kept_elsewhere.split("\n")[0].rpartition("/")[2]

    def look(self, *, with_note: bool = True) -> Report:
        """What an inspector sees who knows both keys, and has the newest checkpoint of headquarters."""
        return examine(
            self.journal,
            gateway_keys=[KEY.public_key()],
            witness_keys=[witness_key(self.hq).public_key()],
            notes=[self.kept_elsewhere] if with_note else [],
        )


@pytest.fixture
async def case(tmp_path: Path, eventually) -> Case:
    hq, gateway = tmp_path / "hq", tmp_path / "gw"
    async with edge(gateway) as site:
        async with cloud(hq) as port, site.linked(port):
            await site.say(WITNESSED)
            site.checkpoints.request()
            await eventually(lambda: site.evidence.witnessed == WITNESSED, "it is witnessed")
        note = "".join(newest(site.journal.path))
        await site.say(AFTER)
        site.checkpoints.request()
        await eventually(lambda: site.evidence.signed == WITNESSED + AFTER, "the rest is signed here alone")
    case = Case(gateway, hq, note)
    assert case.look().is_good
    return case


def deed(name: str, at: int) -> Callable[[Fields], Fields | None]:
    """What is done to record number `at`."""

    def delete(records: Fields) -> None:
        del records[at - 1]

    def alter(records: Fields) -> None:
        records[at - 1]["body"]["i"] = "altered"

    def insert(records: Fields) -> None:
        records.insert(at - 1, {**records[0], "body": {"i": "inserted"}})

    def truncate(records: Fields) -> Fields:
        return records[: at - 1]

    return {"delete": delete, "alter": alter, "insert": insert, "truncate": truncate}[name]


DEEDS = ("delete", "alter", "insert", "truncate")


@pytest.mark.parametrize("name", DEEDS)
async def test_witnessed_records_cannot_be_touched_refused_and_provable(case: Case, eventually, name: str):
    """The insider has the gateway's key and computes everything again, chain and checkpoints."""
    forge(case.journal, deed(name, WITNESSED - 5), KEY)
    report = case.look()
    assert not report.is_good, "the checkpoint that headquarters gave out proves it"
    assert {problem.code for problem in report.problems} & {"rewritten", "truncated"}
    assert not case.look(with_note=False).is_good, "so does the key of headquarters alone: nothing is countersigned"
    assert examine(case.journal).is_good, "without anything from outside the file nothing shows: the chain was remade"

    async with edge(case.gateway) as site, cloud(case.hq) as port:
        if name == "truncate":  # it goes on as if nothing were
            await site.say(WITNESSED - site.journal.head()[0])
        site.checkpoints.request()
        await eventually(lambda: site.evidence.signed == site.journal.head()[0], "the gateway signs what it has now")
        async with site.linked(port):
            await eventually(lambda: is_refused(site, case), "the records are refused, or put in quarantine")
        forged = rows(site.journal.path, "SELECT note FROM checkpoint WHERE size >= ? ORDER BY size", WITNESSED - 6)
        answers = [(await post(port, note))[1] for (note,) in forged]
    assert any(answer.get("error", {}).get("reason") == "fork" for answer in answers), "and so is the checkpoint"
    ((evidence,),) = rows(case.hq / "cloud.db", "SELECT note FROM witness_fork LIMIT 1")
    assert_two_histories(evidence, case)


def is_refused(site: Edge, case: Case) -> bool:
    """Records that do not follow go to quarantine; what is another history goes on under another name, and says so."""
    kept = rows(case.hq / "cloud.db", "SELECT max(seq) FROM record WHERE epoch = ?", case.epoch)
    assert kept == [(WITNESSED,)], "nothing of it is taken"
    quarantined = rows(case.hq / "cloud.db", "SELECT count(*) FROM quarantine") != [(0,)]
    return quarantined or rows(case.hq / "cloud.db", "SELECT reason FROM journal_epoch") != []


def assert_two_histories(forged: str, case: Case) -> None:
    """Both are signed by the gateway's key, and headquarters' records fit only one: plain cryptography and pymerkle."""
    sql = "SELECT data FROM record WHERE epoch = ? ORDER BY seq"
    records = [data for (data,) in rows(case.hq / "cloud.db", sql, case.epoch)]
    fits = []
    for note in (forged, case.kept_elsewhere.rpartition("—")[0]):
        text, _, line = note.rpartition("\n\n")
        KEY.public_key().verify(base64.b64decode(line.split()[2])[4:], f"{text}\n".encode())
        _, size, root, _ = text.splitlines()
        tree = InmemoryTree(algorithm="sha256")
        for data in records[: int(size)]:
            tree.append_entry(data)
        fits.append(tree.get_root() == base64.b64decode(root))
    assert fits == [False, True]


@pytest.mark.parametrize("name", DEEDS)
async def test_after_the_last_witnessed_checkpoint_it_is_accepted_and_nobody_can_tell(
    case: Case, eventually, name: str
):
    """Not detectable by cryptography: nobody else has seen these records. Only witnessing more often helps."""
    forge(case.journal, deed(name, WITNESSED + 3), KEY)
    assert case.look().is_good
    async with edge(case.gateway) as site, cloud(case.hq) as port, site.linked(port):
        await site.say(1)
        site.checkpoints.request()
        head = site.journal.head()[0]
        await eventually(lambda: site.evidence.witnessed == head, "headquarters takes and countersigns it")
    assert case.look().is_good
    assert rows(case.hq / "cloud.db", "SELECT count(*) FROM witness_fork") == [(0,)]


async def test_backdating_is_bounded_by_the_last_witnessed_checkpoint(case: Case):
    """A record can be written late with an earlier time, but it cannot stand before what is witnessed."""
    old = utc_text(now().utc_ms - 86_400_000)

    def backdate(at: int) -> Callable[[Fields], None]:
        def insert(records: Fields) -> None:
            fields = {**records[0], "body": {"i": "gas test done"}}
            records.insert(at - 1, {**fields, "at": {**fields["at"], "utc": old}})

        return insert

    shutil.copy(case.journal, case.journal.with_suffix(".true"))
    forge(case.journal, backdate(WITNESSED - 2), KEY)
    assert not case.look().is_good, "before the witnessed checkpoint: refused"

    shutil.copy(case.journal.with_suffix(".true"), case.journal)
    forge(case.journal, backdate(WITNESSED + 2), KEY)
    report = case.look()
    assert report.is_good, "after it: accepted"
    ((late,),) = [report.backdated]
    assert (late.seq, late.at, late.witnessed) == (WITNESSED + 2, old, WITNESSED), "but it shows where it really stands"


async def test_a_time_inside_the_gap_cannot_be_proven_wrong(case: Case):
    ((data,),) = rows(case.journal, "SELECT data FROM record WHERE seq = ?", WITNESSED + 1)
    claimed = json.loads(data)["at"]["utc"]

    def insert(records: Fields) -> None:
        records.append({**records[-1], "at": {**records[-1]["at"], "utc": claimed}, "body": {"i": "claimed"}})

    forge(case.journal, insert, KEY)
    report = case.look()
    assert report.is_good
    assert report.backdated == ()


async def test_a_false_value_and_what_was_never_appended_cannot_be_proven(case: Case, eventually):
    """Evidence begins at the record: a sensor that lies, and an event that was left out before, leave no trace."""
    async with edge(case.gateway) as site, cloud(case.hq) as port, site.linked(port):
        await site.say(1, value="20.1 although it burns")
        site.checkpoints.request()
        head = site.journal.head()[0]
        await eventually(lambda: site.evidence.witnessed == head, "it is witnessed like everything")
    assert case.look().is_good


async def test_a_cloned_image_forks_and_its_checkpoint_is_kept(case: Case, eventually):
    """Two machines with one data folder and one key: who comes second goes on under another name, and its signature
    proves that there are two."""
    clone = case.gateway.with_name("clone")
    shutil.copytree(case.gateway, clone)
    async with cloud(case.hq) as port:
        async with edge(case.gateway) as site, site.linked(port):
            await site.say(1, who="the true one")
            site.checkpoints.request()
            head = site.journal.head()[0]
            await eventually(lambda: site.evidence.witnessed == head, "the first is witnessed")
        async with edge(clone) as site:
            await site.say(1, who="the clone")
            site.checkpoints.request()
            await eventually(lambda: site.evidence.signed == head, "it signs what it has")
            its_own = newest(site.journal.path)[0]
            async with site.linked(port):
                await eventually(lambda: len(site.journal.epochs) == 2, "the other does not take its place")
                site.checkpoints.request()
                await eventually(lambda: site.evidence.witnessed == head + 1, "the new epoch is witnessed")
            status, answer = await post(port, its_own)
            assert (status, answer["error"]["reason"]) == (409, "fork")
            assert examine(site.journal.path).is_good
    ((size, why),) = rows(case.hq / "cloud.db", "SELECT size, why FROM witness_fork")
    assert size == head
    assert "chain" in why


async def test_a_stolen_key_makes_a_contradiction_that_proves_the_theft(case: Case):
    async with cloud(case.hq) as port:
        status, answer = await post(port, contradiction(case.kept_elsewhere))
        assert (status, answer["error"]["reason"]) == (409, "fork")
    ((evidence,),) = rows(case.hq / "cloud.db", "SELECT note FROM witness_fork")
    assert_two_histories(evidence, case)


async def test_an_insider_at_headquarters_needs_another_witness(case: Case):
    """With both keys everything can be made anew; a checkpoint that was kept elsewhere still says what was."""
    forge(case.journal, deed("alter", 5), KEY)
    key = witness_key(case.hq)
    with contextlib.closing(sqlite3.connect(case.journal, isolation_level=None)) as connection:
        for size, note in connection.execute("SELECT size, note FROM checkpoint").fetchall():
            line = cosign(parse_note(note).text, witness_name(key), key, int(time.time())).line()
            connection.execute("UPDATE checkpoint SET cosignatures = ? WHERE size = ?", (line, size))
    assert case.look(with_note=False).is_good
    assert [problem.code for problem in case.look().problems] == ["rewritten"]


# --- keys --------------------------------------------------------------------------------------------------------


async def test_another_key_of_headquarters_is_noted(tmp_path: Path, eventually, caplog: pytest.LogCaptureFixture):
    async with edge(tmp_path / "gw") as site:
        for n, hq in enumerate(("hq1", "hq2"), 1):
            await site.say(2)
            site.checkpoints.request()
            async with cloud(tmp_path / hq) as port, site.linked(port):
                await eventually(lambda n=n: site.evidence.witnessed == 2 * n, "it is witnessed")
    assert "another key than before" in caplog.text
    texts = [key for (key,) in rows(tmp_path / "gw" / "journal.db", "SELECT key FROM evidence_key")]
    assert len([parse_public_key(text) for text in texts]) == 3


async def test_a_countersignature_that_does_not_fit_is_not_kept(tmp_path: Path, eventually):
    class Liar:
        health = UplinkHealth(state="up")

        @contextlib.asynccontextmanager
        async def session(self) -> AsyncIterator[None]:
            yield None

        async def post(self, session: Any, path: str, body: bytes, chain: bytes) -> Any:
            text = parse_note(body).text.replace("\n2\n", "\n3\n")
            line = cosign(text, witness_name(OTHER_KEY), OTHER_KEY, 5).line()
            return {"state": "witnessed", "cosignature": line, "key": public_key_text(OTHER_KEY)}

    async with edge(tmp_path / "gw") as site:
        await site.say(2)
        await eventually(lambda: site.evidence.signed == 2, "it is signed")
        async with running(Witnessing(site.checkpoints, look_s=0.05).run(Liar())):
            await eventually(lambda: site.evidence.refused == "odd_answer", "it is refused")
    assert newest(tmp_path / "gw" / "journal.db")[1] == ""


def test_plain_cryptography_sees_what_is_forged():
    with pytest.raises(InvalidSignature):
        OTHER_KEY.public_key().verify(KEY.sign(b"text"), b"text")
