"""`/metrics` of gateway and headquarters: who may read it, what is in it, and that it stays small."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client.parser import text_string_to_metric_families
from sitewarden.serving.metrics import MOST_SERIES, LoopLag, Readers, Sheet, add_metrics, may_read
from sitewarden.tests.peers.linked_site import cloud, site
from sitewarden.tests.peers.whole_gateway import DEVICE, Gateway, Sensors, alarm_toml

TOKEN = "a-token-of-the-scraper"
Series = dict[str, dict[tuple[tuple[str, str], ...], float]]


def parse(text: str) -> Series:
    """Name to labels to value. The parser of prometheus_client refuses what Prometheus would."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, f"{family.name} says nothing"
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            key = tuple(sorted(sample.labels.items()))
            assert key not in found.setdefault(sample.name, {}), f"{sample.name}{key} is there twice"
            assert not math.isnan(sample.value)
            found[sample.name][key] = sample.value
    return found


async def read(port: int, **headers: str) -> Series:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return parse(await answer.text())


def one(series: Series, name: str, **labels: str) -> float:
    return series[name][tuple(sorted(labels.items()))]


def documented(root: Path) -> set[str]:
    return set(re.findall(r"`(sitewarden_\w+)`", (root / "docs/metrics.md").read_text("utf-8")))


# --- who may read ------------------------------------------------------------------------------------------------


class Asker:
    """What aiohttp asks a connection for its address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._address, 1) if name == "peername" else default


@pytest.mark.parametrize(
    ("address", "headers", "readers", "may"),
    [
        ("127.0.0.1", {}, Readers(), True),
        ("::1", {}, Readers(), True),
        ("::ffff:127.0.0.1", {}, Readers(), True),
        ("192.168.1.7", {}, Readers(), False),
        ("192.168.1.7", {}, Readers(networks=("192.168.1.0/24",)), True),
        ("::ffff:192.168.1.7", {}, Readers(networks=("192.168.1.0/24",)), True),
        ("192.168.2.7", {}, Readers(networks=("192.168.1.0/24",)), False),
        ("2001:db8::1", {}, Readers(networks=("192.168.1.0/24", "2001:db8::/32")), True),
        ("192.168.1.7", {"Authorization": f"Bearer {TOKEN}"}, Readers(token=TOKEN), True),
        ("192.168.1.7", {"Authorization": "Bearer other"}, Readers(token=TOKEN), False),
        ("192.168.1.7", {"Authorization": "Bearer "}, Readers(), False),
        ("192.168.1.7", {"Authorization": "Bearer é"}, Readers(token=TOKEN), False),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, Readers(), False),
        ("127.0.0.1", {"Forwarded": "for=203.0.113.9"}, Readers(), False),
        ("127.0.0.1", {"Via": "1.1 proxy"}, Readers(), False),
        ("127.0.0.1", {"X-Forwarded-For": "x", "Authorization": f"Bearer {TOKEN}"}, Readers(token=TOKEN), True),
        ("", {}, Readers(), False),
    ],
)
def test_this_machine_may_read_and_others_when_they_are_let(
    address: str, headers: dict[str, str], readers: Readers, may: bool
) -> None:
    request = make_mocked_request("GET", "/metrics", headers=headers, transport=Asker(address))
    assert may_read(request, readers) is may


async def test_whoever_may_not_read_is_told_so(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud", token=TOKEN) as port, aiohttp.ClientSession() as http:
        headers = {"X-Forwarded-For": "203.0.113.9"}
        async with http.get(f"http://127.0.0.1:{port}/metrics", headers=headers) as answer:
            assert answer.status == 403
            assert "sitewarden_" not in await answer.text()
        await read(port, Authorization=f"Bearer {TOKEN}", **headers)


# --- the sheet ---------------------------------------------------------------------------------------------------


async def test_a_name_has_a_bounded_number_of_series() -> None:
    sheet = Sheet()
    for i in range(MOST_SERIES + 50):
        sheet.gauge("sitewarden_many", "Many.", 1, device=f"d{i}")
    series = parse(sheet.text().decode())["sitewarden_many"]
    assert len(series) == MOST_SERIES + 1
    assert series[("device", "other"),] == 50
    assert sum(series.values()) == MOST_SERIES + 50


def test_names_of_people_cannot_break_the_form() -> None:
    sheet = Sheet()
    sheet.gauge("sitewarden_x", "X.", 1, bus='a"b\\c\nd 车间')
    assert parse(sheet.text().decode())["sitewarden_x"] == {(("bus", 'a"b\\c\nd 车间'),): 1}


def test_what_is_not_known_is_left_out() -> None:
    sheet = Sheet()
    sheet.gauge("sitewarden_x", "X.", None)
    assert sheet.text() == b""


def test_libraries_add_no_series_of_their_own() -> None:
    assert b"python_gc" not in Sheet().text()


def test_the_worst_lag_of_a_minute_is_told_and_then_forgotten() -> None:
    now_s = 0.0
    lag = LoopLag(clock=lambda: now_s)
    lag.note(0.4)
    lag.note(0.1)
    assert lag.worst_s == 0.4
    now_s = 31
    lag.note(0.2)
    assert lag.worst_s == 0.4
    now_s = 62
    lag.note(0.0)
    assert lag.worst_s == 0.2


async def test_a_part_that_fails_is_no_empty_page(free_port: Any) -> None:
    async def broken(_: Sheet) -> None:
        raise OSError("the disk is gone")

    app = web.Application()
    add_metrics(app, Readers, [broken])
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 500
    finally:
        await runner.cleanup()


# --- the gateway -------------------------------------------------------------------------------------------------


@pytest.fixture
async def gateway(tmp_path: Path, free_port: Any) -> AsyncIterator[Gateway]:
    sensors = Sensors()
    async with sensors.serving():
        extra = DEVICE.format(unit=1, poll_s=1) + alarm_toml("store.th1.humidity", hi=80)
        extra += f'\n[cloud]\nurl = "http://127.0.0.1:{free_port()}"\n[alerts]\nunreachable_ok = true\n'
        made = Gateway(tmp_path, free_port(), sensors, extra)
        made.prepare()
        async with made.running():
            yield made


async def test_the_gateway_tells_how_it_fares(gateway: Gateway, eventually: Any, root: Path) -> None:
    async def polled() -> bool:
        return one(await read(gateway.web), "sitewarden_readings_total") >= 2

    await eventually(polled, "readings come")
    gateway.sensors.registers[1] = [900, 240]
    await eventually(lambda: gateway.has("store.th1.humidity.high", "raised"), "the alarm is raised")
    series = await read(gateway.web)
    assert set(series) <= documented(root)
    assert one(series, "sitewarden_alarms", priority="3", state="UNACK") == 1
    assert one(series, "sitewarden_bus_up", bus="plant") == 1
    assert one(series, "sitewarden_bus_polls_total", bus="plant", outcome="good") >= 1
    assert one(series, "sitewarden_uplink_configured") == 1
    assert one(series, "sitewarden_uplink_up") == 0
    records = one(series, "sitewarden_journal_records")
    assert one(series, "sitewarden_outbox_waiting", stream="journal") >= records - 1 > 0
    assert one(series, "sitewarden_disk_free_bytes") > 0
    assert one(series, "sitewarden_store_bytes", store="journal.db") > 0
    assert one(series, "sitewarden_loop_lag_seconds") >= 0
    assert 0 <= one(series, "sitewarden_loop_beat_age_seconds", loop="commit") < 60


async def test_no_series_names_a_point(gateway: Gateway) -> None:
    series = await read(gateway.web)
    assert not [key for values in series.values() for key in values if "humidity" in str(key)]
    assert sum(map(len, series.values())) < 200


# --- headquarters ------------------------------------------------------------------------------------------------


async def test_headquarters_tells_of_its_gateways(tmp_path: Path, eventually: Any, root: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, site(tmp_path / "edge") as edge:
        before = await read(port)
        assert one(before, "sitewarden_gateways") == 1
        assert "sitewarden_contact_age_seconds" not in before, "never heard of it"
        await edge.say(3)
        await edge.measure(2)
        async with edge.linked(f"http://127.0.0.1:{port}"):
            await eventually(edge.all_sent, "sent")
        series = await read(port)
        assert set(series) <= documented(root)
        assert one(series, "sitewarden_acked_batches", gateway="gw1", stream="history") == 2
        assert one(series, "sitewarden_durable_lag_batches", gateway="gw1", stream="history") == 0
        assert one(series, "sitewarden_epochs", gateway="gw1", stream="journal") == 1
        assert one(series, "sitewarden_quarantined", gateway="gw1") == 0
        assert 0 <= one(series, "sitewarden_contact_age_seconds", gateway="gw1") < 60


async def test_refusals_are_counted_by_reason(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, aiohttp.ClientSession() as http:
        for name in ("gw1", "gw1", "stranger"):
            async with http.get(f"http://127.0.0.1:{port}/v1/gateways/{name}/sync") as answer:
                assert answer.status in (401, 403)
        series = await read(port)
        assert one(series, "sitewarden_refused_total", reason="unsigned") == 2
        assert one(series, "sitewarden_refused_total", reason="unknown_gateway") == 1


def test_every_series_of_the_document_is_made_somewhere(root: Path) -> None:
    code = "".join(
        (root / file).read_text("utf-8") for file in ("edge/metrics.py", "cloud/metrics.py", "serving/metrics.py")
    )
    assert {name for name in documented(root) if f'"{name}"' not in code} == set()
