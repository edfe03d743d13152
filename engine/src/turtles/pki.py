# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificate authorities and the certificates that they issue (RFC 5280), with keys on the curve P-256."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey

#: How long before its creation a certificate becomes valid: clocks of machines differ.
BACKDATE = timedelta(minutes=5)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def certificate_pem(self) -> str:
        """The certificate as PEM text."""
        return certificate_pem(self.certificate)

    @property
    def key_pem(self) -> str:
        """The key as PEM text, unencrypted."""
        return key_pem(self.key)


def new_key() -> Key:
    """Generate a private key."""
    return ec.generate_private_key(ec.SECP256R1())


def authority(common_name: str, now: datetime, lifetime: timedelta, serial: int | None = None) -> Pair:
    """Create a self-signed certificate authority, which can't sign further authorities.

    :param serial: serial number; a random one if not given.
    """
    key = new_key()
    name = _name(common_name)
    builder = _builder(name, name, key, now, lifetime, serial).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return Pair(builder.add_extension(_key_usage(ca=True), critical=True).sign(key, hashes.SHA256()), key)


def issue(
    issuer: Pair | None,
    common_name: str,
    names: Iterable[str],
    now: datetime,
    lifetime: timedelta,
    client: bool = False,
    server: bool | None = None,
) -> Pair:
    """Issue a certificate.

    :param issuer: authority that signs it; without one it is self-signed.
    :param names: DNS names and addresses for the subject alternative names.
    :param client: for a client.
    :param server: for a server; if not given, one that isn't for a client is.
    """
    key = new_key()
    subject = _name(common_name)
    issuer_key = issuer.key if issuer else key
    builder = _builder(subject, issuer.certificate.subject if issuer else subject, key, now, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(ca=False), critical=True)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH] if client else []
    if server if server is not None else not client:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    if alternatives := general_names(names):
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return Pair(builder.sign(issuer_key, hashes.SHA256()), key)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Say whether an authority signed a certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    """Return DNS names and addresses as names of certificates."""
    result: list[x509.GeneralName] = []
    for name in names:
        try:
            result.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            result.append(x509.DNSName(name))
    return result


def covers(certificate: x509.Certificate, names: Iterable[str]) -> bool:
    """Say whether a certificate's subject alternative names contain all of these."""
    try:
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return not list(names)
    except ValueError:
        return False
    return set(general_names(names)) <= set(present)


def load_key(pem: bytes) -> Key:
    """Return the key in a PEM text.

    :raises ValueError: it isn't an unencrypted key on an elliptic curve.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError as error:
        raise ValueError("the key is encrypted") from error
    if not isinstance(key, Key):
        raise ValueError("not a key on an elliptic curve")
    return key


def certificate_pem(certificate: x509.Certificate) -> str:
    """Return a certificate as PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: Key) -> str:
    """Return a private key as PEM text, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, now: datetime, lifetime: timedelta, serial: int | None = None
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
