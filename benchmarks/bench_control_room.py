"""The control room in a browser: 1,000 points that all change every second, from a real edge, on a wall screen.

Headless Chromium shows the overview, which is what stands there all day. CPU is what Chromium says of its own processes
(`SystemInfo.getProcessInfo`), all threads; headless draws without a graphics card, so painting is in it. Given a FILE
(PNG) it keeps a picture. Needs chromium and the built pages (make web).
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from meter import Goals, child, columns, free_port, listens, median, python, wait_for
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright
from sites import profile
from sitewarden.serving.secrets import Secrets

AREAS, POINTS_EACH = 20, 50
PIN = "246813"
SIZE = {"width": 1920, "height": 1080}
SETTLE_S, WINDOW_S, ROUNDS = 15.0, 10.0, 3
GOAL_PCT = 20.0
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def site(folder: Path, modbus: int, web: int) -> Path:
    """20 areas with a device of 50 registers each; two limits on every point."""
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "bench.toml").write_text(profile(POINTS_EACH), "utf-8")
    text = '[site]\nid = "bench"\nname = "千点工厂"\nname_en = "Plant of a thousand points"\n'
    text += f'[gateway]\nid = "gw1"\n[web]\nport = {web}\n[profiles]\nfolder = "profiles"\n'
    text += f'[[bus]]\nid = "b"\nkind = "tcp"\nhost = "127.0.0.1"\nport = {modbus}\n'
    for unit in range(1, AREAS + 1):
        text += f'[[area]]\nid = "a{unit}"\nname = "{unit} 号车间"\nname_en = "Hall {unit}"\n'
        text += f'[[device]]\nid = "d{unit}"\narea = "a{unit}"\nbus = "b"\nunit_id = {unit}\n'
        text += 'profile = "bench"\npoll_s = 1.0\n'
        for r in range(POINTS_EACH):
            text += f'[[alarm]]\npoint = "a{unit}.d{unit}.r{r}"\nhi = 105.0\nhihi = 110.0\n'
    (folder / "people.csv").write_text(
        "id,name,name_en,roles,areas,phone\no,O,O,officer control_room,*,\nk,K,K,keeper,*,\n", "utf-8"
    )
    (folder / "site.toml").write_text(text, "utf-8")
    (folder / "data").mkdir()
    secrets = Secrets(folder / "data" / "secrets.db")
    secrets.set_pin("o", PIN)
    secrets.close()
    return folder / "site.toml"


def open_page(browser: Browser, web: int) -> Page:
    """The overview, signed in, with values that change."""
    page = browser.new_page(viewport=SIZE, locale="zh-CN")  # pyright: ignore[reportArgumentType]
    page.goto(f"http://127.0.0.1:{web}/")
    page.get_by_test_id("sign-in-person-o").click()
    page.get_by_test_id("pin-input").fill(PIN)
    page.get_by_test_id("sign-in-submit").click()
    page.get_by_test_id("point-a1.d1.r0").wait_for(timeout=60_000)
    return page


def cpu_of(session: CDPSession) -> dict[str, float]:
    """CPU seconds of Chromium's processes by their kind."""
    found: dict[str, float] = {}
    for process in session.send("SystemInfo.getProcessInfo")["processInfo"]:
        found[process["type"]] = found.get(process["type"], 0.0) + process["cpuTime"]
    return found


def metrics(session: CDPSession) -> dict[str, float]:
    return {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}


def look(browser: Browser, page: Page) -> dict[str, float]:
    """One window: percent of a core by process, and of the main thread by work; values seen to change."""
    machine, inside = browser.new_browser_cdp_session(), page.context.new_cdp_session(page)
    inside.send("Performance.enable")
    value = page.get_by_test_id("point-value-a1.d1.r0")
    before, work, text, began_s = cpu_of(machine), metrics(inside), value.text_content(), time.monotonic()
    page.wait_for_timeout(WINDOW_S * 1000)
    after, worked, past_s = cpu_of(machine), metrics(inside), time.monotonic() - began_s
    if value.text_content() == text:
        raise SystemExit("the first point did not change: void")
    share = {kind: 100 * (after[kind] - before.get(kind, 0.0)) / past_s for kind in after}
    share["all"] = sum(share.values())
    for name in ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration"):
        share[name] = 100 * (worked[name] - work[name]) / past_s
    share["heap MB"] = worked["JSHeapUsedSize"] / 1e6
    share["nodes"] = worked["Nodes"]
    return share


def measure(web: int) -> dict[str, float]:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is missing: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        page = open_page(browser, web)
        page.wait_for_timeout(SETTLE_S * 1000)
        if len(sys.argv) > 1:  # a file to keep a picture in
            page.screenshot(path=sys.argv[1])
        rounds: list[dict[str, Any]] = [look(browser, page) for _ in range(ROUNDS)]
        browser.close()
    return {name: median([one[name] for one in rounds]) for name in rounds[0]}


def main() -> None:
    """Print the table and the goal."""
    goals = Goals()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="room", ignore_cleanup_errors=True)))
        server = stack.enter_context(child(*python("modbus_server.py", 1, AREAS)))
        web = free_port()
        config = site(folder / "site", int(server.line("ready")), web)
        data, log = config.parent / "data", folder / "edge.log"
        command = (sys.executable, "-m", "sitewarden", "edge", "--config", str(config), "--data", str(data))
        edge = stack.enter_context(child(*command, log=log))
        wait_for("page of the edge", lambda: listens(web) or not edge.alive, 60)
        if not edge.alive:
            raise SystemExit(log.read_text("utf-8")[-2000:])
        found = measure(web)
    rows = [(name, f"{value:.1f}") for name, value in found.items()]
    columns(f"{AREAS * POINTS_EACH} points at 1 Hz, {SIZE['width']}x{SIZE['height']}", ("% of a core", "median"), rows)
    goals.most("renderer, 1,000 points at 1 Hz", found["renderer"], GOAL_PCT, " %")
    goals.most("all of Chromium, 1,000 points at 1 Hz", found["all"], GOAL_PCT, " %")
    goals.print()


if __name__ == "__main__":
    main()
