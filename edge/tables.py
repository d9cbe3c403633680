"""The tables of site.toml as values: what `models.py` has checked, without the library that checks. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from pydantic import BaseModel

SINGLE = ("site", "gateway", "web", "https", "disk", "mqtt", "cloud", "alerts", "people", "profiles", "proof")
"""Tables that a file has once; the others are lists."""

Model = TypeVar("Model", bound="BaseModel")


class Table(SimpleNamespace):
    """One table: its keys as attributes, in the order of the model. Equal when every key is.

    Code that uses one has the model as its type, and only for the type checker: the daemon never loads pydantic
    (`site_reader.py`).
    """


def plain(model: Model) -> Model:
    """What `model` holds, tables within it included, as a `Table`."""
    return cast("Model", Table(**{key: _plain(getattr(model, key)) for key in type(model).model_fields}))


def changed(table: Model, values: dict[str, Any]) -> Model:
    """`table` with other values."""
    return cast("Model", Table(**{**vars(table), **values}))


def _plain(value: Any) -> Any:
    if hasattr(type(value), "model_fields"):
        return plain(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, cast("Iterable[Any]", value)))
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in cast("dict[Any, Any]", value).items()}
    return value
