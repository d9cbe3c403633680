"""What people and other machines see of the gateway: pages, control socket, alerts, headquarters.

It comes after the first polls: the libraries of web and cryptography take longer to load than everything before.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..serving.listen import Limits, serving
from ..serving.live import Hub
from ..serving.metrics import LoopLag, add_metrics
from ..serving.secrets import Secrets
from ..serving.web import add_pages, make_app
from ..sync.blob_stream import BlobStream
from ..sync.blobs import Blobs
from ..sync.checkpoints import Checkpoints
from ..sync.cloud_client import UplinkOptions
from ..sync.config_pull import ConfigPull
from ..sync.history import History
from ..sync.journal import Draft, Journal, Record
from ..sync.keys import key_id, load_or_create_key, parse_public_key
from ..sync.reserve import Reserve
from ..sync.snapshot import Snapshots
from ..sync.trends import Trends
from ..sync.uplink import run_uplink
from ..sync.witnessing import Witnessing
from ..words import Instant, now
from .alarms.table import open_alarms
from .alerts.outbox import Outbox
from .alerts.outbox import Parts as OutboxParts
from .alerts.outbox_queries import alarm_numbered
from .alerts.replies import Desk, Replies
from .baseline_files import Shelf
from .baseline_keeping import BaselineKeeper
from .bundling import Bundling
from .caps import cap_of
from .cases import CASES
from .control import SOCKET, Control
from .disk_keeping import DiskKeeper
from .loops import again
from .metrics import EdgeMetrics, readers_of
from .pages.api import Pages
from .pages.blob_api import BlobApi
from .pages.conformity_api import add_conformity
from .pages.parts import Parts
from .proving import make_proof
from .reloading import Reloader
from .running import Running, settings_of
from .site import Site
from .watching import Watching

DIST = Path(__file__).resolve().parent.parent / "web" / "dist"
SIGN_OFFS = ("deviation.closed",)
_PER_ADDRESS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """What the front stands on. `listening`: bound to the pages' address. `taken_back`: see `run_edge`."""

    data: Path
    history: History
    reserve: Reserve
    running: Running
    reloader: Reloader
    listening: socket.socket
    taken_back: bool = False


@asynccontextmanager
async def front(back: Back) -> AsyncIterator[None]:
    """Everything is reachable inside the block; loops that it needs run in `back.running.loops`.

    Raises:
        PermanentError: a key or secrets file cannot be used.
    """
    running, journal = back.running, back.running.journal
    current, loops, health = running.current, running.loops, running.health
    async with AsyncExitStack() as stack:
        key = await asyncio.to_thread(load_or_create_key, back.data / "gateway.key")
        secrets = Secrets(back.data / "secrets.db")
        stack.callback(secrets.close)
        outbox = Outbox(
            OutboxParts(
                journal=journal,
                channels=running.channels.live,
                compose=current.compose,
                ways=current.ways,
                health=health.outbox,
                settings=settings_of(current.site),
                answer=Replies(_desk(running)).take,
            )
        )
        running.ears.listener = running.outbox = outbox
        await stack.enter_async_context(running.channels)
        stack.push_async_callback(loops.stop, "outbox")  # before its channels go: it would look for other ways
        await running.sounding.start()
        running.proof = proof = make_proof(running)
        trends = await stack.enter_async_context(_trends(back))
        stack.push_async_callback(loops.stop, "trends")  # before its file is closed
        parts = Parts(
            site=current.site,
            journal=journal,
            history=back.history,
            trends=trends,
            data=back.data,
            acting=running.acting,
            silence=running.sounding.silence,
            values=running.values,
            hub=Hub(),
            status=running.status,
            outputs=running.outputs,
            reload=back.reloader.reload,
            proof=proof,
        )
        running.pages = pages = Pages(parts)
        app = make_app(current.people, secrets, cookie="sitewarden_edge")
        pages.add_to(app)
        blobs = await stack.enter_async_context(_blobs(back))
        disk = _disk_keeper(back)
        BlobApi(blobs, disk.check_room).add_to(app)
        keeper = _baseline_keeper(back)
        add_conformity(app, keeper.report)
        lag = LoopLag()
        metrics = EdgeMetrics(running, back.history, back.data)
        add_metrics(app, lambda: readers_of(current.site), [metrics.fill, lag.fill])
        add_pages(app, DIST, "control-room.html")
        await stack.enter_async_context(serving(app, limits=Limits(per_address=_PER_ADDRESS), sock=back.listening))
        control = Control(
            site=lambda: current.site,
            wires=running.wires,
            outputs=running.outputs,
            reload=back.reloader.reload,
            proof=proof,
            journal=journal,
            bundling=Bundling(journal, back.history, key, lambda: cloud_keys(current.site)),
        )
        await stack.enter_async_context(control.listening(back.data / SOCKET))
        Watching(running, back.data).start()
        loops.start("disk share", again("disk share", disk.run))
        loops.start("outbox", outbox.run, lambda: health.outbox.beat_s)
        loops.start("pages", pages.live)
        loops.start("lag", lag.run)
        loops.start("trends", again("trends", trends.run))
        loops.start("proof", again("proof", proof.run), lambda: proof.beat_s)

        checkpoints = Checkpoints(journal, key, health.evidence, at_once=_is_sign_off)
        loops.start("checkpoints", again("checkpoints", checkpoints.run))
        witnessing = Witnessing(checkpoints)
        await keeper.started(taken_back=back.taken_back)
        loops.start("baseline", again("baseline", keeper.run), lambda: keeper.beat_s)
        loops.start("blobs", again("blobs", blobs.run))
        evidence = BlobStream(blobs)
        pull = ConfigPull(current.site.gateway.id, keeper.have, keeper.take, keeper.report)

        snapshots = Snapshots(journal, lambda: _open_alarms(journal), lambda: _health(running, back.data))

        async def uplink(site: Site) -> None:
            options = _uplink_options(site)
            also = [snapshots.run, witnessing.run, pull.pull, pull.tell, evidence.run]
            await run_uplink(journal, back.history, key, options, health.uplink, also=also)

        running.reach_out(uplink)
        yield


def _trends(back: Back) -> Trends:
    running = back.running

    def tell(aside: Path) -> None:
        running.pipeline.record(
            [Draft(kind="history.damaged", at=now(), actor="gateway", body={"kept_as": aside.name})]
        )

    minutes_days = running.current.site.gateway.minutes_days
    return Trends(back.data / "trends.db", back.history, minutes_days=minutes_days, on_damage=tell)


def _blobs(back: Back) -> Blobs:
    running = back.running

    def tell(kind: str, body: dict[str, object]) -> None:
        running.pipeline.record([Draft(kind=kind, at=now(), actor="gateway", body=body)])

    max_bytes = running.current.site.gateway.blob_max_mb * 2**20
    return Blobs(back.data / "blobs", running.journal, rules=CASES, max_bytes=max_bytes, tell=tell)


async def _open_alarms(journal: Journal) -> list[dict[str, Any]]:
    return await journal.query(open_alarms)


def _health(running: Running, data: Path) -> dict[str, Any]:
    """What headquarters' list of gateways shows beside the alarms."""
    status = running.status()
    return {
        "version": status["version"],
        "clock": status["clock"],
        "backlog_records": status["link"]["backlog_records"],
        "backlog_segments": status["link"]["backlog_segments"],
        "broker": status["broker"]["state"],
        "silent": sum(unit["state"] != "ok" for bus in status["buses"] for unit in bus["units"]),
        "deliveries": status["deliveries"],
        "disk_free": shutil.disk_usage(data).free,
        "disk": (status["disk"] or {}).get("level", ""),
    }


def _disk_keeper(back: Back) -> DiskKeeper:
    running = back.running

    async def record(kind: str, body: dict[str, Any]) -> object:
        draft = Draft(kind=kind, at=now(), actor="gateway", body=body)
        return await running.pipeline.command(lambda _engine, _at: [draft])

    return DiskKeeper(
        back.data, back.history, back.reserve, lambda: running.current.site.disk, record, running.health.disk
    )


def _baseline_keeper(back: Back) -> BaselineKeeper:
    running, current = back.running, back.running.current

    async def record(draft: Draft) -> object:
        return await running.pipeline.command(lambda _engine, _at: [draft])

    def failing() -> set[str]:
        buses = running.health.buses.values()
        return {unit.device for bus in buses for unit in bus.units.values() if unit.state != "ok"}

    return BaselineKeeper(
        Shelf.of(back.data),
        current.site.gateway.id,
        site=lambda: current.site,
        reload=back.reloader.reload,
        record=record,
        trusted=lambda: cloud_keys(current.site),
        failing=failing,
        reading_of=running.values.get,
    )


def _desk(running: Running) -> Desk:
    """What persons who answer by SMS are judged by."""
    current, journal = running.current, running.journal

    async def acknowledge(alarm: str, occurrence: int, role: str, person: str) -> None:
        await running.acting.acknowledge(current.people[person], alarm, occurrence, role)

    def may_act(person: str, role: str, area: str, at: Instant) -> bool:
        return current.site.roster.may_act(person, role, area, at)

    def modem() -> str:
        return next((table.id for table in current.site.channels if table.kind == "sms"), "")

    return Desk(
        people=current.people,
        find=lambda number: journal.query(lambda connection: alarm_numbered(connection, number)),
        may_act=may_act,
        acknowledge=acknowledge,
        record=lambda draft: running.pipeline.command(lambda _engine, _at: [draft]),
        channel=modem,
        channels=running.channels.live,
    )


def cloud_keys(site: Site) -> dict[str, Ed25519PublicKey]:
    """Id to key of the headquarters that site.toml names; none when it names none."""
    text = site.cloud.public_key if site.cloud is not None else ""
    return {key_id(key := parse_public_key(text)): key} if text else {}


def _is_sign_off(record: Record) -> bool:
    """What somebody has put a name under is signed by the gateway at once."""
    return record.kind in SIGN_OFFS


def _uplink_options(site: Site) -> UplinkOptions:
    assert site.cloud is not None
    ca_file = str(site.path.parent / site.cloud.ca_file) if site.cloud.ca_file else None
    return UplinkOptions(
        url=site.cloud.url,
        gateway=site.gateway.id,
        ca_file=ca_file,
        proxy=site.cloud_proxy,
        cap=cap_of(site.cloud, site.site.timezone),
    )
