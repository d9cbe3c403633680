"""How a thread that works for long leaves the interpreter to the others."""

from __future__ import annotations

import time

from ..words import mono_s

_WORK_S = 0.001
"""How long the work keeps the interpreter, and then leaves it to the event loop and to the journal."""


class Rests:
    """Called now and then by a thread that works for long: lets the others have the interpreter half of the time."""

    __slots__ = ("_until_s",)

    def __init__(self) -> None:
        self._until_s = mono_s() + _WORK_S

    def __call__(self) -> None:
        if mono_s() >= self._until_s:
            time.sleep(_WORK_S)
            self._until_s = mono_s() + _WORK_S
