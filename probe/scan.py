"""A scan from its first setting to its last, and the bar that shows how far it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TextIO

from ..console.language import Say
from ..console.text import cut, pad
from ..sensors.buses import BusKind, BusSpec, ReplyError
from ..sensors.profile import Profile
from ..words import mono_s
from .find import FoundUnit, ScanResult, Setting
from .link import Wire, unreachable
from .plan import wire_ms
from .run import HELLO, identify, scan_units
from .text import clock, hello_text, unit_lines

OpenWire = Callable[["Setting | None"], AbstractAsyncContextManager[Wire]]
IDENTIFY_MS = 500


class Bar:
    """One line that is written again and again on a terminal; nothing elsewhere. Lines of text go above it."""

    def __init__(self, stream: TextIO, say: Callable[[str], None], *, total: int, tr: Say) -> None:
        self._stream = stream if stream.isatty() else None
        self._say = say
        self._tr = tr
        self._start_s = mono_s()
        self.total = total
        self.done = 0
        self.text = ""

    def say(self, line: str) -> None:
        """A line that stays."""
        self.clear()
        self._say(line)
        self.draw()

    def step(self, text: str) -> None:
        """One more is done."""
        self.done += 1
        self.text = text
        self.draw()

    def draw(self) -> None:
        if self._stream is None:
            return
        columns = shutil.get_terminal_size().columns - 1
        line = bar_line(self.done, self.total, mono_s() - self._start_s, self.text, self._tr)
        self._stream.write(f"\r{pad(cut(line, columns), columns)}")
        self._stream.flush()

    def clear(self) -> None:
        if self._stream is not None:
            self._stream.write(f"\r{' ' * (shutil.get_terminal_size().columns - 1)}\r")
            self._stream.flush()


def bar_line(done: int, total: int, elapsed_s: float, text: str, tr: Say) -> str:
    """`[#####-----] 10/20  elapsed 0:03, left 0:03  unit 7`."""
    filled = round(24 * done / total) if total else 24
    left_s = elapsed_s / done * (total - done) if done else 0.0
    times = f"{tr('elapsed')} {clock(elapsed_s)}, {tr('left')} {clock(left_s)}"
    return f"[{'#' * filled}{'-' * (24 - filled)}] {done}/{total}  {times}  {text}"


@dataclass(slots=True, kw_only=True)
class Scan:
    """What to ask, and what came of it; `result` is whole at any moment.

    Attributes:
        settings: of a serial line, in order; (None,) for TCP and through the gateway.
        first_parity_only: later parities are left out when the first has found somebody.
        spec: of the wire that was used last.
    """

    settings: Sequence[Setting | None]
    first_parity_only: bool
    units: Sequence[int]
    timeout_ms: int
    profiles: Mapping[str, Profile]
    bar: Bar
    tr: Say
    result: ScanResult = field(default_factory=ScanResult)
    spec: BusSpec | None = None
    owned: bool = False
    shown: set[int] = field(default_factory=set[int])

    async def run(self, open_wire: OpenWire) -> None:
        """Every setting, every unit; then what each one is.

        Raises:
            TransientError, PermanentError: the wire cannot be used.
        """
        works = False  # a port that has worked may still refuse another setting
        for setting in self.settings:
            if self._enough(setting):
                break
            async with open_wire(setting) as wire:
                self.spec, self.owned = wire.spec, wire.socket is not None
                if self.owned:
                    self.bar.total = len(self.units)
                refused = ""
                try:
                    await self._one(wire, None if self.owned else setting)
                    works = True
                except ReplyError as error:
                    if not works or not wire.spec.serial:
                        raise unreachable(wire.spec, error, self.tr) from error
                    refused = error.message
            if refused:
                self.bar.say(self.tr("not_possible", setting, refused))
            if self.owned:  # its line is set as it is
                break
        self.result.ended = True
        self.bar.clear()

    def _enough(self, setting: Setting | None) -> bool:
        """Whether the later settings need not be tried: everybody was found, or somebody at the first parity."""
        if not set(self.units) - {unit.unit_id for unit in self.result.units}:
            return True
        first = self.settings[0]
        is_next_parity = setting is not None and first is not None and setting.parity != first.parity
        return self.first_parity_only and is_next_parity and bool(self.result.units)

    async def _one(self, wire: Wire, setting: Setting | None) -> None:
        if setting is None and wire.spec.kind is BusKind.RTU:
            setting = Setting(baud=wire.spec.baud, parity=wire.spec.parity, stopbits=wire.spec.stopbits)
        known = {unit.unit_id for unit in self.result.units}
        left = [unit_id for unit_id in self.units if unit_id not in known]
        self.bar.done += len(self.units) - len(left)
        timeout_s = (self.timeout_ms + wire_ms(wire.spec, HELLO)) / 1000
        where = setting or wire.spec.kind
        if left:
            self.bar.say(self.tr("asking", where, len(left), clock(len(left) * timeout_s)))

        is_tcp = not wire.spec.kind.is_rtu
        async for asked in scan_units(
            wire.guest, left, timeout_s=timeout_s, setting=setting, result=self.result, is_tcp=is_tcp
        ):
            self.bar.step(f"{setting or ''} {self.tr('unit')} {asked.unit_id}".strip())
            if asked.garbled:
                self.bar.say(self.tr("garbled", asked.unit_id, where))
            if asked.unit is not None:
                asked.unit.device = wire.devices.get(asked.unit_id, "")
                self.bar.say(self.tr("found", asked.unit_id, hello_text(asked.unit.hello, self.tr)))
                self.bar.total = len(self.units) * self._settings_left()
                await self._identify(wire, asked.unit)

    def _settings_left(self) -> int:
        """How many settings will be tried, now that somebody was found."""
        first = self.settings[0]
        if self.owned or first is None:
            return 1
        return sum(s is not None and (s.parity == first.parity or not self.first_parity_only) for s in self.settings)

    async def _identify(self, wire: Wire, unit: FoundUnit) -> None:
        self.bar.text = self.tr("identifying", unit.unit_id)
        self.bar.draw()
        wait_ms = max(self.timeout_ms, IDENTIFY_MS)
        await identify(wire.guest, unit, self.profiles.values(), timeout_s=wait_ms / 1000)
        self.show(unit)

    def show(self, unit: FoundUnit) -> None:
        """Print a unit, once."""
        if unit.unit_id not in self.shown:
            self.shown.add(unit.unit_id)
            for line in unit_lines(unit, self.tr):
                self.bar.say(line)
