"""What the tables of site.toml are made of: names, texts, numbers with bounds, and the strict table itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

NAME = r"^[a-z][a-z0-9_]*$"
LINE = r"^[^\x00-\x1f\x7f]*$"
VISIBLE = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"

Name = Annotated[str, StringConstraints(pattern=NAME, max_length=40)]
Label = Annotated[str, StringConstraints(pattern=VISIBLE, min_length=1, max_length=80)]
Text = Annotated[str, StringConstraints(pattern=VISIBLE, min_length=1, max_length=500)]
"""An address, a file, a topic, or the id of another entry: `checks.py` says whether it fits."""
TextOrEmpty = Annotated[str, StringConstraints(pattern=LINE, max_length=500)]
"""As `Text`, and "" where nothing is meant."""
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86400 * 7)]
Priority = Annotated[int, Field(ge=1, le=4)]


class TomlTable(BaseModel):
    """A TOML table: unknown keys and wrong types are errors; whole numbers are welcome where decimals are meant."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)
