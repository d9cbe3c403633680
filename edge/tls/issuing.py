"""What the `sitewarden tls` commands do to the files, each under the lock that the daemon takes too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ...errors import PermanentError
from .authority import Held, key_pem, make_authority, make_leaf, read_held, why_new_leaf
from .chain import Given, check_chain, make_request
from .folder import AUTHORITY, LEAF, PUBLIC, REQUEST
from .install_api import qr_svg
from .install_page import SYSTEMS, Shown, sheet
from .keeper import Keeper, utc_now

if TYPE_CHECKING:
    from ..site import Site


def issue(keeper: Keeper, *, new_ca: bool = False, new_leaf: bool = False) -> tuple[x509.Certificate, x509.Certificate]:
    """The local CA and its leaf; made where they are missing, due, or asked for. Raises PermanentError."""
    folder, now = keeper.folder, utc_now()
    with folder.locked():
        pem = None if new_ca else folder.read(AUTHORITY)
        if pem is None:
            authority = make_authority(keeper.names, keeper.label, now)
            folder.write(AUTHORITY, authority.to_pem())
        else:
            authority = read_held(pem, str(folder.path / AUTHORITY))
        held = None if new_ca or new_leaf else folder.read(LEAF)
        leaf = read_held(held, str(folder.path / LEAF)) if held is not None else None
        if leaf is None or why_new_leaf(leaf, authority, keeper.names, now):
            leaf = make_leaf(authority, keeper.names, now)
            folder.write(LEAF, leaf.to_pem())
    return authority.cert, leaf.cert


def install_chain(keeper: Keeper, chain: Path, key: Path | None) -> x509.Certificate:
    """Check two files and take them up; returns the leaf. Args: key: None: that of `request`. Raises PermanentError."""
    folder = keeper.folder
    own = folder.read(REQUEST) if key is None else _read(key)
    if own is None:
        raise PermanentError("there is no key: no request was made here", hint="name the file with the key as well")
    key_name = str(key if key is not None else folder.path / REQUEST)
    given = Given(chain=_read(chain), key=own, chain_name=str(chain), key_name=key_name)
    pem = check_chain(given, keeper.names.host, utc_now())
    with folder.locked():
        folder.write(PUBLIC, pem)
    return x509.load_pem_x509_certificates(pem)[0]


def request(keeper: Keeper) -> bytes:
    """A signing request; the same key each time, until its chain is installed and another one is wanted."""
    folder = keeper.folder
    with folder.locked():
        pem = folder.read(REQUEST)
        if pem is None:
            pem = key_pem(ec.generate_private_key(ec.SECP256R1()))
            folder.write(REQUEST, pem)
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise PermanentError(f"{folder.path / REQUEST}: is damaged", hint="remove it") from error
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return make_request(key, keeper.names.host)


def printed(keeper: Keeper, site: Site) -> str:
    """The sheet, as HTML. Raises PermanentError: there is no local CA."""
    from ..https import plain_address
    from .door import address_of

    pem = keeper.folder.read(AUTHORITY)
    if pem is None:
        raise PermanentError("there is no local CA yet", hint="make it: sitewarden tls make")
    held: Held = read_held(pem, str(keeper.folder.path / AUTHORITY))
    plain = plain_address(site)
    secure = address_of(keeper.names.host, site.https.port)
    shown = Shown(cert=held.cert, site=(site.site.name, site.site.name_en), plain=plain, secure=secure)
    codes = {system: qr_svg(f"{plain}install?os={system}") for system in SYSTEMS}
    return sheet(shown, codes, f"{utc_now():%Y-%m-%d}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PermanentError(f"{path}: cannot be read: {error.strerror}") from error
