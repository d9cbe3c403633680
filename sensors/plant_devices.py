"""The devices of the simulated plant, as data: who hangs on which wire, and what their registers hold.

The register pictures follow the published maps of the devices that they imitate (RS-WS-N01, XY-MD02, generic RS-485
pressure transmitter); the stack light is one of our own (config/profiles/stack_light.toml). Pure.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .plant_board import SimOutput


class Wire(enum.StrEnum):
    """The wire that a simulated device hangs on; the names are the bus ids of the demo's site.toml."""

    RS485 = "rs485"
    TCP = "plant_tcp"
    MQTT = "mqtt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Alarm limits that the page marks on a slider; the gateway has its own in site.toml."""

    lolo: float | None = None
    lo: float | None = None
    hi: float | None = None
    hihi: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """All four, absent ones as null."""
        return {"lolo": self.lolo, "lo": self.lo, "hi": self.hi, "hihi": self.hihi}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimPoint:
    """One simulated point.

    Attributes:
        name: last part of the point's id.
        decimals: resolution on the wire.
        normal: middle of its normal life, in `unit`.
        wave: amplitude of the daily wave.
        wander: bound of the random walk; `normal ± (wave + wander)` stays inside every limit.
        low: lower end of the slider and of what may be set.
        high: upper end.
    """

    name: str
    name_zh: str
    name_en: str
    unit: str
    decimals: int
    normal: float
    wave: float
    wander: float
    low: float
    high: float
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a device's registers hold at one moment: address to 16-bit word."""

    holding: Mapping[int, int] = field(default_factory=dict[int, int])
    input: Mapping[int, int] = field(default_factory=dict[int, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class SimDevice:
    """One simulated device. `unit_id` and `image` are for Modbus, `topic` for MQTT.

    `outputs` make it a board that can be written, with a watchdog of `watchdog_s`; it has no points then.
    """

    area: str
    device: str
    name_zh: str
    name_en: str
    wire: Wire
    points: tuple[SimPoint, ...]
    unit_id: int = 0
    image: Callable[[Mapping[str, float]], Image] | None = None
    topic: str = ""
    outputs: tuple[SimOutput, ...] = ()
    watchdog_s: float = 0.0

    @property
    def id(self) -> str:
        """`area.device`."""
        return f"{self.area}.{self.device}"


def word(value: float, scale: int) -> int:
    """`value * scale` as a 16-bit two's-complement word, clamped to int16 (0..65535 is not needed here)."""
    return max(-32768, min(32767, round(value * scale))) & 0xFFFF


def rs_ws_n01(values: Mapping[str, float]) -> Image:
    """FC03 0x0000 RH x10, 0x0001 T x10 signed; 0x07D0 address, 0x07D1 baud code (renkeer.com)."""
    words = {0x0000: word(values["humidity"], 10), 0x0001: word(values["temperature"], 10), 0x07D0: 1, 0x07D1: 1}
    return Image(holding=words)


def xy_md02(values: Mapping[str, float]) -> Image:
    """FC04 0x0001 T x10 signed, 0x0002 RH x10; holding 0x0101 address, 0x0102 baud (mbmap-library)."""
    words = {0x0001: word(values["temperature"], 10), 0x0002: word(values["humidity"], 10)}
    return Image(input=words, holding={0x0101: 1, 0x0102: 9600})


def pressure_transmitter(values: Mapping[str, float]) -> Image:
    """FC03 0x0000 address, 0x0001 baud code, 0x0002 unit 0 = MPa, 0x0003 decimals, 0x0004 int16 PV (doc.lobaro.com)."""
    return Image(holding={0: 2, 1: 3, 2: 0, 3: 3, 4: word(values["pressure"], 1000), 5: 0, 6: 1000})


def pressure_f32(values: Mapping[str, float]) -> Image:
    """The float variant: FC03 0x0016 f32 big-endian PV in MPa; unit code and decimals as the integer variant."""
    high, low = struct.unpack(">HH", struct.pack(">f", values["pressure"]))
    return Image(holding={0: 2, 1: 3, 2: 0, 3: 3, 0x0016: high, 0x0017: low})


def _humidity(name: str, name_en: str, normal: float, limits: Limits) -> SimPoint:
    return SimPoint(
        name="humidity",
        name_zh=name,
        name_en=name_en,
        unit="%RH",
        decimals=1,
        normal=normal,
        wave=4.0,
        wander=3.0,
        low=0.0,
        high=100.0,
        limits=limits,
    )


def _temperature(name: str, name_en: str, normal: float, limits: Limits) -> SimPoint:
    return SimPoint(
        name="temperature",
        name_zh=name,
        name_en=name_en,
        unit="°C",
        decimals=1,
        normal=normal,
        wave=2.0,
        wander=1.0,
        low=-10.0,
        high=60.0,
        limits=limits,
    )


def _pressure(name: str, name_en: str, normal: float, high: float, limits: Limits) -> SimPoint:
    return SimPoint(
        name="pressure",
        name_zh=name,
        name_en=name_en,
        unit="MPa",
        decimals=3,
        normal=normal,
        wave=0.02,
        wander=0.02,
        low=0.0,
        high=high,
        limits=limits,
    )


def _gas(name: str, label: str, unit: str, normal: float, span: tuple[float, float, float], limits: Limits) -> SimPoint:
    wave, wander, high = span
    return SimPoint(
        name=name,
        name_zh=f"污水池 {label}",
        name_en=f"Sewage pit {label}",
        unit=unit,
        decimals=1,
        normal=normal,
        wave=wave,
        wander=wander,
        low=0.0,
        high=high,
        limits=limits,
    )


_SIREN = {0: "off", 1: "on"}
_LAMP = {**_SIREN, 2: "slow", 4: "fast"}
TOWER = (
    SimOutput(name="siren", name_zh="警号", name_en="siren", address=0, states=_SIREN),
    SimOutput(name="red", name_zh="红灯", name_en="red", address=1, states=_LAMP),
    SimOutput(name="amber", name_zh="黄灯", name_en="amber", address=2, states=_LAMP, lost="slow"),
    SimOutput(name="green", name_zh="绿灯", name_en="green", address=3, states=_LAMP, lost="off"),
)


PLANT: tuple[SimDevice, ...] = (
    SimDevice(
        area="aux_store",
        device="th1",
        name_zh="助剂库 温湿度",
        name_en="Auxiliary store, T/RH",
        wire=Wire.RS485,
        unit_id=1,
        image=rs_ws_n01,
        points=(
            _humidity("助剂库湿度", "Auxiliary store humidity", 58.0, Limits(hi=75.0, hihi=85.0)),
            _temperature("助剂库温度", "Auxiliary store temperature", 24.0, Limits(hi=35.0, hihi=40.0)),
        ),
    ),
    SimDevice(
        area="steaming",
        device="steamer1",
        name_zh="蒸化机",
        name_en="Steamer",
        wire=Wire.RS485,
        unit_id=2,
        image=pressure_transmitter,
        points=(_pressure("蒸化机压力", "Steamer pressure", 0.35, 0.6, Limits(hi=0.45, hihi=0.50)),),
    ),
    SimDevice(
        area="hazmat_store",
        device="th2",
        name_zh="危化品库 温湿度",
        name_en="Hazmat store, T/RH",
        wire=Wire.TCP,
        unit_id=1,
        image=xy_md02,
        points=(
            _temperature("危化品库温度", "Hazmat store temperature", 22.0, Limits(hi=30.0, hihi=35.0)),
            _humidity("危化品库湿度", "Hazmat store humidity", 50.0, Limits(hi=75.0, hihi=80.0)),
        ),
    ),
    SimDevice(
        area="boiler_room",
        device="boiler1",
        name_zh="锅炉",
        name_en="Boiler",
        wire=Wire.TCP,
        unit_id=2,
        image=pressure_f32,
        points=(_pressure("锅炉压力", "Boiler pressure", 0.80, 1.6, Limits(lo=0.30, hi=1.00, hihi=1.10)),),
    ),
    SimDevice(
        area="sewage_pit",
        device="gas4",
        name_zh="污水池 四合一气体",
        name_en="Sewage pit, four gases",
        wire=Wire.MQTT,
        topic="devices/gas4",
        points=(
            _gas("ch4", "CH₄", "%LEL", 0.4, (0.1, 0.2, 100.0), Limits(hi=25.0, hihi=50.0)),
            _gas("o2", "O₂", "%vol", 20.9, (0.03, 0.1, 25.0), Limits(lo=19.5, hi=23.5)),
            _gas("h2s", "H₂S", "ppm", 0.3, (0.1, 0.15, 50.0), Limits(hi=7.0, hihi=14.0)),
            _gas("co", "CO", "ppm", 2.0, (0.5, 0.8, 100.0), Limits(hi=17.0, hihi=34.0)),
        ),
    ),
    SimDevice(
        area="sewage_pit",
        device="tower1",
        name_zh="声光警灯",
        name_en="Siren and stack light",
        wire=Wire.TCP,
        unit_id=3,
        points=(),
        outputs=TOWER,
        watchdog_s=15.0,
    ),
)
