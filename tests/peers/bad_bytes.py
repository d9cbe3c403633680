"""What a dying card makes of a file."""

from __future__ import annotations

import random
from pathlib import Path

PAGE = 4096


def flip(path: Path, dice: random.Random, head_pages: int = 7) -> None:
    """Damage some bytes somewhere: a bit, a bit among the first pages, where a database describes its tables and says
    what it is, a sector of zeros, or a sector of something else."""
    data = bytearray(path.read_bytes())
    at = dice.randrange(len(data))
    match dice.choice(["bit", "bit of the head", "zeros", "noise"]):
        case "bit":
            data[at] ^= 1 << dice.randrange(8)
        case "bit of the head":
            at = dice.choice([place for place, byte in enumerate(data[: head_pages * PAGE]) if byte])
            data[at] ^= 1 << dice.randrange(8)
        case "zeros":
            at -= at % 512
            data[at : at + 512] = bytes(512)
        case _:
            at -= at % 512
            data[at : at + 512] = dice.randbytes(512)
    path.write_bytes(data)
