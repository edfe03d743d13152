# SPDX-License-Identifier: GPL-3.0-or-later
"""virt-api's own certificate authority and serving certificate, and the Secret they are kept in.

All replicas share the Secret. The first one to find it missing or about to expire replaces it; the loser of a race
uses the winner's. While an authority is being replaced the bundle holds both, so that clients know either.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from turtles import endpoint, pki
from turtles.api.configuration import Rotation
from turtles.kube.client import AlreadyExists, Client, Conflict, NotFound
from turtles.kube.resources import SECRET
from turtles.virt_api.names import CERTIFICATES_SECRET

log = logging.getLogger(__name__)

_ROTATION = Rotation()
_KEYS = ("ca.crt", "ca.key", "tls.crt", "tls.key")


@dataclass(frozen=True)
class Certificates:
    """PEM texts: the bundle clients trust (the authority in use first), its key, the serving certificate, its key."""

    bundle: str
    authority_key: str
    certificate: str
    key: str

    @classmethod
    def from_secret(cls, secret: dict[str, Any] | None) -> Certificates | None:
        """Read them from the Secret; None if something is missing or not base64."""
        data = (secret or {}).get("data") or {}
        try:
            values = [base64.b64decode(data[key], validate=True).decode() for key in _KEYS]
        except (KeyError, ValueError, TypeError):
            return None
        return cls(*values)

    def secret(self, namespace: str) -> dict[str, Any]:
        """Return the Secret."""
        values = (self.bundle, self.authority_key, self.certificate, self.key)
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": CERTIFICATES_SECRET, "namespace": namespace},
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in zip(_KEYS, values, strict=True)},
        }

    def usable(self, names: Iterable[str], now: datetime, rotation: Rotation = _ROTATION) -> bool:
        """Say whether they are consistent, cover all these names, and don't expire soon."""
        try:
            authority = x509.load_pem_x509_certificates(self.bundle.encode())[0]
            certificate = x509.load_pem_x509_certificate(self.certificate.encode())
            key = pki.load_key(self.key.encode())
            pki.load_key(self.authority_key.encode())
        except (ValueError, IndexError):
            return False
        return (
            pki.is_issued_by(certificate, authority)
            and key.public_key() == certificate.public_key()
            and pki.covers(certificate, names)
            and not _authority_is_due(authority, now, rotation)
            and not _serving_is_due(certificate, now, rotation)
        )

    def end(self) -> datetime | None:
        """Return when authority or serving certificate expires, whichever is first; None if they can't be read."""
        try:
            authority = x509.load_pem_x509_certificates(self.bundle.encode())[0]
            certificate = x509.load_pem_x509_certificate(self.certificate.encode())
        except (ValueError, IndexError):
            return None
        return min(authority.not_valid_after_utc, certificate.not_valid_after_utc)


def overlap(before: Certificates, after: Certificates) -> bool:
    """Say whether ``after`` has another authority, and its bundle also covers the serving certificate of ``before``."""
    try:
        serving = x509.load_pem_x509_certificate(before.certificate.encode())
        new, *old = x509.load_pem_x509_certificates(after.bundle.encode())
    except ValueError:
        return False
    return not pki.is_issued_by(serving, new) and any(pki.is_issued_by(serving, authority) for authority in old)


def make(
    names: Iterable[str], now: datetime, before: Certificates | None = None, rotation: Rotation = _ROTATION
) -> Certificates:
    """Create new certificates for names and addresses.

    :param before: previous ones. Their authority is kept as long as it outlives a new serving certificate; one that is
        replaced stays in the bundle until it expires.
    """
    authority = _authority_of(before, now, rotation) if before else None
    if authority is not None:
        assert before is not None
        bundle = before.bundle
    else:
        authority = _new_authority(now, rotation)
        bundle = authority.certificate_pem + "".join(map(pki.certificate_pem, _living(before, now)))
    serving = pki.issue(authority, "virt-api", sorted(set(names)), now, rotation.serving)
    return Certificates(bundle, authority.key_pem, serving.certificate_pem, serving.key_pem)


def ensure(
    client: Client,
    namespace: str,
    names: Iterable[str],
    now: datetime | None = None,
    rotation: Rotation = _ROTATION,
    expired: Callable[[dict[str, Any], datetime], None] = lambda secret, end: None,
) -> Certificates:
    """Return usable certificates: those of the Secret, or new ones, after storing them there.

    :param expired: called with the Secret and the time its certificates expired, if they were replaced too late.
    :raises turtles.kube.client.ApiError: the Secret can't be read or written.
    """
    wanted = sorted(set(names))
    while True:
        moment = now or datetime.now(UTC)
        secret = client.find(SECRET, namespace, CERTIFICATES_SECRET)
        certificates = Certificates.from_secret(secret)
        if certificates is not None and certificates.usable(wanted, moment, rotation):
            return certificates
        fresh = make(wanted, moment, certificates, rotation)
        # Another replica may be faster; then its certificates count.
        with contextlib.suppress(AlreadyExists, Conflict, NotFound):
            if secret is None:
                client.create(SECRET, fresh.secret(namespace))
            else:
                client.replace(SECRET, {**secret, "data": fresh.secret(namespace)["data"]})
            log.info("created a serving certificate", extra={"namespace": namespace, "object": CERTIFICATES_SECRET})
            if (
                secret is not None
                and certificates is not None
                and (end := certificates.end()) is not None
                and end < moment
            ):
                expired(secret, end)
            return fresh


def load(context: ssl.SSLContext, certificates: Certificates) -> None:
    """Use the serving certificate from the next connection on."""
    endpoint.load(context, certificates.certificate, certificates.key)


def _is_due(certificate: x509.Certificate, now: datetime, lifetime: timedelta, rest: timedelta) -> bool:
    """Say whether to replace a certificate. The lifetime configured now also applies to one issued for longer."""
    begin = certificate.not_valid_before_utc
    end = min(certificate.not_valid_after_utc, begin + pki.BACKDATE + lifetime)
    return now > end - rest or now < begin


def _authority_is_due(authority: x509.Certificate, now: datetime, rotation: Rotation) -> bool:
    return _is_due(authority, now, rotation.authority, rotation.authority_rest)


def _serving_is_due(certificate: x509.Certificate, now: datetime, rotation: Rotation) -> bool:
    return _is_due(certificate, now, rotation.serving, rotation.serving_rest)


def _authority_of(certificates: Certificates, now: datetime, rotation: Rotation) -> pki.Pair | None:
    """Return the authority and its key if it outlives a serving certificate issued now."""
    try:
        authority = x509.load_pem_x509_certificates(certificates.bundle.encode())[0]
        key = pki.load_key(certificates.authority_key.encode())
    except (ValueError, IndexError):
        return None
    if key.public_key() != authority.public_key():
        return None
    if _authority_is_due(authority, now, rotation) or authority.not_valid_after_utc < now + rotation.serving:
        return None
    return pki.Pair(authority, key)


def _living(certificates: Certificates | None, now: datetime) -> list[x509.Certificate]:
    try:
        authorities = x509.load_pem_x509_certificates(certificates.bundle.encode()) if certificates else []
    except ValueError:
        return []
    return [certificate for certificate in authorities if certificate.not_valid_after_utc > now]


def _new_authority(now: datetime, rotation: Rotation = _ROTATION) -> pki.Pair:
    # The serial number tells an authority from the one it replaces, which may be in the same bundle.
    serial = x509.random_serial_number()
    return pki.authority(f"kubevirt-virt-api-ca-{serial:x}"[:40], now, rotation.authority, serial)
