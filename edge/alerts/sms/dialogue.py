"""What is said to a modem, in order: at the start, at each check, and to bring it back."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

from ....words import mono_s
from ..port import Fault
from ..threads import apart
from . import answers
from .answers import Stored
from .line import Line
from .memory import Memory
from .troubles import (
    Cure,
    NoAnswerError,
    Refusal,
    RefusedCommandError,
    TroubleError,
    UnreadableError,
    explain,
    fault_of,
)

_POLL_S = 1.0
# Received messages are stored and announced, so that none is lost while nobody listens; status reports come directly.
_NOTICES = ("+CNMI=2,1,0,1,0", "+CNMI=1,1,0,1,0", "+CNMI=2,1,0,2,0", "+CNMI=2,1,0,0,0")
_STORES = ('+CPMS="SM","SM","SM"', '+CPMS="ME","ME","ME"', '+CPMS="SM"')


async def wake(line: Line) -> None:
    """Until the modem answers, whatever it was left in. Raises NoAnswerError, LineLostError."""
    await line.settle()
    await line.ask("", tries=3)


async def prepare(line: Line, facts: dict[str, Any]) -> None:
    """Our way of talking; said again at each check, as a modem that was reset has forgotten it."""
    await _try(line, "E0")
    await _try(line, "+CMEE=1")
    if not await _try(line, "+CMGF=0"):
        raise TroubleError(Fault.REFUSING, "the modem has no PDU mode", hint="use a modem that knows AT+CMGF=0")
    for command in ("+CSMS=0", "+CREG=0", "+CEREG=0"):  # no receipts, no news of cells
        await _try(line, command)
    for command in _STORES:
        with contextlib.suppress(RefusedCommandError):
            room = answers.room(await line.ask(command, name="+CPMS", slow=True))
            facts["storage_used"], facts["storage_total"] = room or (None, None)
            break
    for command in _NOTICES:
        if await _try(line, command):
            break


async def unlock(line: Line, pin: str, memory: Memory, limit_s: float) -> str:
    """Until the SIM is ready; its state. A PIN is tried once, and never again when it was not accepted.

    Raises:
        TroubleError: no SIM, a locked one, no PIN or a wrong one.
        NoAnswerError, LineLostError.
    """
    state = await _sim(line, limit_s)
    if state == "SIM PIN":
        await _enter(line, pin, memory)
        state = await _sim(line, limit_s)
        if state == "SIM PIN":
            raise _person("the SIM does not accept the PIN", "correct the PIN; the same one is not tried again")
    if state != "READY":
        hint = "put it into a phone and enter what it asks for"
        raise _person(f"the SIM says {state!r}", hint)
    if pin and await apart(lambda: memory.pin_is_spent(pin)):
        await apart(lambda: memory.note_pin(pin, accepted=True))
    return state


async def identify(line: Line, smsc: str, facts: dict[str, Any]) -> None:
    """Which SIM it is, and its message centre; `smsc` is set where one is given.

    Raises:
        TroubleError: there is no message centre number.
    """
    await _try(line, "+COPS=3,0")
    with contextlib.suppress(RefusedCommandError, UnreadableError):
        facts["imsi"] = answers.subscriber(await line.ask("+CIMI", slow=True))
    if smsc:
        await _try(line, f'+CSCA="{smsc}",{145 if smsc.startswith("+") else 129}')
    with contextlib.suppress(RefusedCommandError, UnreadableError):
        facts["smsc"] = await line.read("+CSCA?", answers.centre, name="+CSCA", slow=True)
        if not facts["smsc"]:
            hint = "smsc in the settings, or AT+CSCA; the operator knows it"
            raise _person("the SIM has no message centre number", hint)


async def register(line: Line, facts: dict[str, Any], limit_s: float) -> None:
    """Until the modem is in a network.

    Raises:
        TroubleError: not within `limit_s`.
        NoAnswerError, LineLostError.
    """
    end_s = mono_s() + limit_s
    while not await is_registered(line, facts):
        if mono_s() >= end_s:
            raise _unregistered(facts, limit_s)
        await pause(line, _POLL_S)


async def is_registered(line: Line, facts: dict[str, Any]) -> bool:
    """Whether any of its networks has it; a modem that cannot say is believed to be."""
    states: list[int] = []
    for command, name in (("+CREG?", "+CREG"), ("+CEREG?", "+CEREG")):
        with contextlib.suppress(RefusedCommandError, UnreadableError):
            states.append(await line.read(command, answers.registration, name=name))
    known = [answers.REGISTERED[state] for state in states if state in answers.REGISTERED]
    unknown = [answers.UNREGISTERED.get(state, f"state {state}") for state in states]
    facts["registration"] = (known or [*unknown, "unknown"])[0]
    if answers.DENIED in states and not known:
        facts["registration"] = answers.UNREGISTERED[answers.DENIED]
    return bool(known) or not states


async def look(line: Line, facts: dict[str, Any]) -> None:
    """Signal and operator, for people."""
    with contextlib.suppress(RefusedCommandError, UnreadableError):
        facts.update(await line.read("+CSQ", answers.signal, name="+CSQ"))
    with contextlib.suppress(RefusedCommandError, NoAnswerError):
        facts["operator"] = await line.read("+COPS?", answers.operator, name="+COPS", slow=True)


async def mail(line: Line) -> list[Stored]:
    """What is in the storage; nothing when it cannot be read now."""
    with contextlib.suppress(RefusedCommandError):
        return answers.stored(await line.ask("+CMGL=4", name="+CMGL", slow=True))
    return []


async def erase(line: Line, index: int) -> bool:
    """Whether the message is gone."""
    return await _try(line, f"+CMGD={index}", slow=True)


async def restart_radio(line: Line) -> None:
    """AT+CFUN=0, then 1: off the network and on again. A modem that does not answer is told all the same."""
    for command in ("+CFUN=0", "+CFUN=1"):
        with contextlib.suppress(RefusedCommandError, NoAnswerError):
            await line.ask(command, name="+CFUN", slow=True, tries=1)


async def restart(line: Line) -> None:
    """AT+CFUN=1,1: as if it were plugged in anew. The port goes away."""
    with contextlib.suppress(RefusedCommandError, NoAnswerError):
        await line.ask("+CFUN=1,1", name="+CFUN", slow=True, tries=1)


async def pause(line: Line, seconds: float) -> None:
    """Wait on an open line. Raises LineLostError."""
    never = asyncio.Event()
    end_s = mono_s() + seconds
    while (rest_s := end_s - mono_s()) > 0:
        await line.wait(never, rest_s)


async def _try(line: Line, command: str, *, slow: bool = False) -> bool:
    """Whether the modem took the command; many lack one or the other."""
    try:
        await line.ask(command, slow=slow)
    except RefusedCommandError:
        return False
    return True


async def _sim(line: Line, limit_s: float) -> str:
    """The state of the SIM, once it has one."""
    end_s = mono_s() + limit_s
    while True:
        try:
            return await line.read("+CPIN?", answers.sim_state, name="+CPIN", slow=True)
        except RefusedCommandError as error:
            refusal = explain(error.said)
            if refusal.cure is not Cure.WAIT or mono_s() >= end_s:
                raise _sim_trouble(refusal) from None
        await pause(line, _POLL_S)


async def _enter(line: Line, pin: str, memory: Memory) -> None:
    """Try the PIN once. What came of it, the SIM's state says."""
    if not pin:
        raise _person("the SIM wants its PIN", "give the PIN in the settings, or switch it off in a phone")
    if not re.fullmatch(r"\d{4,8}", pin):
        raise _person("the PIN in the settings is none", "4 to 8 digits")
    if await apart(lambda: memory.pin_is_spent(pin)):
        hint = "correct it; if it is right, switch the PIN off in a phone"
        raise _person("the SIM did not accept this PIN before: it is not tried again", hint)
    if not await apart(lambda: memory.note_pin(pin, accepted=False)):
        raise _person("the PIN is not tried: that it was tried cannot be kept", "see the data folder's disk and rights")
    with contextlib.suppress(RefusedCommandError, NoAnswerError):
        await line.ask(f'+CPIN="{pin}"', name="+CPIN", slow=True, tries=1)
    await pause(line, _POLL_S)


def _sim_trouble(refusal: Refusal) -> TroubleError:
    resets = refusal.cure in (Cure.RESET, Cure.WAIT)
    meaning = refusal.meaning or refusal.said
    return TroubleError(fault_of(refusal), f"SIM: {meaning}", hint=refusal.hint, resets=resets)


def _person(message: str, hint: str) -> TroubleError:
    return TroubleError(Fault.REFUSING, message, hint=hint, resets=False)


def _unregistered(facts: dict[str, Any], limit_s: float) -> TroubleError:
    state = facts["registration"]
    if state == answers.UNREGISTERED[answers.DENIED]:
        hint = "is the SIM activated and paid, and may it use this network?"
        return TroubleError(Fault.REFUSING, "the network denies registration", hint=hint)
    hint = "check the antenna and that the operator covers this place"
    return TroubleError(Fault.OFFLINE, f"no network within {limit_s:g} s: {state}", hint=hint)
