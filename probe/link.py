"""Whose wire it is: the running gateway's, which is asked over its control socket, or nobody's, which we open."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from ..console.gateways import short
from ..console.language import Say
from ..errors import PermanentError, TransientError
from ..sensors.buses import Answer, BusKind, BusSpec, ReplyError
from ..sensors.registers import Block
from .run import Guest

PATIENCE_S = 180.0  # the gateway serves a guest between its polls; on a bus full of dead units that takes a while


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A wire to ask on.

    Attributes:
        socket: of the gateway that owns it; None when we opened it.
        devices: unit id to `area.device` that the gateway polls there.
    """

    spec: BusSpec
    guest: Guest
    socket: Path | None = None
    devices: Mapping[int, str] = field(default_factory=dict[int, str])


# --- the running gateway ---


class Control:
    """One gateway's control socket, as its guests see it. `async with` opens it."""

    def __init__(self, socket: Path, tr: Say) -> None:
        self.socket = socket
        self._tr = tr
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Control:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=short(self.socket)), timeout=aiohttp.ClientTimeout(total=PATIENCE_S)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def buses(self) -> list[dict[str, Any]]:
        """As the gateway describes them. Raises TransientError, PermanentError."""
        return (await self._call("GET", "/v1/buses"))["buses"]

    async def read(self, bus: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a read. Raises TransientError, PermanentError."""
        return await self._call("POST", f"/v1/buses/{bus}/read", body)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        assert self._session is not None
        try:
            async with self._session.request(method, f"http://gateway{path}", json=body) as response:
                found = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            what = self._tr("gateway_silent", self.socket, str(error) or type(error).__name__)
            raise TransientError(what, hint=self._tr("gateway_silent_hint")) from error
        if not isinstance(found, dict) or (response.status != 200 and "error" not in found):
            raise PermanentError(self._tr("gateway_said", self.socket, f"{path}: HTTP {response.status}"))
        if response.status != 200:
            refused = found["error"]
            what = refused.get("message") or refused.get("reason") or response.status
            raise PermanentError(self._tr("gateway_said", self.socket, what), hint=refused.get("hint", ""))
        return found


class DaemonGuest:
    """Reads through the gateway that owns the bus."""

    def __init__(self, control: Control, bus: str, timeout_ms: int) -> None:
        self._control = control
        self._bus = bus
        self._timeout_ms = timeout_ms

    async def read(self, unit_id: int, block: Block, timeout_s: float | None = None) -> Answer:
        """Raises ReplyError; TransientError or PermanentError when the gateway itself does not answer."""
        wait_ms = self._timeout_ms if timeout_s is None else round(timeout_s * 1000)
        wanted = {"unit_id": unit_id, "table": block.table.value, "address": block.address, "count": block.count}
        found = await self._control.read(self._bus, {**wanted, "timeout_ms": wait_ms})
        if fault := found.get("error"):
            code = int(fault.get("code") or 0)
            raise ReplyError(str(fault.get("why")), str(fault.get("message")), asked=True, code=code)
        words = tuple(int(word) for word in found["words"])
        if len(words) != block.count:
            raise ReplyError(
                "bad_frame", f"{block.count} words asked, {len(words)} came through the gateway", asked=True
            )
        return Answer(words=words, reply_ms=float(found["reply_ms"]))


def spec_of(entry: Mapping[str, Any]) -> BusSpec:
    """A bus of `GET /v1/buses`, without its units."""
    given = {name: entry[name] for name in _OPTIONAL if entry.get(name) is not None}
    return BusSpec(id=entry["id"], kind=BusKind(entry["kind"]), units=(), **given)


_OPTIONAL = ("host", "port", "serial", "baud", "parity", "stopbits", "timeout_ms", "late_max_ms")


def same_place(one: BusSpec, other: BusSpec) -> bool:
    """Whether both use the same port or socket, however it is set and whatever link its name goes through."""
    if one.kind is BusKind.RTU or other.kind is BusKind.RTU:
        return one.kind is other.kind and os.path.realpath(one.serial) == os.path.realpath(other.serial)
    return (one.host, one.port) == (other.host, other.port)


@asynccontextmanager
async def through_gateway(
    sockets: Iterable[Path], wanted: BusSpec | str, tr: Say, seen: list[str] | None = None
) -> AsyncIterator[Wire | None]:
    """The bus of a running gateway that has this id or uses this wire; None when none does.

    Args:
        seen: gets the id of every bus that was there.

    Raises:
        TransientError, PermanentError: the gateway may not be asked, or failed; a socket that was left behind is none.
    """
    async with contextlib.AsyncExitStack() as stack:
        for socket in sockets:
            control = await stack.enter_async_context(Control(socket, tr))
            entries = await _buses_or_none(control, tr)
            for entry in entries or ():
                spec = spec_of(entry)
                if seen is not None:
                    seen.append(spec.id)
                if spec.id == wanted if isinstance(wanted, str) else same_place(spec, wanted):
                    devices = {int(unit["unit_id"]): str(unit["device"]) for unit in entry.get("units", ())}
                    guest = DaemonGuest(control, spec.id, spec.timeout_ms)
                    yield Wire(spec=spec, guest=guest, socket=socket, devices=devices)
                    return
        yield None


async def _buses_or_none(control: Control, tr: Say) -> list[dict[str, Any]] | None:
    """None: nobody listens there any more."""
    try:
        return await control.buses()
    except TransientError as error:
        if isinstance(error.__cause__, aiohttp.ClientConnectorError):
            if isinstance(error.__cause__.os_error, PermissionError):
                raise PermanentError(tr("may_not_open", control.socket), hint=tr("as_service_hint")) from error
            return None
        raise


# --- alone ---


@asynccontextmanager
async def alone(spec: BusSpec, tr: Say) -> AsyncIterator[Wire]:
    """Open the wire ourselves.

    Raises:
        PermanentError: the serial port is not there, may not be opened, or is used by another process.
    """
    from ..sensors.modbus import guest_link

    if spec.kind is BusKind.RTU:
        check_port(spec.serial, tr)
    async with guest_link(replace(spec, units=())) as guest:
        yield Wire(spec=spec, guest=guest)


def unreachable(spec: BusSpec, error: ReplyError, tr: Say) -> TransientError:
    """The same as `error`, `no_connection`, with what to do."""
    if spec.kind is BusKind.RTU:
        return TransientError(str(error), hint=tr("pulled_hint"))
    if isinstance(error.__cause__, ConnectionRefusedError):
        what, hint = tr("connection_refused"), tr("connection_refused_hint")
    else:
        what, hint = str(error.__cause__ or error) or tr("no_host"), tr("no_host_hint")
    return TransientError(f"{spec.host}:{spec.port}{tr('colon')}{what}", hint=hint)


def check_port(path: str, tr: Say) -> None:
    """Whether the serial port can be ours. Raises PermanentError that names who has it."""
    try:
        port = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        ports = ", ".join(serial_ports())
        hint = tr("ports_here", ports) if ports else tr("no_port_here")
        raise PermanentError(tr("no_such_port", path), hint=hint) from error
    except PermissionError as error:
        raise PermanentError(tr("may_not_open", path), hint=tr("dialout_hint")) from error
    except OSError as error:
        raise PermanentError(tr("cannot_open", path, error.strerror)) from error
    try:
        fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(port, fcntl.LOCK_UN)
    except BlockingIOError as error:
        raise PermanentError(tr("in_use", path, _holder(port, tr)), hint=tr("in_use_hint")) from error
    finally:
        os.close(port)


def _holder(port: int, tr: Say) -> str:
    """Who has locked it, as far as /proc says."""
    status = os.fstat(port)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    process = lock_holder(_lines(Path("/proc/locks")), place)
    if not process:
        return tr("another_process")
    return tr("process", process, next(_lines(Path(f"/proc/{process}/comm")), "")).rstrip()


def lock_holder(lines: Iterable[str], place: str) -> str:
    """Process id of the flock on `place` (`major:minor:inode`) in /proc/locks (proc(5)); "" when nobody is named."""
    for line in lines:
        match line.split():
            case [_, "FLOCK", "ADVISORY", "WRITE", process, where, *_] if where == place:
                return process
            case _:
                continue
    return ""


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return


def serial_ports(root: Path = Path("/dev")) -> tuple[str, ...]:
    """Names of the serial ports of this machine, the lasting ones first; a port that has one is named once."""
    lasting = sorted((root / "serial" / "by-id").glob("*")) if (root / "serial" / "by-id").is_dir() else []
    known = {os.path.realpath(path) for path in lasting}
    others = [path for pattern in _PORTS for path in sorted(root.glob(pattern))]
    return tuple(str(path) for path in (*lasting, *(p for p in others if os.path.realpath(p) not in known)))


_PORTS = ("ttyUSB*", "ttyACM*", "ttyAMA*", "ttySC*", "ttyXRUSB*", "ttymxc*")


def lasting_name(path: str, root: Path = Path("/dev")) -> str:
    """The `/dev/serial/by-id` name of the same port where there is one, else the path, absolute."""
    by_id = root / "serial" / "by-id"
    for name in sorted(by_id.glob("*")) if by_id.is_dir() else ():
        if os.path.realpath(name) == os.path.realpath(path):
            return str(name)
    return os.path.abspath(path)  # noqa: PTH100 - a link stays a link: the demo's is stable, the terminal behind is not
