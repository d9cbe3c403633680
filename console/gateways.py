"""Where the running gateway is: one rule for every command that asks it.

`--data` names the folder, and nothing else is looked at. Without it `$STATE_DIRECTORY`, which systemd sets, does the
same. Without both these are looked at: the folder of `--config`, `/var/lib/sitewarden`, and `var/demo`. A folder may
be the gateway's own or a demo's, which has its gateway in `edge`.
"""

from __future__ import annotations

import enum
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PermanentError
from .language import Say

SOCKET = "control.sock"
LONGEST_PATH = 107
"""Bytes of a Unix socket's path, without the zero that ends it (unix(7))."""
SERVICE_DATA = Path("/var/lib/sitewarden")
DEMO_DATA = Path("var/demo")
_KNOCK_S = 2.0


class Found(enum.StrEnum):
    """What is in a place."""

    LIVE = "live"
    NO_FOLDER = "no_folder"
    CLOSED = "closed"
    SILENT = "silent"
    TOO_LONG = "too_long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder that was looked into. `data`: the data folder of its gateway, which is `folder` or the one in it."""

    folder: Path
    data: Path
    found: Found

    @property
    def socket(self) -> Path:
        return self.data / SOCKET

    def say(self, tr: Say) -> str:
        """`var/demo: no gateway runs there`."""
        return tr(f"place_{self.found}", self.folder, LONGEST_PATH)


def folders(data: Path | None, config: Path | None, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Where to look, each once."""
    if data is not None:
        return (data,)
    if state := environment.get("STATE_DIRECTORY", "").split(":")[0]:
        return (Path(state),)
    found: dict[Path, Path] = {}
    for folder in (*([config.parent] if config is not None else []), SERVICE_DATA, DEMO_DATA):
        found.setdefault(folder.resolve(), folder)
    return tuple(found.values())


def look(wanted: Sequence[Path]) -> tuple[Place, ...]:
    """What is in each of these folders."""
    return tuple(map(_look_into, wanted))


def _look_into(folder: Path) -> Place:
    places = [Place(folder=folder, data=data, found=_knock(data)) for data in (folder, folder / "edge")]
    live = [place for place in places if place.found is Found.LIVE]
    inner = [place for place in places[1:] if place.found in (Found.CLOSED, Found.TOO_LONG)]
    return next(iter((*live, *inner)), places[0])


def _knock(data: Path) -> Found:
    try:
        data.stat()
        path = short(data / SOCKET)
        if len(os.fsencode(path)) > LONGEST_PATH:
            return Found.TOO_LONG
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - Path.is_socket hides why it cannot tell
            return Found.SILENT
    except PermissionError:
        return Found.CLOSED
    except OSError:
        return Found.SILENT if _is_folder(data) else Found.NO_FOLDER
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(_KNOCK_S)
        try:
            knock.connect(path)
        except PermissionError:
            return Found.CLOSED
        except TimeoutError:
            return Found.LIVE  # it hangs: whoever asks it will say so
        except OSError:
            return Found.SILENT  # left behind by one that was killed
    return Found.LIVE


def _is_folder(data: Path) -> bool:
    try:
        return data.is_dir()
    except OSError:
        return False


def short(path: Path) -> str:
    """The shorter of its absolute and relative names: a socket's may have 107 bytes."""
    absolute = path.resolve()
    return min(str(absolute), os.path.relpath(absolute), key=len)


def the_gateway(places: Sequence[Place], tr: Say) -> Place:
    """The one that runs.

    Raises:
        PermanentError: none does, or several: a command that changes something must not guess.
    """
    live = [place for place in places if place.found is Found.LIVE]
    if len(live) == 1:
        return live[0]
    listed = live or places
    lines = "\n".join(f"  {place.say(tr)}" for place in listed)
    if live:
        raise PermanentError(tr("several_gateways", len(live), lines), hint=tr("several_hint"))
    raise PermanentError(tr("nobody_runs", lines), hint=tr("nobody_runs_hint"))
