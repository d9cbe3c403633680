"""Processes that check signatures and contents: they say what the service would say, whatever happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.cloud import checking
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.checker import looked_into
from sitewarden.cloud.checking import Checkers
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.cloud.parcels import open_parcel
from sitewarden.cloud.signatures import holds
from sitewarden.sync.columns import compress, pack
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.streams import batch_chain, stream_genesis
from sitewarden.sync.wire import Claim
from sitewarden.tests.peers.stores import KEY, put
from sitewarden.words import ClockState, Instant, Quality, Reading

Eventually = Callable[..., Awaitable[object]]


def claim(message: bytes, *, right: bool = True) -> Claim:
    signature = KEY.sign(message if right else message + b"!")
    return Claim(key_id="k", key=KEY.public_key(), signature=signature, base=message, created_s=0)


def readings(count: int) -> bytes:
    at = Instant(utc_ms=1_795_000_000_000, mono_s=1.0, boot="b", clock=ClockState.SYNCED)
    return pack([Reading(point="a.b.c", value=n / 10, quality=Quality.GOOD, at=at) for n in range(count)])


def children() -> list[psutil.Process]:
    """Helping processes of this test."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and "sitewarden.cloud.checker" in child.cmdline():
                found.append(child)
    return found


@contextlib.asynccontextmanager
async def running(count: int, eventually: Eventually) -> AsyncIterator[Checkers]:
    checkers = Checkers(count)
    task = asyncio.create_task(checkers.run())
    checkers.want()
    await eventually(lambda: checkers.running == count, "the processes run")
    try:
        yield checkers
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert not children()


# --- what they say ---------------------------------------------------------------------------------------------------


@given(message=st.binary(max_size=200), flip=st.integers(0, 64 * 8 - 1), spoil=st.sampled_from(["", "s", "k", "m"]))
@settings(max_examples=150)
def test_libsodium_says_what_openssl_says(message: bytes, flip: int, spoil: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    signature, raw = key.sign(message), key.public_key().public_bytes_raw()
    if spoil == "s":
        signature = bytes(byte ^ (1 << flip % 8 if n == flip // 8 else 0) for n, byte in enumerate(signature))
    if spoil == "k":
        raw = Ed25519PrivateKey.from_private_bytes(bytes([flip % 256] * 32)).public_key().public_bytes_raw()
    signed = message + b"x" if spoil == "m" else message
    try:
        Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().verify(signature, signed)
        right = raw == key.public_key().public_bytes_raw()
    except InvalidSignature:
        right = False
    assert holds(raw, signature, signed) == right == (not spoil)


def test_a_key_or_signature_of_another_length_never_holds() -> None:
    signature, raw = KEY.sign(b"x"), KEY.public_key().public_bytes_raw()
    assert holds(raw, signature, b"x")
    assert not holds(raw[:-1], signature, b"x")
    assert not holds(raw, signature[:-1], b"x")
    assert not holds(raw, signature + b"x", b"")


@pytest.mark.parametrize("body", [compress(readings(7)), compress(b"poison"), b"no zstd", compress(b""), b""])
def test_a_look_finds_what_the_whole_way_finds(body: bytes) -> None:
    parcel = open_parcel("gw1", "history", "aa" * 4, 1, bytes(32), body, 5)
    assert looked_into(body) == (parcel.digest, parcel.count, parcel.problem)


async def test_many_jobs_at_once_come_back_in_their_places(eventually: Eventually) -> None:
    async with running(2, eventually) as checkers:
        claims = [claim(b"%d" % n, right=n % 3 > 0) for n in range(100)]
        bodies = [compress(readings(n + 1)) for n in range(60)]
        held, looked = await asyncio.gather(
            asyncio.gather(*map(checkers.holds, claims)), asyncio.gather(*map(checkers.looked, bodies))
        )
        assert held == [n % 3 > 0 for n in range(100)]
        assert looked == [looked_into(body) for body in bodies]
        assert [one[1] for one in looked if one] == [n + 1 for n in range(60)]


async def test_until_they_are_wanted_none_is_started() -> None:
    checkers = Checkers(1)
    task = asyncio.create_task(checkers.run())
    assert await checkers.holds(claim(b"x"))
    assert not await checkers.holds(claim(b"x", right=False))
    assert await checkers.looked(compress(readings(3))) == looked_into(compress(readings(3)))
    assert not children()
    task.cancel()


# --- what happens to them --------------------------------------------------------------------------------------------


async def test_what_a_killed_one_had_in_hand_is_worked_out_here(eventually: Eventually) -> None:
    async with running(1, eventually) as checkers:
        (victim,) = children()
        victim.suspend()
        asked = [asyncio.create_task(checkers.holds(claim(b"%d" % n, right=n % 2 > 0))) for n in range(40)]
        looked = asyncio.create_task(checkers.looked(compress(readings(9))))
        await asyncio.sleep(0)
        victim.send_signal(signal.SIGKILL)
        assert [await task for task in asked] == [n % 2 > 0 for n in range(40)]
        assert await looked == looked_into(compress(readings(9)))
        await eventually(lambda: checkers.running == 1 and children() != [victim], "another one has come")
        assert await checkers.holds(claim(b"x"))


async def test_one_that_does_not_answer_is_replaced(eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_PATIENCE_S", 0.2)
    async with running(1, eventually) as checkers:
        (victim,) = children()
        victim.suspend()
        assert await checkers.holds(claim(b"x"))
        await eventually(lambda: checkers.running == 1 and children() != [victim], "another one has come")


async def test_one_that_cannot_be_started_costs_nothing_but_time(
    eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    checkers = Checkers(1)
    task = asyncio.create_task(checkers.run())
    checkers.want()
    await eventually(lambda: "could not be started" in caplog.text, "it is said")
    assert await checkers.holds(claim(b"x"))
    task.cancel()


async def test_signals_that_end_a_service_let_its_helpers_finish(eventually: Eventually) -> None:
    """systemd sends SIGTERM to every process of a unit, a terminal SIGINT."""
    async with running(1, eventually) as checkers:
        (child,) = children()
        assert await checkers.holds(claim(b"x"))  # it answers: its signals are set
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(child.pid, each)
        assert await checkers.holds(claim(b"y"))
        assert children() == [child]


# --- in the service --------------------------------------------------------------------------------------------------


async def test_a_service_that_many_ask_at_once_gets_help(tmp_path: Path, eventually: Eventually) -> None:
    names = [f"gw{n}" for n in range(12)]
    tables = tuple(GatewayTable(id=name, name="x", name_en="x", public_key=public_key_text(KEY)) for name in names)
    config = CloudConfig(cloud=CloudTable(name="x", name_en="x", port=0, checkers=1), gateway=tables)
    ports: asyncio.Queue[int] = asyncio.Queue()
    service = asyncio.create_task(run_cloud(config, tmp_path, ready=ports.put_nowait))
    try:
        port = await ports.get()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            epochs = iter(f"{n:08x}" for n in range(10_000))

            async def all_at_once(payload: bytes) -> list[tuple[int, Any]]:
                epoch, body = next(epochs), compress(payload)
                begun = {name: stream_genesis(name, "history", epoch) for name in names}
                asked = [
                    put(session, port, name, 1, body, batch_chain(chain, 1, payload), epoch)
                    for name, chain in begun.items()
                ]
                return [answer[:2] for answer in await asyncio.gather(*asked)]

            async def with_help() -> bool:
                answers = await all_at_once(readings(5))
                assert [status for status, _ in answers] == [200] * 12
                return bool(children())

            await eventually(with_help, "a helping process runs")
            answers = await all_at_once(b"poison")
            assert [(status, answer["quarantined"]) for status, answer in answers] == [(200, True)] * 12
            children()[0].kill()
            await with_help()
    finally:
        service.cancel()
        await asyncio.gather(service, return_exceptions=True)
    assert not children()
