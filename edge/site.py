"""The site as the daemon uses it: points, rules, buses, people. Built from a configuration without problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..sensors.buses import BusSpec
    from ..sensors.mqtt_words import LinkSpec, MqttDevice
    from ..serving.people import Person
    from .alarms.rules import Rule
    from .alerts.roster import Roster
    from .conformity import Standard
    from .https_models import HttpsTable
    from .ladders.plan import Plan
    from .metas import OutputMeta, PointMeta
    from .models import (
        AlertsTable,
        AreaTable,
        CloudTable,
        DiskTable,
        GatewayTable,
        MqttTable,
        ProofTable,
        SiteTable,
        WebTable,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything that was decided.

    Attributes:
        channels: with what their files hold (`alerts.channel_tables.complete`).
        roster: who answers for which role at what time.
        ladders: by id, the presets and those of the file.
        ladder_of: id of the ladder of each priority. system_ladder: that of the system's own alarms.
        group_wait_s: how long messages of each priority wait for others, in seconds.
        points: with area and limits, in the order of the file.
        rules: every alarm object.
        buses: with their units; a bus without a device is left out.
        mqtt_users: whom a user of the dashboards' broker stands for.
        mqtt_links: brokers of devices, and the devices behind each.
        outputs: what may be written.
        tables: every table of the file by its name, defaults filled in; a `[table]` that is not there has no entry.
            They are what `tables.plain` made of the models.
        mqtt_password: what `password_file` holds.
        cloud_proxy: address of the proxy to headquarters, with user and password.
        metrics_token: what `metrics_token_file` holds.
        warnings: what works but will hurt.
        revision: of site.toml and the baseline.
        standard: what headquarters' baseline asks of the site; None without one.
    """

    path: Path
    site: SiteTable
    gateway: GatewayTable
    web: WebTable
    https: HttpsTable
    disk: DiskTable
    mqtt: MqttTable | None
    cloud: CloudTable | None
    alerts: AlertsTable
    areas: tuple[AreaTable, ...]
    channels: tuple[Any, ...] = field(repr=False)
    people: Mapping[str, Person]
    points: tuple[PointMeta, ...]
    rules: tuple[Rule, ...]
    buses: tuple[BusSpec, ...]
    mqtt_devices: tuple[MqttDevice, ...]
    mqtt_users: Mapping[str, str]
    mqtt_links: tuple[tuple[LinkSpec, tuple[MqttDevice, ...]], ...]
    outputs: tuple[OutputMeta, ...]
    roster: Roster
    ladders: Mapping[str, Plan]
    ladder_of: Mapping[int, str]
    system_ladder: str
    group_wait_s: Mapping[int, float]
    tables: Mapping[str, tuple[Any, ...]]
    warnings: tuple[str, ...]
    revision: str
    mqtt_password: str = field(default="", repr=False)
    cloud_proxy: str = field(default="", repr=False)
    metrics_token: str = field(default="", repr=False)
    proof: ProofTable | None = None
    standard: Standard | None = None

    @property
    def is_linked(self) -> bool:
        """Whether there is a way to headquarters beside a USB stick."""
        return self.cloud is not None and bool(self.cloud.url)


def load_site(path: Path, data: Path | None = None, *, baseline: Path | None = None) -> Site:
    """Read and check site.toml, with everything that this takes loaded into this process (`site_reader` does not).

    Args:
        path: of the file; people.csv and the files it names lie beside it.
        data: of the daemon; a relative serial path starts there.
        baseline: a baseline.toml that is tried instead of what headquarters sent.

    Raises:
        ConfigError: with every problem.
    """
    from .site_building import build_site

    return build_site(path, data, baseline=baseline)
