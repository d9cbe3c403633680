"""The `sitewarden` command. Every subcommand imports what it needs when it runs: `--help` is instant."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from . import __version__
from .errors import ConfigError, PermanentError, SitewardenError
from .probe.commands import probe

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
_UMASK = 0o027  # the stores are for the service and its group alone, also where no unit says so


class _Group(click.Group):
    """Turns our own errors into one clear message and exit code 1; a traceback is for bugs."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SitewardenError as error:
            click.echo(f"sitewarden: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            if not error.filename or not error.strerror:
                raise
            hint = "is the folder there, and may this user use it? On a real machine: sudo -u sitewarden ..."
            click.echo(f"sitewarden: {os.fsdecode(error.filename)}: {error.strerror} ({hint})", err=True)
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sitewarden")
@click.option("-v", "--verbose", is_flag=True, help="Log more (to standard error).")
def main(verbose: bool = False) -> None:
    """Sitewarden 岗哨: a safety gateway for small plants.

    Start with `sitewarden demo`: a whole plant, simulated, on this machine.
    """
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("pymodbus", "mqtt", "aiomqtt", "asyncio", "amqtt"):
        logging.getLogger(noisy).setLevel(logging.DEBUG if verbose else logging.CRITICAL)


@main.command()
@click.option("--config", type=FILE, required=True, help="site.toml of this gateway.")
@click.option("--data", type=FOLDER, default=None, help="Folder of the stores [default: $STATE_DIRECTORY].")
def edge(config: Path, data: Path | None) -> None:
    """Run the gateway daemon until SIGTERM or Ctrl-C."""
    from .edge.app import run_edge

    os.umask(_UMASK)
    _run(run_edge(config, _data(data), say=_say))


@main.command()
@click.option("--data", type=FOLDER, default=None, help="Folder of the running gateway [default: $STATE_DIRECTORY].")
def reload(data: Path | None) -> None:
    """Let the running gateway apply its changed site.toml and people.csv: what stays the same goes on untouched.

    A file with a mistake changes nothing: every problem is printed, exit code 1.
    """
    from .edge.control import ask_gateway

    status, answer = asyncio.run(ask_gateway(_data(data), "POST", "/v1/reload", {}))
    if "problems" in answer:
        click.echo(f"refused, nothing was changed: {_count(len(answer['problems']), 'problem')}", err=True)
        for problem in answer["problems"]:
            click.echo(f"  {problem}", err=True)
        sys.exit(1)
    _check_answer(status, answer)
    for line in answer["changes"]:
        click.echo(line)
    for key in answer["needs_restart"]:
        click.echo(f"{key}: was changed, and counts from the next start on")
    if not answer["changes"] and not answer["needs_restart"]:
        click.echo("nothing was changed")


@main.command()
@click.argument("output", required=False)
@click.argument("state", required=False)
@click.option("--data", type=FOLDER, default=None, help="Folder of the running gateway [default: $STATE_DIRECTORY].")
def output(output: str | None, state: str | None, data: Path | None) -> None:
    """List the outputs of the running gateway, or bring OUTPUT (area.device.output) into STATE and read it back.

    A state that the device does not confirm: exit code 1.
    """
    from .edge.control import ask_gateway

    if output is None or state is None:
        answer = _check_answer(*asyncio.run(ask_gateway(_data(data), "GET", "/v1/outputs")))
        listed = [one for one in answer["outputs"] if output in (None, one["id"])]
        if output is not None and not listed:
            raise PermanentError(f"there is no output {output!r}", hint="without a name every output is listed")
        if not listed:
            click.echo("This site has no outputs: a device has some when its profile lists them (docs/devices.md).")
        for one in listed:
            now = one["state"] or ("not known" if one["tried"] is None else f"not known: {one['why']}")
            click.echo(f"{one['id']}: {now} ({' | '.join(one['states'])}) {one['name_en']}")
        return
    _check_answer(*asyncio.run(ask_gateway(_data(data), "POST", f"/v1/outputs/{output}", {"state": state})))
    click.echo(f"{output}: {state}")


def _check_answer(status: int, answer: Any) -> Any:
    """Raises PermanentError when the gateway refused, or the device did not do it."""
    error = answer.get("error")
    if error is not None or status != 200:
        known = error or {"message": f"HTTP {status}"}
        raise PermanentError(known["message"], hint=known.get("hint", ""))
    return answer


@main.command()
@click.option("--config", type=FILE, required=True, help="cloud.toml of this service.")
@click.option("--data", type=FOLDER, default=None, help="Folder of the stores [default: $STATE_DIRECTORY].")
def cloud(config: Path, data: Path | None) -> None:
    """Run the cloud service until SIGTERM or Ctrl-C."""
    from .cloud.app import run_cloud
    from .cloud.config import load_cloud_config

    loaded = load_cloud_config(config)
    url = f"http://{loaded.cloud.host}"
    os.umask(_UMASK)
    _run(run_cloud(loaded, _data(data), ready=lambda port: _say(f"sitewarden cloud: {url}:{port}/")))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--effective", is_flag=True, help="Print every delay, limit and unit as they will be used.")
def check(file: Path, effective: bool) -> None:
    """Check a site.toml or cloud.toml offline: every problem at once, exit code 1 when there is one.

    people.csv is checked with the file that names it.

    A file whose name begins with cloud is read as a cloud.toml.
    """
    from .edge.effective import describe
    from .edge.site import load_site

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # GBK has no ³
    try:
        if file.suffix.lower() == ".csv":
            raise ConfigError(str(file), ["file: is checked with the site.toml or cloud.toml that names it: name that"])
        if file.name.startswith("cloud"):
            _check_cloud(file)
            return
        site = load_site(file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    for warning in site.warnings:
        click.echo(f"warning: {warning}")
    for line in describe(site) if effective else ():
        click.echo(line)
    devices = sum(len(bus.units) for bus in site.buses) + len(site.mqtt_devices)
    name = click.format_filename(file)
    counted = ((len(site.areas), "area"), (devices, "device"), (len(site.points), "point"))
    click.echo(f"{name}: good: {', '.join(_count(n, one) for n, one in counted)}")


def _check_cloud(file: Path) -> None:
    from .cloud.config import load_cloud_config

    config = load_cloud_config(file)
    gateways, people = _count(len(config.gateway), "gateway"), _count(len(config.people), "person", "people")
    click.echo(f"{file}: good: {gateways}, {people}")


def _count(n: int, one: str, more: str = "") -> str:
    return f"{n} {one if n == 1 else more or one + 's'}"


@main.command()
@click.argument("file", type=FILE)
def verify(file: Path) -> None:
    """Check the chain of a journal.db: names the first record that was altered, removed or inserted.

    Newest records that were removed together with every trace of them show only at headquarters, which has them.
    """
    from .sync.journal import verify_file

    verdict = verify_file(file, lambda n: click.echo(f"\r{n} records", nl=False, err=True))
    click.echo("\r", nl=False, err=True)
    if verdict.bad_seq is not None:
        click.echo(
            f"{file}: NOT GOOD: {verdict.problem} ({_count(verdict.records, 'record')} before it good)", err=True
        )
        sys.exit(1)
    if not verdict.records:
        click.echo(f"{file}: no records of gateway {verdict.gateway}, epoch {verdict.epoch}", err=True)
        sys.exit(1)
    click.echo(f"{file}: good: {_count(verdict.records, 'record')} of gateway {verdict.gateway}, epoch {verdict.epoch}")


@main.command()
@click.option("--data", type=FOLDER, default=None, help="Folder of the stores [default: $STATE_DIRECTORY].")
def key(data: Path | None) -> None:
    """Print the public key of this gateway; makes the key pair on first use."""
    from .sync.keys import load_or_create_key, public_key_text

    folder = _data(data)
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    click.echo(public_key_text(load_or_create_key(folder / "gateway.key")))


@main.group()
def pin() -> None:
    """PINs of the people who sign in."""


@pin.command("set")
@click.argument("person")
@click.option("--secrets", type=FILE, required=True, help="secrets.db in the data folder of edge or cloud.")
@click.option("--people", type=FILE, default=None, help="people.csv; refuses a person who is not in it.")
@click.option("--pin-stdin", is_flag=True, help="Read the PIN from standard input instead of asking.")
def pin_set(person: str, secrets: Path, people: Path | None, pin_stdin: bool) -> None:
    """Set the PIN (4 to 12 digits) of a person of people.csv; ends that person's sessions.

    Without --people nobody looks whether the person exists.
    """
    from .serving.secrets import Secrets

    if not secrets.parent.is_dir():
        hint = "the daemon or `sitewarden key` makes it; check the path"
        raise PermanentError(f"{secrets.parent}: there is no such folder", hint=hint)
    if people is not None:
        _require_person(person, people)
    value = (
        sys.stdin.readline().strip() if pin_stdin else click.prompt("PIN", hide_input=True, confirmation_prompt=True)
    )
    store = Secrets(secrets)
    try:
        store.set_pin(person, value)
    finally:
        store.close()
    click.echo(f"PIN of {person} set")


def _require_person(person: str, file: Path) -> None:
    from .edge.wording import suggest
    from .serving.people import load_people

    people = load_people(file)
    if person not in people:
        raise PermanentError(f"{file}: nobody has the id {person!r}{suggest(person, people)}", hint="no PIN was set")


@main.command()
@click.option("--data", type=FOLDER, default=Path("var/demo"), show_default=True, help="Folder of the demo.")
@click.option("--free-ports", is_flag=True, help="Take free ports everywhere.")
@click.option("--broker", type=click.Choice(["auto", "mosquitto", "amqtt"]), default="auto", show_default=True)
@click.option("--humid", type=float, is_flag=False, flag_value=82.0, default=None, help="Push the store's humidity.")
@click.option("--dry", is_flag=True, help="Release the humidity.")
@click.option("--kill", "dead", multiple=True, metavar="DEVICE", help="A device stops answering.")
@click.option("--late", multiple=True, metavar="DEVICE", help="A device answers late.")
@click.option("--ok", multiple=True, metavar="DEVICE", help="A device works again.")
def demo(
    data: Path,
    free_ports: bool,
    broker: str,
    humid: float | None,
    dry: bool,
    dead: tuple[str, ...],
    late: tuple[str, ...],
    ok: tuple[str, ...],
) -> None:
    """Start a whole plant on this machine; with --humid, --dry, --kill, --late or --ok: disturb the running one."""
    from .demo.push import PushOptions, push_demo
    from .demo.run import DemoOptions, run_demo

    if humid is not None or dry or dead or late or ok:
        options = PushOptions(data=data, humid=humid, dry=dry, dead=dead, late=late, ok=ok)
        for line in asyncio.run(push_demo(options)):
            click.echo(line)
        return
    _run(run_demo(DemoOptions(data=data, free_ports=free_ports, broker=broker, command=_called())))


@main.command()
@click.option("--config", type=FILE, default=None, help="JSON file with the options (ports, serial link, broker).")
def plant(config: Path | None) -> None:
    """Run only the simulated plant: Modbus TCP, Modbus RTU on a pseudo-terminal, MQTT, and its control page."""
    from .sensors.plant import PlantOptions, load_plant_options, run_plant

    _run(run_plant(load_plant_options(config) if config else PlantOptions()))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8092, show_default=True)
def receiver(host: str, port: int) -> None:
    """Run a chat robot's endpoint that shows what it was sent."""
    from .demo.receiver import ReceiverOptions, run_receiver

    _run(run_receiver(ReceiverOptions(host=host, port=port)))


main.add_command(probe)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM or Ctrl-C, either of which cancels `work` and lets it close what it owns."""

    async def until_signal() -> None:
        task, told = asyncio.current_task(), asyncio.Event()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: (told.set(), task.cancel()))
        try:
            await work
        except asyncio.CancelledError:
            if not told.is_set():
                raise

    try:
        asyncio.run(until_signal())
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, SitewardenError):
            raise error from group
        raise


def _data(given: Path | None) -> Path:
    if given is not None:
        return given
    folder = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if not folder:
        raise click.UsageError("--data is missing (systemd would give STATE_DIRECTORY)")
    return Path(folder)


def _called() -> str:
    """How this program was called, so that what we print can be typed."""
    return sys.argv[0] if Path(sys.argv[0]).name == "sitewarden" else "python -m sitewarden"


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()
