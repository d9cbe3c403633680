"""The buses that run now: one supervised loop for each wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from ..sensors.buses import BusHealth, BusSpec, ReplyError
from ..sensors.modbus import Bus, Sink
from ..words import mono_s
from .loops import Loops, again


@dataclass(slots=True)
class _Wire:
    """`bus` is the present owner, None while it has failed and waits to be started again."""

    spec: BusSpec
    health: BusHealth
    bus: Bus | None = None


class Wires:
    """Starts, changes and stops buses.

    Args:
        loops: each bus is the loop `bus-<id>`.
        sink: takes the readings.

    Attributes:
        health: by id of the bus, of those that run.
    """

    def __init__(self, loops: Loops, sink: Sink) -> None:
        self.health: dict[str, BusHealth] = {}
        self._loops = loops
        self._sink = sink
        self._wires: dict[str, _Wire] = {}

    @property
    def specs(self) -> Mapping[str, BusSpec]:
        """Of the buses that run, by id."""
        return {name: wire.spec for name, wire in self._wires.items()}

    def start(self, spec: BusSpec) -> None:
        """Poll a wire from now on."""
        health = BusHealth.of(spec)
        health.beat_s = mono_s()  # the watchdog counts from now
        wire = _Wire(spec, health)
        wire.bus = Bus(spec, self._sink, health)
        self._wires[spec.id], self.health[spec.id] = wire, health
        run = again(f"bus {spec.id}", lambda: self._own(wire))
        self._loops.start(_loop(spec.id), run, lambda: wire.health.beat_s)

    async def stop(self, names: Iterable[str]) -> None:
        """Close these wires; returns when the last one is closed, or is known to hang."""
        names = [name for name in names if name in self._wires]
        for name in names:
            del self._wires[name], self.health[name]
        await self._loops.stop(*map(_loop, names))

    def change(self, spec: BusSpec) -> None:
        """Other units or times on the same wire: units that stay the same go on without a missed poll."""
        wire = self._wires[spec.id]
        wire.spec = spec
        if wire.bus is not None:
            wire.bus.change(spec)

    def bus(self, name: str) -> Bus:
        """The running bus. Raises ReplyError when there is none now."""
        wire = self._wires.get(name)
        if wire is None or wire.bus is None:
            raise ReplyError("no_connection", f"bus {name} does not run now")
        return wire.bus

    async def _own(self, wire: _Wire) -> NoReturn:
        if wire.bus is None:  # it failed before, and may have been changed since
            units = BusHealth.of(wire.spec).units
            wire.health.units = {device: wire.health.units.get(device, unit) for device, unit in units.items()}
            wire.bus = Bus(wire.spec, self._sink, wire.health)
        try:
            await wire.bus.run()
        finally:
            wire.bus = None


def _loop(name: str) -> str:
    return f"bus-{name}"
