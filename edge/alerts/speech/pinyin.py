"""Hanzi to pinyin for the voice `cmn-latn-pinyin`, as a program: `python -m sitewarden.edge.alerts.speech.pinyin`.

The dictionary of phrases takes 55 MB, so it lives as long as one sentence needs it. Reads a JSON object from standard
input (`texts`, and `readings`: pinyin that the site knows better) and writes the pinyin of each text as a JSON array.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence

import pypinyin
from pypinyin.contrib.tone_convert import to_tone

# What the library's dictionary reads in another way than a plant does.
READINGS = {
    "炔": "que1",
    "乙炔": "yi3 que1",
    "丙炔": "bing3 que1",
    "调压": "tiao2 ya1",
    "调压阀": "tiao2 ya1 fa2",
    "压差": "ya1 cha1",
    "差压": "cha1 ya1",
    "温差": "wen1 cha1",
    "误差": "wu4 cha1",
    "偏差": "pian1 cha1",
    "液位差": "ye4 wei4 cha1",
    "重氮": "chong2 dan4",
    "行车梁": "hang2 che1 liang2",
    "嗯": "en4",
}
_STOPS = {"。！？；.!?;\n": ".", "，、：（）【】《》“”,:()[]—…·": ","}
_STOP = {ord(sign): f" {stop} " for signs, stop in _STOPS.items() for sign in signs}
_SPEAKABLE = re.compile(r"[a-z]+[1-5]|[,.]")


def to_pinyin(texts: Sequence[str], readings: Mapping[str, str]) -> list[str]:
    """Pinyin with tone digits, ASCII alone: hanzi that nobody can read are left out.

    Args:
        texts: hanzi and their punctuation.
        readings: word to pinyin with tone digits, one syllable for each of its hanzi; before the library's own.
    """
    known = {**READINGS, **readings}
    for word, said in known.items():
        if len(said.split()) != len(word):
            raise ValueError(f"reading of {word}: needs {len(word)} syllable(s) (got {said!r})")
    pypinyin.load_phrases_dict({word: [[to_tone(s)] for s in said.split()] for word, said in known.items()})
    pypinyin.load_single_dict({ord(word): to_tone(said) for word, said in known.items() if len(word) == 1})
    return [_one(text) for text in texts]


def _one(text: str) -> str:
    style = pypinyin.Style.TONE3
    found = pypinyin.lazy_pinyin(text, style=style, neutral_tone_with_five=True, errors=_not_hanzi)
    pieces = [piece for syllable in found for piece in syllable.replace("ê", "e").split()]
    return re.sub(r" ([,.])", r"\1", " ".join(piece for piece in pieces if _SPEAKABLE.fullmatch(piece)))


def _not_hanzi(text: str) -> str:
    return text.translate(_STOP)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    json.dump(to_pinyin(asked["texts"], asked["readings"]), sys.stdout)
