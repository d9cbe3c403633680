"""Changes of this machine's own network: a cable, an address, a route. The kernel tells; nothing is polled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (linux/rtnetlink.h)."""
_SETTLE_S = 0.2
"""A cable that comes back is a burst of changes: address, route, neighbours."""


@contextlib.contextmanager
def watching(changed: Callable[[], None]) -> Iterator[bool]:
    """Call `changed` on the loop soon after the network changed; gives False where the kernel does not tell.

    That is so where netlink is forbidden (RestrictAddressFamilies=) and on systems other than Linux: then only the
    time of the next try is left.
    """
    loop = asyncio.get_running_loop()
    due: asyncio.TimerHandle | None = None
    try:
        listening = _listen()
    except (OSError, AttributeError) as error:
        log.info("changes of the network are not seen: %s", error)
        yield False
        return

    def tell() -> None:
        nonlocal due
        due = None
        changed()

    def heard() -> None:
        nonlocal due
        with contextlib.suppress(OSError):  # ENOBUFS: more changes than fit, which is a change as well
            while listening.recv(65536):
                pass
        if due is None:
            due = loop.call_later(_SETTLE_S, tell)

    loop.add_reader(listening, heard)
    try:
        yield True
    finally:
        loop.remove_reader(listening)
        if due is not None:
            due.cancel()
        listening.close()


def _listen() -> socket.socket:
    listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        listening.bind((0, _GROUPS))
    except OSError:
        listening.close()
        raise
    return listening
