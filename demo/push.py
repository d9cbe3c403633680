"""Small calls to a running demo: push the humidity, kill a device, make it late."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from ..console.language import Say
from ..console.text import nearest
from ..errors import PermanentError, TransientError
from .words import phrases

HUMID = 82.0
HUMIDITY = "aux_store.th1.humidity"
STATE_FILE = "demo.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """What to change in the running demo of `data`; several at once are done in this order.

    Attributes:
        humid: hold the auxiliary store's humidity at this value (%RH).
        dry: release it.
        ok, late, dead: devices (`th1` or `aux_store.th1`) to make so.
        late_s: how late.
    """

    data: Path = Path("var/demo")
    humid: float | None = None
    dry: bool = False
    ok: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    late_s: float = 0.7


async def push_demo(options: PushOptions) -> list[str]:
    """Make the changes and return one line for each, to be printed.

    Raises:
        PermanentError: no demo runs in `data`, or the plant refuses (the message is the plant's).
        TransientError: the plant does not answer.
    """
    tr = phrases()
    plant = plant_address(options.data, tr)
    calls: list[tuple[str, dict[str, object], str]] = []
    if options.humid is not None:
        said = tr("held", HUMIDITY, f"{options.humid:g}")
        calls.append((f"points/{HUMIDITY}", {"value": options.humid}, said))
    if options.dry:
        calls.append((f"points/{HUMIDITY}", {"value": None}, tr("released", HUMIDITY)))
    modes = {"ok": options.ok, "late": options.late, "dead": options.dead}
    for mode, devices in modes.items():
        extra: dict[str, object] = {"late_s": options.late_s} if mode == "late" else {}
        calls += [(f"devices/{device}", {"mode": mode, **extra}, tr(f"mode_{mode}", device)) for device in devices]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        for path, body, _ in calls:
            await _post(session, f"{plant}api/{path}", body, tr)
    return [line for _, _, line in calls]


def plant_address(data: Path, tr: Say) -> str:
    """The plant's page of the demo that runs in `data`. Raises PermanentError."""
    try:
        state = json.loads((data / STATE_FILE).read_text("utf-8"))
        running, address = state["running"], state["addresses"]["plant"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PermanentError(tr("not_started", data), hint=tr("start_hint")) from error
    if not running:
        raise PermanentError(tr("is_stopped", data), hint=tr("start_hint"))
    return str(address)


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, object], tr: Say) -> None:
    try:
        async with session.post(url, json=body) as response:
            answer: Any = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise TransientError(tr("plant_silent", url, error), hint=tr("plant_silent_hint")) from error
    if response.status != 200:
        raise _refused(url, answer["error"], tr)


def _refused(url: str, error: Mapping[str, str], tr: Say) -> PermanentError:
    if error["reason"] != "no_such_device":
        return PermanentError(error["message"], hint=error["hint"])
    wrong, known = url.rpartition("/")[2], error["hint"].removeprefix("one of ")
    close = nearest(wrong, known.split(", "))
    meant = tr("did_you_mean", close) if close else ""
    return PermanentError(tr("no_device", wrong) + meant, hint=tr("devices_here", known))
