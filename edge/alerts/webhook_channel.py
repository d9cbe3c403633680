"""A webhook as a channel: one JSON POST; accepted only when the answer's own success field says so.

    {"key": "…", "msgtype": "text", "text": {"content": "…"}, "title": "…", "person": "…", "priority": 2,
     "resent": false, "test": false, "number": 17, "facts": {…}}

`key` is the same at each attempt: a receiver that has it already drops the message and answers as before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

from .port import ChannelHealth, Fault, Notice, Outcome, Sent
from .robots.robot import words_in
from .robots.texts import words_of
from .verdicts import ACCEPTED, Verdict, said

if TYPE_CHECKING:
    from .robots.http import Answer, Poster

_SECRET_LEAST = 6  # a shorter part of an address is a word, as `send`


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """Where to post, and how the answer says that the message was taken.

    Attributes:
        url: used as it is; it may hold a token.
        success_field, success_value: the whole number of the answer that tells success.
        timeout_s: for one request.
        ca_file: certificates to trust instead of the system's, PEM.
        proxy: `http://[user:password@]host:port` to go through, "" for none.
    """

    url: str = field(repr=False)
    success_field: str = "errcode"
    success_value: int = 0
    timeout_s: float = 10.0
    ca_file: str = ""
    proxy: str = field(default="", repr=False)


class WebhookChannel:
    """Posts messages to one address."""

    def __init__(self, settings: WebhookSettings) -> None:
        self.health = ChannelHealth()
        self._settings = settings
        self._secrets = _secrets(settings.url)
        self._poster: Poster | None = None

    async def __aenter__(self) -> Self:
        from .robots.http import Poster  # an HTTP client: not before it is used

        settings = self._settings
        self._poster = await Poster(
            timeout_s=settings.timeout_s, ca_file=settings.ca_file, proxy=settings.proxy
        ).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._poster is not None:
            await self._poster.__aexit__()

    async def send(self, notice: Notice) -> Sent:
        """One attempt: at most `timeout_s`."""
        assert self._poster is not None, "enter the channel first"
        answer = await self._poster.post(self._settings.url, message(notice))
        return (answer if isinstance(answer, Verdict) else self._judge(answer)).settle(self.health)

    def _judge(self, answer: Answer) -> Verdict:
        from .robots.http import refuse_status

        name, wanted = self._settings.success_field, self._settings.success_value
        if answer.status != 200:
            return refuse_status(answer.status, answer.retry_s)
        found = answer.fields.get(name)
        if type(found) is int and found == wanted:
            return ACCEPTED
        shown = found if isinstance(found, str | int | float | None) else type(found).__name__
        told = f"{name} {shown!r} {words_in(answer.fields, 'errmsg', 'msg')}" if name in answer.fields else f"no {name}"
        return Verdict(
            outcome=Outcome.FAILED,
            said=said(told, self._secrets),
            zh="对方未确认收到：检查地址，以及 success_field 和 success_value",
            en="the receiver does not say that it took it: check the address, success_field and success_value",
            fault=Fault.REFUSING,
        )


def message(notice: Notice) -> dict[str, Any]:
    """The body of a request."""
    return {
        "key": notice.key,
        "msgtype": "text",
        "text": {"content": words_of(notice)},
        "title": notice.title,
        "person": notice.to.person,
        "priority": notice.priority,
        "resent": notice.resent,
        "test": notice.is_test,
        "number": notice.number,
        "facts": dict(notice.facts),
    }


def _secrets(url: str) -> tuple[str, ...]:
    """What of an address may be one: its query, user and password, and long parts of its path."""
    try:
        parts = urlsplit(url)
        values = [value for _, value in parse_qsl(parts.query)]
    except ValueError:
        return (url,)
    path = [step for step in parts.path.split("/") if len(step) >= _SECRET_LEAST]
    return tuple(filter(None, (url, parts.query, *values, parts.username or "", parts.password or "", *path)))
