"""A public chain that is installed by file: whether it can be served, and if not, what is wrong and what to do."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ...errors import PermanentError
from .authority import cert_pem, check_clock, names_of

_ALSO = "ask whoever issued it for the full chain, leaf first, as PEM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Two files as they were given. `chain_name`, `key_name`: for messages."""

    chain: bytes
    key: bytes
    chain_name: str
    key_name: str


def check_chain(given: Given, host: str, now: datetime) -> bytes:
    """Key and chain as one file that can be served.

    Raises:
        PermanentError: naming the file and what to do.
    """
    check_clock(now)
    certs = _certificates(given)
    leaf = certs[0]
    key = _key(given)
    if leaf.public_key() != key.public_key():
        others = any(cert.public_key() == key.public_key() for cert in certs[1:])
        hint = "put the leaf first in the chain" if others else "use the key that its request was made with"
        raise PermanentError(
            f"{given.key_name}: is not the key of the first certificate of {given.chain_name}", hint=hint
        )
    _check_order(given.chain_name, certs)
    _check_host(given.chain_name, leaf, host)
    for cert in certs:
        _check_time(given.chain_name, cert, now)
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    pem += b"".join(cert_pem(cert) for cert in certs)
    _check_loads(given, pem)
    return pem


def make_request(key: ec.EllipticCurvePrivateKey, host: str) -> bytes:
    """A certificate signing request for the gateway's name, as PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    names = x509.SubjectAlternativeName([x509.DNSName(host)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def covers(cert: x509.Certificate, host: str) -> bool:
    """Whether a certificate names the host, also by `*.` in the place of its first label (RFC 6125 §6.4.3)."""
    names = names_of(cert)[0]
    return host in names or f"*.{host.partition('.')[2]}" in names


def _certificates(given: Given) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(given.chain)
    except ValueError as error:
        raise PermanentError(f"{given.chain_name}: holds no certificates as PEM", hint=_ALSO) from error


def _key(given: Given) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(given.key, None)
    except TypeError as error:
        hint = "take the password off: openssl pkey -in KEY -out NEW"
        raise PermanentError(f"{given.key_name}: the key has a password", hint=hint) from error
    except Exception as error:  # also kinds of keys that the library does not know
        raise PermanentError(
            f"{given.key_name}: holds no private key as PEM", hint="are the two files swapped?"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PermanentError(f"{given.key_name}: must be an ECDSA or RSA key", hint="make one: sitewarden tls csr")
    return key


def _check_order(name: str, certs: Sequence[x509.Certificate]) -> None:
    for i, (cert, issuer) in enumerate(pairwise(certs), 1):
        try:
            cert.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as error:
            what = f"{name}: certificate {i + 1} has not issued certificate {i}"
            raise PermanentError(what, hint="order them: leaf, then each one's issuer") from error
    if len(certs) == 1 and certs[0].issuer != certs[0].subject:
        raise PermanentError(f"{name}: the intermediate certificates are missing", hint=_ALSO)


def _check_host(name: str, leaf: x509.Certificate, host: str) -> None:
    if not covers(leaf, host):
        found = ", ".join(sorted(names_of(leaf)[0])) or "no name"
        raise PermanentError(f"{name}: is for {found}, not for {host}", hint="it must name what [https] name says")


def _check_time(name: str, cert: x509.Certificate, now: datetime) -> None:
    who = cert.subject.rfc4514_string()
    if now >= cert.not_valid_after_utc:
        raise PermanentError(f"{name}: {who} ended on {cert.not_valid_after_utc:%Y-%m-%d}", hint="install a newer one")
    if now < cert.not_valid_before_utc:
        what = f"{name}: {who} begins on {cert.not_valid_before_utc:%Y-%m-%d}; the clock says {now:%Y-%m-%d}"
        raise PermanentError(what, hint="is the gateway's clock right?")


def _check_loads(given: Given, pem: bytes) -> None:
    try:
        context_of(pem)
    except ssl.SSLError as error:
        what = f"{given.chain_name}: OpenSSL does not take it: {error.reason or error}"
        raise PermanentError(what, hint="the key may be too short: 2048 bits of RSA are the least") from error


def context_of(pem: bytes) -> ssl.SSLContext:
    """What new connections are served with. Raises ssl.SSLError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # the module reads files alone; this one is private, without a name that others see, and gone at once
    with tempfile.TemporaryDirectory(prefix="sitewarden-tls-") as folder:
        path = Path(folder, "chain.pem")
        path.touch(mode=0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context
