"""axe-core in a page of Playwright: what keeps people with poor sight, or without a mouse, from using it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Page

SCRIPT = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = ("serious", "critical")


async def serious_findings(page: Page) -> list[str]:
    """`rule: where`, of what is on the page now. AssertionError where axe-core is not installed."""
    assert SCRIPT.is_file(), "axe-core is missing: run make web"
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(SCRIPT.read_text("utf-8"))
    found: dict[str, Any] = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {' '.join(map(str, node['target']))} {node['failureSummary'].splitlines()[1].strip()}"
        for violation in found["violations"]
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]
