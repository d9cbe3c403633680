"""What a bus is made of and how it fares: specifications that configuration builds, counters that pages show."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ..errors import ConfigError, TransientError
from ..words import Instant
from .breaker import BreakerState
from .registers import ADDRESSES, MAX_REGISTERS, Output, Register, Table, plan

RTU_UNIT_IDS = range(1, 248)
TCP_UNIT_IDS = range(256)


class BusKind(enum.StrEnum):
    """`rtu_tcp`: RTU frames through a transparent serial-to-Ethernet converter, with all of RTU's troubles."""

    TCP = "tcp"
    RTU = "rtu"
    RTU_TCP = "rtu_tcp"

    @property
    def is_rtu(self) -> bool:
        return self is not BusKind.TCP


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpec:
    """One device on a bus.

    Attributes:
        device: `area.device`; a reading's point is `device.register`.
        poll_s: seconds between polls.
        timeout_ms: for slow devices; None takes the bus's.
        max_gap, max_count: limits of block reads, see `registers.plan`.
        outputs: what may be written; nothing else ever is.
    """

    device: str
    unit_id: int
    registers: tuple[Register, ...]
    poll_s: float
    timeout_ms: int | None = None
    max_gap: int = 0
    max_count: int = MAX_REGISTERS
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BusSpec:
    """One wire with one owner.

    Attributes:
        host, port: of `tcp` and `rtu_tcp`.
        serial: device path of `rtu`, best `/dev/serial/by-id/...`.
        timeout_ms: from request to reply.
        late_max_ms: the latest that a reply was ever seen to come after its request (`rtu`, `rtu_tcp`). After a missed
            reply the bus is silent for so long. A reply that is later still can be mistaken for another one of the same
            unit, function and length.
        inter_frame_ms: least silence between frames; RTU never goes below 3.5 characters (Modbus over serial line
            v1.02 §2.5.1.1).

    Raises:
        ConfigError: with every problem.
    """

    id: str
    kind: BusKind
    units: tuple[UnitSpec, ...]
    host: str = ""
    port: int = 502
    serial: str = ""
    baud: int = 9600
    parity: str = "N"
    stopbits: int = 1
    timeout_ms: int = 500
    late_max_ms: int = 1500
    inter_frame_ms: int = 0

    def __post_init__(self) -> None:
        if problems := [*_bus_problems(self), *_unit_problems(self)]:
            raise ConfigError(f"bus {self.id}", problems)

    @property
    def gap_s(self) -> float:
        """Silence before a request, seconds."""
        characters_s = max(3.5 * 11 / self.baud, 0.00175) if self.kind is BusKind.RTU else 0.0
        return max(self.inter_frame_ms / 1000, characters_s)

    @property
    def late_s(self) -> float:
        """Seconds after a request until which its reply may still come and be taken for another; 0 for TCP."""
        return self.late_max_ms / 1000 if self.kind.is_rtu else 0.0

    def timeout_s(self, unit: UnitSpec) -> float:
        """Seconds that `unit` has to answer."""
        return (self.timeout_ms if unit.timeout_ms is None else unit.timeout_ms) / 1000

    def same_wire(self, other: BusSpec) -> bool:
        """Whether both name the same port or socket with the same settings."""
        return self._wire() == other._wire()

    def _wire(self) -> tuple[object, ...]:
        if self.kind is BusKind.RTU:
            return self.kind, self.serial, self.baud, self.parity, self.stopbits
        return self.kind, self.host, self.port


def _bus_problems(spec: BusSpec) -> list[str]:
    wants_host = spec.kind is not BusKind.RTU
    checks = [
        (not wants_host or bool(spec.host), f"host: must be set for {spec.kind} (got '')"),
        (not wants_host or 1 <= spec.port <= 65535, f"port: must be 1..65535 (got {spec.port})"),
        (wants_host or bool(spec.serial), "serial: must be a device path (got '')"),
        (spec.baud > 0, f"baud: must be positive (got {spec.baud})"),
        (spec.parity in {"N", "E", "O"}, f"parity: must be N, E or O (got {spec.parity!r})"),
        (spec.stopbits in {1, 2}, f"stopbits: must be 1 or 2 (got {spec.stopbits})"),
        (spec.timeout_ms > 0, f"timeout_ms: must be positive (got {spec.timeout_ms})"),
        (spec.inter_frame_ms >= 0, f"inter_frame_ms: must not be negative (got {spec.inter_frame_ms})"),
    ]
    if spec.kind.is_rtu:
        slowest = max((u.timeout_ms or 0 for u in spec.units), default=0)
        least = max(spec.timeout_ms, slowest)
        checks.append(
            (spec.late_max_ms >= least, f"late_max_ms: must be at least the timeout, {least} (got {spec.late_max_ms})"),
        )
    return [text for fine, text in checks if not fine]


def _unit_problems(spec: BusSpec) -> list[str]:
    problems: list[str] = []
    ids, devices = set[int](), set[str]()
    allowed = RTU_UNIT_IDS if spec.kind.is_rtu else TCP_UNIT_IDS
    for index, unit in enumerate(spec.units):
        where = f"units[{index}]"
        if unit.unit_id not in allowed:
            problems.append(f"{where}.unit_id: must be {allowed[0]}..{allowed[-1]} (got {unit.unit_id})")
        if spec.kind.is_rtu and unit.unit_id in ids:  # their late replies could not be told apart
            problems.append(f"{where}.unit_id: must be unique on an RTU bus (got {unit.unit_id} again)")
        if unit.device in devices:
            problems.append(f"{where}.device: must be unique (got {unit.device!r} again)")
        if not unit.poll_s > 0:
            problems.append(f"{where}.poll_s: must be positive (got {unit.poll_s})")
        if unit.timeout_ms is not None and unit.timeout_ms <= 0:
            problems.append(f"{where}.timeout_ms: must be positive (got {unit.timeout_ms})")
        problems += [f"{where}.registers: {text}" for text in _register_problems(unit)]
        problems += [f"{where}.outputs: {text}" for text in _output_problems(unit)]
        ids.add(unit.unit_id)
        devices.add(unit.device)
    return problems


def _register_problems(unit: UnitSpec) -> list[str]:
    names = [r.name for r in unit.registers]
    if not names and not unit.outputs:
        return ["must not be empty"]
    repeated = sorted({n for n in names if names.count(n) > 1})
    problems = [f"name must be unique (got {name!r} again)" for name in repeated]
    try:
        plan(unit.registers, max_gap=unit.max_gap, max_count=unit.max_count)
    except ValueError as error:
        problems.append(str(error))
    return problems


def _output_problems(unit: UnitSpec) -> list[str]:
    problems: list[str] = []
    for output in unit.outputs:
        highest = 1 if output.table.is_bits else 0xFFFF
        if output.table not in (Table.COIL, Table.HOLDING):
            problems.append(f"{output.name}: only coils and holding registers can be written (got {output.table})")
        if not output.states:
            problems.append(f"{output.name}: states must not be empty")
        if not 0 <= output.address < ADDRESSES:
            problems.append(f"{output.name}: address must be 0..65535 (got {output.address})")
        wrong = [raw for _, raw in output.states if not 0 <= raw <= highest]
        problems += [f"{output.name}: a state must be 0..{highest} (got {raw})" for raw in wrong]
    names = [o.name for o in unit.outputs]
    repeated = sorted({n for n in names if names.count(n) > 1})
    return problems + [f"name must be unique (got {name!r} again)" for name in repeated]


@dataclass(slots=True, kw_only=True)
class UnitHealth:
    """Counters of one unit. `polls == good + bad + skipped`, always.

    Attributes:
        polls: polls that were made or skipped; one that is under way is not among them yet.
        good: every block was answered. bad: at least one was not. skipped: nobody was asked (breaker open, or the bus
            was busy for a whole period).
        timeouts, exceptions, bad_frames: requests that ended so.
        resyncs: resynchronizing reads that were answered.
        reply_ms, slowest_ms: from request to reply, smoothed and at its worst; 0 until it has answered.
        why: reason of the last failure, "" while the unit answers.
        last_error: the same for a technician.
    """

    device: str
    unit_id: int
    polls: int = 0
    good: int = 0
    bad: int = 0
    skipped: int = 0
    timeouts: int = 0
    exceptions: int = 0
    bad_frames: int = 0
    resyncs: int = 0
    reply_ms: float = 0.0
    slowest_ms: float = 0.0
    breaker: BreakerState = BreakerState.CLOSED
    why: str = ""
    last_error: str = ""
    last_good_at: Instant | None = None

    def replied(self, reply_ms: float) -> None:
        """Take one more time from request to reply into account."""
        self.reply_ms += (reply_ms - self.reply_ms) / 16 if self.reply_ms else reply_ms
        if reply_ms > self.slowest_ms:
            self.slowest_ms = reply_ms

    @property
    def state(self) -> str:
        """`ok`, `fault` (also until it has answered once) or `breaker`."""
        if self.breaker is not BreakerState.CLOSED:
            return "breaker"
        return "fault" if self.why or self.last_good_at is None else "ok"


@dataclass(slots=True, kw_only=True)
class BusHealth:
    """Counters of one bus; written by its owner task alone, read by anyone.

    Attributes:
        connected: the port or socket is open.
        reconnects: times it was opened again after the first time.
        strays: times that bytes came which nobody had asked for.
        beat_s: `words.mono_s()` when the owner's loop last turned.
    """

    id: str
    units: dict[str, UnitHealth] = field(default_factory=dict)
    connected: bool = False
    reconnects: int = 0
    strays: int = 0
    last_error: str = ""
    beat_s: float = 0.0

    @classmethod
    def of(cls, spec: BusSpec) -> BusHealth:
        """Zeroed counters for a bus and its units."""
        return cls(id=spec.id, units={u.device: UnitHealth(device=u.device, unit_id=u.unit_id) for u in spec.units})

    @property
    def polls(self) -> int:
        return sum(u.polls for u in self.units.values())

    @property
    def good(self) -> int:
        return sum(u.good for u in self.units.values())

    @property
    def bad(self) -> int:
        return sum(u.bad for u in self.units.values())

    @property
    def skipped(self) -> int:
        return sum(u.skipped for u in self.units.values())

    @property
    def timeouts(self) -> int:
        return sum(u.timeouts for u in self.units.values())

    @property
    def resyncs(self) -> int:
        return sum(u.resyncs for u in self.units.values())

    @property
    def last_good_at(self) -> Instant | None:
        """When any unit last answered."""
        moments = [u.last_good_at for u in self.units.values() if u.last_good_at is not None]
        return max(moments, key=lambda m: m.mono_s, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a unit answered to somebody's read or write: words (bits as 0/1), and how long it took."""

    words: tuple[int, ...]
    reply_ms: float


class ReplyError(TransientError):
    """A request without a usable reply.

    Attributes:
        why: the reason word of the readings.
        asked: the request was sent.
        code: of the Modbus exception that was the answer, else 0.
    """

    def __init__(self, why: str, message: str, *, asked: bool = False, code: int = 0) -> None:
        super().__init__(message)
        self.why = why
        self.asked = asked
        self.code = code
