"""Chromium trusts the pages once the local CA is installed, and nothing else that its key signs; the page for that."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from playwright.async_api import Error, async_playwright
from sitewarden.edge.tls.authority import cert_pem, fingerprint, read_held
from sitewarden.edge.tls.chain import context_of
from sitewarden.edge.tls.door import guard_plain_http
from sitewarden.edge.tls.folder import AUTHORITY, TlsFolder
from sitewarden.edge.tls.install_api import InstallApi
from sitewarden.edge.tls.keeper import Keeper
from sitewarden.edge.tls.names import Names
from sitewarden.serving.listen import Secure, serving
from sitewarden.serving.secrets import Secrets
from sitewarden.serving.web import make_app
from sitewarden.tests.test_tls import foreign

pytestmark = pytest.mark.browser
NAMES = Names(host="gw.local")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[tuple[Keeper, dict[str, ssl.SSLContext], int, int]]:
    """Keeper, what its door serves instead, ports."""
    keeper = Keeper(TlsFolder(tmp_path), NAMES, "Plant")
    keeper.look()
    other: dict[str, ssl.SSLContext] = {}
    secrets = Secrets(tmp_path / "secrets.db")
    app = make_app({}, secrets, cookie="c")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        site = ("试验厂", "Trial plant")
        here = f"https://gw.local:{port}/"
        InstallApi(authority=lambda: keeper.authority, site=site, plain=here, secure=here).add_to(app)
        app.middlewares.append(guard_plain_http(NAMES, port))
        app.router.add_get("/", _page)
        secure = Secure(sock=sock, context=lambda: other.get("context") or keeper.context())
        async with serving(app, "127.0.0.1", 0, secure=secure) as plain:
            yield keeper, other, plain, port
    secrets.close()


async def _page(_: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><title>pages</title><p>pages", content_type="text/html")


def _trust(home: Path, keeper: Keeper, certutil: str) -> None:
    """As a person does: the authority among those that this user's browser trusts."""
    folder = home / ".pki" / "nssdb"
    folder.mkdir(parents=True)
    assert keeper.authority is not None
    (home / "ca.pem").write_bytes(cert_pem(keeper.authority))
    subprocess.run([certutil, "-N", "--empty-password", "-d", f"sql:{folder}"], check=True)
    options = ["-A", "-n", "plant", "-t", "C,,", "-i", str(home / "ca.pem")]
    subprocess.run([certutil, *options, "-d", f"sql:{folder}"], check=True)


async def test_trusted_once_installed_and_for_its_own_name_alone(
    gateway: tuple[Keeper, dict[str, ssl.SSLContext], int, int], tmp_path: Path, need: Callable[[str, str], str]
):
    keeper, other, _, port = gateway
    chromium, certutil = need("chromium", "apt install chromium"), need("certutil", "apt install libnss3-tools")
    home, stranger = tmp_path / "home", tmp_path / "stranger"
    stranger.mkdir()
    _trust(home, keeper, certutil)
    rules = "--host-resolver-rules=MAP *.local 127.0.0.1, MAP bank.example.com 127.0.0.1"
    async with async_playwright() as playwright:

        async def visit(folder: Path, url: str) -> str:
            browser = await playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", rules], env={"HOME": str(folder)}
            )
            try:
                page = await browser.new_page()
                await page.goto(url)
                is_secure = await page.evaluate("window.isSecureContext && !!navigator.serviceWorker")
                return f"{await page.title()} {is_secure}"
            except Error as error:
                return error.message
            finally:
                await browser.close()

        assert await visit(home, f"https://gw.local:{port}/") == "pages True"
        assert "ERR_CERT_AUTHORITY_INVALID" in await visit(stranger, f"https://gw.local:{port}/")
        held = TlsFolder(tmp_path).read(AUTHORITY)
        assert held is not None

        leaf = foreign(read_held(held, "ca.pem"), x509.DNSName("bank.example.com"))
        other["context"] = context_of(leaf.to_pem())
        assert "ERR_CERT" in await visit(home, f"https://bank.example.com:{port}/")


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_the_installation_page_on_a_phone(
    gateway: tuple[Keeper, dict[str, ssl.SSLContext], int, int],
    tmp_path: Path,
    need: Callable[[str, str], str],
    lang: str,
):
    keeper, _, plain, _ = gateway
    chromium = need("chromium", "apt install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 390, "height": 844}, locale="zh-CN")
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        for system in ("android", "iphone", "harmony", "windows"):
            await page.goto(f"http://127.0.0.1:{plain}/install?lang={lang}&os={system}")
            assert await page.evaluate("document.documentElement.scrollWidth") <= 390
            assert await page.locator("section.system").count() == 1
            width = await page.locator("figure img").evaluate("image => image.naturalWidth")
            assert width > 100
            await page.screenshot(path=tmp_path / f"{system}-{lang}.png", full_page=True)
        shown = (await page.locator("pre").inner_text()).replace("\n", ":")

        assert keeper.authority is not None
        assert shown == fingerprint(keeper.authority)
        assert problems == []
        await browser.close()
