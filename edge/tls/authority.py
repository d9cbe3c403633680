"""The gateway's own certificate authority, and the leaf that its pages are served with.

The authority may sign for this gateway's name and addresses alone (RFC 5280 §4.2.1.10): who steals its key cannot
impersonate anything else to the phones that trust it. Pure: bytes in, bytes out; `keeper.py` knows the files.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ...errors import PermanentError
from .names import Address, Names

CA_DAYS = 3650
LEAF_DAYS = 396
"""With the backdated day 397: the most that phones accept."""
BACKDATED = timedelta(days=1)
"""Phones whose clock is behind."""
FLOOR = datetime(2026, 11, 1, tzinfo=UTC)
"""Before this nobody ran this program: a clock that says so was never set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A key with its certificates, the leaf first."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def cert(self) -> x509.Certificate:
        """Of the key."""
        return self.chain[0]

    def to_pem(self) -> bytes:
        """Key and certificates as one file."""
        return key_pem(self.key) + b"".join(cert_pem(one) for one in self.chain)


def make_authority(names: Names, label: str, now: datetime) -> Held:
    """A new root, good for these names alone.

    Args:
        names: what it may sign for.
        label: of the site, for people who look at their phone's list of certificates.

    Raises:
        PermanentError: the clock is not set.
    """
    check_clock(now)
    key = ec.generate_private_key(ec.SECP256R1())
    common = f"Sitewarden {names.host}"[:64]
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, (label or "Sitewarden")[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )
    allowed: list[x509.GeneralName] = [x509.DNSName(names.host)]
    # without any permitted address OpenSSL would take every address; documentation's network is nobody's
    addresses = names.addresses or (ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1"))
    allowed += [x509.IPAddress(ipaddress.ip_network(address)) for address in addresses]
    nothing_v6 = not any(address.version == 6 for address in addresses)
    nothing_v4 = not any(address.version == 4 for address in addresses)
    allowed += [x509.IPAddress(ipaddress.ip_network("2001:db8::1"))] if nothing_v6 else []
    allowed += [x509.IPAddress(ipaddress.ip_network("192.0.2.1"))] if nothing_v4 else []
    builder = (
        _begun(subject, subject, key.public_key(), now, now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=allowed, excluded_subtrees=None), critical=True)
    )
    return Held(key=key, chain=(builder.sign(key, hashes.SHA256()),))


def make_leaf(authority: Held, names: Names, now: datetime) -> Held:
    """A leaf with a new key, for the name and those addresses that the authority permits.

    Raises:
        PermanentError: the clock is not set or before the authority's making, or the authority has ended or is for
            another name.
    """
    check_clock(now)
    root = authority.cert
    if not root.not_valid_before_utc <= now < root.not_valid_after_utc:
        raise PermanentError(
            f"the clock says {now:%Y-%m-%d}; the local CA is good from {root.not_valid_before_utc:%Y-%m-%d}"
            f" to {root.not_valid_after_utc:%Y-%m-%d}",
            hint="set the clock; where it is right: sitewarden tls make --new-ca, then install it on the phones again",
        )
    if not permits(root, names.host):
        raise PermanentError(
            f"the local CA is not for {names.host}",
            hint="put the name in [https] back, or: sitewarden tls make --new-ca, and install it on the phones again",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(names.host)]
    alternatives += [x509.IPAddress(one) for one in names.addresses if permits_address(root, one)]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names.host[:64])])
    until = min(now + timedelta(days=LEAF_DAYS), root.not_valid_after_utc)
    builder = (
        _begun(subject, root.subject, key.public_key(), now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    return Held(key=key, chain=(builder.sign(authority.key, hashes.SHA256()), root))


def why_new_leaf(leaf: Held | None, authority: Held, names: Names, now: datetime) -> str:
    """Why another leaf is due; empty when it is not."""
    if leaf is None:
        return "there is none"
    cert = leaf.cert
    try:
        cert.verify_directly_issued_by(authority.cert)
    except (ValueError, TypeError, InvalidSignature):
        return "the local CA is another one"
    wanted = {one for one in names.addresses if permits_address(authority.cert, one)}
    if names_of(cert) != ({names.host}, wanted):
        return "name or addresses have changed"
    begun, ended = cert.not_valid_before_utc, cert.not_valid_after_utc
    if now < begun:
        return "it was made while the clock was ahead"
    return "a third of its life is left" if ended - now <= (ended - begun) / 3 else ""


def check_clock(now: datetime) -> None:
    """Raises PermanentError when the clock was never set: what is issued then is good for nobody."""
    if now < FLOOR:
        raise PermanentError(
            f"the clock is not set (it says {now:%Y-%m-%d}): no certificate is made",
            hint="set it (timedatectl), or wait for NTP; the gateway needs a clock with a battery",
        )


def names_of(cert: x509.Certificate) -> tuple[set[str], set[Address]]:
    """DNS names and addresses of a certificate."""
    try:
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set(), set()
    addresses: set[Address] = {
        one for one in found.get_values_for_type(x509.IPAddress) if not isinstance(one, _NETWORKS)
    }
    return {name.lower() for name in found.get_values_for_type(x509.DNSName)}, addresses


def permits(root: x509.Certificate, host: str) -> bool:
    """Whether the root may sign for this name."""
    return any(host == name or host.endswith(f".{name}") for name in _allowed(root)[0])


def permits_address(root: x509.Certificate, address: Address) -> bool:
    """Whether the root may sign for this address."""
    return any(address in network for network in _allowed(root)[1])


def fingerprint(cert: x509.Certificate) -> str:
    """SHA-256, as phones show it: `AB:CD:…`."""
    return cert.fingerprint(hashes.SHA256()).hex(":").upper()


def read_held(pem: bytes, where: str) -> Held:
    """What `Held.to_pem` made. Raises PermanentError naming `where`."""
    try:
        key = serialization.load_pem_private_key(pem, None)
        chain = tuple(x509.load_pem_x509_certificates(pem))
    except (ValueError, TypeError) as error:
        hint = "remove it; the gateway makes another one, and a CA must then be installed on the phones again"
        raise PermanentError(f"{where}: is damaged", hint=hint) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or chain[0].public_key() != key.public_key():
        raise PermanentError(f"{where}: key and certificate do not belong together", hint="remove it")
    return Held(key=key, chain=chain)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, without a password."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def cert_pem(cert: x509.Certificate) -> bytes:
    """As PEM."""
    return cert.public_bytes(serialization.Encoding.PEM)


_NETWORKS = (ipaddress.IPv4Network, ipaddress.IPv6Network)


def _allowed(root: x509.Certificate) -> tuple[list[str], list[ipaddress.IPv4Network | ipaddress.IPv6Network]]:
    try:
        found = root.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    except x509.ExtensionNotFound:
        return [], []
    names = [one.value for one in found if isinstance(one, x509.DNSName)]
    return names, [one.value for one in found if isinstance(one, x509.IPAddress) and isinstance(one.value, _NETWORKS)]


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
