"""The history as a file: what was measured, whole, in local time, for spreadsheets and for programs."""

from __future__ import annotations

import asyncio
import csv
import functools
import io
import random
import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import argon2
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner, Result
from sitewarden.cli import main
from sitewarden.edge import exporting, history_export
from sitewarden.edge.exporting import Exports
from sitewarden.edge.history_export import ExportPoint, Order, write_history
from sitewarden.edge.pages import chart_api
from sitewarden.errors import PermanentError, RefusedError, TransientError
from sitewarden.serving import secrets as secrets_module
from sitewarden.serving.secrets import Secrets
from sitewarden.sync.history import History
from sitewarden.sync.tallies import DAY_MS, HOUR_MS, MINUTE_MS
from sitewarden.sync.trends import Trends
from sitewarden.tests.test_edge_api import HUMIDITY, PIN, Site, signed_in
from sitewarden.words import Instant, Quality, Reading, utc_from_text

POINT, OTHER = "store.th1.humidity", "store.th1.temperature"
T0 = 1_795_000_000_000 - 1_795_000_000_000 % DAY_MS - 8 * HOUR_MS
"""Midnight in Shanghai."""
POINTS = (ExportPoint(id=POINT, name="湿度", unit="%RH"), ExportPoint(id=OTHER, name="=温度", unit="°C"))


def reading(utc_ms: int, value: float | None, why: str = "", point: str = POINT) -> Reading:
    at = Instant(utc_ms=utc_ms, mono_s=utc_ms / 1000, boot="b")
    return Reading(point=point, value=value, quality=Quality.BAD if value is None else Quality.GOOD, why=why, at=at)


@functools.cache
def measured() -> list[Reading]:
    dice = random.Random(2)
    made: list[Reading] = []
    for at in range(T0, T0 + 50 * HOUR_MS, 30_000):
        value = None if dice.random() < 0.01 else round(dice.uniform(-5, 80), 1)
        made += [reading(at, value, "timeout" if value is None else ""), reading(at + 7, 21.5, point=OTHER)]
    return made


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """Stores of a gateway whose trends are some segments behind, with readings that are in no segment yet."""
    folder = tmp_path / "data"
    folder.mkdir()
    sent = measured()
    async with History(folder / "history.db", "gw1", seal_readings=510) as history:
        async with Trends(folder / "trends.db", history) as found:
            history.add(sent[:8_000])
            await history.flush(seal=True)
            while await found.step():
                pass
        history.add(sent[8_000:])
        await history.flush()
    return folder


def order(folder: Path, **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "data": str(folder),
        "points": POINTS[:1],
        "from_ms": T0,
        "to_ms": T0 + 100 * HOUR_MS,
        "timezone": "Asia/Shanghai",
    }
    return Order(**{**fields, **changes})


def written(wanted: Order) -> list[dict[str, str]]:
    out = io.BytesIO()
    write_history(wanted, out)
    return rows_of(out.getvalue())


def rows_of(data: bytes) -> list[dict[str, str]]:
    assert data.startswith("\ufeff".encode()), "or Excel shows no Chinese"
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


# --- every reading -----------------------------------------------------------------------------------------------


def test_every_reading_is_in_the_file_as_it_was(data: Path):
    own = [r for r in measured() if r.point == POINT]
    rows = written(order(data))
    assert len(rows) == len(own)
    for row, one in zip(rows, own, strict=True):
        assert utc_from_text(row["UTC"]) == one.at.utc_ms
        assert row["时间 Time"].endswith("+08:00")
        assert utc_from_text(row["时间 Time"]) == one.at.utc_ms
        assert (float(row["数值 Value"]) if row["数值 Value"] else None) == one.value
        assert (row["质量 Quality"], row["原因 Why"]) == (one.quality.value, one.why)
        assert (row["测点 Point"], row["名称 Name"], row["单位 Unit"]) == (POINT, "湿度", "%RH")


def test_it_begins_and_ends_where_it_was_told(data: Path):
    rows = written(order(data, from_ms=T0 + 60_000, to_ms=T0 + 120_000))
    assert [utc_from_text(row["UTC"]) - T0 for row in rows] == [60_000, 90_000]


def test_several_points_are_in_order_of_time_and_no_name_is_a_formula(data: Path):
    rows = written(order(data, points=POINTS, to_ms=T0 + HOUR_MS))
    assert len(rows) == 240
    assert [row["UTC"] for row in rows] == sorted(row["UTC"] for row in rows)
    assert {row["名称 Name"] for row in rows} == {"湿度", "'=温度"}


# --- buckets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bucket_ms", "to_ms"),
    [(MINUTE_MS, 3 * HOUR_MS), (15 * MINUTE_MS, 50 * HOUR_MS), (HOUR_MS, 50 * HOUR_MS), (DAY_MS, 50 * HOUR_MS)],
)
def test_buckets_say_what_their_readings_say(data: Path, bucket_ms: int, to_ms: int):
    rows = written(order(data, bucket_ms=bucket_ms, to_ms=T0 + to_ms))
    assert len(rows) == -(-to_ms // bucket_ms)
    assert datetime.fromisoformat(rows[0]["时间 Time"]).hour == 0, "a day begins at midnight of the site"
    for row in rows:
        begin = utc_from_text(row["UTC"])
        own = [r for r in measured() if r.point == POINT and begin <= r.at.utc_ms < min(begin + bucket_ms, T0 + to_ms)]
        values = [r.value for r in own if r.value is not None]
        assert int(row["个数 Count"]) == len(values)
        assert int(row["坏值个数 Bad"]) == len(own) - len(values)
        assert (float(row["最小 Min"]), float(row["最大 Max"])) == (min(values), max(values))
        assert float(row["平均 Mean"]) == pytest.approx(sum(values) / len(values))
        assert float(row["最后 Last"]) == values[-1]
        assert row["最差质量 Worst quality"] == ("bad" if len(own) > len(values) else "good")


def test_buckets_are_there_when_the_readings_are_not_kept_any_more(data: Path):
    before = written(order(data, bucket_ms=HOUR_MS, to_ms=T0 + 10 * HOUR_MS))

    async def evict() -> None:
        async with History(data / "history.db", "gw1", seal_readings=500, keep_days=0, settle_days=0) as history:
            await history.delete_through(10)

    asyncio.run(evict())
    assert written(order(data, bucket_ms=HOUR_MS, to_ms=T0 + 10 * HOUR_MS)) == before
    assert written(order(data, to_ms=T0 + HOUR_MS)) == []


async def test_what_is_stored_meanwhile_is_not_counted_twice(data: Path, monkeypatch: pytest.MonkeyPatch):
    """The daemon saves its trends just when the export has counted the segments that are not in them."""
    original = history_export._bucket_row
    saved = asyncio.Event()

    async def save() -> None:
        history = History(data / "history.db", "gw1", seal_readings=500)
        async with history, Trends(data / "trends.db", history) as found:
            while await found.step():
                pass
        saved.set()

    loop = asyncio.get_running_loop()

    def row(*given: Any) -> Any:
        if not saved.is_set():
            asyncio.run_coroutine_threadsafe(save(), loop).result()
        return original(*given)

    monkeypatch.setattr(history_export, "_bucket_row", row)
    rows = await asyncio.to_thread(written, order(data, bucket_ms=HOUR_MS))
    own = [r for r in measured() if r.point == POINT]
    assert sum(int(r["个数 Count"]) + int(r["坏值个数 Bad"]) for r in rows) == len(own)


# --- Parquet -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bucket_ms", [0, HOUR_MS])
def test_parquet_says_the_same_as_csv(data: Path, bucket_ms: int):
    out = io.BytesIO()
    write_history(order(data, points=POINTS, bucket_ms=bucket_ms, format="parquet"), out)
    found = parquet.read_table(io.BytesIO(out.getvalue())).to_pylist()
    rows = written(order(data, points=POINTS, bucket_ms=bucket_ms))
    assert len(found) == len(rows) >= 100
    key, column = ("mean", "平均 Mean") if bucket_ms else ("value", "数值 Value")
    for one, row in zip(found, rows, strict=True):
        assert one["time"].isoformat(timespec="milliseconds") == row["UTC"].replace("Z", "+00:00")
        assert one[key] == (float(row[column]) if row[column] else None)
        assert (one["point"], one["unit"]) == (row["测点 Point"], row["单位 Unit"])
    assert {one["name"] for one in found} == {"湿度", "=温度"}, "Parquet computes nothing"


def test_it_is_written_in_row_groups_and_never_seeks(data: Path):
    class Pipe(io.RawIOBase):
        written = b""

        def writable(self) -> bool:
            return True

        def write(self, piece: Any) -> int:
            Pipe.written += bytes(piece)
            return len(piece)

    write_history(order(data, points=POINTS, format="parquet"), Pipe())  # type: ignore[arg-type]
    assert parquet.read_table(io.BytesIO(Pipe.written)).num_rows == len(measured())


# --- the command -------------------------------------------------------------------------------------------------


def run(*arguments: str | Path, lang: str = "C") -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner(env={"LC_ALL": lang}).invoke(main, ["history", *words], catch_exceptions=False)


@pytest.fixture
def named(data: Path, root: Path) -> Path:
    """With a site.toml beside the data that knows the points."""
    shutil.copytree(root / "config", data, dirs_exist_ok=True)
    return data


def test_the_command_writes_a_file_with_names_and_units(named: Path, tmp_path: Path):
    async def add() -> None:
        async with History(named / "history.db", "gw1", seal_readings=500) as history:
            history.add([reading(T0 + i * 1000, 60.0 + i, point=HUMIDITY) for i in range(5)])

    asyncio.run(add())
    out = tmp_path / "out.csv"
    said = run("--data", named, "--point", HUMIDITY, "--from", "2026-11-18 00:00", "--to", "2026-11-19", "--out", out)
    assert said.exit_code == 0, said.output
    assert said.stdout == f"{out}: {len(rows_of(out.read_bytes()))} rows\n"
    rows = rows_of(out.read_bytes())
    assert [row["数值 Value"] for row in rows] == ["60.0", "61.0", "62.0", "63.0", "64.0"]
    assert (rows[0]["单位 Unit"], rows[0]["时间 Time"]) == ("%RH", "2026-11-18 00:00:00.000+08:00")
    assert rows[0]["名称 Name"]
    assert not list(tmp_path.glob("*.part"))


def test_without_a_file_it_goes_to_standard_output(data: Path):
    said = run("--data", data, "--point", POINT, "--bucket", "1d")
    assert said.exit_code == 0
    assert sum(int(row["个数 Count"]) + int(row["坏值个数 Bad"]) for row in rows_of(said.stdout_bytes)) == 6000
    assert "no names and units, times in UTC" in said.stderr


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (
            ["--point", "store.th1.humidty"],
            1,
            'there is no point store.th1.humidty; did you mean "store.th1.humidity"?',
        ),
        (["--point", POINT, "--bucket", "30s"], 2, "--bucket: 30s is not a length of whole minutes"),
        (["--point", POINT, "--bucket", "0m"], 2, "--bucket: 0m is not a length of whole minutes"),
        (["--point", POINT, "--from", "yesterday"], 2, "--from: yesterday is not a time"),
        (["--point", POINT, "--last", "1d", "--from", "2026-01-01"], 2, "cannot be used together"),
        ([], 2, "--point"),
    ],
)
def test_what_makes_no_sense_is_refused(data: Path, options: list[str], code: int, told: str):
    said = run("--data", data, *options)
    assert said.exit_code == code
    assert told in said.stderr


def test_a_folder_without_a_history_is_told(tmp_path: Path):
    said = run("--data", tmp_path, "--point", POINT)
    assert said.exit_code == 1
    assert "history.db" in said.stderr


@pytest.mark.parametrize(("lang", "told"), [("C", "pip install 'sitewarden[parquet]'"), ("zh_CN.UTF-8", "没有安装")])
def test_without_pyarrow_the_command_says_what_to_install(
    data: Path, monkeypatch: pytest.MonkeyPatch, lang: str, told: str
):
    monkeypatch.setattr(history_export, "has_parquet", lambda: False)
    said = run("--data", data, "--point", POINT, "--format", "parquet", "--out", data / "x.parquet", lang=lang)
    assert said.exit_code == 1
    assert told in said.stderr
    assert not (data / "x.parquet").exists()
    with pytest.raises(PermanentError, match="pyarrow"):
        write_history(order(data, format="parquet"), io.BytesIO())


def test_a_file_that_was_broken_off_is_not_there(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(_order: Order, out: Any, _progress: Any) -> None:
        out.write(b"half")
        raise PermanentError("broken off")

    monkeypatch.setattr(history_export, "write_history", broken)
    out = tmp_path / "out.csv"
    out.write_bytes(b"of yesterday")
    assert run("--data", data, "--point", POINT, "--out", out).exit_code == 1
    assert out.read_bytes() == b"of yesterday"
    assert not list(tmp_path.glob("*.part"))


# --- beside the daemon -------------------------------------------------------------------------------------------


async def test_an_export_of_the_daemon_is_streamed_with_progress(data: Path):
    exports, got = Exports(), b""
    async with exports.start(order(data), "key-12345") as export:
        while piece := await export.read():
            got += piece
            assert (exports.progress("key-12345") or export.progress).state == "running"
    assert rows_of(got) == written(order(data))
    progress = exports.progress("key-12345")
    assert progress is not None
    assert (progress.state, progress.done, progress.total > 10) == ("done", progress.total, True)
    assert exports.progress("another-key") is None


async def test_a_third_export_waits_and_one_that_nobody_reads_ends(data: Path, eventually):
    exports = Exports()
    async with exports.start(order(data)) as one, exports.start(order(data)) as two:
        with pytest.raises(RefusedError, match="2 exports are running"):
            async with exports.start(order(data)):
                pass
    assert one._process.returncode is not None
    assert two._process.returncode is not None
    async with exports.start(order(data)) as three:
        assert await three.read()


async def test_an_export_that_fails_says_why(tmp_path: Path):
    exports = Exports()
    async with exports.start(order(tmp_path), "key-12345") as export:
        with pytest.raises(TransientError, match=r"history\.db"):
            await export.read()
    progress = exports.progress("key-12345")
    assert progress is not None
    assert progress.state == "failed"


# --- the API -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def site(tmp_path: Path, free_port, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A running gateway with a year of one reading an hour."""
    monkeypatch.setattr(secrets_module, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    made = Site(tmp_path, free_port())
    server = await asyncio.start_server(made.serve_modbus, "127.0.0.1", 0)
    made.modbus_port = server.sockets[0].getsockname()[1]
    made.write()
    made.data.mkdir()
    secrets = Secrets(made.data / "secrets.db")
    secrets.set_pin("li", PIN)
    secrets.close()
    async with History(made.data / "history.db", "gw1", seal_readings=2000) as history:
        history.add([reading(T0 - hour * HOUR_MS, float(hour % 50), point=HUMIDITY) for hour in range(365 * 24)])
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        server.close()


async def test_a_chart_of_a_year_and_of_the_last_minutes(site: Site, eventually):
    async with signed_in(site, "li") as page:

        async def caught_up() -> Any:
            year = await page.get(f"history/chart?point={HUMIDITY}&from={T0 - 365 * DAY_MS}&to={T0}&pixels=1000")
            return year if year["behind"] == 0 else None

        year: Any = await eventually(caught_up, "the trends are made")
        assert year["width_ms"] == 9 * HOUR_MS
        assert sum(bucket[1] for bucket in year["buckets"]) >= 365 * 24 - 1
        now_ms = int(datetime.now().timestamp() * 1000)  # noqa: DTZ005
        hour = await page.get(f"history/chart?point={HUMIDITY}&from={now_ms - HOUR_MS}")
        assert hour["buckets"], "what is in no segment yet"
        at, count, mean, low, high, bad, last, worst = hour["buckets"][-1]
        assert (mean, low, high, bad, last, worst) == (58.3, 58.3, 58.3, 0, 58.3, 0)
        assert count > 0
        assert at % hour["width_ms"] == 0


async def test_what_makes_no_chart_is_refused(site: Site):
    bad_times = [f"point={HUMIDITY}&from={a}&to={b}" for a, b in ((5, 5), (6, 5), (0, 99_999_999_999_999))]
    async with signed_in(site, "li") as page:
        assert await page.refused("GET", "history/chart?point=aux_store.th1.nothing") == (404, "no_such_point")
        for query in ("", f"point={HUMIDITY},b", f"point={HUMIDITY}&pixels=0", *bad_times):
            assert await page.refused("GET", f"history/chart?{query}") == (400, "bad_request")
        assert await page.refused("GET", f"history/chart?point={HUMIDITY}&from=0&to=99999999999999") == (
            400,
            "bad_request",
        )


async def test_a_file_from_the_gateway_holds_the_newest_reading_too(site: Site, eventually):
    async with signed_in(site, "li") as page:
        await eventually(lambda: page.value(), "a value")
        url = site.url(f"history/export?point={HUMIDITY}&from={T0 - 10 * HOUR_MS}&key=abcdefgh12")
        async with page.http.get(url) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{HUMIDITY}.csv"'
            rows = rows_of(await answer.read())
        assert [row["数值 Value"] for row in rows[:10]] == [str(float(hour % 50)) for hour in range(10, 0, -1)]
        assert rows[-1]["数值 Value"] == "58.3"
        assert rows[0]["单位 Unit"] == "%RH"
        assert (await page.get("history/exports/abcdefgh12"))["state"] == "done"
        async with page.http.get(url.replace("key=", "minutes=1440&format=parquet&key=x")) as answer:
            assert parquet.read_table(io.BytesIO(await answer.read())).num_rows >= 2
        assert await page.refused("GET", "history/exports/unknown-key") == (404, "not_found")


async def test_what_makes_no_file_is_refused_before_it_begins(site: Site, monkeypatch: pytest.MonkeyPatch):
    async with signed_in(site, "li") as page:
        for query in (
            "",
            f"point={HUMIDITY}&format=xls",
            f"point={HUMIDITY}&key=..%2F",
            f"point={HUMIDITY}&minutes=-1",
        ):
            assert await page.refused("GET", f"history/export?{query}") == (400, "bad_request")
        monkeypatch.setattr(chart_api, "has_parquet", lambda: False)
        for path in ("history/export", "history/export/check"):
            assert await page.refused("GET", f"{path}?point={HUMIDITY}&format=parquet") == (409, "no_parquet")
        assert await page.get(f"history/export/check?point={HUMIDITY}") == {}
        monkeypatch.setattr(exporting, "MOST", 0)
        for path in ("history/export", "history/export/check"):
            assert await page.refused("GET", f"{path}?point={HUMIDITY}") == (429, "busy")


async def test_half_a_file_does_not_look_like_a_whole_one(site: Site, monkeypatch: pytest.MonkeyPatch):
    pieces = iter([b"first", TransientError("broken off")])

    async def read(self: Any) -> bytes:
        piece = next(pieces)
        if isinstance(piece, Exception):
            raise piece
        return piece

    monkeypatch.setattr(exporting.Export, "read", read)
    async with signed_in(site, "li") as page:
        with pytest.raises(Exception, match=r"payload|closed|disconnect|peer"):
            async with page.http.get(site.url(f"history/export?point={HUMIDITY}")) as answer:
                await answer.read()
