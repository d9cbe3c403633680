"""`sitewarden probe`: who is on a wire, what it says, how fast, and what site.toml should say about it."""

from __future__ import annotations

import functools
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import group
from ..console.group import INTERRUPTED
from ..console.language import LANG
from ..console.text import cut, to_json
from ..errors import PermanentError
from .options import (
    FILE,
    JSON,
    Target,
    explained,
    known,
    named_wire,
    open_wire,
    phrases,
    place_options,
    run_probe,
    target_of,
    wire_options,
)
from .scan_command import scan
from .site_file import catalogue, tables

if TYPE_CHECKING:
    from ..console.language import Say
    from ..sensors.buses import Answer, BusSpec
    from ..sensors.registers import Block
    from .interpret import Tally

READ_COUNT = 4  # registers that show every interpretation
LONG_MS = 5000


class _Group(group.Group):
    """`sitewarden probe --plan` is `sitewarden probe plan`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--plan" in args and not set(args) & set(self.commands):
            args = ["plan", *(arg for arg in args if arg != "--plan")]
        return super().parse_args(ctx, args)


@click.group(cls=_Group, short_help="Look at Modbus wires: scan, read, watch, plan.")
@click.pass_context
def probe(ctx: click.Context) -> None:
    """Look at Modbus wires: scan, identify, read, watch; through the running gateway or alone.

    `sitewarden probe --plan --config site.toml` prints how registers are grouped into requests.
    """
    logger = logging.getLogger("sitewarden.sensors")
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        ctx.call_on_close(functools.partial(logger.setLevel, logger.level))
        logger.setLevel(logging.CRITICAL)  # what goes wrong is said in words


probe.add_command(scan)

# --- plan ---


@probe.command(short_help="Print which requests a site makes, and what they cost.")
@click.option("--config", type=FILE, required=True, help="site.toml.")
@click.option("--device", metavar="AREA.DEVICE", default=None, help="Only this device.")
@LANG
@JSON
def plan(config: Path, device: str | None, as_json: bool) -> None:
    """Print how registers are grouped into requests, and what they cost the wire."""
    from ..edge.site import load_site
    from .plan import plan_bus
    from .text import plan_json, plan_lines

    tr, site = phrases(), load_site(config)
    devices = [unit.device for spec in site.buses for unit in spec.units]
    if device is not None and device not in devices:
        meant, hint = known(device, devices, tr)
        raise PermanentError(tr("no_device", config, device) + meant, hint=hint)
    plans = [plan_bus(spec) for spec in site.buses]
    if device is not None:
        plans = [plan for plan in plans if any(unit.unit.device == device for unit in plan.units)]
    if as_json:
        click.echo(to_json([plan_json(bus, device) for bus in plans], indent=2))
        return
    profiles = {
        f"{entry.get('area')}.{entry.get('id')}": str(entry.get("profile")) for entry in tables(config, "device")
    }
    for at, bus in enumerate(plans):
        click.echo("\n" * (at > 0) + "\n".join(plan_lines(bus, tr, profiles, device)))


# --- read ---


@probe.command(short_help="Read registers once, in every interpretation.")
@wire_options
@place_options
@click.option(
    "--timeout-ms", type=click.IntRange(20, 30000), default=1000, show_default=True, help="Wait so many ms for a reply."
)
def read(**given: Any) -> None:
    """Read registers once and print them in every interpretation, side by side."""
    from .text import bit_lines, word_lines, words_json

    target, tr = target_of(given), phrases()
    block = _block(given, tr)
    found: list[tuple[Block, Answer]] = []
    interrupted = run_probe(_look(target, given, block, found, tr))
    if interrupted or not found:
        click.echo(tr("stopped"), err=True)
        sys.exit(INTERRUPTED)
    part, answer = found[0]
    if given["as_json"]:
        whole = {"unit_id": given["unit_id"], "table": part.table, "reply_ms": round(answer.reply_ms, 2)}
        bits = {"bits": [{"address": part.address + i, "bit": bit} for i, bit in enumerate(answer.words)]}
        click.echo(to_json({**whole, **(bits if part.table.is_bits else words_json(part, answer.words))}, indent=2))
        return
    if part.count < block.count:
        click.echo(tr("fewer", block.count, part.count))
    where = tr("read_of", given["unit_id"], part.table, part.address, part.address, part.count)
    click.echo(f"{where}{tr('colon')}{tr('reply')} {answer.reply_ms:.1f} ms")
    lines = bit_lines(part, answer.words, tr) if part.table.is_bits else word_lines(part, answer.words, tr, _dim)
    for line in lines:
        click.echo(line)


async def _look(target: Target, given: dict[str, Any], block: Block, found: list[Any], tr: Say) -> None:
    from ..sensors.buses import ReplyError
    from .run import look

    async with open_wire(target, _named_line(target, given, tr), _quietly(given), tr) as wire:
        try:
            whole = given["count"] is not None
            found.append(await look(wire.guest, given["unit_id"], block, given["timeout_ms"] / 1000, shrink=not whole))
        except ReplyError as error:
            raise explained(error, wire.spec, given["unit_id"], given["timeout_ms"], tr) from error


def _named_line(target: Target, given: dict[str, Any], tr: Say) -> BusSpec | str:
    line = {key: given[key] for key in ("baud", "parity", "stopbits")}
    return named_wire(target, line, given["timeout_ms"], tr)


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
        raise click.UsageError(tr("one_place"))
    try:
        if given["register"] is not None:
            table, address = parse_register(given["register"])
            click.echo(tr("noted", given["register"], table, address), err=True)
        else:
            table, address = given_at[0][0], parse_address(given_at[0][1])
            if table in (Table.HOLDING, Table.INPUT) and 30001 <= address <= 49999 and given_at[0][1].isdecimal():
                click.echo(tr("as_sent", address), err=True)
    except ValueError as error:
        raise click.UsageError(tr(*error.args)) from error
    count = given["count"] or min(READ_COUNT if not table.is_bits else 16, ADDRESSES - address)
    if address + count > ADDRESSES:
        raise click.UsageError(tr("leaves_addresses", count, address))
    return Block(table=table, address=address, count=count)


# --- watch ---


@probe.command(short_help="Read again and again: values, reply times, errors.")
@wire_options
@place_options
@click.option("--profile", metavar="ID", default=None, help="Watch the values of this profile instead of an address.")
@click.option("--type", "type_", metavar="TYPE", default=None, help="u16, i16, u32, i32, f32 ... [default: raw words].")
@click.option("--order", metavar="ORDER", default="big", show_default=True, help="big, little, big_swapped ...")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    help="Seconds from look to look.",
)
@click.option("--times", type=click.IntRange(1), default=None, help="End after so many looks.")
@click.option("--seconds", type=click.FloatRange(0.1), default=None, help="End after so many seconds.")
@click.option(
    "--timeout-ms", type=click.IntRange(20, 30000), default=500, show_default=True, help="Wait so many ms for a reply."
)
@click.option("--long", "long_", is_flag=True, help="Wait up to 5 s: measures how late replies come.")
@click.option("--lines", "as_lines", is_flag=True, help="A new line for each look.")
def watch(**given: Any) -> None:
    """Read again and again: value, reply times, errors; at the end what site.toml should say about waiting."""
    from .interpret import Tally, advise
    from .text import advice_json, summary_lines, tally_json

    target, tr = target_of(given), phrases()
    blocks = _watched(given, target.config, tr)
    given["timeout_ms"] = LONG_MS if given["long_"] else given["timeout_ms"]
    tally, used = Tally(), list["BusSpec"]()
    run_probe(_watch(target, given, blocks, tally, used, tr))
    if sys.stdout.isatty() and not given["as_lines"] and not given["as_json"]:
        click.echo()
    advice = advise([tally], waited_ms=given["timeout_ms"])
    if given["as_json"]:
        click.echo(to_json({"summary": tally_json(tally), "advice": advice_json(advice)}))
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
        profile = catalogue(config).get(name)
        mapped = (
            next((v.profile for v in profile.variants if v.id == variant), None) if profile and variant else profile
        )
        if mapped is None:
            names = [(p.id, *(f"{p.id}/{v.id}" for v in p.variants)) for p in catalogue(config).values()]
            meant, _ = known(given["profile"], (name for each in names for name in each), tr)
            raise PermanentError(tr("no_profile", given["profile"]) + meant, hint=tr("profile_hint"))
        return plan(mapped.registers, max_gap=mapped.max_gap, max_count=mapped.max_count)
    block = _block({**given, "count": given["count"] or 1}, tr)
    if given["type_"] is None:
        return (block,)
    kinds = [kind.value for kind in ValueType if kind.value not in ("bit", "parts")]
    if given["type_"] not in kinds or given["order"] not in list(WordOrder):
        wanted = (", ".join(kinds), ", ".join(WordOrder))
        raise click.UsageError(tr("bad_type", *wanted, given["type_"], given["order"]))
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

    profile = catalogue(target.config).get(str(given["profile"]).partition("/")[0])
    labels = {label.name: label for label in profile.labels} if profile else {}
    async with open_wire(target, _named_line(target, given, tr), _quietly(given), tr) as wire:
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
                click.echo(to_json(round_json(one, blocks)))
            else:
                _show(f"{round_text(one, blocks, labels, tr)}  {tally_line(tally, tr)}", as_lines=given["as_lines"])


def _show(line: str, *, as_lines: bool) -> None:
    """In place of the last one on a terminal."""
    if as_lines or not sys.stdout.isatty():
        click.echo(line)
        return
    click.echo(f"\r\x1b[K{cut(line, shutil.get_terminal_size().columns - 1)}", nl=False)
