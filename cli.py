"""The `sitewarden` command. Every subcommand imports what it needs when it runs: `--help` is instant."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from . import __version__
from .asking import output, reload
from .bundle_command import bundle
from .cloud_keys_command import add_key_commands
from .console.folders import data_folder
from .console.group import Command, Group, problem_lines
from .console.language import LANG, Say
from .console.text import nearest
from .console.words import phrases
from .enrol_command import enrol, key
from .errors import ConfigError, PermanentError, SitewardenError
from .evidence_commands import journal, verify
from .history_command import history
from .probe.commands import probe
from .proof_command import proof
from .serving.logs import LogFormat, log_as
from .tls_command import tls
from .trial import replay

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the log on standard error.",
)
_UMASK = 0o027  # the stores are for the service and its group alone, also where no unit says so


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sitewarden")
@LANG
@click.option("-v", "--verbose", is_flag=True, help="Log more (to standard error).")
def main(verbose: bool = False) -> None:
    """Sitewarden 岗哨: a safety gateway for small plants.

    Start with `sitewarden demo`: a whole plant, simulated, on this machine.
    """
    logging.getLogger().setLevel(logging.DEBUG if verbose else logging.INFO)
    log_as("text")
    for noisy in ("pymodbus", "mqtt", "aiomqtt", "asyncio", "amqtt"):
        logging.getLogger(noisy).setLevel(logging.DEBUG if verbose else logging.CRITICAL)


@main.command(short_help="Run the gateway until SIGTERM or Ctrl-C.")
@click.option("--config", type=FILE, required=True, help="site.toml of this gateway.")
@click.option("--data", type=FOLDER, default=None, help="Folder of the stores [default: $STATE_DIRECTORY].")
@LOG_FORMAT
def edge(config: Path, data: Path | None, log_format: LogFormat) -> None:
    """Run the gateway daemon until SIGTERM or Ctrl-C."""
    log_as(log_format)
    from .edge.baseline_files import Shelf
    from .edge.site_reader import SiteReader

    os.umask(_UMASK)
    folder = data_folder(data)
    taken_back = Shelf.of(folder).count_start()
    reader = SiteReader(config, folder)  # at work while this process loads the rest
    from .edge.app import run_edge

    _run(run_edge(config, folder, reader=reader, say=_say, taken_back=taken_back))


main.add_command(reload)
main.add_command(output)
main.add_command(proof)


@main.group(short_help="Run the cloud service until SIGTERM or Ctrl-C.", invoke_without_command=True)
@click.option("--config", type=FILE, default=None, help="cloud.toml of this service.")
@click.option("--data", type=FOLDER, default=None, help="Folder of the stores [default: $STATE_DIRECTORY].")
@LOG_FORMAT
@click.pass_context
def cloud(context: click.Context, config: Path | None, data: Path | None, log_format: LogFormat) -> None:
    """Run the cloud service until SIGTERM or Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise click.MissingParameter(ctx=context, param=context.command.params[0])
    log_as(log_format)
    from .cloud.app import run_cloud
    from .cloud.config import load_cloud_config

    loaded = load_cloud_config(config)
    url = f"http://{loaded.cloud.host}"
    os.umask(_UMASK)
    _run(run_cloud(loaded, data_folder(data), ready=lambda port: _say(f"sitewarden cloud: {url}:{port}/")))


@cloud.command("move", cls=Command, short_help="Move cloud.db to PostgreSQL.")
@click.option("--config", type=FILE, required=True, help="cloud.toml of this service.")
@click.option("--data", type=FOLDER, default=None, help="Folder of the stores [default: $STATE_DIRECTORY].")
@click.option("--to", "url", required=True, metavar="URL", help="postgresql://user@host:port/database, empty.")
@click.option("--password-file", type=FILE, default=None, help="File with the password of that user.")
@LANG
def move(config: Path, data: Path | None, url: str, password_file: Path | None) -> None:
    """Copy all of cloud.db to PostgreSQL, while the service is stopped, and compare every row.

    Broken off, it goes on where it was when it is called again. cloud.db is not changed. Afterwards [store] of
    cloud.toml must name the same address: the service does not start on cloud.db any more.

    Exit code 0: all is there. 1: it is not. 2: wrong usage.
    """
    import asyncio

    from .cloud.config import load_cloud_config, store_table
    from .cloud.moving import move_store

    tr = phrases()
    shows = sys.stderr.isatty()
    password = password_file.read_text("utf-8").strip() if password_file is not None else ""

    def told(table: str, done: int, rows: int) -> None:
        if shows:
            click.echo(f"\r\x1b[K{tr('moving', table, done, rows)}", nl=False, err=True)

    work = move_store(load_cloud_config(config), data_folder(data), store_table(url), password, told)
    counts = asyncio.run(work)
    if shows:
        click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(tr("moved", sum(counts.values()), len(counts), url))


@cloud.command("backup", cls=Command, short_help="Copy the data folder of headquarters.")
@click.argument("target", type=FOLDER)
@click.option("--config", type=FILE, required=True, help="cloud.toml of this service.")
@click.option("--data", type=FOLDER, default=None, help="Folder of the stores [default: $STATE_DIRECTORY].")
@click.option("--same-disk", is_flag=True, help="Call it durable although it lies on the same disk.")
@LANG
def backup(target: Path, config: Path, data: Path | None, same_disk: bool) -> None:
    """Copy database, keys and evidence of headquarters into TARGET, while the service runs, and tell it.

    TARGET always holds one whole copy: the new one takes the place of the one before when it is complete. With
    durable = "backup" in cloud.toml gateways delete only what such a copy holds, seven days later.

    Exit code 0: it is complete. 1: it is not, or nothing became durable by it. 2: wrong usage.
    """
    import asyncio

    from .cloud.backing_up import back_up
    from .cloud.config import load_cloud_config

    tr = phrases()
    work = back_up(load_cloud_config(config), data_folder(data), target, same_disk=same_disk)
    copied, raised = asyncio.run(work)
    click.echo(tr("backed_up", target, copied.bytes, copied.blobs, raised))


add_key_commands(cloud)


@main.command(short_help="Check a site.toml or cloud.toml offline.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--effective", is_flag=True, help="Print every delay, limit and unit as they will be used.")
@click.option("--baseline", type=FILE, default=None, help="Under this baseline.toml of headquarters.")
@LANG
def check(file: Path, effective: bool, baseline: Path | None) -> None:
    """Check a site.toml or cloud.toml offline: every problem at once.

    people.csv is checked with the file that names it. A file whose name begins with cloud is read as a cloud.toml, one
    that begins with baseline as a baseline.toml.

    Exit code 0: it is good. 1: it has a problem. 2: wrong usage.
    """
    from .edge.effective import describe
    from .edge.site import load_site

    tr = phrases()
    try:
        if file.suffix.lower() == ".csv":
            raise ConfigError(str(file), ["file: is checked with the site.toml or cloud.toml that names it: name that"])
        if file.name.startswith("cloud"):
            _check_cloud(file, tr)
            return
        if file.name.startswith("baseline"):
            _check_baseline(file, tr)
            return
        site = load_site(file, baseline=baseline)
    except ConfigError as error:
        for line in problem_lines(error, tr):
            click.echo(line, err=True)
        sys.exit(1)
    for warning in site.warnings:
        click.echo(tr("warning", warning))
    for line in describe(site) if effective else ():
        click.echo(line)
    devices = sum(len(bus.units) for bus in site.buses) + len(site.mqtt_devices)
    _say_good(file, tr, "good_site", (len(site.areas), "area"), (devices, "device"), (len(site.points), "point"))


def _check_cloud(file: Path, tr: Say) -> None:
    from .cloud.config import load_cloud_config

    config = load_cloud_config(file)
    _say_good(file, tr, "good_cloud", (len(config.gateway), "gateway"), (len(config.people), "person", "people"))


def _check_baseline(file: Path, tr: Say) -> None:
    from .sync.baseline import read_baseline

    found = read_baseline(file)
    counts = (len(found.room), "kind of room", "kinds of room"), (len(found.limit), "limit"), (len(found.step), "step")
    _say_good(file, tr, "good_baseline", *counts)


def _say_good(file: Path, tr: Say, key: str, *counted: tuple[Any, ...]) -> None:
    numbers = [one[0] if tr("lang") == "zh" else _count(*one) for one in counted]
    click.echo(tr(key, click.format_filename(file), *numbers))


def _count(n: int, one: str, more: str = "") -> str:
    return f"{n} {one if n == 1 else more or one + 's'}"


main.add_command(verify)
main.add_command(journal)


main.add_command(enrol)
main.add_command(key)


@main.group()
def pin() -> None:
    """PINs of the people who sign in."""


@pin.command("set", short_help="Set somebody's PIN.")
@click.argument("person")
@click.option("--secrets", type=FILE, required=True, help="secrets.db in the data folder of edge or cloud.")
@click.option("--people", type=FILE, default=None, help="people.csv; refuses a person who is not in it.")
@click.option("--pin-stdin", is_flag=True, help="Read the PIN from standard input instead of asking.")
@LANG
def pin_set(person: str, secrets: Path, people: Path | None, pin_stdin: bool) -> None:
    """Set the PIN (4 to 12 digits) of a person of people.csv; ends that person's sessions.

    Without --people nobody looks whether the person exists.
    """
    from .serving.secrets import Secrets

    tr = phrases()
    if not secrets.parent.is_dir():
        raise PermanentError(tr("no_secrets", secrets.parent), hint=tr("no_secrets_hint"))
    if people is not None:
        _require_person(person, people, tr)
    value = (
        sys.stdin.readline().strip() if pin_stdin else click.prompt("PIN", hide_input=True, confirmation_prompt=True)
    )
    store = Secrets(secrets)
    try:
        store.set_pin(person, value)
    finally:
        store.close()
    click.echo(tr("pin_set", person))


def _require_person(person: str, file: Path, tr: Say) -> None:
    from .serving.people import load_people

    people = load_people(file)
    if person not in people:
        close = nearest(person, people)
        what = tr("nobody", file, person) + (tr("did_you_mean", close) if close else "")
        raise PermanentError(what, hint=tr("no_pin_set"))


@main.command(short_help="Start a whole simulated plant here, or disturb it.")
@click.option("--data", type=FOLDER, default=Path("var/demo"), show_default=True, help="Folder of the demo.")
@click.option("--free-ports", is_flag=True, help="Take free ports everywhere.")
@click.option("--fresh", is_flag=True, help="Write the configuration anew; an edited file is kept beside as *.edited.")
@click.option(
    "--broker",
    type=click.Choice(["auto", "mosquitto", "amqtt"]),
    default="auto",
    show_default=True,
    help="Which MQTT broker to start.",
)
@click.option(
    "--humid",
    type=float,
    is_flag=False,
    flag_value=82.0,
    default=None,
    help="Push the store's humidity to so many %RH (82).",
)
@click.option("--dry", is_flag=True, help="Release the humidity.")
@click.option("--kill", "dead", multiple=True, metavar="DEVICE", help="A device stops answering.")
@click.option("--late", multiple=True, metavar="DEVICE", help="A device answers late.")
@click.option("--ok", multiple=True, metavar="DEVICE", help="A device works again.")
@LANG
def demo(
    data: Path,
    free_ports: bool,
    fresh: bool,
    broker: str,
    humid: float | None,
    dry: bool,
    dead: tuple[str, ...],
    late: tuple[str, ...],
    ok: tuple[str, ...],
) -> None:
    """Start a whole plant on this machine; with --humid, --dry, --kill, --late or --ok: disturb the running one.

    The configuration is written into the folder once and kept from then on: what you edit there stays.
    """
    import asyncio

    from .demo.push import PushOptions, push_demo
    from .demo.run import DemoOptions, run_demo

    if humid is not None or dry or dead or late or ok:
        options = PushOptions(data=data, humid=humid, dry=dry, dead=dead, late=late, ok=ok)
        for line in asyncio.run(push_demo(options)):
            click.echo(line)
        return
    _run(run_demo(DemoOptions(data=data, free_ports=free_ports, fresh=fresh, broker=broker, command=_called())))


@main.command(short_help="Run only the simulated plant.")
@click.option("--config", type=FILE, default=None, help="JSON file with the options (ports, serial link, broker).")
def plant(config: Path | None) -> None:
    """Run only the simulated plant: Modbus TCP, Modbus RTU on a pseudo-terminal, MQTT, and its control page."""
    from .sensors.plant import PlantOptions, load_plant_options, run_plant

    _run(run_plant(load_plant_options(config) if config else PlantOptions()))


@main.command(short_help="Run a chat robot's endpoint that shows its messages.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8092, show_default=True, help="Port; 0: a free one.")
def receiver(host: str, port: int) -> None:
    """Run a chat robot's endpoint that shows what it was sent."""
    from .demo.receiver import ReceiverOptions, run_receiver

    _run(run_receiver(ReceiverOptions(host=host, port=port)))


main.add_command(bundle)
main.add_command(history)
main.add_command(probe)
main.add_command(replay)
main.add_command(tls)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM or Ctrl-C, either of which cancels `work` and lets it close what it owns."""
    import asyncio

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


def _called() -> str:
    """How this program was called, so that what we print can be typed."""
    return sys.argv[0] if Path(sys.argv[0]).name == "sitewarden" else "python -m sitewarden"


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()
