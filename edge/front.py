"""What people and other machines see of the gateway: pages, control socket, alerts, headquarters.

It comes after the first polls: the libraries of web and cryptography take longer to load than everything before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..serving.contract import add_contract
from ..serving.listen import Limits, serving
from ..serving.live import Hub
from ..serving.metrics import LoopLag, add_metrics
from ..serving.secrets import Secrets
from ..serving.web import add_pages, make_app
from ..sync.blob_stream import BlobStream
from ..sync.blobs import Blobs
from ..sync.checkpoints import Checkpoints
from ..sync.claim_file import Names
from ..sync.claims import Answer
from ..sync.cloud_client import UplinkOptions
from ..sync.config_pull import ConfigPull
from ..sync.enrolling import Enrolling
from ..sync.history import History
from ..sync.journal import Draft, Journal, Record
from ..sync.key_ring import KeyRing, trusted
from ..sync.reserve import Reserve
from ..sync.rotating import Rotating, declare_key
from ..sync.rotations import ENROLLED
from ..sync.snapshot import Snapshots
from ..sync.trends import Trends
from ..sync.uplink import run_beside, run_uplink
from ..sync.witnessing import Witnessing
from ..words import Instant, now
from .alarms.table import open_alarms
from .alerts.outbox import Outbox
from .alerts.outbox import Parts as OutboxParts
from .alerts.outbox_queries import alarm_numbered
from .alerts.replies import Desk, Replies
from .baseline_files import Shelf
from .baseline_keeping import BaselineKeeper
from .bundle_cargo import take_order
from .bundling import Bundling
from .caps import cap_of
from .cases import CASES
from .control import SOCKET, Control
from .disk_keeping import DiskKeeper, refuse
from .doors import Doors
from .https import add_https
from .key_commands import KeyCommands
from .loops import again
from .metrics import EdgeMetrics, readers_of
from .own_word import own_word
from .pages.api import Pages
from .pages.blob_api import BlobApi
from .pages.conformity_api import add_conformity
from .pages.contract import CONTRACT
from .pages.parts import Parts
from .pages.plan_api import PlanApi
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
    """What the front stands on.

    Attributes:
        data: where the stores are: on the disk, or in memory while that takes nothing.
        disk: the data folder.
        doors: bound to the pages' addresses.
        taken_back: see `run_edge`.
    """

    data: Path
    disk: Path
    history: History
    reserve: Reserve
    running: Running
    reloader: Reloader
    doors: Doors
    taken_back: bool = False


@asynccontextmanager
async def front(back: Back) -> AsyncIterator[str]:
    """Everything is reachable inside the block; loops that it needs run in `back.running.loops`.

    Yields:
        The encrypted address of the pages; "" without [https].

    Raises:
        PermanentError: a key or secrets file cannot be used.
    """
    running, journal = back.running, back.running.journal
    current, loops, health = running.current, running.loops, running.health
    async with AsyncExitStack() as stack:
        ring = await asyncio.to_thread(KeyRing, back.data)
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
        disk, is_recorded = _disk_keeper(back), journal.not_recorded is None
        check_sign_off = disk.check_sign_off if is_recorded else refuse
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
            check_sign_off=check_sign_off,
        )
        running.pages = pages = Pages(parts)
        app = make_app(current.people, secrets, cookie="sitewarden_edge")
        pages.add_to(app)
        blobs = await stack.enter_async_context(_blobs(back))
        check_room = disk.check_room if is_recorded else refuse
        BlobApi(blobs, check_room).add_to(app)
        PlanApi(
            pages.now, blobs, lambda draft: running.pipeline.command(lambda _engine, _at: [draft]), check_room
        ).add_to(app)
        keeper = _baseline_keeper(back)
        add_conformity(app, keeper.report)
        lag = LoopLag()
        metrics = EdgeMetrics(running, back.history, back.data)
        add_metrics(app, lambda: readers_of(current.site), [metrics.fill, lag.fill])
        add_contract(app, CONTRACT)
        add_pages(app, DIST, "control-room.html")
        https = await add_https(app, current.site, back.disk, back.doors, loops)
        limits = Limits(per_address=_PER_ADDRESS)
        await stack.enter_async_context(serving(app, limits=limits, sock=back.doors.plain, secure=https and https.door))
        bundling = Bundling(
            journal, back.history, ring.key, lambda: cloud_keys(current.site, back.data), blobs, take_order(keeper)
        )
        checkpoints = Checkpoints(journal, ring.key, health.evidence, at_once=_is_sign_off)
        rotating = Rotating(ring, journal, (checkpoints.use, bundling.use))
        control = Control(
            site=lambda: current.site,
            wires=running.wires,
            outputs=running.outputs,
            reload=back.reloader.reload,
            proof=proof,
            journal=journal,
            bundling=bundling,
            keys=KeyCommands(rotating, lambda: current.site.is_linked, check_sign_off),
        )
        await stack.enter_async_context(control.listening(back.disk / SOCKET))
        Watching(running, back.disk, https and https.keeper).start()
        loops.start("outbox", outbox.run, lambda: health.outbox.beat_s)
        loops.start("pages", pages.live)
        loops.start("lag", lag.run)
        loops.start("trends", again("trends", trends.run))
        loops.start("proof", again("proof", proof.run), lambda: proof.beat_s)

        await keeper.started(taken_back=back.taken_back)
        loops.start("baseline", again("baseline", keeper.run), lambda: keeper.beat_s)
        snapshots = Snapshots(
            journal, lambda: _open_alarms(journal), lambda: own_word(running.status(), health.uplink, back.disk)
        )
        if not is_recorded:  # what is in memory is neither signed nor sent: its numbers are not the journal's
            running.reach_out(lambda site: run_beside(ring.key, _uplink_options(site), health.uplink, [snapshots.run]))
            yield https.address if https else ""
            return
        await declare_key(journal, ring)
        loops.start("checkpoints", again("checkpoints", checkpoints.run))
        loops.start("disk share", again("disk share", disk.run))
        loops.start("blobs", again("blobs", blobs.run))
        witnessing = Witnessing(checkpoints, trusted=lambda: cloud_keys(current.site, back.data))
        enrolling = Enrolling(ring, lambda: _names(current.site), lambda answer: _enrolled(journal, answer))
        evidence = BlobStream(blobs)
        pull = ConfigPull(current.site.gateway.id, keeper.have, keeper.take, keeper.report)

        async def uplink(site: Site) -> None:
            options = _uplink_options(site)
            also = [snapshots.run, witnessing.run, pull.pull, pull.tell, evidence.run]
            also += [enrolling.run, rotating.run]
            await run_uplink(journal, back.history, ring.key, options, health.uplink, also=also)

        running.reach_out(uplink)
        yield https.address if https else ""


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
        trusted=lambda: cloud_keys(current.site, back.data),
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


def cloud_keys(site: Site, data: Path) -> Mapping[str, Ed25519PublicKey]:
    """Id to key of the headquarters that site.toml names, else of the one that enrolled this gateway, else none."""
    return trusted(site.cloud.public_key if site.cloud is not None else "", data)


def _names(site: Site) -> Names:
    return Names(gateway=site.gateway.id, name=site.site.name, name_en=site.site.name_en)


async def _enrolled(journal: Journal, answer: Answer) -> None:
    body = {"kid": answer.kid, "witness_key": answer.witness_key}
    await journal.append([Draft(kind=ENROLLED, at=now(), actor="gateway", body=body)])


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
