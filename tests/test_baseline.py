"""Headquarters' baseline: adds and tightens, never loosens; comes signed and numbered; is tried and taken back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.baseline_store import STEPS as BASELINE_STEPS
from sitewarden.cloud.baseline_store import BaselineStore
from sitewarden.cloud.config import load_cloud_config
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.orders import Orders
from sitewarden.edge.app import run_edge
from sitewarden.edge.baseline_files import IN_FORCE, LAST, MOST_STARTS, PREVIOUS, TRIAL, Shelf
from sitewarden.edge.baseline_keeping import BaselineKeeper
from sitewarden.edge.baseline_merge import convertible, tighten, tighten_plan
from sitewarden.edge.bundle_cargo import take_order
from sitewarden.edge.conformity import judge
from sitewarden.edge.ladders.plan import PRIORITY_1, STANDARD, Action, Colour, Plan, Rung
from sitewarden.edge.models import AlarmTable, LevelTable
from sitewarden.edge.site import Site, load_site
from sitewarden.errors import ConfigError, RefusedError
from sitewarden.sync.baseline import Bound, Step, parse_baseline, read_baseline
from sitewarden.sync.columns import DamagedError
from sitewarden.sync.journal import Draft
from sitewarden.sync.keys import key_id, load_or_create_key, public_key_text
from sitewarden.sync.orders import Order, make_order
from sitewarden.words import Point, Quality, Reading, mono_s, now

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TRUSTED = {key_id(KEY): KEY.public_key()}


# --- the file ----------------------------------------------------------------------------------------------------


def test_the_shipped_baseline_asks_for_six_types_in_each_hazmat_store(root: Path):
    shipped = read_baseline(root / "config" / "baseline.toml")
    room = shipped.room_of("hazmat_store")
    assert room is not None
    assert len(set(room.sensors)) == 6
    assert "leak_kit" in [thing.id for thing in room.equipment]
    assert parse_baseline(shipped.to_json(), "again") == shipped


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "name: Field required"),
        ('name = "x"\nname_en = "x"\nodd = 1', "odd: Extra inputs are not permitted"),
        ('name = "x"\nname_en = "x"\n[[limit]]\ntype = "CO"\nunit = "ppm"', "limit[0]: names no limit"),
        (
            'name = "x"\nname_en = "x"\n[[limit]]\ntype = "CO"\nunit = "ppm"\nlo = 5.0\nhi = 4.0',
            "limit[0]: lolo, lo, hi and hihi must ascend",
        ),
        (
            'name = "x"\nname_en = "x"\n[[limit]]\nroom = "attic"\ntype = "CO"\nunit = "ppm"\nhi = 4.0',
            "limit[0].room: must be the kind of a [[room]], or * (got 'attic')",
        ),
        ('name = "x"\nname_en = "x"\n[[step]]\npriority = 3\nby_s = 60.0', "step[0]: does nothing"),
        (
            'name = "x"\nname_en = "x"\n' + '[[room]]\nkind = "a"\nname = "x"\nname_en = "x"\n' * 2,
            "room[1].kind: must be its own, room[0] has it too (got 'a')",
        ),
        ("name = ", "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, problem: str):
    (tmp_path / "baseline.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_baseline(tmp_path / "baseline.toml")
    assert any(problem in line for line in caught.value.problems), caught.value.problems


# --- add and tighten, never loosen ---------------------------------------------------------------------------------


def point(unit: str = "%RH", quantity: Any = "humidity") -> Point:
    return Point(id="a.b.c", name="c", name_en="c", unit=unit, quantity=quantity, decimals=1, poll_s=1.0)


LIMITS = st.one_of(st.none(), st.floats(-1000, 1000, allow_nan=False))
PRIORITIES = st.one_of(st.none(), st.integers(1, 4))


@st.composite
def _levels(draw: Any) -> dict[str, float]:
    values = sorted(draw(st.sets(st.floats(-500, 500), min_size=1, max_size=4)))
    keys = sorted(draw(st.permutations(range(4)))[: len(values)])
    return {("lolo", "lo", "hi", "hihi")[key]: value for key, value in zip(keys, values, strict=False)}


@given(site=_levels(), base=_levels(), site_priority=PRIORITIES, base_priority=PRIORITIES)
def test_what_counts_is_never_looser_than_either(
    site: dict[str, float], base: dict[str, float], site_priority: int | None, base_priority: int | None
):
    levels = {key: LevelTable(limit=limit, priority=site_priority) for key, limit in site.items()}
    table = AlarmTable(point="a.b.c", **levels)  # pyright: ignore[reportArgumentType]
    bound = Bound(type="humidity", unit="%RH", priority=base_priority, **base)  # pyright: ignore[reportArgumentType]
    merged, changed = tighten(table, point(), "", [bound])
    for key in ("lolo", "lo", "hi", "hihi"):
        limits = [found[key] for found in (site, base) if key in found]
        level = getattr(merged, key)
        assert (level is None) == (not limits)
        if level is None:
            continue
        assert level.limit == (min(limits) if key in ("hi", "hihi") else max(limits))
        if key in base and base_priority is not None:
            assert level.priority is not None
            assert level.priority <= base_priority
        if key in site and site_priority is not None:
            assert level.priority is not None
            assert level.priority <= site_priority
    again, nothing = tighten(merged, point(), "", [bound])
    assert (again, nothing) == (merged, []), "tightening twice changes nothing more"
    assert bool(changed) or merged == table or base_priority is not None


def test_gas_units_convert_and_what_does_not_is_left_alone():
    bound = Bound(type="CO", unit="mg/m³", hi=20.0)
    merged, (change,) = tighten(
        AlarmTable(point="a.b.c", hi=LevelTable(limit=50.0)), point("ppm", "gas"), "CO", [bound]
    )
    assert merged.hi is not None
    assert merged.hi.limit == pytest.approx(17.2, abs=0.1), "20 mg/m³ of carbon monoxide"
    assert (change.key, change.site, change.was_loose) == ("hi", 50.0, True)
    odd = Bound(type="temperature", unit="°F", hi=20.0)
    assert not convertible(odd, point("°C", "temperature"), "")
    table = AlarmTable(point="a.b.c", hi=LevelTable(limit=50.0))
    assert tighten(table, point("°C", "temperature"), "", [odd]) == (table, [])


def test_delays_and_roles_are_tightened_as_well():
    table = AlarmTable(
        point="a.b.c", hi=LevelTable(limit=70.0, on_delay_s=90.0), required_acks=["keeper"], on_delay_s=600.0
    )
    bound = Bound(type="humidity", unit="%RH", hi=75.0, on_delay_s=30.0, required_acks=("keeper", "officer"))
    merged, changed = tighten(table, point(), "", [bound])
    assert merged.hi is not None
    assert (merged.hi.limit, merged.hi.on_delay_s, merged.on_delay_s) == (70.0, 30.0, 30.0)
    assert merged.required_acks == ["keeper", "officer"]
    assert {change.key for change in changed} == {"hi.on_delay_s", "on_delay_s", "required_acks"}


@pytest.mark.parametrize(
    ("plan", "step", "rungs"),
    [
        (STANDARD, Step(priority=3, by_s=7200.0, colour="red"), 4),
        (STANDARD, Step(priority=3, by_s=14400.0, to=("vice_president",)), 4),
        (STANDARD, Step(priority=3, by_s=3600.0, to=("vice_president",)), 5),
        (STANDARD, Step(priority=3, by_s=3600.0, colour="red"), 5),
        (STANDARD, Step(priority=3, by_s=7200.0, action="freeze"), 5),
        (STANDARD, Step(priority=3, by_s=7200.0, add=("sms",)), 4),
        (PRIORITY_1, Step(priority=3, by_s=0.0, add=("sms",)), 4),
    ],
)
def test_a_step_is_added_only_where_the_ladder_does_it_later(plan: Plan, step: Step, rungs: int):
    merged = tighten_plan(plan, [step], 3)
    assert len(merged.rungs) == rungs
    assert [rung.at_s for rung in merged.rungs] == sorted(rung.at_s for rung in merged.rungs)
    assert set(plan.rungs) <= {replace(rung, colour=known.colour) for rung in merged.rungs for known in plan.rungs}
    assert tighten_plan(plan, [replace_priority(step)], 3) == plan, "of another priority"
    assert tighten_plan(merged, [step], 3) == merged


def replace_priority(step: Step) -> Step:
    return step.model_copy(update={"priority": 1})


def test_an_added_rung_does_not_make_a_red_alarm_yellow_again():
    plan = Plan(id="x", basis=STANDARD.basis, rungs=(Rung(at_s=0, to=("keeper",), colour=Colour.RED),))
    merged = tighten_plan(plan, [Step(priority=2, by_s=60.0, to=("officer",), action="freeze")], 2)
    assert [(rung.colour, rung.action) for rung in merged.rungs] == [
        (Colour.RED, Action.NONE),
        (Colour.RED, Action.FREEZE),
    ]


# --- a site under it -----------------------------------------------------------------------------------------------

SITE = """
[site]
id = "s"
name = "厂"
name_en = "Plant"
[gateway]
id = "gw1"
[[area]]
id = "store"
name = "库"
name_en = "Store"
kind = "hazmat_store"
equipment = ["防爆手电"]
[[area]]
id = "hall"
name = "车间"
name_en = "Hall"
[[bus]]
id = "net"
kind = "tcp"
host = "127.0.0.1"
port = 5020
[[device]]
id = "th1"
area = "store"
bus = "net"
unit_id = 1
profile = "rs_ws_n01"
[[device]]
id = "th2"
area = "hall"
bus = "net"
unit_id = 2
profile = "rs_ws_n01"
[[alarm]]
point = "store.th1.humidity"
hi = { limit = 80.0, priority = 4 }
[[alarm]]
point = "hall.th2.humidity"
hi = 80.0
"""
PEOPLE = (
    "id,name,name_en,roles,areas,phone\nli,李,Li,keeper,*,\nwang,王,Wang,officer,*,\nchen,陈,Chen,vice_president,*,\n"
)
RAW = {
    "name": "基线",
    "name_en": "Baseline",
    "room": [
        {
            "kind": "hazmat_store",
            "name": "危化品库",
            "name_en": "Hazmat store",
            "sensors": ["temperature", "humidity", "H2S"],
            "equipment": [{"id": "leak_kit", "name": "泄漏应急包", "name_en": "Leak kit"}],
        }
    ],
    "limit": [
        {"room": "hazmat_store", "type": "humidity", "unit": "%RH", "hi": 75.0, "priority": 3},
        {"room": "hazmat_store", "type": "temperature", "unit": "°C", "hi": 30.0},
    ],
    "step": [{"priority": 3, "by_s": 3600.0, "to": ["vice_president"]}],
}


def order(revision: int = 1, *, key: Ed25519PrivateKey = KEY, gateway: str = "gw1", **changes: Any) -> Order:
    return make_order(key, gateway=gateway, revision=revision, made_ms=1_795_000_000_000, baseline={**RAW, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site.toml").write_text(SITE, "utf-8")
    (tmp_path / "people.csv").write_text(PEOPLE, "utf-8")
    return tmp_path


def put(folder: Path, what: Order) -> None:
    (folder / "data" / "baseline").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "baseline" / IN_FORCE).write_text(json.dumps(what.to_json()), "utf-8")


def levels(site: Site) -> dict[str, tuple[float, int]]:
    return {
        f"{rule.id}": (level.limit, level.priority)
        for rule in site.rules
        for level in rule.levels
        if level.kind.value == "hi"
    }


def test_a_site_runs_with_the_stricter_values_and_says_where_they_come_from(folder: Path):
    alone = load_site(folder / "site.toml", folder / "data")
    assert alone.standard is None
    put(folder, order())
    site = load_site(folder / "site.toml", folder / "data")
    found = levels(site)
    assert found["store.th1.humidity.high"] == (75.0, 3)
    assert found["store.th1.temperature.high"][0] == 30.0, "a limit that the site does not have"
    assert found["hall.th2.humidity.high"][0] == 80.0, "no such room"
    assert site.revision != alone.revision, "records say under which rules they came"
    assert any(rung.at_s == 3600 and "vice_president" in rung.to for rung in site.ladders[site.ladder_of[3]].rungs)
    assert site.ladder_of[1] == alone.ladder_of[1]
    assert site.standard is not None
    changed = {(one["point"], one["key"], one["site"], one["now"]) for one in site.standard.tightened}
    assert changed == {
        ("store.th1.humidity", "hi", 80.0, 75.0),
        ("store.th1.humidity", "hi.priority", 4, 3),
        ("store.th1.temperature", "hi", None, 30.0),
    }
    assert site.standard.no_kind == ("hall",)
    (area,) = site.standard.areas
    assert [name for _, name, _ in area.equipment] == ["泄漏应急包", "防爆手电"]


def test_a_room_shows_what_is_missing_and_what_is_silent(folder: Path):
    put(folder, order())
    standard = load_site(folder / "site.toml", folder / "data").standard
    assert standard is not None
    fresh = Reading(point="store.th1.temperature", value=20.0, quality=Quality.GOOD, at=now())
    bad = Reading(point="store.th1.humidity", value=None, quality=Quality.BAD, why="timeout", at=now())
    readings = {reading.point: reading for reading in (fresh, bad)}
    found = judge(standard, readings.get, mono_s())
    states = {sensor["type"]: sensor["state"] for sensor in found["rooms"][0]["sensors"]}
    assert states == {"temperature": "ok", "humidity": "silent", "H2S": "missing"}
    assert (found["missing"], found["silent"]) == (1, 1)
    later = judge(standard, readings.get, mono_s() + 3600)
    assert later["rooms"][0]["sensors"][0]["state"] == "silent", "what speaks no more is silent, too"


def test_an_order_that_is_damaged_on_disk_does_not_keep_the_gateway_from_starting(folder: Path):
    put(folder, order())
    path = folder / "data" / "baseline" / IN_FORCE
    path.write_bytes(path.read_bytes()[:100])
    site = load_site(folder / "site.toml", folder / "data")
    assert site.standard is None
    assert any("order.json cannot be used" in warning for warning in site.warnings)


def test_the_it_liaison_can_try_a_baseline(folder: Path):
    (folder / "baseline.toml").write_text(
        'name = "x"\nname_en = "x"\n[[limit]]\ntype = "humidity"\nunit = "%RH"\nhi = 60.0\n', "utf-8"
    )
    site = load_site(folder / "site.toml", baseline=folder / "baseline.toml")
    assert levels(site)["hall.th2.humidity.high"][0] == 60.0


# --- signed and numbered -----------------------------------------------------------------------------------------


def test_an_order_says_who_signed_it():
    order().verify(TRUSTED)
    with pytest.raises(RefusedError, match="not trusted"):
        order(key=OTHER).verify(TRUSTED)
    genuine = order()
    with pytest.raises(RefusedError, match="altered"):
        replace(genuine, body=genuine.body.replace(b"75.0", b"95.0")).verify(TRUSTED)
    assert Order.from_json(genuine.to_json()) == genuine


@pytest.mark.parametrize("fields", [None, {}, {"body": ":e30=:", "signature": "::", "key": ""}, [], "x"])
def test_what_is_no_order_is_damaged(fields: Any):
    with pytest.raises(DamagedError):
        Order.from_json(fields)


# --- tried, confirmed, taken back --------------------------------------------------------------------------------


class Plant:
    """What the keeper sees of a gateway."""

    def __init__(self, folder: Path, *, trusted: dict[str, Any] | None = None, confirm_s: float = 0.0) -> None:
        self.folder, self.records, self.failing = folder, list[Draft](), set[str]()
        self.reloads = list[str]()
        self.problems: tuple[str, ...] = ()
        self.shelf = Shelf.of(folder / "data")
        (folder / "data").mkdir(exist_ok=True)
        self.site = load_site(folder / "site.toml", folder / "data")
        self.keeper = BaselineKeeper(
            self.shelf,
            "gw1",
            site=lambda: self.site,
            reload=self._reload,
            record=self._record,
            trusted=lambda: TRUSTED if trusted is None else trusted,
            failing=lambda: set(self.failing),
            reading_of=lambda _: None,
            confirm_s=confirm_s,
        )

    @property
    def kinds(self) -> list[str]:
        return [draft.kind for draft in self.records]

    async def _reload(self, by: str) -> Any:
        self.reloads.append(by)
        if self.problems and self.shelf.is_on_trial():
            return SimpleNamespace(problems=self.problems, changes=())
        self.site = load_site(self.folder / "site.toml", self.folder / "data")
        return SimpleNamespace(problems=(), changes=("alarm: 1 changed",))

    async def _record(self, draft: Draft) -> None:
        self.records.append(draft)


@asynccontextmanager
async def keeping(plant: Plant) -> AsyncIterator[None]:
    task = asyncio.create_task(plant.keeper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_order_from_a_stick_is_tried_like_one_from_the_link(folder: Path):
    plant = Plant(folder)
    take = take_order(plant.keeper)
    assert await take(order()) == {"revision": 1, "state": "trial", "problems": []}
    assert (await take(order()))["state"] == "known"
    refused = await take(order(2, key=OTHER))
    assert refused["state"] == "refused"
    assert "not trusted here" in refused["problems"][0]
    plant.problems = ("alarm[0]: cannot be",)
    assert await take(order(2)) == {"revision": 2, "state": "refused", "problems": ["alarm[0]: cannot be"]}
    assert plant.keeper.have() == 2


async def test_an_order_is_tried_and_confirmed(folder: Path, eventually: Callable[..., Any]):
    plant = Plant(folder, confirm_s=0.5)
    assert plant.keeper.report()["state"] == "none"
    async with keeping(plant):
        await plant.keeper.take(order())
        assert plant.keeper.report()["state"] == "trial"
        assert levels(plant.site)["store.th1.humidity.high"][0] == 75.0
        await eventually(lambda: plant.kinds == ["baseline.applied", "baseline.confirmed"], "confirmed")
    assert not plant.shelf.is_on_trial()
    report = plant.keeper.report()
    assert (report["state"], report["revision"], report["missing"], report["silent"]) == ("confirmed", 1, 1, 2)
    assert plant.keeper.have() == 1


async def test_devices_that_fall_silent_during_the_trial_take_it_back(folder: Path, eventually: Callable[..., Any]):
    plant = Plant(folder)
    async with keeping(plant):
        await plant.keeper.take(order(1))
        await eventually(lambda: "baseline.confirmed" in plant.kinds, "the first is confirmed")
    await plant.keeper.take(order(2, limit=[{"type": "humidity", "unit": "%RH", "hi": 40.0}]))
    assert levels(plant.site)["store.th1.humidity.high"][0] == 40.0
    plant.failing = {"store.th1"}
    async with keeping(plant):
        await eventually(lambda: plant.kinds[-1] == "baseline.rolled_back", "taken back")
    assert levels(plant.site)["store.th1.humidity.high"][0] == 75.0
    assert plant.keeper.have() == 2, "it is not taken again"
    report = plant.keeper.report()
    assert (report["state"], report["revision"]) == ("rolled_back", 1)
    assert "store.th1 does not answer since then" in report["problems"][0]["en"]


async def test_a_baseline_under_which_the_site_cannot_be_used_is_taken_back_at_once(folder: Path):
    plant = Plant(folder)
    plant.problems = ("alarm[0].hi: must be above lo",)
    await plant.keeper.take(order())
    assert plant.kinds == ["baseline.refused"]
    assert plant.site.standard is None
    assert not (plant.shelf.folder / IN_FORCE).exists()
    report = plant.keeper.report()
    assert report["state"] == "refused"


async def test_what_is_old_foreign_or_forged_is_refused_and_nothing_changes(folder: Path):
    plant = Plant(folder)
    await plant.keeper.take(order(5))
    for wrong, reason in (
        (order(5), "old_order"),
        (order(4), "old_order"),
        (order(6, gateway="gw2"), "other_gateway"),
        (order(6, key=OTHER), "wrong_key"),
        (replace(order(6), signature=bytes(64)), "bad_signature"),
    ):
        with pytest.raises(RefusedError) as caught:
            await plant.keeper.take(wrong)
        assert caught.value.reason == reason
    assert plant.keeper.have() == 5
    assert plant.kinds == ["baseline.applied", "baseline.refused", "baseline.refused"], "forgeries are recorded"


async def test_without_a_key_in_site_toml_the_first_one_counts_from_then_on(folder: Path):
    plant = Plant(folder, trusted={})
    await plant.keeper.take(order(1))
    with pytest.raises(RefusedError, match="not trusted"):
        await plant.keeper.take(order(2, key=OTHER))
    await plant.keeper.take(order(3))
    assert plant.keeper.have() == 3


def test_a_daemon_that_starts_again_and_again_under_a_new_order_takes_it_back(folder: Path):
    shelf = Shelf.of(folder / "data")
    (folder / "data").mkdir()
    shelf.begin_trial(order(1).to_json(), 1)
    shelf.confirm()
    shelf.begin_trial(order(2).to_json(), 2)
    assert [shelf.count_start() for _ in range(MOST_STARTS)] == [False] * MOST_STARTS
    assert shelf.count_start()
    assert Order.from_json(shelf.read(IN_FORCE)).revision == 1
    assert (shelf.read(LAST)["revision"], shelf.read(LAST)["state"]) == (2, "rolled_back")
    assert not shelf.count_start(), "no trial, nothing to count"


def test_a_power_cut_between_any_two_steps_leaves_an_order_that_is_whole(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Every rename and removal of beginning, confirming and taking back is a boundary."""

    class CutError(Exception):
        pass

    (folder / "data").mkdir()
    for action in ("begin_trial", "confirm", "roll_back"):
        for cut in range(8):
            data = folder / "data" / f"{action}{cut}"
            data.mkdir()
            shelf = Shelf.of(data)
            shelf.begin_trial(order(1).to_json(), 1)
            shelf.confirm()
            if action != "begin_trial":
                shelf.begin_trial(order(2).to_json(), 2)
            left = cut
            real = Shelf._settle

            def settle(self: Shelf, real: Any = real) -> None:
                nonlocal left
                real(self)
                left -= 1
                if left == 0:
                    raise CutError

            monkeypatch.setattr(Shelf, "_settle", settle)
            arguments = (order(2).to_json(), 2) if action == "begin_trial" else ()
            try:
                getattr(shelf, action)(*arguments)
            except CutError:
                pass
            monkeypatch.setattr(Shelf, "_settle", real)
            found = Order.from_json(shelf.read(IN_FORCE))
            assert found.revision in (1, 2)
            if found.revision == 2 and action != "confirm":
                assert shelf.is_on_trial(), "never in force untried"
            if shelf.is_on_trial() and found.revision == 2:
                assert Order.from_json(shelf.read(PREVIOUS)).revision == 1
            shelf.roll_back()
            assert Order.from_json(shelf.read(IN_FORCE)).revision in (1, 2)
            assert not (shelf.folder / TRIAL).exists()


# --- headquarters ------------------------------------------------------------------------------------------------


async def test_headquarters_waits_with_its_answer_until_there_is_something_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sitewarden.cloud.orders.LONGEST_WAIT_S", 0.3)
    path = tmp_path / "baseline.toml"
    path.write_text(TOML.format(hi=75.0), "utf-8")
    async with SqliteDatabase(tmp_path / "cloud.db", BASELINE_STEPS) as database:
        orders = Orders(path, BaselineStore(database), KEY, None, lambda _: None)  # pyright: ignore[reportArgumentType]
        await orders.open()
        first = await asked(orders, 0)
        assert (first["revision"], first["order"]["key"]) == (1, public_key_text(KEY))
        assert await asked(orders, 1) == {"revision": 1}, "nothing newer, after a while"
        waiting = asyncio.create_task(asked(orders, 1))
        await asyncio.sleep(0)
        path.write_text(TOML.format(hi=66.5), "utf-8")
        await orders.look()
        assert (await waiting)["revision"] == 2
        path.write_text("name =", "utf-8")
        await orders.look()
        assert orders.problems
        assert (await asked(orders, 0))["revision"] == 2, "a mistake changes nothing"
        again = Orders(path, BaselineStore(database), KEY, None, lambda _: None)  # pyright: ignore[reportArgumentType]
        path.write_text(TOML.format(hi=66.5), "utf-8")
        await again.open()
        assert again.current.revision == 2, "the same content is no further revision, also after a restart"


async def asked(orders: Orders, have: int) -> dict[str, Any]:
    request = make_mocked_request("GET", f"/?have={have}")
    answer = await orders.get(request, SimpleNamespace(id="gw1"))  # pyright: ignore[reportArgumentType]
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)


# --- the whole way -----------------------------------------------------------------------------------------------


async def test_a_change_of_the_file_reaches_the_gateway_and_headquarters_sees_how_it_stands(
    folder: Path, free_port: Callable[[], int], eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sitewarden.cloud.orders._LOOK_S", 0.2)
    monkeypatch.setattr("sitewarden.sync.config_pull._LOOK_S", 0.2)
    key = load_or_create_key(folder / "edge" / "gateway.key")
    cloud = folder / "cloud"
    cloud.mkdir()
    (cloud / "people.csv").write_text(PEOPLE, "utf-8")
    (cloud / "baseline.toml").write_text(TOML.format(hi=75.0), "utf-8")
    (cloud / "cloud.toml").write_text(CLOUD.format(key=public_key_text(key)), "utf-8")
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    service = run_cloud(load_cloud_config(cloud / "cloud.toml"), cloud, ready=up.set_result)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(service)]
    said: list[str] = []
    try:
        port = await asyncio.wait_for(up, 60)
        head = f'[web]\nport = {free_port()}\n[cloud]\nurl = "http://127.0.0.1:{port}"\n'
        (folder / "site.toml").write_text(SITE + head, "utf-8")
        tasks.append(asyncio.create_task(run_edge(folder / "site.toml", folder / "edge", say=said.append)))
        await eventually(lambda: in_force(folder / "edge") == (1, 75.0), "the first revision", bound_s=60)
        (cloud / "baseline.toml").write_text("name = ", "utf-8")
        await asyncio.sleep(0.5)
        (cloud / "baseline.toml").write_text(TOML.format(hi=66.0), "utf-8")
        await eventually(lambda: in_force(folder / "edge") == (2, 66.0), "the second revision", bound_s=60)
        await eventually(lambda: report_of(cloud).get("revision") == 2, "headquarters knows", bound_s=60)
        await eventually(lambda: snapshots_at(cloud) == ["gw1"], "its snapshot is there, too", bound_s=60)
        found = report_of(cloud)
        assert (found["state"], found["missing"], found["silent"]) == ("trial", 1, 2)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=60)
    with contextlib.closing(sqlite3.connect(folder / "edge" / "journal.db")) as db:
        kinds = [kind for (kind,) in db.execute("SELECT kind FROM record WHERE kind LIKE 'baseline.%' ORDER BY seq")]
        applied = [text for (text,) in db.execute("SELECT data FROM record WHERE kind = 'config.applied'")]
    assert kinds == ["baseline.applied", "baseline.applied"]
    assert any(b"baseline revision 2" in text for text in applied)


TOML = """
name = "基线"
name_en = "Baseline"
[[room]]
kind = "hazmat_store"
name = "危化品库"
name_en = "Hazmat store"
sensors = ["temperature", "humidity", "H2S"]
[[limit]]
room = "hazmat_store"
type = "humidity"
unit = "%RH"
hi = {hi}
"""
CLOUD = """
[cloud]
name = "总部"
name_en = "HQ"
port = 0
baseline = "baseline.toml"
[[gateway]]
id = "gw1"
name = "厂"
name_en = "Plant"
public_key = "{key}"
"""


def in_force(data: Path) -> tuple[int, float] | None:
    fields = Shelf.of(data).read(IN_FORCE)
    if fields is None:
        return None
    found = Order.from_json(fields)
    return found.revision, found.baseline["limit"][0]["hi"]


def snapshots_at(cloud: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(cloud / "cloud.db")) as db:
        return [gateway for (gateway,) in db.execute("SELECT DISTINCT gateway FROM snapshot_epoch WHERE seq > 0")]


def report_of(cloud: Path) -> dict[str, Any]:
    with contextlib.closing(sqlite3.connect(cloud / "cloud.db")) as db:
        row = db.execute("SELECT body FROM config_report").fetchone()
    return json.loads(row[0]) if row else {}
