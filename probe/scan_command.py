"""`sitewarden probe scan`: who is on a wire, and the lines for site.toml."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ..console import group
from ..console.group import INTERRUPTED
from ..console.text import to_json
from ..errors import PermanentError, SitewardenError
from .options import FILE, Target, named_wire, open_wire, phrases, run_probe, target_of, wire_options
from .site_file import catalogue, tables

if TYPE_CHECKING:
    from ..console.language import Say
    from ..sensors.buses import BusSpec
    from .find import Setting, SnippetPlace
    from .link import Wire
    from .scan import Scan

PLACEHOLDER = "change_me"


@click.command("scan", cls=group.Command, short_help="Find the units of a wire, and write lines for site.toml.")
@wire_options
@click.option("--units", metavar="RANGES", default=None, help="Such as 1-247 [default: 1-20 and factory addresses].")
@click.option("--baud", metavar="RATES", default="auto", show_default=True, help="Such as 9600,4800.")
@click.option("--parity", metavar="LETTERS", default="auto", show_default=True, help="Such as N,E.")
@click.option(
    "--timeout-ms", type=click.IntRange(20, 10000), default=300, show_default=True, help="Wait so many ms for a reply."
)
@click.option("--area", metavar="ID", default=None, help="Area of the devices in the lines for site.toml.")
@click.option("--write", type=FILE, default=None, help="Write the lines for site.toml to a new file.")
def scan(**given: Any) -> None:
    """Find the units of a wire, say what each may be, and write the lines for site.toml.

    Without a wire it lists the serial ports.
    """
    target, tr = target_of(given), phrases()
    if given["write"] is not None and given["write"].exists():
        raise PermanentError(tr("exists", given["write"]), hint=tr("exists_hint"))
    if given["write"] is not None and not os.access(given["write"].absolute().parent, os.W_OK):
        raise PermanentError(tr("cannot_write", given["write"]), hint=tr("cannot_write_hint"))
    job, named = _scan_job(target, given, tr)

    def open_at(setting: Setting | None) -> AbstractAsyncContextManager[Wire]:
        at = named
        if setting is not None and not isinstance(named, str):
            at = replace(named, baud=setting.baud, parity=setting.parity, stopbits=setting.stopbits)
        return open_wire(target, at, job.bar.say if job.spec is None else lambda _: None, tr)

    fault: SitewardenError | None = None
    interrupted = False
    try:
        interrupted = run_probe(job.run(open_at))
    except SitewardenError as error:
        fault = error
    job.bar.clear()
    if interrupted or (fault and job.result.units):
        click.echo(tr("interrupted"), err=True)
    if fault is None or job.result.units:
        _tell(job, target, given, tr)
    if fault is not None:
        raise fault
    if interrupted:
        sys.exit(INTERRUPTED)
    if not job.result.units:
        sys.exit(1)


def _scan_job(target: Target, given: dict[str, Any], tr: Say) -> tuple[Scan, BusSpec | str]:
    from ..sensors.buses import BusKind
    from .find import likely_units
    from .scan import Bar, Scan

    profiles = catalogue(target.config)
    line = {key: given[key] for key in ("baud", "parity") if given[key] != "auto"}
    named = named_wire(target, dict.fromkeys(line) if target.serial else line, given["timeout_ms"], tr)
    is_tcp = not isinstance(named, str) and named.kind is BusKind.TCP
    limits = (0, 255) if is_tcp else (1, 247)  # on a serial line 0 is everybody
    units = likely_units(profiles) if given["units"] is None else _ranges(given["units"], *limits, tr)
    is_line = target.serial is not None
    settings = _settings(given["baud"], given["parity"], tr) if is_line else (None,)
    say = (lambda line: click.echo(line, err=True)) if given["as_json"] else click.echo
    bar = Bar(sys.stderr, say, total=len(units) * len(settings), tr=tr)
    return Scan(
        settings=settings,
        first_parity_only=given["parity"] == "auto",
        units=units,
        timeout_ms=given["timeout_ms"],
        profiles=profiles,
        bar=bar,
        tr=tr,
    ), named


def _ranges(text: str, low: int, high: int, tr: Say) -> tuple[int, ...]:
    from .interpret import parse_ranges

    try:
        return parse_ranges(text, low, high)
    except ValueError as error:
        raise click.BadParameter(tr(*error.args), param_hint="--units") from error


def _settings(bauds: str, parities: str, tr: Say) -> tuple[Setting, ...]:
    from .find import AUTO_BAUDS, PARITIES, settings

    rates = AUTO_BAUDS if bauds == "auto" else tuple(int(b) if b.strip().isdecimal() else 0 for b in bauds.split(","))
    letters = PARITIES if parities == "auto" else tuple(p.strip().upper() for p in parities.split(","))
    if not all(300 <= rate <= 921600 for rate in rates):
        raise click.BadParameter(tr("bad_bauds", bauds), param_hint="--baud")
    if not set(letters) <= set(PARITIES):
        raise click.BadParameter(tr("bad_parities", parities), param_hint="--parity")
    return settings(rates, letters)


def _tell(job: Scan, target: Target, given: dict[str, Any], tr: Say) -> None:
    """What was found: units that were not shown yet, what to look at, and the lines for site.toml."""
    from .find import snippet
    from .interpret import advise
    from .text import scan_json

    result = job.result
    for unit in result.units:
        job.show(unit)
    for line in _remarks(job, given, tr):
        job.bar.say(line)
    advice = advise([unit.tally for unit in result.units], waited_ms=given["timeout_ms"])
    lines = ""
    if job.spec is not None and result.units:
        place = _place(job, target, given["area"])
        lines = snippet(job.spec, result.units, place, advice, tr)
    if given["write"] is not None and lines:
        try:
            given["write"].write_text(lines + "\n", "utf-8")
        except OSError:
            click.echo(lines)  # a scan takes minutes
            raise
        job.bar.say(tr("written", given["write"]))
    if given["as_json"]:
        click.echo(to_json(scan_json(result, advice, lines), indent=2))
    elif given["write"] is None and lines:
        click.echo(f"\n{tr('snippet')}\n\n{lines}")


def _remarks(job: Scan, given: dict[str, Any], tr: Say) -> Iterator[str]:
    result, spec = job.result, job.spec
    if result.answers_all:
        yield tr("answers_all", result.units[0].unit_id)
    if not result.units and result.ended:
        yield tr("nothing")
        if spec is not None:
            yield tr("nothing_serial" if spec.serial else "nothing_tcp")
    if given["units"] is None and result.ended and not result.answers_all:
        yield tr("asked_only", len(job.units), "0-255" if spec is not None and spec.kind == "tcp" else "1-247")
    if job.owned and spec is not None and (given["baud"], given["parity"]) != ("auto", "auto"):
        yield tr("its_settings", f"{spec.baud} 8{spec.parity}{spec.stopbits}")
    if spec is not None and spec.serial and result.units:
        yield from _weak_name(spec.serial, tr)


def _weak_name(serial: str, tr: Say) -> Iterator[str]:
    from .link import lasting_name

    lasting = lasting_name(serial)
    if lasting.startswith(("/dev/ttyUSB", "/dev/ttyACM")):
        yield tr("not_lasting", lasting)


def _place(job: Scan, target: Target, area: str | None) -> SnippetPlace:
    """Names that the site does not have yet; its own bus when it has the wire."""
    from .find import SnippetPlace

    assert job.spec is not None
    areas = tables(target.config, "area") if target.config else []
    taken = {str(d.get("id")) for key in ("device", "mqtt_device") for d in tables(target.config, key)}
    known = job.owned or target.bus is not None
    return SnippetPlace(
        area=area or next((str(a.get("id")) for a in areas), PLACEHOLDER),
        bus=job.spec.id
        if known
        else _free_name(job.spec.kind, {str(b.get("id")) for b in tables(target.config, "bus")}),
        with_bus=not known,
        taken=frozenset(taken | {unit.device.partition(".")[2] for unit in job.result.units}),
    )


def _free_name(kind: str, taken: set[str]) -> str:
    base = {"rtu": "rs485", "tcp": "net", "rtu_tcp": "converter"}[kind]
    return next(name for name in (base, *(f"{base}_{n}" for n in range(2, 1000))) if name not in taken)
