"""Where channels are heard: they are made before whoever listens to them."""

from __future__ import annotations

from .port import Events


class Ears:
    """`Events` for a listener that comes later: before a channel is entered, which tells nothing until then."""

    def __init__(self) -> None:
        self.listener: Events | None = None

    def report(self, receipt: str, delivered: bool, detail: str) -> None:
        """The proof of an ACCEPTED message, or that there will be none."""
        if self.listener is not None:
            self.listener.report(receipt, delivered, detail)

    def reply(self, phone: str, text: str, sent_ms: int | None = None) -> None:
        """A person answered."""
        if self.listener is not None:
            self.listener.reply(phone, text, sent_ms)
