"""The shape of site.toml: strict models, one per table. What refers to what is for `checks.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .alert_models import (
    AbsenceTable,
    AlertsTable,
    ChannelTable,
    Clock,
    DutyTable,
    LadderTable,
    QuietTable,
    ShiftTable,
)
from .https_models import HttpsTable
from .model_base import NAME as NAME
from .model_base import Label, Name, Port, Priority, Seconds, Text, TextOrEmpty
from .model_base import TomlTable as _Table
from .positions import CONTROL_ROOM

Quantity = Literal["temperature", "humidity", "pressure", "gas", "other"]
MqttVersion = Literal["3.1.1", "5"]
MqttAck = Literal["accepted", "stored"]
MqttFormat = Literal["json", "number", "vuqt", "tasmota", "zigbee2mqtt", "chirpstack", "sparkplug_b"]
TimeFormat = Literal["auto", "rfc3339", "epoch_s", "epoch_ms", "local"]


class SiteTable(_Table):
    """[site]: what the plant is called."""

    id: Name
    name: Label
    name_en: Label
    timezone: Label = "Asia/Shanghai"


class GatewayTable(_Table):
    """[gateway]: this machine."""

    id: Name
    flush_s: Annotated[float, Field(ge=1, le=60)] = 10.0
    keep_days: Annotated[int, Field(ge=1, le=3650)] = 30
    minutes_days: Annotated[int, Field(ge=2, le=3650)] = 92
    blob_max_mb: Annotated[int, Field(ge=1, le=2000)] = 200


class DiskTable(_Table):
    """[disk]: how the disk is shared. What is left out follows from the size of the file system."""

    journal_mb: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    history_mb: Annotated[int, Field(ge=4, le=10_000_000)] | None = None
    blobs_mb: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    reserve_mb: Annotated[int, Field(ge=0, le=1024)] = 8


class WebTable(_Table):
    """[web]: where the pages are served."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    metrics_networks: list[Text] = Field(default_factory=list)
    metrics_token_file: TextOrEmpty = ""


class MqttTable(_Table):
    """[mqtt]: the broker that carries devices and dashboards."""

    url: Text
    username: TextOrEmpty = ""
    password_file: TextOrEmpty = ""
    version: MqttVersion = "3.1.1"
    ca_file: TextOrEmpty = ""
    cert_file: TextOrEmpty = ""
    key_file: TextOrEmpty = ""
    ack: MqttAck = "accepted"
    home_assistant: TextOrEmpty = ""


class BrokerTable(_Table):
    """[[broker]]: another broker that devices publish to."""

    id: Name
    url: Text
    username: TextOrEmpty = ""
    password_file: TextOrEmpty = ""
    version: MqttVersion = "3.1.1"
    ca_file: TextOrEmpty = ""
    cert_file: TextOrEmpty = ""
    key_file: TextOrEmpty = ""
    ack: MqttAck = "accepted"


class MqttUserTable(_Table):
    """[[mqtt_user]]: whom a user of the dashboards' broker stands for."""

    id: Name
    person: Text


class CloudTable(_Table):
    """[cloud]: the aggregator. Without this table the gateway works alone.

    An empty `url` is a site without a link: its bundles travel by USB stick. `public_key` is headquarters' own: answers
    on a stick must be signed by it. `max_kbit_s` holds from `max_from` to `max_to`, always where these are empty.
    """

    url: TextOrEmpty = ""
    ca_file: TextOrEmpty = ""
    public_key: TextOrEmpty = ""
    proxy: TextOrEmpty = ""
    proxy_login_file: TextOrEmpty = ""
    max_kbit_s: Annotated[int, Field(ge=16, le=1_000_000)] | None = None
    max_from: Clock | None = None
    max_to: Clock | None = None


class AreaTable(_Table):
    """[[area]]: a place with people who answer for it."""

    id: Name
    name: Label
    name_en: Label
    position: Name = CONTROL_ROOM
    kind: TextOrEmpty = ""
    equipment: list[Label] = Field(default_factory=list)


class BusTable(_Table):
    """[[bus]]: one Modbus wire, polled by one owner."""

    id: Name
    kind: Literal["tcp", "rtu", "rtu_tcp"]
    host: Text | None = None
    port: Port | None = None
    serial: Text | None = None
    baud: Annotated[int, Field(ge=300, le=921600)] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    timeout_ms: Annotated[int, Field(ge=20, le=30000)] = 500
    late_max_ms: Annotated[int, Field(ge=20, le=60000)] = 1500
    inter_frame_ms: Annotated[int, Field(ge=0, le=1000)] = 0


class ProfilesTable(_Table):
    """[profiles]: device profiles of this site, beside the catalogue that is shipped."""

    folder: TextOrEmpty = ""


class DeviceChannelTable(_Table):
    """[[device.channel]]: what one current of 4-20 mA stands for."""

    input: Text
    name: Name
    label: Label
    label_en: Label
    unit: TextOrEmpty
    quantity: Quantity
    decimals: Annotated[int, Field(ge=0, le=6)] = 1
    low: float
    high: float


class DeviceTable(_Table):
    """[[device]]: one Modbus unit and the catalogue profile that says what its registers mean."""

    id: Name
    area: Text
    bus: Text
    unit_id: Annotated[int, Field(ge=0, le=255)]
    profile: Text
    variant: TextOrEmpty = ""
    gas: TextOrEmpty = ""
    unit: TextOrEmpty = ""
    only: Annotated[list[Text], Field(min_length=1)] | None = None
    poll_s: Annotated[float, Field(ge=0.1, le=3600)] = 5.0
    timeout_ms: Annotated[int, Field(ge=20, le=30000)] | None = None
    channel: list[DeviceChannelTable] = Field(default_factory=list)


class MqttPointTable(_Table):
    """[[mqtt_device.point]]: one number that the device publishes."""

    name: Name
    label: Label
    label_en: Label
    path: TextOrEmpty = ""
    topic: TextOrEmpty = ""
    unit: TextOrEmpty
    quantity: Quantity
    decimals: Annotated[int, Field(ge=0, le=6)] = 1
    scale: float = 1.0
    text: bool = False
    map: dict[str, float] | None = None
    low: float | None = None
    high: float | None = None


class MqttDeviceTable(_Table):
    """[[mqtt_device]]: a device that publishes to a broker."""

    id: Name
    area: Text
    broker: TextOrEmpty = ""
    format: MqttFormat = "json"
    topic: TextOrEmpty = ""
    every_s: Annotated[float, Field(ge=0.1, le=86400)] = 10.0
    status_path: TextOrEmpty = ""
    status_ok: Annotated[list[Text], Field(min_length=1)] = Field(default_factory=lambda: ["ok"])
    time_path: TextOrEmpty = ""
    time_format: TimeFormat = "auto"
    max_skew_s: Annotated[float, Field(ge=1, le=86400)] = 30.0
    availability_topic: TextOrEmpty = ""
    online: Annotated[list[Text], Field(min_length=1)] | None = None
    offline: Annotated[list[Text], Field(min_length=1)] | None = None
    f_port: Annotated[int, Field(ge=1, le=255)] | None = None
    point: Annotated[list[MqttPointTable], Field(min_length=1)]


class LevelTable(_Table):
    """A limit with its own settings: `hihi = { limit = 85, priority = 2 }`. A bare number is `{ limit = number }`."""

    limit: float
    priority: Priority | None = None
    deadband: Annotated[float, Field(ge=0)] | None = None
    on_delay_s: Seconds | None = None
    off_delay_s: Seconds | None = None
    latching: bool | None = None


class RocTable(LevelTable):
    """A rate of change, in the point's unit per minute: `roc = { limit = 2.0 }`."""

    limit: Annotated[float, Field(gt=0)]
    period_s: Annotated[float, Field(ge=1, le=86400)] = 60.0
    min_samples: Annotated[int, Field(ge=2, le=1000)] = 3
    direction: Literal["both", "rising", "falling"] = "both"


class DeviationTable(LevelTable):
    """How far the point may be from another one: `deviation = { ref = "area.device.name", limit = 3.0 }`."""

    ref: Text
    limit: Annotated[float, Field(gt=0)]
    direction: Literal["both", "above", "below"] = "both"


class DiscreteTable(_Table):
    """States that are alarms: `discrete = { on = [2, 3] }`."""

    on: Annotated[list[float], Field(min_length=1)]
    priority: Priority | None = None
    on_delay_s: Seconds | None = None
    off_delay_s: Seconds | None = None
    latching: bool | None = None


class DiscrepancyTable(_Table):
    """What another point says must come true here: `discrepancy = { ref = "area.device.command", after_s = 10 }`."""

    ref: Text
    after_s: Seconds = 10.0
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    inverted: bool = False
    priority: Priority | None = None
    off_delay_s: Seconds | None = None
    latching: bool | None = None


class CommLossTable(_Table):
    """The alarm of a device that cannot be reached: `comm_loss = { limit = 20, priority = 2 }`, or the bare number."""

    limit: Seconds | None = None
    priority: Priority | None = None
    off_delay_s: Seconds | None = None
    latching: bool | None = None


def _level(value: Any) -> Any:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return {"limit": value} if plain else value


Level = Annotated[LevelTable | None, BeforeValidator(_level)]


Roc = Annotated[RocTable | None, BeforeValidator(_level)]
CommLoss = Annotated[CommLossTable | None, BeforeValidator(_level)]
INNER: dict[str, type[_Table]] = {
    "roc": RocTable,
    "deviation": DeviationTable,
    "discrete": DiscreteTable,
    "discrepancy": DiscrepancyTable,
    "comm_loss": CommLossTable,
}
"""Tables within `[[alarm]]` beside the limits."""


def inner_table(key: str, value: Any) -> Any:
    """A table within `[[alarm]]` whose shape is right; a bare number is its limit."""
    return INNER[key].model_validate(_level(value))


class AlarmTable(_Table):
    """[[alarm]]: the limits of one point and how its alarms behave (keys of docs/configuration.md)."""

    point: Text
    preset: Literal["gb50493"] | None = None
    gas: TextOrEmpty = ""
    life_safety: bool | None = None
    lolo: Level = None
    lo: Level = None
    hi: Level = None
    hihi: Level = None
    roc: Roc = None
    deviation: DeviationTable | None = None
    discrete: DiscreteTable | None = None
    discrepancy: DiscrepancyTable | None = None
    frozen_s: Seconds | None = None
    comm_loss: CommLoss = None
    deadband: Annotated[float, Field(ge=0)] | None = None
    on_delay_s: Seconds | None = None
    off_delay_s: Seconds | None = None
    stale_s: Annotated[float, Field(gt=0, le=86400)] | None = None
    quality_delay_s: Seconds | None = None
    required_acks: Annotated[list[Text], Field(min_length=1)] | None = None
    distinct_persons: bool = True
    reopen_s: Seconds = 300.0
    repeat_s: Seconds | None = None
    realarm_s: Seconds | None = None
    shelve_max_s: Annotated[float, Field(gt=0, le=86400)] | None = None
    first_out_group: Name | None = None


class WhenTable(_Table):
    """A condition of the plant, exactly one of `is`, `above`, `below`: `when = { point = "a.d.name", is = 0 }`."""

    point: Text
    equals: Annotated[float | None, Field(alias="is")] = None
    above: float | None = None
    below: float | None = None
    deadband: Annotated[float, Field(ge=0)] = 0.0


class SuppressTable(_Table):
    """[[suppress]]: while a condition of the plant holds, nobody is told of certain alarms."""

    id: Name
    alarms: Annotated[list[Text], Field(min_length=1)]
    when: WhenTable
    why: Label


class ProofTable(_Table):
    """[proof]: which alarm the proof test tests, and when it does so every week."""

    point: Text
    weekly: bool = True
    weekday: Annotated[int, Field(ge=0, le=6)] = 0
    hour: Annotated[int, Field(ge=0, le=23)] = 10
    minute: Annotated[int, Field(ge=0, le=59)] = 0


class PeopleTable(_Table):
    """[people]: the list of persons, beside site.toml."""

    file: Text = "people.csv"


SINGLE: dict[str, type[_Table]] = {
    "site": SiteTable,
    "gateway": GatewayTable,
    "web": WebTable,
    "https": HttpsTable,
    "disk": DiskTable,
    "mqtt": MqttTable,
    "cloud": CloudTable,
    "alerts": AlertsTable,
    "people": PeopleTable,
    "profiles": ProfilesTable,
    "proof": ProofTable,
}
OPTIONAL = ("mqtt", "cloud", "proof")
"""Tables whose absence says something: they have no defaults."""
REPEATED: dict[str, type[_Table]] = {
    "area": AreaTable,
    "bus": BusTable,
    "device": DeviceTable,
    "broker": BrokerTable,
    "mqtt_device": MqttDeviceTable,
    "mqtt_user": MqttUserTable,
    "alarm": AlarmTable,
    "suppress": SuppressTable,
    "channel": ChannelTable,
    "shift": ShiftTable,
    "duty": DutyTable,
    "absence": AbsenceTable,
    "quiet": QuietTable,
    "ladder": LadderTable,
}
REQUIRED = ("site", "gateway", "area")
