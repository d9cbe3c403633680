"""One POST of JSON, and whatever comes back: an answer in JSON, or a verdict in words. Loads aiohttp: import it late.

What a server or a proxy writes into a page is never quoted, an address neither: a robot's address holds its token.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ..port import Fault, Outcome
from ..threads import Names, apart
from ..verdicts import Verdict
from .texts import as_json

ANSWER_LIMIT = 64 * 1024
RATE_S = 60.0
_RATE_MOST_S = 600.0
_AT_ONCE = 32
_CONNECT_PART = 0.8
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
_HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "Accept-Encoding": "identity",  # nothing is unpacked: a small answer cannot become a big one
    "User-Agent": "sitewarden",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said, in JSON.

    Attributes:
        status: of HTTP; robots refuse with 200.
        date_s: the server's clock in seconds of 1970, None when it does not say.
        retry_s: what it asks for when it is told too much.
    """

    status: int
    fields: dict[str, Any]
    date_s: float | None
    retry_s: float


class Poster:
    """An HTTP client for one channel. Enter it first; entering connects to nobody.

    Args:
        timeout_s: for all of one request: name, connection, answer.
        ca_file: certificates to trust instead of the system's, PEM.
        proxy: `http://[user:password@]host:port` to go through, "" for none.
    """

    def __init__(self, *, timeout_s: float, ca_file: str, proxy: str = "") -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeout_s * _CONNECT_PART)
        self._timeout_s = timeout_s
        self._ca_file, self._proxy = ca_file, proxy or None
        self._trusted: ssl.SSLContext | bool = True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # a connection each: one that the server has closed meanwhile would cost a message its attempt
        connector = aiohttp.TCPConnector(force_close=True, limit=_AT_ONCE, resolver=_Resolver())
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, headers=_HEADERS)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, body: Mapping[str, Any]) -> Answer | Verdict:
        """Send `body` to `url`, which is used as it is: nothing in it is encoded again, unless it is not ASCII.

        Redirects are not followed. Bounded in time. Raises nothing for what the other side does.
        """
        assert self._session is not None, "enter the channel first"
        data = as_json(body)
        try:
            async with asyncio.timeout(self._timeout_s):
                trusted = await self._trust()
                exact = URL(url, encoded=url.isascii())
                async with self._session.post(
                    exact, data=data, allow_redirects=False, ssl=trusted, timeout=self._timeout, proxy=self._proxy
                ) as answer:
                    return _read(answer.status, answer.headers, await _whole(answer.content))
        except aiohttp.ConnectionTimeoutError:
            return _offline("连接超时，检查本机网络和防火墙", "no connection in time: check network and firewall")
        except TimeoutError:
            return _silent(f"{self._timeout_s:g} 秒内没有应答", f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _explain(error, self._ca_file)

    async def _trust(self) -> ssl.SSLContext | bool:
        """The certificates that count; reading them takes a while on a small machine."""
        if self._ca_file and self._trusted is True:
            try:
                self._trusted = await apart(lambda: ssl.create_default_context(cafile=self._ca_file))
            except (OSError, ValueError) as error:
                raise _CaFileError(type(error).__name__) from error
        return self._trusted


class _Resolver(AbstractResolver):
    """Names without the loop's pool of threads."""

    def __init__(self) -> None:
        self._names = Names()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError."""
        found = await self._names.find(host, port, family=family, flags=socket.AI_ADDRCONFIG)
        return [
            ResolveResult(hostname=host, host=place[0], port=place[1], family=kind, proto=protocol, flags=_NUMERIC)
            for kind, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        """Nothing is kept open."""


class _CaFileError(ValueError):
    """The file with the certificates cannot be used."""


async def _whole(content: aiohttp.StreamReader) -> bytes | None:
    """The whole answer, in however many pieces it comes; None when it is longer than any honest one."""
    raw = bytearray()
    async for piece in content.iter_any():
        raw += piece
        if len(raw) > ANSWER_LIMIT:
            return None
    return bytes(raw)


def _read(status: int, headers: Mapping[str, str], raw: bytes | None) -> Answer | Verdict:
    if 300 <= status < 400:
        return _offline(
            f"HTTP {status} 转向他处，未跟随：检查地址，以及网络是否要求先登录",
            f"HTTP {status} points elsewhere and is not followed: check the address; the network may want a login",
        )
    if raw is None:
        return _offline(
            f"应答超过 {ANSWER_LIMIT} 字节，不是机器人：检查地址和代理",
            f"the answer is longer than {ANSWER_LIMIT} bytes and no robot's: check the address and any proxy",
        )
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        return Answer(status=status, fields=fields, date_s=_date_s(headers), retry_s=_retry_s(headers))
    if status != 200:
        return refuse_status(status, _retry_s(headers))
    if raw.lstrip()[:1] == b"<":
        return _offline(
            "应答是网页不是机器人：网络要求登录，或代理拦截",
            "the answer is a web page, not the robot's: the network wants a login, or a proxy is in between",
        )
    return _offline(
        "应答不是 JSON 对象：检查地址和代理",
        "the answer is no JSON object: check the address and any proxy in between",
    )


def refuse_status(status: int, retry_s: float = 0.0) -> Verdict:
    """An answer whose HTTP status is not 200 and whose content says nothing better."""
    code = f"HTTP {status}"
    if status == 429:
        return Verdict(
            outcome=Outcome.LATER,
            said=code,
            zh="发送太频繁，稍后再发",
            en="too many requests; sent again later",
            retry_s=retry_s or RATE_S,
        )
    if status in (407, 511):
        return _offline("网络或代理要求登录", "the network or a proxy wants a login", code)
    if status >= 500:
        return _silent("对方服务器或中间代理有故障", "the server or a proxy in between is in trouble", code)
    return Verdict(
        outcome=Outcome.FAILED,
        said=code,
        zh="地址不对或被拒绝：重新复制 Webhook 地址",
        en="the address is wrong or refused: copy the webhook address again",
        fault=Fault.REFUSING,
    )


def _offline(zh: str, en: str, code: str = "") -> Verdict:
    return Verdict(outcome=Outcome.FAILED, said=code, zh=zh, en=en, fault=Fault.OFFLINE)


def _silent(zh: str, en: str, code: str = "") -> Verdict:
    return Verdict(outcome=Outcome.FAILED, said=code, zh=zh, en=en, fault=Fault.SILENT, may_have_arrived=True)


def _explain(error: Exception, ca_file: str) -> Verdict:
    """A failure of the connection. The library's own text may hold the address: only the system's words are used."""
    match error:
        case _CaFileError():
            name = Path(ca_file).name  # the whole path may leave no room for what is wrong
            return _tls("", f"证书文件 {name} 无法使用", f"the certificates in {name} cannot be used")
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as cause):
            return _tls(
                cause.verify_message,
                "对方证书不可信：检查本机时钟和中间代理",
                "the certificate is not trusted: check this machine's clock and any proxy in between",
            )
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return _tls(
                getattr(getattr(error, "os_error", error), "reason", None) or "",
                "加密连接失败：检查地址、端口和中间代理",
                "no encrypted connection: check address, port and any proxy in between",
            )
        case aiohttp.ClientConnectorDNSError():
            return _offline(
                "查不到服务器域名：检查本机网络和 DNS", "the server's name is not found: check the network and its DNS"
            )
        case aiohttp.ClientConnectorError():
            system = error.os_error.strerror if error.os_error.errno else ""
            return _offline("连接不上：检查本机网络", "cannot connect: check the network", _system(system or ""))
        case aiohttp.ClientHttpProxyError(status=407):
            return refuse_status(407)
        case aiohttp.ClientHttpProxyError():
            return _offline("代理不放行", "the proxy does not let it through", f"HTTP {error.status}")
        case aiohttp.ClientProxyConnectionError():
            return _offline("连接不上代理：检查 [alerts] proxy", "cannot connect to the proxy: check [alerts] proxy")
        case aiohttp.ClientResponseError():
            return _offline("应答不是 HTTP：检查地址", "the answer is not HTTP: check the address")
        case aiohttp.NonHttpUrlClientError() | ValueError():
            return _offline("地址写法不对", "the address is not well-formed")
        case _:
            return _silent("连接中断，没有完整应答", "the connection broke before a whole answer")


def _tls(code: str, zh: str, en: str) -> Verdict:
    said = f"TLS: {code}" if code else "TLS"
    return Verdict(outcome=Outcome.FAILED, said=said, zh=zh, en=en, fault=Fault.REFUSING)


def _system(words: str) -> str:
    """`Connect call failed ('127.0.0.1', 80)` says nothing more than the address."""
    return "" if words.startswith("Connect call failed") else words


def _date_s(headers: Mapping[str, str]) -> float | None:
    try:
        return parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (ValueError, OverflowError):
        return None


def _retry_s(headers: Mapping[str, str]) -> float:
    asked = headers.get("Retry-After", "")
    return min(float(asked), _RATE_MOST_S) if asked.isascii() and asked.isdigit() else 0.0
