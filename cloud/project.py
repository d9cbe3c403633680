"""What the records of a gateway say about now: its open alarms, its name. Pure; the same records, the same answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..sync.columns import DamagedError
from ..sync.epoch_table import RESTORED
from ..sync.journal import Record
from .lineages import Begun

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochNow:
    """A new epoch of the journal, and what was open when it began."""

    begun: Begun
    alarms: tuple[AlarmNow, ...]


Change = AlarmNow | GatewayNow | EpochNow


def change_of(record: Record) -> Change | None:
    """What `record` changes in the present; None for a record that is only history.

    Every `alarm.*` record carries the whole alarm after its transition, so the newest one is enough. A `gateway.*`
    record with a `site` says what the site is called. The first record of an epoch says what was open.

    Raises:
        DamagedError: the record should change something, but its body cannot be used.
    """
    if record.kind.startswith("alarm."):
        return _alarm(record)
    if record.kind == RESTORED:
        return _epoch(record)
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
        elif isinstance(change, EpochNow):
            alarms = {alarm.id: alarm.alarm for alarm in change.alarms if alarm.open}
    return alarms


def _alarm(record: Record) -> AlarmNow:
    return _alarm_now(record, record.body.get("alarm"))


def _alarm_now(record: Record, alarm: Any) -> AlarmNow:
    if not isinstance(alarm, dict) or not isinstance(alarm.get("id"), str) or alarm.get("state") not in STATES:
        raise DamagedError(f"record {record.seq} ({record.kind}) holds no alarm with an id and a known state")
    return AlarmNow(id=alarm["id"], alarm=alarm)


def _epoch(record: Record) -> EpochNow:
    try:
        before, alarms = record.body["predecessor"], record.body.get("open_alarms", [])
        begun = Begun(
            predecessor=str(before["epoch"]),
            last=int(before["seq"]),
            reason=str(record.body["reason"]),
            at=str(record.at["utc"]),
        )
        return EpochNow(begun=begun, alarms=tuple(_alarm_now(record, alarm) for alarm in alarms))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"record {record.seq} ({record.kind}) does not say how its epoch began") from error


def _gateway(record: Record) -> GatewayNow:
    site = record.body["site"]
    names = ("id", "name", "name_en")
    if not isinstance(site, dict) or not all(isinstance(site.get(name), str) for name in names):
        raise DamagedError(f"record {record.seq} ({record.kind}) holds no site with id, name and name_en")
    return GatewayNow(site={name: site[name] for name in names}, version=str(record.body.get("version", "")))
