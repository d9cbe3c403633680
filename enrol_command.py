"""`sitewarden enrol` and `sitewarden key`, on the gateway: become known at headquarters, and change the key."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .asking import DATA, ask, checked
from .console.folders import data_folder
from .console.group import Command, Group
from .console.language import LANG, Say
from .console.words import phrases
from .errors import PermanentError, TransientError

if TYPE_CHECKING:
    from .sync.claim_file import ClaimFiles, Names, OpenClaim
    from .sync.cloud_client import CloudClient
    from .sync.key_ring import KeyRing

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
STORES = click.option("--data", type=FOLDER, default=None, help="Folder of the stores [default: $STATE_DIRECTORY].")
_POLL_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """Who asks whom."""

    names: Names
    url: str
    ca_file: str | None
    proxy: str


@click.command(cls=Command, short_help="Become known at headquarters, by a claim code.")
@click.option("--config", type=FILE, default=None, help="site.toml of this gateway.")
@click.option("--cloud", "url", metavar="URL", default="", help="Headquarters [default: url in site.toml].")
@click.option("--ca", type=FILE, default=None, help="Certificate authority of headquarters [default: site.toml's].")
@click.option("--gateway", metavar="ID", default="", help="Id of this gateway [default: site.toml's].")
@click.option("--file", "out", type=FILE, default=None, help="Write the request here, for a USB stick.")
@click.option("--answer", type=FILE, default=None, help="Headquarters' answer to such a file.")
@click.option("--new-key", is_flag=True, help="Put a new key in the place of a revoked one; the gateway is stopped.")
@STORES
@LANG
def enrol(
    config: Path | None,
    url: str,
    ca: Path | None,
    gateway: str,
    out: Path | None,
    answer: Path | None,
    new_key: bool,
    data: Path | None,
) -> None:
    """Ask headquarters to know this gateway, and show the code that its operator needs for that.

    The gateway may run: it shows the same code, and goes on by itself. The code is good for 15 minutes, once; then
    there is another one. With --file the request travels on a USB stick instead, and its answer comes back by --answer.

    Exit code 0: headquarters knows this gateway, or the file is written. 1: it does not. 2: wrong usage. 130: Ctrl-C.
    """
    from .sync.claim_file import ClaimFiles
    from .sync.key_ring import KeyRing

    tr = phrases()
    folder = data_folder(data)
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    if answer is not None:
        _apply(ClaimFiles(folder), answer, tr)
        return
    about = _about(config, url, ca, gateway, tr)
    if new_key:
        click.echo(tr("enrol_new_key", _replace_key(folder)))
    ring = KeyRing(folder)
    if out is not None:
        claim = ClaimFiles(folder).open_or_make(ring.key, about.names, by_file=True)
        out.write_text(json.dumps(claim.request.to_json(), indent=2) + "\n", "utf-8")
        _show(claim, "", tr)
        click.echo(tr("enrol_file", out))
        return
    if not about.url:
        raise PermanentError(tr("enrol_no_cloud"), hint=tr("enrol_no_cloud_hint"))
    asyncio.run(_enrol(ring, about, tr))


@click.group(cls=Group, short_help="The gateway's key: print it, or change it.", invoke_without_command=True)
@STORES
@click.pass_context
def key(context: click.Context, data: Path | None) -> None:
    """Print the public key of this gateway; makes the key pair on first use."""
    if context.invoked_subcommand is not None:
        return
    from .sync.keys import load_or_create_key, public_key_text

    folder = data_folder(data)
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    click.echo(public_key_text(load_or_create_key(folder / "gateway.key")))


@key.command("rotate", cls=Command, short_help="Sign with a new key from now on.")
@DATA
@LANG
def rotate(data: Path | None) -> None:
    """Let the running gateway make a new key, introduce it at headquarters by the old one, and sign with it.

    Nothing stops meanwhile, and the journal has a record of it. The old key is good for seven days more.

    Exit code 0: it signs with the new key. 1: it does not yet, or no gateway was reached. 2: wrong usage. 130: Ctrl-C.
    """
    tr = phrases()
    answer = checked(ask(data, "POST", "/v1/key/rotate", {}, tr)[1], tr)
    if answer["turned"]:
        click.echo(tr("key_turned", answer["kid"]))
        return
    problem = f"{tr('colon')}{answer['problem']}" if answer["problem"] else ""
    click.echo(tr("key_waits", problem), err=True)
    sys.exit(1)


def _about(config: Path | None, url: str, ca: Path | None, gateway: str, tr: Say) -> _About:
    from .sync.claim_file import Names

    if config is None:
        if not gateway:
            raise click.UsageError(tr("enrol_no_gateway"))
        return _About(names=Names(gateway=gateway, name=gateway), url=url, ca_file=str(ca) if ca else None, proxy="")
    from .edge.site import load_site

    site = load_site(config)
    cloud = site.cloud
    named = str(config.parent / cloud.ca_file) if cloud is not None and cloud.ca_file else None
    return _About(
        names=Names(gateway=gateway or site.gateway.id, name=site.site.name, name_en=site.site.name_en),
        url=url or (cloud.url if cloud is not None else ""),
        ca_file=str(ca) if ca else named,
        proxy=site.cloud_proxy,
    )


def _replace_key(folder: Path) -> Path:
    """Under the daemon's lock. The old key stays beside: it signed what lies in the journal."""
    from .edge.lock import only_one
    from .sync.key_ring import NEXT, OWN
    from .sync.keys import key_id, load_or_create_key

    with only_one(folder):
        kept = folder / f"{OWN}.{key_id(load_or_create_key(folder / OWN))}"
        (folder / OWN).replace(kept)
        (folder / NEXT).unlink(missing_ok=True)
        load_or_create_key(folder / OWN)
    return kept


def _apply(files: ClaimFiles, file: Path, tr: Say) -> None:
    claim = files.open(by_file=True)
    if claim is None:
        raise PermanentError(tr("enrol_no_claim"), hint=tr("enrol_no_claim_hint"))
    accepted = files.accept(claim, read_json_file(file, tr))
    click.echo(tr("enrol_approved", accepted.witness_key))


def read_json_file(file: Path, tr: Say) -> Any:
    """Raises PermanentError when it is no JSON."""
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise PermanentError(tr("not_json", file)) from error


async def _enrol(ring: KeyRing, about: _About, tr: Say) -> None:
    from .sync.claim_file import ClaimFiles
    from .sync.cloud_client import CloudClient, UplinkOptions
    from .sync.enrolling import STRANGER
    from .sync.keys import key_id
    from .sync.link_state import UplinkHealth
    from .sync.retrying import LinkError

    options = UplinkOptions(url=about.url, gateway=about.names.gateway, ca_file=about.ca_file, proxy=about.proxy)
    options.check()
    client = CloudClient(options, ring.key, UplinkHealth())
    async with client.session() as session:
        try:
            await _where(client, session)
        except LinkError as error:
            if error.reason in ("revoked", "key_ended"):
                raise PermanentError(tr("enrol_revoked"), hint=tr("enrol_revoked_hint")) from error
            if error.reason not in STRANGER:
                raise
        else:
            click.echo(tr("enrol_known", key_id(ring.key)))
            return
        files = ClaimFiles(ring.data)
        while await _claim(files, ring, about, client, session, tr):
            click.echo(tr("enrol_expired"))


async def _where(client: CloudClient, session: Any) -> None:
    """A clock that is wrong is put right by the first answer. Raises LinkError."""
    from .sync.retrying import LinkError

    try:
        await client.where(session)
    except LinkError as error:
        if error.reason != "clock":
            raise
        await client.where(session)


async def _claim(files: ClaimFiles, ring: KeyRing, about: _About, client: CloudClient, session: Any, tr: Say) -> bool:
    """One code, from showing it to its end; whether it expired."""
    from .sync import enrolling

    claim = files.open_or_make(ring.key, about.names)
    standing = await enrolling.ask(client, session, claim)
    if standing["state"] == "pending":
        _show(claim, about.url, tr)
    while standing["state"] == "pending":
        _progress(tr("enrol_waits", f"{standing['left_s'] // 60}:{standing['left_s'] % 60:02}"))
        await asyncio.sleep(_POLL_S)
        standing = await _looked(client, session, claim, standing)
    _progress("")
    state = standing["state"]
    if state == "approved":
        accepted = files.accept(claim, standing["answer"])
        click.echo(tr("enrol_approved", accepted.witness_key))
        return False
    files.drop(claim)
    if state == "known":
        click.echo(tr("enrol_known", claim.request.kid))
        return False
    if state == "refused":
        raise PermanentError(tr("enrol_refused"), hint=tr("enrol_refused_hint"))
    if state == "dropped":
        raise PermanentError(tr("enrol_dropped"), hint=tr("enrol_again_hint"))
    return True


async def _looked(client: CloudClient, session: Any, claim: OpenClaim, before: dict[str, Any]) -> dict[str, Any]:
    """How it stands; as before when headquarters is not reached for a moment."""
    from .sync import enrolling

    try:
        return await enrolling.look(client, session, claim)
    except TransientError:
        return {**before, "left_s": max(0, before["left_s"] - int(_POLL_S))}


def _show(claim: OpenClaim, url: str, tr: Say) -> None:
    import segno

    click.echo(tr("enrol_tell", claim.request.gateway, claim.code, claim.fingerprint))
    if url and sys.stdout.isatty():
        segno.make(page_link(url, claim)).terminal(compact=True)


def page_link(url: str, claim: OpenClaim) -> str:
    """Headquarters' page with the code filled in. Behind `#`, which no browser sends to the server."""
    return f"{url.rstrip('/')}/#enrol={claim.request.gateway}.{claim.request.id[:8]}.{claim.code}"


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)
