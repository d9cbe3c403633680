"""What the services log: a line of text, or of JSON for whoever collects logs (`--log-format json`)."""

from __future__ import annotations

import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["text", "json"]
REQUEST: ContextVar[str] = ContextVar("request", default="")
"""Id of the HTTP request that is being answered, "" outside of one; goes back as X-Request-ID."""

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_SECRETS = re.compile(r"(?<=://)[^/@\s]+@|(?<=Bearer )\S+")


def scrub(text: str) -> str:
    """Without user and password of addresses, and without tokens: traces of libraries quote them."""
    return _SECRETS.sub(lambda found: "...@" if found[0].endswith("@") else "...", text)


class TextFormatter(logging.Formatter):
    """One line, and a trace where there is one."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))


def make_json_formatter() -> logging.Formatter:
    """`ts` (UTC), `level`, `logger`, `message`, `request` where there is one, `exc_info`, and what a call gives as
    `extra`: `gateway`, `device`, `bus`, `stream`, `reason`."""
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
            log_data |= {"ts": at.replace("+00:00", "Z"), "level": record.levelname, "logger": record.name}
            super().add_fields(log_data, record, message_dict)
            if request := REQUEST.get():
                log_data["request"] = request

        def format(self, record: logging.LogRecord) -> str:
            return scrub(super().format(record))

    return Formatter("%(message)s", json_ensure_ascii=False)


class _Handler(logging.StreamHandler[TextIO]):
    """Set by `log_as`."""


def log_as(form: LogFormat, stream: TextIO | None = None) -> None:
    """Everything that is logged from now on has this form, on standard error or `stream`."""
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler, _Handler)]
    if root.handlers and not ours:
        return  # whoever runs us in a process of his own has said where logs go
    for handler in ours:
        root.removeHandler(handler)
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(make_json_formatter() if form == "json" else TextFormatter())
    root.addHandler(handler)
