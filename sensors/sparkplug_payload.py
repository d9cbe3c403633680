"""Sparkplug B payloads: bytes to metrics, metrics to numbers. Pure; the only file with protobuf.

The message is `org.eclipse.tahu.protobuf.Payload` of the Sparkplug 3.0 specification, chapter 6.4.1, field by field.
What is never read (templates, data sets, metadata) stays bytes here, so that nothing in it can nest or cost time.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from .mqtt_words import Reject

REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"
SEQ_COUNT = 256
BOOLEAN = 11
MOST_METRICS = 4096  # of a message; 64 KiB hold no more real ones
MOST_NAME_BYTES = 48 * 1024  # of their names together
_LATEST_MS = 4_102_444_800_000  # the year 2100
_FLOATS = (9, 10)  # Float, Double
_SIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}  # Int8, Int16, Int32, Int64
_UNSIGNED_BITS = {5: 8, 6: 16, 7: 32, 8: 64}  # UInt8, UInt16, UInt32, UInt64
_WIRE_BITS = {"int_value": 32, "long_value": 64}
_QUALITIES = {192: "", 500: "quality_stale", 0: "quality_bad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of a message.

    Attributes:
        name, alias: "" and None where the message has none.
        timestamp_ms: when the value was captured, UTC by the sender's clock; None also for what is no time (0).
        datatype: the enumeration of chapter 6.4.16; None where the message has none (data after a birth).
        historical: not a present value.
        null: it is said that there is no value.
        field, raw: the member of the value's oneof and what it holds; "" and None without a value.
        quality: "" for good, else why not: from the property `Quality` (chapter 6.4.10).
    """

    name: str = ""
    alias: int | None = None
    timestamp_ms: int | None = None
    datatype: int | None = None
    historical: bool = False
    null: bool = False
    field: str = ""
    raw: Any = None
    quality: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One message.

    Attributes:
        timestamp_ms: when it was published, UTC by the sender's clock.
        seq: 0..255.
        metrics: empty also when they were refused.
        refused: why: beyond MOST_METRICS or MOST_NAME_BYTES.
    """

    timestamp_ms: int | None = None
    seq: int | None = None
    metrics: tuple[Metric, ...] = ()
    refused: Reject = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What a birth defines: the datatypes by name, the names by alias.

    Attributes:
        aliases: None for one that several names have: it means none of them.
        unclear: these names.
    """

    types: dict[str, int | None]
    aliases: dict[int, str | None]
    unclear: frozenset[str] = frozenset()

    @classmethod
    def of(cls, metrics: Iterable[Metric]) -> Birth:
        types: dict[str, int | None] = {}
        aliases: dict[int, str | None] = {}
        unclear: set[str] = set()
        for metric in metrics:
            if not metric.name:
                continue
            types[metric.name] = metric.datatype
            if metric.alias is None:
                continue
            other = aliases.setdefault(metric.alias, metric.name)
            if other != metric.name:
                aliases[metric.alias] = None
                unclear |= {metric.name} if other is None else {metric.name, other}
        return cls(types=types, aliases=aliases, unclear=frozenset(unclear))

    def names(self, metric: Metric) -> Collection[str]:
        """The name that a metric of a data message means; empty when the birth knows none, several when unclear."""
        alias, name = metric.alias, metric.name
        if alias is None or alias not in self.aliases:
            return (name,) if name in self.types else ()
        by_alias = self.aliases[alias]
        if not name:
            return self.unclear if by_alias is None else (by_alias,)
        agrees = name in self.unclear if by_alias is None else name == by_alias
        return (name,) if agrees else (name, by_alias or "")


def decode(data: bytes, *, head: bool = False) -> Payload | None:
    """The message, or None when these bytes are none: malformed, empty, or with a sequence number over 255.

    Args:
        data: one message.
        head: its metrics are not wanted.
    """
    message = _PAYLOAD()
    try:
        message.ParseFromString(data)
        metrics, refused = ((), "") if head else _metrics(message.metrics, len(data))
    except (DecodeError, UnicodeDecodeError):
        return None
    seq = message.seq if message.HasField("seq") else None
    timestamp_ms = _time(message)
    if (seq is not None and seq >= SEQ_COUNT) or not message.ListFields():
        return None
    return Payload(timestamp_ms=timestamp_ms, seq=seq, metrics=metrics, refused=refused)


def _metrics(found: Any, size: int) -> tuple[tuple[Metric, ...], Reject]:
    """All of them, or none and why: what a sender says must not cost more than a real birth."""
    if len(found) > MOST_METRICS:
        return (), "too_many_metrics"
    metrics = tuple([_metric(m) for m in found])
    if size > MOST_NAME_BYTES and sum([len(metric.name.encode()) for metric in metrics]) > MOST_NAME_BYTES:
        return (), "names_too_long"
    return metrics, ""


def encode_rebirth(utc_ms: int) -> bytes:
    """An NCMD that asks for all births (tck-id-operational-behavior-data-commands-ncmd-rebirth-*); it has no seq."""
    message = _PAYLOAD(timestamp=utc_ms)
    message.metrics.add(name=REBIRTH, timestamp=utc_ms, datatype=BOOLEAN, boolean_value=True)
    return message.SerializeToString()


def number(metric: Metric, datatype: int | None) -> tuple[float | None, str]:
    """The value of a metric of that type, as it came, also NaN; or why there is none: `no_value`, `wrong_type`.

    Signed integers travel in unsigned fields. Senders differ in how: −1 as Int8 is 255 (the type's own width) or
    4294967295 (the field's width); both are read. A number that fits neither is `wrong_type`.
    """
    if metric.null or not metric.field:
        return None, "no_value"
    raw = metric.raw
    if datatype in _FLOATS and metric.field in {"float_value", "double_value"}:
        return _shortest(raw) if metric.field == "float_value" else raw, ""
    if datatype == BOOLEAN and metric.field == "boolean_value":
        return float(raw), ""
    if datatype is None or metric.field not in _WIRE_BITS:
        return _WRONG
    whole = _integer(raw, datatype, _WIRE_BITS[metric.field])
    return _WRONG if whole is None else (float(whole), "")


_WRONG = (None, "wrong_type")


def _integer(raw: int, datatype: int, wire_bits: int) -> int | None:
    if bits := _UNSIGNED_BITS.get(datatype):
        return raw if raw < 1 << bits else None
    bits = _SIGNED_BITS.get(datatype)
    if bits is None:
        return None
    half = 1 << (bits - 1)
    if raw < half:
        return raw
    if raw < 1 << bits:
        return raw - (1 << bits)
    return raw - (1 << wire_bits) if raw >= (1 << wire_bits) - half else None


def _shortest(number: float) -> float:
    """The shortest decimal that is the same float32: 0.35, not 0.3499999940395355."""
    data = struct.pack("<f", number)
    for digits in (6, 7, 8):
        short = float(f"{number:.{digits}g}")
        try:
            if struct.pack("<f", short) == data:
                return short
        except OverflowError:  # rounded up, beyond the largest float32
            continue
    return number


def _metric(message: Any) -> Metric:
    has = message.HasField
    name = message.name
    if not isinstance(name, str):  # protobuf gives bytes that are not UTF-8 as they are
        raise UnicodeDecodeError("utf-8", name, 0, len(name), "name of a metric")
    field = message.WhichOneof("value") or ""
    return Metric(
        name=name,
        alias=message.alias if has("alias") else None,
        timestamp_ms=_time(message),
        datatype=message.datatype if has("datatype") else None,
        historical=message.is_historical,
        null=message.is_null,
        field=field,
        raw=getattr(message, field) if field else None,
        quality=_quality(message.properties) if has("properties") else "",
    )


def _time(message: Any) -> int | None:
    return message.timestamp if 0 < message.timestamp <= _LATEST_MS else None


def _quality(properties: Any) -> str:
    """What `Quality` says. Not understood is not good: `quality_unknown`."""
    keys, values = list(properties.keys), properties.values
    if "Quality" not in keys:
        return ""
    if keys.count("Quality") > 1 or len(keys) != len(values):
        return "quality_unknown"
    value = values[keys.index("Quality")]
    field = value.WhichOneof("value")
    if value.is_null or field not in _WIRE_BITS:
        return "quality_unknown"
    return _QUALITIES.get(getattr(value, field), "quality_unknown")


# --- the message's description ---

_Field = descriptor_pb2.FieldDescriptorProto
_UINT32, _UINT64, _BOOL = _Field.TYPE_UINT32, _Field.TYPE_UINT64, _Field.TYPE_BOOL
_FLOAT, _DOUBLE, _STRING, _BYTES = _Field.TYPE_FLOAT, _Field.TYPE_DOUBLE, _Field.TYPE_STRING, _Field.TYPE_BYTES
_SCALARS = (
    ("int_value", _UINT32),
    ("long_value", _UINT64),
    ("float_value", _FLOAT),
    ("double_value", _DOUBLE),
    ("boolean_value", _BOOL),
    ("string_value", _STRING),
)


def _describe() -> type[Any]:
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="org.eclipse.tahu.protobuf")
    payload = file.message_type.add(name="Payload")
    _field(payload, "timestamp", 1, _UINT64)
    _field(payload, "metrics", 2, "Payload.Metric", repeated=True)
    _field(payload, "seq", 3, _UINT64)
    _field(payload, "uuid", 4, _BYTES)
    _field(payload, "body", 5, _BYTES)
    metric = payload.nested_type.add(name="Metric")
    _field(metric, "name", 1, _STRING)
    _field(metric, "alias", 2, _UINT64)
    _field(metric, "timestamp", 3, _UINT64)
    _field(metric, "datatype", 4, _UINT32)
    _field(metric, "is_historical", 5, _BOOL)
    _field(metric, "is_transient", 6, _BOOL)
    _field(metric, "is_null", 7, _BOOL)
    _field(metric, "metadata", 8, _BYTES)
    _field(metric, "properties", 9, "Payload.PropertySet")
    _value(metric, 10, ("bytes_value", "dataset_value", "template_value", "extension_value"))
    properties = payload.nested_type.add(name="PropertySet")
    _field(properties, "keys", 1, _STRING, repeated=True)
    _field(properties, "values", 2, "Payload.PropertyValue", repeated=True)
    value = payload.nested_type.add(name="PropertyValue")
    _field(value, "type", 1, _UINT32)
    _field(value, "is_null", 2, _BOOL)
    _value(value, 3, ("propertyset_value", "propertysets_value", "extension_value"))
    pool = descriptor_pool.DescriptorPool()  # our own: it cannot clash with another library's
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("org.eclipse.tahu.protobuf.Payload"))


def _field(message: Any, name: str, at: int, kind: Any, *, repeated: bool = False, oneof: bool = False) -> None:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=at, label=label)
    if isinstance(kind, str):
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".org.eclipse.tahu.protobuf.{kind}"
    else:
        field.type = kind
    if oneof:
        field.oneof_index = 0


def _value(message: Any, first: int, more: tuple[str, ...]) -> None:
    """The oneof `value`: the scalars from the field number `first` on, then what is never read."""
    message.oneof_decl.add(name="value")
    for at, (name, kind) in enumerate((*_SCALARS, *((name, _BYTES) for name in more)), start=first):
        _field(message, name, at, kind, oneof=True)


_PAYLOAD = _describe()
