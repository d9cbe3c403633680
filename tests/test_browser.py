"""The demo as a newcomer uses it: real processes, Debian's Chromium, a phone and a wall screen.

One demo serves the tests in their order: each finds the humidity quiet and leaves it so. Each runs alone, too.
With SITEWARDEN_SCREENSHOTS=FOLDER the pictures of the README are made anew.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
expect.set_options(timeout=30_000)

HUMIDITY = "aux_store.th1.humidity"
ALARM = f"{HUMIDITY}.high"
PHONE = {"width": 390, "height": 844}
WALL = {"width": 1920, "height": 1080}
DESK = {"width": 1440, "height": 900}
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Demo:
    """A running `sitewarden demo`."""

    def __init__(self, data: Path, process: subprocess.Popen[bytes]) -> None:
        self.data = data
        self.process = process

    @property
    def facts(self) -> dict[str, Any]:
        file = self.data / "demo.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def address(self, name: str) -> str:
        return self.facts["addresses"][name]

    def pin(self, person: str) -> str:
        return self.facts["pins"][person]

    def push(self, *words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "sitewarden", "demo", "--data", str(self.data), *words], check=True, timeout=60
        )


@pytest.fixture(scope="module")
def demo(tmp_path_factory, root, need) -> Iterator[Demo]:
    need("mosquitto", "apt install mosquitto")
    if not (root / "web" / "dist" / "control-room.html").exists():
        pytest.fail("the pages are not built: run make web")
    folder = tmp_path_factory.mktemp("demo")
    said, data = folder / "demo.log", folder / "demo"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sitewarden", "demo", "--data", str(data), "--free-ports"], stdout=log, stderr=log
        )
    demo = Demo(data, process)
    try:
        end_s = time.monotonic() + 90
        while not demo.facts.get("running"):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < end_s, f"the demo does not run: {said.read_text()[-3000:]}"
            time.sleep(0.1)
        yield demo
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


@pytest.fixture
async def browser(need) -> AsyncIterator[Browser]:
    chromium = need("chromium", "apt install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        await browser.close()


@pytest.fixture
def picture() -> Callable[[Page, str], Any]:
    """`await picture(page, "alarm")`: a screenshot, when a folder for them is named."""

    async def take(page: Page, name: str) -> None:
        folder = os.environ.get("SITEWARDEN_SCREENSHOTS")
        if folder:
            await page.screenshot(path=Path(folder) / f"{name}.png")

    return take


async def open_page(browser: Browser, url: str, person: str, pin: str, size: dict[str, int]) -> tuple[Page, list[str]]:
    """A new browser profile, signed in; the list fills with script errors and violated policies."""
    context = await browser.new_context(viewport=size, locale="zh-CN")  # pyright: ignore[reportArgumentType]
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if "Content Security Policy" in m.text else None)
    await page.goto(url)
    await page.get_by_test_id(f"sign-in-person-{person}").click()
    await page.get_by_test_id("pin-input").fill(pin)
    await page.get_by_test_id("sign-in-submit").click()
    return page, errors


async def test_newcomer_sees_the_alarm_acknowledges_it_as_both_and_finds_it_at_headquarters(demo, browser, picture):
    edge = demo.address("edge")
    wall, wall_errors = await open_page(browser, edge, "officer_wang", demo.pin("officer_wang"), WALL)
    phone, phone_errors = await open_page(browser, edge, "keeper_li", demo.pin("keeper_li"), PHONE)
    value = wall.get_by_test_id(f"point-value-{HUMIDITY}")
    await expect(value).to_have_text(re.compile(r"\d+\.\d"))
    await expect(wall.get_by_test_id(f"point-{HUMIDITY}")).to_have_attribute("data-freshness", "live")
    await picture(wall, "control-room")

    plant, plant_errors = await (await browser.new_context(viewport=WALL, locale="zh-CN")).new_page(), []
    plant.on("pageerror", lambda error: plant_errors.append(str(error)))
    await plant.goto(demo.address("plant"))
    slider = plant.locator('input[type=range][aria-label*="助剂库"][aria-label*="湿度"]')
    await slider.evaluate(
        "(e) => { e.value = 82; e.dispatchEvent(new Event('input', {bubbles: true}));"
        " e.dispatchEvent(new Event('change', {bubbles: true})); }"
    )

    await expect(phone.get_by_test_id("banner")).to_be_visible()
    await phone.get_by_test_id("nav-alarms").click()
    for page in (wall, phone):
        await expect(page.get_by_test_id(f"alarm-row-{ALARM}")).to_be_visible()
        await expect(page.get_by_test_id("banner")).to_be_visible()
    await expect(value).to_contain_text("82")
    await picture(wall, "alarm")
    await picture(phone, "phone")

    await phone.get_by_test_id(f"ack-{ALARM}-keeper").click()
    await expect(wall.get_by_test_id(f"acked-{ALARM}-keeper")).to_be_visible()
    await expect(wall.get_by_test_id(f"alarm-row-{ALARM}")).to_have_attribute("data-state", "UNACK")
    await wall.get_by_test_id(f"ack-{ALARM}-officer").click()
    for page in (wall, phone):
        await expect(page.get_by_test_id(f"alarm-row-{ALARM}")).to_have_attribute("data-state", "ACKED")
    await expect(wall.get_by_test_id("banner")).to_be_hidden()

    headquarters, hq_errors = await open_page(
        browser, demo.address("cloud"), "officer_wang", demo.pin("officer_wang"), WALL
    )
    await expect(headquarters.get_by_test_id("site-row-gw1")).to_have_attribute("data-state", "online")
    await expect(headquarters.get_by_test_id(f"site-alarm-{ALARM}")).to_be_visible()
    await picture(headquarters, "headquarters")

    robot = await (await browser.new_context(viewport=WALL, locale="zh-CN")).new_page()
    await robot.goto(demo.address("receiver"))
    await expect(robot.locator("body")).to_contain_text("助剂库湿度")
    await picture(robot, "robot")
    await picture(plant, "plant")

    demo.push("--dry")
    await expect(wall.get_by_test_id(f"alarm-row-{ALARM}")).to_be_hidden(timeout=60_000)
    await expect(headquarters.get_by_test_id(f"site-alarm-{ALARM}")).to_be_hidden(timeout=60_000)
    assert not (wall_errors + phone_errors + hq_errors + plant_errors)


async def test_a_point_opens_its_chart_from_an_hour_to_a_year_and_gives_it_as_a_file(demo, browser, picture, tmp_path):
    for size, name in ((DESK, "chart"), (PHONE, "chart-phone")):
        page, errors = await open_page(browser, demo.address("edge"), "officer_wang", demo.pin("officer_wang"), size)
        await expect(page.get_by_test_id(f"point-value-{HUMIDITY}")).to_have_text(re.compile(r"\d"))
        await page.get_by_test_id(f"point-{HUMIDITY}").click()
        for range_name in ("year", "month", "week", "day", "hour"):
            button = page.get_by_test_id(f"chart-{range_name}")
            await button.click()
            await expect(button).to_have_attribute("aria-pressed", "true")
            await expect(page.get_by_test_id("chart")).to_be_visible()
        await expect(page.get_by_test_id("chart-caption")).to_contain_text("最高")
        box = await page.get_by_test_id("chart").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= size["width"], "no part of it is beside the screen"
        await page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 50)
        await expect(page.get_by_test_id("chart-caption")).to_contain_text("个读数")
        await picture(page, name)
        window = page.get_by_test_id("trend-window")
        hour = await window.text_content()
        await page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 80)
        await page.mouse.down()
        await page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 80, steps=4)
        await page.mouse.up()
        await expect(page.get_by_test_id("zoom-live")).to_be_visible()
        await expect(window).not_to_have_text(hour or "")
        await picture(page, f"{name}-zoomed")
        await page.keyboard.press("0")
        await expect(page.get_by_test_id("zoom-live")).to_have_count(0)
        await page.get_by_test_id("zoom-in").click()
        await expect(page.get_by_test_id("zoom-live")).to_be_visible()
        await page.get_by_test_id("chart-hour").click()
        await page.get_by_test_id("zoom-live").click()
        async with page.expect_download() as started:
            await page.get_by_test_id("export-csv").click()
        file = tmp_path / f"{name}.csv"
        await (await started.value).save_as(file)
        rows = file.read_text("utf-8-sig").splitlines()
        assert rows[0].startswith("时间 Time,UTC")
        assert len(rows) > 1
        await expect(page.get_by_test_id("export-progress")).to_have_count(0)
        assert errors == []


async def test_an_officer_tests_the_whole_chain_and_sees_each_verdict(demo, browser, picture):
    edge = demo.address("edge")
    wall, errors = await open_page(browser, edge, "officer_wang", demo.pin("officer_wang"), DESK)
    phone, phone_errors = await open_page(browser, edge, "keeper_li", demo.pin("keeper_li"), PHONE)
    await expect(wall.get_by_test_id(f"point-{HUMIDITY}")).to_have_attribute("data-freshness", "live")
    await wall.goto(f"{edge}#/proof")
    await phone.goto(f"{edge}#/proof")
    await expect(wall.get_by_test_id("proof-none")).to_be_visible()
    await expect(wall.get_by_test_id("proof-schedule")).to_contain_text("每周一 10:00 自动测试")
    await expect(wall.get_by_test_id("proof-point")).to_have_value("sewage_pit.gas4.h2s")
    await expect(phone.get_by_test_id("proof-begin")).to_have_count(0)

    await wall.get_by_test_id("proof-begin").click()
    await expect(wall.get_by_role("dialog")).to_contain_text("【测试】")
    await picture(wall, "proof-asks")
    await wall.get_by_test_id("proof-submit").click()
    for page in (wall, phone):
        await expect(page.get_by_test_id("proof-running")).to_be_visible()
    await expect(wall.get_by_test_id("proof-begin")).to_be_disabled()
    await expect(wall.get_by_test_id("proof-step-alarm")).to_have_attribute("data-verdict", "passed")
    await picture(wall, "proof-running")

    for page in (wall, phone):
        run = page.get_by_test_id("proof-run-1")
        await expect(run.get_by_test_id("proof-result")).to_have_attribute("data-result", "passed", timeout=120_000)
        for part in ("source", "journal", "recipients", "page", "mqtt", "cloud", "sounded"):
            await expect(run.get_by_test_id(f"proof-step-{part}")).to_have_attribute("data-verdict", "passed")
        await expect(run.get_by_test_id("proof-step-delivered")).to_have_attribute("data-verdict", "not_there")
    await picture(wall, "proof")
    await picture(phone, "proof-phone")
    await wall.get_by_test_id("lang-toggle").click()
    await expect(wall.get_by_test_id("proof-run-1")).to_contain_text("begun by Wang")
    await picture(wall, "proof-english")
    await wall.goto(f"{edge}#/overview")
    await expect(wall.get_by_test_id("banner")).to_be_hidden()
    await expect(wall.get_by_test_id(re.compile("^alarm-row-"))).to_have_count(0)
    assert not (errors + phone_errors)


async def test_an_alarm_is_shelved_with_a_reason_and_found_in_history_statistics_and_delivery_log(
    demo, browser, picture
):
    edge = demo.address("edge")
    wall, errors = await open_page(browser, edge, "officer_wang", demo.pin("officer_wang"), WALL)
    phone, phone_errors = await open_page(browser, edge, "keeper_li", demo.pin("keeper_li"), PHONE)
    await expect(wall.get_by_test_id(f"point-{HUMIDITY}")).to_have_attribute("data-freshness", "live")
    demo.push("--humid")
    row = wall.get_by_test_id(f"alarm-row-{ALARM}")
    await expect(row).to_have_attribute("data-state", "UNACK")

    await wall.get_by_test_id(f"shelve-{ALARM}").click()
    submit = wall.get_by_test_id("shelve-submit")
    await expect(submit).to_be_disabled()
    await wall.get_by_test_id("shelve-why").fill("传感器检修中")
    await wall.get_by_test_id("minutes-15").check()
    await wall.route("**/shelve", lambda route: route.fulfill(status=409, json={"error": {"reason": "too_long"}}))
    await submit.click()
    refusal = wall.get_by_role("dialog").get_by_test_id("toast")  # outside the dialog nothing can be pressed
    await refusal.get_by_role("button").click()
    await expect(refusal).to_have_count(0)
    await wall.unroute("**/shelve")
    await submit.click()
    await expect(wall.get_by_test_id(f"overlay-{ALARM}")).to_contain_text("传感器检修中")
    await expect(wall.get_by_test_id("banner")).to_be_hidden()
    await phone.get_by_test_id("nav-alarms").click()
    await phone.get_by_test_id("tab-covered").click()
    await expect(phone.get_by_test_id(f"overlay-{ALARM}")).to_contain_text("传感器检修中")
    await phone.get_by_test_id(f"uncover-{ALARM}").click()
    await expect(wall.get_by_test_id(f"overlay-{ALARM}")).to_be_hidden()
    await expect(wall.get_by_test_id("banner")).to_be_visible()

    await wall.get_by_test_id("page-history").click()
    table = wall.get_by_test_id("history-table")
    await expect(table.locator("tbody tr")).not_to_have_count(1)
    await wall.get_by_test_id("filter-change").select_option("shelved")
    await expect(table.locator("tbody tr")).to_have_count(1)
    await expect(table).to_contain_text("传感器检修中")
    await wall.reload()  # the address keeps what was asked for
    await expect(table.locator("tbody tr")).to_have_count(1)
    await wall.get_by_test_id("filter-text").fill("nothing of the kind")
    await wall.get_by_test_id("find").click()
    await expect(wall.get_by_test_id("page-empty")).to_be_visible()
    await wall.get_by_test_id("clear").click()
    await expect(table.locator("tbody tr")).not_to_have_count(1)
    export = await wall.get_by_test_id("history-csv").get_attribute("href")
    assert (await wall.evaluate(_BYTES, export))[:3] == [0xEF, 0xBB, 0xBF]

    await wall.get_by_test_id("page-statistics").click()
    await expect(wall.get_by_test_id("number-annunciated")).to_be_visible()
    shown = (await wall.get_by_test_id("statistics-csv").get_attribute("href") or "").replace(".csv", "")
    (numbers,) = (await wall.evaluate(_JSON, shown))["positions"]
    assert numbers["annunciated"] >= 2, "raised, and raised afresh when the shelf ended"
    for key in ("annunciated", "peak", "per_10_min", "top_ten_pct", "covered"):
        text = await wall.get_by_test_id(f"number-{key}").locator("td b").inner_text()
        assert float(text) == pytest.approx(numbers[key], abs=0.005), key
    await picture(wall, "statistics")

    await wall.get_by_test_id("page-deliveries").click()
    await expect(wall.locator('[data-testid^="message-"]').first).to_contain_text("助剂库湿度")
    await expect(wall.get_by_text("所有途径都未通")).to_have_count(0)
    await wall.get_by_test_id("page-ladders").click()
    await expect(wall.get_by_test_id("no-freezes")).to_be_visible()
    await phone.get_by_test_id("nav-more").click()
    await phone.get_by_test_id("page-history").last.click()
    await expect(phone.get_by_test_id("history-table").locator("tbody tr").first).to_be_visible()

    await phone.get_by_test_id("nav-alarms").click()
    await phone.get_by_test_id(f"ack-{ALARM}-keeper").click()
    await wall.goto(f"{edge}#/alarms")
    await wall.get_by_test_id(f"ack-{ALARM}-officer").click()
    await expect(row).to_have_attribute("data-state", "ACKED")
    demo.push("--dry")
    await expect(row).to_be_hidden(timeout=60_000)
    assert not (errors + phone_errors)


_JSON = "async (path) => (await fetch(path)).json()"
_BYTES = "async (path) => [...new Uint8Array(await (await fetch(path)).arrayBuffer())]"


async def test_nine_tabs_of_one_browser_share_a_stream_and_all_are_live(demo, browser, picture):
    """Over HTTP/1.1 a browser has six connections to a server: with a stream each, the seventh tab would wait."""
    first, errors = await open_page(browser, demo.address("edge"), "control_zhao", demo.pin("control_zhao"), WALL)
    await expect(first.get_by_test_id(f"point-{HUMIDITY}")).to_have_attribute("data-freshness", "live")
    tabs = [first]
    for _ in range(8):
        tab = await first.context.new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        await tab.goto(demo.address("edge"), timeout=60_000)
        await expect(tab.get_by_test_id(f"point-{HUMIDITY}")).to_have_attribute(
            "data-freshness", "live", timeout=60_000
        )
        tabs.append(tab)
    demo.push("--humid")
    for tab in tabs:
        await expect(tab.get_by_test_id("banner")).to_be_visible(timeout=60_000)
    await first.close()
    os.kill(demo.facts["pids"]["edge"], signal.SIGKILL)
    for tab in tabs[1:]:
        await expect(tab.get_by_test_id("connection-lost")).to_be_visible(timeout=60_000)
    for tab in tabs[1:]:
        await expect(tab.get_by_test_id("connection-lost")).to_be_hidden(timeout=60_000)
    assert not errors


async def test_a_dead_device_turns_grey_and_a_lost_gateway_is_said_in_english(demo, browser, picture):
    wall, errors = await open_page(browser, demo.address("edge"), "control_zhao", demo.pin("control_zhao"), WALL)
    card = wall.get_by_test_id(f"point-{HUMIDITY}")
    await expect(card).to_have_attribute("data-freshness", "live")
    await wall.get_by_test_id("lang-toggle").click()
    await expect(card).to_contain_text("humidity", ignore_case=True)
    demo.push("--kill", "th1")
    await expect(card).to_have_attribute("data-freshness", "bad")
    neighbour = wall.get_by_test_id("point-steaming.steamer1.pressure")
    await expect(neighbour).to_have_attribute("data-freshness", "live")
    await picture(wall, "dead-device")
    demo.push("--ok", "th1")
    await expect(card).to_have_attribute("data-freshness", "live", timeout=90_000)

    os.kill(demo.facts["pids"]["edge"], signal.SIGKILL)
    await expect(wall.get_by_test_id("connection-lost")).to_be_visible()
    await expect(wall.get_by_test_id("connection-lost")).to_be_hidden(timeout=60_000)
    await expect(card).to_have_attribute("data-freshness", "live", timeout=60_000)
    assert not errors
