"""Blobs in a folder of the cloud's machine, or of a file server that several services share."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

from ..sync.blob_files import BlobFolder, DamagedBlobError, DiskFullError, OffsetError
from .blob_port import Key, MissingError, Remember, UnavailableError
from .blob_store import Part


class FileBlobStore:
    """A `BlobStore` under `root`, which is made when it is missing."""

    def __init__(self, root: Path) -> None:
        self._files = BlobFolder(root)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._files.open)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held open."""

    async def append(self, key: Key, offset: int, data: bytes) -> None:
        try:
            await asyncio.to_thread(self._files.write, _owner(key), offset, data)
        except OffsetError as error:
            raise MissingError(error.offset) from error
        except DiskFullError as error:
            raise UnavailableError(error.message, hint=error.hint) from error
        except OSError as error:
            raise UnavailableError(f"the blobs' folder: {error.strerror or error}") from error

    async def finish(self, key: Key, part: Part, remember: Remember) -> None:  # noqa: ARG002 - of the port
        def finish() -> None:
            there = self._files.offset(_owner(key))
            if there == part.size:
                self._files.finish(_owner(key), key.sha256)
            elif self._files.size(key.sha256) != part.size:  # else the process ended after the file had its name
                raise MissingError(min(there, part.size))

        try:
            await asyncio.to_thread(finish)
        except OSError as error:
            raise UnavailableError(f"the blobs' folder: {error.strerror or error}") from error

    async def drop(self, key: Key) -> None:
        await asyncio.to_thread(self._files.forget, _owner(key))

    async def read(self, sha256: str, start: int, size: int) -> bytes:
        try:
            return await asyncio.to_thread(self._files.read, sha256, start, size)
        except DamagedBlobError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise KeyError(sha256) from error
            raise UnavailableError(error.message) from error


def _owner(key: Key) -> str:
    return f"{key.gateway}.{key.sha256}"
