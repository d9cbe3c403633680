"""How a child hears its parent: one word a line on standard input."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


def listen(answer: Callable[[str], None]) -> None:
    """Call `answer` on the running loop with every line; lines that come together are all heard."""
    loop, held = asyncio.get_running_loop(), b""

    def readable() -> None:
        nonlocal held
        data = os.read(0, 4096)
        if not data:
            loop.remove_reader(0)
        *lines, held = (held + data).split(b"\n")
        for line in lines:
            answer(line.decode())

    loop.add_reader(0, readable)
