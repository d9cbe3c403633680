"""Outputs on a real wire: only what is listed is written, and only what reads back is believed."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import argon2
import pytest
from click.testing import CliRunner
from sitewarden.cli import main
from sitewarden.edge import outputs as outputs_module
from sitewarden.edge.app import run_edge
from sitewarden.edge.control import ask_gateway
from sitewarden.edge.metas import OutputMeta
from sitewarden.edge.outputs import TABLE, OutputError, Outputs, stored_outputs
from sitewarden.errors import RefusedError
from sitewarden.sensors.buses import Answer, ReplyError
from sitewarden.serving import secrets as secrets_module
from sitewarden.serving.secrets import Secrets
from sitewarden.sync.journal import Draft, Journal, Record, rebuild

PIN = "246813"
SIREN = "store.relay.siren"
META = OutputMeta(
    id=SIREN,
    bus="a",
    area="store",
    device="store.relay",
    output="siren",
    name="库警号",
    name_en="Store siren",
    states=("off", "on"),
)
NOT_CONFIRMED = {
    "not_taken": ("the device did not do it (it reads back otherwise)", "设备没有执行（读回不符）"),
    "exception_4": ("Modbus exception 4: device failure", "Modbus 异常 4：设备故障"),
    "timeout": ("no reply in time", "时限内无应答"),
}
PEOPLE = """id,name,name_en,roles,areas,phone
li,李,Li,keeper,*,
wang,王,Wang,officer,*,
sun,孙,Sun,officer,pit,
chen,陈,Chen,keeper,pit,
zhao,赵,Zhao,control_room,*,
"""
SITE = """
[site]
id = "s1"
name = "印染"
name_en = "Dyeing"
[gateway]
id = "gw1"
flush_s = 1
[web]
port = {port}
[[area]]
id = "store"
name = "库"
name_en = "Store"
[[area]]
id = "pit"
name = "池"
name_en = "Pit"
[[bus]]
id = "a"
kind = "tcp"
host = "127.0.0.1"
port = {modbus}
timeout_ms = 300
[[device]]
id = "relay"
area = "store"
bus = "a"
unit_id = 3
profile = "relay_siren"
poll_s = 0.2
"""


@dataclass
class Relay:
    """A relay board. `stuck`: it confirms a write and does nothing; `deaf`: it answers no write."""

    port: int = 0
    coils: list[int] = field(default_factory=lambda: [0] * 8)
    writes: list[tuple[int, int]] = field(default_factory=list)
    stuck: bool = False
    deaf: bool = False
    refuses: bool = False

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(12)
                transaction, _, _, unit, function, address, value = struct.unpack(">HHHBBHH", head)
                answer = self.answer(head[7:], function, address, value)
                if answer is not None:
                    writer.write(struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer)
        writer.close()

    def answer(self, pdu: bytes, function: int, address: int, value: int) -> bytes | None:
        if function == 1:
            bits = sum(bit << i for i, bit in enumerate(self.coils[address : address + value]))
            return struct.pack(">BBB", 1, 1, bits)
        assert function == 5, "nothing else was asked for"
        self.writes.append((address, value))
        if self.deaf:
            return None
        if self.refuses:
            return bytes((0x85, 4))
        if not self.stuck:
            self.coils[address] = int(value == 0xFF00)
        return pdu


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    made = Relay()
    server = await asyncio.start_server(made.talk, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@dataclass
class Gate:
    """The running gateway of one relay board."""

    folder: Path
    port: int
    task: asyncio.Task[None] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @asynccontextmanager
    async def page(self, person: str) -> AsyncIterator[Callable[..., Any]]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            csrf = ""

            async def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
                url, headers = f"http://127.0.0.1:{self.port}/api/v1/{path}", {"X-CSRF-Token": csrf}
                async with http.request(method, url, json=body, headers=headers) as answer:
                    return answer.status, await answer.json()

            _, signed_in = await ask("POST", "session", {"person": person, "pin": PIN})
            csrf = signed_in["csrf"]
            yield ask

    async def command(self, *arguments: str) -> tuple[int, str]:
        """`sitewarden output …`, as typed."""
        words = ["output", "--data", str(self.data), *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, main, words)
        return result.exit_code, result.stdout or result.stderr  # a slow gateway is waited for, which stderr says


@pytest.fixture
async def gate(tmp_path: Path, free_port, relay: Relay, monkeypatch) -> AsyncIterator[Gate]:
    monkeypatch.setattr(secrets_module, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    made = Gate(tmp_path, free_port())
    made.data.mkdir()
    (tmp_path / "site.toml").write_text(SITE.format(port=made.port, modbus=relay.port), "utf-8")
    (tmp_path / "people.csv").write_text(PEOPLE, "utf-8")
    secrets = Secrets(made.data / "secrets.db")
    for person in ("li", "wang", "sun", "zhao"):
        secrets.set_pin(person, PIN)
    secrets.close()
    said: list[str] = []
    made.task = asyncio.create_task(run_edge(tmp_path / "site.toml", made.data, say=said.append), name="edge")
    async with asyncio.timeout(30):
        while not said and not made.task.done():
            await asyncio.sleep(0.01)
    try:
        yield made
    finally:
        made.task.cancel()
        await asyncio.wait([made.task], timeout=30)


async def test_a_siren_sounds_and_the_record_says_who_wanted_it(gate: Gate, relay: Relay, eventually):
    async with gate.page("zhao") as ask:
        status, answer = await ask("GET", "outputs")
        assert status == 200
        siren, lamp = answer["outputs"]
        assert (siren["id"], siren["states"], siren["state"], lamp["name_en"]) == (
            SIREN,
            ["off", "on"],
            None,
            "Store lamp",
        )
        assert await ask("POST", f"outputs/{SIREN}", {"state": "on"}) == (200, {"state": "on"})
        assert relay.coils[:2] == [1, 0]
        siren = (await ask("GET", "outputs"))[1]["outputs"][0]
        assert (siren["state"], siren["by"], siren["why"]) == ("on", "zhao", "")
    async with gate.page("wang") as ask:
        assert (await ask("POST", f"outputs/{SIREN}", {"state": "off"}))[0] == 200
    assert relay.writes == [(0, 0xFF00), (0, 0)], "written once each"
    await eventually(lambda: relay.coils[0] == 0, "off")


async def test_only_listed_outputs_and_states_for_those_who_may(gate: Gate, relay: Relay):
    async with gate.page("wang") as ask:
        for path, body, status, reason in (
            ("outputs/store.relay.pump", {"state": "on"}, 404, "no_such_output"),
            ("outputs/store.relay", {"state": "on"}, 404, "no_such_output"),
            (f"outputs/{SIREN}", {"state": "1"}, 400, "no_such_state"),
            (f"outputs/{SIREN}", {"state": 1}, 400, "bad_request"),
            (f"outputs/{SIREN}", {"state": "on", "raw": 7}, 400, "bad_request"),
        ):
            got, answer = await ask("POST", path, body)
            assert (got, answer["error"]["reason"]) == (status, reason), path
    for person, reason in (("li", "not_your_role"), ("sun", "not_your_area")):
        async with gate.page(person) as ask:
            got, answer = await ask("POST", f"outputs/{SIREN}", {"state": "on"})
            assert (got, answer["error"]["reason"]) == (403, reason)
            assert (await ask("GET", "outputs"))[0] == 200
    assert relay.writes == []


@pytest.mark.parametrize(("how", "why"), [("stuck", "not_taken"), ("refuses", "exception_4"), ("deaf", "timeout")])
async def test_what_is_not_confirmed_is_not_believed(gate: Gate, relay: Relay, how: str, why: str):
    async with gate.page("wang") as ask:
        assert (await ask("POST", f"outputs/{SIREN}", {"state": "off"}))[0] == 200
        setattr(relay, how, True)
        status, answer = await ask("POST", f"outputs/{SIREN}", {"state": "on"})
        assert (status, answer["error"]["reason"]) == (502, why)
        siren = (await ask("GET", "outputs"))[1]["outputs"][0]
        assert (siren["state"], siren["tried"], siren["why"]) == (None, "on", why)
        code, said = await gate.command(SIREN)
        assert code == 0
        assert said.startswith(f"{SIREN}  Store siren: not known: on was written, but not confirmed: ")
        assert said.endswith(f"{NOT_CONFIRMED[why][0]} (off | on)\n")
        code, said = await gate.command(SIREN, "on")
        assert code == 1
        assert said.startswith(f"sitewarden: {SIREN}: ")
        assert said.count("store.relay") == 1, "the device is named once"
        assert said.endswith("(look at the device itself: nobody knows which state it is in)\n")
        code, said = await gate.command(SIREN, "on", "--lang", "zh")
        assert code == 1
        assert said.startswith(f"sitewarden：{SIREN}：写 on 未得到确认：{NOT_CONFIRMED[why][1]}（请到设备旁查看")
        setattr(relay, how, False)
        assert (await ask("POST", f"outputs/{SIREN}", {"state": "on"}))[0] == 200


async def test_the_command(gate: Gate, relay: Relay):
    never = "not known: never written from here (off | on)"
    assert await gate.command() == (
        0,
        f"{SIREN}  Store siren: {never}\nstore.relay.lamp   Store lamp: {never}\n",
    )
    assert await gate.command(SIREN, "on") == (0, f"{SIREN}: on (confirmed)\n")
    assert relay.coils[0] == 1
    assert await gate.command(SIREN) == (0, f"{SIREN}  Store siren: on (off | on)\n")
    assert await gate.command(SIREN, "--lang", "zh") == (0, f"{SIREN}  库警号：on（off | on）\n")
    here = f"outputs of this site: {SIREN}, store.relay.lamp"
    for arguments, wanted in (
        (("store.relay.pump", "on"), f"there is no output store.relay.pump ({here})"),
        (("siren",), f'there is no output siren; did you mean "{SIREN}"? ({here})'),
        ((SIREN, "onn"), f'{SIREN} has no state onn; did you mean "on"? (it can be off, on)'),
        ((SIREN, "onn", "--lang", "zh"), f"{SIREN} 没有状态 onn；是不是“on”？（可用状态：off, on）"),
    ):
        code, said = await gate.command(*arguments)
        assert code == 1
        assert wanted in said
    assert relay.writes == [(0, 0xFF00)]
    _, answer = await ask_gateway(gate.data, "GET", "/v1/outputs")
    assert answer["outputs"][0]["by"].startswith("console uid ")


# --- without a daemon ---


@dataclass
class Bench:
    """Outputs on a journal, with a wire of the test's own."""

    outputs: Outputs
    journal: Journal
    wire: list[str] = field(default_factory=list)

    async def kinds(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [(record.kind, record.actor, record.body) for record in await self.journal.read(0, 100)]


@asynccontextmanager
async def bench(folder: Path, write: Callable[[OutputMeta, str], Any]) -> AsyncIterator[Bench]:
    async with Journal(folder / "journal.db", "gw1", (TABLE,)) as journal:

        async def commit(draft: Draft) -> list[Record]:
            return await journal.append([draft])

        yield Bench(Outputs([META], write, commit, journal), journal)


async def test_the_record_comes_after_the_wire_and_survives(tmp_path: Path):
    order: list[str] = []

    async def write(meta: OutputMeta, state: str) -> Answer:
        order.append(f"{meta.device} {meta.output} {state}: {len(await made.journal.read(0, 10))} records")
        return Answer(words=(1,), reply_ms=2.0)

    async with bench(tmp_path, write) as made:
        await made.outputs.set(SIREN, "on", "ladder of store.th1.humidity.high")
        assert order == ["store.relay siren on: 0 records"]
        assert await made.kinds() == [
            (
                "output.written",
                "gateway",
                {"output": SIREN, "state": "on", "by": "ladder of store.th1.humidity.high", "read_back": 1},
            )
        ]
        before = await made.journal.query(stored_outputs)
        await made.journal.write(lambda connection: rebuild(connection, TABLE))
        assert await made.journal.query(stored_outputs) == before
    async with bench(tmp_path, write) as made:
        assert [view["state"] for view in await made.outputs.views()] == ["on"], "known after a restart"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ReplyError("no_connection", "bus a: closed"), "no_connection"),
        (RefusedError("no_such_output", "store.relay has no output 'siren' on bus a"), "no_such_output"),
        (None, "timeout"),
    ],
)
async def test_a_failed_write_is_recorded(tmp_path: Path, monkeypatch, error: Exception | None, why: str):
    monkeypatch.setattr(outputs_module, "_WAIT_S", 0.05)

    async def write(*_: object) -> Answer:
        if error is not None:
            raise error
        return await asyncio.Future()

    async with bench(tmp_path, write) as made:
        with pytest.raises(OutputError) as caught:
            await made.outputs.set(SIREN, "on", "wang", "wang")
        assert caught.value.why == why
        assert caught.value.message.count("store.relay") == 1, "the device is named once"
        body = {"output": SIREN, "state": "on", "by": "wang", "why": why}
        assert await made.kinds() == [("output.failed", "wang", body)]


async def test_what_is_kept_in_a_state_is_written_each_time_and_recorded_when_it_changes(tmp_path: Path):
    written: list[str] = []
    broken: list[ReplyError] = []

    async def write(_: OutputMeta, state: str) -> Answer:
        written.append(state)
        if broken:
            raise broken[0]
        return Answer(words=(1,), reply_ms=2.0)

    async with bench(tmp_path, write) as made:
        for state in ("on", "on", "off", "off"):
            await made.outputs.keep(SIREN, state, "beacon")
        assert [(kind, body["state"]) for kind, _, body in await made.kinds()] == [
            ("output.written", "on"),
            ("output.written", "off"),
        ]
        await made.outputs.set(SIREN, "on", "wang", "wang")
        await made.outputs.keep(SIREN, "off", "beacon")
        assert len(await made.kinds()) == 4, "a person came between"
        for why in ("timeout", "timeout", "no_connection"):
            broken[:] = [ReplyError(why, f"bus a: {why}")]
            with pytest.raises(OutputError):
                await made.outputs.keep(SIREN, "off", "beacon")
        assert [body["why"] for kind, _, body in await made.kinds() if kind == "output.failed"] == [
            "timeout",
            "no_connection",
        ]
        broken.clear()
        await made.outputs.keep(SIREN, "off", "beacon")
        assert (await made.kinds())[-1][0] == "output.written", "that it works again is news"
        assert written == ["on", "on", "off", "off", "on", "off", "off", "off", "off", "off"]


async def test_writes_of_one_output_come_one_after_the_other(tmp_path: Path):
    running: list[str] = []
    held = asyncio.Event()

    async def write(_: OutputMeta, state: str) -> Answer:
        running.append(state)
        assert len(running) == 1, "two at once"
        await held.wait()
        running.remove(state)
        return Answer(words=(int(state == "on"),), reply_ms=1.0)

    async with bench(tmp_path, write) as made, asyncio.TaskGroup() as group:
        for state in ("on", "off", "on", "off"):
            group.create_task(made.outputs.set(SIREN, state, "t"), name=state)
        await asyncio.sleep(0)
        held.set()
        while len(await made.kinds()) < 4:
            await asyncio.sleep(0.01)
        assert [body["state"] for _, _, body in await made.kinds()] == ["on", "off", "on", "off"]


async def test_an_output_that_was_taken_out_is_refused(tmp_path: Path):
    async def write(*_: object) -> Answer:
        raise AssertionError

    async with bench(tmp_path, write) as made:
        made.outputs.change([])
        with pytest.raises(RefusedError, match="there is no output") as caught:
            await made.outputs.set(SIREN, "on", "t")
        assert caught.value.hint == "outputs of this site: none"
        assert await made.outputs.views() == []
        assert await made.kinds() == []
