"""Where the gateway listens for its pages: the addresses, taken before anything starts."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ConfigError
from .site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Bound sockets. `secure`: for HTTPS; None without [https]."""

    plain: socket.socket
    secure: socket.socket | None = None


@contextlib.contextmanager
def open_doors(site: Site) -> Iterator[Doors]:
    """Bind them for the length of the block.

    Raises:
        ConfigError: an address cannot be used or listened on.
    """
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(_listening("web", site.web.host, site.web.port))
        if not site.https.enabled:
            yield Doors(plain=plain)
            return
        yield Doors(plain=plain, secure=stack.enter_context(_listening("https", site.https.host, site.https.port)))


@contextlib.contextmanager
def _listening(table: str, host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        taken = socket.socket(family, kind)
    except OSError as error:
        problem = f"{table}.host: cannot be used: {error.strerror}; this machine alone is 127.0.0.1 (got {host!r})"
        raise ConfigError("site.toml", [problem]) from error
    with taken:
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
            taken.listen(1)
        except OSError as error:
            problem = f"{table}.port: cannot listen on {host}:{port}: {error.strerror}; choose another port"
            raise ConfigError("site.toml", [problem]) from error
        yield taken
