"""Feishu (飞书) and Lark group robots: https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import SplitResult, quote

from ....words import Instant, now
from ..budget import Budget
from ..port import Notice
from ..verdicts import Verdict
from .robot import (
    ADDRESS,
    GONE,
    KEYWORD,
    MALFORMED,
    SECRET,
    SIGNATURE,
    Robot,
    RobotSettings,
    number,
    too_much,
    words_in,
    wrong_clock,
)
from .texts import as_json, clean, fit_with, in_json, mentioned, words_of

BODY_BYTES = 20_000
PER_SECOND = 4  # of 5
_NAME = 30
_SIGNATURE = 19021
_MALFORMED = 9499
_TOO_MUCH = too_much(
    "飞书限流（整点和半点最常见），稍后再发", "Feishu takes no more now, as at full hours; sent again later", 10.0
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeishuSettings(RobotSettings):
    """As every robot. 100 messages a minute are allowed, and 5 a second. Lark: `base_url` https://open.larksuite.com.

    Attributes:
        secret: of the security setting 签名校验; empty without it.
        keyword: of the security setting 自定义关键词: added to a message that does not hold it; empty without it.
        open_ids: by person: whom to mention. This robot knows nobody by phone number.
    """

    base_url: str = "https://open.feishu.cn"
    per_min: int = 90
    secret: str = field(default="", repr=False)
    keyword: str = ""
    open_ids: Mapping[str, str] = field(default_factory=dict[str, str])


class FeishuRobot(Robot):
    """Sends to one Feishu group."""

    NAME = "Feishu robot"
    ENDPOINT = "/open-apis/bot/v2/hook"
    MEANINGS: ClassVar[Mapping[int, Verdict]] = {
        9499: MALFORMED,
        11232: _TOO_MUCH,
        19001: GONE,
        19002: MALFORMED,
        _SIGNATURE: SIGNATURE,  # the clocks say more
        19022: ADDRESS,
        19024: KEYWORD,
    }

    def __init__(self, settings: FeishuSettings, clock: Callable[[], Instant] = now) -> None:
        self._secret = settings.secret.strip()
        self._keyword = settings.keyword.strip()
        self._open_ids = settings.open_ids
        super().__init__(settings, secret=self._secret, clock=clock)

    def _make_budgets(self, settings: RobotSettings, born_s: float) -> Sequence[Budget]:
        second = Budget(limit=PER_SECOND, window_s=1.0, urgent=0, ladder=0, born_s=born_s)
        return (*super()._make_budgets(settings, born_s), second)

    def _token(self, address: SplitResult) -> str:
        return address.path.partition(f"{self.ENDPOINT}/")[2].strip("/")

    def _url_of(self, endpoint: str, token: str) -> str:
        return f"{endpoint}/{quote(token, safe='')}"

    def _request(self, notice: Notice, at: Instant) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {"msg_type": "text", "content": {"text": ""}}
        if self._secret:
            timestamp = at.utc_ms // 1000
            body |= {"timestamp": str(timestamp), "sign": signature(timestamp, self._secret)}
        body["content"]["text"] = fit_with(
            _harmless(words_of(notice)),
            BODY_BYTES - len(as_json(body)),
            notice.to.lang,
            end=self._mentions(notice),
            keyword=self._keyword,
            size=in_json,
        )
        return self._url, body

    def _mentions(self, notice: Notice) -> str:
        known = ((self._open_ids.get(person.person), person.name) for person in mentioned(notice))
        shown = (
            f' <at user_id="{open_id}">{_harmless(clean(name))[:_NAME]}</at>' for open_id, name in known if open_id
        )
        return "".join(shown)

    def _code(self, fields: Mapping[str, Any]) -> tuple[int | None, str]:
        """`code` and `msg`; older ones say `StatusCode` and `StatusMessage`. Where both are there, both count."""
        codes = [number(fields, name) for name in ("code", "StatusCode") if name in fields]
        code = None if None in codes or not codes else next((code for code in codes if code), 0)
        return code, words_in(fields, "msg", "StatusMessage")

    def _meaning(self, code: int, words: str, late_s: float | None) -> Verdict:
        if code == _SIGNATURE and late_s is not None:
            return wrong_clock(late_s) or SECRET
        if code == _MALFORMED and "too many" in words.lower():
            return _TOO_MUCH
        return super()._meaning(code, words, late_s)


def signature(timestamp_s: int, secret: str) -> str:
    """HMAC-SHA256 of nothing, keyed by `timestamp` newline `secret`, in base64."""
    return base64.b64encode(hmac.digest(f"{timestamp_s}\n{secret}".encode(), b"", "sha256")).decode()


def _harmless(text: str) -> str:
    """A name cannot mention everybody: `<` opens a tag."""
    return text.replace("<", "＜")
