"""The limit that ingest is compared with: an aiohttp handler that reads the body and answers as ingest does."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

ANSWER = {
    "epoch": "be" * 8,
    "ack": 1,
    "durable": 1,
    "chain": ":47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
    "time_ms": 1_795_000_000_000,
    "credit_bytes": 1_000_000,
    "retry_ms": 0,
}


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response(ANSWER)


async def main(port: int, host: str) -> None:
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"))
