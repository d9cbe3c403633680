"""What the group robots share: an address with a token, a budget, one POST, and refusals that come with HTTP 200."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import SplitResult, urlsplit

from ....errors import ConfigError
from ....words import Instant, now
from ...addresses import is_here
from ..budget import LIMIT, WINDOW_S, Budget, is_escalation, take_all
from ..port import ChannelHealth, Fault, Notice, Outcome, Sent
from ..verdicts import ACCEPTED, Verdict, later, said
from .texts import national, phones_of

if TYPE_CHECKING:
    from .http import Answer, Poster

_TOO_MUCH = re.compile(r"too (fast|many|frequent)|freq|rate.?limit|限流|限频|太快|频繁|过快", re.IGNORECASE)
_TOKEN = re.compile(r"[\w.~-]+", re.ASCII)
_RATE_S = 60.0
_HOUR_S = 3600.0
_DATE_DOUBT_S = 300.0  # a request and its answer are not of one moment


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotSettings:
    """One robot of one group.

    Attributes:
        key: what the robot's webhook address ends in, or the whole address as the chat program shows it.
        base_url: where `key` is not a whole address: `https://host[:port]`; plain http only to this machine.
        per_min: messages in a minute; what the chat system allows, less what other senders of this robot use.
        timeout_s: for one request.
        ca_file: certificates to trust instead of the system's, PEM.
        proxy: `http://[user:password@]host:port` to go through, "" for none.
    """

    key: str = field(repr=False)
    base_url: str = ""
    per_min: int = LIMIT
    timeout_s: float = 10.0
    ca_file: str = ""
    proxy: str = field(default="", repr=False)


class Robot(ABC):
    """A group robot. `health.facts`: `left`, what is left of the budget; `zh` and `en`, the fault in words.

    Args:
        settings: of the kind.
        clock: both clocks; signatures are dated with the first.

    Raises ConfigError when the settings cannot work.
    """

    NAME: ClassVar[str]
    ENDPOINT: ClassVar[str]
    MEANINGS: ClassVar[Mapping[int, Verdict]]

    def __init__(self, settings: RobotSettings, *, secret: str = "", clock: Callable[[], Instant] = now) -> None:
        self.health = ChannelHealth()
        self._timeout_s = settings.timeout_s
        self._ca_file, self._proxy = settings.ca_file, settings.proxy
        self._clock = clock
        self._url, token = self._address(settings)
        self._secrets = (settings.key.strip(), self._url, token, secret)
        born_s = clock().mono_s
        try:
            self._budgets = self._make_budgets(settings, born_s)
        except ValueError as error:
            raise ConfigError(self.NAME, [f"per_min: must be at least 1 (got {settings.per_min})"]) from error
        self._held_until_s = born_s
        self._eased_until_s = born_s
        self._poster: Poster | None = None

    async def __aenter__(self) -> Self:
        from .http import Poster  # an HTTP client: not before it is used

        self._poster = await Poster(timeout_s=self._timeout_s, ca_file=self._ca_file, proxy=self._proxy).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._poster is not None:
            await self._poster.__aexit__()

    async def send(self, notice: Notice) -> Sent:
        """One attempt: at most `timeout_s`."""
        return (await self._attempt(notice)).settle(self.health)

    async def _attempt(self, notice: Notice) -> Verdict:
        assert self._poster is not None, "enter the channel first"
        at = self._clock()
        wait_s = self._pause_s(notice, at) or take_all(self._budgets, notice.priority, is_escalation(notice), at.mono_s)
        self.health.facts["left"] = min(budget.left(at.mono_s) for budget in self._budgets)
        if wait_s:
            return later(wait_s)
        url, body = self._request(notice, at)
        answer = await self._poster.post(url, body)
        verdict = answer if isinstance(answer, Verdict) else self._judge(answer, notice, at)
        self._held_until_s = max(self._held_until_s, at.mono_s + verdict.hold_s)
        if verdict.outcome is Outcome.LATER:
            self._eased_until_s = max(self._eased_until_s, at.mono_s + verdict.retry_s)
        return verdict

    def _pause_s(self, notice: Notice, at: Instant) -> float:
        """A robot that is blocked is told nothing; one that has had too much, only what is urgent."""
        is_urgent = notice.priority <= 1 or is_escalation(notice)
        until_s = self._held_until_s if is_urgent else max(self._held_until_s, self._eased_until_s)
        return max(0.0, until_s - at.mono_s)

    def _judge(self, answer: Answer, notice: Notice, at: Instant) -> Verdict:
        """What the robot itself says, whatever HTTP says."""
        from .http import refuse_status

        code, words = self._code(answer.fields)
        if code == 0 and answer.status == 200:
            return ACCEPTED
        if not code:
            by_status = _NO_CODE if answer.status == 200 else refuse_status(answer.status, answer.retry_s)
            return self._without_code(answer) or by_status
        secrets = (*self._secrets, national(notice.to.phone), *phones_of(notice))
        late_s = None if answer.date_s is None else at.utc_ms / 1000 - answer.date_s
        verdict = self._meaning(code, words, late_s)
        if verdict.outcome is Outcome.LATER and answer.retry_s:
            verdict = replace(verdict, retry_s=answer.retry_s)
        return replace(verdict, said=said(f"{code} {words}", secrets))

    def _meaning(self, code: int, words: str, late_s: float | None) -> Verdict:
        """`late_s`: how far this machine's clock is ahead of the robot's, None when nobody knows."""
        del late_s
        if code in self.MEANINGS:
            return self.MEANINGS[code]
        return TOO_MUCH if _TOO_MUCH.search(words) else _UNKNOWN

    def _without_code(self, answer: Answer) -> Verdict | None:
        """Of an answer that is JSON and has no code."""
        del answer
        return None

    def _make_budgets(self, settings: RobotSettings, born_s: float) -> Sequence[Budget]:
        """A request counts at the robot up to `timeout_s` later than here: its token stays away for longer."""
        return (Budget(limit=settings.per_min, window_s=WINDOW_S + settings.timeout_s, born_s=born_s),)

    def _address(self, settings: RobotSettings) -> tuple[str, str]:
        """The address to post to, and the token in it."""
        key = settings.key.strip()
        where = "key" if "://" in key else "base_url"
        try:
            parts = urlsplit(key if where == "key" else settings.base_url.strip().rstrip("/") + self.ENDPOINT)
            known, token = parts.hostname, self._token(parts) if where == "key" else key
        except ValueError:
            raise ConfigError(self.NAME, [f"{where}: is no address"]) from None
        base, endpoint, _ = parts.path.partition(self.ENDPOINT)
        if not endpoint or not _TOKEN.fullmatch(token):
            raise ConfigError(self.NAME, [f"key: must be the robot's key, or its whole address: …{self.ENDPOINT}…"])
        if not known or (parts.scheme != "https" and not (parts.scheme == "http" and is_here(parts))):
            raise ConfigError(self.NAME, [f"{where}: must begin with https:// (http:// only to this machine)"])
        return self._url_of(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{base}{endpoint}", token), token

    @abstractmethod
    def _token(self, address: SplitResult) -> str:
        """The token in a whole address; empty when there is none."""

    @abstractmethod
    def _url_of(self, endpoint: str, token: str) -> str:
        """The whole address."""

    @abstractmethod
    def _request(self, notice: Notice, at: Instant) -> tuple[str, dict[str, Any]]:
        """Address and body of one message."""

    @abstractmethod
    def _code(self, fields: Mapping[str, Any]) -> tuple[int | None, str]:
        """The robot's own code, 0 when it took the message, None when there is none; and its words."""


def number(fields: Mapping[str, Any], name: str) -> int | None:
    """A whole number of an answer; nothing else is one."""
    value = fields.get(name)
    return value if type(value) is int else None


def words_in(fields: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that is a text with something in it."""
    return next((value for name in names if isinstance(value := fields.get(name), str) and value), "")


def failed(zh: str, en: str) -> Verdict:
    """The robot refuses until somebody does something."""
    return Verdict(outcome=Outcome.FAILED, zh=zh, en=en, fault=Fault.REFUSING)


def refused(zh: str, en: str) -> Verdict:
    """This message will never be taken; others may."""
    return Verdict(outcome=Outcome.REFUSED, zh=zh, en=en)


def busy(zh: str, en: str) -> Verdict:
    """Passes by itself."""
    return Verdict(outcome=Outcome.FAILED, zh=zh, en=en, fault=Fault.SILENT, retry_s=10.0)


def too_much(zh: str, en: str, retry_s: float = _RATE_S) -> Verdict:
    """The robot was told too much."""
    return Verdict(outcome=Outcome.LATER, zh=zh, en=en, retry_s=retry_s)


def wrong_clock(late_s: float | None) -> Verdict | None:
    """The words for a clock that is at least nearly an hour off the robot's; None when it is not, or nobody knows."""
    if late_s is None or abs(late_s) < _HOUR_S - _DATE_DOUBT_S:
        return None
    minutes = f"{abs(late_s) / 60:.0f}"
    zh, en = ("快", "ahead") if late_s > 0 else ("慢", "behind")
    return failed(
        f"本机时钟{zh} {minutes} 分钟，签名作废：请校时（NTP）",
        f"this machine's clock is {minutes} minutes {en}, which voids the signature: set it (NTP)",
    )


TOO_MUCH = too_much("发送太频繁，稍后再发", "too many messages; sent again later")
CLOCK = failed(
    "签名时间与机器人相差一小时以上：检查本机时钟（NTP）",
    "the signature is more than an hour off: check this machine's clock (NTP)",
)
SECRET = failed(
    "签名不符：重新复制机器人安全设置里的加签密钥",
    "the signature does not match: copy the secret from the robot's security settings again",
)
SIGNATURE = failed(
    "签名不符或过期：核对加签密钥和本机时钟（NTP）",
    "the signature is wrong or too old: check the secret and this machine's clock (NTP)",
)
KEYWORD = failed(
    "消息里没有机器人要求的关键词：把关键词写进本通道的设置",
    "the robot wants a keyword that is not in the message: put its keyword into this channel's settings",
)
ADDRESS = failed(
    "本机出口 IP 不在机器人的白名单：在安全设置里加上",
    "this site's public IP is not on the robot's list: add it in the robot's security settings",
)
GONE = failed(
    "地址无效或机器人已移除：到群设置里重新复制 Webhook 地址",
    "its address is not valid or the robot was removed: copy its webhook address from the group again",
)
STOPPED = failed(
    "机器人已停用或不在群里：在群设置里启用，或重新添加",
    "the robot is disabled or not in its group: enable it there, or add it again",
)
MALFORMED = refused(
    "消息格式或长度不被接受：请反馈给维护人员",
    "its form or length is not accepted: report this to whoever maintains the gateway",
)
CONTENT = refused(
    "内容被审核拒绝：检查名称里的链接和敏感词", "the content was refused: look for links or banned words in names"
)
BUSY = busy("对方系统繁忙", "the chat system is busy")
_UNKNOWN = failed("未知的拒绝：按代码查机器人文档", "an unknown refusal: look the code up in the robot's documentation")
_NO_CODE = Verdict(
    outcome=Outcome.FAILED,
    zh="应答里没有机器人的结果码：检查地址和代理",
    en="the answer has no code of a robot: check the address and any proxy in between",
    fault=Fault.OFFLINE,
)
