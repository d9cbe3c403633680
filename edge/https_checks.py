"""What [https] of site.toml says: the name, the addresses, the port. Offline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .addresses import check_host
from .tls.names import is_host, private_address
from .wording import show


def find_https_problems(table: Any) -> Iterator[str]:
    """Every problem of the table, each with its path. Args: table: a HttpsTable; keys that were broken are None."""
    if table.name and not is_host(table.name):
        what = "must be a DNS name in small letters with a dot, such as gw.local or gw.plant.example.com"
        yield f"https.name: {what} {show(table.name)}"
    if table.host is not None:
        yield from check_host("https.host", table.host)
    for i, address in enumerate(table.addresses or ()):
        if private_address(address) is None:
            what = "must be an address of this gateway in a private network, such as 192.168.1.10"
            yield f"https.addresses[{i}]: {what} {show(address)}"
