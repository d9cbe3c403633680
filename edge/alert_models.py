"""The shape of what site.toml says of alerts: `[alerts]`, `[[channel]]` of each kind, `[[ladder]]` and the roster."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, create_model

from .model_base import Label, Name, Port, Priority, Seconds, Text, TextOrEmpty, TomlTable

CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
DATE = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$"
MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}( ([01][0-9]|2[0-3]):[0-5][0-9])?$"
WEEKLY = r"^((mon|tue|wed|thu|fri|sat|sun) ([01][0-9]|2[0-3]):[0-5][0-9])?$"


def native(value: Any) -> Any:
    """TOML's own dates and times as text; an offset is kept, so that it is refused: the site's clock counts."""
    match value:
        case dt.datetime():
            return value.isoformat(sep=" ", timespec="auto" if value.second or value.microsecond else "minutes")
        case dt.date():
            return value.isoformat()
        case dt.time():
            return value.isoformat("auto" if value.second or value.microsecond else "minutes")
        case str():
            return value.replace("T", " ", 1)
        case _:
            return value


Clock = Annotated[str, StringConstraints(pattern=CLOCK), BeforeValidator(native)]
Date = Annotated[str, StringConstraints(pattern=DATE), BeforeValidator(native)]
Moment = Annotated[str, StringConstraints(pattern=MOMENT), BeforeValidator(native)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Timeout = Annotated[float, Field(ge=0.5, le=60)]
PerMin = Annotated[int, Field(ge=1, le=1000)]
Baud = Annotated[int, Field(ge=300, le=921600)]
LadderKey = Literal["1", "2", "3", "4", "system"]
PriorityKey = Literal["1", "2", "3", "4"]
ChannelKind = Literal["webhook", "wecom", "dingtalk", "feishu", "lark", "mail", "sms", "beacon", "speech"]


class AlertsTable(TomlTable):
    """[alerts]: who must know, and how."""

    required_acks: Annotated[list[Text], Field(min_length=1)] = Field(default_factory=lambda: ["keeper", "officer"])
    channels: list[Text] = Field(default_factory=list)
    unreachable_ok: bool = False
    ladders: dict[LadderKey, Text] | None = None
    delivery_deadline_s: Annotated[float, Field(ge=5, le=3600)] = 60.0
    repeat_s: dict[PriorityKey, Seconds] | None = None
    realarm_s: dict[PriorityKey, Seconds] | None = None
    group_wait_s: dict[PriorityKey, Annotated[float, Field(ge=0, le=600)]] | None = None
    robot_rate_per_min: PerMin | None = None
    proxy: TextOrEmpty = ""
    proxy_login_file: TextOrEmpty = ""


# --- channels, one model for each kind ---


class ChannelTable(TomlTable):
    """[[channel]] of a kind that is not known: nothing can be said of its other keys."""

    model_config = ConfigDict(extra="ignore")

    id: Name
    kind: ChannelKind


class WebhookTable(TomlTable):
    """[[channel]]: JSON to any address whose answer tells success."""

    id: Name
    kind: Literal["webhook"]
    url: TextOrEmpty = ""
    url_file: TextOrEmpty = ""
    success_field: Label = "errcode"
    success_value: int = 0
    timeout_s: Timeout = 10.0
    ca_file: TextOrEmpty = ""
    areas: list[Text] = Field(default_factory=list)
    roles: list[Text] = Field(default_factory=list)


class WecomTable(TomlTable):
    """[[channel]]: a group robot of WeCom."""

    id: Name
    kind: Literal["wecom"]
    key_file: Text
    base_url: TextOrEmpty = ""
    per_min: PerMin | None = None
    timeout_s: Timeout = 10.0
    ca_file: TextOrEmpty = ""
    form: Literal["text", "markdown"] = "text"
    areas: list[Text] = Field(default_factory=list)
    roles: list[Text] = Field(default_factory=list)


class DingtalkTable(TomlTable):
    """[[channel]]: a group robot of DingTalk."""

    id: Name
    kind: Literal["dingtalk"]
    key_file: Text
    secret_file: TextOrEmpty = ""
    keyword: TextOrEmpty = ""
    base_url: TextOrEmpty = ""
    per_min: PerMin | None = None
    timeout_s: Timeout = 10.0
    ca_file: TextOrEmpty = ""
    areas: list[Text] = Field(default_factory=list)
    roles: list[Text] = Field(default_factory=list)


class FeishuTable(TomlTable):
    """[[channel]]: a group robot of Feishu, or of Lark."""

    id: Name
    kind: Literal["feishu", "lark"]
    key_file: Text
    secret_file: TextOrEmpty = ""
    keyword: TextOrEmpty = ""
    open_ids: dict[str, Text] | None = None
    base_url: TextOrEmpty = ""
    per_min: PerMin | None = None
    timeout_s: Timeout = 10.0
    ca_file: TextOrEmpty = ""
    areas: list[Text] = Field(default_factory=list)
    roles: list[Text] = Field(default_factory=list)


class MailTable(TomlTable):
    """[[channel]]: a mailbox to send from."""

    id: Name
    kind: Literal["mail"]
    host: Text
    port: Port | None = None
    security: Literal["tls", "starttls", "plain", "plain_anywhere"] = "tls"
    username: TextOrEmpty = ""
    password_file: TextOrEmpty = ""
    sender: Text
    sender_name: Label = "岗哨 Sitewarden"
    ca_file: TextOrEmpty = ""
    per_min: PerMin = 30
    timeout_s: Annotated[float, Field(ge=1, le=50)] = 30.0


class SmsTable(TomlTable):
    """[[channel]]: a 4G modem."""

    id: Name
    kind: Literal["sms"]
    serial: Text
    baud: Baud = 115200
    pin_file: TextOrEmpty = ""
    smsc: TextOrEmpty = ""
    power_output: TextOrEmpty = ""
    validity_s: Annotated[float, Field(ge=300, le=604800)] = 86400.0
    report_s: Annotated[float, Field(ge=0, le=3600)] = 120.0
    parts_max: Annotated[int, Field(ge=1, le=255)] = 6
    send_limit_s: Annotated[float, Field(ge=10, le=110)] = 110.0
    answer_s: Annotated[float, Field(ge=0.5, le=60)] = 5.0
    submit_s: Annotated[float, Field(ge=5, le=300)] = 60.0
    check_s: Annotated[float, Field(ge=1, le=3600)] = 60.0
    register_s: Annotated[float, Field(ge=5, le=3600)] = 120.0
    pause_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    pause_max_s: Annotated[float, Field(ge=1, le=3600)] = 60.0


class BeaconTable(TomlTable):
    """[[channel]]: a siren and a stack light at one post."""

    id: Name
    kind: Literal["beacon"]
    parts: Annotated[dict[Literal["siren", "red", "amber", "green"], Text], Field(min_length=1)]
    areas: list[Text] = Field(default_factory=list)
    siren: list[Priority] = Field(default_factory=lambda: [1])
    silence_s: Seconds = 900.0
    refresh_s: Annotated[float, Field(ge=0.5, le=60)] = 5.0
    write_s: Annotated[float, Field(ge=1, le=60)] = 35.0
    send_s: Annotated[float, Field(ge=1, le=110)] = 20.0
    lamp_test: Annotated[str, StringConstraints(pattern=WEEKLY)] = "mon 10:00"
    lamp_s: Annotated[float, Field(ge=0.5, le=60)] = 3.0
    chirp_s: Annotated[float, Field(ge=0.1, le=10)] = 0.5
    has_watchdog: bool = False


class SpeechTable(TomlTable):
    """[[channel]]: the gateway's loudspeaker."""

    id: Name
    kind: Literal["speech"]
    areas: list[Text] = Field(default_factory=list)
    langs: Annotated[list[Literal["zh", "en"]], Field(min_length=1)] = Field(default_factory=lambda: ["zh"])
    command: Annotated[list[Text], Field(min_length=1)] = Field(default_factory=lambda: ["aplay", "-q"])
    clips: TextOrEmpty = ""
    readings: dict[str, Text] | None = None
    priorities: list[Priority] = Field(default_factory=lambda: [1, 2, 3])
    repeat: list[Priority] = Field(default_factory=lambda: [1])
    repeat_s: Annotated[float, Field(ge=5, le=3600)] = 30.0
    silence_s: Seconds = 900.0
    most_waiting: Annotated[int, Field(ge=1, le=1000)] = 20
    send_s: Annotated[float, Field(ge=1, le=110)] = 90.0
    words_per_minute: Annotated[int, Field(ge=80, le=400)] = 150


CHANNELS: dict[str, type[TomlTable]] = {
    "webhook": WebhookTable,
    "wecom": WecomTable,
    "dingtalk": DingtalkTable,
    "feishu": FeishuTable,
    "lark": FeishuTable,
    "mail": MailTable,
    "sms": SmsTable,
    "beacon": BeaconTable,
    "speech": SpeechTable,
}
"""By the `kind` of a `[[channel]]`."""


# --- who is on duty, and what climbs ---

ShiftTable: type[TomlTable] = create_model(  # `from` cannot be written as the name of a field
    "ShiftTable",
    __base__=TomlTable,
    __doc__="[[shift]]: hours of the site's clock; past midnight where `to` is not later than `from`.",
    **{"id": (Name, ...), "from": (Clock, ...), "to": (Clock, ...), "days": (list[Day] | None, None)},
)
DutyTable: type[TomlTable] = create_model(
    "DutyTable",
    __base__=TomlTable,
    __doc__="[[duty]]: who is on duty in a role, in which shift.",
    **{
        "person": (Text, ...),
        "role": (Text, ...),
        "shift": (Text, ...),
        "areas": (list[Text], Field(default_factory=list)),
        "from": (Date, ""),
        "to": (Date, ""),
        "every_weeks": (Annotated[int, Field(ge=1, le=52)], 1),
    },
)
AbsenceTable: type[TomlTable] = create_model(
    "AbsenceTable",
    __base__=TomlTable,
    __doc__="[[absence]]: who is away, and who stands in.",
    **{"person": (Text, ...), "from": (Moment, ...), "to": (Moment, ...), "substitute": (TextOrEmpty, "")},
)


class QuietTable(TomlTable):
    """[[quiet]]: hours in which a person is not woken by what can wait."""

    person: Text
    shift: Text


ROSTER = (ShiftTable, DutyTable, AbsenceTable)
"""Models whose dates and times may stand in the file without quotes."""


class LadderStepTable(TomlTable):
    """A step of a [[ladder]]."""

    at_s: Annotated[float, Field(ge=0, le=86400 * 7)]
    to: list[Text] = Field(default_factory=list)
    add: list[Text] = Field(default_factory=list)
    colour: Literal["", "yellow", "red"] = ""
    action: Literal["", "freeze"] = ""


class LadderTable(TomlTable):
    """[[ladder]]: who is told when, while something is not dealt with."""

    id: Name
    basis: Literal["open", "unacked", "condition"] = "open"
    steps: Annotated[list[LadderStepTable], Field(min_length=1)]
