"""Takes the orders of headquarters: judged, tried, confirmed or taken back, each with its record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import RefusedError
from ..sync.journal import Draft
from ..sync.keys import key_id, parse_public_key
from ..sync.orders import Order
from ..words import Reading, mono_s, now
from .baseline_files import IN_FORCE, LAST, Shelf
from .conformity import judge
from .reloading import Outcome
from .site import Site

_log = logging.getLogger(__name__)

CONFIRM_S = 120.0
_LOOK_S = 2.0
_MOST_PROBLEMS = 10


class BaselineKeeper:
    """The baseline of a running gateway.

    Args:
        shelf: its files.
        gateway: id.
        site: that runs.
        reload: reads site.toml again, under what is in force; see `Reloader.reload`.
        record: commits a record.
        trusted: id to key of headquarters as site.toml names it; empty: the first key that comes over the link is
            kept, and no other one from then on.
        failing: ids of devices that do not answer now.
        reading_of: newest reading of a point.
        confirm_s: how long an order is on trial.
    """

    def __init__(
        self,
        shelf: Shelf,
        gateway: str,
        *,
        site: Callable[[], Site],
        reload: Callable[[str], Awaitable[Outcome]],
        record: Callable[[Draft], Awaitable[object]],
        trusted: Callable[[], Mapping[str, Ed25519PublicKey]],
        failing: Callable[[], set[str]],
        reading_of: Callable[[str], Reading | None],
        confirm_s: float = CONFIRM_S,
    ) -> None:
        self._shelf, self._gateway = shelf, gateway
        self._site, self._reload, self._record = site, reload, record
        self._trusted, self._failing, self._reading_of = trusted, failing, reading_of
        self._confirm_s = confirm_s
        self._since_s = mono_s()
        self._before: set[str] = set()
        self._turn = asyncio.Lock()
        self.beat_s = mono_s()

    def have(self) -> int:
        """Revision of the newest order that was taken or refused."""
        last, order = self._shelf.read(LAST), self._in_force()
        known = last.get("revision", 0) if isinstance(last, dict) else 0
        return max(known if isinstance(known, int) else 0, order.revision if order else 0)

    async def take(self, order: Order) -> None:
        """Put an order in force, on trial.

        Raises:
            RefusedError: `other_gateway`, `old_order`, `wrong_key`, `bad_signature`; with a record, for the last two.
        """
        async with self._turn:
            if order.gateway != self._gateway:
                raise RefusedError("other_gateway", f"the order is for gateway {order.gateway}")
            if order.revision <= self.have():
                raise RefusedError("old_order", f"revision {order.revision} is not newer than {self.have()}")
            try:
                order.verify(self._keys(order))
            except RefusedError as error:
                await self._note("baseline.refused", order, reason=error.reason, problems=[error.message])
                raise
            self._before, self._since_s = self._failing(), mono_s()
            await asyncio.to_thread(self._shelf.begin_trial, order.to_json(), order.revision)
            outcome = await self._reload(f"baseline revision {order.revision}")
            if outcome.problems or not self._is_used(order):
                problems = list(outcome.problems[:_MOST_PROBLEMS]) or ["the baseline cannot be used here"]
                await self._take_back(order, "refused", problems)
                return
            await self._note("baseline.applied", order, changes=list(outcome.changes[:_MOST_PROBLEMS]))

    async def run(self) -> NoReturn:
        """Confirm what stood its trial, for ever."""
        while True:
            self.beat_s = mono_s()
            async with self._turn:
                if self._shelf.is_on_trial() and mono_s() - self._since_s >= self._confirm_s:
                    await self._decide()
            await asyncio.sleep(_LOOK_S)

    async def started(self, *, taken_back: bool) -> None:
        """The daemon has started. Args: taken_back: because it had started too often under an order."""
        last = self._shelf.read(LAST)
        if taken_back and isinstance(last, dict):
            body = {"revision": last.get("revision", 0), "reason": "starts", "problems": []}
            await self._record(Draft(kind="baseline.rolled_back", at=now(), actor="gateway", body=body))
        self._before = set()

    def report(self) -> dict[str, Any]:
        """How the site stands, for headquarters and the page, and what its points are called."""
        standard, last = self._site().standard, self._shelf.read(LAST)
        if standard is None:
            about: dict[str, Any] = {"revision": 0, "digest": "", "name": "", "name_en": "", "rooms": []}
            about |= {"missing": 0, "silent": 0, "tightened": [], "problems": [], "no_kind": []}
        else:
            about = judge(standard, self._reading_of, mono_s())
        failed = isinstance(last, dict) and last.get("revision", 0) > about["revision"]
        if failed:
            told = [str(problem) for problem in last.get("problems", [])]
            about["problems"] = [{"zh": problem, "en": problem} for problem in told] + about["problems"]
        state = last["state"] if failed else "trial" if self._shelf.is_on_trial() else "confirmed"
        points = [
            [meta.point.id, meta.point.name, meta.point.name_en, meta.point.unit, meta.point.decimals]
            for meta in self._site().points
        ]
        return {**about, "state": state if standard is not None or failed else "none", "points": points}

    async def _decide(self) -> None:
        order = self._in_force()
        if order is None:
            await asyncio.to_thread(self._shelf.roll_back)
            return
        worse = sorted(self._failing() - self._before)
        if worse:
            await self._take_back(order, "rolled_back", [f"{name} does not answer since then" for name in worse])
            return
        await asyncio.to_thread(self._shelf.confirm)
        await self._note("baseline.confirmed", order)

    async def _take_back(self, order: Order, state: str, problems: list[str]) -> None:
        await asyncio.to_thread(self._shelf.note_last, order.revision, state, problems[:_MOST_PROBLEMS])
        await asyncio.to_thread(self._shelf.roll_back)
        await self._reload(f"baseline revision {order.revision} taken back")
        await self._note(f"baseline.{state}", order, reason="problems", problems=problems[:_MOST_PROBLEMS])
        _log.warning("baseline revision %d: %s: %s", order.revision, state, "; ".join(problems))

    async def _note(self, kind: str, order: Order, **about: Any) -> None:
        body = {"revision": order.revision, "digest": order.digest, "key": order.key, "made_ms": order.made_ms, **about}
        await self._record(Draft(kind=kind, at=now(), actor="gateway", body=body))

    def _in_force(self) -> Order | None:
        fields = self._shelf.read(IN_FORCE)
        try:
            return Order.from_json(fields) if fields is not None else None
        except Exception:  # damaged: as if there were none; the reader of site.toml says so
            return None

    def _is_used(self, order: Order) -> bool:
        standard = self._site().standard
        return standard is not None and standard.digest == order.digest

    def _keys(self, order: Order) -> Mapping[str, Ed25519PublicKey]:
        """Whom to believe: who stands in site.toml, else who was believed first."""
        keys = self._trusted()
        if keys:
            return keys
        known = self._in_force()
        try:
            key = parse_public_key(known.key if known is not None else order.key)
        except ValueError:
            return {}
        return {key_id(key): key}
