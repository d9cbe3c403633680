"""`sitewarden tls`: the certificates that the gateway's pages are served with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console.folders import data_folder
from .console.group import Command, Group
from .console.language import LANG, Say
from .console.words import phrases
from .errors import PermanentError

if TYPE_CHECKING:
    from .edge.site import Site
    from .edge.tls.keeper import Keeper

FILE = click.Path(path_type=Path, dir_okay=False)
CONFIG = click.option("--config", type=FILE, required=True, help="site.toml of this gateway.")
DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of the stores [default: $STATE_DIRECTORY].",
)
OUT = click.option("--out", type=FILE, default=None, help="Write it here [default: standard output].")


@click.group(cls=Group, short_help="Certificates of the pages: show, make, install.")
def tls() -> None:
    """The certificates that the gateway's pages are served with. A running gateway takes them up within seconds."""


@tls.command("show", cls=Command, short_help="Show what there is, and how long it is good.")
@CONFIG
@DATA
@LANG
def show(config: Path, data: Path | None) -> None:
    """Show the local CA, its leaf and the installed chain; changes nothing.

    Exit code 0: something can be served. 1: there is nothing yet, or it is damaged. 2: wrong usage.
    """
    from .edge.tls.authority import fingerprint, read_held
    from .edge.tls.folder import AUTHORITY, LEAF, PUBLIC

    tr = phrases()
    keeper, site = _open(config, data)
    click.echo(tr("tls_name", keeper.names.host, ", ".join(map(str, keeper.names.addresses)) or tr("none")))
    if not site.https.enabled:
        click.echo(tr("tls_off"))
    found = 0
    for name in (AUTHORITY, LEAF, PUBLIC):
        pem = keeper.folder.read(name)
        if pem is None:
            click.echo(tr("tls_missing", tr(f"tls_{name}")))
            continue
        found += name != AUTHORITY
        from cryptography import x509

        path = keeper.folder.path / name
        cert = x509.load_pem_x509_certificates(pem)[0] if name == PUBLIC else read_held(pem, str(path)).cert
        click.echo(tr("tls_cert", tr(f"tls_{name}"), f"{cert.not_valid_after_utc:%Y-%m-%d}", fingerprint(cert)))
    if not found:
        raise PermanentError(tr("tls_nothing"), hint=tr("tls_nothing_hint"))


@tls.command("make", cls=Command, short_help="Make the local CA and its leaf, where they are missing.")
@CONFIG
@DATA
@click.option("--new-ca", is_flag=True, help="Another CA: it must be installed on every phone again.")
@LANG
def make(config: Path, data: Path | None, new_ca: bool) -> None:
    """Make a CA that can sign for this gateway's name and addresses alone, and a leaf; keeps what is there.

    Exit code 0: both are there. 1: they cannot be made. 2: wrong usage.
    """
    from .edge.tls.issuing import issue

    tr = phrases()
    keeper, _ = _open(config, data)
    authority, leaf = issue(keeper, new_ca=new_ca)
    _tell_made(authority, leaf, tr)


@tls.command("renew", cls=Command, short_help="Make another leaf now.")
@CONFIG
@DATA
@LANG
def renew(config: Path, data: Path | None) -> None:
    """Make another leaf of the same CA; the gateway does so by itself when a third of its life is left.

    Exit code 0: it is made. 1: it is not. 2: wrong usage.
    """
    from .edge.tls.issuing import issue

    tr = phrases()
    keeper, _ = _open(config, data)
    authority, leaf = issue(keeper, new_leaf=True)
    _tell_made(authority, leaf, tr)


@tls.command("install", cls=Command, short_help="Install a public chain.")
@click.argument("chain", type=FILE)
@click.argument("key", type=FILE, required=False)
@CONFIG
@DATA
@LANG
def install(chain: Path, key: Path | None, config: Path, data: Path | None) -> None:
    """Check CHAIN, leaf first, and KEY, and serve the pages with them. Without KEY: that of `tls csr`.

    Exit code 0: it is installed. 1: it cannot be used. 2: wrong usage.
    """
    from .edge.tls.issuing import install_chain

    tr = phrases()
    keeper, _ = _open(config, data)
    cert = install_chain(keeper, chain, key)
    click.echo(tr("tls_installed", keeper.names.host, f"{cert.not_valid_after_utc:%Y-%m-%d}"))


@tls.command("csr", cls=Command, short_help="Print a signing request for a public certificate.")
@CONFIG
@DATA
@OUT
@LANG
def csr(config: Path, data: Path | None, out: Path | None) -> None:
    """Print a request for the gateway's name; its key stays in the data folder, for `tls install`.

    Exit code 0: it is there. 1: it is not. 2: wrong usage.
    """
    from .edge.tls.issuing import request

    keeper, _ = _open(config, data)
    _put(request(keeper).decode(), out, phrases())


@tls.command("sheet", cls=Command, short_help="Write the A4 sheet with QR codes and fingerprint.")
@CONFIG
@DATA
@OUT
@LANG
def sheet(config: Path, data: Path | None, out: Path | None) -> None:
    """Write a page (HTML, for a browser's printer) with QR codes and the CA's fingerprint, to post at the gateway.

    Exit code 0: it is written. 1: there is no local CA. 2: wrong usage.
    """
    from .edge.tls.issuing import printed

    keeper, site = _open(config, data)
    _put(printed(keeper, site), out, phrases())


def _open(config: Path, data: Path | None) -> tuple[Keeper, Site]:
    from .edge.https import keeper_of
    from .edge.site import load_site

    folder = data_folder(data)
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    site = load_site(config)
    return keeper_of(site, folder), site


def _tell_made(authority: object, leaf: object, tr: Say) -> None:
    from cryptography import x509

    from .edge.tls.authority import fingerprint

    for key, cert in (("tls_ca.pem", authority), ("tls_leaf.pem", leaf)):
        assert isinstance(cert, x509.Certificate)
        click.echo(tr("tls_cert", tr(key), f"{cert.not_valid_after_utc:%Y-%m-%d}", fingerprint(cert)))


def _put(text: str, out: Path | None, tr: Say) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, "utf-8")
    click.echo(tr("tls_written", out))
