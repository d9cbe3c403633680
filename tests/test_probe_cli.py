"""`sitewarden probe` as a process of its own, on the simulated plant's real sockets and pseudo-terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sitewarden.edge.site import load_site
from sitewarden.sensors.plant_devices import Wire
from sitewarden.sensors.plant_model import DeviceMode, Plant
from sitewarden.sensors.plant_wire import ModbusTcpServer, RtuSlave, crc16, reply_to, take_frames

BOUND_S = 60.0
Eventually = Callable[..., Awaitable[object]]

SITE = """[site]
id = "plant"
name = "厂"
name_en = "Plant"
[gateway]
id = "gw1"
[web]
port = {port}
[[area]]
id = "store"
name = "库"
name_en = "Store"
"""
PEOPLE = "id,name,name_en,roles,areas,phone\np_li,李伟,,keeper,*,\np_wang,王芳,,officer,*,\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(slots=True, kw_only=True)
class Bench:
    """A plant on free ports, and a folder from where the commands run."""

    plant: Plant
    folder: Path
    tcp: str
    rtu_tcp: str
    serial: str

    def environment(self, **more: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if k not in ("LC_ALL", "LC_MESSAGES", "LANG", "STATE_DIRECTORY")}
        return {**clean, "LANG": "en_GB.UTF-8", "PYTHONUTF8": "1", **more}

    async def start(self, *arguments: object, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sitewarden",
            *map(str, arguments),
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: object, **environment: str) -> Said:
        process = await self.start(*arguments, **environment)
        try:
            async with asyncio.timeout(BOUND_S):
                out, err = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        return Said(code=process.returncode or 0, out=out.decode(), err=err.decode())

    def site(self, lines: str, *, port: int = 8080) -> Path:
        (self.folder / "people.csv").write_text(PEOPLE, "utf-8")
        (self.folder / "site.toml").write_text(f"{SITE.format(port=port)}\n{lines}\n", "utf-8")
        return self.folder / "site.toml"


@asynccontextmanager
async def converter(plant: Plant) -> AsyncIterator[str]:
    """A transparent serial-to-Ethernet converter before the plant's RS-485 units."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = b""
        with suppress(OSError):
            while data := await reader.read(256):
                frames, buffer = take_frames(buffer + data)
                for frame in frames:
                    reply = reply_to(plant.units(Wire.RS485).get(frame[0]), frame[1:-2], plant)
                    if reply is not None:
                        writer.write(frame[:1] + reply + crc16(frame[:1] + reply))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.fixture
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    plant, folder = Plant(seed=1), tmp_path_factory.mktemp("b")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ModbusTcpServer(plant, "127.0.0.1", 0))
        await stack.enter_async_context(RtuSlave(plant, folder / "rs485"))
        rtu_tcp = await stack.enter_async_context(converter(plant))
        tcp = f"127.0.0.1:{server.port}"
        yield Bench(plant=plant, folder=folder, tcp=tcp, rtu_tcp=rtu_tcp, serial=str(folder / "rs485"))


# --- scan ---


async def test_a_scan_names_devices_and_writes_a_good_site(bench: Bench):
    said = await bench.run("probe", "scan", "--tcp", bench.tcp, "--area", "store")
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0] == f"alone: {bench.tcp} tcp"
    assert "unit 1 answers (Modbus exception 2: illegal data address)" in lines
    assert any(line.startswith("  * 100 %  xy_md02  XY-MD02") for line in lines)
    assert any(line.startswith("  * 100 %  pressure_f32") for line in lines)
    humidity = bench.plant.value("hazmat_store.th2.humidity")
    assert any(line.split() == ["湿度", "humidity", f"{humidity:.1f}", "%RH"] for line in lines)
    assert "Only 21 usual unit ids were asked; --units 0-255 asks all." in lines
    site = load_site(bench.site(said.out.partition("To be added to site.toml:\n")[2]))
    assert [(unit.device, unit.unit_id) for unit in site.buses[0].units] == [
        ("store.net_unit1", 1),
        ("store.net_unit2", 2),
    ]
    assert f"{site.buses[0].host}:{site.buses[0].port}" == bench.tcp


@pytest.mark.parametrize("wire", ["serial", "rtu_tcp"])
async def test_a_scan_of_a_serial_line_for_programs(bench: Bench, wire: str):
    place, lines = getattr(bench, wire), bench.folder / "found.toml"
    option = f"--{wire.replace('_', '-')}"
    said = await bench.run(
        "probe", "scan", option, place, "--units", "3,1-2", "--timeout-ms", 150, "--json", "--write", lines
    )
    assert said.code == 0, said
    found = json.loads(said.out)
    units = {one["unit_id"]: one["profile"] for one in found["units"]}
    assert units == {1: "rs_ws_n01", 2: "pressure_transmitter"}
    assert {one["line"] for one in found["units"]} == ({"9600 8N1"} if wire == "serial" else {None})
    assert found["ended"] is True
    assert found["advice"]["timeout_ms"] >= 100
    assert "unit 1 answers (holding 0 = " in said.err
    assert lines.read_text("utf-8").rstrip() == found["snippet"].rstrip()
    made = load_site(bench.site(lines.read_text("utf-8").replace("change_me", "store"))).buses[0]
    assert (made.serial or f"{made.host}:{made.port}") == place


async def test_settings_that_are_not_named_are_tried_in_turn(bench: Bench):
    for device in ("th1", "steamer1"):
        bench.plant.set_mode(device, DeviceMode.DEAD)
    options = ("--serial", bench.serial, "--units", "1-2", "--timeout-ms", 40, "--parity", "N,E", "--baud", "9600,4800")
    said = await bench.run("probe", "scan", *options)
    assert said.code == 1
    asked = [line.split(":")[0] for line in said.out.splitlines() if line.startswith("asking")]
    assert asked == ["asking 9600 8N1", "asking 4800 8N1", "asking 9600 8E1", "asking 4800 8E1"]
    assert "the port cannot be set to 9600 8E1: " in said.out  # a pseudo-terminal has no parity
    assert "No unit answered.\nCheck A and B (swapped?), power" in said.out


async def test_a_site_lends_its_areas_ids_and_devices(bench: Bench):
    taken = """
        [[bus]]
        id = "net"
        kind = "tcp"
        host = "10.0.0.9"
        port = 502
        [[device]]
        id = "net_2_unit1"
        area = "store"
        bus = "net"
        unit_id = 1
        profile = "xy_md02"
    """
    config = bench.site(taken)
    said = await bench.run("probe", "scan", "--tcp", bench.tcp, "--config", config, "--units", "1-2")
    assert said.code == 0, said
    site = load_site(bench.site(taken + said.out.partition("To be added to site.toml:\n")[2]))
    assert [bus.id for bus in site.buses] == ["net", "net_2"]
    assert [unit.device for unit in site.buses[1].units] == ["store.net_2_unit1_2", "store.net_2_unit2"]


async def test_a_wire_without_devices_says_what_to_check(bench: Bench):
    said = await bench.run("probe", "scan", "--tcp", bench.tcp, "--units", "7-9")
    assert said.code == 1
    assert "No unit answered.\nConnected, but no unit answers. Check the unit id (--units 0-255)" in said.out
    assert "site.toml" not in said.out


async def test_nobody_at_the_address(bench: Bench, free_port: Callable[[], int]):
    port = free_port()
    said = await bench.run("probe", "scan", "--tcp", f"127.0.0.1:{port}")
    assert said.code == 1
    assert said.err == (
        f"sitewarden: 127.0.0.1:{port}: the connection was refused"
        " (nothing listens on this port: Modbus TCP is 502 by default)\n"
    )


async def test_a_file_that_exists_is_not_overwritten(bench: Bench):
    config = bench.site("")
    before = config.read_text("utf-8")
    said = await bench.run("probe", "scan", "--tcp", bench.tcp, "--write", config)
    assert (said.code, config.read_text("utf-8")) == (1, before)
    assert "exists already" in said.err


async def test_ctrl_c_leaves_what_was_found(bench: Bench):
    process = await bench.start("probe", "scan", "--serial", bench.serial, "--units", "1-247", "--timeout-ms", 500)
    try:
        assert process.stdout is not None
        seen = b""
        async with asyncio.timeout(BOUND_S):
            while b"pressure_transmitter" not in seen:
                line = await process.stdout.readline()
                assert line, seen
                seen += line
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 130
    assert "interrupted; found so far:" in err.decode()
    text = (seen + out).decode()
    assert text.count("* 100 %  rs_ws_n01") == 1
    assert 'profile = "rs_ws_n01"' in text.partition("To be added to site.toml:")[2]


async def test_a_wire_that_goes_leaves_what_was_found(bench: Bench):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Unit 1 refuses everything, then nobody is there any more."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while (packet := await reader.readexactly(12))[6] == 1:
                writer.write(packet[:4] + b"\0\3\1" + bytes((packet[7] | 0x80, 2)))
        server.close()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    said = await bench.run("probe", "scan", "--tcp", place, "--units", "1-9")
    assert said.code == 1
    assert "interrupted; found so far:" in said.err
    assert f"sitewarden: {place}: " in said.err
    assert "# unit 1 answers, but fits no profile" in said.out


async def test_a_terminal_shows_a_bar_with_the_lines_above_it(bench: Bench):
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sitewarden", "probe", "scan", "--tcp", bench.tcp, "--units", "1-9"),
        cwd=bench.folder,
        env=bench.environment(COLUMNS="100"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        async with asyncio.timeout(BOUND_S):
            while data := await asyncio.to_thread(_read_or_end, master):
                seen += data
            await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        os.close(master)
    text = seen.decode()
    assert process.returncode == 0
    assert "[########################] 9/9  elapsed 0:0" in text
    assert "\runit 1 answers (Modbus exception 2: illegal data address)\r\n" in text


def _read_or_end(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # Linux: the last process has closed the terminal
        return b""


# --- read ---


async def test_a_read_shows_every_interpretation(bench: Bench):
    said = await bench.run("probe", "read", "--tcp", bench.tcp, "--unit", 2, "--holding", "0x16")
    assert said.code == 0, said
    assert "the device refuses to read 4; 2 were read" in said.out
    pressure = bench.plant.value("boiler_room.boiler1.pressure")
    rows = [line.split() for line in said.out.splitlines()]
    assert ["22–23", "big", "ABCD", f"{pressure:.7g}"] in [row[:4] for row in rows]
    assert any(row[:2] == ["22", "0x0016"] for row in rows)


async def test_a_register_number_of_a_manual_is_translated(bench: Bench):
    said = await bench.run("probe", "read", "--serial", bench.serial, "--unit", 2, "--register", 40005, "--json")
    assert said.code == 0, said
    assert "register 40005 is holding address 4" in said.err
    found = json.loads(said.out)
    assert found["words"][0]["address"] == 4
    assert found["words"][0]["u16"] == round(bench.plant.value("steaming.steamer1.pressure") * 1000)


async def test_an_address_that_looks_like_a_register_number_is_remarked(bench: Bench):
    said = await bench.run("probe", "read", "--tcp", bench.tcp, "--unit", 2, "--holding", 40003)
    assert said.code == 1
    assert "say --register 40003" in said.err
    assert "Modbus exception 2: illegal data address (the device has no such address)" in said.err


async def test_the_locale_or_an_option_picks_chinese(bench: Bench):
    wire = ("--tcp", bench.tcp, "--unit", 2, "--holding", 0)
    assert "半字节" in (await bench.run("probe", "read", *wire, LANG="zh_CN.UTF-8")).out
    assert "半字节" in (await bench.run("probe", "read", *wire, "--lang", "zh")).out
    assert "nibbles" in (await bench.run("probe", "read", *wire, "--lang", "en", LANG="zh_CN.UTF-8")).out


async def test_a_unit_that_is_not_there(bench: Bench):
    options = ("--serial", bench.serial, "--unit", 9, "--holding", 0, "--timeout-ms", 100)
    said = await bench.run("probe", "read", *options)
    assert said.code == 1
    assert "no reply within 100 ms (is the unit id right? `sitewarden probe scan` finds who is there)" in said.err


async def test_a_port_that_somebody_uses(bench: Bench):
    with Path(bench.serial).open("r+b", buffering=0) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = await bench.run("probe", "read", "--serial", bench.serial, "--unit", 1, "--holding", 0)
    assert said.code == 1
    assert f"{bench.serial}: is in use by " in said.err


# --- watch ---


async def test_a_watch_of_a_profile_sums_up(bench: Bench):
    options = ("--profile", "rs_ws_n01", "--every", 0, "--times", 3)
    said = await bench.run("probe", "watch", "--serial", bench.serial, "--unit", 1, *options)
    assert said.code == 0, said
    humidity = bench.plant.value("aux_store.th1.humidity")
    lines = said.out.splitlines()
    assert [line.split(":")[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert all(f"humidity {humidity:.1f} %RH" in line for line in lines[1:4])
    assert lines[4].startswith("requests 3, reply ")
    assert lines[4].endswith("errors 0.0 %")
    assert lines[5].startswith("for site.toml: timeout_ms = ")


async def test_a_late_device_is_missed_or_waited_for(bench: Bench):
    bench.plant.set_mode("th1", DeviceMode.LATE, 0.6)
    wire = ("--serial", bench.serial, "--unit", 1, "--holding", 0, "--type", "u16", "--every", 0, "--times", 2)
    said = await bench.run("probe", "watch", *wire, "--timeout-ms", 50, "--json")
    assert said.code == 1
    summary = json.loads(said.out.splitlines()[-1])
    assert summary["summary"]["failures"] == {"timeout": 2}
    assert summary["advice"] is None
    said = await bench.run("probe", "watch", *wire, "--long", "--json")
    assert said.code == 0, said
    *rounds, summary = map(json.loads, said.out.splitlines())
    assert [one["blocks"][0]["words"] for one in rounds] == [[rounds[0]["blocks"][0]["values"]["0"]]] * 2
    assert summary["summary"]["max_ms"] >= 590
    assert summary["advice"]["late_max_ms"] >= 900


# --- plan ---


async def test_the_plan_of_the_example(bench: Bench, root: Path):
    config = root / "config" / "site.toml"
    said = await bench.run("probe", "plan", "--config", config)
    assert said.code == 0, said
    assert "  steaming.steamer1: unit 2, pressure_transmitter, every 2 s, max_gap 0, max_count 125\n" in said.out
    assert "FC03 holding  2 0x0002      3      6       3      0     27.1  pressure" in said.out
    assert "load of the bus: 2.6 %" in said.out
    assert (await bench.run("probe", "--plan", "--config", config)).out == said.out
    one = await bench.run("probe", "--plan", "--config", config, "--device", "hazmat_store.th2", "--json")
    (bus,) = json.loads(one.out)
    assert [(d["device"], len(d["reads"])) for d in bus["devices"]] == [("hazmat_store.th2", 1)]


async def test_a_device_that_the_site_does_not_have(bench: Bench, root: Path):
    said = await bench.run("probe", "plan", "--config", root / "config" / "site.toml", "--device", "a.b")
    assert said.code == 1
    assert "has no Modbus device 'a.b' (known: aux_store.th1, " in said.err


# --- wrong usage ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scan",), "name one wire: --tcp, --rtu-tcp, --serial or --bus"),
        (("scan", "--tcp", "h", "--serial", "s"), "name one wire"),
        (("scan", "--rtu-tcp", "host"), "a wire is HOST:PORT (got 'host')"),
        (("scan", "--tcp", "host:70000"), "a wire is HOST or HOST:PORT"),
        (("scan", "--tcp", "host", "--units", "300"), "numbers 0..255, the smaller first (got '300')"),
        (("scan", "--tcp", "host", "--baud", "9600"), "--baud belongs to --serial"),
        (("scan", "--serial", "s", "--units", "0"), "numbers 1..247"),
        (("scan", "--serial", "s", "--baud", "fast"), "rates such as 9600,4800"),
        (("scan", "--serial", "s", "--parity", "X"), "N, E and O, or auto"),
        (("read", "--tcp", "host", "--unit", "1"), "name one place: --holding"),
        (("read", "--tcp", "host", "--unit", "1", "--holding", "0", "--coil", "0"), "name one place: --holding"),
        (("read", "--tcp", "host", "--unit", "1", "--holding", "70000"), "an address is 0..65535"),
        (("read", "--tcp", "host", "--unit", "1", "--register", "7"), "a register number has 5 or 6 digits"),
        (("read", "--tcp", "host", "--unit", "1", "--holding", "65535", "--count", "2"), "2 from 65535 leave 0..65535"),
        (("watch", "--tcp", "host", "--unit", "1", "--holding", "0", "--type", "u8"), "--type u16, i16,"),
    ],
)
async def test_wrong_usage_is_explained(bench: Bench, arguments: tuple[str, ...], message: str):
    said = await bench.run("probe", *arguments)
    assert said.code == 2
    assert message in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scan",), "错误：请指明一条线：--tcp、--rtu-tcp、--serial 或 --bus"),
        (("scan", "--rtu-tcp", "host"), "错误：线应写成 HOST:PORT（现为 'host'）"),
        (("scan", "--tcp", "host", "--units", "300"), "错误：--units 的值无效：数字 0..255，小的在前（现为 '300'）"),
        (("read", "--tcp", "host", "--unit", "1", "--register", "7"), "错误：寄存器号为 5 或 6 位"),
        (("read", "--tcp", "host", "--unit", "x"), "错误：--unit 的值无效：x 不是整数"),
        (("read", "--tcp", "host"), "错误：缺少选项 --unit"),
        (("wacth",), "错误：没有命令 wacth；是不是“watch”？"),
    ],
)
async def test_wrong_usage_is_explained_in_chinese(bench: Bench, arguments: tuple[str, ...], message: str):
    said = await bench.run("probe", *arguments, LANG="zh_CN.UTF-8")
    assert said.code == 2
    assert message in said.err
    assert "用法：" in said.err
    assert "Usage" not in said.err


async def test_what_is_wrong_is_said_in_the_language_that_was_asked_for(bench: Bench, free_port: Callable[[], int]):
    wire = ("--tcp", f"127.0.0.1:{free_port()}", "--unit", 1, "--holding", 0)
    said = await bench.run("probe", "read", *wire, "--lang", "zh")
    assert said.code == 1
    assert said.err.endswith("连接被拒绝（该端口无人监听：Modbus TCP 默认为 502）\n")
    said = await bench.run("probe", "read", "--serial", bench.folder / "nope", "--unit", 1, "--holding", 0, "--lang=zh")
    assert f"sitewarden：{bench.folder / 'nope'}：没有这个串口（" in said.err
    options = ("--tcp", bench.tcp, "--unit", 2, "--holding", 40003)
    said = await bench.run("probe", "read", *options, LANG="zh_CN.UTF-8")
    assert "sitewarden：站号 2：Modbus 异常 2：没有这个地址（设备没有这个地址）\n" in said.err
    config = bench.site("x = 1")
    said = await bench.run("probe", "plan", "--config", config, LANG="zh_CN.UTF-8")
    assert said.code == 1
    head, *problems, last = said.err.splitlines()
    assert head == f"sitewarden：{config}：{len(problems)} 个问题（说明为英文）"
    assert last == f"什么都没有改动。改正后再检查：sitewarden check {config}"


async def test_a_unit_behind_a_converter_that_is_silent(bench: Bench):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A gateway whose serial side answers nothing: exception 11."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while packet := await reader.readexactly(12):
                writer.write(packet[:4] + b"\0\3" + packet[6:7] + bytes((packet[7] | 0x80, 11)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = ("--tcp", f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "--unit", 1, "--holding", 0)
    for lang, wanted in (
        ("en", "unit 1: Modbus exception 11: gateway target device failed to respond (the converter is there"),
        ("zh", "站号 1：Modbus 异常 11：网关后的设备无响应（转换器（网关）在，但它后面的设备没有应答"),
    ):
        said = await bench.run("probe", "read", *wire, "--lang", lang)
        assert wanted in said.err
    server.close()


async def test_names_that_nobody_has_are_answered_with_those_that_there_are(bench: Bench, root: Path):
    config = root / "config" / "site.toml"
    read = ("--config", config, "--unit", 1, "--holding", 0)
    said = await bench.run("probe", "read", "--bus", "rs458", *read)
    assert "has no bus 'rs458' with devices; did you mean \"rs485\"? (its buses: rs485, plant_tcp)" in said.err
    said = await bench.run("probe", "plan", "--config", config, "--device", "th2")
    assert "has no Modbus device 'th2'; did you mean \"hazmat_store.th2\"? (known: aux_store.th1, " in said.err
    said = await bench.run("probe", "watch", "--tcp", bench.tcp, "--unit", 1, "--profile", "xy_md2")
    assert "the catalogue has no profile 'xy_md2'; did you mean \"xy_md02\"?" in said.err


async def test_without_a_gateway_the_places_are_named_where_it_was_looked_for(bench: Bench):
    read = ("--bus", "rs485", "--unit", 1, "--holding", 0)
    said = await bench.run("probe", "read", *read)
    assert said.code == 1
    assert "no gateway runs that could have a bus 'rs485'; looked in\n" in said.err
    assert "\n  var/demo: there is no such folder\nstart it, name its --data folder, or name" in said.err
    said = await bench.run("probe", "read", *read, STATE_DIRECTORY=str(bench.folder))
    assert f"looked in\n  {bench.folder}: no gateway runs there\nstart it" in said.err
    said = await bench.run("probe", "read", *read, "--data", bench.folder / "nope")
    assert f"{bench.folder / 'nope'}: there is no such folder" in said.err


async def test_ctrl_c_in_a_read_is_no_traceback(bench: Bench):
    bench.plant.set_mode("steamer1", DeviceMode.DEAD)
    wire = ("--serial", bench.serial, "--unit", 2, "--holding", 4, "--timeout-ms", 30000)
    process = await bench.start("probe", "read", *wire)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(BOUND_S):
            await process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert (process.returncode, err.decode()) == (130, "stopped\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
async def test_a_terminal_that_is_not_utf_8(bench: Bench, root: Path, encoding: str):
    config = root / "config" / "site.toml"
    scan = ("probe", "scan", "--tcp", bench.tcp, "--units", "1-2", "--config", config)
    process = await bench.start(*scan, LANG="zh_CN", PYTHONUTF8="0", PYTHONIOENCODING=encoding)
    out, err = await process.communicate()
    assert process.returncode == 0, err
    found = out.decode("utf-8" if encoding == "ascii" else encoding)  # click takes ASCII for a terminal set wrongly
    assert ("站号 1" in found, "unit 1" in found) == ((True, False) if encoding == "gbk" else (False, True))
    process = await bench.start(*scan, "--json", LANG="zh_CN", PYTHONUTF8="0", PYTHONIOENCODING=encoding)
    out, _ = await process.communicate()
    assert len(json.loads(out.decode(encoding))["units"]) == 2


async def test_help_loads_nothing_heavy(bench: Bench):
    heavy = ("pymodbus", "aiohttp", "pydantic", "sitewarden.sensors")
    code = f"import sys, sitewarden.cli; print([m for m in {heavy} if m in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().strip() == "[]"


# --- through the running gateway ---


@asynccontextmanager
async def running_gateway(bench: Bench, port: int, eventually: Eventually) -> AsyncIterator[Path]:
    """A real gateway that polls unit 1 of the serial line."""
    config = bench.site(
        f"""
        [[bus]]
        id = "rs485"
        kind = "rtu"
        serial = "{bench.serial}"
        [[device]]
        id = "th1"
        area = "store"
        bus = "rs485"
        unit_id = 1
        profile = "rs_ws_n01"
        poll_s = 1.0
        """,
        port=port,
    )
    data = bench.folder / "data"
    process = await bench.start("edge", "--config", config, "--data", data)
    try:
        await eventually(lambda: process.returncode is not None or (data / "control.sock").exists(), "control.sock")
        await eventually(lambda: _polls(data), "a good poll")
        yield data
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(BOUND_S):
            await process.communicate()


async def _polls(data: Path) -> dict[str, Any] | None:
    """Counters of unit 1 once it has answered."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(data / "control.sock"))) as session,
        session.get("http://gateway/v1/buses") as response,
    ):
        unit = (await response.json())["buses"][0]["units"][0]
        return unit if unit["good"] else None


async def test_a_running_gateway_is_asked_and_misses_no_poll(
    bench: Bench, free_port: Callable[[], int], eventually: Eventually
):
    async with running_gateway(bench, free_port(), eventually) as data:
        before = await _polls(data)
        alone = await bench.run("probe", "read", "--serial", bench.serial, "--unit", 2, "--holding", 4)
        assert alone.code == 1
        assert "is in use by " in alone.err
        wire = ("--data", data, "--serial", bench.serial)
        said = await bench.run("probe", "read", *wire, "--unit", 2, "--holding", 4, "--count", 1, "--json")
        assert said.code == 0, said
        assert said.err.startswith(f"through the running gateway ({data / 'control.sock'}), bus rs485: ")
        assert json.loads(said.out)["words"][0]["u16"] == round(bench.plant.value("steaming.steamer1.pressure") * 1000)
        said = await bench.run("probe", "scan", "--data", data, "--bus", "rs485", "--units", "1-4", "--timeout-ms", 100)
        assert said.code == 0, said
        assert "  the gateway has it as store.th1" in said.out
        assert "# unit 1 is store.th1 already" in said.out
        assert "[[bus]]" not in said.out
        said = await bench.run("probe", "read", "--data", data, "--bus", "nope", "--unit", 1, "--holding", 0)
        assert said.code == 1
        assert "no running gateway has a bus 'nope' (its buses: rs485)" in said.err
        said = await bench.run("probe", "read", "--data", data, "--bus", "rs458", "--unit", 1, "--holding", 0)
        assert "no running gateway has a bus 'rs458'; did you mean \"rs485\"?" in said.err
        config = ("--config", bench.folder / "site.toml", "--bus", "rs485", "--unit", 1, "--holding", 0)
        said = await bench.run("probe", "read", *config, STATE_DIRECTORY=str(data))
        assert said.out.startswith("through the running gateway (")
        after = await _polls(data)
        assert before is not None
        assert after is not None
        assert after["good"] > before["good"]
        assert [after[key] - before[key] for key in ("bad", "skipped")] == [0, 0]


async def test_a_folder_without_a_gateway_is_remarked(bench: Bench):
    options = ("--data", bench.folder, "--tcp", bench.tcp, "--unit", 2, "--holding", 0)
    said = await bench.run("probe", "read", *options)
    assert said.code == 0, said
    assert said.out.startswith(f"no gateway runs in {bench.folder}\nalone: ")
