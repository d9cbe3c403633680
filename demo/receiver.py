"""A chat robot on this machine: takes the messages of webhook channels, answers as the robots of WeCom and DingTalk do.

They answer HTTP 200 with `{"errcode":0,"errmsg":"ok"}`; a refusal is also HTTP 200, with another errcode (45009: too
many messages). A message that carries the same `key` as an earlier one is shown as a repeat: a real robot would have
told people twice.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from ..errors import PermanentError
from ..words import now, utc_text

_PAGE = Path(__file__).with_name("receiver_page.html")
_KEPT = 500
_KEYS = 20_000


class RobotMode(enum.StrEnum):
    """What the robot does with a message: take it, refuse it with errcode 45009, or hang up without an answer."""

    OK = "ok"
    REFUSE = "refuse"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverOptions:
    """Where the receiver listens; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 8092


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message that arrived.

    Attributes:
        n: number of arrival, from 1.
        key: the sender's idempotency key (the body's `key`), or a digest of a body that has none.
        copy: how many times this key was taken so far, this time included; 0 when it was refused.
        text: what a person would read.
    """

    n: int
    at: str
    robot: str
    key: str
    copy: int
    accepted: bool
    text: str
    body: dict[str, object]


class Inbox:
    """What arrived: the last 500 messages, the counts of all. One event loop."""

    def __init__(self) -> None:
        self.mode = RobotMode.OK
        self.messages: deque[Message] = deque(maxlen=_KEPT)
        self._copies: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._counts = {"arrived": 0, "accepted": 0, "refused": 0, "repeats": 0}

    def take(self, robot: str, body: dict[str, object], at: str) -> Message:
        """Note one message that was answered, in the mode of this moment."""
        accepted = self.mode is RobotMode.OK
        key = str(body.get("key") or "") or hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        copy = self._count_copy(robot, key) if accepted else 0
        self._counts["arrived"] += 1
        self._counts["accepted" if accepted else "refused"] += 1
        self._counts["repeats"] += copy > 1
        message = Message(
            n=self._counts["arrived"],
            at=at,
            robot=robot,
            key=key,
            copy=copy,
            accepted=accepted,
            text=readable(body),
            body=body,
        )
        self.messages.append(message)
        return message

    def _count_copy(self, robot: str, key: str) -> int:
        copy = self._copies.pop((robot, key), 0) + 1
        self._copies[robot, key] = copy
        if len(self._copies) > _KEYS:
            self._copies.popitem(last=False)
        return copy

    def to_json(self, after: int = 0) -> dict[str, object]:
        """Mode, counts and the messages that arrived after number `after`, newest first."""
        newest_first = [asdict(item) for item in reversed(self.messages) if item.n > after]
        return {"mode": self.mode.value, "counts": dict(self._counts), "messages": newest_first}


def readable(body: dict[str, object]) -> str:
    """The text of a robot message (`text.content`, `markdown.content` or `markdown.text`), else its JSON."""
    for kind, part in (("text", "content"), ("markdown", "content"), ("markdown", "text")):
        inner = body.get(kind)
        if isinstance(inner, dict) and isinstance(inner.get(part), str):
            return inner[part]
    plain = body.get("text")
    return plain if isinstance(plain, str) else json.dumps(body, ensure_ascii=False)


_INBOX = web.AppKey("inbox", Inbox)


def receiver_app(inbox: Inbox) -> web.Application:
    """`POST /robot/{name}`, `GET /api/messages`, `POST /api/mode`, `GET /`."""
    app = web.Application(client_max_size=65536)
    app[_INBOX] = inbox
    app.router.add_post("/robot/{name}", _robot)
    app.router.add_get("/api/messages", _messages)
    app.router.add_post("/api/mode", _set_mode)
    app.router.add_get("/", _page)
    return app


async def run_receiver(options: ReceiverOptions, ready: Callable[[int], None] | None = None) -> NoReturn:
    """Serve until cancelled. Calls `ready` with the port when it listens. Raises PermanentError when it is taken."""
    runner = web.AppRunner(receiver_app(Inbox()), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, options.host, options.port).start()
        except OSError as error:
            hint = "choose another port"
            raise PermanentError(f"receiver: cannot listen on port {options.port}: {error}", hint=hint) from error
        if ready is not None:
            ready(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
    raise AssertionError("the receiver never ends by itself")


async def _robot(request: web.Request) -> web.Response:
    inbox = request.app[_INBOX]
    if inbox.mode is RobotMode.DOWN:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)
    body = await _object(request)
    if body is None:
        return web.json_response({"errcode": 40035, "errmsg": "the body is not a JSON object"}, status=400)
    if inbox.take(request.match_info["name"], body, utc_text(now().utc_ms)).accepted:
        return web.json_response({"errcode": 0, "errmsg": "ok"})
    return web.json_response({"errcode": 45009, "errmsg": "api freq out of limit"})


async def _messages(request: web.Request) -> web.Response:
    after = request.query.get("after", "0")
    number = int(after) if after.isascii() and after.isdigit() else 0
    return web.json_response(request.app[_INBOX].to_json(number), headers={"Cache-Control": "no-store"})


async def _set_mode(request: web.Request) -> web.Response:
    body = await _object(request) if request.content_type == "application/json" else None
    try:
        request.app[_INBOX].mode = RobotMode(str((body or {}).get("mode")))
    except ValueError:
        error = {"reason": "bad_request", "message": "mode must be ok, refuse or down", "hint": '{"mode": "refuse"}'}
        return web.json_response({"error": error}, status=400)
    return web.json_response({"mode": request.app[_INBOX].mode.value})


async def _object(request: web.Request) -> dict[str, object] | None:
    try:
        body = json.loads(await request.read())
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


async def _page(_: web.Request) -> web.Response:
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return web.Response(text=_PAGE.read_text("utf-8"), content_type="text/html", headers=headers)
