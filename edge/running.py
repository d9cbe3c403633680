"""The site that runs, and how it becomes another one without stopping.

The order of `apply` keeps two promises: what stays the same is never touched, and from outside there is the old site
or the new one. Wires that go are closed first, because a new one may need their port; then everything that pages,
rules and channels know changes in one step of the loop, and its records are committed; then new wires are opened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..sync.journal import Draft, Journal
from ..sync.memory_journal import NotRecorded
from ..words import Instant, now
from .acting import Acting
from .alarms.engine import Engine
from .alerts.channels import Channels
from .alerts.digest import Batch
from .alerts.ears import Ears
from .alerts.message import Composer
from .alerts.port import Notice
from .alerts.recipients import Addressing, addressing_of, recipients
from .alerts.routing import ways
from .alerts.rows import Settings
from .dashboards import Broker, Dashboards
from .discovery import Discovery, discovery_of
from .ladders.alarms import plan_of
from .ladders.climb import Subject
from .ladders.plan import Plan
from .links import Links, links_of
from .loops import Loops, again
from .not_recorded import not_recorded_json
from .outputs import Outputs
from .pauses import spare_what_stays
from .pipeline import Pipeline
from .proving import schedule_of
from .reload import Changes, keep_fixed
from .site import Site
from .sounding import Sounding
from .status import Health
from .values import Values
from .wires import Wires

if TYPE_CHECKING:
    from ..serving.people import Person
    from .alerts.outbox import Outbox
    from .mqtt_commands import Commands
    from .pages.api import Pages
    from .proof.run import ProofTest


class Current:
    """The site that runs, for those who ask it each time.

    Args:
        site: at start.
        epoch: of the journal.
        not_recorded: since when nothing is recorded; None while everything is.

    Attributes:
        people: who may sign in; the same mapping for ever, changed in place.
    """

    def __init__(self, site: Site, epoch: str, not_recorded: NotRecorded | None = None) -> None:
        self.site, self.not_recorded = site, not_recorded
        self.people = dict(site.people)
        self._epoch = epoch
        self._addressing = self._address()

    def use(self, site: Site) -> None:
        """Another site runs from now on."""
        self.site = site
        self.people.clear()
        self.people.update(site.people)
        self._addressing = self._address()

    def compose(self, batch: Batch) -> Notice:
        """One message, with today's names."""
        site = self.site
        areas = {area.id: (area.name, area.name_en or area.name) for area in site.areas}
        has_modem = any(channel.kind == "sms" for channel in site.channels)
        return Composer(
            site=site.site.name,
            timezone=site.site.timezone,
            people=site.people,
            areas=areas,
            has_modem=has_modem,
            is_recorded=self.not_recorded is None,
        )(batch)

    def ways(self, facts: Mapping[str, Any], person: str) -> tuple[str, ...]:
        """A person's channels for a message, the best first."""
        known = self.people.get(person)
        if known is None:
            return ()
        about = facts.get("alarm") or facts.get("freeze") or (facts.get("ladder") or facts).get("subject") or {}
        roles = {facts["role"], *known.roles}  # of a group's message none is known
        return tuple(way.id for way in ways(self._addressing.order, known, roles, about.get("area", "")))

    def may_act(self, person: Person, role: str, area: str) -> bool:
        """Whether a person may act in a role there now; substitutes may while they substitute."""
        return self.site.roster.may_act(person.id, role, area, now())

    def plan_of(self, subject: Subject) -> Plan | None:
        """The ladder of an alarm that is raised now."""
        site = self.site
        return plan_of(subject, site.ladders, site.ladder_of, site.ladders[site.system_ladder])

    def notify(self, draft: Draft) -> list[dict[str, Any]]:
        """Whom a record must reach."""
        return recipients(draft.kind, draft.body, draft.at, self._addressing)

    def _address(self) -> Addressing:
        site = self.site
        return addressing_of(site, f"{site.site.id}/{site.gateway.id}/{self._epoch}")


@dataclass(slots=True, kw_only=True)
class Running:
    """Everything that a change of the site touches.

    Attributes:
        current: the site that runs.
        uplink: talks to headquarters until it is cancelled; None while the gateway is starting.
        pages, outbox, dashboards, commands, proof: None until there are some.
    """

    current: Current
    journal: Journal
    values: Values
    health: Health
    loops: Loops
    pipeline: Pipeline
    acting: Acting
    wires: Wires
    links: Links
    channels: Channels
    ears: Ears
    outputs: Outputs
    status: Callable[[], dict[str, Any]]
    uplink: Callable[[Site], Awaitable[Any]] | None = None
    pages: Pages | None = None
    outbox: Outbox | None = None
    dashboards: Dashboards | None = None
    commands: Commands | None = None
    proof: ProofTest | None = None
    sounding: Sounding = field(init=False)

    def __post_init__(self) -> None:
        self.sounding = Sounding(self.journal, self.channels.live)

    def start(self) -> None:
        """Start the buses and brokers that site.toml names."""
        for spec in self.current.site.buses:
            self.wires.start(spec)
        self._start_links()

    def reach_out(self, uplink: Callable[[Site], Awaitable[Any]]) -> None:
        """Talk to headquarters from now on, when site.toml asks for it."""
        self.uplink = uplink
        self._start_uplink()

    async def apply(self, new: Site, changes: Changes, applied: Draft) -> None:
        """Become `new`; returns when `applied` and what follows from it are committed.

        Args:
            new: checked; nothing in it can be refused any more.
            changes: `reload.diff` from the site that runs.
            applied: the record of the change.
        """
        new = keep_fixed(self.current.site, new)
        await self.wires.stop(changes.stopped)
        await self.links.stop(changes.links_stopped)
        await self.loops.stop(*(["dashboards"] if changes.broker else []), *(["uplink"] if changes.cloud else []))
        await self.channels.change(new.channels)
        self.sounding.tell()

        def switch(engine: Engine, instant: Instant) -> list[Draft]:
            return [applied, *self._renamed(new, changes), *self._switch(new, changes, engine, instant)]

        await self.pipeline.command(switch)
        specs = {spec.id: spec for spec in new.buses}
        for name in changes.started:
            self.wires.start(specs[name])
        self._start_links()
        if self.proof is not None:
            self.proof.use(schedule_of(new), new.site.timezone)
        if self.pages is not None:
            self.pages.tell_of_site()
        spare_what_stays()

    def _switch(self, new: Site, changes: Changes, engine: Engine, instant: Instant) -> list[Draft]:
        """One step of the loop: nobody sees half of it."""
        self.current.use(new)
        self.values.know(meta.point.id for meta in new.points)
        for spec in new.buses:
            if spec.id in changes.changed:
                self.wires.change(spec)
        self.links.change(links_of(new))
        self.outputs.change(new.outputs)
        if self.outbox is not None:
            self.outbox.use(settings_of(new))
        if self.pages is not None:
            self.pages.change(new)
        if self.dashboards is not None and new.mqtt is not None:
            self.dashboards.change(
                broker=broker_of(new), points=new.points, rules=new.rules, discovery=site_discovery(new)
            )
        return engine.change(new.rules, instant)

    def _renamed(self, new: Site, changes: Changes) -> list[Draft]:
        """Headquarters learns the site's name from records of the gateway."""
        draft = Draft(kind="gateway.renamed", at=now(), actor="gateway", body=site_names(new))
        return [draft] if changes.renamed else []

    def _start_links(self) -> None:
        """Everything that goes out to a broker or to headquarters, as far as it does not run."""
        site, loops = self.current.site, self.loops
        if site.mqtt is not None:
            self.dashboards = dashboards = self.dashboards or self._make_dashboards(broker_of(site))
            if "dashboards" not in loops:
                loops.start("dashboards", again("dashboards", dashboards.run))
        self.links.start(links_of(site))
        self._start_uplink()

    def _start_uplink(self) -> None:
        site, uplink = self.current.site, self.uplink
        if site.is_linked and uplink is not None and "uplink" not in self.loops:
            self.loops.start("uplink", again("uplink", lambda: uplink(site)))

    async def _answer(self, user: str, what: str, payload: bytes, retained: bool) -> dict[str, Any]:
        """A command over MQTT. Its libraries load with the first one."""
        if self.commands is None:
            from .mqtt_commands import Commands, Judge

            self.commands = Commands(Judge(), self.acting, self._person_of, self.sounding.silence)
        answer = await self.commands.answer(user, what, payload, retained=retained, now=now())
        mark = not_recorded_json(self.journal)
        return answer if mark is None else {**answer, "not_recorded": mark}

    def _person_of(self, user: str) -> Person | None:
        site = self.current.site
        return site.people.get(site.mqtt_users.get(user, ""))

    def _make_dashboards(self, broker: Broker) -> Dashboards:
        site = self.current.site
        return Dashboards(
            site=site.site.id,
            gateway=site.gateway.id,
            broker=broker,
            journal=self.journal,
            values=self.values,
            points=site.points,
            rules=site.rules,
            status=self.status,
            health=self.health.broker,
            answer=self._answer,
            discovery=site_discovery(site),
        )


def site_discovery(site: Site) -> Discovery:
    """What Home Assistant is told."""
    prefix = site.mqtt.home_assistant if site.mqtt is not None else ""
    return discovery_of(prefix, site.site.id, site.gateway.id, site.site.name, site.points, site.rules)


def broker_of(site: Site) -> Broker:
    """Where the dashboards' broker is. The site has an [mqtt] table."""
    mqtt, folder = site.mqtt, site.path.parent
    assert mqtt is not None
    return Broker(
        url=mqtt.url,
        username=mqtt.username,
        password=site.mqtt_password,
        version=mqtt.version,
        ca_file=str(folder / mqtt.ca_file) if mqtt.ca_file else "",
        cert_file=str(folder / mqtt.cert_file) if mqtt.cert_file else "",
        key_file=str(folder / mqtt.key_file) if mqtt.key_file else "",
    )


def settings_of(site: Site) -> Settings:
    """How messages are delivered."""
    return Settings(deadline_s=site.alerts.delivery_deadline_s, group_wait_s=site.group_wait_s)


def site_names(site: Site) -> dict[str, Any]:
    """What records of the gateway say of the site."""
    return {"site": {"id": site.site.id, "name": site.site.name, "name_en": site.site.name_en}}
