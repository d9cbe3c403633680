"""The gateway's open request to be enrolled, on its disk: daemon and command show one code, also after a restart."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..errors import RefusedError
from .claims import FILE_DIGITS, LINK_DIGITS, Answer, Request, fingerprint, make_code, make_request
from .columns import DamagedError
from .key_ring import pin, write_file
from .keys import public_key_text
from .wire import bytes_from_text, bytes_text

BY_LINK, BY_FILE = "enrolment.json", "enrolment-file.json"
_LOCK = "enrolment.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Who asks: id of the gateway, and what its site is called."""

    gateway: str
    name: str = ""
    name_en: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClaim:
    """A request and its code. `secret`: what its answer is proven by."""

    code: str
    request: Request
    secret: bytes

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.request.public_key)

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "request": self.request.to_json(), "secret": bytes_text(self.secret)}

    @classmethod
    def from_json(cls, fields: Any) -> OpenClaim:
        """Raises DamagedError, RefusedError, KeyError, TypeError or ValueError."""
        request = Request.from_json(fields["request"])
        return cls(code=str(fields["code"]), request=request, secret=bytes_from_text(fields["secret"]))


class ClaimFiles:
    """The requests of one data folder; each call blocks: for a thread."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def open(self, by_file: bool = False) -> OpenClaim | None:
        """The open request; None when there is none, or its file is damaged."""
        with contextlib.suppress(OSError, KeyError, TypeError, ValueError, DamagedError, RefusedError):
            return OpenClaim.from_json(json.loads((self._data / _name(by_file)).read_bytes()))
        return None

    def open_or_make(self, key: Ed25519PrivateKey, names: Names, by_file: bool = False) -> OpenClaim:
        """The open request of this key; a new one when there is none."""
        with self._alone():
            known = self.open(by_file)
            if known is not None and _is_of(known, key, names.gateway):
                return known
            code = make_code(FILE_DIGITS if by_file else LINK_DIGITS)
            request, secret = make_request(
                key,
                code,
                gateway=names.gateway,
                name=names.name,
                name_en=names.name_en,
                by_file=by_file,
                made_ms=int(time.time() * 1000),
            )
            made = OpenClaim(code=code, request=request, secret=secret)
            write_file(self._data / _name(by_file), json.dumps(made.to_json()).encode(), 0o600)
            return made

    def drop(self, claim: OpenClaim) -> None:
        """That request has ended; a newer one stays."""
        with self._alone():
            by_file = claim.request.by_file
            known = self.open(by_file)
            if known is None or known.request.id == claim.request.id:
                (self._data / _name(by_file)).unlink(missing_ok=True)

    def accept(self, claim: OpenClaim, fields: Any) -> Answer:
        """Believe headquarters' key from now on, when the answer is from whoever was told the code.

        Raises:
            RefusedError: `forged`, `other_gateway`. DamagedError: it is no answer.
        """
        answer = Answer.from_json(fields, claim.request, claim.secret)
        pin(self._data, answer.witness_key)
        self.drop(claim)
        return answer

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Daemon and command do not both make one."""
        with (self._data / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_of(claim: OpenClaim, key: Ed25519PrivateKey, gateway: str) -> bool:
    return claim.request.key == public_key_text(key) and claim.request.gateway == gateway


def _name(by_file: bool) -> str:
    return BY_FILE if by_file else BY_LINK
