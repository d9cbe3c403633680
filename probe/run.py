"""Asking units over a wire that somebody else owns (`Guest`): a scan, one look, a watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..sensors.buses import Answer, ReplyError
from ..sensors.profile import Profile
from ..sensors.registers import Block, Table
from ..words import mono_s
from .find import FoundUnit, ScanResult, Setting, candidates, is_needless, reads_of
from .interpret import GATEWAY_EXCEPTIONS, Tally, narrower

HELLO = Block(table=Table.HOLDING, address=0, count=1)
SAME_FOR_ALL = 6  # so many first units with one and the same answer are one device
SILENT_LIMIT = 3


class Guest(Protocol):
    """A wire that answers reads."""

    async def read(self, unit_id: int, block: Block, timeout_s: float | None = None) -> Answer:
        """Raises ReplyError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One step of a scan: `unit` when it answered, `garbled` when something came that was no reply."""

    unit_id: int
    unit: FoundUnit | None = None
    garbled: bool = False


async def scan_units(
    guest: Guest,
    units: Sequence[int],
    *,
    timeout_s: float,
    setting: Setting | None,
    result: ScanResult,
    is_tcp: bool = False,
) -> AsyncIterator[Asked]:
    """Ask each unit for one register; any answer, also a refusal, is a unit. Fills `result` as it goes.

    Args:
        is_tcp: the first units with one and the same answer may be one device that does not look at the unit id.

    Raises:
        ReplyError: `no_connection` or `bus_noise`: nobody can be asked.
    """
    same: set[str] = set()
    for at, unit_id in enumerate(units):
        asked = await _hello(guest, unit_id, timeout_s, setting)
        if asked.unit is not None:
            result.units.append(asked.unit)
            same.add(asked.unit.hello)
        if asked.garbled:
            result.garbled.append((unit_id, setting))
        if is_tcp and at + 1 == SAME_FOR_ALL and len(result.units) == SAME_FOR_ALL and len(same) == 1:
            result.answers_all = True
            del result.units[1:]
            return
        yield asked


async def _hello(guest: Guest, unit_id: int, timeout_s: float, setting: Setting | None) -> Asked:
    tally = Tally()
    try:
        answer = await guest.read(unit_id, HELLO, timeout_s)
    except ReplyError as error:
        if error.why in ("no_connection", "bus_noise", "driver_error"):
            raise
        if not error.code or error.code in GATEWAY_EXCEPTIONS:
            return Asked(unit_id=unit_id, garbled=error.why == "bad_frame")
        return Asked(unit_id=unit_id, unit=FoundUnit(unit_id=unit_id, setting=setting, hello=error.why, tally=tally))
    tally.replied(answer.reply_ms)
    hello = f"{HELLO.table} {HELLO.address} = {answer.words[0]}"
    return Asked(unit_id=unit_id, unit=FoundUnit(unit_id=unit_id, setting=setting, hello=hello, tally=tally))


async def identify(guest: Guest, unit: FoundUnit, profiles: Collection[Profile], *, timeout_s: float) -> None:
    """Ask `unit` what every profile would ask, and judge. A unit that falls silent is judged by what it said."""
    answers: dict[Block, tuple[int, ...] | str] = {}
    for block in reads_of(profiles):
        if unit.tally.failures["timeout"] >= SILENT_LIMIT:
            break
        if is_needless(block, answers):
            continue
        answers[block] = await ask(guest, unit.unit_id, block, timeout_s, unit.tally)
    unit.candidates = candidates(profiles, answers, unit_id=unit.unit_id, setting=unit.setting)


async def ask(guest: Guest, unit_id: int, block: Block, timeout_s: float, tally: Tally) -> tuple[int, ...] | str:
    """The words, or why there are none; counted. Raises ReplyError when the wire itself is gone."""
    try:
        answer = await guest.read(unit_id, block, timeout_s)
    except ReplyError as error:
        if error.why == "no_connection":
            raise
        if not error.code or error.code in GATEWAY_EXCEPTIONS:
            tally.failed(error.why)
        return error.why
    tally.replied(answer.reply_ms)
    return answer.words


async def look(guest: Guest, unit_id: int, block: Block, timeout_s: float, *, shrink: bool) -> tuple[Block, Answer]:
    """One read; with `shrink` fewer and fewer registers while the device refuses (exceptions 2 and 3).

    Raises:
        ReplyError: no answer, or the last refusal.
    """
    for part in narrower(block):
        try:
            return part, await guest.read(unit_id, part, timeout_s)
        except ReplyError as error:
            if not shrink or error.code not in (2, 3) or part.count == 1:
                raise
    raise AssertionError("narrower ends with one register")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One look of a watch: words or a reason for each block."""

    number: int
    answers: tuple[tuple[int, ...] | str, ...]


async def watch(
    guest: Guest,
    unit_id: int,
    blocks: Sequence[Block],
    *,
    timeout_s: float,
    every_s: float,
    times: int | None,
    seconds: float | None,
    tally: Tally,
) -> AsyncIterator[Round]:
    """Read the blocks again and again, every `every_s` or as soon as the last round has ended; the first error other
    than a lost wire is an answer too. A wire that is lost is opened again by its owner and counts as an error."""
    start_s, number = mono_s(), 0
    while (times is None or number < times) and (seconds is None or mono_s() - start_s < seconds):
        begun_s = mono_s()
        number += 1
        answers = [await _ask_anyway(guest, unit_id, block, timeout_s, tally) for block in blocks]
        yield Round(number=number, answers=tuple(answers))
        if number != times:
            await asyncio.sleep(max(0.0, begun_s + every_s - mono_s()))


async def _ask_anyway(
    guest: Guest, unit_id: int, block: Block, timeout_s: float, tally: Tally
) -> tuple[int, ...] | str:
    try:
        answer = await guest.read(unit_id, block, timeout_s)
    except ReplyError as error:
        tally.failed(error.why)
        return error.why
    tally.replied(answer.reply_ms)
    return answer.words
