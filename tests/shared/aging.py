# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificate authorities as they would be if they had been created earlier."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization


def aged(certificate: bytes, key: bytes, days: int) -> bytes:
    """Return an authority with the same name and key, created so many days earlier; all of it PEM."""
    authority = x509.load_pem_x509_certificates(certificate)[0]
    private: Any = serialization.load_pem_private_key(key, None)
    age = timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(authority.subject)
        .issuer_name(authority.issuer)
        .public_key(private.public_key())
        .serial_number(authority.serial_number)
        .not_valid_before(authority.not_valid_before_utc - age)
        .not_valid_after(authority.not_valid_after_utc - age)
    )
    for extension in authority.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
