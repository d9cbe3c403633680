"""A [[channel]] of site.toml becomes a channel, each kind with its files and settings; the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sitewarden.edge.alerts.beacon import Beacon, Weekly
from sitewarden.edge.alerts.channel_tables import ChannelDeps, make, read_secret
from sitewarden.edge.alerts.channels import Channels, Unopened
from sitewarden.edge.alerts.mail import Mail
from sitewarden.edge.alerts.opened import Open
from sitewarden.edge.alerts.picture import Part
from sitewarden.edge.alerts.port import Fault, Notice, Outcome, Receiver
from sitewarden.edge.alerts.robots import DingtalkRobot, FeishuRobot, WecomRobot
from sitewarden.edge.alerts.sms.modem import SmsModem
from sitewarden.edge.alerts.speech.player import Speech
from sitewarden.edge.alerts.webhook_channel import WebhookChannel
from sitewarden.edge.metas import OutputMeta
from sitewarden.edge.outputs import OutputError, Outputs
from sitewarden.edge.reload import diff
from sitewarden.edge.site import Site, load_site
from sitewarden.errors import ConfigError
from sitewarden.sensors.buses import ReplyError
from sitewarden.tests.peers.robot_servers import SECRET, TOKEN, RobotServers

HEAD = """
[site]
id = "plant"
name = "工厂"
name_en = "Plant"
timezone = "Europe/Berlin"

[gateway]
id = "gw1"

[alerts]
unreachable_ok = true
{alerts}

[[area]]
id = "pit"
name = "池"
name_en = "Pit"

[[area]]
id = "store"
name = "库"
name_en = "Store"

[[bus]]
id = "net"
kind = "tcp"
host = "127.0.0.1"
port = 502

[[device]]
id = "relay"
area = "pit"
bus = "net"
unit_id = 1
profile = "relay_siren"
"""
PEOPLE = "id,name,name_en,roles,areas,phone\nli,李,Li,keeper officer,*,13800000001\nwang,王,Wang,officer,*,\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "people.csv").write_text(PEOPLE, "utf-8")
    for name, content in (("key", TOKEN), ("secret", SECRET), ("password", "hunter2"), ("pin", "1234")):
        (tmp_path / name).write_text(f"{content}\n", "utf-8")
    return tmp_path


def write(folder: Path, *channels: str, alerts: str = "") -> Site:
    text = HEAD.format(alerts=alerts) + "".join(f"\n[[channel]]\n{channel}\n" for channel in channels)
    (folder / "site.toml").write_text(text, "utf-8")
    return load_site(folder / "site.toml", folder / "data")


@dataclass
class Wires:
    """What channels do with outputs and tell on their own."""

    written: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    async def set_output(self, output: str, state: str) -> None:
        self.written.append((output, state))

    def report(self, receipt: str, delivered: bool, detail: str) -> None: ...

    def reply(self, phone: str, text: str, sent_ms: int | None = None) -> None: ...

    def deps(self, data: Path) -> ChannelDeps:
        return ChannelDeps(data=data, set_output=self.set_output, events=lambda _channel: self)


def built(folder: Path, channel: str, **more: str) -> Any:
    """The channel that site.toml makes, not entered."""
    (table,) = write(folder, channel, **more).channels
    return make(table, Wires().deps(folder))


# --- one of each kind ---

WECOM = 'id = "w"\nkind = "wecom"\nkey_file = "key"\n'


def test_a_webhook_has_the_address_that_its_file_holds(folder: Path):
    (folder / "address").write_text("https://robot.example/send?key=abc123\n")
    made = built(folder, 'id = "h"\nkind = "webhook"\nurl_file = "address"\nsuccess_value = 7')
    assert isinstance(made, WebhookChannel)
    assert made._settings.url == "https://robot.example/send?key=abc123"
    assert made._settings.success_value == 7


def test_robots_of_every_vendor(folder: Path):
    wecom = built(folder, WECOM + 'form = "markdown"')
    assert isinstance(wecom, WecomRobot)
    assert wecom._url == f"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={TOKEN}"
    signed = 'key_file = "key"\nsecret_file = "secret"\nkeyword = "岗哨"\n'
    ding = built(folder, f'id = "d"\nkind = "dingtalk"\n{signed}')
    assert isinstance(ding, DingtalkRobot)
    assert SECRET in ding._secrets
    feishu = built(folder, f'id = "f"\nkind = "feishu"\n{signed}open_ids = {{ li = "ou_1" }}')
    assert isinstance(feishu, FeishuRobot)
    assert feishu._url.startswith("https://open.feishu.cn/")
    lark = built(folder, f'id = "f"\nkind = "lark"\n{signed}')
    assert lark._url.startswith("https://open.larksuite.com/")


def test_the_rate_of_robots_is_their_own_or_the_sites_or_the_vendors(folder: Path):
    def left(text: str, **more: str) -> int:
        return sum(built(folder, text, **more)._budgets[0]._sizes.values())

    assert left(WECOM) == 18
    assert left(WECOM, alerts="robot_rate_per_min = 9") == 9
    assert left(WECOM + "per_min = 5", alerts="robot_rate_per_min = 9") == 5


def test_a_mailbox(folder: Path):
    text = 'id = "m"\nkind = "mail"\nhost = "smtp.example.com"\nusername = "gw"\npassword_file = "password"\n'
    made = built(folder, text + 'sender = "gw@example.com"\nsecurity = "starttls"')
    assert isinstance(made, Mail)
    assert (made._settings.host, made._settings.password, made._settings.security) == (
        "smtp.example.com",
        "hunter2",
        "starttls",
    )


async def test_a_modem_and_the_relay_that_takes_its_power(folder: Path, monkeypatch: pytest.MonkeyPatch):
    text = (
        'id = "sms"\nkind = "sms"\nserial = "modem"\npin_file = "pin"\npower_output = "pit.relay.lamp"\nreport_s = 60'
    )
    wires = Wires()
    (table,) = write(folder, text).channels
    made = make(table, wires.deps(folder))
    assert isinstance(made, SmsModem)
    settings = made._settings
    assert (settings.port, settings.pin, settings.report_s) == (str(folder / "modem"), "1234", 60)
    monkeypatch.setattr("sitewarden.edge.alerts.channel_tables._POWER_OFF_S", 0.0)
    assert settings.power_cycle is not None
    await settings.power_cycle()
    assert wires.written == [("pit.relay.lamp", "off"), ("pit.relay.lamp", "on")]


BEACON = (
    'id = "b"\nkind = "beacon"\nparts = { siren = "pit.relay.siren", red = "pit.relay.lamp" }\n'
    'areas = ["pit"]\nlamp_test = "sun 09:30"\nsiren = [1, 2]\n'
)


def test_a_siren_with_a_lamp_knows_its_states_and_the_sites_clock(folder: Path):
    made = built(folder, BEACON)
    assert isinstance(made, Beacon)
    settings = made.settings
    assert {part: ref.id for part, ref in settings.parts.items()} == {
        Part.SIREN: "pit.relay.siren",
        Part.RED: "pit.relay.lamp",
    }
    assert settings.parts[Part.RED].states == ("off", "on")
    assert (settings.areas, settings.siren, settings.timezone) == (("pit",), frozenset({1, 2}), "Europe/Berlin")
    assert settings.lamp_test == Weekly(weekday=6, hour=9, minute=30)
    assert built(folder, BEACON.replace("sun 09:30", "")).settings.lamp_test is None


def test_a_loudspeaker(folder: Path):
    (folder / "clips").mkdir()
    text = 'id = "s"\nkind = "speech"\nlangs = ["zh", "en"]\nclips = "clips"\nreadings = { "单县" = "shan4 xian4" }'
    made = built(folder, text)
    assert isinstance(made, Speech)
    assert (made.settings.clips, made.settings.langs) == (folder / "clips", ("zh", "en"))
    assert made.settings.readings == {"单县": "shan4 xian4"}


def test_no_secret_is_shown(folder: Path):
    site = write(folder, WECOM, 'id = "sms"\nkind = "sms"\nserial = "m"\npin_file = "pin"')
    assert TOKEN not in repr(site)
    assert site.channels[0].key == TOKEN


def test_another_secret_is_another_channel_and_is_named_without_its_value(folder: Path):
    old = write(folder, WECOM)
    (folder / "key").write_text("another-token-0002")
    new = load_site(folder / "site.toml", folder / "data")
    assert diff(old, new).lines == ("channel w: key_file holds another key",)
    assert old.channels != new.channels
    (folder / "key").unlink()
    with pytest.raises(ConfigError, match="cannot be read as text"):
        read_secret(folder / "key")


# --- the channels of a running gateway ---


@pytest.fixture
async def robots() -> AsyncIterator[RobotServers]:
    async with RobotServers().running() as servers:
        yield servers


def hook(name: str, servers: RobotServers, more: str = "") -> str:
    return f'id = "{name}"\nkind = "webhook"\nurl = "{servers.url}/webhook/{TOKEN}"\n{more}'


def notice(**changes: Any) -> Notice:
    return replace(Notice(key="k1", to=Receiver(person="li"), title="【一级】", text="温度过高", priority=2), **changes)


async def test_a_changed_channel_is_opened_anew_and_the_others_go_on(folder: Path, robots: RobotServers):
    site = write(folder, hook("a", robots), hook("b", robots))
    async with Channels(site.channels, Wires().deps(folder)) as channels:
        live = channels.live
        first, second = live["a"], live["b"]
        assert (await second.send(notice())).outcome is Outcome.ACCEPTED
        await channels.change(write(folder, hook("a", robots, "success_value = 9"), hook("b", robots)).channels)
        assert live["b"] is second, "it is not touched"
        assert live["a"] is not first
        assert (await live["a"].send(notice())).outcome is Outcome.FAILED, "the new setting counts"
        assert (await second.send(notice())).outcome is Outcome.ACCEPTED
        await channels.change(write(folder, hook("b", robots)).channels)
        assert list(live) == ["b"]
        await channels.change(write(folder, hook("b", robots), hook("c", robots)).channels)
        assert (await live["c"].send(notice())).outcome is Outcome.ACCEPTED
    assert not live


async def test_the_same_file_with_other_words_around_it_touches_nothing(folder: Path, robots: RobotServers):
    site = write(folder, hook("a", robots))
    async with Channels(site.channels, Wires().deps(folder)) as channels:
        before = channels.live["a"]
        await channels.change(write(folder, hook("a", robots), alerts='channels = ["a"]').channels)
        assert channels.live["a"] is before


async def test_a_channel_that_cannot_be_opened_is_a_fault_and_costs_the_others_nothing(
    folder: Path, robots: RobotServers
):
    good, bad = write(folder, hook("a", robots), WECOM).channels
    bad.key = "not a token"
    async with Channels((bad, good), Wires().deps(folder)) as channels:
        broken = channels.live["w"]
        assert isinstance(broken, Unopened)
        assert broken.health.fault is Fault.REFUSING
        assert "key: must be the robot's key" in broken.health.detail
        sent = await broken.send(notice())
        assert (sent.outcome, broken.health.failed) == (Outcome.FAILED, 1)
        assert (await channels.live["a"].send(notice())).outcome is Outcome.ACCEPTED
        await channels.change(write(folder, hook("a", robots), WECOM).channels)
        assert isinstance(channels.live["w"], WecomRobot), "mended"


async def test_a_defect_of_one_channel_is_a_fault_of_it(
    folder: Path, robots: RobotServers, monkeypatch: pytest.MonkeyPatch
):
    async def fail(_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(WecomRobot, "__aenter__", fail)
    monkeypatch.setattr(WebhookChannel, "__aexit__", fail)
    async with Channels(write(folder, WECOM, hook("a", robots)).channels, Wires().deps(folder)) as channels:
        assert "RuntimeError: boom" in channels.live["w"].health.detail
        await channels.change(())
        assert not channels.live


ALARM = Open(id="pit.g.h2s.high", occurrence=3, priority=1, area="pit", point="pit.g.h2s", kind="hihi")


def beacon(channels: Channels) -> Any:
    """The one channel that is open; `Sounding` shows it the alarms."""
    (channel,) = channels.live.values()
    return channel


async def test_a_siren_that_a_reload_brings_shows_and_is_silenced(folder: Path, eventually: Any):
    wires = Wires()
    async with Channels((), wires.deps(folder)) as channels:
        await channels.change(write(folder, BEACON).channels)
        beacon(channels).show([ALARM])
        await eventually(lambda: ("pit.relay.siren", "on") in wires.written, "it sounds")
        assert beacon(channels).silence() == ("pit.g.h2s.high",)
        wires.written.clear()
        await eventually(lambda: ("pit.relay.siren", "off") in wires.written, "it is quiet")
        beacon(channels).show([])
        await eventually(lambda: ("pit.relay.lamp", "off") in wires.written, "it is dark")


async def test_two_beacons_never_write_the_same_outputs(folder: Path, eventually: Any, monkeypatch: pytest.MonkeyPatch):
    """The old one says its farewell before the new one begins, or the lamp would end up wrong."""
    wires, begin = Wires(), Beacon.__aenter__
    written_before: list[int] = []

    async def begins(self: Beacon) -> Beacon:
        written_before.append(wires.written.count(("pit.relay.lamp", "on")))
        return await begin(self)

    monkeypatch.setattr(Beacon, "__aenter__", begins)
    site = write(folder, BEACON.replace("red =", "amber ="))
    async with Channels(site.channels, wires.deps(folder)) as channels:
        beacon(channels).show([])
        await eventually(lambda: ("pit.relay.lamp", "off") in wires.written, "nothing is open")
        task = asyncio.create_task(
            channels.change(write(folder, BEACON.replace("red =", "amber =") + "refresh_s = 60").channels)
        )
        await task
        beacon(channels).show([])
        await eventually(lambda: wires.written[-1:] == [("pit.relay.lamp", "off")], "the new one has the lamp")
        lamp = [state for output, state in wires.written if output == "pit.relay.lamp"]
        assert "on" in lamp, "the farewell"
        assert lamp[lamp.index("on") :].count("on") == 1
        assert written_before == [0, 1], "the farewell was said before the new one began"


async def test_a_state_that_is_written_again_and_again_makes_one_record():
    meta = OutputMeta(
        id="pit.relay.siren",
        bus="net",
        area="pit",
        device="pit.relay",
        output="siren",
        name="警号",
        name_en="siren",
        states=("off", "on"),
    )
    records: list[tuple[str, str, str]] = []
    fails = False

    async def write(_: OutputMeta, state: str) -> Any:
        if fails:
            raise ReplyError("timeout", "no answer")
        return SimpleNamespace(words=(state == "on",))

    async def commit(draft: Any) -> None:
        records.append((draft.kind, draft.body["state"], draft.body.get("why", "")))

    outputs = Outputs([meta], write, commit, cast("Any", None))
    for state in ("off", "off", "on", "on"):
        await outputs.keep(meta.id, state, "alerts")
    assert records == [("output.written", "off", ""), ("output.written", "on", "")]
    fails = True
    for _ in range(3):
        with pytest.raises(OutputError):
            await outputs.keep(meta.id, "on", "alerts")
    assert records[2:] == [("output.failed", "on", "timeout")]
    fails = False
    await outputs.keep(meta.id, "on", "alerts")
    await outputs.set(meta.id, "on", "zhao")
    assert records[3:] == [("output.written", "on", "")] * 2, "a person's write is always a record"
