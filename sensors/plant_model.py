"""What happens inside the simulated plant: points that move plausibly, devices that can be broken on purpose.

Pure apart from `Plant`, which owns the state of one running simulation.
"""

from __future__ import annotations

import enum
import math
import random
from dataclasses import dataclass

from ..errors import RefusedError
from .plant_board import Board
from .plant_devices import PLANT, Image, SimDevice, SimPoint, Wire

LATE_MAX_S = 60.0
_SETTLE_S = 120.0


class DeviceMode(enum.StrEnum):
    """How a simulated device behaves on its wire. A board can be deaf, too (it hears no write, and answers reads), or
    stuck: it confirms what is written and does not do it."""

    OK = "ok"
    DEAD = "dead"
    LATE = "late"
    DEAF = "deaf"
    STUCK = "stuck"


_OF_BOARDS = (DeviceMode.DEAF, DeviceMode.STUCK)


def walk(point: SimPoint, at: float, dt_s: float, noise: float) -> float:
    """One step of the bounded random walk: pulled to 0 with a time constant of two minutes.

    Args:
        at: where the walk stands, in the point's unit.
        noise: one standard normal sample.
    """
    pull = math.exp(-dt_s / _SETTLE_S)
    spread = point.wander / 2.5 * math.sqrt(1.0 - pull * pull)
    return max(-point.wander, min(point.wander, at * pull + spread * noise))


def natural(point: SimPoint, at: float, elapsed_s: float, day_s: float, phase: float) -> float:
    """The value of a point that nobody touches; `phase` in radians."""
    value = point.normal + point.wave * math.sin(2 * math.pi * elapsed_s / day_s + phase) + at
    return max(point.low, min(point.high, value))


@dataclass(slots=True, kw_only=True)
class _PointState:
    device: SimDevice
    spec: SimPoint
    phase: float
    at: float = 0.0
    held: float | None = None


@dataclass(slots=True, kw_only=True)
class DeviceState:
    """How one device is told to behave, and how often it was asked or has sent. `board`: of one that can be written."""

    spec: SimDevice
    board: Board | None = None
    mode: DeviceMode = DeviceMode.OK
    late_s: float = 0.7
    requests: int = 0

    @property
    def delay_s(self) -> float:
        """Seconds that an answer waits."""
        return self.late_s if self.mode is DeviceMode.LATE else 0.0

    @property
    def modes(self) -> tuple[DeviceMode, ...]:
        """How it can be told to behave."""
        return tuple(mode for mode in DeviceMode if self.board is not None or mode not in _OF_BOARDS)


class Plant:
    """The state of one running simulation. Not thread-safe; everything happens on one event loop.

    Args:
        seed: of the random walk; the same seed and steps give the same values.
        day_s: length of a day; shorter than a real one so that a demo shows the wave.
    """

    def __init__(
        self, devices: tuple[SimDevice, ...] = PLANT, *, seed: int | None = None, day_s: float = 3600.0
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311  (weather, not secrets)
        self._day_s = day_s
        self._elapsed_s = 0.0
        self._points: dict[str, _PointState] = {}
        self.devices: dict[str, DeviceState] = {}
        for device in devices:
            board = Board(outputs=device.outputs, watchdog_s=device.watchdog_s) if device.outputs else None
            self.devices[device.id] = DeviceState(spec=device, board=board)
            for point in device.points:
                phase = self._random.uniform(0.0, 2 * math.pi)
                self._points[f"{device.id}.{point.name}"] = _PointState(device=device, spec=point, phase=phase)

    def step(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass."""
        self._elapsed_s += dt_s
        for state in self._points.values():
            state.at = walk(state.spec, state.at, dt_s, self._random.gauss(0.0, 1.0))
        for device in self.devices.values():
            if device.board is not None:
                device.board.step(dt_s)

    def value(self, point_id: str) -> float:
        """What the point measures now, in its wire's resolution."""
        state = self._points[point_id]
        if state.held is not None:
            return state.held
        return round(natural(state.spec, state.at, self._elapsed_s, self._day_s, state.phase), state.spec.decimals)

    def values(self, device: SimDevice) -> dict[str, float]:
        """The device's values by point name."""
        return {point.name: self.value(f"{device.id}.{point.name}") for point in device.points}

    def hold(self, point_id: str, value: float | None) -> None:
        """Hold a point at a value, or release it with None. Raises RefusedError."""
        state = self._points.get(point_id)
        if state is None:
            raise RefusedError("no_such_point", f"no point {point_id!r}", hint=f"one of {', '.join(self._points)}")
        spec = state.spec
        if value is not None and not (math.isfinite(value) and spec.low <= value <= spec.high):
            raise RefusedError(
                "out_of_range", f"{point_id} cannot be {value:g} {spec.unit}", hint=f"{spec.low:g} to {spec.high:g}"
            )
        state.held = value

    def device(self, name: str) -> DeviceState:
        """A device by `area.device` or by its last part. Raises RefusedError."""
        for key, state in self.devices.items():
            if name in (key, state.spec.device):
                return state
        raise RefusedError("no_such_device", f"no device {name!r}", hint=f"one of {', '.join(self.devices)}")

    def set_mode(self, name: str, mode: DeviceMode, late_s: float | None = None) -> None:
        """Make a device ok, dead, late by `late_s` seconds, or a board deaf or stuck. Raises RefusedError."""
        state = self.device(name)
        if mode not in state.modes:
            raise RefusedError("no_board", f"{name} cannot be {mode}: nothing is written to it", hint=_modes(state))
        if late_s is not None and not 0.0 < late_s <= LATE_MAX_S:
            raise RefusedError("out_of_range", f"{name} cannot be {late_s:g} s late", hint=f"0 to {LATE_MAX_S:g}")
        state.mode = mode
        state.late_s = late_s if late_s is not None else state.late_s

    def units(self, wire: Wire) -> dict[int, DeviceState]:
        """The Modbus devices of a wire by unit id."""
        return {state.spec.unit_id: state for state in self.devices.values() if state.spec.wire is wire}

    def image(self, device: SimDevice) -> Image:
        """What the device's registers hold now."""
        board = self.devices[device.id].board
        if board is not None:
            return Image(holding=board.codes)
        return device.image(self.values(device)) if device.image else Image()

    def to_json(self) -> dict[str, object]:
        """Points and devices as the page shows them."""
        return {
            "points": [self._point_json(key, state) for key, state in self._points.items()],
            "devices": [_device_json(key, state) for key, state in self.devices.items()],
        }

    def _point_json(self, key: str, state: _PointState) -> dict[str, object]:
        spec = state.spec
        return {
            "id": key,
            "device": state.device.id,
            "name": spec.name_zh,
            "name_en": spec.name_en,
            "unit": spec.unit,
            "decimals": spec.decimals,
            "low": spec.low,
            "high": spec.high,
            "limits": spec.limits.to_json(),
            "value": self.value(key),
            "held": state.held,
        }


def _device_json(key: str, state: DeviceState) -> dict[str, object]:
    spec = state.spec
    return {
        "id": key,
        "name": spec.name_zh,
        "name_en": spec.name_en,
        "wire": spec.wire.value,
        "unit_id": spec.unit_id,
        "mode": state.mode.value,
        "modes": [mode.value for mode in state.modes],
        "late_s": state.late_s,
        "requests": state.requests,
        "outputs": state.board.to_json() if state.board is not None else [],
        "lost": state.board is not None and state.board.lost,
    }


def _modes(state: DeviceState) -> str:
    return f"one of {', '.join(state.modes)}"
