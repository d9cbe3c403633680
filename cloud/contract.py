"""The contract of this service's HTTP interface: `openapi.yaml`, beside this file, served as it is."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

CONTRACT = Path(__file__).with_name("openapi.yaml")
PATH = "/openapi.yaml"


def add_contract(app: web.Application) -> None:
    """GET /openapi.yaml, for everyone. Its type: RFC 9512."""
    text = CONTRACT.read_bytes()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=text, content_type="application/yaml")

    app.router.add_get(PATH, answer)
