# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about networks, interfaces and DNS."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import NETWORK_DEVICES_WITH_DRA, PASST_BINDING, PORT_RANGES
from turtles.api.kinds.vmi.rules.common import PCI_ADDRESS, Rule
from turtles.api.language import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, UNSUPPORTED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, subdomain_problems

_INTERFACE_NAME = re.compile(r"[A-Za-z0-9-_]+")
_PORT_NAME = re.compile(r"[a-z0-9-]*[a-z][a-z0-9-]*")
#: An address of 6, 8 or 20 bytes, in pairs or in fours, as Go's net.ParseMAC reads it.
_MAC = re.compile(
    r"[0-9A-Fa-f]{2}(?:(:[0-9A-Fa-f]{2}){5}|(-[0-9A-Fa-f]{2}){5}|(:[0-9A-Fa-f]{2}){7}|(-[0-9A-Fa-f]{2}){7}"
    r"|(:[0-9A-Fa-f]{2}){19}|(-[0-9A-Fa-f]{2}){19})"
    r"|[0-9A-Fa-f]{4}((\.[0-9A-Fa-f]{4}){2}|(\.[0-9A-Fa-f]{4}){3}|(\.[0-9A-Fa-f]{4}){9})"
)
_MAC_DIGITS = 12
_RESERVED_MAC = "02:00:00:00:00:00"
NIC_MODELS = frozenset(("e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio"))
#: Bindings that were removed: the field, and what it was called.
_DISCONTINUED = {
    "slirp": "Slirp interface support",
    "passt": "Passt network binding",
    "macvtap": "Macvtap network binding",
}
_BINDING_METHODS = ("bridge", "masquerade", "sriov", "passtBinding")
_STATES = ("up", "down", "absent")
_PROTOCOLS = ("TCP", "UDP")
_PRIVATE_OPTIONS = range(224, 255)
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None", "")

#: QEMU's.
_MAX_ACPI_INDEX = 16 * 1024 - 1


def _interfaces(spec: Spec) -> Sequence[Spec]:
    return get(spec, "domain", "devices", "interfaces") or ()


def _networks(spec: Spec) -> Sequence[Spec]:
    return spec.get("networks") or ()


def _on_pod(network: Spec) -> bool:
    return network.get("pod") is not None


def _by_name(networks: Sequence[Spec]) -> Mapping[str, Spec]:
    return {network["name"]: network for network in networks}


def has_pod_network(spec: Spec) -> bool:
    """Say whether the machine is connected to the Pod network."""
    return any(_on_pod(network) for network in _networks(spec))


def _discontinued_bindings(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, interface in enumerate(_interfaces(spec)):
        for binding, name in _DISCONTINUED.items():
            if interface.get(binding) is not None:
                here = f"{path}.domain.devices.interfaces[{index}].{binding}"
                yield Cause(INVALID, f"{name} has been discontinued since v1.3", here)


# --- networks --------------------------------------------------------------------------------------------------------


def _resource_claims(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    here = f"{path}.networks"
    if not any(network.get("resourceClaim") is not None for network in _networks(spec)):
        return
    if not config.has_gate(NETWORK_DEVICES_WITH_DRA):
        gate = NETWORK_DEVICES_WITH_DRA
        message = f"vmi.spec.networks contains DRA networks but {gate} feature gate is not enabled"
        yield Cause(INVALID, message, here)
    else:
        yield Cause(NOT_SUPPORTED, f"{here}: a network by resourceClaim is {UNSUPPORTED}", here)


def _default_network(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    networks = _networks(spec)
    on_pod = sum(_on_pod(network) for network in networks)
    instead = sum(bool(get(network, "multus", "default")) for network in networks)
    if on_pod > 1:
        message = f"more than one interface is connected to a pod network in {path}.interfaces"
        yield Cause(DUPLICATE, message, f"{path}.interfaces")
    if instead > 1:
        yield Cause(INVALID, "Multus CNI should only have one default network", f"{path}.networks")
    if on_pod and instead:
        message = "Pod network cannot be defined when Multus default network is defined"
        yield Cause(INVALID, message, f"{path}.networks")


def _network_types(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, network in enumerate(_networks(spec)):
        here = f"{path}.networks[{index}]"
        types = sum(network.get(kind) is not None for kind in ("pod", "multus", "resourceClaim"))
        if types == 0:
            yield Cause(REQUIRED, "should have a network type", here)
        elif types > 1:
            yield Cause(REQUIRED, "should have only one network type", here)


def _network_names(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, network in enumerate(_networks(spec)):
        if network.get("multus") is not None and not network["multus"]["networkName"]:
            yield Cause(REQUIRED, "CNI delegating plugin must have a networkName", f"{path}.networks[{index}]")
            return


# --- interfaces ------------------------------------------------------------------------------------------------------


def _states(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    networks = _networks(spec)
    default = next((net["name"] for net in networks if _on_pod(net) or get(net, "multus", "default")), None)
    for index, interface in enumerate(_interfaces(spec)):
        here, name = f"{path}.domain.devices.interfaces[{index}].state", interface["name"]
        state = interface.get("state") or ""
        says = f'"{name}" interface\'s state "{state}"'
        if state and state not in _STATES:
            yield Cause(INVALID, f"logical {name} interface state value is unsupported: {state}", here)
        if interface.get("sriov") is not None and state in ("up", "down"):
            yield Cause(INVALID, f"{says} is not supported for SR-IOV NICs", here)
        if state == "absent" and interface.get("bridge") is None:
            yield Cause(INVALID, f"{says} is supported only for bridge binding", here)
        if state == "absent" and name == default:
            yield Cause(INVALID, f"{says} is not supported on default networks", here)


def _bindings(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    networks = _by_name(_networks(spec))
    for index, interface in enumerate(_interfaces(spec)):
        here, name = f"{path}.domain.devices.interfaces[{index}]", interface["name"]
        on_pod = _on_pod(networks.get(name, {}))
        methods = [method for method in (*_BINDING_METHODS, "binding") if interface.get(method) is not None]
        if len(methods) != 1:
            message = f"logical {name} interface must have exactly one binding method or binding plugin"
            yield Cause(INVALID, message, here)
        if "masquerade" in methods and not on_pod:
            yield Cause(INVALID, "Masquerade interface only implemented with pod network", f"{here}.name")
        if "masquerade" in methods and _is_reserved(interface.get("macAddress")):
            message = "The requested MAC address is reserved for the in-pod bridge. Please choose another one."
            yield Cause(INVALID, message, f"{here}.macAddress")
        if "bridge" in methods and on_pod and not config.permit_bridge_on_pod_network:
            message = "Bridge on pod network configuration is not enabled under kubevirt-config"
            yield Cause(INVALID, message, f"{here}.name")
        if "passtBinding" in methods and not config.has_gate(PASST_BINDING):
            yield Cause(INVALID, f"{PASST_BINDING} feature gate is not enabled", f"{here}.name")
        if "passtBinding" in methods and not on_pod:
            message = f"{PASST_BINDING} interface only implemented with pod network"
            yield Cause(INVALID, message, f"{here}.name")


def _unique_networks(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    seen: set[str] = set()
    for index, network in enumerate(_networks(spec)):
        name = network["name"]
        if name in seen:
            message = f'Network with name "{name}" already exists, every network must have a unique name'
            yield Cause(DUPLICATE, message, f"{path}.networks[{index}].name")
        seen.add(name)


def _networks_have_interfaces(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    names = {interface["name"] for interface in _interfaces(spec)}
    for index, network in enumerate(_networks(spec)):
        if network["name"] not in names:
            here = f"{path}.networks[{index}].name"
            yield Cause(REQUIRED, f"{here} '{network['name']}' not found.", here)


def _unique_interfaces(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    seen: set[str] = set()
    for index, interface in enumerate(_interfaces(spec)):
        if interface["name"] in seen:
            here = f"{path}.domain.devices.interfaces[{index}].name"
            yield Cause(DUPLICATE, "Only one interface can be connected to one specific network", here)
        seen.add(interface["name"])


def _interfaces_have_networks(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    names = {network["name"] for network in _networks(spec)}
    for index, interface in enumerate(_interfaces(spec)):
        if interface["name"] not in names:
            here = f"{path}.domain.devices.interfaces[{index}].name"
            yield Cause(INVALID, f"{here} '{interface['name']}' not found.", here)


def _fields(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    networks = _by_name(_networks(spec))
    for index, interface in enumerate(_interfaces(spec)):
        here = f"{path}.domain.devices.interfaces[{index}]"
        if not _INTERFACE_NAME.fullmatch(interface["name"]):
            message = (
                "Network interface name can only contain alphabetical characters, numbers, dashes (-) or "
                "underscores (_)"
            )
            yield Cause(INVALID, message, f"{here}.name")
        model = interface.get("model")
        if model and model not in NIC_MODELS:
            message = f"interface {here}.name uses model {model} that is not supported."
            yield Cause(NOT_SUPPORTED, message, f"{here}.model")
        yield from _mac(interface.get("macAddress"), here)
        pci_address = interface.get("pciAddress")
        if pci_address and not PCI_ADDRESS.fullmatch(pci_address):
            message = f"interface {here}.name has malformed PCI address ({pci_address})."
            yield Cause(INVALID, message, f"{here}.pciAddress")
        if _on_pod(networks.get(interface["name"], {})):
            yield from _forwarded_ports(interface, here, config)
        yield from _dhcp_options(interface.get("dhcpOptions") or {}, path, here)


def _is_reserved(mac: str | None) -> bool:
    return _digits(mac or "") == _digits(_RESERVED_MAC)


def _digits(mac: str) -> str:
    return re.sub(r"[:.-]", "", mac)


def _mac(mac: str | None, here: str) -> Causes:
    if not mac:
        return
    field, digits = f"{here}.macAddress", _digits(mac)
    if not _MAC.fullmatch(mac):
        yield Cause(INVALID, f"interface {here}.name has malformed MAC address ({mac}).", field)
    elif len(digits) > _MAC_DIGITS:
        yield Cause(INVALID, f"interface {here}.name has too long MAC address ({mac}).", field)


def _forwarded_ports(interface: Spec, here: str, config: ClusterConfiguration) -> Causes:
    ports, ranges = interface.get("ports") or None, interface.get("portRanges") or None
    if ranges is not None and not config.has_gate(PORT_RANGES):
        message = f"portRanges is specified on interface but the {PORT_RANGES} feature gate is not enabled"
        yield Cause(INVALID, message, f"{here}.name")
        ranges = None
    if ports is not None and ranges is not None:
        yield Cause(INVALID, f"Cannot define both ports and portRanges on interface {here}.name", f"{here}.name")
    yield from _ports(ports or (), here)
    if ranges is None:
        return
    if interface.get("masquerade") is None:
        message = f"portRanges are only supported on masquerade interfaces ({here}.name)"
        yield Cause(INVALID, message, f"{here}.name")
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
            yield Cause(REQUIRED, "Port field is mandatory.", field)
        elif not 0 < port["port"] < 65536:
            yield Cause(INVALID, "Port field must be in range 0 < x < 65536.", field)
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


def _dhcp_options(options: Spec, path: str, here: str) -> Causes:
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


# --- what only this engine refuses -----------------------------------------------------------------------------------


def _own(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """What KubeVirt finds out when the machine starts, if at all."""
    for index, interface in enumerate(_interfaces(spec)):
        here = f"{path}.domain.devices.interfaces[{index}]"
        if not 0 <= (acpi_index := interface.get("acpiIndex") or 0) <= _MAX_ACPI_INDEX:
            message = f"{here}.acpiIndex '{acpi_index}': must be between 0 and {_MAX_ACPI_INDEX}."
            yield Cause(INVALID, message, f"{here}.acpiIndex")
        yield from _mac_of_interface(interface.get("macAddress") or "", here)
        yield from _texts_of_options(interface.get("dhcpOptions") or {}, f"{here}.dhcpOptions")
    yield from _used_twice(spec, path)
    for index, network in enumerate(_networks(spec)):
        if cidr := get(network, "pod", "vmNetworkCIDR"):
            yield from _guest_cidr(cidr, f"{path}.networks[{index}].pod.vmNetworkCIDR")
        if cidr := get(network, "pod", "vmIPv6NetworkCIDR"):
            yield from _guest_cidr(cidr, f"{path}.networks[{index}].pod.vmIPv6NetworkCIDR", version=6)


def _mac_of_interface(mac: str, here: str) -> Causes:
    field, digits = f"{here}.macAddress", _digits(mac)
    if not _MAC.fullmatch(mac) or len(digits) > _MAC_DIGITS:
        return
    if int(digits[:2], 16) & 1:
        yield Cause(INVALID, f"interface {here}.name has MAC address ({mac}) that is a multicast address.", field)
    elif not int(digits, 16):
        yield Cause(INVALID, f"interface {here}.name has MAC address ({mac}) that no interface can have.", field)


def _texts_of_options(options: Spec, here: str) -> Causes:
    for name in ("bootFileName", "tftpServerName"):
        yield from _option_text(options.get(name), f"{here}.{name}")
    for index, option in enumerate(options.get("privateOptions") or ()):
        yield from _option_text(option["value"], f"{here}.privateOptions[{index}].value")


def _option_text(text: str | None, here: str) -> Causes:
    """The length of an option is one octet (RFC 2132)."""
    if text and len(text.encode(errors="surrogatepass")) > 255:
        yield Cause(INVALID, f"{here} must be less than or equal to 255 in length, if specified", here)


def _used_twice(spec: Spec, path: str) -> Causes:
    seen: dict[str, str] = {}
    for index, interface in enumerate(_interfaces(spec)):
        if not (mac := interface.get("macAddress")):
            continue
        first = seen.setdefault(_digits(mac).lower(), interface["name"])
        if first != interface["name"]:
            here = f"{path}.domain.devices.interfaces[{index}].macAddress"
            yield Cause(DUPLICATE, f"{here} '{mac}' is the MAC address of interface '{first}' already", here)


def _guest_cidr(cidr: str, here: str, version: int = 4) -> Causes:
    try:
        network = ipaddress.ip_network(cidr)
        usable = network.version == version and network.num_addresses >= 4
    except ValueError:
        usable = False
    if not usable:
        example = "10.0.2.0/24" if version == 4 else "fd10:0:2::/120"
        yield Cause(INVALID, f"{here} must be an IPv{version} network of at least 4 addresses, such as {example}", here)


# --- DNS -------------------------------------------------------------------------------------------------------------


def _dns(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    policy, dns = spec.get("dnsPolicy") or "", spec.get("dnsConfig")
    if policy not in _DNS_POLICIES:
        message = f"DNSPolicy: {policy} is not supported, valid values: [{' '.join(_DNS_POLICIES)}]"
        yield Cause(NOT_SUPPORTED, message, f"{path}.dnsPolicy")
    if policy == "None" and dns is None:
        yield Cause(REQUIRED, "must provide `dnsConfig` when `dnsPolicy` is None", f"{path}.dnsConfig")
        return
    if dns is None:
        return
    servers, searches = dns.get("nameservers") or (), dns.get("searches") or ()
    if policy == "None" and not servers:
        yield Cause(REQUIRED, "must provide at least one DNS nameserver when `dnsPolicy` is None", "nameservers")
        return
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
    for option in dns.get("options") or ():
        if not option.get("name"):
            yield Cause(INVALID, "Option.Name must not be empty", "options")


#: About new objects only: KubeVirt's names for the fields of a VirtualMachine begin with `spec` there as well.
CREATION: tuple[Rule, ...] = (_discontinued_bindings,)

RULES: tuple[Rule, ...] = (
    _default_network,
    _network_types,
    _network_names,
    _states,
    _bindings,
    _unique_networks,
    _networks_have_interfaces,
    _unique_interfaces,
    _interfaces_have_networks,
    _fields,
    _resource_claims,
)

DNS: tuple[Rule, ...] = (_dns,)
OWN: tuple[Rule, ...] = (_own,)
