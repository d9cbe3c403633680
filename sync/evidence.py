"""What a journal file proves, offline: its chain, its signed checkpoints, their countersignatures, its declared gaps.

The chain alone says that nothing was changed *and left so*: who can write the file can compute it again. A checkpoint
that headquarters countersigned cannot be made again, so up to the newest one the journal is what it was. What came
after it is not protected yet, and no cryptography can change that. A checkpoint counts the records of its epoch; here
all is said in numbers of records, which go on from epoch to epoch.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import PermanentError
from ..words import utc_from_text
from .checkpoints import GATEWAY, WITNESS
from .declared import DECLARED
from .epoch_table import epochs_of
from .journal import Verdict, genesis_chain, verify_file
from .keys import parse_public_key
from .merkle import EMPTY, Range, extend, root
from .notes import Checkpoint, Note, NoteError, origin_of, parse_note, verify_cosignature, verify_note, witness_name
from .rotations import REPLACED, ROTATED, Since, introduced
from .sqlite import connect_for_reading
from .tampering import Change, what_happened

_GATHER = 256
BACKDATED_S = 60
"""A record may be so much older than the witnessed one before it: reports of sensors and phones come late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is not as it was.

    Attributes:
        code: `change`, `trace`, `rewritten`, `truncated`, `forgotten` (of an earlier epoch), `note`, `signature`,
            `foreign`, `unwitnessed`.
        about: numbers of records, or what is needed to say it.
    """

    code: str
    about: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A record by which the gateway itself says that something is missing or in doubt."""

    seq: int
    kind: str
    at: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdated:
    """A record that claims an earlier time than the witnessed one it follows."""

    seq: int
    at: str
    witnessed: int
    witnessed_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `examine` found.

    Attributes:
        change: what was done to the first record that does not fit.
        epochs: (epoch, number of its first record), in order.
        signed: newest record under a good checkpoint. witnessed: under a countersigned one.
        witnessed_s: when, in seconds since 1970.
        checkpoints: how many fit.
        own_keys: the keys came out of the file: they prove nothing against somebody who could write it.
    """

    verdict: Verdict
    epochs: tuple[tuple[str, int], ...]
    change: Change | None
    problems: tuple[Problem, ...]
    signed: int
    witnessed: int
    witnessed_s: int | None
    checkpoints: int
    gaps: tuple[Gap, ...]
    backdated: tuple[Backdated, ...]
    own_keys: bool

    @property
    def is_good(self) -> bool:
        """Nothing contradicts anything."""
        return not self.problems


@dataclass(slots=True)
class _Claim:
    """A checkpoint, and what is found of it. `seq`: its newest record. `end`: of its epoch, 0 when that goes on."""

    note: Note
    checkpoint: Checkpoint
    seq: int
    end: int
    witnessed_s: int | None = None
    fits: bool | None = None


@dataclass(slots=True)
class _Walk:
    """Goes with the check of the chain through the records."""

    claims: dict[int, list[_Claim]]
    firsts: Collection[int]
    witnessed: int
    gaps: list[Gap] = field(default_factory=list)
    backdated: list[Backdated] = field(default_factory=list)
    _tree: Range = EMPTY
    _waiting: list[bytes] = field(default_factory=list)
    _seq: int = 0
    _at: str = ""

    def see(self, kind: str, data: bytes, chain: bytes) -> None:
        """The next record; the one after the last good one may be anything."""
        if not isinstance(data, bytes):
            return
        self._seq += 1
        if self._seq in self.firsts:
            self._tree, self._waiting = EMPTY, []
        self._waiting.append(data)
        if len(self._waiting) >= _GATHER or self._seq in self.claims:
            self._tree, self._waiting = extend(self._tree, self._waiting), []
        for claim in self.claims.get(self._seq, ()):
            claim.fits = root(self._tree) == claim.checkpoint.root and chain == claim.checkpoint.chain
        if kind in DECLARED or (self.witnessed and self._seq >= self.witnessed):
            self._read(kind, data)

    def _read(self, kind: str, data: bytes) -> None:
        try:
            fields = json.loads(data)
            at, body = str(fields["at"]["utc"]), fields["body"]
            if kind in DECLARED:
                self.gaps.append(Gap(seq=self._seq, kind=kind, at=at, body=body))
            if self._seq == self.witnessed or (kind in DECLARED and kind.startswith("clock.")):
                self._at = at  # from here on times count from what the clock says now
            elif self._at and utc_from_text(self._at) - utc_from_text(at) > BACKDATED_S * 1000:
                late = Backdated(seq=self._seq, at=at, witnessed=self.witnessed, witnessed_at=self._at)
                self.backdated.append(late)
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # the check of the chain says what is wrong with it


def examine(
    path: Path,
    *,
    gateway_keys: Sequence[Ed25519PublicKey] = (),
    witness_keys: Sequence[Ed25519PublicKey] = (),
    notes: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Check everything that a journal.db can prove. Reads only, also while the daemon runs.

    Args:
        gateway_keys, witness_keys: who must have signed; without them those that the file names, which is weaker.
        notes: checkpoints that were kept elsewhere: from headquarters, from paper.

    Raises:
        PermanentError: the file is not a journal.
    """
    stored = _stored(path)
    problems: list[Problem] = []
    first = tuple(gateway_keys) or stored.keys[GATEWAY][:1]
    gateway = introduced(first, stored.gateway, stored.turns, own=not gateway_keys)
    keys = _Keys(tuple(gateway), tuple(witness_keys) or stored.keys[WITNESS])
    texts = [*stored.notes, *((None, text) for text in notes)]
    claims = [claim for size, text in texts if (claim := _claim(size, text, stored, keys, problems)) is not None]
    firsts = {first: epoch for epoch, first in stored.epochs}
    walk = _Walk(_by_seq(claims), firsts, _newest_witnessed(claims))
    verdict = verify_file(path, progress, walk.see)
    change = _change(path, verdict, firsts)
    if verdict.bad_seq is not None:
        problems.insert(0, Problem(code="change" if change else "trace", about=(verdict.bad_seq, verdict.records)))
    problems += _contradictions(claims, verdict, is_whole=change is None)
    if witness_keys and not walk.witnessed:
        problems.append(Problem(code="unwitnessed"))
    good = [claim for claim in claims if claim.fits]
    last = max((claim for claim in good if claim.witnessed_s is not None), key=_seq, default=None)
    return Report(
        verdict=verdict,
        epochs=stored.epochs,
        change=change,
        problems=tuple(problems),
        signed=max(map(_seq, good), default=0),
        witnessed=last.seq if last else 0,
        witnessed_s=last.witnessed_s if last else None,
        checkpoints=len(good),
        gaps=tuple(walk.gaps),
        backdated=tuple(walk.backdated),
        own_keys=not (gateway_keys and witness_keys),
    )


@dataclass(frozen=True, slots=True)
class _Keys:
    """Who may have signed. `gateway`: the first key, and those that a record introduced, each from that record on."""

    gateway: tuple[Since, ...]
    witness: tuple[Ed25519PublicKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What lies beside the records."""

    gateway: str
    epochs: tuple[tuple[str, int], ...]
    notes: list[tuple[int | None, str]]
    turns: list[tuple[int, str, bytes]]
    keys: dict[str, tuple[Ed25519PublicKey, ...]]

    def place(self, origin: str) -> tuple[int, int] | None:
        """Number of the record before an epoch, and of its last one, 0 when it goes on; None of another journal."""
        names = [origin_of(self.gateway, epoch) for epoch, _ in self.epochs]
        if origin not in names:
            return None
        at = names.index(origin)
        ends = [*(first - 1 for _, first in self.epochs[1:]), 0]
        return self.epochs[at][1] - 1, ends[at]


def _stored(path: Path) -> _Stored:
    """Read before the records, which may become more meanwhile."""
    try:
        with contextlib.closing(connect_for_reading(path)) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            notes, keys = [], {GATEWAY: (), WITNESS: ()}
            if "checkpoint" in tables:
                sql = "SELECT size, note, cosignatures FROM checkpoint ORDER BY epoch, size"
                notes = [(size, f"{note}{more}") for size, note, more in connection.execute(sql)]
            if "evidence_key" in tables:
                rows = connection.execute("SELECT role, key FROM evidence_key ORDER BY rowid").fetchall()
                keys = {role: tuple(_readable(key for r, key in rows if r == role)) for role in keys}
            epochs = tuple(epochs_of(connection)) or ((meta["epoch"], 1),)
            sql = "SELECT seq, kind, data FROM record WHERE kind IN (?, ?) ORDER BY seq"
            turns = connection.execute(sql, (ROTATED, REPLACED)).fetchall()
            return _Stored(gateway=meta["gateway"], epochs=epochs, notes=notes, turns=turns, keys=keys)
    except (sqlite3.Error, KeyError) as error:
        raise PermanentError(f"{path}: not a journal: {error}", hint="name the journal.db of a gateway") from error


def _readable(keys: Iterable[Any]) -> Iterator[Ed25519PublicKey]:
    for text in keys:
        with contextlib.suppress(ValueError):
            yield parse_public_key(str(text))


def _claim(size: int | None, text: str, stored: _Stored, keys: _Keys, problems: list[Problem]) -> _Claim | None:
    """A checkpoint whose signatures are good; else a problem. `size`: what stands beside it."""
    try:
        note = parse_note(text)
        checkpoint = Checkpoint.parse(note.text)
    except NoteError as error:
        problems.append(Problem(code="note", about=(size or "?", str(error))))
        return None
    place = stored.place(checkpoint.origin)
    if place is None:
        ours = origin_of(stored.gateway, stored.epochs[-1][0])
        problems.append(Problem(code="foreign", about=(checkpoint.origin, ours)))
        return None
    base, end = place
    try:
        if size is not None and size != checkpoint.size:
            raise NoteError(f"it is stored as one of {size} records")
        seq = base + checkpoint.size
        verify_note(note, checkpoint.origin, [one.key for one in keys.gateway if one.seq <= seq])
        return _Claim(note, checkpoint, base + checkpoint.size, end, _cosigned(note, keys.witness))
    except NoteError as error:
        problems.append(Problem(code="signature", about=(checkpoint.size, str(error))))
        return None


def _cosigned(note: Note, witnesses: Iterable[Ed25519PublicKey]) -> int | None:
    """When one of the witnesses countersigned; None when none did. Raises NoteError when a signature is wrong."""
    times = []
    for key in witnesses:
        name = witness_name(key)
        if any(signature.name == name for signature in note.signatures):
            times.append(verify_cosignature(note, name, key))
    return min(times, default=None)


def _change(path: Path, verdict: Verdict, firsts: Mapping[int, str]) -> Change | None:
    """What was done to the first record that does not fit; None when there is none, or it is missing at the end."""
    if verdict.bad_seq is None:
        return None
    with contextlib.closing(connect_for_reading(path)) as connection:
        if connection.execute("SELECT count(*) FROM record").fetchone()[0] < verdict.bad_seq:
            return None
        epoch = firsts.get(verdict.bad_seq, verdict.epoch) if verdict.bad_seq > 1 else verdict.epoch
        before = genesis_chain(verdict.gateway, epoch)
        if verdict.bad_seq not in (1, *firsts):
            sql = "SELECT chain FROM record ORDER BY seq LIMIT 1 OFFSET ?"
            before = connection.execute(sql, (verdict.bad_seq - 2,)).fetchone()[0]
        return what_happened(connection, verdict.bad_seq, before, epoch)


def _contradictions(claims: Sequence[_Claim], verdict: Verdict, *, is_whole: bool) -> list[Problem]:
    """Records that a checkpoint knows otherwise, and records that only a checkpoint knows any more.

    Args:
        is_whole: the chain is good to the end of the file.
    """
    problems: list[Problem] = []
    good = 0
    for claim in sorted(claims, key=_seq):
        if claim.fits:
            good = claim.seq
        elif claim.fits is False:
            problems.append(Problem(code="rewritten", about=(good + 1, claim.seq, claim.witnessed_s)))
            break
    beyond = [claim for claim in claims if claim.seq > (claim.end or verdict.records)]
    if beyond and is_whole and not problems:
        most = max(beyond, key=lambda claim: (claim.witnessed_s is not None, claim.seq))
        about = (most.end or verdict.records, most.seq, most.witnessed_s)
        problems.append(Problem(code="forgotten" if most.end else "truncated", about=about))
    return problems


def _by_seq(claims: Sequence[_Claim]) -> dict[int, list[_Claim]]:
    found: dict[int, list[_Claim]] = {}
    for claim in claims:
        if not claim.end or claim.seq <= claim.end:
            found.setdefault(claim.seq, []).append(claim)
    return found


def _newest_witnessed(claims: Sequence[_Claim]) -> int:
    return max((claim.seq for claim in claims if claim.witnessed_s is not None), default=0)


def _seq(claim: _Claim) -> int:
    return claim.seq
