"""`sitewarden bundle`: sync by USB stick, for sites without a link."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .asking import DATA
from .bundle_files import SIZE, Ask, Put, mib, to_device, write_files
from .console.gateways import SOCKET, Found, folders, look, short
from .console.group import Command, Group
from .console.language import LANG, Say
from .console.text import to_json
from .console.words import WORDS, phrases
from .errors import PermanentError, RefusedError, TransientError

if TYPE_CHECKING:
    import aiohttp

    from .sync.bundle import BundleReader, Manifest

CLOUD_SOCKET = "cloud.sock"
FILE = click.Path(path_type=Path, dir_okay=False)
_HOURS_S = 24 * 3600.0


@click.group(cls=Group, short_help="Sync by USB stick: export, import, show.")
def bundle() -> None:
    """Carry what a gateway recorded to headquarters on a USB stick, and the answer back."""


@bundle.command("export", cls=Command, short_help="Write what headquarters does not have yet.")
@click.argument("file", type=FILE)
@click.option("--all", "everything", is_flag=True, help="From the beginning, also what headquarters has.")
@click.option("--max-bytes", "most", type=SIZE, default=None, help="About how much all files may take: 500M, 4G.")
@click.option("--seal", "to", metavar="KEY", default="", help="Encrypt for this x25519: key of headquarters.")
@DATA
@LANG
def export(file: Path, everything: bool, most: int | None, to: str, data: Path | None) -> None:
    """Write what headquarters does not have yet into FILE; where it is much, into FILE-2, FILE-3 … as well.

    The gateway may run. Nothing is removed from it before headquarters' answer has come back. The same file may be
    imported twice, or together with a link: nothing is stored twice.

    Exit code 0: written. 1: it could not be. 2: wrong usage.
    """
    from .sync.seal import parse_seal_key

    tr = phrases()
    try:
        seal = parse_seal_key(to) if to else None
    except ValueError as error:
        raise click.UsageError(f"--seal: {error}") from error
    written, is_all = asyncio.run(_export(file, data, seal, tr, everything=everything, most=most))
    for path, manifest in written:
        click.echo(tr("bundle_written", path, *_counts(manifest), mib(path.stat().st_size)))
    if not is_all:
        click.echo(tr("bundle_no_room" if not written else "bundle_rest"))
    elif not written:
        click.echo(tr("bundle_nothing"))
    if not written and not is_all:
        sys.exit(1)


@bundle.command("import", cls=Command, short_help="Take in a bundle at headquarters, or an answer at a gateway.")
@click.argument("file", type=FILE)
@click.option("--answer", type=FILE, default=None, help="Where to write the answer [default: FILE with -answer].")
@click.option("--key", "key_text", default="", help="Headquarters' ed25519: key, where no gateway runs that knows it.")
@DATA
@LANG
def import_(file: Path, answer: Path | None, key_text: str, data: Path | None) -> None:
    """Take in FILE: batches of a gateway at headquarters, whose cloud service must run, or an answer at its gateway.

    At headquarters an answer is written, to be taken back: with it the gateway knows what has arrived.

    Exit code 0: all of it was taken. 1: something was not. 2: wrong usage.
    """
    from .sync.bundle import ANSWER

    tr = phrases()
    kind = _kind(file)
    if kind == ANSWER:
        _say_taken(asyncio.run(_take_answer(file, data, key_text, tr)), tr)
        return
    result = asyncio.run(_send(file, data or Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0] or "."), tr))
    path = answer or file.with_name(f"{file.stem}-answer{file.suffix}")
    _write_answer(path, result)
    for stream in result["streams"]:
        click.echo(_stream_line(stream, tr))
    if (blobs := result["blobs"]) is not None:
        click.echo(tr("bundle_blobs_taken", blobs["new"], blobs["known"], blobs["refused"]) + _because(blobs, tr))
    click.echo(tr("bundle_answer", path))
    if any(part["problem"] for part in (*result["streams"], *([blobs] if blobs else []))):
        sys.exit(1)


@bundle.command("show", cls=Command, short_help="Show what a bundle holds, and whether it is whole.")
@click.argument("file", type=FILE)
@click.option("--key", "key_text", default="", help="Check that this ed25519: key signed it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@LANG
def show(file: Path, key_text: str, as_json: bool) -> None:
    """Show what FILE holds and check every byte of it. Without --key nobody looks who signed it.

    Exit code 0: it is whole. 1: it is not, or not signed by the key. 2: wrong usage.
    """
    tr = phrases()
    with _opened(file) as reader:
        if key_text:
            reader.verify(_keys(key_text))
        manifest = reader.manifest
        for packed in manifest.batches:
            reader.body(packed)
        for name in manifest.files:
            reader.check(name)
        signer = reader.key
    summary = _summary(manifest, signer)
    if as_json:
        click.echo(to_json(summary, indent=2))
        return
    click.echo(
        tr(
            "bundle_batches" if manifest.kind == "batches" else "bundle_answer_kind",
            manifest.gateway,
            summary["made"],
            signer,
        )
    )
    for run in summary["streams"]:
        click.echo(tr("bundle_run", tr(f"stream_{run['stream']}"), run["epoch"], run["first"], run["last"]))
    if manifest.blobs:
        click.echo(tr("bundle_blobs_run", len(manifest.blobs), mib(sum(manifest.blobs.values()))))
    for stream, known in manifest.cursors.items():
        for cursor in known:
            click.echo(tr("bundle_acked", f"{tr(f'stream_{stream}')} {cursor.epoch}", cursor.ack, cursor.durable))
    click.echo(tr("bundle_whole" if key_text else "bundle_whole_unknown"))


@bundle.command("key", cls=Command, short_help="Headquarters' keys: what gateways trust and seal for.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the cloud.")
@LANG
def key(data: Path) -> None:
    """Print headquarters' public keys: `public_key` of [cloud] in a site.toml, and KEY of `bundle export --seal`."""
    from .sync.keys import load_or_create_key, public_key_text
    from .sync.seal import load_or_create_seal_key, seal_key_text

    tr = phrases()
    data.mkdir(mode=0o750, parents=True, exist_ok=True)
    click.echo(f'public_key = "{public_key_text(load_or_create_key(data / "witness.key"))}"')
    click.echo(tr("bundle_seal_key", seal_key_text(load_or_create_seal_key(data / "seal.key").public_key())))


# --- out ---


async def _export(
    file: Path, data: Path | None, seal: Any, tr: Say, *, everything: bool, most: int | None
) -> tuple[list[tuple[Path, Manifest]], bool]:
    async with _gateway(data, tr, everything=everything) as (known, pour):
        return await write_files(file, known, pour, seal, tr, most)


@contextlib.asynccontextmanager
async def _gateway(data: Path | None, tr: Say, *, everything: bool) -> AsyncIterator[tuple[Mapping[str, int], Ask]]:
    """Where to begin, and what pours a bundle: of the gateway that runs, else of the stores in `data`."""
    place = _place(data, tr)
    if place is None:
        from .edge.bundling import stopped_gateway

        assert data is not None
        async with stopped_gateway(_stores(data), dict) as bundling:

            async def pour_here(since: Mapping[str, int], put: Put, blobs: int, left: int) -> None:
                await bundling.export(since, put, blobs_skip=blobs, max_bytes=left)

            yield await bundling.begin(everything=everything), pour_here
        return
    async with _session(place) as session:
        async with session.get("http://gateway/v1/bundle", params={"all": "1"} if everything else {}) as reply:
            since = (await _judged(reply, tr))["since"]

        async def pour(since: Mapping[str, int], put: Put, blobs: int, left: int) -> None:
            asked = {"since": dict(since), "blobs_skip": blobs, "max_bytes": left}
            async with session.post("http://gateway/v1/bundle", json=asked) as reply:
                if reply.status != 200:
                    await _judged(reply, tr)
                async for piece in reply.content.iter_any():
                    await put(piece)

        yield since, pour


def _place(data: Path | None, tr: Say) -> Path | None:
    """The socket of the gateway that runs; None when the folder that was named has none that runs."""
    from .console.gateways import the_gateway

    places = look(folders(data, None, os.environ))
    runs = any(place.found is Found.LIVE for place in places)
    if data is not None and not runs and _stores(data).joinpath("journal.db").is_file():
        return None
    return the_gateway(places, tr).data / SOCKET


def _stores(data: Path) -> Path:
    """The data folder itself, or the gateway's in a demo's."""
    return data / "edge" if not (data / "journal.db").exists() and (data / "edge" / "journal.db").exists() else data


@contextlib.asynccontextmanager
async def _session(path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_HOURS_S, sock_read=300)
    try:
        connector = aiohttp.UnixConnector(short(path))
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield session
    except aiohttp.ClientConnectorError as error:
        raise PermanentError(f"{path}: {error.strerror or error}", hint=phrases()("bundle_socket_hint")) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise TransientError(
            f"{path}: it broke off: {error or type(error).__name__}", hint="look at its log"
        ) from error


async def _judged(reply: aiohttp.ClientResponse, tr: Say) -> Any:
    """The JSON of an answer. Raises RefusedError with what the other side says."""
    fields = await reply.json(content_type=None)
    if reply.status == 200:
        return fields
    raise _refusal(fields.get("error", {}) if isinstance(fields, dict) else {}, tr)


def _refusal(error: Mapping[str, Any], tr: Say) -> RefusedError:
    """What the other side refused, in the chosen language where we know the reason."""
    reason, message = str(error.get("reason", "")), str(error.get("message", ""))
    known = f"bundle_refused_{reason}"
    if tr("lang") == "zh" and known in WORDS:
        return RefusedError(reason, tr(known))
    return RefusedError(reason, message or "no answer that makes sense", hint=str(error.get("hint", "")))


# --- in ---


async def _take_answer(file: Path, data: Path | None, key_text: str, tr: Say) -> dict[str, Any]:
    place = _place(data, tr)
    if place is not None and not key_text:
        async with _session(place) as session:
            with file.open("rb") as content:
                async with session.post("http://gateway/v1/bundle/answer", data=content) as reply:
                    return await _judged(reply, tr)
    from .edge.bundling import stopped_gateway

    if place is not None:
        raise click.UsageError(tr("bundle_key_running"))
    if not key_text:
        raise click.UsageError(tr("bundle_key_missing"))
    assert data is not None
    with _opened(file) as reader:
        async with stopped_gateway(_stores(data), lambda: _keys(key_text)) as bundling:
            return await bundling.take_answer(reader)


async def _send(file: Path, data: Path, tr: Say) -> dict[str, Any]:
    """To the cloud service that runs on this machine. Shows how far it is."""
    shows = sys.stderr.isatty()
    with file.open("rb") as content:
        async with (
            _session(data / CLOUD_SOCKET) as session,
            session.post("http://cloud/v1/bundles", data=content) as reply,
        ):
            if reply.status != 200:
                await _judged(reply, tr)
            last: dict[str, Any] = {}
            async for line in reply.content:
                last = json.loads(line)
                if shows and "done" in last:
                    click.echo(f"\r{tr('bundle_progress', last['done'], last['of'])}", nl=False, err=True)
            if shows:
                click.echo("\r\x1b[K", nl=False, err=True)
    if "error" in last:
        raise _refusal(last["error"], tr)
    return last


def _write_answer(path: Path, result: Mapping[str, Any]) -> None:
    import base64

    draft = path.with_name(f".{path.name}.part")
    with draft.open("wb") as file:
        file.write(base64.b64decode(result["answer"]))
        to_device(file)
    draft.replace(path)


def _stream_line(stream: Mapping[str, Any], tr: Say) -> str:
    name = f"{tr('stream_' + stream['stream'])} {stream['epoch']}"
    line = tr("bundle_taken", name, stream["new"], stream["known"], stream["ack"])
    if stream["quarantined"]:
        line += tr("bundle_quarantined", stream["quarantined"])
    return line + _because(stream, tr)


def _because(part: Mapping[str, Any], tr: Say) -> str:
    return f"{tr('colon')}{part['problem']}" if part["problem"] else ""


def _say_taken(result: Mapping[str, Any], tr: Say) -> None:
    """What an answer changed at its gateway."""
    for stream, cursor in result["streams"].items():
        click.echo(tr("bundle_acked", tr(f"stream_{stream}"), cursor["ack"], cursor["durable"]))
    if not result["streams"]:
        click.echo(tr("bundle_answer_empty"))
    if (blobs := result["blobs"]) is not None:
        click.echo(tr("bundle_blobs_arrived", blobs["arrived"], blobs["waiting"]))
    if (config := result["config"]) is not None:
        problems = "".join(f"{tr('colon')}{problem}" for problem in config["problems"][:1])
        click.echo(tr(f"bundle_config_{config['state']}", config["revision"]) + problems)


# --- what it holds ---


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BundleReader]:
    from .sync.bundle import BundleReader
    from .sync.seal import SEALED_BYTES, is_sealed

    try:
        with file.open("rb") as content:
            if is_sealed(content.read(SEALED_BYTES)):
                raise PermanentError(f"{file}: is sealed", hint=phrases()("bundle_sealed_hint"))
            content.seek(0)
            yield BundleReader(content)
    except OSError as error:
        raise PermanentError(f"{file}: cannot be read: {error.strerror}") from error


def _kind(file: Path) -> str:
    """What the file says that it is; a sealed one goes to headquarters."""
    from .sync.bundle import BATCHES
    from .sync.seal import SEALED_BYTES, is_sealed

    try:
        with file.open("rb") as content:
            if is_sealed(content.read(SEALED_BYTES)):
                return BATCHES
    except OSError as error:
        raise PermanentError(f"{file}: cannot be read: {error.strerror}") from error
    with _opened(file) as reader:
        return reader.manifest.kind


def _keys(text: str) -> dict[str, Any]:
    from .sync.keys import key_id, parse_public_key

    try:
        parsed = parse_public_key(text)
    except ValueError as error:
        raise click.UsageError(f"--key: {error}") from error
    return {key_id(parsed): parsed}


def _summary(manifest: Manifest, signer: str) -> dict[str, Any]:
    from .words import utc_text

    runs: dict[tuple[str, str], dict[str, Any]] = {}
    for packed in manifest.batches:
        fresh = {"stream": packed.stream, "epoch": packed.epoch, "first": packed.n, "last": packed.n, "bytes": 0}
        run = runs.setdefault((packed.stream, packed.epoch), fresh)
        run["last"], run["bytes"] = packed.n, run["bytes"] + packed.size
    return {
        "kind": manifest.kind,
        "gateway": manifest.gateway,
        "made": utc_text(manifest.made_ms),
        "key": signer,
        "streams": list(runs.values()),
        "cursors": {name: [cursor.to_json() for cursor in known] for name, known in manifest.cursors.items()},
        "files": sorted(manifest.files),
        "blobs": {"count": len(manifest.blobs), "bytes": sum(manifest.blobs.values())},
        "more": manifest.more,
    }


def _counts(manifest: Manifest) -> tuple[int, int, int]:
    """Batches of the journal, segments of the history, pieces of evidence."""
    journal = sum(packed.stream == "journal" for packed in manifest.batches)
    return journal, len(manifest.batches) - journal, len(manifest.blobs)
