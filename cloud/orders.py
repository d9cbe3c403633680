"""Configuration down: the baseline beside cloud.toml, signed for each gateway that asks; and what gateways report.

A change of the file is a new revision, seen within seconds; a file with a mistake changes nothing and is told on the
page. Revisions only grow: to take one back, write the old content again, which is a further revision.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..errors import ConfigError, RefusedError
from ..serving.web import signed_in
from ..sync.baseline import read_baseline
from ..sync.journal import canonical
from ..sync.orders import Order, make_order
from ..words import utc_text
from .baseline_store import BaselineStore, Revision
from .config import CloudConfig, GatewayTable

log = logging.getLogger(__name__)

PATH = "/v1/gateways/{gateway}/config"
LONGEST_WAIT_S = 25.0
_LOOK_S = 3.0
_REPORT_KEYS = {
    "revision": int,
    "digest": str,
    "state": str,
    "name": str,
    "name_en": str,
    "rooms": list,
    "missing": int,
    "silent": int,
    "tightened": list,
    "problems": list,
    "no_kind": list,
    "points": list,
}
_STATES = ("none", "trial", "confirmed", "refused", "rolled_back")


class Orders:
    """Hands out the baseline.

    Args:
        path: of baseline.toml; None: this headquarters has none.
        key: signs the orders.
        changed: called with the gateway when pages have something new.
    """

    def __init__(
        self,
        path: Path | None,
        store: BaselineStore,
        key: Ed25519PrivateKey,
        config: CloudConfig,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._store, self._key, self._config = path, store, key, config
        self._changed, self._clock = changed, clock
        self._news = asyncio.Event()
        self._seen: tuple[int, int] | None = None
        self.current = Revision()
        self.problems: list[str] = []

    async def open(self) -> None:
        """Know the newest revision, and make the file one when it says something else."""
        self.current = await self._store.newest()
        await self.look()

    async def look(self) -> None:
        """Read the file when it was changed."""
        if self._path is None:
            return
        stamp = await asyncio.to_thread(_stamp, self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            body = canonical((await asyncio.to_thread(read_baseline, self._path)).to_json())
        except ConfigError as error:
            self.problems = error.problems
            log.warning("%s", error)
            self._changed("")
            return
        self.problems = []
        digest = hashlib.sha256(body).hexdigest()
        before, self.current = self.current, await self._store.advance(body.decode(), digest, self._now_ms())
        if self.current.revision != before.revision:
            log.info("baseline revision %d", self.current.revision)
            news, self._news = self._news, asyncio.Event()
            news.set()
            self._changed("")

    async def run(self) -> NoReturn:
        """Look at the file for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look()

    async def get(self, request: web.Request, gateway: GatewayTable) -> web.Response:
        """The order for a gateway that has revision `have`, or nothing after a while."""
        have = request.query.get("have", "0")
        if not have.isascii() or not have.isdecimal() or len(have) > 15:
            raise RefusedError("bad_request", f"have: must be a number (got {have[:40]!r})")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT_S):
                while self.current.revision <= int(have):
                    await self._news.wait()
        if self.current.revision <= int(have):
            return web.json_response({"revision": self.current.revision})
        order = self.order_for(gateway.id)
        assert order is not None, "a revision that is newer than another one"
        return web.json_response({"revision": order.revision, "order": order.to_json()})

    def order_for(self, gateway: str) -> Order | None:
        """The newest baseline, signed for one gateway; None when there is none."""
        if not self.current.revision:
            return None
        return make_order(
            self._key,
            gateway=gateway,
            revision=self.current.revision,
            made_ms=self.current.made_ms,
            baseline=json.loads(self.current.body),
        )

    async def report(self, gateway: GatewayTable, body: bytes) -> web.Response:
        """What a gateway says of itself: POST, signed."""
        try:
            fields = json.loads(body)
            right = isinstance(fields, dict) and all(type(fields.get(k)) is kind for k, kind in _REPORT_KEYS.items())
        except (ValueError, RecursionError):
            right, fields = False, {}
        if not right or fields["state"] not in _STATES or not 0 <= fields["revision"] < 2**53:
            raise RefusedError("bad_request", "not a report of a gateway")
        await self._store.note_report(gateway.id, self._now_ms(), {key: fields[key] for key in _REPORT_KEYS})
        self._changed(gateway.id)
        return web.json_response({"time_ms": self._now_ms()})

    def add_pages(self, app: web.Application) -> None:
        """GET /api/v1/conformity."""
        app.router.add_get("/api/v1/conformity", signed_in(self._conformity))

    async def _conformity(self, _: web.Request) -> web.Response:
        reports, baseline = await self._store.reports(), json.loads(self.current.body)
        sites = []
        for gateway in self._config.gateways:
            at_ms, report = reports.get(gateway.id, (None, None))
            sites.append(
                {
                    "gateway": gateway.id,
                    "name": gateway.name,
                    "name_en": gateway.name_en,
                    "reported": utc_text(at_ms) if at_ms is not None else None,
                    "report": report,
                }
            )
        return web.json_response(
            {
                "revision": self.current.revision,
                "made": utc_text(self.current.made_ms) if self.current.revision else None,
                "name": baseline.get("name", ""),
                "name_en": baseline.get("name_en", ""),
                "problems": self.problems,
                "sites": sites,
            }
        )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
