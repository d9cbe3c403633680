"""`sitewarden verify` and `sitewarden journal`: what a journal file proves, and whether its tables follow from it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console.group import Command, Group
from .console.language import LANG, Say
from .console.words import phrases
from .errors import PermanentError
from .words import utc_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from .sync.evidence import Problem, Report
    from .sync.rebuilding import Compared

FILE = click.Path(path_type=Path, dir_okay=False)
_MOST_SHOWN = 20


@click.command(cls=Command, short_help="Check chain, checkpoints and gaps of a journal.db.")
@click.argument("file", type=FILE)
@click.option("--gateway-key", multiple=True, metavar="KEY", help="Public key of the gateway, as it shows it.")
@click.option("--witness-key", multiple=True, metavar="KEY", help="Public key of headquarters as witness.")
@click.option("--note", multiple=True, type=FILE, help="A checkpoint that was kept elsewhere; may be given again.")
@LANG
def verify(file: Path, gateway_key: Sequence[str], witness_key: Sequence[str], note: Sequence[Path]) -> None:
    """Check the chain, the signed checkpoints and the countersignatures of a journal.db, offline.

    Names the first record that was altered, removed, inserted or reordered, a missing end as far as a checkpoint knows
    it, and every gap that the gateway declared itself. Without keys those that lie in the file are used: whoever could
    write the file could change them too. Newest records after the last witnessed checkpoint show only at headquarters.

    Exit code 0: it is good. 1: it is not, or cannot be read. 2: wrong usage.
    """
    from .sync.evidence import examine

    tr = phrases()
    with _counting(tr) as progress:
        report = examine(
            file,
            gateway_keys=_keys(gateway_key, "--gateway-key"),
            witness_keys=_keys(witness_key, "--witness-key"),
            notes=[path.read_text(encoding="utf-8") for path in note],
            progress=progress,
        )
    for line in _remarks(report, tr):
        click.echo(line)
    if not report.is_good:
        before = _records(report.verdict.records, tr)
        first, *more = (_problem(problem, report, tr) for problem in report.problems)
        click.echo(tr("not_good", file, first, before), err=True)
        for line in more:
            click.echo(f"  {line}", err=True)
        sys.exit(1)
    where = (report.verdict.gateway, report.verdict.epoch)
    if not report.verdict.records:
        click.echo(tr("no_records", file, *where), err=True)
        sys.exit(1)
    click.echo(tr("good_journal", file, _records(report.verdict.records, tr), *where))


@click.group(cls=Group, short_help="The journal's state tables.")
def journal() -> None:
    """What follows from the records of a journal."""


@journal.command(cls=Command, short_help="Make the state tables again from the records, and compare.")
@click.argument("file", type=FILE)
@click.option("--compare", "only_compare", is_flag=True, help="Change nothing, say what differs [the default].")
@click.option("--write", "writes", is_flag=True, help="Put right what differs; the gateway must be stopped.")
@click.option(
    "--work", type=click.Path(path_type=Path, file_okay=False), default=None, help="Folder for the temporary copy."
)
@LANG
def rebuild(file: Path, only_compare: bool, writes: bool, work: Path | None) -> None:
    """Make every state table again from the records of a journal.db, in a copy, and compare row by row.

    The gateway may run. Nothing is changed without --write.

    Exit code 0: all are the same, or were put right. 1: some differ, or the file cannot be read. 2: wrong usage.
    """
    from .edge.state_tables import TABLES
    from .sync.rebuilding import compare, write

    tr = phrases()
    if only_compare and writes:
        raise click.UsageError("--compare changes nothing, --write does: not both")
    with _counting(tr) as progress:
        found = compare(file, TABLES, folder=work, progress=progress)
    for each in found:
        for line in _table_lines(each, tr):
            click.echo(line)
    wrong = {each.module for each in found if not each.is_equal}
    if not wrong:
        click.echo(tr("tables_equal", file, len(found)))
        return
    if not writes:
        click.echo(tr("tables_differ", file, len(wrong)), err=True)
        sys.exit(1)
    _must_be_whole(file, tr)
    with _stopped(file, tr):
        write(file, [table for table in TABLES if table.name in wrong])
    click.echo(tr("tables_written", file, len(wrong)))


def _keys(texts: Sequence[str], option: str) -> list[Ed25519PublicKey]:
    from .sync.keys import parse_public_key

    try:
        return [parse_public_key(text) for text in texts]
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error


@contextlib.contextmanager
def _counting(tr: Say) -> Iterator[Callable[[int], None]]:
    """On a terminal the number of records so far."""
    shows = sys.stderr.isatty()
    yield lambda n: click.echo(f"\r{_records(n, tr)}", nl=False, err=True) if shows else None
    if shows:
        click.echo("\r\x1b[K", nl=False, err=True)


def _records(n: int, tr: Say) -> str:
    return tr("record" if n == 1 else "records", n)


# --- verify ------------------------------------------------------------------------------------------------------


def _problem(problem: Problem, report: Report, tr: Say) -> str:
    if problem.code == "change" and report.change is not None:
        change = report.change
        return tr(f"deed_{change.deed.value}", change.seq, change.count, change.seq - 1)
    if problem.code == "trace":
        return tr("trace", report.verdict.records, report.verdict.problem)
    if problem.code in ("rewritten", "truncated", "forgotten"):
        first, second, witnessed_s = problem.about
        by = tr("by_gateway") if witnessed_s is None else tr("by_witness", utc_text(witnessed_s * 1000))
        return tr(problem.code, first, second, by)
    return tr(f"evidence_{problem.code}", *problem.about)


def _remarks(report: Report, tr: Say) -> Iterator[str]:
    """What is proven, what is not, and what the gateway itself says."""
    records = report.verdict.records
    yield from _epochs(report, tr)
    if report.witnessed_s is not None:
        at = utc_text(report.witnessed_s * 1000)
        yield tr("witnessed", report.checkpoints, report.witnessed, at, max(0, records - report.witnessed))
    elif report.signed:
        yield tr("signed_only", report.checkpoints, report.signed)
    elif records:
        yield tr("no_checkpoints")
    if report.own_keys and report.checkpoints:
        yield tr("own_keys")
    yield from _declared(report, tr)
    for late in report.backdated[:_MOST_SHOWN]:
        yield tr("backdated", late.seq, late.at, late.witnessed, late.witnessed_at)
    if len(report.backdated) > _MOST_SHOWN:
        yield tr("and_more", len(report.backdated) - _MOST_SHOWN)


def _epochs(report: Report, tr: Say) -> Iterator[str]:
    """Which records are of which epoch, when there are several."""
    if len(report.epochs) < 2:
        return
    yield tr("epochs", len(report.epochs))
    ends = [*(first - 1 for _, first in report.epochs[1:]), report.verdict.records]
    for (epoch, first), end in zip(report.epochs, ends, strict=True):
        yield f"  {epoch}  {first}–{end}"


def _declared(report: Report, tr: Say) -> Iterator[str]:
    from .sync.declared import DECLARED

    column = 0 if tr("lang") == "zh" else 1
    yield tr("gaps", len(report.gaps)) if report.gaps else tr("no_gaps")
    for gap in report.gaps:
        body = json.dumps(gap.body, ensure_ascii=False)
        yield f"  {gap.seq}  {gap.at}  {gap.kind}{tr('colon')}{DECLARED[gap.kind][column]}  {body}"


# --- journal rebuild ---------------------------------------------------------------------------------------------


def _table_lines(each: Compared, tr: Say) -> Iterator[str]:
    if each.missing:
        yield tr("table_missing", each.table)
        return
    if each.is_equal:
        yield tr("table_equal", each.table, each.rows)
        return
    yield tr("table_differs", each.table, each.rows, each.differing)
    for key, row in (("row_stands", each.stands), ("row_follows", each.follows)):
        yield f"  {tr(key, tr('none') if row is None else json.dumps(row, ensure_ascii=False, default=repr))}"


def _must_be_whole(file: Path, tr: Say) -> None:
    from .sync.journal import verify_file

    if verify_file(file).bad_seq is not None:
        raise PermanentError(tr("not_whole", file), hint=f"sitewarden verify {file}")


@contextlib.contextmanager
def _stopped(file: Path, tr: Say) -> Iterator[None]:
    """Hold the lock of the folder, which a running gateway holds."""
    with (file.parent / "edge.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PermanentError(tr("still_runs", file.parent), hint=tr("still_runs_hint")) from None
        yield
