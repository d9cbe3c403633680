"""What became of one attempt, in both languages, and what it says of the channel. No text of it holds a secret."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from .port import ChannelHealth, Fault, Outcome, Sent

DETAIL_LIMIT = 200
_SAID_LEAST = 30
_VEIL = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One answer, judged.

    Attributes:
        zh, en: what it means and what to do about it.
        said: the receiver's own code and words, made by `said`.
        fault: of the channel; None when the answer says nothing about it.
        retry_s: as in `Sent`.
        hold_s: the channel sends nothing at all for so long.
        may_have_arrived: nobody knows; the next attempt may be the second copy.
        receiver_only: as in `Sent`.
    """

    outcome: Outcome
    zh: str = ""
    en: str = ""
    said: str = ""
    fault: Fault | None = None
    retry_s: float = 0.0
    hold_s: float = 0.0
    may_have_arrived: bool = False
    receiver_only: bool = False

    @property
    def detail(self) -> str:
        """`what the receiver said: 中文 / English`, at most `DETAIL_LIMIT` characters; its own words give way."""
        zh, en = self.zh, self.en
        if self.may_have_arrived:
            zh, en = f"{zh}；可能已送达", f"{en}; it may have arrived"
        words = f"{zh} / {en}" if zh else ""
        room = max(_SAID_LEAST, DETAIL_LIMIT - len(words) - 2)
        said = self.said if len(self.said) <= room else self.said[: room - 1] + "…"
        return ": ".join(part for part in (said, words) if part)[:DETAIL_LIMIT]

    def settle(self, health: ChannelHealth) -> Sent:
        """Note it in the channel's health; the answer for the outbox."""
        if self.outcome is Outcome.ACCEPTED:
            health.accepted += 1
        elif self.outcome is Outcome.DELIVERED:
            health.delivered += 1
        elif self.outcome is not Outcome.LATER:
            health.failed += 1
        if self.fault is not None:
            health.fault = self.fault
            health.detail = self.detail if self.fault else ""
            health.facts["zh"], health.facts["en"] = (self.zh, self.en) if self.fault else ("", "")
        uncertain = self.may_have_arrived and self.outcome is Outcome.FAILED
        return Sent(
            outcome=self.outcome,
            detail=self.detail,
            retry_s=self.retry_s,
            uncertain=uncertain,
            receiver_only=self.receiver_only,
        )


ACCEPTED = Verdict(outcome=Outcome.ACCEPTED, fault=Fault.NONE)


def later(wait_s: float) -> Verdict:
    """The budget is used up."""
    return Verdict(
        outcome=Outcome.LATER,
        zh=f"已达发送频率上限，{wait_s:.0f} 秒后再发",
        en=f"as many messages as allowed were sent; this one goes in {wait_s:.0f} s",
        retry_s=wait_s,
    )


def said(text: str, secrets: Iterable[str], limit: int = 120) -> str:
    """A foreign text for the log: one line, short, nothing in it that anyone could misuse."""
    line = " ".join("".join(char if char.isprintable() else " " for char in veil(text, secrets)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def veil(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, in whichever of the usual forms they stand in it."""
    forms = {form for secret in secrets if secret for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = re.sub(re.escape(form), _VEIL, text, flags=re.IGNORECASE)
    return text


def _forms(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode("utf-8", "replace")).decode()
    return {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), html.escape(secret), encoded}
