"""HTTP proxies that site.toml names, for headquarters and for robots, and who may read the metrics."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .addresses import check_file, check_url, split
from .alerts.channel_tables import read_secret
from .wording import show, show_url


def proxy_address(table: Any, folder: Path) -> str:
    """`proxy` with user and password from its file, percent-encoded; "" when there is none. Raises ConfigError."""
    if table is None or not table.proxy:
        return ""
    if not table.proxy_login_file:
        return table.proxy
    user, _, password = read_secret(folder / table.proxy_login_file).partition(":")
    scheme, _, rest = table.proxy.partition("://")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def find_proxy_problems(path: str, table: Any, folder: Path) -> Iterator[str]:
    """Of `[cloud]` and `[alerts]`."""
    yield from check_file(folder, f"{path}.proxy_login_file", table.proxy_login_file or "")
    if table.proxy_login_file and not table.proxy:
        yield f"{path}.proxy: is required beside proxy_login_file: http://host:port"
    if not table.proxy:
        return
    yield from check_url(f"{path}.proxy", table.proxy, ("http",))
    parts = split(table.proxy)
    if parts and (parts.path not in ("", "/") or parts.query or parts.fragment):
        yield f"{path}.proxy: must end after the port {show_url(table.proxy)}"


def find_cap_problems(cloud: Any) -> Iterator[str]:
    """Of the hours in which `[cloud] max_kbit_s` holds."""
    for key, other in (("max_from", "max_to"), ("max_to", "max_from")):
        if getattr(cloud, key) and not getattr(cloud, other):
            yield f'cloud.{other}: is required beside {key}: a time of day such as "08:00"'
    if cloud.max_from and cloud.max_kbit_s is None:
        yield "cloud.max_kbit_s: is required beside max_from: a whole number"
    if cloud.max_from and cloud.max_from == cloud.max_to:
        yield f"cloud.max_to: must not be max_from; take both out when the cap holds always {show(cloud.max_to)}"


def find_metrics_problems(web: Any, folder: Path) -> Iterator[str]:
    """Of who may read `/metrics`."""
    yield from check_file(folder, "web.metrics_token_file", web.metrics_token_file or "")
    for i, network in enumerate(web.metrics_networks or ()):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield f"web.metrics_networks[{i}]: must be a network such as 192.168.1.0/24 {show(network)}"
