"""Ways to people while the loop's pool of threads is full: a name server that does not answer fills it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sitewarden.edge.alerts.mail import Mail, MailSettings, Security
from sitewarden.edge.alerts.port import Channel, Notice, Outcome, Receiver
from sitewarden.edge.alerts.sms.memory import FileMemory
from sitewarden.edge.alerts.sms.modem import SmsModem, SmsSettings
from sitewarden.edge.alerts.threads import Names, apart
from sitewarden.edge.alerts.webhook_channel import WebhookChannel, WebhookSettings
from sitewarden.tests.peers.fake_modem import FakeModem
from sitewarden.tests.peers.mail_server import MailServer
from sitewarden.tests.peers.robot_servers import TOKEN, RobotServers

TWO_PARTS = "【红】【一级】" + "氢" * 90
REFUSED = socket.gaierror(socket.EAI_NONAME, "no such name")


@pytest_asyncio.fixture
async def full_pool() -> AsyncIterator[None]:
    """Every thread of the loop's pool is taken, and the queue before it is long."""
    over = threading.Event()
    taken = [asyncio.get_running_loop().run_in_executor(None, over.wait) for _ in range(100)]
    yield
    over.set()
    await asyncio.gather(*taken)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names that were looked up; the name server does not answer before the test is over."""
    names: list[str] = []
    over = threading.Event()

    def hang(host: str, *_: Any, **__: Any) -> Any:
        names.append(host)
        over.wait()
        raise REFUSED

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield names
    over.set()


def notice() -> Notice:
    to = Receiver(person="li", phone="+8613800138000", email="li@example.com")
    return Notice(key="k", to=to, title="【红】", text=TWO_PARTS, priority=1)


async def sent(channel: Channel) -> Outcome:
    async with asyncio.timeout(20):
        return (await channel.send(notice())).outcome


class Nobody:
    """Listens to no modem."""

    def report(self, receipt: str, delivered: bool, detail: str) -> None: ...

    def reply(self, phone: str, text: str, sent_ms: int | None = None) -> None: ...


@pytest.mark.usefixtures("full_pool")
async def test_an_sms_of_two_parts_goes(tmp_path: Path, eventually: Any) -> None:
    with FakeModem(tmp_path) as modem:
        modem.sim = "SIM PIN"
        memory = FileMemory(tmp_path / "sms.json")
        settings = SmsSettings(port=str(modem.path), memory=memory, pin="1234")
        async with SmsModem(settings, Nobody()) as channel:
            await eventually(lambda: channel.health.facts.get("operator"), lambda: f"it is ready: {channel.health}")
            await eventually(lambda: channel._ready, "it is ready")
            assert await sent(channel) is Outcome.ACCEPTED
    assert len(modem.sent) == 2


@pytest.mark.usefixtures("full_pool")
async def test_a_message_to_a_host_with_a_name_goes() -> None:
    server, robots = MailServer(), RobotServers()
    async with server.running(), robots.running():
        url = f"{robots.url}/webhook/{TOKEN}".replace("127.0.0.1", "localhost")
        async with WebhookChannel(WebhookSettings(url=url)) as webhook:
            assert await sent(webhook) is Outcome.ACCEPTED
        where = {"host": "localhost", "port": server.port, "security": Security.PLAIN}
        async with Mail(MailSettings(sender="gateway@example.com", **where)) as mail:
            assert await sent(mail) is Outcome.ACCEPTED


async def test_a_name_is_asked_once_however_many_wait_for_it(asked: list[str]) -> None:
    """Attempts come again and again while nobody answers; threads do not become more."""
    names = Names()
    for _ in range(3):
        waiting = [asyncio.create_task(names.find("robot.test", 443)) for _ in range(4)]
        waiting.append(asyncio.create_task(names.find("mail.test", 465)))
        done, _ = await asyncio.wait(waiting, timeout=0.05)
        assert not done
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    assert sorted(asked) == ["mail.test", "robot.test"]


async def test_what_comes_too_late_is_given_back() -> None:
    over, back = threading.Event(), list[str]()

    def open_slowly() -> str:
        over.wait()
        return "port"

    with pytest.raises(TimeoutError):
        await apart(open_slowly, 0.05, late=back.append)
    over.set()
    async with asyncio.timeout(10):
        while not back:
            await asyncio.sleep(0.01)
    assert back == ["port"]
