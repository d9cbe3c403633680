"""The disk takes nothing: alarms, ladders, messages and acknowledgements go on in memory, everybody is told, and when
the disk is back there is one declared gap and nothing is lost, sent twice or forked."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import argon2
import pytest
from sitewarden.serving import secrets as secrets_module
from sitewarden.sync.journal import verify_file
from sitewarden.sync.keys import load_or_create_key, public_key_text
from sitewarden.tests.peers import mosquitto
from sitewarden.tests.peers.bad_disk import BadDisk, Card, build, card, compiler
from sitewarden.tests.peers.fake_modem import FakeModem
from sitewarden.tests.peers.robot_servers import TOKEN, RobotServers
from sitewarden.tests.peers.whole_gateway import (
    DEVICE,
    Gateway,
    Page,
    Sensors,
    alarm_toml,
    process,
    query,
    reconcile,
)

Eventually = Callable[..., Awaitable[Any]]
HUMID, HOT = "store.th1.humidity.high", "store.th1.temperature.high"
OWN = "system.not_recorded"
SITE = (
    DEVICE.format(unit=1, poll_s=0.2)
    + alarm_toml("store.th1.humidity", hi="{ limit = 75.0, priority = 1 }")
    + alarm_toml("store.th1.temperature", hi="{ limit = 40.0, priority = 2 }")
)
MARKS = ("未记录", "NOT RECORDED")
BOUND_S = 60.0


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PIN hashes cost what they must elsewhere; memory is this test's own."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(secrets_module, "_HASHER", hasher)
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))


@pytest.fixture
async def sensors() -> AsyncIterator[Sensors]:
    async with Sensors().serving() as made:
        yield made


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        why = "no C compiler: apt-get install gcc libc6-dev"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture
def disk(library: Path, tmp_path: Path) -> BadDisk:
    return BadDisk(library, tmp_path / "data", tmp_path / "errno")


@pytest.fixture
def real_card(tmp_path: Path) -> Iterator[Card]:
    """Where the data folder will be."""
    with card(tmp_path / "card.img", tmp_path / "data") as made:
        if made is None:
            pytest.skip("a file system can only be mounted as root: mount, mkfs.ext4, loop devices")
        yield made


async def status(gateway: Gateway) -> dict[str, Any]:
    """What the page shows; {} while it cannot be asked."""
    with contextlib.suppress(aiohttp.ClientError, AssertionError, TimeoutError):
        async with gateway.page("zhao") as page:
            return await page.get("status")
    return {}


async def alarms(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """Open alarms of the plant, as people see them; {} while nobody can ask."""
    with contextlib.suppress(aiohttp.ClientError, AssertionError, TimeoutError):
        async with gateway.page("zhao") as page:
            found = (await page.get("alarms"))["alarms"]
            return {alarm["id"]: alarm for alarm in found if alarm["area"]}
    return {}


def seen(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What must be equal before and after the disk is back."""
    return {
        name: (
            alarm["state"],
            alarm["occurrence"],
            alarm["raised"],
            [(ack["person"], ack["role"], ack["at"]) for ack in alarm["acks"]],
            alarm["ladder"] and (alarm["ladder"]["since"], alarm["ladder"]["climbed"]),
        )
        for name, alarm in found.items()
    }


def gaps(gateway: Gateway) -> list[dict[str, Any]]:
    return [record["body"] for record in gateway.records("journal.gap")]


async def acknowledge(gateway: Gateway, alarm: str, person: str) -> dict[str, Any]:
    """The whole answer."""
    async with gateway.page(person) as page:
        known = await page.alarm(alarm)
        assert known is not None
        return await page.post(f"alarms/{alarm}/ack", {"occurrence": known["occurrence"], "role": None})


async def until_unrecorded(gateway: Gateway, eventually: Eventually) -> dict[str, Any]:
    async def marked() -> Any:
        return (await status(gateway)).get("not_recorded")

    return await eventually(marked, "the page says that nothing is recorded", bound_s=BOUND_S)


async def until_recorded(gateway: Gateway, eventually: Eventually) -> None:
    async def unmarked() -> bool:
        return (await status(gateway)).get("not_recorded", 0) is None

    await eventually(unmarked, lambda: gateway.folder.joinpath("edge.log").read_text("utf-8"), bound_s=BOUND_S)


async def until_open(gateway: Gateway, eventually: Eventually, *names: str) -> dict[str, dict[str, Any]]:
    async def there() -> Any:
        found = await alarms(gateway)
        return found if set(names) <= set(found) else None

    return await eventually(there, f"{names} open", bound_s=BOUND_S)


def check_story(gateway: Gateway) -> None:
    """After everything: a journal without a fault, from which every table follows; each message once."""
    assert verify_file(gateway.journal).problem == ""
    reconcile(gateway)
    born = Counter(who["key"] for record in gateway.records() for who in record["body"].get("notify", ()))
    assert max(born.values(), default=1) == 1


# --- a running gateway, and back ---


@pytest.mark.parametrize(
    "code",
    [
        errno.EIO,
        pytest.param(errno.EROFS, marks=pytest.mark.soak),  # in `make test` a real card
        pytest.param(errno.ENOSPC, marks=pytest.mark.soak),  # in `make test` a disk that is full
    ],
)
async def test_what_people_saw_in_memory_is_on_the_disk_when_it_is_back(
    tmp_path: Path, sensors: Sensors, disk: BadDisk, free_port, eventually: Eventually, code: int
) -> None:
    gateway = Gateway(tmp_path, free_port(), sensors, SITE)
    gateway.prepare()
    async with process(gateway, *disk.before()):
        await until_recorded(gateway, eventually)
        sensors.registers[1] = [800, 240]
        before = await until_open(gateway, eventually, HUMID)
        disk.refuse(code)
        mark = await until_unrecorded(gateway, eventually)
        assert seen(await alarms(gateway)) == seen(before), "nothing is forgotten"
        sensors.registers[1] = [800, 450]
        await until_open(gateway, eventually, HUMID, HOT)
        answer = await acknowledge(gateway, HUMID, "li")
        assert answer["not_recorded"]["since"] == mark["since"], "nobody is told that it was recorded"
        assert [ack["person"] for ack in answer["alarm"]["acks"]] == ["li"]
        last = await alarms(gateway)
        on_disk = gateway.records()
        assert HOT not in {r["body"]["alarm"]["id"] for r in on_disk if r["body"].get("alarm")}
        disk.heal()
        await until_recorded(gateway, eventually)
        assert seen(await alarms(gateway)) == seen(last), "alarms, acknowledgements and ladders as people saw them"
        assert gateway.has(OWN, "raised"), "its own alarm; it ends as every fault that nobody sees after a start"
    (gap,) = gaps(gateway)
    assert gap["reason"] == "not_recorded"
    assert (gap["from"], gap["why"]) == (mark["since"], mark["why"])
    assert gap["from_ms"] < gap["to_ms"]
    assert gap["records"]["alarm.acked"] == 1
    assert gap["carried"] == sum(gap["records"].values())
    assert gap["readings"] > 0
    recovered = [r for r in gateway.records() if r["body"].get("recovered")]
    assert len(recovered) == gap["carried"]
    assert all(gap["from"] <= r["at"]["utc"] <= gap["to"] for r in recovered if r["kind"] != "alarm.raised")
    check_story(gateway)
    assert not list((tmp_path / "run").glob("memory-*")), "memory is given back"


async def test_killed_in_memory_and_started_on_a_good_disk(
    tmp_path: Path, sensors: Sensors, disk: BadDisk, free_port, eventually: Eventually
) -> None:
    """What is in memory outlives the process. Nobody knows how many readings there were."""
    gateway = Gateway(tmp_path, free_port(), sensors, SITE)
    gateway.prepare()
    async with process(gateway, *disk.before()) as running:
        await until_recorded(gateway, eventually)
        disk.refuse()
        await until_unrecorded(gateway, eventually)
        sensors.registers[1] = [800, 240]
        await until_open(gateway, eventually, HUMID)
        await acknowledge(gateway, HUMID, "wang")
        last = await alarms(gateway)
        running.send_signal(signal.SIGKILL)
        await asyncio.to_thread(running.wait, 20)
    async with process(gateway, *disk.before()):
        await until_unrecorded(gateway, eventually)
        assert seen(await alarms(gateway)) == seen(last), "it goes on in the same memory"
        os.kill(_pid(gateway), signal.SIGKILL)
    disk.heal()
    async with process(gateway):
        await until_recorded(gateway, eventually)
        assert seen(await alarms(gateway)) == seen(last)
    (gap,) = gaps(gateway)
    assert (gap["readings"], gap["records"]["alarm.raised"]) == (None, 2)
    check_story(gateway)


def _pid(gateway: Gateway) -> int:
    """Of the daemon that has the folder."""
    found = subprocess.run(["pgrep", "-f", str(gateway.config)], check=True, capture_output=True, text=True)
    return int(found.stdout.split()[-1])


async def test_when_memory_is_gone_too_it_is_said_that_nobody_knows(
    tmp_path: Path, sensors: Sensors, disk: BadDisk, free_port, eventually: Eventually
) -> None:
    gateway = Gateway(tmp_path, free_port(), sensors, SITE)
    gateway.prepare()
    async with process(gateway, *disk.before()) as running:
        await until_recorded(gateway, eventually)
        disk.refuse()
        await until_unrecorded(gateway, eventually)
        running.send_signal(signal.SIGKILL)
        await asyncio.to_thread(running.wait, 20)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    disk.heal()
    _make_older(gateway.journal, 600)
    async with process(gateway):
        await until_recorded(gateway, eventually)
    (gap,) = gaps(gateway)
    assert (gap["reason"], gap["records"], gap["readings"]) == ("unknown", None, None)
    assert gap["to_ms"] - gap["from_ms"] > 500_000
    async with process(gateway):
        await until_recorded(gateway, eventually)
    assert len(gaps(gateway)) == 1, "an end in order leaves nothing unknown"


def _make_older(path: Path, seconds: int) -> None:
    """As if the machine had been off for so long: the last sign of life is older. Nothing was recorded since."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM record WHERE seq > 1")  # what the start said is as old as the rest
        data, chain = connection.execute("SELECT data, chain FROM record").fetchone()
        del chain
        from sitewarden.sync.record import genesis_chain, next_chain
        from sitewarden.words import utc_from_text, utc_text

        fields = json.loads(data)
        fields["at"]["utc"] = utc_text(utc_from_text(fields["at"]["utc"]) - seconds * 1000)
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        row = (text, next_chain(genesis_chain("gw1", fields["epoch"]), text))
        connection.execute("UPDATE record SET data = ?, chain = ?", row)
        connection.execute("UPDATE alive_last SET data = ?", (json.dumps(fields["at"]),))
        connection.commit()


# --- everybody is told ---


async def test_a_card_that_becomes_read_only_silences_nobody(
    tmp_path: Path, sensors: Sensors, real_card: Card, free_port, eventually: Eventually
) -> None:
    """ext4 gives up on a card: page, MQTT, siren, robot and SMS go on, marked; the next start has it all."""
    servers = RobotServers()
    robot = servers.groups["webhook"]
    with FakeModem(tmp_path) as modem:
        async with servers.running(), mosquitto.running(tmp_path / "broker") as broker:
            gateway = Gateway(tmp_path, free_port(), sensors, SITE + _told(tmp_path, servers, modem, broker))
            gateway.prepare()
            async with process(gateway):
                await until_recorded(gateway, eventually)
                real_card.fail()
                sensors.registers[1] = [800, 240]
                await until_unrecorded(gateway, eventually)
                last = await until_open(gateway, eventually, HUMID)
                await eventually(lambda: sensors.coils[0], "the siren", bound_s=BOUND_S)
                await eventually(lambda: _said(robot.taken), "the robot", bound_s=BOUND_S)
                await eventually(lambda: modem.messages, "the SMS", bound_s=BOUND_S)
                assert all(any(mark in text for mark in MARKS) for text in _said(robot.taken))
                assert any(mark in text for _, text in modem.messages for mark in MARKS)
                assert "not_recorded" in await _retained(broker, "sw/v1/s1/gw/gw1/status")
                assert (await _retained(broker, f"sw/v1/s1/alarm/{OWN}/state"))["priority"] == 2
                await _check_marks(gateway)
                told = len(robot.taken), len(modem.messages)
                await eventually(lambda: _delivered(tmp_path), "accepted, in memory", bound_s=BOUND_S)
            real_card.unmount()
            assert real_card.mount()
            async with process(gateway):
                await until_recorded(gateway, eventually)
                assert seen(await alarms(gateway)) == seen(last)
                assert "not_recorded" not in await _retained(broker, "sw/v1/s1/gw/gw1/status")
            of_it = [text for text in _said(robot.taken)[told[0] :] if "湿度" in text and "恢复" not in text]
            assert not of_it, "nobody is told again"
            assert not [text for _, text in modem.messages[told[1] :] if "湿度" in text]
    check_story(gateway)
    assert len(gaps(gateway)) == 1
    real_card.unmount()


def _told(folder: Path, servers: RobotServers, modem: FakeModem, broker: mosquitto.Mosquitto) -> str:
    (folder / "pw").write_text("secret", "utf-8")
    (folder / "pw").chmod(0o600)
    return f"""
[mqtt]
url = "mqtt://127.0.0.1:{broker.port}"
username = "gw"
password_file = "pw"
[alerts]
channels = ["robot", "sms", "post"]
group_wait_s = {{ 2 = 0.0 }}
[[channel]]
id = "robot"
kind = "webhook"
url = "{servers.url}/webhook/{TOKEN}"
roles = ["keeper"]
[[channel]]
id = "sms"
kind = "sms"
serial = "{modem.path}"
answer_s = 3.0
submit_s = 10.0
register_s = 5.0
pause_s = 0.1
pause_max_s = 1.0
[[channel]]
id = "post"
kind = "beacon"
parts = {{ siren = "store.relay.siren", red = "store.relay.lamp" }}
[[device]]
id = "relay"
area = "store"
bus = "plant"
unit_id = 200
profile = "relay_siren"
poll_s = 1.0
"""


def _said(taken: list[Any]) -> list[str]:
    return [json.dumps(message.body, ensure_ascii=False) for message in taken if HUMID in json.dumps(message.body)]


def _delivered(folder: Path) -> bool:
    (memory,) = (folder / "run").glob("memory-*/journal.db")
    sql = "SELECT count(*) FROM outbox WHERE state = 'PENDING' AND about = ?"
    return query(memory, sql, HUMID) == [(0,)]


async def _retained(broker: mosquitto.Mosquitto, topic: str) -> dict[str, Any]:
    known = aiomqtt.Client("127.0.0.1", broker.port, username="gw", password="secret")
    async with asyncio.timeout(BOUND_S), known as client:
        await client.subscribe(topic, qos=1)
        async for message in client.messages:
            return json.loads(bytes(message.payload))
    raise AssertionError(topic)


async def _check_marks(gateway: Gateway) -> None:
    """Metrics say it; a file is not taken in; so is nobody's name under a report."""
    async with gateway.page("li") as page, gateway.page("it") as it:
        assert await _put(page, b"photo") == (503, "not_recorded")
        async with it.http.get(f"http://127.0.0.1:{gateway.web}/metrics") as answer:
            assert "sitewarden_not_recorded 1" in await answer.text()
        headers = {"X-CSRF-Token": page.csrf}
        body = {"cause": "the fan stood still", "measure": "a new fan"}
        async with page.http.post(f"{page.base}/deviations/x/close", json=body, headers=headers) as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["hint"]


async def _put(page: Page, data: bytes) -> tuple[int, str]:
    import hashlib

    headers = {"X-CSRF-Token": page.csrf}
    url = f"{page.base}/blobs/{hashlib.sha256(data).hexdigest()}"
    async with page.http.put(url, data=data, headers=headers) as answer:
        return answer.status, (await answer.json())["error"]["reason"]


# --- a part of the disk ---


async def test_a_bad_place_under_the_history_costs_no_record(
    tmp_path: Path, sensors: Sensors, library: Path, free_port, eventually: Eventually
) -> None:
    gateway = Gateway(tmp_path, free_port(), sensors, SITE)
    gateway.prepare()
    place = BadDisk(library, tmp_path / "data" / "history.db-wal", tmp_path / "errno")
    async with process(gateway, *place.before()):
        await until_recorded(gateway, eventually)
        place.refuse(errno.EIO)

        def aside() -> list[Path]:
            return list((tmp_path / "data").glob("history.db.damaged-*"))

        await eventually(aside, "the history is kept aside", bound_s=BOUND_S)
        place.heal()
        await until_recorded(gateway, eventually)
        sensors.registers[1] = [800, 240]
        await until_open(gateway, eventually, HUMID)
        assert gateway.has(HUMID, "raised"), "on the disk, at once"
        (told,) = [r["body"] for r in gateway.records() if r["kind"] == "history.damaged"]
        assert told["kept_as"] in {path.name for path in aside()}
        assert query(tmp_path / "data" / "history.db", "SELECT count(*) FROM segment") == [(0,)], "a new file"
    check_story(gateway)


# --- the start ---


async def test_a_start_on_a_card_that_is_read_only_knows_what_was_open(
    tmp_path: Path, sensors: Sensors, real_card: Card, free_port, eventually: Eventually
) -> None:
    gateway = Gateway(tmp_path, free_port(), sensors, SITE)
    gateway.prepare()
    sensors.registers[1] = [800, 240]
    async with process(gateway):
        before = await until_open(gateway, eventually, HUMID)
    real_card.remount("ro")
    async with process(gateway):
        await until_unrecorded(gateway, eventually)
        found = await alarms(gateway)
        assert seen(found) == seen(before)
        assert await gateway.acknowledge(HUMID, "li") == "UNACK"
        real_card.remount("rw")
        await until_recorded(gateway, eventually)
    check_story(gateway)
    assert len(gaps(gateway)) == 1
    acked = gateway.records("alarm.acked")
    assert [(record["actor"], record["body"]["recovered"]) for record in acked] == [("li", True)]


async def test_a_disk_that_is_full_without_a_reserve(
    tmp_path: Path, sensors: Sensors, free_port, eventually: Eventually
) -> None:
    """Another program has eaten all of a small disk, and eats what is freed."""
    data = tmp_path / "data"
    data.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(data)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted as root")
    try:
        gateway = Gateway(tmp_path, free_port(), sensors, SITE + "[disk]\nreserve_mb = 0\n")
        gateway.prepare()
        async with process(gateway):
            await until_recorded(gateway, eventually)
            with (data / "other").open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            sensors.registers[1] = [800, 240]
            await until_unrecorded(gateway, eventually)
            last = await until_open(gateway, eventually, HUMID)
            (data / "other").unlink()
            await until_recorded(gateway, eventually)
            assert seen(await alarms(gateway)) == seen(last)
        check_story(gateway)
        assert len(gaps(gateway)) == 1
    finally:
        subprocess.run(["umount", "-l", str(data)], check=False)


# --- headquarters ---


async def test_headquarters_sees_the_alarms_and_gets_each_record_once(
    tmp_path: Path, sensors: Sensors, disk: BadDisk, free_port, eventually: Eventually
) -> None:
    from sitewarden.cloud.app import run_cloud
    from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
    from sitewarden.tests.peers.linked_site import running

    gateway = Gateway(tmp_path, free_port(), sensors)
    gateway.data.mkdir()
    key = load_or_create_key(gateway.data / "gateway.key")
    known = GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(key))
    config = CloudConfig(cloud=CloudTable(name="总部", name_en="HQ", port=0), gateway=(known,))
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    (tmp_path / "cloud").mkdir()
    async with running(run_cloud(config, tmp_path / "cloud", ready=up.set_result)):
        gateway.extra = SITE + f'[cloud]\nurl = "http://127.0.0.1:{await up}"\n'
        gateway.prepare()
        cloud = tmp_path / "cloud" / "cloud.db"
        async with process(gateway, *disk.before()):
            await until_recorded(gateway, eventually)
            await eventually(lambda: _at_headquarters(cloud) == _here(gateway), "all is there", bound_s=BOUND_S)
            disk.refuse()
            await until_unrecorded(gateway, eventually)
            sensors.registers[1] = [800, 240]
            await until_open(gateway, eventually, HUMID)
            await eventually(lambda: HUMID in _snapshot(cloud)[0], "headquarters sees it", bound_s=BOUND_S)
            assert _snapshot(cloud)[1], "and that it is not recorded"
            assert len(_at_headquarters(cloud)) <= len(_here(gateway)), "nothing of the memory is sent"
            disk.heal()
            await until_recorded(gateway, eventually)
            await eventually(lambda: gaps(gateway), "declared", bound_s=BOUND_S)
            await eventually(lambda: _at_headquarters(cloud) == _here(gateway), "all is there", bound_s=BOUND_S)
            await eventually(lambda: not _snapshot(cloud)[1], "recorded again", bound_s=BOUND_S)
        assert query(cloud, "SELECT count(*) FROM quarantine") == [(0,)]
        assert len(query(cloud, "SELECT DISTINCT epoch FROM ack WHERE stream = 'journal'")) == 1, "no fork"
        assert len(query(cloud, "SELECT DISTINCT epoch FROM snapshot_epoch")) == 1, "no second machine"


def _here(gateway: Gateway) -> list[bytes]:
    return [data for (data,) in query(gateway.journal, "SELECT data FROM record ORDER BY seq")]


def _at_headquarters(cloud: Path) -> list[bytes]:
    return [data for (data,) in query(cloud, "SELECT data FROM record ORDER BY seq")]


def _snapshot(cloud: Path) -> tuple[list[str], str]:
    """Ids of the open alarms and since when nothing is recorded, as the gateway said last."""
    rows = query(cloud, "SELECT body FROM snapshot_epoch ORDER BY at_ms DESC LIMIT 1")
    said = json.loads(rows[0][0]) if rows else {"alarms": [], "health": {}}
    return [alarm["id"] for alarm in said["alarms"]], said["health"].get("not_recorded", "")
