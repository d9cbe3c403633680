"""The local CA as a configuration profile of iPhone and iPad."""

from __future__ import annotations

import plistlib
import uuid

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding


def mobile_config(cert: x509.Certificate, name: str, name_en: str) -> bytes:
    """Stays the same for the same certificate: installed again, it replaces itself. Args: names of the site."""
    print_ = cert.fingerprint(hashes.SHA256())
    inner, outer = (str(uuid.UUID(bytes=print_[start : start + 16], version=4)) for start in (0, 16))
    identifier = f"sitewarden.ca.{print_[:8].hex()}"
    title = f"Sitewarden {name} {name_en}".strip()
    payload = {
        "PayloadType": "com.apple.security.root",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{identifier}.root",
        "PayloadUUID": inner,
        "PayloadDisplayName": title,
        "PayloadCertificateFileName": "sitewarden-ca.crt",
        "PayloadContent": cert.public_bytes(Encoding.DER),
    }
    return plistlib.dumps(
        {
            "PayloadType": "Configuration",
            "PayloadVersion": 1,
            "PayloadIdentifier": identifier,
            "PayloadUUID": outer,
            "PayloadDisplayName": title,
            "PayloadContent": [payload],
        }
    )
