"""The robots' channels and the webhook's against servers that judge by the vendors' documents (peers/robot_servers)."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.edge.alerts.budget import is_escalation
from sitewarden.edge.alerts.port import Channel, Fault, Notice, Outcome, Receiver, Sent
from sitewarden.edge.alerts.robots import (
    DingtalkRobot,
    DingtalkSettings,
    FeishuRobot,
    FeishuSettings,
    Form,
    Robot,
    WecomRobot,
    WecomSettings,
    dingtalk,
    feishu,
    wecom,
)
from sitewarden.edge.alerts.robots.texts import HEAD, fit, fit_with, in_json, national, utf8, words_of
from sitewarden.edge.alerts.verdicts import DETAIL_LIMIT, Verdict, said, veil
from sitewarden.edge.alerts.webhook_channel import WebhookChannel, WebhookSettings
from sitewarden.errors import ConfigError
from sitewarden.tests.peers import robot_servers
from sitewarden.tests.peers.mosquitto import make_certificates
from sitewarden.tests.peers.robot_servers import SECRET, TOKEN, RobotServers
from sitewarden.words import Instant

ROBOTS = ("wecom", "dingtalk", "feishu", "lark")
ALL = (*ROBOTS, "webhook")
MENTIONING = ("wecom", "dingtalk", "feishu", "lark")
OPEN_ID = "ou_0123456789abcdef"
PHONE = "+8613800138000"
TEXT = "【红】【一级】助剂库 甲烷 25.3%LEL，超过上上限。请立即撤离并通风。"


def notice(text: str = TEXT, *, key: str = "k1", priority: int = 2, lang: str = "zh", **changes: Any) -> Notice:
    to = Receiver(person="officer_wang", name="王安全", phone=PHONE, email="wang@example.com", lang=lang)
    return Notice(key=key, to=to, title="【红】【一级】助剂库 甲烷", text=text, priority=priority, **changes)


@dataclass
class Clock:
    """Both clocks of the gateway, and the robots'."""

    utc_s: float = field(default_factory=time.time)
    mono_s: float = 5_000.0
    servers: RobotServers | None = None

    def __call__(self) -> Instant:
        return Instant(utc_ms=round(self.utc_s * 1000), mono_s=self.mono_s, boot="b")

    def go(self, seconds: float) -> None:
        self.mono_s += seconds
        self.utc_s += seconds
        for group in self.servers.groups.values() if self.servers else ():
            group.clock_s = self.utc_s


def channel(name: str, servers: RobotServers, clock: Clock | None = None, **changes: Any) -> Any:
    """A channel of the kind; the robots' buckets are full."""
    if name == "webhook":
        return WebhookChannel(WebhookSettings(url=f"{servers.url}/webhook/{TOKEN}", **{"timeout_s": 20.0, **changes}))
    given = {"key": TOKEN, "base_url": servers.base(name), "timeout_s": 20.0, **changes}
    clock = clock or Clock()
    if name == "wecom":
        robot: Robot = WecomRobot(WecomSettings(**given), clock=clock)
    elif name == "dingtalk":
        robot = DingtalkRobot(DingtalkSettings(secret=servers.groups[name].secret, **given), clock=clock)
    else:
        given = {"open_ids": {"officer_wang": OPEN_ID}, **given}
        robot = FeishuRobot(FeishuSettings(secret=servers.groups[name].secret, **given), clock=clock)
    clock.go(60.0 + given["timeout_s"])
    return robot


async def send(name: str, servers: RobotServers, *notices: Notice, **changes: Any) -> Sent:
    """The answer to the last of them."""
    async with asyncio.timeout(60), channel(name, servers, **changes) as robot:
        return [await robot.send(each) for each in notices or (notice(),)][-1]


@pytest_asyncio.fixture
async def servers() -> AsyncIterator[RobotServers]:
    peer = RobotServers()
    for name in ("dingtalk", "feishu", "lark"):
        peer.groups[name].secret = SECRET
    async with peer.running():
        yield peer


# --- every channel ---


def hides(text: str) -> None:
    """Neither token nor secret stands in it, in whichever form."""
    for form in (TOKEN, SECRET, "SEC%2Bsecret", PHONE, "13800138000"):
        assert form.lower() not in text.lower(), text


@pytest.mark.parametrize("name", ALL)
async def test_taken(name: str, servers: RobotServers) -> None:
    async with channel(name, servers) as robot:
        sent = await robot.send(notice())
        assert sent == Sent(outcome=Outcome.ACCEPTED)
        assert (robot.health.accepted, robot.health.failed, robot.health.fault) == (1, 0, Fault.NONE)
    (message,) = servers.groups[name].taken
    assert message.text.startswith(TEXT)


@pytest.mark.parametrize("name", MENTIONING)
async def test_the_receiver_is_mentioned(name: str, servers: RobotServers) -> None:
    stranger = replace(notice(), to=Receiver(name='<at user_id="all">'))
    await send(name, servers, notice(), stranger)
    first, second = servers.groups[name].taken
    assert first.mentions == ((OPEN_ID,) if name in ("feishu", "lark") else ("13800138000",))
    assert second.mentions == ()


@pytest.mark.parametrize("name", MENTIONING)
async def test_everybody_is_mentioned_whom_a_message_to_a_group_is_for(name: str, servers: RobotServers) -> None:
    zhou = Receiver(person="keeper_zhou", name="周仓管", phone="+86 139 0013 9000")
    nobody = Receiver(person="gone", name="没有号码")
    told = replace(notice(), mentions=(notice().to, zhou, nobody, zhou))
    more = {"open_ids": {"officer_wang": OPEN_ID, "keeper_zhou": "ou_2"}} if name in ("feishu", "lark") else {}
    await send(name, servers, told, **more)
    (message,) = servers.groups[name].taken
    assert message.mentions == ((OPEN_ID, "ou_2") if name in ("feishu", "lark") else ("13800138000", "13900139000"))
    assert message.text.startswith(TEXT)


@pytest.mark.parametrize("name", MENTIONING)
async def test_more_people_than_a_message_can_mention_leave_room_for_the_text(name: str, servers: RobotServers) -> None:
    crowd = tuple(Receiver(person=f"p{n}", name="名" * 200, phone=f"+861380013{n:04}") for n in range(400))
    more = {"open_ids": {f"p{n}": f"ou_{n:032}" for n in range(400)}} if name in ("feishu", "lark") else {}
    assert (await send(name, servers, replace(notice(), mentions=crowd), **more)).outcome is Outcome.ACCEPTED
    (message,) = servers.groups[name].taken
    assert message.text.startswith(TEXT)
    assert len(message.mentions) == 50


async def test_no_phone_number_of_a_group_is_in_a_refusal(servers: RobotServers) -> None:
    """As for one receiver."""
    servers.groups["wecom"].refusal = {"errcode": 40058, "errmsg": "bad mobile 13900139000"}
    zhou = Receiver(person="keeper_zhou", name="周仓管", phone="+86 139 0013 9000")
    sent = await send("wecom", servers, replace(notice(), mentions=(notice().to, zhou)))
    assert "40058" in sent.detail
    assert "13900139000" not in sent.detail


@pytest.mark.parametrize("name", ALL)
async def test_entering_needs_nobody_and_a_robot_that_comes_back_is_used(name: str, free_port: Any) -> None:
    servers = RobotServers()
    port = free_port()
    servers.url = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(60), channel(name, servers) as robot:
        sent = await robot.send(notice())
        assert (sent.outcome, robot.health.fault) == (Outcome.FAILED, Fault.OFFLINE)
        assert "连接不上" in sent.detail
        assert "cannot connect" in sent.detail
        assert robot.health.detail == sent.detail
        async with servers.running(port):
            assert (await robot.send(notice())).outcome is Outcome.ACCEPTED
        assert (robot.health.fault, robot.health.detail) == (Fault.NONE, "")
        assert not robot.health.facts.get("zh")


PAGES = [
    (robot_servers.Fault.TRUNCATED, Fault.SILENT, "broke before a whole answer; it may have arrived"),
    (robot_servers.Fault.UNFINISHED, Fault.SILENT, "broke before a whole answer; it may have arrived"),
    (robot_servers.Fault.CLOSED, Fault.SILENT, "broke before a whole answer"),
    (robot_servers.Fault.NOT_HTTP, Fault.OFFLINE, "not HTTP"),
    (robot_servers.Fault.HUGE, Fault.OFFLINE, "longer than 65536 bytes"),
    (robot_servers.Fault.NOT_JSON, Fault.OFFLINE, "no JSON object"),
    (robot_servers.Fault.EMPTY, Fault.OFFLINE, "no JSON object"),
    (robot_servers.Fault.DEEP, Fault.OFFLINE, "no JSON object"),
    (robot_servers.Fault.LIST, Fault.OFFLINE, "no JSON object"),
    (robot_servers.Fault.LOGIN_PAGE, Fault.OFFLINE, "the network wants a login, or a proxy"),
    (robot_servers.Fault.REDIRECT, Fault.OFFLINE, "HTTP 302 points elsewhere"),
    (robot_servers.Fault.REDIRECT_POST, Fault.OFFLINE, "HTTP 307 points elsewhere"),
    (robot_servers.Fault.BROKEN_PROXY, Fault.SILENT, "HTTP 502"),
    (robot_servers.Fault.NO_SUCH_PAGE, Fault.REFUSING, "HTTP 404"),
    (robot_servers.Fault.PROXY_LOGIN, Fault.OFFLINE, "HTTP 511"),
    (robot_servers.Fault.ERROR_WITH_SUCCESS, Fault.SILENT, "HTTP 500"),
    (robot_servers.Fault.ECHO, Fault.REFUSING, "77"),
    (robot_servers.Fault.NO_CODE, None, ""),
    (robot_servers.Fault.NULL_CODE, None, ""),
    (robot_servers.Fault.TEXT_CODE, None, ""),
    (robot_servers.Fault.TRUE_CODE, None, ""),
]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("fault", "means", "words"), PAGES, ids=[fault.value for fault, _, _ in PAGES])
async def test_what_is_no_answer_of_a_robot(
    name: str,
    fault: robot_servers.Fault,
    means: Fault | None,
    words: str,
    servers: RobotServers,
    caplog: pytest.LogCaptureFixture,
) -> None:
    servers.fault = fault
    servers.groups["wecom"].secret = servers.groups["webhook"].secret = SECRET
    caplog.set_level(logging.DEBUG)
    async with asyncio.timeout(60), channel(name, servers) as robot:
        sent = await robot.send(notice())
        assert sent.outcome is Outcome.FAILED
        assert words in sent.detail
        assert any("\u4e00" <= char <= "\u9fff" for char in sent.detail), sent.detail
        assert len(sent.detail) <= DETAIL_LIMIT
        assert robot.health.fault is (means or (Fault.REFUSING if name == "webhook" else Fault.OFFLINE))
        assert robot.health.failed == 1
        ours = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
        for text in (sent.detail, robot.health.detail, repr(robot.health), str(sent), *ours):
            hides(text)
        servers.fault = None
        assert (await robot.send(notice())).outcome is Outcome.ACCEPTED
        assert robot.health.fault is Fault.NONE
    assert servers.followed == 0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("fault", [robot_servers.Fault.HANG, robot_servers.Fault.DRIP])
async def test_a_robot_that_never_ends_costs_its_timeout(
    name: str, fault: robot_servers.Fault, servers: RobotServers
) -> None:
    servers.fault = fault
    async with asyncio.timeout(20), channel(name, servers, timeout_s=0.5) as robot:
        sent = await robot.send(notice())
        assert (sent.outcome, robot.health.fault) == (Outcome.FAILED, Fault.SILENT)
        assert "no answer within 0.5 s; it may have arrived" in sent.detail
        assert "0.5 秒内没有应答；可能已送达" in sent.detail


@pytest.mark.parametrize("name", ALL)
async def test_a_robot_that_takes_no_connection(name: str) -> None:
    """TLS that nobody answers: the connection itself takes too long."""
    silent = await asyncio.start_server(lambda *_: asyncio.sleep(0), "127.0.0.1", 0)
    servers = RobotServers()
    servers.url = f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(60), silent, channel(name, servers, timeout_s=0.5) as robot:
        sent = await robot.send(notice())
        assert (sent.outcome, robot.health.fault) == (Outcome.FAILED, Fault.OFFLINE)
        assert "no connection in time" in sent.detail


@pytest.mark.parametrize("name", ALL)
async def test_unknown_fields_of_an_answer_do_not_matter(name: str, servers: RobotServers) -> None:
    servers.groups[name].more = {"request_id": "r1", "more": {"errcode": 7, "code": 7}, "warnings": []}
    assert (await send(name, servers)).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("name", ALL)
async def test_many_at_once(name: str, servers: RobotServers) -> None:
    async with asyncio.timeout(60), channel(name, servers) as robot:
        sent = await asyncio.gather(*(robot.send(notice(f"{TEXT} {n}", key=f"k{n}")) for n in range(4)))
    assert [each.outcome for each in sent] == [Outcome.ACCEPTED] * 4
    assert len({message.text for message in servers.groups[name].taken}) == 4


@pytest.mark.parametrize("name", ALL)
async def test_each_message_has_a_connection_of_its_own(name: str, servers: RobotServers) -> None:
    """One that was kept may be closed by the other side just when an alarm wants it."""
    await send(name, servers, notice(), notice(key="k2"))
    assert len(set(servers.groups[name].ports)) == 2


@pytest.mark.parametrize("name", ALL)
async def test_text_that_no_robot_could_take_is_made_sendable(name: str, servers: RobotServers) -> None:
    assert (await send(name, servers, notice("阀\x00门\ud83d\x1b[31m 泄漏\n第二行"))).outcome is Outcome.ACCEPTED
    assert servers.groups[name].taken[0].text.startswith("阀 门  [31m 泄漏\n第二行")


@pytest.mark.parametrize("name", ALL)
async def test_tests_and_what_is_sent_again_are_marked(name: str, servers: RobotServers) -> None:
    plain = notice(is_test=True, resent=True)
    marked = notice("【测试】【红】（重发）测试间阀门泄漏", key="k2", is_test=True, resent=True)
    english = notice("[RED] valve leaks", key="k3", lang="en", is_test=True, resent=True)
    await send(name, servers, plain, marked, english)
    texts = [message.text for message in servers.groups[name].taken]
    assert texts[0].startswith(f"【测试】（重发）{TEXT}")
    assert texts[1].startswith(marked.text)
    assert texts[2].startswith("[TEST] (resent) [RED] valve leaks")


@pytest.mark.parametrize("name", ALL)
async def test_a_server_that_is_told_too_much_says_when(name: str, servers: RobotServers) -> None:
    group = servers.groups[name]
    group.refusal, group.status, group.headers = {"wait": "please"}, 429, {"Retry-After": "17"}
    sent = await send(name, servers)
    assert (sent.outcome, sent.retry_s) == (Outcome.LATER, 17.0)
    group.headers = {"Retry-After": "99999999"}
    assert (await send(name, servers)).retry_s == 600.0
    group.headers = {"Retry-After": "soon"}
    assert (await send(name, servers)).retry_s == 60.0


@pytest.mark.parametrize("name", ALL)
async def test_a_certificate(name: str, tmp_path: Path) -> None:
    make_certificates(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls/server.pem", tmp_path / "tls/server.key")
    servers = RobotServers()
    async with servers.running(tls=context):
        assert (await send(name, servers, ca_file=str(tmp_path / "tls/ca.pem"))).outcome is Outcome.ACCEPTED
        for trusted, words in [
            ("", "the certificate is not trusted"),
            (str(tmp_path / "tls/other-ca.pem"), "the certificate is not trusted"),
            (str(tmp_path / "none.pem"), "the certificates in none.pem cannot be used"),
            (str(tmp_path / "tls/ca.key"), "the certificates in ca.key cannot be used"),
        ]:
            sent = await send(name, servers, ca_file=trusted)
            assert sent.outcome is Outcome.FAILED
            assert words in sent.detail
            hides(sent.detail)
    assert len(servers.groups[name].taken) == 1


@pytest.mark.parametrize("name", ALL)
async def test_a_plain_server_where_tls_is_expected(name: str, servers: RobotServers) -> None:
    real, servers.url = servers.url, servers.url.replace("http:", "https:")
    sent = await send(name, servers)
    servers.url = real
    assert sent.outcome is Outcome.FAILED
    assert "no encrypted connection" in sent.detail


@pytest.mark.parametrize("name", ALL)
async def test_a_name_that_nobody_knows(name: str) -> None:
    servers = RobotServers()
    servers.url = "https://robot.invalid"
    sent = await send(name, servers)
    assert sent.outcome is Outcome.FAILED
    assert "name is not found" in sent.detail or "no connection in time" in sent.detail


def test_a_channel_is_one_of_the_contract(servers: RobotServers) -> None:
    channels: list[Channel] = [channel(name, servers) for name in ALL]
    assert all(each.health.fault is Fault.NONE for each in channels)


def test_importing_loads_no_client() -> None:
    modules = "sitewarden.edge.alerts.robots, sitewarden.edge.alerts.webhook_channel"
    code = f"import sys, {modules}; print('aiohttp' in sys.modules, 'yarl' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]


# --- refusals ---


@pytest.mark.parametrize(
    ("name", "code", "words", "outcome", "fault", "says"),
    [
        ("wecom", 93000, "invalid webhook url", "failed", "refusing", ("重新复制", "copy its webhook address")),
        ("wecom", 93004, "robot disabled", "failed", "refusing", ("机器人已停用", "disabled")),
        ("wecom", 93008, "not in the group", "failed", "refusing", ("不在群里", "not in its group")),
        ("wecom", 60020, "not allow to access from your ip", "failed", "refusing", ("IP", "public IP")),
        ("wecom", 40058, "invalid Request Parameter", "refused", None, ("格式或长度", "form or length")),
        ("wecom", 40008, "invalid message type", "refused", None, ("格式或长度", "form or length")),
        ("wecom", 45002, "content too long", "refused", None, ("格式或长度", "form or length")),
        ("wecom", 45009, "api freq out of limit", "later", None, ("太频繁", "too many messages")),
        ("wecom", 45033, "concurrent", "later", None, ("太频繁", "too many messages")),
        ("wecom", -1, "system busy", "failed", "silent", ("系统繁忙", "busy")),
        ("wecom", 99999, "who knows", "failed", "refusing", ("未知的拒绝", "unknown refusal")),
        ("wecom", 99999, "api freq exceeded", "later", None, ("太频繁", "too many messages")),
        ("dingtalk", 310000, "sign not match", "failed", "refusing", ("加签密钥", "copy the secret")),
        ("dingtalk", 310000, "description:机器人发送签名不匹配", "failed", "refusing", ("加签密钥", "secret")),
        ("dingtalk", 310000, "invalid timestamp", "failed", "refusing", ("本机时钟", "this machine's clock")),
        ("dingtalk", 310000, "description:机器人发送签名过期", "failed", "refusing", ("本机时钟", "clock")),
        ("dingtalk", 310000, "keywords not in content", "failed", "refusing", ("关键词", "keyword")),
        ("dingtalk", 310000, "ip 203.0.113.9 not in whitelist", "failed", "refusing", ("出口 IP", "public IP")),
        ("dingtalk", 310000, "description:来源IP不匹配", "failed", "refusing", ("出口 IP", "public IP")),
        ("dingtalk", 310000, "something else", "failed", "refusing", ("安全设置", "security settings")),
        ("dingtalk", 300001, "token is not exist", "failed", "refusing", ("重新复制", "copy its webhook address")),
        ("dingtalk", 300005, "token is not exist", "failed", "refusing", ("重新复制", "copy its webhook address")),
        ("dingtalk", 400013, "群已被解散", "failed", "refusing", ("机器人已停用", "disabled")),
        ("dingtalk", 400102, "机器人已停用", "failed", "refusing", ("机器人已停用", "disabled")),
        ("dingtalk", 430104, "包含不合适的内容", "refused", None, ("敏感词", "banned words")),
        ("dingtalk", 460101, "message too long", "refused", None, ("格式或长度", "form or length")),
        ("dingtalk", 130101, "send too fast", "later", "refusing", ("限流十分钟", "ten minutes")),
        ("dingtalk", 410100, "发送速度太快而限流", "later", "refusing", ("限流十分钟", "ten minutes")),
        ("feishu", 9499, "Bad Request", "refused", None, ("格式或长度", "form or length")),
        ("feishu", 9499, "too many request", "later", None, ("飞书限流", "takes no more now")),
        ("feishu", 11232, "frequency limited", "later", None, ("飞书限流", "takes no more now")),
        ("feishu", 11233, "frequency limited", "later", None, ("太频繁", "too many messages")),
        ("feishu", 19001, "param invalid: incoming webhook", "failed", "refusing", ("重新复制", "copy its webhook")),
        ("feishu", 19021, "sign match fail or timestamp is not", "failed", "refusing", ("加签密钥", "the secret")),
        ("feishu", 19022, "Ip Not Allowed", "failed", "refusing", ("出口 IP", "public IP")),
        ("feishu", 19024, "Key Words Not Found", "failed", "refusing", ("关键词", "keyword")),
        ("feishu", 777, "who knows", "failed", "refusing", ("未知的拒绝", "unknown refusal")),
    ],
)
async def test_refusals_with_http_200(
    name: str, code: int, words: str, outcome: str, fault: str | None, says: tuple[str, str], servers: RobotServers
) -> None:
    group = servers.groups[name]
    fields = ("code", "msg") if name == "feishu" else ("errcode", "errmsg")
    group.refusal = dict(zip(fields, (code, words), strict=True))
    async with channel(name, servers) as robot:
        sent = await robot.send(notice())
        assert (sent.outcome, robot.health.fault) == (outcome, fault or "")
    assert f"{code} {words}"[:30] in sent.detail
    assert all(part in sent.detail for part in says), sent.detail
    assert len(sent.detail) <= DETAIL_LIMIT
    assert (sent.retry_s > 0) == (outcome == "later" or code == -1)
    if fault:
        assert robot.health.facts["zh"] in sent.detail
        assert robot.health.facts["en"] in sent.detail


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("words", [None, 7, ["x"], {"errcode": 0}, "", "x" * 20_000, "\ud800\r\n\x00"])
async def test_words_that_are_none(name: str, words: Any, servers: RobotServers) -> None:
    servers.groups[name].refusal = {"errcode": 5, "errmsg": words, "code": 5, "msg": words}
    sent = await send(name, servers)
    assert sent.outcome is Outcome.FAILED
    assert "5" in sent.detail
    assert len(sent.detail.splitlines()) == 1
    assert len(sent.detail) <= DETAIL_LIMIT


@pytest.mark.parametrize("name", ROBOTS)
async def test_a_phone_number_in_a_refusal_is_not_logged(name: str, servers: RobotServers) -> None:
    words = "invalid mobile 13800138000 in the list"
    servers.groups[name].refusal = {"errcode": 5, "errmsg": words, "code": 5, "msg": words}
    assert "invalid mobile *** in the list" in (await send(name, servers)).detail


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"Extra": None, "StatusCode": 0, "StatusMessage": "success"}, "accepted"),
        ({"StatusCode": 19001, "StatusMessage": "param invalid"}, "failed"),
        ({"StatusCode": 0, "code": 19024, "msg": "Key Words Not Found"}, "failed"),
        ({"StatusCode": 11232, "code": 0}, "later"),
        ({"StatusCode": None, "code": 0}, "failed"),
        ({"code": 0}, "accepted"),
        ({}, "failed"),
    ],
)
async def test_feishus_older_answers(answer: dict[str, Any], outcome: str, servers: RobotServers) -> None:
    servers.groups["feishu"].refusal = answer
    assert (await send("feishu", servers)).outcome == outcome


@pytest.mark.parametrize("status", [200, 400, 403])
async def test_the_robots_words_count_more_than_the_status(status: int, servers: RobotServers) -> None:
    group = servers.groups["feishu"]
    group.refusal, group.status = {"code": 19001, "msg": "param invalid"}, status
    assert "copy its webhook address" in (await send("feishu", servers)).detail


@pytest.mark.parametrize(("wait", "retry_s"), [(5, 5.0), (100, 100.0), (10**9, 600.0), ("x", 5.0)])
async def test_dingtalks_gateway_refuses_in_its_own_shape(wait: Any, retry_s: float, servers: RobotServers) -> None:
    servers.groups["dingtalk"].refusal = {"status": 1111, "wait": wait, "source": "x5", "punish": "deny"}
    sent = await send("dingtalk", servers)
    assert (sent.outcome, sent.retry_s) == (Outcome.LATER, retry_s)


@pytest.mark.parametrize("name", ROBOTS)
async def test_a_wrong_key(name: str, servers: RobotServers) -> None:
    servers.groups[name].token = "another"
    sent = await send(name, servers)
    assert sent.outcome is Outcome.FAILED
    assert "copy its webhook address" in sent.detail


@pytest.mark.parametrize("name", ["dingtalk", "feishu", "lark"])
@pytest.mark.parametrize("theirs", ["SEC-another", SECRET.lower()])
async def test_a_wrong_secret(name: str, theirs: str, servers: RobotServers) -> None:
    clock = Clock()
    async with channel(name, servers, clock) as robot:
        servers.groups[name].secret = theirs
        sent = await robot.send(notice())
    assert sent.outcome is Outcome.FAILED
    assert "the signature does not match: copy the secret" in sent.detail
    assert "clock" not in sent.detail


@pytest.mark.parametrize("name", ["dingtalk", "feishu", "lark"])
@pytest.mark.parametrize(("off_s", "way", "how"), [(-7_200, "慢 120 分钟", "behind"), (5_400, "快 90 分钟", "ahead")])
async def test_a_clock_that_is_off(name: str, off_s: float, way: str, how: str, servers: RobotServers) -> None:
    """The vendors' words do not always tell it from a wrong secret; the `Date` of the answer does."""
    clock = Clock()
    async with channel(name, servers, clock) as robot:
        clock.utc_s = time.time() + off_s
        sent = await robot.send(notice())
    assert sent.outcome is Outcome.FAILED
    assert f"本机时钟{way}" in sent.detail
    assert f"minutes {how}" in sent.detail
    assert "NTP" in sent.detail


@pytest.mark.parametrize("name", ["dingtalk", "feishu"])
@pytest.mark.parametrize("off_s", [-3_000, 3_000])
async def test_a_clock_that_is_off_by_less_than_an_hour(name: str, off_s: float, servers: RobotServers) -> None:
    clock = Clock()
    async with channel(name, servers, clock) as robot:
        clock.utc_s = time.time() + off_s
        assert (await robot.send(notice())).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("name", ["dingtalk", "feishu"])
async def test_a_signature_that_may_fail_for_either_reason_names_both(name: str, servers: RobotServers) -> None:
    words = "sign match fail or timestamp is not within one hour"
    servers.groups[name].refusal = {"errcode": 310000, "errmsg": words, "code": 19021, "msg": words}
    servers.groups[name].headers = {"Date": "some day"}
    detail = (await send(name, servers)).detail
    assert "check the secret and this machine's clock" in detail


# --- signatures ---


def test_signatures_as_openssl_makes_them() -> None:
    """`printf '%s\\n%s' TIME SECRET | openssl dgst -sha256 -hmac SECRET -binary | base64`; Feishu's of nothing."""
    assert dingtalk.signature(1700000000005, "SECdemo") == (
        "timestamp=1700000000005&sign=e%2B8a%2BWNdR5ki1Dyr7fdMHjspoeGOTh7%2BBNfO2pn6JWo%3D"
    )
    assert dingtalk.signature(1700000000002, "SECdemo").endswith(
        "sign=8VfSt6WY4hCl6BWyLJMPO3el09%2BK6IFCPjYvyR%2BMmXE%3D"
    )
    assert feishu.signature(100, "demo") == "jquNHnVOwmDRfw+vqTIrY5dooJAgi5EcRtLsQE4wfXg="


@pytest.mark.parametrize("name", ["dingtalk", "feishu", "lark"])
async def test_signatures_at_many_moments(name: str, servers: RobotServers) -> None:
    """With `+`, `/` and `=` in every place: what is encoded twice, or not at all, is refused."""
    clock = Clock(servers=servers)
    async with asyncio.timeout(120), channel(name, servers, clock) as robot:
        for n in range(60):
            clock.go(61.003)
            assert (await robot.send(notice(key=f"k{n}"))).outcome is Outcome.ACCEPTED
    assert len(servers.groups[name].taken) == 60


@pytest.mark.parametrize("name", ["dingtalk", "feishu"])
async def test_without_a_secret_nothing_is_signed(name: str, servers: RobotServers) -> None:
    servers.groups[name].secret = ""
    assert (await send(name, servers)).outcome is Outcome.ACCEPTED
    assert "sign" not in servers.groups[name].taken[0].body


# --- rates ---


@pytest.mark.parametrize(("name", "most"), [("wecom", 18), ("dingtalk", 18), ("feishu", 90), ("lark", 90)])
async def test_a_storm_never_meets_the_robots_limit(name: str, most: int, servers: RobotServers) -> None:
    """Ten minutes of more messages than anybody could send, of all priorities, with steps of ladders between."""
    clock = Clock(servers=servers)
    group = servers.groups[name]
    async with asyncio.timeout(200), channel(name, servers, clock, timeout_s=10.0) as robot:
        for n in range(600 if most == 18 else 150):
            each = notice(key=f"k{n}", priority=1 + n % 4, facts={"step": int(n % 7 == 0)})
            while (sent := await robot.send(each)).outcome is Outcome.ACCEPTED and group.within(60) <= most:
                pass
            assert sent.outcome is Outcome.LATER, sent.detail
            assert 0 < sent.retry_s <= 70.0
            assert group.within(60) <= most
            clock.go(1.0)
    assert len(group.taken) == group.asked
    assert len(group.taken) >= most


@pytest.mark.parametrize("name", ["wecom", "dingtalk"])
async def test_what_is_urgent_does_not_wait_for_what_is_not(name: str, servers: RobotServers) -> None:
    async with asyncio.timeout(60), channel(name, servers) as robot:
        outcomes = [(await robot.send(notice(key=f"k{n}", priority=3))).outcome for n in range(12)]
        assert outcomes == [Outcome.ACCEPTED] * 10 + [Outcome.LATER] * 2
        assert robot.health.facts["left"] == 8
        urgent = [(await robot.send(notice(key=f"u{n}", priority=1))).outcome for n in range(5)]
        assert urgent == [Outcome.ACCEPTED] * 4 + [Outcome.LATER]
        step = {"step": 2}
        steps = [(await robot.send(notice(key=f"s{n}", priority=3, facts=step))).outcome for n in range(5)]
        assert steps == [Outcome.ACCEPTED] * 4 + [Outcome.LATER]
        assert robot.health.failed == 0
        assert "频率上限" in (await robot.send(notice())).detail


@pytest.mark.parametrize(
    ("facts", "is_one"), [({}, False), ({"step": 0}, False), ({"step": 3}, True), ({"step": "x"}, False)]
)
def test_a_step_of_a_ladder(facts: dict[str, Any], is_one: bool) -> None:
    assert is_escalation(notice(facts=facts)) is is_one


async def test_five_a_second_at_most(servers: RobotServers) -> None:
    clock = Clock(servers=servers)
    async with channel("feishu", servers, clock) as robot:
        outcomes = [(await robot.send(notice(key=f"k{n}", priority=1))).outcome for n in range(6)]
        assert outcomes == [Outcome.ACCEPTED] * 4 + [Outcome.LATER] * 2
        clock.go(1.0)
        assert (await robot.send(notice(key="k9"))).outcome is Outcome.ACCEPTED


async def test_a_blocked_robot_is_left_alone_until_the_block_is_over(servers: RobotServers) -> None:
    """Somebody else uses the same robot: it is blocked although our own messages are few."""
    clock = Clock(servers=servers)
    group = servers.groups["dingtalk"]
    async with channel("dingtalk", servers, clock) as robot:
        group.asked_at_s.extend([clock.utc_s] * 20)
        sent = await robot.send(notice())
        assert (sent.outcome, sent.retry_s, robot.health.fault) == (Outcome.LATER, 600.0, Fault.REFUSING)
        asked = group.asked
        clock.go(300.0)
        sent = await robot.send(notice(priority=1, facts={"step": 1}))
        assert (sent.outcome, sent.retry_s) == (Outcome.LATER, 300.0)
        assert group.asked == asked
        assert robot.health.fault is Fault.REFUSING
        clock.go(301.0)
        assert (await robot.send(notice())).outcome is Outcome.ACCEPTED
        assert robot.health.fault is Fault.NONE


@pytest.mark.parametrize(("name", "limit", "retry_s"), [("wecom", 20, 60.0), ("feishu", 100, 10.0)])
async def test_a_robot_that_others_use_too(name: str, limit: int, retry_s: float, servers: RobotServers) -> None:
    """While it takes no more, only what is urgent is tried."""
    clock = Clock(servers=servers)
    group = servers.groups[name]
    async with channel(name, servers, clock) as robot:
        group.asked_at_s.extend([clock.utc_s - 2] * limit)
        sent = await robot.send(notice())
        assert (sent.outcome, sent.retry_s, robot.health.fault) == (Outcome.LATER, retry_s, Fault.NONE)
        asked = group.asked
        clock.go(5.0)
        sent = await robot.send(notice())
        assert (sent.outcome, sent.retry_s) == (Outcome.LATER, retry_s - 5.0)
        assert group.asked == asked
        group.asked_at_s.clear()
        assert (await robot.send(notice(priority=1))).outcome is Outcome.ACCEPTED
        assert (await robot.send(notice(priority=3, facts={"step": 1}))).outcome is Outcome.ACCEPTED
        assert (await robot.send(notice())).outcome is Outcome.LATER
        clock.go(61.0)
        assert (await robot.send(notice())).outcome is Outcome.ACCEPTED


async def test_a_new_channel_begins_carefully(servers: RobotServers) -> None:
    settings = WecomSettings(key=TOKEN, base_url=servers.url, timeout_s=20.0)
    async with asyncio.timeout(60), WecomRobot(settings) as robot:
        outcomes = [(await robot.send(notice(key=f"k{n}", priority=3))).outcome for n in range(9)]
    assert outcomes == [Outcome.ACCEPTED] * 5 + [Outcome.LATER] * 4


# --- lengths ---

LONG = TEXT + "甲烷超限🚨" * 3_000


@pytest.mark.parametrize(
    ("name", "limit"), [("wecom", 2048), ("dingtalk", 20_000), ("feishu", 20_000), ("lark", 20_000)]
)
@pytest.mark.parametrize("text", [LONG, LONG[:-1], TEXT + '"\n' * 20_000, TEXT + "x" * 70_000, TEXT + "\u200d" * 9_000])
async def test_a_long_text_is_cut_and_says_so(name: str, limit: int, text: str, servers: RobotServers) -> None:
    assert (await send(name, servers, notice(text))).outcome is Outcome.ACCEPTED
    (message,) = servers.groups[name].taken
    body = json.dumps(message.body, ensure_ascii=False).encode()
    shown = message.text.partition(" <at ")[0]
    assert shown.endswith("见大屏）")
    assert shown[: shown.rindex("…")].rstrip() == text[: shown.rindex("…")].rstrip()
    used = len(message.text.encode()) if name == "wecom" else len(body)
    assert limit - 80 < used <= limit
    assert shown.startswith(text[:70].rstrip("\n"))


async def test_markdown_has_twice_the_room_and_no_tags(servers: RobotServers) -> None:
    sent = await send("wecom", servers, notice("<@all>" + "红" * 2_000), form=Form.MARKDOWN)
    assert sent.outcome is Outcome.ACCEPTED
    (message,) = servers.groups["wecom"].taken
    assert message.body["msgtype"] == "markdown"
    assert message.text.startswith("**【红】【一级】助剂库 甲烷**\n＜@all>红红")
    assert 4_060 < len(message.text.encode()) <= wecom.MARKDOWN_BYTES


@pytest.mark.parametrize("name", ["feishu", "lark"])
async def test_no_name_of_the_plant_mentions_everybody(name: str, servers: RobotServers) -> None:
    await send(name, servers, notice('阀门<at user_id="all">所有人</at>泄漏'))
    (message,) = servers.groups[name].taken
    assert message.mentions == (OPEN_ID,)


@pytest.mark.parametrize("name", ["dingtalk", "feishu", "lark"])
@pytest.mark.parametrize("text", [TEXT, LONG])
async def test_the_keyword_that_a_robot_wants(name: str, text: str, servers: RobotServers) -> None:
    servers.groups[name].keyword = "岗哨"
    refused = await send(name, servers, notice(text))
    assert "the robot wants a keyword" in refused.detail
    assert (await send(name, servers, notice(text), keyword="岗哨")).outcome is Outcome.ACCEPTED
    assert servers.groups[name].taken[0].text.endswith(" 岗哨")
    await send(name, servers, notice("岗哨：" + TEXT), keyword="岗哨")
    assert "岗哨" not in servers.groups[name].taken[1].text.partition("：")[2]


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=400),
    limit=st.integers(310, 1_200),
    lang=st.sampled_from(["zh", "en"]),
    size=st.sampled_from([utf8, in_json]),
    end=st.sampled_from(["", " <at>"]),
    keyword=st.sampled_from(["", "岗哨"]),
)
def test_cuts(text: str, limit: int, lang: str, size: Callable[[str], int], end: str, keyword: str) -> None:
    short = fit_with(text, limit, lang, end=end, keyword=keyword, size=size)
    assert size(short) <= limit
    assert keyword in short
    assert end in short
    head = text[:HEAD]
    assert short.startswith(head.rstrip()) or size(head) > limit - 90
    if size(text + end + " " + keyword) <= limit:
        assert short.startswith(text)
        assert "…" not in short[len(text) :]


@given(
    drawn=st.lists(st.sampled_from(["字", "a", "e\u0302", "👩\u200d🚒", "☁\ufe0f", "\n"]), min_size=200, max_size=400)
)
def test_cuts_keep_the_head_and_whole_characters(drawn: list[str]) -> None:
    """A character may be drawn of several: none of them is taken apart."""
    head = "頭" * HEAD
    text = head + "".join(drawn)
    short = fit(text, 400, "zh")
    assert len(short.encode()) <= 400
    kept = short[: short.rindex("…")] if "…" in short else short
    assert kept.startswith(head)
    assert kept in {head + "".join(drawn[:n]) for n in range(len(drawn) + 1)}


@pytest.mark.parametrize(
    ("text", "lang", "end"),
    [
        ("红" * 200, "zh", "红…（未完，见大屏）"),
        ("红" * 200, "en", "红… (more on the screen)"),
        ("红\n" * 200, "zh", "红…（共201行，见大屏）"),
        ("r\n" * 400, "en", "r… (401 lines in all: see the screen)"),
    ],
)
def test_the_end_of_a_cut(text: str, lang: str, end: str) -> None:
    assert fit(text, 300, lang).endswith(end)


@pytest.mark.parametrize(
    ("phone", "digits"),
    [
        ("+86 138-0013-8000", "13800138000"),
        ("008613800138000", "13800138000"),
        ("13800138000", "13800138000"),
        ("+852 5123 4567", "85251234567"),
        ("", ""),
    ],
)
def test_phone_numbers(phone: str, digits: str) -> None:
    assert national(phone) == digits


def test_a_message_in_english_is_marked_in_english() -> None:
    assert words_of(notice("[RED] contest", lang="en", is_test=True)) == "[TEST] [RED] contest"


# --- settings ---

WHOLE = {
    "wecom": f"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={TOKEN}",
    "dingtalk": f"https://oapi.dingtalk.com/robot/send?access_token={TOKEN}",
    "feishu": f"https://open.feishu.cn/open-apis/bot/v2/hook/{TOKEN}",
}
MAKE: dict[str, Callable[..., Robot]] = {
    "wecom": lambda **given: WecomRobot(WecomSettings(**given)),
    "dingtalk": lambda **given: DingtalkRobot(DingtalkSettings(**given)),
    "feishu": lambda **given: FeishuRobot(FeishuSettings(**given)),
}


@pytest.mark.parametrize("name", MAKE)
def test_the_default_address(name: str) -> None:
    assert MAKE[name](key=f" {TOKEN}\n")._url == WHOLE[name]
    assert MAKE[name](key=WHOLE[name])._url == WHOLE[name]


@pytest.mark.parametrize("name", MAKE)
async def test_the_whole_address_as_it_was_copied(name: str, servers: RobotServers) -> None:
    host = WHOLE[name].split("/")[2]
    servers.groups[name].secret = ""
    sent_to = WHOLE[name].replace(f"https://{host}", servers.url)
    async with MAKE[name](key=f"{sent_to}\n") as robot:
        assert (await robot.send(notice())).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"key": ""}, "key: must be the robot's key"),
        ({"key": "token of robot"}, "key: must be the robot's key"),
        ({"key": "密钥"}, "key: must be the robot's key"),
        ({"key": "https://example.com/"}, "key: must be the robot's key"),
        ({"key": "http://[::1"}, "key: is no address"),
        ({"key": TOKEN, "base_url": "http://example.com"}, "base_url: must begin with https://"),
        ({"key": TOKEN, "base_url": "example.com"}, "base_url: must begin with https://"),
        ({"key": TOKEN, "base_url": "https://[bad"}, "base_url: is no address"),
        ({"key": TOKEN, "per_min": 0}, "per_min: must be at least 1"),
    ],
)
def test_settings_that_cannot_work(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        MAKE[name](**given)
    hides(str(caught.value))


@pytest.mark.parametrize("name", MAKE)
def test_the_token_goes_nowhere_in_the_clear(name: str) -> None:
    with pytest.raises(ConfigError, match="key: must begin with https://") as caught:
        MAKE[name](key=WHOLE[name].replace("https", "http"))
    hides(str(caught.value))


def test_settings_hide_their_secrets() -> None:
    hides(repr(WecomSettings(key=TOKEN)))
    hides(repr(DingtalkSettings(key=TOKEN, secret=SECRET)))
    hides(repr(FeishuSettings(key=TOKEN, secret=SECRET)))
    hides(repr(WebhookSettings(url=f"https://example.com/{TOKEN}")))


# --- words ---


def _all_verdicts() -> list[Verdict]:
    modules = (wecom, dingtalk, feishu, sys.modules["sitewarden.edge.alerts.robots.robot"])
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Verdict)]
    tables = [kind.MEANINGS for kind in (WecomRobot, DingtalkRobot, FeishuRobot)]
    return found + [verdict for table in tables for verdict in table.values()]


def test_every_refusal_says_what_to_do_in_both_languages() -> None:
    verdicts = [verdict for verdict in _all_verdicts() if verdict.outcome is not Outcome.ACCEPTED]
    assert len(verdicts) > 30
    for verdict in verdicts:
        detail = replace(verdict, said="310000 " + "x" * 500).detail
        assert any("\u4e00" <= char <= "\u9fff" for char in verdict.zh), verdict
        assert verdict.en.isascii(), verdict
        assert detail.endswith(f"{verdict.zh} / {verdict.en}"), detail
        assert len(detail) <= DETAIL_LIMIT
        assert detail.startswith("310000 xxx")


@pytest.mark.parametrize(
    "text",
    [
        f"key={TOKEN}",
        f"KEY={TOKEN.upper()}",
        "sign=SEC%2Bsecret%2Fof%3Dthe-robot",
        "SEC+secret/of=the-robot",
        "U0VDK3NlY3JldC9vZj10aGUtcm9ib3Q=",
    ],
)
def test_the_veil(text: str) -> None:
    assert veil(f"a {text} b", (TOKEN, SECRET, "")).startswith("a ")
    hides(veil(f"a {text} b", (TOKEN, SECRET, "")))
    assert "U0VDK3" not in veil(text, (SECRET,))


def test_foreign_words_are_one_short_line() -> None:
    assert said("a\r\nb\x1b[31m\u202e c" + "x" * 500, ()) == "a b [31m c" + "x" * 109 + "…"


@pytest.mark.parametrize(
    ("title", "kind"), [("WeCom", WecomRobot), ("DingTalk", DingtalkRobot), ("Feishu", FeishuRobot)]
)
def test_every_code_is_documented(title: str, kind: type[Robot], root: Path) -> None:
    text = (root / "docs/robots.md").read_text("utf-8")
    rows = re.findall(rf"^\| {title} \| ([-0-9, ]+) \| (\w+) \|", text, re.MULTILINE)
    documented = {int(code): outcome for codes, outcome in rows for code in codes.split(",")}
    assert documented == {code: verdict.outcome.value for code, verdict in kind.MEANINGS.items()}


def test_every_setting_is_documented(root: Path) -> None:
    text = (root / "docs/robots.md").read_text("utf-8")
    named = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    kinds = (WecomSettings, DingtalkSettings, FeishuSettings)
    assert named == {each.name for kind in kinds for each in fields(kind)}
    lengths = f"{wecom.TEXT_BYTES:,} bytes; Markdown {wecom.MARKDOWN_BYTES:,} | {dingtalk.BODY_BYTES:,} bytes"
    assert f"{lengths} | {feishu.BODY_BYTES:,} bytes" in text


# --- the webhook ---


async def test_what_a_webhook_gets(servers: RobotServers) -> None:
    facts = {"kind": "alarm.raised", "alarm": {"id": "a1"}}
    await send("webhook", servers, notice(number=17, facts=facts), notice(resent=True))
    (message,) = servers.groups["webhook"].taken  # the key is the same: it has it already
    assert message.body == {
        "key": "k1",
        "msgtype": "text",
        "text": {"content": TEXT},
        "title": "【红】【一级】助剂库 甲烷",
        "person": "officer_wang",
        "priority": 2,
        "resent": False,
        "test": False,
        "number": 17,
        "facts": facts,
    }


@pytest.mark.parametrize("name", ["webhook", "wecom"])
async def test_no_proxy_is_used(
    name: str, servers: RobotServers, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of the service's environment must not send alarms elsewhere."""
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert (await send(name, servers)).outcome is Outcome.ACCEPTED


async def test_the_webhooks_own_success_field(servers: RobotServers) -> None:
    servers.groups["webhook"].refusal = {"StatusCode": 7, "errmsg": "fine"}
    assert (await send("webhook", servers, success_field="StatusCode", success_value=7)).outcome is Outcome.ACCEPTED
    for field_name, says in (("StatusCode", "StatusCode 7 fine"), ("errcode", "no errcode")):
        sent = await send("webhook", servers, success_field=field_name)
        assert sent.outcome is Outcome.FAILED
        assert says in sent.detail


@pytest.mark.parametrize("url", ["http://[::1", f"ftp://127.0.0.1/{TOKEN}", f"http:///{TOKEN}", f"http://a..b/{TOKEN}"])
async def test_a_webhook_without_an_address(url: str) -> None:
    async with asyncio.timeout(60), WebhookChannel(WebhookSettings(url=url)) as hook:
        sent = await hook.send(notice())
    assert sent.outcome is Outcome.FAILED
    assert "address" in sent.detail or "name is not found" in sent.detail
    hides(sent.detail)


async def test_a_webhooks_address_with_other_letters(servers: RobotServers) -> None:
    servers.groups["webhook"].token = "岗哨"
    async with WebhookChannel(WebhookSettings(url=f"{servers.url}/webhook/岗哨")) as hook:
        assert (await hook.send(notice())).outcome is Outcome.ACCEPTED
