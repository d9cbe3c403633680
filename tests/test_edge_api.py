"""The gateway's API on a real socket: the daemon itself, with one Modbus stub and no broker, cloud or channel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import argon2
import pytest
from sitewarden.edge.app import run_edge
from sitewarden.edge.loops import again
from sitewarden.edge.pages import api
from sitewarden.errors import ConfigError, PermanentError
from sitewarden.serving import secrets as secrets_module
from sitewarden.serving.secrets import Secrets
from sitewarden.sync.journal import verify_file
from sitewarden.sync.sqlite import StoreError

HUMIDITY = "aux_store.th1.humidity"
ALARM = f"{HUMIDITY}.high"
PIN = "246813"
PEOPLE = """id,name,name_en,roles,areas,phone
li,李,Li,keeper,aux_store,
sun,孙,Sun,keeper,steaming,
wang,王,Wang,officer,*,
both,双,Both,keeper officer,aux_store,
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
[alerts]
required_acks = ["keeper", "officer"]
unreachable_ok = true
[[area]]
id = "aux_store"
name = "助剂库"
name_en = "Auxiliary store"
[[area]]
id = "steaming"
name = "蒸化车间"
name_en = "Steamer hall"
[[bus]]
id = "plant"
kind = "tcp"
host = "127.0.0.1"
port = {modbus}
[[device]]
id = "th1"
area = "aux_store"
bus = "plant"
unit_id = 1
profile = "rs_ws_n01"
poll_s = 0.1
[[alarm]]
point = "aux_store.th1.humidity"
hi = {hi}
hihi = {{ limit = 85.0, latching = true }}
on_delay_s = 0.0
off_delay_s = 0.0
"""


@dataclass
class Site:
    """A folder with a site, its stub device and its running daemon."""

    folder: Path
    port: int
    registers: list[int] = field(default_factory=lambda: [583, 241])
    modbus_port: int = 0
    said: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def config(self) -> Path:
        return self.folder / "site.toml"

    def write(self, hi: float = 75.0, extra: str = "", positions: Mapping[str, str] | None = None) -> None:
        text = SITE.format(port=self.port, modbus=self.modbus_port, hi=hi)
        for area, position in (positions or {}).items():
            text = text.replace(f'id = "{area}"\n', f'id = "{area}"\nposition = "{position}"\n')
        self.config.write_text(text + extra, "utf-8")
        (self.folder / "people.csv").write_text(PEOPLE, "utf-8")

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/{path}"

    async def start(self) -> None:
        self.said.clear()
        self.task = asyncio.create_task(run_edge(self.config, self.data, say=self.said.append), name="edge")
        async with asyncio.timeout(30):
            while not self.said:
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        done, _ = await asyncio.wait([self.task], timeout=30)
        assert done, "the daemon does not stop"

    async def serve_modbus(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(12)
                transaction, _, _, unit, function, address, count = struct.unpack(">HHHBBHH", head)
                words = struct.pack(f">{count}H", *(self.registers[address : address + count]))
                body = struct.pack(">BBB", unit, function, len(words)) + words
                writer.write(struct.pack(">HHH", transaction, 0, len(body)) + body)
        writer.close()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """PIN hashes cost what they must elsewhere."""
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(secrets_module, "_HASHER", cheap)


@pytest.fixture
async def site(tmp_path: Path, free_port, hashed: None) -> AsyncIterator[Site]:
    made = Site(tmp_path, free_port())
    server = await asyncio.start_server(made.serve_modbus, "127.0.0.1", 0)
    made.modbus_port = server.sockets[0].getsockname()[1]
    made.write()
    made.data.mkdir()
    secrets = Secrets(made.data / "secrets.db")
    for person in ("li", "sun", "wang", "both", "zhao"):
        secrets.set_pin(person, PIN)
    secrets.close()
    await made.start()
    try:
        yield made
    finally:
        if made.task is not None and not made.task.done():
            await made.stop()
        server.close()


class Page:
    """One signed-in person."""

    def __init__(self, site: Site, http: aiohttp.ClientSession) -> None:
        self.site = site
        self.http = http
        self.csrf = ""

    async def sign_in(self, person: str) -> None:
        status, answer = await self.ask("POST", "session", {"person": person, "pin": PIN})
        assert status == 200, answer
        self.csrf = answer["csrf"]

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"X-CSRF-Token": self.csrf} if method != "GET" else {}
        async with self.http.request(method, self.site.url(path), json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> Any:
        status, answer = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        status, answer = await self.ask(method, path, body)
        assert answer["error"]["message"], answer
        return status, answer["error"]["reason"]

    async def ack(self, occurrence: int, role: str | None = None) -> Any:
        status, answer = await self.ask("POST", f"alarms/{ALARM}/ack", {"occurrence": occurrence, "role": role})
        assert status == 200, answer
        return answer["alarm"]

    async def no_ack(self, occurrence: int, role: str | None = None, alarm: str = ALARM) -> tuple[int, str]:
        return await self.refused("POST", f"alarms/{alarm}/ack", {"occurrence": occurrence, "role": role})

    async def alarm(self) -> dict[str, Any] | None:
        found = [alarm for alarm in (await self.get("alarms"))["alarms"] if alarm["id"] == ALARM]
        return found[0] if found else None

    async def value(self, point: str = HUMIDITY) -> float | None:
        return {entry["id"]: entry["v"] for entry in (await self.get("points"))["points"]}.get(point)


@asynccontextmanager
async def signed_in(site: Site, person: str) -> AsyncIterator[Page]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        page = Page(site, http)
        await page.sign_in(person)
        yield page


async def in_state(page: Page, state: str | None) -> Any:
    alarm = await page.alarm()
    if state is None:
        return alarm is None
    return alarm if alarm is not None and alarm["state"] == state else None


async def push(site: Site, page: Page, value: float, state: str | None, eventually: Callable[..., Any]) -> Any:
    """Set the sensor and wait for the alarm to be in `state`; None: not in alarm."""
    site.registers[0] = round(value * 10)
    return await eventually(lambda: in_state(page, state), lambda: f"{ALARM} in {state}", every_s=0.02)


async def events(
    page: Page, last: int | None, until: int, names: tuple[str, ...] = ("alarm",), opened: asyncio.Event | None = None
) -> list[Any]:
    """(id, data) of live events up to event number `until`; `opened` is set at the first of them."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    found: list[Any] = []
    number, name = 0, ""
    async with asyncio.timeout(20), page.http.get(page.site.url("live"), headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        async for line in answer.content:
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key == "id":
                number = int(value)
            elif key == "event":
                name = value
            elif key == "data":
                if opened is not None:
                    opened.set()
                if name in names:
                    found.append((number, json.loads(value)))
                if number >= until:
                    return found
    raise AssertionError("the stream ended")


OF_THE_SESSION = [("GET", "session"), ("DELETE", "session")]
REQUESTS = [
    ("GET", "site"),
    ("GET", "points"),
    ("GET", f"points/{HUMIDITY}/trend"),
    ("GET", "alarms"),
    ("GET", "alarms/history"),
    ("GET", "alarms/history.csv"),
    ("GET", "alarms/statistics"),
    ("GET", "alarms/statistics.csv"),
    ("GET", f"history/chart?point={HUMIDITY}"),
    ("GET", f"history/export?point={HUMIDITY}"),
    ("GET", f"history/export/check?point={HUMIDITY}"),
    ("GET", "history/exports/12345678"),
    ("GET", "ladders"),
    ("GET", "notices"),
    ("GET", "deliveries"),
    ("GET", "status"),
    ("GET", "live"),
    *OF_THE_SESSION,
    ("POST", f"alarms/{ALARM}/ack"),
    ("POST", f"alarms/{ALARM}/reset"),
    ("POST", f"alarms/{ALARM}/shelve"),
    ("POST", f"alarms/{ALARM}/unshelve"),
    ("POST", f"alarms/{ALARM}/out-of-service"),
    ("POST", f"alarms/{ALARM}/in-service"),
    ("POST", "freezes/freeze/alarm/x/1/release"),
    ("POST", "deviations/deviation/alarm/x/1/close"),
    ("GET", "outputs"),
    ("POST", "outputs/aux_store.siren.horn"),
    ("POST", "config/reload"),
    ("POST", "silence"),
    ("GET", "proof"),
    ("POST", "proof"),
]


async def test_nothing_without_a_session(site: Site):
    async with aiohttp.ClientSession() as http:
        page = Page(site, http)
        for method, path in REQUESTS:
            assert await page.refused(method, path, {"occurrence": 1}) == (401, "signed_out"), path
        assert [person["id"] for person in await page.get("people")] == ["li", "sun", "wang", "both", "zhao"]
        http.cookie_jar.update_cookies({"sitewarden_edge": "forged"})
        assert await page.refused("GET", "alarms") == (401, "signed_out")


async def test_every_route_of_the_api_is_in_that_list(site: Site, monkeypatch: pytest.MonkeyPatch):
    """A new route must be named in REQUESTS."""
    added: list[str] = []

    class Router:
        def add_get(self, path: str, handler: Any) -> None:
            added.append(path)
            assert handler.__qualname__.startswith("signed_in."), path

        add_post = add_get

    class App:
        router = Router()

    pages = api.Pages.__new__(api.Pages)
    pages.add_to(App())  # type: ignore[arg-type]
    assert len(added) == len(REQUESTS) - len(OF_THE_SESSION)


async def test_silence_is_for_those_who_act_and_says_when_nothing_sounds(site: Site):
    async with signed_in(site, "li") as li:
        status, answer = await li.ask("POST", "silence", {})
        assert (status, answer["error"]["reason"]) == (409, "nothing_sounds")


async def test_site_points_status_and_trend(site: Site, eventually):
    async with signed_in(site, "zhao") as page:
        await eventually(lambda: page.value(), "a value")
        described = await page.get("site")
        assert described["site"] == {"id": "s1", "name": "印染", "name_en": "Dyeing"}
        assert described["gateway"]["id"] == "gw1"
        aux, steaming = described["areas"]
        assert (aux["id"], steaming["points"]) == ("aux_store", [])
        (humidity,) = [point for point in aux["points"] if point["id"] == HUMIDITY]
        assert humidity["limits"] == {"lolo": None, "lo": None, "hi": 75.0, "hihi": 85.0}
        assert {"name", "name_en", "unit", "quantity", "decimals", "stale_s"} <= set(humidity)
        (point,) = [point for point in (await page.get("points"))["points"] if point["id"] == HUMIDITY]
        assert (point["v"], point["q"]) == (58.3, "good")
        assert 0 <= point["age_s"] < 20
        status = await page.get("status")
        assert (status["link"]["state"], status["broker"]["state"]) == ("off", "off")
        assert status["buses"][0]["units"][0]["state"] == "ok"
        assert status["deliveries"] == {"pending": 0, "failing": 0}
        trend = await page.get(f"points/{HUMIDITY}/trend?minutes=1")
        assert trend["id"] == HUMIDITY
        assert {sample[1] for sample in trend["samples"]} == {58.3}
        assert await page.refused("GET", "points/aux_store.th1.nothing/trend") == (404, "no_such_point")


@pytest.mark.parametrize("text", ["0", "-1", "abc", "1.5", "9999999999999999999", "1e3", "%20", "٣٤٥٦٧٨", "9" * 5000])
async def test_bad_numbers_are_refused(site: Site, text: str):
    async with signed_in(site, "zhao") as page:
        assert await page.refused("GET", f"points/{HUMIDITY}/trend?minutes={text}") == (400, "bad_request")
        assert await page.refused("GET", f"alarms/history?limit={text}") == (400, "bad_request")
        if text != "٣٤٥٦٧٨":
            assert await page.refused("GET", f"alarms/history?before={text}") == (400, "bad_request")


async def test_roles_and_areas(site: Site, eventually):
    async with signed_in(site, "zhao") as zhao, signed_in(site, "sun") as sun, signed_in(site, "li") as li:
        alarm = await push(site, zhao, 80.0, "UNACK", eventually)
        occurrence = alarm["occurrence"]
        assert await zhao.no_ack(occurrence) == (403, "not_your_role")
        assert await zhao.no_ack(occurrence, "control_room") == (409, "role_not_required")
        assert await sun.no_ack(occurrence) == (403, "not_your_area"), "keeper of another area"
        assert await li.no_ack(occurrence, "officer") == (403, "not_your_role")
        assert await li.no_ack(occurrence, "emperor") == (403, "not_your_role")
        assert await li.no_ack(1, alarm="aux_store.th1.humidity.sideways") == (404, "no_such_alarm")
        assert await li.refused("POST", f"alarms/{ALARM}/reset", {"occurrence": occurrence}) == (403, "not_your_role")
        assert await li.refused("POST", "alarms/x/reset", {"occurrence": 1}) == (404, "no_such_alarm")
        assert (await li.alarm() or {})["acks"] == []


async def test_both_must_acknowledge_and_twice_is_once(site: Site, eventually):
    async with signed_in(site, "li") as li, signed_in(site, "wang") as wang, signed_in(site, "both") as both:
        occurrence = (await push(site, li, 80.0, "UNACK", eventually))["occurrence"]
        assert await li.no_ack(occurrence - 1) == (409, "old_occurrence")
        assert await li.no_ack(occurrence + 1) == (409, "old_occurrence")
        answers = await asyncio.gather(*(li.ack(occurrence) for _ in range(5)))
        for answer in answers:
            assert [(ack["role"], ack["person"], ack["name"]) for ack in answer["acks"]] == [("keeper", "li", "李")]
            assert answer["state"] == "UNACK"
        assert await both.no_ack(occurrence, "keeper") == (409, "already_acked")
        assert (await wang.ack(occurrence, "officer"))["state"] == "ACKED"
        assert (await wang.ack(occurrence))["state"] == "ACKED"
        history = (await li.get("alarms/history"))["events"]
        acks = [(event["kind"], event["actor"], event["actor_name"]) for event in history if "acked" in event["kind"]]
        assert acks == [("alarm.acked", "wang", "王"), ("alarm.acked", "li", "李")], "newest first, each once"


async def test_one_person_cannot_be_two(site: Site, eventually):
    async with signed_in(site, "both") as both:
        occurrence = (await push(site, both, 80.0, "UNACK", eventually))["occurrence"]
        assert [ack["role"] for ack in (await both.ack(occurrence))["acks"]] == ["keeper"]
        assert await both.no_ack(occurrence, "officer") == (409, "distinct_persons")
        assert [ack["role"] for ack in (await both.ack(occurrence, "keeper"))["acks"]] == ["keeper"]


async def test_an_alarm_that_is_not_on_cannot_be_acknowledged(site: Site, eventually):
    async with signed_in(site, "li") as li, signed_in(site, "wang") as wang:
        await eventually(lambda: li.value(), "a value")
        assert await li.no_ack(0) == (409, "not_in_alarm")
        first = await push(site, li, 80.0, "UNACK", eventually)
        await li.ack(first["occurrence"])
        await wang.ack(first["occurrence"])
        await push(site, li, 60.0, None, eventually)
        assert await li.no_ack(first["occurrence"]) == (409, "not_in_alarm")
        second = await push(site, li, 80.0, "UNACK", eventually)
        assert second["acks"] == []
        assert await li.no_ack(first["occurrence"]) == (409, "old_occurrence")


async def test_a_latched_alarm_is_reset_by_the_officer(site: Site, eventually):
    async with signed_in(site, "li") as li, signed_in(site, "wang") as wang:
        alarm = await push(site, li, 90.0, "UNACK", eventually)
        body = {"occurrence": alarm["occurrence"]}
        assert await wang.refused("POST", f"alarms/{ALARM}/reset", body) == (409, "still_on")
        await push(site, li, 60.0, "LATU", eventually)
        assert await wang.refused("POST", f"alarms/{ALARM}/reset", body) == (409, "ack_first")
        await li.ack(alarm["occurrence"])
        assert (await wang.ack(alarm["occurrence"]))["state"] == "LATA"
        assert await wang.refused("POST", f"alarms/{ALARM}/reset", {"occurrence": 999}) == (409, "old_occurrence")
        status, answer = await wang.ask("POST", f"alarms/{ALARM}/reset", body)
        assert (status, answer["alarm"]["state"]) == (200, "NORM")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"occurrence": "1"},
        {"occurrence": True, "role": None},
        {"occurrence": 1, "role": 5},
        {"role": None},
    ],
)
async def test_bad_bodies_are_refused(site: Site, body: Any):
    async with signed_in(site, "li") as li:
        assert await li.refused("POST", f"alarms/{ALARM}/ack", body) == (400, "bad_request")
        li.csrf = "forged"
        assert await li.refused("POST", f"alarms/{ALARM}/ack", {"occurrence": 1, "role": None}) == (403, "csrf")


async def test_history_in_pages(site: Site, eventually):
    async with signed_in(site, "li") as li:
        for _ in range(4):
            await push(site, li, 80.0, "UNACK", eventually)
            await push(site, li, 60.0, "RTNUN", eventually)
        everything = (await li.get("alarms/history?limit=500"))["events"]
        seqs = [event["seq"] for event in everything]
        assert len(seqs) == 8
        assert seqs == sorted(seqs, reverse=True)
        paged: list[int] = []
        before = ""
        while page := (await li.get(f"alarms/history?limit=3{before}"))["events"]:
            assert len(page) <= 3
            paged += [event["seq"] for event in page]
            before = f"&before={paged[-1]}"
        assert paged == seqs
        assert all(event["alarm"]["rev"] == event["seq"] for event in everything)


async def test_a_page_that_comes_back_misses_nothing(site: Site, monkeypatch: pytest.MonkeyPatch, eventually):
    """Also when more has happened than is read from the journal at once."""
    monkeypatch.setattr(api, "REPLAY_AT_ONCE", 2)
    async with signed_in(site, "li") as li:
        for _ in range(4):
            await push(site, li, 80.0, "UNACK", eventually)
            await push(site, li, 60.0, "RTNUN", eventually)
        history = [event["seq"] for event in (await li.get("alarms/history"))["events"]][::-1]
        for last in (0, history[0], history[3]):
            replayed = await events(li, last, history[-1])
            assert [number for number, _ in replayed] == [seq for seq in history if seq > last]
        assert replayed[0][1]["alarm"]["id"] == ALARM
        assert await events(li, history[-1], 0, ("hello",)) != []
        for odd in ("abc", "-5", "9" * 30):
            async with li.http.get(site.url("live"), headers={"Last-Event-ID": odd}) as answer:
                assert (await answer.content.readline()).startswith(b"event: hello")


async def test_live_tells_values_alarms_and_status(site: Site, eventually):
    async with signed_in(site, "li") as li:
        await eventually(lambda: li.value(), "a value")
        opened = asyncio.Event()
        task = asyncio.create_task(events(li, None, 1, ("hello", "values", "status", "alarm"), opened))
        await asyncio.wait_for(opened.wait(), 20)
        alarm = await push(site, li, 80.0, "UNACK", eventually)
        live = await task
        data = live[-1][1]
        assert (live[-1][0], data["kind"], data["alarm"]["state"]) == (alarm["rev"], "alarm.raised", "UNACK")
        names = [set(found) for _, found in live[:3]]
        assert names[0] == {"seq", "time"}
        assert names[1] == {"points"}
        assert "journal" in names[2]


async def test_an_open_page_does_not_hold_up_the_end(site: Site, eventually):
    async with signed_in(site, "li") as li, li.http.get(site.url("live")) as answer:
        await answer.content.readline()
        await site.stop()
    assert verify_file(site.data / "journal.db").bad_seq is None


async def test_one_daemon_for_one_folder(site: Site, free_port):
    other = Site(site.folder, free_port(), modbus_port=site.modbus_port)
    other.write()
    with pytest.raises(PermanentError, match="another gateway daemon uses this folder"):
        await run_edge(other.config, site.data)
    async with signed_in(site, "li") as li:
        assert (await li.get("status"))["journal"]["seq"] >= 1


async def test_a_port_in_use_says_so_and_leaves_no_trace(site: Site, tmp_path: Path):
    """systemd tries again every two seconds: the journal must not fill with starts that were none."""
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"web\.port: cannot listen on 127\.0\.0\.1:{site.port}.*another port"):
            await run_edge(site.config, tmp_path / "other")
    assert not (tmp_path / "other" / "journal.db").exists()


async def test_start_stop_and_what_was_open_goes_on(site: Site, eventually):
    async with signed_in(site, "li") as li:
        alarm = await push(site, li, 80.0, "UNACK", eventually)
        await li.ack(alarm["occurrence"])
    await site.stop()
    await site.start()
    async with signed_in(site, "li") as li, signed_in(site, "wang") as wang:
        again = await li.alarm()
        assert again is not None
        assert (again["occurrence"], again["state"]) == (alarm["occurrence"], "UNACK")
        assert [ack["role"] for ack in again["acks"]] == ["keeper"]
        assert (await wang.ack(alarm["occurrence"]))["state"] == "ACKED"
        history = [event["kind"] for event in (await li.get("alarms/history"))["events"]]
        assert history.count("alarm.raised") == 1, "still true: no new raise"


async def test_a_clock_that_went_back_while_the_machine_was_off_is_recorded(site: Site, eventually):
    async with signed_in(site, "li") as li:
        await push(site, li, 80.0, "UNACK", eventually)
    await site.stop()
    with contextlib.closing(sqlite3.connect(site.data / "journal.db")) as db, db:
        (text,) = db.execute("SELECT data FROM alive_last").fetchone()
        later = {**json.loads(text), "utc": "2099-01-01T00:00:00.000Z", "boot": "another"}
        db.execute("UPDATE alive_last SET data = ?", (json.dumps(later),))
    await site.start()

    def stored() -> list[str]:
        with contextlib.closing(sqlite3.connect(site.data / "journal.db")) as db:
            return [kind for (kind,) in db.execute("SELECT kind FROM record ORDER BY seq")]

    await eventually(lambda: "ladder.step" in stored(), "a rung is climbed early")
    kinds = stored()
    assert kinds.count("clock.behind") == 1
    assert kinds[kinds.index("clock.behind") :].count("ladder.step") == 1, (
        "told early: nobody knows how long it was off"
    )


async def test_an_alarm_whose_limit_was_raised_or_taken_out(site: Site, eventually):
    async with signed_in(site, "li") as li:
        await push(site, li, 80.0, "UNACK", eventually)
    await site.stop()
    site.write(hi=83.0)  # 80 is below the new limit and its deadband
    await site.start()
    async with signed_in(site, "li") as li:
        assert await eventually(lambda: in_state(li, "RTNUN"), "it returns by the new limit")
        site.registers[0] = 800
    await site.stop()
    text = site.config.read_text("utf-8")
    site.config.write_text(text[: text.index("[[alarm]]")], "utf-8")
    await site.start()
    async with signed_in(site, "li") as li:
        assert await eventually(lambda: in_state(li, None), "closed")
        newest = (await li.get("alarms/history"))["events"][0]
        assert (newest["kind"], newest["reason"], newest["alarm"]["state"]) == ("alarm.closed", "rule_removed", "NORM")
        assert await li.no_ack(newest["alarm"]["occurrence"]) == (404, "no_such_alarm")


async def test_a_source_that_fails_starts_again_and_its_pause_never_starves_the_watchdog(monkeypatch):
    pauses_s: list[float] = []
    calls = 0

    async def run() -> None:
        nonlocal calls
        calls += 1
        if calls > 12:
            raise asyncio.CancelledError
        raise ValueError("a defect")

    async def sleep(pause_s: float) -> None:
        pauses_s.append(pause_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await again("bus x", run)()
    assert len(pauses_s) == 12
    assert max(pauses_s) <= 15.0
    assert pauses_s[0] <= 1.0


@pytest.mark.parametrize("error", [StoreError("disk"), BaseExceptionGroup("g", [StoreError("disk")])])
async def test_the_stores_error_goes_through(error: BaseException):
    async def run() -> None:
        raise error

    with pytest.raises((StoreError, BaseExceptionGroup)):
        await again("uplink", run)()
