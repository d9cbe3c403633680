"""Keeps everything that sounds or shines up to date with the open alarms, and silences it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from ..errors import RefusedError
from ..serving.people import Person
from ..sync.journal import Journal, Record
from .alarms.table import stored_alarms
from .alerts.opened import Open, opened

SILENCES = ("keeper", "officer", "control_room", "team_leader", "admin")
"""Roles that may silence what sounds in their areas. Silence is no acknowledgement."""


@runtime_checkable
class Shows(Protocol):
    """A siren, a stack light, a loudspeaker."""

    @property
    def settings(self) -> Any: ...

    def show(self, alarms: Iterable[Open]) -> None: ...

    def silence(self) -> tuple[str, ...]: ...


class Sounding:
    """Tells each channel that shows alarms what is open: at the start, after each commit, and when it is new.

    Args:
        journal: whose committed alarms are shown.
        channels: by id, as they are now; those that do not show anything are left alone.
    """

    def __init__(self, journal: Journal, channels: Mapping[str, object]) -> None:
        self._journal = journal
        self._channels = channels
        self._alarms: dict[str, Mapping[str, Any]] | None = None
        self._early: list[Record] = []
        journal.subscribe(self._committed)

    async def start(self) -> None:
        """Show what is open already."""
        self._alarms = dict(await self._journal.query(stored_alarms))
        self._take(self._early)
        self.tell()

    def tell(self) -> None:
        """A channel may be new: show it what is open."""
        if self._alarms is None:
            return
        alarms = opened(self._alarms.values())
        for channel in self._shown():
            channel.show(alarms)

    def silence(self, person: Person) -> tuple[str, ...]:
        """`person` silences what sounds in their areas.

        Returns:
            Ids of the alarms that are silenced by this.

        Raises:
            RefusedError: `not_your_role`, `nothing_sounds`.
        """
        if not set(SILENCES) & set(person.roles):
            needed = ", ".join(SILENCES)
            raise RefusedError("not_your_role", f"{person.id} is none of {needed}", hint="call a person who is")
        silenced = {name for channel in self._shown() if _near(person, channel) for name in channel.silence()}
        if not silenced:
            raise RefusedError("nothing_sounds", f"nothing sounds where {person.id} answers for it")
        return tuple(sorted(silenced))

    def _shown(self) -> list[Shows]:
        return [channel for channel in self._channels.values() if isinstance(channel, Shows)]

    def _committed(self, records: list[Record]) -> None:
        changed = [record for record in records if record.kind.startswith("alarm.")]
        if not changed:
            return
        if self._alarms is None:
            self._early += changed
            return
        self._take(changed)
        self.tell()

    def _take(self, records: Iterable[Record]) -> None:
        assert self._alarms is not None
        for record in records:
            alarm = record.body["alarm"]
            if alarm["state"] == "NORM":
                self._alarms.pop(alarm["id"], None)
            elif record.seq > self._alarms.get(alarm["id"], {}).get("rev", 0):
                self._alarms[alarm["id"]] = {**alarm, "rev": record.seq}
        self._early = []


def _near(person: Person, channel: Shows) -> bool:
    areas = channel.settings.areas
    return not areas or any(person.answers_for(area) for area in areas)
