"""WeCom (企业微信) group robots: https://developer.work.weixin.qq.com/document/path/91770."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import SplitResult, parse_qs, urlencode

from ....words import Instant, now
from ..port import Notice
from ..verdicts import Verdict
from .robot import ADDRESS, BUSY, GONE, MALFORMED, STOPPED, TOO_MUCH, Robot, RobotSettings, number, words_in
from .texts import clean, fit, phones_of, words_of

TEXT_BYTES = 2048
MARKDOWN_BYTES = 4096


class Form(enum.StrEnum):
    """How a message looks. Only a text can mention somebody by phone number; Markdown has room for twice as much."""

    TEXT = "text"
    MARKDOWN = "markdown"


@dataclass(frozen=True, slots=True, kw_only=True)
class WecomSettings(RobotSettings):
    """As every robot. At most 20 messages a minute are allowed."""

    base_url: str = "https://qyapi.weixin.qq.com"
    form: Form = Form.TEXT


class WecomRobot(Robot):
    """Sends to one WeCom group."""

    NAME = "WeCom robot"
    ENDPOINT = "/cgi-bin/webhook/send"
    MEANINGS: ClassVar[Mapping[int, Verdict]] = {
        -1: BUSY,
        40008: MALFORMED,  # msgtype
        40058: MALFORMED,  # a parameter: also a text that is too long
        44004: MALFORMED,  # empty
        45002: MALFORMED,  # too long
        45009: TOO_MUCH,
        45033: TOO_MUCH,
        60020: ADDRESS,
        93000: GONE,
        93004: STOPPED,
        93008: STOPPED,
    }

    def __init__(self, settings: WecomSettings, clock: Callable[[], Instant] = now) -> None:
        self._form = settings.form
        super().__init__(settings, clock=clock)

    def _token(self, address: SplitResult) -> str:
        return parse_qs(address.query).get("key", [""])[0]

    def _url_of(self, endpoint: str, token: str) -> str:
        return f"{endpoint}?{urlencode({'key': token})}"

    def _request(self, notice: Notice, at: Instant) -> tuple[str, dict[str, Any]]:
        del at
        text, lang = words_of(notice), notice.to.lang
        if self._form is Form.MARKDOWN:
            title = " ".join(clean(notice.title).split())
            content = fit(f"**{title}**\n{text}".replace("<", "＜"), MARKDOWN_BYTES, lang)
            return self._url, {"msgtype": "markdown", "markdown": {"content": content}}
        body: dict[str, Any] = {"content": fit(text, TEXT_BYTES, lang)}
        if phones := phones_of(notice):
            body["mentioned_mobile_list"] = phones
        return self._url, {"msgtype": "text", "text": body}

    def _code(self, fields: Mapping[str, Any]) -> tuple[int | None, str]:
        return number(fields, "errcode"), words_in(fields, "errmsg")
