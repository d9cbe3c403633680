"""What plain HTTP gives to others than this machine."""

from __future__ import annotations

import plistlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from sitewarden.edge.tls.door import guard_plain_http
from sitewarden.edge.tls.folder import TlsFolder
from sitewarden.edge.tls.install_api import OPEN_PATHS, InstallApi
from sitewarden.edge.tls.keeper import Keeper
from sitewarden.edge.tls.names import Names
from sitewarden.serving.listen import serving
from sitewarden.serving.secrets import Secrets
from sitewarden.serving.web import make_app

NAMES = Names(host="gw.local")
ELSEWHERE = {"X-Forwarded-Proto": "http", "Host": "evil.example.com"}


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[tuple[str, Keeper]]:
    keeper = Keeper(TlsFolder(tmp_path), NAMES, "Plant")
    keeper.look()
    secrets = Secrets(tmp_path / "secrets.db")
    app = make_app({}, secrets, cookie="c")
    site, here = ("<b>厂", "Plant"), "https://gw.local:8443/"
    InstallApi(authority=lambda: keeper.authority, site=site, plain=here, secure=here).add_to(app)
    app.middlewares.append(guard_plain_http(NAMES, 8443))
    async with serving(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}", keeper
    secrets.close()


async def test_others_get_the_way_to_https_and_nothing_else(door: tuple[str, Keeper]):
    url, _ = door
    async with aiohttp.ClientSession(headers=ELSEWHERE) as http:
        for path in ("/", "/api/v1/people?a=1", "/assets/x.js"):
            async with http.get(url + path, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (307, f"https://gw.local:8443{path}")
        async with http.post(f"{url}/api/v1/session", json={"person": "li", "pin": "1234"}) as answer:
            assert (answer.status, (await answer.json())["error"]["reason"]) == (403, "https_only")
        for path in OPEN_PATHS:
            async with http.get(url + path, allow_redirects=False) as answer:
                assert answer.status in (200, 204), path
    async with aiohttp.ClientSession() as http, http.get(f"{url}/api/v1/people") as answer:
        assert answer.status == 200  # this machine


async def test_the_authority_in_both_forms(door: tuple[str, Keeper]):
    url, keeper = door
    async with aiohttp.ClientSession(headers=ELSEWHERE) as http:
        async with http.get(f"{url}/ca.crt") as answer:
            assert answer.content_type == "application/x-x509-ca-cert"
            assert x509.load_der_x509_certificate(await answer.read()) == keeper.authority
        async with http.get(f"{url}/ca.mobileconfig") as answer:
            assert answer.content_type == "application/x-apple-aspen-config"
            (payload,) = plistlib.loads(await answer.read())["PayloadContent"]
            assert x509.load_der_x509_certificate(payload["PayloadContent"]) == keeper.authority
        async with http.get(f"{url}/install?lang=zh") as answer:
            text = await answer.text()
            assert "&lt;b&gt;厂" in text
            assert "<b>" not in text
            assert "no-store" in answer.headers["Cache-Control"]


def test_a_chain_that_ends_soon_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    Keeper(TlsFolder(tmp_path), NAMES, "Plant").look()
    Keeper(TlsFolder(tmp_path), NAMES, "Plant", lambda: now + timedelta(days=3640)).look()
    assert "less than 21 days are left" in caplog.text
