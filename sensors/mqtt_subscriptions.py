"""What a link listens to: its devices, the lanes of their messages, and the broker's list of subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .mqtt_lanes import Lanes, Listed
from .mqtt_link import Connection
from .mqtt_sources import check_devices
from .mqtt_words import MqttDevice, MqttHealth


class Subscriptions:
    """The devices behind a link, and what the broker sends for them.

    Args:
        health: of the link; its devices are kept in line with ours.

    Attributes:
        listed: the devices, by id.
        lanes: where their messages wait.
    """

    def __init__(self, health: MqttHealth) -> None:
        self.listed: dict[str, Listed] = {}
        self.lanes = Lanes(())
        self._health = health
        self._at_broker: set[str] = set()  # outlives a connection, as the session does
        self._asked: set[str] = set()  # on this connection
        self._refused: frozenset[str] = frozenset()

    def change(self, devices: Sequence[MqttDevice]) -> list[Listed]:
        """Listen to these devices. Those that stay as they are go on as if nothing had happened.

        Returns:
            Those that are new, or not as they were.

        Raises:
            ConfigError: a device cannot be used; nothing is changed.
        """
        check_devices(devices)
        before, listed = self.listed, dict[str, Listed]()
        for device in devices:
            old = before.get(device.device)
            listed[device.device] = old if old is not None and old.device == device else Listed.of(device, self._health)
        self.listed = listed
        for name, old in before.items():
            if listed.get(name) is not old:
                old.here = False
            if name not in listed:
                self._health.devices.pop(name, None)
        self.empty_lanes()
        return [one for name, one in listed.items() if before.get(name) is not one]

    def empty_lanes(self) -> None:
        """Nothing waits."""
        self.lanes = Lanes(self.listed.values())

    def begin(self) -> None:
        """A connection begins: nothing is asked for on it, or refused."""
        self._asked = set()
        self._refused = frozenset()

    def forgotten(self) -> None:
        """The broker's session is empty."""
        self._at_broker.clear()

    async def ask(self, connection: Connection, refused: Callable[[str], None]) -> None:
        """Bring the broker's list in line with ours.

        Args:
            connection: open, the same since `begin`.
            refused: called with each filter that the broker refuses.

        Raises:
            LinkLostError: the connection is lost, or the broker does not answer.
        """
        while True:
            wanted = self.lanes.filters(self._refused)
            new = [name for name in wanted if name not in self._asked]
            denied = frozenset(await connection.subscribe(new)) if new else frozenset[str]()
            self._asked |= set(new)
            self._at_broker |= set(new) - denied
            gone = self._at_broker - set(wanted)
            if gone:
                await connection.unsubscribe(sorted(gone))
                self._at_broker -= gone
                self._asked -= gone
            for name in sorted(denied):
                refused(name)
            self._refused |= denied
            if not new:
                return

    def told(self, connection: Connection) -> Iterator[Listed]:
        """Devices that have all of their subscriptions on this connection and have not heard of it; each once."""
        lacking = {id(one) for one in self.lanes.listeners(self._refused)}
        for one in self.listed.values():
            if id(one) not in lacking and one.told_by is not connection:
                one.told_by = connection
                yield one
