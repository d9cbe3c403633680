"""The site plan and every page of the control room in Debian's Chromium: drawn, seen, and without barriers.

With SITEWARDEN_SCREENSHOTS=FOLDER pictures of every page are kept there (docs/screenshots).
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.async_api import Browser, Locator, Page, async_playwright, expect
from sitewarden.tests.peers.axe import serious_findings
from sitewarden.tests.test_alarm_pages import begin, climbing, past
from sitewarden.tests.test_browser import PHONE, QUIET, WALL
from sitewarden.tests.test_edge_api import HUMIDITY, PIN, Site, push, signed_in

__all__ = ["begin"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
TEMPERATURE = "aux_store.th1.temperature"


@pytest.fixture
async def chromium(need, root) -> AsyncIterator[Browser]:
    if not (root / "web" / "dist" / "control-room.html").exists():
        pytest.fail("the pages are not built: run make web")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=need("chromium", "apt install chromium"), args=QUIET)
        yield browser
        await browser.close()


async def opened(chromium: Browser, site: Site, size: dict[str, int], locale: str, person: str = "wang") -> Page:
    """The control room, signed in; errors of its scripts and policies are in `page.errors`."""
    phone = size is PHONE
    context = await chromium.new_context(viewport=size, locale=locale, has_touch=phone)  # pyright: ignore[reportArgumentType]
    page, errors = await context.new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if "Content Security Policy" in m.text else None)
    page.on("dialog", lambda dialog: dialog.accept())
    page.errors = errors  # type: ignore[attr-defined]
    await page.goto(f"http://127.0.0.1:{site.port}/")
    await page.get_by_test_id(f"sign-in-person-{person}").click()
    await page.get_by_test_id("pin-input").fill(PIN)
    await page.get_by_test_id("sign-in-submit").click()
    await expect(page.get_by_test_id("overview")).to_be_visible()
    return page


async def kept(page: Page, name: str) -> None:
    folder = os.environ.get("SITEWARDEN_SCREENSHOTS")
    if folder:
        with Image.open(io.BytesIO(await page.screenshot())) as image:
            image.save(Path(folder) / f"{name}.webp", quality=82, method=6)


def drawing() -> bytes:
    """A plant as an architect draws it: halls, a road, a pond."""
    image = Image.new("RGB", (1600, 900), "white")
    pen = ImageDraw.Draw(image)
    for box in ((80, 80, 620, 420), (700, 80, 1300, 420), (80, 540, 480, 820), (560, 540, 1000, 820)):
        pen.rectangle(box, outline="black", width=5)
    for x in range(720, 1300, 60):
        pen.line((x, 100, x, 400), fill="#bbb", width=2)
    pen.line((0, 480, 1600, 480), fill="#888", width=3)
    pen.ellipse((1120, 560, 1480, 800), outline="black", width=4)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


async def centre(locator: Locator) -> tuple[float, float]:
    box = await locator.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


async def drag(page: Page, locator: Locator, dx: float, dy: float) -> None:
    x, y = await centre(locator)
    await page.mouse.move(x, y)
    await page.mouse.down()
    await page.mouse.move(x + dx, y + dy, steps=5)
    await page.mouse.up()


async def import_drawing(page: Page, file: Any) -> None:
    await page.get_by_test_id("plan-picture").set_input_files(file)
    await expect(page.get_by_test_id("plan-board").locator("img")).to_be_visible()


@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
async def test_a_plan_is_drawn_with_mouse_and_keys_and_shows_values_and_alarms(begin, chromium, eventually, locale):
    site = await begin()
    page = await opened(chromium, site, WALL, locale)
    await page.keyboard.press("p")
    await expect(page.get_by_test_id("no-plan")).to_be_visible()
    await page.get_by_test_id("plan-add").click()
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 90"><path d="M9 9h60v40H9z"/></svg>'
    await import_drawing(page, {"name": "site.svg", "mimeType": "image/svg+xml", "buffer": svg})

    await page.get_by_test_id(f"plan-put-{HUMIDITY}").click()
    item = page.get_by_test_id(f"plan-item-{HUMIDITY}")
    await expect(item).to_contain_text("58.3 %RH")
    before = await centre(item)
    await drag(page, item, -200, 100)
    after = await centre(item)
    assert (round(after[0] - before[0]), round(after[1] - before[1])) == (-200, 100)
    await item.press("ArrowRight")
    assert (await centre(item))[0] > after[0]
    await page.get_by_test_id("plan-undo").click()
    assert abs((await centre(item))[0] - after[0]) < 1

    await page.get_by_test_id("plan-add-zone").click()
    await page.get_by_test_id("plan-item-ref").select_option("aux_store")
    corner = page.get_by_test_id("plan-corner-0")
    was = await centre(corner)
    await drag(page, corner, -150, -80)
    assert abs((await centre(corner))[0] - was[0] + 150) < 2
    await page.get_by_test_id("plan-more-corner").click()
    await expect(page.get_by_test_id(re.compile("^plan-corner-"))).to_have_count(5)
    await page.get_by_test_id("plan-add-camera").click()
    await page.get_by_test_id("plan-item-angle").fill("225")
    await page.get_by_test_id("plan-item-name").fill("<img src=x onerror=alert(1)>")
    await page.get_by_test_id("plan-save").click()
    await expect(page.get_by_test_id("plan-editor")).to_have_count(0)

    async with signed_in(site, "li") as li:
        (plan,) = (await li.get("plans"))["plans"]
        assert {one["kind"] for one in plan["items"]} == {"point", "zone", "camera"}
        await expect(item).to_have_attribute("data-priority", "0")
        await push(site, li, 80.0, "UNACK", eventually)
        await expect(item).not_to_have_attribute("data-priority", "0")
        await expect(item).to_contain_text("80.0")
        await expect(page.get_by_test_id("plan-item-zone")).not_to_have_attribute("data-priority", "0")
        await expect(page.get_by_test_id("plan-off")).to_have_count(0)
    await item.press("Enter")
    await expect(page.get_by_test_id("chart")).to_be_visible()
    assert page.errors == []  # type: ignore[attr-defined]


async def test_on_a_phone_a_finger_moves_it_and_who_may_not_draw_only_looks(begin, chromium):
    site = await begin()
    page = await opened(chromium, site, PHONE, "zh-CN")
    await page.goto(f"http://127.0.0.1:{site.port}/#/plan")
    await page.get_by_test_id("plan-add").click()
    await import_drawing(page, {"name": "site.png", "mimeType": "image/png", "buffer": drawing()})
    await page.get_by_test_id(f"plan-put-{HUMIDITY}").tap()
    item = page.get_by_test_id(f"plan-item-{HUMIDITY}")
    await item.scroll_into_view_if_needed()
    x, y = await centre(item)
    touch = await page.context.new_cdp_session(page)
    for kind, dx in (("touchStart", 0), ("touchMove", 30), ("touchMove", 60)):
        await touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x + dx, "y": y}]})
    await touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert abs((await centre(item))[0] - x - 60) < 3
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    await page.get_by_test_id("plan-save").click()
    await expect(page.get_by_test_id("plan-editor")).to_have_count(0)

    li = await opened(chromium, site, PHONE, "zh-CN", "li")
    await li.goto(f"http://127.0.0.1:{site.port}/#/plan")
    await expect(li.get_by_test_id(f"plan-item-{HUMIDITY}")).to_be_visible()
    await expect(li.get_by_test_id("plan-edit")).to_have_count(0)
    await _pinched(li, li.get_by_test_id(f"plan-item-{HUMIDITY}"))
    assert page.errors == li.errors == []  # type: ignore[attr-defined]


async def _pinched(page: Page, item: Locator) -> None:
    """Two fingers magnify; what is between them stays there."""
    touch = await page.context.new_cdp_session(page)
    x, y = await centre(item)
    board = page.get_by_test_id("plan-board")
    before = await board.bounding_box()
    for kind, apart in (("touchStart", 20), ("touchMove", 30), ("touchMove", 50)):
        fingers = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
        await touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    await touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    after = await board.bounding_box()
    assert before is not None
    assert after is not None
    assert after["width"] == pytest.approx(2.5 * before["width"], rel=0.02)
    assert await centre(item) == pytest.approx((x, y), abs=4)
    await page.get_by_test_id("plan-zoom-out").click()
    await expect(board).to_have_css("width", f"{2 * before['width']:g}px")


TOUR = ("overview", "plan", "history", "statistics", "ladders", "deliveries", "proof")


async def plan_of_the_site(site: Site) -> None:
    async with signed_in(site, "wang") as wang:
        headers = {"X-CSRF-Token": wang.csrf}
        async with wang.http.post(site.url("plans/pictures"), data=drawing(), headers=headers) as answer:
            picture = (await answer.json())["picture"]
        hall = [[0.05, 0.09], [0.39, 0.09], [0.39, 0.47], [0.05, 0.47]]
        other = [[0.44, 0.09], [0.81, 0.09], [0.81, 0.47], [0.44, 0.47]]
        items = [
            {"id": "z1", "kind": "zone", "ref": "aux_store", "at": hall},
            {"id": "z2", "kind": "zone", "ref": "steaming", "at": other},
            {"id": "p1", "kind": "point", "ref": HUMIDITY, "at": [[0.15, 0.2]]},
            {"id": "p2", "kind": "point", "ref": TEMPERATURE, "at": [[0.29, 0.36]]},
            {"id": "c1", "kind": "camera", "name": "污水池", "name_en": "Pond", "at": [[0.68, 0.8]], "angle": 90},
            {"id": "k1", "kind": "checkpoint", "name": "北门", "name_en": "North gate", "at": [[0.95, 0.53]]},
            {"id": "f1", "kind": "fence", "name": "围栏", "at": [[0.69, 0.6], [0.95, 0.6], [0.95, 0.92]]},
        ]
        body = {"name": "一号厂区", "name_en": "Plant 1", "picture": picture, "items": items, "base": 0}
        status, answer = await wang.ask("PUT", "plans/main", body)
        assert status == 200, answer


@pytest.mark.parametrize(
    ("size", "locale", "theme"),
    [(WALL, "zh-CN", "dark"), (WALL, "en-GB", "light"), (PHONE, "zh-CN", "light"), (PHONE, "en-GB", "dark")],
    ids=["wall-zh-dark", "wall-en-light", "phone-zh-light", "phone-en-dark"],
)
async def test_every_page_is_without_barriers(begin, chromium, eventually, size, locale, theme):
    site = await begin([*past(steps=200), *climbing()])
    await plan_of_the_site(site)
    async with signed_in(site, "li") as li:
        await push(site, li, 80.0, "UNACK", eventually)
    page = await opened(chromium, site, size, locale)
    ending, found = f"{'phone' if size is PHONE else 'wall'}-{locale[:2]}-{theme}", dict[str, list[str]]()
    if theme == "light":
        await page.evaluate("localStorage.setItem('sitewarden.theme', 'light')")
        await page.reload()

    async def look(name: str) -> None:
        found[name] = await serious_findings(page)
        if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found[name].append("sticks out to the right")
        await kept(page, f"{name}-{ending}")

    await expect(page.get_by_test_id("must-see-name")).to_be_visible()
    await look("must-see")
    await page.get_by_test_id("must-see-seen").click()
    await page.get_by_test_id("must-see-seen").click()
    for name in TOUR:
        await page.evaluate(f"location.hash = '#/{name}'")
        shown = page.get_by_test_id("plan-board").locator("img") if name == "plan" else page.locator("main h2").first
        await expect(shown).to_be_visible()
        await look(name)
    if size is PHONE:
        for name in ("alarms", "status"):
            await page.evaluate(f"location.hash = '#/{name}'")
            await look(name)
    await page.evaluate("location.hash = '#/plan'")
    await page.get_by_test_id("plan-edit").click()
    await page.get_by_test_id("plan-item-z1").dispatch_event("click")  # on a phone others lie over it
    await expect(page.get_by_test_id("plan-item-form")).to_be_visible()
    await look("plan-editor")
    await page.get_by_test_id("plan-cancel").click()
    await page.get_by_test_id("plan-item-p1").click()
    await expect(page.get_by_test_id("trend-window")).to_be_visible()
    await expect(page.get_by_test_id("chart")).to_be_visible()
    await look("trend")
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await look("help")
    assert {name: what for name, what in found.items() if what} == {}
    assert page.errors == []  # type: ignore[attr-defined]
