"""Addresses and files that site.toml names: whether they can be used, as far as that shows offline."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from .loopback import is_loopback
from .wording import show, show_url

_SECRET_QUERY = re.compile(r"(^|&)[^=]*(key|token|secret|sign)[^=]*=.", re.IGNORECASE)


def has_secret(url: str) -> bool:
    """Whether the query of an address looks as if whoever reads it may use it: robots of chat groups."""
    parts = split(url)
    return parts is not None and _SECRET_QUERY.search(parts.query) is not None


def check_file(folder: Path, path: str, name: str) -> Iterator[str]:
    """A file that site.toml names must be there and hold text."""
    if not name:
        return
    place = "a relative name starts in the folder of site.toml"
    try:
        empty = not (folder / name).read_text("utf-8").strip()
    except FileNotFoundError:
        yield f"{path}: file is missing; {place} {show(name)}"
    except OSError as error:
        yield f"{path}: file cannot be read: {error.strerror} {show(name)}"
    except ValueError:
        yield f"{path}: file must be UTF-8 text {show(name)}"
    else:
        if empty:
            yield f"{path}: file is empty {show(name)}"


def check_url(path: str, url: str, schemes: Sequence[str]) -> Iterator[str]:
    """An address with one of the schemes, a host, and no user or password in it."""
    parts = split(url)
    if parts is None or parts.scheme not in schemes:
        yield f"{path}: must be {' or '.join(f'{scheme}://host[:port]' for scheme in schemes)} {show_url(url)}"
    elif parts.password is not None:
        yield f"{path}: secrets never stand in site.toml: take the password out of the address"
    elif parts.username is not None:
        yield f"{path}: must not name a user before the @ {show_url(url)}"


def split(url: str) -> SplitResult | None:
    """The parts of an address that can be connected to, else None."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if not re.search(r"\s", url) and parts.port != 0 and not list(check_host("", parts.hostname or "")):
            return parts
    return None


def check_host(path: str, host: str) -> Iterator[str]:
    """A host name, or an IPv4 or IPv6 address."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return
    if not re.fullmatch(r"[\w-]([\w.-]*[\w-])?\.?", host):
        yield f"{path}: must be a name or an address, without http:// and port {show(host)}"
    elif re.fullmatch(r"[0-9.]+", host):
        yield f"{path}: must be an address such as 192.168.1.10, four numbers 0..255 {show(host)}"


def is_here(parts: SplitResult) -> bool:
    """Whether an address is on this machine: what travels there needs no encryption."""
    return is_loopback(parts.hostname or "")
