"""The control socket: who may open it, what it refuses, and the commands that use it on a running process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.console.gateways import LONGEST_PATH, SOCKET
from sitewarden.edge import control as control_module
from sitewarden.edge.app import run_edge
from sitewarden.edge.control import Control, ask_gateway
from sitewarden.edge.outputs import Outputs
from sitewarden.edge.reloading import Outcome
from sitewarden.errors import PermanentError, RefusedError
from sitewarden.sync.bundle import ANSWER, BundleReader, BundleWriter
from sitewarden.sync.journal import Record, verify_file
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.sqlite import connect_for_reading
from sitewarden.sync.wire import Cursor

PEOPLE = "id,name,name_en,roles,areas,phone\nli,李,Li,keeper,*,\nwang,王,Wang,officer,*,\n"
SITE = """
[site]
id = "s1"
name = "印染"
name_en = "Dyeing"
[gateway]
id = "gw1"
[web]
port = {port}
[[area]]
id = "store"
name = "库"
name_en = "Store"
[[bus]]
id = "a"
kind = "tcp"
host = "127.0.0.1"
port = {modbus}
timeout_ms = 300
[[device]]
id = "th1"
area = "store"
bus = "a"
unit_id = 1
profile = "rs_ws_n01"
poll_s = 0.5
"""
TH2 = """
[[device]]
id = "th2"
area = "store"
bus = "a"
unit_id = 2
profile = "rs_ws_n01"
"""


@dataclass
class Gate:
    """A site whose one device answers reads of holding registers with their addresses; unit 9 is silent."""

    folder: Path
    port: int
    modbus: int = 0
    task: asyncio.Task[None] | None = None
    said: list[str] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def write(self, extra: str = "") -> None:
        text = SITE.format(port=self.port, modbus=self.modbus)
        (self.folder / "site.toml").write_text(text + extra, "utf-8")
        (self.folder / "people.csv").write_text(PEOPLE, "utf-8")

    async def start(self) -> None:
        self.said.clear()
        run = run_edge(self.folder / "site.toml", self.data, say=self.said.append)
        self.task = asyncio.create_task(run, name="edge")
        async with asyncio.timeout(30):
            while not self.said:
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task], timeout=30)

    async def ask(self, method: str, path: str, fields: Any = None) -> tuple[int, Any]:
        return await ask_gateway(self.data, method, path, fields)

    def records(self) -> list[Record]:
        with contextlib.closing(connect_for_reading(self.data / "journal.db")) as connection:
            rows = connection.execute("SELECT data FROM record ORDER BY seq").fetchall()
        return [Record.from_bytes(data, b"") for (data,) in rows]


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            transaction, _, _, unit, function, address, count = struct.unpack(">HHHBBHH", await reader.readexactly(12))
            if unit == 9:
                continue
            body = struct.pack(">BBB", unit, function, 2 * count) + struct.pack(
                f">{count}H", *range(address, address + count)
            )
            if address >= 60_000:
                body = bytes((unit, function | 0x80, 2))
            writer.write(struct.pack(">HHH", transaction, 0, len(body)) + body)
    writer.close()


@pytest.fixture
async def site(tmp_path: Path, free_port) -> AsyncIterator[Gate]:
    """Not started."""
    server = await asyncio.start_server(_talk, "127.0.0.1", 0)
    made = Gate(tmp_path, free_port(), server.sockets[0].getsockname()[1])
    made.write()
    yield made
    if made.task is not None and not made.task.done():
        await made.stop()
    server.close()


@pytest.fixture
async def gate(site: Gate) -> Gate:
    await site.start()
    return site


def block(**fields: Any) -> dict[str, Any]:
    return {"unit_id": 1, "table": "holding", "address": 5, "count": 3, "timeout_ms": 300, **fields}


# --- the socket ---


async def test_only_user_and_group_may_open_it_and_it_goes_with_the_daemon(gate: Gate):
    mode = (gate.data / SOCKET).lstat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    await gate.stop()
    with pytest.raises(PermanentError, match="no gateway runs"):
        await gate.ask("GET", "/v1/buses")


async def test_a_socket_that_was_left_behind_is_replaced(site: Gate):
    site.data.mkdir()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(site.data / SOCKET))
    with pytest.raises(PermanentError, match="no gateway runs"):
        await site.ask("GET", "/v1/buses")
    await site.start()
    assert (await site.ask("GET", "/v1/buses"))[0] == 200


async def test_something_else_of_that_name_is_left_alone(site: Gate, caplog):
    site.data.mkdir()
    (site.data / SOCKET).write_text("precious", "utf-8")
    await site.start()
    assert (site.data / SOCKET).read_text("utf-8") == "precious"
    assert "something else has this name" in caplog.text


async def test_a_path_that_is_too_long_costs_the_socket_alone(site: Gate, caplog, monkeypatch):
    deep = site.folder / ("d" * (LONGEST_PATH - len(str(site.folder)) + 1))
    monkeypatch.setattr(Gate, "data", property(lambda _: deep))
    await site.start()
    assert f"may have {LONGEST_PATH} bytes" in caplog.text
    with pytest.raises(PermanentError, match="the path of a socket"):
        await site.ask("GET", "/v1/buses")


@pytest.mark.parametrize("extra", [0, 1])
async def test_the_longest_path(tmp_path: Path, extra: int, caplog):
    folder = tmp_path / ("d" * (LONGEST_PATH - len(str(tmp_path)) - len(SOCKET) - 2 + extra))
    folder.mkdir()
    async with _listening(folder):
        assert (folder / SOCKET).exists() is not bool(extra)
    assert ("no commands" in caplog.text) is bool(extra)


@asynccontextmanager
async def _listening(folder: Path, reload: Any = None) -> AsyncIterator[None]:
    """Only the socket, without a gateway."""

    class Nothing:
        def __getattr__(self, _: str) -> Any:
            return lambda *_: {}

    nothing: Any = Nothing()
    control = Control(
        site=nothing,
        wires=nothing,
        outputs=Outputs.__new__(Outputs),
        reload=reload,
        proof=nothing,
        journal=nothing,
        bundling=nothing,
    )
    async with control.listening(folder / SOCKET):
        yield


# --- what it answers ---


async def test_buses(gate: Gate, eventually):
    async def polled() -> Any:
        unit = (await gate.ask("GET", "/v1/buses"))[1]["buses"][0]["units"][0]
        return unit if unit["good"] > 1 else None

    unit = await eventually(polled, "polled")
    _, answer = await gate.ask("GET", "/v1/buses")
    (bus,) = answer["buses"]
    assert {key: value for key, value in bus.items() if key != "units"} == {
        "id": "a",
        "kind": "tcp",
        "host": "127.0.0.1",
        "port": gate.modbus,
        "serial": "",
        "baud": 9600,
        "parity": "N",
        "stopbits": 1,
        "timeout_ms": 300,
        "late_max_ms": 1500,
        "connected": True,
    }
    assert isinstance(unit, dict)
    assert (unit["device"], unit["unit_id"], unit["profile"], unit["state"]) == ("store.th1", 1, "rs_ws_n01", "ok")
    assert unit["polls"] == unit["good"] + unit["bad"] + unit["skipped"]
    assert 0 < unit["reply_ms"] <= unit["slowest_ms"]
    assert unit.keys() >= {"why", "timeouts", "exceptions", "bad_frames"}


async def test_a_guest_reads_between_the_polls(gate: Gate):
    status, answer = await gate.ask("POST", "/v1/buses/a/read", block())
    assert (status, answer["words"]) == (200, [5, 6, 7])
    assert answer["reply_ms"] > 0
    without = {key: value for key, value in block().items() if key != "timeout_ms"}
    assert (await gate.ask("POST", "/v1/buses/a/read", without))[1]["words"] == [5, 6, 7]
    for fields, why, code in ((block(unit_id=9), "timeout", 0), (block(address=60_001), "exception_2", 2)):
        status, answer = await gate.ask("POST", "/v1/buses/a/read", fields)
        assert (status, answer["error"]["why"], answer["error"]["code"]) == (200, why, code)
        assert answer["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (block(unit_id=256), "unit_id"),
        (block(unit_id=-1), "unit_id"),
        (block(unit_id=True), "unit_id"),
        (block(table="coils"), "table"),
        (block(address=65_536), "address"),
        (block(count=0), "count"),
        (block(count=126), "count"),
        (block(count=2001, table="coil"), "count"),
        (block(address=65_535, count=2), "count"),
        (block(count=10**400), "count"),
        (block(timeout_ms=0), "timeout_ms"),
        (block(timeout_ms=60_001), "timeout_ms"),
        (block(timeout_ms="300"), "timeout_ms"),
        (block(more=1), "more"),
        ({}, "unit_id"),
        ([], "the body"),
        (None, "the body"),
    ],
)
async def test_reads_are_checked_strictly(gate: Gate, fields: Any, named: str):
    status, answer = await gate.ask("POST", "/v1/buses/a/read", fields)
    assert (status, answer["error"]["reason"]) == (400, "bad_request")
    assert answer["error"]["message"].startswith(named)


async def test_what_is_not_there(gate: Gate):
    for method, path, status, reason in (
        ("POST", "/v1/buses/b/read", 404, "no_such_bus"),
        ("GET", "/v1/buses/a/read", 405, "wrong_method"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/outputs/store.th1.siren", 404, "no_such_output"),
    ):
        got, answer = await gate.ask(method, path, {"state": "on"} if "outputs" in path else block())
        assert (got, answer["error"]["reason"]) == (status, reason), path
    got, answer = await gate.ask("POST", "/v1/buses/a/read", block(table="x" * 20_000))
    assert (got, answer["error"]["reason"]) == (413, "too_large")
    assert await gate.ask("POST", "/v1/reload", {"force": True}) == (
        400,
        {"error": {"reason": "bad_request", "message": "force: unknown field (known: )", "hint": ""}},
    )


async def test_few_reads_at_once(gate: Gate, monkeypatch):
    monkeypatch.setattr(control_module, "_READS_AT_ONCE", 2)
    reads = [gate.ask("POST", "/v1/buses/a/read", block(unit_id=9, timeout_ms=1000)) for _ in range(6)]
    statuses = sorted(status for status, _ in await asyncio.gather(*reads))
    assert statuses == [200, 200, 429, 429, 429, 429]
    assert (await gate.ask("POST", "/v1/buses/a/read", block()))[0] == 200


async def test_a_refusal_of_the_reload_comes_through(tmp_path: Path):
    async def refuse(by: str, actor: str) -> Outcome:
        assert by == f"console uid {os.getuid()}"
        assert actor == "gateway"
        raise RefusedError("busy", "too many reloads wait", retry_s=5)

    async with _listening(tmp_path, refuse):
        status, answer = await ask_gateway(tmp_path, "POST", "/v1/reload", {})
    assert (status, answer["error"]["reason"], answer["error"]["retry_s"]) == (429, "busy", 5)


async def test_pages_do_not_reach_it(gate: Gate):
    """The socket's paths are not served on the network."""
    async with aiohttp.ClientSession() as http:
        for path in ("v1/buses", "v1/reload"):
            async with http.post(f"http://127.0.0.1:{gate.port}/{path}", json={}) as answer:
                assert answer.status in (404, 405)


# --- the commands, on a process ---


@contextlib.contextmanager
def _notified(folder: Path) -> Iterator[tuple[Path, socket.socket]]:
    """What systemd would hear."""
    path = folder / "n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.settimeout(30)
        yield path, heard


def _until(heard: socket.socket, word: str) -> list[str]:
    found: list[str] = []
    while not found or not found[-1].startswith(word):
        found.append(heard.recv(4096).decode())
    return found


async def _reload_command(data: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sitewarden", "reload", "--data", str(data), *more]
    plain = {key: value for key, value in os.environ.items() if key not in ("LC_ALL", "LC_MESSAGES", "LANG")}
    return await asyncio.to_thread(
        subprocess.run, command, env=plain, capture_output=True, text=True, timeout=60, check=False
    )


async def test_the_command_on_a_process_that_systemd_would_watch(site: Gate):
    with _notified(site.folder) as (path, heard):
        command = [sys.executable, "-m", "sitewarden", "edge", "--config", str(site.folder / "site.toml")]
        with (site.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--data", str(site.data)],
                env={**os.environ, "NOTIFY_SOCKET": str(path)},
                stdout=log,
                stderr=log,
            )
        try:
            await asyncio.to_thread(_until, heard, "READY=1")
            site.write(TH2)
            done = await _reload_command(site.data)
            head, *lines = done.stdout.splitlines()
            file, revision = site.folder / "site.toml", head.rpartition(" ")[2]
            assert (done.returncode, head) == (0, f"applied: {file}, revision {revision}")
            assert lines[:2] == ["  device store.th2: added", "devices: 1 added, 0 removed, 0 changed, 1 untouched"]
            assert re.fullmatch(r"alarm rules: \d+ added, 0 removed, 0 changed, [1-9]\d* untouched", lines[2])
            told = await asyncio.to_thread(_until, heard, "READY=1")
            assert [word for word in told if "RELOADING=1\nMONOTONIC_USEC=" in word]
            assert (await _reload_command(site.data)).stdout == f"nothing was changed: {file}, revision {revision}\n"
            await asyncio.to_thread(_until, heard, "READY=1")
            zh = await _reload_command(site.data, "--lang", "zh")
            assert zh.stdout == f"没有变化：{file}，版本 {revision}\n"
            await asyncio.to_thread(_until, heard, "READY=1")
            site.write(TH2 + "# a remark\n")
            head, *lines = (await _reload_command(site.data)).stdout.splitlines()
            revision = head.rpartition(" ")[2]
            assert head == f"applied: {file}, revision {revision}"
            assert lines[0] == "  only comments or the order are different"
            await asyncio.to_thread(_until, heard, "READY=1")
            site.write("[[bus]\n")
            done = await _reload_command(site.data)
            assert done.returncode == 1
            head, problem, last = done.stderr.splitlines()
            assert head == f"refused: {file}: 1 problem"
            assert problem.startswith("  line ")
            assert last == (
                f"Nothing was changed; the gateway goes on with revision {revision}."
                f" Mend the file, then: sitewarden reload --data {site.data}"
            )
            await asyncio.to_thread(_until, heard, "READY=1")
            zh = await _reload_command(site.data, "--lang", "zh")
            assert zh.returncode == 1
            assert zh.stderr.startswith(f"被拒绝：{file}：1 个问题（说明为英文）\n  line ")
            assert f"\n什么都没有改动；网关继续使用版本 {revision}。" in zh.stderr
            site.write()
            process.send_signal(signal.SIGHUP)
            told = await asyncio.to_thread(_until, heard, "READY=1")
            assert any("RELOADING=1" in word for word in told)
            told = await asyncio.to_thread(_until, heard, "READY=1")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 0
        finally:
            process.kill()
            process.wait(30)
    log_text = (site.folder / "log").read_text("utf-8")
    assert "Traceback" not in log_text, log_text
    kinds = [record.kind for record in site.records()]
    changes = ["config.applied", "config.applied", "config.refused", "config.applied"]
    assert kinds == ["gateway.started", *changes, "gateway.stopped"]
    assert verify_file(site.data / "journal.db").bad_seq is None
    done = await _reload_command(site.data)
    assert done.returncode == 1
    assert done.stderr == (
        f"sitewarden: no running gateway was found; looked in\n  {site.data}: no gateway runs there\n"
        "start it, or name its data folder with --data\n"
    )


def test_the_unit_reloads_with_a_command_that_exists(root: Path):
    from sitewarden.cli import main

    unit = (root / "systemd" / "sitewarden-edge.service").read_text("utf-8")
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecReload=")]
    program, _, command = line.removeprefix("ExecReload=").partition(" ")
    assert program == "/opt/sitewarden/bin/sitewarden"
    assert command in main.commands
    assert "AF_UNIX" in unit


# --- bundles -----------------------------------------------------------------------------------------------------


async def test_a_running_gateway_writes_a_bundle_and_takes_its_answer(gate: Gate, tmp_path: Path, eventually):
    headquarters = Ed25519PrivateKey.generate()
    await gate.stop()
    gate.write(f'\n[cloud]\npublic_key = "{public_key_text(headquarters)}"\n')
    await gate.start()
    await eventually(lambda: len(gate.records()) > 1, "it has something to say")
    stick = tmp_path / "plant.swx"
    words = (sys.executable, "-m", "sitewarden", "bundle", "export", str(stick), "--data", str(gate.data))
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with stick.open("rb") as file:
        manifest = BundleReader(file).manifest
    (journal,) = [packed for packed in manifest.batches if packed.stream == "journal"]
    answer = tmp_path / "answer.swx"
    with answer.open("wb") as file:
        writer = BundleWriter(file, headquarters, kind=ANSWER, gateway=manifest.gateway, made_ms=manifest.made_ms)
        cursor = Cursor(epoch=journal.epoch, ack=journal.n, durable=journal.n, chain=journal.chain)
        writer.set_cursors({"journal": (cursor,)})
        writer.finish()
    words = (sys.executable, "-m", "sitewarden", "bundle", "import", str(answer), "--data", str(gate.data))
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "1" in done.stdout) == (0, True), done.stderr
    assert (await gate.ask("GET", "/v1/bundle"))[1]["since"][f"journal/{journal.epoch}"] == journal.n
    answer.write_bytes(stick.read_bytes()[:-40])
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "not a bundle" in done.stderr) == (1, True)
