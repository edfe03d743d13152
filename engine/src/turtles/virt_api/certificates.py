# SPDX-License-Identifier: GPL-3.0-or-later
"""virt-api's own certificate authority and serving certificate, and the Secret they are kept in.

All replicas share the Secret. Whoever finds it absent or about to expire writes it anew; the loser of a race takes
the winner's. While an authority is replaced the bundle holds both, so that no client meets an unknown one.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from turtles import endpoint
from turtles.api.configuration import Rotation
from turtles.kube.client import AlreadyExists, Client, Conflict, NotFound
from turtles.kube.resources import SECRET
from turtles.virt_api.names import CERTIFICATES_SECRET

log = logging.getLogger(__name__)

_ROTATION = Rotation()
_KEYS = ("ca.crt", "ca.key", "tls.crt", "tls.key")
_Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Certificates:
    """PEM texts: the bundle clients trust (the authority in use first), its key, the serving certificate, its key."""

    bundle: str
    authority_key: str
    certificate: str
    key: str

    @classmethod
    def from_secret(cls, secret: dict[str, Any] | None) -> Certificates | None:
        """Read them from the Secret; None if something is missing or isn't base64."""
        data = (secret or {}).get("data") or {}
        try:
            values = [base64.b64decode(data[key], validate=True).decode() for key in _KEYS]
        except (KeyError, ValueError, TypeError):
            return None
        return cls(*values)

    def secret(self, namespace: str) -> dict[str, Any]:
        """Give the Secret."""
        values = (self.bundle, self.authority_key, self.certificate, self.key)
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": CERTIFICATES_SECRET, "namespace": namespace},
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in zip(_KEYS, values, strict=True)},
        }

    def usable(self, names: Iterable[str], now: datetime, rotation: Rotation = _ROTATION) -> bool:
        """Whether they are consistent, for all these names, and far enough from their end."""
        try:
            authority = x509.load_pem_x509_certificates(self.bundle.encode())[0]
            certificate = x509.load_pem_x509_certificate(self.certificate.encode())
            key = serialization.load_pem_private_key(self.key.encode(), None)
            serialization.load_pem_private_key(self.authority_key.encode(), None)
            certificate.verify_directly_issued_by(authority)
            sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, IndexError, InvalidSignature, x509.ExtensionNotFound):
            return False
        if key.public_key() != certificate.public_key():
            return False
        present = {*sans.get_values_for_type(x509.DNSName), *map(str, sans.get_values_for_type(x509.IPAddress))}
        if not present >= set(names):
            return False
        return not (_authority_is_due(authority, now, rotation) or _serving_is_due(certificate, now, rotation))

    def end(self) -> datetime | None:
        """Return when the first of authority and serving certificate ends; None if they can't be read."""
        try:
            authority = x509.load_pem_x509_certificates(self.bundle.encode())[0]
            certificate = x509.load_pem_x509_certificate(self.certificate.encode())
        except (ValueError, IndexError):
            return None
        return min(authority.not_valid_after_utc, certificate.not_valid_after_utc)


def overlap(before: Certificates, after: Certificates) -> bool:
    """Whether `after` has another authority, and who trusts its bundle trusts what `before` serves with as well."""
    try:
        serving = x509.load_pem_x509_certificate(before.certificate.encode())
        new, *old = x509.load_pem_x509_certificates(after.bundle.encode())
    except ValueError:
        return False
    return not _issued(serving, new) and any(_issued(serving, authority) for authority in old)


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def make(
    names: Iterable[str], now: datetime, before: Certificates | None = None, rotation: Rotation = _ROTATION
) -> Certificates:
    """Make new certificates for names and addresses.

    The authority of `before` is kept while it is good for longer than a serving certificate lives; one that is
    replaced stays in the bundle until it ends.
    """
    kept = _authority_of(before, now, rotation) if before else None
    if kept is not None:
        assert before is not None
        authority, key = kept
        bundle, authority_key = before.bundle, before.authority_key
    else:
        authority, key = _new_authority(now, rotation)
        bundle, authority_key = endpoint.certificate_pem(authority), endpoint.key_pem(key)
        bundle += "".join(endpoint.certificate_pem(old) for old in _living(before, now))
    serving_key = ec.generate_private_key(ec.SECP256R1())
    serving = (
        x509.CertificateBuilder()
        .subject_name(_name("virt-api"))
        .issuer_name(authority.subject)
        .public_key(serving_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - endpoint.BACKDATE)
        .not_valid_after(now + rotation.serving)
        .add_extension(x509.SubjectAlternativeName([_san(name) for name in sorted(set(names))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificates(bundle, authority_key, endpoint.certificate_pem(serving), endpoint.key_pem(serving_key))


def ensure(
    client: Client,
    namespace: str,
    names: Iterable[str],
    now: datetime | None = None,
    rotation: Rotation = _ROTATION,
    expired: Callable[[dict[str, Any], datetime], None] = lambda secret, end: None,
) -> Certificates:
    """Give usable certificates: those of the Secret, or new ones, which are then in the Secret.

    `expired` is called with the Secret, and when its certificates had ended, if they were replaced too late.
    Raises ApiError where the Secret can't be read or written.
    """
    wanted = sorted(set(names))
    while True:
        moment = now or datetime.now(UTC)
        try:
            secret = client.get(SECRET, namespace, CERTIFICATES_SECRET)
        except NotFound:
            secret = None
        found = Certificates.from_secret(secret)
        if found is not None and found.usable(wanted, moment, rotation):
            return found
        fresh = make(wanted, moment, found, rotation)
        # Somebody else may be quicker; then what they wrote counts
        with contextlib.suppress(AlreadyExists, Conflict, NotFound):
            if secret is None:
                client.create(SECRET, fresh.secret(namespace))
            else:
                client.replace(SECRET, {**secret, "data": fresh.secret(namespace)["data"]})
            log.info("made a serving certificate", extra={"namespace": namespace, "object": CERTIFICATES_SECRET})
            if secret is not None and found is not None and (end := found.end()) is not None and end < moment:
                expired(secret, end)
            return fresh


def load(context: ssl.SSLContext, certificates: Certificates) -> None:
    """Have a server's TLS context use the certificate from the next connection on."""
    endpoint.load(context, certificates.certificate, certificates.key)


def _is_due(certificate: x509.Certificate, now: datetime, lifetime: timedelta, rest: timedelta) -> bool:
    """Whether a certificate is to be replaced. One that lives longer than it should by now ends when it should."""
    begin = certificate.not_valid_before_utc
    end = min(certificate.not_valid_after_utc, begin + endpoint.BACKDATE + lifetime)
    return now > end - rest or now < begin


def _authority_is_due(authority: x509.Certificate, now: datetime, rotation: Rotation) -> bool:
    return _is_due(authority, now, rotation.authority, rotation.authority_rest)


def _serving_is_due(certificate: x509.Certificate, now: datetime, rotation: Rotation) -> bool:
    return _is_due(certificate, now, rotation.serving, rotation.serving_rest)


def _authority_of(
    certificates: Certificates, now: datetime, rotation: Rotation
) -> tuple[x509.Certificate, _Key] | None:
    """Give the authority and its key if it outlives a serving certificate of now."""
    try:
        authority = x509.load_pem_x509_certificates(certificates.bundle.encode())[0]
        key = serialization.load_pem_private_key(certificates.authority_key.encode(), None)
    except (ValueError, TypeError, IndexError):
        return None
    if not isinstance(key, _Key) or key.public_key() != authority.public_key():
        return None
    if _authority_is_due(authority, now, rotation) or authority.not_valid_after_utc < now + rotation.serving:
        return None
    return authority, key


def _living(certificates: Certificates | None, now: datetime) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(certificates.bundle.encode()) if certificates else []
    except ValueError:
        return []
    return [certificate for certificate in found if certificate.not_valid_after_utc > now]


def _new_authority(now: datetime, rotation: Rotation = _ROTATION) -> tuple[x509.Certificate, _Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    # The serial number tells an authority from the one it replaces, which may be in the same bundle
    serial = x509.random_serial_number()
    name = _name(f"kubevirt-virt-api-ca-{serial:x}"[:40])
    authority = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - endpoint.BACKDATE)
        .not_valid_after(now + rotation.authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return authority, key


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
