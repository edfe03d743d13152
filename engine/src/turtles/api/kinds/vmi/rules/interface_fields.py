# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about the fields of one interface: its MAC address, the ports it forwards, its DHCP options."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Sequence

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import PORT_RANGES
from turtles.api.language import DUPLICATE, INVALID, REQUIRED, Cause
from turtles.api.rules import Causes, Spec

_PORT_NAME = re.compile(r"[a-z0-9-]*[a-z][a-z0-9-]*")
#: An address of 6, 8 or 20 bytes, in pairs or in fours, as Go's net.ParseMAC reads it.
_MAC = re.compile(
    r"[0-9A-Fa-f]{2}(?:(:[0-9A-Fa-f]{2}){5}|(-[0-9A-Fa-f]{2}){5}|(:[0-9A-Fa-f]{2}){7}|(-[0-9A-Fa-f]{2}){7}"
    r"|(:[0-9A-Fa-f]{2}){19}|(-[0-9A-Fa-f]{2}){19})"
    r"|[0-9A-Fa-f]{4}((\.[0-9A-Fa-f]{4}){2}|(\.[0-9A-Fa-f]{4}){3}|(\.[0-9A-Fa-f]{4}){9})"
)
_MAC_DIGITS = 12
_RESERVED_MAC = "02:00:00:00:00:00"
_PROTOCOLS = ("TCP", "UDP")
_PRIVATE_OPTIONS = range(224, 255)


def is_reserved_mac(mac: str | None) -> bool:
    """Tell whether a MAC address is the one of the bridge in the Pod."""
    return mac_digits(mac or "") == mac_digits(_RESERVED_MAC)


def mac_digits(mac: str) -> str:
    """Return a MAC address' hexadecimal digits."""
    return re.sub(r"[:.-]", "", mac)


def mac_causes(mac: str | None, here: str) -> Causes:
    """Yield what is wrong with an interface's MAC address."""
    if not mac:
        return
    field, digits = f"{here}.macAddress", mac_digits(mac)
    if not _MAC.fullmatch(mac):
        yield Cause(INVALID, f"interface {here}.name has malformed MAC address ({mac}).", field)
    elif len(digits) > _MAC_DIGITS:
        yield Cause(INVALID, f"interface {here}.name has too long MAC address ({mac}).", field)


def port_causes(interface: Spec, here: str, config: ClusterConfiguration) -> Causes:
    """Yield what is wrong with the ports that an interface on the Pod network forwards."""
    ports, ranges = interface.get("ports") or None, interface.get("portRanges") or None
    if ranges is not None and not config.has_gate(PORT_RANGES):
        message = f"portRanges is specified on interface but the {PORT_RANGES} feature gate is not enabled"
        yield Cause(INVALID, message, f"{here}.name")
        ranges = None
    if ports is not None and ranges is not None:
        yield Cause(INVALID, "Cannot define both ports and portRanges on interface", f"{here}.name")
    yield from _ports(ports or (), here)
    if ranges is None:
        return
    if interface.get("masquerade") is None:
        yield Cause(INVALID, "portRanges are only supported on masquerade interfaces", f"{here}.name")
    yield from _port_ranges(ranges, f"{here}.portRanges")


def _ports(ports: Sequence[Spec], here: str) -> Causes:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.get("name")
        if not name:
            continue
        field = f"{here}.ports[{index}].name"
        if name in seen:
            yield Cause(DUPLICATE, f"Duplicate name of the port: {name}", field)
        if not _is_port_name(name):
            yield Cause(INVALID, f"Invalid name of the port: {name}", field)
        seen.add(name)
    for index, port in enumerate(ports):
        field = f"{here}.ports[{index}]"
        if port["port"] == 0:
            yield Cause(REQUIRED, "Port field is mandatory.", f"{field}.port")
        elif not 0 < port["port"] < 65536:
            yield Cause(INVALID, "Port field must be in range 0 < x < 65536.", f"{field}.port")
        if port.get("protocol") and port["protocol"] not in _PROTOCOLS:
            yield Cause(INVALID, "Unknown protocol, only TCP or UDP allowed", f"{field}.protocol")


def _is_port_name(name: str) -> bool:
    """Say whether it is an IANA_SVC_NAME (RFC 6335)."""
    return len(name) <= 15 and bool(_PORT_NAME.fullmatch(name)) and "--" not in name and "-" not in (name[0], name[-1])


def _port_ranges(ranges: Sequence[Spec], here: str) -> Causes:
    by_protocol: dict[str, list[tuple[int, int]]] = {}
    for index, each in enumerate(ranges):
        field, start, end = f"{here}[{index}]", each["start"], each["end"]
        protocol = each.get("protocol") or "TCP"
        if protocol not in _PROTOCOLS:
            yield Cause(INVALID, "Unknown protocol, only TCP or UDP allowed", f"{field}.protocol")
        if not 0 < start < 65536:
            yield Cause(INVALID, "Start must be a valid port number, 0 < x < 65536", f"{field}.start")
        if not 0 < end < 65536:
            yield Cause(INVALID, "End must be a valid port number, 0 < x < 65536", f"{field}.end")
        if start > end:
            yield Cause(INVALID, "Start must be less than or equal to end", f"{field}.start")
        by_protocol.setdefault(protocol, []).append((start, end))
    for protocol, intervals in by_protocol.items():
        for index, (start, end) in enumerate(intervals):
            for other_start, other_end in intervals[index + 1 :]:
                if start <= other_end and other_start <= end:
                    message = f"{protocol} portRanges [{start}-{end}] and [{other_start}-{other_end}] overlap"
                    yield Cause(INVALID, message, here)


def dhcp_causes(options: Spec, path: str, here: str) -> Causes:
    """Yield what is wrong with an interface's DHCP options."""
    numbers = Counter(option["option"] for option in options.get("privateOptions") or ())
    if any(count > 1 for count in numbers.values()):
        yield Cause(INVALID, "Found Duplicates: you have provided duplicate DHCPPrivateOptions", path)
    for number in numbers.elements():
        if number not in _PRIVATE_OPTIONS:
            message = "provided DHCPPrivateOptions are out of range, must be in range 224 to 254"
            yield Cause(INVALID, message, path)
    for index, server in enumerate(options.get("ntpServers") or ()):
        if not _is_ipv4(server):
            message = "NTP servers must be a list of valid IPv4 addresses."
            yield Cause(INVALID, message, f"{here}.dhcpOptions.ntpServers[{index}]")


def _is_ipv4(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return isinstance(address, ipaddress.IPv4Address) or address.ipv4_mapped is not None


def impossible_mac_causes(mac: str, here: str) -> Causes:
    """Yield why no interface can have a MAC address."""
    field, digits = f"{here}.macAddress", mac_digits(mac)
    if not _MAC.fullmatch(mac) or len(digits) > _MAC_DIGITS:
        return
    if int(digits[:2], 16) & 1:
        yield Cause(INVALID, f"interface {here}.name has MAC address ({mac}) that is a multicast address.", field)
    elif not int(digits, 16):
        yield Cause(INVALID, f"interface {here}.name has MAC address ({mac}) that no interface can have.", field)


def impossible_dhcp_causes(options: Spec, here: str) -> Causes:
    """Yield which DHCP options don't fit into an answer."""
    for name in ("bootFileName", "tftpServerName"):
        yield from _option_text(options.get(name), f"{here}.{name}")
    for index, option in enumerate(options.get("privateOptions") or ()):
        yield from _option_text(option["value"], f"{here}.privateOptions[{index}].value")


def _option_text(text: str | None, here: str) -> Causes:
    """The length of an option is one octet (RFC 2132)."""
    if text and len(text.encode(errors="surrogatepass")) > 255:
        yield Cause(INVALID, f"{here} must be less than or equal to 255 in length, if specified", here)
