"""What the gates let through, byte by byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.sensors.frames import FLOOD, Request, RtuGate, TcpGate, crc16, read_request, write_request
from sitewarden.sensors.registers import Block, Output, Table


def sealed(body: bytes) -> bytes:
    return body + crc16(body).to_bytes(2, "little")


RTU_ASKED = sealed(bytes.fromhex("01 03 00 0a 00 02"))
RTU_REPLY = sealed(bytes.fromhex("01 03 04 00 0a 00 0b"))
RTU_EXCEPTION = sealed(bytes.fromhex("01 83 02"))
TCP_ASKED = bytes.fromhex("00 07 00 00 00 06 01 03 00 0a 00 02")
TCP_REPLY = bytes.fromhex("00 07 00 00 00 07 01 03 04 00 0a 00 0b")
TCP_EXCEPTION = bytes.fromhex("00 07 00 00 00 03 01 83 02")
TCP_EARLIER = bytes.fromhex("00 06 00 00 00 07 01 03 04 de ad be ef")


def read(table: Table, address: int, count: int) -> Request:
    return read_request(1, Block(table=table, address=address, count=count))


def rtu() -> RtuGate:
    gate = RtuGate()
    assert gate.send(read(Table.HOLDING, 10, 2)) == RTU_ASKED
    return gate


def tcp() -> TcpGate:
    gate = TcpGate(first=0)
    asked = [gate.send(read(Table.HOLDING, 10, 2)) for _ in range(7)]
    assert asked[-1] == TCP_ASKED
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
    assert gate.feed(buffer) == (passed[1:-2] or None)
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
        (TCP_REPLY + TCP_EARLIER, TCP_REPLY, False),
        (TCP_REPLY[:-1] + TCP_EARLIER, b"", True),  # cut short, and filled up with what comes next
        (TCP_REPLY[:-2] + TCP_EXCEPTION, b"", True),
        (TCP_REPLY[:-1], b"", False),
        (TCP_REPLY[:3] + b"\1" + TCP_REPLY[4:], b"", True),  # protocol id
        (TCP_REPLY[:5] + b"\1" + TCP_REPLY[6:], b"", True),  # length
        (TCP_REPLY[:6] + b"\2" + TCP_REPLY[7:], b"", True),  # unit
        (TCP_REPLY[:7] + b"\4" + TCP_REPLY[8:], b"", True),  # function
        (TCP_REPLY[:8] + b"\2" + TCP_REPLY[9:], b"", True),  # byte count
    ],
)
def test_tcp_gate(buffer: bytes, passed: bytes, poisoned: bool) -> None:
    gate = tcp()
    assert gate.feed(buffer) == (passed[7:] or None)
    assert gate.poisoned == poisoned
    assert bool(gate.pending) == (poisoned or buffer == TCP_REPLY[:-1])


def test_a_poisoned_gate_stays_shut() -> None:
    gate = rtu()
    assert gate.feed(bytes(FLOOD + 1)) is None
    assert gate.poisoned
    assert gate.feed(RTU_REPLY) is None
    gate.send(read(Table.HOLDING, 10, 2))
    assert gate.feed(RTU_REPLY) == RTU_REPLY[1:-2]


def test_bit_reads_count_bytes() -> None:
    gate, request = RtuGate(), read(Table.COIL, 0, 9)
    assert gate.send(request) == sealed(bytes.fromhex("01 01 00 00 00 09"))
    pdu = gate.feed(sealed(bytes.fromhex("01 01 02 fe 01")))
    assert pdu is not None
    assert request.words(pdu) == (0, 1, 1, 1, 1, 1, 1, 1, 1)


def test_words_of_a_reply() -> None:
    request = read(Table.INPUT, 0xFFFE, 2)
    assert request.pdu.hex() == "04fffe0002"
    assert request.words(bytes.fromhex("04 04 00 0a ff fe")) == (10, 0xFFFE)


OUTPUT = Output(name="siren", table=Table.COIL, address=0xAC, states=(("off", 0), ("on", 1)))
LAMP = Output(name="lamp", table=Table.HOLDING, address=1, states=(("off", 0), ("red", 0x0102)))


@pytest.mark.parametrize(
    ("output", "raw", "multiple", "asked", "reply"),
    [  # Modbus Application Protocol v1.1b3 §6.5, §6.6, §6.11, §6.12
        (OUTPUT, 1, False, "05 00 ac ff 00", "05 00 ac ff 00"),
        (OUTPUT, 0, False, "05 00 ac 00 00", "05 00 ac 00 00"),
        (OUTPUT, 1, True, "0f 00 ac 00 01 01 01", "0f 00 ac 00 01"),
        (LAMP, 0x0102, False, "06 00 01 01 02", "06 00 01 01 02"),
        (LAMP, 0x0102, True, "10 00 01 00 01 02 01 02", "10 00 01 00 01"),
    ],
)
def test_writes(output: Output, raw: int, multiple: bool, asked: str, reply: str) -> None:
    request = write_request(1, replace(output, multiple=multiple), raw)
    gate = RtuGate()
    assert gate.send(request) == sealed(b"\1" + bytes.fromhex(asked))
    assert gate.feed(sealed(b"\1" + bytes.fromhex(reply))) == bytes.fromhex(reply)
    gate.send(request)
    other = sealed(b"\1" + bytes.fromhex(reply)[:2] + b"\x77" + bytes.fromhex(reply)[3:])
    assert gate.feed(other) is None  # another address
    assert request.words(bytes.fromhex(reply)) == ()


@pytest.mark.parametrize(("gate", "reply"), [(rtu(), RTU_REPLY), (tcp(), TCP_REPLY)])
def test_nothing_passes_without_a_request(gate: RtuGate | TcpGate, reply: bytes) -> None:
    gate.disarm()
    assert gate.feed(reply) is None
    assert gate.stray == len(reply)
    gate.reset()
    assert gate.stray == 0


@given(st.binary(max_size=80))
def test_rtu_gate_passes_no_noise(noise: bytes) -> None:
    gate = rtu()
    for byte in noise:  # however the bytes come in pieces
        assert gate.feed(bytes((byte,))) in (None, RTU_REPLY[1:-2], RTU_EXCEPTION[1:-2])


@given(st.binary(max_size=80), st.sampled_from([TCP_REPLY, TCP_EARLIER, TCP_EXCEPTION]), st.integers(0, 12))
def test_tcp_gate_passes_only_answers(noise: bytes, frame: bytes, at: int) -> None:
    passed = tcp().feed(frame[:at] + noise)
    assert passed is None or passed.startswith((TCP_REPLY[7:9], TCP_EXCEPTION[7:8]))


@given(st.integers(1, 25))
def test_a_reply_in_pieces_passes_whole(size: int) -> None:
    gate, pieces = tcp(), TCP_EARLIER + TCP_REPLY
    passed = [gate.feed(pieces[at : at + size]) for at in range(0, len(pieces), size)]
    assert [pdu for pdu in passed if pdu is not None] == [TCP_REPLY[7:]]


def test_two_connections_begin_with_different_numbers() -> None:
    request = read(Table.HOLDING, 10, 2)
    assert len({TcpGate().send(request)[:2] for _ in range(20)}) > 5
