"""What docs/configuration.md says of MQTT, against the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

from sitewarden import sensors
from sitewarden.sensors import mqtt_delivery, sparkplug_payload
from sitewarden.sensors.mqtt_words import DUPLICATE, MAX_PAYLOAD_BYTES, Reject

SENSORS = Path(sensors.__file__).parent
TEXT = (SENSORS.parent / "docs" / "configuration.md").read_text("utf-8")
ROWS = dict(
    re.findall(
        r"^\| `(\w+)` \| ([^|]+) \|$", TEXT.split("### Messages that are refused")[1].split("\n## ")[0], re.MULTILINE
    )
)
WORDS = set(get_args(Reject)) - {""}


def test_every_reason_of_a_refusal_is_documented() -> None:
    assert set(ROWS) == WORDS


def test_every_reason_of_a_refusal_is_used() -> None:
    files = [file for file in SENSORS.glob("*.py") if file.name != "mqtt_words.py"]  # where they are declared
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    used = {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert not WORDS - used - {DUPLICATE}


def test_bounds_of_a_message() -> None:
    assert f"{MAX_PAYLOAD_BYTES // 1024} KiB" in ROWS["too_large"]
    assert f"{sparkplug_payload.MOST_METRICS:,} metrics" in ROWS["too_many_metrics"]
    assert f"{sparkplug_payload.MOST_NAME_BYTES // 1024} KiB" in ROWS["names_too_long"]


def test_times_of_a_broker_without_the_marker() -> None:
    """What it says of the session then is tried in test_mqtt_ingest.py."""
    text = " ".join(TEXT.split("let its user read and write `sw/v1/_/marker/#`.")[1].split("\n\n")[0].split())
    assert "keeps nothing for the gateway during the next hour" in text
    assert mqtt_delivery.RETRY_S == 3600
    assert f"for {mqtt_delivery.REFUSED_S:g} s at most where the marker is refused" in text
