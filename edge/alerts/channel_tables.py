"""From a `[[channel]]` of site.toml to a channel: what its files hold, its settings, the object that sends.

Each kind is loaded where a site uses it, and not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ..tables import changed

if TYPE_CHECKING:
    from .beacon import Beacon, LampTest, SetOutput, Weekly
    from .mail import Mail
    from .port import Channel, Events
    from .robots import DingtalkRobot, FeishuRobot, WecomRobot
    from .sms.modem import SmsModem
    from .speech.player import Speech
    from .webhook_channel import WebhookChannel

SECRETS: Mapping[str, str] = {
    "url_file": "url",
    "key_file": "key",
    "secret_file": "secret",
    "password_file": "password",
    "pin_file": "pin",
}
"""Keys that name a file, and what it holds."""
_ROBOTS = frozenset({"wecom", "dingtalk", "feishu", "lark"})
OVER_HTTP = _ROBOTS | {"webhook"}
"""Kinds that go through the proxy of `[alerts]`."""
_LARK = "https://open.larksuite.com"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_POWER_OFF_S = 10.0


def _no_test(channel: str, test: LampTest) -> None:
    del channel, test


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelDeps:
    """What channels need of the gateway.

    Attributes:
        data: its folder; a relative serial port starts there.
        keeps: folder of what must outlive the process; None: the same.
        set_output: of beacons and of a modem's power: see `output_keeper.SetOutput`.
        events: what a channel (by id) tells on its own.
        lamp_tested: told of every lamp test of a beacon (by id).
    """

    data: Path
    set_output: SetOutput
    events: Callable[[str], Events]
    lamp_tested: Callable[[str, LampTest], None] = _no_test
    keeps: Path | None = None


def complete(
    table: Any, folder: Path, outputs: Mapping[str, tuple[str, ...]], *, timezone: str, per_min: int | None = None
) -> Any:
    """The table with everything that lies elsewhere, so that two equal ones are the same channel.

    Args:
        table: as `tables.plain` made it.
        folder: of site.toml; files are named from there.
        outputs: states of every output of the site, by `area.device.output`.
        timezone: of the site.
        per_min: of robots that say nothing themselves.

    Raises:
        ConfigError: a file cannot be read.
    """
    values: dict[str, Any] = {
        value: read_secret(folder / getattr(table, key)) if getattr(table, key) else getattr(table, value, "")
        for key, value in SECRETS.items()
        if hasattr(table, key)
    }
    for key in ("ca_file", "clips"):
        if getattr(table, key, ""):
            values[key] = str(folder / getattr(table, key))
    match table.kind:
        case "beacon":
            values["states"] = {name: outputs.get(name, ()) for name in table.parts.values()}
            values["timezone"] = timezone
        case "speech":
            values["timezone"] = timezone
        case kind if kind in _ROBOTS:
            values["per_min"] = table.per_min or per_min
        case _:
            pass
    return changed(table, values)


def read_secret(file: Path) -> str:
    """What a file holds, without the space around it. Raises ConfigError."""
    try:
        return file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(str(file), [f"file: cannot be read as text: {error}"]) from error


def make(table: Any, deps: ChannelDeps) -> Channel:
    """The channel of a table that `complete` made. It is not entered yet.

    Raises:
        ConfigError: its settings cannot work.
    """
    return _MAKERS[table.kind](table, deps)


def check(table: Any) -> list[str]:
    """What is wrong with the settings of a table that `complete` made, each problem beginning with its key."""
    try:
        match table.kind:
            case "beacon":
                _beacon_settings(table)
            case "speech":
                _speech_settings(table)
            case "sms":
                return list(_sms_problems(table))
            case _:
                _MAKERS[table.kind](table, None)
    except ConfigError as error:
        return [_in_file(problem, table) for problem in error.problems]
    return []


def _in_file(problem: str, table: Any) -> str:
    """The channel speaks of `key`; in site.toml it is what `key_file` holds."""
    key, colon, text = problem.partition(":")
    return (
        f"{key}_file{colon}{text}" if SECRETS.get(f"{key}_file") == key and hasattr(table, f"{key}_file") else problem
    )


# --- kinds ---


def _webhook(table: Any, _: ChannelDeps | None) -> WebhookChannel:
    from .webhook_channel import WebhookChannel, WebhookSettings

    return WebhookChannel(
        WebhookSettings(
            url=table.url,
            success_field=table.success_field,
            success_value=table.success_value,
            timeout_s=table.timeout_s,
            ca_file=table.ca_file,
            proxy=getattr(table, "proxy", ""),
        )
    )


def _robot(table: Any, **more: Any) -> dict[str, Any]:
    """What all robots have in common; what the site leaves open is the robot's own."""
    given = {"base_url": table.base_url, "per_min": table.per_min}
    common = {"key": table.key, "timeout_s": table.timeout_s, "ca_file": table.ca_file}
    common["proxy"] = getattr(table, "proxy", "")  # of [alerts]: `site_building` puts it in
    return {**common, **more, **{key: value for key, value in given.items() if value}}


def _wecom(table: Any, _: ChannelDeps | None) -> WecomRobot:
    from .robots import Form, WecomRobot, WecomSettings

    return WecomRobot(WecomSettings(**_robot(table, form=Form(table.form))))


def _dingtalk(table: Any, _: ChannelDeps | None) -> DingtalkRobot:
    from .robots import DingtalkRobot, DingtalkSettings

    return DingtalkRobot(DingtalkSettings(**_robot(table, secret=table.secret, keyword=table.keyword)))


def _feishu(table: Any, _: ChannelDeps | None) -> FeishuRobot:
    from .robots import FeishuRobot, FeishuSettings

    ours = {"base_url": _LARK} if table.kind == "lark" else {}
    ids = table.open_ids or {}
    settings = _robot(table, secret=table.secret, keyword=table.keyword, open_ids=ids, **ours)
    return FeishuRobot(FeishuSettings(**settings))


def _mail(table: Any, _: ChannelDeps | None) -> Mail:
    from .mail import Mail, MailSettings, Security

    return Mail(
        MailSettings(
            host=table.host,
            port=table.port or 0,
            security=Security(table.security),
            username=table.username,
            password=table.password,
            sender=table.sender,
            sender_name=table.sender_name,
            ca_file=table.ca_file,
            per_min=table.per_min,
            timeout_s=table.timeout_s,
        )
    )


def _sms(table: Any, deps: ChannelDeps | None) -> SmsModem:
    from .sms.memory import FileMemory
    from .sms.modem import SmsModem, SmsSettings

    assert deps is not None
    names = ("validity_s", "report_s", "parts_max", "send_limit_s", "answer_s", "submit_s", "check_s", "register_s")
    settings = SmsSettings(
        port=str(deps.data / table.serial),  # an absolute path stays what it is
        memory=FileMemory((deps.keeps or deps.data) / f"sms-{table.id}.json"),
        baud=table.baud,
        pin=table.pin,
        smsc=table.smsc,
        power_cycle=_power_cycle(table.power_output, deps.set_output) if table.power_output else None,
        pause_s=table.pause_s,
        pause_max_s=table.pause_max_s,
        **{name: getattr(table, name) for name in names},
    )
    return SmsModem(settings, deps.events(table.id))


def _sms_problems(table: Any) -> list[str]:
    from .sms.pdu import PduError, clean_number

    try:
        clean_number(table.smsc or "000")
    except PduError:
        return ["smsc: must be the number of a message centre, such as +8613800100500, or empty"]
    return []


def _power_cycle(output: str, set_output: SetOutput) -> Callable[[], Awaitable[None]]:
    async def cycle() -> None:
        await set_output(output, "off")
        try:
            await asyncio.sleep(_POWER_OFF_S)
        finally:
            await set_output(output, "on")

    return cycle


def _beacon(table: Any, deps: ChannelDeps | None) -> Beacon:
    from .beacon import Beacon

    assert deps is not None
    return Beacon(_beacon_settings(table), deps.set_output, lambda test: deps.lamp_tested(table.id, test))


def _beacon_settings(table: Any) -> Any:
    from .beacon import BeaconSettings, OutputRef
    from .picture import Part

    names = ("silence_s", "refresh_s", "write_s", "send_s", "timezone", "lamp_s", "chirp_s", "has_watchdog")
    return BeaconSettings(
        id=table.id,
        parts={Part(part): OutputRef(id=name, states=table.states[name]) for part, name in table.parts.items()},
        areas=tuple(table.areas),
        siren=frozenset(table.siren),
        lamp_test=_weekly(table.lamp_test),
        **{name: getattr(table, name) for name in names},
    )


def _weekly(text: str) -> Weekly | None:
    """`mon 10:00`; empty is never."""
    from .beacon import Weekly

    day, _, clock = text.partition(" ")
    if not clock:
        return None
    hour, _, minute = clock.partition(":")
    return Weekly(weekday=_DAYS.index(day), hour=int(hour), minute=int(minute))


def _speech(table: Any, _: ChannelDeps | None) -> Speech:
    from .speech.player import Speech

    return Speech(_speech_settings(table))


def _speech_settings(table: Any) -> Any:
    from .speech.player import SpeechSettings
    from .speech.words import Lang

    names = ("repeat_s", "silence_s", "most_waiting", "send_s", "words_per_minute", "timezone")
    return SpeechSettings(
        id=table.id,
        areas=tuple(table.areas),
        langs=tuple(map(Lang, table.langs)),
        command=tuple(table.command),
        clips=Path(table.clips) if table.clips else None,
        readings=table.readings or {},
        priorities=frozenset(table.priorities),
        repeat=frozenset(table.repeat),
        **{name: getattr(table, name) for name in names},
    )


_MAKERS: Mapping[str, Callable[[Any, ChannelDeps | None], Channel]] = {
    "webhook": _webhook,
    "wecom": _wecom,
    "dingtalk": _dingtalk,
    "feishu": _feishu,
    "lark": _feishu,
    "mail": _mail,
    "sms": _sms,
    "beacon": _beacon,
    "speech": _speech,
}
