"""The control room in Debian's Chromium: how soon an alarm is there, and what hundreds of points look like."""

from __future__ import annotations

import pytest
from playwright.async_api import expect
from sitewarden.tests.test_alarm_pages import begin
from sitewarden.tests.test_browser import PHONE, WALL
from sitewarden.tests.test_browser_plan import chromium, kept, opened
from sitewarden.tests.test_edge_api import ALARM, HUMIDITY, push, signed_in
from sitewarden.words import utc_from_text

__all__ = ["begin", "chromium"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
SOON_MS = 1000
REGISTERS = 124
SEEN = """id => new Promise(seen => {
  const look = () => document.querySelector(`[data-testid="point-${id}"][data-alarm]`) && seen(Date.now())
  new MutationObserver(look).observe(document, {subtree: true, childList: true, attributes: true})
  document.title = 'watching'
})"""


@pytest.mark.parametrize(("size", "locale"), [(WALL, "zh-CN"), (PHONE, "en-GB")], ids=["wall-zh", "phone-en"])
async def test_an_alarm_is_on_the_page_within_a_second_of_its_commit(begin, chromium, eventually, size, locale):
    site = await begin()
    page = await opened(chromium, site, size, locale)
    await expect(page.get_by_test_id(f"point-value-{HUMIDITY}")).to_have_text("58.3")
    async with signed_in(site, "li") as li:
        handle = await page.evaluate_handle(f"({{ at: ({SEEN})({HUMIDITY!r}) }})")
        alarm = await push(site, li, 80.0, "UNACK", eventually)
        seen_ms = await handle.evaluate("watch => watch.at")
    late_ms = seen_ms - utc_from_text(alarm["raised_at"])
    assert -50 <= late_ms <= SOON_MS, "the page and the gateway share this machine's clock"
    await expect(page.get_by_test_id("banner")).to_be_visible()
    if size is PHONE:
        await page.get_by_test_id("nav-alarms").click()
    await expect(page.get_by_test_id(f"alarm-row-{ALARM}")).to_be_visible()


async def test_of_hundreds_of_points_those_in_sight_are_drawn(begin, chromium, tmp_path):
    text = 'id = "many"\nname = "m"\nname_en = "m"\nsource = "tests"\n'
    for r in range(REGISTERS):
        text += f'[[registers]]\nname = "r{r}"\nname_zh = "第{r}"\nname_en = "r{r}"\nunit = "x"\nquantity = "other"\n'
        text += f'decimals = 1\naddress = {r}\ntype = "u16"\nscale = 0.1\n'
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "many.toml").write_text(text, "utf-8")
    extra = '[profiles]\nfolder = "profiles"\n[[device]]\nid = "m"\narea = "steaming"\nbus = "plant"\nunit_id = 2\n'
    site = await begin(extra=extra + 'profile = "many"\npoll_s = 0.5\n')
    site.registers += range(1, REGISTERS)
    page = await opened(chromium, site, WALL, "zh-CN")
    strip = page.get_by_test_id("strip-steaming")
    await expect(strip).to_contain_text(f"{REGISTERS} 个测点")
    await expect(page.get_by_test_id(f"point-value-{HUMIDITY}")).to_have_text("58.3")
    far = page.get_by_test_id(f"point-steaming.m.r{REGISTERS - 1}")
    await expect(far).to_be_attached()
    value = page.get_by_test_id(f"point-value-steaming.m.r{REGISTERS - 1}")
    await expect(value).to_have_count(0)
    await far.scroll_into_view_if_needed()
    await expect(value).to_have_text(f"{site.registers[REGISTERS - 1] / 10:.1f}")
    await strip.click()
    first = page.get_by_test_id("point-value-steaming.m.r0")
    await expect(first).to_be_in_viewport()
    height = (await first.bounding_box() or {})["height"]
    await page.set_viewport_size({"width": 3840, "height": 2160})
    await expect(first).to_be_in_viewport()
    assert (await first.bounding_box() or {})["height"] > 1.6 * height, "read from metres away"
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    await kept(page, "overview-many-4k")
    assert page.errors == []  # type: ignore[attr-defined]
