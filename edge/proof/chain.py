"""What a proof test goes through: the real parts, as the daemon gives them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...sync.journal import Draft, Journal, Record
from ...sync.link_state import UplinkHealth
from ...words import Instant, Reading, now
from ..alarms.rules import Rule
from ..alerts.opened import Open
from .plan import Part, Way
from .shadow import Notify

Witness = Callable[[int], Awaitable[bool | None]]
"""Whether a part of the chain has a record of this number by now; None: there is no such part."""


async def _nothing_said(_: str) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The real parts that a test goes through, and what it must know of its surroundings. Each is asked when needed.

    Attributes:
        journal: with `table.TABLE`.
        commit: commits drafts in order with everything else of the pipeline.
        notify: whom a draft of an alarm must reach; what the pipeline uses.
        holders: persons who hold a role for an area now, by the duty roster.
        rules: every alarm rule of a point that runs now; empty for an unknown point.
        reading: the newest reading that the pipeline took of a point.
        turned_s: when the pipeline's rules turned last, monotonic seconds.
        open_alarms: every open alarm of the site.
        permit_active: whether work under a permit is going on in or beside an area.
        in_flood: whether there is a flood of alarms.
        ways: channels by id, as they are open now.
        witnesses: for PAGE, MQTT and CLOUD; one that is missing is not there.
        said: by a delivery's key what its channel said last; late messages of a test make no record of their own.
        instant: the clock; tests give their own.
    """

    journal: Journal
    commit: Callable[[list[Draft]], Awaitable[list[Record]]]
    notify: Notify
    holders: Callable[[str, str], Collection[str]]
    rules: Callable[[str], Sequence[Rule]]
    reading: Callable[[str], Reading | None]
    turned_s: Callable[[], float]
    open_alarms: Callable[[], Iterable[Open]]
    permit_active: Callable[[str], bool]
    in_flood: Callable[[], bool]
    ways: Callable[[], Mapping[str, Way]]
    witnesses: Mapping[Part, Witness] = field(default_factory=dict[Part, Witness])
    said: Callable[[str], Awaitable[str]] = _nothing_said
    instant: Callable[[], Instant] = now


def headquarters(journal: Journal, health: UplinkHealth, is_used: Callable[[], bool]) -> Witness:
    """CLOUD: headquarters has acknowledged the record.

    Args:
        health: of the uplink, which counts what is not acknowledged whenever a record is committed.
        is_used: whether the site has a headquarters.
    """

    async def has(seq: int) -> bool | None:
        if not is_used():
            return None
        return health.state != "off" and journal.head()[0] - health.backlog_records >= seq

    return has
