"""The channels that are open, as site.toml has them now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models import ChannelTable
    from .webhook import Webhook

_CLOSE_S = 5.0


class Channels:
    """Owns every channel while it is entered.

    Attributes:
        live: by id; changed in place, so that who holds it sees every change.
    """

    def __init__(self, tables: Iterable[ChannelTable]) -> None:
        self.live: dict[str, Webhook] = {}
        self._first = tuple(tables)

    async def __aenter__(self) -> Channels:
        await self.change(self._first)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.change(())

    async def change(self, tables: Iterable[ChannelTable]) -> None:
        """Open what is new, close what is gone. A message that is under way on a changed channel ends as it began."""
        from .webhook import Webhook  # an HTTP client: not before the first poll

        wanted = {table.id: table for table in tables}
        for name, table in wanted.items():
            if name in self.live:
                self.live[name].table = table
            else:
                self.live[name] = await Webhook(table).__aenter__()
        for name in [name for name in self.live if name not in wanted]:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self.live.pop(name).__aexit__(None, None, None)
