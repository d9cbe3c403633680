"""The channels that are open, as site.toml has them now."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from ...errors import ConfigError
from .channel_tables import ChannelDeps, make
from .port import ChannelHealth, Fault, Notice, Outcome, Sent

if TYPE_CHECKING:
    from .port import Channel

__all__ = ["ChannelDeps", "Channels", "Unopened"]

_log = logging.getLogger(__name__)
_CLOSE_S = 15.0
_ALONE = frozenset({"sms", "beacon", "speech"})
"""Kinds that own something which the next one of the same name needs: the old one goes first."""
_WHY_LIMIT = 200


class Unopened:
    """A channel that could not be opened: a fault that is seen, in the place of the channel."""

    def __init__(self, why: str) -> None:
        self.health = ChannelHealth(fault=Fault.REFUSING, detail=why)
        self.health.facts |= {"zh": f"通道打不开：{why}", "en": why}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def send(self, notice: Notice) -> Sent:
        """Fails at once."""
        del notice
        self.health.failed += 1
        return Sent(outcome=Outcome.FAILED, detail=self.health.detail)


class Channels:
    """Owns every channel while it is entered.

    Args:
        tables: of the site, as `channel_tables.complete` made them.
        deps: what channels need of the gateway.

    Attributes:
        live: by id, those that are open; who holds it sees every change.
    """

    def __init__(self, tables: Iterable[Any], deps: ChannelDeps) -> None:
        self._live: dict[str, Channel] = {}
        self.live: Mapping[str, Channel] = MappingProxyType(self._live)
        self._tables: dict[str, Any] = {}
        self._first = tuple(tables)
        self._deps = deps

    async def __aenter__(self) -> Self:
        await self.change(self._first)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.change(())

    async def change(self, tables: Iterable[Any]) -> None:
        """Open what is new, close what is gone, open anew what is different; the others are not touched.

        A message that is under way on a channel that is closed may fail, and is tried again by whoever sent it. Never
        raises because a channel cannot be opened or closed.
        """
        wanted = {table.id: table for table in tables}
        for name in [name for name in self._live if name not in wanted]:
            await self._close(name, self._live.pop(name))
            del self._tables[name]
        for name, table in wanted.items():
            if name not in self._live or table != self._tables[name]:
                await self._replace(name, table)

    # --- inside ---

    async def _replace(self, name: str, table: Any) -> None:
        old = self._live.get(name)
        if old is not None and (table.kind in _ALONE or self._tables[name].kind in _ALONE):
            await self._close(name, old)
            old = None
        self._live[name] = await self._open(name, table)
        self._tables[name] = table
        if old is not None:
            await self._close(name, old)

    async def _open(self, name: str, table: Any) -> Channel:
        try:
            return await make(table, self._deps).__aenter__()
        except ConfigError as error:
            why = "; ".join(error.problems)
        except Exception as error:  # one channel must not cost the others, nor the daemon
            _log.exception("channel %s: a defect", name)
            why = f"{type(error).__name__}: {error}"
        _log.error("channel %s cannot be opened: %s", name, why[:_WHY_LIMIT], extra={"channel": name})
        return Unopened(why[:_WHY_LIMIT])

    async def _close(self, name: str, channel: Channel) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await channel.__aexit__(None, None, None)
        except Exception:
            _log.exception("channel %s was not closed in order", name)
