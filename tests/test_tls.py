"""The local CA, its leaf, installed chains and their files, checked by OpenSSL and by Python's ssl."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sitewarden.edge.tls import authority
from sitewarden.edge.tls.authority import Held, cert_pem, key_pem, make_authority, make_leaf, names_of, why_new_leaf
from sitewarden.edge.tls.chain import Given, check_chain, context_of
from sitewarden.edge.tls.folder import AUTHORITY, LEAF, PUBLIC, TlsFolder
from sitewarden.edge.tls.keeper import Keeper
from sitewarden.edge.tls.names import Names, is_host, private_address
from sitewarden.errors import PermanentError
from sitewarden.serving.listen import Limits, Secure, serving

NOW = datetime.now(UTC)
HERE = ipaddress.ip_address("127.0.0.1")
NAMES = Names(host="gw.local", addresses=(ipaddress.ip_address("192.168.1.10"), HERE))


def foreign(ca: Held, *names: x509.GeneralName) -> Held:
    """A leaf that the authority's key signs although it must not."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.cert.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
    )
    return Held(key=key, chain=(builder.sign(ca.key, hashes.SHA256()), ca.cert))


def openssl_says(folder: Path, ca: Held, leaf: Held) -> str:
    (folder / "root.pem").write_bytes(cert_pem(ca.cert))
    (folder / "one.pem").write_bytes(cert_pem(leaf.cert))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "root.pem", "one.pem"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_openssl_takes_the_leaf_and_refuses_every_foreign_name(tmp_path: Path):
    ca = make_authority(NAMES, "Plant", NOW)
    assert "one.pem: OK" in openssl_says(tmp_path, ca, make_leaf(ca, NAMES, NOW))
    for name in (x509.DNSName("bank.example.com"), x509.IPAddress(ipaddress.ip_address("192.168.1.11"))):
        assert "permitted subtree violation" in openssl_says(tmp_path, ca, foreign(ca, name))
    bare = make_authority(Names(host="gw.local"), "", NOW)
    for address in ("10.0.0.1", "fd00::1"):
        leaf = foreign(bare, x509.IPAddress(ipaddress.ip_address(address)))
        assert "permitted subtree violation" in openssl_says(tmp_path, bare, leaf)


def test_what_the_certificates_say():
    ca = make_authority(NAMES, "Plant", NOW)
    leaf = make_leaf(ca, NAMES, NOW)
    constraints = ca.cert.extensions.get_extension_for_class(x509.NameConstraints)
    basic = ca.cert.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, basic.critical, basic.value.path_length) == (True, True, 0)
    assert names_of(leaf.cert) == ({"gw.local"}, set(NAMES.addresses))
    life = leaf.cert.not_valid_after_utc - leaf.cert.not_valid_before_utc
    assert life <= timedelta(days=397)
    assert leaf.cert.not_valid_before_utc < NOW - timedelta(hours=23)
    assert leaf.key.private_numbers() != ca.key.private_numbers()


@pytest.mark.parametrize(
    ("days", "names", "why"),
    [
        (0, NAMES, ""),
        (260, NAMES, ""),
        (266, NAMES, "a third of its life is left"),
        (500, NAMES, "a third of its life is left"),
        (-2, NAMES, "it was made while the clock was ahead"),
        (0, Names(host="gw.local"), "name or addresses have changed"),
    ],
)
def test_when_another_leaf_is_due(days: int, names: Names, why: str):
    ca = make_authority(NAMES, "", NOW)
    assert why_new_leaf(make_leaf(ca, NAMES, NOW), ca, names, NOW + timedelta(days=days)) == why
    other = make_authority(NAMES, "", NOW)
    assert why_new_leaf(make_leaf(other, NAMES, NOW), ca, NAMES, NOW) == "the local CA is another one"


def test_names():
    assert all(map(is_host, ("gw.local", "a-1.plant.example.com")))
    assert not any(
        map(is_host, ("gw", "Gw.local", "gw.local.", "1.2.3.4", "*.local", "gw_1.local", "a..b", "", "-a.b"))
    )
    assert private_address("192.168.1.10") is not None
    assert [private_address(text) for text in ("8.8.8.8", "127.0.0.1", "0.0.0.0", "gw", "fe80::1%eth0")] == [None] * 5


# --- the keeper ---


def keeper(data: Path, names: Names = NAMES, at: datetime = NOW) -> Keeper:
    made = Keeper(TlsFolder(data), names, "Plant", lambda: at)
    made.look()
    return made


def test_it_makes_what_is_missing_and_keeps_what_is_there(tmp_path: Path):
    first = keeper(tmp_path)
    assert first.served is not None
    assert not first.served.is_public
    for name in (AUTHORITY, LEAF):
        assert (tmp_path / "tls" / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    again = keeper(tmp_path)
    assert again.served is not None
    assert (again.served.pem, again.authority) == (first.served.pem, first.authority)


def test_a_leaf_is_renewed_and_the_authority_stays(tmp_path: Path):
    first, later = keeper(tmp_path), keeper(tmp_path, at=NOW + timedelta(days=300))
    assert first.served is not None
    assert later.served is not None
    assert later.served.pem != first.served.pem
    assert later.authority == first.authority
    assert later.days_left() == pytest.approx(authority.LEAF_DAYS, abs=1)


def test_a_clock_in_1970_makes_nothing_and_breaks_nothing(tmp_path: Path):
    lost = keeper(tmp_path, at=datetime(1970, 1, 1, tzinfo=UTC))
    assert (lost.context(), lost.served) == (None, None)
    assert "the clock is not set" in lost.problem
    assert not (tmp_path / "tls" / AUTHORITY).exists()
    good = keeper(tmp_path)
    back = keeper(tmp_path, at=datetime(1970, 1, 1, tzinfo=UTC))
    assert good.served is not None
    assert back.served is not None
    assert back.served.pem == good.served.pem
    ahead = keeper(tmp_path, at=NOW + timedelta(days=365 * 80))  # nobody loses the CA to a wrong clock
    assert ahead.served is not None
    assert (ahead.served.pem, ahead.authority) == (good.served.pem, good.authority)


def test_another_name_waits_for_a_person(tmp_path: Path):
    first, other = keeper(tmp_path), keeper(tmp_path, Names(host="other.local"))
    assert first.served is not None
    assert other.served is not None
    assert other.served.pem == first.served.pem


def test_links_and_open_modes(tmp_path: Path):
    keeper(tmp_path)
    own = tmp_path / "tls" / LEAF
    own.chmod(0o644)
    keeper(tmp_path)
    assert own.stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    own.replace(elsewhere)
    own.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    assert "cannot be read" in keeper(tmp_path).problem
    TlsFolder(tmp_path).write(LEAF, b"new")
    assert (elsewhere.read_bytes(), own.is_symlink()) == (before, False)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "tls").symlink_to(tmp_path / "there")
    assert "must be a folder" in keeper(tmp_path).problem
    assert list((tmp_path / "there").iterdir()) == []


def test_damage_is_named_and_a_leaf_is_made_again(tmp_path: Path):
    keeper(tmp_path)
    (tmp_path / "tls" / LEAF).write_bytes(b"-----BEGIN")
    assert keeper(tmp_path).served is not None
    (tmp_path / "tls" / AUTHORITY).write_bytes(b"")
    assert "ca.pem: is damaged" in keeper(tmp_path).problem


# --- a public chain ---


def issued(host: str = "gw.plant.example.com", *, days: int = 90) -> tuple[Held, Held]:
    """An intermediate (without constraints here) and the leaf that it signed."""
    root = make_authority(Names(host="example.com"), "Public", NOW)
    names = Names(host=host)
    leaf = foreign(root, x509.DNSName(host)) if days == 90 else make_leaf(root, names, NOW)
    return root, leaf


def given(chain: bytes, key: bytes) -> Given:
    return Given(chain=chain, key=key, chain_name="chain.pem", key_name="key.pem")


def test_a_good_chain_is_served_and_falls_back_when_it_ends(tmp_path: Path):
    root, leaf = issued()
    chain = cert_pem(leaf.cert) + cert_pem(root.cert)
    names = Names(host="gw.plant.example.com")
    pem = check_chain(given(chain, key_pem(leaf.key)), names.host, NOW)
    TlsFolder(tmp_path).write(PUBLIC, pem)
    served = keeper(tmp_path, names)
    assert served.served is not None
    assert (served.served.is_public, round(served.days_left() or 0), served.passed_over) == (True, 90, "")
    over = keeper(tmp_path, names, NOW + timedelta(days=91))
    assert over.served is not None
    assert not over.served.is_public
    assert over.passed_over.startswith("the installed chain ended on")
    other = keeper(tmp_path, Names(host="gw.local"))
    assert "is not for gw.local" in other.passed_over
    TlsFolder(tmp_path).remove(PUBLIC)
    other.look()
    assert other.passed_over == ""


def test_what_is_wrong_with_a_chain_is_said():
    root, leaf = issued()
    host, key = "gw.plant.example.com", key_pem(leaf.key)
    chain, swapped = cert_pem(leaf.cert) + cert_pem(root.cert), cert_pem(root.cert) + cert_pem(leaf.cert)
    other = cert_pem(make_authority(Names(host="example.com"), "Other", NOW).cert)
    cases = [
        (b"nothing", key, host, 0, "chain.pem: holds no certificates"),
        (chain, b"nothing", host, 0, "key.pem: holds no private key"),
        (chain, key_pem(root.key), host, 0, "key.pem: is not the key"),
        (swapped, key, host, 0, "put the leaf first"),
        (cert_pem(leaf.cert), key, host, 0, "the intermediate certificates are missing"),
        (cert_pem(leaf.cert) + other, key, host, 0, "certificate 2 has not issued certificate 1"),
        (chain, key, "gw.local", 0, "is for gw.plant.example.com, not for gw.local"),
        (chain, key, host, 91, "ended on"),
    ]
    for some, its_key, name, days, what in cases:
        with pytest.raises(PermanentError) as caught:
            check_chain(given(some, its_key), name, NOW + timedelta(days=days))
        assert what in str(caught.value)


# --- the door ---


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text=request.scheme)


@asynccontextmanager
async def doors(keeper: Keeper, limits: Limits | None = None) -> AsyncIterator[tuple[int, int]]:
    app = web.Application()
    app.router.add_get("/", _hello)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        async with serving(app, "127.0.0.1", 0, limits, secure=Secure(sock=sock, context=keeper.context)) as port:
            yield port, sock.getsockname()[1]


def trusting(keeper: Keeper) -> ssl.SSLContext:
    assert keeper.authority is not None
    return ssl.create_default_context(cadata=cert_pem(keeper.authority).decode())


async def test_both_doors_answer_and_python_verifies_the_chain(tmp_path: Path):
    kept = keeper(tmp_path)
    async with doors(kept) as (plain, secure), aiohttp.ClientSession() as http:
        assert await (await http.get(f"http://127.0.0.1:{plain}/")).text() == "http"
        url = f"https://127.0.0.1:{secure}/"
        assert await (await http.get(url, ssl=trusting(kept), server_hostname="gw.local")).text() == "https"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(url, ssl=trusting(kept), server_hostname="other.local")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(url)


async def _peer(port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="gw.local")
    return reader, writer, writer.get_extra_info("ssl_object").getpeercert(True)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET / HTTP/1.1\r\nHost: gw.local\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    await reader.readexactly(5)
    return head.split(b"\r\n")[0]


async def test_another_certificate_while_a_connection_goes_on(tmp_path: Path):
    kept = keeper(tmp_path)
    async with doors(kept) as (_, port):
        old_reader, old, before = await _peer(port, trusting(kept))
        assert await _ask(old_reader, old) == b"HTTP/1.1 200 OK"
        TlsFolder(tmp_path).remove(LEAF)
        await asyncio.to_thread(kept.look)
        reader, new, after = await _peer(port, trusting(kept))
        assert before != after
        assert await _ask(reader, new) == b"HTTP/1.1 200 OK"
        assert await _ask(old_reader, old) == b"HTTP/1.1 200 OK"
        new.transport.abort()
        old.transport.abort()


async def test_connections_without_a_handshake_count_and_end(tmp_path: Path, eventually):
    kept = keeper(tmp_path)
    async with doors(kept, Limits(connections=2, head_s=0.5)) as (_, port):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        third, third_writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(third.readexactly(1), 30)
        for reader, _ in idle:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 30)
        reader, writer, _ = await _peer(port, trusting(kept))  # there is room again
        assert await _ask(reader, writer) == b"HTTP/1.1 200 OK"
        for one in (writer, third_writer, *(writer for _, writer in idle)):
            one.transport.abort()


async def test_plain_bytes_and_old_tls_are_refused(tmp_path: Path):
    kept = keeper(tmp_path)
    async with doors(kept) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: gw.local\r\n\r\n")
        assert b"HTTP" not in await asyncio.wait_for(reader.read(-1), 30)
        writer.transport.abort()
        assert context_of(kept.served.pem if kept.served else b"").minimum_version == ssl.TLSVersion.TLSv1_2
