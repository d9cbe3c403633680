"""CSV as a file that a page offers: see `csv_lines`."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from ..csv_lines import BOM, cell, lines

__all__ = ["BOM", "begin", "cell", "lines"]


async def begin(request: web.Request, name: str, header: Sequence[str]) -> web.StreamResponse:
    """Begin to answer with the file `name`.csv; the caller writes `lines` and ends with `write_eof`."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{name}.csv"',
            "Cache-Control": "no-store",
        }
    )
    await response.prepare(request)
    await response.write(BOM.encode() + lines([header]))
    return response
