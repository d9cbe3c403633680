"""E-mail against a real SMTP server: what is sent, on which terms, and what each answer means."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import logging
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.edge.alerts.mail import Mail, MailSettings, Security
from sitewarden.edge.alerts.mail_message import compose, encoded, is_mailbox
from sitewarden.edge.alerts.mail_verdicts import (
    ConnectionFailedError,
    RefusalError,
    Step,
    Why,
    judge,
    judge_connection,
)
from sitewarden.edge.alerts.port import Channel, Fault, Notice, Outcome, Receiver, Sent
from sitewarden.edge.alerts.verdicts import DETAIL_LIMIT
from sitewarden.errors import ConfigError
from sitewarden.tests.peers.mail_server import PASSWORD, USER, MailServer, server_context
from sitewarden.tests.peers.mosquitto import make_certificates
from sitewarden.words import Instant

TEXT = "【红】【一级】助剂库 甲烷 25.3%LEL，超过上上限。\n请立即撤离并通风。\n.\n报警号 17。"
TITLE = "【红】【一级】助剂库 甲烷超过上上限，请立即撤离并通风，报警号 17"
UTC_MS = 1_795_356_391_004
ENCODED_WORD = re.compile(r"=\?utf-8\?b\?([A-Za-z0-9+/=]*)\?=")


@dataclass
class Clock:
    """A window old, so that buckets are full."""

    mono_s: float = 5_000.0

    def __call__(self) -> Instant:
        return Instant(utc_ms=UTC_MS, mono_s=self.mono_s, boot="b")


def notice(text: str = TEXT, *, to: str = "wang@example.com", name: str = "王安全", **changes: Any) -> Notice:
    lang = changes.pop("lang", "zh")
    fields = {"key": "0" * 63 + "a", "title": TITLE, "priority": 1, **changes}
    receiver = Receiver(person="officer_wang", name=name, phone="13800138000", email=to, lang=lang)
    return Notice(to=receiver, text=text, **fields)


def mail(server: MailServer, clock: Clock | None = None, **changes: Any) -> Mail:
    fields = {"host": "127.0.0.1", "port": server.port, "security": Security.PLAIN, "sender": USER, **changes}
    clock = clock or Clock()
    made = Mail(MailSettings(**{"timeout_s": 20.0, **fields}), clock=clock)
    clock.mono_s += 100.0
    return made


async def send(server: MailServer, *notices: Notice, **changes: Any) -> Sent:
    async with asyncio.timeout(60), mail(server, **changes) as channel:
        return [await channel.send(each) for each in notices or (notice(),)][-1]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[MailServer]:
    async with MailServer().running() as running:
        yield running


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mail") / "tls"
    make_certificates(folder)
    return folder


def parsed(raw: bytes) -> EmailMessage:
    """As a mail program reads it."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def hides(text: str) -> None:
    token = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), token, "wang@example.com"):
        assert secret not in text, text


# --- what is sent ---


async def test_taken(server: MailServer) -> None:
    async with mail(server) as channel:
        sent = await channel.send(notice())
        assert sent.outcome is Outcome.ACCEPTED
        assert "queued as 17" in sent.detail
        assert (channel.health.accepted, channel.health.fault, channel.health.facts["left"]) == (1, Fault.NONE, 29)
    (taken,) = server.taken
    assert (taken.sender, taken.recipient) == (USER, "wang@example.com")
    message = parsed(taken.raw)
    assert message["Subject"] == TITLE
    assert message.get_content().splitlines() == TEXT.splitlines()
    (to,) = message["To"].addresses
    assert (to.display_name, to.addr_spec) == ("王安全", "wang@example.com")
    (sender,) = message["From"].addresses
    assert (sender.display_name, sender.addr_spec) == ("岗哨 Sitewarden", USER)
    assert message["Message-ID"] == f"<{'0' * 63}a@example.com>"
    assert parsedate_to_datetime(message["Date"]) == datetime.fromtimestamp(UTC_MS // 1000, UTC)
    assert message["Auto-Submitted"] == "auto-generated"
    assert (message["X-Priority"], message["Importance"]) == ("1 (Highest)", "high")
    assert message["Content-Language"] == "zh-CN"
    assert not message.defects


async def test_a_server_that_knows_little_gets_the_same(server: MailServer) -> None:
    await send(server)
    server.without = {"8BITMIME", "SMTPUTF8", "SIZE", "HELP"}
    await send(server)
    first, second = server.taken
    assert first.raw == second.raw
    assert second.raw.isascii()
    assert second.options == ()


async def test_a_server_that_knows_only_helo(server: MailServer) -> None:
    server.refuse["EHLO"] = "502 Command not implemented"
    assert (await send(server)).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("priority", "shown"),
    [(1, "1 (Highest) high"), (2, "2 (High) high"), (3, "3 (Normal) normal"), (4, "4 (Low) low")],
)
def test_priorities(priority: int, shown: str) -> None:
    message = parsed(compose(notice(priority=priority), sender=Receiver(email=USER), utc_ms=UTC_MS))
    assert f"{message['X-Priority']} {message['Importance']}" == shown


def test_the_same_notice_has_the_same_identity() -> None:
    """So that a second copy can be recognised; a key that cannot stand in a header is hashed."""

    def identity(**changes: Any) -> str:
        message = compose(notice(**changes), sender=Receiver(email=USER), utc_ms=UTC_MS)
        return str(parsed(message)["Message-ID"])

    assert identity() == identity(resent=True, text="later")
    assert identity(key="b" * 64) != identity()
    assert re.fullmatch(r"<[0-9a-f]{64}@example\.com>", identity(key="k>\r\nBcc: x@example.com"))
    assert identity(key="short") != "<short@example.com>"


def test_marks() -> None:
    message = parsed(compose(notice(is_test=True, resent=True), sender=Receiver(email=USER), utc_ms=UTC_MS))
    assert message["Subject"] == f"【测试】（重发）{TITLE}"
    assert message.get_content().startswith("【测试】（重发）【红】")
    marked = notice("【测试】（重发）x", title="【测试】（重发）y", is_test=True, resent=True)
    message = parsed(compose(marked, sender=Receiver(email=USER), utc_ms=UTC_MS))
    assert (message["Subject"], message.get_content()) == ("【测试】（重发）y", "【测试】（重发）x\r\n")


@given(
    title=st.text(max_size=300),
    name=st.text(max_size=60),
    text=st.text(max_size=500),
    key=st.text(max_size=80),
    sender_name=st.text(max_size=60),
)
def test_nothing_in_a_notice_makes_a_header_or_breaks_a_line(
    title: str, name: str, text: str, key: str, sender_name: str
) -> None:
    raw = compose(
        notice(text, title=title, name=name, key=key), sender=Receiver(name=sender_name, email=USER), utc_ms=UTC_MS
    )
    assert raw.isascii()
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in [*lines, *body.split(b"\r\n")])
    assert max(map(len, lines)) <= 100
    fields = [line.split(b":")[0] for line in lines if not line.startswith(b" ")]
    assert fields == [
        b"Date", b"From", b"To", b"Subject", b"Message-ID", b"Auto-Submitted", b"X-Priority", b"Importance",
        b"MIME-Version", b"Content-Type", b"Content-Transfer-Encoding", b"Content-Language",
    ]  # fmt: skip
    message = parsed(raw)
    assert [each.addr_spec for each in message["To"].addresses] == ["wang@example.com"]
    assert [each.addr_spec for each in message["From"].addresses] == [USER]


INJECTIONS = [
    "x\r\nBcc: thief@example.com",
    "x\n\n<html>",
    'x" <thief@example.com>, "y',
    "thief@example.com, x",
    "=?utf-8?q?x=0D=0ABcc:_thief@example.com?=",
    "x\u2028Bcc: thief@example.com",
    "x\x00y",
    "ab\ud83d",
]


@pytest.mark.parametrize("evil", INJECTIONS)
async def test_no_name_and_no_title_can_add_a_line(evil: str, server: MailServer) -> None:
    sent = await send(server, notice(evil, title=evil, name=evil, key=evil), sender_name=evil)
    assert sent.outcome is Outcome.ACCEPTED
    (taken,) = server.taken
    assert taken.recipient == "wang@example.com"
    message = parsed(taken.raw)
    assert message["Bcc"] is None
    (to,) = message["To"].addresses
    assert to.addr_spec == "wang@example.com"


@given(line=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=400))
def test_long_subjects_are_folded_between_characters(line: str) -> None:
    """RFC 2047: at most 75 characters in a word, 76 in a line, whole characters in each word."""
    value = encoded(line)
    wanted = " ".join(line.split())
    if value == wanted:
        assert len(value) <= 60
        return
    assert all(len(part) <= 76 for part in f"Subject: {value}".split("\r\n"))
    words = value.split("\r\n ")
    assert all(len(word) <= 75 for word in words)
    texts = [base64.b64decode(found[1]).decode("utf-8") for word in words if (found := ENCODED_WORD.fullmatch(word))]
    assert len(texts) == len(words)
    assert "".join(texts) == wanted


async def test_a_long_chinese_subject(server: MailServer) -> None:
    title = "【红】【一级】🚨" + "助剂库 甲烷 25.3%LEL 超过上上限，" * 20
    await send(server, notice(title=title))
    assert parsed(server.taken[0].raw)["Subject"] == title.strip()


async def test_a_long_text_arrives_whole(server: MailServer) -> None:
    text = "\n".join(["." + "甲烷超限🚨" * 300, "..", ".", "From here", ""] * 20)
    await send(server, notice(text))
    assert parsed(server.taken[0].raw).get_content().splitlines() == text.splitlines()


# --- to whom ---


@pytest.mark.parametrize(
    "address",
    [
        "",
        "wang",
        "wang@",
        "@example.com",
        "wang@example.com, li@example.com",
        "wang@example.com>\r\nRCPT TO:<thief@example.com",
        "<wang@example.com>",
        "王@example.com",
        "wang@例子.cn",
        "a b@example.com",
        '"a b"@example.com',
        "wang@example.com\x00",
        "x" * 65 + "@example.com",
        "-oQ@-example.com",
    ],
)
async def test_what_is_no_mailbox(address: str, server: MailServer) -> None:
    sent = await send(server, notice(to=address))
    assert sent.outcome is Outcome.REFUSED
    assert "put one into the list of people" in sent.detail
    assert server.connections == 0


@pytest.mark.parametrize(
    "address", ["wang@example.com", " wang@example.com\n", "w.li+alarm@mail.example.com", "10001@qq.com"]
)
async def test_a_mailbox(address: str, server: MailServer) -> None:
    assert is_mailbox(address.strip())
    assert (await send(server, notice(to=address))).outcome is Outcome.ACCEPTED
    assert server.taken[0].recipient == address.strip()


async def test_each_receiver_has_a_verdict_of_his(server: MailServer) -> None:
    """One that the server does not know costs the others nothing."""
    server.refuse["RCPT"] = lambda address: "550 5.1.1 No such user" if address.startswith("gone") else ""
    async with mail(server) as channel:
        people = ("wang", "gone", "li")
        sent = await asyncio.gather(*(channel.send(notice(to=f"{name}@example.com")) for name in people))
        assert [each.outcome for each in sent] == [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.ACCEPTED]
        assert (channel.health.accepted, channel.health.failed, channel.health.fault) == (2, 1, Fault.NONE)
    assert {taken.recipient for taken in server.taken} == {"wang@example.com", "li@example.com"}


# --- on which terms ---


async def test_tls_from_the_first_byte(tls: Path) -> None:
    server = MailServer()
    server.needs_auth = True
    async with server.running(tls=server_context(tls)):
        terms = {"security": Security.TLS, "username": USER, "password": PASSWORD}
        assert (await send(server, ca_file=str(tls / "ca.pem"), **terms)).outcome is Outcome.ACCEPTED
    (taken,) = server.taken
    assert (taken.user, taken.is_encrypted) == (USER, True)


async def test_starttls(tls: Path) -> None:
    server = MailServer()
    server.needs_auth = True
    async with server.running(starttls=server_context(tls)):
        terms = {"security": Security.STARTTLS, "username": USER, "password": PASSWORD}
        assert (await send(server, ca_file=str(tls / "ca.pem"), **terms)).outcome is Outcome.ACCEPTED
    (taken,) = server.taken
    assert (taken.user, taken.is_encrypted) == (USER, True)
    assert len(server.hello) == 2  # what was offered in the clear does not count


@pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS])
@pytest.mark.parametrize(
    ("trusted", "says"),
    [
        ("", "certificate"),
        ("other-ca.pem", "certificate"),
        ("none.pem", "cannot be used"),
        ("ca.key", "cannot be used"),
    ],
)
async def test_a_certificate_that_does_not_count(security: Security, trusted: str, says: str, tls: Path) -> None:
    server, context = MailServer(), server_context(tls)
    at_once = security is Security.TLS
    running = server.running(tls=context if at_once else None, starttls=None if at_once else context)
    async with running, asyncio.timeout(60):
        ca_file = str(tls / trusted) if trusted else ""
        terms = {"security": security, "ca_file": ca_file, "username": USER, "password": PASSWORD}
        async with mail(server, **terms) as channel:
            sent = await channel.send(notice())
            assert (sent.outcome, channel.health.fault) == (Outcome.FAILED, Fault.REFUSING)
    assert says in sent.detail
    assert (trusted if "cannot" in says else "clock") in sent.detail
    assert not server.taken
    assert not server.tried


async def test_a_server_for_another_name(tls: Path) -> None:
    server = MailServer()
    async with server.running(tls=server_context(tls)):
        sent = await send(server, host="localhost", security=Security.TLS, ca_file=str(tls / "ca.pem"))
    assert sent.outcome is Outcome.FAILED
    assert "localhost" in sent.detail


async def test_a_server_without_starttls_gets_nothing_in_the_clear(server: MailServer) -> None:
    sent = await send(server, security=Security.STARTTLS, username=USER, password=PASSWORD)
    assert sent.outcome is Outcome.FAILED
    assert "offers no STARTTLS, and nothing is sent in the clear" in sent.detail
    assert not server.taken
    assert not server.tried


async def test_tls_and_plain_mixed_up(server: MailServer, tls: Path) -> None:
    sent = await send(server, security=Security.TLS)
    assert sent.outcome is Outcome.FAILED
    assert "no encrypted connection" in sent.detail
    other = MailServer()
    async with other.running(tls=server_context(tls)):
        sent = await send(other, timeout_s=1.0)
    assert sent.outcome is Outcome.FAILED


def test_plain_goes_to_this_machine_or_where_it_was_said() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        Mail(MailSettings(host=host, sender=USER, security=Security.PLAIN))
    Mail(MailSettings(host="mail.example.com", sender=USER, security=Security.PLAIN_ANYWHERE))
    with pytest.raises(ConfigError, match='security: "plain" is for a server on this machine'):
        Mail(MailSettings(host="mail.example.com", sender=USER, security=Security.PLAIN))


@pytest.mark.parametrize(("security", "port"), [("tls", 465), ("starttls", 587), ("plain_anywhere", 25), ("plain", 25)])
async def test_the_default_port(security: str, port: int) -> None:
    settings = MailSettings(host="localhost", sender=USER, security=Security(security))
    assert (await Mail(settings)._server()).port == port


@pytest.mark.parametrize(
    ("offers", "used"),
    [
        (("PLAIN", "LOGIN"), "PLAIN"),
        (("LOGIN",), "LOGIN"),
        (("CRAM-MD5",), "CRAM-MD5"),
        (("PLAIN", "CRAM-MD5"), "CRAM-MD5"),
    ],
)
async def test_ways_to_sign_in(offers: tuple[str, ...], used: str, server: MailServer) -> None:
    server.offers, server.needs_auth = offers, True
    assert (await send(server, username=USER, password=PASSWORD)).outcome is Outcome.ACCEPTED
    assert server.tried == [(used, USER)]
    assert server.taken[0].user == USER


@pytest.mark.parametrize("offers", [("PLAIN", "LOGIN"), ("LOGIN",), ("CRAM-MD5",), ("PLAIN", "LOGIN", "CRAM-MD5")])
async def test_a_wrong_password_is_tried_once_in_five_minutes(offers: tuple[str, ...], server: MailServer) -> None:
    """However many messages there are: more tries lock an account."""
    server.offers = offers
    clock = Clock()
    async with asyncio.timeout(60), mail(server, clock, username=USER, password="wrong one") as channel:
        sent = [await channel.send(notice()) for _ in range(3)]
        assert {each.outcome for each in sent} == {Outcome.FAILED}
        assert all("授权码" in each.detail and "authorization code" in each.detail for each in sent)
        assert channel.health.fault is Fault.REFUSING
        assert len(server.tried) == 1
        clock.mono_s += 299.0
        assert (await channel.send(notice())).retry_s == 1.0
        assert len(server.tried) == 1
        clock.mono_s += 1.0
        assert (await channel.send(notice())).retry_s == 300.0
        assert len(server.tried) == 2


async def test_a_wrong_password_is_tried_little_also_at_once(server: MailServer) -> None:
    async with asyncio.timeout(60), mail(server, username=USER, password="wrong one") as channel:
        await asyncio.gather(*(channel.send(notice()) for _ in range(12)))
    assert len(server.tried) <= 3


async def test_a_server_that_offers_no_way_to_sign_in(server: MailServer) -> None:
    server.without = {"AUTH"}
    sent = await send(server, username=USER, password=PASSWORD)
    assert sent.outcome is Outcome.FAILED
    assert "no way to sign in" in sent.detail


async def test_a_server_that_wants_a_sign_in(server: MailServer) -> None:
    server.needs_auth = True
    sent = await send(server)
    assert sent.outcome is Outcome.FAILED
    assert "wants a sign-in" in sent.detail


# --- what answers mean ---


@pytest.mark.parametrize(
    ("step", "answer", "outcome", "fault", "says"),
    [
        ("RCPT", "451 4.7.1 Greylisted, please try again in 300 seconds", "later", "", "greylisting"),
        ("RCPT", "450 4.7.1 <a>: Recipient address rejected: Service is unavailable", "later", "", "greylisting"),
        ("RCPT", "450 4.2.0 Greylisting in effect, retry in 5 minutes", "later", "", "greylisting"),
        ("DATA", "451 4.7.1 Greylisting in action", "later", "", "greylisting"),
        ("RCPT", "450 4.2.1 The user receives mail too quickly", "later", "", "takes no more now"),
        ("MAIL", "451 4.7.0 Too many messages", "later", "", "takes no more now"),
        ("greeting", "421 4.7.0 Too many connections", "later", "", "takes no more now"),
        ("RCPT", "450 4.7.1 rate limit exceeded", "later", "", "takes no more now"),
        ("RCPT", "451 Local error in processing", "failed", "", "does not take it now"),
        ("RCPT", "452 4.2.2 Mailbox full", "failed", "", "mailbox is full"),
        ("RCPT", "550 5.1.1 <a>: Recipient address rejected: User unknown", "refused", "", "no such mailbox"),
        ("RCPT", "550 Mailbox not found", "refused", "", "no such mailbox"),
        ("RCPT", "550 Recipient rejected: no such user", "refused", "", "no such mailbox"),
        ("RCPT", "551 User not local", "refused", "", "no such mailbox"),
        ("RCPT", "553 5.1.3 bad address syntax", "refused", "", "no such mailbox"),
        ("RCPT", "550 5.2.1 mailbox disabled", "refused", "", "no such mailbox"),
        ("RCPT", "552 5.2.2 Mailbox full", "failed", "", "mailbox is full"),
        ("RCPT", "552 over quota", "failed", "", "mailbox is full"),
        ("RCPT", "550 5.7.1 Relaying denied", "failed", "refusing", "refuses us"),
        ("RCPT", "554 5.7.1 Relay access denied", "failed", "refusing", "refuses us"),
        ("RCPT", "550 Relaying denied", "failed", "refusing", "refuses us"),
        ("RCPT", "554 Service unavailable", "failed", "refusing", "refuses us"),
        ("RCPT", "550 5.1.8 sender address rejected", "failed", "refusing", "sender is refused"),
        ("RCPT", "530 5.7.0 Must issue STARTTLS", "failed", "refusing", "wants a sign-in or encryption"),
        ("MAIL", "553 Mail from must equal authorized user", "failed", "refusing", "sender is refused"),
        ("MAIL", "501 mail from address must be same as authorization user", "failed", "refusing", "sender is"),
        ("MAIL", "552 message size exceeds fixed limit", "refused", "", "too big"),
        ("DATA", "552 5.3.4 Message too big", "refused", "", "too big"),
        ("DATA", "554 5.7.1 Message refused as spam", "refused", "refusing", "the message was refused"),
        ("DATA", "550 5.6.0 bad content", "refused", "refusing", "the message was refused"),
        ("DATA", "451 4.3.0 try later", "failed", "", "does not take it now"),
        ("greeting", "554 5.7.1 your address is on a list", "failed", "refusing", "refuses us"),
        ("greeting", "421 shutting down", "failed", "", "does not take it now"),
        ("EHLO", "421 shutting down", "failed", "", "does not take it now"),
        ("AUTH", "535 5.7.8 bad credentials", "failed", "refusing", "authorization code"),
        ("AUTH", "534 5.7.9 mechanism too weak", "failed", "refusing", "authorization code"),
        ("AUTH", "454 4.7.0 Temporary authentication failure", "failed", "silent", "cannot sign us in now"),
    ],
)
async def test_answers(step: str, answer: str, outcome: str, fault: str, says: str, server: MailServer) -> None:
    server.refuse[step] = answer
    terms = {"username": USER, "password": PASSWORD} if step == "AUTH" else {}
    clock = Clock()
    async with asyncio.timeout(60), mail(server, clock, **terms) as channel:
        sent = await channel.send(notice())
        assert (sent.outcome, channel.health.fault) == (outcome, fault)
        assert says in sent.detail
        assert answer[:3] in sent.detail
        assert any("\u4e00" <= char <= "\u9fff" for char in sent.detail)
        assert len(sent.detail) <= DETAIL_LIMIT
        assert sent.receiver_only == (says == "greylisting" or "too quickly" in answer), "others are not held back"
        assert (sent.retry_s > 0) == (outcome == "later" or answer[0] == "4" or "full" in says or step == "AUTH")
        if "300 seconds" in answer or "5 minutes" in answer:
            assert sent.retry_s == 300.0
        server.refuse.clear()
        clock.mono_s += 300.0
        assert (await channel.send(notice())).outcome is Outcome.ACCEPTED
        assert channel.health.fault is Fault.NONE
    assert len(server.taken) == 1


@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA"])
async def test_a_server_that_hangs_costs_the_timeout(step: str, server: MailServer) -> None:
    server.hang = step
    async with asyncio.timeout(60), mail(server, timeout_s=0.7) as channel:
        sent = await channel.send(notice())
        assert (sent.outcome, channel.health.fault) == (Outcome.FAILED, Fault.SILENT)
    assert "does not answer in time" in sent.detail
    assert ("it may have arrived" in sent.detail) == (step == "DATA")


async def test_an_encrypted_server_that_hangs_leaves_nothing_behind(tls: Path) -> None:
    """Its half-closed connection must not get into the way of the next."""
    server = MailServer()
    async with server.running(tls=server_context(tls)), asyncio.timeout(60):
        terms = {"security": Security.TLS, "ca_file": str(tls / "ca.pem"), "timeout_s": 1.5}
        async with mail(server, **terms) as channel:
            for _ in range(2):
                server.hang = "greeting"
                sent = await channel.send(notice())
                assert (sent.outcome, channel.health.fault) == (Outcome.FAILED, Fault.SILENT)
                server.hang = ""
                assert (await channel.send(notice())).outcome is Outcome.ACCEPTED


async def test_a_slow_server_costs_the_timeout_all_in_all(server: MailServer) -> None:
    server.slow_s = 0.5
    async with asyncio.timeout(60), mail(server, timeout_s=1.0) as channel:
        sent = await channel.send(notice())
        assert (sent.outcome, channel.health.fault) == (Outcome.FAILED, Fault.SILENT)
    assert not server.taken


@pytest.mark.parametrize("step", ["EHLO", "MAIL", "RCPT", "DATA"])
async def test_a_server_that_hangs_up(step: str, server: MailServer) -> None:
    server.cut = step
    async with asyncio.timeout(60), mail(server) as channel:
        sent = await channel.send(notice())
        assert (sent.outcome, channel.health.fault) == (Outcome.FAILED, Fault.SILENT)
    assert "the connection broke" in sent.detail
    assert ("it may have arrived" in sent.detail) == (step == "DATA")


@asynccontextmanager
async def talking(answers: bytes, *, then_close: bool = False) -> AsyncIterator[MailServer]:
    """Something that says this and never listens."""
    over = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers)
        if not then_close:
            await over.wait()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server = MailServer()
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        over.set()
        listening.close()


@pytest.mark.parametrize(
    "answers",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220-" + b"x" * 70_000, b"\xff\xfe\r\n"],
)
async def test_what_is_no_mail_server(answers: bytes) -> None:
    async with asyncio.timeout(60), talking(answers) as server, mail(server) as channel:
        sent = await channel.send(notice())
        assert (sent.outcome, channel.health.fault) == (Outcome.FAILED, Fault.OFFLINE)
    assert "no mail server" in sent.detail


async def test_a_server_that_closes_at_once() -> None:
    async with asyncio.timeout(60), talking(b"", then_close=True) as server, mail(server) as channel:
        sent = await channel.send(notice())
        assert (sent.outcome, channel.health.fault) == (Outcome.FAILED, Fault.SILENT)


@pytest.mark.parametrize("how", ["refuses", "hangs", "hangs_up"])
async def test_a_server_that_says_goodbye_badly_has_the_message(how: str, server: MailServer) -> None:
    """What comes after the acceptance changes nothing."""
    server.refuse = {"QUIT": "500 no"} if how == "refuses" else {}
    server.hang, server.cut = "QUIT" * (how == "hangs"), "QUIT" * (how == "hangs_up")
    async with asyncio.timeout(60), mail(server) as channel:
        assert (await channel.send(notice())).outcome is Outcome.ACCEPTED
        assert channel.health.fault is Fault.NONE


async def test_entering_needs_nobody_and_a_server_that_comes_back_is_used(free_port: Any) -> None:
    server = MailServer()
    server.port = free_port()
    async with asyncio.timeout(60), mail(server) as channel:
        sent = await channel.send(notice())
        assert (sent.outcome, channel.health.fault) == (Outcome.FAILED, Fault.OFFLINE)
        assert "cannot connect to the mail server" in sent.detail
        async with server.running(server.port):
            assert (await channel.send(notice())).outcome is Outcome.ACCEPTED
        assert (channel.health.fault, channel.health.detail) == (Fault.NONE, "")


@pytest.mark.parametrize("host", ["mail.invalid", "a..b", "x" * 70 + ".example.com"])
async def test_a_name_that_nobody_knows(host: str) -> None:
    settings = MailSettings(host=host, sender=USER, timeout_s=20.0)
    async with asyncio.timeout(60), Mail(settings) as channel:
        sent = await channel.send(notice())
    assert sent.outcome is Outcome.FAILED
    assert "name is not found" in sent.detail or "cannot connect" in sent.detail


async def test_the_second_address_of_a_host(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` may be ::1 first, where nobody listens."""
    places = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", server.port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
    assert (await send(server, host="localhost")).outcome is Outcome.ACCEPTED


async def test_secrets_stay_here(server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    """Also when the server repeats everything that it was told."""
    caplog.set_level(logging.DEBUG)
    token = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
    server.refuse["AUTH"] = f"535 5.7.8 {token} is {PASSWORD} of wang@example.com"
    async with mail(server, username=USER, password=PASSWORD) as channel:
        sent = await channel.send(notice())
        assert "535" in sent.detail
        ours = [record.getMessage() for record in caplog.records if record.name != "mail.log"]
        for text in (sent.detail, channel.health.detail, repr(channel.health), *ours):
            hides(text)
    hides(repr(MailSettings(host="localhost", sender=USER, username=USER, password=PASSWORD)))
    hides(repr(await channel._server()))


# --- rates, settings ---


async def test_three_conversations_at_once(server: MailServer, eventually: Any) -> None:
    """Many servers allow one user no more; the others come after them."""
    server.hang = "MAIL"
    async with asyncio.timeout(60), mail(server) as channel, asyncio.TaskGroup() as group:
        sending = [group.create_task(channel.send(notice())) for _ in range(8)]
        await eventually(lambda: len(server.hello) == 3, "three conversations")
        assert server.now == 3
        server.go_on()
    assert [each.result().outcome for each in sending] == [Outcome.ACCEPTED] * 8
    assert server.most_at_once == 3


async def test_who_waits_too_long_for_a_conversation_comes_later(server: MailServer) -> None:
    server.hang = "MAIL"
    async with asyncio.timeout(60), mail(server, timeout_s=1.0) as channel:
        sent = await asyncio.gather(*(channel.send(notice()) for _ in range(20)))
    outcomes = [each.outcome for each in sent]
    assert set(outcomes) == {Outcome.FAILED, Outcome.LATER}
    assert all(each.retry_s == 1.0 for each in sent if each.outcome is Outcome.LATER)


async def test_a_storm_is_spread_and_what_is_urgent_goes(server: MailServer) -> None:
    async with asyncio.timeout(60), mail(server, per_min=9) as channel:
        outcomes = [(await channel.send(notice(priority=3))).outcome for _ in range(7)]
        assert outcomes == [Outcome.ACCEPTED] * 5 + [Outcome.LATER] * 2
        assert (await channel.send(notice(priority=1))).outcome is Outcome.ACCEPTED
        sent = await channel.send(notice(priority=3, facts={"step": 1}))
        assert sent.outcome is Outcome.ACCEPTED
        sent = await channel.send(notice(priority=3))
        assert 0 < sent.retry_s <= 80.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"host": ""}, "host: must be the name"),
        ({"host": "mail server"}, "host: must be the name"),
        ({"host": "mail\r\n.example.com"}, "host: must be the name"),
        ({"port": 70000}, "port: must be 0..65535 (got 70000)"),
        ({"sender": "岗哨"}, "sender: must be an e-mail address"),
        ({"sender": "a@b.cn\r\nBcc: c@d.cn"}, "sender: must be an e-mail address"),
        ({"per_min": 0}, "per_min: must be at least 1"),
        ({"password": PASSWORD}, "username: is required"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        Mail(MailSettings(**{"host": "mail.example.com", "sender": USER, **changes}))
    hides(str(caught.value))


def test_every_setting_is_documented(root: Path) -> None:
    text = (root / "docs/mail.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {each.name for each in fields(MailSettings)}
    assert all(f"`{security}`" in text for security in Security)


def test_a_mail_channel_is_one_of_the_contract() -> None:
    channel: Channel = Mail(MailSettings(host="mail.example.com", sender=USER))
    assert channel.health.fault is Fault.NONE


def test_importing_loads_no_client() -> None:
    code = "import sys, sitewarden.edge.alerts.mail; print('aiosmtplib' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_every_verdict_is_in_both_languages_and_short() -> None:
    refusals = [
        RefusalError(step, code, words)
        for step in Step
        for code in (421, 450, 452, 454, 501, 530, 535, 550, 552, 554)
        for words in ("", "5.1.1 x", "5.7.1 x", "4.2.2 x", "greylisted", "too many", "relay denied")
    ]
    verdicts = [judge(each) for each in refusals]
    verdicts += [judge_connection(ConnectionFailedError(step, why)) for step in Step for why in Why]
    assert len({verdict.en for verdict in verdicts}) > 15
    for verdict in verdicts:
        detail = replace(verdict, said="recipient 550 " + "x" * 400).detail
        assert any("\u4e00" <= char <= "\u9fff" for char in verdict.zh)
        assert verdict.en.isascii()
        assert len(detail) <= DETAIL_LIMIT
        assert verdict.en in detail
