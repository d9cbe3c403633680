"""A day in minutes: an event loop whose time jumps to the next timer as soon as nothing is left to do.

Real sockets and pseudo-terminals work in it, when both of their ends live in the loop: time stands still while bytes
are under way. A pseudo-terminal is polled, and polling hands over what it holds (Linux, `n_tty_poll`). TCP bytes are
counted where they are sent and where they are received, because the kernel may deliver them a moment later.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import selectors
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from sitewarden import words
from sitewarden.words import ClockState, Instant

T = TypeVar("T")

START_S = 1000.0
START_UTC_MS = 1_800_000_000_000
TICK_S = 1e-6  # a jump ends so long after the timer: who computes what is left to wait gets no more than zero
BUSY_TURNS = 10_000  # so many turns without a pause take a tick, too: time never stands still for ever
GRACE_S = 0.05  # real; for bytes that are under way and never arrive (nobody accepts, nobody reads)
STUCK_S = 30.0  # real


class InFlight:
    """Bytes sent and not yet received, by direction; the end of a connection counts as one, a connect as well.

    Attributes:
        expected: what is under way and has not been waited for in vain.
        connections: both ends of each, (mine, theirs) and (theirs, mine).
    """

    def __init__(self) -> None:
        self.expected: set[Any] = set()
        self._bytes: dict[tuple[Any, Any], int] = {}
        self.connections: set[tuple[Any, Any]] = set()

    def opened(self, mine: Any, theirs: Any) -> None:
        self.connections.add((mine, theirs))

    def sent(self, mine: Any, theirs: Any, count: int) -> None:
        self._bytes[mine, theirs] = self._bytes.get((mine, theirs), 0) + count
        self.expected.add((mine, theirs))

    def received(self, mine: Any, theirs: Any, count: int) -> None:
        """`count` bytes, or 0 when the connection is over."""
        left = self._bytes.pop((theirs, mine), 0) - count
        if count and left > 0:
            self._bytes[theirs, mine] = left
        else:
            self.expected.discard((theirs, mine))

    def closed(self, mine: Any, theirs: Any) -> None:
        self.connections.discard((mine, theirs))
        self.received(mine, theirs, 0)
        if (theirs, mine) in self.connections:
            self.sent(mine, theirs, 1)

    @contextlib.contextmanager
    def connecting(self) -> Iterator[None]:
        attempt = object()
        self.expected.add(attempt)
        try:
            yield
        finally:
            self.expected.discard(attempt)


class _Counted(socket.socket):
    """A connected socket of an asyncio transport that reports its traffic."""

    def __init__(self, plain: socket.socket, flight: InFlight) -> None:
        self._flight = flight
        self._ends = plain.getsockname(), plain.getpeername()
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        flight.opened(*self._ends)

    def send(self, data: Any, flags: int = 0, /) -> int:
        count = super().send(data, flags)
        self._flight.sent(*self._ends, count)
        return count

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        try:
            data = super().recv(bufsize, flags)
        except ConnectionError:
            self._flight.received(*self._ends, 0)
            raise
        self._flight.received(*self._ends, len(data))
        return data

    def close(self) -> None:
        if self.fileno() >= 0:
            self._flight.closed(*self._ends)
        super().close()


class _Jumping(selectors.PollSelector):
    """Instead of waiting, moves the loop's time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S
        self.flight = InFlight()
        self.threads = 0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns += 1
        if self._turns % BUSY_TURNS == 0:
            self.now_s += TICK_S
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.threads or timeout is None:
            ready = super().select(STUCK_S)
            assert ready, f"nothing happened for {STUCK_S:g} s, and no timer is set"
            return ready
        if self.flight.expected:
            ready = super().select(GRACE_S)
            if ready:
                return ready
            self.flight.expected.clear()
        self.now_s += timeout + TICK_S
        self._turns = 0
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with its own time."""

    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now_s

    @property
    def timers(self) -> int:
        """Timers that are set, the cancelled ones that are still remembered among them."""
        return len(self._scheduled)  # pyright: ignore[reportAttributeAccessIssue]

    def _make_socket_transport(self, sock: socket.socket, *args: Any, **more: Any) -> Any:
        make = super()._make_socket_transport  # pyright: ignore[reportAttributeAccessIssue]
        try:
            counted = _Counted(sock, self.jumping.flight)
        except OSError:  # gone already
            return make(sock, *args, **more)
        return make(counted, *args, **more)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        with self.jumping.flight.connecting():
            await super().sock_connect(sock, address)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Time stands still while a thread works."""
        self.jumping.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: Any) -> None:
        self.jumping.threads -= 1


@contextlib.contextmanager
def _words_follow(loop: VirtualLoop) -> Iterator[None]:
    """`words.mono_s` and `words.now`, in every module of the house that holds them, tell the loop's time. Modules that
    are loaded inside keep it: load them before."""

    def now() -> Instant:
        since_ms = round((loop.time() - START_S) * 1000)
        return Instant(utc_ms=START_UTC_MS + since_ms, mono_s=loop.time(), boot="virtual", clock=ClockState.SYNCED)

    fakes: dict[str, Callable[[], Any]] = {"mono_s": loop.time, "now": now}
    real = {name: getattr(words, name) for name in fakes}
    patched: list[tuple[Any, str]] = []
    for path, module in list(sys.modules.items()):
        if path.partition(".")[0] == "sitewarden":
            patched += [(module, name) for name in fakes if module.__dict__.get(name) is real[name]]
    defaults = _defaults({id(real[name]): fakes[name] for name in fakes})
    for module, name in patched:
        setattr(module, name, fakes[name])
    for function, _, (positional, named) in defaults:
        function.__defaults__, function.__kwdefaults__ = positional, named
    try:
        yield
    finally:
        for module, name in patched:
            setattr(module, name, real[name])
        for function, (positional, named), _ in defaults:
            function.__defaults__, function.__kwdefaults__ = positional, named


def _defaults(instead: Mapping[int, Any]) -> list[tuple[Any, tuple[Any, Any], tuple[Any, Any]]]:
    """Functions of the house that have a clock as the default of an argument: with their defaults now and in virtual
    time. Args: instead: the virtual clock by the `id` of the real one."""
    found: list[tuple[Any, tuple[Any, Any], tuple[Any, Any]]] = []
    seen: set[int] = set()
    for path, module in list(sys.modules.items()):
        if path.partition(".")[0] != "sitewarden":
            continue
        things = [thing for thing in vars(module).values() if getattr(thing, "__module__", "") == path]
        methods = [method for thing in things if isinstance(thing, type) for method in vars(thing).values()]
        for function in filter(inspect.isfunction, [*things, *methods]):
            before = function.__defaults__, function.__kwdefaults__
            positional = tuple(instead.get(id(value), value) for value in before[0] or ()) or None
            named = {name: instead.get(id(value), value) for name, value in (before[1] or {}).items()} or None
            if id(function) not in seen and (positional, named) != (before[0] or None, before[1] or None):
                found.append((function, before, (positional, named)))
            seen.add(id(function))
    return found


def run_virtual(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], *, seed: int) -> T:
    """Run `main(loop)` to its end in virtual time, `random` seeded for everybody."""
    state = random.getstate()
    random.seed(seed)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            with _words_follow(loop):
                return runner.run(main(loop))
    finally:
        random.setstate(state)


async def within(bound_s: float, check: Callable[[], object], what: Callable[[], str]) -> None:
    """Until `check()` is true; raises AssertionError after `bound_s` of the loop's time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + bound_s
    while not check():
        assert loop.time() < end_s, f"not within {bound_s:g} s: {what()}"
        await asyncio.sleep(1.0)


__all__ = ["START_S", "VirtualLoop", "run_virtual", "within"]
