"""The error tree: what went wrong, where, and what a person should do next."""

from __future__ import annotations


class SitewardenError(Exception):
    """Base of every error that this project raises on purpose.

    Args:
        message: what happened, naming the device, file, line or field.
        hint: what the person should do next; empty when nothing can be said.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(SitewardenError):
    """A configuration that cannot be used. `problems` lists every one, each `path: what (got value)`."""

    def __init__(self, source: str, problems: list[str]) -> None:
        super().__init__(f"{source}: {len(problems)} problem(s)\n" + "\n".join(f"  {p}" for p in problems))
        self.source = source
        self.problems = problems


class TransientError(SitewardenError):
    """May pass by itself: a timeout, a lost link, a busy peer. Retried by whoever owns the resource."""


class PermanentError(SitewardenError):
    """Will not pass by itself: a refused command, a wrong profile, a damaged file."""


class RefusedError(PermanentError):
    """A command that a rule refuses.

    Args:
        reason: a stable machine-readable word for pages and tests.
        message, hint: as in every error.
        retry_s: seconds after which the same command may be accepted; 0 when time does not help.
    """

    def __init__(self, reason: str, message: str, *, hint: str = "", retry_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.retry_s = retry_s
