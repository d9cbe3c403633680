"""Short pauses instead of long ones: an alarm must not wait until somebody else has finished.

Three things hold up the event loop although they are not on it: the cyclic garbage collection of everything that was
built at the start, a thread that has the interpreter, and loops over thousands of points that never await.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")

SWITCH_S = 0.001
"""How long a thread keeps the interpreter when another one wants it. A commit takes it back some twenty times, after
each call of SQLite: with Python's 5 ms a commit beside a busy thread takes a tenth of a second."""
SLICE = 100
"""Points in a slice; at 10 us each a slice takes a millisecond."""


def take_turns() -> None:
    """Let threads change often enough that none is kept waiting. For the whole process."""
    sys.setswitchinterval(SWITCH_S)


def spare_what_stays() -> None:
    """Leave what exists now out of every later collection; what is no longer used of it goes now.

    For when the process has built what it keeps, once at the start and after each change of it: thousands of rules make
    a full collection take a tenth of a second, which now and then came just when a segment of the history was packed.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def in_slices(items: Sequence[T], size: int = SLICE) -> AsyncIterator[Sequence[T]]:
    """`items` in slices; whatever else is ready on the loop runs between two of them."""
    for at in range(0, len(items), size):
        if at:
            await asyncio.sleep(0)
        yield items[at : at + size]
