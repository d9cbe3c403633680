"""`sitewarden replay`: a trial of other limits on recorded readings; its options as people write them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from .console.group import Command
from .console.language import LANG, Say
from .console.text import to_json
from .console.words import phrases
from .errors import PermanentError

if TYPE_CHECKING:
    from .edge.replaying import Order
    from .edge.site import Site

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
_SERVICE_CONFIG = Path("/etc/sitewarden/site.toml")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@click.command(cls=Command, short_help="Try other limits on recorded readings.")
@click.option(
    "--data",
    type=FOLDER,
    default=None,
    help="Folder of the gateway's stores, or of the demo [default: $STATE_DIRECTORY].",
)
@click.option("--config", type=FILE, default=None, help="site.toml [default: beside the data, else /etc/sitewarden].")
@click.option("--from", "begin", metavar="TIME", default="", help="Begin here [default: the oldest reading].")
@click.option("--to", "end", metavar="TIME", default="", help="End here [default: the newest].")
@click.option("--last", metavar="LENGTH", default="", help="So long before the end: 90m, 24h, 7d.")
@click.option("--point", multiple=True, metavar="POINT", help="Only this point, device or area; may be given again.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="POINT.KEY=VALUE",
    help="Change a rule: aux_store.th1.humidity.hi=75; may be given again.",
)
@click.option(
    "--against",
    type=click.Choice(["journal", "rules"]),
    default="journal",
    show_default=True,
    help="Compare with what happened, or with the unchanged rules.",
)
@click.option(
    "--ack-after",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds until all acknowledge.",
)
@click.option("--csv", "table", type=FILE, default=None, help="Write every occurrence to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@LANG
def replay(data: Path | None, config: Path | None, table: Path | None, as_json: bool, **given: Any) -> None:
    """Run recorded readings through changed alarm rules: what would have alarmed, beside what did.

    Reads only: site.toml and the stores stay as they are, and the gateway may run. --set changes a limit, as in

    sitewarden replay --last 7d --set "aux_store.th1.humidity.hi=75"

    Nobody acknowledges in a replay: every required role is taken to do so after --ack-after seconds.

    Exit code 0: it was tried. 1: the change makes no sense, or there are no readings. 2: wrong usage. 130: Ctrl-C.
    """
    from .edge.replaying import run_trial
    from .edge.site import load_site
    from .edge.trial_text import csv_text, trial_json, trial_lines

    tr = phrases()
    folder = data_folder(data, os.environ, tr)
    site = load_site(config or site_file(folder, tr))
    order = order_of(folder, site, given, tr)
    with progress_bar() as progress:
        trial = run_trial(order, site, progress)
    if table is not None:
        table.write_text(csv_text(trial), "utf-8-sig")
    if as_json:
        click.echo(to_json(trial_json(trial), 2))
        return
    for line in trial_lines(trial, tr("lang")):
        click.echo(line)


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from .probe.options import phrases as words
    from .probe.scan import Bar

    bar = Bar(sys.stderr, click.echo, total=1, tr=words())

    def show(done: int, total: int) -> None:
        bar.done, bar.total = done, total
        bar.draw()

    try:
        yield show
    finally:
        bar.clear()


def data_folder(given: Path | None, environment: Mapping[str, str], tr: Say) -> Path:
    """The folder with the stores: that one or `$STATE_DIRECTORY`, or the gateway's in a demo's. Raises UsageError."""
    if given is None:
        state = environment.get("STATE_DIRECTORY", "").split(":")[0]
        if not state:
            raise click.UsageError(tr("no_data"))
        given = Path(state)
    inner = given / "edge"
    return inner if not (given / "history.db").exists() and (inner / "history.db").exists() else given


def site_file(data: Path, tr: Say) -> Path:
    """The site.toml that belongs to a data folder. Raises PermanentError where none is found."""
    places = (data / "site.toml", data.absolute().parent / "site.toml", _SERVICE_CONFIG)
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(map(str, places))
    raise PermanentError(tr("no_site_toml", looked), hint=tr("no_site_toml_hint"))


def order_of(data: Path, site: Site, given: Mapping[str, Any], tr: Say) -> Order:
    """From the command's options. Raises click.UsageError: a time that is none."""
    from .edge.replaying import Order

    zone = ZoneInfo(site.site.timezone)
    if given["last"] and given["begin"]:
        raise click.UsageError(tr("last_and_from"))
    return Order(
        data=data,
        from_ms=time_of("--from", given["begin"], zone, tr),
        to_ms=time_of("--to", given["end"], zone, tr),
        last_ms=length_of(given["last"], tr),
        points=given["point"],
        changes=given["changes"],
        against=given["against"],
        ack_after_s=given["ack_after"],
    )


def time_of(option: str, text: str, zone: ZoneInfo, tr: Say) -> int | None:
    """UTC milliseconds; a time without an offset is the site's."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(tr("not_a_time", option, text)) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp() * 1000)


def length_of(text: str, tr: Say) -> int | None:
    """Milliseconds; None without a text. Raises UsageError."""
    if not text:
        return None
    found = _LENGTH.fullmatch(text.strip())
    if found is None or float(found.group(1)) <= 0:
        raise click.UsageError(tr("not_a_length", text))
    return round(float(found.group(1)) * _MS[found.group(2)])
