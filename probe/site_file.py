"""The site.toml that `--config` names, as it is written: a probe works with one that is not finished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, PermanentError
from .options import phrases

if TYPE_CHECKING:
    from ..sensors.profile import Profile


def catalogue(config: Path | None) -> Mapping[str, Profile]:
    """The shipped profiles, and those of the site beside them. Raises ConfigError."""
    from ..sensors.profiles import open_catalogue

    folder = _raw(config).get("profiles", {}).get("folder") if config is not None else None
    found, problems = open_catalogue(config.parent / folder if config is not None and folder else None)
    if problems:
        raise ConfigError(str(folder), problems)
    return found


def tables(config: Path | None, name: str) -> list[dict[str, Any]]:
    """The tables of that name in a site.toml, as they are written; none without one."""
    found = _raw(config).get(name, []) if config is not None else []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _raw(config: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(config.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PermanentError(phrases()("cannot_read", config, error)) from error
