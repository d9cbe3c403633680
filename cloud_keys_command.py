"""`sitewarden cloud gateways`, `approve`, `refuse`, `revoke`: who may send to headquarters, over its own socket."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from .console.folders import data_folder
from .console.gateways import short
from .console.group import Command
from .console.language import LANG, Say
from .console.text import to_json
from .console.words import WORDS, phrases
from .enrol_command import FILE, FOLDER, read_json_file
from .errors import PermanentError, RefusedError, TransientError

CLOUD_SOCKET = "cloud.sock"
DATA = click.option("--data", type=FOLDER, default=None, help="Folder of the stores [default: $STATE_DIRECTORY].")
REQUEST = click.option("--request", "wanted", metavar="ID", default="", help="Which one, where several ask alike.")
_TIMEOUT_S = 60


def add_key_commands(group: click.Group) -> None:
    """Below `sitewarden cloud`."""
    for command in (gateways, approve, refuse, revoke):
        group.add_command(command)


@click.command(cls=Command, short_help="Gateways with their keys, and who asks.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@DATA
@LANG
def gateways(data: Path | None, as_json: bool) -> None:
    """List every gateway with its keys, and those that ask to be known.

    Exit code 0: listed. 1: no cloud service runs there. 2: wrong usage.
    """
    tr = phrases()
    found = _ask(data, "", None, tr)
    if as_json:
        click.echo(to_json(found))
        return
    for line in _listed(found, tr):
        click.echo(line)


@click.command(cls=Command, short_help="Approve a gateway by the code that it shows.")
@click.argument("code")
@click.option("--site", "gateway", metavar="ID", default="", help="Id of the gateway that shows the code.")
@click.option("--file", type=FILE, default=None, help="Its request, from a USB stick.")
@click.option("--answer", type=FILE, default=None, help="Where to write the answer [default: FILE with -answer].")
@click.option("--replace", is_flag=True, help="It takes the place of another machine, whose key ends at once.")
@REQUEST
@DATA
@LANG
def approve(
    code: str, gateway: str, file: Path | None, answer: Path | None, replace: bool, wanted: str, data: Path | None
) -> None:
    """Let the gateway that shows CODE send from now on. Whoever stands there reads the code aloud.

    Five wrong codes end a request; the gateway then shows another code.

    Exit code 0: approved. 1: not. 2: wrong usage.
    """
    tr = phrases()
    asked: Any = None
    if file is not None:
        asked, gateway, wanted = _bring(data, file, gateway, tr)
    if not gateway:
        raise click.MissingParameter(ctx=click.get_current_context(), param=_option("gateway"))
    wanted = wanted if file is not None else _whole_id(data, gateway, wanted, tr)
    fields = {"gateway": gateway, "code": code, "id": wanted or None, "replace": replace}
    found = _ask(data, "/approve", fields, tr)
    click.echo(tr("gateway_approved", gateway, found["kid"], found["fingerprint"]))
    if file is not None and asked is not None:
        path = answer or file.with_name(f"{file.stem}-answer{file.suffix}")
        path.write_text(json.dumps(found["answer"], indent=2) + "\n", "utf-8")
        click.echo(tr("answer_written", path))


@click.command(cls=Command, short_help="Refuse a gateway that asks.")
@click.argument("gateway")
@REQUEST
@DATA
@LANG
def refuse(gateway: str, wanted: str, data: Path | None) -> None:
    """Refuse the request of GATEWAY; it says so, and shows another code after a while.

    Exit code 0: refused. 1: it does not ask. 2: wrong usage.
    """
    tr = phrases()
    pending = [one for one in _ask(data, "", None, tr)["pending"] if one["gateway"] == gateway]
    found = [one for one in pending if one["id"].startswith(wanted)]
    if len(found) != 1:
        reason = "several" if found else "no_such_request"
        raise PermanentError(tr(f"enrol_reason_{reason}"))
    _ask(data, "/refuse", {"gateway": gateway, "id": found[0]["id"]}, tr)
    click.echo(tr("gateway_refused"))


@click.command(cls=Command, short_help="End a gateway's keys at once.")
@click.argument("gateway")
@click.option("--kid", metavar="ID", default="", help="This key alone [default: all that are good].")
@click.option("--reason", required=True, help="Why; it is kept with the key.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@DATA
@LANG
def revoke(gateway: str, kid: str, reason: str, yes: bool, data: Path | None) -> None:
    """End the keys of GATEWAY: from the next request on nothing that they sign is taken. Nothing is deleted.

    What the gateway recorded stays there, and comes once it has been enrolled anew with another key.

    Exit code 0: revoked. 1: not. 2: wrong usage.
    """
    tr = phrases()
    if not yes:
        click.confirm(tr("really_revoke", gateway), abort=True)
    found = _ask(data, "/revoke", {"gateway": gateway, "kid": kid or None, "reason": reason}, tr)
    click.echo(tr("gateway_revoked", gateway, ", ".join(found["revoked"])))


def _bring(data: Path | None, file: Path, gateway: str, tr: Say) -> tuple[Any, str, str]:
    """A request out of a file: what it holds, the gateway that it is of, its id."""
    from .sync.claims import Request

    asked = read_json_file(file, tr)
    named = Request.from_json(asked).gateway
    if gateway not in ("", named):
        raise click.UsageError(f"--site: {file}: {named}")
    return asked, named, _ask(data, "/bring", {"request": asked}, tr)["id"]


def _whole_id(data: Path | None, gateway: str, wanted: str, tr: Say) -> str:
    """The request that an id's beginning means."""
    if not wanted:
        return ""
    pending = _ask(data, "", None, tr)["pending"]
    found = [one["id"] for one in pending if one["gateway"] == gateway and one["id"].startswith(wanted)]
    if len(found) != 1:
        raise PermanentError(tr("enrol_reason_no_such_request"))
    return found[0]


def _option(name: str) -> click.Parameter:
    return next(param for param in click.get_current_context().command.params if param.name == name)


def _listed(found: Mapping[str, Any], tr: Say) -> Iterator[str]:
    if found["pending"]:
        yield tr("gateways_pending")
    for one in found["pending"]:
        name = one["name"] if tr("lang") == "zh" else one["name_en"] or one["name"]
        about = (name, one["fingerprint"], one["address"], one["asked"], one["id"][:8])
        yield tr("gateway_pending", one["gateway"], *about)
    for one in found["gateways"]:
        yield f"{one['gateway']}  {one['name'] if tr('lang') == 'zh' else one['name_en']}"
        for key in one["keys"]:
            yield f"  {key['kid']}  {_state(key, tr)}{tr('comma')}{tr('source_' + key['source'])}"
        if not one["keys"]:
            yield tr("gateway_no_key")
    if not found["pending"] and not found["gateways"]:
        yield tr("gateways_none")


def _state(key: Mapping[str, Any], tr: Say) -> str:
    if key["state"] == "revoked":
        return tr("key_revoked", key["revoked"], key["revoked_by"], key["reason"])
    return tr(f"key_{key['state']}", key["valid_until"])


def _ask(data: Path | None, path: str, fields: Any, tr: Say) -> Any:
    """Ask the cloud service that runs on this machine. Raises PermanentError, RefusedError, TransientError."""
    return asyncio.run(_asked(data_folder(data), path, fields, tr))


async def _asked(data: Path, path: str, fields: Any, tr: Say) -> Any:
    import aiohttp

    method = "GET" if fields is None else "POST"
    socket = data / CLOUD_SOCKET
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        connector = aiohttp.UnixConnector(os.fspath(short(socket)))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://cloud/v1/enrolment{path}", json=fields) as reply,
        ):
            status, answer = reply.status, await reply.json(content_type=None)
    except aiohttp.ClientConnectorError as error:
        raise PermanentError(tr("no_cloud_runs", socket), hint=tr("no_cloud_runs_hint")) from error
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
        raise TransientError(f"{socket}: {error or type(error).__name__}", hint=tr("no_answer_hint")) from error
    if status == 200:
        return answer
    error = answer.get("error", {}) if isinstance(answer, dict) else {}
    reason, known = str(error.get("reason", "")), f"enrol_reason_{error.get('reason', '')}"
    message = tr(known) if known in WORDS and tr("lang") == "zh" else str(error.get("message", ""))
    hint = "" if known in WORDS and tr("lang") == "zh" else str(error.get("hint", ""))
    raise RefusedError(reason, message, hint=hint)
