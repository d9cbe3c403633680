"""What evidence costs: Merkle tree beside the bare chain, signatures per checkpoint, the journal with and without.

Everything in this process; subjects take turns, CPU of this thread, the fastest round counts and ratios are medians
over rounds. The journal's rows are wall time over a real file. The last part builds a journal of `--records` rows and
measures what a start costs: the first one of all, which hashes every record, and one that goes on from a checkpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meter import Goals, columns, ratio_rows
from sitewarden.sync.checkpoints import SLICE, Checkpoints
from sitewarden.sync.evidence import examine
from sitewarden.sync.evidence_state import EvidenceHealth
from sitewarden.sync.journal import Draft, Journal, canonical, genesis_chain, next_chain
from sitewarden.sync.merkle import EMPTY, append, check_inclusion, extend, inclusion_proof, leaf_hash, root
from sitewarden.sync.notes import (
    Checkpoint,
    Note,
    cosign,
    parse_note,
    sign_note,
    verify_cosignature,
    verify_note,
    witness_name,
)
from sitewarden.words import Instant

RECORDS, RECORD_BYTES, ROUNDS = 50_000, 159, 9
JOURNAL_RECORDS, TOGETHER, JOURNAL_ROUNDS = 30_000, 20, 5
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
AT = Instant(utc_ms=1_795_000_000_000, mono_s=1.0, boot="b")


def chained(records: Sequence[bytes]) -> None:
    chain = bytes(32)
    for data in records:
        chain = next_chain(chain, data)


def in_slices(records: Sequence[bytes]) -> None:
    """As checkpoints do it."""
    tree = EMPTY
    for start in range(0, len(records), SLICE):
        tree = extend(tree, records[start : start + SLICE])


def one_by_one(records: Sequence[bytes]) -> None:
    tree = EMPTY
    for data in records:
        tree = append(tree, data)


def hashing(goals: Goals) -> None:
    """Microseconds a record."""
    records = [random.Random(n).randbytes(RECORD_BYTES) for n in range(RECORDS)]
    subjects = {"chain": chained, f"Merkle, {SLICE} at a time": in_slices, "Merkle, one by one": one_by_one}
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, subject in subjects.items():
            began = time.thread_time()
            subject(records)
            found[name].append((time.thread_time() - began) / RECORDS * 1e6)
    ratios = ratio_rows(found, "chain")
    rows = [(name, f"{min(us):.2f}", f"{ratios[name]:.2f}") for name, us in found.items()]
    columns(f"Hashing, a record of {RECORD_BYTES} bytes", ("", "us", "x chain"), rows)
    goals.most("Merkle append / chain", ratios[f"Merkle, {SLICE} at a time"], 2)


def each_us(job: Callable[[], object], times: int = 300) -> float:
    """The median of single runs, microseconds of CPU."""
    taken = []
    for _ in range(times):
        began = time.thread_time()
        job()
        taken.append((time.thread_time() - began) * 1e6)
    return statistics.median(taken)


def signing() -> None:
    """What a checkpoint costs those who make and check it, and a proof of one record."""
    hashes = [leaf_hash(b"%d" % n) for n in range(100_000)]
    tree = extend(EMPTY, (b"%d" % n for n in range(100_000)))
    text = Checkpoint(origin="sitewarden/gw1/0123456789abcdef", size=tree.size, root=root(tree), chain=bytes(32)).text()
    note = sign_note(text, "sitewarden/gw1/0123456789abcdef", KEY)
    name, public = witness_name(KEY), KEY.public_key()
    line = cosign(text, name, KEY, 1_795_000_000)
    both = str(Note(text, (*note.signatures, line)))
    proof = inclusion_proof(hashes, 77_777)
    jobs: dict[str, Callable[[], object]] = {
        "sign": lambda: sign_note(text, "sitewarden/gw1/0123456789abcdef", KEY),
        "read and verify": lambda: verify_note(parse_note(both), "sitewarden/gw1/0123456789abcdef", [public]),
        "countersign": lambda: cosign(text, name, KEY, 1_795_000_000),
        "read and verify the countersignature": lambda: verify_cosignature(parse_note(both), name, public),
        f"check a record of 100,000 by {len(proof)} hashes": lambda: check_inclusion(
            hashes[77_777], 77_777, tree.size, proof, root(tree)
        ),
    }
    columns("A checkpoint, CPU", ("", "us"), [(what, f"{each_us(job):.0f}") for what, job in jobs.items()])


@contextlib.asynccontextmanager
async def signed(journal: Journal, wanted: bool) -> AsyncIterator[Checkpoints | None]:
    if not wanted:
        yield None
        return
    made = Checkpoints(journal, KEY, EvidenceHealth())
    task = asyncio.create_task(made.run())
    await made.ready.wait()
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def appended(folder: Path, with_checkpoints: bool) -> float:
    """Records a second through the journal, committed in groups as they come."""
    draft = Draft(
        kind="alarm.raised", at=AT, actor="gateway", body={"alarm": {"id": "a.b.c", "name": "湿度"}, "x": "x" * 200}
    )
    path = folder / f"{time.monotonic_ns()}.db"
    async with Journal(path, "gw1") as journal, signed(journal, with_checkpoints) as made:
        began = time.monotonic()
        for _ in range(0, JOURNAL_RECORDS, TOGETHER * 10):
            await asyncio.gather(*(journal.append([draft] * 10) for _ in range(TOGETHER)))
        taken_s = time.monotonic() - began
        while made is not None and made.health.signed < JOURNAL_RECORDS - 256:
            await asyncio.sleep(0.01)
    return JOURNAL_RECORDS / taken_s


def throughput(goals: Goals, folder: Path) -> None:
    found: dict[str, list[float]] = {"off": [], "on": []}
    for _ in range(JOURNAL_ROUNDS):
        for name, rates in found.items():
            rates.append(asyncio.run(appended(folder, name == "on")))
    ratio = statistics.median(on / off for on, off in zip(found["on"], found["off"], strict=True))
    rows = [(name, f"{statistics.median(rates):.0f}", f"{max(rates):.0f}") for name, rates in found.items()]
    columns("Journal, records/s, full sync", ("checkpoints", "median", "best"), rows)
    goals.least("records/s with checkpoints / without", ratio, 0.9)


def fill(path: Path, count: int) -> None:
    """A journal of `count` records that no checkpoint was ever made of."""
    asyncio.run(_made(path))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        epoch = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
        chain, rows = genesis_chain("gw1", epoch), []
        fields = {"at": AT.to_json(), "actor": "gateway", "blobs": [], "epoch": epoch, "kind": "test.noted"}
        connection.execute("BEGIN")
        for seq in range(1, count + 1):
            data = canonical({**fields, "body": {"n": seq}, "seq": seq})
            chain = next_chain(chain, data)
            rows.append((seq, "test.noted", data, chain))
            if len(rows) == 5_000 or seq == count:
                connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", rows)
                rows.clear()
        connection.execute("COMMIT")


async def _made(path: Path) -> None:
    async with Journal(path, "gw1"):
        pass


async def started(path: Path) -> tuple[float, float]:
    """Seconds until the journal takes records, and until everything is signed."""
    began = time.monotonic()
    async with Journal(path, "gw1") as journal, signed(journal, True) as made:
        assert made is not None
        await journal.append([Draft(kind="gateway.started", at=AT, actor="gateway", body={})])
        open_s = time.monotonic() - began
        while made.health.signed < journal.head()[0] - 1:  # that one record may come a minute later
            await asyncio.sleep(0.005)
        return open_s, time.monotonic() - began


def starts(goals: Goals, folder: Path, count: int) -> None:
    path = folder / "long.db"
    fill(path, count)
    first, later = asyncio.run(started(path)), asyncio.run(started(path))
    began = time.monotonic()
    report = examine(path)
    verify_s = time.monotonic() - began
    assert report.is_good
    rows = [
        ("the first with checkpoints", f"{first[0]:.2f}", f"{first[1]:.2f}"),
        ("every later one", f"{later[0]:.3f}", f"{later[1]:.3f}"),
        ("sitewarden verify", "-", f"{verify_s:.1f}"),
    ]
    columns(f"A journal of {count:,} records, s", ("start", "takes records after", "signed after"), rows)
    goals.most("a start with checkpoints, signed after", later[1], 2, " s")
    goals.most("the first start of all takes records after", first[0], 5, " s")


def main() -> None:
    """Print what evidence costs, then the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="of the long journal")
    parser.add_argument("--folder", type=Path, default=None, help="for the journals: a real disk")
    options = parser.parse_args()
    goals = Goals()
    hashing(goals)
    signing()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        throughput(goals, Path(folder))
        starts(goals, Path(folder), options.records)
    goals.print()


if __name__ == "__main__":
    main()
