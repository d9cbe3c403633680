"""The MQTT topic of proof tests, `test/<id>`. Nothing of it is retained; a restart makes up for nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ..sync.journal import Record

_MOST = 20


class ProofTopics:
    """What is to be published of tests that run.

    Args:
        key_of: identity of a record by its number; receivers drop what they have.

    Attributes:
        acknowledged: number of the newest record that the broker has.
    """

    def __init__(self, key_of: Callable[[int], str]) -> None:
        self.acknowledged = 0
        self._key_of = key_of
        self._waiting: deque[Record] = deque(maxlen=_MOST)

    def take(self, records: list[Record]) -> None:
        """These were committed."""
        self._waiting += [record for record in records if record.kind == "proof.alarm"]

    async def publish(self, send: Callable[[str, dict[str, Any]], Awaitable[None]]) -> None:
        """`send` returns when the broker has acknowledged; what it fails to send is published in the next session."""
        while self._waiting:
            record = self._waiting[0]
            body = {name: record.body[name] for name in ("run", "is_test", "change", "alarm")}
            view = {"kind": record.kind, "seq": record.seq, "key": self._key_of(record.seq), **body}
            await send(f"test/{record.body['alarm']['id'].removeprefix('test.')}", view)
            self.acknowledged = max(self.acknowledged, record.seq)
            if self._waiting and self._waiting[0] is record:
                self._waiting.popleft()
