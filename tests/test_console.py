"""What every command shares: its language, its help, its errors, and where it looks for the gateway."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from sitewarden import asking
from sitewarden.asking import applied_lines, change
from sitewarden.cli import main
from sitewarden.console import gateways
from sitewarden.console.gateways import DEMO_DATA, LONGEST_PATH, SERVICE_DATA, SOCKET, Found, folders, look, the_gateway
from sitewarden.console.help_zh import HELP_ZH
from sitewarden.console.language import language, speaking, spoken, translator
from sitewarden.console.text import nearest, pad, table, width, wrap
from sitewarden.console.usage import in_chinese, key_of, translate
from sitewarden.console.words import WORDS
from sitewarden.demo.words import WORDS as DEMO_WORDS
from sitewarden.errors import PermanentError

EN, ZH = translator("en", WORDS), translator("zh", WORDS)


def run(*arguments: str | Path, **environment: str) -> Result:
    """The command in this process, in English unless the environment says otherwise."""
    clean = {"LC_ALL": "", "LC_MESSAGES": "", "LANG": "", "STATE_DIRECTORY": "", **environment}
    words = [str(argument) for argument in arguments]
    return CliRunner(env=clean).invoke(main, words, catch_exceptions=False, prog_name="sitewarden")


# --- language ---


@pytest.mark.parametrize(
    ("environment", "lang"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_GB", "LC_ALL": "", "LC_MESSAGES": "zh_TW"}, "zh"),
    ],
)
def test_the_locale_picks_the_language(environment: dict[str, str], lang: str):
    assert language(environment) == lang


@pytest.mark.parametrize(
    ("arguments", "lang"),
    [
        (["reload", "--lang", "zh"], "zh"),
        (["--lang=zh", "reload"], "zh"),
        (["reload", "--lang", "fr"], "en"),
        (["reload", "--lang"], "en"),
    ],
)
def test_lang_counts_wherever_it_stands(arguments: list[str], lang: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    with speaking(arguments):
        assert spoken() == lang
    assert spoken() == "en"


@pytest.mark.parametrize("words", [WORDS, DEMO_WORDS])
def test_both_languages_say_the_same_things(words: dict[str, tuple[str, str]]):
    for key, (chinese, english) in words.items():
        assert set(re.findall(r"{\d[^}]*}", chinese)) == set(re.findall(r"{\d[^}]*}", english)), key
        assert chinese
        assert english


def test_the_demo_hides_no_phrase():
    assert not WORDS.keys() & DEMO_WORDS.keys()


# --- text ---


def test_chinese_is_wrapped_by_its_width_and_keeps_its_stops():
    text = "退出码 0：已应用，或没有变化；1：文件被拒绝，或找不到网关；2：用法错误；130：Ctrl-C。"
    for columns in range(12, 90):
        lines = wrap(text, columns)
        assert all(width(line) <= columns for line in lines), columns
        assert not [line for line in lines if line[:1] in "，。：；"], columns
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("a-word-that-is-too-long for it", 6) == ["a-word-that-is-too-long", "for it"]


def test_a_table_keeps_its_columns_with_chinese_in_it():
    lines = list(table([["名称", "x"], ["a", "yy"]], right="lr"))
    assert [width(line) for line in lines] == [width(lines[0])] * 2
    assert pad("助剂库", 8) == "助剂库  "


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("th1", "store.th1"),
        ("stroe.th1", "store.th1"),
        ("store.ht1", "store.th1"),
        ("STORE.TH1", "store.th1"),
        ("siren", "store.relay.siren"),
        ("store.relay.pump", ""),
        ("nothing_like_it", ""),
    ],
)
def test_what_was_probably_meant(wrong: str, meant: str):
    assert nearest(wrong, ["store.th1", "store.th2", "store.relay.siren", "store.relay.lamp"]) == meant


# --- help ---


def _commands(command: click.Command, path: str = "sitewarden") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    for name, inner in command.commands.items() if isinstance(command, click.Group) else ():
        yield from _commands(inner, f"{path} {name}")


EVERY = dict(_commands(main))


def _texts() -> set[str]:
    texts = {text for command in EVERY.values() for text in (command.help, command.short_help) if text}
    options = {p.help for command in EVERY.values() for p in command.params if isinstance(p, click.Option) and p.help}
    return {key_of(text) for text in (*texts, *options, "Show this message and exit.")}


def test_every_text_of_the_help_is_there_in_chinese():
    assert HELP_ZH.keys() == _texts()


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("path", [path for path, command in EVERY.items() if isinstance(command, click.Group)])
def test_the_list_of_commands_is_whole_at_80_columns(path: str, lang: str):
    group = EVERY[path]
    assert isinstance(group, click.Group)
    said = run("--lang", lang, *path.split()[1:], "--help", COLUMNS="80")
    assert said.exit_code == 0
    heading = "命令：" if lang == "zh" else "Commands:"
    _, _, listed = said.output.partition(f"{heading}\n")
    lines = listed.rstrip("\n").split("\n")
    assert [line.split()[0] for line in lines] == sorted(group.commands), "one line for each"
    for line in lines:
        assert width(line) <= 80, line
        assert "..." not in line
        short = group.commands[line.split()[0]].get_short_help_str(1000)
        assert line.endswith(translate(short) if lang == "zh" else short)


@pytest.mark.parametrize("path", EVERY)
def test_the_help_in_chinese_fits_the_terminal(path: str):
    said = run("--lang", "zh", *path.split()[1:], "--help", COLUMNS="80")
    assert said.output.startswith(f"用法：{path}")
    assert all(width(line) <= 80 for line in said.output.splitlines())
    for english in ("Usage", "Options:", "Show this", "default:"):
        assert english not in said.output


@pytest.mark.parametrize("command", ["reload", "output", "proof", "check"])
def test_exit_codes_stand_in_the_help(command: str):
    assert "Exit code 0: " in " ".join(run(command, "--help").output.split())
    assert "退出码 0：" in run(command, "--help", LANG="zh_CN.UTF-8").output


# --- wrong usage ---


def test_what_click_says_is_known_in_chinese():
    """What click itself says, so that another version of it is noticed."""

    @click.group()
    def some() -> None: ...

    @some.command()
    @click.argument("file", type=click.Path(dir_okay=False))
    @click.option("--count", type=click.IntRange(1, 5))
    @click.option("--share", type=float)
    @click.option("--kind", type=click.Choice(["tcp", "rtu"]))
    @click.option("--unit", required=True)
    @click.option("--flag", is_flag=True)
    def go(**_: object) -> None: ...

    def wrong(*arguments: str) -> str:
        with pytest.raises(click.UsageError) as caught:
            some.main(["go", *arguments] if arguments[:1] != ("!",) else list(arguments[1:]), standalone_mode=False)
        return in_chinese(caught.value.format_message())

    assert wrong("x") == "缺少选项 --unit"
    assert wrong("--unit", "1") == "缺少参数 FILE"
    assert wrong("x", "--unit", "1", "--knid", "1") == "没有选项 --knid；是不是“--kind”或“--unit”？"
    assert wrong("x", "--zzz") == "没有选项 --zzz"
    assert wrong("x", "y", "--unit", "1") == "多余的参数：y"
    assert wrong("x", "--unit") == "选项 --unit 后面要有值"
    assert wrong("x", "--flag=1") == "选项 --flag 后面不能有值"
    assert wrong("x", "--unit", "1", "--count", "a") == "--count 的值无效：a 不是整数"
    assert wrong("x", "--unit", "1", "--count", "9") == "--count 的值无效：9 超出范围 1<=x<=5"
    assert wrong("x", "--unit", "1", "--share", "a") == "--share 的值无效：a 不是数"
    assert wrong("x", "--unit", "1", "--kind", "a") == "--kind 的值无效：a 不在可选值之中：'tcp', 'rtu'"
    assert wrong("/", "--unit", "1") == "FILE 的值无效：/ 是文件夹，不是文件"
    assert wrong("!", "goo") == "没有命令 goo；是不是“go”？"
    assert in_chinese("something that nobody knows") == "something that nobody knows"


def test_wrong_usage_says_where_the_help_is():
    said = run("relaod", LANG="zh_CN.UTF-8")
    assert said.exit_code == 2
    assert said.stderr.splitlines() == [
        "用法：sitewarden [OPTIONS] COMMAND [ARGS]...",
        "帮助：sitewarden --help",
        "",
        "错误：没有命令 relaod；是不是“reload”或“replay”？",
    ]


# --- problems of a file ---


@pytest.mark.parametrize(
    ("lang", "head", "last"),
    [
        ("en", "{0}: {1} problems", "Nothing was changed. Mend the file, then check it: sitewarden check {0}"),
        ("zh", "{0}：{1} 个问题（说明为英文）", "什么都没有改动。改正后再检查：sitewarden check {0}"),
    ],
)
def test_check_says_how_many_problems_and_what_to_do(tmp_path: Path, lang: str, head: str, last: str):
    file = tmp_path / "site.toml"
    file.write_text('[site]\nid = "a"\n', "utf-8")
    said = run("check", file, "--lang", lang)
    first, *problems, end = said.stderr.splitlines()
    assert (said.exit_code, len(problems) > 1) == (1, True)
    assert (first, end) == (head.format(file, len(problems)), last.format(file))
    assert all(line.startswith("  ") for line in problems)


def test_one_problem_is_not_said_as_many(tmp_path: Path):
    file = tmp_path / "none.toml"
    assert run("check", file).stderr.startswith(f"{file}: 1 problem\n")
    assert run("check", file, "--lang", "zh").stderr.startswith(f"{file}：1 个问题（说明为英文）\n")


def test_check_in_chinese(root: Path):
    file = root / "config" / "site.toml"
    said = run("check", file, LANG="zh_CN.UTF-8")
    assert said.stdout.splitlines()[-1] == f"{file}：正确：5 个区域，6 台设备，11 个测点"


# --- who reads no further ---


@pytest.mark.parametrize(
    "arguments", [("--help",), ("check", "config/site.toml"), ("check", "--effective", "config/site.toml")]
)
def test_a_pipe_that_nobody_reads_ends_a_command_without_a_word(root: Path, arguments: tuple[str, ...]):
    """As `| head` does, when it has seen enough."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "sitewarden", *arguments]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            command, cwd=root, env=buffered, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


# --- where the gateway is ---


@contextmanager
def gateway(data: Path) -> Iterator[None]:
    """Somebody who listens on the control socket of this data folder."""
    data.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(gateways.short(data / SOCKET))
        listener.listen()
        yield


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and no service on this machine."""
    folder = tmp_path_factory.mktemp("w")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(gateways, "SERVICE_DATA", folder / "lib")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return folder


def test_the_option_comes_first_then_the_environment_then_the_usual_places():
    data, config = Path("d"), Path("/etc/plant/site.toml")
    environment = {"STATE_DIRECTORY": "/x:/y"}
    assert folders(data, config, environment) == (data,)
    assert folders(None, config, environment) == (Path("/x"),)
    assert folders(None, config, {}) == (Path("/etc/plant"), SERVICE_DATA, DEMO_DATA)
    assert folders(None, None, {"STATE_DIRECTORY": ""}) == (SERVICE_DATA, DEMO_DATA)
    assert folders(None, DEMO_DATA / "site.toml", {}) == (DEMO_DATA, SERVICE_DATA), "each once"


def test_a_gateway_is_found_in_its_folder_and_in_a_demos(here: Path):
    demo = here / "demo"
    with gateway(demo / "edge"):
        for folder in (demo, demo / "edge"):
            (place,) = look([folder])
            assert (place.found, place.socket) == (Found.LIVE, demo / "edge" / SOCKET)
    assert look([demo])[0].found is Found.SILENT, "left behind by one that was killed"
    assert look([here / "nope"])[0].found is Found.NO_FOLDER
    (here / "file").touch()
    assert look([here / "file"])[0].found is Found.NO_FOLDER
    (demo / SOCKET).write_text("no socket", "utf-8")
    assert look([demo])[0].found is Found.SILENT


def test_a_folder_that_may_not_be_looked_into(here: Path, monkeypatch: pytest.MonkeyPatch):
    closed = here / "closed"
    closed.mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as root_may_everything:
        root_may_everything.setattr(os, "stat", refuse)
        places = look([closed])
    assert places[0].found is Found.CLOSED
    with pytest.raises(PermanentError, match="sudo -u sitewarden"):
        the_gateway(places, EN)


def test_a_path_that_is_too_long_is_said(here: Path):
    deep = here / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    (place,) = look([deep])
    assert place.found is Found.TOO_LONG
    assert (
        place.say(EN)
        == f"{deep}: too long for a socket, which may have {LONGEST_PATH} bytes (a relative path may be shorter)"
    )


def test_none_and_several_are_told_with_every_place(here: Path):
    wanted = folders(None, None, {})
    with pytest.raises(PermanentError) as none:
        the_gateway(look(wanted), ZH)
    assert (
        none.value.message
        == f"没有找到运行中的网关，查找过：\n  {here / 'lib'}：没有这个文件夹\n  var/demo：没有这个文件夹"
    )
    with gateway(here / "lib"), gateway(DEMO_DATA / "edge"):
        with pytest.raises(PermanentError) as several:
            the_gateway(look(wanted), EN)
        assert several.value.message == (
            f"2 gateways run here:\n  {here / 'lib'}: a gateway runs\n  var/demo: a gateway runs"
        )
        assert the_gateway(look(folders(here / "lib", None, {})), EN).data == here / "lib"
    with gateway(here / "var" / "other"), gateway(here / "x"):
        assert the_gateway(look([here / "nope", here / "x"]), EN).data == here / "x"


@pytest.mark.parametrize("command", ["reload", "output", "proof"])
def test_the_commands_look_where_the_probe_looks(here: Path, command: str):
    said = run(command)
    assert said.exit_code == 1
    assert said.stderr == (
        f"sitewarden: no running gateway was found; looked in\n  {here / 'lib'}: there is no such folder\n"
        "  var/demo: there is no such folder\nstart it, or name its data folder with --data\n"
    )
    said = run(command, "--lang", "zh", STATE_DIRECTORY=str(here))
    assert said.stderr.splitlines()[1:] == [f"  {here}：没有运行的网关", "请启动网关，或用 --data 指明它的数据文件夹"]


@pytest.mark.parametrize("command", [("edge", "--config", "x"), ("cloud", "--config", "x"), ("key",)])
def test_what_makes_stores_never_looks_around(command: tuple[str, ...], here: Path):
    if command[0] == "cloud":
        shutil.copy(Path(__file__).parent.parent / "config" / "cloud.toml", here / "x")
        for name in ("people.csv", "baseline.toml"):
            shutil.copy(Path(__file__).parent.parent / "config" / name, here)
    said = run(*command)
    assert said.exit_code == 2
    assert "$STATE_DIRECTORY, which systemd sets, is not set either" in said.stderr
    assert "由 systemd 设置）也没有" in run("--lang", "zh", *command).stderr


# --- a reload in words ---

ANSWER = {
    "changes": ["device store.th2: added"],
    "needs_restart": ["web.port"],
    "revision": "0123456789ab",
    "file": "/etc/sitewarden/site.toml",
    "is_new": True,
    "devices": {"added": 1, "removed": 0, "changed": 2, "untouched": 3},
    "rules": {"added": 4, "removed": 5, "changed": 6, "untouched": 7},
}


def test_what_a_reload_did():
    assert list(applied_lines(ANSWER, EN)) == [
        "applied: /etc/sitewarden/site.toml, revision 0123456789ab",
        "  device store.th2: added",
        "  web.port: was changed, and counts from the next start on (sudo systemctl restart sitewarden-edge)",
        "devices: 1 added, 0 removed, 2 changed, 3 untouched",
        "alarm rules: 4 added, 5 removed, 6 changed, 7 untouched",
    ]
    assert list(applied_lines(ANSWER, ZH))[1::2] == [
        "  设备 store.th2：新增",
        "设备：新增 1，移除 0，改动 2，未动 3",
    ]
    comments = {**ANSWER, "changes": [], "needs_restart": []}
    assert list(applied_lines(comments, EN))[1] == "  only comments or the order are different"
    same = {**comments, "is_new": False}
    assert list(applied_lines(same, EN)) == ["nothing was changed: /etc/sitewarden/site.toml, revision 0123456789ab"]


def test_a_gateway_of_an_older_version_says_less():
    old = {"changes": ["device store.th2: added"], "needs_restart": [], "revision": "0123456789ab"}
    assert list(applied_lines(old, EN)) == ["applied: site.toml, revision 0123456789ab", "  device store.th2: added"]


@pytest.mark.parametrize(
    ("line", "chinese"),
    [
        ("device store.th2: poll_s 5 -> 2", "设备 store.th2：poll_s 5 -> 2"),
        ("bus net: removed", "总线 net：移除"),
        ("[cloud]: added", "云端：新增"),
        ("channel robot: url changed", "通道 robot：url 已改动"),
        ("channel robot: url_file holds another address", "通道 robot：url_file 中的内容已改动"),
        ("suppress washing: added", "屏蔽 washing：新增"),
        ("duty li keeper day: removed", "值班 li keeper day：移除"),
        ("device store.th2: profile own was changed", "设备 store.th2：型号 own 的文件已改动"),
        ("profiles: what the devices measure was changed", "型号：设备测量的内容已改动"),
        ("person li: phone changed", "人员 li：phone 已改动"),
        ("alarm store.th1.humidity: hi none -> 75", "报警 store.th1.humidity：hi none -> 75"),
        ("site.name 甲 -> 乙", "site.name 甲 -> 乙"),
    ],
)
def test_changes_in_chinese(line: str, chinese: str):
    assert change(line, ZH) == chinese
    assert change(line, EN) == line


def test_ctrl_c_while_a_reload_waits(here: Path, monkeypatch: pytest.MonkeyPatch):
    """The gateway takes the connection and never answers."""
    monkeypatch.setattr(asking, "_PATIENCE_S", 0.05)
    with gateway(here / "d"):
        code = "import sitewarden.asking as a; a._PATIENCE_S = 0.05; from sitewarden.cli import main; main()"
        command = [sys.executable, "-c", code, "reload", "--data", "d", "--lang", "zh"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "等待网关（d/control.sock）…\n"
            process.send_signal(2)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait(60)
    assert (process.returncode, err) == (130, "\n不再等待；网关可能仍会应用该文件，请看其日志\n")
