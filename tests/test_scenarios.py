"""Scenarios 6 and 10 of docs/alarms.md on the whole daemon, in virtual time: everything in it is real but the clock."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import argon2
import pytest
from sitewarden.edge import app as app_module
from sitewarden.edge import dashboards as dashboards_module
from sitewarden.edge import faults as faults_module
from sitewarden.edge import front as front_module
from sitewarden.edge import pipeline as pipeline_module
from sitewarden.edge.alerts import beacon as beacon_module
from sitewarden.edge.alerts import outbox as outbox_module
from sitewarden.edge.ladders import alive as alive_module
from sitewarden.serving import secrets as secrets_module
from sitewarden.serving.notify import Notifier
from sitewarden.sync.cloud_client import UplinkOptions
from sitewarden.tests.peers.alert_doubles import in_virtual_time
from sitewarden.tests.peers.robot_servers import TOKEN, Group, RobotServers
from sitewarden.tests.peers.virtual_time import START_S, within
from sitewarden.tests.peers.whole_gateway import (
    DEVICE,
    QUIET,
    Gateway,
    Sensors,
    alarm_toml,
    everything_told,
    import_everything,
    query,
    reconcile,
)
from sitewarden.words import utc_from_text

MINUTE, HOUR = 60.0, 3600.0
HUMIDITY, TEMPERATURE = "store.th1.humidity", "store.th1.temperature"
HUMID, WARM, HOT = f"{HUMIDITY}.high", f"{TEMPERATURE}.high", "store.th2.temperature.high"

RELAY = """
[[device]]
id = "relay"
area = "store"
bus = "plant"
unit_id = 200
profile = "relay_siren"
poll_s = 60.0
[[channel]]
id = "post"
kind = "beacon"
parts = { siren = "store.relay.siren", red = "store.relay.lamp" }
refresh_s = 60.0
"""
DEAD_LINKS = """
[mqtt]
url = "mqtt://127.0.0.1:{broker}"
[cloud]
url = "http://127.0.0.1:{cloud}"
"""


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """PIN hashes cost what they must elsewhere; everything is imported."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(secrets_module, "_HASHER", hasher)
    import_everything()


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day has fewer turns: loops look every 5 or 60 s, and what is not there is asked for every five minutes."""
    turns = {
        5.0: ((pipeline_module, "TICK_S"), (faults_module, "LOOK_S"), (beacon_module, "_TICK_S")),
        60.0: ((pipeline_module, "_BEAT_S"), (outbox_module, "_TURN_S"), (alive_module, "EVERY_S")),
        300.0: ((dashboards_module, "_PAUSE_CAP_S"), (app_module, "_CLOCK_EVERY_S")),
    }
    for seconds, names in turns.items():
        for module, name in names:
            monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(front_module, "UplinkOptions", functools.partial(UplinkOptions, backoff_max_s=300.0))


def since_start_s() -> float:
    return asyncio.get_running_loop().time() - START_S


async def until_s(at_s: float) -> None:
    """That moment of the day."""
    await asyncio.sleep(max(0.0, at_s - since_start_s()))


def webhook(servers: RobotServers, **keys: Any) -> str:
    lines = ["[[channel]]", 'id = "hall"', 'kind = "webhook"', f'url = "{servers.url}/webhook/{TOKEN}"']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items()), ""])


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    in_virtual_time(main)


@pytest.mark.usefixtures("cheap", "coarse")
@pytest.mark.parametrize("hours", [13, pytest.param(24, marks=pytest.mark.soak)])
def test_scenario_10_a_day_without_headquarters_and_broker(tmp_path: Path, free_port, hours: int) -> None:
    async def main() -> None:
        servers, sensors = RobotServers(), Sensors()
        async with servers.running(), sensors.serving():
            site = [
                DEVICE.format(unit=1, poll_s=60.0),
                DEVICE.format(unit=2, poll_s=60.0),
                RELAY,
                webhook(servers),
                '[alerts]\nchannels = ["hall", "post"]\n',
                DEAD_LINKS.format(broker=free_port(), cloud=free_port()),
                alarm_toml(HUMIDITY, hi="{ limit = 75.0, priority = 3 }"),
                alarm_toml(TEMPERATURE, hi="{ limit = 35.0, priority = 3 }"),
                alarm_toml("store.th2.temperature", hi="{ limit = 60.0, priority = 1 }"),
            ]
            gateway = Gateway(tmp_path, free_port(), sensors, "".join(site))
            gateway.prepare()
            async with gateway.running():
                await _day(gateway, sensors, servers, hours)
        assert reconcile(gateway) >= 1

    run(main)


async def _day(gateway: Gateway, sensors: Sensors, servers: RobotServers, hours: int) -> None:
    told = servers.groups["webhook"].taken
    await until_s(0.5 * HOUR)
    sensors.registers[1][0] = 800
    await within(2 * MINUTE, lambda: _persons(told, HUMID) == {"li", "wang"}, lambda: f"both are told: {told}")
    await until_s(1 * HOUR)
    assert await gateway.acknowledge(HUMID, "li") == "UNACK", "one of two"
    assert await gateway.acknowledge(HUMID, "wang") == "ACKED"
    sensors.registers[1][0] = QUIET[0]
    await within(2 * MINUTE, lambda: gateway.has(HUMID, "closed"), lambda: "closed")
    await _ladder_to_freeze(gateway, sensors, told)
    await _siren(gateway, sensors)
    await until_s(hours * HOUR)
    async with gateway.page("zhao") as page:
        status = await page.get("status")
        assert (status["link"]["state"], status["broker"]["state"]) == ("down", "down")
        assert status["link"]["backlog_records"] == status["journal"]["seq"], "everything waits for headquarters"
        assert status["deliveries"] == {"pending": 0, "failing": 0}
    raised = Counter(record["body"]["alarm"]["id"] for record in gateway.records("alarm.raised"))
    others = {name: n for name, n in raised.items() if not name.endswith(".frozen")}  # registers of a bench stand
    assert others == {HUMID: 1, WARM: 1, HOT: 1, "system.broker_down": 1}, "nothing is overdue, nothing undelivered"
    assert everything_told(gateway.journal)


async def _ladder_to_freeze(gateway: Gateway, sensors: Sensors, told: list[Any]) -> None:
    """Nobody acknowledges: red after 2 h, the vice president after 4 h, frozen after 8 h; released in the 11th."""
    await until_s(2 * HOUR)
    sensors.registers[1][1] = 400
    await until_s(11 * HOUR)
    (raised,) = gateway.of_alarm(WARM, "alarm.raised")
    steps = [step["body"] for step in gateway.records("ladder.step") if step["body"]["ladder"]["subject"]["id"] == WARM]
    assert [step["step"]["rung"]["at_s"] for step in steps] == [2 * HOUR, 4 * HOUR, 8 * HOUR]
    assert not any(step["step"]["late_s"] for step in steps)
    (frozen,) = gateway.records("freeze.set")
    assert frozen["at"]["mono"] - raised["at"]["mono"] == pytest.approx(8 * HOUR, abs=10)
    assert len(gateway.records("deviation.opened")) == 1
    assert "chen" in {message.body["person"] for message in told}
    assert await gateway.acknowledge(WARM, "wang", "li") == "ACKED"
    sensors.registers[1][1] = QUIET[1]
    await within(2 * MINUTE, lambda: gateway.has(WARM, "closed"), lambda: "closed")
    async with gateway.page("chen") as page:
        (freeze,) = (await page.get("ladders"))["freezes"]
        assert freeze["released"] is None, "an alarm that is over releases nothing"
        answer = await page.post(f"freezes/{freeze['id']}/release", {"reason": "ventilated and checked"})
        assert answer["freeze"]["released"]["person"] == "chen"


async def _siren(gateway: Gateway, sensors: Sensors) -> None:
    """Priority 1 sounds at the post and is silent when it was acknowledged and is over."""
    await until_s(12 * HOUR)
    assert not sensors.coils[0]
    sensors.registers[2][1] = 700
    await within(2 * MINUTE, lambda: sensors.coils[0], lambda: f"the siren sounds: {sensors.coils}")
    assert await gateway.acknowledge(HOT, "wang", "li") == "ACKED"
    await within(2 * MINUTE, lambda: not sensors.coils[0], lambda: "it is silent")
    sensors.registers[2][1] = QUIET[1]
    await within(2 * MINUTE, lambda: gateway.has(HOT, "closed"), lambda: "closed")


@pytest.mark.usefixtures("cheap")
def test_scenario_10_a_wedged_outbox_withholds_the_watchdogs_ping_and_is_an_alarm(
    tmp_path: Path, free_port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    pings: list[float] = []

    async def main() -> None:
        monkeypatch.setattr(
            Notifier, "tell", lambda _, text: pings.append(since_start_s()) if "WATCHDOG" in text else None
        )
        servers, sensors = RobotServers(), Sensors()
        async with servers.running(), sensors.serving():
            site = [
                DEVICE.format(unit=1, poll_s=5.0),
                webhook(servers),
                '[alerts]\nchannels = ["hall"]\nunreachable_ok = true\n',
                alarm_toml(HUMIDITY, hi="{ limit = 75.0, priority = 2 }"),
            ]
            gateway = Gateway(tmp_path, free_port(), sensors, "".join(site))
            gateway.prepare()
            async with gateway.running():
                await until_s(60)
                assert len(pings) >= 4, "it is fed"
                (outbox,) = [task for task in asyncio.all_tasks() if task.get_name() == "outbox"]
                outbox.cancel()
                sensors.registers[1][0] = 800
                overdue = "system.ladder_overdue"
                await within(6 * MINUTE, lambda: gateway.has(overdue, "raised"), lambda: "the auditor sees it")
                assert max(pings) < 60 + 30 + 15, "systemd starts it again"
                assert servers.groups["webhook"].taken == []
            sensors.registers[1][0] = QUIET[0]
            async with gateway.running():
                await within(MINUTE, lambda: servers.groups["webhook"].taken, lambda: "told by the next process")
        reconcile(gateway)

    run(main)


def _persons(told: list[Any], alarm_id: str) -> set[str]:
    return {m.body["person"] for m in told if (m.body["facts"].get("alarm") or {}).get("id") == alarm_id}


# --- scenario 6 ---

UNITS, EVERY_S, POLL_S = 150, 0.33, 10.0
URGENT = frozenset(range(10, UNITS + 1, 15))
"""Units whose temperature has priority 1."""
FLOOD = "system.flood.control_room"


class Clocked(Group):
    """A group whose vendor counts in the loop's time."""

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()


class Arrivals(list[Any]):
    """What came, each message with the time at which it came."""

    def append(self, message: Any) -> None:
        super().append((asyncio.get_running_loop().time(), message.body))

    def __iter__(self) -> Any:
        return iter(())  # the receiver drops what it has by key; the gateway must not need that


@pytest.mark.usefixtures("cheap")
def test_scenario_6_three_hundred_alarms_in_a_minute_on_the_whole_gateway(
    tmp_path: Path, free_port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "TICK_S", 2.0)
    servers, sensors = RobotServers(), Sensors()
    robot, arrivals = Clocked(), Arrivals()
    servers.groups |= {"wecom": robot, "webhook": arrivals_group(arrivals)}
    gateway = Gateway(tmp_path, free_port(), sensors)
    asked: list[dict[str, Any]] = []

    async def main() -> None:
        async with servers.running(), sensors.serving():
            gateway.extra = _stormy_site(tmp_path, servers)
            gateway.prepare()
            async with gateway.running():
                await until_s(MINUTE)
                for unit in range(1, UNITS + 1):
                    sensors.registers[unit] = [800, 400]
                    await asyncio.sleep(EVERY_S)
                await within(30 * MINUTE, lambda: gateway.has(FLOOD, "returned"), lambda: "the flood is over")
                async with gateway.page("zhao") as page:
                    whole = "from=2027-01-15T08:00:00Z&to=2027-01-15T09:00:00Z"
                    asked.append(await page.get(f"alarms/statistics?{whole}"))

    run(main)
    reconcile(gateway)
    raised = [record for record in gateway.records("alarm.raised") if "system." not in record["body"]["alarm"]["id"]]
    assert len(raised) == 2 * UNITS
    span_s = raised[-1]["at"]["mono"] - raised[0]["at"]["mono"]
    assert span_s <= MINUTE, span_s
    _check_urgent_ones(raised, arrivals)
    _check_digests(gateway, robot)
    asked_s = list(robot.asked_at_s)
    assert len(robot.taken) > 20
    assert all(sum(at <= other < at + 60 for other in asked_s) <= 18 for at in asked_s), "18 in any minute"
    _check_flood(gateway, raised)
    _check_statistics(gateway, asked[0])


def arrivals_group(arrivals: Arrivals) -> Group:
    return Group(taken=arrivals)


def _stormy_site(folder: Path, servers: RobotServers) -> str:
    key = folder / "wecom.key"
    key.write_text(TOKEN, "utf-8")
    key.chmod(0o600)
    robot = f'[[channel]]\nid = "group"\nkind = "wecom"\nkey_file = "wecom.key"\nbase_url = "{servers.base("wecom")}"\n'
    site = [webhook(servers), robot, '[alerts]\nchannels = ["group", "hall"]\nunreachable_ok = true\n']
    for unit in range(1, UNITS + 1):
        site.append(DEVICE.format(unit=unit, poll_s=POLL_S))
        site.append(alarm_toml(f"store.th{unit}.humidity", hi="{ limit = 75.0, priority = 3 }"))
        priority = 1 if unit in URGENT else 2 if unit % 3 == 0 else 3
        site.append(alarm_toml(f"store.th{unit}.temperature", hi=f"{{ limit = 35.0, priority = {priority} }}"))
    return "".join(site)


def _check_urgent_ones(raised: list[dict[str, Any]], arrivals: Arrivals) -> None:
    """Each is told by itself, within 2 s, to the keeper and to the officer."""
    came = list(list.__iter__(arrivals))
    for record in raised:
        alarm = record["body"]["alarm"]
        if alarm["priority"] != 1:
            continue
        own = [
            (at, body) for at, body in came if body["number"] == alarm["occurrence"] and at < record["at"]["mono"] + 2
        ]
        assert {body["person"] for _, body in own} == {"li", "wang"}, (alarm["id"], own)
        assert not any("others" in body["facts"] for _, body in own)


def _check_digests(gateway: Gateway, group: Clocked) -> None:
    """Few messages stand for many, and each names the alarm in it that came first, whatever its priority."""
    texts = [message.text for message in group.taken if "【汇总】" in message.text]
    assert 3 <= len(texts) < 20
    assert not any("【一级】" in text for text in texts), "priority 1 is always alone"
    batches: dict[str, list[tuple[int]]] = {}
    sql = "SELECT occurrence FROM outbox WHERE key = ?"
    for record in gateway.records("delivery.accepted"):
        if record["body"]["channel"] == "group":
            batches.setdefault(record["body"]["batch"], []).extend(query(gateway.journal, sql, record["body"]["key"]))
    firsts = [min(rows)[0] for rows in batches.values() if len(rows) > 1]
    named = [int(text.partition("首报号")[2].partition("。")[0]) for text in texts]
    assert sorted(named) == sorted(firsts)


def _check_flood(gateway: Gateway, raised: list[dict[str, Any]]) -> None:
    """It names the first alarm, and ends when fewer than five were told in ten minutes."""
    (begun,), (over,) = gateway.of_alarm(FLOOD, "alarm.raised"), gateway.of_alarm(FLOOD, "alarm.returned")
    assert raised[0]["body"]["alarm"]["id"] in begun["body"]["alarm"]["name_en"]
    told_s = [record["at"]["mono"] for record in raised]
    assert told_s[10] <= begun["at"]["mono"] <= told_s[10] + 5, "the eleventh"
    assert told_s[-5] + 600 <= over["at"]["mono"] <= told_s[-5] + 605, "four are left"


def _check_statistics(gateway: Gateway, asked: dict[str, Any]) -> None:
    """Against a count by other means, of the records themselves."""
    (numbers,) = asked["positions"]
    begin_ms = utc_from_text(asked["from"])
    kinds = ("alarm.raised", "alarm.reraised", "alarm.reopened")
    all_told = [(utc_from_text(record["at"]["utc"]), record["body"]["alarm"]) for record in gateway.records(*kinds)]
    told = [(at_ms, alarm) for at_ms, alarm in all_told if not alarm["id"].startswith("system.")]
    assert numbers["system"] == len(all_told) - len(told) > 0, "the flood itself at least"
    tens = Counter((at_ms - begin_ms) // 600_000 for at_ms, _ in told)
    by_priority = Counter(alarm["priority"] for _, alarm in told)
    often = sorted(Counter(alarm["id"] for _, alarm in told).values(), reverse=True)
    assert numbers["annunciated"] == len(told)
    assert numbers["profile"] == [tens[n] for n in range(6)]
    assert numbers["peak"] == max(tens.values())
    assert numbers["per_10_min"] == pytest.approx(len(told) / 6, abs=0.001)
    assert numbers["busy_periods_pct"] == pytest.approx(100 * sum(n > 10 for n in tens.values()) / 6, abs=0.01)
    assert numbers["top_ten_pct"] == pytest.approx(100 * sum(often[:10]) / len(told), abs=0.05)
    shares = {str(priority): 100 * n / len(told) for priority, n in by_priority.items()}
    assert numbers["priority_pct"] == pytest.approx(shares, abs=0.05)
    told_ms = [at_ms for at_ms, _ in told]
    (flood,) = numbers["flood_list"]
    assert (utc_from_text(flood["from"]), flood["first_out"]) == (told_ms[10], told[0][1]["id"])
    assert utc_from_text(flood["to"]) == told_ms[-5] + 600_000
    assert numbers["flood_pct"] == pytest.approx((told_ms[-5] + 600_000 - told_ms[10]) / 36_000, abs=0.01)
    assert (numbers["floods"], numbers["chattering"], numbers["standing"]) == (1, [], [])
