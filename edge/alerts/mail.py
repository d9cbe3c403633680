"""E-mail: each notice is a message of its own, in a conversation of its own: each receiver has a verdict of his.

A mail server that took a message has not delivered it; whatever bounces later, nobody here hears of it.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ...errors import ConfigError
from ...words import Instant, now
from ..loopback import is_loopback
from .budget import WINDOW_S, Budget, is_escalation
from .mail_message import compose, is_mailbox
from .mail_verdicts import (
    PLAIN,
    UNKNOWN_ADDRESS,
    ConnectionFailedError,
    RefusalError,
    Security,
    judge,
    judge_connection,
    taken,
)
from .port import ChannelHealth, Fault, Notice, Outcome, Receiver, Sent
from .threads import Names, apart
from .verdicts import Verdict, later, said

if TYPE_CHECKING:
    from .smtp import Server

__all__ = ["Mail", "MailSettings", "Security"]

_AT_ONCE = 3
_PORTS = {Security.TLS: 465, Security.STARTTLS: 587, Security.PLAIN: 25, Security.PLAIN_ANYWHERE: 25}
_NO_ADDRESS = replace(
    UNKNOWN_ADDRESS,
    zh="此人没有可用的邮件地址：在人员名单里填写",
    en="this person has no usable e-mail address: put one into the list of people",
    fault=None,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSettings:
    """One mailbox to send from.

    Attributes:
        host, port: of the provider's SMTP server; port 0 is 465, 587 or 25, as `security` has it.
        username, password: an authorization code (授权码) with many providers; without a name nobody signs in.
        sender: address that the messages come from, most often the user name. sender_name: shown before it.
        ca_file: certificates to trust instead of the system's, PEM.
        per_min: messages in a minute.
        timeout_s: for one message.
    """

    host: str
    sender: str
    port: int = 0
    security: Security = Security.TLS
    username: str = ""
    password: str = field(default="", repr=False)
    sender_name: str = "岗哨 Sitewarden"
    ca_file: str = ""
    per_min: int = 30
    timeout_s: float = 30.0


class Mail:
    """Sends e-mail. `health.facts`: `left`, what is left of the budget; `zh` and `en`, the fault in words.

    Raises ConfigError, with all problems, when the settings cannot work.
    """

    def __init__(self, settings: MailSettings, clock: Callable[[], Instant] = now) -> None:
        if problems := _problems(settings):
            raise ConfigError("e-mail", problems)
        self.health = ChannelHealth()
        self._settings = settings
        self._clock = clock
        self._held: tuple[float, Verdict] | None = None
        self._names = Names()
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._trusted: ssl.SSLContext | None = None
        self._sender = Receiver(name=settings.sender_name, email=settings.sender)
        name, password = settings.username, settings.password
        self._secrets = (password, base64.b64encode(f"\0{name}\0{password}".encode()).decode() if password else "")
        self._budget = Budget(limit=settings.per_min, window_s=WINDOW_S + settings.timeout_s, born_s=clock().mono_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def send(self, notice: Notice) -> Sent:
        """One attempt: at most twice `timeout_s` and a few seconds."""
        return (await self._attempt(notice)).settle(self.health)

    async def _attempt(self, notice: Notice) -> Verdict:
        to = replace(notice.to, email=notice.to.email.strip())
        if not is_mailbox(to.email):
            return _NO_ADDRESS
        at = self._clock()
        if held := self._still_held(at.mono_s):
            return held
        wait_s = self._budget.take(notice.priority, is_escalation(notice), at.mono_s)
        self.health.facts["left"] = self._budget.left(at.mono_s)
        if wait_s:
            return later(wait_s)
        message = compose(replace(notice, to=to), sender=self._sender, utc_ms=at.utc_ms)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._free.acquire()
        except TimeoutError:
            return later(self._settings.timeout_s)
        try:
            verdict = self._still_held(at.mono_s) or await self._deliver(to.email, message)
        finally:
            self._free.release()
        if verdict.hold_s:
            self._held = (at.mono_s + verdict.hold_s, verdict)
        return verdict

    def _still_held(self, now_s: float) -> Verdict | None:
        """The refusal that nobody is asked again for so soon."""
        if self._held is None or now_s >= self._held[0]:
            return None
        until_s, verdict = self._held
        return replace(verdict, hold_s=0.0, retry_s=until_s - now_s)

    async def _deliver(self, recipient: str, message: bytes) -> Verdict:
        from .smtp import deliver  # a mail client: not before it is used

        secrets = (*self._secrets, recipient)
        try:
            words = await deliver(await self._server(), self._settings.sender, recipient, message)
            return taken(said(words, secrets, 80))
        except _CaFileError as error:
            return error.verdict
        except RefusalError as error:
            return replace(judge(error), said=said(f"{error.step} {error.code} {error.words}", secrets))
        except ConnectionFailedError as error:
            return replace(judge_connection(error), said=said(f"{error.step} {error.words}", secrets))

    async def _server(self) -> Server:
        from .smtp import Server

        settings = self._settings
        if settings.security not in PLAIN and self._trusted is None:
            try:  # reading the certificates takes a while on a small machine
                made = await apart(lambda: ssl.create_default_context(cafile=settings.ca_file or None))
            except (OSError, ValueError):
                raise _CaFileError(settings.ca_file) from None
            self._trusted = made
        return Server(
            host=settings.host,
            port=settings.port or _PORTS[settings.security],
            security=settings.security,
            trusted=self._trusted,
            username=settings.username,
            password=settings.password,
            timeout_s=settings.timeout_s,
            names=self._names,
        )


class _CaFileError(Exception):
    """The file with the certificates cannot be used."""

    def __init__(self, ca_file: str) -> None:
        name = Path(ca_file).name  # the whole path may leave no room for what is wrong
        zh, en = f"证书文件 {name} 无法使用", f"the certificates in {name} cannot be used"
        self.verdict = Verdict(outcome=Outcome.FAILED, said="TLS", zh=zh, en=en, fault=Fault.REFUSING)


def _problems(settings: MailSettings) -> list[str]:
    problems: list[str] = []
    host = settings.host
    if not host or not host.isprintable() or any(char.isspace() for char in host):
        problems.append("host: must be the name or address of the mail server")
    elif settings.security is Security.PLAIN and not is_loopback(host):
        problems.append('security: "plain" is for a server on this machine; choose "tls" or "starttls"')
    if not 0 <= settings.port <= 65535:
        problems.append(f"port: must be 0..65535 (got {settings.port})")
    if not is_mailbox(settings.sender):
        problems.append("sender: must be an e-mail address, as alarms@example.com")
    if settings.per_min < 1:
        problems.append(f"per_min: must be at least 1 (got {settings.per_min})")
    if settings.password and not settings.username:
        problems.append("username: is required beside a password")
    return problems
