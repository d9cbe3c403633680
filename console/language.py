"""Which language a command speaks: what `--lang` says, else the locale's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise

import click

LANGUAGES = ("zh", "en")

Words = Mapping[str, tuple[str, str]]
"""Phrases by key, each in Chinese and English."""
Say = Callable[..., str]
"""`say("found", 3, "answer")`: a phrase with what it is about."""

_named: ContextVar[str] = ContextVar("lang", default="")


def translator(lang: str, words: Words) -> Say:
    """Phrases of `words` in `zh` or `en`."""
    column = 0 if lang == "zh" else 1

    def tr(key: str, *inner: object) -> str:
        text = words[key][column]
        return text.format(*inner) if inner else text

    return tr


def language(environment: Mapping[str, str]) -> str:
    """`zh` where the locale is Chinese, else `en`."""
    named = (environment.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next((name for name in named if name), "").lower().startswith("zh") else "en"


@contextmanager
def speaking(arguments: Sequence[str]) -> Iterator[None]:
    """For the length of the block the language is what `--lang` says in `arguments`, wherever it stands.

    It is looked for before anything is parsed, so that wrong usage is explained in it too.
    """
    joined = (text.partition("=")[2] for text in arguments if text.startswith("--lang="))
    behind = (after for text, after in pairwise(arguments) if text == "--lang")
    token = _named.set(next((lang for lang in (*joined, *behind) if lang in LANGUAGES), ""))
    try:
        yield
    finally:
        _named.reset(token)


def spoken() -> str:
    """The language of the command that runs: `--lang`, else the locale's.

    A terminal whose encoding has no Chinese characters gets English, unless `--lang` says otherwise.
    """
    if named := _named.get():
        return named
    found = language(os.environ)
    return found if found == "en" or _shows_chinese() else "en"


def _shows_chinese() -> bool:
    try:
        "中文：".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


LANG = click.option(
    "--lang",
    type=click.Choice(LANGUAGES),
    default=None,
    expose_value=False,  # `speaking` has looked already
    help="Language [default: the locale's].",
)
