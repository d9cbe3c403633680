"""Fixtures that several test files share."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sitewarden.edge import pauses
from sitewarden.tests.peers import ports

ROOT = Path(__file__).resolve().parent.parent
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30
# Minutes in all, of few tests, the longest first. Not among them: what takes no longer than any other file.
LONGEST = (
    "test_scenarios",
    "test_browser",
    "test_browser_headquarters",
    "test_rtu_timing",
    "test_kill_sweep",
    "test_blob_sync",
    "test_not_recorded",
    "test_siren",
    "test_control",
    "test_browser_plan",
    "test_blob_stores",
    "test_end_to_end",
    "test_demo_run",
    "test_day",
    "test_sync_kills",
    "test_epoch_evidence",
    "test_replay",
    "test_store_contract",
    "test_mqtt_peers",
    "test_reload_mqtt",
)


def pytest_configure() -> None:
    """Folders of tests are in memory where there is room: there, an fsync, one for each commit, costs nothing.

    PYTEST_DEBUG_TEMPROOT (make soak names a disk) and --basetemp say otherwise.
    """
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ and _has_room(MEMORY):
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # `make test &`: programs inherit what is ignored


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest go first, all in one process, whose other tests the others take: nobody waits for them in the end."""
    rank = {stem: number for number, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def _has_room(folder: Path) -> bool:
    """A container's /dev/shm is often small, and runs no programs."""
    with contextlib.suppress(OSError):
        found = os.statvfs(folder)
        runs_programs = not found.f_flag & os.ST_NOEXEC
        return os.access(folder, os.W_OK) and runs_programs and found.f_bavail * found.f_frsize >= MEMORY_BYTES
    return False


@pytest.fixture(autouse=True, scope="session")
def _heap() -> Iterator[None]:
    """A gateway in this process collects no garbage at its start and reload: among what all tests keep that takes as
    long as a poll."""
    with pytest.MonkeyPatch.context() as patch:
        idle = SimpleNamespace(unfreeze=lambda: None, collect=lambda: 0, freeze=lambda: None)
        patch.setattr(pauses, "gc", idle)
        yield


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
