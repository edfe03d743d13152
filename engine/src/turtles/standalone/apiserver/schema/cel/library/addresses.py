# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions on IP addresses and networks."""

from __future__ import annotations

import ipaddress
from typing import Any

from turtles.standalone.apiserver.schema.cel.library.function import (
    Function,
    Tagged,
    can,
    free,
    member,
    tagged_value,
)
from turtles.standalone.apiserver.schema.cel.library.strings import quote

IP, CIDR = "kubernetes.IP", "kubernetes.CIDR"


def _address(text: str) -> Tagged:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise ValueError(f"IP Address {quote(text)} parse error during conversion from string")
    return {"@ip": str(address)}


def _network(text: str) -> Tagged:
    if "/" not in text:
        raise ValueError(f"network address parse error during conversion from string: {quote(text)}")
    return {"@cidr": str(ipaddress.ip_interface(text))}


def _ip(value: Tagged) -> Any:
    return ipaddress.ip_address(tagged_value(value, "@ip"))


def _cidr(value: Tagged) -> Any:
    return ipaddress.ip_interface(tagged_value(value, "@cidr"))


def _holds(network: Tagged, inner: Any) -> bool:
    outer = _cidr(network).network
    if isinstance(inner, str):
        inner = _network(inner) if "/" in inner else _address(inner)
    if "@ip" in inner:
        return _ip(inner) in outer
    other = _cidr(inner).network
    return bool(other.version == outer.version and other.subnet_of(outer))


def _is_global_unicast(value: Tagged) -> bool:
    address = _ip(value)
    return not (address.is_multicast or address.is_loopback or address.is_link_local or address.is_unspecified)


FUNCTIONS: tuple[Function, ...] = (
    free("isIP", "bool", can(_address), "string"),
    free("ip", IP, _address, "string"),
    free("ip.isCanonical", "bool", lambda text: _address(text)["@ip"] == text, "string"),
    member("family", "int", lambda value: _ip(value).version, IP),
    member("isUnspecified", "bool", lambda value: _ip(value).is_unspecified, IP),
    member("isLoopback", "bool", lambda value: _ip(value).is_loopback, IP),
    member(
        "isLinkLocalMulticast", "bool", lambda value: str(_ip(value)).startswith(("224.0.0.", "ff02:", "ff12:")), IP
    ),
    member("isLinkLocalUnicast", "bool", lambda value: _ip(value).is_link_local, IP),
    member("isGlobalUnicast", "bool", _is_global_unicast, IP),
    free("isCIDR", "bool", can(_network), "string"),
    free("cidr", CIDR, _network, "string"),
    member("containsIP", "bool", _holds, CIDR, "string"),
    member("containsIP", "bool", _holds, CIDR, IP),
    member("containsCIDR", "bool", _holds, CIDR, "string"),
    member("containsCIDR", "bool", _holds, CIDR, CIDR),
    member("ip", IP, lambda value: {"@ip": str(_cidr(value).ip)}, CIDR),
    member("masked", CIDR, lambda value: {"@cidr": str(_cidr(value).network)}, CIDR),
    member("prefixLength", "int", lambda value: _cidr(value).network.prefixlen, CIDR),
)
