"""A webhook: one JSON POST; accepted only when the answer's own success field says so (robots refuse with HTTP 200)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from ..models import ChannelTable

_ANSWER_LIMIT = 64 * 1024
_ERROR_LIMIT = 200


class Webhook:
    """Sends messages to one URL. Enter it to get the HTTP session. `table` may be replaced: it counts from the next
    message on."""

    def __init__(self, table: ChannelTable) -> None:
        self.table = table
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Webhook:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, message: Mapping[str, Any]) -> str:
        """Deliver one message.

        Returns:
            "" when the receiver accepted it, else why not; a refusal may be tried again.
        """
        assert self._session is not None, "enter the channel first"
        table = self.table
        timeout = aiohttp.ClientTimeout(total=table.timeout_s)
        try:
            async with self._session.post(table.url, json=message, allow_redirects=False, timeout=timeout) as answer:
                if answer.status != 200:
                    return f"HTTP {answer.status}"
                raw = await _read(answer.content)
        except TimeoutError:
            return f"no answer within {table.timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            told = f"{type(error).__name__}: {error}"
            return told.replace(table.url, "its url")[:_ERROR_LIMIT]  # a robot's url holds its token
        if raw is None:
            return f"the answer is longer than {_ANSWER_LIMIT} bytes"
        return judge(raw, table.success_field, table.success_value)


async def _read(content: aiohttp.StreamReader) -> bytes | None:
    """The whole answer, in however many pieces it comes; None when it is longer than any honest one."""
    raw = b""
    async for piece in content.iter_any():
        raw += piece
        if len(raw) > _ANSWER_LIMIT:
            return None
    return raw


def judge(raw: bytes, field: str, value: int) -> str:
    """Empty when the JSON answer carries the whole number `value` as `field`, else the refusal in words."""
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        return f"the answer is not JSON: {raw[:80]!r}"
    if not isinstance(answer, dict) or field not in answer:
        return f"the answer has no field {field!r}: {raw[:80]!r}"
    if type(answer[field]) is int and answer[field] == value:
        return ""
    return f"{field} {answer[field]!r}: {answer.get('errmsg', '')}"[:_ERROR_LIMIT]
