"""The tables of enrolment do the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.cloud import enrol_store, enrolled
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.cloud.engine import Database, SqliteDatabase
from sitewarden.cloud.engine_postgres import PostgresDatabase
from sitewarden.cloud.enrol_store import (
    APPROVED,
    LASTS_MS,
    OVERLAP_MS,
    REFUSED,
    ROTATED,
    STEPS,
    Asked,
    EnrolStore,
    KeyRow,
)
from sitewarden.cloud.enrolled import Register
from sitewarden.errors import RefusedError
from sitewarden.sync.claims import Request, make_request
from sitewarden.sync.keys import key_id, public_key_text
from sitewarden.tests.peers.ports import free_port
from sitewarden.tests.peers.postgres import PostgresServer
from sitewarden.tests.peers.stores import fresh, need_postgres

NOW_MS = 1_790_000_000_000
ONE, TWO = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
NAMES = ("一厂", "Plant 1")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    need_postgres()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        made = PostgresServer(Path(folder) / "one", free_port())
        made.init()
        made.start("-c", "fsync=off", "-c", "full_page_writes=off")  # durability is the matter of other tests
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        made: Database = SqliteDatabase(tmp_path / "cloud.db", STEPS)
    else:
        made = PostgresDatabase(await fresh(request.getfixturevalue("server")), STEPS)
    async with made:
        yield made


@pytest.fixture
def store(database: Database) -> EnrolStore:
    return EnrolStore(database)


def request_of(key: Ed25519PrivateKey = ONE, gateway: str = "gw1") -> Request:
    about = {"gateway": gateway, "name": NAMES[0], "name_en": NAMES[1]}
    return make_request(key, "7K3D-Q0XN", **about, by_file=False, made_ms=NOW_MS)[0]


def row_of(key: Ed25519PrivateKey = ONE, gateway: str = "gw1", **more: object) -> KeyRow:
    return KeyRow(gateway=gateway, kid=key_id(key), key=public_key_text(key), valid_from_ms=NOW_MS, **more)  # pyright: ignore[reportArgumentType] - fields of the row


async def approved(
    store: EnrolStore, key: Ed25519PrivateKey = ONE, gateway: str = "gw1", replace: bool = False
) -> Asked:
    asked = await store.ask(request_of(key, gateway), "10.0.0.1", NOW_MS)
    await store.approve(asked, row_of(key, gateway, approved_by="p_liu"), NAMES, "{}", NOW_MS, replace=replace)
    return asked


async def test_a_request_is_kept_once_and_ends_once(store: EnrolStore):
    request = request_of()
    first = await store.ask(request, "10.0.0.1", NOW_MS)
    assert await store.ask(request, "10.0.0.2", NOW_MS + 5) == first
    assert await store.pending(NOW_MS) == [first]
    assert await store.pending(NOW_MS + LASTS_MS) == []
    assert first.signed == request
    assert await store.end("gw1", request.id, REFUSED, "p_liu", NOW_MS + 1)
    assert not await store.end("gw1", request.id, REFUSED, "p_liu", NOW_MS + 1)
    with pytest.raises(RefusedError) as refused:
        await store.approve(first, row_of(), NAMES, "{}", NOW_MS)
    assert refused.value.reason == "request_ended"


async def test_tries_are_counted_also_at_once(store: EnrolStore):
    asked = await store.ask(request_of(), "10.0.0.1", NOW_MS)
    counts = [store.count_try("gw1", asked.id, NOW_MS) for _ in range(9)]
    results = await asyncio.gather(*counts, return_exceptions=True)
    assert sorted(result for result in results if isinstance(result, int)) == [0, 1, 2, 3, 4]
    assert sum(isinstance(result, RefusedError) for result in results) == 4


async def test_an_expired_request_counts_no_tries_and_is_not_approved(store: EnrolStore):
    asked = await store.ask(request_of(), "10.0.0.1", NOW_MS)
    late_ms = NOW_MS + LASTS_MS
    with pytest.raises(RefusedError):
        await store.count_try("gw1", asked.id, late_ms)
    with pytest.raises(RefusedError):
        await store.approve(asked, row_of(), NAMES, "{}", late_ms)
    await store.tidy(late_ms)
    assert await store.asked("gw1", asked.id) is not None
    await store.tidy(late_ms + 8 * 86_400_000)
    assert await store.asked("gw1", asked.id) is None


async def test_an_approval_is_a_key_and_a_change(store: EnrolStore):
    assert await store.revision() == 0
    asked = await approved(store)
    keys, names = await store.keys()
    assert [(key.kid, key.state(NOW_MS), key.approved_by) for key in keys] == [(key_id(ONE), "active", "p_liu")]
    assert names == {"gw1": NAMES}
    assert (await store.revision(), (await store.asked("gw1", asked.id)).state) == (1, APPROVED)  # pyright: ignore[reportOptionalMemberAccess] - it is there


async def test_a_key_belongs_to_one_gateway(store: EnrolStore):
    await approved(store)
    with pytest.raises(RefusedError) as refused:
        await approved(store, ONE, "gw2")
    assert refused.value.reason == "key_taken"


async def test_a_second_machine_needs_a_second_word(store: EnrolStore):
    await approved(store)
    with pytest.raises(RefusedError) as refused:
        await approved(store, TWO)
    assert refused.value.reason == "already_enrolled"
    await approved(store, TWO, replace=True)
    states = {key.kid: key.state(NOW_MS) for key in (await store.keys())[0]}
    assert states == {key_id(ONE): "ended", key_id(TWO): "active"}


async def test_a_rotation_is_good_for_both_keys_and_again(store: EnrolStore):
    await approved(store)
    fresh_row = row_of(TWO, source=ROTATED, introduced_by=key_id(ONE))
    for _ in range(2):
        await store.rotate(row_of(), fresh_row, NOW_MS)
    states = {key.kid: key.state(NOW_MS + OVERLAP_MS - 1) for key in (await store.keys())[0]}
    assert states == {key_id(ONE): "ending", key_id(TWO): "active"}
    assert await store.revision() == 2
    late = {key.kid: key.state(NOW_MS + OVERLAP_MS) for key in (await store.keys())[0]}
    assert late[key_id(ONE)] == "ended"


async def test_what_was_revoked_stays_so(store: EnrolStore):
    await approved(store)
    assert await store.revoke([row_of()], "p_liu", "stolen", NOW_MS + 1) == [key_id(ONE)]
    assert await store.revoke([row_of()], "p_liu", "again", NOW_MS + 2) == []
    (key,) = (await store.keys())[0]
    assert (key.revoked_ms, key.revoked_by, key.reason) == (NOW_MS + 1, "p_liu", "stolen")
    for attempt in (approved(store, replace=True), store.rotate(row_of(), row_of(TWO), NOW_MS)):
        with pytest.raises(RefusedError) as refused:
            await attempt
        assert refused.value.reason == "revoked"


async def test_another_process_hears_of_it(database: Database, eventually, monkeypatch: pytest.MonkeyPatch):
    """Two services on one database: what one revokes the other refuses within a second."""
    table = CloudTable(name="总部", name_en="HQ")
    known = GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(ONE))
    configs = [CloudConfig(cloud=table, gateway=(known,)) for _ in range(2)]
    stores = [EnrolStore(database) for _ in range(2)]
    stores[1].shared = True
    registers = [Register(config, store) for config, store in zip(configs, stores, strict=True)]
    for register in registers:
        await register.look()
    assert enrolled.LOOK_S < 1
    task = asyncio.create_task(registers[1].run())
    try:
        await stores[0].revoke(list(registers[0].rows(known)), "p_liu", "stolen", NOW_MS)
        await eventually(lambda: key_id(ONE) in configs[1].gateways[0].ended(), "it is refused", every_s=0.01)
    finally:
        task.cancel()
    assert dict(configs[1].gateways[0].keys()) == {}


async def test_requests_have_a_bound(store: EnrolStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(enrol_store, "MOST_PENDING", 2)
    await store.ask(request_of(ONE), "10.0.0.1", NOW_MS)
    await store.ask(request_of(TWO), "10.0.0.2", NOW_MS)
    with pytest.raises(RefusedError) as refused:
        await store.ask(request_of(TWO, "gw3"), "10.0.0.3", NOW_MS)
    assert refused.value.reason == "busy"
    await store.ask(request_of(TWO, "gw3"), "10.0.0.3", NOW_MS + LASTS_MS)
