"""What a link to a broker and the interpreters of payloads tell each other. Pure values; no client in sight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..words import Instant, Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One message as it came.

    Attributes:
        retained: the broker had kept it; nobody knows how old it is.
        backlog: it was waiting at the broker while the link was down.
        at: when it came.
    """

    topic: str
    payload: bytes
    at: Instant
    retained: bool = False
    backlog: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message that a source wants published (a request for rebirth)."""

    topic: str
    payload: bytes
    qos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a message: readings, or why it was refused, and what must be published for it."""

    readings: tuple[Reading, ...] = ()
    reject: str = ""
    publish: tuple[Outgoing, ...] = ()


class Source(Protocol):
    """One device behind a broker: its topics in, readings out. Holds state, does no I/O, never raises on any payload."""

    def subscriptions(self) -> tuple[str, ...]:
        """Topic filters, wildcards allowed."""
        ...

    def take(self, arrival: Arrival) -> Taken:
        """Interpret one message of one of the filters."""
        ...

    def connected(self, at: Instant) -> Taken:
        """The link is up and the subscriptions are granted."""
        ...

    def lost(self, why: str, at: Instant) -> Taken:
        """The link is lost, or a filter was refused: every point is bad with `why`."""
        ...

    def tick(self, at: Instant) -> Taken:
        """About a second has passed."""
        ...
