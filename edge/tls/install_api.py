"""What everybody gets, also over plain HTTP: installation page, local CA, answers to probes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import segno
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ...errors import RefusedError
from .install_page import STYLE, SYSTEMS, Shown, language_of, render, system_of
from .profile import mobile_config

CA_FILES = {"/ca.crt": "application/x-x509-ca-cert", "/ca.mobileconfig": "application/x-apple-aspen-config"}
PROBES = {
    "/hotspot-detect.html": "<HTML><HEAD><TITLE>Success</TITLE></HEAD><BODY>Success</BODY></HTML>",
    "/library/test/success.html": "<HTML><HEAD><TITLE>Success</TITLE></HEAD><BODY>Success</BODY></HTML>",
    "/connecttest.txt": "Microsoft Connect Test",
    "/ncsi.txt": "Microsoft NCSI",
}
"""What iPhone and Windows expect where there is internet: they stay in a Wi-Fi that has none."""
EMPTY_PROBES = ("/generate_204", "/gen_204")
QR_PATHS = {f"/install/{system}.svg": system for system in SYSTEMS}
OPEN_PATHS = frozenset({"/install", "/install.css", *CA_FILES, *PROBES, *EMPTY_PROBES, *QR_PATHS})


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallApi:
    """Args: authority: the local CA; None while there is none. plain, secure: addresses of /install's door and of the
    pages, each ending with `/`."""

    authority: Callable[[], x509.Certificate | None]
    site: tuple[str, str]
    plain: str
    secure: str

    def add_to(self, app: web.Application) -> None:
        """The routes of `OPEN_PATHS`."""
        app.router.add_get("/install", self._page)
        app.router.add_get("/install.css", _style)
        for path in QR_PATHS:
            app.router.add_get(path, self._qr)
        for path in CA_FILES:
            app.router.add_get(path, self._file)
        for path in PROBES:
            app.router.add_get(path, _probe)
        for path in EMPTY_PROBES:
            app.router.add_get(path, _nothing)

    async def _page(self, request: web.Request) -> web.Response:
        shown = Shown(cert=self.authority(), site=self.site, plain=self.plain, secure=self.secure)
        lang = language_of(request.query.get("lang", ""), request.headers.get("Accept-Language", ""))
        chosen = system_of(request.query.get("os", ""), request.headers.get("User-Agent", ""))
        headers = {"Cache-Control": "no-store", "Content-Language": "zh-CN" if lang == "zh" else "en"}
        return web.Response(text=render(shown, lang, chosen), content_type="text/html", headers=headers)

    async def _qr(self, request: web.Request) -> web.Response:
        body = qr_svg(f"{self.plain}install?os={QR_PATHS[request.path]}")
        return web.Response(body=body, content_type="image/svg+xml", headers={"Cache-Control": "no-cache"})

    async def _file(self, request: web.Request) -> web.Response:
        cert = self.authority()
        if cert is None:
            raise RefusedError(
                "unavailable", "there is no local CA yet", hint="see the gateway's log: is its clock set?"
            )
        is_profile = request.path.endswith(".mobileconfig")
        body = mobile_config(cert, *self.site) if is_profile else cert.public_bytes(Encoding.DER)
        name = "sitewarden-ca" + request.path.removeprefix("/ca")
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return web.Response(body=body, content_type=CA_FILES[request.path], headers=headers)


def qr_svg(text: str) -> bytes:
    """A QR code as an SVG without script or style."""
    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        out, kind="svg", scale=6, border=4, light="#fff", xmldecl=False, omitsize=True
    )
    return out.getvalue()


async def _style(_: web.Request) -> web.Response:
    return web.Response(text=STYLE, content_type="text/css", headers={"Cache-Control": "no-cache"})


async def _probe(request: web.Request) -> web.Response:
    kind = "text/html" if request.path.endswith(".html") else "text/plain"
    return web.Response(text=PROBES[request.path], content_type=kind, headers={"Cache-Control": "no-store"})


async def _nothing(_: web.Request) -> web.Response:
    return web.Response(status=204, headers={"Cache-Control": "no-store"})
