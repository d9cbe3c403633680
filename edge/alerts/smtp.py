"""One message in one SMTP conversation (RFC 5321). The only file that imports aiosmtplib: import it late.

What the server refuses is raised with the step it refused and its own words; what the connection does, by its kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass, field

import aiosmtplib
from aiosmtplib import SMTP

from .mail_verdicts import PLAIN, ConnectionFailedError, RefusalError, Security, Step, Why
from .threads import Names

_QUIT_S = 2.0
_NOT_SMTP = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where to send, and as whom. `trusted`: None only without encryption."""

    host: str
    port: int
    security: Security
    trusted: ssl.SSLContext | None
    username: str
    password: str = field(repr=False)
    timeout_s: float
    names: Names


async def deliver(server: Server, sender: str, recipient: str, message: bytes) -> str:
    """Send `message` to one mailbox; what the server said when it took it.

    At most `timeout_s` and a little. Raises RefusalError, ConnectionFailedError.
    """
    talk = _Talk(server)
    try:
        async with asyncio.timeout(server.timeout_s):
            return await talk.send(sender, recipient, message)
    except aiosmtplib.SMTPResponseException as error:
        if error.code == _NOT_SMTP:
            raise ConnectionFailedError(talk.step, Why.NOT_SMTP) from None
        raise RefusalError(talk.step, error.code, error.message) from None
    except TimeoutError:
        why = Why.NO_CONNECTION if talk.step is Step.CONNECT else Why.SILENT
        raise ConnectionFailedError(talk.step, why) from None
    except (aiosmtplib.SMTPException, OSError, UnicodeError) as error:
        raise _failed(talk.step, error) from None
    finally:
        await talk.close()


class _Talk:
    """A conversation; `step` is how far it has come."""

    def __init__(self, server: Server) -> None:
        self.step = Step.CONNECT
        self._server = server
        self._smtp = SMTP(
            hostname=server.host,
            timeout=2 * server.timeout_s,  # the limit of the whole conversation comes first
            use_tls=server.security is Security.TLS,
            start_tls=False,
            tls_context=server.trusted,
            local_hostname=_own_name(),
        )
        self._is_done = False

    async def send(self, sender: str, recipient: str, message: bytes) -> str:
        sock = await _connect(self._server)
        self.step = Step.HELLO
        await self._smtp.connect(sock=sock)  # closes it, whatever happens
        await self._hello()
        if self._server.security is Security.STARTTLS:
            await self._encrypt()
        if self._server.username:
            await self._sign_in()
        self.step = Step.SENDER
        await self._smtp.mail(sender)
        self.step = Step.RECIPIENT
        await self._smtp.rcpt(recipient)
        self.step = Step.DATA
        answer = await self._smtp.data(message)
        self._is_done = True
        return answer.message

    async def close(self) -> None:
        """Say goodbye where it was taken; whatever the server answers changes nothing."""
        with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
            if self._is_done:
                async with asyncio.timeout(_QUIT_S):
                    await self._smtp.quit()
        self._smtp.close()

    async def _hello(self) -> None:
        try:
            await self._smtp.ehlo()
        except aiosmtplib.SMTPHeloError:
            if not self._smtp.is_connected:
                raise
            await self._smtp.helo()

    async def _encrypt(self) -> None:
        self.step = Step.STARTTLS
        if not self._smtp.supports_extension("starttls"):
            raise ConnectionFailedError(self.step, Why.NO_STARTTLS)
        await self._smtp.starttls(server_hostname=self._server.host)
        self.step = Step.HELLO
        await self._hello()

    async def _sign_in(self) -> None:
        """One method, once: a password that is tried three times each minute locks an account."""
        self.step = Step.AUTH
        offered, name, password = self._smtp.server_auth_methods, self._server.username, self._server.password
        is_plain = self._server.security in PLAIN
        if "cram-md5" in offered and (is_plain or not {"plain", "login"} & set(offered)):
            await self._smtp.auth_crammd5(name, password)
        elif "plain" in offered:
            await self._smtp.auth_plain(name, password)
        elif "login" in offered:
            await self._smtp.auth_login(name, password)
        else:
            raise ConnectionFailedError(self.step, Why.NO_AUTH)


async def _connect(server: Server) -> socket.socket:
    """A connection to the first address of the host that takes one; each has its share of the time."""
    loop = asyncio.get_running_loop()
    places = await server.names.find(server.host, server.port)
    failure: Exception = OSError("no address")
    for family, kind, protocol, _, address in places:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(server.timeout_s / len(places)):
                await loop.sock_connect(sock, address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):  # TimeoutError is one
                raise
            failure = error
        else:
            return sock
    raise failure


def _failed(step: Step, error: BaseException) -> ConnectionFailedError:
    """Why, from the error and what caused it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            words = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else cause.reason
            return ConnectionFailedError(step, Why.TLS, words or "")
        if isinstance(cause, socket.gaierror | UnicodeError):
            return ConnectionFailedError(step, Why.NO_NAME)
        cause = cause.__cause__
    return ConnectionFailedError(step, Why.NO_CONNECTION if step is Step.CONNECT else Why.BROKEN)


def _own_name() -> str:
    """What we call ourselves: this machine's full name where it has one, else an address (RFC 5321 §4.1.4)."""
    name = socket.gethostname()
    return name if name.isascii() and "." in name.strip(".") and not name.endswith(".local") else "[127.0.0.1]"
