"""The contract of a service's HTTP interface: an OpenAPI document that is served as it is, for everyone."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

PATH = "/openapi.yaml"


def add_contract(app: web.Application, document: Path) -> None:
    """GET /openapi.yaml. Its type: RFC 9512."""
    text = document.read_bytes()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=text, content_type="application/yaml")

    app.router.add_get(PATH, answer)
