"""What systemd hears from the daemon, over a real datagram socket, and how a stepped clock is noticed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from sitewarden import words
from sitewarden.edge import supervision
from sitewarden.edge.supervision import ClockWatch, feed_watchdog
from sitewarden.serving.notify import Notifier
from sitewarden.sync.server_time import ServerTime
from sitewarden.sync.server_time import heard as time_heard
from sitewarden.words import ClockState, Instant, mono_s


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(10)
        yield sock


def heard(sock: socket.socket) -> list[str]:
    """What has arrived by now."""
    told = []
    sock.setblocking(False)
    try:
        while True:
            told.append(sock.recv(4096).decode())
    except BlockingIOError:
        return told


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "40000")


@asynccontextmanager
async def feeding(notifier: Notifier, beats: dict, fresh_s: float = 20.0):
    task = asyncio.create_task(feed_watchdog(notifier, beats, fresh_s))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_path_and_an_abstract_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = str(tmp_path / "notify")
    with listening(path) as sock:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        Notifier().tell("READY=1")
        assert sock.recv(100) == b"READY=1"
    name = f"sitewarden-test-{os.getpid()}"
    with listening(f"\0{name}") as sock:
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        Notifier().tell("STATUS=好")
        assert sock.recv(100).decode() == "STATUS=好"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().tell("READY=1")
    Notifier(str(tmp_path / "nobody")).tell("READY=1")


def test_a_systemd_that_does_not_read_never_blocks_the_loop(tmp_path: Path):
    path = str(tmp_path / "notify")
    with listening(path) as sock:
        notifier = Notifier(path)
        for _ in range(2000):  # the queue of a datagram socket holds far less
            notifier.tell("WATCHDOG=1")
        assert len(heard(sock)) < 2000


async def test_pings_come_while_every_loop_turns(tmp_path: Path, quick: None, eventually):
    with listening(str(tmp_path / "notify")) as sock:
        told: list[str] = []
        async with feeding(Notifier(str(tmp_path / "notify")), {"a": mono_s, "b": mono_s}):
            await eventually(lambda: told.extend(heard(sock)) or len(told) >= 3, "three pings", every_s=0.02)
    assert set(told) == {"WATCHDOG=1"}


async def test_one_hung_loop_withholds_the_ping_until_it_turns_again(tmp_path: Path, quick: None, eventually, caplog):
    beat_s = mono_s()
    asked = 0

    def hung() -> float:
        nonlocal asked
        asked += 1
        return beat_s

    with listening(str(tmp_path / "notify")) as sock:
        beats = {"rules": mono_s, "commit": hung}
        async with feeding(Notifier(str(tmp_path / "notify")), beats, fresh_s=0.3):
            await eventually(lambda: "commit" in caplog.text, "the hung loop is named", every_s=0.02)
            heard(sock)
            before = asked
            await eventually(lambda: asked >= before + 5, "five more looks", every_s=0.02)
            assert heard(sock) == []
            assert caplog.text.count("do not turn: commit") == 1, "logged when it changes, not every time"
            beat_s = mono_s() + 1000
            await eventually(lambda: heard(sock), "a ping again", every_s=0.02)
            assert "do not turn: none" in caplog.text


class Clock:
    """A wall clock that can be stepped, and a kernel that says whether it is synchronized."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.utc_s, self.mono_s, self.synced = 1_800_000_000.0, 5000.0, True
        self.told: list[ClockState] = []
        self.shift_ms = 0
        monkeypatch.setattr(supervision, "set_clock_shift", self.shift)
        monkeypatch.setattr(supervision, "now", self.now)
        monkeypatch.setattr(supervision, "_kernel_synced", lambda: self.synced)
        monkeypatch.setattr(supervision, "set_clock_state", self.told.append)

    def now(self) -> Instant:
        return Instant(utc_ms=round(self.utc_s * 1000) + self.shift_ms, mono_s=self.mono_s, boot="b")

    def shift(self, shift_ms: int) -> None:
        self.shift_ms = shift_ms

    def server(self, ahead_s: float, ago_s: float = 1.0) -> ServerTime:
        """Headquarters' clock is so much ahead of this machine's; it said so a moment ago."""
        return ServerTime(round((self.utc_s + ahead_s - ago_s) * 1000), self.mono_s - ago_s)

    def run(self, seconds: float, step_s: float = 0.0) -> None:
        self.mono_s += seconds
        self.utc_s += seconds + step_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_time_that_passes_is_no_step(clock: Clock):
    watch = ClockWatch()
    for seconds in (5, 5, 3600, 86400):
        clock.run(seconds, step_s=0.4)  # slewing
        assert watch.step() == 0.0
    assert set(clock.told) == {ClockState.SYNCED}


@pytest.mark.parametrize("jump_s", [5.0, -5.0, 3600.0, -1.7e9])
def test_a_step_is_told_once(clock: Clock, jump_s: float):
    watch = ClockWatch()
    clock.run(5, step_s=jump_s)
    assert watch.step() == pytest.approx(jump_s)
    assert clock.told[-1] is ClockState.STEPPED
    clock.run(5)
    assert watch.step() == 0.0
    assert clock.told[-1] is ClockState.SYNCED


def test_stepped_lasts_until_the_kernel_is_synchronized(clock: Clock):
    clock.synced = False
    watch = ClockWatch()
    assert clock.told == [ClockState.UNSYNCED]
    clock.run(5, step_s=60)
    watch.step()
    clock.run(5)
    watch.step()
    assert clock.told[-1] is ClockState.STEPPED
    clock.synced = True
    clock.run(5)
    watch.step()
    assert clock.told[-1] is ClockState.SYNCED
    clock.synced = False
    clock.run(5)
    watch.step()
    assert clock.told[-1] is ClockState.UNSYNCED


YEAR_S = 365.25 * 86_400


@pytest.mark.parametrize("ahead_s", [YEAR_S, -5 * YEAR_S, 3600.0])
def test_where_nobody_sets_the_clock_headquarters_is_followed_and_each_correction_is_told(clock: Clock, ahead_s: float):
    clock.synced = False
    watch = ClockWatch()
    clock.run(5)
    assert watch.step(clock.server(ahead_s)) == pytest.approx(ahead_s), "forward or back: never silently"
    assert (watch.corrected, clock.told[-1]) == (True, ClockState.STEPPED)
    assert clock.now().utc_ms == pytest.approx((clock.utc_s + ahead_s) * 1000)
    clock.run(5)
    assert watch.step(clock.server(ahead_s + 0.4)) == 0.0, "small differences are no correction"
    assert (watch.corrected, clock.told[-1]) == (False, ClockState.SYNCED)
    clock.run(3601)
    assert watch.step(clock.server(ahead_s, ago_s=3601)) == 0.0
    assert clock.told[-1] is ClockState.UNSYNCED, "what was said an hour ago is not believed, and not taken back"
    assert clock.now().utc_ms == pytest.approx((clock.utc_s + ahead_s) * 1000)


def test_a_machine_clock_that_steps_is_put_right_and_told(clock: Clock):
    clock.synced = False
    watch = ClockWatch()
    server = clock.server(0.0)
    clock.run(5, step_s=-YEAR_S)
    assert watch.step(server) == pytest.approx(-YEAR_S), "instants of these five seconds were a year too early"
    assert clock.now().utc_ms == pytest.approx((clock.utc_s + YEAR_S) * 1000)
    clock.run(5)
    assert watch.step(server) == 0.0
    assert clock.told[-1] is ClockState.SYNCED


def test_a_kernel_that_is_synchronized_needs_nobody(clock: Clock):
    clock.synced = False
    watch = ClockWatch()
    clock.run(5)
    watch.step(clock.server(YEAR_S))
    clock.synced = True
    clock.run(5, step_s=YEAR_S)  # as NTP sets it
    assert watch.step(clock.server(0.0)) == pytest.approx(YEAR_S), "the machine stepped; instants stay where they were"
    assert (clock.shift_ms, clock.told[-1]) == (0, ClockState.STEPPED)
    clock.run(5)
    assert watch.step(clock.server(-YEAR_S)) == 0.0
    assert (clock.shift_ms, clock.told[-1]) == (0, ClockState.SYNCED)


def test_an_answer_that_took_long_says_little():
    assert time_heard(1_000, asked_s=10.0, answered_s=10.5) == ServerTime(1_000, 10.25)
    assert time_heard(1_000, asked_s=10.0, answered_s=14.5) is None


def test_the_real_kernel_answers_and_instants_carry_the_state(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(words, "_state", ClockState.STEPPED)
    watch = ClockWatch()
    assert words.now().clock in (ClockState.SYNCED, ClockState.UNSYNCED)
    assert watch.step() == 0.0
