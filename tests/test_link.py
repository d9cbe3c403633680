"""The link to headquarters over real sockets: retries, proxies, certificates, several batches at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from sitewarden.cloud.ingest import Ingest
from sitewarden.edge.caps import cap_of
from sitewarden.errors import RefusedError
from sitewarden.sync import link_watch, wire
from sitewarden.sync.columns import DamagedError
from sitewarden.sync.dialing import Names, open_socket, trouble
from sitewarden.sync.history_outbox import HistoryOutbox
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.link_watch import watching
from sitewarden.sync.retrying import LinkError, Patience
from sitewarden.sync.several import MAX_BATCHES, pack_several, several_path, unpack_several
from sitewarden.tests.peers.certificates import Authority
from sitewarden.tests.peers.http_proxy import HttpProxy
from sitewarden.tests.peers.linked_site import KEY, cloud, site
from sitewarden.tests.peers.narrow_link import NarrowLink
from tenacity import Future, RetryCallState

WHERE = "https://hq.example"
HOST = SimpleNamespace(host="hq.example", port=443, ssl=True, is_ssl=True)


def rows(folder: Path, sql: str, *values: Any) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'cloud.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


# --- when it is tried again --------------------------------------------------------------------------------------


def state(error: Exception, attempt: int) -> RetryCallState:
    made = RetryCallState(None, None, (), {})  # pyright: ignore[reportArgumentType]
    made.attempt_number = attempt
    made.outcome = Future.construct(attempt, error, True)
    return made


def pauses(error: LinkError, attempt: int, *, first: bool = True) -> list[float]:
    patience = Patience(60)
    return [patience.pause_s(state(error, attempt), first=first) for _ in range(200)]


@pytest.mark.parametrize("attempt", [1, 30])
@pytest.mark.parametrize(("reason", "most_s"), [("no_network", 0.9), ("dns", 0.9), ("silent", 0.1)])
def test_what_nobody_heard_of_is_tried_again_within_a_second_for_ever(reason: str, most_s: float, attempt: int) -> None:
    assert max(pauses(LinkError(reason, "", near=True), attempt)) <= most_s


def test_what_the_other_side_answered_is_tried_again_at_random_up_to_a_minute() -> None:
    early, late = pauses(LinkError("500", ""), 1), pauses(LinkError("500", ""), 30)
    assert max(early) <= 1
    assert 50 < max(late) <= 60
    assert min(late) < 10, "full jitter: from nothing on"


def test_the_cloud_may_ask_for_a_longer_pause() -> None:
    assert min(pauses(LinkError("busy", "", retry_s=90), 1)) >= 90


def test_only_the_journal_looks_for_the_link() -> None:
    assert max(pauses(LinkError("silent", "", near=True), 30, first=False)) > 5


@pytest.mark.parametrize(
    ("first", "asked", "signal", "ends"),
    [
        (True, False, "look_again", True),
        (True, False, "is_back", False),
        (False, False, "is_back", True),
        (False, False, "look_again", False),
        (True, True, "look_again", False),
        (False, True, "is_back", False),
    ],
)
async def test_a_pause_ends_early_for_a_reason(first: bool, asked: bool, signal: str, ends: bool) -> None:
    patience = Patience(60)
    task = asyncio.create_task(patience.pause(0.3 if not ends else 60, first=first, asked=asked))
    await asyncio.sleep(0)
    getattr(patience, signal)()
    if ends:
        async with asyncio.timeout(5):
            await task
    else:
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        await task


def dns(code: int) -> aiohttp.ClientConnectorDNSError:
    return aiohttp.ClientConnectorDNSError(HOST, socket.gaierror(code, "said"))  # pyright: ignore[reportArgumentType]


def system(code: int, kind: Any = aiohttp.ClientConnectorError) -> Exception:
    return kind(HOST, OSError(code, "said"))


@pytest.mark.parametrize(
    ("error", "reason", "near"),
    [
        (system(errno.ENETUNREACH), "no_network", True),
        (system(errno.EHOSTUNREACH), "no_network", True),
        (system(errno.ENETDOWN), "no_network", True),
        (system(errno.EADDRNOTAVAIL), "no_network", True),
        (system(errno.ETIMEDOUT), "silent", True),
        (aiohttp.ConnectionTimeoutError("x"), "silent", True),
        (dns(socket.EAI_AGAIN), "dns", True),
        (dns(socket.EAI_NONAME), "dns", False),
        (system(errno.ECONNREFUSED), "refused", False),
        (system(errno.ECONNREFUSED, aiohttp.ClientProxyConnectionError), "proxy", False),
        (system(errno.ENETUNREACH, aiohttp.ClientProxyConnectionError), "no_network", True),
        (aiohttp.ClientOSError(errno.ECONNRESET, "said"), "unreachable", False),
        (aiohttp.ClientOSError(errno.ETIMEDOUT, "said"), "silent", True),
        (aiohttp.ServerDisconnectedError(), "broken", False),
        (aiohttp.SocketTimeoutError("x"), "timeout", False),
        (TimeoutError(), "timeout", False),
        (ssl.SSLError(1, "said"), "tls", False),
    ],
)
def test_every_failure_has_a_reason_and_says_what_to_do(error: Exception, reason: str, near: bool) -> None:
    found = trouble(error, WHERE)
    assert (found.reason, found.near) == (reason, near)
    assert found.text
    assert found.hint


@pytest.mark.parametrize(("trip_s", "patience_ms"), [(0.0, 2_000), (0.3, 2_000), (1.0, 4_000), (9.0, 6_000)])
def test_data_that_nobody_acknowledges_ends_a_connection_soon(trip_s: float, patience_ms: int) -> None:
    """TCP repeats it after 0.2, 0.6, 1.4, 3 and 6 s: a connection that lived on would miss the link's return."""
    with open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1)), trip_s) as opened:
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == patience_ms


async def test_the_link_is_used_within_a_second_of_its_return(tmp_path: Path, eventually: Any) -> None:
    """Nothing answers the first packet: a listener whose queue is full, which is how a dead modem looks from here."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            knock = waiting.enter_context(socket.socket())
            knock.setblocking(False)
            knock.connect_ex(("127.0.0.1", port))
        async with site(tmp_path / "edge") as edge, edge.linked(f"http://127.0.0.1:{port}", backoff_max_s=60):
            await eventually(lambda: edge.health.reasons.get("journal") == "silent", "nobody answers")
            waiting.close()
            listener.close()
            async with cloud(tmp_path / "cloud", port):
                since_s = asyncio.get_running_loop().time()
                await eventually(lambda: edge.health.state == "up", "it is used", every_s=0.01)
                assert asyncio.get_running_loop().time() - since_s < 3.5  # a connect of 2 s may be under way


async def test_a_request_that_hangs_when_the_link_breaks_is_given_up(tmp_path: Path, eventually: Any) -> None:
    async with (
        cloud(tmp_path / "cloud") as port,
        NarrowLink(port) as link,
        site(tmp_path / "edge") as edge,
        edge.linked(f"http://127.0.0.1:{link.port}", timeout_s=1.0),
    ):
        await edge.say()
        await eventually(edge.all_sent, "sent")
        link.cut = True
        await edge.say()
        await eventually(lambda: edge.health.reasons.get("journal") == "timeout", "given up")
        link.cut = False
        await eventually(edge.all_sent, "caught up")
        assert edge.health.to_json()["reason"] == ""


# --- what the machine's network tells ----------------------------------------------------------------------------


async def test_a_burst_of_changes_is_told_once(monkeypatch: pytest.MonkeyPatch, eventually: Any) -> None:
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    monkeypatch.setattr(link_watch, "_listen", lambda: ours)
    told: list[None] = []
    with kernels, watching(lambda: told.append(None)) as does:
        assert does
        for _ in range(20):
            kernels.send(b"changed")
        await eventually(lambda: told, "told")
        assert len(told) == 1
        kernels.send(b"changed")
        await eventually(lambda: len(told) == 2, "told again")


async def test_where_the_kernel_does_not_tell_everything_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> socket.socket:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(link_watch, "_listen", forbidden)
    with watching(lambda: None) as does:
        assert not does


_WATCH = """
import asyncio, subprocess
from sitewarden.sync.link_watch import watching
async def main():
    told = asyncio.Event()
    with watching(told.set) as does:
        assert does
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        async with asyncio.timeout(5):
            await told.wait()
    print("told")
asyncio.run(main())
"""


def test_the_kernel_tells_of_a_link_that_comes_up(need: Any) -> None:
    unshare = need("unshare", "apt install util-linux")
    need("ip", "apt install iproute2")
    ran = subprocess.run([unshare, "-rn", sys.executable, "-c", _WATCH], capture_output=True, text=True, check=False)
    if "unshare failed" in ran.stderr or "Operation not permitted" in ran.stderr:
        pytest.skip("network namespaces are not allowed here")
    assert ran.stdout == "told\n", ran.stderr


# --- names -------------------------------------------------------------------------------------------------------


async def test_while_the_name_server_is_silent_the_last_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    names, silent = Names(), asyncio.Event()
    answer = [{"hostname": "hq", "host": "192.0.2.1", "port": 1, "family": 2, "proto": 6, "flags": 0}]

    async def resolve(*_: Any) -> Any:
        if silent.is_set():
            await asyncio.sleep(3600)
        return answer

    names._system = SimpleNamespace(resolve=resolve)  # pyright: ignore[reportAttributeAccessIssue]
    assert await names.resolve("hq", 1) == answer
    monkeypatch.setattr("sitewarden.sync.dialing._NAME_KEPT_S", -1.0)
    monkeypatch.setattr("sitewarden.sync.dialing._NAME_S", 0.01)
    silent.set()
    async with asyncio.timeout(5):
        assert await names.resolve("hq", 1) == answer
    for task in names._asked.values():
        task.cancel()


async def test_a_name_that_was_never_known_is_an_error() -> None:
    names = Names()

    async def resolve(*_: Any) -> Any:
        raise OSError(None, "no such name")

    names._system = SimpleNamespace(resolve=resolve)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(OSError, match="no such name"):
        await names.resolve("hq", 1)


# --- several batches in one request ------------------------------------------------------------------------------


def test_several_batches_are_packed_and_opened_again() -> None:
    batches = [(bytes([n]) * 32, bytes([n]) * n) for n in range(1, 5)]
    assert unpack_several(pack_several(batches), 4) == batches


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 1),
        (b"\xc1", 1),
        (pack_several([]), 1),
        (pack_several([(bytes(32), b"x")]), 2),
        (pack_several([(bytes(31), b"x")]), 1),
        (pack_several([(bytes(32), "text")]), 1),  # pyright: ignore[reportArgumentType]
        (wire.JournalPayload(epoch="a", first=1, before=bytes(32), records=(b"{}",), after=bytes(32)).pack(), 1),
    ],
)
def test_what_is_not_several_batches_is_refused(body: bytes, count: int) -> None:
    with pytest.raises(DamagedError):
        unpack_several(body, count)


async def ask(port: int, path: str, body: bytes, chain: bytes) -> tuple[int, dict[str, Any]]:
    import time

    target = f"http://127.0.0.1:{port}{path}"
    digest, field = wire.content_digest(body), wire.bytes_text(chain)
    message = wire.Message(method="PUT", target_uri=target, digest=digest, chain=field)
    headers = wire.sign(message, KEY, created_s=int(time.time()), nonce="ab" * 16)
    async with aiohttp.ClientSession() as session, session.put(target, data=body, headers=headers) as answer:
        return answer.status, await answer.json()


@contextlib.asynccontextmanager
async def six_segments(tmp_path: Path) -> AsyncIterator[tuple[int, str, list[tuple[bytes, bytes]]]]:
    """A cloud that has nothing yet: its port, the stream's epoch, (chain, body) of six segments."""
    async with cloud(tmp_path / "cloud") as port, site(tmp_path / "edge") as edge:
        await edge.measure(6)
        outbox = HistoryOutbox(edge.history)
        await outbox.open()
        assert len(await outbox.batches(1, 1)) == 1
        batches = [await outbox.batch(n) for n in range(1, 7)]
        yield port, edge.history.epoch, [(batch.chain, batch.body) for batch in batches if batch is not None]


async def send(port: int, epoch: str, batches: list[tuple[bytes, bytes]], first: int) -> tuple[int, dict[str, Any]]:
    path = several_path("gw1", "history", epoch, first, first + len(batches) - 1)
    return await ask(port, path, pack_several(batches), batches[-1][0])


async def test_several_batches_are_taken_as_if_they_had_come_alone(tmp_path: Path) -> None:
    async with six_segments(tmp_path) as (port, epoch, batches):
        status, answer = await send(port, epoch, batches[:4], 1)
        assert (status, answer["ack"], answer["chain"]) == (200, 4, wire.bytes_text(batches[3][0]))
        status, answer = await send(port, epoch, batches[2:6], 3)
        assert (status, answer["ack"]) == (200, 6), "two known ones, two new ones"
        assert rows(tmp_path / "cloud", "SELECT n, body FROM batch ORDER BY n") == [
            (n, body) for n, (_, body) in enumerate(batches, 1)
        ]


async def test_what_fits_is_kept_and_the_next_request_is_told_why_the_rest_does_not(tmp_path: Path) -> None:
    async with six_segments(tmp_path) as (port, epoch, batches):
        forked = [*batches[:2], (bytes(32), batches[2][1]), *batches[3:]]
        status, answer = await send(port, epoch, forked, 1)
        assert (status, answer["ack"]) == (200, 2)
        status, answer = await send(port, epoch, forked[2:], 3)
        assert (status, answer["error"]["reason"], answer["ack"]) == (409, "fork", 2)
        status, answer = await send(port, epoch, batches[4:], 5)
        assert (status, answer["error"]["reason"], answer["ack"]) == (409, "gap", 2)


async def test_bad_content_among_several_goes_to_quarantine_alone(tmp_path: Path) -> None:
    async with six_segments(tmp_path) as (port, epoch, batches):
        poisoned = [batches[0], (bytes([7]) * 32, b"no zstd")]
        status, answer = await send(port, epoch, poisoned, 1)
        assert (status, answer["ack"], answer["quarantined"]) == (200, 2, True)
        assert rows(tmp_path / "cloud", "SELECT n FROM quarantine") == [(2,)]
        assert rows(tmp_path / "cloud", "SELECT n FROM batch WHERE body IS NOT NULL") == [(1,)]


@pytest.mark.parametrize(
    ("stream", "first", "last", "chain"),
    [
        ("journal", 1, 2, 0),
        ("history", 2, 1, 0),
        ("history", 1, 1 + MAX_BATCHES, 0),
        ("history", 1, 3, 0),
        ("history", 1, 2, 1),
    ],
)
async def test_what_is_made_wrong_is_refused_as_a_whole(
    tmp_path: Path, stream: str, first: int, last: int, chain: int
) -> None:
    async with six_segments(tmp_path) as (port, epoch, batches):
        path = several_path("gw1", stream, epoch, first, last)
        claimed = batches[1][0] if chain == 0 else batches[0][0]
        status, answer = await ask(port, path, pack_several(batches[:2]), claimed)
        assert (status, answer["error"]["reason"]) == (400, "bad_request")
        assert rows(tmp_path / "cloud", "SELECT count(*) FROM batch") == [(0,)]


async def test_a_backlog_of_small_segments_takes_few_requests(
    tmp_path: Path, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    several: list[str] = []
    put = Ingest._put_several

    async def noting(self: Ingest, request: Any) -> Any:
        several.append(request.path)
        return await put(self, request)

    monkeypatch.setattr(Ingest, "_put_several", noting)
    async with cloud(tmp_path / "cloud") as port, site(tmp_path / "edge") as edge:
        await edge.measure(120)
        async with edge.linked(f"http://127.0.0.1:{port}"):
            await eventually(edge.all_sent, "sent")
        assert 1 <= len(several) <= 10
        assert rows(tmp_path / "cloud", "SELECT count(*) FROM batch WHERE stream = 'history'") == [(120,)]


async def test_a_cloud_that_does_not_know_the_form_gets_single_batches(
    tmp_path: Path, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def unknown(_: Ingest, request: Any) -> Any:
        asked.append(request.path)
        raise RefusedError("bad_request", "there is no batch '1-9' in this protocol")

    monkeypatch.setattr(Ingest, "_put_several", unknown)
    async with cloud(tmp_path / "cloud") as port, site(tmp_path / "edge") as edge:
        await edge.measure(12)
        async with edge.linked(f"http://127.0.0.1:{port}"):
            await eventually(edge.all_sent, "sent")
            assert edge.health.last_error == ""
        assert len(asked) == 1
        assert rows(tmp_path / "cloud", "SELECT count(*) FROM batch WHERE stream = 'history'") == [(12,)]


# --- who is believed, and the way there --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def over_tls(tmp_path: Path, context: ssl.SSLContext, free_port: Any) -> AsyncIterator[str]:
    """A cloud behind TLS on localhost; gives its address."""
    outside = free_port()
    url = f"https://localhost:{outside}"
    async with cloud(tmp_path / "cloud", public_url=url) as inside:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", inside)
            with contextlib.suppress(OSError, ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(pump(reader, far_writer))
                    group.create_task(pump(far_reader, writer))
            writer.close()

        server = await asyncio.start_server(relay, "localhost", outside, ssl=context)
        try:
            yield url
        finally:
            server.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(16 * 1024):
        writer.write(data)
        await writer.drain()
    writer.close()
    raise ConnectionResetError("closed")


async def test_a_pinned_authority_is_believed_and_no_other(tmp_path: Path, eventually: Any, free_port: Any) -> None:
    right, wrong = Authority(tmp_path), Authority(tmp_path, "Other authority")
    async with over_tls(tmp_path, right.server(), free_port) as url, site(tmp_path / "edge") as edge:
        await edge.say(3)
        async with edge.linked(url, ca_file=str(wrong.file)):
            await eventually(lambda: edge.health.reasons.get("journal") == "certificate", "not believed")
            assert "[cloud] ca_file" in edge.health.to_json()["hint"]
        async with edge.linked(url):
            await eventually(lambda: edge.health.reasons.get("journal") == "certificate", "not the system's either")
        assert rows(tmp_path / "cloud", "SELECT count(*) FROM record") == [(0,)]
        async with edge.linked(url, ca_file=str(right.file)):
            await eventually(edge.all_sent, "sent")
        assert rows(tmp_path / "cloud", "SELECT count(*) FROM record") == [(3,)]


@pytest.mark.parametrize(
    ("host", "expired", "words"),
    [("localhost", True, ("expired", "clock")), ("other.example", False, ("other.example", "host in [cloud] url"))],
)
async def test_the_error_names_what_is_wrong_with_a_certificate(
    tmp_path: Path, eventually: Any, free_port: Any, host: str, expired: bool, words: tuple[str, str]
) -> None:
    authority = Authority(tmp_path)
    context = authority.server(host, expired=expired)
    async with over_tls(tmp_path, context, free_port) as url, site(tmp_path / "edge") as edge:
        async with edge.linked(url, ca_file=str(authority.file)):
            await eventually(lambda: edge.health.reasons.get("journal") == "certificate", "refused")
        shown = edge.health.to_json()
        if expired:
            assert words[0] in shown["error"]
        assert words[1] in shown["hint"]


async def test_everything_goes_through_the_proxy_unread(tmp_path: Path, eventually: Any, free_port: Any) -> None:
    authority = Authority(tmp_path)
    async with (
        HttpProxy("plant:s3cret/pw") as proxy,
        over_tls(tmp_path, authority.server(), free_port) as url,
        site(tmp_path / "edge") as edge,
    ):
        await edge.say(3)
        await edge.measure(2)
        login = f"http://plant:s3cret%2Fpw@127.0.0.1:{proxy.port}"
        async with edge.linked(url, ca_file=str(authority.file), proxy=login):
            await eventually(edge.all_sent, "sent")
        assert proxy.asked
        assert all(line.startswith("CONNECT localhost:") for line in proxy.asked)


async def test_a_cloud_on_this_machine_is_not_looked_for_behind_the_proxy(tmp_path: Path, eventually: Any) -> None:
    async with HttpProxy() as proxy, cloud(tmp_path / "cloud") as port, site(tmp_path / "edge") as edge:
        await edge.say()
        async with edge.linked(f"http://127.0.0.1:{port}", proxy=f"http://127.0.0.1:{proxy.port}"):
            await eventually(edge.all_sent, "sent")
        assert not proxy.asked


async def test_a_proxy_that_wants_another_login_is_told_without_the_login(
    tmp_path: Path, eventually: Any, free_port: Any, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    async with (
        HttpProxy("plant:right") as proxy,
        over_tls(tmp_path, authority.server(), free_port) as url,
        site(tmp_path / "edge") as edge,
    ):
        given = f"http://plant:wrong-secret@127.0.0.1:{proxy.port}"
        with caplog.at_level(logging.DEBUG):
            async with edge.linked(url, ca_file=str(authority.file), proxy=given):
                await eventually(lambda: edge.health.reasons.get("journal") == "proxy_login", "refused")
                proxy.refuses = 503
                await eventually(lambda: edge.health.reasons.get("journal") == "proxy", "refused otherwise")
        assert "wrong-secret" not in str(edge.health.to_json()) + caplog.text
    nobody = f"http://127.0.0.1:{free_port()}"
    async with site(tmp_path / "edge") as edge, edge.linked("https://localhost:1", proxy=nobody):
        await eventually(lambda: edge.health.reasons.get("journal") == "proxy", "there is no proxy")


# --- how much may be used ----------------------------------------------------------------------------------------


async def test_a_cap_holds_and_records_come_through_it_first(tmp_path: Path, eventually: Any) -> None:
    async with cloud(tmp_path / "cloud") as port, NarrowLink(port) as link, site(tmp_path / "edge") as edge:
        loop = asyncio.get_running_loop()
        noise = [float(i * 7919 % 100_003) for i in range(2_000)]
        await edge.measure(20, noise)
        async with edge.linked(f"http://127.0.0.1:{link.port}", cap=lambda: 20_000.0, timeout_s=30.0):
            await eventually(lambda: 0 < edge.health.backlog_segments < 20, "on its way")
            since_s, before = loop.time(), link.up
            await edge.say()
            await eventually(lambda: not edge.health.backlog_records, "the record is there", every_s=0.01)
            assert edge.health.backlog_segments
            assert loop.time() - since_s < 1.5
            await eventually(lambda: loop.time() - since_s > 3 or not edge.health.backlog_segments, "some time")
            assert (link.up - before) / (loop.time() - since_s) < 1.3 * 20_000


@pytest.mark.parametrize(
    ("begin", "end", "at", "capped"),
    [
        (None, None, "2026-03-01T04:00:00+08:00", True),
        ("08:00", "18:00", "2026-03-01T08:00:00+08:00", True),
        ("08:00", "18:00", "2026-03-01T18:00:00+08:00", False),
        ("22:00", "06:00", "2026-03-01T23:00:00+08:00", True),
        ("22:00", "06:00", "2026-03-01T05:59:00+08:00", True),
        ("22:00", "06:00", "2026-03-01T12:00:00+08:00", False),
    ],
)
def test_a_cap_holds_in_its_hours_by_the_clock_of_the_site(
    begin: str | None, end: str | None, at: str, capped: bool
) -> None:
    import datetime as dt

    table = SimpleNamespace(max_kbit_s=256, max_from=begin, max_to=end)
    clock = dt.datetime.fromisoformat(at).timestamp()
    assert cap_of(table, "Asia/Shanghai", lambda: clock)() == (32_000 if capped else None)


def test_without_a_cap_there_is_none() -> None:
    assert cap_of(SimpleNamespace(max_kbit_s=None, max_from=None, max_to=None), "Asia/Shanghai")() is None


# --- what is shown -----------------------------------------------------------------------------------------------


async def test_the_backlog_its_age_and_what_to_do_are_shown(tmp_path: Path, eventually: Any, free_port: Any) -> None:
    async with site(tmp_path / "edge") as edge:
        await edge.say(50, text="x" * 100)
        await edge.measure(3)
        first = (await edge.journal.read(0, 1))[0].at["utc"]
        port = free_port()
        async with edge.linked(f"http://127.0.0.1:{port}"):
            await eventually(lambda: edge.health.reasons.get("journal") == "refused", "nobody is there")
            await eventually(lambda: edge.health.streams["journal"].bytes > 0, "it was looked")
            shown = edge.health.to_json()
            assert (shown["state"], shown["backlog_records"], shown["backlog_segments"]) == ("down", 50, 3)
            assert shown["oldest"] == first
            assert 50 * 100 * 0.1 < shown["streams"]["journal"]["bytes"] < 50 * 500
            assert shown["reason"] == "refused"
            assert "[cloud] url" in shown["hint"]
            async with cloud(tmp_path / "cloud", port):
                await eventually(edge.all_sent, "sent")
                shown = edge.health.to_json()
                assert (shown["state"], shown["backlog_bytes"], shown["oldest"]) == ("up", 0, None)
                assert (shown["error"], shown["reason"], shown["hint"], shown["drained_in_s"]) == ("", "", "", None)
                assert shown["streams"]["journal"]["ack"] == shown["streams"]["journal"]["durable"] > 0
                assert shown["kbit_s"] > 0


def test_the_time_left_follows_from_what_goes_through() -> None:
    health = UplinkHealth()
    health.waits("history", 10)
    health.lags("history", SimpleNamespace(bytes=100_000, oldest_ms=0))  # pyright: ignore[reportArgumentType]
    assert health.to_json()["drained_in_s"] is None, "nothing moves"
    for _ in range(10):
        health.sent("history", 1_000, 100)
    assert health.to_json()["drained_in_s"] == pytest.approx(100, rel=0.1)
