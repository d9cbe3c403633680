"""How a site's registers are grouped into requests, and what they cost the wire. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..sensors.buses import BusKind, BusSpec, UnitSpec
from ..sensors.registers import Block, Register, Table, plan

FUNCTIONS = {Table.COIL: 1, Table.DISCRETE: 2, Table.HOLDING: 3, Table.INPUT: 4}
FULL_PCT = 70.0  # beyond it, a missed reply or two make polls late
REQUEST_BYTES = 8  # RTU: unit, function, address, count, CRC
REPLY_EXTRA_BYTES = 5  # RTU: unit, function, byte count, CRC


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRead:
    """One request of a poll.

    Attributes:
        names: registers that it answers. wanted: addresses that they need. along: the others, read because asking
            twice would cost more.
        wire_ms: request, reply and the silence before each, on a serial wire; 0 for `tcp`.
    """

    block: Block
    names: tuple[str, ...]
    wanted: int
    along: int
    wire_ms: float

    @property
    def function(self) -> int:
        return FUNCTIONS[self.block.table]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedUnit:
    """A poll of one unit. `load_pct`: share of the wire's time."""

    unit: UnitSpec
    reads: tuple[PlannedRead, ...]

    @property
    def wire_ms(self) -> float:
        return sum(read.wire_ms for read in self.reads)

    @property
    def load_pct(self) -> float:
        return self.wire_ms / self.unit.poll_s / 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBus:
    """All polls of one bus."""

    spec: BusSpec
    units: tuple[PlannedUnit, ...]

    @property
    def load_pct(self) -> float:
        """Without the time that the devices take to answer, which nobody knows before they are asked."""
        return sum(unit.load_pct for unit in self.units)

    @property
    def room_ms(self) -> float:
        """How long every device may take to answer, at most, before the bus is full (`FULL_PCT`); negative if it is."""
        per_s = sum(len(unit.reads) / unit.unit.poll_s for unit in self.units)
        return (FULL_PCT - self.load_pct) * 10 / per_s if per_s else 0.0


def plan_bus(spec: BusSpec) -> PlannedBus:
    """The requests that the owner of this bus will make."""
    return PlannedBus(spec=spec, units=tuple(_plan_unit(spec, unit) for unit in spec.units))


def _plan_unit(spec: BusSpec, unit: UnitSpec) -> PlannedUnit:
    """A unit that has only outputs is asked for their states, or nobody would know that it lives."""
    blocks = plan(unit.registers, max_gap=unit.max_gap, max_count=unit.max_count)
    reads = tuple(_planned(spec, block) for block in blocks)
    if not reads:
        states = ((Block(table=o.table, address=o.address, count=1), o.name) for o in unit.outputs)
        reads = tuple(replace(_planned(spec, block), names=(name,), wanted=1, along=0) for block, name in states)
    return PlannedUnit(unit=unit, reads=reads)


def _planned(spec: BusSpec, block: Block) -> PlannedRead:
    wanted = len({address for register in block.registers for address in _addresses(register)})
    return PlannedRead(
        block=block,
        names=tuple(register.name for register in block.registers),
        wanted=wanted,
        along=block.count - wanted,
        wire_ms=wire_ms(spec, block),
    )


def _addresses(register: Register) -> set[int]:
    """What must be read to decode it: its own words and what stands beside."""
    beat = register.heartbeat
    single = (register.decimals_at, register.unit_at, beat.address if beat else None)
    several = (*(status.address for status in register.status), *(part.address for part in register.parts))
    own = range(register.address, register.address + register.type.words)
    return {*own, *several, *(address for address in single if address is not None)}


def character_ms(spec: BusSpec) -> float:
    """One character on the wire: start, 8 data, parity if any, stop bits (Modbus over serial line v1.02 §2.5.1)."""
    bits = 1 + 8 + (spec.parity != "N") + spec.stopbits
    return 1000 * bits / spec.baud


def wire_ms(spec: BusSpec, block: Block) -> float:
    """Request, reply and the silence before each at the bus's speed; 0 for `tcp`."""
    if spec.kind is BusKind.TCP:
        return 0.0
    gap_ms = max(3.5 * character_ms(spec), 1.75, spec.inter_frame_ms)  # §2.5.1.1: 1.75 ms above 19200
    characters = REQUEST_BYTES + REPLY_EXTRA_BYTES + block.reply_bytes
    return characters * character_ms(spec) + 2 * gap_ms


def quirks(unit: UnitSpec) -> tuple[tuple[str, int], ...]:
    """(key, value) of the limits that shaped the plan."""
    own: Sequence[tuple[str, int | None]] = (
        ("max_gap", unit.max_gap),
        ("max_count", unit.max_count),
        ("timeout_ms", unit.timeout_ms),
    )
    return tuple((key, value) for key, value in own if value is not None)
