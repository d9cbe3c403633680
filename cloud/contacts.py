"""When each gateway was last heard of, in this process and in others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from .store import Store

_PERSIST_CONTACT_MS = 60_000
_LOOK_S = 5.0


class Contacts:
    """When each gateway was last heard of: exact in memory, a little old in the database, from where other processes
    have it.

    Args:
        known: from the database, UTC milliseconds.
        persist_ms: how old it may be there.
    """

    def __init__(self, store: Store, known: Mapping[str, int], persist_ms: float = _PERSIST_CONTACT_MS) -> None:
        self._store, self._persist_ms = store, persist_ms
        self._latest = dict(known)
        self._written = dict(known)
        self._seen = -1

    def latest_ms(self, gateway: str) -> int | None:
        """UTC milliseconds of the last signed request; None when there was none."""
        return self._latest.get(gateway)

    async def note(self, gateway: str, now_ms: int) -> None:
        """A signed request came in."""
        self._latest[gateway] = now_ms
        if abs(now_ms - self._written.get(gateway, 0)) >= self._persist_ms:
            self._written[gateway] = now_ms
            await self._store.contacted(gateway, now_ms)

    async def follow(self, changed: Callable[[str], None]) -> None:
        """One look at what other processes on the same database took, for the pages of this one, after some seconds.

        Raises:
            UnavailableError: nothing is known of them now.
        """
        await asyncio.sleep(_LOOK_S)
        if not self._store.database.shared:
            return
        for gateway, contact_ms in (await self._store.contacts()).items():
            self._latest[gateway] = max(contact_ms, self._latest.get(gateway, 0))
        progress = await self._store.progress()
        if progress != self._seen:
            self._seen = progress
            changed("")
