# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a Service's backends listen, as its Endpoints object says it."""

import socket
from typing import NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult

from turtles.standalone.apiserver.store import Key, Store


class Endpoint(NamedTuple):
    """An address and a port."""

    address: str
    port: int


def resolve(store: Store, namespace: str, name: str, port: int) -> Endpoint | None:
    """Return a backend of a Service, None when there is none.

    :param port: the Service's port. It picks the backend's port of the same name where the Service exists and has
        several; otherwise the Endpoints' first port is taken.
    """
    entry = store.get(Key("/endpoints", namespace, name))
    if entry is None:
        return None
    wanted = ""
    service = store.get(Key("/services", namespace, name))
    if service is not None:
        for one in (service.object().get("spec") or {}).get("ports") or ():
            if one.get("port") == port:
                wanted = one.get("name", "")
    for subset in entry.object().get("subsets") or ():
        ports = subset.get("ports") or ()
        found = [one["port"] for one in ports if one.get("name", "") == wanted] or [one["port"] for one in ports]
        addresses = subset.get("addresses") or ()
        if found and addresses:
            return Endpoint(addresses[0]["ip"], found[0])
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
                hostname=host, host=address, port=self._endpoint.port, family=kind, proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing to close."""
