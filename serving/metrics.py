"""`/metrics` in Prometheus' text form, for edge and cloud: who may read it, and a sheet to write it on.

Nothing is counted here: each request reads the live counters that the parts keep anyway. The registry is our own, so
no library adds series of its own.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import web

from ..errors import RefusedError
from ..words import mono_s

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

PATH = "/metrics"
MOST_SERIES = 500
"""Of one name. A site with more points, devices or gateways has its other ones summed under `other`."""
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
_LAG_STEP_S, _LAG_WINDOW_S = 0.5, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Who may read: this machine always, beside it these networks, and whoever has the token."""

    networks: tuple[str, ...] = ()
    token: str = field(default="", repr=False)


def may_read(request: web.Request, readers: Readers) -> bool:
    """Names of points and sites are nobody else's business.

    A request that a proxy has passed on is not from this machine although it looks so: it needs the token.
    """
    given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
    if readers.token and hmac.compare_digest(given, f"Bearer {readers.token}".encode()):
        return True
    if any(name in request.headers for name in _FORWARDED):
        return False
    try:
        address = ipaddress.ip_address(request.remote or "")
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or any(address in ipaddress.ip_network(network) for network in readers.networks)


class Sheet:
    """One answer: series by name. A name has the same labels each time, and at most `MOST_SERIES` values of them."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, str, tuple[str, ...]]] = {}
        self._values: dict[str, dict[tuple[str, ...], float]] = {}

    def gauge(self, name: str, text: str, value: float | None, **labels: str) -> None:
        """What is so now. None is left out: what is not known is no number."""
        self._add("gauge", name, text, value, labels)

    def counter(self, name: str, text: str, value: float, **labels: str) -> None:
        """What only grows until the process ends; `name` ends with `_total`."""
        self._add("counter", name, text, value, labels)

    def collect(self) -> Iterator[Metric]:
        """For a registry."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, (kind, text, labels) in self._kinds.items():
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
            for values, value in self._values[name].items():
                family.add_metric(values, value)
            yield family

    def text(self) -> bytes:
        """The whole sheet in the text form."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def _add(self, kind: str, name: str, text: str, value: float | None, labels: dict[str, str]) -> None:
        if value is None:
            return
        self._kinds.setdefault(name, (kind, text, tuple(labels)))
        known, key = self._values.setdefault(name, {}), tuple(labels.values())
        if key not in known and len(known) >= MOST_SERIES:
            key = ("other",) * len(key)
        known[key] = known.get(key, 0.0) + value


Fill = Callable[[Sheet], Awaitable[None]]


def add_metrics(app: web.Application, readers: Callable[[], Readers], parts: Iterable[Fill]) -> None:
    """Serve `/metrics` to those who may read it. Args: readers: asked each time. parts: write on the sheet, in turn."""

    async def answer(request: web.Request) -> web.Response:
        if not may_read(request, readers()):
            hint = "read it on this machine, or with a token: docs/metrics.md"
            raise RefusedError("not_allowed", "metrics are not for everyone", hint=hint)
        sheet = Sheet()
        for fill in parts:
            await fill(sheet)
        body = await asyncio.to_thread(sheet.text)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app.router.add_get(PATH, answer)


class LoopLag:
    """How late the event loop comes to what is due: the worst of the last half to whole minute, in seconds."""

    def __init__(self, clock: Callable[[], float] = mono_s) -> None:
        self._clock = clock
        self._worst = [0.0, 0.0]
        self._since_s = clock()

    @property
    def worst_s(self) -> float:
        return max(self._worst)

    def note(self, lag_s: float) -> None:
        """The loop came so late."""
        if self._clock() - self._since_s >= _LAG_WINDOW_S:
            self._worst, self._since_s = [self._worst[1], 0.0], self._clock()
        self._worst[1] = max(self._worst[1], lag_s)

    async def run(self) -> NoReturn:
        """For ever."""
        while True:
            before_s = self._clock()
            await asyncio.sleep(_LAG_STEP_S)
            self.note(max(0.0, self._clock() - before_s - _LAG_STEP_S))

    async def fill(self, sheet: Sheet) -> None:
        sheet.gauge("sitewarden_loop_lag_seconds", "How late the event loop came, at worst in a minute.", self.worst_s)


def space_of(sheet: Sheet, free: int, usable: int, files: dict[str, Any]) -> None:
    """Room on the device of the data folder, and the size of each store."""
    sheet.gauge("sitewarden_disk_free_bytes", "Free space of the data folder's file system.", free)
    sheet.gauge("sitewarden_disk_usable_bytes", "Its size, as far as this service may use it.", usable)
    for name, size in files.items():
        sheet.gauge("sitewarden_store_bytes", "Size of a store.", size, store=name)
