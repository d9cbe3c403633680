"""Help and wrong usage as click says them, in Chinese too; Chinese text is wrapped by its width on the screen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import click

from .help_zh import HELP_ZH
from .language import spoken
from .text import pad, width, wrap

_HEADINGS = {"Options": "选项", "Commands": "命令"}
_EXTRA = re.compile(r"  \[([^\]]*)\]$")
_EXTRAS = ((re.compile(r"^default: (.*)"), r"默认：\1"), (re.compile(r"^required$"), "必填"))
_COLUMN = 30  # the longest name of an option that has its text on the same line

_CLICK: tuple[tuple[str, str], ...] = (
    (r"Missing option '(.+?)'\.(?: Choose from:.*)?", "缺少选项 {0}"),
    (r"Missing argument '(.+?)'\.", "缺少参数 {0}"),
    (r"Missing command\.", "缺少命令"),
    (r"No such option:? '?(.+?)'?\.?", "没有选项 {0}"),
    (r"No such command '(.+?)'\.", "没有命令 {0}"),
    (r"Got unexpected extra arguments? \((.+)\)", "多余的参数：{0}"),
    (r"Option '(.+?)' requires an argument\.", "选项 {0} 后面要有值"),
    (r"Option '(.+?)' does not take a value\.", "选项 {0} 后面不能有值"),
    (r"'(.+?)' is not a valid integer range\.", "{0} 不是整数"),
    (r"'(.+?)' is not a valid integer\.", "{0} 不是整数"),
    (r"'(.+?)' is not a valid float(?: range)?\.", "{0} 不是数"),
    (r"(\S+) is not in the range (.+?)\.", "{0} 超出范围 {1}"),
    (r"'(.+?)' is not one of (.+)\.", "{0} 不在可选值之中：{1}"),
    (r"File '(.+?)' is a directory\.", "{0} 是文件夹，不是文件"),
    (r"Directory '(.+?)' is a file\.", "{0} 是文件，不是文件夹"),
    (r"(?:File|Directory|Path) '(.+?)' does not exist\.", "{0} 不存在"),
)
_MEANT = re.compile(r"\s*\(?(?:Did you mean(?: one of:)?|Possible options:) ?(.+?)\??\)?$")
_INVALID = re.compile(r"Invalid value(?: for (.+?))?: (.*)", re.DOTALL)


def in_chinese(message: str) -> str:
    """What click says of wrong usage; what it does not know, and what is Chinese already, stays."""
    if found := _INVALID.fullmatch(message):
        where, inner = found.groups()
        return f"{bare(where or '')} 的值无效：{in_chinese(inner)}".lstrip()
    meant = _MEANT.search(message)
    if meant:
        names = "或".join(f"“{bare(name)}”" for name in meant.group(1).split(","))
        return f"{in_chinese(message[: meant.start()])}；是不是{names}？"
    for pattern, text in _CLICK:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return text.format(*found.groups())
    return message


def bare(name: str) -> str:
    """Without the quotes that click puts around a name."""
    return name.strip(" '")


def usage_lines(error: click.UsageError) -> Iterator[str]:
    """Wrong usage in Chinese: how it is right, where the help is, and what is wrong."""
    if error.ctx is not None:
        yield error.ctx.get_usage()
        yield f"帮助：{error.ctx.command_path} --help"
        yield ""
    yield f"错误：{in_chinese(error.format_message())}"


def translate(text: str, words: Mapping[str, str] = HELP_ZH) -> str:
    """A text of the help in Chinese; one that is not known stays."""
    found = _EXTRA.search(text)
    bare, extra = (text[: found.start()], found.group(1)) if found else (text, "")
    for pattern, replacement in _EXTRAS:
        extra = pattern.sub(replacement, extra)
    return words.get(key_of(bare), bare) + (f" [{extra}]" if extra else "")


def key_of(text: str) -> str:
    """The first paragraph on one line: by it the Chinese of a text is found."""
    return " ".join(text.strip().partition("\n\n")[0].split())


class Formatter(click.HelpFormatter):
    """click's own in English."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, "用法：" if prefix is None and spoken() == "zh" else prefix)

    def write_heading(self, heading: str) -> None:
        if spoken() == "zh":
            self.write(f"{'':>{self.current_indent}}{_HEADINGS.get(heading, heading)}：\n")
            return
        super().write_heading(heading)

    def write_text(self, text: str) -> None:
        if spoken() == "en":
            super().write_text(text)
            return
        for at, paragraph in enumerate(translate(text).split("\n\n")):
            lines = wrap(paragraph, self.width - self.current_indent)
            self.write("\n" * (at > 0) + "".join(f"{'':>{self.current_indent}}{line}\n" for line in lines))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = _COLUMN, col_spacing: int = 2) -> None:
        rows = list(rows)
        if spoken() == "en":
            super().write_dl(rows, col_max, col_spacing)
            return
        column = min(max(width(name) for name, _ in rows), col_max) + col_spacing
        for name, text in rows:
            lines = wrap(translate(text), self.width - column - self.current_indent)
            head = pad(name, column) if width(name) <= column - col_spacing else f"{name}\n{'':>{column + 2}}"
            self.write(f"{'':>{self.current_indent}}{head}{lines[0]}\n".rstrip(" "))
            for line in lines[1:]:
                self.write(f"{'':>{column + self.current_indent}}{line}\n")


class Context(click.Context):
    """Formats help with `Formatter`."""

    formatter_class = Formatter
