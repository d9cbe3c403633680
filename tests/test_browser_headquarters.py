"""Headquarters' pages in Debian's Chromium, over one demo: opened by keyboard, fed by a stick, and without barriers.

With SITEWARDEN_SCREENSHOTS=FOLDER pictures of every page are kept there (docs/screenshots).
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import pytest
from playwright.async_api import expect
from sitewarden.tests.peers.axe import serious_findings
from sitewarden.tests.test_browser import DESK, PHONE, WALL, browser, demo, open_page, picture
from sitewarden.tests.test_browser_plan import kept

__all__ = ["browser", "demo", "picture"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


async def test_headquarters_opens_a_site_by_keyboard_and_takes_in_a_stick(demo, browser, picture, tmp_path):
    desk, errors = await open_page(browser, demo.address("cloud"), "it_liu", demo.pin("it_liu"), DESK)
    phone, phone_errors = await open_page(browser, demo.address("cloud"), "it_liu", demo.pin("it_liu"), PHONE)
    row = desk.get_by_test_id("site-row-gw1")
    await expect(row).to_have_attribute("data-state", "online")
    await expect(desk.get_by_test_id("site-clock-gw1")).to_contain_text("秒", timeout=90_000)  # it said so of itself
    await expect(desk.get_by_test_id("site-disk-gw1")).to_contain_text("历史")
    await desk.get_by_test_id("sites-find").fill("nowhere")
    await expect(row).to_have_count(0)
    await desk.get_by_test_id("sites-find").fill("GW1")
    await desk.get_by_test_id("sites-sort").select_option("lag")
    await expect(row).to_be_visible()

    await desk.get_by_test_id("site-open-gw1").focus()
    await desk.keyboard.press("Enter")
    await expect(desk.get_by_test_id("site-page-gw1")).to_have_attribute("data-state", "online")
    assert desk.url.endswith("#/site/gw1")
    for part in ("site-open-alarms", "site-epochs", "site-witness", "site-gaps", "site-quarantined", "site-evidence"):
        await expect(desk.get_by_test_id(part)).to_be_visible()
    await expect(desk.get_by_test_id("site-witness")).to_contain_text("已副签")
    await expect(desk.get_by_test_id("site-epochs")).to_contain_text("首个纪元")
    await picture(desk, "headquarters-site")
    await desk.go_back()
    await expect(desk.get_by_test_id("sites-find")).to_have_value("GW1")
    await expect(desk.get_by_test_id("sites-sort")).to_have_value("lag")
    await phone.goto(f"{demo.address('cloud')}#/site/gw1")  # as somebody sent it
    await expect(phone.get_by_test_id("site-page-gw1")).to_be_visible()
    assert await phone.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no part is beside the screen"

    stick = tmp_path / "plant.swx"
    export = [sys.executable, "-m", "sitewarden", "bundle", "export", str(stick), "--all", "--data", str(demo.data)]
    await asyncio.to_thread(subprocess.run, export, check=True, timeout=120)
    await phone.get_by_test_id("nav-bundles").click()
    broken = tmp_path / "broken.swx"
    broken.write_bytes(stick.read_bytes()[:-50])
    await phone.get_by_test_id("bundle-file").set_input_files(broken)
    await expect(phone.get_by_test_id("bundle-failed")).to_contain_text("文件已损坏")
    await phone.get_by_test_id("bundle-again").click()
    await phone.get_by_test_id("bundle-file").set_input_files(stick)
    await expect(phone.get_by_test_id("bundle-stream-journal")).to_contain_text(
        re.compile(r"新收 \d+ 批\s*已有 \d+ 批")
    )
    async with phone.expect_download() as started:
        await phone.get_by_test_id("bundle-answer").click()
    answer = tmp_path / (await started.value).suggested_filename
    await (await started.value).save_as(answer)
    assert answer.name == "plant-answer.swx"
    show = [sys.executable, "-m", "sitewarden", "bundle", "show", str(answer), "--json"]
    shown = json.loads((await asyncio.to_thread(subprocess.run, show, check=True, capture_output=True)).stdout)
    assert shown["cursors"]["journal"][0]["ack"] >= 1
    assert "config/order.json" in shown["files"]
    await picture(phone, "bundle-phone")
    assert not (errors + phone_errors)


@pytest.mark.parametrize(
    ("size", "locale", "theme"),
    [(WALL, "zh-CN", "dark"), (WALL, "en-GB", "light"), (PHONE, "zh-CN", "light"), (PHONE, "en-GB", "dark")],
    ids=["wall-zh-dark", "wall-en-light", "phone-zh-light", "phone-en-dark"],
)
async def test_every_page_of_headquarters_is_without_barriers(demo, browser, size, locale, theme):
    cloud, ending = demo.address("cloud"), f"{'phone' if size is PHONE else 'wall'}-{locale[:2]}-{theme}"
    found = dict[str, list[str]]()
    context = await browser.new_context(viewport=size, locale=locale, color_scheme=theme)
    await context.add_init_script(f"localStorage.setItem('sitewarden.theme', '{theme}')")
    page = await context.new_page()

    async def look(name: str) -> None:
        found[name] = await serious_findings(page)
        if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found[name].append("sticks out to the right")
        await kept(page, f"headquarters-{name}-{ending}")

    await page.goto(cloud)
    await expect(page.get_by_test_id("sign-in-person-it_liu")).to_be_visible()
    await look("people")
    await page.get_by_test_id("sign-in-person-it_liu").click()
    await expect(page.get_by_test_id("pin-input")).to_be_visible()
    await look("pin")
    await page.get_by_test_id("pin-input").fill(demo.pin("it_liu"))
    await page.get_by_test_id("sign-in-submit").click()
    await expect(page.get_by_test_id("site-row-gw1")).to_have_attribute("data-state", "online")
    demo.push("--humid")
    await expect(page.get_by_test_id(re.compile("^site-alarm-")).first).to_be_visible()
    await look("sites")
    await page.evaluate("location.hash = '#/site/gw1'")
    await expect(page.get_by_test_id("site-page-gw1")).to_be_visible()
    await expect(page.get_by_test_id("site-witness")).to_be_visible()
    await look("site")
    await page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    await look("site-end")
    await page.evaluate("location.hash = '#/bundles'")
    await expect(page.get_by_test_id("bundle-file")).to_be_attached()
    await look("bundles")
    assert {name: what for name, what in found.items() if what} == {}
