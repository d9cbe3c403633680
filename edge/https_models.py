"""The shape of [https] in site.toml."""

from __future__ import annotations

from pydantic import Field

from .model_base import Port, Text, TextOrEmpty, TomlTable


class HttpsTable(TomlTable):
    """[https]: the pages for phones and other machines."""

    enabled: bool = False
    name: TextOrEmpty = ""
    host: Text = "0.0.0.0"  # noqa: S104
    port: Port = 8443
    addresses: list[Text] = Field(default_factory=list)
    mdns: bool = True
