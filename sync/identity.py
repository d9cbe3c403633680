"""Where a data folder lies: on which machine, on which file system, in which file. A copy lies elsewhere.

An SD card that was written as an image takes /etc/machine-id and the file system's UUID along: the serial number of the
board tells it. In a container the machine is the image's or the host's and says nothing; there the file system counts.
What cannot be read is not compared, so that a site without it does not begin a new epoch at each start.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

MACHINE, BOARD, VOLUME, VOLUME_ID, FILE = "machine", "board", "volume", "volume_id", "file"

Identity = Mapping[str, str]
"""Fact to its salted hash (16 hexadecimal digits); facts that cannot be read are missing."""

_MACHINE_FILES = ("etc/machine-id", "var/lib/dbus/machine-id")
_BOARD_FILES = ("proc/device-tree/serial-number", "sys/class/dmi/id/product_uuid")
_CONTAINER_FILES = (".dockerenv", "run/.containerenv", "run/systemd/container")
_STABLE_FSID = ("ext2", "ext3", "ext4", "btrfs")
"""File systems whose f_fsid comes from their UUID; elsewhere it is the number of the device, which boots change."""
_STABLE_NUMBERS = (*_STABLE_FSID, "xfs", "f2fs", "zfs", "jfs", "ubifs", "tmpfs")
"""File systems where a file keeps its inode's number; others (FAT, network, overlays) may give another one."""
_AT_FDCWD, _STATX_BTIME = -100, 0x800


class Reason(enum.StrEnum):
    """Why an epoch began."""

    CLONED = "cloned"
    """Copied to another file system of another machine."""
    MOVED = "moved"
    """The same file system in another machine; or its image, while the original lives."""
    RESTORED = "restored"
    """Another file on this machine: brought back from a copy."""
    FORK = "fork"
    """The cloud knows other batches under the same numbers."""
    CLOUD_AHEAD = "cloud_ahead"
    """The cloud knows batches that are not here: this file is an earlier state."""


def read_identity(path: Path, gateway: str, root: Path = Path("/")) -> Identity:
    """Of a database file that exists.

    Args:
        gateway: salts the hashes, so that two sites on one machine cannot be told to be so.
        root: of the machine's file system; tests give their own.
    """
    kind = _kind_of(path, root)
    volume_id = f"{os.statvfs(path).f_fsid:x}" if kind in _STABLE_FSID else ""
    file = _file(path) if kind in _STABLE_NUMBERS else ""
    found = {VOLUME: _volume(path, root), VOLUME_ID: volume_id, FILE: file}
    if not _is_container(root):
        found |= {MACHINE: _first(root, _MACHINE_FILES), BOARD: _first(root, _BOARD_FILES)}
    return {name: _hash(gateway, name, text) for name, text in found.items() if text}


def moved(stored: Identity, found: Identity) -> Reason | None:
    """What happened to a file since its identity was stored; None when nothing did, as far as can be told."""
    differs = {name for name in stored.keys() & found.keys() if stored[name] != found[name]}
    other_volume = bool(differs & {VOLUME, VOLUME_ID})
    if differs & {MACHINE, BOARD}:
        return Reason.CLONED if other_volume else Reason.MOVED
    return Reason.RESTORED if differs else None


def is_elsewhere(reason: str) -> bool:
    """Whether the original may be alive on another machine, and go on under the old epoch."""
    return reason in (Reason.CLONED, Reason.MOVED)


def identity_text(identity: Identity) -> str:
    """As it is stored."""
    return json.dumps(dict(sorted(identity.items())), separators=(",", ":"))


def identity_of(text: str | None) -> Identity:
    """Inverse of `identity_text`; empty for anything else: then nothing is compared, and it is stored anew."""
    with contextlib.suppress(ValueError, AttributeError):
        return {str(name): str(value) for name, value in json.loads(text or "{}").items()}
    return {}


def _hash(gateway: str, name: str, text: str) -> str:
    return hashlib.sha256(f"sitewarden identity v1\0{gateway}\0{name}\0{text}".encode()).hexdigest()[:16]


def _first(root: Path, files: tuple[str, ...]) -> str:
    for file in files:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = (root / file).read_text("ascii").strip("\0\n ")
            if text and text != "uninitialized":
                return text
    return ""


def _is_container(root: Path) -> bool:
    if any((root / file).exists() for file in _CONTAINER_FILES):
        return True
    with contextlib.suppress(OSError):
        return any(part.startswith(b"container=") for part in (root / "proc/1/environ").read_bytes().split(b"\0"))
    return False


def _volume(path: Path, root: Path) -> str:
    """The UUID that udev names the file system's device by."""
    device = path.stat().st_dev
    with contextlib.suppress(OSError):
        for link in sorted((root / "dev/disk/by-uuid").iterdir()):
            with contextlib.suppress(OSError):
                if link.stat().st_rdev == device:
                    return link.name
    return ""


def _kind_of(path: Path, root: Path) -> str:
    """Of the file system: `/proc/self/mountinfo` (proc(5)) by the number of the device, or by the longest folder."""
    device = path.stat().st_dev
    number, folder = f"{os.major(device)}:{os.minor(device)}", str(path.resolve().parent)
    best = ("", "")
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/self/mountinfo").read_text(errors="replace").splitlines():
            left, right = line.split(" - ", 1)
            fields, kind = left.split(), right.split()[0]
            if fields[2] == number:
                return kind
            if f"{folder}/".startswith(f"{fields[4].rstrip('/')}/") and len(fields[4]) >= len(best[0]):
                best = (fields[4], kind)
    return best[1]


def _file(path: Path) -> str:
    """Inode and birth: a file that takes the place of a deleted one may get its number again.

    Never opens the file: closing it would take SQLite's locks away (sqlite.org/howtocorrupt.html §2.2).
    """
    return f"{path.stat().st_ino}.{_born(path)}"


def _born(path: Path) -> str:
    """When the file was made, by statx(2); empty where that cannot be asked."""
    buffer = ctypes.create_string_buffer(256)
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer) == 0:
            (mask,) = struct.unpack_from("I", buffer)
            if mask & _STATX_BTIME:
                return "{}.{}".format(*struct.unpack_from("qI", buffer, 80))
    return ""
