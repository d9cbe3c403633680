"""The brokers that devices publish to: one supervised loop for each link."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..sensors.mqtt_ingest import LinkSpec, MqttDevice, MqttHealth, MqttLink, check_link
from .loops import Loops, again
from .site import Site

MakeLink = Callable[[LinkSpec, Sequence[MqttDevice], MqttHealth], MqttLink]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPlan:
    """A broker and the devices behind it."""

    spec: LinkSpec
    devices: tuple[MqttDevice, ...]


def links_of(site: Site) -> dict[str, LinkPlan]:
    """Every link that has a device, by id."""
    return {spec.id: LinkPlan(spec=spec, devices=devices) for spec, devices in site.mqtt_links}


def check_links(site: Site) -> None:
    """Raises ConfigError when a link of the site could not be made."""
    for plan in links_of(site).values():
        check_link(plan.spec, plan.devices)


@dataclass(slots=True)
class _Live:
    plan: LinkPlan
    health: MqttHealth
    link: MqttLink


class Links:
    """Starts, changes and stops links.

    Args:
        loops: each link is the loop `link-<id>`.
        make: a link that does not run yet.

    Attributes:
        health: by id of the link, of those that run.
    """

    def __init__(self, loops: Loops, make: MakeLink) -> None:
        self.health: dict[str, MqttHealth] = {}
        self._loops = loops
        self._make = make
        self._live: dict[str, _Live] = {}

    def start(self, plans: Mapping[str, LinkPlan]) -> None:
        """Run those that do not run yet."""
        for name, plan in plans.items():
            if name in self._live:
                continue
            health = MqttHealth.of(plan.devices, name)
            live = _Live(plan, health, self._make(plan.spec, plan.devices, health))
            self._live[name], self.health[name] = live, health
            self._loops.start(_loop(name), again(f"mqtt link {name}", lambda live=live: _own(live)))

    async def stop(self, names: Iterable[str]) -> None:
        """Leave these brokers; returns when the last link is closed, or is known to hang."""
        names = [name for name in names if name in self._live]
        for name in names:
            del self._live[name], self.health[name]
        await self._loops.stop(*map(_loop, names))

    def change(self, plans: Mapping[str, LinkPlan]) -> None:
        """Other devices behind the same brokers: those that stay the same go on as if nothing had happened."""
        for name, live in self._live.items():
            plan = plans.get(name)
            if plan is not None and plan != live.plan:
                live.plan = plan
                live.link.change(plan.devices)


async def _own(live: _Live) -> NoReturn:
    await live.link.run()


def _loop(name: str) -> str:
    return f"link-{name}"
