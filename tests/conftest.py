"""Fixtures that several test files share."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import os
import random
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def need() -> Callable[[str, str], str]:
    """`need("mosquitto", "apt install mosquitto")`: the program's path; without it the test fails in CI, else skips."""

    def find(program: str, how: str) -> str:
        found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if found:
            return found
        message = f"{program} is not installed: {how}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)

    return find


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port of 127.0.0.1 that nobody listens on now.

    Below the kernel's own ports, which any client may have for its end of a connection when a peer of a test is started
    again on its old one; every process of a parallel run has a range of its own.
    """
    worker = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0)
    ours = itertools.cycle(random.sample(range(first := 10_000 + worker % 15 * 1_500, first + 1_500), 1_500))

    def pick() -> int:
        for port in itertools.islice(ours, 1_500):
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
        pytest.fail("no free port")

    return pick


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Awaitable[object]]:
    """`await eventually(check, "what")`: until `check()`, sync or async, is true; fails after `bound_s`."""

    async def wait(
        check: Callable[[], object], what: str | Callable[[], str], *, bound_s: float = 30.0, every_s: float = 0.1
    ) -> object:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + bound_s
        while True:
            value = check()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            if loop.time() > deadline:
                wanted = what if isinstance(what, str) else what()
                pytest.fail(f"not within {bound_s:g} s: {wanted} (last: {value!r:.500})")
            await asyncio.sleep(every_s)

    return wait
