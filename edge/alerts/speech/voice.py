"""A synthetic voice: espeak-ng, which gets pinyin and Latin letters and never hanzi (Debian's reads those in English).

A sentence is cut where the script changes: hanzi go through pinyin to the Mandarin voice, letters such as PT-4 to the
English one. Its pieces become one WAV file, which is kept while the sentence is repeated.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..port import Fault
from . import clips
from .numbers import LATIN
from .programs import ProgramError, Programs
from .words import Lang

PINYIN = (sys.executable, "-P", "-m", f"{__package__}.pinyin")
ESPEAK = "espeak-ng"
HINT = "sudo apt-get install --no-install-recommends espeak-ng"
_VOICES = {Lang.ZH: "cmn-latn-pinyin", Lang.EN: "en"}
_LOUDNESS = "200"
_PINYIN_S = 20.0
_RENDER_S = 20.0
_KEPT = 32
_NO_PHONEMES = str.maketrans("[]", "  ")  # what stands in [[ ]] is read as phonemes, and spoils the words after it
_INITIALS = re.compile(r"(?<=[A-Z0-9])(?=[A-Z])|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")


@dataclass(slots=True, kw_only=True)
class Voice:
    """Makes WAV files of sentences.

    Attributes:
        folder: where they are kept, the newest few.
        readings: words of the site whose pinyin nobody else knows.
        words_per_minute: how fast it speaks.
    """

    programs: Programs
    folder: Path
    readings: Mapping[str, str] = field(default_factory=dict[str, str])
    words_per_minute: int = 150

    async def render(self, text: str, lang: Lang) -> Path:
        """A WAV file with the sentence. It stays until some dozens of others have been made.

        Raises:
            ProgramError: the voice is missing, fails or hangs; or there is nothing in the text that it can say.
        """
        digest = hashlib.sha256(f"{lang.value} {text}".encode()).hexdigest()[:24]
        path = self.folder / f"{digest}.wav"
        if not path.exists():
            self._make_room()
            await self._make(text, lang, path)
        return path

    async def _make(self, text: str, lang: Lang, path: Path) -> None:
        pieces = await self._pieces(text, lang)
        parts: list[Path] = []
        try:
            for i, (voice, said) in enumerate(pieces):
                part = path.with_suffix(f".{i}.part")
                command = (ESPEAK, "-v", _VOICES[voice], "-s", str(self.words_per_minute), "-a", _LOUDNESS)
                parts.append(part)
                try:
                    await self.programs.run((*command, "--stdin", "-w", str(part)), _RENDER_S, text=said)
                except ProgramError as error:
                    raise ProgramError(error.fault, error.message, hint=HINT) from error
            whole = path.with_suffix(".new")
            _join([part for part in parts if clips.length_s(part) is not None], whole, text)
            whole.rename(path)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)

    async def _pieces(self, text: str, lang: Lang) -> list[tuple[Lang, str]]:
        if lang is Lang.EN:
            return [(Lang.EN, text.translate(_NO_PHONEMES).encode("ascii", "ignore").decode())]
        found = list(cut(text))
        chinese = [said for voice, said in found if voice is Lang.ZH]
        asked = json.dumps({"texts": chinese, "readings": dict(self.readings)})
        answer = await self.programs.run(PINYIN, _PINYIN_S, text=asked) if chinese else b"[]"
        pinyin = iter(json.loads(answer))
        spoken = [(voice, next(pinyin) if voice is Lang.ZH else said) for voice, said in found]
        assert all(said.isascii() for _, said in spoken), "espeak-ng must not get hanzi"
        return [(voice, said) for voice, said in spoken if any(sign.isalnum() for sign in said)]

    def _make_room(self) -> None:
        kept = sorted(self.folder.glob("*.wav"), key=lambda path: path.stat().st_mtime)
        for path in kept[: max(0, len(kept) - _KEPT + 1)]:
            path.unlink(missing_ok=True)


def cut(text: str) -> Iterator[tuple[Lang, str]]:
    """A Chinese sentence in the pieces of its two voices: H2S is spelled in English, all else is Chinese."""
    end = 0
    for found in LATIN.finditer(text):
        if text[end : found.start()].strip():
            yield Lang.ZH, text[end : found.start()]
        yield Lang.EN, _INITIALS.sub(" ", re.sub(r"[-./]", " ", found[0]))
        end = found.end()
    if text[end:].strip():
        yield Lang.ZH, text[end:]


def _join(parts: Sequence[Path], path: Path, text: str) -> None:
    """One WAV file of several of the same format."""
    if not parts:
        raise ProgramError(Fault.REFUSING, f"there is nothing in {text!r:.60} that {ESPEAK} can say")
    with wave.open(str(path), "wb") as whole:
        for i, part in enumerate(parts):
            with wave.open(str(part), "rb") as piece:
                if not i:
                    whole.setparams(piece.getparams())
                whole.writeframes(piece.readframes(piece.getnframes()))
