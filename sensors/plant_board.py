"""A board of the simulated plant that can be written: a siren and lamps on holding registers, with a watchdog. Pure.

It keeps what was written and reads it back. When nobody has written for a while it shows by itself that the gateway is
gone; what its registers hold stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOutput:
    """One holding register that may be written.

    Attributes:
        name: last part of the output's id.
        states: what it can be, by the code that is written.
        lost: what it is while nobody writes any more; empty: as it was written last.
    """

    name: str
    name_zh: str
    name_en: str
    address: int
    states: Mapping[int, str]
    lost: str = ""


@dataclass(slots=True, kw_only=True)
class Board:
    """The state of one board: everything off until something is written.

    Attributes:
        watchdog_s: without a write for so long it shows that the gateway is gone.
        codes: what its registers hold, by address.
        unwritten_s: since the last write, or since the start.
    """

    outputs: tuple[SimOutput, ...]
    watchdog_s: float
    codes: dict[int, int] = field(default_factory=dict[int, int])
    unwritten_s: float = 0.0

    def __post_init__(self) -> None:
        self.codes = {output.address: 0 for output in self.outputs}

    @property
    def lost(self) -> bool:
        """Nobody writes any more."""
        return self.unwritten_s >= self.watchdog_s

    def step(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass."""
        self.unwritten_s += dt_s

    def write(self, address: int, code: int, *, obeys: bool = True) -> int:
        """Write one register.

        Args:
            obeys: False confirms the write and does nothing, as a welded relay does.

        Returns:
            0, or the code of the Modbus exception.
        """
        output = next((item for item in self.outputs if item.address == address), None)
        if output is None:
            return ILLEGAL_ADDRESS
        if code not in output.states:
            return ILLEGAL_VALUE
        self.unwritten_s = 0.0
        if obeys:
            self.codes[address] = code
        return 0

    def shown(self) -> dict[str, str]:
        """What a person sees and hears: each output's state by its name."""
        return {
            output.name: output.lost if self.lost and output.lost else output.states[self.codes[output.address]]
            for output in self.outputs
        }

    def to_json(self) -> list[dict[str, object]]:
        """The outputs as the page shows them."""
        shown = self.shown()
        return [
            {
                "id": output.name,
                "name": output.name_zh,
                "name_en": output.name_en,
                "state": shown[output.name],
                "states": list(output.states.values()),
            }
            for output in self.outputs
        ]
