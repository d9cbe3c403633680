"""What a stack light and a siren show of the open alarms. Pure: alarms in, wanted states of outputs out.

Flashing means that nobody has acknowledged, steady that somebody has. Green means that nothing is open, and is never
shown beside an open alarm, not even in a test.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from .opened import Open, Silenced, heard

SIREN_PRIORITIES = frozenset({1})


class Light(enum.StrEnum):
    """What one lamp does, least urgent first. The values are the names of an output's states in its profile."""

    OFF = "off"
    ON = "on"
    SLOW = "slow"
    FAST = "fast"


class Part(enum.StrEnum):
    """What a beacon is made of, the most urgent first: in this order outputs are written."""

    SIREN = "siren"
    RED = "red"
    AMBER = "amber"
    GREEN = "green"


class Step(enum.StrEnum):
    """What a test shows. RED to SIREN are the lamp test, PROOF_SOUND and PROOF the proof test of the whole chain."""

    RED = "red"
    AMBER = "amber"
    GREEN = "green"
    SIREN = "siren"
    PROOF_SOUND = "proof_sound"
    PROOF = "proof"


LAMP_TEST = (Step.RED, Step.AMBER, Step.GREEN, Step.SIREN)
PROOF_TEST = (Step.PROOF_SOUND, Step.PROOF)

_URGENCY = {light: i for i, light in enumerate(Light)}
_NEAREST = {
    Light.FAST: (Light.FAST, Light.SLOW, Light.ON),
    Light.SLOW: (Light.SLOW, Light.ON),
    Light.ON: (Light.ON,),
    Light.OFF: (Light.OFF,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is shown."""

    red: Light = Light.OFF
    amber: Light = Light.OFF
    green: Light = Light.OFF
    siren: bool = False

    def light(self, part: Part) -> Light:
        """Of one part; a siren is on or off."""
        match part:
            case Part.SIREN:
                return Light.ON if self.siren else Light.OFF
            case Part.RED:
                return self.red
            case Part.AMBER:
                return self.amber
            case Part.GREEN:
                return self.green


def picture(
    alarms: Collection[Open],
    silenced: Silenced,
    lamp_test: Step | None,
    now_s: float,
    *,
    siren: frozenset[int] = SIREN_PRIORITIES,
) -> Picture:
    """What the open alarms look like.

    Args:
        alarms: every open one that the beacon is for.
        silenced: whose siren is quiet; the light is not concerned.
        lamp_test: the test that runs; what it may not show beside these alarms is not shown.
        now_s: monotonic seconds.
        siren: priorities that sound; where any does, a person who is not reached on any way sounds as well.
    """
    real = _real(alarms, bool(heard(alarms, silenced, siren, now_s, unreached=True)))
    if lamp_test is None or not allows(alarms, lamp_test):
        return real
    match lamp_test:
        case Step.PROOF_SOUND:
            return Picture(red=Light.SLOW, green=Light.SLOW, siren=True)
        case Step.PROOF:
            return Picture(red=Light.SLOW, green=Light.SLOW)
        case Step.SIREN:
            return Picture(siren=True)
        case Step.GREEN:
            return Picture(green=Light.ON)
        case Step.RED:
            return replace(real, red=Light.ON, green=Light.OFF)
        case Step.AMBER:
            return replace(real, amber=Light.ON, green=Light.OFF)


def allows(alarms: Collection[Open], step: Step) -> bool:
    """Whether a test may show this now. Nothing but the red and the amber lamp is tried while an acknowledged alarm is
    open, and nothing at all while one waits for its acknowledgement."""
    if not all(a.acked for a in alarms):
        return False
    return not alarms or step in (Step.RED, Step.AMBER)


def _real(alarms: Collection[Open], is_heard: bool) -> Picture:
    if not alarms:
        return Picture(green=Light.ON)
    signs = [_sign(alarm) for alarm in alarms]
    return Picture(red=_worst(signs, Part.RED), amber=_worst(signs, Part.AMBER), siren=is_heard)


def _sign(alarm: Open) -> tuple[Part, Light]:
    """A fault of the system is amber, unless it is as urgent as anything can be; so is what nobody is told of."""
    if alarm.covered:
        return Part.AMBER, Light.ON
    if alarm.priority == 1:
        return Part.RED, Light.ON if alarm.acked else Light.FAST
    if alarm.is_system:
        return Part.AMBER, Light.ON if alarm.acked else Light.SLOW
    if alarm.priority == 2:
        return Part.RED, Light.ON if alarm.acked else Light.SLOW
    return Part.AMBER, Light.ON if alarm.acked or alarm.priority > 3 else Light.FAST


def _worst(signs: Collection[tuple[Part, Light]], part: Part) -> Light:
    return max((light for p, light in signs if p is part), key=_URGENCY.__getitem__, default=Light.OFF)


def fit(wanted: Picture, parts: Collection[Part]) -> Picture:
    """The picture on a beacon that has these parts only: an open alarm is seen wherever there is a red or amber lamp.

    Without an amber lamp the red one is steady for what would be amber; without a red lamp the amber one does what the
    red one would. A missing green lamp or siren is left out.
    """
    red, amber = wanted.red, wanted.amber
    if Part.AMBER not in parts and amber is not Light.OFF:
        red, amber = max(red, Light.ON, key=_URGENCY.__getitem__), Light.OFF
    if Part.RED not in parts and red is not Light.OFF:
        red, amber = Light.OFF, max(red, amber, key=_URGENCY.__getitem__)
    return replace(wanted, red=red, amber=amber)


def nearest(light: Light, states: Collection[str]) -> str:
    """The state of an output that comes nearest, among those that it has: a lamp that cannot flash is on."""
    return next((option.value for option in _NEAREST[light] if option in states), Light.ON.value)


def wanted_states(shown: Picture, parts: Mapping[Part, Collection[str]]) -> dict[Part, str]:
    """What to write.

    Args:
        shown: what the alarms look like.
        parts: of the beacon, each with the states of its output.
    """
    fitted = fit(shown, parts)
    return {part: nearest(fitted.light(part), states) for part, states in parts.items()}
