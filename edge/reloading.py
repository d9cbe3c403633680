"""Hot reload: a changed site.toml is applied as a difference, or refused with every problem and nothing changed.

One reload at a time, in the order of asking; whoever asks while one is under way gets a reload of its own after it,
so that no change of the file is missed. Hang-ups (SIGHUP) that come meanwhile become one.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from ..errors import ConfigError, RefusedError
from ..serving.notify import Notifier
from ..sync.journal import Draft
from ..words import now
from .links import check_links
from .reload import NOTHING, Changes, Count, diff
from .site import Site
from .site_reader import read_site

_log = logging.getLogger(__name__)

SIGNAL = "signal"
_MOST_WAITING = 20
_MOST_LINES = 200
_MOST_PROBLEMS = 20
_GOT = re.compile(r" \(got .*\)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a reload.

    Attributes:
        file: that was read.
        revision: that runs now.
        is_new: the file has another revision than the one before.
        changes: in words; empty when nothing was different.
        needs_restart: keys that were changed, and count from the next start on.
        problems: of a refused file; nothing was changed then.
        devices, rules: how many came, went, are different, and go on as they were.
    """

    file: Path
    revision: str
    is_new: bool = False
    changes: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    devices: Count = NOTHING
    rules: Count = NOTHING

    def to_json(self) -> dict[str, Any]:
        """As the API answers."""
        if self.problems:
            return {"problems": list(self.problems)}
        return {
            "changes": list(self.changes),
            "needs_restart": list(self.needs_restart),
            "revision": self.revision,
        }

    def told(self) -> dict[str, Any]:
        """As the control socket answers: who may use it may know the machine's paths."""
        about = {**self.to_json(), "file": str(self.file.resolve()), "revision": self.revision}
        if self.problems:
            return about
        return {**about, "is_new": self.is_new, "devices": asdict(self.devices), "rules": asdict(self.rules)}


@dataclass(frozen=True, slots=True)
class _Request:
    """`actor`: of the record; `by`: who asked, in words."""

    by: str
    actor: str
    answer: asyncio.Future[Outcome] | None


class Runs(Protocol):
    """Who knows the site that runs."""

    site: Site


Apply = Callable[[Site, Changes, Draft], Awaitable[None]]


def _summary(changes: Changes) -> str:
    later = [f"{key}: from the next start on" for key in changes.needs_restart]
    return "; ".join((*changes.lines, *later)) or "only comments"


class Reloader:
    """Reads the file again when asked. `run` must be awaited in a task.

    Args:
        path: site.toml.
        data: of the daemon.
        current: the site that runs.
        apply: makes another one run and commits the record; what it raises is a defect and ends `run`.
        commit: makes a draft a record, and returns when it is durable.
        notifier: to systemd.
    """

    def __init__(
        self,
        path: Path,
        data: Path,
        current: Runs,
        apply: Apply,
        commit: Callable[[Draft], Awaitable[object]],
        notifier: Notifier,
    ) -> None:
        self._path, self._data = path, data
        self._current, self._apply, self._commit = current, apply, commit
        self._notifier = notifier
        self._requests: deque[_Request] = deque()
        self._asked = asyncio.Event()
        self._refused: tuple[str, tuple[str, ...]] = ("", ())

    def hang_up(self) -> None:
        """SIGHUP came. Several of them before the next reload begins are one."""
        if not any(request.answer is None for request in self._requests):
            self._requests.append(_Request(SIGNAL, "gateway", None))
            self._asked.set()

    async def reload(self, by: str, actor: str = "gateway") -> Outcome:
        """Read the file and apply what is different.

        Args:
            by: who asked, for the record.
            actor: of the record: a person's id when a person asked on a page.

        Raises:
            RefusedError: `busy`: too many ask.
        """
        if len(self._requests) >= _MOST_WAITING:
            raise RefusedError("busy", "too many reloads wait", hint="one after the last change is enough", retry_s=5)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._requests.append(_Request(by, actor, answer))
        self._asked.set()
        return await answer

    async def run(self) -> NoReturn:
        """Serve for ever. Ends with the store's error, or with a defect: a site that is half changed must not go on."""
        while True:
            self._asked.clear()
            while self._requests:
                await self._serve(self._requests.popleft())
            await self._asked.wait()

    async def _serve(self, request: _Request) -> None:
        self._notifier.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            outcome = await self._reload(request)
        except BaseException as error:
            if request.answer is not None and not request.answer.done():
                request.answer.set_exception(ConnectionAbortedError(f"the gateway ends: {error}"))
            raise
        finally:
            self._notifier.tell("READY=1")
        if request.answer is not None and not request.answer.done():
            request.answer.set_result(outcome)

    async def _reload(self, request: _Request) -> Outcome:
        old = self._current.site
        try:
            new, changes = await asyncio.to_thread(self._read, old)
        except ConfigError as error:
            return await self._refuse(request, tuple(error.problems))
        except Exception as error:  # a file that shows a defect of ours must not end what runs
            _log.exception("%s: defect", self._path)
            return await self._refuse(request, (f"file: cannot be used: {type(error).__name__}: {error}",))
        self._refused = ("", ())
        outcome = Outcome(
            file=self._path,
            revision=new.revision,
            is_new=changes.revision,
            changes=changes.lines,
            needs_restart=changes.needs_restart,
            devices=changes.devices,
            rules=changes.rules,
        )
        for warning in new.warnings if changes else ():
            _log.warning("%s: %s", self._path, warning)
        for key in changes.needs_restart:
            _log.warning("%s: %s was changed: it counts from the next start on", self._path, key)
        if not changes:
            _log.info("%s: nothing was changed (asked by %s)", self._path, request.by)
            return outcome
        body = {
            "revision": new.revision,
            "before": old.revision,
            "changes": list(changes.lines[:_MOST_LINES]),
            "more": max(0, len(changes.lines) - _MOST_LINES),
            "needs_restart": list(changes.needs_restart),
            "by": request.by,
        }
        await self._apply(new, changes, Draft(kind="config.applied", at=now(), actor=request.actor, body=body))
        _log.info("%s: revision %s applied: %s", self._path, new.revision, _summary(changes))
        return outcome

    def _read(self, old: Site) -> tuple[Site, Changes]:
        """On a thread of its own: the polls must not wait for it."""
        new = read_site(self._path, self._data)
        check_links(new)
        return new, diff(old, new)

    async def _refuse(self, request: _Request, problems: tuple[str, ...]) -> Outcome:
        for problem in problems:
            _log.error("%s: refused, nothing was changed: %s", self._path, problem)
        running = self._current.site.revision
        if self._refused != (request.by, problems):  # the same file again tells nothing new
            self._refused = (request.by, problems)
            # values may be names, phones or addresses with a token, and records go to headquarters
            told = [_GOT.sub("", problem) for problem in problems[:_MOST_PROBLEMS]]
            body = {"problems": told, "more": max(0, len(problems) - len(told)), "revision": running, "by": request.by}
            await self._commit(Draft(kind="config.refused", at=now(), actor=request.actor, body=body))
        return Outcome(file=self._path, revision=running, problems=problems)
