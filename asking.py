"""`sitewarden reload` and `sitewarden output`: what is asked of the running gateway, and its answer in words."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from .console.gateways import Place, folders, look, the_gateway
from .console.group import INTERRUPTED, Command
from .console.language import LANG, Say
from .console.text import nearest, pad, width
from .console.words import phrases, reason_text
from .errors import PermanentError, TransientError

FOLDER = click.Path(path_type=Path, file_okay=False)
DATA = click.option(
    "--data", type=FOLDER, default=None, help="Folder of the running gateway, or of the demo [default: looked for]."
)
_PATIENCE_S = 2.0
_TABLES = {
    "site": "工厂",
    "gateway": "网关",
    "web": "网页",
    "mqtt": "MQTT",
    "cloud": "云端",
    "alerts": "通知",
    "area": "区域",
    "bus": "总线",
    "device": "设备",
    "broker": "消息服务器",
    "mqtt_device": "MQTT 设备",
    "alarm": "报警",
    "channel": "通道",
    "proof": "验证测试",
    "person": "人员",
    "suppress": "屏蔽",
    "ladder": "升级阶梯",
    "shift": "班次",
    "duty": "值班",
    "absence": "缺勤",
    "quiet": "免打扰",
    "profiles": "型号",
}
_ENDS = (
    (r"added", "新增"),
    (r"removed", "移除"),
    (r"(\S+) changed", r"\1 已改动"),
    (r"profile (\S+) was changed", r"型号 \1 的文件已改动"),
    (r"(\S+) holds another (?:password|address)", r"\1 中的内容已改动"),
    (r"holds another password", "其中的密码已改动"),
    (r"what the devices measure was changed", "设备测量的内容已改动"),
)


@click.command(cls=Command, short_help="Apply a changed site.toml without a restart.")
@DATA
@LANG
def reload(data: Path | None) -> None:
    """Let the running gateway apply its changed site.toml and people.csv: what stays the same goes on untouched.

    A file with a mistake changes nothing: every problem is printed.

    Exit code 0: applied, or nothing was changed. 1: the file was refused, or no gateway was reached. 2: wrong usage.
    130: Ctrl-C.
    """
    tr = phrases()
    answer = ask(data, "POST", "/v1/reload", {}, tr, stopped=tr("reload_left"))[1]
    if "problems" in answer:
        for line in refused_lines(answer, tr, f"sitewarden reload --data {data}" if data else "sitewarden reload"):
            click.echo(line, err=True)
        sys.exit(1)
    checked(answer, tr)
    for line in applied_lines(answer, tr):
        click.echo(line)


def applied_lines(answer: Mapping[str, Any], tr: Say) -> Iterator[str]:
    """What a reload did: which file, every change, and how much was left alone."""
    changes, later = answer["changes"], answer["needs_restart"]
    is_new = bool(changes) or answer.get("is_new", False)  # a gateway that was not restarted since 0.2 says less
    yield tr("applied" if is_new else "same", answer.get("file", "site.toml"), answer["revision"])
    for line in changes:
        yield f"  {change(line, tr)}"
    if is_new and not changes and not later:
        yield f"  {tr('only_comments')}"
    for key in later:
        yield f"  {tr('needs_restart', key)}"
    for kind in ("device", "rule") if is_new else ():
        if count := answer.get(f"{kind}s"):
            yield tr(f"counted_{kind}", count["added"], count["removed"], count["changed"], count["untouched"])


def refused_lines(answer: Mapping[str, Any], tr: Say, again: str) -> Iterator[str]:
    """Why a file was refused, and what runs on. `again`: the command to be typed when it is mended."""
    problems, file = answer["problems"], answer.get("file", "site.toml")
    many = len(problems)
    yield tr("refused_one", file) if many == 1 else tr("refused", file, many)
    for problem in problems:
        yield f"  {problem}"
    yield tr("goes_on", answer.get("revision", "?"), again)


def change(line: str, tr: Say) -> str:
    """One change in the gateway's own words, which are English: they are a record too. In Chinese what kind of table
    and what became of it are translated; names and keys stay as they stand in the file."""
    about, colon, what = line.partition(": ")
    if tr("lang") == "en" or not colon:
        return line
    kind, space, name = about.strip("[]").partition(" ")
    found = ((re.fullmatch(pattern, what), chinese) for pattern, chinese in _ENDS)
    what = next((match.expand(chinese) for match, chinese in found if match), what)
    return f"{_TABLES.get(kind, kind)}{space}{name}：{what}"


# --- outputs ---


@click.command(cls=Command, short_help="List what may be switched (siren, lamp), or switch it.")
@click.argument("output", required=False)
@click.argument("state", required=False)
@DATA
@LANG
def output(output: str | None, state: str | None, data: Path | None) -> None:
    """List the outputs of the running gateway, or bring OUTPUT (area.device.output) into STATE and read it back.

    Exit code 0: the device has confirmed it. 1: it did not, or no gateway was reached. 2: wrong usage. 130: Ctrl-C.
    """
    tr = phrases()
    place, answer = ask(data, "GET", "/v1/outputs", None, tr)
    outputs = {one["id"]: one for one in checked(answer, tr)["outputs"]}
    if output is not None and output not in outputs:
        raise PermanentError(_unknown(tr("no_such_output", output), output, outputs, tr), hint=_known(outputs, tr))
    if output is None or state is None:
        shown = [one for name, one in outputs.items() if output in (None, name)]
        click.echo("\n".join(output_lines(shown, tr)) if shown else tr("no_outputs"))
        return
    states = outputs[output]["states"]
    if state not in states:
        what = _unknown(tr("no_such_state", output, state), state, states, tr)
        raise PermanentError(what, hint=tr("states_here", ", ".join(states)))
    answer = ask(place.data, "POST", f"/v1/outputs/{output}", {"state": state}, tr)[1]
    error = answer.get("error")
    if error is not None and "why" in error:
        raise _not_confirmed(output, state, error, tr)
    checked(answer, tr)
    click.echo(f"{output}{tr('colon')}{state}{tr('open')}{tr('is_now')}{tr('close')}")


def output_lines(outputs: list[dict[str, Any]], tr: Say) -> Iterator[str]:
    """One line for each: id, what it is now, what it can be, its name."""
    names = {one["id"]: one["name" if tr("lang") == "zh" else "name_en"] for one in outputs}
    column = max(width(name) for name in names)
    for one in outputs:
        can = " | ".join(one["states"])
        yield f"{pad(one['id'], column)}  {names[one['id']]}{tr('colon')}{_now(one, tr)}{tr('open')}{can}{tr('close')}"


def _now(one: Mapping[str, Any], tr: Say) -> str:
    if one["state"]:
        return one["state"]
    if one["tried"] is None:
        return tr("not_written")
    return tr("not_confirmed", one["tried"], reason_text(one["why"], tr))


def _known(outputs: Mapping[str, Any], tr: Say) -> str:
    return tr("outputs_here", ", ".join(outputs) or tr("none"))


def _unknown(what: str, wrong: str, known: Mapping[str, Any] | list[str], tr: Say) -> str:
    close = nearest(wrong, known)
    return what + (tr("did_you_mean", close) if close else "")


def _not_confirmed(output: str, state: str, error: Mapping[str, Any], tr: Say) -> PermanentError:
    """English: in the gateway's words, which say more; Chinese: by the reason."""
    if tr("lang") == "en":
        return PermanentError(error["message"], hint=tr("failed_hint"))
    return PermanentError(tr("failed_output", output, state, reason_text(error["why"], tr)), hint=tr("failed_hint"))


# --- the gateway ---


def ask(
    data: Path | None, method: str, path: str, fields: Any, tr: Say, *, stopped: str = ""
) -> tuple[Place, Mapping[str, Any]]:
    """Ask the gateway that runs. `stopped`: what to say when Ctrl-C comes first.

    Raises:
        PermanentError: none runs, or several.
        TransientError: it does not answer.
    """
    import asyncio

    from .edge.control import ask_gateway

    place = the_gateway(look(folders(data, None, os.environ)), tr)

    async def patiently() -> Mapping[str, Any]:
        task = asyncio.create_task(ask_gateway(place.data, method, path, fields), name="ask")
        done, _ = await asyncio.wait([task], timeout=_PATIENCE_S)
        if not done:
            click.echo(tr("waiting", place.socket), err=True)
        return (await task)[1]

    try:
        return place, asyncio.run(patiently())
    except TransientError as error:
        what = tr("gateway_no_answer", place.socket, error.__cause__ or error.message)
        raise TransientError(what, hint=tr("no_answer_hint")) from error
    except KeyboardInterrupt:
        click.echo(f"\n{stopped or tr('stopped')}", err=True)
        sys.exit(INTERRUPTED)


def checked(answer: Mapping[str, Any], tr: Say) -> Mapping[str, Any]:
    """Raises PermanentError when the gateway refused."""
    if error := answer.get("error"):
        if error.get("reason") == "busy":
            raise PermanentError(tr("busy"), hint=tr("busy_hint"))
        raise PermanentError(error["message"], hint=error.get("hint", ""))
    return answer
