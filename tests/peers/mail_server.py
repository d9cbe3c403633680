"""A mail server on 127.0.0.1 (aiosmtpd) that can be told to refuse, to hang and to know less than others."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER = "alarms@example.com"
PASSWORD = "code of the mailbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """What was taken."""

    sender: str
    recipient: str
    options: tuple[str, ...]
    raw: bytes
    user: str
    is_encrypted: bool


class MailServer:
    """`port` while it runs.

    Attributes:
        refuse: by step (greeting, EHLO, MAIL, RCPT, DATA, QUIT, AUTH): the answer, or what makes one of the address.
        hang: the step that is never answered.
        slow_s: every step takes so long.
        cut: the step at which the connection is closed.
        without: extensions that are not offered.
        needs_auth: nothing is taken from who has not signed in.
        offers: ways to sign in.
        tried: names and methods of every attempt to sign in.
        hello: what clients called themselves.
        connections, now, most_at_once: how many there were, are, and were at one moment.
    """

    def __init__(self) -> None:
        self.port = 0
        self.taken: list[Mail] = []
        self.refuse: dict[str, str | Callable[[str], str]] = {}
        self.hang = ""
        self.slow_s = 0.0
        self.cut = ""
        self.without: set[str] = set()
        self.needs_auth = False
        self.offers: tuple[str, ...] = ("PLAIN", "LOGIN")
        self.tried: list[tuple[str, str]] = []
        self.hello: list[str] = []
        self.connections = 0
        self.now = 0
        self.most_at_once = 0
        self._over = asyncio.Event()

    @asynccontextmanager
    async def running(
        self, port: int = 0, *, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None
    ) -> AsyncIterator[MailServer]:
        """`tls` from the first byte, or `starttls` when it is asked for; both None: in the clear."""
        made: list[_Smtp] = []

        def make() -> SMTP:
            made.append(_Smtp(self, starttls))
            return made[-1]

        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        self._over.clear()
        try:
            yield self
        finally:
            self._over.set()
            server.close()
            for each in made:
                if each.transport is not None:
                    each.transport.close()

    def go_on(self) -> None:
        """Nothing hangs any more."""
        self.hang = ""
        self._over.set()

    async def answer(self, step: str, about: str = "") -> str | None:
        """What the owner wants said at this step; None: nothing special."""
        await asyncio.sleep(self.slow_s)
        if self.hang == step:
            await self._over.wait()
        refusal = self.refuse.get(step)
        return refusal(about) if callable(refusal) else refusal


class _Smtp(SMTP):
    """One connection."""

    def __init__(self, owner: MailServer, starttls: ssl.SSLContext | None) -> None:
        self._owner = owner
        super().__init__(
            _Handler(owner),
            hostname="mail.test",
            tls_context=starttls,
            auth_require_tls=False,
            authenticator=self._sign_in,
            auth_exclude_mechanism=[name for name in ("PLAIN", "LOGIN") if name not in owner.offers],
            loop=asyncio.get_running_loop(),
        )

    def _sign_in(self, _: SMTP, __: Session, ___: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self._owner.tried.append((mechanism, data.login.decode()))
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        refusal = self._owner.refuse.get("AUTH")
        message = refusal if isinstance(refusal, str) else None
        return AuthResult(success=good and not message, handled=False, message=message, auth_data=data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.transport is None:
            self._owner.connections += 1
            self._owner.now += 1
            self._owner.most_at_once = max(self._owner.most_at_once, self._owner.now)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.now -= 1
        super().connection_lost(error)

    async def push(self, status: Any) -> None:
        words = status if isinstance(status, bytes) else status.encode()
        if words.startswith(b"220 mail.test"):
            special = await self._owner.answer("greeting")
            words = special.encode() if special else words
        await super().push(words)


class _Handler:
    def __init__(self, owner: MailServer) -> None:
        self._owner = owner
        if "CRAM-MD5" in owner.offers:
            self.auth_CRAM__MD5 = self._cram_md5

    async def _step(self, server: SMTP, step: str, about: str = "") -> str | None:
        if self._owner.cut == step:
            assert server.transport is not None
            server.transport.close()
        return await self._owner.answer(step, about)

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, _: Envelope, hostname: str, answers: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self._owner.hello.append(hostname)
        if special := await self._step(server, "EHLO"):
            return [special]
        kept = [line for line in answers if not any(line[4:].startswith(name) for name in self._owner.without)]
        return [*(f"250-{line[4:]}" for line in kept[:-1]), f"250 {kept[-1][4:]}"]

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if special := await self._step(server, "MAIL", address):
            return special
        if self._owner.needs_auth and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _: Session, envelope: Envelope, address: str, __: list[str]
    ) -> str:
        if special := await self._step(server, "RCPT", address):
            return special
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if special := await self._step(server, "DATA", envelope.rcpt_tos[0]):
            return special
        content = envelope.original_content
        assert content is not None
        assert server.transport is not None
        self._owner.taken.append(
            Mail(
                sender=str(envelope.mail_from),
                recipient=", ".join(envelope.rcpt_tos),
                options=tuple(envelope.mail_options),
                raw=content,
                user=session.auth_data.login.decode() if isinstance(session.auth_data, LoginPassword) else "",
                is_encrypted=server.transport.get_extra_info("sslcontext") is not None,
            )
        )
        return "250 2.0.0 OK: queued as 17"

    async def handle_QUIT(self, server: SMTP, _: Session, __: Envelope) -> str:  # noqa: N802
        return await self._step(server, "QUIT") or "221 Bye"

    async def _cram_md5(self, server: SMTP, _: list[str]) -> AuthResult:
        challenge = b"<1.2@mail.test>"
        answer = await server.challenge_auth(challenge)
        assert isinstance(answer, bytes)
        name, digest = answer.decode().rsplit(" ", 1)
        self._owner.tried.append(("CRAM-MD5", name))
        right = hmac.new(PASSWORD.encode(), challenge, hashlib.md5).hexdigest()
        data = LoginPassword(name.encode(), b"")
        return AuthResult(success=name == USER and digest == right, handled=False, auth_data=data)


def server_context(folder: Path) -> ssl.SSLContext:
    """With the certificate that `make_certificates` has put there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context
