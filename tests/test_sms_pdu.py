"""SMS PDUs: what is sent is read by another decoder, what is received was made by another encoder."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sitewarden.edge.alerts.sms import alphabet
from sitewarden.edge.alerts.sms.pdu import (
    Coding,
    Delivered,
    PduError,
    Place,
    StatusReport,
    Verdict,
    clean_number,
    coding_of,
    cut,
    decode,
    joined,
    mask,
    split,
    submits,
)
from sitewarden.edge.alerts.sms.tracking import Parts, same_phone
from sitewarden.tests.peers.fake_modem import (
    ESCAPED,
    SCA,
    STAMP,
    TABLE,
    decode_submit,
    encode_address,
    encode_deliver,
    encode_report,
    tpdu_length,
)

PHONE = "+8613800138000"
GSM = "".join(char for char in TABLE if char != "\x1b") + "".join(ESCAPED.values())
CHINESE_94 = "".join(chr(0x4E00 + n) for n in range(94))
ANY_TEXT = st.text(max_size=700)
GSM_TEXT = st.text(alphabet=GSM, max_size=700)


def made(text: str, phone: str = PHONE, reference: int = 7, validity_s: float = 3600.0, report: bool = True):
    return submits(phone, text, reference=reference, validity_s=validity_s, report=report)


def sent(text: str, phone: str = PHONE):
    """As the independent decoder reads what is sent."""
    return [decode_submit(one.hex) for one in made(text, phone)]


def received(line: str) -> Delivered:
    message = decode(line)
    assert isinstance(message, Delivered)
    return message


# --- SUBMIT ---


def test_submit_is_the_published_example() -> None:
    (one,) = made("hellohello", "+46708251358", validity_s=4 * 86_400, report=False)
    assert one.hex == "0011000B916407281553F80000AA0AE8329BFD4697D9EC37"
    assert one.length == 23


@settings(deadline=None)
@given(st.one_of(ANY_TEXT, GSM_TEXT), st.integers(0, 255))
@example("", 0)
@example("😀" * 200, 255)
@example("€" * 200, 1)
def test_whatever_is_sent_is_read_back(text: str, reference: int) -> None:
    parts = [decode_submit(one.hex) for one in made(text, reference=reference)]
    assert "".join(part.text for part in parts) == text
    assert {part.phone for part in parts} == {PHONE}
    assert all(part.wants_report for part in parts)
    assert {part.dcs for part in parts} == {0 if all(char in GSM for char in text) else 8}
    if len(parts) > 1:
        assert [part.joint for part in parts] == [(reference, len(parts), n) for n in range(1, len(parts) + 1)]
    else:
        assert parts[0].joint is None


@settings(deadline=None)
@given(st.one_of(ANY_TEXT, GSM_TEXT))
def test_parts_are_as_few_as_can_be(text: str) -> None:
    """Each part is full, but for a pair that does not fit any more."""
    parts = split(text)
    gsm = all(char in GSM for char in text)
    if gsm:
        sizes = [len(part) + sum(char in ESCAPED.values() for char in part) for part in parts]
    else:
        sizes = [len(part.encode("utf-16-be")) // 2 for part in parts]
    alone, shared = (160, 153) if gsm else (70, 67)
    if len(parts) == 1:
        assert sizes[0] <= alone
    else:
        assert sum(sizes) > alone
        assert all(shared - 1 <= size <= shared for size in sizes[:-1])
        assert 0 < sizes[-1] <= shared


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("火" * 70, [70]),
        ("火" * 71, [67, 4]),
        ("x" * 160, [160]),
        ("x" * 161, [153, 8]),
        ("火" * 66 + "😀" + "火" * 4, [66, 5]),  # the pair would be cut at 67
        ("火" * 65 + "😀" + "火" * 4, [66, 4]),
        ("火" * 69 + "😀", [67, 3]),
        ("x" * 152 + "€" + "x" * 10, [152, 11]),
        ("x" * 151 + "€" + "x" * 10, [152, 10]),
        ("x" * 159 + "€", [153, 7]),
        (CHINESE_94, [67, 27]),
    ],
)
def test_boundaries_of_parts(text: str, lengths: list[int]) -> None:
    parts = sent(text)
    assert [len(part.text) for part in parts] == lengths
    assert "".join(part.text for part in parts) == text


def test_255_parts_are_the_limit() -> None:
    text = "火" * (255 * 67)
    assert "".join(part.text for part in sent(text)) == text
    with pytest.raises(PduError, match="256 parts"):
        made(text + "火")


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    (part,) = sent("火\ud83d灾")
    assert part.text == "火\ufffd灾"


@pytest.mark.parametrize("code", range(128))
def test_every_character_of_the_alphabet(code: int) -> None:
    for char in {TABLE[code], ESCAPED.get(code, "A")} - {"\x1b"}:
        assert coding_of(char) is Coding.GSM7
        (part,) = sent(char)
        assert (part.text, part.dcs) == (char, 0)
    assert coding_of("\x1b") is Coding.UCS2
    assert coding_of("`") is Coding.UCS2


@pytest.mark.parametrize(
    ("written", "dialled"),
    [
        ("+86 138-0013-8000", "+8613800138000"),
        ("13800138000", "13800138000"),
        ("(010) 6552.9988", "01065529988"),
        ("119", "119"),
        ("0086 138 0013 8000", "+8613800138000"),
        ("000", "000"),
        ("+123456789012345", "+123456789012345"),
    ],
)
def test_numbers_are_dialled(written: str, dialled: str) -> None:
    (part,) = sent("x", written)
    assert part.phone == dialled


@pytest.mark.parametrize("phone", ["", "+", "12", "1" * 21, "13800138000x", "１３８", "+86+138", "tel:123456"])
def test_what_no_network_can_dial(phone: str) -> None:
    with pytest.raises(PduError, match="phone number"):
        clean_number(phone)
    assert phone == mask(phone) or len(phone) <= 4 or phone not in mask(phone)


@settings(deadline=None)
@given(st.one_of(st.floats(0, 90_000), st.floats(0, 1e9)))
@example(301.0)
@example(12 * 3600.0)
@example(86_400.0)
@example(86_401.0)
@example(30 * 86_400.0)
def test_validity_is_never_shorter_than_asked(seconds: float) -> None:
    (part,) = [decode_submit(one.hex) for one in made("x", validity_s=seconds)]
    octet = part.validity  # as TS 23.040 §9.2.3.12.1 reads it
    if octet <= 143:
        said, unit = (octet + 1) * 300, 300
    elif octet <= 167:
        said, unit = 12 * 3600 + (octet - 143) * 1800, 1800
    elif octet <= 196:
        said, unit = (octet - 166) * 86_400, 86_400
    else:
        said, unit = (octet - 192) * 604_800, 604_800
    if seconds <= 63 * 604_800:
        assert said >= seconds
        assert said - seconds < unit or said in (300, 5 * 604_800)
    else:
        assert said == 63 * 604_800


@settings(deadline=None)
@given(ANY_TEXT, st.integers(1, 3))
def test_what_is_too_long_is_cut(text: str, parts: int) -> None:
    text = joined(text)
    short = cut(text, parts)
    assert len(split(short)) <= parts
    if len(split(text)) <= parts:
        assert short == text
    else:
        stem = short.removesuffix("...").removesuffix("…")
        assert stem != short
        assert text.startswith(stem)
        rest = text[len(stem) :]
        longer = stem + rest[: len(rest) - len(rest.lstrip()) + 1] + short[len(stem) :]
        assert len(split(longer)) > parts, "a character more would have fitted"


def test_a_cut_latin_text_stays_in_its_alphabet() -> None:
    assert coding_of(cut("x" * 400, 1)) is Coding.GSM7


# --- DELIVER ---


def test_deliver_is_the_published_example() -> None:
    message = received("07917283010010F5040BC87238880900F10000993092516195800AE8329BFD4697D9EC37")
    assert message.text == "hellohello"
    assert message.sender == "27838890001"
    assert message.sent_at == datetime(2099, 3, 29, 13, 16, 59, tzinfo=UTC)  # two hours east


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from([PHONE, "13800138000", "10086"]))
def test_whatever_is_received_is_read(text: str, sender: str) -> None:
    message = received(encode_deliver(sender, text))
    assert (message.text, message.sender, message.is_named, message.place) == (text, sender, False, None)
    assert message.sent_at == datetime(2026, 11, 22, 5, 14, 50, tzinfo=UTC)


@settings(deadline=None)
@given(st.text(alphabet=GSM, max_size=75), st.integers(0, 65_535), st.integers(1, 255), st.booleans())
def test_headers_of_parts(text: str, reference: int, total: int, wide: bool) -> None:
    reference &= 0xFFFF if wide else 0xFF
    message = received(encode_deliver(PHONE, text, joint=(reference, total, total), wide=wide))
    assert message.place == Place(reference=reference, total=total, number=total, wide=wide)
    assert message.text == text


@settings(deadline=None)
@given(st.binary(max_size=140))
def test_octets_are_read_one_by_one(data: bytes) -> None:
    assert received(encode_deliver(PHONE, data)).text.encode("latin-1") == data


@pytest.mark.parametrize("name", ["10086", "CHINA MOBIL", "Sitewarden", "A", "13800138000"])
def test_a_name_is_no_phone(name: str) -> None:
    message = received(encode_deliver(name, "x", named=True))
    assert (message.sender, message.is_named) == (name, True)


GSM_CODINGS = (0x00, 0x10, 0x12, 0xC8, 0xD0, 0xF0, 0xF1, 0x0C)


@pytest.mark.parametrize(
    ("dcs", "coding"),
    [
        *((dcs, "gsm") for dcs in GSM_CODINGS),
        *((dcs, "octets") for dcs in (0x04, 0x15, 0xF5)),
        *((dcs, "ucs2") for dcs in (0x08, 0x18, 0x48, 0xE0)),
    ],
)
def test_codings(dcs: int, coding: str) -> None:
    data = {"gsm": "4321", "octets": b"4321", "ucs2": "4321"}[coding]
    assert received(encode_deliver(PHONE, data, ucs2=coding == "ucs2", dcs=dcs)).text == "4321"


def test_an_unknown_escape_is_read_in_the_basic_alphabet() -> None:
    assert alphabet.text_of([0x1B, 0x41, 0x1B, 0x65, 0x1B]) == "A€"


@pytest.mark.parametrize(
    ("stamp", "want"),
    [
        ("62112231410500", datetime(2026, 11, 22, 13, 14, 50, tzinfo=UTC)),
        ("62112231410522", datetime(2026, 11, 22, 7, 44, 50, tzinfo=UTC)),  # 22 quarters east
        ("6211223141052A", datetime(2026, 11, 22, 18, 44, 50, tzinfo=UTC)),  # 22 quarters west
        ("00000000000000", None),
        ("62312231410523", None),
        ("FFFFFFFFFFFFFF", None),
    ],
)
def test_times(stamp: str, want: datetime | None) -> None:
    assert received(encode_deliver(PHONE, "x", stamp=bytes.fromhex(stamp))).sent_at == want


# --- STATUS-REPORT ---


@pytest.mark.parametrize("status", range(256))
def test_status_reports(status: int) -> None:
    report = decode(encode_report(255 - status, PHONE, status))
    assert isinstance(report, StatusReport)
    assert (report.reference, report.recipient, report.status) == (255 - status, PHONE, status)
    assert f"0x{status:02X}" in report.words
    assert len(report.words) > 12
    want = Verdict.DELIVERED if status == 0 else Verdict.TRYING if 0x20 <= status <= 0x3F else Verdict.FAILED
    assert report.verdict is want


# --- rubbish ---


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200).map(bytes.hex), st.text(max_size=40)))
def test_rubbish_is_never_another_error(line: str) -> None:
    with contextlib.suppress(PduError):
        assert isinstance(decode(line), Delivered | StatusReport)


@pytest.mark.parametrize(
    "line",
    [
        encode_deliver(PHONE, "hello {world}"),
        encode_deliver(PHONE, "你好😀", joint=(300, 2, 1), wide=True),
        encode_deliver("CHINA MOBIL", "x", named=True),
        encode_report(3, PHONE, 0),
    ],
)
def test_what_ends_early_is_a_clear_error(line: str) -> None:
    decode(line)
    for end in range(0, len(line), 2):
        with pytest.raises(PduError, match="ends within"):
            decode(line[:end])


@settings(deadline=None)
@given(st.data())
def test_one_wrong_octet_is_an_error_or_another_message(data: st.DataObject) -> None:
    octets = bytearray.fromhex(encode_deliver(PHONE, "你好", joint=(1, 2, 1)))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PduError):
        assert isinstance(decode(octets.hex()), Delivered | StatusReport)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("zz", "not hex"),
        (SCA.hex() + "01000B9131", "type 1"),
        (SCA.hex() + "03", "type 3"),
        (SCA.hex() + "0415", "ends within"),
        (SCA.hex() + "041591", "21 digits"),
        (SCA.hex() + "040591F131F4", "digits that are none"),
        ((SCA + b"\x44" + encode_address(PHONE) + b"\x00\x08" + STAMP + b"\x02\x05\x00").hex(), "header is longer"),
        ((SCA + b"\x44" + encode_address(PHONE) + b"\x00\x00" + STAMP + b"\x03\x02\x00\x00").hex(), "header is longer"),
        ((SCA + b"\x44" + encode_address(PHONE) + b"\x00\x00" + STAMP + b"\x00").hex(), "header is longer"),
        ((SCA + b"\x04" + encode_address(PHONE) + b"\x00\x08" + STAMP + b"\x03abc").hex(), "half a character"),
        ((SCA + b"\x04" + encode_address(PHONE) + b"\x00\x20" + STAMP + b"\x00").hex(), "compressed"),
    ],
)
def test_errors_say_what_is_wrong(change: str, said: str) -> None:
    with pytest.raises(PduError, match=said):
        decode(change)


def test_a_header_that_makes_no_sense_is_left_out() -> None:
    message = received(encode_deliver(PHONE, "x", joint=(1, 2, 3)))
    assert (message.text, message.place) == ("x", None)


# --- parts of received messages ---


@settings(deadline=None)
@given(st.text(min_size=1, max_size=300), st.integers(1, 9), st.randoms(use_true_random=False), st.booleans())
def test_parts_are_joined_in_any_order(text: str, total: int, chance, wide: bool) -> None:
    """Also where a sender cuts a character in two, and where a part comes twice."""
    octets = text.encode("utf-16-be")
    size = max(2, -(-len(octets) // total) // 2 * 2 + 2)
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    lines = [
        encode_deliver(PHONE, piece, ucs2=True, joint=(9, len(pieces), n), wide=wide)
        for n, piece in enumerate(pieces, 1)
    ]
    last = chance.randrange(len(lines))
    early = [line for n, line in enumerate(lines) if n != last] * 2
    chance.shuffle(early)
    parts = Parts()
    for mark, line in enumerate(early):
        assert parts.add(received(line), 0.0, mark) is None
    whole = parts.add(received(lines[last]), 0.0, 99)
    assert whole is not None
    assert (whole.sender, whole.text) == (PHONE, text)
    assert set(whole.marks) == {*range(len(early)), 99}


def test_messages_of_several_senders_do_not_mix() -> None:
    parts = Parts()
    for sender, text in ((PHONE, "one"), ("10086", "two")):
        assert parts.add(received(encode_deliver(sender, text, joint=(1, 2, 1))), 0.0) is None
    narrow = parts.add(received(encode_deliver(PHONE, "!", joint=(1, 2, 2), wide=True)), 0.0)
    assert narrow is None, "a 16-bit reference is another one"
    whole = parts.add(received(encode_deliver(PHONE, "!", joint=(1, 2, 2))), 0.0)
    assert whole is not None
    assert whole.text == "one!"


def test_a_part_that_never_comes_leaves_a_gap() -> None:
    parts = Parts()
    parts.add(received(encode_deliver(PHONE, "1234", joint=(1, 2, 2))), 10.0, 5)
    assert parts.overdue(609.0, 600.0) == []
    (whole,) = parts.overdue(610.0, 600.0)
    assert (whole.text, whole.marks) == ("…1234", (5,))
    assert parts.overdue(9999.0, 600.0) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("+8613800138000", "13800138000", True),
        ("+8613800138000", "8613800138000", True),
        ("07911123456", "+447911123456", True),
        ("+8613800138000", "+8613800138001", False),
        ("10086", "10086", True),
        ("10086", "+8613800110086", False),
        ("", "+8613800138000", False),
    ],
)
def test_one_phone_in_several_spellings(one: str, other: str, same: bool) -> None:
    assert same_phone(one, other) is same
    assert same_phone(other, one) is same


def test_length_is_what_the_modem_is_told() -> None:
    for text in ("x", "火", "火" * 100):
        for one in made(text):
            assert one.length == tpdu_length(one.hex)
