# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses, listening sockets and TLS of the components' servers."""

import os
import socket
import ssl
from datetime import UTC, datetime, timedelta

from turtles import pki

#: Lifetime of a process's own certificate, which exists only in its memory: longer than any process lives.
_OWN_LIFETIME = timedelta(days=3650)


def listen(bind: str, port: int) -> socket.socket:
    """Return a listening TCP socket.

    :param bind: an address; empty for all addresses of the machine, IPv6 included where there is any.
    :raises OSError: the address can't be listened on.
    """
    if bind:
        return socket.create_server((bind, port), family=socket.AF_INET6 if ":" in bind else socket.AF_INET)
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError:  # the kernel may have no IPv6
        return socket.create_server(("", port))


def outgoing_address() -> str:
    """Return the machine's IPv4 address that packets leave with; loopback if there is no way out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # Connecting a datagram socket sends nothing; it only chooses a route (TEST-NET-1, RFC 5737).
            sock.connect(("192.0.2.1", 9))
            return str(sock.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def server_context() -> ssl.SSLContext:
    """Return a server's TLS context, without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Use a certificate from the next connection on; certificate and key are PEM texts."""
    # Python reads keys from files only; this one is in memory.
    with os.fdopen(os.memfd_create("certificate", os.MFD_CLOEXEC), "w") as file:
        file.write(certificate + key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")


def own_certificate(name: str) -> tuple[str, str]:
    """Create a self-signed certificate and its key, as PEM texts.

    It is for clients that encrypt but don't verify the server, such as kubelets' probes and Prometheus with
    ``insecureSkipVerify``.
    """
    pair = pki.issue(None, name, [name], datetime.now(UTC), _OWN_LIFETIME)
    return pair.certificate_pem, pair.key_pem
