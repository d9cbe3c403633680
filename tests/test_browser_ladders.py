"""Freezes, reports and channels in Debian's Chromium: on a desk and on a phone, on a running gateway.

With SITEWARDEN_SCREENSHOTS=FOLDER pictures of what is seen are kept.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect
from sitewarden.tests.test_alarm_pages import begin, climbing
from sitewarden.tests.test_browser import PHONE, QUIET
from sitewarden.tests.test_edge_api import PIN, Site

__all__ = ["begin"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
DESK = {"width": 1440, "height": 900}
CHANNELS = """
[[channel]]
id = "hook"
kind = "webhook"
url = "http://127.0.0.1:9/"
[[channel]]
id = "modem"
kind = "sms"
serial = "no-such-modem"
"""


@pytest.fixture
async def chromium(need, root) -> AsyncIterator[Browser]:
    if not (root / "web" / "dist" / "control-room.html").exists():
        pytest.fail("the pages are not built: run make web")
    path = need("chromium", "apt install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        await browser.close()


async def opened(chromium: Browser, site: Site, size: dict[str, int], locale: str, errors: list[str]) -> Page:
    """The control room's page in a profile of its own, `wang` signed in."""
    context = await chromium.new_context(viewport=size, locale=locale)  # pyright: ignore[reportArgumentType]
    page = await context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(f"http://127.0.0.1:{site.port}/")
    await page.get_by_test_id("sign-in-person-wang").click()
    await page.get_by_test_id("pin-input").fill(PIN)
    await page.get_by_test_id("sign-in-submit").click()
    return page


async def kept(page: Page, name: str) -> None:
    folder = os.environ.get("SITEWARDEN_SCREENSHOTS")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize(("size", "locale"), [(DESK, "zh-CN"), (PHONE, "en-GB")], ids=["desk", "phone"])
async def test_a_freeze_is_released_its_report_closed_and_a_channel_that_fails_is_seen(begin, chromium, size, locale):
    drafts, errors, width = climbing(), list[str](), size["width"]
    drafts[1].body["freeze"]["by"] = ["officer"]
    site = await begin(drafts, extra=CHANNELS)
    page = await opened(chromium, site, size, locale, errors)
    await page.goto(f"http://127.0.0.1:{site.port}/#/ladders")
    await expect(page.get_by_test_id("must-see-name")).to_contain_text("漏汽" if locale == "zh-CN" else "Steam leak")
    await kept(page, f"must-see-{width}")
    await page.keyboard.press("Enter")  # the freeze and what escalates are dealt with on the same page
    await expect(page.get_by_test_id("must-see")).to_have_count(0)
    await page.get_by_test_id("must-see-again").click()
    await page.get_by_test_id("must-see-seen").click()
    await expect(page.get_by_test_id("must-see-name")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("must-see")).to_have_count(0)
    close = page.get_by_test_id("close-deviation")
    await expect(close).to_be_disabled()
    await kept(page, f"report-frozen-{width}")
    await page.get_by_test_id("release").click()
    await page.get_by_test_id("release-reason").fill("阀门已换 valve replaced")
    await page.get_by_test_id("release-submit").click()
    await expect(close).to_be_enabled()
    await close.click()
    await expect(page.get_by_test_id("deviation-submit")).to_be_disabled()
    await page.get_by_test_id("deviation-cause").fill("密封圈老化，年检未覆盖")
    await page.get_by_test_id("deviation-measure").fill("更换密封圈并列入月检")
    await kept(page, f"report-dialog-{width}")
    await page.get_by_test_id("deviation-submit").click()
    report = page.locator("[data-testid^='deviation-']").filter(has_text="密封圈老化，年检未覆盖")
    await expect(report).to_contain_text("更换密封圈并列入月检")
    await expect(close).to_have_count(0)
    await kept(page, f"report-closed-{width}")

    await page.goto(f"http://127.0.0.1:{site.port}/#/{'status' if size is PHONE else ''}")
    if size is DESK:
        await expect(page.get_by_test_id("status-channels")).to_have_attribute("data-state", "bad")
        await page.get_by_test_id("status-channels").click()
    status = page.get_by_role("main" if size is PHONE else "dialog")
    await expect(status.get_by_test_id("channel-modem")).to_have_attribute("data-fault", "offline")
    await expect(status.get_by_test_id("channel-modem")).to_contain_text("▲")
    await expect(status.get_by_test_id("channel-hook")).to_have_attribute("data-fault", "")
    await status.get_by_test_id("channels").scroll_into_view_if_needed()
    await kept(page, f"channels-{width}")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    assert errors == []
