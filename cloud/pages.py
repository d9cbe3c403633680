"""What headquarters' pages ask for: the sites, their last contact, their open alarms and what happened there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from ..errors import RefusedError
from ..serving.live import Hub, encode, stream
from ..serving.people import named
from ..serving.web import signed_in, still_signed_in
from ..sync.streams import HISTORY, JOURNAL
from ..sync.wire import Cursor
from ..words import utc_text
from .config import CloudConfig, CloudTable, GatewayTable
from .epoch_store import EpochStore
from .ingest import Contacts
from .site_store import Counts, SiteStore
from .snapshots import Snapshot, Snapshots
from .store import Store
from .witness import witness_json
from .witness_store import WitnessStore

_MOST_EVENTS = 500
_GATHER_S = 0.3
_LOOK_S = 5.0


class Pages:
    """The API of the pages. All of it needs a session."""

    def __init__(
        self,
        config: CloudConfig,
        store: Store,
        contacts: Contacts,
        witness: WitnessStore | None = None,
        witness_key: str = "",
    ) -> None:
        self._config, self._store, self._contacts = config, store, contacts
        self._witness, self._witness_key = witness, witness_key
        self.snapshots: Snapshots | None = None
        self.epochs: EpochStore | None = None
        self.counts: SiteStore | None = None
        self._hub = Hub()
        self._dirty = asyncio.Event()

    def add_routes(self, app: web.Application) -> None:
        """Under /api/v1."""
        app.router.add_get("/api/v1/sites", signed_in(self._sites))
        app.router.add_get("/api/v1/sites/{gateway}/alarms", signed_in(self._events))
        app.router.add_get("/api/v1/live", signed_in(self._live))

    def changed(self, _gateway: str) -> None:
        """Something that pages show is new; they are told within a moment, many changes at once."""
        self._dirty.set()

    async def announce(self) -> None:
        """Tell open pages, also when a gateway only falls silent. Runs for ever."""
        shown: list[str] = []
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):  # wait_for can lose a cancellation (gh-86296)
                    await self._dirty.wait()
            states = [self._state(gateway.id) for gateway in self._config.gateways]
            if self._dirty.is_set() or states != shown:
                self._dirty.clear()
                shown = states
                self._hub.send("changed", {})
            await asyncio.sleep(_GATHER_S)

    async def sites(self, only: str = "") -> list[dict[str, Any]]:
        """Every gateway of cloud.toml, in its order, or one."""
        known = await self._store.gateways()
        counts = await self.counts.counts() if self.counts is not None else {}
        now = await self.snapshots.live() if self.snapshots is not None else {}
        return [
            self._as_of_now(
                await self._site(gateway, known.get(gateway.id, {}), counts.get(gateway.id, Counts())),
                await self._store.alarms_by_epoch(gateway.id),
                now.get(gateway.id, []),
            )
            for gateway in self._config.gateways
            if only in ("", gateway.id)
        ]

    async def _sites(self, _: web.Request) -> web.Response:
        cloud = self._config.cloud
        return web.json_response(
            {
                "time": utc_text(_now_ms()),
                "cloud": {"name": cloud.name, "name_en": cloud.name_en, "witness_key": self._witness_key},
                "sites": await self.sites(),
            }
        )

    async def _events(self, request: web.Request) -> web.Response:
        gateway = self._config.find(request.match_info["gateway"])
        if gateway is None:
            raise RefusedError("not_found", "no such gateway")
        limit = min(_whole(request, "limit") or 100, _MOST_EVENTS)
        records = await self._store.events(gateway.id, limit, _whole(request, "before"))
        events = [
            {
                "seq": r.seq,
                "kind": r.kind,
                "at": r.at.get("utc"),
                "actor": r.actor,
                "actor_name": named(self._config.people, r.actor)["name"],
                "alarm": self._with_names(r.body.get("alarm")),
            }
            for r in records
        ]
        return web.json_response({"events": events})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        async def first() -> AsyncIterator[bytes]:
            yield encode("changed", {})

        with self._hub.listening() as listener:
            return await stream(request, listener, first(), lambda: still_signed_in(request))

    async def _site(self, gateway: GatewayTable, known: dict[str, Any], counts: Counts) -> dict[str, Any]:
        records, newest = await self._store.last_record(gateway.id)
        cursors = await self._store.cursors(gateway.id)
        contact_ms = self._contacts.latest_ms(gateway.id)
        named = {"id": gateway.id, "name": gateway.name, "name_en": gateway.name_en}
        return {
            "gateway": gateway.id,
            "site": known.get("site") or named,
            "last_contact": _utc(contact_ms),
            "contact_age_s": _age_s(contact_ms),
            "state": self._state(gateway.id),
            "version": known.get("version", ""),
            "journal": {**_position(cursors[JOURNAL]), "records": records, "newest": newest},
            "history": {**_position(cursors[HISTORY]), "newest": _utc(counts.reading_ms)},
            "gap_count": counts.gaps,
            "gap_readings": counts.gap_readings,
            "quarantined": known.get("quarantined", 0),
            "witness": witness_json(await self._witness.shown(gateway.id)) if self._witness else None,
            **(await self.epochs.shown(gateway.id) if self.epochs else {"epochs": [], "gaps": []}),
        }

    def _as_of_now(
        self, site: dict[str, Any], by_epoch: dict[str, list[dict[str, Any]]], words: list[Snapshot]
    ) -> dict[str, Any]:
        """With what the gateway says of itself, where that is newer than the records that have come.

        Two machines with one key are two epochs that are alive: the alarms of both are shown, each with its epoch.
        """
        records = {epoch["epoch"]: epoch["records"] for epoch in site["epochs"]}
        records.setdefault(site["journal"]["epoch"], site["journal"]["records"])
        site["snapshot"] = _word_json(words[0], records) if words else None
        by_epoch = _now_open(by_epoch, words, records)
        site["cloned"] = len(by_epoch) > 1
        site["open_alarms"] = [
            {**alarm, "epoch": epoch} if site["cloned"] and isinstance(alarm, dict) else alarm
            for epoch, alarms in by_epoch.items()
            for alarm in map(self._with_names, alarms)
        ]
        return site

    def _with_names(self, alarm: Any) -> Any:
        """Names of those who acknowledged, where headquarters knows them; what a gateway sent may be anything."""
        acks = alarm.get("acks") if isinstance(alarm, dict) else None
        if not isinstance(acks, list):
            return alarm
        people = self._config.people
        return {**alarm, "acks": [{**a, **named(people, str(a.get("person")))} for a in acks if isinstance(a, dict)]}

    def _state(self, gateway: str) -> str:
        return contact_state(_age_s(self._contacts.latest_ms(gateway)), self._config.cloud)


def _word_json(word: Snapshot, records: dict[str, int]) -> dict[str, Any]:
    behind = max(0, word.seq - records[word.epoch]) if word.epoch in records else None
    about = {"as_of": utc_text(word.at_ms), "open": word.open, "health": word.health}
    return {**about, "seq": word.seq, "records_behind": behind}


def _now_open(
    by_epoch: dict[str, list[dict[str, Any]]], words: list[Snapshot], records: dict[str, int]
) -> dict[str, list[dict[str, Any]]]:
    """Open alarms by epoch, of every machine that is alive; each from its own last word when that is newer.

    Args:
        by_epoch: from records. words: from snapshots. records: number of the newest record here, by epoch.
    """
    said = {word.epoch: word.alarms for word in words if _is_newer(word, records.get(word.epoch, -1))}
    epochs = [word.epoch for word in words]
    if len(by_epoch) > 1 or not words:
        epochs = [*by_epoch, *(epoch for epoch in epochs if epoch not in by_epoch)]
    return {epoch: said.get(epoch, by_epoch.get(epoch, [])) for epoch in epochs}


def _is_newer(word: Snapshot, records: int) -> bool:
    """While nothing is recorded at the gateway, its word is newer than records that have all come."""
    return word.seq > records or (word.seq == records and bool(word.health.get("not_recorded")))


def contact_state(age_s: float | None, limits: CloudTable) -> str:
    """`never`, `online`, `late` or `silent` by the age of the last contact."""
    if age_s is None:
        return "never"
    if age_s < limits.late_s:
        return "online"
    return "late" if age_s < limits.silent_s else "silent"


def _utc(at_ms: int | None) -> str | None:
    return utc_text(at_ms) if at_ms is not None else None


def _age_s(contact_ms: int | None) -> float | None:
    return max(0.0, round((_now_ms() - contact_ms) / 1000, 1)) if contact_ms is not None else None


def _position(cursors: tuple[Cursor, ...]) -> dict[str, Any]:
    """The epoch that began last."""
    return {"epoch": cursors[-1].epoch, "ack": cursors[-1].ack} if cursors else {"epoch": None, "ack": 0}


def _whole(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 16 or int(text) < 1:
        raise RefusedError("bad_request", f"{name}: must be a whole number from 1 (got {text[:40]!r})")
    return int(text)


def _now_ms() -> int:
    return int(time.time() * 1000)
