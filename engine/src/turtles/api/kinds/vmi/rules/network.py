# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about networks, interfaces and DNS."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.language import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, subdomain_problems

_INTERFACE_NAME = re.compile(r"[A-Za-z0-9-_]+")
_PORT_NAME = re.compile(r"[a-z0-9-]*[a-z][a-z0-9-]*")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}(([:-][0-9A-Fa-f]{2}){2}|([:-][0-9A-Fa-f]{2}){14})?")
_RESERVED_MAC = "02:00:00:00:00:00"
NIC_MODELS = frozenset(("e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio"))
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None", "")


def _networks(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    networks = spec.get("networks") or ()
    interfaces = get(spec, "domain", "devices", "interfaces") or ()
    named_interfaces = {interface["name"] for interface in interfaces}
    named_networks = {network["name"] for network in networks}
    on_pod = {network["name"] for network in networks if network.get("pod") is not None}
    seen: set[str] = set()
    for index, network in enumerate(networks):
        here, name = f"{path}.networks[{index}]", network["name"]
        if network.get("pod") is None:
            yield Cause(REQUIRED, "should have a network type", here)
        else:
            yield from _guest_cidr(network["pod"].get("vmNetworkCIDR"), f"{here}.pod.vmNetworkCIDR")
        if name in seen:
            message = f'Network with name "{name}" already exists, every network must have a unique name'
            yield Cause(DUPLICATE, message, f"{here}.name")
        seen.add(name)
        if name not in named_interfaces:
            yield Cause(REQUIRED, f"{here}.name '{name}' not found.", f"{here}.name")
    if sum(network.get("pod") is not None for network in networks) > 1:
        message = f"more than one interface is connected to a pod network in {path}.interfaces"
        yield Cause(DUPLICATE, message, f"{path}.interfaces")
    seen = set()
    for index, interface in enumerate(interfaces):
        here, name = f"{path}.domain.devices.interfaces[{index}]", interface["name"]
        if name not in named_networks:
            yield Cause(INVALID, f"{here}.name '{name}' not found.", f"{here}.name")
        if name in seen:
            yield Cause(DUPLICATE, "Only one interface can be connected to one specific network", f"{here}.name")
        if interface.get("bridge") is not None and name in on_pod and not config.permit_bridge_on_pod_network:
            message = "Bridge on pod network configuration is not enabled under kubevirt-config"
            yield Cause(INVALID, message, f"{here}.name")
        seen.add(name)
        yield from _interface(interface, here)


def _guest_cidr(cidr: str | None, here: str) -> Causes:
    if not cidr:
        return
    try:
        usable = ipaddress.IPv4Network(cidr).num_addresses >= 4
    except ValueError:
        usable = False
    if not usable:
        yield Cause(INVALID, f"{here} must be an IPv4 network of at least 4 addresses, such as 10.0.2.0/24", here)


def _interface(interface: Spec, here: str) -> Causes:
    if not _INTERFACE_NAME.fullmatch(interface["name"]):
        message = (
            "Network interface name can only contain alphabetical characters, numbers, dashes (-) or underscores (_)"
        )
        yield Cause(INVALID, message, f"{here}.name")
    bindings = [name for name in ("bridge", "masquerade") if interface.get(name) is not None]
    if len(bindings) != 1:
        yield Cause(INVALID, f"{here} must have exactly one binding set: bridge or masquerade", here)
    interface_model = interface.get("model")
    if interface_model and interface_model not in NIC_MODELS:
        message = f"interface {here}.name uses model {interface_model} that is not supported."
        yield Cause(NOT_SUPPORTED, message, f"{here}.model")
    yield from _mac(interface.get("macAddress"), "masquerade" in bindings, here)
    yield from _ports(interface.get("ports") or (), here)


def _mac(mac: str | None, masquerade: bool, here: str) -> Causes:
    if not mac:
        return
    field = f"{here}.macAddress"
    if not _MAC.fullmatch(mac) or len(set(mac) & {":", "-"}) != 1:
        yield Cause(INVALID, f"interface {here}.name has malformed MAC address ({mac}).", field)
    elif len(mac) > len(_RESERVED_MAC):
        yield Cause(INVALID, f"interface {here}.name has MAC address ({mac}) that is too long.", field)
    elif int(mac[:2], 16) & 1:
        yield Cause(INVALID, f"interface {here}.name has MAC address ({mac}) that is a multicast address.", field)
    elif set(mac) <= {"0", ":", "-"}:
        message = f"interface {here}.name has MAC address ({mac}) that no interface can have."
        yield Cause(INVALID, message, field)
    elif masquerade and mac.replace("-", ":") == _RESERVED_MAC:
        message = "The requested MAC address is reserved for the in-pod bridge. Please choose another one."
        yield Cause(INVALID, message, field)


def _ports(ports: Any, here: str) -> Causes:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        field = f"{here}.ports[{index}]"
        name = port.get("name")
        if name:
            if name in seen:
                yield Cause(DUPLICATE, f"Duplicate name of the port: {name}", f"{field}.name")
            seen.add(name)
            if len(name) > 15 or not _PORT_NAME.fullmatch(name) or "--" in name or "-" in (name[0], name[-1]):
                yield Cause(INVALID, f"Invalid name of the port: {name}", f"{field}.name")
        if port["port"] == 0:
            yield Cause(REQUIRED, "Port field is mandatory.", field)
        elif not 0 < port["port"] < 65536:
            yield Cause(INVALID, "Port field must be in range 0 < x < 65536.", field)
        if port.get("protocol") and port["protocol"] not in ("TCP", "UDP"):
            yield Cause(INVALID, "Unknown protocol, only TCP or UDP allowed", f"{field}.protocol")


def _dns(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    policy, dns = spec.get("dnsPolicy") or "", spec.get("dnsConfig")
    if policy not in _DNS_POLICIES:
        message = f"DNSPolicy: {policy} is not supported, valid values: [{' '.join(_DNS_POLICIES)}]"
        yield Cause(NOT_SUPPORTED, message, f"{path}.dnsPolicy")
    if policy == "None":
        if dns is None:
            message = "must provide `dnsConfig` when `dnsPolicy` is None"
            yield Cause(REQUIRED, message, f"{path}.dnsConfig")
        elif not dns.get("nameservers"):
            yield Cause(REQUIRED, "must provide at least one DNS nameserver when `dnsPolicy` is None", "nameservers")
    if dns is None:
        return
    servers, searches = dns.get("nameservers") or (), dns.get("searches") or ()
    if len(servers) > 3:
        yield Cause(INVALID, f"must not have more than 3 nameservers: [{' '.join(servers)}]", "nameservers")
    for server in servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            yield Cause(INVALID, f"must be valid IP address: {server}", "nameservers")
    if len(searches) > 6:
        yield Cause(INVALID, "must not have more than 6 search paths", "searchDomains")
    if len(" ".join(searches)) > 256:
        message = "must not have more than 256 characters (including spaces) in the search list"
        yield Cause(INVALID, message, "searchDomains")
    for search in searches:
        for problem in subdomain_problems(search):
            yield Cause(INVALID, problem, "searchDomains")
    if any(not option.get("name") for option in dns.get("options") or ()):
        yield Cause(INVALID, "Option.Name must not be empty", "options")


RULES: tuple[Rule, ...] = (
    _networks,
    _dns,
)
