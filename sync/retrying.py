"""When a failed sender tries again: soon after what nobody else has heard of, at random after everything else."""

from __future__ import annotations

import asyncio
import contextlib
import random

from tenacity import RetryCallState, wait_random_exponential

from ..errors import TransientError

NEAR_S = (0.5, 0.9)
_SHORTEST_S = 0.05


class LinkError(TransientError):
    """The cloud could not be reached or did not accept.

    Args:
        reason: a word that stays the same while the cause does: logs speak when it changes.
        retry_s: not before this many seconds, if the cloud said so.
        near: nobody outside this site heard of the try (`dialing.trouble`).
    """

    def __init__(self, reason: str, message: str, *, hint: str = "", retry_s: float = 0.0, near: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.retry_s = retry_s
        self.near = near


class Patience:
    """The pauses of all senders of one link.

    The first of them, the journal, looks for the link; the others wait for it. A near error is tried again within a
    second. After any other one the pause is random between nothing and a bound that doubles from a second to `most_s`
    (full jitter): ten thousand gateways do not come back in step. What the machine's network reports (`look_again`)
    ends a pause early, except one that the cloud itself asked for.

    Args:
        most_s: the longest pause that is chosen here.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._random = wait_random_exponential(multiplier=1, max=most_s)
        self._back = asyncio.Event()
        self._changed = asyncio.Event()

    def pause_s(self, state: RetryCallState, *, first: bool) -> float:
        """Seconds until the next try. `first`: of the sender that looks for the link."""
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, LinkError):
            return self._random(state)
        if error.near and first:
            state.attempt_number = 1
            near_s = _SHORTEST_S if error.reason == "silent" else random.uniform(*NEAR_S)  # noqa: S311 - no secret
            return min(near_s, self._most_s)
        return max(self._random(state), error.retry_s)

    async def pause(self, seconds: float, *, first: bool, asked: bool) -> None:
        """Wait, unless there is reason to try at once. `asked`: by the cloud, so for as long as it said."""
        if asked:
            await asyncio.sleep(seconds)
            return
        event = self._changed if first else self._back
        event.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    def look_again(self) -> None:
        """This machine's network is another one now."""
        self._changed.set()

    def is_back(self) -> None:
        """The journal came through."""
        self._back.set()
