"""Every state table of the gateway, in the order in which a record is applied to them."""

from __future__ import annotations

from ..sync.blob_refs import state_table
from .alarms import history_query
from .alarms import table as alarm_table
from .alerts import outbox_table
from .cases import CASES
from .dashboards import TABLE as MQTT_TABLE
from .ladders import alive, reports
from .ladders import table as ladder_table
from .outputs import TABLE as OUTPUT_TABLE
from .plan import table as plan_table
from .proof import table as proof_table

TABLES = (
    alarm_table.TABLE,
    history_query.TABLE,
    outbox_table.TABLE,
    ladder_table.TABLE,
    alive.TABLE,
    reports.TABLE,
    MQTT_TABLE,
    OUTPUT_TABLE,
    proof_table.TABLE,
    plan_table.TABLE,
    state_table(CASES),
)
