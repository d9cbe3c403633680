"""The folder of the stores, for commands that may make it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .words import phrases


def data_folder(given: Path | None) -> Path:
    """`--data`, or $STATE_DIRECTORY, which systemd sets. Raises click.UsageError without either."""
    if given is not None:
        return given
    folder = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if not folder:
        raise click.UsageError(phrases()("no_data"))
    return Path(folder)
