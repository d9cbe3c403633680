"""What the records of a gateway say about now: its open alarms, its name. Pure; the same records, the same answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..sync.columns import DamagedError
from ..sync.journal import Record

CLOSED = "NORM"
STATES = frozenset({"UNACK", "ACKED", "RTNUN", "LATU", "LATA", CLOSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmNow:
    """The newest state of one alarm; `alarm` is the whole object of the record."""

    id: str
    alarm: dict[str, Any]

    @property
    def open(self) -> bool:
        """Whether it belongs on the list."""
        return self.alarm["state"] != CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayNow:
    """What a gateway last said about itself."""

    site: dict[str, Any]
    version: str


Change = AlarmNow | GatewayNow


def change_of(record: Record) -> Change | None:
    """What `record` changes in the present; None for a record that is only history.

    Every `alarm.*` record carries the whole alarm after its transition, so the newest one is enough. A `gateway.*`
    record with a `site` says what the site is called.

    Raises:
        DamagedError: the record should change something, but its body cannot be used.
    """
    if record.kind.startswith("alarm."):
        return _alarm(record)
    if record.kind.startswith("gateway.") and "site" in record.body:
        return _gateway(record)
    return None


def open_alarms(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Alarm id to alarm, from the beginning of a journal."""
    alarms: dict[str, dict[str, Any]] = {}
    for record in records:
        try:
            change = change_of(record)
        except DamagedError:
            continue
        if isinstance(change, AlarmNow):
            alarms.pop(change.id, None)
            if change.open:
                alarms[change.id] = change.alarm
    return alarms


def _alarm(record: Record) -> AlarmNow:
    alarm = record.body.get("alarm")
    if not isinstance(alarm, dict) or not isinstance(alarm.get("id"), str) or alarm.get("state") not in STATES:
        raise DamagedError(f"record {record.seq} ({record.kind}) holds no alarm with an id and a known state")
    return AlarmNow(id=alarm["id"], alarm=alarm)


def _gateway(record: Record) -> GatewayNow:
    site = record.body["site"]
    names = ("id", "name", "name_en")
    if not isinstance(site, dict) or not all(isinstance(site.get(name), str) for name in names):
        raise DamagedError(f"record {record.seq} ({record.kind}) holds no site with id, name and name_en")
    return GatewayNow(site={name: site[name] for name in names}, version=str(record.body.get("version", "")))
