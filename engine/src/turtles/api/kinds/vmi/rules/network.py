# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about networks, and interfaces on them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import NETWORK_DEVICES_WITH_DRA, PASST_BINDING
from turtles.api.kinds.vmi.rules.common import PCI_ADDRESS, Rule
from turtles.api.kinds.vmi.rules.interface_fields import (
    dhcp_causes,
    impossible_dhcp_causes,
    impossible_mac_causes,
    is_reserved_mac,
    mac_causes,
    mac_digits,
    port_causes,
)
from turtles.api.language import DUPLICATE, INVALID, NOT_FOUND, NOT_SUPPORTED, REQUIRED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec

_INTERFACE_NAME = re.compile(r"[A-Za-z0-9-_]+")
NIC_MODELS = frozenset(("e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio"))
#: Bindings that were removed: the field, and what it was called.
_DISCONTINUED = {
    "slirp": "Slirp interface support",
    "passt": "Passt network binding",
    "macvtap": "Macvtap network binding",
}
_BINDING_METHODS = ("bridge", "masquerade", "sriov", "passtBinding")
_STATES = ("up", "down", "absent")

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
    here, networks = f"{path}.networks", _networks(spec)
    if not any(network.get("resourceClaim") is not None for network in networks):
        return
    if not config.has_gate(NETWORK_DEVICES_WITH_DRA):
        gate = NETWORK_DEVICES_WITH_DRA
        message = f"vmi.spec.networks contains DRA networks but {gate} feature gate is not enabled"
        yield Cause(INVALID, message, here)
        return
    if any(network.get("multus") is not None for network in networks):
        message = "mixing Multus and DRA resourceClaim networks in the same VMI is not supported"
        yield Cause(INVALID, message, here)
        return
    interfaces = _by_name(_interfaces(spec))
    declared = [claim["name"] for claim in spec.get("resourceClaims") or ()]
    used: set[tuple[str, str]] = set()
    for index, network in enumerate(networks):
        if (request := network.get("resourceClaim")) is None:
            continue
        interface = interfaces.get(network["name"])
        if interface is not None and interface.get("binding") is None:
            message = f'DRA network "{network["name"]}" requires a binding plugin interface'
            yield Cause(INVALID, message, f"{path}.domain.devices.interfaces")
        missing = [key for key in ("claimName", "requestName") if not request.get(key)]
        for key in missing:
            yield Cause(REQUIRED, f"{key} is required for DRA network", f"{here}[{index}].resourceClaim.{key}")
        if not missing:
            yield from _claim_of_network(request, f"{here}[{index}]", declared, used)


def _claim_of_network(request: Spec, here: str, declared: Sequence[str], used: set[tuple[str, str]]) -> Causes:
    """Check the claim of a network.

    :param used: claims and requests of the networks before; this one's are added.
    """
    claim, name = request["claimName"], request["requestName"]
    if claim not in declared:
        message = f'network references resourceClaim "{claim}" which is not defined in spec.resourceClaims'
        yield Cause(NOT_FOUND, message, f"{here}.resourceClaim.claimName")
    if (claim, name) in used:
        yield Cause(DUPLICATE, f'duplicate claimName/requestName combination "{claim}/{name}"', here)
    used.add((claim, name))


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
        if "masquerade" in methods and is_reserved_mac(interface.get("macAddress")):
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
        yield from mac_causes(interface.get("macAddress"), here)
        pci_address = interface.get("pciAddress")
        if pci_address and not PCI_ADDRESS.fullmatch(pci_address):
            message = f"interface {here}.name has malformed PCI address ({pci_address})."
            yield Cause(INVALID, message, f"{here}.pciAddress")
        if _on_pod(networks.get(interface["name"], {})):
            yield from port_causes(interface, here, config)
        yield from dhcp_causes(interface.get("dhcpOptions") or {}, path, here)


def _macs(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, interface in enumerate(_interfaces(spec)):
        here = f"{path}.domain.devices.interfaces[{index}]"
        yield from impossible_mac_causes(interface.get("macAddress") or "", here)


# --- what KubeVirt finds out when the machine starts, if at all ------------------------------------------------------


def _impossible(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, interface in enumerate(_interfaces(spec)):
        here = f"{path}.domain.devices.interfaces[{index}]"
        if not 0 <= (acpi_index := interface.get("acpiIndex") or 0) <= _MAX_ACPI_INDEX:
            message = f"{here}.acpiIndex '{acpi_index}': must be between 0 and {_MAX_ACPI_INDEX}."
            yield Cause(INVALID, message, f"{here}.acpiIndex")
        yield from impossible_dhcp_causes(interface.get("dhcpOptions") or {}, f"{here}.dhcpOptions")
    yield from _used_twice(spec, path)
    for index, network in enumerate(_networks(spec)):
        if cidr := get(network, "pod", "vmNetworkCIDR"):
            yield from _guest_cidr(cidr, f"{path}.networks[{index}].pod.vmNetworkCIDR")
        if cidr := get(network, "pod", "vmIPv6NetworkCIDR"):
            yield from _guest_cidr(cidr, f"{path}.networks[{index}].pod.vmIPv6NetworkCIDR", version=6)


def _used_twice(spec: Spec, path: str) -> Causes:
    seen: dict[str, str] = {}
    for index, interface in enumerate(_interfaces(spec)):
        if not (mac := interface.get("macAddress")):
            continue
        first = seen.setdefault(mac_digits(mac).lower(), interface["name"])
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

#: What only this engine refuses: with some of these, guests run and have no network.
OWN: tuple[Rule, ...] = (_macs,)
FUTILE: tuple[Rule, ...] = (_impossible,)
