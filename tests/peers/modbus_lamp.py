"""A stack light with a siren that speaks Modbus TCP, in the test's own loop. Any unit id is answered.

Two views of the same four outputs: coils 0..3 (siren, red, amber, green: off, on) and holding registers 0..3 in the
same order, with codes for a siren (0, 1) and for lamps (`CODES`: off, on and three speeds of flashing). Functions
1, 3, 5, 6, 15, 16. Its own watchdog lights amber when nobody has written for `watchdog_s`.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field

OUTPUTS = ("siren", "red", "amber", "green")
CODES = {"off": 0, "on": 1, "slow": 2, "medium": 3, "fast": 4}
NAMES = {code: name for name, code in CODES.items()}
COILS, HOLDINGS = (1, 5, 15), (3, 6, 16)


@dataclass
class ModbusLamp:
    """The device.

    Attributes:
        now: code of each output.
        lost: its watchdog has run out. watchdog_s: 0 when it has none.
        written: (output, state name) of every write that it took.
        refuses, stuck, deaf: outputs whose writes are answered with exception 4, are confirmed and not done, are not
            answered.
        silent: nothing at all is answered.
        slow_s: it answers so late.
    """

    watchdog_s: float = 0.0
    port: int = 0
    now: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTPUTS, 0))
    lost: bool = False
    written: list[tuple[str, str]] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    silent: bool = False
    slow_s: float = 0.0
    requests: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> ModbusLamp:
        await self.live()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def live(self) -> None:
        """Power comes, on the old port if there was one: everything is off."""
        self.now, self.lost = dict.fromkeys(OUTPUTS, 0), False
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._fed()

    async def die(self) -> None:
        """Power goes."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self.now = dict.fromkeys(OUTPUTS, 0)
        await asyncio.sleep(0)

    @property
    def seen(self) -> dict[str, str]:
        """What a person sees and hears."""
        told = {name: NAMES[code] for name, code in self.now.items()}
        return {**told, "amber": "on", "green": "off"} if self.lost else told

    def heal(self) -> None:
        """No faults any more."""
        self.refuses, self.stuck, self.deaf, self.silent, self.slow_s = set(), set(), set(), False, 0.0

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                transaction, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                pdu = await reader.readexactly(length - 1)
                self.requests += 1
                if self.slow_s:
                    await asyncio.sleep(self.slow_s)
                answer = None if self.silent else self._answer(pdu)
                if answer is not None:
                    writer.write(struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer)
        self._writers.discard(writer)
        writer.close()

    def _answer(self, pdu: bytes) -> bytes | None:
        function, address, value = struct.unpack(">BHH", pdu[:5])
        if function not in COILS + HOLDINGS:
            return bytes((function | 0x80, 1))
        count = 1 if function in (5, 6) else value
        names = OUTPUTS[address : address + count]
        if not names or len(names) != count:
            return bytes((function | 0x80, 2))
        if function in (1, 3):
            return self._read(function, names)
        if self.deaf.intersection(names):
            return None
        if self.refuses.intersection(names):
            return bytes((function | 0x80, 4))
        values = _values(function, pdu, value, count)
        if any(not self._may_be(name, v) for name, v in zip(names, values, strict=True)):
            return bytes((function | 0x80, 3))
        for name, code in zip(names, values, strict=True):
            self._fed()
            if name not in self.stuck:
                self.now[name] = code
                self.written.append((name, NAMES[code]))
        return pdu if function in (5, 6) else pdu[:5]

    def _read(self, function: int, names: tuple[str, ...]) -> bytes:
        codes = [self.now[name] for name in names]
        if function == 1:
            return bytes((1, 1, sum(bool(code) << i for i, code in enumerate(codes))))
        return struct.pack(f">BB{len(codes)}H", 3, 2 * len(codes), *codes)

    def _may_be(self, name: str, code: int) -> bool:
        return code in ((0, 1) if name == "siren" else NAMES)

    def _fed(self) -> None:
        self.lost = False
        if self._timer is not None:
            self._timer.cancel()
        if self.watchdog_s:
            self._timer = asyncio.get_running_loop().call_later(self.watchdog_s, self._starve)

    def _starve(self) -> None:
        self.lost = True


def _values(function: int, pdu: bytes, value: int, count: int) -> list[int]:
    match function:
        case 5:
            return [int(value == 0xFF00)]
        case 6:
            return [value]
        case 15:
            return [pdu[6] >> i & 1 for i in range(count)]
        case _:
            return list(struct.unpack(f">{count}H", pdu[6 : 6 + 2 * count]))
