"""What headquarters knows of the gateways' keys, and who asks to be known. Keys are ended, never deleted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RefusedError
from ..sync.claims import Request
from .engine import Database, Step, Tx

STEPS = (
    Step(
        "m012_gateway_keys",
        (
            """CREATE TABLE gateway_key (gateway TEXT NOT NULL, kid TEXT NOT NULL, key TEXT NOT NULL,
               source TEXT NOT NULL, valid_from_ms INTEGER NOT NULL, valid_until_ms INTEGER,
               revoked_ms INTEGER, introduced_by TEXT NOT NULL, approved_by TEXT NOT NULL, revoked_by TEXT NOT NULL,
               reason TEXT NOT NULL, PRIMARY KEY (gateway, kid))""",
            "CREATE INDEX gateway_key_kid ON gateway_key (kid)",
            """CREATE TABLE gateway_name (gateway TEXT NOT NULL, name TEXT NOT NULL, name_en TEXT NOT NULL,
               PRIMARY KEY (gateway))""",
            """CREATE TABLE enrolment (gateway TEXT NOT NULL, id TEXT NOT NULL, kid TEXT NOT NULL,
               request TEXT NOT NULL, address TEXT NOT NULL, asked_ms INTEGER NOT NULL, ends_ms INTEGER NOT NULL,
               tries INTEGER NOT NULL, state TEXT NOT NULL, ended_ms INTEGER, ended_by TEXT NOT NULL,
               answer TEXT NOT NULL, PRIMARY KEY (gateway, id))""",
            "CREATE INDEX enrolment_state ON enrolment (state, ends_ms)",
            "CREATE TABLE gateway_key_revision (only_row INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (only_row))",
        ),
    ),
)

PENDING, APPROVED, REFUSED, EXPIRED, DROPPED = "pending", "approved", "refused", "expired", "dropped"
CONFIG, ENROLLED, ROTATED = "config", "enrolled", "rotated"
MOST_TRIES = 5
MOST_PENDING, MOST_OF_ADDRESS = 1_000, 20
LASTS_MS = 15 * 60_000
FILE_LASTS_MS = 60 * 86_400_000
OVERLAP_MS = 7 * 86_400_000
MOST_KEYS = 100
"""Of one gateway, ended ones with them: a gateway that is stolen cannot fill the database by rotating."""
_KEPT_MS = 7 * 86_400_000

_KEY = (
    "gateway, kid, key, source, valid_from_ms, valid_until_ms, revoked_ms, introduced_by, approved_by"
    ", revoked_by, reason"
)
_ASKED = "gateway, id, kid, request, address, asked_ms, ends_ms, tries, state, ended_ms, ended_by, answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A key of a gateway.

    Attributes:
        source: `config`: stands in cloud.toml; `enrolled`: its claim code was typed; `rotated`: an older one said so.
        valid_until_ms: it is followed by another one; None: it has no end.
        introduced_by: id of the older key. approved_by, revoked_by: who.
    """

    gateway: str
    kid: str
    key: str
    source: str = ENROLLED
    valid_from_ms: int = 0
    valid_until_ms: int | None = None
    revoked_ms: int | None = None
    introduced_by: str = ""
    approved_by: str = ""
    revoked_by: str = ""
    reason: str = ""

    def state(self, now_ms: int) -> str:
        """`active`, `ending` (another one follows), `ended` or `revoked`."""
        if self.revoked_ms is not None:
            return "revoked"
        if self.valid_until_ms is None:
            return "active"
        return "ending" if now_ms < self.valid_until_ms else "ended"

    def row(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in _KEY.split(", "))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request to be known, as it is kept. `address`: where it came from, `file` of one that was brought."""

    gateway: str
    id: str
    kid: str
    request: str
    address: str
    asked_ms: int
    ends_ms: int
    tries: int = 0
    state: str = PENDING
    ended_ms: int | None = None
    ended_by: str = ""
    answer: str = ""

    @property
    def signed(self) -> Request:
        return Request.from_json(json.loads(self.request))

    def now(self, now_ms: int) -> str:
        """Its state; one whose time is over is `expired`, whoever has looked."""
        return EXPIRED if self.state == PENDING and now_ms >= self.ends_ms else self.state


class EnrolStore:
    """Requests and keys. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.shared = database.shared

    async def revision(self) -> int:
        """Another number after each change of a key."""
        row = await self._database.read(lambda tx: tx.one("SELECT n FROM gateway_key_revision"))
        return int(row[0]) if row else 0

    async def keys(self) -> tuple[list[KeyRow], dict[str, tuple[str, str]]]:
        """Every key that was ever good, and the names of gateways that were approved."""

        async def job(tx: Tx) -> tuple[list[KeyRow], dict[str, tuple[str, str]]]:
            rows = await tx.all(f"SELECT {_KEY} FROM gateway_key ORDER BY gateway, valid_from_ms, kid")  # noqa: S608
            names = await tx.all("SELECT gateway, name, name_en FROM gateway_name")
            return list(map(_key_row, rows)), {gateway: (name, name_en) for gateway, name, name_en in names}

        return await self._database.read(job)

    async def ask(self, request: Request, address: str, now_ms: int) -> Asked:
        """Keep a request; the same one again changes nothing and gives what is kept.

        Raises:
            RefusedError: `busy`: there are too many that nobody has decided on.
        """
        text = json.dumps(request.to_json())
        ends_ms = now_ms + (FILE_LASTS_MS if request.by_file else LASTS_MS)

        async def job(tx: Tx) -> Asked:
            await tx.lock("enrolment")
            if (known := await _asked(tx, request.gateway, request.id)) is not None:
                return known
            waits = "SELECT count(*) FROM enrolment WHERE state = ? AND ends_ms > ?"
            total = await tx.one(waits, PENDING, now_ms)
            own = await tx.one(f"{waits} AND address = ?", PENDING, now_ms, address)
            if (total or (0,))[0] >= MOST_PENDING or (own or (0,))[0] >= MOST_OF_ADDRESS:
                raise RefusedError("busy", "too many requests to be enrolled wait for a decision", retry_s=60)
            made = Asked(
                gateway=request.gateway,
                id=request.id,
                kid=request.kid,
                request=text,
                address=address,
                asked_ms=now_ms,
                ends_ms=ends_ms,
            )
            row = [getattr(made, name) for name in _ASKED.split(", ")]
            await tx.run(f"INSERT INTO enrolment ({_ASKED}) VALUES ({', '.join('?' * len(row))})", *row)  # noqa: S608
            return made

        return await self._database.write(job)

    async def asked(self, gateway: str, request_id: str) -> Asked | None:
        """One request, whatever became of it."""
        return await self._database.read(lambda tx: _asked(tx, gateway, request_id))

    async def pending(self, now_ms: int) -> list[Asked]:
        """Requests that wait for a decision, the oldest first."""
        sql = f"SELECT {_ASKED} FROM enrolment WHERE state = ? AND ends_ms > ? ORDER BY asked_ms, id"  # noqa: S608
        rows = await self._database.read(lambda tx: tx.all(sql, PENDING, now_ms))
        return list(map(_asked_row, rows))

    async def count_try(self, gateway: str, request_id: str, now_ms: int) -> int:
        """A code is about to be compared: how many were before. Counted first, so that many at once are no more.

        Raises:
            RefusedError: `no_such_request`; `request_ended`.
        """

        async def job(tx: Tx) -> int:
            row = await tx.locked("enrolment", "tries, state, ends_ms", gateway=gateway, id=request_id)
            if row is None:
                raise RefusedError("no_such_request", "there is no such request")
            tries, state, ends_ms = row[:3]
            if state != PENDING or now_ms >= ends_ms or tries >= MOST_TRIES:
                raise RefusedError("request_ended", "the request has ended", hint="have the gateway ask again")
            sql = "UPDATE enrolment SET tries = tries + 1 WHERE gateway = ? AND id = ?"
            await tx.run(sql, gateway, request_id)
            return tries

        return await self._database.write(job)

    async def end(self, gateway: str, request_id: str, state: str, by: str, now_ms: int) -> bool:
        """A request is refused or dropped; whether it was still pending."""
        sql = "UPDATE enrolment SET state = ?, ended_ms = ?, ended_by = ? WHERE gateway = ? AND id = ? AND state = ?"
        changed = await self._database.write(lambda tx: tx.run(sql, state, now_ms, by, gateway, request_id, PENDING))
        return changed > 0

    async def approve(
        self,
        asked: Asked,
        fresh: KeyRow,
        names: tuple[str, str],
        answer: str,
        now_ms: int,
        *,
        known: Sequence[KeyRow] = (),
        replace: bool = False,
    ) -> None:
        """The key is good from now on; the request has ended.

        Args:
            known: keys of the gateway that stand in cloud.toml alone.
            replace: other keys of the gateway end at once.

        Raises:
            RefusedError: `request_ended`, `revoked`, `key_taken`, `already_enrolled`.
        """

        async def job(tx: Tx) -> None:
            await tx.lock("gateway_key")
            row = await tx.locked("enrolment", "state, ends_ms", gateway=asked.gateway, id=asked.id)
            if row is None or row[0] != PENDING or now_ms >= row[1]:
                raise RefusedError("request_ended", "the request has ended", hint="have the gateway ask again")
            stored = await _keys_of(tx, asked.gateway)
            ours = {key.kid for key in stored}
            keys = [*stored, *(key for key in known if key.kid not in ours)]
            if any(key.kid == fresh.kid and key.revoked_ms is not None for key in keys):
                hint = "on the gateway: sitewarden enrol --new-key"
                raise RefusedError("revoked", "this key was revoked", hint=hint)
            taken = "SELECT gateway FROM gateway_key WHERE kid = ? AND gateway <> ?"
            if (other := await tx.one(taken, fresh.kid, asked.gateway)) is not None:
                raise RefusedError("key_taken", f"gateway {other[0]} has this key", hint="each needs its own")
            others = [key for key in keys if key.kid != fresh.kid and key.state(now_ms) in ("active", "ending")]
            if others and not replace:
                raise _has_key(asked.gateway)
            for key in others:
                ended = dataclasses.replace(key, valid_until_ms=now_ms, reason=f"replaced by {fresh.kid}")
                await _put_key(tx, ended)
            await _put_key(tx, fresh)
            named = (
                "INSERT INTO gateway_name VALUES (?, ?, ?) ON CONFLICT (gateway) DO UPDATE SET"
                " name = excluded.name, name_en = excluded.name_en"
            )
            await tx.run(named, asked.gateway, *names)
            sql = "UPDATE enrolment SET state = ?, ended_ms = ?, ended_by = ?, answer = ? WHERE gateway = ? AND id = ?"
            await tx.run(sql, APPROVED, now_ms, fresh.approved_by, answer, asked.gateway, asked.id)
            await _count_change(tx)

        await self._database.write(job)

    async def rotate(self, old: KeyRow, fresh: KeyRow, now_ms: int) -> None:
        """`fresh` is good from now on, `old` for a week more. The same again changes nothing.

        Args:
            old: as the caller knows it; stored when it stands in cloud.toml alone.

        Raises:
            RefusedError: `revoked`, `key_taken`, `too_many_keys`.
        """

        async def job(tx: Tx) -> None:
            await tx.lock("gateway_key")
            keys = {key.kid: key for key in await _keys_of(tx, old.gateway)}
            if fresh.kid in keys:
                if keys[fresh.kid].introduced_by != old.kid or keys[fresh.kid].revoked_ms is not None:
                    raise RefusedError("revoked", "the new key was known here before, and is not good")
                return
            if keys.get(old.kid, old).state(now_ms) not in ("active", "ending"):
                raise RefusedError("revoked", "the old key was revoked or has ended", hint="ask headquarters")
            if len(keys) >= MOST_KEYS:
                raise RefusedError("too_many_keys", f"a gateway may have had {MOST_KEYS} keys")
            if await tx.one("SELECT gateway FROM gateway_key WHERE kid = ?", fresh.kid) is not None:
                raise RefusedError("key_taken", "another gateway has this key", hint="each needs its own")
            if old.kid not in keys:
                await _put_key(tx, old)
            sql = "UPDATE gateway_key SET valid_until_ms = ? WHERE gateway = ? AND kid = ? AND valid_until_ms IS NULL"
            await tx.run(sql, now_ms + OVERLAP_MS, old.gateway, old.kid)
            await _put_key(tx, fresh)
            await _count_change(tx)

        await self._database.write(job)

    async def revoke(self, keys: list[KeyRow], by: str, reason: str, now_ms: int) -> list[str]:
        """Those keys are good no more, from this moment; ids of those that were. They are kept."""

        async def job(tx: Tx) -> list[str]:
            await tx.lock("gateway_key")
            done: list[str] = []
            for key in keys:
                known = {row.kid: row for row in await _keys_of(tx, key.gateway)}
                if key.kid not in known:
                    await _put_key(tx, key)
                elif known[key.kid].revoked_ms is not None:
                    continue
                sql = "UPDATE gateway_key SET revoked_ms = ?, revoked_by = ?, reason = ? WHERE gateway = ? AND kid = ?"
                await tx.run(sql, now_ms, by, reason, key.gateway, key.kid)
                done.append(key.kid)
            if done:
                await _count_change(tx)
            return done

        return await self._database.write(job)

    async def tidy(self, now_ms: int) -> None:
        """Forget requests that ended a week ago: until then the same one again is known as ended."""
        sql = "DELETE FROM enrolment WHERE ends_ms < ?"
        await self._database.write(lambda tx: tx.run(sql, now_ms - _KEPT_MS))


def _has_key(gateway: str) -> RefusedError:
    hint = "if this machine takes the place of the other one, approve it as a replacement: the other's key ends at once"
    return RefusedError("already_enrolled", f"gateway {gateway} has a key already", hint=hint)


def already_enrolled(gateway: str) -> RefusedError:
    """A second machine under one name needs a second look."""
    return _has_key(gateway)


async def _asked(tx: Tx, gateway: str, request_id: str) -> Asked | None:
    sql = f"SELECT {_ASKED} FROM enrolment WHERE gateway = ? AND id = ?"  # noqa: S608
    row = await tx.one(sql, gateway, request_id)
    return _asked_row(row) if row is not None else None


async def _keys_of(tx: Tx, gateway: str) -> list[KeyRow]:
    rows = await tx.all(f"SELECT {_KEY} FROM gateway_key WHERE gateway = ?", gateway)  # noqa: S608
    return list(map(_key_row, rows))


async def _put_key(tx: Tx, key: KeyRow) -> None:
    upsert = (
        f"INSERT INTO gateway_key ({_KEY}) VALUES ({', '.join('?' * 11)}) ON CONFLICT (gateway, kid) DO UPDATE SET"  # noqa: S608
        " valid_until_ms = excluded.valid_until_ms, approved_by = excluded.approved_by, reason = excluded.reason"
    )
    await tx.run(upsert, *key.row())


async def _count_change(tx: Tx) -> None:
    counted = (
        "INSERT INTO gateway_key_revision VALUES (1, 1)"
        " ON CONFLICT (only_row) DO UPDATE SET n = gateway_key_revision.n + 1"
    )
    await tx.run(counted)


def _key_row(row: tuple[Any, ...]) -> KeyRow:
    return KeyRow(**dict(zip(_KEY.split(", "), row, strict=True)))


def _asked_row(row: tuple[Any, ...]) -> Asked:
    return Asked(**dict(zip(_ASKED.split(", "), row, strict=True)))
