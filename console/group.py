"""The commands: every error is one clear message in the language of the command, and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from ..errors import ConfigError, SitewardenError
from .language import Say, speaking, spoken
from .usage import Context, usage_lines
from .words import phrases

INTERRUPTED = 130


class Command(click.Command):
    """One command."""

    context_class = Context


class Group(click.Group):
    """Turns our own errors into one message and exit code 1; a traceback is for bugs.

    Ctrl-C is exit code 130. Who reads no further (`| head`) ends the command without a word; that is click's doing.
    """

    context_class = Context
    command_class = Command
    group_class = type

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's; `standalone_mode` is how a process calls it."""
        arguments = sys.argv[1:] if args is None else list(args)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # GBK has no ³, ASCII has no Chinese
        with speaking(arguments):
            if not standalone_mode:
                return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            with _in_words():
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.exit(code if isinstance(code, int) else 0)


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Says what is wrong, and ends the process with an exit code. Bugs come through."""
    try:
        yield
    except SitewardenError as error:
        for line in error_lines(error, phrases()):
            click.echo(line, err=True)
        sys.exit(1)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and spoken() == "zh":
            for line in usage_lines(error):
                click.echo(line, err=True)
        else:
            error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo(phrases()("stopped"), err=True)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if not error.filename or not error.strerror:
            raise
        tr = phrases()
        what = f"{os.fsdecode(error.filename)}{tr('colon')}{error.strerror}"
        click.echo(f"{tr('sitewarden')}{what}{tr('open')}{tr('os_hint')}{tr('close')}", err=True)
        sys.exit(1)


def error_lines(error: SitewardenError, tr: Say) -> Iterator[str]:
    """An error on the screen: a file's problems line by line, and what to do next."""
    if isinstance(error, ConfigError):
        first, *more = problem_lines(error, tr)
        yield f"{tr('sitewarden')}{first}"
        yield from more
        return
    if "\n" in error.message + error.hint:
        yield f"{tr('sitewarden')}{error.message}"
        yield error.hint
        return
    hint = f"{tr('open')}{error.hint}{tr('close')}" if error.hint else ""
    yield f"{tr('sitewarden')}{error.message}{hint}"


def problem_lines(error: ConfigError, tr: Say) -> Iterator[str]:
    """How many problems which file has, each of them, and what to do next."""
    many = len(error.problems)
    yield tr("one_problem", error.source) if many == 1 else tr("problems", error.source, many)
    for problem in error.problems:
        yield f"  {problem}"
    if error.source.endswith(".toml"):
        yield tr("mend_check", error.source)
