"""A Modbus server made of libmodbus, as a process: `libmodbus_server.py tcp PORT IMAGE` or `rtu DEVICE IMAGE`.

IMAGE is a JSON file: {"baud", "parity", "refuse", "stuck": {table: address}, "units": {id: {table: {"start",
"values"}}}}. A read that touches `refuse` is answered with exception 3. A write to a `stuck` address is answered like
any other and not taken. Prints `ready` when it listens, ends when its standard input does.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

ILLEGAL_VALUE = 3
READS = (1, 2, 3, 4)
MAX_FRAME = 260
LINE_GONE = (errno.EIO, errno.EBADF)


class Mapping(ctypes.Structure):
    """`modbus_mapping_t` of modbus.h 3.1."""

    _fields_ = (
        ("nb_bits", ctypes.c_int),
        ("start_bits", ctypes.c_int),
        ("nb_input_bits", ctypes.c_int),
        ("start_input_bits", ctypes.c_int),
        ("nb_input_registers", ctypes.c_int),
        ("start_input_registers", ctypes.c_int),
        ("nb_registers", ctypes.c_int),
        ("start_registers", ctypes.c_int),
        ("tab_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_registers", ctypes.POINTER(ctypes.c_uint16)),
        ("tab_registers", ctypes.POINTER(ctypes.c_uint16)),
    )


def load() -> ctypes.CDLL:
    lib = ctypes.CDLL(ctypes.util.find_library("modbus") or "libmodbus.so.5", use_errno=True)
    for name in ("modbus_new_tcp", "modbus_new_rtu"):
        getattr(lib, name).restype = ctypes.c_void_p
    lib.modbus_mapping_new_start_address.restype = ctypes.POINTER(Mapping)
    lib.modbus_strerror.restype = ctypes.c_char_p
    return lib


LIB = load()


def checked(result: int | None, what: str) -> int:
    if result is None or result == -1:
        raise SystemExit(f"{what}: {LIB.modbus_strerror(ctypes.get_errno()).decode()}")
    return result


def mapping(unit: dict[str, Any]) -> Any:
    spans: list[ctypes.c_uint] = []
    for table in ("coil", "discrete", "holding", "input"):  # the order of the arguments
        spans += [ctypes.c_uint(unit[table]["start"]), ctypes.c_uint(len(unit[table]["values"]))]
    held = LIB.modbus_mapping_new_start_address(*spans)
    fields = {
        "coil": held.contents.tab_bits,
        "discrete": held.contents.tab_input_bits,
        "holding": held.contents.tab_registers,
        "input": held.contents.tab_input_registers,
    }
    for table, cells in fields.items():
        for at, value in enumerate(unit[table]["values"]):
            cells[at] = value
    return held


class Server:
    """Answers what one libmodbus context receives."""

    def __init__(self, context: ctypes.c_void_p, image: dict[str, Any]) -> None:
        self.context = context
        self.image = image
        self.maps = {int(unit): mapping(tables) for unit, tables in image["units"].items()}
        self.header = LIB.modbus_get_header_length(context)
        self.query = (ctypes.c_uint8 * MAX_FRAME)()

    def serve(self) -> None:
        """Until the connection ends; a serial line goes on after a bad frame."""
        while True:
            size = LIB.modbus_receive(self.context, self.query)
            if size > 0:
                self.answer(bytes(self.query[:size]))
            elif size < 0 and (self.header > 1 or ctypes.get_errno() in LINE_GONE):
                return

    def answer(self, query: bytes) -> None:
        held = self.maps.get(query[self.header - 1])
        if held is None:
            return  # libmodbus itself looks at the unit on serial lines alone
        function = query[self.header]
        address = int.from_bytes(query[self.header + 1 : self.header + 3], "big")
        count = int.from_bytes(query[self.header + 3 : self.header + 5], "big")
        refused = function in READS and address <= self.image["refuse"] < address + count
        if refused:
            LIB.modbus_reply_exception(self.context, self.query, ILLEGAL_VALUE)
            return
        before = self.stuck_cells(held)
        LIB.modbus_reply(self.context, self.query, len(query), held)
        for cells, at, value in before:
            cells[at] = value

    def stuck_cells(self, held: Any) -> list[tuple[Any, int, int]]:
        tables = {
            "coil": (held.contents.tab_bits, held.contents.start_bits),
            "holding": (held.contents.tab_registers, held.contents.start_registers),
        }
        cells = [(tables[t][0], address - tables[t][1]) for t, address in self.image["stuck"].items()]
        return [(c, at, c[at]) for c, at in cells]


def serve_tcp(port: int, image: dict[str, Any]) -> None:
    context = ctypes.c_void_p(checked(LIB.modbus_new_tcp(b"127.0.0.1", port), "modbus_new_tcp"))
    server = Server(context, image)
    listener = ctypes.c_int(checked(LIB.modbus_tcp_listen(context, 1), "modbus_tcp_listen"))
    print("ready", flush=True)
    while True:  # one connection after the other
        checked(LIB.modbus_tcp_accept(context, ctypes.byref(listener)), "modbus_tcp_accept")
        server.serve()
        LIB.modbus_close(context)


def serve_rtu(device: str, image: dict[str, Any]) -> None:
    parity = ctypes.c_char(image["parity"].encode())
    made = LIB.modbus_new_rtu(device.encode(), image["baud"], parity, 8, 1)
    context = ctypes.c_void_p(checked(made, "modbus_new_rtu"))
    LIB.modbus_set_slave(context, int(next(iter(image["units"]))))  # one context is one slave
    checked(LIB.modbus_connect(context), f"modbus_connect {device}")
    print("ready", flush=True)
    Server(context, image).serve()


def main() -> None:
    kind, place, image_file = sys.argv[1:]
    image = json.loads(Path(image_file).read_text())
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    if kind == "tcp":
        serve_tcp(int(place), image)
    else:
        serve_rtu(place, image)


if __name__ == "__main__":
    main()
