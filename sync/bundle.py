"""Sync by USB stick: a `.swx` file holds batches byte for byte as the link would carry them, and who vouches for them.

A bundle is a zip without compression (batches are packed already; what is stored cannot explode): `batches/<stream>/
<epoch>/<n>`, evidence as `blobs/<sha256>`, other files by name, `manifest.json`, which lists every file with its size
and SHA-256, and `manifest.sig`, an Ed25519 signature over the manifest. Two kinds: `batches` from a gateway to
headquarters, and `answer` back, with how far headquarters has each stream, and whatever else it sends.

For the way a file can be sealed for headquarters alone (seal.py).
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import RefusedError
from .columns import DamagedError
from .journal import canonical
from .keys import key_id
from .wire import MAX_BODY_BYTES, MAX_CHUNK_BYTES, SAFE_ID, SHA256, Cursor, bytes_from_text, bytes_text

FORMAT = "sitewarden bundle 1"
BATCHES, ANSWER = "batches", "answer"
MOST_BATCHES = 20_000
"""In one file: its manifest is held in memory, and file systems of sticks end at 4 GiB. More go into the next file."""
MOST_BLOBS = 2_000
PART_BYTES = 3 << 30
"""A file ends when it has grown to this: sticks that are as they come (FAT32) hold no file of 4 GiB."""
ORDER = "config/order.json"
"""In an answer: the signed baseline, as `orders.Order.to_json`."""
BLOBS_KNOWN = "blobs.json"
"""In an answer: what headquarters has of the evidence that came; see `cloud/bundle_blobs.py`."""
SUFFIX = ".swx"

_MANIFEST, _SIGNATURE = "manifest.json", "manifest.sig"
_MOST_MANIFEST_BYTES = 32 * 1024 * 1024
_MOST_FILES = 60_000
_MOST_FILE_BYTES = 4 << 30
_BLOBS = "blobs/"
_NAME = re.compile(r"[a-z0-9][a-z0-9_./-]{0,199}")
_BATCH = re.compile(r"batches/([a-z]{1,20})/([0-9a-f]{8,64})/([1-9][0-9]{0,14})")
_EARLIEST = (1980, 1, 1, 0, 0, 0)


class BundleError(DamagedError):
    """A file that is no bundle, is damaged, or is not by whom it should be. Says which file of it, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One batch of a bundle. `chain` is its chain value (32 bytes), `size` bytes of its body."""

    stream: str
    epoch: str
    n: int
    chain: bytes
    size: int

    @property
    def name(self) -> str:
        return f"batches/{self.stream}/{self.epoch}/{self.n}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        kind: `batches` or `answer`.
        gateway: whose records these are, or whom the answer is for.
        made_ms: UTC milliseconds, by the clock of who made it.
        batches: in the order of their streams and numbers.
        cursors: of an answer: stream to every epoch that headquarters knows.
        files: everything else, name to (size, SHA-256 in hex).
        more: it was full, and another file follows it.
    """

    kind: str
    gateway: str
    made_ms: int
    batches: tuple[Packed, ...] = ()
    cursors: Mapping[str, tuple[Cursor, ...]] = field(default_factory=dict)
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    more: bool = False

    @property
    def blobs(self) -> dict[str, int]:
        """SHA-256 of each piece of evidence in it, to its bytes; as it lies there, that of open cases first."""
        return {name[len(_BLOBS) :]: size for name, (size, _) in self.files.items() if name.startswith(_BLOBS)}


# --- writing -----------------------------------------------------------------------------------------------------


class BundleWriter:
    """Writes a bundle into a binary file, which need not be seekable; `finish` signs it.

    Args:
        file: opened for writing.
        key: of the gateway, or of headquarters for an answer.
    """

    def __init__(self, file: IO[bytes], key: Ed25519PrivateKey, *, kind: str, gateway: str, made_ms: int) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._key = key
        self._head = {"format": FORMAT, "kind": kind, "gateway": gateway, "made_ms": made_ms, "key": key_id(key)}
        self._batches: list[dict[str, Any]] = []
        self._files: dict[str, list[Any]] = {}
        self._cursors: dict[str, list[dict[str, Any]]] = {}

    def add_batch(self, stream: str, epoch: str, n: int, chain: bytes, body: bytes) -> None:
        """One batch as the link would carry it. Batches of a stream and epoch come in the order of their numbers."""
        packed = Packed(stream=stream, epoch=epoch, n=n, chain=chain, size=len(body))
        self._put(packed.name, body)
        fields = {"stream": stream, "epoch": epoch, "n": n, "chain": bytes_text(chain)}
        self._batches.append({**fields, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()})

    def add_file(self, name: str, data: bytes) -> None:
        """Something else that travels along."""
        assert _NAME.fullmatch(name), name
        assert not name.startswith(("batches/", _BLOBS)), name
        self._put(name, data)
        self._files[name] = [len(data), hashlib.sha256(data).hexdigest()]

    @contextmanager
    def blob(self, sha256: str, size: int) -> Iterator[IO[bytes]]:
        """A piece of evidence, whose bytes are written to what this gives: all of them, or the bundle is no good."""
        info = zipfile.ZipInfo(f"{_BLOBS}{sha256}", _EARLIEST)
        info.file_size = size
        with self._zip.open(info, "w") as file:
            yield file
        self._files[info.filename] = [size, sha256]

    def set_cursors(self, cursors: Mapping[str, tuple[Cursor, ...]]) -> None:
        """How far headquarters has each stream (of an answer)."""
        self._cursors = {stream: [cursor.to_json() for cursor in known] for stream, known in cursors.items()}

    def finish(self, *, more: bool = False) -> None:
        """Write manifest and signature; nothing may be added after it. Args: more: another file follows this one."""
        fields = {**self._head, "batches": self._batches, "files": self._files, "cursors": self._cursors}
        fields |= {"more": True} if more else {}
        text = canonical(fields)
        self._put(_MANIFEST, text)
        self._put(_SIGNATURE, self._key.sign(_signed(text)))
        self._zip.close()

    def abandon(self) -> None:
        """Let go of the file; what was written is no bundle."""
        self._zip.close()

    def _put(self, name: str, data: bytes) -> None:
        self._zip.writestr(zipfile.ZipInfo(name, _EARLIEST), data)


def _signed(manifest: bytes) -> bytes:
    """With a context of its own: the same key signs requests and checkpoints."""
    return FORMAT.encode() + b"\0" + manifest


# --- reading -----------------------------------------------------------------------------------------------------


class BundleReader:
    """An opened bundle: nothing of it counts before `verify`.

    Raises:
        BundleError: it is no bundle, or says things about itself that cannot be.
    """

    def __init__(self, file: IO[bytes]) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
            self._infos = self._zip.infolist()
            self._text = self._read(_MANIFEST, _MOST_MANIFEST_BYTES)
            self._signature = self._read(_SIGNATURE, 64)
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, struct.error) as error:
            raise BundleError(f"not a bundle: {error}") from error
        self._digests: dict[str, tuple[int, str]] = {}
        self.key, self.manifest = self._parse()
        self._check_names()

    def close(self) -> None:
        self._zip.close()

    def verify(self, keys: Mapping[str, Ed25519PublicKey]) -> str:
        """Check who signed. Args: keys: key id to key. Returns the id of the key that did.

        Raises:
            RefusedError: `wrong_key`: none of these made it; `bad_signature`: it was altered.
        """
        key = keys.get(self.key)
        if key is None:
            raise RefusedError("wrong_key", f"the bundle is signed by key {self.key}, which is not known here")
        try:
            key.verify(self._signature, _signed(self._text))
        except InvalidSignature as error:
            raise RefusedError("bad_signature", "the bundle was altered: its signature does not fit") from error
        return self.key

    def body(self, packed: Packed) -> bytes:
        """The bytes of a batch. Raises BundleError when they are not those that the manifest names."""
        return self._checked(packed.name)

    def file(self, name: str) -> bytes:
        """Another file of the bundle. Raises BundleError as `body`, and when there is none of this name."""
        if name not in self.manifest.files:
            raise BundleError(f"the bundle holds no {name}")
        return self._checked(name)

    def blob(self, sha256: str, start: int = 0) -> Iterator[bytes]:
        """Evidence from byte `start` on, in pieces. What it is, its name says: whoever keeps it looks at that.

        Raises:
            BundleError: it cannot be read.
        """
        name, left = f"{_BLOBS}{sha256}", self.manifest.blobs[sha256] - start
        try:
            info = self._zip.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != left + start:
                raise BundleError(f"{name} is compressed, or not as large as the manifest says")
            with self._zip.open(info) as file:
                file.seek(start)
                while left > 0 and (piece := file.read(min(left, MAX_CHUNK_BYTES))):
                    left -= len(piece)
                    yield piece
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise BundleError(f"{name} cannot be read: {error}") from error

    def check(self, name: str) -> None:
        """Read another file of the bundle and compare it with the manifest. Raises BundleError."""
        if not name.startswith(_BLOBS):
            self.file(name)
            return
        found = hashlib.sha256()
        for piece in self.blob(name[len(_BLOBS) :]):
            found.update(piece)
        if found.hexdigest() != self.manifest.files[name][1]:
            raise BundleError(f"{name} is not what the manifest says: copy the file again")

    def _checked(self, name: str) -> bytes:
        size, digest = self._digests[name]
        try:
            data = self._read(name, size)
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
            raise BundleError(f"{name} cannot be read: {error}") from error
        if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise BundleError(f"{name} is not what the manifest says: copy the file again")
        return data

    def _read(self, name: str, most: int) -> bytes:
        try:
            info = self._zip.getinfo(name)
        except KeyError as error:
            raise BundleError(f"not a bundle: {name} is missing") from error
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
            raise BundleError(f"{name} is compressed, or larger than it may be")
        with self._zip.open(info) as file:
            return file.read(most)

    def _parse(self) -> tuple[str, Manifest]:
        places = {info.filename: place for place, info in enumerate(self._infos)}
        try:
            fields = json.loads(self._text)
            if fields["format"] != FORMAT:
                raise BundleError(f"a bundle of another version: {fields['format']!r:.60}")
            batches = tuple(self._packed(entry) for entry in fields["batches"])
            for name, (size, digest) in fields["files"].items():
                self._note(name, size, digest)
            for name, (_, digest) in fields["files"].items():
                if name.startswith(_BLOBS) and not (SHA256.fullmatch(digest) and name == f"{_BLOBS}{digest}"):
                    raise ValueError(f"evidence {name!r:.100} under another name")
            if not SAFE_ID.fullmatch(fields["gateway"]) or fields["kind"] not in (BATCHES, ANSWER):
                raise ValueError("gateway or kind")
            return str(fields["key"]), Manifest(
                kind=fields["kind"],
                gateway=fields["gateway"],
                made_ms=int(fields["made_ms"]),
                batches=batches,
                cursors={name: tuple(map(Cursor.from_json, known)) for name, known in fields["cursors"].items()},
                files={
                    name: tuple(fields["files"][name])
                    for name in sorted(fields["files"], key=lambda name: places.get(name, 0))
                },
                more=fields.get("more") is True,
            )
        except BundleError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DamagedError) as error:
            raise BundleError(f"{_MANIFEST} is not readable: {error!r:.200}") from error

    def _packed(self, entry: Mapping[str, Any]) -> Packed:
        packed = Packed(
            stream=entry["stream"],
            epoch=entry["epoch"],
            n=entry["n"],
            chain=bytes_from_text(entry["chain"]),
            size=entry["size"],
        )
        if len(packed.chain) != 32 or not _BATCH.fullmatch(packed.name) or packed.size > MAX_BODY_BYTES:
            raise ValueError(f"batch {packed.name!r:.100}")
        self._note(packed.name, packed.size, entry["sha256"])
        return packed

    def _note(self, name: str, size: int, digest: str) -> None:
        right = isinstance(size, int) and 0 <= size <= _MOST_FILE_BYTES and re.fullmatch("[0-9a-f]{64}", digest)
        if not right or not _NAME.fullmatch(name) or name in self._digests:
            raise ValueError(f"file {name!r:.100}")
        self._digests[name] = (size, digest)

    def _check_names(self) -> None:
        """What the zip holds and what the manifest names must be the same: nothing rides along unsigned."""
        names = [info.filename for info in self._infos if info.filename not in (_MANIFEST, _SIGNATURE)]
        if len(self._infos) > _MOST_FILES or len(names) != len(set(names)) or set(names) != set(self._digests):
            odd = sorted(set(names) ^ set(self._digests))[:3] or "a name twice"
            raise BundleError(f"what the bundle holds is not what its manifest names: {odd}")
