"""The gateway as it is, in a process that kills itself (SIGKILL) at one of its boundaries: before or after a commit,
before or after a message was handed to its receiver.

    python -m sitewarden.tests.peers.killed_edge site.toml DATA 17      # at the 17th; 0: never
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import aiohttp
from sitewarden.edge.app import run_edge

_boundaries = itertools.count(1)
_at = int(sys.argv[3])


def boundary() -> None:
    if next(_boundaries) == _at:
        os.kill(os.getpid(), signal.SIGKILL)


class Killing(sqlite3.Connection):
    """Every commit has two boundaries."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql != "COMMIT":
            return super().execute(sql, *parameters)
        boundary()
        cursor = super().execute(sql, *parameters)
        boundary()
        return cursor


def connect(*arguments: Any, _connect: Any = sqlite3.connect, **more: Any) -> sqlite3.Connection:
    return _connect(*arguments, **{**more, "factory": Killing})


async def request(self: Any, *arguments: Any, _request: Any = aiohttp.ClientSession._request, **more: Any) -> Any:
    """Every message, too: the receiver has it at the second one, and the gateway has not noted it."""
    boundary()
    answer = await _request(self, *arguments, **more)
    boundary()
    return answer


sqlite3.connect = connect
aiohttp.ClientSession._request = request
asyncio.run(run_edge(Path(sys.argv[1]), Path(sys.argv[2])))
