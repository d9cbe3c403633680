"""`sitewarden tls`, and a gateway with [https]: what it says, serves, takes up while it runs, and complains about."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sitewarden.cli import main
from sitewarden.edge import faults
from sitewarden.edge.alarms.system import Delays
from sitewarden.edge.app import run_edge
from sitewarden.serving.secrets import Secrets

HOST = "gw.plant.example.com"
SITE = """
[site]
id = "s1"
name = "染厂"
name_en = "Dyeing"
[gateway]
id = "gw1"
[web]
port = {plain}
[https]
enabled = true
name = "gw.plant.example.com"
host = "127.0.0.1"
port = {secure}
mdns = false
{more}
[[area]]
id = "store"
name = "库"
name_en = "Store"
"""
PEOPLE = "id,name,name_en,roles,areas,phone\nit1,网,Net,it,*,\n"
PIN = "246813"


def site(folder: Path, plain: int = 8080, secure: int = 8443, more: str = "") -> Path:
    path = folder / "site.toml"
    path.write_text(SITE.format(plain=plain, secure=secure, more=more), "utf-8")
    (folder / "people.csv").write_text(PEOPLE, "utf-8")
    return path


def tls(folder: Path, *words: str | Path) -> Result:
    config = ("--config", str(folder / "site.toml"), "--data", str(folder / "data"), "--lang", "en")
    return CliRunner().invoke(main, ["tls", *map(str, words), *config])


def signed(request: x509.CertificateSigningRequest, days: int) -> str:
    """What a public authority gives for a request: leaf and intermediate, as PEM."""
    now, key = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Public CA")])

    def begin(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=days))

    wanted = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    public = request.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    leaf = begin(request.subject, public).add_extension(wanted, critical=False).sign(key, hashes.SHA256())
    basic = x509.BasicConstraints(ca=True, path_length=None)
    root = begin(issuer, key.public_key()).add_extension(basic, critical=True).sign(key, hashes.SHA256())
    return b"".join(cert.public_bytes(Encoding.PEM) for cert in (leaf, root)).decode()


def install(folder: Path, days: int) -> None:
    """By the commands alone: request, signature, installation."""
    request = tls(folder, "csr", "--out", folder / "wanted.pem")
    assert request.exit_code == 0, request.output
    chain = folder / "chain.pem"
    chain.write_text(signed(x509.load_pem_x509_csr((folder / "wanted.pem").read_bytes()), days), "utf-8")
    done = tls(folder, "install", chain)
    assert (done.exit_code, HOST in done.output) == (0, True), done.output


# --- the commands ---


def test_from_nothing_to_an_installed_chain(tmp_path: Path) -> None:
    site(tmp_path)
    assert tls(tmp_path, "show").exit_code == 1
    made = tls(tmp_path, "make")
    assert made.exit_code == 0, made.output
    shown = tls(tmp_path, "show").output
    again = tls(tmp_path, "make")
    assert (again.output, again.exit_code) == (made.output, 0)  # what is there is kept
    renewed = tls(tmp_path, "renew").output.splitlines()
    assert renewed[:2] == made.output.splitlines()[:2]  # the CA
    assert renewed[2:] != made.output.splitlines()[2:]  # its leaf
    assert tls(tmp_path, "make", "--new-ca").output.splitlines()[:2] != renewed[:2]
    install(tmp_path, 90)
    assert len(tls(tmp_path, "show").output.splitlines()) > len(shown.splitlines())  # with its fingerprint
    folder = tmp_path / "data" / "tls"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.suffix == ".pem"} == {0o600}
    sheet = tls(tmp_path, "sheet", "--out", tmp_path / "sheet.html")
    assert sheet.exit_code == 0, sheet.output
    assert "染厂" in (tmp_path / "sheet.html").read_text("utf-8")


def test_what_cannot_be_installed_is_refused_with_what_to_do(tmp_path: Path) -> None:
    site(tmp_path)
    chain = tmp_path / "chain.pem"
    missing = tls(tmp_path, "install", chain)
    assert (missing.exit_code, "no request was made here" in missing.output) == (1, True), missing.output
    tls(tmp_path, "csr", "--out", tmp_path / "wanted.pem")
    missing = tls(tmp_path, "install", chain)
    assert (missing.exit_code, f"{chain}: cannot be read" in missing.output) == (1, True), missing.output
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    other = x509.SubjectAlternativeName([x509.DNSName(HOST)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(other, critical=False)
    chain.write_text(signed(request.sign(key, hashes.SHA256()), 90), "utf-8")
    foreign = tls(tmp_path, "install", chain)
    assert (foreign.exit_code, "is not the key of the first certificate" in foreign.output) == (1, True)
    assert not (tmp_path / "data" / "tls" / "public.pem").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('addresses = ["8.8.8.8"]', "https.addresses[0]"),
        ('addresses = ["gw.local"]', "https.addresses[0]"),
        ("ports = 1", "https.ports"),
    ],
)
def test_what_is_wrong_in_site_toml_is_named(tmp_path: Path, line: str, told: str) -> None:
    site(tmp_path, more=line)
    result = tls(tmp_path, "make")
    assert (result.exit_code, told in result.output) == (1, True), result.output


# --- a gateway that runs ---


@asynccontextmanager
async def gateway(folder: Path, plain: int) -> AsyncIterator[list[str]]:
    """Yields what it says at its start."""
    (folder / "data").mkdir(exist_ok=True)
    secrets = Secrets(folder / "data" / "secrets.db")
    secrets.set_pin("it1", PIN)
    secrets.close()
    said: list[str] = []
    task = asyncio.create_task(run_edge(folder / "site.toml", folder / "data", say=said.append))
    try:
        async with asyncio.timeout(120):
            while not said:
                assert not task.done(), task.result()
                await asyncio.sleep(0.05)
        yield said
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def trusting(path: Path) -> ssl.SSLContext:
    """Trusts one file's last certificate alone."""
    last = x509.load_pem_x509_certificates(path.read_bytes())[-1]
    pem = last.public_bytes(Encoding.PEM).decode()
    return ssl.create_default_context(cadata=pem)


async def test_cookies_and_headers_of_both_doors_and_a_chain_that_is_installed_meanwhile(
    tmp_path: Path, free_port, eventually
) -> None:
    plain, secure = free_port(), free_port()
    site(tmp_path, plain, secure)
    url, credentials = f"https://127.0.0.1:{secure}/", {"person": "it1", "pin": PIN}
    async with gateway(tmp_path, plain) as said, aiohttp.ClientSession() as http:
        assert f"http://127.0.0.1:{plain}/ and https://{HOST}:{secure}/" in said[0]
        local = trusting(tmp_path / "data" / "tls" / "ca.pem")
        async with http.get(url, ssl=local, server_hostname=HOST) as answer:
            assert (answer.status, "Strict-Transport-Security" in answer.headers) == (200, False)
        async with http.post(
            f"{url}api/v1/session", json=credentials, ssl=local, server_hostname=HOST, headers={"Origin": url[:-1]}
        ) as answer:
            cookie = answer.headers["Set-Cookie"]
            assert all(word in cookie for word in ("Secure", "HttpOnly", "SameSite=Strict")), cookie
        async with http.post(f"http://127.0.0.1:{plain}/api/v1/session", json=credentials) as answer:
            cookie = answer.headers["Set-Cookie"]
            assert ("Secure" in cookie, "HttpOnly" in cookie) == (False, True), cookie

        await asyncio.to_thread(install, tmp_path, 90)
        public = trusting(tmp_path / "chain.pem")

        async def taken_up() -> bool:
            with contextlib.suppress(aiohttp.ClientConnectorCertificateError):
                async with aiohttp.ClientSession() as fresh, fresh.get(url, ssl=public, server_hostname=HOST) as answer:
                    return "max-age" in answer.headers["Strict-Transport-Security"]
            return False

        await eventually(taken_up, "the new chain is served")


async def test_a_chain_that_ends_soon_is_an_alarm_until_another_one_is_there(
    tmp_path: Path, free_port, eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "CERTIFICATE", Delays(on_s=0.5, off_s=0.5))
    plain = free_port()
    site(tmp_path, plain, free_port())
    install(tmp_path, 20)
    base = f"http://127.0.0.1:{plain}/api/v1/"
    async with gateway(tmp_path, plain), aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with http.post(f"{base}session", json={"person": "it1", "pin": PIN}) as answer:
            assert answer.status == 200, await answer.text()

        async def alarm() -> dict:
            async with http.get(f"{base}alarms") as answer:
                found = [one for one in (await answer.json())["alarms"] if one["id"] == "system.certificate"]
            return found[0] if found else {}

        raised = await eventually(alarm, "the alarm")
        assert (raised["state"], raised["active"]) == ("UNACK", "certificate")
        await asyncio.to_thread(install, tmp_path, 90)

        async def over() -> bool:
            return (await alarm()).get("state") == "RTNUN"

        await eventually(over, "it is over")
