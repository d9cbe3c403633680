"""Fixtures that several test files share."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sitewarden.tests.peers import ports

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
    """A port of 127.0.0.1 that nobody listens on now: `sitewarden.tests.peers.ports`."""
    return ports.free_port


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
