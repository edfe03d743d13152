# SPDX-License-Identifier: GPL-3.0-or-later
"""Endpoints.

Source: Kubernetes' pkg/apis/core/validation.
"""

from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_list, column, created, name_of, some
from turtles.standalone.apiserver.builtin.network_rules import (
    application_causes,
    port_causes,
    protocol_causes,
    special_causes,
)
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import label_causes, subdomain_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, required


class Endpoints(Strategy):
    """Endpoints."""

    columns = (NAME, column("Endpoints", "@core.v1.Endpoints.subsets"), AGE)

    def cells(self, obj: Object) -> list[Any]:
        shown: list[str] = []
        for subset in as_list(obj.get("subsets")):
            addresses = [str(one.get("ip")) for one in as_list(subset.get("addresses"))]
            ports = as_list(subset.get("ports"))
            hosts = [f"[{one}]" if ":" in one else one for one in addresses]
            shown += [f"{host}:{port.get('port')}" for port in ports for host in hosts] if ports else addresses
        return [name_of(obj), some(shown) if obj.get("subsets") else "<none>", created(obj)]

    def default(self, obj: Object) -> None:
        for subset in obj.get("subsets") or ():
            for port in subset.get("ports") or ():
                port.setdefault("protocol", "TCP")

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        causes: list[Cause] = []
        for index, subset in enumerate(obj.get("subsets") or ()):
            path = f"subsets[{index}]"
            if not subset.get("addresses") and not subset.get("notReadyAddresses"):
                causes.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
            for field in ("addresses", "notReadyAddresses"):
                for number, one in enumerate(subset.get(field) or ()):
                    causes += _address(one, f"{path}.{field}[{number}]")
            ports = subset.get("ports") or ()
            for number, port in enumerate(ports):
                causes += _port(port, f"{path}.ports[{number}]", len(ports) > 1)
        return causes


def _address(address: Object, path: str) -> list[Cause]:
    # Loopback addresses are refused by Kubernetes; here the API server itself has one.
    causes = special_causes(address.get("ip") or "", f"{path}.ip", loopback=False)
    if address.get("hostname"):
        causes += label_causes(address["hostname"], f"{path}.hostname")
    if address.get("nodeName") is not None:
        causes += subdomain_causes(address["nodeName"], f"{path}.nodeName")
    return causes


def _port(port: Object, path: str, named: bool) -> list[Cause]:
    causes: list[Cause] = []
    if port.get("name"):
        causes += label_causes(port["name"], f"{path}.name")
    elif named:
        causes.append(required(f"{path}.name"))
    causes += port_causes(port.get("port"), f"{path}.port")
    return causes + protocol_causes(port, path) + application_causes(port, path)
