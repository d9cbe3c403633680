"""What the gates let through, byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.sensors.frames import FLOOD, RtuGate, TcpGate, crc16


def sealed(body: bytes) -> bytes:
    return body + crc16(body).to_bytes(2, "little")


RTU_ASKED = sealed(bytes.fromhex("01 03 00 0a 00 02"))
RTU_REPLY = sealed(bytes.fromhex("01 03 04 00 0a 00 0b"))
RTU_EXCEPTION = sealed(bytes.fromhex("01 83 02"))
TCP_ASKED = bytes.fromhex("00 07 00 00 00 06 01 03 00 0a 00 02")
TCP_REPLY = bytes.fromhex("00 07 00 00 00 07 01 03 04 00 0a 00 0b")
TCP_EXCEPTION = bytes.fromhex("00 07 00 00 00 03 01 83 02")
TCP_EARLIER = bytes.fromhex("00 06 00 00 00 07 01 03 04 de ad be ef")


def rtu() -> RtuGate:
    gate = RtuGate()
    gate.sent(RTU_ASKED)
    return gate


def tcp() -> TcpGate:
    gate = TcpGate()
    gate.sent(TCP_ASKED)
    return gate


def test_crc_of_the_standard() -> None:
    assert crc16(b"123456789") == 0x4B37  # the check value of CRC-16/MODBUS
    assert crc16(bytes.fromhex("02 07")) == 0x1241  # Modbus over serial line v1.02, appendix B


@pytest.mark.parametrize(
    ("buffer", "passed"),
    [
        (RTU_REPLY, RTU_REPLY),
        (RTU_EXCEPTION, RTU_EXCEPTION),
        (b"\x00" + RTU_REPLY, RTU_REPLY),
        (RTU_REPLY + b"\x00\xff", RTU_REPLY),
        (sealed(bytes.fromhex("02 03 04 00 14 00 15")) + RTU_REPLY, RTU_REPLY),  # another unit's late reply
        (sealed(bytes.fromhex("01 03 02 00 14")) + RTU_REPLY, RTU_REPLY),  # of another length
        (RTU_REPLY[:5] + RTU_REPLY, RTU_REPLY),  # a broken one before it
        (RTU_REPLY + RTU_REPLY, b""),  # two: which one?
        (RTU_REPLY + sealed(bytes.fromhex("01 03 04 00 63 00 64")), b""),
        (RTU_ASKED, b""),  # the adapter's echo
        (RTU_REPLY[:-1], b""),
        (RTU_REPLY + bytes(FLOOD), b""),
        (sealed(bytes.fromhex("01 04 04 00 0a 00 0b")), b""),
        (sealed(bytes.fromhex("01 03 06 00 0a 00 0b 00 0c")), b""),
        (sealed(bytes.fromhex("01 84 02")), b""),
        (sealed(bytes.fromhex("02 83 02")), b""),
    ],
)
def test_rtu_gate(buffer: bytes, passed: bytes) -> None:
    gate = rtu()
    assert gate.received(buffer) == passed
    if not passed:
        assert gate.pending == len(buffer)
        assert gate.tail


@pytest.mark.parametrize(
    ("buffer", "passed", "poisoned"),
    [
        (TCP_REPLY, TCP_REPLY, False),
        (TCP_EXCEPTION, TCP_EXCEPTION, False),
        (TCP_EARLIER + TCP_REPLY, TCP_REPLY, False),
        (TCP_EARLIER, b"", False),
        (TCP_REPLY[:-1], b"", False),
        (TCP_REPLY[:3] + b"\1" + TCP_REPLY[4:], b"", True),  # protocol id
        (TCP_REPLY[:5] + b"\1" + TCP_REPLY[6:], b"", True),  # length
        (TCP_REPLY[:6] + b"\2" + TCP_REPLY[7:], b"", True),  # unit
        (TCP_REPLY[:7] + b"\4" + TCP_REPLY[8:], b"", True),  # function
        (TCP_REPLY[:8] + b"\2" + TCP_REPLY[9:], b"", True),  # byte count
    ],
)
def test_tcp_gate(buffer: bytes, passed: bytes, poisoned: bool) -> None:
    gate, calls = tcp(), []
    gate.on_poison = lambda: calls.append(1)
    assert gate.received(buffer) == passed
    assert bool(calls) == poisoned
    assert bool(gate.pending) == (poisoned or buffer == TCP_REPLY[:-1])


def test_bit_reads_count_bytes() -> None:
    gate = RtuGate()
    gate.sent(sealed(bytes.fromhex("01 01 00 00 00 09")))
    reply = sealed(bytes.fromhex("01 01 02 ff 01"))
    assert gate.received(reply) == reply


@pytest.mark.parametrize(("gate", "reply"), [(rtu(), RTU_REPLY), (tcp(), TCP_REPLY)])
def test_nothing_passes_without_a_request(gate: RtuGate | TcpGate, reply: bytes) -> None:
    gate.disarm()
    assert gate.received(reply) == b""
    assert gate.stray == len(reply)
    gate.reset()
    assert gate.stray == 0


@given(st.binary(max_size=80))
def test_rtu_gate_passes_no_noise(noise: bytes) -> None:
    for at in range(len(noise)):  # however the bytes come in pieces
        assert rtu().received(noise[: at + 1]) in (b"", RTU_REPLY, RTU_EXCEPTION)


@given(st.binary(max_size=80), st.sampled_from([TCP_REPLY, TCP_EARLIER, TCP_EXCEPTION]), st.integers(0, 12))
def test_tcp_gate_passes_only_answers(noise: bytes, frame: bytes, at: int) -> None:
    buffer = frame[:at] + noise
    passed = tcp().received(buffer)
    assert passed == b"" or passed.startswith((TCP_REPLY[:9], TCP_EXCEPTION[:8]))
