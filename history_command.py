"""`sitewarden history`: what was measured, as CSV or Parquet."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from zoneinfo import ZoneInfo

import click

from .console.group import Command
from .console.language import LANG, Say
from .console.text import nearest
from .console.words import phrases
from .errors import PermanentError
from .trial import data_folder, length_of, progress_bar, site_file, time_of

if TYPE_CHECKING:
    from .edge.history_export import ExportPoint, Order
    from .edge.site import Site

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
_BUCKET = re.compile(r"([1-9]\d{0,4})\s*([mhd])")
_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_UTC = ZoneInfo("UTC")


@click.command(cls=Command, short_help="Write recorded readings as CSV or Parquet.")
@click.option(
    "--data",
    type=FOLDER,
    default=None,
    help="Folder of the gateway's stores, or of the demo [default: $STATE_DIRECTORY].",
)
@click.option("--config", type=FILE, default=None, help="site.toml [default: beside the data, else /etc/sitewarden].")
@click.option("--point", multiple=True, required=True, metavar="POINT", help="This point; may be given again.")
@click.option("--from", "begin", metavar="TIME", default="", help="Begin here [default: the oldest reading].")
@click.option("--to", "end", metavar="TIME", default="", help="End here [default: the newest].")
@click.option("--last", metavar="LENGTH", default="", help="So long before the end: 90m, 24h, 7d.")
@click.option("--bucket", metavar="LENGTH", default="", help="Min, mean, max, last of so long each: 1m, 15m, 1h, 1d.")
@click.option("--format", "form", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True, help="Form.")
@click.option("--out", type=FILE, default=None, help="Write to this file [default: standard output].")
@LANG
def history(data: Path | None, config: Path | None, out: Path | None, **given: Any) -> None:
    """Write what was measured: every reading, or with --bucket the lowest, mean, highest and last of so long each.

    Reads only; the gateway may run: what it holds in memory, flush_s at most, is not there yet. Times without an offset
    are the site's. Buckets are kept for longer than single readings: minutes for months, hours for ten years.

    Exit code 0: it was written. 1: there is no history, no such point, or Parquet is not installed. 2: wrong usage.
    """
    from .edge.history_export import has_parquet, write_history

    tr = phrases()
    if given["form"] == "parquet":
        if not has_parquet():
            raise PermanentError(tr("no_parquet"), hint=tr("no_parquet_hint"))
        if out is None and sys.stdout.isatty():
            raise click.UsageError(tr("parquet_out"))
    folder = data_folder(data, os.environ, tr)
    site = _site(config, folder, tr)
    order = _order(folder, site, given, tr)
    with progress_bar() as progress, _target(out) as stream:
        written = write_history(order, stream, progress)
    if written.lost:
        click.echo(tr("history_lost", written.lost), err=True)
    if out is not None:
        click.echo(tr("history_written", out, written.rows))


def _site(config: Path | None, folder: Path, tr: Say) -> Site | None:
    """For names, units and time zone; None where there is no site.toml, as with a folder that was copied."""
    from .edge.site import load_site

    if config is None:
        try:
            config = site_file(folder, tr)
        except PermanentError as error:
            click.echo(tr("history_no_names", error.message), err=True)
            return None
    return load_site(config)


def _order(folder: Path, site: Site | None, given: Mapping[str, Any], tr: Say) -> Order:
    from .edge.history_export import Order

    zone = ZoneInfo(site.site.timezone) if site is not None else _UTC
    if given["last"] and given["begin"]:
        raise click.UsageError(tr("last_and_from"))
    points = _points(folder, site, given["point"], tr)
    begin_ms, end_ms = _held(folder, [point.id for point in points])
    to_ms = time_of("--to", given["end"], zone, tr)
    to_ms = end_ms if to_ms is None else to_ms
    last_ms = length_of(given["last"], tr)
    from_ms = to_ms - last_ms if last_ms is not None else time_of("--from", given["begin"], zone, tr)
    return Order(
        data=str(folder),
        points=points,
        from_ms=begin_ms if from_ms is None else from_ms,
        to_ms=to_ms,
        bucket_ms=_bucket_ms(given["bucket"], tr),
        format=given["form"],
        timezone=zone.key,
    )


def _held(folder: Path, points: Sequence[str]) -> tuple[int, int]:
    """When the history begins and ends, UTC milliseconds. Raises PermanentError where there is none."""
    from .sync.recorded import RecordedHistory
    from .sync.recorded_trends import oldest_ms

    with RecordedHistory(folder / "history.db") as recorded:
        spans = recorded.spans
    now_ms = time.time_ns() // 1_000_000
    begins = [span.t0_ms for span in spans] + [at for at in (oldest_ms(folder, points),) if at is not None]
    return min(begins, default=0), max([now_ms, *(span.t1_ms for span in spans)]) + 1


def _points(folder: Path, site: Site | None, names: Sequence[str], tr: Say) -> tuple[ExportPoint, ...]:
    from .edge.history_export import ExportPoint
    from .sync.recorded_trends import known_points

    called = {meta.point.id: meta.point for meta in site.points} if site is not None else {}
    known = known_points(folder) | called.keys()
    found: list[ExportPoint] = []
    for name in dict.fromkeys(names):
        if known and name not in known:
            close = nearest(name, known)
            raise PermanentError(tr("history_no_point", name) + (tr("did_you_mean", close) if close else ""))
        point = called.get(name)
        found.append(ExportPoint(id=name, name=point.name if point else "", unit=point.unit if point else ""))
    return tuple(found)


def _bucket_ms(text: str, tr: Say) -> int:
    if not text:
        return 0
    found = _BUCKET.fullmatch(text.strip())
    if found is None:
        raise click.UsageError(tr("not_a_bucket", text))
    return int(found.group(1)) * _MS[found.group(2)]


@contextlib.contextmanager
def _target(out: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there under its name only when it is whole."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = out.with_name(out.name + ".part")
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
