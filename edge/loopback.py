"""Whether a host is this machine itself. Pure; the daemon loads nothing of what checks site.toml."""

from __future__ import annotations

import contextlib
import ipaddress


def is_loopback(host: str) -> bool:
    """Of a name or an address; only `localhost` is a name of this machine."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
