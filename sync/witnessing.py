"""The gateway's side of the witness: newest checkpoint up, countersignature down, checked and stored.

Only the newest checkpoint is sent: a countersignature covers all records before it. What headquarters does not have yet
it says, with how far it is; then the newest checkpoint within that is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, Protocol

from .checkpoints import Checkpoints, Signed, keep_cosignature, unwitnessed
from .keys import key_id, parse_public_key
from .link_state import UplinkHealth
from .notes import Note, NoteError, parse_signature, verify_cosignature, witness_name
from .retrying import LinkError
from .wire import checkpoint_path

_log = logging.getLogger(__name__)

LOOK_S = 15.0
_FIRST_PAUSE_S = 1.0
_ALL = 2**62


class Poster(Protocol):
    """What is needed of the uplink's client."""

    health: UplinkHealth

    def session(self) -> AbstractAsyncContextManager[Any]:
        """A connection of its own."""
        ...

    async def post(self, session: Any, path: str, body: bytes, chain: bytes) -> Any:
        """Signed as every request; returns the answer. Raises LinkError."""
        ...


class Witnessing:
    """Has the checkpoints of a journal countersigned. `run` is given to the uplink.

    Args:
        look_s: without news it looks so often whether something is to be sent; the longest pause between tries, too.
        trusted: headquarters' keys by id, where they are known: only they may countersign.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        look_s: float = LOOK_S,
        trusted: Callable[[], Mapping[str, object]] = dict[str, object],
    ) -> None:
        self._checkpoints, self._health = checkpoints, checkpoints.health
        self._look_s, self._trusted = look_s, trusted
        self._news = asyncio.Event()
        checkpoints.subscribe(self._news.set)

    async def run(self, client: Poster) -> NoReturn:
        """For ever; what is not countersigned is tried again.

        Raises:
            StoreError: a countersignature could not be stored.
        """
        pause_s = _FIRST_PAUSE_S
        await self._checkpoints.ready.wait()
        async with client.session() as session:
            while True:
                self._news.clear()
                if await self._is_settled(client, session):
                    pause_s = _FIRST_PAUSE_S
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._look_s):
                            await self._news.wait()
                else:
                    await asyncio.sleep(min(pause_s, self._look_s))
                    pause_s = min(2 * pause_s, self._look_s)
        raise AssertionError("unreachable")

    async def _is_settled(self, client: Poster, session: Any) -> bool:
        """One round; whether nothing is left to try but what comes."""
        newest = await self._next(_ALL)
        if newest is None:
            return True
        if client.health.state != "up":  # the uplink says so already
            return False
        try:
            have = await self._offer(client, session, newest)
            earlier = await self._next(have) if have is not None else None
            if earlier is not None:
                await self._offer(client, session, earlier)
        except LinkError as error:
            self._health.refuse(error.reason, str(error))
            return False
        except (NoteError, ValueError, KeyError, TypeError) as error:
            self._health.refuse("odd_answer", f"the answer to a checkpoint does not fit: {error}")
            return False
        return have is None

    async def _next(self, most: int) -> Signed | None:
        """Of the newest epoch: it names where the one before ended. Args: most: records of it."""
        journal = self._checkpoints.journal
        epoch = journal.epochs[-1][0]
        return await journal.query(lambda connection: unwitnessed(connection, epoch, most))

    async def _offer(self, client: Poster, session: Any, signed: Signed) -> int | None:
        """Send one. None when it is countersigned, else how many records headquarters has."""
        path = checkpoint_path(self._checkpoints.journal.gateway)
        answer = await client.post(session, path, str(signed.note).encode(), signed.chain)
        if answer["state"] == "not_yet":
            return int(answer["have"])
        line, key_text = str(answer["cosignature"]), str(answer["key"])
        key = parse_public_key(key_text)
        known = self._trusted()
        if known and key_id(key) not in known:
            raise NoteError(f"{key_text} is not the key of the headquarters that this gateway believes")
        cosigned = Note(signed.note.text, (parse_signature(line),))
        time_s = verify_cosignature(cosigned, witness_name(key), key)
        journal = self._checkpoints.journal
        if await journal.write(lambda c: keep_cosignature(c, signed.epoch, signed.size, line, key_text)):
            _log.warning("headquarters countersigns with another key than before: %s", key_text)
        self._health.cosigned(dict(journal.epochs)[signed.epoch] - 1 + signed.size, time_s)
        return None
