"""The gateway's key is followed by another one, while everything goes on.

In this order, each step safe to be the last one before a power cut and to be done again:

1. the next key is on the disk;
2. headquarters knows it: told by the old one, which stays good for a week more;
3. the journal has a record of it, signed by both keys: the first that a checkpoint of the new key may count;
4. one rename makes it the key, and who signs here uses it.

Until the rename the gateway signs in with the old key, after it with the new one; headquarters knows both from step 2
on. Should the week be over before step 4, headquarters refuses the old key and is asked with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..words import now
from .checkpoints import GATEWAY
from .journal import Draft, Journal
from .key_ring import KeyRing
from .keys import key_id, public_key_text
from .retrying import LinkError
from .rotations import REPLACED, ROTATED, Rotation, make_rotation
from .wire import keys_path

_log = logging.getLogger(__name__)

LOOK_S = 30.0
_REFUSED = ("revoked", "bad_request", "key_taken", "too_many_keys")
"""Headquarters does not want this new key, and never will."""


class Rotating:
    """`run` is given to the uplink.

    Args:
        use: everybody who signs; called with the new key once it is the key.
        step: called before each step with its number: tests end it there.

    Attributes:
        problem: why the newest rotation did not come through; "" while it may.
    """

    def __init__(
        self,
        ring: KeyRing,
        journal: Journal,
        use: Sequence[Callable[[Ed25519PrivateKey], Any]],
        *,
        look_s: float = LOOK_S,
        step: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._ring, self._journal, self._use = ring, journal, use
        self._look_s, self._step = look_s, step
        self._asked = asyncio.Event()
        self._done = asyncio.Event()
        self.problem = ""

    async def rotate(self, patience_s: float) -> tuple[str, bool]:
        """Begin a rotation, or go on with one.

        Returns:
            Id of the key that signs afterwards, and whether it is another one than before; where headquarters was not
            reached within `patience_s` it is not, and the rotation goes on by itself.
        """
        before = self._ring.key
        self._step(1)
        await asyncio.to_thread(self._ring.next)
        self.problem = ""
        self._done.clear()
        self._asked.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._done.wait()
        return key_id(self._ring.key), self._ring.key is not before

    async def run(self, client: Any) -> NoReturn:
        """For ever; ends what an earlier run of the gateway began."""
        async with client.session() as session:
            while True:
                self._asked.clear()
                if await asyncio.to_thread(self._ring.is_turning):
                    await self._try(client, session)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._look_s):
                        await self._asked.wait()
        raise AssertionError("unreachable")

    async def _try(self, client: Any, session: Any) -> None:
        try:
            await self._turn(client, session)
        except LinkError as error:
            self.problem = str(error)
            _log.warning("the new key waits: %s", error)
            if error.reason in _REFUSED:
                await asyncio.to_thread(self._ring.drop_next)
                self._done.set()
            return
        self._done.set()

    async def _turn(self, client: Any, session: Any) -> None:
        ring, journal = self._ring, self._journal
        fresh = await asyncio.to_thread(ring.next)
        rotation = make_rotation(ring.key, fresh, gateway=journal.gateway, made_ms=int(time.time() * 1000))
        self._step(2)
        await self._tell(client, session, rotation, fresh)
        self._step(3)
        if not await journal.query(lambda connection: _is_recorded(connection, rotation.new)):
            body = {"kid": rotation.kid, "new": rotation.new, "old": rotation.old, "rotation": rotation.to_json()}
            await journal.append([Draft(kind=ROTATED, at=now(), actor="gateway", body=body)])
        self._step(4)
        await asyncio.to_thread(ring.turn, fresh)
        self._step(5)
        client.use(fresh)
        for use in self._use:
            use(fresh)
        self.problem = ""
        _log.warning("this gateway signs with another key from now on: %s", rotation.new)

    async def _tell(self, client: Any, session: Any, rotation: Rotation, fresh: Ed25519PrivateKey) -> None:
        body = json.dumps(rotation.to_json()).encode()
        try:
            await client.post(session, keys_path(rotation.gateway), body, bytes(32))
        except LinkError as error:
            if error.reason not in ("key_ended", "wrong_key"):
                raise
            client.use(fresh)  # it may have been told long ago, before a long pause
            try:
                await client.where(session)
            except LinkError:
                client.use(self._ring.key)
                raise error from None


async def declare_key(journal: Journal, ring: KeyRing) -> None:
    """A key that no record introduces, and that is not the first one here, is declared: `sitewarden verify` lists it.

    That is so where the key's file was lost, or replaced after a revocation.
    """
    new = public_key_text(ring.key)
    if await journal.query(lambda connection: _is_strange(connection, new)):
        body = {"kid": key_id(ring.key), "new": new}
        await journal.append([Draft(kind=REPLACED, at=now(), actor="gateway", body=body)])


def _is_strange(connection: sqlite3.Connection, new: str) -> bool:
    try:
        known = [key for (key,) in connection.execute("SELECT key FROM evidence_key WHERE role = ?", (GATEWAY,))]
    except sqlite3.OperationalError:  # nothing was ever signed here
        return False
    if not known or new in known:
        return False
    rows = connection.execute("SELECT data FROM record WHERE kind IN (?, ?)", (ROTATED, REPLACED))
    return not any(json.loads(data)["body"].get("new") == new for (data,) in rows)


def _is_recorded(connection: sqlite3.Connection, new: str) -> bool:
    rows = connection.execute("SELECT data FROM record WHERE kind = ? ORDER BY seq DESC LIMIT 20", (ROTATED,))
    return any(json.loads(data)["body"].get("new") == new for (data,) in rows)
