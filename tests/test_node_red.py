"""The ready Node-RED dashboard: a real Node-RED, Chromium, and nothing of ours but the MQTT tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect
from sitewarden.edge.discovery import Discovery
from sitewarden.tests.peers.mosquitto import Mosquitto, running
from sitewarden.tests.peers.mqtt_tree import rule, site
from sitewarden.words import Quality

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]
FLOW = ROOT / "config" / "dashboards" / "node-red.json"
PEER = ROOT / ".peers" / "node-red" / "node_modules"
SIZES = {"desk": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with running(tmp_path / "broker") as made:
        yield made


@pytest.fixture
async def node_red(tmp_path: Path, broker: Mosquitto, free_port, eventually) -> AsyncIterator[str]:
    """Address of the page."""
    if not (PEER / "node-red").exists():
        if os.environ.get("CI"):
            pytest.fail("Node-RED is missing: make peers")
        pytest.skip("Node-RED is missing: make peers")
    folder, port = tmp_path / "node-red", free_port()
    folder.mkdir()
    flow = json.loads(FLOW.read_text("utf-8"))
    (node,) = [node for node in flow if node["type"] == "mqtt-broker"]
    node["port"] = str(broker.port)
    (folder / "flows.json").write_text(json.dumps(flow), "utf-8")
    (folder / "flows_cred.json").write_text(json.dumps({node["id"]: {"user": "gw", "password": "secret"}}), "utf-8")
    (folder / "settings.js").write_text(
        "module.exports = {flowFile: 'flows.json', credentialSecret: false, uiHost: '127.0.0.1',"
        " telemetry: {enabled: false, updateNotification: false}, logging: {console: {level: 'info'}}};",
        "utf-8",
    )
    (folder / "node_modules").symlink_to(PEER)
    program = shutil.which("node")
    assert program is not None
    command = [program, str(PEER / "node-red" / "red.js"), "--userDir", str(folder), "--port", str(port)]
    with (tmp_path / "node-red.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    said = tmp_path / "node-red.log"
    try:
        await eventually(lambda: "Started flows" in said.read_text("utf-8"), said.read_text, bound_s=120)
        yield f"http://127.0.0.1:{port}/dashboard/sitewarden"
    finally:
        process.kill()
        process.wait(20)


@pytest.fixture
async def page(need) -> AsyncIterator[Page]:
    chromium = need("chromium", "apt install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page(viewport=SIZES["desk"])  # pyright: ignore[reportArgumentType]
        yield page
        await browser.close()


async def picture(page: Page, name: str) -> None:
    """With SITEWARDEN_SCREENSHOTS=FOLDER: for those who look."""
    if folder := os.environ.get("SITEWARDEN_SCREENSHOTS"):
        for size, viewport in SIZES.items():
            await page.set_viewport_size(viewport)  # pyright: ignore[reportArgumentType]
            await page.screenshot(path=f"{folder}/node-red-{name}-{size}.png", full_page=True)
        await page.set_viewport_size(SIZES["desk"])  # pyright: ignore[reportArgumentType]


async def test_the_dashboard_shows_values_alarms_and_what_is_not_to_be_trusted(
    tmp_path: Path, broker: Mosquitto, node_red: str, page: Page
) -> None:
    expect.set_options(timeout=30_000)
    names: list[str] = ["humidity", "temperature", "pressure", "h2s"]
    rules: list[Any] = [rule("humidity"), rule("h2s")]
    row = page.locator("section tr")
    async with site(tmp_path, broker.port, names, rules, Discovery()) as made:
        for number, name in enumerate(names):
            made.measure(name, 20.5 + number)
        await page.goto(node_red)
        await expect(page.get_by_text("没有报警 no alarms")).to_be_visible()
        await expect(row.filter(has_text="temperature")).to_contain_text("21.5 °C")
        await expect(page.get_by_text("gw1 在线 online")).to_be_visible()
        assert await row.filter(has_text="humidity").get_attribute("class") == "q-good"
        await picture(page, "calm")
        await made.alarm("humidity", "raised", "UNACK")
        made.measure("pressure", None, Quality.BAD)
        await expect(page.locator(".alarms tr")).to_contain_text("未确认 unacknowledged")
        await expect(row.filter(has_text="humidity")).to_have_class("q-good p3")
        await expect(row.filter(has_text="pressure")).to_contain_text("故障 bad")
        await picture(page, "alarm")
        await page.reload()  # who comes later sees the same
        await expect(page.locator(".alarms tr")).to_contain_text("未确认 unacknowledged")
        await made.alarm("humidity", "closed", "NORM")
        await expect(page.get_by_text("没有报警 no alarms")).to_be_visible()
        made.change(["humidity"], [], Discovery())
        await expect(row.filter(has_text="h2s")).to_have_count(0)
    await expect(page.get_by_text("gw1 离线 OFFLINE")).to_be_visible()
    await expect(row.filter(has_text="humidity")).to_have_class("q-offline")
    await picture(page, "offline")
