"""Where the contract of headquarters' HTTP interface lies."""

from __future__ import annotations

from pathlib import Path

CONTRACT = Path(__file__).with_name("openapi.yaml")
