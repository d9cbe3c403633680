"""Which records belong to a case, and whether it is open: evidence of open cases goes to headquarters first.

Modules that have cases of their own (hazards, permits) add a rule here.
"""

from __future__ import annotations

from ..sync.blob_refs import Case, CaseRule
from ..sync.journal import Record


def _deviation(record: Record) -> Case | None:
    """A deviation report is open until its cause and measure are recorded."""
    report = record.body.get("id")
    return Case(id=report, is_open=record.body.get("closed") is None) if isinstance(report, str) else None


CASES = (CaseRule(kinds="deviation.", version=1, case_of=_deviation),)
