"""What headquarters' charts ask for."""

from __future__ import annotations

import time

from aiohttp import web

from ..errors import RefusedError
from ..serving.web import signed_in
from ..words import utc_text
from .baseline_store import BaselineStore
from .charts import MOST_PIXELS, Bucket, Charts, width_of
from .config import CloudConfig

_DIGITS = 6
_LONGEST_MS = 20 * 366 * 86_400_000


class ChartPages:
    """GET /api/v1/sites/{gateway}/points and …/chart. Args: reports: what gateways call their points."""

    def __init__(self, config: CloudConfig, charts: Charts, reports: BaselineStore) -> None:
        self._config, self._charts, self._reports = config, charts, reports

    def add_routes(self, app: web.Application) -> None:
        """Both need a session."""
        app.router.add_get("/api/v1/sites/{gateway}/points", signed_in(self._points))
        app.router.add_get("/api/v1/sites/{gateway}/chart", signed_in(self._chart))

    async def _points(self, request: web.Request) -> web.Response:
        gateway = self._gateway(request)
        _, report = (await self._reports.reports()).get(gateway, (0, {}))
        called = {point[0]: point[1:] for point in report.get("points", ()) if _is_point(point)}
        found = []
        for point, first_ms, last_ms in await self._charts.points(gateway):
            name, name_en, unit, decimals = called.get(point, (point, point, "", 2))
            about = {"id": point, "name": name, "name_en": name_en, "unit": unit, "decimals": decimals}
            found.append({**about, "first": utc_text(first_ms), "last": utc_text(last_ms)})
        return web.json_response({"points": found})

    async def _chart(self, request: web.Request) -> web.Response:
        gateway, point = self._gateway(request), request.query.get("point", "")
        now_ms = int(time.time() * 1000)
        to_ms = _whole(request, "to", now_ms)
        from_ms = _whole(request, "from", to_ms - 86_400_000)
        pixels = _whole(request, "pixels", 1000)
        if not point or len(point) > 200:
            raise RefusedError("bad_request", "point: is required")
        if not 0 < to_ms - from_ms <= _LONGEST_MS or not 1 <= pixels <= MOST_PIXELS:
            raise RefusedError("bad_request", f"from must be before to, and pixels 1..{MOST_PIXELS}")
        buckets = await self._charts.buckets(gateway, point, from_ms, to_ms, pixels)
        width_ms, rows = width_of(to_ms - from_ms, pixels), [_row(bucket) for bucket in buckets]
        return web.json_response({"from": from_ms, "to": to_ms, "width_ms": width_ms, "buckets": rows})

    def _gateway(self, request: web.Request) -> str:
        gateway = self._config.find(request.match_info["gateway"])
        if gateway is None:
            raise RefusedError("not_found", "no such gateway")
        return gateway.id


def _row(bucket: Bucket) -> list[float | int | None]:
    """`[utc ms, count, mean, low, high, bad]`."""
    numbers = [None if number is None else round(number, _DIGITS) for number in (bucket.mean, bucket.low, bucket.high)]
    return [bucket.at_ms, bucket.count, *numbers, bucket.bad]


def _is_point(point: object) -> bool:
    return isinstance(point, list) and len(point) == 5 and all(isinstance(part, str) for part in point[:4])


def _whole(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise RefusedError("bad_request", f"{name}: must be a whole number (got {text[:40]!r})")
    return int(text)
