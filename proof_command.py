"""`sitewarden proof`: begin a proof test of the running gateway, and see each verdict as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from .asking import DATA, ask, checked
from .console.group import INTERRUPTED, Command
from .console.language import LANG, Say
from .console.text import pad, to_json, width
from .console.words import phrases
from .errors import PermanentError

_LOOK_S = 0.5
_PARTS = ("source", "alarm", "journal", "recipients", "accepted", "delivered", "sounded", "page", "mqtt", "cloud")
_VERDICTS = ("passed", "failed", "not_there", "left_out")
_REFUSED: Mapping[str, tuple[str, str]] = {
    "already_running": ("已有验证测试在进行", "等它结束"),
    "no_such_alarm": ("{0}没有限值报警", "写出有限值的测点"),
    "real_alarm": ("有真实报警，现在不能测试", "等它关闭，或已确认且为 3、4 级"),
    "permit_active": ("附近有作业票，现在不能测试", "等作业签退"),
    "flood": ("报警泛滥，现在不能测试", "等泛滥结束"),
    "point_missing": ("要测试哪个测点的报警？", "写出测点，或在 site.toml 中加 [proof]"),
}
"""In Chinese why a test does not begin, and what to do."""


@click.command(cls=Command, short_help="Test an alarm's whole chain: siren, SMS, pages.")
@click.argument("point", required=False)
@click.option("--last", is_flag=True, help="Begin nothing: show the last tests.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@DATA
@LANG
def proof(point: str | None, last: bool, as_json: bool, data: Path | None) -> None:
    """Let the running gateway test the whole chain of POINT's alarm, and show each step as its verdict comes.

    Everybody who would be told of the alarm is sent a message that begins with 【测试】, and the siren sounds shortly.
    Without POINT it is the one of [proof] in site.toml.

    Exit code 0: passed. 1: it was not, could not begin or was broken off, or no gateway was reached. 2: wrong usage.
    130: Ctrl-C; the test goes on.
    """
    tr = phrases()
    if last:
        if point is not None:
            raise click.UsageError("--last shows the tests of all points")
        _show_last(checked(ask(data, "GET", "/v1/proof", None, tr)[1], tr)["runs"], tr, as_json=as_json)
        return
    place, answer = ask(data, "POST", "/v1/proof", {"point": point}, tr)
    begun = _begun(answer, point or "", tr)
    if not as_json:
        click.echo(tr("proof_began", begun["run"], begun["point"]))
    run = _follow(place.data, begun["run"], tr, is_quiet=as_json)
    click.echo(to_json(run, indent=2) if as_json else "\n".join(end_lines(run, tr)))
    if run["result"] != "passed":
        sys.exit(1)


def step_line(step: Mapping[str, Any], tr: Say) -> str:
    """One verdict: the step, verdict and seconds in columns; of what has not passed also why, then whom it is about."""
    part = pad(tr(f"proof_{step['part']}"), max(width(tr(f"proof_{name}")) for name in _PARTS))
    verdict = pad(tr(f"proof_{step['verdict']}"), max(width(tr(f"proof_{name}")) for name in _VERDICTS))
    seconds = "" if step["seconds"] is None else tr("proof_seconds", f"{step['seconds']:.1f}")
    about = " ".join(word for word in (step["channel"], step["person"]) if word)
    why = "" if step["verdict"] == "passed" else step["detail_zh" if tr("lang") == "zh" else "detail"]
    words = tr("colon").join(word for word in (about, why) if word)
    return f"  {part}  {verdict}  {pad(seconds, 8, right=True)}  {words}".rstrip()


def end_lines(run: Mapping[str, Any], tr: Say) -> Iterator[str]:
    """What came of the run."""
    why = run.get("why_zh" if tr("lang") == "zh" else "why", "")
    seconds = "" if run.get("seconds") is None else tr("proof_seconds", f"{run['seconds']:.1f}")
    inner = tr("comma").join(word for word in (seconds, why) if word)
    yield tr("proof_result", _result(run, tr)) + (f"{tr('open')}{inner}{tr('close')}" if inner else "")


def run_lines(runs: Iterable[Mapping[str, Any]], tr: Say) -> Iterator[str]:
    """One line for each: number, when, which point, what came of it, who began it."""
    for run in runs:
        when, who = f"{run['at'][:16].replace('T', ' ')}Z", f"{tr('open')}{run['by']}{tr('close')}"
        yield f"{run['run']:>4}  {when}  {run['point']}{tr('colon')}{_result(run, tr)}{who}"


def _show_last(runs: list[dict[str, Any]], tr: Say, *, as_json: bool) -> None:
    """The newest with its steps, the others in a line each."""
    if as_json:
        click.echo(to_json(runs, indent=2))
        return
    if not runs:
        click.echo(tr("proof_none"))
        return
    newest, *others = runs
    lines = [*run_lines([newest], tr), *(step_line(step, tr) for step in newest["steps"])]
    click.echo("\n".join([*lines, *end_lines(newest, tr), *run_lines(others, tr)]))


def _follow(data: Path, number: int, tr: Say, *, is_quiet: bool) -> dict[str, Any]:
    """Until it is over, every verdict on a line as it comes. Returns the run."""
    shown: set[tuple[str, str, str]] = set()
    try:
        while True:
            answer = ask(data, "GET", f"/v1/proof/{number}", None, tr, stopped=tr("proof_left"))[1]
            run = dict(checked(answer, tr))
            for step in run["steps"]:  # in another order when it is over
                name = (step["part"], step["key"], step["kind"])
                if name not in shown and not is_quiet:
                    click.echo(step_line(step, tr))
                shown.add(name)
            if run["result"] != "running":
                return run
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        click.echo(f"\n{tr('proof_left')}", err=True)
        sys.exit(INTERRUPTED)


def _begun(answer: Mapping[str, Any], point: str, tr: Say) -> Mapping[str, Any]:
    """English: in the gateway's words, which say more; Chinese: by the reason. Raises PermanentError when refused."""
    known = _REFUSED.get(answer.get("error", {}).get("reason", ""))
    if tr("lang") == "zh" and known is not None:
        what, hint = known
        raise PermanentError(what.format(point), hint=hint)
    return checked(answer, tr)


def _result(run: Mapping[str, Any], tr: Say) -> str:
    return tr(f"proof_{run['result']}")
