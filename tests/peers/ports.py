"""Ports of 127.0.0.1 that nobody listens on, and that nobody else gets before the test uses them."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

_EACH = 1_500
# Below the kernel's own ports, which any client may have for its end of a connection while a peer of a test is down,
# and below those of the demo; every process of a parallel run has a range of its own.
_WORKER = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0)
_FIRST = 10_000 + _WORKER % 10 * _EACH
_ours = itertools.cycle(random.sample(range(_FIRST, _FIRST + _EACH), _EACH))


def free_port() -> int:
    """The next one. Raises RuntimeError when all are taken."""
    for port in itertools.islice(_ours, _EACH):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port from {_FIRST} to {_FIRST + _EACH - 1}")
