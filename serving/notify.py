"""sd_notify: how a service tells systemd that it is ready, alive, or on its way out."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger(__name__)


class Notifier:
    """sd_notify: one datagram to `$NOTIFY_SOCKET`; silent when systemd did not start us."""

    def __init__(self, address: str | None = None) -> None:
        given = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + given[1:] if given.startswith("@") else given

    def tell(self, state: str) -> None:
        """Send `READY=1`, `WATCHDOG=1`, `STATUS=…` or `STOPPING=1`."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)
        except OSError as error:
            _log.warning("systemd does not listen: %s", error)


def watchdog_period_s() -> float:
    """Half of systemd's patience (`WATCHDOG_USEC`), seconds."""
    return int(os.environ.get("WATCHDOG_USEC", "20000000")) / 2_000_000
