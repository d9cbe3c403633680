"""What names something else in site.toml: whether it is there, and what was probably meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .config import Ids
from .wording import show, suggest

_MOST = 12


def check_reference(path: str, name: str | None, ids: Ids | None, what: str) -> Iterator[str]:
    """A name must be one of `ids`; nothing is said where one of the two is not known."""
    if name is None or ids is None or ids.may_be(name):
        return
    known = sorted(set(ids.good))
    names = ", ".join(known[:_MOST]) or "none"
    more = ", ..." if len(known) > _MOST else ""
    yield f"{path}: must name a {what}{suggest(name, known)} (known: {names}{more}) {show(name)}"


def all_of(names: Iterable[str]) -> Ids:
    """Names that no file can get wrong: roles, profiles."""
    return Ids(good=tuple(names), broken=frozenset(), sure=True)


def once_each(path: str, names: Sequence[str]) -> Iterator[str]:
    """No entry of a list twice."""
    for j, name in enumerate(names):
        if name in names[:j]:
            yield f"{path}[{j}]: must stand in the list only once {show(name)}"
