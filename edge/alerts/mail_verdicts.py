"""What a mail server's answers mean, and what to do about them (RFC 5321, enhanced codes of RFC 3463). Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import replace

from ...errors import TransientError
from .port import Fault, Outcome
from .verdicts import ACCEPTED, Verdict

GREY_S = 300.0
_GREY_MOST_S = 3600.0
_BUSY_S = 60.0
_FULL_S = 900.0
_LOCK_S = 300.0


class Security(enum.StrEnum):
    """How the connection is kept from others. Nothing weaker is ever used than what is asked for.

    PLAIN: to a mail server on this machine. PLAIN_ANYWHERE: over a network where everyone may read it, also the
    password.
    """

    STARTTLS = "starttls"
    TLS = "tls"
    PLAIN = "plain"
    PLAIN_ANYWHERE = "plain_anywhere"


PLAIN = (Security.PLAIN, Security.PLAIN_ANYWHERE)


class Step(enum.StrEnum):
    """Where in the conversation we are."""

    CONNECT = "connect"
    HELLO = "hello"
    STARTTLS = "starttls"
    AUTH = "auth"
    SENDER = "sender"
    RECIPIENT = "recipient"
    DATA = "data"


class Why(enum.StrEnum):
    """What is wrong with a connection."""

    NO_NAME = "no_name"
    NO_CONNECTION = "no_connection"
    SILENT = "silent"
    BROKEN = "broken"
    TLS = "tls"
    NO_STARTTLS = "no_starttls"
    NO_AUTH = "no_auth"
    NOT_SMTP = "not_smtp"


class RefusalError(TransientError):
    """The server said no. `code` and `words` are its own."""

    def __init__(self, step: Step, code: int, words: str) -> None:
        super().__init__(f"{step}: {code}")
        self.step, self.code, self.words = step, code, words


class ConnectionFailedError(TransientError):
    """There is no conversation. `words`: the system's, without secrets."""

    def __init__(self, step: Step, why: Why, words: str = "") -> None:
        super().__init__(f"{step}: {why}")
        self.step, self.why, self.words = step, why, words


def judge(refusal: RefusalError) -> Verdict:
    """A refusal: of the message, of the receiver, or of us."""
    enhanced = _enhanced(refusal)
    if 400 <= refusal.code < 500:
        return _for_now(refusal, enhanced)
    if refusal.code in (530, 538) or (refusal.code == 535 and refusal.step is not Step.AUTH):
        return _WANTS_SIGN_IN
    match refusal.step:
        case Step.AUTH:
            return _PASSWORD
        case Step.SENDER:
            return _TOO_BIG if refusal.code == 552 else _SENDER
        case Step.RECIPIENT:
            return _recipient(refusal, enhanced)
        case Step.DATA:
            return _TOO_BIG if refusal.code == 552 or enhanced == (3, 4) else _CONTENT
        case _:
            return _NOT_US


def judge_connection(error: ConnectionFailedError) -> Verdict:
    """A conversation that was none. Once the text is under way nobody knows whether it was taken."""
    verdict = _CONNECTIONS[error.why]
    return replace(verdict, may_have_arrived=error.step is Step.DATA and verdict.fault is Fault.SILENT)


def _enhanced(refusal: RefusalError) -> tuple[int, int] | None:
    """Subject and detail of an enhanced code: `5.1.1` is (1, 1)."""
    found = re.match(r"\s*[245]\.(\d{1,3})\.(\d{1,3})\b", refusal.words)
    return (int(found[1]), int(found[2])) if found else None


def _for_now(refusal: RefusalError, enhanced: tuple[int, int] | None) -> Verdict:
    words = refusal.words
    if refusal.step in (Step.RECIPIENT, Step.DATA):
        if re.search(r"gr[ae]y-?list|灰名单", words, re.IGNORECASE) or (
            refusal.code in (450, 451) and enhanced == (7, 1) and not _TOO_OFTEN.search(words)
        ):
            return replace(_GREY, retry_s=_asked_s(words) or GREY_S)
        if refusal.code == 452 and enhanced == (2, 2):
            return _FULL
    if _TOO_OFTEN.search(words):
        return replace(_RATE, receiver_only=enhanced is not None and enhanced[0] == 2)  # x.2.x: the mailbox
    return _BUSY if refusal.step is not Step.AUTH else _SIGN_IN_LATER


def _asked_s(words: str) -> float:
    """`try again in 5 minutes`, `retry after 300 seconds`: in seconds; 0 when it does not say."""
    found = re.search(r"(\d{1,5}) ?(s|sec|seconds?|m|min|minutes?)\b", words, re.IGNORECASE)
    if not found:
        return 0.0
    return min(int(found[1]) * (60.0 if found[2].lower().startswith("m") else 1.0), _GREY_MOST_S)


def _recipient(refusal: RefusalError, enhanced: tuple[int, int] | None) -> Verdict:
    if enhanced is not None:
        if enhanced in ((2, 2), (2, 3)):
            return _FULL
        if enhanced in ((1, 7), (1, 8)):
            return _SENDER
        if enhanced[0] in (1, 2):
            return UNKNOWN_ADDRESS
        return _NOT_US
    if refusal.code == 552:
        return _FULL
    if not _NOBODY.search(refusal.words) and (refusal.code == 554 or _POLICY.search(refusal.words)):
        return _NOT_US
    return UNKNOWN_ADDRESS


def _failed(zh: str, en: str, fault: Fault | None = Fault.REFUSING, retry_s: float = 0.0) -> Verdict:
    return Verdict(outcome=Outcome.FAILED, zh=zh, en=en, fault=fault, retry_s=retry_s)


def _refused(zh: str, en: str, fault: Fault | None = Fault.NONE) -> Verdict:
    return Verdict(outcome=Outcome.REFUSED, zh=zh, en=en, fault=fault)


def _later(zh: str, en: str, retry_s: float) -> Verdict:
    return Verdict(outcome=Outcome.LATER, zh=zh, en=en, retry_s=retry_s)


_NOBODY = re.compile(r"no such|unknown|not (found|exist)|n't exist|invalid (recipient|mailbox)|不存在", re.IGNORECASE)
_POLICY = re.compile(r"relay|auth|denied|block|spam|policy|reject|reputation|black|not allowed|拒绝", re.IGNORECASE)
_TOO_OFTEN = re.compile(r"too (many|much|fast|often|quickly)|\brate\b|throttl|frequen|频率|频繁|超限", re.IGNORECASE)

UNKNOWN_ADDRESS = _refused(
    "没有这个收件邮箱：到人员名单里更正邮件地址", "there is no such mailbox: correct the address in the list of people"
)
_FULL = _failed("收件邮箱已满：请收件人清理", "the mailbox is full: its owner must empty it", None, _FULL_S)
_GREY = replace(
    _later("对方要求稍后重试（灰名单）", "the server wants it later (greylisting)", GREY_S), receiver_only=True
)
_RATE = _later("邮件服务器限流，稍后再发", "the mail server takes no more now; sent again later", _BUSY_S)
_BUSY = _failed("邮件服务器暂时不收", "the mail server does not take it now", None, _BUSY_S)
_SIGN_IN_LATER = _failed("邮件服务器暂时无法登录", "the mail server cannot sign us in now", Fault.SILENT, _BUSY_S)
_PASSWORD = replace(
    _failed(
        "用户名或密码被拒绝：许多邮箱要填授权码而不是登录密码",
        "user name or password refused: many providers want an authorization code, not the password",
        retry_s=_LOCK_S,
    ),
    hold_s=_LOCK_S,  # one try after the other locks an account
)
_WANTS_SIGN_IN = _failed(
    "邮件服务器要求登录或加密：填写用户名和授权码，选 starttls 或 tls",
    "the mail server wants a sign-in or encryption: set user name and code, choose starttls or tls",
)
_SENDER = _failed(
    "发件地址被拒绝：发件人应与登录的邮箱一致",
    "the sender is refused: it must be the mailbox that the user name belongs to",
)
_NOT_US = _failed(
    "邮件服务器拒绝为我们转发：请邮件管理员放行本机地址或账号",
    "the mail server refuses us: its administrator must allow this address or account",
)
_CONTENT = _refused(
    "邮件内容被拒绝：请邮件管理员把发件地址加入白名单",
    "the message was refused: its administrator must put the sender on the list of the allowed",
    Fault.REFUSING,
)
_TOO_BIG = _refused("邮件太大", "the message is too big")
_CONNECTIONS = {
    Why.NO_NAME: _failed(
        "查不到邮件服务器域名：检查网络和 DNS",
        "the mail server's name is not found: check the network and its DNS",
        Fault.OFFLINE,
    ),
    Why.NO_CONNECTION: _failed(
        "连接不上邮件服务器：检查网络、地址和端口",
        "cannot connect to the mail server: check network, host and port",
        Fault.OFFLINE,
    ),
    Why.SILENT: _failed("邮件服务器没有及时应答", "the mail server does not answer in time", Fault.SILENT),
    Why.BROKEN: _failed("连接中断", "the connection broke", Fault.SILENT),
    Why.NOT_SMTP: _failed(
        "对方不是邮件服务器：检查地址、端口和加密方式",
        "this is no mail server: check host, port and security",
        Fault.OFFLINE,
    ),
    Why.TLS: _failed(
        "加密连接失败：检查本机时钟、端口、证书和加密方式",
        "no encrypted connection: check this machine's clock, the port, the certificate and security",
    ),
    Why.NO_STARTTLS: _failed(
        "邮件服务器不支持 STARTTLS，未明文发送：改用 tls 或另一端口",
        "the mail server offers no STARTTLS, and nothing is sent in the clear: choose tls or another port",
    ),
    Why.NO_AUTH: _failed(
        "邮件服务器没有我们会的登录方式：检查端口和加密方式",
        "the mail server offers no way to sign in that we know: check port and security",
    ),
}


def taken(words: str) -> Verdict:
    """The server has it; `words` are its own, which name its queue."""
    return replace(ACCEPTED, said=words)
