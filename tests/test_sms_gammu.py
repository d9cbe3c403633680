"""gammu, which is not ours, as the judge of both: it reads the PDUs that we make, and takes our fake for a modem."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sitewarden.edge.alerts.port import Notice, Outcome, Receiver
from sitewarden.edge.alerts.sms.memory import FileMemory
from sitewarden.edge.alerts.sms.modem import SmsModem, SmsSettings
from sitewarden.edge.alerts.sms.pdu import StatusReport, Verdict, decode, split, submits
from sitewarden.tests.peers.fake_modem import ESCAPED, TABLE, FakeModem, encode_deliver, encode_report

PHONE = "+8613800138000"
GSM = "".join(char for char in TABLE if char not in "\x1b\r\n") + "".join(ESCAPED.values()).replace("\f", "")
TEXTS = {
    "94 Chinese characters": "【红】" + "".join(chr(0x4E00 + n) for n in range(91)),
    "surrogate pair at the boundary": "火" * 66 + "🔥" + "灾" * 70 + "🔥",
    "the GSM alphabet in parts": GSM * 3,
    "escape pair at the boundary": "x" * 152 + "€" + "y" * 152 + "€" * 9,
    "one part": "【红】一号库 hydrogen 4.2 %LEL",
    "one GSM part": "@" * 7 + "{" + "x" * 151,
}
Eventually = Callable[..., Awaitable[object]]
Gammu = Callable[..., Awaitable[str]]


@pytest.fixture
def modem(tmp_path: Path) -> Iterator[FakeModem]:
    with FakeModem(tmp_path, capacity=255) as modem:
        yield modem


@pytest.fixture
def gammu(modem: FakeModem, tmp_path: Path, need: Callable[[str, str], str]) -> Gammu:
    """`await gammu("getallsms")`: what it prints; it must succeed."""
    program = need("gammu", "apt-get install gammu")
    config = tmp_path / "gammurc"
    config.write_text(f"[gammu]\ndevice = {modem.path}\nconnection = at115200\nuse_locking = no\n", "utf-8")

    async def run(*args: str) -> str:
        pipe = asyncio.subprocess.PIPE
        given = {"stdout": pipe, "stderr": pipe, "stdin": asyncio.subprocess.DEVNULL, "env": {"LC_ALL": "C.UTF-8"}}
        process = await asyncio.create_subprocess_exec(program, "-c", str(config), *args, **given)
        try:
            async with asyncio.timeout(120):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, f"{args}: {out.decode()}{err.decode()}; it said {modem.commands[-8:]}"
        return out.decode("utf-8")

    return run


def blocks(told: str) -> list[str]:
    """What gammu tells of each message."""
    return re.split(r"^Location \d+,.*\n", re.sub(r"\n\d+ SMS parts in .*", "", told), flags=re.MULTILINE)[1:]


def texts(told: str) -> list[str]:
    """The text of each message: behind an empty line, before two others."""
    return [block.partition("\n\n")[2].strip("\n") for block in blocks(told)]


async def test_gammu_reads_what_the_channel_sends(
    modem: FakeModem, gammu: Gammu, eventually: Eventually, tmp_path: Path
) -> None:
    class Nobody:
        def report(self, receipt: str, delivered: bool, detail: str) -> None: ...
        def reply(self, phone: str, text: str, sent_ms: int | None = None) -> None: ...

    settings = SmsSettings(port=str(modem.path), memory=FileMemory(tmp_path / "sms.json"), parts_max=255)
    async with SmsModem(settings, Nobody()) as channel:
        await eventually(lambda: channel._ready, "ready")
        for text in TEXTS.values():
            notice = Notice(key="k", to=Receiver(phone=PHONE), title="", text=text, priority=1)
            assert (await channel.send(notice)).outcome is Outcome.ACCEPTED
    modem.storage = {n: (3, submit.hex) for n, submit in enumerate(modem.sent, 1)}
    told = await gammu("getallsms")
    assert set(re.findall(r'Remote number +: "(.+)"', told)) == {PHONE}
    places = [f"ID (8 bit) {r}, part {n} of {total}" for r, total, n in (one.joint for one in modem.sent if one.joint)]
    assert re.findall(r"ID \(8 bit\).*", told) == places
    parts = iter(texts(told))
    assert {name: "".join(next(parts) for _ in split(text)) for name, text in TEXTS.items()} == TEXTS
    assert next(parts, None) is None


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "the GSM alphabet in parts"])
async def test_gammu_makes_the_same_octets(modem: FakeModem, gammu: Gammu, name: str) -> None:
    """All but the SMSC, which we leave to the SIM. It also shows that the fake takes what another program sends."""
    text = TEXTS[name]
    unicode = [] if all(char in GSM for char in text) else ["-unicode"]
    await gammu("sendsms", "TEXT", PHONE, "-len", "800", "-report", "-validity", "MAX", *unicode, "-textutf8", text)
    assert modem.messages == [(PHONE, text)]
    reference = modem.sent[0].joint[0] if modem.sent[0].joint else 0
    ours = submits(PHONE, text, reference=reference, validity_s=1e9, report=True)
    theirs = [submit.hex[2 + 2 * int(submit.hex[:2], 16) :] for submit in modem.sent]
    assert [one.tpdu.hex().upper() for one in ours] == theirs


async def test_gammu_reads_what_the_fake_delivers(modem: FakeModem, gammu: Gammu) -> None:
    """So that what our decoder is tested with is what others take for a message."""
    modem.storage = {
        1: (0, encode_deliver(PHONE, "1234 {ok} €")),
        2: (1, encode_deliver("13800138000", "收到😀")),
        3: (0, encode_deliver("CHINA MOBIL", "hello", named=True)),
        4: (0, encode_deliver(PHONE, "x" * 20, joint=(7, 2, 1))),
        5: (0, encode_deliver(PHONE, "火灾", joint=(300, 2, 1), wide=True)),
    }
    told = await gammu("getallsms")
    assert texts(told) == ["1234 {ok} €", "收到😀", "hello", "x" * 20, "火灾"]
    assert re.findall(r'Remote number +: "(.+)"', told) == [PHONE, "13800138000", "CHINA MOBIL", PHONE, PHONE]
    assert re.findall(r"ID \((\d+) bit\) (\d+), part (\d+) of (\d+)", told) == [
        ("8", "7", "1", "2"),
        ("16", "300", "1", "2"),
    ]
    assert set(re.findall(r"Sent +: (.+)", told)) == {"Sun Nov 22 13:14:50 2026 +0800"}


async def test_gammu_and_we_read_status_reports_alike(modem: FakeModem, gammu: Gammu) -> None:
    """But for "forwarded" and "replaced", which gammu takes for delivered and we do not take for proof."""
    statuses = [0x00, 0x20, 0x22, 0x25, 0x30, 0x40, 0x41, 0x46, 0x49, 0x50, 0x60, 0x62, 0x65, 0x70]
    modem.storage = {n: (0, encode_report(n, PHONE, status)) for n, status in enumerate(statuses, 1)}
    told = await gammu("getallsms")
    words = {"Delivered": Verdict.DELIVERED, "Pending": Verdict.TRYING, "Failed": Verdict.FAILED}
    theirs = [words[word] for word in re.findall(r"Delivery status +: (.+)", told)]
    ours: list[StatusReport] = []
    for _, line in modem.storage.values():
        report = decode(line)
        assert isinstance(report, StatusReport)
        ours.append(report)
    assert [report.verdict for report in ours] == theirs
    assert [str(report.reference) for report in ours] == re.findall(r"Reference number +: (.+)", told)


async def test_gammu_takes_the_fake_for_a_modem(modem: FakeModem, gammu: Gammu) -> None:
    told = await gammu("--identify")
    assert re.search(r"SIM IMSI +: 460001234567890", told)
