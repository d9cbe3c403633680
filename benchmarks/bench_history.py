"""What a reading costs on the wire and on the device, and how long a chart of a year takes. About two minutes.

The workload is that of the design: 200 points at one reading a second. A year of one point, a reading every ten
seconds, goes through history and trends as it would in a year; 199 other points get copies of its rows, so that the
file has the size and the layout of a real one. Everything lies in the current folder: a file system in memory writes
nothing to a device.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import gzip
import json
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meter import Goals, columns, median, written_bytes
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.sync.cloud_client import UplinkOptions
from sitewarden.sync.history import History
from sitewarden.sync.journal import Journal
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.tallies import DAY_MS, HOUR_MS
from sitewarden.sync.trends import Trends
from sitewarden.sync.uplink import run_uplink
from sitewarden.words import Instant, Quality, Reading

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
POINTS, FLUSH_S, SEAL = 200, 10, 8_000
SENT_S, WRITTEN_S = 1_000, 4_000
YEAR_STEP_MS, YEAR_DAYS, MINUTES_DAYS = 10_000, 365, 92
PIXELS, ROUNDS = 1_000, 7
T0 = 1_795_000_000_000 - 1_795_000_000_000 % DAY_MS
TIMES = {"devices": "four of a device at once", "alone": "each at a time of its own"}
POINT = "hall0.device0.value0"


class Plant:
    """Points that move as those of a plant do: temperatures and humidities in tenths, pressures, gases mostly at rest.

    Args:
        alone: every reading has a millisecond of its own, as from MQTT devices; else a device's four are read at once.
    """

    def __init__(self, *, alone: bool = False) -> None:
        self._dice, self._each = random.Random(1), 1 if alone else 4
        self.points = [f"hall{i // 20}.device{i // 4}.value{i % 4}" for i in range(POINTS)]
        self._values = [20.0 + i % 50 for i in range(POINTS)]

    def second(self, number: int) -> list[Reading]:
        """What is read in one second; the buses are not asked all at the same millisecond."""
        found: list[Reading] = []
        for group in range(0, POINTS, self._each):
            jitter = self._dice.randrange(8)
            at = Instant(utc_ms=T0 + number * 1000 + group + jitter, mono_s=number + (group + jitter) / 1000, boot="b")
            for index in range(group, group + self._each):
                self._values[index] = value = self._next(index)
                found.append(Reading(point=self.points[index], value=value, quality=Quality.GOOD, at=at))
        return found

    def _next(self, index: int) -> float:
        value, kind = self._values[index], index % 4
        if kind == 3:
            return round(max(0.0, value + self._dice.choice((0, 0, 0, 0, 0, 0, 0, 0.1, -0.1))), 1)
        step = 0.001 if kind == 2 else 0.1
        return round(value + self._dice.choice((-2, -1, -1, 0, 0, 0, 1, 1, 2)) * step, 3 if kind == 2 else 1)


# --- the wire ----------------------------------------------------------------------------------------------------


def as_json(batch: list[Reading]) -> bytes:
    """As many send it: an object for each reading."""
    rows = [{"point": r.point, "ts": r.at.utc_ms, "value": r.value, "quality": r.quality.value} for r in batch]
    return json.dumps(rows, separators=(",", ":")).encode()


class Counter:
    """A TCP proxy that counts what a gateway sends: requests, heads and bodies."""

    def __init__(self, port: int) -> None:
        self._port, self.bytes = port, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.suppress(OSError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back, counts=True))
                group.create_task(self._pump(there, writer, counts=False))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counts: bool) -> None:
        while piece := await source.read(65_536):
            self.bytes += len(piece) if counts else 0
            sink.write(piece)
            await sink.drain()
        sink.close()


@contextlib.asynccontextmanager
async def headquarters(folder: Path) -> AsyncIterator[Counter]:
    gateway = GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(KEY))
    config = CloudConfig(cloud=CloudTable(name="总部", name_en="HQ", port=0), gateway=(gateway,))
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_cloud(config, folder, ready=up.set_result))
        yield Counter(await up)
        task.cancel()


async def wire(folder: Path, *, alone: bool) -> tuple[float, float, float]:
    """Bytes per reading: ours with everything that HTTP adds, JSON, JSON in gzip; the same readings."""
    plant, plain, packed, count = Plant(alone=alone), 0, 0, SENT_S * POINTS
    (folder / "wire").mkdir(parents=True)
    async with (
        Journal(folder / "wire" / "journal.db", "gw1") as journal,
        History(folder / "wire" / "history.db", "gw1", seal_readings=SEAL) as history,
        headquarters(folder / "hq") as counter,
    ):
        batch: list[Reading] = []
        for number in range(SENT_S):
            batch += plant.second(number)
            if len(batch) >= 5_000:
                history.add(batch)
                await history.flush()
                text = as_json(batch)
                plain, packed = plain + len(text), packed + len(gzip.compress(text, 6))
                batch = []
        history.add(batch)
        text = as_json(batch)
        plain, packed = plain + len(text), packed + len(gzip.compress(text, 6))
        await history.flush(seal=True)
        server = await asyncio.start_server(counter.serve, "127.0.0.1", 0)
        options = UplinkOptions(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", gateway="gw1")
        health = UplinkHealth()
        task = asyncio.create_task(run_uplink(journal, history, KEY, options, health))
        async with asyncio.timeout(120):
            while health.streams.get("history") is None or health.streams["history"].ack < history.sealed_head():
                await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        server.close()
    return counter.bytes / count, plain / count, packed / count


# --- the device --------------------------------------------------------------------------------------------------


async def device(folder: Path, *, trends: bool, seal: int) -> float:
    """Bytes that were written to the device for a reading, the checkpoints of both files included."""
    plant = Plant()
    folder.mkdir()
    before = written_bytes(os.getpid())
    async with contextlib.AsyncExitStack() as stack:
        history = await stack.enter_async_context(History(folder / "history.db", "gw1", seal_readings=seal))
        found = await stack.enter_async_context(Trends(folder / "trends.db", history)) if trends else None
        for number in range(WRITTEN_S):
            history.add(plant.second(number))
            if number % FLUSH_S == FLUSH_S - 1:
                await history.flush()
                if found is not None:
                    await found.step()
    os.sync()
    return (written_bytes(os.getpid()) - before) / (WRITTEN_S * POINTS)


# --- a year ------------------------------------------------------------------------------------------------------


def year() -> Iterator[tuple[int, float]]:
    dice, value = random.Random(3), 40.0
    for step in range(YEAR_DAYS * DAY_MS // YEAR_STEP_MS):
        value = round(min(90.0, max(5.0, value + dice.choice((-0.1, 0.0, 0.1)))), 1)
        yield T0 + step * YEAR_STEP_MS, value


async def fill(folder: Path, values: list[tuple[int, float]]) -> None:
    """Through history and trends, as a gateway would in that year."""
    async with (
        History(folder / "history.db", "gw1", seal_readings=10_000, keep_days=3650) as history,
        Trends(folder / "trends.db", history) as found,
    ):
        for at in range(0, len(values), 10_000):
            history.add(
                [
                    Reading(
                        point=POINT,
                        value=value,
                        quality=Quality.GOOD,
                        at=Instant(utc_ms=utc_ms, mono_s=utc_ms / 1000, boot="b"),
                    )
                    for utc_ms, value in values[at : at + 10_000]
                ]
            )
            await history.flush()
            await found.step()


def copy_points(path: Path) -> None:
    """The other points of the file; minutes for as long as they are kept."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        last = connection.execute("SELECT max(at_ms) FROM minutes").fetchone()[0]
        connection.execute("DELETE FROM minutes WHERE at_ms < ?", (last - MINUTES_DAYS * DAY_MS,))
        numbers = range(2, POINTS + 1)
        connection.executemany("INSERT INTO point VALUES (?, ?)", [(f"copy.device.v{n}", n) for n in numbers])
        for table in ("minutes", "hours"):
            kept = connection.execute(f"SELECT at_ms, body FROM {table} WHERE point = 1 ORDER BY at_ms").fetchall()
            names = "(at_ms, body, point)"
            for at_ms, body in kept:
                rows = ((at_ms, body, number) for number in numbers)
                connection.executemany(f"INSERT INTO {table} {names} VALUES (?, ?, ?)", rows)
        connection.commit()


def forget_pages(path: Path) -> None:
    """What the kernel has in memory of a file: the next reads go to the device."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def charts(folder: Path, spans: dict[str, int]) -> dict[str, tuple[float, float, int]]:
    """Milliseconds with cold and with warm files, and buckets, for each span."""
    found: dict[str, tuple[float, float, int]] = {}
    end_ms = T0 + YEAR_DAYS * DAY_MS
    for name, span_ms in spans.items():
        cold, warm, buckets = [], [], 0
        for _ in range(ROUNDS):
            for file in ("history.db", "trends.db"):
                forget_pages(folder / file)
            async with (
                History(folder / "history.db", "gw1") as history,
                Trends(folder / "trends.db", history) as trends,
            ):
                for times in (cold, warm):
                    since = time.perf_counter()
                    chart = await trends.chart(POINT, end_ms - span_ms, end_ms, PIXELS)
                    times.append((time.perf_counter() - since) * 1000)
                buckets = len(chart.buckets)
        found[name] = (median(cold), median(warm), buckets)
    return found


def scans(folder: Path, values: list[tuple[int, float]]) -> dict[str, float]:
    """Milliseconds of the same numbers from every reading of the year: SQLite over rows, C loops over an array."""
    width = YEAR_DAYS * DAY_MS // PIXELS
    with contextlib.closing(sqlite3.connect(folder / "rows.db")) as connection:
        connection.execute("CREATE TABLE reading (at_ms INTEGER PRIMARY KEY, value REAL)")
        connection.executemany("INSERT INTO reading VALUES (?, ?)", values)
        connection.commit()
        sql = "SELECT at_ms / ?, min(value), avg(value), max(value), count(*) FROM reading GROUP BY 1"
        rows = _timed(lambda: connection.execute(sql, (width,)).fetchall())
    numbers = array.array("d", [value for _, value in values])
    step = max(1, len(numbers) // PIXELS)

    def loop() -> object:
        parts = [numbers[at : at + step] for at in range(0, len(numbers), step)]
        return [(min(part), sum(part), max(part)) for part in parts]

    return {"SQLite over rows": rows, "an array in memory": _timed(loop)}


def _timed(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        since = time.perf_counter()
        work()
        times.append((time.perf_counter() - since) * 1000)
    return median(times)


async def main() -> None:
    """Print the tables, then the goals."""
    goals = Goals()
    with tempfile.TemporaryDirectory(prefix="bench-history-", dir=Path.cwd()) as name:
        folder = Path(name)
        sent = {what: await wire(folder / what, alone=what == "alone") for what in ("devices", "alone")}
        for what, (ours, plain, packed) in sent.items():
            rows = [("JSON", plain), ("JSON, gzip", packed), ("sitewarden, HTTP heads included", ours)]
            table = [(one, f"{size:.2f}", f"{size / ours:.1f}") for one, size in rows]
            title = f"On the wire, {POINTS} points at 1 Hz, {SENT_S * POINTS:,} readings, {TIMES[what]}"
            columns(title, ("", "B/reading", "x"), table)
        bare = await device(folder / "bare", trends=False, seal=SEAL)
        both = await device(folder / "both", trends=True, seal=SEAL)
        short = await device(folder / "short", trends=True, seal=2_000)
        table = [
            (what, f"{size:.1f}", f"{size * POINTS * 86_400 / 1e9:.2f}")
            for what, size in (("history", bare), ("history and trends", both), ("the same, segments of 2,000", short))
        ]
        columns(f"To the device, flush_s {FLUSH_S}", ("", "B/reading", "GB/day"), table)
        (folder / "year").mkdir()
        values = list(year())
        await fill(folder / "year", values)
        copy_points(folder / "year" / "trends.db")
        size = (folder / "year" / "trends.db").stat().st_size / 2**20
        spans = {"hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS, "month": 30 * DAY_MS, "year": 365 * DAY_MS}
        found = await charts(folder / "year", spans)
        table = [(what, f"{cold:.0f}", f"{warm:.0f}", str(count)) for what, (cold, warm, count) in found.items()]
        title = f"A chart of {PIXELS} pixels, {POINTS} points in trends.db ({size:.0f} MiB)"
        columns(title, ("", "ms, cold files", "ms, warm", "buckets"), table)
        against = scans(folder, values)
        cold, warm, _ = found["year"]
        table = [(what, f"{took:.0f}", f"{took / warm:.1f}") for what, took in against.items()]
        columns(f"The year from its {len(values):,} readings", ("", "ms", "x warm chart"), table)
    for what, (ours, _, packed) in sent.items():
        goals.most(f"wire, HTTP included, {TIMES[what]}", ours, 2.5, " B/reading")
        goals.least(f"JSON + gzip / ours, {TIMES[what]}", packed / ours, 2)
    goals.most(f"device, flush_s {FLUSH_S}, trends included", both, 25, " B/reading")
    goals.most("year of a point, cold files", cold, 300, " ms")
    goals.most("year of a point / limit of 300 ms, warm", warm / 300, 1)
    goals.least("scan of the year in SQLite / year of a point, warm", against["SQLite over rows"] / warm, 5)
    goals.print()


if __name__ == "__main__":
    asyncio.run(main())
