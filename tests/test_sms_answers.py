"""What a modem says, whatever comes in between; its errors in words; the ladder; status reports; what is remembered."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.edge.alerts.port import Fault
from sitewarden.edge.alerts.sms import answers
from sitewarden.edge.alerts.sms.answers import News, Stored, Stream
from sitewarden.edge.alerts.sms.ladder import Ladder, Rung
from sitewarden.edge.alerts.sms.memory import FileMemory
from sitewarden.edge.alerts.sms.modem import SmsSettings
from sitewarden.edge.alerts.sms.pdu import StatusReport
from sitewarden.edge.alerts.sms.tracking import Proof, Reports
from sitewarden.edge.alerts.sms.troubles import Cure, RefusedCommandError, TroubleError, explain, fault_of
from sitewarden.tests.peers.fake_modem import encode_deliver, encode_report, tpdu_length

PHONE = "+8613800138000"
DELIVER = encode_deliver(PHONE, "OK")
REPORT = encode_report(7, PHONE, 0)

NEWS = {
    b'\r\n+CMTI: "SM",3\r\n': News(name="+CMTI", value='"SM",3'),
    b"\r\nRING\r\n": News(name="RING"),
    b"\r\n^RSSI:17\r\n": News(name="^RSSI", value="17"),
    b'\r\n+CREG: 1,"1816","D58B",7\r\n': News(name="+CREG", value='1,"1816","D58B",7'),
    b"\r\n+CREG: 2\r\n": News(name="+CREG", value="2"),
    f"\r\n+CDS: {tpdu_length(REPORT)}\r\n{REPORT}\r\n".encode(): News(
        name="+CDS", value=str(tpdu_length(REPORT)), pdu=REPORT
    ),
    f"\r\n+CMT: ,{tpdu_length(DELIVER)}\r\n{DELIVER}\r\n".encode(): News(
        name="+CMT", value=f",{tpdu_length(DELIVER)}", pdu=DELIVER
    ),
    f'\r\n+CMT: "",{tpdu_length(DELIVER)}\r\n{DELIVER}\r\n'.encode(): News(
        name="+CMT", value=f'"",{tpdu_length(DELIVER)}', pdu=DELIVER
    ),
    b'\r\n+CMT: "+8613800138000","","26/11/22,13:14:50+32"\r\nOK\r\n': News(
        name="+CMT", value='"+8613800138000","","26/11/22,13:14:50+32"'
    ),
}
LISTED = f"\r\n+CMGL: 1,0,,{tpdu_length(DELIVER)}\r\n{DELIVER}\r\n+CMGL: 12,3,,30\r\n{DELIVER}\r\n\r\nOK\r\n".encode()
ANSWERS = {
    ("+CSQ", b"\r\n+CSQ: 20,99\r\n\r\nOK\r\n"): (answers.signal, {"signal_dbm": -73, "signal_bars": 4}),
    ("+CREG", b"AT+CREG?\r\r\n+CREG: 0,5\r\n\r\nOK\r\n"): (answers.registration, 5),
    ("+COPS", b'\r\n+COPS: 0,0,"OK",7\r\n\r\nOK\r\n'): (answers.operator, "OK"),
    ("+CMGS", b"\r\n+CMGS: 123\r\n\r\nOK\r\n"): (answers.message_reference, 123),
    ("+CMGL", LISTED): (
        answers.stored,
        [Stored(index=1, state=0, pdu=DELIVER), Stored(index=12, state=3, pdu=DELIVER)],
    ),
    ("", b"\r\n460001234567890\r\n\r\nOK\r\n"): (answers.subscriber, "46000…7890"),
}


def feed(stream: Stream, raw: bytes, size: int) -> list[News]:
    return [news for at in range(0, len(raw), size) for news in stream.feed(raw[at : at + size])]


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("news", NEWS, ids=lambda raw: raw.decode().split()[0])
@pytest.mark.parametrize("asked", ANSWERS, ids=lambda asked: asked[0] or "+CIMI")
def test_news_between_any_two_bytes_of_an_answer(asked: tuple[str, bytes], news: bytes, size: int) -> None:
    name, raw = asked
    reads, want = ANSWERS[asked]
    if NEWS[news].name == name:
        return  # switched off, as nobody could tell them from the answer
    for at in range(len(raw) + 1):
        stream = Stream()
        stream.ask(name)
        told = feed(stream, raw[:at] + news + raw[at:], size)
        assert told == [NEWS[news]], at
        answer = stream.answer
        assert answer is not None, at
        assert (answer.error, reads(answer.text)) == ("", want), at


@pytest.mark.parametrize("news", NEWS, ids=lambda raw: raw.decode().split()[0])
def test_news_between_any_two_bytes_of_a_prompt(news: bytes) -> None:
    for prompt in (b"\r\n> ", b"AT+CMGS=23\r\r\n> ", b"\r\n>\r\n"):
        for at in range(len(prompt) + 1):
            stream = Stream()
            stream.ask("+CMGS")
            told = feed(stream, prompt[:at] + news + prompt[at:], 1)
            assert told == [NEWS[news]]
            assert stream.prompted
            assert stream.answer is None


def test_an_answer_is_not_there_before_its_end() -> None:
    for name, raw in ANSWERS:
        stream = Stream()
        stream.ask(name)
        for at in range(len(raw) - 2):
            stream.feed(raw[at : at + 1])
            assert stream.answer is None
            assert not stream.prompted


@pytest.mark.parametrize("error", ["ERROR", "+CMS ERROR: 500", "+CME ERROR: SIM not inserted", "+CMS ERROR:38"])
def test_errors_end_an_answer(error: str) -> None:
    stream = Stream()
    stream.ask("+CMGS")
    stream.feed(f"AT+CMGS=20\r\r\n{error}\r\n".encode())
    assert stream.answer is not None
    assert stream.answer.error == error


def test_no_ok_is_taken_from_within_a_line() -> None:
    stream = Stream()
    stream.ask("+COPS")
    stream.feed(b'\r\n+COPS: 0,0,"OK"\r\nTOKYO OK\r\nOKAY\r\n"OK"\r\n')
    assert stream.answer is None
    stream.feed(b"\x00\xffOK\xfe\r\n")
    assert stream.answer is not None


def test_one_line_end_between_news_and_answer_is_enough() -> None:
    stream = Stream()
    stream.ask("+CSQ")
    told = stream.feed(b'\r\n+CSQ: 20,99\r\n+CMTI: "SM",1\r\nOK\r\n')
    assert [news.name for news in told] == ["+CMTI"]
    assert stream.answer is not None
    assert answers.signal(stream.answer.text)


SHORT = [raw for raw, news in NEWS.items() if not news.pdu and news.name not in ("+CMT", "+CREG")]
LONG = [raw for raw, news in NEWS.items() if news.pdu]
ROUND = st.tuples(
    st.lists(st.sampled_from(SHORT), max_size=3),
    st.sampled_from(LONG),
    st.integers(3, 400),
    st.lists(st.sampled_from(SHORT), max_size=3),
)


@settings(deadline=None)
@given(st.lists(ROUND, min_size=1, max_size=12), st.integers(1, 60))
def test_one_line_end_between_any_two_lines_is_enough(rounds: list[Any], size: int) -> None:
    """Many questions, with news between answer and OK, and within a message."""
    stream = Stream()
    for before, message, at, behind in rounds:
        stream.ask("+CSQ")
        first = b"\r\n+CSQ: 20,99" + b"".join(news.removesuffix(b"\r\n") for news in before) + b"\r\n"
        begin = message.index(b"\r\n", 2) + 2
        at = begin + at % (len(message) - begin - 2)
        within = message[:at] + b"\r\nRING\r\n" + message[at:]
        last = b"".join(news.removesuffix(b"\r\n") for news in behind) + b"\r\nOK\r\n"
        told = feed(stream, first + within + last, size)
        want = [*(NEWS[news] for news in before), News(name="RING"), *(NEWS[news] for news in behind)]
        assert [news for news in told if not news.pdu] == want
        assert [news for news in told if news.pdu] == [NEWS[message]]
        assert stream.answer is not None
        assert answers.signal(stream.answer.text) is not None


def test_an_old_answer_is_not_the_new_one() -> None:
    stream = Stream()
    stream.ask("+CSQ")
    stream.feed(b"\r\n+CSQ: 20,99\r\n\r\nOK\r\n")
    stream.ask("+CREG")
    assert stream.answer is None
    assert stream.text == ""


def test_a_message_may_come_by_half_before_the_next_question() -> None:
    raw = f"\r\n+CDS: {tpdu_length(REPORT)}\r\n{REPORT}\r\n".encode()
    for at in range(len(raw)):
        stream = Stream()
        assert stream.feed(raw[:at]) == []
        stream.ask("+CSQ")
        told = stream.feed(raw[at:] + b"\r\n+CSQ: 20,99\r\n\r\nOK\r\n")
        assert [news.pdu for news in told] == [REPORT]
        assert stream.answer is not None
        assert answers.signal(stream.answer.text) is not None


def test_news_between_any_two_bytes_of_a_message() -> None:
    for raw, want in [(raw, want) for raw, want in NEWS.items() if want.pdu]:
        for at in range(len(raw) + 1):
            for size in (1, 4096):
                told = feed(Stream(), raw[:at] + b"\r\nRING\r\n" + raw[at:], size)
                assert sorted(told, key=lambda news: news.name) == [want, News(name="RING")], at


def test_a_modem_that_never_stops_talking_is_bounded() -> None:
    stream = Stream()
    stream.ask("+CSQ")
    for _ in range(200):
        stream.feed(b"rubbish without an end " * 50)
    assert len(stream.text) <= 65_536
    for _ in range(200):
        assert len(stream.feed(b"rubbish\r\nRING\r\n")) == 1
        stream.ask("+CSQ")
    assert len(stream._held) <= 2048
    assert max(stream._cuts) <= len(stream._held)
    stream.feed(b"\r\n+CSQ: 9,0\r\n\r\nOK\r\n")
    assert stream.answer is not None


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_rubbish_does_not_upset_the_stream(pieces: list[bytes]) -> None:
    stream = Stream()
    stream.ask("+CSQ")
    for piece in pieces:
        stream.feed(piece)
    _ = stream.answer, stream.prompted, stream.text
    stream.ask("+CSQ")
    stream.feed(b"\r\n\r\n+CSQ: 20,99\r\n\r\nOK\r\n")
    assert stream.answer is not None


@pytest.mark.parametrize(
    ("news", "restarted"),
    [
        (b"\r\nRDY\r\n", True),
        (b"\r\n+CFUN: 1\r\n", True),
        (b"\r\n^SYSSTART: 1\r\n", True),
        (b'\r\n+CMT: "10086","","26/11/22,13:14:50+32"\r\nhello\r\n', True),
        (b'\r\n+CMTI: "SM",3\r\n', False),
        (b"\r\nRING\r\n", False),
    ],
)
def test_a_modem_that_restarted_is_noticed(news: bytes, restarted: bool) -> None:
    (told,) = Stream().feed(news)
    assert told.is_restart is restarted


# --- what is in an answer ---


@pytest.mark.parametrize(
    ("rssi", "dbm", "bars"),
    [
        *((0, -113, 0), (2, -109, 1), (9, -95, 1), (10, -93, 2), (15, -83, 3), (20, -73, 4), (31, -51, 4)),
        *((99, None, 0), (141, -75, 3), (199, None, 0)),
    ],
)
def test_signal(rssi: int, dbm: int | None, bars: int) -> None:
    assert answers.signal(f"+CSQ: {rssi},99\r\n") == {"signal_dbm": dbm, "signal_bars": bars}


def test_damaged_answers_are_none() -> None:
    assert answers.signal("+CSQ: 2") is None
    assert answers.registration('+CREG: 1,"1816"') is None
    assert answers.operator("rubbish") is None
    assert answers.centre('+CSCA: "+86138') is None
    assert answers.sim_state("READY") is None
    assert answers.message_reference("+CMGS: 1\r\n%2\r\n") is None
    assert answers.subscriber("46000") == ""


def test_numbers_of_message_centres() -> None:
    assert answers.centre('\r\n+CSCA: "+8613800100500",145\r\n') == "+8613800100500"
    assert answers.centre('\r\n+CSCA: "",129\r\n') == ""
    ucs2 = "+8613800100500".encode("utf-16-be").hex().upper()
    assert answers.centre(f'\r\n+CSCA: "{ucs2}",145\r\n') == "+8613800100500"


def test_room_of_the_storage() -> None:
    assert answers.room("+CPMS: 3,50,3,50,3,50") == (3, 50)
    assert answers.room('+CPMS: "SM",4,20,"SM",4,20') == (4, 20)
    assert answers.room("OK") is None


# --- errors in words ---


@pytest.mark.parametrize(
    ("said", "meaning", "cure", "fault"),
    [
        ("+CMS ERROR: 500", "unknown error", Cure.RESET, Fault.REFUSING),
        ("+CMS ERROR: 310", "no SIM", Cure.PERSON, Fault.REFUSING),
        ("+CME ERROR: 10", "no SIM", Cure.PERSON, Fault.REFUSING),
        ("+CME ERROR: SIM not inserted", "no SIM", Cure.PERSON, Fault.REFUSING),
        ("+CME ERROR: 11", "PIN", Cure.PERSON, Fault.REFUSING),
        ("+CME ERROR: 12", "PUK", Cure.PERSON, Fault.REFUSING),
        ("+CMS ERROR: 50", "bars SMS", Cure.PERSON, Fault.REFUSING),
        ("+CMS ERROR: 330", "message centre", Cure.PERSON, Fault.REFUSING),
        ("+CMS ERROR: 331", "no network", Cure.RESET, Fault.OFFLINE),
        ("+CMS ERROR: 38", "out of order", Cure.RETRY, Fault.REFUSING),
        ("+CMS ERROR: 314", "busy", Cure.WAIT, Fault.REFUSING),
        ("+CMS ERROR: 4711", "", Cure.RETRY, Fault.REFUSING),
        ("+CMS ERROR: nobody knows", "", Cure.RETRY, Fault.REFUSING),
        ("ERROR", "", Cure.RETRY, Fault.REFUSING),
    ],
)
def test_errors_say_what_to_do(said: str, meaning: str, cure: Cure, fault: Fault) -> None:
    refusal = explain(said)
    assert meaning in refusal.meaning
    assert (refusal.cure, fault_of(refusal)) == (cure, fault)
    assert str(refusal).startswith(said)
    if cure is Cure.PERSON:
        assert refusal.hint
        assert refusal.hint in str(refusal)


def test_a_refused_pin_is_not_shown() -> None:
    assert "4711" not in str(RefusedCommandError('+CPIN="4711"', "+CME ERROR: 16"))


# --- the ladder ---

GONE = TroubleError(Fault.SILENT, "no answer")
STUCK = TroubleError(Fault.REFUSING, "500", by_send=True)
PERSON = TroubleError(Fault.REFUSING, "no SIM", resets=False)


def rungs(ladder: Ladder, trouble: TroubleError, count: int) -> list[Rung]:
    return [ladder.next(trouble, 0.5)[0] for _ in range(count)]


def test_ladder_goes_up_and_begins_again_for_ever() -> None:
    assert rungs(Ladder(1, 60), GONE, 9) == [*Rung, *Rung, Rung.REOPEN]


def test_a_stuck_modem_is_reset_at_once_and_a_person_is_waited_for() -> None:
    ladder = Ladder(1, 60)
    assert rungs(ladder, PERSON, 3) == [Rung.REOPEN] * 3
    assert rungs(ladder, STUCK, 3) == [Rung.RADIO, Rung.RESTART, Rung.POWER]


def test_pauses_grow_are_jittered_and_bounded() -> None:
    for chance in (0.0, 0.5, 1.0):
        ladder = Ladder(1, 60)
        pauses = [ladder.next(GONE, chance)[1] for _ in range(2000)]
        share = 0.5 + chance / 2
        assert pauses[:4] == [share, 2 * share, 4 * share, 8 * share]
        assert pauses[-1] == 60 * share


def test_ladder_begins_again_after_five_good_minutes_or_a_message() -> None:
    ladder = Ladder(1, 60)
    rungs(ladder, GONE, 2)
    ladder.well(100)
    ladder.well(399)
    assert rungs(ladder, GONE, 1) == [Rung.RESTART], "it was not well for long enough"
    ladder.well(500)
    ladder.well(800)
    assert ladder.next(GONE, 1.0) == (Rung.REOPEN, 1.0)
    ladder.proven()
    assert ladder.next(GONE, 1.0) == (Rung.REOPEN, 1.0)


def test_refused_messages_reset_the_modem_ever_more_rarely() -> None:
    """The refusals may be the fault of one number: the others must not pay for it every minute."""
    ladder = Ladder(1, 60)
    asked = [at for at in range(0, 20_000, 10) if ladder.may_reset(at)]
    assert asked[:5] == [0, 60, 240, 780, 2400]
    assert {later - earlier for earlier, later in itertools.pairwise(asked[5:])} == {1800}
    ladder.proven()
    assert ladder.may_reset(asked[-1] + 1)


# --- status reports ---


def report(reference: int, status: int = 0, phone: str = PHONE) -> StatusReport:
    return StatusReport(reference=reference, recipient=phone, status=status)


def sending(reports: Reports, *references: int | None, receipt: str = "r", phone: str = PHONE) -> None:
    one = reports.begin(receipt, phone, len(references))
    for part, reference in enumerate(references, 1):
        reports.accepted(one, part, reference)
    reports.complete(one, 0.0)


def test_delivered_when_every_part_is() -> None:
    reports = Reports()
    sending(reports, 255, 0)
    assert reports.take(report(0))
    assert reports.settled(5, 60) == []
    assert reports.take(report(255, phone="13800138000"))
    assert reports.settled(0.5, 60) == [], "who sent it has not noted the receipt yet"
    assert reports.settled(5, 60) == [Proof(receipt="r", delivered=True, detail="received by the phone")]
    assert not reports.take(report(255)), "the second report of a part"
    assert reports.settled(500, 60) == []
    assert len(reports) == 0


def test_failed_when_one_part_is() -> None:
    reports = Reports()
    sending(reports, 1, 2)
    reports.take(report(2, 0x46))
    (proof,) = reports.settled(5, 60)
    assert not proof.delivered
    assert "0x46" in proof.detail
    assert "out of reach" in proof.detail


def test_still_trying_is_no_end() -> None:
    reports = Reports()
    sending(reports, 1)
    reports.take(report(1, 0x22))
    assert reports.settled(59, 60) == []
    (proof,) = reports.settled(60, 60)
    assert not proof.delivered
    assert proof.detail.startswith("no status report within 60 s; last status 0x22")


def test_overdue_says_how_much_arrived() -> None:
    reports = Reports()
    sending(reports, 1, 2, None)
    reports.take(report(2))
    (proof,) = reports.settled(60, 60)
    assert proof.detail == "no status report within 60 s, 1 of 3 parts arrived"


def test_reports_of_others_prove_nothing() -> None:
    reports = Reports()
    sending(reports, 1)
    assert not reports.take(report(2))
    assert not reports.take(report(1, phone="+8613800138001"))
    assert reports.settled(59, 60) == []


def test_the_same_number_twice_is_the_older_message_first() -> None:
    """A modem that was reset counts anew."""
    reports = Reports()
    sending(reports, 1, receipt="old")
    sending(reports, 1, receipt="new")
    reports.take(report(1))
    assert [proof.receipt for proof in reports.settled(5, 60)] == ["old"]
    reports.take(report(1))
    assert [proof.receipt for proof in reports.settled(5, 60)] == ["new"]


def test_a_part_has_one_report() -> None:
    """The next one of its number is another message's."""
    reports = Reports()
    sending(reports, 1, 2, receipt="old")
    reports.take(report(1))
    sending(reports, 1, receipt="new")
    reports.take(report(1))
    assert [proof.receipt for proof in reports.settled(5, 60)] == ["new"]


def test_a_report_before_the_modems_own_answer() -> None:
    reports = Reports()
    reports.take(report(9))  # of an earlier message
    one = reports.begin("r", PHONE, 1)
    reports.take(report(8))
    reports.accepted(one, 1, 8)
    reports.complete(one, 0.0)
    (proof,) = reports.settled(5, 60)
    assert proof.delivered
    two = reports.begin("s", PHONE, 1)
    reports.take(report(9, phone="10086"))
    reports.accepted(two, 1, 9)
    reports.complete(two, 0.0)
    assert reports.settled(5, 60) == [], "what came before it was sent is not its report"


def test_a_message_that_failed_gets_no_proof() -> None:
    reports = Reports()
    one = reports.begin("r", PHONE, 2)
    reports.accepted(one, 1, 1)
    reports.take(report(1))
    assert reports.settled(500, 60) == []
    reports.drop(one)
    assert len(reports) == 0


# --- memory ---


def test_references_go_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "sms.json"
    first = FileMemory(path).next_reference()
    memory = FileMemory(path)
    assert [memory.next_reference() for _ in range(300)] == [(first + n) % 256 for n in range(1, 301)]
    assert FileMemory(path).next_reference() == (first + 301) % 256
    assert path.stat().st_mode & 0o077 == 0


def test_a_pin_is_known_again_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "sms.json"
    memory = FileMemory(path)
    assert not memory.pin_is_spent("4711")
    assert memory.note_pin("4711", accepted=False)
    assert FileMemory(path).pin_is_spent("4711")
    assert not FileMemory(path).pin_is_spent("4712")
    assert "4711" not in path.read_text("utf-8")
    memory.next_reference()
    assert FileMemory(path).pin_is_spent("4711")
    assert memory.note_pin("4711", accepted=True)
    assert not FileMemory(path).pin_is_spent("4711")


@pytest.mark.parametrize("damage", ["", "{", "[]", '"x"', "\x00\x00"])
def test_a_damaged_file_costs_the_right_to_try_a_pin(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "sms.json"
    path.write_text(damage, "utf-8")
    memory = FileMemory(path)
    assert 0 <= memory.next_reference() <= 255
    assert memory.pin_is_spent("4711")
    assert FileMemory(path).pin_is_spent("4711"), "also after it was written anew"


def test_strange_values_in_the_file_are_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "sms.json"
    path.write_text(json.dumps({"reference": True, "pin_tried": 7}), "utf-8")
    assert 0 <= FileMemory(path).next_reference() <= 255
    assert not FileMemory(path).pin_is_spent("4711")


def test_a_file_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = FileMemory(tmp_path / "gone" / "sms.json")
    with caplog.at_level(logging.ERROR):
        first, second = memory.next_reference(), memory.next_reference()
    assert second == (first + 1) % 256
    assert not memory.note_pin("4711", accepted=False)
    assert len(caplog.records) == 1


# --- docs/sms.md ---


def test_the_document_names_every_setting_and_its_default(root: Path) -> None:
    section = (root / "docs" / "sms.md").read_text("utf-8").split("## Settings")[1].split("\n## ")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", section, re.MULTILINE))
    assert documented == {one.name: _default(one) for one in dataclasses.fields(SmsSettings)}


def _default(one: dataclasses.Field[Any]) -> str:
    match one.default:
        case dataclasses.MISSING:
            return "required"
        case None:
            return "–"
        case str():
            return f'"{one.default}"'
        case _:
            return f"{one.default:.10g}"


def test_the_document_tells_the_errors_that_need_a_person(root: Path) -> None:
    faults = (root / "docs" / "sms.md").read_text("utf-8").split("## Faults")[1].split("\n## ")[0]
    for number, words in ((8, "barred"), (10, "barred"), (50, "barred"), (330, "message centre"), (500, "reset")):
        line = next(line for line in faults.splitlines() if "+CMS ERROR" in line and re.search(rf"\b{number}\b", line))
        assert words in line
        assert explain(f"+CMS ERROR: {number}").cure in (Cure.PERSON, Cure.RESET)
