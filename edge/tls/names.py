"""The one name of a gateway and its addresses, as [https] says."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the certificate is for.

    Attributes:
        host: the DNS name, lower-case.
        addresses: private ones, where no name is resolved.
    """

    host: str
    addresses: tuple[Address, ...] = ()


def default_host(gateway: str) -> str:
    """`<gateway>.local`; a name has no underscores."""
    return f"{gateway.replace('_', '-').strip('-')}.local"


def is_host(name: str) -> bool:
    """Whether it is a DNS name of two labels or more, which browsers accept."""
    return len(name) <= 253 and HOST.fullmatch(name) is not None and not name.rpartition(".")[2].isdigit()


def private_address(text: str) -> Address | None:
    """An address of a local network; None for everything else."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    usable = found.is_private and not (found.is_loopback or found.is_unspecified or found.is_multicast)
    return found if usable and not (isinstance(found, ipaddress.IPv6Address) and found.scope_id) else None
