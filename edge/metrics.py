"""The gateway's own `/metrics`: what docs/metrics.md lists, read from the live counters at each request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from .. import __version__
from ..serving.metrics import Readers, Sheet, space_of
from ..sync.history import History
from ..words import ClockState, mono_s, now
from .alarms.table import stored_alarms
from .disk import look
from .running import Running
from .site import Site
from .status import Health, uptime_s

_STORES = ("journal.db", "history.db", "trends.db", "secrets.db")


def readers_of(site: Site) -> Readers:
    """Who may read, as site.toml says now."""
    return Readers(networks=tuple(site.web.metrics_networks), token=site.metrics_token)


class EdgeMetrics:
    """Writes the gateway's series on a sheet. Args: data: folder of the stores."""

    def __init__(self, running: Running, history: History, data: Path) -> None:
        self._running, self._history, self._data = running, history, data

    async def fill(self, sheet: Sheet) -> None:
        running, health, site = self._running, self._running.health, self._running.current.site
        instant = now()
        info = {"version": __version__, "site": site.site.id, "gateway": site.gateway.id}
        sheet.gauge("sitewarden_info", "Always 1: version and names.", 1, **info)
        sheet.gauge("sitewarden_uptime_seconds", "Since the process started.", uptime_s())
        sheet.gauge("sitewarden_clock_synced", "1 while the clock can be believed.", instant.clock is ClockState.SYNCED)
        sheet.counter("sitewarden_readings_total", "Readings taken in.", health.pipeline.readings)
        sheet.counter("sitewarden_records_total", "Records committed to the journal.", health.pipeline.records)
        sheet.gauge("sitewarden_journal_records", "Number of the newest record.", running.journal.head()[0])
        unrecorded = running.journal.not_recorded is not None
        sheet.gauge("sitewarden_not_recorded", "1 while the disk takes nothing: all is in memory alone.", unrecorded)
        damaged = "Times that a segment could not be read."
        sheet.counter("sitewarden_history_damaged_total", damaged, self._history.damaged_segments)
        uplink(sheet, health, site, instant.utc_ms)
        evidence(sheet, health, running.journal.head()[0], instant.utc_ms)
        alarms(sheet, await running.journal.query(stored_alarms))
        wires(sheet, health)
        told(sheet, running)
        for name, beat in running.loops.beats.items():
            age_s = max(0.0, mono_s() - beat())
            sheet.gauge("sitewarden_loop_beat_age_seconds", "Since a critical loop last turned.", age_s, loop=name)
        await asyncio.to_thread(self._space, sheet)

    def _space(self, sheet: Sheet) -> None:
        space = look(self._data)
        files = {name: path.stat().st_size for name in _STORES if (path := self._data / name).exists()}
        space_of(sheet, space.free_bytes, space.usable_bytes, files)


def uplink(sheet: Sheet, health: Health, site: Site, utc_ms: int) -> None:
    """The link to headquarters and what waits for it."""
    link = health.uplink
    sheet.gauge("sitewarden_uplink_configured", "1 when site.toml names a headquarters to send to.", site.is_linked)
    sheet.gauge("sitewarden_uplink_up", "1 while headquarters accepts the journal.", link.state == "up")
    rate = None if link.link_bytes_s is None else link.link_bytes_s * 8
    sheet.gauge("sitewarden_uplink_rate_bits_per_second", "Rate of the link as measured.", rate)
    sheet.counter("sitewarden_uplink_forks_total", "Times that headquarters knew other data than there is.", link.forks)
    sheet.gauge("sitewarden_uplink_machines", "How many send with this gateway's key.", link.machines)
    for name, stream in link.streams.items():
        oldest_ms = stream.oldest_ms if stream.oldest_ms is not None else utc_ms
        sheet.gauge("sitewarden_outbox_waiting", "Records, segments or blobs to send.", stream.waiting, stream=name)
        sheet.gauge("sitewarden_outbox_bytes", "About so many bytes, as they travel.", stream.bytes, stream=name)
        age_s = max(0.0, (utc_ms - oldest_ms) / 1000)
        sheet.gauge("sitewarden_outbox_oldest_seconds", "Age of the oldest that waits.", age_s, stream=name)
        sheet.gauge("sitewarden_outbox_acked_batch", "Newest batch that headquarters has.", stream.ack, stream=name)
        lag = stream.ack - stream.durable
        sheet.gauge("sitewarden_outbox_durable_lag_batches", "Batches it has and could lose.", lag, stream=name)
        sent = "Bytes that headquarters has acknowledged."
        sheet.counter("sitewarden_uplink_sent_bytes_total", sent, stream.total_bytes, stream=name)
    blobs = link.blobs
    sheet.gauge("sitewarden_blobs_waiting", "Pieces of evidence that headquarters does not have.", blobs.waiting)
    sheet.gauge("sitewarden_blobs_bytes", "What is left to send of them.", blobs.bytes)
    sheet.gauge("sitewarden_blobs_damaged", "Evidence that this disk has lost.", blobs.damaged)


def evidence(sheet: Sheet, health: Health, head: int, utc_ms: int) -> None:
    """How much of the journal a witness has seen."""
    found = health.evidence
    age_s = None if found.witnessed_s is None else max(0.0, utc_ms / 1000 - found.witnessed_s)
    sheet.gauge("sitewarden_witness_age_seconds", "Since headquarters last countersigned.", age_s)
    unwitnessed = max(0, head - found.witnessed)
    sheet.gauge("sitewarden_unwitnessed_records", "Records that no countersignature covers.", unwitnessed)


def alarms(sheet: Sheet, stored: Mapping[str, Mapping[str, object]]) -> None:
    """How many alarm objects are in each state, by priority: never by point, whose names are many."""
    counted = Counter((str(fields["priority"]), str(fields["state"])) for fields in stored.values())
    for (priority, state), count in sorted(counted.items()):
        sheet.gauge("sitewarden_alarms", "Alarms by state (ISA-18.2).", count, priority=priority, state=state)


def wires(sheet: Sheet, health: Health) -> None:
    """Buses and brokers of devices."""
    for bus in list(health.buses.values()):
        units = list(bus.units.values())
        sheet.gauge("sitewarden_bus_up", "1 while the port or socket is open.", bus.connected, bus=bus.id)
        for outcome in ("good", "bad", "skipped"):
            total = sum(getattr(unit, outcome) for unit in units)
            sheet.counter("sitewarden_bus_polls_total", "Polls by outcome.", total, bus=bus.id, outcome=outcome)
        for error in ("timeouts", "exceptions", "bad_frames"):
            total = sum(getattr(unit, error) for unit in units)
            sheet.counter("sitewarden_bus_errors_total", "Requests that failed.", total, bus=bus.id, error=error)
        faulty = sum(unit.state != "ok" for unit in units)
        sheet.gauge("sitewarden_bus_faulty_units", "Devices that do not answer.", faulty, bus=bus.id)
        sheet.counter("sitewarden_bus_reconnects_total", "Times it was opened again.", bus.reconnects, bus=bus.id)
    for link in list(health.links.values()):
        sheet.gauge("sitewarden_mqtt_up", "1 while a broker of devices is connected.", link.connected, broker=link.id)
        sheet.counter("sitewarden_mqtt_messages_total", "Messages of devices.", link.messages, broker=link.id)


def told(sheet: Sheet, running: Running) -> None:
    """Messages to people, and their channels."""
    outbox = running.health.outbox
    for state, count in (("pending", outbox.pending), ("failing", outbox.failing)):
        sheet.gauge("sitewarden_deliveries", "Messages that wait, and those past their deadline.", count, state=state)
    for name, channel in list(running.channels.live.items()):
        health = channel.health
        fault = "1 while a channel cannot send."
        sheet.gauge("sitewarden_channel_fault", fault, bool(health.fault.value), channel=name)
        for outcome in ("accepted", "delivered", "failed"):
            total, text = getattr(health, outcome), "Messages by outcome."
            sheet.counter("sitewarden_channel_messages_total", text, total, channel=name, outcome=outcome)
