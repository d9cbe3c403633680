"""The SMS channel against a modem on a pty that is not ours and misbehaves. `scenario_8` is that of the alarm facts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from sitewarden.edge.alerts.port import Channel, Fault, Notice, Outcome, Receiver, Sent
from sitewarden.edge.alerts.sms import dialogue, line, sender, tracking
from sitewarden.edge.alerts.sms.memory import FileMemory
from sitewarden.edge.alerts.sms.modem import SmsModem, SmsSettings
from sitewarden.tests.peers.fake_modem import FakeModem, encode_deliver, encode_report, tpdu_length

PHONE = "+8613800138000"
URGENT = "【红】【一级】一号库氢气浓度超过上上限，请立即撤离并打开排风，"
CHINESE_94 = URGENT + "".join(chr(0x4E00 + n) for n in range(94 - len(URGENT)))
Eventually = Callable[..., Awaitable[Any]]


class Seen:
    """What the channel tells."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, bool, str]] = []
        self.replies: list[tuple[str, str]] = []
        self.sent_ms: list[int | None] = []

    def report(self, receipt: str, delivered: bool, detail: str) -> None:
        self.reports.append((receipt, delivered, detail))

    def reply(self, phone: str, text: str, sent_ms: int | None = None) -> None:
        self.replies.append((phone, text))
        self.sent_ms.append(sent_ms)


@pytest.fixture
def modem(tmp_path: Path) -> Iterator[FakeModem]:
    with FakeModem(tmp_path) as modem:
        yield modem


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the channel waits between two looks or tries, a fifth of it."""
    for module, name in ((dialogue, "_POLL_S"), (sender, "_PAUSE_S"), (tracking, "_SETTLE_S"), (line, "TURN_S")):
        monkeypatch.setattr(module, name, getattr(module, name) / 5)


@pytest.fixture
def settings(modem: FakeModem, tmp_path: Path) -> SmsSettings:
    """As short as a pty allows; `check_s` is long, so that a test sees what it asks for."""
    return settings_of(modem, tmp_path)


def settings_of(modem: FakeModem, folder: Path, **changes: Any) -> SmsSettings:
    given: dict[str, Any] = {
        "port": str(modem.path),
        "memory": FileMemory(folder / "sms.json"),
        "report_s": 20.0,
        "send_limit_s": 60.0,
        "answer_s": 3.0,
        "submit_s": 10.0,
        "check_s": 600.0,
        "register_s": 1.0,
        "pause_s": 0.05,
        "pause_max_s": 0.2,
    }
    return SmsSettings(**{**given, **changes})


@contextlib.asynccontextmanager
async def entered(settings: SmsSettings, seen: Seen) -> AsyncIterator[SmsModem]:
    async with SmsModem(settings, seen) as channel:
        yield channel


@contextlib.asynccontextmanager
async def ready(settings: SmsSettings, seen: Seen, eventually: Eventually) -> AsyncIterator[SmsModem]:
    async with entered(settings, seen) as channel:
        await eventually(lambda: channel._ready, lambda: f"ready: {channel.health}")
        yield channel


def notice(text: str = "【红】test", phone: str = PHONE, priority: int = 1) -> Notice:
    return Notice(key="k", to=Receiver(phone=phone), title="【红】", text=text, priority=priority)


async def sent_ok(channel: Channel, text: str = "【红】test", phone: str = PHONE) -> Sent:
    sent = await channel.send(notice(text, phone))
    assert sent.outcome is Outcome.ACCEPTED, sent
    return sent


def fault(channel: Channel, kind: Fault) -> Callable[[], bool]:
    return lambda: channel.health.fault is kind


# --- scenario 8 ---


async def test_scenario_8_94_chinese_characters_are_two_parts(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    assert len(CHINESE_94) == 94
    async with ready(settings, seen, eventually) as channel:
        sent = await sent_ok(channel, CHINESE_94)
        assert modem.messages == [(PHONE, CHINESE_94)]
        assert [len(part.text) for part in modem.sent] == [67, 27]
        assert "8000" in sent.detail
        assert PHONE not in sent.detail
        await eventually(lambda: seen.reports, "the proof")
        assert seen.reports == [(sent.receipt, True, "received by the phone")]
        assert (channel.health.accepted, channel.health.delivered, channel.health.failed) == (1, 1, 0)


async def test_scenario_8_surrogate_pair_at_the_boundary(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    text = "火" * 66 + "🔥" + "灾" * 10
    async with ready(settings, seen, eventually) as channel:
        await sent_ok(channel, text)
    assert [part.text for part in modem.sent] == ["火" * 66, "🔥" + "灾" * 10]


async def test_scenario_8_lost_prompt(modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually) -> None:
    modem.lost_prompts = 1
    async with ready(settings_of(modem, tmp_path, answer_s=1.0), seen, eventually) as channel:
        await sent_ok(channel, CHINESE_94)
    assert modem.messages == [(PHONE, CHINESE_94)]
    assert len(modem.sent) == 2, "no part went out twice"
    assert len(modem.said("+CMGS=")) == 3


async def test_scenario_8_prompts_that_never_come(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    modem.lost_prompts = 2
    async with ready(settings_of(modem, tmp_path, answer_s=0.5), seen, eventually) as channel:
        sent = await channel.send(notice())
        assert sent.outcome is Outcome.FAILED
        assert "no prompt" in sent.detail
        assert not sent.uncertain, "nothing was handed over"
        assert modem.sent == []
        await sent_ok(channel)


@pytest.mark.parametrize(
    "news",
    [
        b"\r\n^RSSI:17\r\n",
        b"\r\nRING\r\n",
        b'\r\n+CMTI: "SM",9\r\n',
        b'\r\n+CREG: 1,"1816","D58B"\r\n',
        f"\r\n+CDS: {tpdu_length(encode_report(77, PHONE, 0))}\r\n{encode_report(77, PHONE, 0)}\r\n".encode(),
    ],
    ids=["vendor", "ring", "message", "cell", "report"],
)
async def test_scenario_8_news_in_the_middle_of_every_answer(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually, news: bytes
) -> None:
    modem.interrupt = news
    async with ready(settings, seen, eventually) as channel:
        for n in range(6):
            await sent_ok(channel, f"{n}{CHINESE_94}")
        assert modem.messages == [(PHONE, f"{n}{CHINESE_94}") for n in range(6)]
        assert len(modem.sent) == 12, "no part went out twice"
        await eventually(lambda: len(seen.reports) == 6, "the proofs")
        assert {delivered for _, delivered, _ in seen.reports} == {True}
        assert channel.health.fault is Fault.NONE


async def test_scenario_8_rubbish_in_the_middle_of_answers(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    """What nobody can tell from an answer: it costs time, perhaps a part twice, and never a message."""
    async with ready(settings_of(modem, tmp_path, answer_s=0.5), seen, eventually) as channel:
        modem.interrupt = b"\r\n\xfe\x81%> \x00?\r\n"
        for n in range(3):
            for _ in range(20):
                if (await channel.send(notice(f"{n} {CHINESE_94}"))).outcome is Outcome.ACCEPTED:
                    break
            else:
                pytest.fail(f"never accepted: {channel.health}")
    assert {text for _, text in modem.messages} == {f"{n} {CHINESE_94}" for n in range(3)}


@pytest.mark.parametrize("cure", ["+CFUN=1", "+CFUN=1,1"])
async def test_scenario_8_error_500_until_the_modem_is_reset(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually, cure: str
) -> None:
    async with ready(settings, seen, eventually) as channel:
        modem.stuck, modem.cure = "+CMS ERROR: 500", cure

        async def accepted() -> bool:
            sent = await channel.send(notice())
            if sent.outcome is Outcome.FAILED:
                assert "500" in sent.detail
                channel._ladder._reset_s = 0.0  # as if the minutes between two resets were over
            return sent.outcome is Outcome.ACCEPTED

        assert not await accepted()
        assert channel.health.fault is Fault.NONE, "one refusal may be the number's fault"
        assert not await accepted()
        await eventually(fault(channel, Fault.REFUSING), "the fault")
        assert "500" in channel.health.detail
        await eventually(accepted, lambda: f"a message: {channel.health}")
        assert channel.health.fault is Fault.NONE
    assert modem.messages == [(PHONE, "【红】test")]
    assert modem.said(cure)


async def test_scenario_8_unplugged_and_plugged_in_again(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    async with ready(settings_of(modem, tmp_path, report_s=2.0), seen, eventually) as channel:
        first = await sent_ok(channel, "before")
        modem.unplug()
        await eventually(fault(channel, Fault.OFFLINE), "the loss")
        sent = await channel.send(notice("without"))
        assert sent.outcome is Outcome.FAILED
        assert "modem" in sent.detail
        await eventually(lambda: len(seen.reports) == 1, "the proof, or that there is none")
        assert seen.reports[0][0] == first.receipt
        modem.plug()
        await eventually(fault(channel, Fault.NONE), lambda: f"back: {channel.health}")
        await sent_ok(channel, "after")
    assert [text for _, text in modem.messages] == ["before", "after"]
    own = [record for record in caplog.records if record.name.startswith("sitewarden")]
    assert [record.levelno for record in own] == [logging.ERROR, logging.WARNING], "one loss, one recovery"


async def test_scenario_8_unplugged_between_two_parts(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings, seen, eventually) as channel:
        modem.submits = [None, "lost"]
        task = asyncio.create_task(channel.send(notice(CHINESE_94)))
        await eventually(lambda: len(modem.sent) == 2, "the second part")
        modem.unplug()
        sent = await task
        assert (sent.outcome, sent.uncertain) == (Outcome.FAILED, True)
        modem.plug()
        await eventually(lambda: channel._ready, "back")
        await sent_ok(channel, CHINESE_94)
    assert {part.joint[0] for part in modem.sent[:2] if part.joint} != {
        part.joint[0] for part in modem.sent[2:] if part.joint
    }, "another attempt is another message"


async def test_scenario_8_report_missing(modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually) -> None:
    """The outbox hears that no proof came, and takes the receiver's next channel."""
    modem.status = None
    async with ready(settings_of(modem, tmp_path, report_s=1.0), seen, eventually) as channel:
        sent = await sent_ok(channel, CHINESE_94)
        assert seen.reports == []
        await eventually(lambda: seen.reports, "the missing proof")
        assert seen.reports == [(sent.receipt, False, "no status report within 1 s, 0 of 2 parts arrived")]
        assert channel.health.delivered == 0


async def test_scenario_8_report_missing_while_the_modem_is_gone(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    modem.status = None
    async with ready(settings_of(modem, tmp_path, report_s=1.0), seen, eventually) as channel:
        sent = await sent_ok(channel)
        modem.unplug()
        await eventually(lambda: seen.reports, "the missing proof")
        assert seen.reports[0][:2] == (sent.receipt, False)


# --- proof ---


async def test_the_networks_reason_is_told(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem.status = 0x46
    async with ready(settings, seen, eventually) as channel:
        sent = await sent_ok(channel)
        await eventually(lambda: seen.reports, "the report")
        assert seen.reports == [
            (sent.receipt, False, "status 0x46: validity period over: the phone was off or out of reach")
        ]


async def test_a_report_that_comes_twice_or_before_the_answer_counts_once(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem.twice = modem.early = True
    async with ready(settings, seen, eventually) as channel:
        receipts = {(await sent_ok(channel, f"{n}{CHINESE_94}")).receipt for n in range(4)}
        await eventually(lambda: len(seen.reports) >= 4, "the proofs")
        assert {(receipt, True) for receipt in receipts} == {report[:2] for report in seen.reports}
        assert len(seen.reports) == 4


async def test_reports_through_the_storage(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    """A modem that does not know the direct way."""
    modem.replies = {"+CNMI=2,1,0,1,0": "\r\nERROR\r\n", "+CNMI=1,1,0,1,0": "\r\nERROR\r\n"}
    async with ready(settings, seen, eventually) as channel:
        sent = await sent_ok(channel)
        await eventually(lambda: seen.reports, "the proof")
        assert seen.reports == [(sent.receipt, True, "received by the phone")]
        await eventually(lambda: not modem.storage, "the report is deleted")


async def test_without_reports_there_is_no_receipt(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings_of(modem, tmp_path, report_s=0.0), seen, eventually) as channel:
        assert (await sent_ok(channel)).receipt == ""
    assert not modem.sent[0].wants_report


# --- parts ---


async def test_only_the_missing_part_is_sent_again(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem.submits = [None, "+CMS ERROR: 38", None]
    async with ready(settings, seen, eventually) as channel:
        await sent_ok(channel, CHINESE_94 * 2)
    assert [part.joint[2] for part in modem.sent if part.joint] == [1, 2, 3]
    assert len({part.joint[0] for part in modem.sent if part.joint}) == 1
    assert modem.messages == [(PHONE, CHINESE_94 * 2)]


async def test_a_part_that_is_never_taken_fails_the_message(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem.submits = [None, *["+CMS ERROR: 38"] * 3]
    async with ready(settings, seen, eventually) as channel:
        sent = await channel.send(notice(CHINESE_94))
        assert sent.outcome is Outcome.FAILED
        assert sent.detail == "part 2 of 2: +CMS ERROR: 38 the network is out of order"
        assert not sent.uncertain, "every part was answered"
        assert sent.receipt == ""
        assert len(channel._reports) == 0, "the first part's report proves nothing"
        assert (channel.health.accepted, channel.health.failed) == (0, 1)


async def test_a_part_that_was_lost_once_stays_uncertain(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    modem.submits = [None, "lost", *["+CMS ERROR: 38"] * 2]
    async with ready(settings_of(modem, tmp_path, submit_s=0.5), seen, eventually) as channel:
        sent = await channel.send(notice(CHINESE_94))
    assert (sent.outcome, sent.uncertain) == (Outcome.FAILED, True)


async def test_a_single_part_is_not_tried_again_here(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    """The outbox does."""
    modem.submits = ["+CMS ERROR: 38"]
    async with ready(settings, seen, eventually) as channel:
        assert (await channel.send(notice())).outcome is Outcome.FAILED
    assert len(modem.said("+CMGS=")) == 1


async def test_the_reference_goes_on_after_a_restart(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    for _ in range(3):
        async with ready(settings_of(modem, tmp_path), seen, eventually) as channel:
            await sent_ok(channel, CHINESE_94)
    references = [part.joint[0] for part in modem.sent if part.joint]
    first = references[0]
    assert references == [(first + n) % 256 for n in (0, 0, 1, 1, 2, 2)]


async def test_long_texts_are_cut_and_that_is_said(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings_of(modem, tmp_path, parts_max=2), seen, eventually) as channel:
        sent = await sent_ok(channel, "火" * 200)
    assert modem.messages == [(PHONE, "火" * 133 + "…")]
    assert "cut to 134 of 200 characters" in sent.detail


@pytest.mark.parametrize(
    ("text", "marks", "arrives"),
    [
        ("【红】x", {"is_test": True}, "【测试】【红】x"),
        ("【测试】【红】x", {"is_test": True}, "【测试】【红】x"),
        ("【红】x", {"resent": True}, "（重发）【红】x"),
        ("【红】x", {"is_test": True, "resent": True}, "【测试】（重发）【红】x"),
        ("火\ud83d灾", {}, "火 灾"),
    ],
)
async def test_what_is_a_test_or_comes_again_says_so(
    modem: FakeModem,
    settings: SmsSettings,
    seen: Seen,
    eventually: Eventually,
    text: str,
    marks: dict[str, bool],
    arrives: str,
) -> None:
    async with ready(settings, seen, eventually) as channel:
        sent = await channel.send(dataclasses.replace(notice(text), **marks))
        assert sent.outcome is Outcome.ACCEPTED
    assert modem.messages == [(PHONE, arrives)]


# --- one attempt ---


@pytest.mark.parametrize("phone", ["", "none", "+86138001380001380013800"])
async def test_no_such_number_is_refused(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually, phone: str
) -> None:
    async with ready(settings, seen, eventually) as channel:
        sent = await channel.send(notice(phone=phone))
        assert sent.outcome is Outcome.REFUSED
        assert "3 to 20 digits" in sent.detail
        assert channel.health.failed == 1
    assert not modem.said("+CMGS")


async def test_urgent_messages_go_first(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings, seen, eventually) as channel:
        modem.slow_s = 0.2
        first = asyncio.create_task(channel.send(notice("first", priority=4)))
        await eventually(lambda: modem.said("+CMGS"), "the first one is under way", every_s=0.01)
        later = [channel.send(notice(f"p{p}{n}", priority=p)) for n in (1, 2) for p in (4, 1, 3)]
        await asyncio.gather(first, *later)
    assert [text for _, text in modem.messages] == ["first", "p11", "p12", "p31", "p32", "p41", "p42"]


async def test_before_the_modem_is_ready_it_is_nobodys_fault(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    modem.registration = 2
    async with entered(settings_of(modem, tmp_path, register_s=600.0), seen) as channel:
        await eventually(lambda: channel.health.facts.get("registration") == "searching", "it searches")
        sent = await channel.send(notice())
        assert (sent.outcome, channel.health.failed) == (Outcome.LATER, 0)
        assert sent.retry_s > 0
        modem.registration = 5
        await eventually(lambda: channel._ready, "it is registered")
        assert channel.health.facts["registration"] == "roaming"
        await sent_ok(channel)


async def test_a_busy_sim_is_later(modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually) -> None:
    modem.submits = ["+CMS ERROR: 314"]
    async with ready(settings, seen, eventually) as channel:
        assert (await channel.send(notice())).outcome is Outcome.LATER


async def test_a_lost_answer_fails_the_attempt(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    modem.submits = ["lost"]
    async with ready(settings_of(modem, tmp_path, submit_s=0.5), seen, eventually) as channel:
        sent = await channel.send(notice())
        assert sent.outcome is Outcome.FAILED
        assert "no answer" in sent.detail
        assert sent.uncertain, "it is in the network, and nobody said so"
        assert channel.health.fault is Fault.NONE, "the modem is still there"
        await sent_ok(channel)


@pytest.mark.parametrize(
    ("error", "uncertain"),
    [("+CMS ERROR: 332", True), ("+CME ERROR: 31", True), ("+CMS ERROR: 38", False), ("+CMS ERROR: 500", False)],
)
async def test_a_networks_answer_that_is_lost_leaves_it_open(
    error: str, uncertain: bool, modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    """Network timeout (3GPP TS 27.005 §3.2.5): the message centre may have the message."""
    modem.submits = [error]
    async with ready(settings, seen, eventually) as channel:
        sent = await channel.send(notice())
    assert (sent.outcome, sent.uncertain) == (Outcome.FAILED, uncertain)


async def test_a_late_ok_of_another_command_is_no_acceptance(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    modem.submits = ["OK"]
    async with ready(settings_of(modem, tmp_path, submit_s=0.5), seen, eventually) as channel:
        assert (await channel.send(notice())).outcome is Outcome.FAILED
    assert modem.sent == []


async def test_what_waits_too_long_costs_no_attempt(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings_of(modem, tmp_path, submit_s=8.0, send_limit_s=9.0), seen, eventually) as channel:
        modem.submits = ["lost"]
        first = asyncio.create_task(channel.send(notice("first")))
        await eventually(lambda: modem.sent, "the first one is under way")
        second = await channel.send(notice("second"))
        assert ((await first).outcome, (await first).uncertain) == (Outcome.FAILED, True)
        assert (second.outcome, second.uncertain) == (Outcome.LATER, False)
        assert channel.health.failed == 1


async def test_nobody_waits_for_a_cancelled_message(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings, seen, eventually) as channel:
        modem.slow_s = 0.3
        task = asyncio.create_task(channel.send(notice(CHINESE_94 * 3)))
        await eventually(lambda: modem.sent, "the first part")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        modem.slow_s = 0.0
        await sent_ok(channel, "next")
    assert modem.messages == [(PHONE, "next")]
    assert len(modem.sent) < 6


# --- the modem's manners ---


async def test_echo_that_cannot_be_switched_off(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem.echo_always = True
    async with ready(settings, seen, eventually) as channel:
        await sent_ok(channel, CHINESE_94)
        await eventually(lambda: seen.reports, "the proof")
    assert modem.messages == [(PHONE, CHINESE_94)]


async def test_facts_for_people(modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually) -> None:
    modem.replies = {"+CSQ": "\r\n+CSQ: 12,99\r\n\r\nOK\r\n"}
    async with ready(settings, seen, eventually) as channel:
        assert channel.health.facts == {
            "signal_dbm": -89,
            "signal_bars": 2,
            "operator": "OK",
            "registration": "home",
            "sim": "READY",
            "imsi": "46000…7890",
            "smsc": "+8613800100500",
            "storage_used": 0,
            "storage_total": 10,
            "storage_foreign": 0,
        }
        assert (channel.health.fault, channel.health.detail) == (Fault.NONE, "")


async def test_a_modem_that_lacks_what_is_not_needed(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    lacking = ["+CSMS=0", '+CPMS="SM","SM","SM"', "+CREG=0", "+CEREG=0", "+CEREG?", "+CSQ", "+COPS=3,0", "+COPS?"]
    lacking += ["+CIMI", "+CSCA?", "+CMEE=1", "+CMGL=4"]
    modem.replies = dict.fromkeys(lacking, "\r\nERROR\r\n")
    async with ready(settings, seen, eventually) as channel:
        await sent_ok(channel)
        await eventually(lambda: seen.reports, "the proof")


async def test_a_modem_without_pdu_mode_is_said_so(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem.replies = {"+CMGF=0": "\r\nERROR\r\n"}
    async with entered(settings, seen) as channel:
        await eventually(fault(channel, Fault.REFUSING), "the fault")
        assert "PDU mode" in channel.health.detail


@pytest.mark.parametrize("word", [b"\r\nRDY\r\n", b'\r\n+CMT: "+8613800138000","","26/11/22,13:14:50+32"\r\nOK\r\n'])
async def test_a_modem_that_reset_itself_is_told_everything_again(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually, word: bytes
) -> None:
    async with ready(settings, seen, eventually) as channel:
        modem.reset()
        modem.say(word)
        await eventually(lambda: len(modem.said("+CMGF=0")) == 2 and channel._ready, "it is told again")
        await sent_ok(channel)
        await eventually(lambda: seen.reports, "the proof")
        assert channel.health.fault is Fault.NONE


async def test_a_reset_that_nobody_noticed_ends_with_the_next_check(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings_of(modem, tmp_path, check_s=0.5), seen, eventually) as channel:
        modem.reset()
        await eventually(lambda: modem._settings.pdu_mode and modem._settings.reports, "it is told again")
        await sent_ok(channel)


async def test_a_prompt_that_the_last_process_left_open(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem._pdu_length = 23
    async with ready(settings, seen, eventually) as channel:
        await sent_ok(channel)
    assert modem.messages == [(PHONE, "【红】test")]


# --- faults ---


async def test_no_modem_at_the_start(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem.unplug()
    async with entered(settings, seen) as channel:
        await eventually(fault(channel, Fault.OFFLINE), "the fault")
        assert "not there" in channel.health.detail
        assert channel.health.facts["zh"].startswith("短信模块没有接好或没有网络")
        assert "/dev/serial/by-id" in channel.health.detail
        modem.plug()
        await eventually(fault(channel, Fault.NONE), "it is there")
        await sent_ok(channel)


async def test_another_program_has_the_port(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    with serial.Serial(str(modem.path), exclusive=True):
        async with entered(settings, seen) as channel:
            await eventually(fault(channel, Fault.REFUSING), lambda: f"the fault: {channel.health}")
            assert "another program" in channel.health.detail
            assert "ModemManager" in channel.health.detail


async def test_the_port_is_no_serial_port(modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    async with entered(settings_of(modem, tmp_path, port=str(tmp_path / "file")), seen) as channel:
        await eventually(fault(channel, Fault.OFFLINE), "the fault")
        assert "AT port" in channel.health.detail


async def test_a_modem_that_hangs_is_reset(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    modem.hang_cure = "+CFUN=0"
    async with ready(settings_of(modem, tmp_path, answer_s=0.5), seen, eventually) as channel:
        modem.hangs = True
        sent = await channel.send(notice())
        assert sent.outcome is Outcome.FAILED
        await eventually(fault(channel, Fault.SILENT), "the fault")
        assert "no answer" in channel.health.detail
        before = channel.health.beat_s
        await eventually(lambda: channel.health.beat_s > before + 1, "the loop turns")
        assert (await channel.send(notice())).outcome is Outcome.FAILED
        await eventually(fault(channel, Fault.NONE), lambda: f"back: {channel.health}", bound_s=120)
        await sent_ok(channel)


async def test_the_last_rung_is_the_power_for_ever(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    cycles = 0

    async def power_cycle() -> None:
        nonlocal cycles
        cycles += 1
        modem.unplug()
        if cycles == 1:
            raise OSError("the hub did not answer")
        modem.hangs = False
        modem.plug()

    changes = {"answer_s": 0.2, "power_cycle": power_cycle}
    async with ready(settings_of(modem, tmp_path, **changes), seen, eventually) as channel:
        modem.hangs = True
        await channel.send(notice())
        await eventually(lambda: cycles == 2, lambda: f"the power: {channel.health}", bound_s=120)
        await eventually(fault(channel, Fault.NONE), "back")
        await sent_ok(channel)


async def test_no_sim(modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually) -> None:
    modem.sim = "absent"
    async with entered(settings, seen) as channel:
        await eventually(fault(channel, Fault.REFUSING), "the fault")
        assert channel.health.detail.startswith("SIM: no SIM (put a SIM in")
        assert (await channel.send(notice())).outcome is Outcome.FAILED
        modem.sim = "busy"
        await eventually(fault(channel, Fault.NONE), "the SIM is there")
        await sent_ok(channel)
    assert not modem.said("+CFUN"), "a reset brings no SIM"


async def test_a_sim_that_was_taken_out_is_seen_by_the_next_message(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings, seen, eventually) as channel:
        modem.sim, modem.submits = "absent", ["+CMS ERROR: 310"]
        sent = await channel.send(notice())
        assert sent.outcome is Outcome.FAILED
        assert "no SIM" in sent.detail
        await eventually(fault(channel, Fault.REFUSING), "the fault")


async def test_the_right_pin(modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually) -> None:
    modem.sim = "SIM PIN"
    async with ready(settings_of(modem, tmp_path, pin="1234"), seen, eventually) as channel:
        await sent_ok(channel)
        modem.sim = "SIM PIN"  # the SIM lost its power
        modem.say(b"\r\nRDY\r\n")
        await eventually(lambda: len(modem.said("+CPIN=")) == 2 and channel._ready, "the PIN again, as it is right")


async def test_a_wrong_pin_is_tried_once_and_never_again(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """A SIM locks itself after three."""
    modem.sim = "SIM PIN"
    for _ in range(4):  # systemd starts the daemon again and again
        async with entered(settings_of(modem, tmp_path, pin="4711", answer_s=0.3), seen) as channel:
            asked = len(modem.said("+CPIN?"))
            await eventually(lambda asked=asked: len(modem.said("+CPIN?")) > asked + 2, "it is asked again and again")
            await eventually(fault(channel, Fault.REFUSING), "the fault")
            assert "PIN" in channel.health.detail
            assert "4711" not in f"{channel.health} {await channel.send(notice())} {channel._settings}"
    assert modem.said("+CPIN=") == ['+CPIN="4711"']
    assert modem.pin_tries == 2
    assert "4711" not in caplog.text
    async with ready(settings_of(modem, tmp_path, pin="1234"), seen, eventually) as channel:
        await sent_ok(channel)


@pytest.mark.parametrize(("pin", "tries"), [("4711", 2), ("1234", 3)])
async def test_a_pin_whose_answer_is_lost_is_not_tried_again(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually, pin: str, tries: int
) -> None:
    modem.sim, modem.mute = "SIM PIN", {f'+CPIN="{pin}"'}
    async with entered(settings_of(modem, tmp_path, pin=pin, answer_s=0.5), seen) as channel:
        right = pin == modem.pin
        await eventually(lambda: channel._ready if right else channel.health.fault is Fault.REFUSING, "the verdict")
    assert len(modem.said("+CPIN=")) == 1
    assert modem.pin_tries == tries


@pytest.mark.parametrize(
    ("pin", "said"), [("", "give the PIN"), ("12ab", "4 to 8 digits"), ('1"\rAT+CMGD=1,4', "4 to 8 digits")]
)
async def test_a_pin_that_is_none_is_not_tried(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually, pin: str, said: str
) -> None:
    modem.sim = "SIM PIN"
    async with entered(settings_of(modem, tmp_path, pin=pin), seen) as channel:
        await eventually(fault(channel, Fault.REFUSING), "the fault")
        assert said in channel.health.detail
    assert not modem.said("+CPIN=")


async def test_a_pin_is_not_tried_when_that_cannot_be_kept(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    modem.sim = "SIM PIN"
    memory = FileMemory(tmp_path / "gone" / "sms.json")
    async with entered(settings_of(modem, tmp_path, pin="1234", memory=memory), seen) as channel:
        await eventually(fault(channel, Fault.REFUSING), "the fault")
        assert "cannot be kept" in channel.health.detail
    assert not modem.said("+CPIN=")


async def test_a_locked_sim(modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually) -> None:
    modem.sim = "SIM PUK"
    async with entered(settings_of(modem, tmp_path, pin="1234"), seen) as channel:
        await eventually(fault(channel, Fault.REFUSING), "the fault")
        assert "SIM PUK" in channel.health.detail
    assert not modem.said("+CPIN=")


async def test_no_network(modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually) -> None:
    modem.registration = 2
    async with entered(settings, seen) as channel:
        await eventually(fault(channel, Fault.OFFLINE), "the fault")
        assert "searching" in channel.health.detail
        assert "antenna" in channel.health.detail
        await eventually(lambda: modem.said("+CFUN=0"), "it is sent off and on the network", bound_s=60)
        modem.registration = 1
        await eventually(fault(channel, Fault.NONE), "it is registered")
        await sent_ok(channel)


async def test_registration_denied(modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually) -> None:
    modem.registration = 3
    async with entered(settings, seen) as channel:
        await eventually(fault(channel, Fault.REFUSING), "the fault")
        assert "denies registration" in channel.health.detail


async def test_registration_lost_is_seen_by_a_check(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    settings = settings_of(modem, tmp_path, check_s=0.5, register_s=3.0)
    async with ready(settings, seen, eventually) as channel:
        modem.registration = 2
        await eventually(lambda: not channel._ready, "the loss")
        assert channel.health.fault is Fault.NONE
        assert (await channel.send(notice())).outcome is Outcome.LATER
        await eventually(fault(channel, Fault.OFFLINE), "the fault")
        assert (await channel.send(notice())).outcome is Outcome.FAILED
        modem.registration = 1
        await eventually(fault(channel, Fault.NONE), "back")


async def test_no_message_centre(modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually) -> None:
    modem.smsc = ""
    async with entered(settings_of(modem, tmp_path), seen) as channel:
        await eventually(fault(channel, Fault.REFUSING), "the fault")
        assert "message centre" in channel.health.detail
    async with ready(settings_of(modem, tmp_path, smsc="+8613800100500"), seen, eventually) as channel:
        await sent_ok(channel)
    assert modem.smsc == "+8613800100500"


async def test_a_barred_sim_stays_a_fault_until_a_message_goes_out(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings_of(modem, tmp_path, check_s=0.5), seen, eventually) as channel:
        modem.submits = ["+CMS ERROR: 50"]
        sent = await channel.send(notice())
        assert sent.outcome is Outcome.FAILED
        assert "ask the operator" in sent.detail
        await eventually(fault(channel, Fault.REFUSING), "the fault")
        checks = len(modem.said("+CPIN?"))
        await eventually(lambda: len(modem.said("+CPIN?")) > checks + 1, "checks that find nothing")
        assert channel.health.fault is Fault.REFUSING
        await sent_ok(channel)
        assert channel.health.fault is Fault.NONE
    assert not modem.said("+CFUN"), "a reset does not help"


async def test_one_bad_number_does_not_reset_the_modem_for_all(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings, seen, eventually) as channel:
        modem.submits = ["+CMS ERROR: 28"] * 6
        for _ in range(6):
            assert (await channel.send(notice())).outcome is Outcome.FAILED
        assert channel.health.fault is Fault.NONE
    assert not modem.said("+CFUN")


async def test_a_modem_with_answers_of_its_own(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    ok = "\r\n\r\nOK\r\n"
    modem.replies = {
        "+CSQ": "\r\n+CSQ: strong" + ok,
        "+CREG?": "\r\n+CREG: ?" + ok,
        "+CEREG?": "\r\n+CEREG: 0, 1" + ok,
        "+COPS?": "\r\n+COPS: 0" + ok,
        "+CSCA?": "\r\n+CSCA" + ok,
        "+CIMI": "\r\nIMSI" + ok,
    }
    async with ready(settings, seen, eventually) as channel:
        assert channel.health.facts["registration"] == "home"
        await sent_ok(channel)


async def test_leaving_a_modem_that_hangs(modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually) -> None:
    async with asyncio.timeout(30):
        async with ready(settings_of(modem, tmp_path, answer_s=0.5), seen, eventually) as channel:
            modem.hangs = True
            task = asyncio.create_task(channel.send(notice()))
            await eventually(lambda: modem.said("+CMGS"), "it is under way")
        assert ((await task).outcome, (await task).uncertain) == (Outcome.FAILED, True), "nobody knows how far it came"
        assert (await channel.send(notice())).detail == "the channel is closed"


async def test_a_defect_is_a_fault_and_not_the_end(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("broken")

    async with ready(settings, seen, eventually) as channel:
        with monkeypatch.context() as patch:
            patch.setattr(channel._reports, "begin", broken)
            assert (await channel.send(notice())).outcome is Outcome.FAILED
            await eventually(fault(channel, Fault.SILENT), "the fault")
            assert "ZeroDivisionError" in channel.health.detail
        await eventually(fault(channel, Fault.NONE), "back")
        await sent_ok(channel)


# --- what comes in ---


async def test_an_answer_is_handed_over_and_deleted(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings, seen, eventually):
        for text in ("1234", "OK", "收到，1234 😀", "\r\nOK\r\n"):
            modem.receive(encode_deliver(PHONE, text))
        await eventually(lambda: len(seen.replies) == 4, lambda: f"the answers: {seen.replies}")
        assert seen.replies == [(PHONE, text) for text in ("1234", "OK", "收到，1234 😀", "\r\nOK\r\n")]
        assert seen.sent_ms == [1795324490000] * 4, "2026-11-22 13:14:50 at the centre, eight hours east"
        await eventually(lambda: not modem.storage, "they are deleted")


async def test_what_waited_in_the_storage_is_read_at_the_start(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem.storage = {
        2: (0, encode_deliver(PHONE, "1")),
        5: (1, encode_deliver("13800138000", "2")),
        6: (3, encode_deliver(PHONE, "a draft")),
        7: (0, "00FF00"),
    }
    async with ready(settings, seen, eventually) as channel:
        assert seen.replies == [(PHONE, "1"), ("13800138000", "2")]
        assert list(modem.storage) == [6], "what we did not receive is not ours to delete"
        assert channel.health.facts["storage_foreign"] == 1


async def test_a_full_storage_is_emptied(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    modem.capacity = 3
    modem.storage = {n: (1, encode_deliver("10086", f"advert {n}")) for n in (1, 2, 3)}
    modem.waiting = [encode_deliver(PHONE, f"{n}") for n in range(5)]
    async with ready(settings, seen, eventually):
        await eventually(lambda: len(seen.replies) == 8, lambda: f"all of them: {seen.replies}")
        assert [text for phone, text in seen.replies if phone == PHONE] == list("01234")
        assert not modem.storage


async def test_a_long_answer_comes_in_parts(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings, seen, eventually):
        modem.receive(encode_deliver(PHONE, "确认，", joint=(5, 2, 1)))
        await eventually(lambda: modem.said("+CMGL"), "it is read")
        modem.receive(encode_deliver(PHONE, "other"))
        await eventually(lambda: seen.replies == [(PHONE, "other")], "the other one")
        assert len(modem.storage) == 1, "a part waits where a power cut does not reach it"
        modem.receive(encode_deliver(PHONE, "1234", joint=(5, 2, 2)))
        await eventually(lambda: len(seen.replies) == 2, "the whole")
        assert seen.replies[1] == (PHONE, "确认，1234")
        await eventually(lambda: not modem.storage, "both parts are deleted")


async def test_parts_in_the_other_order(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    """The place of a part that waited is read again behind the one that completes it."""
    modem.storage = {2: (0, encode_deliver(PHONE, "1234", joint=(5, 2, 2)))}
    async with ready(settings, seen, eventually) as channel:
        modem.receive(encode_deliver(PHONE, "确认，", joint=(5, 2, 1)))
        assert list(modem.storage) == [2, 1]
        await eventually(lambda: not modem.storage, "both parts are deleted")
        assert seen.replies == [(PHONE, "确认，1234")]
        assert channel._mailbox._parts.overdue(1e12, 0.0) == [], "nothing is left to be handed over late"


async def test_what_cannot_be_deleted_is_not_handed_over_twice(
    modem: FakeModem, tmp_path: Path, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings_of(modem, tmp_path, check_s=0.3), seen, eventually):
        modem.undeletable = True
        modem.receive(encode_deliver(PHONE, "1234"))
        await eventually(lambda: len(modem.said("+CMGD=1")) > 3, "it is tried again")
        assert seen.replies == [(PHONE, "1234")]
        modem.undeletable = False
        await eventually(lambda: not modem.storage, "it is deleted")
        modem.receive(encode_deliver(PHONE, "1234"))
        await eventually(lambda: len(seen.replies) == 2, "the same words again are another message")


async def test_a_name_that_looks_like_a_number_is_nobody(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings, seen, eventually):
        modem.receive(encode_deliver("13800138000", "1234", named=True))
        modem.receive(encode_deliver(PHONE, "after"))
        await eventually(lambda: seen.replies, "the other one")
        assert seen.replies == [(PHONE, "after")]
        await eventually(lambda: not modem.storage, "both are deleted")


async def test_a_modem_that_delivers_directly(
    modem: FakeModem, settings: SmsSettings, seen: Seen, eventually: Eventually
) -> None:
    async with ready(settings, seen, eventually) as channel:
        modem._settings.stored = 2
        modem.receive(encode_deliver(PHONE, "1234", joint=(1, 2, 1)))
        modem.receive(encode_deliver(PHONE, "OK", joint=(1, 2, 2)))
        await eventually(lambda: seen.replies == [(PHONE, "1234OK")], "the answer")
        await sent_ok(channel)
