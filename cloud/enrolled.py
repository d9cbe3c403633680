"""Which keys are good now, for each request: in memory, and never older than a second.

What cloud.toml names is where it begins; what the database says of the same gateway or key goes before it, so that a
key of cloud.toml can be revoked and can be followed by another one. A change in this process counts before it is
answered; that of another process on the same database is seen within `LOOK_S`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import PrivateAttr

from ..errors import RefusedError
from ..sync.keys import key_id, parse_public_key
from .config import CloudConfig, GatewayTable
from .enrol_store import CONFIG, EnrolStore, KeyRow

LOOK_S = 0.8
"""Another process's change is seen after so long: a revoked key is refused everywhere within a second."""
_TIDY_S = 3600.0


class EnrolledTable(GatewayTable):
    """A gateway of which the database knows a key."""

    _rows: tuple[KeyRow, ...] = PrivateAttr(default=())
    _keys: Mapping[str, Ed25519PublicKey] = PrivateAttr(default_factory=dict[str, Ed25519PublicKey])
    _clock: Callable[[], float] = PrivateAttr(default=time.time)

    @classmethod
    def of(cls, about: GatewayTable, rows: tuple[KeyRow, ...], clock: Callable[[], float]) -> EnrolledTable:
        """Args: about: names, and a key of cloud.toml, which is among `rows`."""
        made = cls(id=about.id, name=about.name, name_en=about.name_en, public_key=about.public_key)
        made._rows, made._clock = rows, clock
        made._keys = {row.kid: parse_public_key(row.key) for row in rows}
        return made

    @property
    def rows(self) -> tuple[KeyRow, ...]:
        """Every key, the oldest first."""
        return self._rows

    def keys(self) -> Mapping[str, Ed25519PublicKey]:
        return self._those(lambda state: state in ("active", "ending"))

    def ended(self) -> Mapping[str, Ed25519PublicKey]:
        return self._those(lambda state: state in ("ended", "revoked"))

    def why_ended(self, kid: str) -> RefusedError:
        row = next(row for row in self._rows if row.kid == kid)
        if row.revoked_ms is not None:
            return RefusedError("revoked", "this key was revoked", hint="ask headquarters")
        return RefusedError("key_ended", "another key has followed this one", hint="ask headquarters")

    def _those(self, wanted: Callable[[str], bool]) -> Mapping[str, Ed25519PublicKey]:
        now_ms = int(self._clock() * 1000)
        return {row.kid: self._keys[row.kid] for row in self._rows if wanted(row.state(now_ms))}


class Register:
    """Keeps `config` told of the keys that the database has."""

    def __init__(self, config: CloudConfig, store: EnrolStore, clock: Callable[[], float] = time.time) -> None:
        self._config, self._store, self._clock = config, store, clock
        self._revision = -1
        self._turn = asyncio.Lock()

    async def look(self) -> None:
        """Read the keys again when one has changed."""
        async with self._turn:
            revision = await self._store.revision()
            if revision == self._revision:
                return
            rows, names = await self._store.keys()
            of: dict[str, list[KeyRow]] = {}
            for row in rows:
                of.setdefault(row.gateway, []).append(row)
            self._config.use({gateway: self._table(gateway, known, names) for gateway, known in of.items()})
            self._revision = revision

    def rows(self, gateway: GatewayTable) -> tuple[KeyRow, ...]:
        """Every key of a gateway, also that of cloud.toml alone."""
        if isinstance(gateway, EnrolledTable):
            return gateway.rows
        return config_rows(gateway)

    async def run(self) -> NoReturn:
        """For ever: what other processes change, and what may be forgotten."""
        tidied_s = float("-inf")
        while True:
            if self._store.shared:
                await self.look()
            if time.monotonic() - tidied_s >= _TIDY_S:
                await self._store.tidy(int(self._clock() * 1000))
                tidied_s = time.monotonic()
            await asyncio.sleep(LOOK_S if self._store.shared else _TIDY_S)

    def _table(self, gateway: str, known: list[KeyRow], names: Mapping[str, tuple[str, str]]) -> GatewayTable:
        about = self._config.in_file(gateway)
        if about is None:
            name, name_en = names.get(gateway, (gateway, gateway))
            about = GatewayTable(id=gateway, name=name or gateway, name_en=name_en or name or gateway)
        kids = {row.kid for row in known}
        rows = [*(row for row in config_rows(about) if row.kid not in kids), *known]
        return EnrolledTable.of(about, tuple(rows), self._clock)


def config_rows(gateway: GatewayTable) -> tuple[KeyRow, ...]:
    """The key that cloud.toml names, as a row."""
    if not gateway.public_key:
        return ()
    kid = key_id(parse_public_key(gateway.public_key))
    return (KeyRow(gateway=gateway.id, kid=kid, key=gateway.public_key, source=CONFIG),)
