"""The link to headquarters: what an outage, weeks of backlog and a narrow line cost, and how soon an alarm is through.

- outage: 200 readings/s and a record a second go on while the link is silent for two minutes; from its return until
  headquarters has all that was committed then. Afterwards both sides' records and readings are compared as lists
- tries: shorter outages, of the modem and of the cable; from the return to the gateway's first packet
- drain: four weeks of history and 100,000 records on a link as fast as the machine, beside a client that only PUTs the
  same bytes to a handler that only reads them
- journal: records a second at full sync, beside bare commits of SQLite
- alarms: 256 kbit/s with a backlog of history and evidence; from the commit on the gateway to headquarters' commit
- snapshot: 256 kbit/s with weeks of records before it; from the commit of an alarm until headquarters shows it

Gateway and headquarters are `sitewarden edge` and `sitewarden cloud` processes with files on disk, seen from outside
(link_watch.py). The link: link_rig.py. Runs that miss their goal are repeated, at most `RUNS` in all, and each is
printed, with the load of the machine before it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import link_backlog
from link_rig import Rig, enter, rig
from link_seen import Toggles, Watch, load, rows_of, watching
from meter import Goals, child, columns, cpu_s, free_port, python, wait_for
from sitewarden.sync.columns import decompress, readings, unpack
from sitewarden.sync.journal import Journal
from sitewarden.sync.several import MAX_BATCHES, pack_several

RUNS = 3
KBIT_S = 256
_REQUEST_BYTES = 512 * 1024
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    outage_s: float = 120
    tries: int = 12
    segments: int = 4 * 7 * 24 * 360
    records: int = 100_000
    journal_s: float = 10
    alarms: int = 120
    every_s: float = 1.0
    snapshots: int = 20


QUICK = Sizes(outage_s=8, tries=2, segments=3_000, records=5_000, journal_s=1, alarms=20, every_s=0.4, snapshots=4)


# --- outage and tries ---


def measure_outages(goals: Goals, folder: Path, sizes: Sizes, namespaces: bool) -> None:
    with rig(folder, None, namespaces=namespaces) as made, made.headquarters():
        asyncio.run(link_backlog.history(made.data / "history.db", 20))  # a short run seals nothing of its own
        toggles = Toggles(made)
        with made.gateway(), watching(made) as watch:
            wait_for("all records at headquarters", lambda: _is_level(watch), 60)
            best_s = _outages(made, watch, toggles, sizes)
            tries = _tries(made, watch, toggles, sizes)
        heads = _newest(made.data / "journal.db"), _newest(made.data / "history.db", "segment", "n")
        with made.gateway(), watching(made) as watch:
            wait_for("the rest of the records", lambda: watch.newest("cloud") >= heads[0], 60)
            wait_for("the rest of the segments", lambda: watch.newest("segments") >= heads[1], 60)
        lost, twice, order = compare(made, *heads)
    goals.most(f"outage of {sizes.outage_s:g} s: caught up after its end", best_s, 2, " s")
    goals.most("first packet after the link's return, the latest", max(tries), 1, " s")
    goals.most("records and readings: lost", lost, 0)
    goals.most("twice", twice, 0)
    goals.most("out of order or different", order, 0)


def _is_level(watch: Watch) -> bool:
    edge = watch.newest("edge")
    return edge > 0 and watch.newest("cloud") >= edge


def _newest(path: Path, table: str = "record", column: str = "seq") -> int:
    return rows_of(path, f"SELECT max({column}) FROM {table}")[0][0] or 0


def _outages(made: Rig, watch: Watch, toggles: Toggles, sizes: Sizes) -> float:
    rows, best_s = [], math.inf
    while len(rows) < RUNS and best_s > 2:
        toggles.during(min(5, sizes.outage_s / 4))
        before = load()
        made.link.cut()
        begin = watch.newest("cloud"), watch.newest("segments")
        toggles.during(sizes.outage_s)
        mended_s = made.link.mend()
        heads, took = _caught_up(watch, toggles, mended_s)
        best_s = min(best_s, max(0.0, *took))
        waited = [head - start for head, start in zip(heads, begin, strict=True)]
        rows.append((made.link.says, before, *map(str, waited), *(f"{max(0.0, s):.2f}" for s in took)))
    head = ("", "load", "records waited", "segments waited", "records through, s", "segments through, s")
    columns(f"Outage of {sizes.outage_s:g} s at 200 readings/s", head, rows)
    return best_s


def _caught_up(watch: Watch, toggles: Toggles, mended_s: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """The newest record and segment of when the link came back, and the seconds until headquarters had them."""
    while True:
        toggles.during(0.5)
        watch.refresh()
        heads = watch.at("edge", mended_s), watch.at("sealed", mended_s)
        took = watch.when("cloud", heads[0]) - mended_s, watch.when("segments", heads[1]) - mended_s
        if not math.isinf(max(took)) or time.monotonic() - mended_s > _PATIENCE_S:
            return heads, took


def _tries(made: Rig, watch: Watch, toggles: Toggles, sizes: Sizes) -> list[float]:
    """Seconds from the return to the first packet; of a relay, which has none, to the first record."""
    dice = random.Random(8)
    found: dict[str, list[tuple[float, float, float]]] = {"modem": [], "cable": []}
    for turn in range(sizes.tries):
        what = "cable" if turn % 2 else "modem"
        lasts_s = dice.uniform(1, 14) if sizes.tries > 4 else dice.uniform(2, 4)
        toggles.during(min(2.5, lasts_s / 2))
        made.link.cut(here=what == "cable")
        toggles.during(lasts_s)
        watch.packets()
        mended_s = made.link.mend()
        through_s = _caught_up(watch, toggles, mended_s)[1][0]
        first_s = min((at_s - mended_s for at_s in watch.packets() if at_s >= mended_s), default=math.inf)
        found[what].append((lasts_s, through_s if math.isinf(first_s) else first_s, max(0.0, through_s)))
    rows = [
        (
            f"{what}, {min(n for n, _, _ in of):.0f} to {max(n for n, _, _ in of):.0f} s",
            str(len(of)),
            f"{sorted(first for _, first, _ in of)[len(of) // 2]:.2f}",
            f"{max(first for _, first, _ in of):.2f}",
            f"{sorted(through for _, _, through in of)[len(of) // 2]:.2f}",
            f"{max(through for _, _, through in of):.2f} (after {max(of, key=lambda one: one[2])[0]:.1f} s)",
        )
        for what, of in found.items()
    ]
    head = ("outage of", "times", "first packet, median", "most", "all records through, median", "most")
    columns("Seconds after the link's return", head, rows)
    return [first for of in found.values() for _, first, _ in of]


def compare(made: Rig, records: int, segments: int) -> tuple[int, int, int]:
    """Both sides' records and readings as lists, up to those numbers: how many are lost, twice, and not in order."""
    sql = "SELECT seq, data, chain FROM record WHERE seq <= ? ORDER BY seq"
    journal = rows_of(made.data / "journal.db", sql, records), rows_of(made.hq / "cloud.db", sql, records)
    sql = "SELECT n, body FROM segment JOIN body USING (n) WHERE n <= ? ORDER BY n"
    here = rows_of(made.data / "history.db", sql, segments)
    sql = "SELECT n, body FROM batch WHERE stream = 'history' AND n <= ? ORDER BY n"
    there = rows_of(made.hq / "cloud.db", sql, segments)
    measured = _readings(here), _readings(there)
    if len(journal[0]) != records or len(here) != segments:
        raise SystemExit("the gateway itself has lost something")
    lost = sum(len(set(ours) - set(theirs)) for ours, theirs in (journal, measured))
    twice = sum(len(theirs) - len(set(theirs)) for _, theirs in (journal, measured))
    wrong = int(journal[0] != journal[1]) + int(measured[0] != measured[1]) + _not_in_order(measured[1])
    columns(
        "Both sides as lists",
        ("", "records", "readings", "lost", "twice", "lists that differ"),
        [("", str(records), str(len(measured[0])), str(lost), str(twice), str(wrong))],
    )
    return lost, twice, wrong


def _readings(rows: Sequence[tuple[int, bytes]]) -> list[tuple[Any, ...]]:
    found = [reading for _, body in rows for reading in readings(unpack(decompress(body)))]
    return [(one.point, one.at.utc_ms, one.value, one.quality) for one in found]


def _not_in_order(found: Sequence[tuple[Any, ...]]) -> int:
    """Readings of a point that are not later than the one before."""
    last: dict[str, int] = {}
    wrong = 0
    for point, utc_ms, _, _ in found:
        wrong += utc_ms <= last.get(point, -1)
        last[point] = utc_ms
    return wrong


# --- drain ---


def measure_drain(folder: Path, sizes: Sizes, namespaces: bool) -> None:
    with rig(folder, None, namespaces=namespaces) as made:
        made.data.mkdir(parents=True)
        begun_s = time.monotonic()
        asyncio.run(link_backlog.history(made.data / "history.db", sizes.segments))
        asyncio.run(link_backlog.journal(made.data / "journal.db", sizes.records))
        size = (made.data / "history.db").stat().st_size
        print(f"\nbacklog made in {time.monotonic() - begun_s:.0f} s: {size / 2**20:.0f} MiB of history", flush=True)
        with made.headquarters() as hq, watching(made) as watch, made.gateway() as edge:
            before = load()
            wait_for("records", lambda: watch.newest("cloud") >= sizes.records, 600)
            wait_for("history", lambda: watch.newest("segments") >= sizes.segments, 1800)
            cpu = [cpu_s(one.pid) for one in (edge, hq)]
        count = sizes.segments * link_backlog.READINGS
        ours = watch.rate("segments") * link_backlog.READINGS
        bare = _bare(made, sizes.segments)
        cells = (f"{size / count:.2f}", *(f"{1e6 * one / count:.2f}" for one in cpu))
        columns(
            f"Drain of {count / 1e6:.1f} million readings (load {before})",
            ("", "readings/s", "x bare", "seconds", "bytes/reading", "CPU us, gateway", "CPU us, headquarters"),
            [
                ("gateway to headquarters", f"{ours:,.0f}", f"{ours / bare:.3f}", f"{count / ours:.1f}", *cells),
                ("bare client to a handler that reads", f"{bare:,.0f}", "1", f"{count / bare:.1f}", "-", "-", "-"),
            ],
        )
        print(f"  records of the journal, before the history: {watch.rate('cloud'):,.0f} a second", flush=True)


def _bare(made: Rig, segments: int) -> float:
    """Readings a second of a client that PUTs the same bodies, as many in a request, and no more."""
    port = free_port()
    with child(*made.link.there(*python("ingest_noop.py", port, made.link.far))) as noop:
        noop.line("ready")
        return asyncio.run(_put_all(made.data / "history.db", f"http://{made.link.far}:{port}/x", segments))


async def _put_all(path: Path, url: str, segments: int) -> float:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        begun_s, n = time.monotonic(), 0
        sql = "SELECT chain, body FROM segment JOIN body USING (n) WHERE n > ? ORDER BY n LIMIT ?"
        async with aiohttp.ClientSession() as session:
            while n < segments:
                taken, size = [], 0
                for chain, body in connection.execute(sql, (n, MAX_BATCHES)):
                    size += len(body)
                    if taken and size > _REQUEST_BYTES:
                        break
                    taken.append((chain, body))
                async with session.put(url, data=pack_several(taken)) as answer:
                    await answer.read()
                n += len(taken)
        return n * link_backlog.READINGS / (time.monotonic() - begun_s)


# --- journal ---


def measure_journal(goals: Goals, folder: Path, sizes: Sizes) -> None:
    """Records a second that are on the device when `append` returns."""
    folder.mkdir()
    before = load()
    bare = _bare_commits(folder / "bare.db", sizes.journal_s / 4)
    rates = asyncio.run(_appends(folder, sizes.journal_s / 4))
    rows = [("bare commits of SQLite, one row each", f"{bare:,.0f}", "1")]
    rows += [(name, f"{rate:,.0f}", f"{rate / bare:.2f}") for name, rate in rates.items()]
    columns(f"Journal at full sync (load {before})", ("", "records/s", "x bare"), rows)
    goals.least("journal, 100 at the same time, records/s", rates["100 that append at the same time"], 1000)


def _bare_commits(path: Path, seconds: float) -> float:
    dice, count = random.Random(9), 0
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE record (seq INTEGER PRIMARY KEY, data BLOB)")
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < seconds:
            connection.execute("INSERT INTO record VALUES (?, ?)", (count, dice.randbytes(500)))
            count += 1
        return count / (time.monotonic() - begun_s)


async def _appends(folder: Path, seconds: float) -> dict[str, float]:
    dice = random.Random(9)

    async def one_by_one(journal: Journal, together: int, until_s: float) -> None:
        while time.monotonic() < until_s:
            await journal.append([link_backlog.note(dice) for _ in range(together)])

    found = {}
    for name, writers, together in (
        ("one after the other", 1, 1),
        ("100 that append at the same time", 100, 1),
        ("100 in each append", 1, 100),
    ):
        async with Journal(folder / f"{writers}_{together}.db", "gw1") as journal:
            begun_s = time.monotonic()
            work = [one_by_one(journal, together, begun_s + seconds) for _ in range(writers)]
            await asyncio.gather(*work)
            found[name] = journal.head()[0] / (time.monotonic() - begun_s)
    return found


# --- alarms and snapshot on a narrow link ---


def measure_alarms(goals: Goals, folder: Path, sizes: Sizes, namespaces: bool) -> None:
    def prepare(made: Rig) -> None:
        asyncio.run(link_backlog.history(made.data / "history.db", 24 * 360))
        asyncio.run(link_backlog.evidence(made.data, 8, 1 << 18, is_open=True))  # goes first
        asyncio.run(link_backlog.evidence(made.data, 40, 1 << 20, is_open=False))

    rows, best_s = [], math.inf
    while len(rows) < RUNS and best_s > 1:
        took, cells = _narrow(folder, sizes, namespaces, prepare, "cloud")
        best_s = min(best_s, _p99(took))
        rows.append(cells)
    _print_narrow("Alarms behind a backlog of history and evidence", rows)
    goals.most(f"alarms on {KBIT_S} kbit/s: p99 (best of {len(rows)})", best_s, 1, " s")


def measure_snapshots(goals: Goals, folder: Path, sizes: Sizes, namespaces: bool) -> None:
    def prepare(made: Rig) -> None:
        asyncio.run(link_backlog.journal(made.data / "journal.db", 150_000 if sizes.snapshots > 4 else 20_000))
        asyncio.run(link_backlog.history(made.data / "history.db", 1_000))

    chosen = Sizes(alarms=sizes.snapshots, every_s=2.5 if sizes.snapshots > 4 else 1.5)
    rows, best_s = [], math.inf
    while len(rows) < RUNS and best_s > 2:
        took, cells = _narrow(folder, chosen, namespaces, prepare, "snapshot")
        best_s = min(best_s, max(took))
        rows.append(cells)
    _print_narrow("Snapshot of the open alarms behind weeks of records", rows)
    goals.most(f"snapshot on {KBIT_S} kbit/s: the latest (best of {len(rows)})", best_s, 2, " s")


def _narrow(
    folder: Path, sizes: Sizes, namespaces: bool, prepare: Callable[[Rig], None], until: str
) -> tuple[list[float], tuple[str, ...]]:
    """Alarms on a narrow link; how long each took to be in headquarters' stream, or table, `until`."""
    with rig(folder, KBIT_S, namespaces=namespaces) as made:
        made.data.mkdir(parents=True)
        prepare(made)
        known = _newest(made.data / "journal.db")
        with made.headquarters(), watching(made) as watch, made.gateway():
            wait_for("bulk", lambda: _bytes_there(made) > 50_000 or watch.newest("cloud") > 1000 or not made.alive, 120)
            time.sleep(3)
            before, sent, begun_s, first = load(), _bytes_there(made), time.monotonic(), watch.newest("cloud")
            toggles = Toggles(made)
            while len(found := _raised(made, known)) < sizes.alarms:
                toggles.next()
                time.sleep(sizes.every_s * random.uniform(0.5, 1.5))
            wait_for("the last alarm", lambda: watch.newest(until) >= found[-1], _PATIENCE_S)
            goodput = (_bytes_there(made) - sent) * 8 / 1000 / (time.monotonic() - begun_s)
            came = (watch.newest("cloud") - first) / (time.monotonic() - begun_s)
            behind = watch.newest("edge") - watch.newest("cloud"), watch.newest("sealed") - watch.newest("segments")
        took = [watch.when(until, seq) - watch.when("edge", seq) for seq in found]
        numbers = (f"{seconds:.2f}" for seconds in (_p(took, 0.5), _p99(took), max(took)))
        cells = (made.link.says, before, str(len(took)), *numbers, f"{came:.0f}", f"{goodput:.0f}", *map(str, behind))
    return took, cells


def _print_narrow(title: str, rows: Sequence[Sequence[str]]) -> None:
    came = ("records/s came", "kbit/s of bulk came", "records behind", "segments behind")
    head = ("", "load", "alarms", "p50 s", "p99 s", "most s", *came)
    columns(f"{title}, {KBIT_S} kbit/s", head, rows)


def _raised(made: Rig, known: int) -> list[int]:
    """Numbers of the records that raise an alarm, after record `known`."""
    sql = "SELECT seq FROM record WHERE seq > ? AND kind = 'alarm.raised' ORDER BY seq"
    return [seq for (seq,) in rows_of(made.data / "journal.db", sql, known)]


def _bytes_there(made: Rig) -> int:
    """Bulk that headquarters has taken: segments as they came, and pieces of evidence."""
    batches = rows_of(made.hq / "cloud.db", "SELECT coalesce(sum(length(body)), 0) FROM batch")[0][0]
    return batches + sum(file.stat().st_size for file in (made.hq / "blobs").rglob("*") if file.is_file())


def _p(took: Sequence[float], share: float) -> float:
    return sorted(took)[min(int(len(took) * share), len(took) - 1)]


def _p99(took: Sequence[float]) -> float:
    return _p(took, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything, small, in under 90 seconds")
    parser.add_argument("--relay", action="store_true", help="no network namespaces, even where they are allowed")
    parts = ("outage", "drain", "journal", "alarms", "snapshot")
    parser.add_argument("--only", choices=parts, action="append", default=None)
    parser.add_argument("--folder", type=Path, default=None, help="where the stores lie [default: a temporary one]")
    options = parser.parse_args()
    namespaces = enter(proxy=options.relay)
    sizes = QUICK if options.quick else Sizes()
    print(f"load of the machine before: {load()} of {os.cpu_count()} cores")
    goals = Goals()
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        wanted = options.only or parts
        if "outage" in wanted:
            measure_outages(goals, folder / "outage", sizes, namespaces)
        if "drain" in wanted:
            measure_drain(folder / "drain", sizes, namespaces)
        if "journal" in wanted:
            measure_journal(goals, folder / "journal", sizes)
        if "alarms" in wanted:
            measure_alarms(goals, folder / "alarms", sizes, namespaces)
        if "snapshot" in wanted:
            measure_snapshots(goals, folder / "snapshot", sizes, namespaces)
    goals.print()


if __name__ == "__main__":
    main()
