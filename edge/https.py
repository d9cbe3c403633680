"""HTTPS of a running gateway: certificates, second door, what plain HTTP still gets, the name on the network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from ..serving.listen import Secure
from .doors import Doors
from .loopback import is_loopback
from .loops import Loops, again
from .site import Site
from .tls.door import add_hsts, address_of, guard_plain_http
from .tls.folder import TlsFolder
from .tls.install_api import InstallApi
from .tls.keeper import Keeper
from .tls.names import Names, default_host, private_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Https:
    """The encrypted door, who keeps its certificates, and what a browser is given as its address."""

    door: Secure
    keeper: Keeper
    address: str


def https_names(site: Site) -> Names:
    """The name and addresses that the certificate is for."""
    found = (private_address(address) for address in site.https.addresses)
    addresses = tuple(dict.fromkeys(one for one in found if one is not None))
    return Names(host=site.https.name or default_host(site.gateway.id), addresses=addresses)


def keeper_of(site: Site, data: Path) -> Keeper:
    """Args: data: the data folder on the disk."""
    return Keeper(TlsFolder(data), https_names(site), site.site.name_en or site.site.name)


def plain_address(site: Site) -> str:
    """Where /install is for a phone that trusts nothing yet: plain HTTP where [web] is open to it."""
    names = https_names(site)
    host = str(names.addresses[0]) if names.addresses else names.host
    if is_loopback(site.web.host):
        return address_of(host, site.https.port)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}/" if site.web.port == 80 else f"http://{shown}:{site.web.port}/"


async def add_https(app: web.Application, site: Site, data: Path, doors: Doors, loops: Loops) -> Https | None:
    """Make `app` ready for HTTPS; None without [https].

    Args:
        app: with all its routes; not started.
        data: the data folder on the disk.
        loops: run the renewal and the name.
    """
    if doors.secure is None:
        return None
    keeper = keeper_of(site, data)
    await asyncio.to_thread(keeper.look)
    names = keeper.names
    api = InstallApi(
        authority=lambda: keeper.authority,
        site=(site.site.name, site.site.name_en),
        plain=plain_address(site),
        secure=address_of(names.host, site.https.port),
    )
    api.add_to(app)
    app.middlewares.append(guard_plain_http(names, site.https.port))
    add_hsts(app, lambda: keeper.served is not None and keeper.served.is_public)
    loops.start("certificates", again("certificates", keeper.run))
    if site.https.mdns and names.host.endswith(".local"):
        from .tls.mdns import Announcer

        loops.start("mdns", again("mdns", Announcer(names, site.https.port).run))
    return Https(door=Secure(sock=doors.secure, context=keeper.context), keeper=keeper, address=api.secure)
