"""What a changed configuration changes, in words and for those who must act. Pure.

Words name neither secrets (addresses of robots, passwords) nor what belongs to a person's privacy (names, phones): they
become a record, which goes to headquarters and is never erased.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..sensors.buses import BusSpec, UnitSpec
from .alarms.rules import Rule
from .alerts.channel_tables import SECRETS
from .links import links_of
from .site import Site
from .tables import SINGLE, Table, changed

NEEDS_RESTART: Mapping[str, tuple[str, ...]] = {
    "site": ("id",),
    "gateway": ("id", "flush_s", "keep_days", "minutes_days", "blob_max_mb"),
    "web": ("host", "port"),
    "https": ("enabled", "name", "host", "port", "addresses", "mdns"),
    "disk": ("reserve_mb",),
}
"""Keys that are read once, when the daemon starts: topics, stores and the door hang on them."""
_SECRET = {("channel", "url")}
_PRIVATE = ("name", "name_en", "phone", "email")
_OF_A_PERSON = ("role", "shift", "from")
_ORDER = (
    *("area", "bus", "device", "broker", "mqtt_device", "mqtt_user", "alarm", "suppress", "channel"),
    *("ladder", "shift", "duty", "absence", "quiet"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many of a kind came, went, are different, and go on as they were."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    untouched: int = 0


NOTHING = Count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The way from one site to another.

    Attributes:
        lines: every change in words; empty when only comments, or nothing at all, are different.
        needs_restart: keys whose new value counts from the next start on; the site goes on with the old one.
        stopped: buses that are gone, or on another wire now. started: that are new, or on another wire now.
        changed: buses on the same wire with other units or times. Every bus in none of the three is left alone.
        broker: where the dashboards' broker is, or how to sign in there.
        links_stopped: brokers of devices that are gone, or are reached in another way now.
        cloud: where headquarters is.
        renamed: the site has another name.
        revision: the file has other bytes.
        devices: `changed` are also those whose wire or broker is another one, which are interrupted.
        rules: of the alarms.
    """

    lines: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    links_stopped: tuple[str, ...] = ()
    broker: bool = False
    cloud: bool = False
    renamed: bool = False
    revision: bool = False
    devices: Count = NOTHING
    rules: Count = NOTHING

    def __bool__(self) -> bool:
        """Whether there is anything to apply or to record. Nothing is applied that has no words."""
        return bool(self.lines) or self.revision


def diff(old: Site, new: Site) -> Changes:
    """What must change so that `old`, which runs, becomes `new`."""
    before, after = {bus.id: bus for bus in old.buses}, {bus.id: bus for bus in new.buses}
    both = before.keys() & after.keys()
    rewired = {name for name in both if not after[name].same_wire(before[name])}
    links, links_now = links_of(old), links_of(new)
    kept = keep_fixed(old, new)
    return Changes(
        lines=tuple(_lines(old, kept)),
        needs_restart=tuple(_fixed(old, new)),
        stopped=tuple(name for name in before if name in rewired or name not in after),
        started=tuple(name for name in after if name in rewired or name not in before),
        changed=tuple(name for name in after if name in both - rewired and after[name] != before[name]),
        broker=old.mqtt != new.mqtt or old.mqtt_password != new.mqtt_password,
        links_stopped=tuple(n for n, plan in links.items() if n not in links_now or links_now[n].spec != plan.spec),
        cloud=old.cloud != new.cloud or old.cloud_proxy != new.cloud_proxy,
        renamed=(old.site.name, old.site.name_en) != (new.site.name, new.site.name_en),
        revision=old.revision != new.revision,
        devices=_count(_devices(old), _devices(kept)),
        rules=_count(_rules(old), _rules(kept)),
    )


def _count(old: Mapping[str, object], new: Mapping[str, object]) -> Count:
    both = old.keys() & new.keys()
    changed = sum(old[name] != new[name] for name in both)
    added, removed = len(new.keys() - both), len(old.keys() - both)
    return Count(added=added, removed=removed, changed=changed, untouched=len(both) - changed)


def _devices(site: Site) -> dict[str, object]:
    """Every device with everything that its readings hang on."""
    wired = {unit.device: (unit, replace(bus, units=())) for bus in site.buses for unit in bus.units}
    brokers = {device.device: (device, link) for link, devices in site.mqtt_links for device in devices}
    tables = {f"{table.area}.{table.id}": table for name in ("device", "mqtt_device") for table in site.tables[name]}
    return {name: (table, wired.get(name), brokers.get(name)) for name, table in tables.items()}


def _rules(site: Site) -> dict[str, Rule]:
    return {rule.id: replace(rule, revision="") for rule in site.rules}


def keep_fixed(old: Site, new: Site) -> Site:
    """`new`, with those keys as in `old` that a running gateway cannot change."""
    kept = {}
    for name, keys in NEEDS_RESTART.items():
        running = getattr(old, name)
        kept[name] = changed(getattr(new, name), {key: getattr(running, key) for key in keys})
    tables = {**new.tables, **{name: (table,) for name, table in kept.items()}}
    return replace(new, tables=tables, **kept)


def _fixed(old: Site, new: Site) -> Iterator[str]:
    for name, keys in NEEDS_RESTART.items():
        for key in keys:
            if getattr(getattr(old, name), key) != getattr(getattr(new, name), key):
                yield f"{name}.{key}"


# --- words ---


def _lines(old: Site, new: Site) -> Iterator[str]:
    found = [*_tables(old, new), *_hidden(old, new), *_people(old, new)]
    yield from found
    if not found and _meaning(old) != _meaning(new):
        yield "profiles: what the devices measure was changed"


def _meaning(site: Site) -> tuple[object, ...]:
    """What the site does, whatever the order and the comments of the file."""
    return (
        {meta.point.id: meta for meta in site.points},
        _rules(site),
        {bus.id: replace(bus, units=()) for bus in site.buses},
        _units(site.buses),
        {device.device: device for device in site.mqtt_devices},
    )


def _tables(old: Site, new: Site) -> Iterator[str]:
    for name in SINGLE:
        yield from _single(name, old.tables.get(name, ()), new.tables.get(name, ()))
    others = [name for name in new.tables if name not in SINGLE]
    for name in sorted(others, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)):
        yield from _repeated(name, old.tables.get(name, ()), new.tables.get(name, ()))


def _single(name: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[str]:
    if len(old) != len(new):
        yield f"[{name}]: {'added' if new else 'removed'}"
        return
    for before, after in zip(old, new, strict=True):
        yield from (f"{name}.{text}" for text in _fields(name, before, after))


def _repeated(name: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[str]:
    before, after = {_key(entry): entry for entry in old}, {_key(entry): entry for entry in new}
    for key, entry in before.items():
        label = f"{name} {_label(entry)}"
        if key not in after:
            yield f"{label}: removed"
        elif entry != after[key]:
            yield from (f"{label}: {text}" for text in _fields(name, entry, after[key]))
    for key, entry in after.items():
        if key not in before:
            yield f"{name} {_label(entry)}: added"


def _fields(table: str, old: Table, new: Table) -> Iterator[str]:
    for key, after in vars(new).items():
        before: Any = getattr(old, key, None)
        if before == after:
            continue
        if _is_tables(before) and _is_tables(after):
            yield from _repeated(key, before, after)
        elif (table, key) in _SECRET:
            yield f"{key} changed"
        else:
            yield f"{key} {_show(before)} -> {_show(after)}"


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, Table) and _key(entry) for entry in value)


def _key(entry: Any) -> str:
    """What makes an entry the same one in both files."""
    if hasattr(entry, "person"):  # of the roster: one person may have several
        return " ".join(filter(None, (entry.person, *(getattr(entry, key, "") for key in _OF_A_PERSON))))
    return next((getattr(entry, key) for key in ("id", "point", "name") if hasattr(entry, key)), "")


def _label(entry: Any) -> str:
    area = getattr(entry, "area", "")
    return f"{area}.{_key(entry)}" if area else _key(entry)


def _show(value: Any) -> str:
    match value:
        case None | "" | [] | ():
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.10g}"
        case list() | tuple():
            return ", ".join(map(_show, value))
        case dict():
            return "{" + ", ".join(f"{key} = {_show(inner)}" for key, inner in value.items()) + "}"
        case Table():
            fields = {key: inner for key, inner in vars(value).items() if inner is not None}
            if fields.keys() == {"limit"}:
                return _show(fields["limit"])
            return "{" + ", ".join(f"{key} = {_show(inner)}" for key, inner in fields.items()) + "}"
        case _:
            return str(value)


def _hidden(old: Site, new: Site) -> Iterator[str]:
    """What the tables do not show: files that they name, and profiles."""
    if old.mqtt_password != new.mqtt_password and old.mqtt == new.mqtt:
        yield "mqtt.password_file: holds another password"
    if old.cloud_proxy != new.cloud_proxy and old.cloud == new.cloud:
        yield "cloud.proxy_login_file: holds another user or password"
    if old.metrics_token != new.metrics_token and old.web == new.web:
        yield "web.metrics_token_file: holds another token"
    brokers = {table.id: table for table in old.tables.get("broker", ())}
    links, links_now = links_of(old), links_of(new)
    for table in new.tables.get("broker", ()):
        known = table.id in links and table.id in links_now and table == brokers.get(table.id)
        if known and links[table.id].spec != links_now[table.id].spec:
            yield f"broker {table.id}: password_file holds another password"
    tables = {table.id: table for table in old.tables.get("channel", ())}
    before = {channel.id: channel for channel in old.channels}
    for table, channel in zip(new.tables.get("channel", ()), new.channels, strict=True):
        if table == tables.get(table.id):
            yield from _other_files(before[table.id], channel)
    yield from _profiles(old, new)


def _other_files(old: Any, new: Any) -> Iterator[str]:
    """What the files of a channel hold now."""
    for key, value in SECRETS.items():
        if getattr(old, value, "") != getattr(new, value, ""):
            yield f"channel {new.id}: {key} holds another {'address' if value == 'url' else value}"


def _profiles(old: Site, new: Site) -> Iterator[str]:
    tables = {table.id: table for table in old.tables["device"]}
    before, after = _units(old.buses), _units(new.buses)
    for table in new.tables["device"]:
        device = f"{table.area}.{table.id}"
        if tables.get(table.id) == table and before.get(device) != after.get(device):
            yield f"device {device}: profile {table.profile} was changed"


def _units(buses: Sequence[BusSpec]) -> dict[str, UnitSpec]:
    return {unit.device: unit for bus in buses for unit in bus.units}


def _people(old: Site, new: Site) -> Iterator[str]:
    for name, person in old.people.items():
        after = new.people.get(name)
        if after is None:
            yield f"person {name}: removed"
        elif after != person:
            yield from _person(name, asdict(person), asdict(after))
    for name in new.people:
        if name not in old.people:
            yield f"person {name}: added"


def _person(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key, value in new.items():
        if old[key] != value:
            yield (
                f"person {name}: {key} changed"
                if key in _PRIVATE
                else (f"person {name}: {key} {_show(old[key])} -> {_show(value)}")
            )
