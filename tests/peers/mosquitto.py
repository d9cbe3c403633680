"""A real mosquitto with its own clients, and a wire to it that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sitewarden.tests.peers.ports import free_port

SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def find(program: str) -> str:
    """Its path; without it the test fails in CI, else skips."""
    found = shutil.which(program, path=SBIN)
    if found is None:
        how = f"{program} is not installed: apt-get install mosquitto mosquitto-clients"
        assert not os.environ.get("CI"), how
        pytest.skip(how)
    return found


async def until(condition: Callable[[], object], what: str | Callable[[], str], bound_s: float = 60) -> None:
    """Wait for a condition."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + bound_s
    while not condition():
        assert loop.time() < end_s, f"not within {bound_s} s: {what() if callable(what) else what}"
        await asyncio.sleep(0.01)


class Mosquitto:
    """mosquitto on a free loopback port, with the user gw.

    Args:
        folder: of its files.
        lines: of mosquitto.conf beside the listener and its users.
    """

    def __init__(self, folder: Path, lines: Sequence[str] = ()) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.client_args: tuple[str, ...] = ("-u", "gw", "-P", "secret")
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        passwords = folder / "passwords"
        passwords.write_text("gw:secret\n", "utf-8")
        passwords.chmod(0o600)
        subprocess.run([find("mosquitto_passwd"), "-U", str(passwords)], check=True)
        own = [f"listener {self.port} 127.0.0.1", "allow_anonymous false", f"password_file {passwords}", "log_type all"]
        own += ["user root"] if os.getuid() == 0 else []
        (folder / "mosquitto.conf").write_text("\n".join([*own, *lines]) + "\n", "utf-8")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", errors="replace")

    async def start(self) -> None:
        command = [find("mosquitto"), "-c", str(self.folder / "mosquitto.conf")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        await until(self._listens, lambda: self.log)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    async def client(self, program: str, *args: str, stdin: bytes | None = None) -> bytes:
        """Run mosquitto_pub or mosquitto_sub to its end; what it printed."""
        process = await self.start_client(program, *args)
        try:
            async with asyncio.timeout(60):
                out, err = await process.communicate(stdin)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, f"{program} {args}: {err.decode()}"
        return out

    async def start_client(self, program: str, *args: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = [find(program), "-h", "127.0.0.1", "-p", str(self.port), *self.client_args, *args]
        return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)

    async def publish(self, topic: str, *payloads: bytes, args: Sequence[str] = ("-q", "1")) -> None:
        """Each payload is a message."""
        if any(b"\0" in payload or b"\n" in payload or len(payload) > 1000 for payload in payloads):
            for payload in payloads:  # what is no line of text
                await self.client("mosquitto_pub", "-t", topic, "-s", *args, stdin=payload)
            return
        await self.client("mosquitto_pub", "-t", topic, "-l", *args, stdin=b"".join(p + b"\n" for p in payloads))


@contextlib.asynccontextmanager
async def running(folder: Path, *lines: str) -> AsyncIterator[Mosquitto]:
    """A broker for a test."""
    broker = Mosquitto(folder, lines)
    try:
        await broker.start()
        yield broker
    finally:
        broker.kill()


class Wire:
    """A proxy before a port. `whole`: False refuses connections; `deaf`: what the client says is swallowed."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.whole = True
        self.deaf = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Wire]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            try:
                yield self
            finally:
                self.whole = False
                self.cut()
                await until(lambda: self._open == 0, "the ends of the wires")

    def cut(self) -> None:
        """Drop every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.whole:
            writer.transport.abort()
            return
        self._open += 1
        try:
            await self._connect(reader, writer)
        finally:
            self._open -= 1

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers |= {writer, back}
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, back, to_broker=True), name="to broker")
                group.create_task(self._carry(there, writer, to_broker=False), name="to client")

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_broker: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not (to_broker and self.deaf):
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


def make_certificates(folder: Path, *, host: str = "127.0.0.1") -> None:
    """ca.pem, server.pem + server.key for `host`, client.pem + client.key; other-ca.pem, which signed none of them."""
    folder.mkdir(exist_ok=True)
    authority = _authority(folder, "ca")
    _authority(folder, "other-ca")
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, authority[1].subject, key)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
        builder = builder.add_extension(names, critical=False)
        _write(folder, name, builder.sign(authority[0], hashes.SHA256()), key)


def _authority(folder: Path, name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    certificate = _builder(name, subject, key).add_extension(constraints, critical=True).sign(key, hashes.SHA256())
    _write(folder, name, certificate, key)
    return key, certificate


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / f"{name}.key").write_bytes(pem)
