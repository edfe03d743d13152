# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a Service's backends listen, as its Endpoints object says it."""

import socket
from typing import NamedTuple, Protocol

from aiohttp.abc import AbstractResolver, ResolveResult

from turtles.standalone.apiserver.wire.errors import Object


class Endpoint(NamedTuple):
    """An address and a port."""

    address: str
    port: int


class Objects(Protocol):
    """What gives stored objects, such as the store."""

    def read(self, resource: str, namespace: str, name: str) -> Object | None:
        """Return an object, the caller's own; None when it doesn't exist."""


def resolve(objects: Objects, namespace: str, name: str, port: int) -> Endpoint | None:
    """Return a backend of a Service, None when there is none.

    :param port: the Service's port. It picks the backend's port of the same name where the Service exists and has
        several; otherwise the Endpoints' first port is taken.
    """
    endpoints = objects.read("/endpoints", namespace, name)
    if endpoints is None:
        return None
    wanted = ""
    service = objects.read("/services", namespace, name) or {}
    for one in (service.get("spec") or {}).get("ports") or ():
        if one.get("port") == port:
            wanted = one.get("name", "")
    for subset in endpoints.get("subsets") or ():
        ports = subset.get("ports") or ()
        numbers = [one["port"] for one in ports if one.get("name", "") == wanted] or [one["port"] for one in ports]
        addresses = subset.get("addresses") or ()
        if numbers and addresses:
            return Endpoint(addresses[0]["ip"], numbers[0])
    return None


class PinnedResolver(AbstractResolver):
    """Resolves every name to one address: a Service has no entry in the host's name service."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the address."""
        address = self._endpoint.address
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=self._endpoint.port,
                family=kind,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing to close."""
