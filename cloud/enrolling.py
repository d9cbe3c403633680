"""Gateways become known here: their requests, the operator's decision, their keys' rotation and revocation.

Three doors. Gateways post requests that they signed with the very key that is to be known. Whoever is signed in at the
pages in the role of `it` or `admin` decides, and so does whoever may open this service's socket. An approval needs the
claim code: it alone says that the operator speaks of the machine that somebody is standing at.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..errors import RefusedError
from ..serving.people import named
from ..sync.claims import MOST_BYTES, Request, claim_of, fingerprint, make_answer, plain_code
from ..sync.columns import DamagedError
from ..sync.keys import parse_public_key
from ..sync.rotations import Rotation
from ..sync.wire import check_digest
from ..words import utc_text
from .config import CloudConfig, GatewayTable
from .enrol_store import (
    APPROVED,
    DROPPED,
    ENROLLED,
    MOST_TRIES,
    REFUSED,
    ROTATED,
    Asked,
    EnrolStore,
    KeyRow,
    already_enrolled,
)
from .enrolled import Register
from .ingest import Ingest, read_body

log = logging.getLogger(__name__)

PATH = "/v1/gateways/{gateway}/enrolments"
KEYS_PATH = "/v1/gateways/{gateway}/keys"
MOST_PER_ADDRESS, WINDOW_S = 60, 600.0
_MOST_ADDRESSES = 10_000
_BODY_BYTES = 2 * MOST_BYTES
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ID = re.compile(r"[0-9a-f]{32}")
_MOST_REASON = 200


class Rate:
    """How often an address may come with something new. Args: clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, deque[float]] = {}

    def count(self, address: str) -> None:
        """Raises RefusedError `busy`."""
        now_s = self._clock()
        if len(self._seen) >= _MOST_ADDRESSES:
            self._seen = {name: times for name, times in self._seen.items() if now_s - times[-1] < WINDOW_S}
        times = self._seen.setdefault(address, deque(maxlen=MOST_PER_ADDRESS))
        if len(self._seen) > _MOST_ADDRESSES or (len(times) == MOST_PER_ADDRESS and now_s - times[0] < WINDOW_S):
            raise RefusedError("busy", "too many requests to be enrolled from here", retry_s=60)
        times.append(now_s)


class Enrolling:
    """The handlers, and what they decide.

    Args:
        witness_key: headquarters' own key, as text: what a gateway is to believe.
        changed: called with the gateway's id when pages have something new.
    """

    def __init__(
        self,
        config: CloudConfig,
        store: EnrolStore,
        register: Register,
        witness_key: str,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._store, self._register = config, store, register
        self._witness_key, self._changed, self._clock = witness_key, changed, clock
        self._rate, self._slow = Rate(), asyncio.Lock()

    # --- gateways ---

    def add_routes(self, app: web.Application, ingest: Ingest) -> None:
        """The gateways' door."""

        async def ask(request: web.Request) -> web.StreamResponse:
            return await self._ask(request, ingest)

        async def look(request: web.Request) -> web.StreamResponse:
            return await self._look(request, ingest)

        app.router.add_post(PATH, ingest.answering(ask))
        app.router.add_get(f"{PATH}/{{id}}", ingest.answering(look))
        ingest.add_post(app, KEYS_PATH, self.rotate)

    async def _ask(self, request: web.Request, ingest: Ingest) -> web.Response:
        digest, chain = request.headers.get("Content-Digest", ""), request.headers.get("SW-Chain", "")
        if "Signature-Input" not in request.headers or "Signature" not in request.headers:
            raise RefusedError("unsigned", "the request is not signed")
        if not (digest and chain):
            raise RefusedError("bad_request", "Content-Digest and SW-Chain are required")
        data = await read_body(request, _BODY_BYTES)
        check_digest(digest, data)
        asked = _request(data)
        _must_name(asked, request.match_info["gateway"])
        ingest.verified(request, {asked.kid: asked.public_key}, digest=digest, chain=chain)
        self._must_be_new(asked)
        known = await self._store.asked(asked.gateway, asked.id)
        if known is None and self._knows(asked):
            return web.json_response({"id": asked.id, "state": "known", "left_s": 0, "answer": None} | self._time())
        if known is None:
            self._rate.count(request.remote or "")
            known = await self._store.ask(asked, request.remote or "", self._now_ms())
            log.info("gateway %s asks to be enrolled: %s", asked.gateway, fingerprint(asked.public_key))
            self._changed(asked.gateway)
        return web.json_response(self._told(known))

    async def _look(self, request: web.Request, ingest: Ingest) -> web.Response:
        if "Signature-Input" not in request.headers or "Signature" not in request.headers:
            raise RefusedError("unsigned", "the request is not signed")
        gateway, request_id = request.match_info["gateway"], request.match_info["id"]
        is_name = _NAME.fullmatch(gateway) and _ID.fullmatch(request_id)
        known = await self._store.asked(gateway, request_id) if is_name else None
        if known is None:
            raise RefusedError("no_such_request", "there is no such request", hint="ask again")
        signed = known.signed
        ingest.verified(request, {signed.kid: signed.public_key})
        return web.json_response(self._told(known))

    def _told(self, asked: Asked) -> dict[str, Any]:
        now_ms = self._now_ms()
        state = asked.now(now_ms)
        return {
            "id": asked.id,
            "state": state,
            "left_s": max(0, (asked.ends_ms - now_ms) // 1000) if state == "pending" else 0,
            "answer": json.loads(asked.answer) if state == APPROVED else None,
            **self._time(),
        }

    def _knows(self, asked: Request) -> bool:
        known = self._config.find(asked.gateway)
        return known is not None and asked.kid in known.keys()  # noqa: SIM118 - not a mapping

    def _time(self) -> dict[str, int]:
        return {"time_ms": self._now_ms()}

    async def rotate(self, gateway: GatewayTable, data: bytes) -> web.Response:
        """A new key, signed by the one that signed this request."""
        try:
            rotation = Rotation.from_json(json.loads(data))
        except (DamagedError, ValueError, RecursionError) as error:
            raise RefusedError("bad_request", f"no rotation of keys: {error!s:.200}") from error
        now_ms = self._now_ms()
        rows = {row.key: row for row in self._register.rows(gateway)}
        old = rows.get(rotation.old)
        if rotation.gateway != gateway.id or old is None:
            raise RefusedError("bad_request", "the rotation is not of a key of this gateway")
        fresh = KeyRow(
            gateway=gateway.id,
            kid=rotation.kid,
            key=rotation.new,
            source=ROTATED,
            valid_from_ms=now_ms,
            introduced_by=old.kid,
        )
        if self._is_anothers(gateway.id, fresh.kid):
            raise RefusedError("key_taken", "another gateway has this key", hint="each needs its own")
        await self._store.rotate(old, fresh, now_ms)
        await self._register.look()
        log.info("gateway %s: key %s follows %s", gateway.id, fresh.kid, old.kid)
        self._changed(gateway.id)
        return web.json_response({"kid": fresh.kid, "time_ms": now_ms})

    # --- the operator ---

    async def overview(self) -> dict[str, Any]:
        """Who waits, and every key of every gateway."""
        now_ms = self._now_ms()
        return {
            "time": utc_text(now_ms),
            "witness_key": self._witness_key,
            "pending": [self._pending_json(asked) for asked in await self._store.pending(now_ms)],
            "gateways": [
                {
                    "gateway": gateway.id,
                    "name": gateway.name,
                    "name_en": gateway.name_en,
                    "keys": [self._key_json(row, now_ms) for row in reversed(self._register.rows(gateway))],
                }
                for gateway in self._config.gateways
            ],
        }

    async def approve(
        self, gateway: str, code: str, by: str, *, request_id: str = "", replace: bool = False
    ) -> dict[str, Any]:
        """A typed code is compared with what a gateway has asked; right, its key is good from then on.

        Args:
            request_id: which one, where several ask under one name.

        Raises:
            RefusedError: `no_code`, `no_such_request`, `several`, `request_ended`, `wrong_code`, and what
                `EnrolStore.approve` raises.
        """
        typed, now_ms = plain_code(code), self._now_ms()
        asked = self._one(await self._store.pending(now_ms), gateway, request_id)
        known = self._config.find(gateway)
        if known is not None and not replace and set(known.keys()) - {asked.kid}:
            raise already_enrolled(gateway)
        tries = await self._store.count_try(gateway, asked.id, now_ms)
        request = asked.signed
        async with self._slow:
            claim = await asyncio.to_thread(claim_of, typed, gateway, request.key, request.salt)
        if not hmac.compare_digest(claim.commitment, request.commitment):
            raise await self._wrong(asked, tries + 1, by)
        now_ms = self._now_ms()
        if self._is_anothers(gateway, asked.kid):
            raise RefusedError("key_taken", "another gateway has this key", hint="each needs its own")
        fresh = KeyRow(
            gateway=gateway, kid=asked.kid, key=request.key, source=ENROLLED, valid_from_ms=now_ms, approved_by=by
        )
        answer = make_answer(request, claim.proof, self._witness_key, now_ms).to_json()
        names = request.name, request.name_en or request.name
        rows = self._register.rows(known) if known is not None else ()
        await self._store.approve(asked, fresh, names, json.dumps(answer), now_ms, known=rows, replace=replace)
        await self._register.look()
        log.warning("gateway %s: key %s was approved by %s", gateway, fresh.kid, by)
        self._changed(gateway)
        return {"gateway": gateway, "kid": fresh.kid, "fingerprint": fingerprint(request.public_key), "answer": answer}

    async def bring(self, fields: Any) -> str:
        """A request that came in a file is kept as one that came over the network; its id."""
        asked = _request(json.dumps(fields).encode())
        _must_name(asked, asked.gateway)
        self._must_be_new(asked)
        return (await self._store.ask(asked, f"file {asked.id[:8]}", self._now_ms())).id

    async def refuse(self, gateway: str, request_id: str, by: str) -> None:
        """Raises RefusedError `request_ended`."""
        if not await self._store.end(gateway, request_id, REFUSED, by, self._now_ms()):
            raise RefusedError("request_ended", "the request has ended already")
        log.warning("gateway %s: a request to be enrolled was refused by %s", gateway, by)
        self._changed(gateway)

    async def revoke(self, gateway: str, kid: str, reason: str, by: str) -> list[str]:
        """One key, or all that are good when `kid` is empty; their ids.

        Raises:
            RefusedError: `unknown_gateway`, `no_such_key`.
        """
        known = self._config.find(gateway)
        if known is None:
            raise RefusedError("unknown_gateway", f"no gateway {gateway[:40]!r} here")
        now_ms = self._now_ms()
        rows = [row for row in self._register.rows(known) if kid in ("", row.kid)]
        good = [row for row in rows if row.state(now_ms) != "revoked" and (kid or row.state(now_ms) != "ended")]
        if not good:
            raise RefusedError("no_such_key", f"gateway {gateway} has no such key that could be revoked")
        why = " ".join(reason.split())[:_MOST_REASON]
        done = await self._store.revoke(good, by, why, now_ms)
        await self._register.look()
        log.warning("gateway %s: revoked by %s: %s (%s)", gateway, by, ", ".join(done), why)
        self._changed(gateway)
        return done

    async def _wrong(self, asked: Asked, tries: int, by: str) -> RefusedError:
        left = MOST_TRIES - tries
        if left > 0:
            self._changed(asked.gateway)
            hint = f"{left} more, then the gateway must ask again; is it this gateway that shows the code?"
            return RefusedError("wrong_code", "that is not the code which this gateway shows", hint=hint)
        await self._store.end(asked.gateway, asked.id, DROPPED, by, self._now_ms())
        log.warning("gateway %s: %d wrong codes: the request was dropped", asked.gateway, tries)
        self._changed(asked.gateway)
        hint = "the gateway shows another code soon; look for who typed the wrong ones"
        return RefusedError("request_ended", f"{tries} wrong codes: the request was dropped", hint=hint)

    def _one(self, pending: list[Asked], gateway: str, request_id: str) -> Asked:
        found = [asked for asked in pending if asked.gateway == gateway and request_id in ("", asked.id)]
        if not found:
            hint = "is its code shown, and headquarters reached? A code is good for 15 minutes"
            raise RefusedError("no_such_request", f"gateway {gateway[:40]!r} does not ask to be enrolled", hint=hint)
        if len(found) > 1:
            listed = "; ".join(f"{asked.id[:8]}: {fingerprint(asked.signed.public_key)}" for asked in found)
            raise RefusedError("several", f"{len(found)} machines ask as {gateway}: {listed}", hint="name one of them")
        return found[0]

    def _must_be_new(self, asked: Request) -> None:
        known = self._config.find(asked.gateway)
        if known is not None and asked.kid in known.ended():
            raise known.why_ended(asked.kid)
        if self._is_anothers(asked.gateway, asked.kid):
            raise RefusedError("key_taken", "another gateway has this key", hint="each needs its own")

    def _is_anothers(self, gateway: str, kid: str) -> bool:
        return any(
            row.kid == kid
            for other in self._config.gateways
            if other.id != gateway
            for row in self._register.rows(other)
        )

    def _pending_json(self, asked: Asked) -> dict[str, Any]:
        signed, known = asked.signed, self._config.find(asked.gateway)
        return {
            "id": asked.id,
            "gateway": asked.gateway,
            "name": signed.name,
            "name_en": signed.name_en,
            "fingerprint": fingerprint(signed.public_key),
            "address": asked.address,
            "asked": utc_text(asked.asked_ms),
            "ends": utc_text(asked.ends_ms),
            "tries_left": MOST_TRIES - asked.tries,
            "replaces": bool(known is not None and set(known.keys()) - {asked.kid}),
        }

    def _key_json(self, row: KeyRow, now_ms: int) -> dict[str, Any]:
        return {
            "kid": row.kid,
            "fingerprint": fingerprint(parse_public_key(row.key)),
            "key": row.key,
            "source": row.source,
            "state": row.state(now_ms),
            "valid_from": utc_text(row.valid_from_ms) if row.valid_from_ms else None,
            "valid_until": _text(row.valid_until_ms),
            "revoked": _text(row.revoked_ms),
            "introduced_by": row.introduced_by,
            "approved_by": self._who(row.approved_by),
            "revoked_by": self._who(row.revoked_by),
            "reason": row.reason,
        }

    def _who(self, person: str) -> str:
        return named(self._config.people, person)["name"] or person if person else ""

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _request(data: bytes) -> Request:
    try:
        return Request.from_json(json.loads(data))
    except (DamagedError, ValueError, RecursionError) as error:
        raise RefusedError("bad_request", f"no request to be enrolled: {error!s:.200}") from error


def _must_name(asked: Request, gateway: str) -> None:
    if asked.gateway != gateway or not _NAME.fullmatch(gateway):
        raise RefusedError("bad_request", "the request is not of this gateway, or no gateway can be called so")


def _text(at_ms: int | None) -> str | None:
    return utc_text(at_ms) if at_ms is not None else None
