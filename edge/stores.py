"""The stores of a data folder, opened as every part of the gateway opens them: a copy of them begins a new epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..sync.history import History
from ..sync.identity import Identity, read_identity
from ..sync.journal import Journal
from .alarms.table import open_alarms
from .site import Site
from .state_tables import TABLES

# Readings in a segment: columns of a few values neither pack well nor fast, so a site with many points has longer ones.
_SEAL, _SEAL_EACH, _SEAL_MOST = 2_000, 40, 10_000

HISTORY_IN_MEMORY = 16 * 2**20
"""Bytes of the history while the disk takes nothing: charts of the last hours. It is not kept."""


def open_journal(data: Path, gateway: str, relief: Callable[[], bool] = lambda: False) -> Journal:
    """With its state tables. The first record of a new epoch carries the open alarms: headquarters sees it alone."""
    return _journal(data, gateway, relief, read_identity)


def open_in_memory(folder: Path, gateway: str) -> Journal:
    """As `MemoryHome` made it: it lies nowhere for good."""
    return _journal(folder, gateway, lambda: False, None)


def _journal(
    data: Path,
    gateway: str,
    relief: Callable[[], bool],
    where: Callable[[Path, str], Identity] | None,
) -> Journal:
    return Journal(
        data / "journal.db",
        gateway,
        TABLES,
        where=where,
        carried=lambda connection: {"open_alarms": open_alarms(connection)},
        relief=relief,
    )


def open_history(
    data: Path,
    gateway: str,
    site: Site | None = None,
    told: Callable[[Path], None] = lambda _: None,
    relief: Callable[[], bool] = lambda: False,
) -> History:
    """Args: site: whose settings hold; None: nothing is measured. told: of a file that was set aside. relief: asked for
    room when the disk is full."""
    if site is None:
        return History(data / "history.db", gateway, where=read_identity, on_damage=told)
    return History(
        data / "history.db",
        gateway,
        flush_s=site.gateway.flush_s,
        keep_days=site.gateway.keep_days,
        seal_readings=min(max(_SEAL, _SEAL_EACH * len(site.points)), _SEAL_MOST),
        on_damage=told,
        where=read_identity,
        relief=relief,
    )
