"""Charts of points, and what was measured as a file."""

from __future__ import annotations

import re

from aiohttp import web

from ...errors import RefusedError, TransientError
from ...serving.web import signed_in
from ...sync.tallies import MINUTE_MS, Tally
from ...sync.trends import MOST_PIXELS
from ...words import now
from ..exporting import Exports
from ..history_export import ExportPoint, Order, has_parquet
from . import asked
from .parts import Ask

_DAY_MS = 86_400_000
_LONGEST_MS = 20 * 366 * _DAY_MS
_DIGITS = 9
_MOST_MINUTES = 366 * 1440
_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_KEY = re.compile(r"[0-9A-Za-z-]{8,64}")


class ChartApi:
    """Handlers of `/api/v1/history/…`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._exports = Exports()

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        app.router.add_get("/api/v1/history/chart", signed_in(self._chart))
        app.router.add_get("/api/v1/history/export", signed_in(self._export))
        app.router.add_get("/api/v1/history/export/check", signed_in(self._check))
        app.router.add_get("/api/v1/history/exports/{key}", signed_in(self._progress))

    async def _chart(self, request: web.Request) -> web.Response:
        points = asked.words(request, "point")
        if len(points) != 1:
            raise RefusedError("bad_request", "point: one is required")
        from_ms, to_ms = _time(request)
        pixels = asked.number(request, "pixels", default=1000, low=1, high=MOST_PIXELS)
        parts = self._ask()
        chart = await parts.trends.chart(points[0], from_ms, to_ms, pixels)
        if not chart.buckets and all(meta.point.id != points[0] for meta in parts.site.points):
            raise RefusedError("no_such_point", f"there is no point {points[0]!r}")
        return web.json_response(
            {
                "id": points[0],
                "from": from_ms,
                "to": to_ms,
                "width_ms": chart.width_ms,
                "behind": chart.behind,
                "buckets": [_row(at_ms, tally) for at_ms, tally in chart.buckets],
            }
        )

    async def _check(self, request: web.Request) -> web.Response:
        """Whether that export would begin now: a page that lets the browser save the file cannot show a refusal."""
        self._order(request)
        self._exports.require_room()
        return web.json_response({})

    async def _export(self, request: web.Request) -> web.StreamResponse:
        order, key = self._order(request), request.query.get("key", "")
        if key and not _KEY.fullmatch(key):
            raise RefusedError("bad_request", "key: 8..64 letters, digits and -")
        if request.method == "HEAD":  # what it would be, without making it
            return web.Response(headers=_response(order).headers)
        await self._ask().history.flush()  # what waits in memory belongs to it
        async with self._exports.start(order, key) as export:
            try:
                piece = await export.read()
            except TransientError as error:
                raise RefusedError("unavailable", str(error)) from error
            response = _response(order)
            await response.prepare(request)
            try:
                while piece:
                    await response.write(piece)
                    piece = await export.read()
            except TransientError:
                if request.transport is not None:
                    request.transport.abort()  # or half of a file would look like the whole
                return response
        await response.write_eof()
        return response

    async def _progress(self, request: web.Request) -> web.Response:
        progress = self._exports.progress(request.match_info["key"])
        if progress is None:
            raise RefusedError("not_found", "there is no such export")
        return web.json_response({"state": progress.state, "done": progress.done, "total": progress.total})

    def _order(self, request: web.Request) -> Order:
        points = asked.words(request, "point")
        if not points:
            raise RefusedError("bad_request", "point: is required")
        form = request.query.get("format", "csv")
        if form not in _TYPES:
            raise RefusedError("bad_request", f"format: must be csv or parquet (got {form!r:.40})")
        if form == "parquet" and not has_parquet():
            hint = "install pyarrow on the gateway: pip install 'sitewarden[parquet]'; or choose CSV"
            raise RefusedError("no_parquet", "this gateway cannot write Parquet", hint=hint)
        from_ms, to_ms = _time(request)
        parts = self._ask()
        called = {meta.point.id: meta.point for meta in parts.site.points}
        named = [(point, called.get(point)) for point in dict.fromkeys(points)]
        return Order(
            data=str(parts.data),
            points=tuple(
                ExportPoint(id=point, name=known.name if known else "", unit=known.unit if known else "")
                for point, known in named
            ),
            from_ms=from_ms,
            to_ms=to_ms,
            bucket_ms=asked.number(request, "minutes", default=0, low=0, high=_MOST_MINUTES) * MINUTE_MS,
            format=form,
            timezone=parts.site.site.timezone,
        )


def _time(request: web.Request) -> tuple[int, int]:
    to_ms = asked.moment_ms(request, "to")
    to_ms = now().utc_ms + 1 if to_ms is None else to_ms
    from_ms = asked.moment_ms(request, "from")
    from_ms = to_ms - _DAY_MS if from_ms is None else from_ms
    if not 0 < to_ms - from_ms <= _LONGEST_MS:
        raise RefusedError("bad_request", "from must be before to, by 20 years at most")
    return from_ms, to_ms


def _row(at_ms: int, tally: Tally) -> list[float | int | None]:
    """`[utc ms, count, mean, low, high, bad, last, worst]`; `worst` 0 good, 1 uncertain, 2 bad."""
    numbers = (tally.mean, tally.low, tally.high) if tally.count else (None, None, None)
    mean, low, high = (None if number is None else round(number, _DIGITS) for number in numbers)
    last = round(tally.last, _DIGITS) if tally.count else None
    return [at_ms, tally.count, mean, low, high, tally.bad, last, tally.worst]


def _response(order: Order) -> web.StreamResponse:
    name = order.points[0].id if len(order.points) == 1 else "history"
    return web.StreamResponse(
        headers={
            "Content-Type": _TYPES[order.format],
            "Content-Disposition": f'attachment; filename="{_safe(name)}.{order.format}"',
            "Cache-Control": "no-store",
        }
    )


def _safe(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z._-]", "_", name)[:100]
