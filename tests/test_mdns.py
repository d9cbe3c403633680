"""The `.local` name in a real exchange of multicast, on this machine's own interface alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_address

import pytest
from sitewarden.edge.tls import mdns
from sitewarden.edge.tls.mdns import KIND, Announcer
from sitewarden.edge.tls.names import Address, Names
from zeroconf import AddressResolver, IPVersion, ServiceInfo  # pyright: ignore[reportPrivateImportUsage]
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

HERE = ["127.0.0.1"]


@asynccontextmanager
async def neighbour() -> AsyncIterator[AsyncZeroconf]:
    """Another machine, as far as multicast knows; the test skips where none is heard, as in some containers."""
    try:
        other = AsyncZeroconf(interfaces=HERE, ip_version=IPVersion.V4Only)
    except OSError as error:
        pytest.skip(f"no multicast here: {error}")
    try:
        yield other
    finally:
        await other.async_close()


class Running:
    """An announcer whose addresses the test chooses."""

    def __init__(self, host: str, *addresses: str) -> None:
        self.addresses: tuple[Address, ...] = tuple(map(ip_address, addresses))
        names = Names(host=host, addresses=())
        self.announcer = Announcer(names, 8443, look=lambda: self.addresses, interfaces=HERE)
        self.task = asyncio.create_task(self.announcer.run())

    async def __aenter__(self) -> Running:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def resolved(other: AsyncZeroconf, host: str) -> list[str]:
    """What a machine that asks now is told; its own memory is left out of it."""
    other.zeroconf.cache.async_expire(2**40)
    resolver = AddressResolver(f"{host}.")
    await resolver.async_request(other.zeroconf, 1500)
    return sorted(str(one) for one in resolver.ip_addresses_by_version(IPVersion.V4Only))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "_LOOK_S", 0.05)
    monkeypatch.setattr(mdns, "_AGAIN_S", 0.05)


async def until_resolved(other: AsyncZeroconf, host: str, wanted: list[str]) -> None:
    found: list[str] = []
    for _ in range(30):
        found = await resolved(other, host)
        if found == wanted:
            return
    raise AssertionError(f"{host} is {found}, not {wanted}")


async def test_the_name_and_the_service_are_found() -> None:
    host = "sw-test-found.local"
    async with neighbour() as other, Running(host, "10.1.2.3", "192.168.7.7"):
        await until_resolved(other, host, ["10.1.2.3", "192.168.7.7"])
        info = AsyncServiceInfo(KIND, f"sw-test-found.{KIND}")
        assert await info.async_request(other.zeroconf, 10_000)
        assert (info.port, info.server) == (8443, f"{host}.")


async def test_another_address_is_announced_anew(eventually) -> None:
    host = "sw-test-moved.local"
    async with neighbour() as other, Running(host, "10.1.2.3") as gateway:
        await until_resolved(other, host, ["10.1.2.3"])
        gateway.addresses = ()
        await eventually(lambda: "no address" in gateway.announcer.state, "without a network it waits")
        gateway.addresses = (IPv4Address("10.9.9.9"),)
        await until_resolved(other, host, ["10.9.9.9"])


async def test_a_name_that_another_machine_has_is_left_to_it(eventually) -> None:
    host = "sw-test-taken.local"
    async with neighbour() as other:
        taken = ServiceInfo(
            KIND, f"sw-test-taken.{KIND}", port=1, addresses=[IPv4Address("10.5.5.5").packed], server=f"{host}."
        )
        await (await other.async_register_service(taken))
        async with Running(host, "10.1.2.3") as gateway:
            await eventually(lambda: "another machine answers" in gateway.announcer.state, "it is told")
            await (await other.async_unregister_service(taken))
            await eventually(
                lambda: "is announced as 10.1.2.3" in gateway.announcer.state, "free, so taken", bound_s=60
            )


async def test_what_fails_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch, eventually) -> None:
    host, tries = "sw-test-fails.local", 0

    def refuse(_: Announcer) -> AsyncZeroconf:
        nonlocal tries
        tries += 1
        raise OSError("no such device")

    monkeypatch.setattr(Announcer, "_open", refuse)
    async with Running(host, "10.1.2.3") as gateway:
        await eventually(lambda: tries > 2, "it is tried again")
        assert gateway.announcer.state == f"mdns: {host} is not announced: no such device"
        assert not gateway.task.done()
