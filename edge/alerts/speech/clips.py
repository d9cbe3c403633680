"""Recorded clips: which file says what (docs/speech.md). Pure but for the look into the folder."""

from __future__ import annotations

import contextlib
import re
import wave
from pathlib import Path

from ..opened import Open
from .words import LIMITS, Lang, Saying, saying_of

TEST_CLIP = "test"
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def names(alarm: Open) -> tuple[str, ...]:
    """Names of the clips that fit an alarm as it is now, the most exact one first.

    Clips of a point or an area are about its limits: they are not played because a sensor is silent.
    """
    if saying_of(alarm) is Saying.RETURNED:
        found = [f"{alarm.id}.returned"]
    else:
        found = [f"{alarm.id}.{alarm.kind}" if alarm.kind else "", alarm.id]
    if alarm.kind in LIMITS:
        suffix = ".returned" if saying_of(alarm) is Saying.RETURNED else ""
        found += [place and place + suffix for place in (alarm.point, alarm.area)]
    return tuple(name for name in found if name)


def find(folder: Path | None, lang: Lang, wanted: tuple[str, ...]) -> Path | None:
    """The first of these clips that there is in `folder/<lang>/`, `<name>.wav`."""
    if folder is None:
        return None
    for name in wanted:
        if _SAFE.fullmatch(name) and (path := folder / lang.value / f"{name}.wav").is_file():
            return path
    return None


def length_s(path: Path) -> float | None:
    """Seconds of a PCM WAV file; None when it is none, is empty or cannot be read."""
    with contextlib.suppress(OSError, EOFError, wave.Error), wave.open(str(path), "rb") as clip:
        return clip.getnframes() / clip.getframerate() or None
    return None
