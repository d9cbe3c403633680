"""Blobs in any S3. The only file that imports boto3, which loads with it; its calls block and run in threads.

A part of a multipart upload has at least 5 MiB, a piece of a blob a quarter of one: so each piece is an object of its
own under `incoming/`, durable when the request is answered, whichever service took it. When all are there they are read
once, hashed, and put together under the blob's name: at once, or as a multipart upload whose id and parts the database
keeps.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..sync.blob_files import WrongContentError
from .blob_port import Key, MissingError, Remember, UnavailableError
from .blob_store import Part

T = TypeVar("T")

PART_BYTES = 8 * 2**20
"""S3 asks for 5 MiB of every part but the last."""
_THREADS = 8
_DELETE_AT_ONCE = 1000
_DIGITS = 15
_NOT_THERE = frozenset({"404", "NoSuchKey", "NotFound"})
_EXISTS = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """Where the bucket is.

    Attributes:
        url: `s3://bucket[/prefix]`.
        endpoint: address of a service that is not Amazon's; "" for Amazon's.
        credentials_file: in the form of `~/.aws/credentials`, profile `default`; None: as boto3 finds them
            (environment, the machine's role).
    """

    url: str
    endpoint: str = ""
    region: str = ""
    credentials_file: Path | None = None
    part_bytes: int = PART_BYTES

    @property
    def bucket(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def prefix(self) -> str:
        """ "" or a path with a slash at its end."""
        path = urlsplit(self.url).path.strip("/")
        return f"{path}/" if path else ""


class S3BlobStore:
    """A `BlobStore` in a bucket that exists."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._client: Any = None
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="s3")

    async def __aenter__(self) -> Self:
        self._client = await asyncio.to_thread(_connect, self._options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    async def append(self, key: Key, offset: int, data: bytes) -> None:
        if data:
            await self._run(lambda: self._put(self._piece_name(key, offset), data))

    async def finish(self, key: Key, part: Part, remember: Remember) -> None:
        name = self._name(key.sha256)
        pieces = _in_order(await self._run(lambda: self._pieces(key)))
        there = sum(piece.size for piece in pieces)
        if there != part.size:
            if not await self._run(lambda: self._is_right(key.sha256)):
                raise MissingError(min(there, part.size))
            # the process ended after the blob had its name
        elif part.size <= self._options.part_bytes:
            await self._run(lambda: self._put_small(name, key, pieces))
        else:
            await self._put_large(name, key, part, pieces, remember)
        await self.drop(key)

    async def drop(self, key: Key) -> None:
        await self._run(lambda: self._delete(piece.name for piece in self._pieces(key)))

    async def read(self, sha256: str, start: int, size: int) -> bytes:
        return await self._run(lambda: self._read(self._name(sha256), start, size))

    # --- putting together ----------------------------------------------------------------------------------------

    def _put_small(self, name: str, key: Key, pieces: list[_Piece]) -> None:
        data = b"".join(self._get_piece(piece) for piece in pieces)
        self._check(key, hashlib.sha256(data).hexdigest(), pieces)
        try:
            self._put(name, data, IfNoneMatch="*")
        except _Exists:
            if not self._is_right(key.sha256):  # damaged there: this one heals it
                self._put(name, data)

    async def _put_large(self, name: str, key: Key, part: Part, pieces: list[_Piece], remember: Remember) -> None:
        upload, tags = part.upload, dict(part.parts)
        if upload and not await self._run(lambda: self._has_upload(name, upload)):
            upload, tags = "", {}
        if not upload:
            made = await self._run(lambda: self._client.create_multipart_upload(Bucket=self._bucket, Key=name))
            upload = str(made["UploadId"])
            await remember(upload, tags)
        found = hashlib.sha256()
        for number, group in enumerate(_groups(pieces, self._options.part_bytes), 1):
            data = await self._run(lambda group=group: b"".join(self._get_piece(piece) for piece in group))
            await asyncio.get_running_loop().run_in_executor(self._threads, found.update, data)
            if number not in tags:
                tags[number] = await self._run(lambda n=number, d=data: self._put_part(name, upload, n, d))
                await remember(upload, tags)
        try:
            self._check(key, found.hexdigest(), ())
        except WrongContentError:
            await self._run(lambda: self._abort(name, upload))
            await self.drop(key)
            raise
        await self._run(lambda: self._complete(name, upload, tags))

    def _check(self, key: Key, found: str, pieces: Iterable[_Piece]) -> None:
        if found != key.sha256:
            self._delete(piece.name for piece in pieces)
            raise WrongContentError(key.sha256, found)

    # --- calls, each blocking ------------------------------------------------------------------------------------

    @property
    def _bucket(self) -> str:
        return self._options.bucket

    def _name(self, sha256: str) -> str:
        return f"{self._options.prefix}{sha256[:2]}/{sha256[2:4]}/{sha256}"

    def _piece_name(self, key: Key, offset: int) -> str:
        return f"{self._options.prefix}incoming/{key.gateway}/{key.sha256}/{offset:0{_DIGITS}}"

    def _pieces(self, key: Key) -> list[_Piece]:
        """All that came."""
        prefix = self._piece_name(key, 0)[:-_DIGITS]
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        found = [entry for page in pages for entry in page.get("Contents", ())]
        return [_Piece(entry["Key"], int(entry["Key"][-_DIGITS:]), int(entry["Size"])) for entry in found]

    def _get_piece(self, piece: _Piece) -> bytes:
        try:
            data = self._client.get_object(Bucket=self._bucket, Key=piece.name)["Body"].read()
        except Exception as error:
            if _code(error) in _NOT_THERE:
                raise MissingError(piece.start) from error
            raise
        if len(data) != piece.size:
            raise MissingError(piece.start)
        return data

    def _put(self, name: str, data: bytes, **conditions: str) -> None:
        try:
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data, **conditions)
        except Exception as error:
            if conditions and _code(error) in _EXISTS:
                raise _Exists from error
            raise

    def _put_part(self, name: str, upload: str, number: int, data: bytes) -> str:
        part = {"Bucket": self._bucket, "Key": name, "UploadId": upload, "PartNumber": number, "Body": data}
        return str(self._client.upload_part(**part)["ETag"])

    def _complete(self, name: str, upload: str, tags: dict[int, str]) -> None:
        """Over what is there: the same content, or a damaged object that this one heals."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(tags.items())]
        self._client.complete_multipart_upload(
            Bucket=self._bucket, Key=name, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    def _has_upload(self, name: str, upload: str) -> bool:
        try:
            self._client.list_parts(Bucket=self._bucket, Key=name, UploadId=upload, MaxParts=1)
        except Exception as error:
            if _code(error) in {"NoSuchUpload", *_NOT_THERE}:
                return False
            raise
        return True

    def _abort(self, name: str, upload: str) -> None:
        self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload)

    def _delete(self, names: Iterable[str]) -> None:
        names = list(names)
        for at in range(0, len(names), _DELETE_AT_ONCE):
            objects = [{"Key": name} for name in names[at : at + _DELETE_AT_ONCE]]
            self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})

    def _read(self, name: str, start: int, size: int) -> bytes:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=name, Range=f"bytes={start}-{start + size - 1}")
        except Exception as error:
            if _code(error) in _NOT_THERE:
                raise KeyError(name) from error
            if _code(error) in {"InvalidRange", "416"}:
                return b""
            raise
        return answer["Body"].read()

    def _is_right(self, sha256: str) -> bool:
        found, start, name = hashlib.sha256(), 0, self._name(sha256)
        try:
            while data := self._read(name, start, self._options.part_bytes):
                found.update(data)
                start += len(data)
        except KeyError:
            return False
        return found.hexdigest() == sha256

    async def _run(self, call: Callable[[], T]) -> T:
        """In a thread. What boto3 raises becomes UnavailableError."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except (BotoCoreError, ClientError, OSError) as error:
            hint = "check [blobs] of cloud.toml, the credentials and the S3 service"
            raise UnavailableError(f"S3 bucket {self._bucket}: {error}", hint=hint) from error


@dataclass(frozen=True, slots=True)
class _Piece:
    name: str
    start: int
    size: int


class _Exists(Exception):  # noqa: N818 - never leaves this file
    """There is an object of this name."""


def _in_order(pieces: list[_Piece]) -> list[_Piece]:
    """From byte 0 on, each where the one before ends; what is left over from a broken upload is passed by."""
    by_start, at = {piece.start: piece for piece in pieces if piece.size}, 0
    found = []
    while (piece := by_start.get(at)) is not None:
        found.append(piece)
        at += piece.size
    return found


def _groups(pieces: list[_Piece], least: int) -> Iterator[list[_Piece]]:
    """Neighbours that together have at least `least` bytes, the last ones whatever is left; always the same way."""
    group: list[_Piece] = []
    for piece in pieces:
        group.append(piece)
        if sum(each.size for each in group) >= least:
            yield group
            group = []
    if group:
        yield group


def _code(error: Exception) -> str:
    """S3's word for what went wrong, "" for everything else."""
    response: Any = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _connect(options: S3Options) -> Any:
    try:
        import boto3
        import botocore.session
        from botocore.config import Config
    except ImportError as error:
        problem = "blobs.url: s3:// needs boto3: pip install 'sitewarden[s3]'"
        raise ConfigError("cloud.toml", [problem]) from error
    session = botocore.session.Session()
    if options.credentials_file is not None:
        session.set_config_variable("credentials_file", str(options.credentials_file))
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"max_attempts": 2, "mode": "standard"},
        max_pool_connections=_THREADS,
        request_checksum_calculation="when_required",  # services other than Amazon's know no trailing checksums
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if options.endpoint else "auto"},
    )
    return boto3.Session(botocore_session=session).client(
        "s3", endpoint_url=options.endpoint or None, region_name=options.region or "us-east-1", config=config
    )
