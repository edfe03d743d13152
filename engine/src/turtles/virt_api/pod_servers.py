# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers in Pods that virt-api passes users' requests on to: those of uploads and of exports.

A Pod has the certificate that its server shows in an annotation. Whatever a request asks for, it goes to that server
only: nothing that it answers leads elsewhere.
"""

from __future__ import annotations

import ssl

import aiohttp

from turtles.api.objects import Object, get, is_deleted
from turtles.virt_api.nodes import Nodes
from turtles.virt_api.status import Failure

#: Seconds to connect, and that a transfer may take.
_CONNECT, _LONGEST = 10.0, 86400.0
#: Bytes that are passed on at once.
CHUNK = 256 << 10


def certificate_of(pod: Object, annotation: str) -> str | None:
    """Return the certificate of a Pod's server, in PEM; None while it isn't ready."""
    containers = get(pod, "status", "containerStatuses") or ()
    certificate = get(pod, "metadata", "annotations", annotation)
    is_known = certificate and get(pod, "status", "podIP")
    if is_deleted(pod) or not is_known or not any(each.get("ready") for each in containers):
        return None
    return str(certificate)


def context_of(nodes: Nodes, certificate: str, called: str) -> ssl.SSLContext:
    """Return the TLS context for a Pod's server.

    :param nodes: has the certificate that identifies virt-api. :param called: the server, in messages.
    :raises Failure: the certificate can't be read; whoever may change the Pod may have written it.
    """
    try:
        return nodes.client_context(certificate)
    except ssl.SSLError as error:
        raise Failure(503, f"{called} has an unreadable certificate; delete its Pod") from error


def url_of(pod: Object, port: int) -> str:
    """Return the address of a Pod's server."""
    address = get(pod, "status", "podIP")
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def session() -> aiohttp.ClientSession:
    """Return what makes a request that may take as long as a disk does. What is compressed stays so."""
    timeout = aiohttp.ClientTimeout(total=_LONGEST, sock_connect=_CONNECT)
    return aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
