"""The gateway's `.local` name and its `_https._tcp` service in the local network (RFC 6762, 6763).

The only file that knows zeroconf. Nothing here ends the daemon: what fails is told once and tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import ifaddr
from zeroconf import AddressResolver, Error, IPVersion, ServiceInfo  # pyright: ignore[reportPrivateImportUsage]
from zeroconf.asyncio import AsyncZeroconf

from .names import Address, Names, private_address

_log = logging.getLogger(__name__)

KIND = "_https._tcp.local."
_LOOK_S = 15.0
_AGAIN_S = 60.0
_ASK_MS = 1500


class TakenError(Exception):
    """Another machine answers to the name."""


def own_addresses() -> tuple[Address, ...]:
    """Of this machine's interfaces, those in private networks."""
    found: set[Address] = set()
    for adapter in ifaddr.get_adapters():
        for one in adapter.ips:
            address = private_address(one.ip if isinstance(one.ip, str) else one.ip[0])
            if address is not None:
                found.add(address)
    return tuple(sorted(found, key=lambda address: (address.version, int(address))))


class Announcer:
    """Args: names: of the gateway. port: of its pages. look: gives the addresses that there are now."""

    def __init__(
        self,
        names: Names,
        port: int,
        *,
        look: Callable[[], tuple[Address, ...]] = own_addresses,
        interfaces: list[str] | None = None,
    ) -> None:
        self.state = ""
        self._names, self._port, self._look, self._interfaces = names, port, look, interfaces

    async def run(self) -> None:
        """For ever: announce, and again when the addresses change."""
        while True:
            pause_s = 0.0
            try:
                await self._announced(await asyncio.to_thread(self._addresses))
            except TakenError:
                self._tell(f"mdns: another machine answers to {self._names.host}: choose another [https] name")
                pause_s = _AGAIN_S
            except (OSError, Error) as error:
                self._tell(f"mdns: {self._names.host} is not announced: {error or type(error).__name__}")
                pause_s = _AGAIN_S
            await asyncio.sleep(pause_s)

    async def _announced(self, addresses: tuple[Address, ...]) -> None:
        """Returns when the addresses have changed."""
        if not addresses:
            self._tell("mdns: this machine has no address in a private network yet")
            await asyncio.sleep(_LOOK_S)
            return
        zeroconf = self._open()
        try:
            await self._check_free(zeroconf, addresses)
            await (await zeroconf.async_register_service(self._info(addresses)))
            self._tell(f"mdns: {self._names.host} is announced as {', '.join(map(str, addresses))}")
            while await asyncio.to_thread(self._addresses) == addresses:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
        finally:
            await zeroconf.async_close()

    def _open(self) -> AsyncZeroconf:
        if self._interfaces is not None:
            return AsyncZeroconf(interfaces=self._interfaces, ip_version=IPVersion.V4Only)
        return AsyncZeroconf(ip_version=IPVersion.V4Only)

    async def _check_free(self, zeroconf: AsyncZeroconf, own: tuple[Address, ...]) -> None:
        resolver = AddressResolver(f"{self._names.host}.")
        if await resolver.async_request(zeroconf.zeroconf, _ASK_MS):
            others = {str(one).partition("%")[0] for one in resolver.ip_addresses_by_version(IPVersion.All)}
            if others - {str(one) for one in own}:
                raise TakenError

    def _info(self, addresses: tuple[Address, ...]) -> ServiceInfo:
        label = self._names.host.partition(".")[0]
        return ServiceInfo(
            KIND,
            f"{label}.{KIND}",
            port=self._port,
            addresses=[one.packed for one in addresses],
            server=f"{self._names.host}.",
            properties={"path": "/"},
        )

    def _addresses(self) -> tuple[Address, ...]:
        """Those that site.toml names and the machine has; all where it names none, or has none of them."""
        there = self._look()
        return tuple(one for one in there if one in self._names.addresses) or there

    def _tell(self, what: str) -> None:
        if what != self.state:
            self.state = what
            _log.info("%s", what)
