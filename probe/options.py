"""The wire that a command of `sitewarden probe` names, and how it is opened: through the running gateway, or alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console.gateways import Found, Place, folders, look
from ..console.language import LANG, Say, spoken
from ..console.text import nearest
from ..console.words import reason_text
from ..errors import PermanentError, SitewardenError, TransientError

if TYPE_CHECKING:
    from ..sensors.buses import BusSpec, ReplyError
    from .link import Wire

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

# --- options ---

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The wire that was named on the command line; exactly one of the first four is set.

    Attributes:
        data: folder of the gateway that may be running.
    """

    tcp: str | None
    rtu_tcp: str | None
    serial: str | None
    bus: str | None
    config: Path | None
    data: Path | None


def wire_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which wire, and how to print."""
    options = (
        click.option("--tcp", metavar="HOST[:PORT]", help="Modbus TCP; port 502."),
        click.option("--rtu-tcp", metavar="HOST:PORT", help="RTU frames through a transparent converter."),
        click.option("--serial", metavar="DEVICE", help="RTU on a serial port, best /dev/serial/by-id/..."),
        click.option("--bus", metavar="ID", help="A bus of the running gateway, or of --config."),
        click.option("--config", type=FILE, default=None, help="site.toml: has --bus, and what there is already."),
        click.option("--data", type=FOLDER, default=None, help="Folder of the running gateway, or of the demo."),
        LANG,
        JSON,
    )
    for option in reversed(options):
        command = option(command)
    return command


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which registers of which unit, and how a serial line is set."""
    options = (
        click.option("--unit", "unit_id", type=click.IntRange(0, 255), required=True, help="Unit id."),
        click.option("--holding", metavar="ADDRESS", help="Holding register, as sent: from 0, or 0x..."),
        click.option("--input", "input_", metavar="ADDRESS", help="Input register."),
        click.option("--coil", metavar="ADDRESS", help="Coil."),
        click.option("--discrete", metavar="ADDRESS", help="Discrete input."),
        click.option("--register", metavar="NUMBER", help="As manuals number them: 40003 is holding 2."),
        click.option("--count", type=click.IntRange(1, 125), default=None, help="How many."),
        click.option("--baud", type=click.IntRange(300, 921600), default=None, help="Of --serial [default: 9600]."),
        click.option("--parity", type=click.Choice(["N", "E", "O"]), default=None, help="Of --serial [default: N]."),
        click.option("--stopbits", type=click.IntRange(1, 2), default=None, help="Of --serial [default: 1]."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def target_of(given: dict[str, Any]) -> Target:
    """Take the wire's options out of `given`. Raises UsageError unless exactly one wire is named."""
    names = ("tcp", "rtu_tcp", "serial", "bus", "config", "data")
    target = Target(**{name: given.pop(name) for name in names})
    named = [value for value in (target.tcp, target.rtu_tcp, target.serial, target.bus) if value is not None]
    if len(named) != 1:
        tr = phrases()
        _list_ports(tr)
        raise click.UsageError(tr("name_one_wire"))
    return target


def _list_ports(tr: Say) -> None:
    from .link import serial_ports

    ports = serial_ports()
    click.echo(tr("ports") if ports else tr("no_ports"), err=True)
    for port in ports:
        click.echo(f"  {port}" if "by-id" in port else f"  {tr('not_lasting', port)}", err=True)


def phrases() -> Say:
    """The probe's phrases in the language of the command that runs."""
    from .words import translator

    return translator(spoken())


def known(wrong: str, names: Iterable[str], tr: Say, phrase: str = "known") -> tuple[str, str]:
    """What to say of a name that nobody has: `; did you mean …?` to be added, and the names that there are."""
    names = list(names)
    close = nearest(wrong, names)
    return tr("did_you_mean", close) if close else "", tr(phrase, ", ".join(names) or tr("none"))


# --- wires ---


def named_wire(target: Target, line: dict[str, Any], timeout_ms: int, tr: Say) -> BusSpec | str:
    """The wire as it was named: a specification, or the id of a bus that only a running gateway knows.

    Args:
        line: baud, parity and stopbits where they were given; only a serial port that is named has them.
    """
    from ..sensors.buses import BusKind, BusSpec

    given = {key: value for key, value in line.items() if value is not None}
    if given and target.serial is None:
        raise click.UsageError(tr("belongs_to_serial", next(iter(given))))

    if target.bus is not None:
        return target.bus if target.config is None else _configured(target.config, target.bus, target.data, tr)
    times = {"timeout_ms": timeout_ms, "late_max_ms": timeout_ms}
    common: dict[str, Any] = {"id": "probe", "units": (), **times}
    if target.serial is not None:
        return BusSpec(kind=BusKind.RTU, serial=target.serial, **common, **given)
    kind = BusKind.TCP if target.tcp is not None else BusKind.RTU_TCP
    host, port = _split(target.tcp or target.rtu_tcp or "", tr, needs_port=kind is BusKind.RTU_TCP)
    return BusSpec(kind=kind, host=host, port=port, **common)


def _configured(config: Path, bus: str, data: Path | None, tr: Say) -> BusSpec:
    from ..edge.site import load_site

    site = load_site(config, data)
    found = next((spec for spec in site.buses if spec.id == bus), None)
    if found is None:
        meant, hint = known(bus, (spec.id for spec in site.buses), tr, "buses_here")
        raise PermanentError(tr("config_has_no_bus", config, bus) + meant, hint=hint)
    return found


def _split(place: str, tr: Say, *, needs_port: bool) -> tuple[str, int]:
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not colon:
        host, port = place, "" if needs_port else "502"
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise click.UsageError(tr("wire_is", tr("host_port" if needs_port else "host_or_port"), place))
    return host.strip("[]"), int(port)


@asynccontextmanager
async def open_wire(target: Target, named: BusSpec | str, say: Callable[[str], None], tr: Say) -> AsyncIterator[Wire]:
    """The running gateway's wire, else ours; `say` tells which."""
    from .link import alone, through_gateway
    from .text import place_of

    places = look(folders(target.data, target.config, os.environ))
    live = [place.socket for place in places if place.found is Found.LIVE]
    if target.data is not None and not live:
        _check_folder(places[0], tr)
        if not isinstance(named, str):
            say(tr("no_gateway", target.data))
    elif target.data is None:
        for place in places:
            if place.found is Found.CLOSED:
                say(place.say(tr))
    seen: list[str] = []
    async with through_gateway(live, named, tr, seen) as wire:
        if wire is not None:
            say(tr("through", wire.socket, wire.spec.id, place_of(wire.spec)))
            yield wire
            return
    if isinstance(named, str):
        if not live:
            lines = "\n".join(f"  {place.say(tr)}" for place in places)
            raise PermanentError(tr("no_gateway_for_bus", named, lines), hint=tr("no_gateway_for_bus_hint"))
        meant, hint = known(named, seen, tr, "buses_here")
        raise PermanentError(tr("no_gateway_has_bus", named) + meant, hint=hint)
    say(tr("alone", place_of(named)))
    async with alone(named, tr) as wire:
        yield wire


def _check_folder(place: Place, tr: Say) -> None:
    """Whether a gateway in the folder that was named could be found at all. Raises PermanentError."""
    if place.found is Found.NO_FOLDER:
        raise PermanentError(tr("no_folder", place.folder), hint=tr("no_folder_hint"))
    if place.found is Found.CLOSED:
        raise PermanentError(tr("may_not_open", place.folder), hint=tr("as_service_hint"))


def explained(error: ReplyError, spec: BusSpec, unit_id: int, timeout_ms: int, tr: Say) -> SitewardenError:
    """A read that failed, with what to do."""
    from .link import unreachable
    from .words import ALL

    match error.why:
        case "no_connection":
            return unreachable(spec, error, tr)
        case "timeout":
            what = tr("no_reply_within", timeout_ms)
        case "bad_frame":
            what = tr("not_the_reply", error.message.rpartition("but ")[2])
        case "driver_error":
            what = error.message
        case _:
            what = reason_text(error.why, tr)
    phrase = f"hint_{error.why}"
    return TransientError(tr("unit_said", unit_id, what), hint=tr(phrase) if phrase in ALL else "")


def run_probe(work: Coroutine[Any, Any, None]) -> bool:
    """Run to the end. Returns whether Ctrl-C came before it. An error is raised by itself, out of any group."""
    import asyncio

    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        return True
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    return False
