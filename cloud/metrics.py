"""Headquarters' own `/metrics`: what docs/metrics.md lists, read from the store at each request."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..serving.metrics import Readers, Sheet, space_of
from ..words import mono_s
from .backups import Backups
from .config import CloudConfig
from .ingest import Contacts
from .metrics_store import MetricsStore

_STORES = ("cloud.db",)


def readers_of(config: CloudConfig) -> Readers:
    """Who may read, as cloud.toml says."""
    return Readers(networks=tuple(config.cloud.metrics_networks), token=config.metrics_token)


class CloudMetrics:
    """Writes headquarters' series on a sheet.

    Args:
        data: folder of the stores.
        refusals: reason to how many requests of gateways were refused for it.
        backups: of cloud.db.
        clock: UTC seconds.
    """

    def __init__(
        self,
        config: CloudConfig,
        store: MetricsStore,
        contacts: Contacts,
        data: Path,
        refusals: Mapping[str, int],
        backups: Backups | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._store, self._contacts, self._data = config, store, contacts, data
        self._refusals, self._clock, self._started_s = refusals, clock, mono_s()
        self._backups = backups

    async def fill(self, sheet: Sheet) -> None:
        sheet.gauge("sitewarden_info", "Always 1: the version.", 1, version=__version__)
        sheet.gauge("sitewarden_uptime_seconds", "Since the process started.", mono_s() - self._started_s)
        sheet.gauge("sitewarden_gateways", "Gateways that may send.", len(self._config.gateways))
        for reason, count in list(self._refusals.items()):
            sheet.counter("sitewarden_refused_total", "Requests of gateways that were refused.", count, reason=reason)
        newest_ms = self._backups.newest_ms if self._backups is not None else None
        age_s = None if newest_ms is None else max(0.0, self._clock() - newest_ms / 1000)
        sheet.gauge("sitewarden_backup_age_seconds", "Since the newest complete backup was begun.", age_s)
        self._silence(sheet)
        self._streams(sheet, await self._store.streams())
        quarantined = await self._store.quarantined()
        open_alarms = Counter(await self._store.open_alarms())
        for gateway in self._config.gateways:
            bad, text = quarantined.get(gateway.id, 0), "Batches and records that were kept apart."
            sheet.gauge("sitewarden_quarantined", text, bad, gateway=gateway.id)
        for (gateway, priority), count in sorted(open_alarms.items()):
            sheet.gauge("sitewarden_alarms", "Open alarms.", count, gateway=gateway, priority=priority)
        await asyncio.to_thread(self._space, sheet)

    def _silence(self, sheet: Sheet) -> None:
        for gateway in self._config.gateways:
            latest_ms = self._contacts.latest_ms(gateway.id)
            age_s = None if latest_ms is None else max(0.0, self._clock() - latest_ms / 1000)
            sheet.gauge("sitewarden_contact_age_seconds", "Since a gateway's last request.", age_s, gateway=gateway.id)

    def _streams(self, sheet: Sheet, rows: list[tuple[Any, ...]]) -> None:
        """Epochs are summed: a gateway that begins new ones must not make new series."""
        known = {gateway.id for gateway in self._config.gateways}
        for gateway, stream, acked, durable, epochs in rows:
            if gateway in known:
                labels = {"gateway": gateway, "stream": stream}
                sheet.gauge("sitewarden_acked_batches", "Batches that are kept, of all epochs.", acked, **labels)
                lag = acked - durable
                sheet.gauge("sitewarden_durable_lag_batches", "Of them not durable yet.", lag, **labels)
                sheet.gauge("sitewarden_epochs", "Epochs: a new one after each restore or clone.", epochs, **labels)

    def _space(self, sheet: Sheet) -> None:
        found = os.statvfs(self._data)
        used = found.f_blocks - found.f_bfree
        files = {name: path.stat().st_size for name in _STORES if (path := self._data / name).exists()}
        space_of(sheet, found.f_bavail * found.f_frsize, (used + found.f_bavail) * found.f_frsize, files)
