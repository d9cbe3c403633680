"""The demo's supervisor with real processes: broker, plant and receiver; small stand-ins for the two servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sitewarden.console.language import speaking
from sitewarden.console.text import pad, width
from sitewarden.demo.box import box, summary_lines
from sitewarden.demo.children import Child, ChildSpec, ask, spawn
from sitewarden.demo.config import (
    Addresses,
    Ports,
    choose_ports,
    fit_cloud,
    fit_site,
    gateway_id,
    port_in,
    read_people,
    refit_cloud,
    refit_site,
)
from sitewarden.demo.pins import new_pins
from sitewarden.demo.push import PushOptions, push_demo
from sitewarden.demo.run import DemoOptions, run_demo
from sitewarden.errors import ConfigError, PermanentError, TransientError

BOUND_S = 40.0

SITE = """\
# A dyeing plant.
[site]
id = "hengfeng_dyeing"   # stays
[gateway]
id = "gw1"
[web]
port = 8080
[mqtt]
url = "mqtt://127.0.0.1:1883"
[cloud]
url = "https://cloud.example"
[people]
file = "people.csv"

[[bus]]
id = "plant_tcp"  # the boiler's PLC
kind = "tcp"
host = "192.168.1.50"
port = 502

[[bus]]
id = "rs485"
kind = "rtu"
serial = "/dev/serial/by-id/usb-1"
baud = 9600

[[channel]]
id = "keepers"
kind = "webhook"
url = "https://robot.example/send"
"""
CLOUD = """\
[cloud]
host = "127.0.0.1"
port = 8090
people = "cloud_people.csv"
[[gateway]]
id = "gw1"
public_key = ""
"""
PEOPLE = """\
id,name,name_en,roles,areas,phone
p_li,李仓,Li Cang,keeper,aux_store,
p_wang,王安,Wang An,officer control_room,*,
"""
CLOUD_PEOPLE = """\
id,name,name_en,roles,areas,phone
p_wang,王安,Wang An,officer,*,
p_zhao,赵总,Zhao Zong,vice_president,*,
"""
STUB = '''\
"""Stands in for the `sitewarden` command: the real plant and receiver, servers that only answer /api/v1/people."""
import sys
from pathlib import Path

def option(name):
    return sys.argv[sys.argv.index(name) + 1]

async def serve(config):
    import asyncio, tomllib
    from aiohttp import web

    async def people(_):
        return web.json_response([])
    app = web.Application()
    app.router.add_get("/api/v1/people", people)
    runner = web.AppRunner(app)
    await runner.setup()
    table = tomllib.loads(config.read_text())["web" if word == "edge" else "cloud"]
    await web.TCPSite(runner, "127.0.0.1", table["port"]).start()
    await asyncio.Event().wait()

word = sys.argv[1]
if word == BROKEN:
    sys.exit("the gateway cannot start: no such thing")
if word in ("edge", "cloud"):
    import asyncio

    assert Path(option("--data")).is_dir()
    asyncio.run(serve(Path(option("--config"))))
elif word == "plant":
    import asyncio
    from sitewarden.sensors.plant import load_plant_options, run_plant

    asyncio.run(run_plant(load_plant_options(Path(option("--config")))))
elif word == "receiver":
    import asyncio
    from sitewarden.demo.receiver import ReceiverOptions, run_receiver

    asyncio.run(run_receiver(ReceiverOptions(port=int(option("--port")))))
elif word == "key":
    print("PUBLIC+KEY=")
elif word == "pin":
    with Path(option("--secrets")).open("a") as file:
        file.write(sys.argv[3] + " " + sys.stdin.readline())
'''
DRIVER = """\
import asyncio, sys
from pathlib import Path
from sitewarden.demo.run import DemoOptions, run_demo
config, data, stub = map(Path, sys.argv[1:])
program = (sys.executable, str(stub))
asyncio.run(run_demo(DemoOptions(data=data, free_ports=True, config=config, program=program, seed=1)))
"""


async def until(condition: Callable[[], Awaitable[Any]], bound_s: float = BOUND_S) -> Any:
    async with asyncio.timeout(bound_s):
        while not (result := await condition()):
            await asyncio.sleep(0.05)
    return result


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    (folder / "checklists").mkdir(parents=True)
    for name, text in {
        "site.toml": SITE,
        "cloud.toml": CLOUD,
        "people.csv": PEOPLE,
        "cloud_people.csv": CLOUD_PEOPLE,
        "checklists/daily.toml": "# items\n",
    }.items():
        (folder / name).write_text(text)
    return folder


def stub(tmp_path: Path, broken: str = "") -> Path:
    path = tmp_path / "stub.py"
    path.write_text(f"BROKEN = {broken!r}\n" + STUB)
    return path


def _port(state: dict[str, Any], name: str) -> int:
    return int(state["addresses"][name].rstrip("/").rpartition(":")[2])


class Demo:
    """A demo in a process of its own."""

    def __init__(self, data: Path, process: asyncio.subprocess.Process, output: Path) -> None:
        self.data = data
        self.process = process
        self._output = output

    @property
    def output(self) -> str:
        return self._output.read_text()

    async def state(self) -> dict[str, Any] | None:
        """demo.json once everything runs."""
        assert self.process.returncode is None, self.output
        with contextlib.suppress(OSError):
            state = json.loads((self.data / "demo.json").read_text())
            return state if state["running"] and state["pid"] == self.process.pid else None
        return None

    async def gone(self, pids: dict[str, int]) -> None:
        async def all_dead() -> bool:
            return not any(alive(pid) for pid in pids.values())

        await until(all_dead)


@contextlib.asynccontextmanager
async def demo(tmp_path: Path, config: Path) -> AsyncIterator[Demo]:
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    data, output = tmp_path / "data", tmp_path / "output.txt"
    with output.open("w") as file:
        arguments = (driver, config, data, stub(tmp_path))
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=file, stderr=file)
    try:
        yield Demo(data, process, output)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), BOUND_S)


# --- the whole ---------------------------------------------------------------------------------------------------


async def test_starts_restarts_and_stops(tmp_path: Path, config: Path) -> None:
    async with demo(tmp_path, config) as running, aiohttp.ClientSession() as session:
        state = await until(running.state)
        assert state["pids"].keys() == {"broker", "plant", "receiver", "cloud", "edge"}
        assert stat.S_IMODE((running.data / "demo.json").stat().st_mode) == 0o600
        for name, path in {"plant": "", "receiver": "", "edge": "api/v1/people", "cloud": "api/v1/people"}.items():
            async with session.get(state["addresses"][name] + path) as response:
                assert response.status == 200, name
        assert (running.data / "rs485").is_symlink()
        assert (running.data / "checklists" / "daily.toml").exists()

        # the plant's messages went through the broker with its password
        async def gas_sent() -> bool:
            async with session.get(state["addresses"]["plant"] + "api/points") as response:
                return any(d["requests"] for d in (await response.json())["devices"] if d["wire"] == "mqtt")

        await until(gas_sent)

        # a second terminal
        assert await push_demo(PushOptions(data=running.data, humid=82.0, dead=("th2",))) == [
            "aux_store.th1.humidity is held at 82 %RH",
            "th2 is dead",
        ]
        async with session.get(state["addresses"]["plant"] + "api/points") as response:
            body = await response.json()
        assert body["points"][0]["held"] == 82.0
        assert [d["mode"] for d in body["devices"]] == ["ok", "ok", "dead", "ok", "ok", "ok"]
        with pytest.raises(PermanentError) as refused:
            await push_demo(PushOptions(data=running.data, late=("hazmat_stor.th2",)))
        assert refused.value.message == 'no device hazmat_stor.th2; did you mean "hazmat_store.th2"?'
        with speaking(["--lang", "zh"]), pytest.raises(PermanentError) as refused:
            await push_demo(PushOptions(data=running.data, late=("zzz",)))
        assert refused.value.message == "没有设备 zzz"
        assert refused.value.hint.startswith("现有：aux_store.th1, ")

        # a child dies and comes back
        os.kill(state["pids"]["edge"], signal.SIGKILL)

        async def edge_is_back() -> dict[str, Any] | None:
            now = await running.state()
            if not now or now["pids"].get("edge") in (None, state["pids"]["edge"]):
                return None
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(now["addresses"]["edge"] + "api/v1/people") as response:
                    return now if response.status == 200 else None
            return None

        again = await until(edge_is_back)
        assert "edge was killed by SIGKILL; starting it again in 1 s" in running.output
        assert {k: v for k, v in again["pids"].items() if k != "edge"} == {
            k: v for k, v in state["pids"].items() if k != "edge"
        }

        # one demo per folder
        with pytest.raises(PermanentError, match="already runs"):
            await run_demo(DemoOptions(data=running.data, config=config))

        # Ctrl-C
        loop = asyncio.get_running_loop()
        began = loop.time()
        running.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(running.process.wait(), BOUND_S) == 0, running.output
        assert loop.time() - began < 10
        await running.gone(again["pids"])
        assert "Traceback" not in running.output
        assert all(text in running.output for text in (state["pins"]["p_li"], state["addresses"]["edge"], "李仓"))
        with pytest.raises(PermanentError, match="is stopped"):
            await push_demo(PushOptions(data=running.data, dry=True))

    # a second start keeps PINs, passwords and what was edited, and sets no PIN twice
    secrets_db = (tmp_path / "data" / "edge" / "secrets.db").read_text()
    site = tmp_path / "data" / "site.toml"
    site.write_text(site.read_text().replace("# stays", "# mine"))
    own = choose_ports(free=True).edge
    site.write_text(site.read_text().replace(f"port = {_port(state, 'edge')}\n", f"port = {own}\n"))
    async with demo(tmp_path, config) as running:
        later = await until(running.state)
        assert (later["pins"], later["mqtt_passwords"]) == (state["pins"], state["mqtt_passwords"])
        assert (running.data / "edge" / "secrets.db").read_text() == secrets_db
        assert "# mine" in site.read_text()
        assert f"{site}: kept as you edited it\n" in running.output
        assert "cloud.toml: " not in running.output
        assert later["addresses"]["edge"] == f"http://127.0.0.1:{own}/", "the port that the file names"
        tables = tomllib.loads(site.read_text())
        assert tables["cloud"]["url"] + "/" == later["addresses"]["cloud"] != state["addresses"]["cloud"]


async def test_children_die_with_a_killed_supervisor(tmp_path: Path, config: Path) -> None:
    async with demo(tmp_path, config) as running:
        state = await until(running.state)
        assert all(alive(pid) for pid in state["pids"].values())
        running.process.kill()
        await running.process.wait()
        await running.gone(state["pids"])


async def test_a_child_that_cannot_start_is_named_with_its_log(tmp_path: Path, config: Path) -> None:
    said: list[str] = []
    program = (sys.executable, str(stub(tmp_path, broken="edge")))
    options = DemoOptions(data=tmp_path / "data", free_ports=True, config=config, program=program)
    with pytest.raises(PermanentError, match="edge ended with code 1 while starting") as error:
        await run_demo(options, said.append)
    assert "the gateway cannot start: no such thing" in error.value.hint
    assert said[-1] == "stopped"
    started = [int(line.split()[-1].rstrip(")")) for line in said if "runs (process" in line]
    assert len(started) == 4
    assert not any(alive(pid) for pid in started)
    assert json.loads((tmp_path / "data" / "demo.json").read_text())["running"] is False


async def test_pins_go_to_the_servers_that_know_the_person(tmp_path: Path, config: Path) -> None:
    program = (sys.executable, str(stub(tmp_path, broken="cloud")))
    data = tmp_path / "data"
    with pytest.raises(PermanentError, match="cloud"):
        await run_demo(DemoOptions(data=data, free_ports=True, config=config, program=program), lambda _: None)
    pins = json.loads((data / "demo.json").read_text())["pins"]
    edge, cloud = (sorted((data / name / "secrets.db").read_text().split("\n"))[1:] for name in ("edge", "cloud"))
    assert edge == [f"p_li {pins['p_li']}", f"p_wang {pins['p_wang']}"]
    assert cloud == [f"p_wang {pins['p_wang']}", f"p_zhao {pins['p_zhao']}"]
    assert tomllib.loads((data / "cloud.toml").read_text())["gateway"][0]["public_key"] == "PUBLIC+KEY="


async def _attempt(tmp_path: Path, config: Path, **more: Any) -> list[str]:
    """A start that prepares everything and then ends, because the gateway cannot start. Returns what it says of files,
    and that an edit may be why."""
    said: list[str] = []
    program = (sys.executable, str(stub(tmp_path, broken="edge")))
    options = DemoOptions(data=tmp_path / "data", free_ports=True, config=config, program=program, **more)
    with pytest.raises(PermanentError, match="edge"):
        await run_demo(options, said.append)
    files = [line for line in said if "site.toml" in line or "people.csv" in line]
    may_be_the_edit = "mend the file, or start with a new one: sitewarden demo --fresh"
    assert (may_be_the_edit in said) is any("kept as you edited it" in line for line in files)
    return files


async def test_an_example_that_changed_renews_what_nobody_edited(tmp_path: Path, config: Path) -> None:
    data = tmp_path / "data"
    assert await _attempt(tmp_path, config) == []
    (config / "site.toml").write_text(SITE.replace("A dyeing plant", "Another plant"))
    (config / "people.csv").write_text(PEOPLE + "p_sun,孙班,Sun,keeper,*,\n")
    assert await _attempt(tmp_path, config) == [
        f"{data / name}: renewed, because the example was changed" for name in ("site.toml", "people.csv")
    ]
    assert "Another plant" in (data / "site.toml").read_text()
    assert "p_sun" in (data / "people.csv").read_text()
    (data / "site.toml").write_text((data / "site.toml").read_text() + "# mine\n")
    (data / "people.csv").write_text(PEOPLE)
    assert await _attempt(tmp_path, config) == [
        f"{data / n}: kept as you edited it" for n in ("site.toml", "people.csv")
    ]
    (config / "site.toml").write_text(SITE)
    since = f"the example was changed since: compare {config / 'site.toml'}, or start anew with --fresh"
    assert await _attempt(tmp_path, config) == [
        f"{data / 'site.toml'}: kept as you edited it; {since}",
        f"{data / 'people.csv'}: kept as you edited it",
    ]
    assert "Another plant" in (data / "site.toml").read_text()
    assert await _attempt(tmp_path, config, fresh=True) == [
        f"{data / name}: written anew; the one that you edited is {name}.edited" for name in ("site.toml", "people.csv")
    ]
    assert "# mine" in (data / "site.toml.edited").read_text()
    assert "A dyeing plant" in (data / "site.toml").read_text()
    assert await _attempt(tmp_path, config) == []


async def test_a_file_of_which_nothing_is_known_is_never_overwritten(tmp_path: Path, config: Path) -> None:
    """The folder of an older version, or one whose demo.json was lost."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "site.toml").write_text(fitted(SITE) + "# mine\n")
    assert await _attempt(tmp_path, config) == [f"{data / 'site.toml'}: kept as you edited it"]
    assert (data / "site.toml").read_text() == fitted(SITE) + "# mine\n"


async def test_an_edited_file_that_is_no_toml_is_named_with_the_way_out(tmp_path: Path, config: Path) -> None:
    await _attempt(tmp_path, config)
    broken = tmp_path / "data" / "site.toml"
    broken.write_text("[site")
    said: list[str] = []
    options = DemoOptions(data=tmp_path / "data", config=config, program=(sys.executable, str(stub(tmp_path))))
    with pytest.raises(ConfigError) as error:
        await run_demo(options, said.append)
    assert error.value.source == str(broken)
    assert said[-1] == "mend the file, or start with a new one: sitewarden demo --fresh"
    assert error.value.problems == ["end of file: must end its table's name with ] or ]], as it began"]
    assert broken.read_text() == "[site"


async def test_push_without_a_demo(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no demo was started"):
        await push_demo(PushOptions(data=tmp_path, dry=True))
    state = {"running": True, "addresses": {"plant": f"http://127.0.0.1:{choose_ports(free=True).plant}/"}}
    (tmp_path / "demo.json").write_text(json.dumps(state))
    with pytest.raises(TransientError, match="does not answer"):
        await push_demo(PushOptions(data=tmp_path, dry=True))


# --- children ----------------------------------------------------------------------------------------------------


async def test_a_child_that_never_answers_is_bounded_and_then_stopped(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    log = tmp_path / "log" / "slow.log"
    command = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    said: list[str] = []
    child = Child(
        ChildSpec(name="slow", command=command, log=log, healthy=never, start_s=2.0), said.append, lambda: None
    )
    with pytest.raises(PermanentError, match="slow does not answer after 2 s"):
        await child.start()
    assert child.pid is not None
    pid = child.pid
    await child.stop(0.2)
    assert not alive(pid)
    assert said == ["slow did not stop within 0.2 s and was killed"]


async def test_ask() -> None:
    echo = (sys.executable, "-c", "print(input()[::-1])")
    assert await ask(echo, given="abc\n") == "cba\n"
    with pytest.raises(PermanentError, match="ended with code 3") as error:
        await ask((sys.executable, "-c", "import sys; sys.stderr.write('why'); sys.exit(3)"))
    assert error.value.hint == "why"
    with pytest.raises(PermanentError, match="does not end"):
        await ask((sys.executable, "-c", "import time; time.sleep(600)"), bound_s=0.3)


async def test_ctrl_c_does_not_reach_children() -> None:
    process = await spawn((sys.executable, "-c", "import os; print(os.getsid(0))"), output=subprocess.PIPE)
    out, _ = await process.communicate()
    assert int(out) == process.pid != os.getsid(0)


# --- configuration -----------------------------------------------------------------------------------------------

PORTS = Ports(mqtt=1, modbus=2, plant=3, receiver=4, cloud=5, edge=6)


ADDRESSES = Addresses(
    ports=PORTS, serial="/d/rs485", mqtt_username="gateway", mqtt_password_file="/d/p", public_key="abc"
)
LATER = replace(ADDRESSES, ports=Ports(mqtt=11, modbus=12, plant=13, receiver=14, cloud=15, edge=16), public_key="xyz")


def fitted(text: str) -> str:
    return fit_site(text, ADDRESSES)


def test_fit_site_changes_addresses_and_nothing_else() -> None:
    text = fitted(SITE)
    site = tomllib.loads(text)
    tcp, rs485 = site["bus"]
    assert tcp == {"id": "plant_tcp", "kind": "tcp", "host": "127.0.0.1", "port": 2}
    assert rs485 == {"id": "rs485", "kind": "rtu", "serial": "/d/rs485", "baud": 9600}
    assert site["mqtt"] == {"url": "mqtt://127.0.0.1:1", "username": "gateway", "password_file": "/d/p"}
    assert site["web"]["port"] == 6
    assert site["cloud"]["url"] == "http://127.0.0.1:5"
    assert site["channel"][0]["url"] == "http://127.0.0.1:4/robot/keepers"
    assert site["site"] == {"id": "hengfeng_dyeing"}
    kept = {line for line in SITE.splitlines() if "#" in line}
    assert kept <= set(text.splitlines())
    assert fitted(text) == text


def test_fit_site_names_everything_that_is_missing() -> None:
    with pytest.raises(ConfigError) as error:
        fitted('[site]\nid = "x"\n[[bus]]\nid = "other"\n[[channel]]\nid = "sms"\nkind = "modem"\n')
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "bus",
        "bus",
        "mqtt",
        "web",
        "cloud",
        "channel",
    ]
    with pytest.raises(ConfigError, match=r"site\.toml"):
        fitted("[site")


def test_fit_cloud() -> None:
    cloud = tomllib.loads(fit_cloud(CLOUD, ADDRESSES, "gw1"))
    assert cloud["cloud"] == {"host": "127.0.0.1", "port": 5, "people": "cloud_people.csv"}
    assert cloud["gateway"] == [{"id": "gw1", "public_key": "abc"}]
    with pytest.raises(ConfigError, match="gw2"):
        fit_cloud(CLOUD, ADDRESSES, "gw2")
    assert gateway_id(SITE) == "gw1"


def test_an_edited_file_follows_the_demo_to_other_ports() -> None:
    assert refit_site(fitted(SITE), ADDRESSES, LATER, "site.toml") == fit_site(SITE, LATER)
    assert refit_cloud(fit_cloud(CLOUD, ADDRESSES, "gw1"), ADDRESSES, LATER, "gw1", "cloud.toml") == fit_cloud(
        CLOUD, LATER, "gw1"
    )
    assert Addresses.from_json(json.loads(json.dumps(asdict(LATER)))) == LATER


def test_what_a_person_wrote_is_not_changed_for_other_ports() -> None:
    own = fitted(SITE).replace("http://127.0.0.1:4/robot/keepers", "https://robot.example/mine")
    own = own.replace("port = 6", "port = 9000  # mine").replace("baud = 9600", "baud = 4800")
    own = own[: own.index("[mqtt]")] + own[own.index("[cloud]") :]  # works without a broker
    text = refit_site(own, ADDRESSES, LATER, "site.toml")
    site = tomllib.loads(text)
    assert site["channel"][0]["url"] == "https://robot.example/mine"
    assert site["web"]["port"] == port_in(text, "web", 8080) == 9000
    assert "port = 9000  # mine" in text
    assert site["bus"][1]["baud"] == 4800
    assert "mqtt" not in site
    assert (site["bus"][0]["port"], site["cloud"]["url"]) == (12, "http://127.0.0.1:15")
    assert refit_site(own, ADDRESSES, ADDRESSES, "site.toml") == own
    with pytest.raises(ConfigError, match=r"/d/site\.toml"):
        refit_site("[site", ADDRESSES, LATER, "/d/site.toml")


def test_the_port_is_the_files_or_the_usual_one() -> None:
    assert port_in("[web]\nport = 9\n", "web", 8080) == 9
    assert port_in("[web]\n", "web", 8080) == port_in("", "web", 8080) == 8080


def test_people_of_both_servers(config: Path) -> None:
    people = {person.id: (person.name, person.roles, person.servers) for person in read_people(config)}
    assert people == {
        "p_li": ("李仓", ("keeper",), ("edge",)),
        "p_wang": ("王安", ("officer",), ("edge", "cloud")),
        "p_zhao": ("赵总", ("vice_president",), ("cloud",)),
    }
    (config / "people.csv").unlink()
    with pytest.raises(ConfigError, match=r"people\.csv"):
        read_people(config)


def test_ports() -> None:
    import socket

    free = choose_ports(free=True)
    values = [getattr(free, name) for name in Ports.__slots__]
    assert len(set(values)) == 6
    assert not set(values) & {getattr(Ports(), name) for name in Ports.__slots__}
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", Ports().plant))
            taken.listen()
        assert choose_ports(free=False).plant != Ports().plant


# --- what is printed ---------------------------------------------------------------------------------------------


def test_pins_are_six_digits_and_kept() -> None:
    pins = new_pins(["a", "b"], {"a": "000123", "gone": "1"})
    assert pins["a"] == "000123"
    assert len(pins["b"]) == 6
    assert pins["b"].isdigit()
    assert pins.keys() == {"a", "b"}


def test_the_box_is_straight_also_with_chinese() -> None:
    lines = box(["Sitewarden", "助剂库 keeper", "", pad("中控", 10) + "x"])
    assert len({width(line) for line in lines}) == 1
    assert width("中控a") == 5


def test_summary_says_how_to_reach_a_demo_elsewhere(config: Path) -> None:
    people = read_people(config)
    addresses = {key: f"http://127.0.0.1/{key}" for key in ("edge", "cloud", "plant", "receiver", "mqtt")}
    pins = {person.id: f"12345{i}" for i, person in enumerate(people)}
    text = "\n".join(summary_lines(Path("/tmp/x"), addresses, people, pins, {"dashboard": "pw"}))
    assert "sitewarden demo --humid --data /tmp/x" in text
    assert all(item in text for item in (*addresses.values(), *pins.values(), "李仓 Li Cang", "仓管员", "pw"))
    assert "sitewarden reload --data /tmp/x\n" in text
    assert "Sound the siren 让警号响:  push H₂S over 14 ppm on the plant's page" in text
    assert "/tmp/x/site.toml  (your edits stay 修改会保留)" in text
    assert f"{pad('Gateway folder 网关', 24)}/tmp/x/edge " in text
    usual = "\n".join(summary_lines(Path("var/demo"), addresses, people, pins, {"dashboard": "pw"}))
    assert "demo --humid   (back" in usual
