"""Plan block reads; and the door to register maps as a whole: values of `layout`, decoders of `decoding`. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from .decoding import MAX_DECIMALS, Decoder, compile_decoder, decode, decode_text
from .layout import (
    ADDRESSES,
    Block,
    Decoded,
    Heartbeat,
    Loop,
    Output,
    Part,
    Register,
    Status,
    Table,
    Text,
    ValueType,
    WordOrder,
)

__all__ = [
    "ADDRESSES",
    "MAX_BITS",
    "MAX_DECIMALS",
    "MAX_REGISTERS",
    "ONE_BY_ONE",
    "Block",
    "Decoded",
    "Decoder",
    "Heartbeat",
    "Loop",
    "Output",
    "Part",
    "Register",
    "Status",
    "Table",
    "Text",
    "ValueType",
    "WordOrder",
    "compile_decoder",
    "decode",
    "decode_text",
    "plan",
    "resync_reads",
]

MAX_REGISTERS = 125  # one read, Modbus Application Protocol v1.1b3 §6.3
MAX_BITS = 2000  # one read, §6.1
MORE_LENGTHS = 16  # of resynchronizing reads beyond a block
ONE_BY_ONE = -1  # as `max_gap`: each value in a request of its own


def plan(registers: Iterable[Register], *, max_gap: int, max_count: int = MAX_REGISTERS) -> tuple[Block, ...]:
    """Few requests that cover every register exactly once, with the registers that belong to it.

    Args:
        max_gap: unwanted addresses that may be read between two wanted ones; 0 where a device refuses holes,
            `ONE_BY_ONE` where it refuses more than one value in a read.
        max_count: most addresses in one request (device limit); bit tables have the same limit.

    Raises:
        ValueError: one register with its companions needs more than `max_count`, or leaves 0..65535.
    """
    blocks: list[Block] = []
    ordered = sorted(registers, key=lambda r: (r.table, r.first, r.end, r.name))
    for table, members in itertools.groupby(ordered, key=lambda r: r.table):
        run: list[Register] = []
        for register in members:
            _check_span(register, max_count)
            if run and not _fits(run, register, max_gap, max_count):
                blocks.append(_block(table, run))
                run = []
            run.append(register)
        blocks.append(_block(table, run))
    return tuple(blocks)


def _check_span(register: Register, max_count: int) -> None:
    if register.first < 0 or register.end > ADDRESSES:
        raise ValueError(f"{register.name}: addresses {register.first}..{register.end - 1} leave 0..65535")
    if register.end - register.first > max_count:
        span = register.end - register.first
        raise ValueError(f"{register.name}: needs {span} addresses in one read, at most {max_count}")


def _fits(run: Sequence[Register], register: Register, max_gap: int, max_count: int) -> bool:
    end = max(r.end for r in run)
    return register.first - end <= max_gap and max(end, register.end) - run[0].first <= max_count


def _block(table: Table, run: Sequence[Register]) -> Block:
    first = run[0].first
    return Block(table=table, address=first, count=max(r.end for r in run) - first, registers=tuple(run))


_OTHER = {
    Table.HOLDING: Table.INPUT,
    Table.INPUT: Table.HOLDING,
    Table.COIL: Table.DISCRETE,
    Table.DISCRETE: Table.COIL,
}


def resync_reads(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Reads whose reply no reply to `blocks` can be mistaken for: each has another length than all of them.

    An RTU reply carries no transaction id; whoever has missed one makes such a read first. An exception answer serves
    as well. Best first: inside a block, beyond one, before one, the same addresses of the other table; a caller whose
    device stays silent at one of them tries the next. Then more lengths of the same: the late reply to one such read
    must not be taken for the reply to the next.
    """
    taken = {block.reply_bytes for block in blocks}
    found: dict[tuple[Table, int, int], Block] = {}
    for candidate in itertools.chain.from_iterable(_resync_candidates(blocks, taken)):
        found.setdefault((candidate.table, candidate.address, candidate.count), candidate)
    return tuple(found.values())


def _resync_candidates(blocks: Sequence[Block], taken: set[int]) -> Iterator[Iterator[Block]]:
    yield (r for b in blocks for r in _first_free(b.table, b.address, range(1, b.count), taken))
    yield (r for b in blocks for r in _first_free(b.table, b.address, range(b.count + 1, _limit(b.table) + 1), taken))
    yield (
        r
        for b in blocks
        if b.address > 0
        for r in _first_free(b.table, b.address - 1, range(b.count + 1, _limit(b.table) + 1), taken)
    )
    yield (r for b in blocks for r in _first_free(_OTHER[b.table], b.address, range(1, _limit(b.table) + 1), taken))
    inside = ((b, c) for b in blocks for c in range(1, b.count))
    beyond = (
        (b, c) for b in blocks for c in range(b.count + 1, b.count + MORE_LENGTHS * (8 if b.table.is_bits else 1))
    )
    for pairs in (inside, beyond):
        yield (r for b, c in pairs if c <= _limit(b.table) for r in _first_free(b.table, b.address, (c,), taken))


def _limit(table: Table) -> int:
    return MAX_BITS if table.is_bits else MAX_REGISTERS


def _first_free(table: Table, address: int, counts: Iterable[int], taken: set[int]) -> tuple[Block, ...]:
    for count in counts:
        read = Block(table=table, address=address, count=count)
        if address + count <= ADDRESSES and read.reply_bytes not in taken:
            return (read,)
    return ()
