"""A narrow link as a process of its own: `tests/peers/narrow_link.py` before a port of this machine.

    link_relay.py PORT BYTES_S

Prints `ready PORT` and runs until it is killed. The lines `cut` and `mend` on standard input are answered when it is
done, `mend` with the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import sys
import time

from sitewarden.tests.peers.narrow_link import NarrowLink
from told import listen


async def main(port: int, bytes_s: float) -> None:
    async with NarrowLink(port, rate=bytes_s) as link:

        def told(word: str) -> None:
            link.cut = word == "cut"
            print(word, time.monotonic(), flush=True)

        listen(told)
        print("ready", link.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
