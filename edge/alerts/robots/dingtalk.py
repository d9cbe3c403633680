"""DingTalk (钉钉) group robots: https://open.dingtalk.com/document/robots/custom-robot-access."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import SplitResult, parse_qs, quote, urlencode

from ....words import Instant, now
from ..port import Fault, Notice, Outcome
from ..verdicts import Verdict
from .robot import (
    ADDRESS,
    BUSY,
    CLOCK,
    CONTENT,
    GONE,
    KEYWORD,
    MALFORMED,
    SECRET,
    SIGNATURE,
    STOPPED,
    Robot,
    RobotSettings,
    failed,
    number,
    too_much,
    words_in,
    wrong_clock,
)
from .texts import as_json, fit_with, in_json, phones_of, words_of

if TYPE_CHECKING:
    from .http import Answer

BODY_BYTES = 20_000
BLOCK_S = 600.0
_SECURITY = 310000
_WAIT_MOST_S = 600.0
_BLOCKED = replace(
    too_much(
        "发送太频繁，机器人被限流十分钟",
        "more than 20 messages a minute: DingTalk blocks the robot for ten minutes",
        BLOCK_S,
    ),
    fault=Fault.REFUSING,
    hold_s=BLOCK_S,
)
_UNSAFE = failed(
    "机器人安全设置不符：核对关键词、加签密钥和 IP 白名单",
    "the robot's security settings refuse it: check its keyword, secret and list of IPs",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DingtalkSettings(RobotSettings):
    """As every robot. More than 20 messages a minute block it for ten.

    Attributes:
        secret: of the security setting 加签, begins with SEC; empty without it.
        keyword: of the security setting 自定义关键词: added to a message that does not hold it; empty without it.
    """

    base_url: str = "https://oapi.dingtalk.com"
    secret: str = field(default="", repr=False)
    keyword: str = ""


class DingtalkRobot(Robot):
    """Sends to one DingTalk group."""

    NAME = "DingTalk robot"
    ENDPOINT = "/robot/send"
    MEANINGS: ClassVar[Mapping[int, Verdict]] = {
        -1: BUSY,
        40035: MALFORMED,
        43004: MALFORMED,
        130101: _BLOCKED,
        300001: GONE,
        300005: GONE,
        _SECURITY: _UNSAFE,  # its words say more
        400013: STOPPED,  # the group was dissolved
        400101: GONE,
        400102: STOPPED,
        400105: MALFORMED,
        400106: GONE,
        410100: _BLOCKED,
        430101: CONTENT,
        430102: CONTENT,
        430103: CONTENT,
        430104: CONTENT,
        460101: MALFORMED,  # too long
    }

    def __init__(self, settings: DingtalkSettings, clock: Callable[[], Instant] = now) -> None:
        self._secret = settings.secret.strip()
        self._keyword = settings.keyword.strip()
        super().__init__(settings, secret=self._secret, clock=clock)

    def _token(self, address: SplitResult) -> str:
        return parse_qs(address.query).get("access_token", [""])[0]

    def _url_of(self, endpoint: str, token: str) -> str:
        return f"{endpoint}?{urlencode({'access_token': token})}"

    def _request(self, notice: Notice, at: Instant) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {"msgtype": "text", "text": {"content": ""}}
        if phones := phones_of(notice):
            body["at"] = {"atMobiles": phones, "isAtAll": False}
        room = BODY_BYTES - len(as_json(body))
        body["text"]["content"] = fit_with(words_of(notice), room, notice.to.lang, keyword=self._keyword, size=in_json)
        return self._url + (f"&{signature(at.utc_ms, self._secret)}" if self._secret else ""), body

    def _code(self, fields: Mapping[str, Any]) -> tuple[int | None, str]:
        return number(fields, "errcode"), words_in(fields, "errmsg")

    def _meaning(self, code: int, words: str, late_s: float | None) -> Verdict:
        if code != _SECURITY:
            return super()._meaning(code, words, late_s)
        if re.search(r"timestamp|sign|签名|时间戳", words, re.IGNORECASE):
            if clock := wrong_clock(late_s):
                return clock
            if re.search(r"invalid timestamp|签名过期|timestampms", words, re.IGNORECASE):
                return CLOCK
            return SIGNATURE if late_s is None else SECRET
        if re.search(r"keyword|关键词", words, re.IGNORECASE):
            return KEYWORD
        if re.search(r"\bip\b|来源IP|白名单|whitelist", words, re.IGNORECASE):
            return ADDRESS
        return super()._meaning(code, words, late_s)

    def _without_code(self, answer: Answer) -> Verdict | None:
        """The gateway before the robots refuses in a shape of its own: `{"status":1111,"wait":5,"punish":"deny"}`."""
        if "punish" not in answer.fields:
            return None
        wait_s = number(answer.fields, "wait") or 0
        return Verdict(
            outcome=Outcome.LATER,
            zh="钉钉网关限流，稍后再发",
            en="DingTalk's gateway takes no more now; sent again later",
            retry_s=min(max(5.0, wait_s), _WAIT_MOST_S),
        )


def signature(utc_ms: int, secret: str) -> str:
    """`timestamp=…&sign=…` of the address: HMAC-SHA256 keyed by the secret, base64, URL-encoded once."""
    digest = hmac.new(secret.encode(), f"{utc_ms}\n{secret}".encode(), hashlib.sha256).digest()
    return f"timestamp={utc_ms}&sign={quote(base64.b64encode(digest), safe='')}"
