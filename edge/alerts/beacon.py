"""A siren and a stack light at one post, through outputs that are read back (docs/beacon.md).

What is shown follows from the open alarms alone (`picture`), and every output is kept in its state (`output_keeper`).
As a channel it is a sounder: it says that it sounds when that was read back, and knows nothing of who has heard it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from ...errors import ConfigError, RefusedError
from ...words import mono_s, now, utc_text
from ..loops import Run, again
from .opened import NOBODY, Open, Silenced, concerning, heard, open_of, silence, still_silenced
from .output_keeper import Line, OutputKeeper, OutputRef, SetOutput
from .picture import LAMP_TEST, PROOF_TEST, SIREN_PRIORITIES, Light, Part, Step, allows, picture, wanted_states
from .port import ChannelHealth, Notice, Outcome, Sent

__all__ = ["LOST", "Beacon", "BeaconSettings", "LampTest", "OutputRef", "SetOutput", "Weekly", "is_due"]

_log = logging.getLogger(__name__)

LOST = "lost"  # state of an amber lamp that says: the gateway is gone
_TICK_S = 1.0
_STOP_S = 5.0
_STEP_WAIT_S = 10.0
_TEST_WINDOW = timedelta(hours=1)
_WEEK_MS = 7 * 86_400_000
_CHIRPS = (Step.SIREN, Step.PROOF_SOUND)
_DETAIL_LIMIT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekly:
    """When lamps are tested. `weekday`: 0 is Monday; hour and minute of the site's clock."""

    weekday: int = 0
    hour: int = 10
    minute: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconSettings:
    """One beacon. Raises ConfigError when it could not show an alarm.

    Attributes:
        parts: its outputs. `off` and `on` are required of each; `slow` and `fast` are used where a lamp has them, and
            `lost` of an amber lamp when the gateway stops.
        areas: whose alarms it shows; none: those of the whole site.
        siren: priorities that sound until somebody acknowledges or silences.
        silence_s: a silence lasts so long, then what is still not acknowledged sounds again; 0: it lasts.
        refresh_s: every output is written so often though nothing has changed.
        write_s: the longest that one write may take.
        send_s: the longest that a notice waits for its read-back.
        lamp_test: None: only on demand.
        timezone: of `lamp_test`, an IANA name.
        lamp_s, chirp_s: how long a test shows each lamp and sounds the siren.
        has_watchdog: the device itself shows that nobody writes any more; nothing is written at the end.
    """

    id: str
    parts: Mapping[Part, OutputRef]
    areas: tuple[str, ...] = ()
    siren: frozenset[int] = SIREN_PRIORITIES
    silence_s: float = 900.0
    refresh_s: float = 5.0
    write_s: float = 35.0
    send_s: float = 20.0
    lamp_test: Weekly | None = field(default_factory=Weekly)
    timezone: str = "Asia/Shanghai"
    lamp_s: float = 3.0
    chirp_s: float = 0.5
    has_watchdog: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"{part.value}: {ref.id} has no state {state!r} (it has {', '.join(ref.states)})"
            for part, ref in self.parts.items()
            for state in ("off", "on")
            if state not in ref.states
        ]
        if not self.parts.keys() - {Part.GREEN}:
            problems.append("it has neither a siren nor a red or amber lamp: nobody would notice an alarm")
        ids = [ref.id for ref in self.parts.values()]
        problems += [f"{name} is named twice" for name in sorted({i for i in ids if ids.count(i) > 1})]
        if problems:
            raise ConfigError(f"beacon {self.id}", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class LampTest:
    """What came of a lamp test. That a lamp shines is for a person to see: a register only says that it was told to.

    Attributes:
        at: RFC 3339 UTC.
        failed: parts whose output was not confirmed, with the reason.
        left_out: parts that were not tried, because an acknowledged alarm is open.
        interrupted: a real alarm came.
    """

    at: str
    failed: dict[str, str]
    left_out: list[str]
    interrupted: bool


class Beacon:
    """One post. Enter it to start its tasks; nothing is written before `show` was called for the first time.

    Args:
        settings: of this beacon.
        set_output: writes one output and reads it back.
        tested: told of every lamp test.
    """

    def __init__(
        self, settings: BeaconSettings, set_output: SetOutput, tested: Callable[[LampTest], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self.health = ChannelHealth()
        self._keeper = OutputKeeper(
            settings.id,
            settings.parts,
            set_output,
            refresh_s=settings.refresh_s,
            write_s=settings.write_s,
            health=self.health,
        )
        self._lines = self._keeper.lines
        self._tested = tested
        self._alarms: tuple[Open, ...] | None = None
        self._silenced: Silenced = NOBODY
        self._step: Step | None = None
        self._is_testing = False
        self._tested_ms = now().utc_ms
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        name = f"beacon {self.settings.id}"
        self._task = asyncio.create_task(_call(again(name, self._run)), name=name)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_STOP_S)
        if not self.settings.has_watchdog and self._alarms is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await self._keeper.set_once(self._farewell())

    # --- what it is told ---

    def show(self, alarms: Iterable[Open]) -> None:
        """These alarms are open now: all that are, on the whole site. Returns at once."""
        self._alarms = concerning(alarms, self.settings.areas)
        self._silenced = still_silenced(self._silenced, self._alarms, mono_s())
        if self._step is not None and not allows(self._alarms, self._step):
            self._step = None
        self._apply()

    def silence(self) -> tuple[str, ...]:
        """The siren is quiet for what sounds now; the lights stay, and nothing is acknowledged.

        Returns:
            Ids of the alarms that are silenced by this.
        """
        now_s = mono_s()
        sounding = heard(self._alarms or (), self._silenced, self.settings.siren, now_s, unreached=True)
        until_s = now_s + self.settings.silence_s if self.settings.silence_s else math.inf
        self._silenced = silence(self._silenced, sounding, until_s)
        self._apply()
        return tuple(sorted(name for name, _, _ in sounding))

    async def lamp_test(self) -> LampTest:
        """Each lamp in turn, then a chirp of the siren; a real alarm ends it at once.

        Raises:
            RefusedError: `in_alarm`: something waits for an acknowledgement; `busy`: a test runs; `not_ready`: `show`
                was not called yet.
        """
        alarms = self._alarms
        if alarms is None:
            raise RefusedError("not_ready", f"beacon {self.settings.id}: nobody has said yet what is open", retry_s=10)
        if not allows(alarms, Step.RED):
            hint = "test it when every alarm is acknowledged"
            raise RefusedError("in_alarm", f"beacon {self.settings.id} shows an alarm", hint=hint)
        steps = [step for step in LAMP_TEST if Part(step.value) in self._lines]
        allowed = [step for step in steps if allows(alarms, step)]
        shown, failed = await self._play(allowed)
        result = LampTest(
            at=utc_text(now().utc_ms),
            failed={step.value: why for step, why in failed.items()},
            left_out=[step.value for step in steps if step not in allowed],
            interrupted=shown < len(allowed),
        )
        if not result.interrupted:
            self._tested_ms = now().utc_ms
        self.health.facts["lamp_test"] = asdict(result)
        self._tested(result)
        return result

    async def send(self, notice: Notice) -> Sent:
        """DELIVERED when the siren, or the lamps where nothing sounds, were read back as on after this call.

        REFUSED for a person, and when nothing so urgent is open in its areas; LATER when a proof test would hide or be
        taken for a real alarm, and before `show` was called for the first time.
        """
        if notice.to.person:
            detail = f"beacon {self.settings.id} sounds for everybody and reaches no person by name"
            return Sent(outcome=Outcome.REFUSED, detail=detail)
        sent = await (self._prove() if notice.is_test else self._sound(notice))
        self.health.delivered += sent.outcome is Outcome.DELIVERED
        self.health.failed += sent.outcome is Outcome.FAILED
        return sent

    # --- notices ---

    async def _sound(self, notice: Notice) -> Sent:
        before = {part: (line.successes, line.misses) for part, line in self._lines.items()}
        end_s = mono_s() + self.settings.send_s
        self._keeper.refresh()
        while True:
            lines = self._noticeable() if self._is_shown(notice) else []
            if lines and all(line.is_right and line.successes > before[line.part][0] for line in lines):
                told = ", ".join(f"{line.part.value} {line.confirmed}" for line in lines)
                return Sent(outcome=Outcome.DELIVERED, detail=f"read back: {told}")
            if any(line.misses > before[line.part][1] for line in lines) or not await self._keeper.news(end_s):
                break
        if self._alarms is None:
            return Sent(outcome=Outcome.LATER, detail="nobody has said yet what is open", retry_s=_STEP_WAIT_S)
        if not lines:
            detail = "nothing so urgent is open in its areas: it does not sound"
            return Sent(outcome=Outcome.REFUSED, detail=detail)
        told = "; ".join(line.why for line in lines if line.why) or f"not read back within {self.settings.send_s:g} s"
        return Sent(outcome=Outcome.FAILED, detail=told[:_DETAIL_LIMIT])

    def _is_shown(self, notice: Notice) -> bool:
        about = open_of(notice.facts)
        return any(
            alarm.priority <= notice.priority
            and (about is None or (alarm.id, alarm.occurrence) == (about.id, about.occurrence))
            for alarm in self._alarms or ()
        )

    def _noticeable(self) -> list[Line]:
        """The siren when it is to sound, else the lamps that are to be lit."""
        on = [line for line in self._lines.values() if line.wanted not in (None, Light.OFF.value)]
        siren = [line for line in on if line.part is Part.SIREN]
        return siren or [line for line in on if line.part is not Part.GREEN]

    async def _prove(self) -> Sent:
        if self._alarms is None or not allows(self._alarms, Step.PROOF):
            detail = "an alarm is open: a test may neither hide it nor be taken for one"
            return Sent(outcome=Outcome.LATER, detail=detail, retry_s=60.0)
        try:
            shown, failed = await self._play(PROOF_TEST)
        except RefusedError as error:
            return Sent(outcome=Outcome.LATER, detail=error.message, retry_s=_STEP_WAIT_S)
        if shown < len(PROOF_TEST):
            return Sent(outcome=Outcome.LATER, detail="an alarm ended the test", retry_s=60.0)
        if failed:
            return Sent(outcome=Outcome.FAILED, detail="; ".join(failed.values())[:_DETAIL_LIMIT])
        return Sent(outcome=Outcome.DELIVERED, detail="the pattern of the proof test was read back")

    # --- tests ---

    async def _play(self, steps: Sequence[Step]) -> tuple[int, dict[Step, str]]:
        """Show the steps in turn, each from when it is confirmed or known to fail.

        Returns:
            How many were shown to their end, and why those failed that did.
        """
        if self._is_testing:
            raise RefusedError("busy", f"beacon {self.settings.id} is being tested", retry_s=_STEP_WAIT_S)
        self._is_testing = True
        failed: dict[Step, str] = {}
        try:
            for count, step in enumerate(steps):
                if not allows(self._alarms or (), step):
                    return count, failed
                if why := await self._begin(step):
                    failed[step] = why
                end_s = mono_s() + (self.settings.chirp_s if step in _CHIRPS else self.settings.lamp_s)
                while self._step is step and await self._keeper.news(end_s):
                    pass
                if self._step is not step:
                    return count, failed
            return len(steps), failed
        finally:
            self._is_testing, self._step = False, None
            self._apply()

    async def _begin(self, step: Step) -> str:
        """Want it. Returns why it is not known to be shown; empty when it is, or the test is over."""
        lines = [line for part, line in self._lines.items() if step in PROOF_TEST or part.value == step.value]
        misses = {line.part: line.misses for line in lines}
        end_s = mono_s() + _STEP_WAIT_S
        self._step = step
        self._apply()
        while self._step is step and not all(line.is_right for line in lines):
            late = [line.why for line in lines if line.misses > misses[line.part]]
            if late:
                return "; ".join(late)
            if not await self._keeper.news(end_s):
                return next((line.why for line in lines if line.why), f"not read back within {_STEP_WAIT_S:g} s")
        return ""

    # --- the loop ---

    def _apply(self) -> None:
        """Want what the alarms look like now."""
        self.health.facts["silenced"] = sorted({name for name, _, _ in self._silenced})
        self.health.facts["test"] = self._step.value if self._step is not None else ""
        if self._alarms is not None:
            shown = picture(self._alarms, self._silenced, self._step, mono_s(), siren=self.settings.siren)
            self._keeper.want(wanted_states(shown, {part: line.ref.states for part, line in self._lines.items()}))

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keeper.run(), name=f"beacon {self.settings.id} outputs")
            group.create_task(self._tick(group), name=f"beacon {self.settings.id} clock")

    async def _tick(self, group: asyncio.TaskGroup) -> None:
        """Silences that end, tests that are due."""
        while True:
            self.health.beat_s = mono_s()
            kept = still_silenced(self._silenced, self._alarms or (), mono_s())
            if kept != self._silenced:
                self._silenced = kept
                self._apply()
            if self._is_test_due():
                group.create_task(self._weekly_test(), name=f"beacon {self.settings.id} lamp test")
            await asyncio.sleep(_TICK_S)

    def _is_test_due(self) -> bool:
        schedule, alarms = self.settings.lamp_test, self._alarms
        if schedule is None or alarms is None or self._is_testing or not allows(alarms, Step.RED):
            return False
        return is_due(schedule, now().utc_ms, self._tested_ms, self.settings.timezone)

    async def _weekly_test(self) -> None:
        try:
            result = await self.lamp_test()
        except RefusedError:  # an alarm came first
            return
        if result.failed:
            _log.warning("beacon %s: lamp test: %s", self.settings.id, "; ".join(result.failed.values()))

    def _farewell(self) -> list[tuple[Part, str]]:
        """What says that the gateway has stopped: green goes out, amber comes. A siren that sounds goes on: nobody has
        acknowledged."""
        amber = (LOST, Light.SLOW.value, Light.ON.value)
        states = {part: line.ref.states for part, line in self._lines.items()}
        last = [(Part.GREEN, Light.OFF.value)] if Part.GREEN in states else []
        if Part.AMBER in states:
            last.append((Part.AMBER, next(state for state in amber if state in states[Part.AMBER])))
        return last


async def _call(run: Run) -> None:
    await run()


def is_due(schedule: Weekly, now_ms: int, tested_ms: int, timezone: str) -> bool:
    """Whether the lamps must be tested now. Pure.

    Due within the hour after the set time, on the set day; on another day as well when the last test is more than a
    week ago, so that one that an alarm prevented is made up for, and never at another hour.

    Args:
        now_ms, tested_ms: UTC milliseconds; of the last test, or of the start of the gateway.
    """
    local = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(timezone))
    start = local.replace(hour=schedule.hour, minute=schedule.minute, second=0, microsecond=0, fold=0)
    if not start <= local < start + _TEST_WINDOW or tested_ms >= start.timestamp() * 1000:
        return False
    return local.weekday() == schedule.weekday or now_ms - tested_ms > _WEEK_MS
