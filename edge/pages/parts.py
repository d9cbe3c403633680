"""What the handlers of the API stand on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...serving.live import Hub
from ...serving.people import Person
from ...sync.history import History
from ...sync.journal import Journal
from ...sync.trends import Trends
from ..acting import Acting
from ..outputs import Outputs
from ..proof.run import ProofTest
from ..reloading import Outcome
from ..site import Site
from ..values import Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the handlers stand on.

    Attributes:
        data: folder of the stores.
        silence: stops what sounds where a person answers for it; raises RefusedError where nothing does.
        check_sign_off: before somebody puts a name under something; raises RefusedError where it could not be kept.
        reload: gets who asked, and the actor of the record.
    """

    site: Site
    journal: Journal
    history: History
    trends: Trends
    data: Path
    acting: Acting
    silence: Callable[[Person], tuple[str, ...]]
    values: Values
    hub: Hub
    status: Callable[[], dict[str, Any]]
    outputs: Outputs
    reload: Callable[[str, str], Awaitable[Outcome]]
    proof: ProofTest
    check_sign_off: Callable[[], None] = lambda: None


Ask = Callable[[], Parts]
"""The parts as they are now: the site changes while the gateway runs."""
