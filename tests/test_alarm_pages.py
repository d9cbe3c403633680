"""The API behind the alarm pages: list, shelving, history, statistics, ladders, delivery log. On a running gateway."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import argon2
import pytest
from sitewarden.edge.alarms import history_query, load
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.overlay import Overlay, OverlayKind
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alarms.statistics import DEFINITIONS, Event, count
from sitewarden.edge.ladders import reports
from sitewarden.edge.ladders import table as ladder_table
from sitewarden.edge.ladders.climb import Climb, Subject
from sitewarden.edge.ladders.freeze import of_ladder
from sitewarden.edge.ladders.plan import PRESETS
from sitewarden.edge.pages import api, csv_file, history_api
from sitewarden.errors import RefusedError
from sitewarden.serving import secrets as secrets_module
from sitewarden.serving.secrets import Secrets
from sitewarden.sync.journal import Draft, Journal
from sitewarden.tests.test_edge_api import ALARM, PIN, Page, Site, push, signed_in
from sitewarden.words import ClockState, Instant, Quality, Reading, now, utc_from_text, utc_text

BASE_MS = 1_780_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
PEOPLE = ("li", "sun", "wang", "both", "zhao")
LADDER = PRESETS["standard"]


# --- a gateway that has seen something before it starts ---


@pytest.fixture
async def begin(tmp_path, free_port, monkeypatch) -> AsyncIterator[Callable[..., Any]]:
    """`site = await begin(drafts)`: a running gateway whose journal holds `drafts` already."""
    monkeypatch.setattr(secrets_module, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    made = Site(tmp_path, free_port())
    server = await asyncio.start_server(made.serve_modbus, "127.0.0.1", 0)
    made.modbus_port = server.sockets[0].getsockname()[1]

    async def start(drafts: Iterable[Draft] = (), extra: str = "", **changes: Any) -> Site:
        made.write(extra=extra, **changes)
        made.data.mkdir()
        secrets = Secrets(made.data / "secrets.db")
        for person in PEOPLE:
            secrets.set_pin(person, PIN)
        secrets.close()
        tables = (alarm_table.TABLE, history_query.TABLE, reports.TABLE, ladder_table.TABLE)
        async with Journal(made.data / "journal.db", "gw1", tables) as journal:
            await journal.append(list(drafts))
        await made.start()
        return made

    try:
        yield start
    finally:
        if made.task is not None and not made.task.done():
            await made.stop()
        server.close()


def at(at_s: float) -> Instant:
    return Instant(utc_ms=BASE_MS + round(at_s * 1000), mono_s=at_s, boot="b0", clock=ClockState.SYNCED)


def rules(area: str, number: int, name: str) -> tuple[Rule, ...]:
    point = f"{area}.gone{number}.value"
    hi = Level(kind=Kind.HI, limit=75, deadband=2, priority=3)
    hihi = Level(kind=Kind.HIHI, limit=90, deadband=2, priority=1, latching=True)
    levels = {Side.HIGH: (hi, hihi), Side.LOW: (Level(kind=Kind.LO, limit=20, deadband=2, priority=2),)}
    return tuple(
        Rule(
            id=f"{point}.{side}",
            point=point,
            area=area,
            side=side,
            name=f"{name}{side}",
            name_en=f"Value_{number}% {side}",
            unit="%RH",
            levels=of,
            repeat_s={},
            realarm_s={},
        )
        for side, of in levels.items()
    )


RULES = tuple(
    rule
    for area, name in (("aux_store", "=湿度"), ("steaming", "温度"))
    for number in range(3)
    for rule in rules(area, number, name)
)


def past(seed: int = 4, hours: float = 60, steps: int = 900) -> list[Draft]:
    """What an engine made of random readings, acknowledgements and shelves, two days and a half of them."""
    chance = random.Random(seed)
    engine, drafts = Engine(RULES, {}, at(0)), list[Draft]()
    points = sorted({rule.point for rule in RULES})
    for n in range(steps):
        instant = at(n * hours * 3600 / steps + chance.random())
        burst = points if n % 90 == 0 else [chance.choice(points)]
        for point in burst:
            value = chance.choice((10.0, 50.0, 50.0, 80.0, 95.0))
            drafts += engine.read(Reading(point=point, value=value, quality=Quality.GOOD, at=instant), instant)
        drafts += engine.tick(instant)
        rule = chance.choice(RULES)
        alarm = engine.alarm(rule.id)
        try:
            match chance.randrange(6):
                case 0 | 1:
                    drafts += engine.acknowledge(rule.id, alarm.occurrence, "keeper", "li", instant)
                    drafts += engine.acknowledge(rule.id, alarm.occurrence, "officer", "wang", instant)
                case 2:
                    overlay = Overlay(
                        kind=OverlayKind.SHELVED, who="zhao", why="@检修 repair", since=instant, for_s=600
                    )
                    drafts += engine.cover(rule.id, overlay, ("control_room",), instant)
                case 3:
                    drafts += engine.reset(rule.id, alarm.occurrence, "wang", instant)
                case _:
                    pass
        except RefusedError:
            continue
    return drafts


def records(site: Site) -> list[dict[str, Any]]:
    """Every committed alarm record, oldest first, read with nothing of the code under test."""
    connection = sqlite3.connect(f"file:{site.data / 'journal.db'}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT data FROM record WHERE kind LIKE 'alarm.%' ORDER BY seq").fetchall()
    finally:
        connection.close()
    return [json.loads(data) for (data,) in rows]


async def told(page: Page, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """Status and reason of a refusal, which says what to do."""
    status, answer = await page.ask(method, path, body)
    assert answer["error"]["message"], answer
    return status, answer["error"]["reason"]


# --- the list, and what lies over an alarm ---


async def test_a_shelved_alarm_says_who_why_and_until_when_and_nobody_is_told(begin, eventually):
    site = await begin()
    async with signed_in(site, "li") as li:
        alarm = await push(site, li, 80.0, "UNACK", eventually)
        assert (alarm["missing_roles"], alarm["overlay"], alarm["ladder"]) == (
            ["keeper", "officer"],
            None,
            alarm["ladder"],
        )
        body = {"occurrence": alarm["occurrence"], "minutes": 30, "why": "传感器检修"}
        before_ms = now().utc_ms
        status, answer = await li.ask("POST", f"alarms/{ALARM}/shelve", body)
        assert status == 200, answer
        overlay = answer["alarm"]["overlay"]
        assert (overlay["kind"], overlay["who"], overlay["who_name"], overlay["why"]) == (
            "shelved",
            "li",
            "李",
            "传感器检修",
        )
        assert before_ms <= utc_from_text(overlay["until"]) - 30 * MINUTE <= now().utc_ms
        assert utc_from_text(overlay["until"]) - utc_from_text(overlay["since"]) == 30 * MINUTE
        listed = await li.alarm()
        assert listed is not None
        assert listed["overlay"] == overlay
        status, answer = await li.ask("POST", f"alarms/{ALARM}/unshelve", {})
        assert (status, answer["alarm"]["overlay"], answer["alarm"]["state"]) == (200, None, "UNACK")
        kinds = [event["kind"] for event in (await li.get("alarms/history"))["events"]]
        assert kinds[:3] == ["alarm.reraised", "alarm.unshelved", "alarm.shelved"]
        assert await told(li, "POST", f"alarms/{ALARM}/unshelve", {}) == (409, "not_covered")


async def test_shelving_keeps_the_rules_of_the_engine(begin, eventually):
    site = await begin()
    shelve, take_out = f"alarms/{ALARM}/shelve", f"alarms/{ALARM}/out-of-service"
    async with signed_in(site, "li") as li, signed_in(site, "sun") as sun, signed_in(site, "wang") as wang:
        alarm = await push(site, li, 80.0, "UNACK", eventually)
        good = {"minutes": 30, "why": "sensor repair"}
        for page, body, refusal in (
            (sun, good, (403, "not_your_area")),
            (li, {**good, "minutes": 481}, (409, "too_long")),
            (li, {**good, "minutes": 0}, (409, "too_long")),
            (li, {**good, "minutes": 10**400}, (409, "too_long")),
            (li, {**good, "why": " a "}, (409, "reason_missing")),
            (li, {**good, "why": "x" * 501}, (400, "bad_request")),
            (li, {**good, "occurrence": alarm["occurrence"] + 1}, (409, "old_occurrence")),
            (li, {"why": "sensor repair"}, (400, "bad_request")),
            (li, {**good, "minutes": True}, (400, "bad_request")),
        ):
            assert await told(page, "POST", shelve, body) == refusal, body
        assert await told(li, "POST", take_out, {"permit": "P-7", "why": "calibration"}) == (403, "not_allowed")
        assert await told(wang, "POST", take_out, {"permit": "", "why": "calibration"}) == (409, "permit_missing")
        assert await told(li, "POST", "alarms/nobody/shelve", good) == (404, "no_such_alarm")
        assert (await li.alarm() or {})["overlay"] is None


async def test_out_of_service_names_the_permit_and_only_an_officer_ends_it(begin, eventually):
    site = await begin()
    async with signed_in(site, "li") as li, signed_in(site, "wang") as wang:
        await eventually(lambda: li.value(), "a value")
        status, answer = await wang.ask(
            "POST", f"alarms/{ALARM}/out-of-service", {"permit": "P-7", "why": "calibration"}
        )
        assert (status, answer["alarm"]["overlay"]["permit"], answer["alarm"]["overlay"]["until"]) == (200, "P-7", None)
        listed = await li.get("alarms")
        assert [alarm["id"] for alarm in listed["covered"]] == [ALARM], "not in alarm, and yet nobody would be told"
        assert listed["alarms"] == []
        assert await told(li, "POST", f"alarms/{ALARM}/in-service", {}) == (403, "not_your_role")
        assert await told(li, "POST", f"alarms/{ALARM}/shelve", {"minutes": 5, "why": "repair"}) == (409, "covered")
        status, answer = await wang.ask("POST", f"alarms/{ALARM}/in-service", {})
        assert (status, answer["alarm"]["overlay"]) == (200, None)
        assert (await li.get("alarms"))["covered"] == []


async def test_one_shot_ends_when_the_condition_does(begin, eventually):
    site = await begin()
    async with signed_in(site, "zhao") as zhao:
        await push(site, zhao, 80.0, "UNACK", eventually)
        body = {"minutes": 60, "why": "door is open", "one_shot": True}
        assert (await zhao.ask("POST", f"alarms/{ALARM}/shelve", body))[0] == 200
        await push(site, zhao, 60.0, None, eventually)
        assert (await zhao.get("alarms"))["covered"] == []


# --- history ---


def fits(record: dict[str, Any], wanted: dict[str, str]) -> bool:
    """One filter, as a person would say it."""
    alarm, at_ms = record["body"]["alarm"], utc_from_text(record["at"]["utc"])
    own = {
        "area": alarm["area"],
        "point": alarm["point"],
        "alarm": alarm["id"],
        "priority": str(alarm["priority"]),
        "kind": alarm["kind"],
        "change": record["kind"].split(".")[1],
        "person": record["actor"],
    }
    for key, value in wanted.items():
        match key:
            case "from" if at_ms < milliseconds(value):
                return False
            case "to" if at_ms >= milliseconds(value):
                return False
            case "text" if not any(value.lower() in alarm[name].lower() for name in ("name", "name_en", "id")):
                return False
            case _ if key in own and own[key] not in value.split(","):
                return False
            case _:
                pass
    return True


def milliseconds(text: str) -> int:
    return int(text) if text.isdecimal() else utc_from_text(text)


FILTERS: tuple[dict[str, str], ...] = (
    {},
    {"area": "steaming"},
    {"area": "aux_store,steaming", "priority": "1"},
    {"point": "steaming.gone1.value"},
    {"alarm": "aux_store.gone0.value.high"},
    {"priority": "1,2"},
    {"kind": "lo"},
    {"kind": "hihi,hi", "area": "aux_store"},
    {"change": "shelved,unshelved"},
    {"change": "acked", "person": "wang"},
    {"person": "gateway", "priority": "2"},
    {"text": "湿度high"},
    {"text": "VALUE_1"},
    {"text": "1%"},
    {"text": "e_1% LOW", "change": "raised"},
    {"text": "e%1"},
    {"text": "h_gh"},
    {"text": "nothing of the kind"},
    {"from": str(BASE_MS + 20 * HOUR)},
    {"to": utc_text(BASE_MS + 20 * HOUR)},
    {"from": utc_text(BASE_MS + 20 * HOUR), "to": str(BASE_MS + 21 * HOUR), "priority": "3"},
    {"from": "1"},
    {"to": "1"},
    {"area": "nowhere"},
)


async def test_every_filter_finds_what_a_recount_finds_page_by_page_in_both_directions(begin, monkeypatch):
    monkeypatch.setattr(history_query, "CHUNK", 37)
    site = await begin(past())
    everything = records(site)
    assert len(everything) > 700
    found_some = 0
    async with signed_in(site, "li") as li:
        for wanted in FILTERS:
            expected = [record["seq"] for record in everything if fits(record, wanted)]
            found_some += bool(expected)
            down = await pages(li, wanted, "before", "older")
            assert down == expected[::-1], wanted
            assert await pages(li, wanted, "after", "newer") == down, wanted
        shown = await li.get("alarms")
        assert (shown["alarms"], shown["covered"]) == ([], []), "their rules are gone, with or without an overlay"
    assert found_some >= len(FILTERS) - 5


async def pages(page: Page, wanted: dict[str, str], cursor: str, link: str) -> list[int]:
    """Numbers of everything that the pages show, newest first, read from one end to the other."""
    found: list[int] = []
    query = {**wanted, "limit": "113", **({"after": "0"} if cursor == "after" else {})}
    while True:
        answer = await page.get(f"alarms/history?{urlencode(query)}")
        seqs = [event["seq"] for event in answer["events"]]
        assert seqs == sorted(seqs, reverse=True)
        found = found + seqs if cursor == "before" else seqs + found
        if answer[link] is None:
            return found
        query[cursor] = str(answer[link])


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday", "from=2026-11-22T10:00:00", "to=1e9", "priority=5", "priority=high", "before=5&after=3",
        "after=-1", "limit=501", f"text={'x' * 101}", "area=" + ",".join(["a"] * 51), "from=99999999999999999999",
    ],
)  # fmt: skip
async def test_a_filter_that_makes_no_sense_is_refused_with_its_name(begin, query: str):
    site = await begin()
    async with signed_in(site, "li") as li:
        status, answer = await li.ask("GET", f"alarms/history?{query}")
        assert (status, answer["error"]["reason"]) == (400, "bad_request")
        assert query.partition("=")[0] in answer["error"]["message"]


async def test_a_time_may_have_an_offset_whose_plus_was_not_encoded(begin):
    site = await begin(past(steps=60, hours=1))
    everything = records(site)
    middle = utc_from_text(everything[len(everything) // 2]["at"]["utc"])
    local = utc_text(middle + 8 * HOUR).replace("Z", "+08:00")
    async with signed_in(site, "li") as li:
        answer = await li.get(f"alarms/history?limit=500&from={local}")
        seqs = [record["seq"] for record in everything if utc_from_text(record["at"]["utc"]) >= middle]
        assert [event["seq"] for event in answer["events"]] == seqs[::-1]


async def rows_of(page: Page, path: str) -> tuple[list[list[str]], bytes]:
    async with page.http.get(page.site.url(path)) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert "attachment; filename=" in answer.headers["Content-Disposition"]
        raw = await answer.read()
    return list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""))), raw


async def test_the_export_holds_what_the_filter_finds_and_nothing_that_a_spreadsheet_would_compute(begin, monkeypatch):
    monkeypatch.setattr(history_api, "AT_ONCE", 16)
    site = await begin(past())
    wanted = {"area": "aux_store", "change": "raised,shelved"}
    expected = [record for record in records(site) if fits(record, wanted)]
    async with signed_in(site, "li") as li:
        (header, *rows), raw = await rows_of(li, f"alarms/history.csv?{urlencode(wanted)}")
    assert raw.startswith(b"\xef\xbb\xbf"), "Excel knows UTF-8 by this"
    assert all(any("\u4e00" <= c <= "\u9fff" for c in name) or name in ("UTC", "Alarm (en)") for name in header)
    assert [int(row[0]) for row in rows] == [record["seq"] for record in expected], "oldest first"
    column = {name: number for number, name in enumerate(header)}
    for row, record in zip(rows, expected, strict=True):
        alarm = record["body"]["alarm"]
        assert row[column["报警 Alarm"]] == f"'{alarm['name']}", "=湿度 is no formula"
        assert row[column["UTC"]] == record["at"]["utc"]
        assert row[column["数值 Value"]] == ("" if alarm["value"] is None else str(alarm["value"]))
        assert row[column["操作人 By"]] == {"zhao": "赵", "gateway": "gateway"}[record["actor"]]
        assert row[column["说明 Words"]] == ("'@检修 repair" if alarm["overlay"] else "")
        assert row[column["区域 Area"]] == "助剂库"
    assert {row[column["变化 Change"]] for row in rows} == {"触发 raised", "搁置 shelved"}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-x", "'-x"),
        ("@x", "'@x"),
        ("\t=x", "'\t=x"),
        (" =x", "' =x"),
        ("\n=x", "'\n=x"),
        ("\u3000=x", "'\u3000=x"),
        ("＝1+1", "'＝1+1"),
        ("－1", "'－1"),
        ("a=b", "a=b"),
        (-5.5, -5.5),
    ],
)
def test_a_text_is_never_a_formula_and_a_number_stays_one(value: object, written: object):
    assert csv_file.cell(value) == written


# --- statistics ---


def counted(site: Site, from_ms: int, to_ms: int) -> Any:
    """From every record, not from the table and not from the chunks that the gateway reads."""
    events = [
        Event.of_record(record["kind"], utc_from_text(record["at"]["utc"]), record["body"]["alarm"], "control_room")
        for record in records(site)
    ]
    return events, count(events, "control_room", from_ms, to_ms)


@pytest.mark.parametrize(("begins_h", "ends_h"), [(0, 61), (13.5, 14), (20, 47), (59.9, 60.5), (61, 70)])
async def test_the_numbers_are_those_of_a_count_over_every_record(begin, monkeypatch, begins_h: float, ends_h: float):
    monkeypatch.setattr(history_query, "CHUNK", 53)
    site = await begin(past())
    from_ms, to_ms = BASE_MS + round(begins_h * HOUR), BASE_MS + round(ends_h * HOUR)
    events, expected = counted(site, from_ms, to_ms)
    async with signed_in(site, "li") as li:
        answer = await li.get(f"alarms/statistics?from={from_ms}&to={to_ms}")
        (position,) = answer["positions"]
        assert {key: position[key] for key in expected.to_json()} == expected.to_json()
        assert sum(position["profile"]) == expected.annunciated
        assert max(position["profile"]) == expected.peak
        assert len(position["profile"]) == -(-(to_ms - from_ms) // 600_000)
        assert len(position["flood_list"]) == expected.floods
        span_ms = sum(utc_from_text(each["to"]) - utc_from_text(each["from"]) for each in position["flood_list"])
        assert position["flood_pct"] == pytest.approx(100 * span_ms / (to_ms - from_ms), abs=0.006)
        mentioned = {each["alarm"] for each in position["top"]} | {*position["chattering"], *position["standing"]}
        assert mentioned <= set(answer["names"])
        assert set(answer["definitions"]) == set(DEFINITIONS)
        assert answer["definitions"]["peak"]["says"] == DEFINITIONS["peak"].says
        (_, *rows), _ = await rows_of(li, f"alarms/statistics.csv?from={from_ms}&to={to_ms}")
    told_ = {row[2]: row for row in rows if not row[3]}
    assert float(told_["Annunciated alarms"][4]) == expected.annunciated
    assert float(told_["Peak in 10 minutes"][4]) == expected.peak
    assert told_["Peak in 10 minutes"][6] == "≤ 10"
    assert len(events) > 700


async def test_each_position_has_its_own_load_where_areas_name_one(begin):
    site = await begin(past(), positions={"aux_store": "stores", "steaming": "line_2"})
    query = f"from={BASE_MS}&to={BASE_MS + 61 * HOUR}"
    async with signed_in(site, "li") as li:
        both = await li.get(f"alarms/statistics?{query}")
        one = await li.get(f"alarms/statistics?{query}&position=line_2")
        assert await li.refused("GET", f"alarms/statistics?{query}&position=x") == (404, "no_such_position")
    assert [position["position"] for position in both["positions"]] == ["stores", "line_2"] == both["known_positions"]
    assert one["positions"] == both["positions"][1:]
    _, everybody = counted(site, BASE_MS, BASE_MS + 61 * HOUR)
    assert sum(position["annunciated"] for position in both["positions"]) == everybody.annunciated
    assert all(position["annunciated"] for position in both["positions"])


async def test_a_flood_is_raised_at_the_position_whose_areas_it_is_in(begin, eventually):
    """What was recorded just before a start is seen after it."""
    engine, drafts, instant = Engine(RULES, {}, at(0)), list[Draft](), now()
    for n in range(23):
        reading = Reading(
            point="steaming.gone0.value", value=80.0 if n % 2 == 0 else 50.0, quality=Quality.GOOD, at=instant
        )
        drafts += engine.read(reading, instant)
    site = await begin(drafts, positions={"steaming": "line_2"})

    def floods() -> set[str]:
        alarms = [record["body"]["alarm"] for record in records(site)]
        return {alarm["id"] for alarm in alarms if alarm["kind"] == "flood"}

    await eventually(floods, "a flood")
    assert floods() == {"system.flood.line_2"}


@pytest.mark.parametrize("query", ["from=5&to=5", "from=9&to=5", f"from=0&to={367 * DAY}", "to=soon"])
async def test_a_time_that_is_none_has_no_statistics(begin, query: str):
    site = await begin()
    async with signed_in(site, "li") as li:
        assert await li.refused("GET", f"alarms/statistics?{query}") == (400, "bad_request")


def test_a_flood_has_its_first_alarm_and_a_number_has_its_verdict():
    storm = [
        Event(at_ms=n * 1000, kind="alarm.raised", alarm=f"a{n}", occurrence=n, position="p", priority=3, active=True)
        for n in range(14)
    ]
    elsewhere = [replace(event, position="q") for event in storm]
    (flood,) = load.floods([*storm, *elsewhere], "p", 0, HOUR)
    assert (flood.first_out, flood.count, flood.from_ms, flood.to_ms) == ("a0", 14, 10_000, 609_000)
    found = count(storm, "p", 0, HOUR)
    verdicts = load.verdicts(found)
    assert {key: verdict.value for key, verdict in verdicts.items() if verdict} == {
        "per_10_min": "missed", "peak": "missed", "busy_periods_pct": "missed", "flood_pct": "missed",
        "top_ten_pct": "missed", "chattering": "met", "fleeting": "met", "standing": "met",
    }  # fmt: skip
    assert load.verdicts(replace(found, per_10_min=1.5))["per_10_min"] is load.Verdict.NEAR
    assert load.verdicts(replace(found, per_10_min=1.0))["per_10_min"] is load.Verdict.MET
    assert set(verdicts) == {key for key, definition in DEFINITIONS.items() if definition.goal}


# --- ladders, freezes, deviations ---


def climb_of(subject: Subject, t0: Instant, climbed: int) -> Climb:
    return Climb(
        subject=subject,
        plan=LADDER.id,
        basis=LADDER.basis,
        rungs=LADDER.rungs,
        t0=t0,
        t0_utc_ms=t0.utc_ms,
        climbed=climbed,
    )


def climbing() -> list[Draft]:
    """A hazard whose ladder climbs, one that has frozen work, and the report of it."""
    instant = now()
    hazard = Subject(kind="hazard", id="h1", occurrence=1, area="steaming", name="漏汽", name_en="Steam leak")
    climb = climb_of(hazard, instant, climbed=2)
    freeze = of_ladder(replace(hazard, id="h0"), instant)
    bodies = {
        "ladder.started": {"ladder": climb.to_json()},
        "freeze.set": {"freeze": freeze.to_json()},
        "deviation.opened": {"id": f"deviation/{freeze.why.key}", "subject": freeze.why.to_json()},
    }
    return [Draft(kind=kind, at=instant, actor="gateway", body=body) for kind, body in bodies.items()]


async def test_ladders_freezes_and_deviations_are_shown_with_the_next_step(begin):
    site = await begin(climbing())
    async with signed_in(site, "li") as li:
        shown = await li.get("ladders")
    (ladder,) = [each for each in shown["ladders"] if each["subject"]["kind"] == "hazard"]
    assert (ladder["subject"]["name"], ladder["colour"], ladder["paused"], ladder["climbed"]) == ("漏汽", "red", "", 2)
    assert (ladder["next"]["to"], ladder["next"]["action"]) == (["vice_president"], "")
    assert 0 <= utc_from_text(shown["time"]) + 4 * HOUR - utc_from_text(ladder["next"]["at"]) < MINUTE
    (freeze,) = shown["freezes"]
    assert (freeze["area"], freeze["released"], freeze["mine"], freeze["by"]) == (
        "steaming", None, False, ["vice_president", "manager"],
    )  # fmt: skip
    assert [report["subject"]["id"] for report in shown["deviations"]] == ["h0"]


async def test_an_alarm_in_the_list_brings_its_ladder(begin, eventually):
    site = await begin()
    async with signed_in(site, "li") as li:
        alarm = await push(site, li, 80.0, "UNACK", eventually)
    await site.stop()
    instant = now()
    subject = Subject(kind="alarm", id=ALARM, occurrence=alarm["occurrence"], area="aux_store")
    climb = climb_of(subject, instant, climbed=1)
    async with Journal(site.data / "journal.db", "gw1", (ladder_table.TABLE,)) as journal:
        await journal.append(
            [Draft(kind="ladder.started", at=instant, actor="gateway", body={"ladder": climb.to_json()})]
        )
    await site.start()
    async with signed_in(site, "li") as li:
        ladder = (await li.alarm() or {})["ladder"]
        assert (ladder["colour"], ladder["next"]["add"], ladder["next"]["colour"]) == ("yellow", ["sms"], "red")


def test_a_journal_without_ladders_has_none():
    with sqlite3.connect(":memory:") as empty:
        assert (reports.climbs(empty), reports.freezes(empty), reports.deviations(empty, 5)) == ({}, [], [])


async def test_a_freeze_is_released_by_those_who_may_with_a_reason(begin):
    drafts = climbing()
    for draft in drafts:
        if draft.kind == "freeze.set":
            draft.body["freeze"]["by"] = ["officer"]
    site = await begin(drafts)
    path = "freezes/freeze/hazard/h0/1/release"
    async with signed_in(site, "wang") as wang, signed_in(site, "li") as li:
        assert await told(li, "POST", path.replace("h0/1", "h0%2F1"), {"reason": "dried"}) == (403, "not_allowed")
        assert await told(wang, "POST", path, {}) == (400, "bad_request")
        assert await told(wang, "POST", path.replace("h0", "h7"), {"reason": "dried"}) == (404, "no_such_freeze")
        status, answer = await wang.ask("POST", path, {"reason": " 已整改 完成 "})
        assert (status, answer["freeze"]["id"]) == (200, "freeze/hazard/h0/1")
        released = answer["freeze"]["released"]
        assert (released["person"], released["reason"], released["name"]) == ("wang", "已整改 完成", "王")


async def test_a_deviation_report_is_closed_with_cause_and_measure_after_the_release(begin):
    drafts = climbing()
    drafts[1].body["freeze"]["by"] = ["officer"]
    site = await begin(drafts)
    path, told_ = "deviations/deviation/hazard/h0/1/close", {"cause": "密封老化", "measure": "更换并列入月检"}
    async with signed_in(site, "wang") as wang, signed_in(site, "li") as li:
        assert (await wang.get("ladders"))["deviations"][0]["frozen"] is True
        assert await told(wang, "POST", path, told_) == (409, "still_frozen")
        await wang.ask("POST", "freezes/freeze/hazard/h0/1/release", {"reason": "dried out"})
        (open_,) = (await wang.get("ladders"))["deviations"]
        assert (open_["closed"], open_["mine"], open_["frozen"]) == (None, True, False)
        assert (await li.get("ladders"))["deviations"][0]["mine"] is False
        assert await told(li, "POST", path, told_) == (403, "not_allowed")
        assert await told(wang, "POST", path, {"cause": "密封老化"}) == (400, "bad_request")
        assert await told(wang, "POST", path.replace("h0", "h7"), told_) == (404, "no_such_deviation")
        status, answer = await wang.ask("POST", path, told_)
        assert (status, answer["deviation"]["id"]) == (200, "deviation/hazard/h0/1")
        closed = answer["deviation"]["closed"]
        assert {key: closed[key] for key in ("person", "name", "role", "cause", "measure")} == {
            "person": "wang", "name": "王", "role": "officer", **told_,
        }  # fmt: skip
        (shown,) = (await li.get("ladders"))["deviations"]
        assert (shown["closed"], shown["seq"], shown["at"]) == (closed, open_["seq"], open_["at"])


# --- delivery log ---


async def test_the_delivery_log_shows_each_recipient_of_a_message_and_what_became_of_it(begin, eventually, free_port):
    robot = f'[[channel]]\nid = "robot"\nkind = "webhook"\nurl = "http://127.0.0.1:{free_port()}/"\n'
    site = await begin()
    alerts = 'channels = ["robot"]\ngroup_wait_s = { 3 = 0.0 }\nrequired_acks = ['
    text = site.config.read_text("utf-8").replace("required_acks = [", alerts)
    await site.stop()
    site.config.write_text(text + robot, "utf-8")
    await site.start()
    async with signed_in(site, "li") as li:
        alarm = await push(site, li, 80.0, "UNACK", eventually)

        async def tried() -> Any:
            messages = (await li.get("deliveries?state=RETRY"))["messages"]
            return messages and len(messages[-1]["rows"]) >= 3 and messages

        message = (await eventually(tried, "each was tried", bound_s=90))[-1]
        assert (message["about"], message["occurrence"], message["kind"]) == (
            ALARM,
            alarm["occurrence"],
            "alarm.raised",
        )
        assert {(row["person"], row["name"], row["channel"]) for row in message["rows"]} == {
            ("li", "李", "robot"), ("wang", "王", "robot"), ("both", "双", "robot"),
        }  # fmt: skip
        assert all(row["error"] and row["attempts"] for row in message["rows"])
        assert (await li.get("deliveries?state=ACCEPTED"))["messages"] == []
        only = (await li.get("deliveries?person=wang"))["messages"]
        assert {row["person"] for message in only for row in message["rows"]} == {"wang"}
        assert (await li.get(f"deliveries?occurrence={alarm['occurrence'] + 5}"))["messages"] == []
        assert (await li.get(f"deliveries?before={message['seq']}"))["older"] is None
        assert await li.refused("GET", "deliveries?state=lost") == (400, "bad_request")
        assert await li.refused("GET", "deliveries?limit=0") == (400, "bad_request")


# --- the description ---


def test_every_route_is_described(root):
    added: list[str] = []

    class Router:
        def add_get(self, path: str, _: Any) -> None:
            added.append(path)

        add_post = add_get

    class App:
        router = Router()

    api.Pages.__new__(api.Pages).add_to(App())  # type: ignore[arg-type]
    text = (root / "docs" / "api.md").read_text("utf-8")
    described = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    for path in added:
        short = re.sub(r"{[^}]*}", "{id}", path).removeprefix("/api/v1/")
        assert re.search(rf"[` ]{re.escape(short)}[`?]", described), short


async def test_what_must_be_seen_now_is_frozen_work_and_what_nobody_has_reacted_to(begin):
    drafts = climbing()
    drafts[1].body["freeze"]["by"] = ["officer"]
    calm = replace(Climb.from_json(drafts[0].body["ladder"]), climbed=1)
    calm = replace(calm, subject=replace(calm.subject, id="h2"))
    paused = replace(Climb.from_json(drafts[0].body["ladder"]), paused="acked")
    paused = replace(paused, subject=replace(paused.subject, id="h3"))
    drafts += [
        Draft(kind="ladder.started", at=now(), actor="gateway", body={"ladder": climb.to_json()})
        for climb in (calm, paused)
    ]
    site = await begin(drafts)
    async with signed_in(site, "wang") as wang:
        shown = {notice["kind"]: notice for notice in (await wang.get("notices"))["notices"]}
        assert [notice["id"] for notice in shown.values()] == ["freeze/hazard/h0/1", "escalation/hazard/h1/1"]
        assert (shown["freeze"]["name"], shown["freeze"]["page"], shown["freeze"]["area"]) == (
            "漏汽",
            "ladders",
            "steaming",
        )
        assert (shown["escalation"]["facts"]["climbed"], shown["escalation"]["facts"]["colour"]) == (2, "red")
        await wang.ask("POST", "freezes/freeze/hazard/h0/1/release", {"reason": "dried out"})
        assert [notice["kind"] for notice in (await wang.get("notices"))["notices"]] == ["escalation"]
