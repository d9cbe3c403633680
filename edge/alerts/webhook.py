"""A webhook: one JSON POST; accepted only when the answer's own success field says so (robots refuse with HTTP 200)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from ..models import ChannelTable

_ANSWER_LIMIT = 64 * 1024


class Webhook:
    """Sends messages to one URL. Enter it to get the HTTP session."""

    def __init__(self, table: ChannelTable) -> None:
        self.table = table
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Webhook:
        timeout = aiohttp.ClientTimeout(total=self.table.timeout_s)
        self._session = aiohttp.ClientSession(timeout=timeout)
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
        try:
            async with self._session.post(self.table.url, json=message, allow_redirects=False) as answer:
                raw = await answer.content.read(_ANSWER_LIMIT)
                if answer.status != 200:
                    return f"HTTP {answer.status}"
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return judge(raw, self.table.success_field, self.table.success_value)


def judge(raw: bytes, field: str, value: int) -> str:
    """Empty when the JSON answer carries `field` == `value`, else the refusal in words."""
    try:
        answer = json.loads(raw)
    except ValueError:
        return f"the answer is not JSON: {raw[:80]!r}"
    if not isinstance(answer, dict) or field not in answer:
        return f"the answer has no field {field!r}: {raw[:80]!r}"
    return "" if answer[field] == value else f"{field} {answer[field]}: {answer.get('errmsg', '')}"
