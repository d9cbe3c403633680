"""The chat systems' ends of their group robots, and a plain webhook receiver, on one HTTP server of 127.0.0.1.

Own code, of the vendors' documents alone, so that the gateway meets something it did not bring along: signatures are
verified with the HMAC of RFC 2104 written out, limits count the bytes that came, and refusals arrive with HTTP 200.
"""

from __future__ import annotations

import asyncio
import base64
import enum
import hashlib
import json
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

TOKEN = "token-of-the-robot-0001"
SECRET = "SEC+secret/of=the-robot"
HOUR_S = 3600.0


class Fault(enum.StrEnum):
    """What the server does to every request while it is set, whichever robot is asked."""

    HANG = "hang"  # takes the request and says nothing
    DRIP = "drip"  # a byte of the answer now and then, for ever
    TRUNCATED = "truncated"
    UNFINISHED = "unfinished"  # chunks that never end, then closed
    HUGE = "huge"
    CLOSED = "closed"
    NOT_HTTP = "not_http"
    NOT_JSON = "not_json"
    EMPTY = "empty"
    DEEP = "deep"
    LIST = "list"
    LOGIN_PAGE = "login_page"
    REDIRECT = "redirect"
    REDIRECT_POST = "redirect_post"
    NO_CODE = "no_code"
    NULL_CODE = "null_code"
    TEXT_CODE = "text_code"
    TRUE_CODE = "true_code"
    BROKEN_PROXY = "broken_proxy"
    NO_SUCH_PAGE = "no_such_page"
    PROXY_LOGIN = "proxy_login"
    ERROR_WITH_SUCCESS = "error_with_success"
    ECHO = "echo"  # refuses, and repeats everything it was told


_OK = b'{"errcode": 0, "code": 0, "errmsg": "ok", "msg": "ok"}'
_PAGES = {
    Fault.NOT_JSON: (200, b"ok"),
    Fault.EMPTY: (200, b""),
    Fault.DEEP: (200, b"[" * 60_000),
    Fault.LIST: (200, b"[0]"),
    Fault.HUGE: (200, _OK[:-1] + b', "pad": "' + b"x" * 3_000_000 + b'"}'),
    Fault.NO_CODE: (200, b'{"success": true}'),
    Fault.NULL_CODE: (200, b'{"errcode": null, "code": null}'),
    Fault.TEXT_CODE: (200, b'{"errcode": "0", "code": "0"}'),
    Fault.TRUE_CODE: (200, b'{"errcode": false, "code": false}'),
    Fault.BROKEN_PROXY: (502, b"<html>Bad Gateway</html>"),
    Fault.NO_SUCH_PAGE: (404, b"<html>Not Found</html>"),
    Fault.PROXY_LOGIN: (511, b"<html>log in</html>"),
    Fault.ERROR_WITH_SUCCESS: (500, _OK),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message that stands in a group. `mentions`: phone numbers or Open IDs."""

    text: str
    mentions: tuple[str, ...] = ()
    body: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class Group:
    """One robot in one group. What is set here is what its owner has set.

    Attributes:
        refusal: the answer to everything, with HTTP 200.
        status: of HTTP.
        clock_s: the vendor's clock, seconds of 1970.
        asked: requests that came, also those that were refused.
        ports: of the clients' ends of their connections.
    """

    token: str = TOKEN
    secret: str = ""
    keyword: str = ""
    refusal: dict[str, Any] | None = None
    status: int = 200
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    taken: list[Message] = field(default_factory=list[Message])
    asked: int = 0
    ports: list[int] = field(default_factory=list[int])
    clock_s: float | None = None
    asked_at_s: deque[float] = field(default_factory=deque[float])
    blocked_until_s: float = 0.0

    def now_s(self) -> float:
        return time.time() if self.clock_s is None else self.clock_s

    def within(self, window_s: float) -> int:
        """Requests in the last `window_s` seconds."""
        return sum(at > self.now_s() - window_s for at in self.asked_at_s)


class RobotServers:
    """`url` is where it is; `groups` by name: wecom, dingtalk, feishu, lark (answers in the older shape), webhook."""

    def __init__(self) -> None:
        self.url = ""
        self.fault: Fault | None = None
        self.groups = {name: Group() for name in ("wecom", "dingtalk", "feishu", "lark", "webhook")}
        self.followed = 0
        self._over = asyncio.Event()

    def base(self, name: str) -> str:
        """Lark has a host of its own; here it is a path."""
        return self.url + ("/lark" if name == "lark" else "")

    @asynccontextmanager
    async def running(self, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[RobotServers]:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post("/cgi-bin/webhook/send", self._handler("wecom", self._wecom))
        app.router.add_post("/robot/send", self._handler("dingtalk", self._dingtalk))
        app.router.add_post("/open-apis/bot/v2/hook/{token}", self._handler("feishu", self._feishu))
        app.router.add_post("/lark/open-apis/bot/v2/hook/{token}", self._handler("lark", self._lark))
        app.router.add_post("/webhook/{token}", self._handler("webhook", self._webhook))
        app.router.add_route("*", "/elsewhere", self._elsewhere)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self._over.set()
            await runner.cleanup()

    def _handler(self, name: str, judge: Any) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            group = self.groups[name]
            raw = await request.read()
            if self.fault is not None:
                return await self._fail(request, raw, group)
            group.asked += 1
            group.ports.append(request.get_extra_info("peername")[1])
            group.asked_at_s.append(group.now_s())
            answer = judge(group, request, raw) if group.refusal is None else group.refusal
            return web.json_response({**answer, **group.more}, status=group.status, headers=group.headers)

        return handle

    async def _elsewhere(self, _: web.Request) -> web.StreamResponse:
        self.followed += 1
        return web.json_response({"errcode": 0, "code": 0, "errmsg": "ok"})

    # --- the robots ---

    def _wecom(self, group: Group, request: web.Request, raw: bytes) -> dict[str, Any]:
        def refuse(code: int, words: str) -> dict[str, Any]:
            more = f"hint: [1717000000123], from ip: 203.0.113.9, more info at https://example.invalid/query?e={code}"
            return {"errcode": code, "errmsg": f"{words}, {more}"}

        if request.query.get("key") != group.token:
            return refuse(93000, "invalid webhook url")
        if group.within(60) > 20:
            return refuse(45009, "api freq out of limit")
        body = json.loads(raw)
        kind = body.get("msgtype")
        if kind not in ("text", "markdown"):
            return refuse(40008, "invalid message type")
        limit = {"text": 2048, "markdown": 4096}[kind]
        content = body[kind].get("content", "")
        if not content:
            return refuse(44004, "empty content")
        if len(content.encode("utf-8")) > limit:
            return refuse(40058, f"{kind}.content exceed max length {limit}. invalid Request Parameter")
        mentions = tuple(body[kind].get("mentioned_mobile_list", ()))
        group.taken.append(Message(text=content, mentions=mentions, body=body))
        return {"errcode": 0, "errmsg": "ok"}

    def _dingtalk(self, group: Group, request: web.Request, raw: bytes) -> dict[str, Any]:
        query = dict(parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True, strict_parsing=True))
        if "application/json" not in request.headers.get("Content-Type", ""):
            return {"errcode": 43004, "errmsg": "无效的HTTP HEADER Content-Type"}
        if query.get("access_token") != group.token:
            return {"errcode": 300005, "errmsg": "token is not exist"}
        if group.now_s() < group.blocked_until_s or group.within(60) > 20:
            group.blocked_until_s = max(group.blocked_until_s, group.now_s() + 600)
            return {"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"}
        if group.secret:
            link = "link:请参考本接口对应文档获得具体要求"
            stamp = query.get("timestamp", "")
            if not stamp.isdecimal() or abs(int(stamp) / 1000 - group.now_s()) > HOUR_S:
                words = "description:机器人发送签名过期;solution:签名生成时间和发送时间请保持在 timestampms 以内;"
                return {"errcode": 310000, "errmsg": words + link}
            right = _hmac(group.secret.encode(), f"{stamp}\n{group.secret}".encode())
            if query.get("sign", "") != base64.standard_b64encode(right).decode():
                words = "description:机器人发送签名不匹配;solution:请确认签名和生成签名的时间戳必须都放在调用的网址中;"
                return {"errcode": 310000, "errmsg": words + link}
        if len(raw) > 20000:
            return {"errcode": 460101, "errmsg": "message too long, exceed 20000 bytes"}
        body = json.loads(raw)
        content = body.get("text", {}).get("content", "")
        if body.get("msgtype") != "text" or not content:
            return {"errcode": 40035, "errmsg": "缺少参数 json"}
        if group.keyword not in content:
            words = (
                "description:关键词不匹配;solution:请联系群管理员查看此机器人的关键词，并在发送的信息中包含此关键词;"
            )
            return {"errcode": 310000, "errmsg": words}
        at = body.get("at", {})
        group.taken.append(Message(text=content, mentions=tuple(at.get("atMobiles", ())), body=body))
        return {"errcode": 0, "errmsg": "ok"}

    def _feishu(self, group: Group, request: web.Request, raw: bytes) -> dict[str, Any]:
        code, words = self._feishu_code(group, request, raw)
        if code:
            return {"code": code, "msg": words, "data": {}}
        return {"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"}

    def _lark(self, group: Group, request: web.Request, raw: bytes) -> dict[str, Any]:
        code, words = self._feishu_code(group, request, raw)
        return {"Extra": None, "StatusCode": code, "StatusMessage": words or "success"}

    def _feishu_code(self, group: Group, request: web.Request, raw: bytes) -> tuple[int, str]:
        if request.match_info["token"] != group.token:
            return 19001, "param invalid: incoming webhook access token invalid"
        if group.within(60) > 100 or group.within(1) > 5:
            return 11232, "frequency limited psm[lark.oapi.app_platform_runtime]appID[1500]"
        if len(raw) > 20 * 1024:
            return 9499, "Bad Request"
        body = json.loads(raw)
        if body.get("msg_type") != "text":
            return 19002, "param invalid: msg_type"
        if group.secret:
            stamp = body.get("timestamp", "")
            late_s = abs(int(stamp) - group.now_s()) if str(stamp).isdecimal() else 2 * HOUR_S
            right = _hmac(f"{stamp}\n{group.secret}".encode(), b"")
            if late_s > HOUR_S or body.get("sign") != base64.standard_b64encode(right).decode():
                return 19021, "sign match fail or timestamp is not within one hour from current time"
        text = body.get("content", {}).get("text", "")
        if not text:
            return 9499, "Bad Request"
        if group.keyword not in text:
            return 19024, "Key Words Not Found"
        mentions = tuple(piece.partition('"')[0] for piece in text.split('<at user_id="')[1:])
        group.taken.append(Message(text=text, mentions=mentions, body=body))
        return 0, ""

    def _webhook(self, group: Group, request: web.Request, raw: bytes) -> dict[str, Any]:
        if request.match_info["token"] != group.token:
            return {"errcode": 1, "errmsg": "no such receiver"}
        body = json.loads(raw)
        if body["key"] not in {message.body["key"] for message in group.taken}:
            group.taken.append(Message(text=body["text"]["content"], body=body))
        return {"errcode": 0, "errmsg": "ok"}

    # --- faults ---

    async def _fail(self, request: web.Request, raw: bytes, group: Group) -> web.StreamResponse:
        match self.fault:
            case Fault.HANG:
                await self._over.wait()
            case Fault.DRIP:
                return await self._drip(request)
            case Fault.CLOSED | Fault.NOT_HTTP | Fault.TRUNCATED | Fault.UNFINISHED:
                return await self._cut(request)
            case Fault.REDIRECT:
                raise web.HTTPFound("/elsewhere")
            case Fault.REDIRECT_POST:
                raise web.HTTPTemporaryRedirect("/elsewhere")
            case Fault.LOGIN_PAGE:
                page = f"\r\n<!DOCTYPE html><title>认证</title><a href='{request.raw_path}'>{group.secret}</a>"
                return web.Response(text=page, content_type="text/html")
            case Fault.ECHO:
                told = f"unknown {request.url} {request.raw_path} {raw.decode()} {group.token} {group.secret}"
                return web.json_response({"errcode": 77, "errmsg": told, "code": 77, "msg": told})
        status, body = _PAGES.get(self.fault or Fault.EMPTY, (200, b""))
        return web.Response(status=status, body=body)

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while not self._over.is_set():
            await answer.write(b" ")
            await asyncio.sleep(0.05)
        return answer

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        begun = {
            Fault.CLOSED: b"",
            Fault.NOT_HTTP: b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            Fault.TRUNCATED: b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n" + _OK[:20],
            Fault.UNFINISHED: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n36\r\n" + _OK + b"\r\n",
        }[self.fault or Fault.CLOSED]
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.write(begun)
        request.transport.close()
        await self._over.wait()
        return web.Response()


def _hmac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104)."""
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in block) + message).digest()
    return hashlib.sha256(bytes(octet ^ 0x5C for octet in block) + inner).digest()
