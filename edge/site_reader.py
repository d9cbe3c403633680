"""site.toml is read and checked in a process of its own.

The libraries that check it are a fifth of the daemon's memory and a third of its start. So the daemon never loads them:
at start both processes import at the same time, and later the polls do not share an interpreter with the reading of a
large file. What comes back is pickled by our own child on a pipe that nobody else holds.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, TransientError

if TYPE_CHECKING:
    from .site import Site

_BOUND_S = 300.0


class SiteReader:
    """Begins to read when it is made.

    Args:
        path: of site.toml.
        data: of the daemon; a relative serial path starts there.
    """

    def __init__(self, path: Path, data: Path) -> None:
        self._path = path
        # Its own group: a Ctrl-C is the daemon's to answer.
        self._child = subprocess.Popen(  # noqa: S603 - ourselves
            (sys.executable, "-P", "-m", __spec__.name, str(path), str(data)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def result(self) -> Site:
        """Wait for the site. Blocks; call it once.

        Raises:
            ConfigError: with every problem of the files.
            TransientError: the process came to an end before it had said anything.
            RuntimeError: a defect of ours; its traceback is in the log.
        """
        with self._child as child:
            try:
                said, _ = child.communicate(timeout=_BOUND_S)
            except BaseException:
                child.kill()
                raise
        if not said:
            raise TransientError(f"{self._path}: its reader ended with {child.returncode}", hint="is memory short?")
        kind, value = pickle.loads(said)  # noqa: S301 - from our own child
        if kind == "refused":
            raise ConfigError(*value)
        if kind == "defect":
            raise RuntimeError(value)
        return value


def read_site(path: Path, data: Path) -> Site:
    """As `site.load_site`, in a process of its own."""
    return SiteReader(path, data).result()


def _read(path: Path, data: Path) -> tuple[str, Any]:
    from .site import load_site

    try:
        return "site", load_site(path, data)
    except ConfigError as error:
        return "refused", (error.source, list(error.problems))
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return "defect", f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    answer = _read(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.buffer.write(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
