"""The files that `sitewarden bundle export` writes onto a stick."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from .console.language import Say
from .errors import PermanentError

if TYPE_CHECKING:
    from .sync.bundle import Manifest

_MARGIN = 4 << 20
_COPY = 1 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

Put = Callable[[bytes], Awaitable[None]]
Ask = Callable[[Mapping[str, int], Put, int, int], Awaitable[None]]
"""Pours one file: what is known by `stream/epoch`, what takes its pieces, blobs of files before it, most bytes."""


async def write_files(
    file: Path, known: Mapping[str, int], pour: Ask, seal: Any, tr: Say, most: int | None
) -> tuple[list[tuple[Path, Manifest]], bool]:
    """As many files as it takes, each within what a stick can hold; and whether everything was written.

    Args:
        known: by `stream/epoch`, the last batch that need not travel.
        seal: key to encrypt for; None: the files stay readable.
        most: bytes of all files; None: what there is room for.

    Raises:
        PermanentError: a file cannot be written.
    """
    written: list[tuple[Path, Manifest]] = []
    left, blobs, since = _room(file, sealed=seal is not None) if most is None else most, 0, dict(known)
    while True:
        path = file if not written else file.with_name(f"{file.stem}-{len(written) + 1}{file.suffix}")
        manifest = await _write_part(path, lambda put: pour(since, put, blobs, left), seal, tr)  # noqa: B023
        if not manifest.batches and not manifest.blobs:
            path.unlink()
            return written, not manifest.more
        written.append((path, manifest))
        since |= {f"{packed.stream}/{packed.epoch}": packed.n for packed in manifest.batches}
        blobs, left = blobs + len(manifest.blobs), left - path.stat().st_size
        if not manifest.more or left <= 0:
            return written, not manifest.more


def _room(file: Path, *, sealed: bool) -> int:
    """What the stick has room for. A file that is sealed lies there twice for a moment."""
    try:
        free = shutil.disk_usage(file.absolute().parent).free
    except OSError as error:
        raise PermanentError(f"{file}: cannot be written: {error.strerror}") from error
    return (free - _MARGIN) // (2 if sealed else 1)


async def _write_part(path: Path, pour: Callable[[Put], Awaitable[None]], seal: Any, tr: Say) -> Manifest:
    """One file, complete and on the stick, or nothing."""
    from .sync.bundle import BundleReader
    from .sync.seal import Sealer

    draft, clear = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.clear")
    size, shows = 0, sys.stderr.isatty()
    plain = clear if seal else draft
    try:
        with plain.open("wb") as file:

            async def put(piece: bytes) -> None:
                nonlocal size
                await asyncio.to_thread(file.write, piece)
                size += len(piece)
                if shows:
                    click.echo(f"\r{tr('bundle_bytes', mib(size))}", nl=False, err=True)

            await pour(put)
            to_device(file)
        with plain.open("rb") as file:
            manifest = BundleReader(file).manifest
        if seal:
            with clear.open("rb") as source, draft.open("wb") as target:
                sealer = Sealer(target, seal)
                while piece := source.read(_COPY):
                    sealer.write(piece)
                sealer.finish()
                to_device(target)
        draft.replace(path)
        return manifest
    except OSError as error:
        problem = f"{path}: cannot be written: {error.strerror}"
        raise PermanentError(problem, hint="is there room on the stick, and is it writable?") from error
    finally:
        if shows:
            click.echo("\r\x1b[K", nl=False, err=True)
        draft.unlink(missing_ok=True)
        clear.unlink(missing_ok=True)


def to_device(file: IO[bytes]) -> None:
    """On the stick, not on its way there."""
    file.flush()
    os.fsync(file.fileno())


def mib(size: int) -> str:
    """In MiB, as people read it."""
    return f"{size / 1048576:.1f}"


class Size(click.ParamType[int]):
    """Bytes, or K, M, G of them."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([1-9][0-9]{0,12})([KMG]?)", str(value).upper())
        if found is None:
            self.fail(f"{value!r} is no size: 500M, 4G", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


SIZE = Size()
