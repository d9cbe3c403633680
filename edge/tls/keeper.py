"""Which certificate the pages are served with now: the public chain while it is good, else the leaf of the local CA.

It is looked at again every minute, and what a command has installed is taken up within seconds. Each connection asks
for the context when it begins: another certificate ends no connection.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from ...errors import PermanentError
from .authority import Held, make_authority, make_leaf, permits_address, read_held, why_new_leaf
from .chain import context_of, covers
from .folder import AUTHORITY, LEAF, PUBLIC, TlsFolder
from .names import Names

_log = logging.getLogger(__name__)

WARN_DAYS = 21
"""A chain that ends sooner is a fault: somebody must fetch another one. The limit of `system.certificate`, too."""
_FILES_EVERY_S = 2.0
_LOOK_EVERY = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What new connections get.

    Attributes:
        pem: key and chain.
        is_public: browsers trust it without the local CA.
    """

    pem: bytes
    cert: x509.Certificate
    is_public: bool


def utc_now() -> datetime:
    """What the wall clock says."""
    return datetime.now(UTC)


class Keeper:
    """Args: folder: of the files. names: as [https] says. label: of the site. clock: the wall clock.

    Attributes:
        problem: why nothing new could be made or loaded; empty when all went well.
        passed_over: why the public chain that is installed is not served; empty when it is, or there is none.
    """

    def __init__(self, folder: TlsFolder, names: Names, label: str, clock: Callable[[], datetime] = utc_now) -> None:
        self.folder, self.names = folder, names
        self.problem = self.passed_over = ""
        self.served: Served | None = None
        self.authority: x509.Certificate | None = None
        self.label, self._clock = label, clock
        self._context: ssl.SSLContext | None = None
        self._told: set[str] = set()
        self._seen: object = None

    def context(self) -> ssl.SSLContext | None:
        """For a connection that begins now; None while there is no certificate."""
        return self._context

    def look(self) -> None:
        """Make, renew and load what is due. What was served goes on where that fails, and `problem` says why."""
        try:
            with self.folder.locked():
                found = self._choose()
                self._seen = self.folder.signature()
            if self.served is None or found.pem != self.served.pem:
                self._context = context_of(found.pem)
                _log.info("https: pages are served as %s, %s", self.names.host, _describe(found))
            self.served, self.problem = found, ""
            left = self.days_left()
            if left is not None and left < WARN_DAYS:
                self._tell(f"https: {_describe(found)}: less than {WARN_DAYS} days are left (sitewarden tls --help)")
        except (PermanentError, ssl.SSLError, OSError, ValueError) as error:
            self._tell(f"https: {error}")
            self.problem = str(error)

    async def run(self) -> None:
        """For ever."""
        count = 0
        while True:
            await asyncio.sleep(_FILES_EVERY_S)
            count += 1
            if count % _LOOK_EVERY == 0 or self.folder.signature() != self._seen:
                await asyncio.to_thread(self.look)

    def days_left(self) -> float | None:
        """Of the chain that is served; of the local CA where that ends sooner. None: nothing is served."""
        if self.served is None:
            return None
        ends = [self.served.cert.not_valid_after_utc]
        if not self.served.is_public and self.authority is not None:
            ends.append(self.authority.not_valid_after_utc)
        return (min(ends) - self._clock()).total_seconds() / 86400

    def _choose(self) -> Served:
        """The public chain is looked at first; the local CA is kept ready beside it."""
        self.passed_over = ""
        now, public = self._clock(), self._public()
        authority = self._authority(now, needed=public is None)
        self.authority = authority.cert if authority is not None else None
        is_good = public is not None and now < public.cert.not_valid_after_utc
        if public is not None and (is_good or authority is None):
            return public
        assert authority is not None
        if public is not None:
            self._pass_over(f"the installed chain ended on {public.cert.not_valid_after_utc:%Y-%m-%d}")
        leaf = self._leaf(authority, now)
        return Served(pem=leaf.to_pem(), cert=leaf.cert, is_public=False)

    def _public(self) -> Served | None:
        pem = self.folder.read(PUBLIC)
        if pem is None:
            return None
        try:
            cert = x509.load_pem_x509_certificates(pem)[0]
            context_of(pem)
        except (ValueError, ssl.SSLError) as error:
            self._pass_over(f"{self.folder.path / PUBLIC} cannot be used: {error}; install the chain again")
            return None
        if not covers(cert, self.names.host):
            self._pass_over(f"the installed chain is not for {self.names.host}: install another one")
            return None
        return Served(pem=pem, cert=cert, is_public=True)

    def _authority(self, now: datetime, *, needed: bool) -> Held | None:
        pem = self.folder.read(AUTHORITY)
        if pem is not None:
            return read_held(pem, str(self.folder.path / AUTHORITY))
        try:
            made = make_authority(self.names, self.label, now)
        except PermanentError:
            if needed:
                raise
            return None
        self.folder.write(AUTHORITY, made.to_pem())
        return made

    def _leaf(self, authority: Held, now: datetime) -> Held:
        pem, leaf = self.folder.read(LEAF), None
        if pem is not None:
            try:
                leaf = read_held(pem, LEAF)
            except PermanentError as error:
                self._tell(f"https: {error.message}: it is made again")
        for address in self.names.addresses:
            if not permits_address(authority.cert, address):
                self._tell(f"https: the local CA is not for {address}: sitewarden tls make --new-ca")
        why = why_new_leaf(leaf, authority, self.names, now)
        if not why and leaf is not None:
            return leaf
        try:
            made = make_leaf(authority, self.names, now)
        except PermanentError as error:
            if leaf is None:
                raise
            self._tell(f"https: {error}")  # what there is goes on: a phone's clock may be right
            return leaf
        self.folder.write(LEAF, made.to_pem())
        _log.info("https: a new certificate: %s", why)
        return made

    def _pass_over(self, why: str) -> None:
        self.passed_over = why
        self._tell(f"https: {why}")

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s", what)


def _describe(served: Served) -> str:
    kind = "public chain" if served.is_public else "local CA"
    return f"{kind}, until {served.cert.not_valid_after_utc:%Y-%m-%d}"
