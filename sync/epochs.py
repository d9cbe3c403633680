"""Before anything is sent: do cloud and gateway mean the same? If they do not, the gateway goes on under a new name.

- The cloud has less than it had (it was restored): what is still here is sent again, the rest becomes a declared gap.
- The cloud has more, or something else (this file is an earlier state or a copy): a new epoch begins, with a record
  that names the one before. What the cloud does not have of the old one goes as a branch. No number is used twice.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import RefusedError
from ..words import now
from .journal import Draft, Journal
from .link_state import UplinkHealth
from .outbox import Note, Outbox
from .streams import stream_genesis
from .wire import Cursor, SyncReply

_log = logging.getLogger(__name__)

LOST = "sync.cloud_lost"
"""Kind of the record that the cloud has less than it had acknowledged."""
TWIN = "sync.twin"
"""Kind of the record that another machine sends with this gateway's key."""
_MOST_TURNS = 64

Same = Callable[[str, int], Awaitable[bool]]
"""Whether a batch is the same here and at the cloud: (epoch, number)."""


def noting(journal: Journal) -> Note:
    """Records what happened between cloud and gateway."""

    async def note(kind: str, body: dict[str, Any]) -> None:
        await journal.append([Draft(kind=kind, at=now(), actor="gateway", body=body)])

    return note


async def look_for_twins(health: UplinkHealth, machines: int, note: Note) -> None:
    """Headquarters says how many send with the gateway's key: shown while it is so, recorded when it begins."""
    began, health.machines = machines > 1 and health.machines == 1, machines
    if began:
        _log.error("another machine sends with the key of this gateway: one of them is a clone, stop it")
        await note(TWIN, {"machines": machines})


async def settle(
    outbox: Outbox, reply: SyncReply, gateway: str, same: Same, note: Note, *, forked: bool = False
) -> Cursor:
    """Where to go on sending; the outbox has chosen under which epoch.

    Args:
        forked: the cloud refused the next batch as another history: what is here was altered since it was numbered.

    Raises:
        RefusedError: `fork`, when no name helps: the cloud does not remember what it has just said.
    """
    for lost in await outbox.look_back(reply.known(outbox.stream)):
        await note(LOST, {"stream": outbox.stream, "incarnation": reply.incarnation, **lost})
    return await agree(outbox, reply, gateway, same, forked=forked)


async def agree(outbox: Outbox, reply: SyncReply, gateway: str, same: Same, *, forked: bool = False) -> Cursor:
    """The same from an answer that may be an old one: what it does not name is not lost for that.

    Raises:
        RefusedError: as `settle`.
    """
    for _ in range(_MOST_TURNS):
        cursor = reply.cursor(outbox.stream, outbox.epoch, stream_genesis(gateway, outbox.stream, outbox.epoch))
        agrees = await outbox.agrees(cursor.ack, cursor.chain)
        if agrees and not (outbox.is_apart or forked):
            return cursor
        forked = False
        common = cursor.ack if agrees else await _common(outbox, cursor.ack, same)
        await outbox.part(cursor, common)
    raise RefusedError("fork", f"fork: the cloud's {outbox.stream} fits no epoch of this gateway")


async def _common(outbox: Outbox, ack: int, same: Same) -> int:
    """The last batch that both sides have: chains that agree at one batch agree at all before it."""
    low, high = 0, min(ack, await outbox.newest())
    while low < high:
        middle = (low + high + 1) // 2
        if await same(outbox.epoch, middle):
            low = middle
        else:
            high = middle - 1
    return low
