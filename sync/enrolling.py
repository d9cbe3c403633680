"""The gateway asks headquarters to be known: as long as headquarters refuses its key, and only then.

While the uplink is refused as a stranger, a request with a claim code is open; the code is shown wherever the gateway
shows anything. Approved, headquarters' key is believed and the uplink tries again at once. A revoked key never asks
again by itself: somebody ended it on purpose.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Protocol

from ..errors import RefusedError
from ..words import mono_s
from .claim_file import ClaimFiles, Names, OpenClaim
from .claims import Answer
from .columns import DamagedError
from .key_ring import KeyRing
from .link_state import UplinkHealth
from .retrying import LinkError
from .streams import JOURNAL
from .wire import enrolments_path

_log = logging.getLogger(__name__)

STRANGER = ("not_enrolled", "unknown_gateway", "wrong_key")
"""How headquarters refuses a gateway that it does not know."""
LOOK_S = 1.0
POLL_S = 3.0
_AFTER_REFUSAL_S = 300.0
_AFTER_TROUBLE_S = 15.0


class Client(Protocol):
    """What is needed of the uplink's client."""

    health: UplinkHealth

    def session(self) -> Any:
        """A connection of its own."""
        ...

    async def get(self, session: Any, path: str) -> Any:
        """Signed GET. Raises LinkError."""
        ...

    async def post(self, session: Any, path: str, body: bytes, chain: bytes) -> Any:
        """Signed POST. Raises LinkError."""
        ...


async def ask(client: Client, session: Any, claim: OpenClaim) -> dict[str, Any]:
    """Bring a request; the same one again only asks how it stands. Raises LinkError."""
    body = json.dumps(claim.request.to_json()).encode()
    return _standing(await client.post(session, enrolments_path(claim.request.gateway), body, bytes(32)))


async def look(client: Client, session: Any, claim: OpenClaim) -> dict[str, Any]:
    """How a request stands. Raises LinkError."""
    path = f"{enrolments_path(claim.request.gateway)}/{claim.request.id}"
    return _standing(await client.get(session, path))


def _standing(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get("state"), str):
        raise LinkError("odd_answer", "the answer to an enrolment does not fit")
    return answer


class Enrolling:
    """`run` is given to the uplink.

    Args:
        names: of the site that runs now.
        approved: called with headquarters' answer, once its key is believed.
        look_s, poll_s, after_refusal_s: how often it looks whether it is a stranger, how often it asks, and how long a
            refused gateway waits before it shows another code.
    """

    def __init__(
        self,
        ring: KeyRing,
        names: Callable[[], Names],
        approved: Callable[[Answer], Awaitable[object]],
        *,
        look_s: float = LOOK_S,
        poll_s: float = POLL_S,
        after_refusal_s: float = _AFTER_REFUSAL_S,
    ) -> None:
        self._ring, self._names, self._approved = ring, names, approved
        self._look_s, self._poll_s, self._after_refusal_s = look_s, poll_s, after_refusal_s
        self._files = ClaimFiles(ring.data)
        self._shown, self._collected = "", False

    async def run(self, client: Any) -> NoReturn:
        """For ever."""
        async with client.session() as session:
            while True:
                if client.health.reasons.get(JOURNAL) not in STRANGER:
                    client.health.enrolment = None
                    if client.health.state == "up":
                        await self._collect(client, session)
                    await asyncio.sleep(self._look_s)
                    continue
                try:
                    pause_s = await self._claim(client, session)
                except LinkError as error:
                    _tell(client.health, state="unreached", error=str(error))
                    pause_s = max(error.retry_s, _AFTER_TROUBLE_S)
                await self._pause(client, pause_s)
        raise AssertionError("unreachable")

    async def _collect(self, client: Any, session: Any) -> None:
        """Headquarters knows this gateway; the answer to a request that is open still says whom to believe."""
        if self._collected:
            return
        claim = await asyncio.to_thread(self._files.open)
        if claim is not None:
            try:
                found = await look(client, session, claim)
            except LinkError as error:
                if error.reason != "no_such_request":
                    return  # later
                found = {"state": "unknown"}
            if found["state"] == "pending":
                return
            if found["state"] == "approved":
                await self._accept(client, claim, found.get("answer"))
            await asyncio.to_thread(self._files.drop, claim)
        self._collected = True

    async def _claim(self, client: Any, session: Any) -> float:
        """One request to its end; seconds until the next one."""
        self._collected = False
        claim = await asyncio.to_thread(self._files.open_or_make, self._ring.key, self._names())
        standing = await ask(client, session, claim)
        while standing["state"] == "pending":
            self._show(client.health, claim, int(standing.get("left_s", 0)))
            await self._pause(client, self._poll_s)
            if client.health.reasons.get(JOURNAL) not in STRANGER:
                return 0.0
            standing = await look(client, session, claim)
        state = standing["state"]
        if state == "approved":
            return await self._accept(client, claim, standing.get("answer"))
        await asyncio.to_thread(self._files.drop, claim)
        if state == "known":
            client.try_now()
            return self._poll_s
        _tell(client.health, state=state, fingerprint=claim.fingerprint)
        _log.warning("enrolment: headquarters says: %s", state)
        return 0.0 if state == "expired" else self._after_refusal_s

    async def _accept(self, client: Any, claim: OpenClaim, fields: Any) -> float:
        try:
            answer = await asyncio.to_thread(self._files.accept, claim, fields)
        except (RefusedError, DamagedError) as error:
            await asyncio.to_thread(self._files.drop, claim)
            _tell(client.health, state="forged", error=str(error))
            _log.error("enrolment: %s", error)
            return self._after_refusal_s
        _log.warning("enrolment: headquarters knows this gateway; its key: %s", answer.witness_key)
        await self._approved(answer)
        client.health.enrolment = None
        client.try_now()
        return self._poll_s

    def _show(self, health: UplinkHealth, claim: OpenClaim, left_s: int) -> None:
        _tell(health, state="pending", code=claim.code, fingerprint=claim.fingerprint, left_s=left_s)
        if self._shown != claim.request.id:
            self._shown = claim.request.id
            what = "headquarters does not know this gateway: tell its operator gateway %s, code %s, fingerprint %s"
            _log.warning(what, claim.request.gateway, claim.code, claim.fingerprint)

    async def _pause(self, client: Any, seconds: float) -> None:
        """Ends early once the uplink is no stranger any more."""
        end_s = mono_s() + seconds
        while True:
            left_s = end_s - mono_s()
            if left_s <= 0 or client.health.reasons.get(JOURNAL) not in STRANGER:
                return
            await asyncio.sleep(min(left_s, self._look_s))


def _tell(health: UplinkHealth, **shown: Any) -> None:
    health.enrolment = {"code": "", "fingerprint": "", "left_s": 0, "error": "", **shown}
