# SPDX-License-Identifier: GPL-3.0-or-later
"""EndpointSlices.

Source: Kubernetes' pkg/apis/discovery/validation.
"""

import ipaddress
from collections.abc import Iterable
from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_list, column, created, name_of, some
from turtles.standalone.apiserver.builtin.fields import IMMUTABLE, set_missing
from turtles.standalone.apiserver.builtin.network_rules import IP, application_causes, protocol_causes, special_causes
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import label_causes, subdomain_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, duplicate, invalid_value, not_supported, required

_TYPES = ["FQDN", "IPv4", "IPv6"]


class EndpointSlices(Strategy):
    """EndpointSlices."""

    columns = (
        NAME,
        column("AddressType", "@discovery.v1.EndpointSlice.addressType"),
        column("Ports", "@discovery.v1.EndpointSlice.ports"),
        column("Endpoints", "@discovery.v1.EndpointSlice.endpoints"),
        AGE,
    )

    def cells(self, obj: Object) -> list[Any]:
        ports = [str(port.get("port") or port.get("name") or "*") for port in as_list(obj.get("ports"))]
        addresses = [one for endpoint in as_list(obj.get("endpoints")) for one in as_list(endpoint.get("addresses"))]
        shown = [some(ports) or "<unset>", some(addresses) or "<unset>"]
        return [name_of(obj), obj.get("addressType", ""), *shown, created(obj)]

    def default(self, obj: Object) -> None:
        for port in obj.get("ports") or ():
            set_missing(port, {"name": "", "protocol": "TCP"})

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        kind = obj.get("addressType") or ""
        causes: list[Cause] = []
        if not kind:
            causes.append(required("addressType"))
        elif kind not in _TYPES:
            causes.append(not_supported("addressType", kind, _TYPES))
        for index, endpoint in enumerate(obj.get("endpoints") or ()):
            causes += _endpoint(endpoint, kind, f"endpoints[{index}]")
        causes += _slice_ports(obj.get("ports") or ())
        if old is not None and kind != old.get("addressType"):
            causes.append(invalid_value("addressType", kind, IMMUTABLE))
        return causes


def _endpoint(endpoint: Object, kind: str, path: str) -> list[Cause]:
    addresses = endpoint.get("addresses") or []
    causes = [] if addresses else [required(f"{path}.addresses", "must contain at least 1 address")]
    if len(addresses) > 100:
        causes.append(
            Cause("FieldValueTooMany", f"Too many: {len(addresses)}: must have at most 100 items", f"{path}.addresses")
        )
    for index, one in enumerate(addresses):
        where = f"{path}.addresses[{index}]"
        if kind == "FQDN":
            causes += subdomain_causes(one, where)
        elif kind in _TYPES:
            causes += _of_family(one, kind, where, f"{path}.addresses")
    if endpoint.get("nodeName") is not None:
        causes += subdomain_causes(endpoint["nodeName"], f"{path}.nodeName")
    if endpoint.get("hostname") is not None:
        causes += label_causes(endpoint["hostname"], f"{path}.hostname")
    return causes


def _of_family(text: str, kind: str, path: str, listed: str) -> list[Cause]:
    """Return what is wrong with an address; that it is of another family is said of the list."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [invalid_value(path, text, IP)]
    if address.version != int(kind[-1]):
        return [invalid_value(listed, text, f"must be an {kind} address")]
    return special_causes(text, path, loopback=False)


def _slice_ports(ports: Iterable[Object]) -> list[Cause]:
    causes: list[Cause] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name") or ""
        if name:
            causes += label_causes(name, f"{path}.name")
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        names.add(name)
        causes += protocol_causes(port, path) + application_causes(port, path)
    return causes
