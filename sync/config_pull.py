"""The gateway's side of configuration down: asks headquarters for orders for ever, and reports how it stands."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, Protocol

from ..errors import PermanentError
from .journal import canonical
from .link_state import UplinkHealth
from .orders import Order
from .retrying import LinkError
from .sqlite import StoreError
from .wire import config_path

_log = logging.getLogger(__name__)

_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
_LOOK_S = 5.0
_EVERY_S = 600.0


class Asker(Protocol):
    """What is needed of the uplink's client."""

    health: UplinkHealth

    def session(self) -> AbstractAsyncContextManager[Any]:
        """A connection of its own."""
        ...

    async def get(self, session: Any, path: str) -> Any:
        """Signed as every request; returns the answer. Raises LinkError."""
        ...

    async def post(self, session: Any, path: str, body: bytes, chain: bytes) -> Any:
        """Signed as every request; returns the answer. Raises LinkError."""
        ...


class ConfigPull:
    """Long poll for orders, and reports when something has changed. Both are given to the uplink.

    Args:
        gateway: id.
        have: revision of the newest order that was taken or refused here.
        take: does what an order says; a refusal is its own matter.
        report: how the site stands.
    """

    def __init__(
        self,
        gateway: str,
        have: Callable[[], int],
        take: Callable[[Order], Awaitable[None]],
        report: Callable[[], dict[str, Any]],
    ) -> None:
        self._gateway, self._have, self._take, self._report = gateway, have, take, report

    async def pull(self, client: Asker) -> NoReturn:
        """Ask for ever; headquarters answers when there is something newer, or after a while."""
        failed = 0
        async with client.session() as session:
            while True:
                try:
                    answer = await client.get(session, f"{config_path(self._gateway)}?have={self._have()}")
                    failed = 0
                    if isinstance(answer, dict) and answer.get("order") is not None:
                        await self._take(Order.from_json(answer["order"]))
                        continue
                    # An answer that came at once, from a headquarters that does not wait, must not become a storm.
                    await asyncio.sleep(_PAUSES_S[0])
                except StoreError:
                    raise
                except LinkError as error:
                    failed = failed if error.near else failed + 1
                    await asyncio.sleep(max(_PAUSES_S[min(failed, len(_PAUSES_S) - 1)], error.retry_s))
                except PermanentError as error:
                    _log.warning("an order of headquarters was not taken: %s", error)
                    await asyncio.sleep(_PAUSES_S[-1])

    async def tell(self, client: Asker) -> NoReturn:
        """Report at once when something has changed, and every ten minutes."""
        told, told_s = b"", 0.0
        loop = asyncio.get_running_loop()
        async with client.session() as session:
            while True:
                body = canonical(self._report())
                if body != told or loop.time() - told_s > _EVERY_S:
                    with contextlib.suppress(LinkError):
                        await client.post(session, f"{config_path(self._gateway)}/report", body, _mark(body))
                        told, told_s = body, loop.time()
                await asyncio.sleep(_LOOK_S)


def _mark(body: bytes) -> bytes:
    """The chain value that the signature's profile wants; a report belongs to no chain."""
    return hashlib.sha256(body).digest()
