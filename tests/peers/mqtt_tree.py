"""A gateway's MQTT tree on a broker, without the rest of the gateway: dashboards on a real journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.dashboards import TABLE, Broker, DashboardHealth, Dashboards
from sitewarden.edge.discovery import Discovery
from sitewarden.edge.ladders import table as ladder_table
from sitewarden.edge.metas import PointMeta
from sitewarden.edge.values import Values
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import Point, Quality, Reading, now

UNITS = {
    "humidity": ("%RH", "humidity"),
    "temperature": ("°C", "temperature"),
    "pressure": ("MPa", "pressure"),
    "vacuum": ("kPa", "pressure"),
    "h2s": ("ppm", "gas"),
    "level": ("", "other"),
}


def point(name: str) -> PointMeta:
    unit, quantity = UNITS[name]
    made = Point(id=f"store.th1.{name}", name=name, name_en=name, unit=unit, quantity=quantity, decimals=1, poll_s=2.0)
    limits = {"lolo": None, "lo": None, "hi": 75.0, "hihi": None}
    return PointMeta(point=made, area="store", area_name="助剂库", stale_s=180.0, limits=limits)


def rule(name: str, **more: Any) -> Rule:
    level = Level(kind=Kind.HI, limit=75.0, priority=3)
    where = {"point": f"store.th1.{name}", "area": "store", "side": Side.HIGH}
    return Rule(
        id=f"store.th1.{name}.high", name=f"{name} high", name_en="", unit="", levels=(level,), **(where | more)
    )


class Site:
    """Dashboards of a gateway on a real journal and broker."""

    def __init__(self, dashboards: Dashboards, journal: Journal, values: Values, broker: Broker) -> None:
        self.dashboards, self.journal, self.values, self.broker = dashboards, journal, values, broker
        self.task = asyncio.create_task(dashboards.run(), name="dashboards")

    def change(self, names: Sequence[str], rules: Sequence[Rule], discovery: Discovery) -> None:
        self.dashboards.change(
            broker=self.broker, points=[point(name) for name in names], rules=rules, discovery=discovery
        )

    def measure(self, name: str, value: float | None, quality: Quality = Quality.GOOD) -> None:
        self.values.put([Reading(point=f"store.th1.{name}", value=value, quality=quality, at=now())])

    async def alarm(self, name: str, change: str, state: str) -> None:
        alarm = {"id": f"store.th1.{name}.high", "state": state, "occurrence": 1, "priority": 3, "acks": []}
        body = {"alarm": alarm, "reason": "condition", "notify": []}
        await self.journal.append([Draft(kind=f"alarm.{change}", at=now(), actor="gateway", body=body)])

    async def stop(self) -> None:
        self.task.cancel()
        done, _ = await asyncio.wait([self.task], timeout=20)
        assert done


@asynccontextmanager
async def site(
    folder: Path, port: int, names: Sequence[str], rules: Sequence[Rule], discovery: Discovery
) -> AsyncIterator[Site]:
    async with Journal(folder / "journal.db", "gw1", (alarm_table.TABLE, ladder_table.TABLE, TABLE)) as journal:
        values, broker = Values(), Broker(url=f"mqtt://127.0.0.1:{port}", username="gw", password="secret")
        dashboards = Dashboards(
            site="s1",
            gateway="gw1",
            broker=broker,
            journal=journal,
            values=values,
            points=[point(name) for name in names],
            rules=rules,
            status=lambda: {"version": "1"},
            health=DashboardHealth(),
            discovery=discovery,
        )
        made = Site(dashboards, journal, values, broker)
        try:
            yield made
        finally:
            await made.stop()
