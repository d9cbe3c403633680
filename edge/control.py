"""The control socket: what commands on this machine ask the running gateway (`sitewarden probe`, `reload`, `output`).

HTTP and JSON over a Unix socket in the data folder. Whoever may open it may do everything that it offers: its mode is
0660, and the folder belongs to the service's user and group alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from ..console.gateways import LONGEST_PATH, SOCKET, short
from ..errors import PermanentError, RefusedError, TransientError
from ..sensors.buses import TCP_UNIT_IDS, BusSpec, ReplyError, UnitHealth, UnitSpec
from ..sensors.registers import Block, Table
from ..serving.web import answer_refusals, body
from ..sync.journal import Journal
from .bundling import Bundling
from .key_commands import KeyCommands
from .outputs import OutputError, Outputs
from .proof.run import ProofTest
from .proof.table import last_runs
from .proof.telling import run_view
from .proving import point_to_test, proof_view
from .reloading import Outcome
from .site import Site
from .wires import Wires

_log = logging.getLogger(__name__)

_BODY_BYTES = 16 * 1024
_READS_AT_ONCE = 8
_MOST_MS = 5_000  # nobody else on the wire is asked meanwhile
_STOP_S = 1.0
_ASK_S = 120.0
_PROOFS = 20
_LARGEST_ANSWER = 8 << 20


class Control:
    """The handlers behind the socket.

    Args:
        site: that runs.
        wires: its buses.
        outputs: of the site.
        reload: reads site.toml again; gets who asked, and the actor of the record.
        proof: the proof test. journal: has its runs. bundling: sync by USB stick.
        keys: of the gateway.
    """

    def __init__(
        self,
        *,
        site: Callable[[], Site],
        wires: Wires,
        outputs: Outputs,
        reload: Callable[[str, str], Awaitable[Outcome]],
        proof: ProofTest,
        journal: Journal,
        bundling: Bundling,
        keys: KeyCommands | None = None,
    ) -> None:
        self._site, self._wires, self._outputs, self._reload_site = site, wires, outputs, reload
        self._proof_test, self._journal, self._bundling = proof, journal, bundling
        self._keys = keys
        self._reads = 0

    def app(self) -> web.Application:
        """The application, not served yet."""
        app = web.Application(middlewares=[answer_refusals], client_max_size=_BODY_BYTES)
        app.router.add_get("/v1/buses", self._buses)
        app.router.add_post("/v1/buses/{bus}/read", self._read)
        app.router.add_post("/v1/reload", self._reload)
        app.router.add_get("/v1/outputs", self._list_outputs)
        app.router.add_post("/v1/outputs/{output}", self._set_output)
        app.router.add_get("/v1/proof", self._list_proofs)
        app.router.add_get("/v1/proof/{run}", self._show_proof)
        app.router.add_post("/v1/proof", self._begin_proof)
        self._bundling.add_to(app)
        if self._keys is not None:
            self._keys.add_to(app)
        return app

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Listen for the length of the block. Where that cannot be, say so once and go on: nothing else needs it."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=_STOP_S)
        await runner.setup()
        try:
            problem = await _listen(runner, path)
            if problem:
                _log.warning("%s: no commands can reach this gateway: %s", path, problem)
            yield
        finally:
            await runner.cleanup()

    async def _buses(self, _: web.Request) -> web.Response:
        site = self._site()
        profiles = {f"{table.area}.{table.id}": table.profile for table in site.tables["device"]}
        specs = self._wires.specs
        listed = [self._bus(specs[bus.id], profiles) for bus in site.buses if bus.id in specs]
        return web.json_response({"buses": listed})

    def _bus(self, spec: BusSpec, profiles: Mapping[str, str]) -> dict[str, Any]:
        health = self._wires.health[spec.id]
        units = ((unit, health.units.get(unit.device)) for unit in spec.units)
        return {
            "id": spec.id,
            "kind": spec.kind.value,
            "host": spec.host,
            "port": spec.port,
            "serial": spec.serial,
            "baud": spec.baud,
            "parity": spec.parity,
            "stopbits": spec.stopbits,
            "timeout_ms": spec.timeout_ms,
            "late_max_ms": spec.late_max_ms,
            "connected": health.connected,
            "units": [_unit(unit, known, profiles.get(unit.device, "")) for unit, known in units if known is not None],
        }

    async def _read(self, request: web.Request) -> web.Response:
        name = request.match_info["bus"]
        if name not in self._wires.specs:
            raise RefusedError("no_such_bus", f"no bus {name!r:.60} runs here", hint="`GET /v1/buses` lists them")
        shape = {"unit_id": int, "table": str, "address": int, "count": int, "timeout_ms": (int, type(None))}
        fields = await body(request, shape)
        block = _block(fields)
        unit_id = _number(fields, "unit_id", 0, TCP_UNIT_IDS[-1])
        timeout_s = None if fields["timeout_ms"] is None else _number(fields, "timeout_ms", 1, _MOST_MS) / 1000
        if self._reads >= _READS_AT_ONCE:
            raise RefusedError("busy", f"{_READS_AT_ONCE} reads wait already", retry_s=1)
        self._reads += 1
        try:
            async with asyncio.timeout(_ASK_S):
                answer = await self._wires.bus(name).read(unit_id, block, timeout_s)
        except ReplyError as error:
            return _not_answered(error.why, error.message, error.code)
        except TimeoutError:
            return _not_answered("busy", f"bus {name} did not come to it within {_ASK_S:g} s", 0)
        finally:
            self._reads -= 1
        return web.json_response({"words": list(answer.words), "reply_ms": round(answer.reply_ms, 3)})

    async def _reload(self, request: web.Request) -> web.Response:
        await body(request, {})
        outcome = await self._reload_site(_console(request), "gateway")
        return web.json_response(outcome.told(), status=422 if outcome.problems else 200)

    async def _list_outputs(self, _: web.Request) -> web.Response:
        return web.json_response({"outputs": await self._outputs.views()})

    async def _set_output(self, request: web.Request) -> web.Response:
        fields = await body(request, {"state": str})
        try:
            await self._outputs.set(request.match_info["output"], fields["state"], _console(request))
        except OutputError as error:
            return _not_answered(error.why, error.message, error.code, hint=error.hint)
        return web.json_response({"state": fields["state"]})

    async def _begin_proof(self, request: web.Request) -> web.Response:
        fields = await body(request, {"point": (str, type(None))})
        point = point_to_test(self._site(), fields["point"])
        return web.json_response({"run": await self._proof_test.ask(point, _console(request)), "point": point})

    async def _show_proof(self, request: web.Request) -> web.Response:
        run = request.match_info["run"]
        found = [one for one in await self._journal.query(last_runs) if str(one["run"]) == run]
        if not found:
            raise RefusedError("no_such_run", f"there is no proof test {run!r:.20} among the last ones")
        return web.json_response(run_view(found[0]))

    async def _list_proofs(self, _: web.Request) -> web.Response:
        return web.json_response(await proof_view(self._site(), self._journal, self._proof_test, _PROOFS))


def _unit(spec: UnitSpec, health: UnitHealth, profile: str) -> dict[str, Any]:
    return {
        "device": spec.device,
        "unit_id": spec.unit_id,
        "profile": profile,
        "state": health.state,
        "why": health.why,
        "polls": health.polls,
        "good": health.good,
        "bad": health.bad,
        "skipped": health.skipped,
        "timeouts": health.timeouts,
        "exceptions": health.exceptions,
        "bad_frames": health.bad_frames,
        "reply_ms": round(health.reply_ms, 3),
        "slowest_ms": round(health.slowest_ms, 3),
    }


def _block(fields: Mapping[str, Any]) -> Block:
    tables = [table.value for table in Table]
    if fields["table"] not in tables:
        raise RefusedError("bad_request", f"table: must be one of {', '.join(tables)} (got {fields['table']!r:.60})")
    table = Table(fields["table"])
    address = _number(fields, "address", 0, 0xFFFF)
    most = min(2000 if table.is_bits else 125, 0x10000 - address)
    return Block(table=table, address=address, count=_number(fields, "count", 1, most))


def _number(fields: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value: int = fields[name]
    if not low <= value <= high:
        raise RefusedError("bad_request", f"{name}: must be {low}..{high} (got {value!s:.60})")
    return value


def _not_answered(why: str, message: str, code: int, *, hint: str = "") -> web.Response:
    """The request was right, and the wire did not give what it asked for."""
    return web.json_response({"error": {"why": why, "message": message, "code": code, "hint": hint}})


def _console(request: web.Request) -> str:
    """Who asked, as far as the kernel knows: `console uid 1000`."""
    peer = request.transport.get_extra_info("socket") if request.transport is not None else None
    if peer is None:
        return "console"
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return f"console uid {uid}"


async def _listen(runner: web.AppRunner, path: Path) -> str:
    """Returns why it does not listen, "" when it does."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        return f"the path of a socket may have {LONGEST_PATH} bytes: choose a shorter --data folder"
    try:
        if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
            return "something else has this name: move it away"
        await web.UnixSite(runner, path, backlog=16).start()  # replaces a socket of an earlier run
        path.chmod(0o660)
    except OSError as error:
        return error.strerror or str(error)
    return ""


# --- the other side ---


async def ask_gateway(data: Path, method: str, path: str, fields: Any = None) -> tuple[int, Any]:
    """Ask the gateway that runs with this data folder.

    Returns:
        HTTP status and JSON.

    Raises:
        PermanentError: no gateway runs there, or we may not talk to it.
        TransientError: it does not answer.
    """
    place = data / SOCKET
    if len(os.fsencode(short(place))) > LONGEST_PATH:
        hint = "name it by a shorter path, such as a relative one"
        raise PermanentError(f"{place}: the path of a socket may have {LONGEST_PATH} bytes", hint=hint)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(short(place))) as session,
            session.request(
                method, f"http://gateway{path}", json=fields, timeout=aiohttp.ClientTimeout(total=2 * _ASK_S)
            ) as answer,
        ):
            text = await answer.content.read(_LARGEST_ANSWER)
            while not answer.content.at_eof():
                text += await answer.content.read(_LARGEST_ANSWER)
            return answer.status, json.loads(text)
    except (aiohttp.ClientConnectorError, FileNotFoundError, PermissionError, ConnectionRefusedError) as error:
        raise _unreachable(place, error) from error
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
        raise TransientError(f"{place}: the gateway did not answer: {error}", hint="look at its log") from error


def _unreachable(place: Path, error: Exception) -> PermanentError:
    cause = getattr(error, "os_error", error)
    if isinstance(cause, PermissionError):
        return PermanentError(f"{place}: permission denied", hint="ask as the service's user: sudo -u sitewarden …")
    return PermanentError(f"{place}: no gateway runs with this data folder", hint="is --data the folder of `edge`?")
