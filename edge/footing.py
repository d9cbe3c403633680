"""What the gateway stands on: its data folder, or memory while the disk takes nothing.

A disk that refuses for good must not silence a site: the gateway goes on in memory, says so everywhere, tries the disk
again with growing pauses, and brings over what was made meanwhile (docs/decisions/0010-not-recorded.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from ..sync.carrying import GAP, is_same, unknown_gap
from ..sync.damage import REFUSED, is_damage, is_out_of_room, set_aside, why_refused
from ..sync.journal import Draft, Journal, Record, StoreError
from ..sync.memory_journal import BEGAN, NotRecorded, refusal_of
from ..sync.reserve import Reserve
from ..words import mono_s, now, utc_from_text, utc_text
from .ladders.alive import last_alive
from .memory_home import BESIDE, MemoryHome

_log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""Between looks at a disk that takes nothing. The first one is soon: a card may only have been remounted."""
_LASTED_S = 600.0
"""A disk that took writes for so long is trusted again."""
_PROBE_BYTES = 256 * 1024
_TRIES_S = (0.2, 1.0)
_OUTAGE_MS = 60_000
"""A shorter time without records after a sudden end is that of the start."""
STOPPED = "gateway.stopped"
HISTORY = "history.db"


class DiskIsBackError(Exception):
    """The disk takes writes again: what runs in memory ends, and goes on there."""


class Footing:
    """Where the stores of one gateway are, over several runs of it in one process.

    Args:
        data: the data folder.
        gateway: its id.
        first_pause_s: see `FIRST_PAUSE_S`.

    Attributes:
        folder: where the stores are.
        readings: that were made while the history was in memory; None when nobody knows how many.
    """

    def __init__(self, data: Path, gateway: str, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self.data, self.folder = data, data
        self.readings: int | None = None
        self._gateway = gateway
        self._home = MemoryHome(data)
        self._unkept: list[Draft] = []
        self._first_pause_s = self._pause_s = first_pause_s
        self._settled_s = mono_s()
        self._is_first = True
        self._to_tell: list[Draft] = []
        self._aside_s: float | None = None

    @property
    def in_memory(self) -> bool:
        """Whether nothing is recorded."""
        return self.folder != self.data

    def settle(self, reserve: Reserve) -> None:
        """At the start of the process: the disk if it takes anything, else memory. Blocks.

        Raises:
            OSError: neither does.
        """
        why = _refusal(self.data)
        if why == os.strerror(errno.ENOSPC) and reserve.release():
            why = _refusal(self.data)
        for pause_s in _TRIES_S:
            if not why:
                return
            time.sleep(pause_s)
            why = _refusal(self.data)
        if why:
            self._go_to_memory(why)

    def falls(self, error: BaseException, journal: Journal | None) -> bool:
        """A run ended with `error`: whether it is the disk's, and the next run stands elsewhere. Blocks."""
        leaves = list(_leaves(error))
        if self.in_memory:
            if any(isinstance(leaf, DiskIsBackError) for leaf in leaves):
                self.folder = self.data
                self._settled_s = mono_s()
                return True
            if any(map(is_out_of_room, leaves)):
                _log.error("%s is full: what it held is lost", self.folder)
                return self._try_memory("the memory was full", anew=True)
            return False
        why = next((text for leaf in leaves if (text := why_refused(leaf))), "")
        if not why or any(is_damage(leaf) for leaf in leaves):
            return False
        if self._is_history_alone(leaves) and self._set_history_aside(why):
            return True
        if all(isinstance(leaf, OSError) for leaf in leaves) and not _refusal(self.data):
            return False  # another device's
        if mono_s() - self._settled_s > _LASTED_S:
            self._pause_s = self._first_pause_s
        self._unkept = journal.unkept if journal is not None else []
        return self._try_memory(why)

    def _is_history_alone(self, leaves: Sequence[BaseException]) -> bool:
        """Whether the disk takes the journal all the same. Not twice in a while: then more of it goes bad."""
        refused = [leaf for leaf in leaves if why_refused(leaf)]
        files = {leaf.path for leaf in refused if isinstance(leaf, StoreError)}
        is_alone = files == {self.data / HISTORY} and all(isinstance(leaf, StoreError) for leaf in refused)
        is_soon = self._aside_s is not None and mono_s() - self._aside_s < _LASTED_S
        return is_alone and not is_soon and not any(map(is_out_of_room, refused)) and not try_disk(self.data)

    def _set_history_aside(self, why: str) -> bool:
        """A part of the disk that went bad under the history must cost no record: another file begins."""
        try:
            aside = set_aside(self.data / HISTORY)
        except OSError as error:
            _log.error("%s cannot be renamed: %s", self.data / HISTORY, error)
            return False
        _log.error("%s failed (%s); kept as %s, a new history begins", self.data / HISTORY, why, aside.name)
        body = {"kept_as": aside.name, "why": why}
        self._to_tell.append(Draft(kind="history.damaged", at=now(), actor="gateway", body=body))
        self._aside_s = mono_s()
        return True

    async def begin(self, journal: Journal) -> None:
        """The journal is open: the first records after a change of place. In memory what the disk refused goes first.

        On the disk, what was made in memory is carried over.

        Raises:
            StoreError: nothing was committed.
        """
        if (began := journal.not_recorded) is not None:
            await self._begin_in_memory(journal, began)
        elif await asyncio.to_thread(self._home.holds):
            await self._carry_over(journal)
        elif self._is_first:
            await self._tell_of_outage(journal)
        if self._to_tell and not self.in_memory:
            await journal.append(self._to_tell)
            self._to_tell = []
        self._unkept, self._is_first = [], False

    def count_readings(self, count: int) -> None:
        """A run in memory has ended: so many were not kept."""
        self.readings = None if self.readings is None else self.readings + count

    async def watch(self) -> NoReturn:
        """In memory: until the disk takes writes again.

        Raises:
            DiskIsBackError: it does.
        """
        while True:
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            why = await asyncio.to_thread(try_disk, self.data)
            if not why:
                _log.warning("%s takes writes again", self.data)
                raise DiskIsBackError
            _log.info("%s still takes nothing: %s", self.data, why)

    async def _tell_of_outage(self, journal: Journal) -> None:
        """A process that did not end in order may have gone on in memory that is gone: nobody knows, which is said."""
        newest = await journal.read(journal.head()[0] - 1, 1) if journal.head()[0] else []
        alive, instant = await journal.query(last_alive), now()
        if not newest or newest[0].kind == STOPPED or alive is None:
            return
        if instant.utc_ms - max(alive.utc_ms, utc_from_text(newest[0].at["utc"])) > _OUTAGE_MS:
            await journal.append([unknown_gap(alive, instant)])

    async def _begin_in_memory(self, journal: Journal, began: NotRecorded) -> None:
        seen = journal.head()[0] > began.seq
        if not seen:
            body = {
                "since": utc_text(began.since_ms),
                "why": began.why,
                "behind": {"epoch": began.epoch, "seq": began.seq},
            }
            await journal.append([Draft(kind=BEGAN, at=now(), actor="gateway", body=body)])
        newest = await journal.read(max(0, began.seq - len(self._unkept)), min(began.seq, len(self._unkept)))
        arrived = _arrived(self._unkept, [record for record in newest if record.seq <= began.seq])
        if left := self._unkept[arrived:]:
            await journal.append(left)

    async def _carry_over(self, journal: Journal) -> None:
        try:
            records = await journal.carry_over(self._home.journal, BESIDE, self.readings)
        except StoreError:
            raise
        except Exception:
            _log.exception("%s: what was made in memory does not fit this journal", self._home.folder)
            aside = self._home.folder.with_name(f"{self._home.folder.name}.kept-{secrets.token_hex(4)}")
            with contextlib.suppress(OSError):
                self._home.folder.rename(aside)
            body = {"reason": "not_recorded", "carried": 0, "kept_as": aside.name, "readings": self.readings}
            await journal.append([Draft(kind=GAP, at=now(), actor="gateway", body=body)])
        else:
            self._home.journal.unlink(missing_ok=True)  # at once: it must not be gone on with
            _log.warning("%d records that were made in memory are on the disk", len(records))
            await asyncio.to_thread(self._home.copy_back)
        await asyncio.to_thread(self._home.drop)
        self.readings = None

    def _try_memory(self, why: str, *, anew: bool = False) -> bool:
        try:
            self._go_to_memory(why, anew=anew)
        except OSError as error:
            _log.error("%s takes nothing, and neither does %s: %s", self.data, self._home.folder, error)
            return False
        return True

    def _go_to_memory(self, why: str, *, anew: bool = False) -> None:
        _log.error("%s takes nothing (%s): the gateway goes on in memory, NOT RECORDED", self.data, why)
        if anew or not self._home.holds():
            self._home.make(self._gateway, why)
            self.readings = 0
        self.folder = self._home.folder


def _arrived(drafts: Sequence[Draft], newest: Sequence[Record]) -> int:
    """How many of the drafts that the disk refused it has all the same, as its newest records: a commit can fail and
    yet arrive."""
    for count in range(min(len(drafts), len(newest)), 0, -1):
        if all(map(is_same, drafts[:count], newest[-count:])):
            return count
    return 0


def try_disk(data: Path) -> str:
    """Whether the folder and the journal's own file take a write; "" when they do, else why not. Blocks."""
    return _refusal(data) or refusal_of(data / "journal.db")


def _refusal(data: Path) -> str:
    """Why a file in the folder cannot be written and synced; "" when it can."""
    probe = data / ".probe"
    try:
        data.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(_PROBE_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                probe.unlink()
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return error.strerror or str(error)
    return ""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
