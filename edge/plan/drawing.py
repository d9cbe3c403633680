"""Runs the program that draws pictures anew, and waits for it, but not for ever."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass
from typing import Any, cast

from ...errors import RefusedError
from .render import MOST_SIDE

MOST_BYTES = 20 * 2**20
LIMIT_S = 60.0
_MODULE = "sitewarden.edge.plan.render"
_HINTS = {
    "too_large": "save the drawing smaller, about 4000 pixels wide",
    "wrong_type": "take a PNG, JPEG, WebP, SVG or PDF file",
    "damaged": "open the file and save it anew, or print the drawing to PDF",
    "not_allowed": "save the drawing without links to other files, or as PDF",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A picture that pages can show.

    Attributes:
        data: PNG or JPEG.
        pages: of the file that it came from.
    """

    data: bytes
    width: int
    height: int
    pages: int


class Drawing:
    """One picture at a time: each may take a gigabyte while it is unfolded."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0  # the one that is drawn among them

    async def draw(self, data: bytes, page: int = 1, side: int = MOST_SIDE, *, waiters: int = 0) -> Drawn:
        """The picture anew, its longer side at most `side` pixels. Args: waiters: so many may wait for their turn.

        Raises:
            RefusedError: `busy`, `wrong_type`, `damaged`, `not_allowed`, `too_large`, `bad_request`.
        """
        if self._lock.locked() and self._waiting >= waiters:
            raise RefusedError("busy", "other pictures are being drawn", hint="try again in a minute", retry_s=5)
        self._waiting += 1
        try:
            async with self._lock:
                code, out, told = await _run(data, page, side)
        finally:
            self._waiting -= 1
        facts = _facts(told)
        if code or "width" not in facts:
            reason = str(facts.get("reason", "too_large"))
            message = str(facts.get("message", "the picture unfolds to too much, or takes too long"))
            raise RefusedError(reason, message, hint=_HINTS.get(reason, ""))
        return Drawn(data=out, width=facts["width"], height=facts["height"], pages=facts["pages"])


async def _run(data: bytes, page: int, side: int) -> tuple[int | None, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", _MODULE, str(page), str(side)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is the daemon's to answer
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, told = await process.communicate(data)
        return process.returncode, out, told
    except TimeoutError:
        return None, b"", b""
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _facts(told: bytes) -> dict[str, Any]:
    """The program's last line; libraries may have complained before it, and it may have been killed."""
    try:
        facts = json.loads(told.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return cast("dict[str, Any]", facts) if isinstance(facts, dict) else {}
