"""A power cut, without a power cut: what a process wrote is recorded (disk_trace.c), and a disk is made as the cut at
any moment may have left it.

What was synced is there. Of what was not, per file: nothing, everything, the first writes, or any of them, torn at
sectors of 512 bytes. Names (created, renamed, removed) come in order, as ext4's journal keeps them: every sync, of
whatever file, brings all names before it.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
_HEAD = struct.Struct("<cHQI")
_NAMES = "CULR"


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a trace; see disk_trace.c."""

    kind: str
    name: str
    offset: int
    data: bytes


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path, name: str = "disk_trace") -> Path:
    """Compile a library of this folder: the one that records, or another one."""
    library, source = folder / f"{name}.so", Path(__file__).with_name(f"{name}.c")
    command = [str(compiler()), "-O1", "-Wall", "-Wno-nonnull-compare", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(source), "-ldl", "-lpthread"], check=True)
    return library


def record(library: Path, folder: Path, trace: Path, module: str, *args: str) -> list[Step]:
    """Run a module of the tests to its end; what it did below `folder`."""
    env = {**os.environ, "LD_PRELOAD": str(library), "TRACE_FOLDER": str(folder), "TRACE_FILE": str(trace)}
    subprocess.run([sys.executable, "-m", module, str(folder), *args], env=env, check=True, timeout=300)
    return list(_read(trace.read_bytes()))


def _read(data: bytes) -> Iterator[Step]:
    at = 0
    while at < len(data):
        kind, length, offset, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        name = data[at : at + length].decode()
        yield Step(kind.decode(), name, offset, data[at + length : at + length + size])
        at += length + size


@dataclass
class _File:
    """What is on the disk for certain, and what is on its way there."""

    content: bytearray = field(default_factory=bytearray)
    pending: list[Step] = field(default_factory=list)

    def sync(self) -> None:
        for step in self.pending:
            _apply(self.content, step)
        self.pending.clear()

    def as_cut(self, dice: random.Random) -> bytes:
        style = dice.choice(("nothing", "everything", "first", "any"))
        content, first = bytearray(self.content), dice.randrange(len(self.pending) + 1)
        for place, step in enumerate(self.pending):
            if style == "nothing" or (style == "first" and place > first):
                break
            if style == "any" and dice.random() < 0.5:
                continue
            is_torn = step.kind == "W" and (style == "any" or (style == "first" and place == first))
            for part in _sectors(step) if is_torn else [step]:
                if not is_torn or dice.random() < 0.6:
                    _apply(content, part)
        return bytes(content)


def _apply(content: bytearray, step: Step) -> None:
    end = step.offset + len(step.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if step.kind == "T":
        del content[step.offset :]
    else:
        content[step.offset : end] = step.data


def _sectors(step: Step) -> Iterator[Step]:
    at, end = step.offset, step.offset + len(step.data)
    while at < end:
        stop = min(end, (at // SECTOR + 1) * SECTOR)
        yield Step("W", step.name, at, step.data[at - step.offset : stop - step.offset])
        at = stop


def cut(steps: Sequence[Step], dice: random.Random) -> dict[str, bytes]:
    """Files, by path, as a power cut after `steps` may leave them."""
    certain: dict[str, _File] = {}
    newest: dict[str, _File] = {}
    names: list[tuple[Step, _File | None]] = []

    def bring_names(most: int) -> None:
        for step, file in names[:most]:
            _rename(certain, step, file)
        del names[:most]

    for step in steps:
        if step.kind in _NAMES:
            names.append((step, _rename(newest, step, None)))
        elif step.kind in "SD":
            bring_names(len(names))
            if step.kind == "S":
                newest[step.name].sync()
        else:
            newest.setdefault(step.name, _File()).pending.append(step)
    bring_names(dice.randrange(len(names) + 1))
    left = {id(file): file.as_cut(dice) for file in certain.values()}
    return {name: left[id(file)] for name, file in certain.items()}


def _rename(files: dict[str, _File], step: Step, file: _File | None) -> _File | None:
    """One change of names. Args: file: that was made; None: a new one. Returns it."""
    match step.kind:
        case "C":
            files[step.name] = file or _File()
            return files[step.name]
        case "U":
            files.pop(step.name, None)
        case "R":
            if (moved := files.pop(step.name, None)) is not None:
                files[step.data.decode()] = moved
        case _:
            if step.name in files:
                files[step.data.decode()] = files[step.name]
    return None


def lay_out(files: dict[str, bytes], was: Path, folder: Path) -> None:
    """Write files of folder `was` below `folder`, which is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / Path(name).relative_to(was)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
