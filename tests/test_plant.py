"""The simulated plant: its model as tables, its wires as a foreign client sees them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import struct
import termios
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from sitewarden.errors import ConfigError, PermanentError, RefusedError
from sitewarden.sensors.plant import PlantAddresses, PlantOptions, load_plant_options, run_plant
from sitewarden.sensors.plant_board import Board
from sitewarden.sensors.plant_devices import PLANT, TOWER, Image, SimPoint
from sitewarden.sensors.plant_model import DeviceMode, Plant, natural, walk
from sitewarden.sensors.plant_wire import answer, answer_write, crc16, take_frames
from sitewarden.sensors.profiles import load_catalogue
from sitewarden.tests.peers.ports import free_port

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
BOUND_S = 20.0


async def until(condition: Callable[[], Any], what: str, bound_s: float = BOUND_S) -> Any:
    """The first true answer of `condition` (sync or async)."""
    async with asyncio.timeout(bound_s):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return result
            await asyncio.sleep(0.02)
    raise AssertionError(what)


@asynccontextmanager
async def running(**changes: Any) -> AsyncIterator[PlantAddresses]:
    """A plant on free ports."""
    ready: asyncio.Future[PlantAddresses] = asyncio.get_running_loop().create_future()
    options = PlantOptions(**{"http_port": 0, "modbus_port": 0, "seed": 1, **changes})
    task = asyncio.create_task(run_plant(options, ready.set_result))
    try:
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED, timeout=BOUND_S)
        if task.done():
            await task
        yield ready.result()
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def api(plant: PlantAddresses) -> AsyncIterator[Callable[..., Any]]:
    """`await call(path)` gets, `await call(path, body)` posts; answers (status, body)."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{plant.http_port}") as session:

        async def call(path: str, body: object | None = None) -> tuple[int, Any]:
            async with session.get(path) if body is None else session.post(path, json=body) as response:
                return response.status, await response.json()

        yield call


@asynccontextmanager
async def tcp_client(plant: PlantAddresses, timeout_s: float = 5.0) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient("127.0.0.1", port=plant.modbus_port, timeout=timeout_s, retries=0)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


@asynccontextmanager
async def rtu_client(link: Path, timeout_s: float = 5.0) -> AsyncIterator[AsyncModbusSerialClient]:
    client = AsyncModbusSerialClient(str(link), framer=FramerType.RTU, baudrate=9600, timeout=timeout_s, retries=0)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


# --- the model ---------------------------------------------------------------------------------------------------


def all_points() -> list[Any]:
    return [pytest.param(p, id=f"{d.id}.{p.name}") for d in PLANT for p in d.points]


@pytest.mark.parametrize("point", all_points())
def test_no_point_can_cross_a_limit_by_itself(point: SimPoint) -> None:
    swing = point.wave + point.wander
    limits = point.limits
    assert all(point.normal + swing < limit for limit in (limits.hi, limits.hihi) if limit is not None)
    assert all(point.normal - swing > limit for limit in (limits.lo, limits.lolo) if limit is not None)
    assert point.low <= point.normal - swing
    assert point.normal + swing <= point.high
    assert all(point.low <= limit <= point.high for limit in limits.to_json().values() if limit is not None)


def test_walk_is_bounded_even_under_constant_extreme_noise() -> None:
    point = PLANT[0].points[0]
    at = 0.0
    for _ in range(10_000):
        at = walk(point, at, 1.0, 4.0)
        assert abs(at) <= point.wander
    assert at > 0.5 * point.wander, "it does move"


def test_natural_follows_the_wave() -> None:
    point = PLANT[0].points[0]
    assert natural(point, 0.0, 900.0, 3600.0, 0.0) == pytest.approx(point.normal + point.wave)
    assert natural(point, 0.0, 2700.0, 3600.0, 0.0) == pytest.approx(point.normal - point.wave)


def test_same_seed_same_values_and_values_move() -> None:
    first, second, other = Plant(seed=7), Plant(seed=7), Plant(seed=8)
    seen = set()
    for _ in range(300):
        for plant in (first, second, other):
            plant.step(1.0)
        seen.add(first.value("aux_store.th1.humidity"))
        assert first.to_json() == second.to_json()
    assert first.to_json() != other.to_json()
    assert len(seen) > 5


def test_hold_and_release_and_refusals() -> None:
    plant = Plant(seed=1)
    plant.hold("aux_store.th1.humidity", 82.0)
    plant.step(60.0)
    assert plant.value("aux_store.th1.humidity") == 82.0
    plant.hold("aux_store.th1.humidity", None)
    assert plant.value("aux_store.th1.humidity") < 75.0
    for point, value, reason in (
        ("aux_store.th1.nothing", 1.0, "no_such_point"),
        ("aux_store.th1.humidity", 100.1, "out_of_range"),
        ("aux_store.th1.humidity", -0.1, "out_of_range"),
        ("aux_store.th1.humidity", float("nan"), "out_of_range"),
    ):
        with pytest.raises(RefusedError) as refused:
            plant.hold(point, value)
        assert refused.value.reason == reason
    with pytest.raises(RefusedError) as refused:
        plant.set_mode("th9", DeviceMode.DEAD)
    assert refused.value.reason == "no_such_device"
    assert plant.device("th1") is plant.device("aux_store.th1")


def test_the_catalogue_of_the_demo() -> None:
    """The wires, units and points that the demo's site.toml counts on."""
    rows = [(d.id, d.wire.value, d.unit_id, tuple(p.name for p in d.points)) for d in PLANT]
    assert rows == [
        ("aux_store.th1", "rs485", 1, ("humidity", "temperature")),
        ("steaming.steamer1", "rs485", 2, ("pressure",)),
        ("hazmat_store.th2", "plant_tcp", 1, ("temperature", "humidity")),
        ("boiler_room.boiler1", "plant_tcp", 2, ("pressure",)),
        ("sewage_pit.gas4", "mqtt", 0, ("ch4", "o2", "h2s", "co")),
        ("sewage_pit.tower1", "plant_tcp", 3, ()),
    ]


# --- the tower ---------------------------------------------------------------------------------------------------

SIREN_ON, RED_FAST = bytes.fromhex("0600000001"), bytes.fromhex("0600010004")
DARK = {"siren": "off", "red": "off", "amber": "off", "green": "off"}


def test_the_tower_is_the_one_of_the_sites_profile(root: Path) -> None:
    profile = load_catalogue(root / "config" / "profiles")["stack_light"]
    wanted = {(o.name, o.address, o.table): {code: state for state, code in o.states} for o in profile.outputs}
    assert {(o.name, o.address, "holding"): dict(o.states) for o in TOWER} == wanted


@pytest.mark.parametrize(
    ("pdu", "expected"),
    [
        (SIREN_ON.hex(), SIREN_ON.hex()),
        (RED_FAST.hex(), RED_FAST.hex()),
        ("0600000004", "8603"),  # a siren does not flash
        ("0600010003", "8603"),
        ("0600040000", "8602"),
        ("06000000", "8603"),
    ],
)
def test_answer_write(pdu: str, expected: str) -> None:
    board = Board(outputs=TOWER, watchdog_s=15.0)
    assert answer_write(bytes.fromhex(pdu), board, obeys=True).hex() == expected
    assert (board.shown() == DARK) == expected.startswith("86")


def test_a_board_keeps_what_is_written_and_says_when_nobody_writes() -> None:
    board = Board(outputs=TOWER, watchdog_s=15.0)
    board.write(0, 1)
    board.write(1, 4)
    board.write(3, 1)
    board.step(14.9)
    shown = {"siren": "on", "red": "fast", "amber": "off", "green": "on"}
    assert (board.shown(), board.lost) == (shown, False)
    board.step(0.1)
    assert (board.shown(), board.lost) == ({**shown, "amber": "slow", "green": "off"}, True)
    assert board.codes == {0: 1, 1: 4, 2: 0, 3: 1}, "its registers still hold what was written"
    board.write(9, 1)
    board.write(1, 3)
    assert board.lost, "what it refuses is no sign of life"
    board.write(0, 0, obeys=False)
    assert (board.shown(), board.lost) == (shown, False), "stuck: confirmed, and not done"
    board.write(0, 0)
    assert board.shown() == {**shown, "siren": "off"}


# --- frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pdu", "expected"),
    [
        ("0300000002", "0304024600f1"),
        ("0300000001", "03020246"),
        ("0400000001", "8402"),
        ("0300000003", "8302"),
        ("0300000000", "8303"),
        ("030000007e", "8303"),
        ("03000000", "8303"),
        ("0600000001", "8601"),
        ("0100000001", "8101"),
    ],
)
def test_answer(pdu: str, expected: str) -> None:
    image = Image(holding={0: 582, 1: 241})
    assert answer(bytes.fromhex(pdu), image).hex() == expected


def test_crc_of_the_specification() -> None:
    """Modbus over Serial Line V1.02, appendix B: 02 07 has CRC 41 12."""
    assert crc16(bytes.fromhex("0207")).hex() == "4112"


REQUEST = bytes.fromhex("010300000002c40b")
WRITE_MANY = bytes.fromhex("011000000001020064")
WRITE_MANY += crc16(WRITE_MANY)


@pytest.mark.parametrize(
    ("buffer", "frames", "rest"),
    [
        (REQUEST, [REQUEST], b""),
        (REQUEST + REQUEST, [REQUEST, REQUEST], b""),
        (REQUEST[:5], [], REQUEST[:5]),
        (b"\xff\x00" + REQUEST, [REQUEST], b""),
        (REQUEST[:4] + REQUEST, [REQUEST], b""),
        (REQUEST[:-1] + b"\x00", [], REQUEST[:-1] + b"\x00"),
        (WRITE_MANY + REQUEST, [WRITE_MANY, REQUEST], b""),
        (b"", [], b""),
    ],
)
def test_take_frames(buffer: bytes, frames: list[bytes], rest: bytes) -> None:
    assert take_frames(buffer) == (frames, rest)


def test_take_frames_forgets_endless_noise() -> None:
    frames, rest = take_frames(bytes(100_000))
    assert frames == []
    assert len(rest) <= 256


# --- Modbus TCP --------------------------------------------------------------------------------------------------


async def test_tcp_units_hold_what_the_page_says() -> None:
    async with running() as plant, api(plant) as call, tcp_client(plant) as client:
        await call("/api/points/hazmat_store.th2.temperature", {"value": -5.5})
        await call("/api/points/hazmat_store.th2.humidity", {"value": 50.1})
        await call("/api/points/boiler_room.boiler1.pressure", {"value": 0.801})
        th2 = await client.read_input_registers(1, count=2, device_id=1)
        assert th2.registers == [65536 - 55, 501]
        boiler = await client.read_holding_registers(0x16, count=2, device_id=2)
        assert struct.unpack(">f", struct.pack(">HH", *boiler.registers))[0] == pytest.approx(0.801)
        wrong_table = await client.read_holding_registers(1, count=2, device_id=1)
        assert wrong_table.exception_code == 2
        nobody = await client.read_input_registers(1, count=2, device_id=9)
        assert nobody.exception_code == 11


async def test_tcp_dead_and_late_units_do_not_disturb_their_neighbour() -> None:
    async with running() as plant, api(plant) as call, tcp_client(plant, 0.4) as client:
        assert (await call("/api/devices/th2", {"mode": "dead"}))[0] == 200
        with pytest.raises(ModbusException):
            await client.read_input_registers(1, count=2, device_id=1)
        assert not (await client.read_holding_registers(0x16, count=2, device_id=2)).isError()
        await call("/api/devices/th2", {"mode": "ok"})
        assert not (await client.read_input_registers(1, count=2, device_id=1)).isError()

        await call("/api/devices/hazmat_store.th2", {"mode": "late", "late_s": 0.3})
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with tcp_client(plant) as patient:
            assert not (await patient.read_input_registers(1, count=2, device_id=1)).isError()
        assert loop.time() - began >= 0.29


async def test_tcp_the_tower_is_written_read_back_and_shown() -> None:
    async with running() as plant, api(plant) as call, tcp_client(plant, 0.4) as client:
        assert await _shown(call) == DARK
        assert not (await client.write_register(0, 1, device_id=3)).isError()
        assert not (await client.write_register(1, 4, device_id=3)).isError()
        assert (await client.read_holding_registers(0, count=4, device_id=3)).registers == [1, 4, 0, 0]
        assert await _shown(call) == {**DARK, "siren": "on", "red": "fast"}
        assert (await client.write_register(1, 3, device_id=3)).exception_code == 3
        assert (await client.write_register(4, 1, device_id=3)).exception_code == 2
        assert (await client.write_register(0x16, 1, device_id=2)).exception_code == 1, "a transmitter takes no writes"


async def test_tcp_a_tower_that_is_stuck_or_deaf() -> None:
    async with running() as plant, api(plant) as call, tcp_client(plant, 0.4) as client:
        assert (await call("/api/devices/tower1", {"mode": "stuck"}))[0] == 200
        assert not (await client.write_register(0, 1, device_id=3)).isError(), "it confirms"
        assert (await client.read_holding_registers(0, count=1, device_id=3)).registers == [0]
        await call("/api/devices/tower1", {"mode": "deaf"})
        with pytest.raises(ModbusException):
            await client.write_register(0, 1, device_id=3)
        assert (await client.read_holding_registers(0, count=1, device_id=3)).registers == [0], "it still answers reads"
        await call("/api/devices/tower1", {"mode": "ok"})
        assert not (await client.write_register(0, 1, device_id=3)).isError()
        assert await _shown(call) == {**DARK, "siren": "on"}


async def test_the_tower_lights_amber_when_nobody_writes() -> None:
    async with running(step_s=0.01) as plant, api(plant) as call, tcp_client(plant) as client:
        await client.write_register(3, 1, device_id=3)
        assert await _shown(call) == {**DARK, "green": "on"}

        async def amber() -> bool:
            return await _shown(call) == {**DARK, "amber": "slow"}

        await until(amber, "amber", bound_s=60.0)
        await client.write_register(3, 1, device_id=3)
        assert await _shown(call) == {**DARK, "green": "on"}


async def _shown(call: Callable[..., Any]) -> dict[str, str]:
    _, body = await call("/api/points")
    (tower,) = [device for device in body["devices"] if device["outputs"]]
    assert (tower["id"], tower["modes"]) == ("sewage_pit.tower1", ["ok", "dead", "late", "deaf", "stuck"])
    return {output["id"]: output["state"] for output in tower["outputs"]}


async def test_tcp_garbage_closes_only_its_own_connection() -> None:
    async with running() as plant, tcp_client(plant) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", plant.modbus_port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), BOUND_S) == b""
        writer.close()
        assert not (await client.read_input_registers(1, count=2, device_id=1)).isError()


# --- Modbus RTU on the pty ---------------------------------------------------------------------------------------


async def test_rtu_units_and_a_reader_that_comes_back(tmp_path: Path) -> None:
    link = tmp_path / "rs485"
    async with running(serial_link=link) as plant, api(plant) as call:
        await call("/api/points/aux_store.th1.humidity", {"value": 82.0})
        await call("/api/points/aux_store.th1.temperature", {"value": -1.5})
        await call("/api/points/steaming.steamer1.pressure", {"value": 0.351})
        for _ in range(3):
            async with rtu_client(link) as client:
                th1 = await client.read_holding_registers(0, count=2, device_id=1)
                assert th1.registers == [820, 65536 - 15]
                steamer = await client.read_holding_registers(2, count=3, device_id=2)
                assert steamer.registers == [0, 3, 351]
                assert (await client.read_holding_registers(2, count=3, device_id=1)).exception_code == 2
    assert not link.is_symlink(), "the link goes away with the plant"


async def test_rtu_unknown_and_dead_units_are_silent(tmp_path: Path) -> None:
    link = tmp_path / "rs485"
    async with running(serial_link=link) as plant, api(plant) as call, rtu_client(link, 0.3) as client:
        with pytest.raises(ModbusException):
            await client.read_holding_registers(0, count=2, device_id=7)
        await call("/api/devices/th1", {"mode": "dead"})
        with pytest.raises(ModbusException):
            await client.read_holding_registers(0, count=2, device_id=1)
        steamer = await client.read_holding_registers(4, count=1, device_id=2)
        assert 310 <= steamer.registers[0] <= 390


async def test_rtu_request_in_pieces_after_noise_and_an_unknown_function(tmp_path: Path) -> None:
    link = tmp_path / "rs485"
    async with running(serial_link=link):
        line = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(line, termios.TCSANOW)
            os.write(line, b"\xff\x13\x00" + REQUEST[:3])
            await asyncio.sleep(0.005)
            os.write(line, REQUEST[3:])
            reply = await _read_line(line, 9)
            assert reply[:3] == bytes((1, 3, 4))
            assert crc16(reply[:-2]) == reply[-2:]
            body = bytes((1, 0x2B, 0x0E, 0x01, 0x00))
            os.write(line, body + crc16(body))
            assert (await _read_line(line, 5))[:3] == bytes((1, 0xAB, 1))
        finally:
            os.close(line)


async def _read_line(line: int, count: int) -> bytes:
    got = b""

    def more() -> bool:
        nonlocal got
        try:
            got += os.read(line, 256)
        except BlockingIOError:
            pass
        return len(got) >= count

    await until(more, "the reply")
    assert len(got) == count
    return got


async def test_rtu_nobody_reads_and_the_plant_goes_on(tmp_path: Path) -> None:
    """Answers that nobody reads fill the line; the plant neither blocks nor dies."""
    link = tmp_path / "rs485"
    async with running(serial_link=link) as plant, api(plant) as call:
        line = os.open(link, os.O_RDWR | os.O_NOCTTY)
        try:
            body = bytes((2, 3, 0, 0, 0, 7))
            request = body + crc16(body)
            for sent in range(400, 8001, 400):  # 8,000 answers of 19 bytes: more than the kernel keeps for a reader
                os.write(line, 400 * request)
                await until(lambda sent=sent: _requests(call, "steaming.steamer1", sent), "the requests")
        finally:
            os.close(line)
        async with rtu_client(link) as client:
            assert not (await client.read_holding_registers(0, count=2, device_id=1)).isError()


async def _requests(call: Callable[..., Any], device: str, at_least: int) -> bool:
    _, body = await call("/api/points")
    return next(d["requests"] for d in body["devices"] if d["id"] == device) >= at_least


async def test_rtu_link_replaces_an_old_link_but_never_a_file(tmp_path: Path) -> None:
    link = tmp_path / "rs485"
    link.symlink_to("/dev/pts/gone")
    async with running(serial_link=link):
        assert link.readlink().exists()
    link.write_text("mine")
    with pytest.raises(PermanentError, match="not a symlink"):
        async with running(serial_link=link):
            pass
    assert link.read_text() == "mine"


# --- the page and its API ----------------------------------------------------------------------------------------


async def test_api_lists_holds_releases_and_refuses() -> None:
    async with running() as plant, api(plant) as call:
        _, body = await call("/api/points")
        ids = [point["id"] for point in body["points"]]
        assert len(ids) == 10
        assert body["points"][0]["limits"] == {"lolo": None, "lo": None, "hi": 75.0, "hihi": 85.0}
        status, body = await call("/api/points/aux_store.th1.humidity", {"value": 82})
        assert (status, body["points"][0]["value"], body["points"][0]["held"]) == (200, 82.0, 82.0)
        _, body = await call("/api/points/aux_store.th1.humidity", {"value": None})
        assert body["points"][0]["held"] is None
        assert body["points"][0]["value"] < 75
        for path, sent, status, reason in (
            ("/api/points/nope", {"value": 1}, 404, "no_such_point"),
            ("/api/points/aux_store.th1.humidity", {"value": 101}, 400, "out_of_range"),
            ("/api/points/aux_store.th1.humidity", {"value": "82"}, 400, "bad_request"),
            ("/api/points/aux_store.th1.humidity", {"value": True}, 400, "bad_request"),
            ("/api/points/aux_store.th1.humidity", {}, 400, "bad_request"),
            ("/api/points/aux_store.th1.humidity", [1], 400, "bad_request"),
            ("/api/devices/nope", {"mode": "ok"}, 404, "no_such_device"),
            ("/api/devices/th1", {"mode": "drunk"}, 400, "bad_request"),
            ("/api/devices/th1", {"mode": "late", "late_s": -1}, 400, "out_of_range"),
            ("/api/devices/th1", {"mode": "stuck"}, 400, "no_board"),
        ):
            got, answered = await call(path, sent)
            assert (got, answered["error"]["reason"]) == (status, reason), (path, sent)


async def test_page_is_self_contained_and_a_form_post_changes_nothing() -> None:
    async with running() as plant, aiohttp.ClientSession(f"http://127.0.0.1:{plant.http_port}") as session:
        async with session.get("/") as response:
            page = await response.text()
            assert response.status == 200
        assert "模拟工厂" in page
        assert "Simulated plant" in page
        assert "http://" not in page
        assert "https://" not in page
        async with session.post("/api/points/aux_store.th1.humidity", data='{"value": 90}') as response:
            assert response.status == 415


async def test_a_taken_port_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PermanentError, match="plant"):
            async with running(modbus_port=taken.getsockname()[1]):
                pass


def test_options_file(tmp_path: Path) -> None:
    path = tmp_path / "plant.json"
    options = PlantOptions(serial_link=tmp_path / "rs485", mqtt_url="mqtt://127.0.0.1:1883", seed=3)
    path.write_text(json.dumps(options.to_json()))
    assert load_plant_options(path) == options
    path.write_text('{"http_port": "x", "colour": 1}')
    with pytest.raises(ConfigError) as error:
        load_plant_options(path)
    assert len(error.value.problems) == 2
    with pytest.raises(ConfigError, match="cannot be read"):
        load_plant_options(tmp_path / "none.json")


# --- MQTT over a real broker -------------------------------------------------------------------------------------


@asynccontextmanager
async def mosquitto(folder: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    assert MOSQUITTO is not None
    conf = folder / "mosquitto.conf"
    owner = "user root\n" if os.geteuid() == 0 else ""
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{owner}")
    process = await asyncio.create_subprocess_exec(MOSQUITTO, "-c", conf, stderr=asyncio.subprocess.DEVNULL)
    try:
        await until(lambda: _answers(port), "mosquitto listens")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _next_payload(port: int) -> dict[str, Any]:
    async with aiomqtt.Client("127.0.0.1", port, timeout=10) as client:
        await client.subscribe("devices/#")
        async for message in client.messages:
            assert str(message.topic) == "devices/gas4"
            assert not message.retain
            assert isinstance(message.payload, bytes)
            return json.loads(message.payload)
    raise AssertionError("no message")


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
async def test_mqtt_device_publishes_survives_the_broker_and_can_die(tmp_path: Path) -> None:
    port = free_port()
    async with running(mqtt_url=f"mqtt://127.0.0.1:{port}", publish_s=0.1) as plant, api(plant) as call:
        async with mosquitto(tmp_path, port):  # comes up after the plant
            payload = await asyncio.wait_for(_next_payload(port), BOUND_S)
            assert payload.pop("status") == "ok"
            assert payload.keys() == {"ch4", "o2", "h2s", "co"}
            assert payload["o2"] == pytest.approx(20.9, abs=0.2)
        async with mosquitto(tmp_path, port):  # and again after it was killed
            await call("/api/points/sewage_pit.gas4.h2s", {"value": 12.5})
            payload = await asyncio.wait_for(_next_payload(port), BOUND_S)
            assert payload["h2s"] == 12.5
            await call("/api/devices/gas4", {"mode": "dead"})
            await _falls_silent(call)
            await call("/api/devices/gas4", {"mode": "ok"})
            await asyncio.wait_for(_next_payload(port), BOUND_S)


async def _falls_silent(call: Callable[..., Any]) -> None:
    """At 10 messages a second, half a second without one is silence."""

    async def sent() -> int:
        _, body = await call("/api/points")
        return next(d["requests"] for d in body["devices"] if d["id"] == "sewage_pit.gas4")

    async def silent() -> bool:
        before = await sent()
        await asyncio.sleep(0.5)
        return await sent() == before

    await until(silent, "no more messages")
