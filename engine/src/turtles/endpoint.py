# SPDX-License-Identifier: GPL-3.0-or-later
"""What the components' servers have in common: where they listen, and TLS."""

import os
import socket
import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: Clocks of machines differ.
BACKDATE = timedelta(minutes=5)
#: Lifetime of a certificate that its process makes for itself and takes along; longer than any process lives.
_OWN_LIFETIME = timedelta(days=3650)


def listen(bind: str, port: int) -> socket.socket:
    """Give a listening TCP socket.

    :param bind: an address; empty for all of the machine's, those of IPv6 included where it has them.
    :raises OSError: the address can't be listened on.
    """
    if bind:
        return socket.create_server((bind, port), family=socket.AF_INET6 if ":" in bind else socket.AF_INET)
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError:  # the kernel may have no IPv6
        return socket.create_server(("", port))


def server_context() -> ssl.SSLContext:
    """Give a server's context without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have a server's context use a certificate from the next connection on; both are PEM texts."""
    # Python reads keys from files only; this one is in memory
    with os.fdopen(os.memfd_create("certificate", os.MFD_CLOEXEC), "w") as file:
        file.write(certificate + key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")


def own_certificate(name: str) -> tuple[str, str]:
    """Make a certificate that nobody signed but itself, and its key, as PEM texts.

    It keeps what is said between the two from third parties, for clients that don't ask who the server is, such as
    kubelets' probes and Prometheus with ``insecureSkipVerify``.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + _OWN_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate_pem(certificate), key_pem(key)


def certificate_pem(certificate: x509.Certificate) -> str:
    """Give a certificate as PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Give a private key as PEM text, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
