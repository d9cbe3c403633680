"""How the journal's evidence fares: what checkpoints and witness write, and pages show. Light: no cryptography."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from ..words import utc_text

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class EvidenceHealth:
    """Changed by the checkpoints' and the witness' tasks alone.

    Attributes:
        signed: number of the newest record under a checkpoint.
        witnessed: number of the newest record under a checkpoint that headquarters countersigned.
        witnessed_s: when it did, by its clock, in seconds since 1970; None before the first time.
        problem: why no checkpoint is signed any more, "" while they are.
        refused: what headquarters says to the newest checkpoint, as a word (`fork`, `unreachable`), "" when it agrees.
    """

    signed: int = 0
    witnessed: int = 0
    witnessed_s: int | None = None
    problem: str = ""
    refused: str = ""

    def cosigned(self, seq: int, time_s: int) -> None:
        """Headquarters countersigned, up to record `seq`."""
        self.witnessed, self.witnessed_s = seq, time_s
        if self.refused:
            log.warning("headquarters countersigns checkpoints again")
        self.refused = ""

    def refuse(self, reason: str, message: str) -> None:
        """It did not; logged when the reason changes."""
        if reason != self.refused:
            log.warning("no countersignature from headquarters: %s", message)
        self.refused = reason

    def to_json(self, head: int) -> dict[str, Any]:
        """Fields of the status page. `head`: number of the newest record."""
        return {
            "signed": self.signed,
            "witnessed": self.witnessed,
            "witnessed_at": utc_text(self.witnessed_s * 1000) if self.witnessed_s is not None else None,
            "unwitnessed": max(0, head - self.witnessed),
            "problem": self.problem,
            "refused": self.refused,
        }
