# SPDX-License-Identifier: GPL-3.0-or-later
"""What addresses, names of ports, Endpoints and EndpointSlices must look like.

Source: Kubernetes' pkg/apis/core/validation and pkg/apis/discovery/validation.
"""

import ipaddress
import re
from collections.abc import Iterable

from turtles.standalone.apiserver.schema.metadata import label_causes, qualified_causes, subdomain_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, duplicate, invalid_value, not_supported, required

PORT_RANGE = "must be between 1 and 65535, inclusive"
IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
PROTOCOLS = ["SCTP", "TCP", "UDP"]
_TYPES = ["FQDN", "IPv4", "IPv6"]


def special_causes(text: str, path: str, loopback: bool = True) -> list[Cause]:
    """Return what is wrong with an address of something elsewhere.

    :param loopback: whether addresses of this machine are refused.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [invalid_value(path, text, IP)]
    for is_so, why in (
        (address.is_unspecified, "may not be unspecified (0.0.0.0 or ::)"),
        (address.is_loopback and loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (address.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
    ):
        if is_so:
            return [invalid_value(path, text, why)]
    return []


def port_name_causes(name: str, path: str) -> list[Cause]:
    """Return what is wrong with a port's name that others refer to (RFC 6335)."""
    rules = (
        (len(name) > 15, "must be no more than 15 characters"),
        (not re.fullmatch("[-a-z0-9]+", name),
         "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
        (not re.search("[a-z]", name), "must contain at least one letter (a-z)"),
        ("--" in name, "must not contain consecutive hyphens"),
        (name.startswith("-") or name.endswith("-"), "must not begin or end with a hyphen"),
    )  # fmt: skip
    return [invalid_value(path, name, why) for is_so, why in rules if is_so]


def _protocol(port: Object, path: str) -> list[Cause]:
    protocol = port.get("protocol")
    return [] if protocol in PROTOCOLS else [not_supported(f"{path}.protocol", protocol, PROTOCOLS)]


def _application(port: Object, path: str) -> list[Cause]:
    return qualified_causes(f"{path}.appProtocol", port["appProtocol"]) if port.get("appProtocol") else []


# -- Endpoints


def validate_endpoints(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with Endpoints."""
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
    number = port.get("port") or 0
    if not 1 <= number <= 65535:
        causes.append(invalid_value(f"{path}.port", number, PORT_RANGE))
    return causes + _protocol(port, path) + _application(port, path)


# -- EndpointSlices


def validate_slice(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with an EndpointSlice."""
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
        causes.append(invalid_value("addressType", kind, "field is immutable"))
    return causes


def _endpoint(endpoint: Object, kind: str, path: str) -> list[Cause]:
    addresses = endpoint.get("addresses") or []
    causes = [] if addresses else [required(f"{path}.addresses", "must contain at least 1 address")]
    if len(addresses) > 100:
        causes.append(Cause("FieldValueTooMany", f"Too many: {len(addresses)}: must have at most 100 items",
                            f"{path}.addresses"))  # fmt: skip
    for index, one in enumerate(addresses):
        where = f"{path}.addresses[{index}]"
        if kind == "FQDN":
            causes += subdomain_causes(one, where)
        elif kind in _TYPES:
            causes += _of_family(one, kind, where)
    if endpoint.get("nodeName") is not None:
        causes += subdomain_causes(endpoint["nodeName"], f"{path}.nodeName")
    if endpoint.get("hostname") is not None:
        causes += label_causes(endpoint["hostname"], f"{path}.hostname")
    return causes


def _of_family(text: str, kind: str, path: str) -> list[Cause]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != int(kind[-1]):
        return [invalid_value(path, text, f"must be a valid {kind} address")]
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
        causes += _protocol(port, path) + _application(port, path)
    return causes
