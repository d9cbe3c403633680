"""`sitewarden probe`: who is on a wire, what it says, how fast, and what site.toml should say about it."""

from __future__ import annotations

import functools
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, PermanentError, SitewardenError
from .options import (
    FILE,
    JSON,
    LANG,
    Target,
    explained,
    named_wire,
    open_wire,
    place_options,
    run_probe,
    target_of,
    translated,
    wire_options,
)

if TYPE_CHECKING:
    from ..sensors.buses import Answer, BusSpec
    from ..sensors.profile import Profile
    from ..sensors.registers import Block
    from .find import Setting, SnippetPlace
    from .interpret import Tally
    from .link import Wire
    from .scan import Scan
    from .words import Say

READ_COUNT = 4  # registers that show every interpretation
LONG_MS = 5000
INTERRUPTED = 130
PLACEHOLDER = "change_me"


class _Group(click.Group):
    """`sitewarden probe --plan` is `sitewarden probe plan`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--plan" in args and not set(args) & set(self.commands):
            args = ["plan", *(arg for arg in args if arg != "--plan")]
        return super().parse_args(ctx, args)


@click.group(cls=_Group)
@click.pass_context
def probe(ctx: click.Context) -> None:
    """Look at Modbus wires: scan, identify, read, watch; through the running gateway or alone.

    `sitewarden probe --plan --config site.toml` prints how registers are grouped into requests.
    """
    logger = logging.getLogger("sitewarden.sensors")
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        ctx.call_on_close(functools.partial(logger.setLevel, logger.level))
        logger.setLevel(logging.CRITICAL)  # what goes wrong is said in words
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # GBK has no ³


# --- plan ---


@probe.command()
@click.option("--config", type=FILE, required=True, help="site.toml.")
@click.option("--device", metavar="AREA.DEVICE", default=None, help="Only this device.")
@LANG
@JSON
def plan(config: Path, device: str | None, lang: str | None, as_json: bool) -> None:
    """Print how registers are grouped into requests, and what they cost the wire."""
    from ..edge.site import load_site
    from .plan import plan_bus
    from .text import plan_json, plan_lines

    site = load_site(config)
    devices = [unit.device for spec in site.buses for unit in spec.units]
    if device is not None and device not in devices:
        raise PermanentError(f"{config}: has no Modbus device {device!r}", hint=f"known: {', '.join(devices)}")
    plans = [plan_bus(spec) for spec in site.buses]
    if device is not None:
        plans = [plan for plan in plans if any(unit.unit.device == device for unit in plan.units)]
    if as_json:
        click.echo(json.dumps([plan_json(bus, device) for bus in plans], ensure_ascii=False, indent=2))
        return
    profiles = {
        f"{entry.get('area')}.{entry.get('id')}": str(entry.get("profile")) for entry in _tables(config, "device")
    }
    for at, bus in enumerate(plans):
        click.echo("\n" * (at > 0) + "\n".join(plan_lines(bus, translated(lang), profiles, device)))


def _catalogue(config: Path | None) -> Mapping[str, Profile]:
    """The shipped profiles, and those of the site beside them."""
    from ..sensors.profiles import open_catalogue

    folder = _raw(config).get("profiles", {}).get("folder") if config is not None else None
    catalogue, problems = open_catalogue(config.parent / folder if config is not None and folder else None)
    if problems:
        raise ConfigError(str(folder), problems)
    return catalogue


def _tables(config: Path | None, name: str) -> list[dict[str, Any]]:
    """The tables of that name in a site.toml, as they are written; none without one."""
    found = _raw(config).get(name, []) if config is not None else []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _raw(config: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(config.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PermanentError(f"{config}: cannot be read: {error}") from error


# --- scan ---


@probe.command()
@wire_options
@click.option("--units", metavar="RANGES", default=None, help="Such as 1-247 [default: 1-20 and factory addresses].")
@click.option("--baud", metavar="RATES", default="auto", show_default=True, help="Such as 9600,4800.")
@click.option("--parity", metavar="LETTERS", default="auto", show_default=True, help="Such as N,E.")
@click.option("--timeout-ms", type=click.IntRange(20, 10000), default=300, show_default=True, help="Wait for a reply.")
@click.option("--area", metavar="ID", default=None, help="Area of the devices in the lines for site.toml.")
@click.option("--write", type=FILE, default=None, help="Write the lines for site.toml to a new file.")
def scan(**given: Any) -> None:
    """Find the units of a wire, say what each may be, and write the lines for site.toml.

    Without a wire it lists the serial ports.
    """
    target, tr = target_of(given), translated(given["lang"])
    if given["write"] is not None and given["write"].exists():
        raise PermanentError(f"{given['write']}: exists already", hint="name a new file, then copy the lines over")
    if given["write"] is not None and not os.access(given["write"].absolute().parent, os.W_OK):
        hint = "name a file in a folder that is there and that you may write to"
        raise PermanentError(f"{given['write']}: cannot be written", hint=hint)
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

    catalogue = _catalogue(target.config)
    line = {key: given[key] for key in ("baud", "parity") if given[key] != "auto"}
    named = named_wire(target, dict.fromkeys(line) if target.serial else line, given["timeout_ms"])
    is_tcp = not isinstance(named, str) and named.kind is BusKind.TCP
    limits = (0, 255) if is_tcp else (1, 247)  # on a serial line 0 is everybody
    units = likely_units(catalogue) if given["units"] is None else _ranges(given["units"], *limits)
    is_line = target.serial is not None
    settings = _settings(given["baud"], given["parity"]) if is_line else (None,)
    say = (lambda line: click.echo(line, err=True)) if given["as_json"] else click.echo
    bar = Bar(sys.stderr, say, total=len(units) * len(settings), tr=tr)
    return Scan(
        settings=settings,
        first_parity_only=given["parity"] == "auto",
        units=units,
        timeout_ms=given["timeout_ms"],
        profiles=catalogue,
        bar=bar,
        tr=tr,
    ), named


def _ranges(text: str, low: int, high: int) -> tuple[int, ...]:
    from .interpret import parse_ranges

    try:
        return parse_ranges(text, low, high)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--units") from error


def _settings(bauds: str, parities: str) -> tuple[Setting, ...]:
    from .find import AUTO_BAUDS, PARITIES, settings

    rates = AUTO_BAUDS if bauds == "auto" else tuple(int(b) if b.strip().isdecimal() else 0 for b in bauds.split(","))
    letters = PARITIES if parities == "auto" else tuple(p.strip().upper() for p in parities.split(","))
    if not all(300 <= rate <= 921600 for rate in rates):
        raise click.BadParameter(f"rates such as 9600,4800, or auto (got {bauds!r})", param_hint="--baud")
    if not set(letters) <= set(PARITIES):
        raise click.BadParameter(f"N, E and O, or auto (got {parities!r})", param_hint="--parity")
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
        lines = snippet(job.spec, result.units, place, advice)
    if given["write"] is not None and lines:
        try:
            given["write"].write_text(lines + "\n", "utf-8")
        except OSError:
            click.echo(lines)  # a scan takes minutes
            raise
        job.bar.say(tr("written", given["write"]))
    if given["as_json"]:
        click.echo(json.dumps(scan_json(result, advice, lines), ensure_ascii=False, indent=2))
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
    areas = _tables(target.config, "area") if target.config else []
    taken = {str(d.get("id")) for key in ("device", "mqtt_device") for d in _tables(target.config, key)}
    known = job.owned or target.bus is not None
    return SnippetPlace(
        area=area or next((str(a.get("id")) for a in areas), PLACEHOLDER),
        bus=job.spec.id
        if known
        else _free_name(job.spec.kind, {str(b.get("id")) for b in _tables(target.config, "bus")}),
        with_bus=not known,
        taken=frozenset(taken | {unit.device.partition(".")[2] for unit in job.result.units}),
    )


def _free_name(kind: str, taken: set[str]) -> str:
    base = {"rtu": "rs485", "tcp": "net", "rtu_tcp": "converter"}[kind]
    return next(name for name in (base, *(f"{base}_{n}" for n in range(2, 1000))) if name not in taken)


# --- read ---


@probe.command()
@wire_options
@place_options
@click.option("--timeout-ms", type=click.IntRange(20, 30000), default=1000, show_default=True, help="Wait for a reply.")
def read(**given: Any) -> None:
    """Read registers once and print them in every interpretation, side by side."""
    from .text import bit_lines, word_lines, words_json

    target, tr = target_of(given), translated(given["lang"])
    block = _block(given, tr)
    found: list[tuple[Block, Answer]] = []
    interrupted = run_probe(_look(target, given, block, found, tr))
    if interrupted or not found:
        sys.exit(INTERRUPTED)
    part, answer = found[0]
    if given["as_json"]:
        whole = {"unit_id": given["unit_id"], "table": part.table, "reply_ms": round(answer.reply_ms, 2)}
        bits = {"bits": [{"address": part.address + i, "bit": bit} for i, bit in enumerate(answer.words)]}
        click.echo(json.dumps({**whole, **(bits if part.table.is_bits else words_json(part, answer.words))}, indent=2))
        return
    if part.count < block.count:
        click.echo(tr("fewer", block.count, part.count))
    where = tr("read_of", given["unit_id"], part.table, part.address, part.address, part.count)
    click.echo(f"{where}: {tr('reply')} {answer.reply_ms:.1f} ms")
    lines = bit_lines(part, answer.words, tr) if part.table.is_bits else word_lines(part, answer.words, tr, _dim)
    for line in lines:
        click.echo(line)


async def _look(target: Target, given: dict[str, Any], block: Block, found: list[Any], tr: Say) -> None:
    from ..sensors.buses import ReplyError
    from .run import look

    async with open_wire(target, _named_line(target, given), _quietly(given), tr) as wire:
        try:
            whole = given["count"] is not None
            found.append(await look(wire.guest, given["unit_id"], block, given["timeout_ms"] / 1000, shrink=not whole))
        except ReplyError as error:
            raise explained(error, wire.spec, tr) from error


def _named_line(target: Target, given: dict[str, Any]) -> BusSpec | str:
    line = {key: given[key] for key in ("baud", "parity", "stopbits")}
    return named_wire(target, line, given["timeout_ms"])


def _quietly(given: dict[str, Any]) -> Callable[[str], None]:
    """JSON has the standard output for itself."""
    return (lambda line: click.echo(line, err=True)) if given["as_json"] else click.echo


def _dim(line: str) -> str:
    return click.style(line, dim=True)


def _block(given: dict[str, Any], tr: Say) -> Block:
    """What was asked for. Raises UsageError unless it is exactly one place."""
    from ..sensors.registers import ADDRESSES, Block, Table
    from .interpret import parse_address, parse_register

    names = {"holding": Table.HOLDING, "input_": Table.INPUT, "coil": Table.COIL, "discrete": Table.DISCRETE}
    given_at = [(table, given[name]) for name, table in names.items() if given[name] is not None]
    if len(given_at) + (given["register"] is not None) != 1:
        raise click.UsageError("name one place: --holding, --input, --coil, --discrete or --register")
    try:
        if given["register"] is not None:
            table, address = parse_register(given["register"])
            click.echo(tr("noted", given["register"], table, address), err=True)
        else:
            table, address = given_at[0][0], parse_address(given_at[0][1])
            if table in (Table.HOLDING, Table.INPUT) and 30001 <= address <= 49999 and given_at[0][1].isdecimal():
                click.echo(tr("as_sent", address), err=True)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    count = given["count"] or min(READ_COUNT if not table.is_bits else 16, ADDRESSES - address)
    if address + count > ADDRESSES:
        raise click.UsageError(f"{count} from {address} leave 0..65535")
    return Block(table=table, address=address, count=count)


# --- watch ---


@probe.command()
@wire_options
@place_options
@click.option("--profile", metavar="ID", default=None, help="Watch the values of this profile instead of an address.")
@click.option("--type", "type_", metavar="TYPE", default=None, help="u16, i16, u32, i32, f32 ... [default: raw words].")
@click.option("--order", metavar="ORDER", default="big", show_default=True, help="big, little, big_swapped ...")
@click.option("--every", "every_s", type=click.FloatRange(0, 3600), default=1.0, show_default=True, help="Seconds.")
@click.option("--times", type=click.IntRange(1), default=None, help="End after so many.")
@click.option("--seconds", type=click.FloatRange(0.1), default=None, help="End after so long.")
@click.option("--timeout-ms", type=click.IntRange(20, 30000), default=500, show_default=True, help="Wait for a reply.")
@click.option("--long", "long_", is_flag=True, help="Wait up to 5 s: measures how late replies come.")
@click.option("--lines", "as_lines", is_flag=True, help="A new line for each look.")
def watch(**given: Any) -> None:
    """Read again and again: value, reply times, errors; at the end what site.toml should say about waiting."""
    from .interpret import Tally, advise
    from .text import advice_json, summary_lines, tally_json

    target, tr = target_of(given), translated(given["lang"])
    blocks = _watched(given, target.config, tr)
    given["timeout_ms"] = LONG_MS if given["long_"] else given["timeout_ms"]
    tally, used = Tally(), list["BusSpec"]()
    run_probe(_watch(target, given, blocks, tally, used, tr))
    if sys.stdout.isatty() and not given["as_lines"] and not given["as_json"]:
        click.echo()
    advice = advise([tally], waited_ms=given["timeout_ms"])
    if given["as_json"]:
        click.echo(json.dumps({"summary": tally_json(tally), "advice": advice_json(advice)}))
    else:
        is_rtu = bool(used) and used[0].kind.is_rtu
        for line in summary_lines(tally, advice, given["timeout_ms"], tr, is_rtu=is_rtu):
            click.echo(line)
    if not tally.times_ms:
        sys.exit(1)


def _watched(given: dict[str, Any], config: Path | None, tr: Say) -> tuple[Block, ...]:
    """Blocks with the registers that they are decoded to; without any they are shown raw."""
    from ..sensors.registers import Register, ValueType, WordOrder, plan

    if given["profile"] is not None:
        name, _, variant = given["profile"].partition("/")
        profile = _catalogue(config).get(name)
        mapped = (
            next((v.profile for v in profile.variants if v.id == variant), None) if profile and variant else profile
        )
        if mapped is None:
            raise PermanentError(f"the catalogue has no profile {given['profile']!r}", hint="ID or ID/variant")
        return plan(mapped.registers, max_gap=mapped.max_gap, max_count=mapped.max_count)
    block = _block({**given, "count": given["count"] or 1}, tr)
    if given["type_"] is None:
        return (block,)
    kinds = [kind.value for kind in ValueType if kind.value not in ("bit", "parts")]
    if given["type_"] not in kinds or given["order"] not in list(WordOrder):
        wanted = f"--type {', '.join(kinds)}; --order {', '.join(WordOrder)}"
        raise click.UsageError(f"{wanted} (got {given['type_']} {given['order']})")
    kind = ValueType(given["type_"])
    registers = [
        Register(
            name=f"{block.address + i * kind.words}",
            table=block.table,
            address=block.address + i * kind.words,
            type=kind,
            word_order=WordOrder(given["order"]),
        )
        for i in range(given["count"] or 1)
    ]
    return plan(registers, max_gap=0)


async def _watch(
    target: Target, given: dict[str, Any], blocks: tuple[Block, ...], tally: Tally, used: list[BusSpec], tr: Say
) -> None:
    """Fills `tally` as it goes; `used` gets the wire."""
    from .run import watch as look_again
    from .text import round_json, round_text, tally_line

    profile = _catalogue(target.config).get(str(given["profile"]).partition("/")[0])
    labels = {label.name: label for label in profile.labels} if profile else {}
    async with open_wire(target, _named_line(target, given), _quietly(given), tr) as wire:
        used.append(wire.spec)
        rounds = look_again(
            wire.guest,
            given["unit_id"],
            blocks,
            timeout_s=given["timeout_ms"] / 1000,
            every_s=given["every_s"],
            times=given["times"],
            seconds=given["seconds"],
            tally=tally,
        )
        async for one in rounds:
            if given["as_json"]:
                click.echo(json.dumps(round_json(one, blocks)))
            else:
                _show(f"{round_text(one, blocks, labels, tr)}  {tally_line(tally, tr)}", as_lines=given["as_lines"])


def _show(line: str, *, as_lines: bool) -> None:
    """In place of the last one on a terminal."""
    if as_lines or not sys.stdout.isatty():
        click.echo(line)
        return
    from .text import width

    while width(line) >= shutil.get_terminal_size().columns:
        line = line[:-1]
    click.echo(f"\r\x1b[K{line}", nl=False)
