# SPDX-License-Identifier: GPL-3.0-or-later
"""What addresses, names of ports and protocols must look like.

Source: Kubernetes' pkg/apis/core/validation.
"""

import ipaddress
import re
from typing import Any

from turtles.standalone.apiserver.schema.metadata import qualified_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value, not_supported

IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
PROTOCOLS = ["SCTP", "TCP", "UDP"]


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


def port_causes(number: Any, path: str) -> list[Cause]:
    """Return what is wrong with a port's number."""
    good = isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 65535
    return [] if good else [invalid_value(path, number or 0, "must be between 1 and 65535, inclusive")]


def port_name_causes(name: str, path: str) -> list[Cause]:
    """Return what is wrong with a port's name that others refer to (RFC 6335)."""
    rules = (
        (len(name) > 15, "must be no more than 15 characters"),
        (
            not re.fullmatch("[-a-z0-9]+", name),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (not re.search("[a-z]", name), "must contain at least one letter (a-z)"),
        ("--" in name, "must not contain consecutive hyphens"),
        (name.startswith("-") or name.endswith("-"), "must not begin or end with a hyphen"),
    )
    return [invalid_value(path, name, why) for is_so, why in rules if is_so]


def protocol_causes(port: Object, path: str) -> list[Cause]:
    """Return what is wrong with a port's protocol."""
    protocol = port.get("protocol")
    return [] if protocol in PROTOCOLS else [not_supported(f"{path}.protocol", protocol, PROTOCOLS)]


def application_causes(port: Object, path: str) -> list[Cause]:
    """Return what is wrong with what a port says is spoken on it."""
    return qualified_causes(f"{path}.appProtocol", port["appProtocol"]) if port.get("appProtocol") else []
