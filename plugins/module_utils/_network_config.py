# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CNI configurations (containernetworking/cni SPEC 1.0, and the plugins' documentation) from options. Pure."""

from __future__ import annotations

import ipaddress
import json

from ._errors import KubeError
from ._values import from_json, plain

# Options that are a type of network, and the plugin of each.
TYPES = {
    "bridge": "bridge",
    "macvlan": "macvlan",
    "vlan": "vlan",
    "ipvlan": "ipvlan",
    "ptp": "ptp",
    "host_device": "host-device",
}
# Their suboptions, and what these are called in the configuration.
_KEYS = {
    "name": "bridge",
    "vlan": "vlan",
    "gateway": "isGateway",
    "masquerade": "ipMasq",
    "hairpin": "hairpinMode",
    "master": "master",
    "mode": "mode",
    "id": "vlanId",
    "mtu": "mtu",
    "device": "device",
    "mac": "hwaddr",
    "pci_address": "pciBusID",
}
_MTU = {"mtu": {"type": "int"}}
_MASTER = {"master": {"type": "str"}, **_MTU}
# The options of a network, and which of them exclude each other.
ARGUMENTS = {
    "bridge": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "vlan": {"type": "int"},
            "gateway": {"type": "bool"},
            "masquerade": {"type": "bool"},
            "hairpin": {"type": "bool"},
            **_MTU,
        },
    },
    "macvlan": {
        "type": "dict",
        "options": {**_MASTER, "mode": {"type": "str", "choices": ["bridge", "private", "vepa", "passthru"]}},
    },
    "vlan": {
        "type": "dict",
        "options": {
            "master": {"type": "str", "required": True},
            "id": {"type": "int", "required": True},
            **_MTU,
        },
    },
    "ipvlan": {
        "type": "dict",
        "options": {**_MASTER, "mode": {"type": "str", "choices": ["l2", "l3", "l3s"]}},
    },
    "ptp": {"type": "dict", "options": {"masquerade": {"type": "bool"}, **_MTU}},
    "host_device": {
        "type": "dict",
        "options": {key: {"type": "str"} for key in ("device", "mac", "pci_address")},
        "required_one_of": [["device", "mac", "pci_address"]],
        "mutually_exclusive": [["device", "mac", "pci_address"]],
    },
    "ipam": {
        "type": "dict",
        "options": {
            "type": {"type": "str", "choices": ["host-local", "static", "dhcp"], "default": "host-local"},
            **{key: {"type": "str"} for key in ("subnet", "range_start", "range_end", "gateway")},
            "addresses": {"type": "list", "elements": "str"},
            "routes": {
                "type": "list",
                "elements": "dict",
                "options": {"destination": {"type": "str", "required": True}, "gateway": {"type": "str"}},
            },
        },
    },
    "chain": {"type": "list", "elements": "dict"},
    "config": {"type": "dict"},
    "cni_version": {"type": "str", "default": "0.4.0"},
}
RULES = {
    "mutually_exclusive": [
        [*TYPES, "config"],
        ["config", "ipam"],
        ["config", "chain"],
    ]
}
# Without an address, a guest and the machine are not on the same link.
_NEEDS_IPAM = ("ptp",)


def config_of(params, name):
    """Return the configuration that options declare; None if they declare none.

    :raises KubeError: names the option that can't be.
    """
    raw = plain(params["config"])
    kinds = [option for option in TYPES if params[option] is not None]
    if raw is not None:
        return {"name": name, **raw}
    if not kinds:
        alone = [option for option in ("ipam", "chain") if params[option] is not None]
        if alone:
            raise KubeError("%s: needs the type of the network: one of %s" % (alone[0], ", ".join(TYPES)))
        return None
    (kind,) = kinds
    options = params[kind]
    plugin = {"type": TYPES[kind]}
    plugin.update((_KEYS[key], value) for key, value in options.items() if value is not None)
    ipam = _ipam(params["ipam"])
    if ipam is None and kind in _NEEDS_IPAM:
        raise KubeError("ipam: missing; a network of the type %s needs addresses" % kind)
    if ipam:
        plugin["ipam"] = ipam
    chain = plain(params["chain"]) or []
    for index, each in enumerate(chain):
        if not isinstance(each.get("type"), str):
            raise KubeError("chain[%d].type: missing; it is the name of a CNI plugin, such as tuning" % index)
    head = {"cniVersion": params["cni_version"], "name": name}
    return {**head, "plugins": [plugin, *chain]} if chain else {**head, **plugin}


def text_of(config, live):
    """Return the text of a configuration: the live one if that says the same.

    :param live: the live text, or None.
    """
    try:
        if live is not None and from_json(live) == config:
            return live
    except ValueError:
        pass
    return json.dumps(config, indent=2)


def _ipam(options):
    if options is None:
        return None
    kind = options["type"]
    if kind == "static":
        addresses = options["addresses"] or []
        if not addresses:
            raise KubeError("ipam.addresses: missing; the type static needs at least one, such as 192.0.2.7/24")
        gateway = {"gateway": options["gateway"]} if options["gateway"] else {}
        for address in addresses:
            _check("ipam.addresses", address, ipaddress.ip_interface, "an address with its prefix length")
        ipam = {"addresses": [{"address": address, **gateway} for address in addresses]}
    elif kind == "host-local":
        if not options["subnet"]:
            raise KubeError("ipam.subnet: missing; the type host-local needs it, such as 192.0.2.0/24")
        network = _check("ipam.subnet", options["subnet"], ipaddress.ip_network, "a network such as 192.0.2.0/24")
        ipam = {"ranges": [[_range(options, network)]]}
    else:
        ipam = {}
    routes = [
        {"dst": route["destination"], **({"gw": route["gateway"]} if route["gateway"] else {})}
        for route in options["routes"] or []
    ]
    for route in routes:
        _check("ipam.routes", route["dst"], ipaddress.ip_network, "a network such as 198.51.100.0/24")
    return {"type": kind, **ipam, **({"routes": routes} if routes else {})}


def _range(options, network):
    addresses = {"subnet": options["subnet"]}
    for option, key in (("range_start", "rangeStart"), ("range_end", "rangeEnd"), ("gateway", "gateway")):
        value = options[option]
        if value:
            address = _check("ipam.%s" % option, value, ipaddress.ip_address, "an address")
            if address not in network:
                raise KubeError("ipam.%s: %s isn't in the subnet %s" % (option, value, options["subnet"]))
            addresses[key] = value
    return addresses


def _check(option, value, parse, what):
    try:
        return parse(value)
    except ValueError as exc:
        raise KubeError("%s: %r isn't %s (%s)" % (option, value, what, exc)) from exc
