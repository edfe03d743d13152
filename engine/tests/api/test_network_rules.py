# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes about networks, as KubeVirt's clients know them: type, message, field, and the order of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from turtles.api.configuration import DEFAULT
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.kind import Context
from turtles.api.kinds import vm as vms
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.validation import validate

from .objects import put, talk_vm, talk_vmi, twice

NIC = "spec.domain.devices.interfaces"
INVALID, REQUIRED = "FieldValueInvalid", "FieldValueRequired"
DUPLICATE, NOT_SUPPORTED = "FieldValueDuplicate", "FieldValueNotSupported"
RESERVED = "The requested MAC address is reserved for the in-pod bridge. Please choose another one."


def judge(interfaces: list[Any], networks: list[Any], config: Any = DEFAULT, **spec: Any) -> list[tuple[str, str, str]]:
    vmi = talk_vmi()
    vmi["spec"]["domain"]["devices"]["interfaces"] = interfaces
    vmi["spec"] |= {"networks": networks, **spec}
    context = Context(config=config)
    return [(cause.type, cause.message, cause.field) for cause in validate(default(vmi, context), context)]


def gates(*names: str, off: tuple[str, ...] = ()) -> Any:
    developer = {"featureGates": list(names), "disabledFeatureGates": list(off)}
    return from_kubevirt({"spec": {"configuration": {"developerConfiguration": developer}}})


def nic(name: str = "default", **settings: Any) -> dict[str, Any]:
    return {"name": name, **(settings or {"bridge": {}})}


POD = {"name": "default", "pod": {}}
MULTUS = {"name": "red", "multus": {"networkName": "red-net"}}


@pytest.mark.parametrize(
    ("interface", "network"),
    [
        (nic(masquerade={}), POD),
        (nic(passtBinding={}), POD),
        (nic(bridge={}, state="down"), POD),
        (nic(bridge={}, macAddress="0200.00aa.bbcc", pciAddress="0000:81:01.0", acpiIndex=3, tag="lan"), POD),
        (nic("red", bridge={}, state="absent"), MULTUS),
        (nic("red", sriov={}), MULTUS),
        (nic("red", binding={"name": "plug"}), MULTUS),
        (nic(masquerade={}, ports=[{"port": 80, "name": "http"}, {"port": 53, "protocol": "UDP"}]), POD),
        (
            nic(
                bridge={},
                dhcpOptions={
                    "bootFileName": "pxe.0",
                    "tftpServerName": "tftp",
                    "ntpServers": ["192.0.2.1"],
                    "privateOptions": [{"option": 240, "value": "x"}],
                },
            ),
            POD,
        ),
    ],
)
def test_accepted(interface, network):
    assert judge([interface], [network]) == []


@pytest.mark.parametrize(
    ("interfaces", "networks", "causes"),
    [
        (
            [nic("a"), nic("b")],
            [{"name": "a", "pod": {}}, {"name": "b", "pod": {}}],
            [
                (
                    DUPLICATE,
                    "more than one interface is connected to a pod network in spec.interfaces",
                    "spec.interfaces",
                )
            ],
        ),
        (
            [nic("a"), nic("b"), nic()],
            [
                {"name": "a", "multus": {"networkName": "x", "default": True}},
                {"name": "b", "multus": {"networkName": "y", "default": True}},
                POD,
            ],
            [
                (INVALID, "Multus CNI should only have one default network", "spec.networks"),
                (
                    INVALID,
                    "Pod network cannot be defined when Multus default network is defined",
                    "spec.networks",
                ),
            ],
        ),
        (
            [nic("a"), nic("b"), nic("c")],
            [
                {"name": "a"},
                {"name": "b", "pod": {}, "multus": {"networkName": "x"}},
                {"name": "c", "multus": {"networkName": ""}},
            ],
            [
                (REQUIRED, "should have a network type", "spec.networks[0]"),
                (REQUIRED, "should have only one network type", "spec.networks[1]"),
                (REQUIRED, "CNI delegating plugin must have a networkName", "spec.networks[2]"),
            ],
        ),
        (
            [nic(masquerade={}, state="absent"), nic("red", sriov={}, state="up"), nic("blue", bridge={}, state="off")],
            [POD, MULTUS, {"name": "blue", "multus": {"networkName": "x"}}],
            [
                (
                    INVALID,
                    '"default" interface\'s state "absent" is supported only for bridge binding',
                    f"{NIC}[0].state",
                ),
                (
                    INVALID,
                    '"default" interface\'s state "absent" is not supported on default networks',
                    f"{NIC}[0].state",
                ),
                (INVALID, '"red" interface\'s state "up" is not supported for SR-IOV NICs', f"{NIC}[1].state"),
                (INVALID, "logical blue interface state value is unsupported: off", f"{NIC}[2].state"),
            ],
        ),
        (
            [nic("red", masquerade={}, macAddress="02:00:00:00:00:00")],
            [MULTUS],
            [
                (INVALID, "Masquerade interface only implemented with pod network", f"{NIC}[0].name"),
                (INVALID, RESERVED, f"{NIC}[0].macAddress"),
            ],
        ),
        (
            [nic("red", binding={"name": "plug"}, bridge={})],
            [MULTUS],
            [
                (
                    INVALID,
                    "logical red interface must have exactly one binding method or binding plugin",
                    f"{NIC}[0]",
                )
            ],
        ),
        (
            [nic("red", passtBinding={})],
            [MULTUS],
            [(INVALID, "PasstBinding interface only implemented with pod network", f"{NIC}[0].name")],
        ),
        (
            [nic("x"), nic("x"), nic("y")],
            [{"name": "x", "pod": {}}, {"name": "z", "multus": {"networkName": "n"}}, MULTUS, MULTUS],
            [
                (
                    DUPLICATE,
                    'Network with name "red" already exists, every network must have a unique name',
                    "spec.networks[3].name",
                ),
                (REQUIRED, "spec.networks[1].name 'z' not found.", "spec.networks[1].name"),
                (REQUIRED, "spec.networks[2].name 'red' not found.", "spec.networks[2].name"),
                (REQUIRED, "spec.networks[3].name 'red' not found.", "spec.networks[3].name"),
                (DUPLICATE, "Only one interface can be connected to one specific network", f"{NIC}[1].name"),
                (INVALID, f"{NIC}[2].name 'y' not found.", f"{NIC}[2].name"),
            ],
        ),
        (
            [nic("a.b", bridge={}, model="ne2000", macAddress="de:ad", pciAddress="0:81:01.0")],
            [{"name": "a.b", "pod": {}}],
            [
                (
                    INVALID,
                    "Network interface name can only contain alphabetical characters, numbers, dashes (-) or "
                    "underscores (_)",
                    f"{NIC}[0].name",
                ),
                (NOT_SUPPORTED, f"interface {NIC}[0].name uses model ne2000 that is not supported.", f"{NIC}[0].model"),
                (INVALID, f"interface {NIC}[0].name has malformed MAC address (de:ad).", f"{NIC}[0].macAddress"),
                (INVALID, f"interface {NIC}[0].name has malformed PCI address (0:81:01.0).", f"{NIC}[0].pciAddress"),
            ],
        ),
        (
            [nic(bridge={}, macAddress="02:00:00:00:00:00:00:01")],
            [POD],
            [
                (
                    INVALID,
                    f"interface {NIC}[0].name has too long MAC address (02:00:00:00:00:00:00:01).",
                    f"{NIC}[0].macAddress",
                )
            ],
        ),
        (
            [
                nic(
                    masquerade={},
                    ports=[
                        {"port": 0, "name": "web"},
                        {"port": 70000, "name": "web"},
                        {"port": 1, "protocol": "SCTP", "name": "WEB!"},
                    ],
                )
            ],
            [POD],
            [
                (DUPLICATE, "Duplicate name of the port: web", f"{NIC}[0].ports[1].name"),
                (INVALID, "Invalid name of the port: WEB!", f"{NIC}[0].ports[2].name"),
                (REQUIRED, "Port field is mandatory.", f"{NIC}[0].ports[0].port"),
                (INVALID, "Port field must be in range 0 < x < 65536.", f"{NIC}[0].ports[1].port"),
                (INVALID, "Unknown protocol, only TCP or UDP allowed", f"{NIC}[0].ports[2].protocol"),
            ],
        ),
        (
            [
                nic(
                    bridge={},
                    dhcpOptions={
                        "ntpServers": ["192.0.2.1", "time.example", "2001:db8::1"],
                        "privateOptions": [{"option": 223, "value": "a"}, {"option": 223, "value": "b"}],
                    },
                )
            ],
            [POD],
            [
                (INVALID, "Found Duplicates: you have provided duplicate DHCPPrivateOptions", "spec"),
                (INVALID, "provided DHCPPrivateOptions are out of range, must be in range 224 to 254", "spec"),
                (INVALID, "provided DHCPPrivateOptions are out of range, must be in range 224 to 254", "spec"),
                (
                    INVALID,
                    "NTP servers must be a list of valid IPv4 addresses.",
                    f"{NIC}[0].dhcpOptions.ntpServers[1]",
                ),
                (
                    INVALID,
                    "NTP servers must be a list of valid IPv4 addresses.",
                    f"{NIC}[0].dhcpOptions.ntpServers[2]",
                ),
            ],
        ),
        (
            [nic(bridge={})],
            [{"name": "default", "resourceClaim": {"claimName": "c", "requestName": "r"}}],
            [
                (
                    INVALID,
                    "vmi.spec.networks contains DRA networks but NetworkDevicesWithDRA feature gate is not enabled",
                    "spec.networks",
                )
            ],
        ),
        (
            [nic(model="virtio")],
            [POD],
            [
                (
                    INVALID,
                    "logical default interface must have exactly one binding method or binding plugin",
                    f"{NIC}[0]",
                )
            ],
        ),
    ],
)
def test_refused(interfaces, networks, causes):
    assert judge(interfaces, networks) == twice(causes)


def test_removed_bindings_are_told_of_once():
    removed = [nic(bridge={}, slirp={}), nic("red", bridge={}, macvtap={}), nic("blue", bridge={}, passt={})]
    assert judge(removed, [POD, MULTUS, {"name": "blue", "multus": {"networkName": "x"}}]) == [
        (INVALID, "Slirp interface support has been discontinued since v1.3", f"{NIC}[0].slirp"),
        (INVALID, "Macvtap network binding has been discontinued since v1.3", f"{NIC}[1].macvtap"),
        (INVALID, "Passt network binding has been discontinued since v1.3", f"{NIC}[2].passt"),
    ]


def test_a_removed_binding_counts_for_none():
    binding = (INVALID, "logical default interface must have exactly one binding method or binding plugin", f"{NIC}[0]")
    assert judge([nic(slirp={})], [POD]) == [
        (INVALID, "Slirp interface support has been discontinued since v1.3", f"{NIC}[0].slirp"),
        *twice([binding]),
    ]


def test_what_the_installation_forbids():
    config = replace(DEFAULT, permit_bridge_on_pod_network=False)
    message = "Bridge on pod network configuration is not enabled under kubevirt-config"
    assert judge([nic()], [POD], config) == twice([(INVALID, message, f"{NIC}[0].name")])
    message = "PasstBinding feature gate is not enabled"
    refused = judge([nic(passtBinding={})], [POD], gates(off=("PasstBinding",)))
    assert refused == twice([(INVALID, message, f"{NIC}[0].name")])


RANGE = {"start": 1000, "end": 2000}


@pytest.mark.parametrize(
    ("interface", "causes"),
    [
        (nic(masquerade={}, portRanges=[RANGE, {**RANGE, "protocol": "UDP"}]), []),
        (
            nic(masquerade={}, portRanges=[RANGE], ports=[{"port": 80}]),
            [(INVALID, "Cannot define both ports and portRanges on interface", f"{NIC}[0].name")],
        ),
        (
            nic(bridge={}, portRanges=[{"start": 0, "end": 70000, "protocol": "SCTP"}]),
            [
                (INVALID, "portRanges are only supported on masquerade interfaces", f"{NIC}[0].name"),
                (INVALID, "Unknown protocol, only TCP or UDP allowed", f"{NIC}[0].portRanges[0].protocol"),
                (INVALID, "Start must be a valid port number, 0 < x < 65536", f"{NIC}[0].portRanges[0].start"),
                (INVALID, "End must be a valid port number, 0 < x < 65536", f"{NIC}[0].portRanges[0].end"),
            ],
        ),
        (
            nic(masquerade={}, portRanges=[{"start": 9, "end": 8}]),
            [(INVALID, "Start must be less than or equal to end", f"{NIC}[0].portRanges[0].start")],
        ),
        (
            nic(masquerade={}, portRanges=[RANGE, {"start": 2000, "end": 2001, "protocol": "TCP"}]),
            [(INVALID, "TCP portRanges [1000-2000] and [2000-2001] overlap", f"{NIC}[0].portRanges")],
        ),
    ],
)
def test_port_ranges(interface, causes):
    assert judge([interface], [POD], gates("PortRangesSpec")) == twice(causes)
    message = "portRanges is specified on interface but the PortRangesSpec feature gate is not enabled"
    assert judge([interface], [POD]) == twice([(INVALID, message, f"{NIC}[0].name")])


@pytest.mark.parametrize(
    ("policy", "dns", "causes"),
    [
        ("None", None, [(REQUIRED, "must provide `dnsConfig` when `dnsPolicy` is None", "spec.dnsConfig")]),
        (
            "None",
            {"searches": ["_"]},
            [(REQUIRED, "must provide at least one DNS nameserver when `dnsPolicy` is None", "nameservers")],
        ),
        ("Default", {"nameservers": ["x"]}, [(INVALID, "must be valid IP address: x", "nameservers")]),
        (
            "None",
            {"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], "options": [{"value": "1"}]},
            [
                (
                    INVALID,
                    "must not have more than 3 nameservers: [192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4]",
                    "nameservers",
                ),
                (INVALID, "Option.Name must not be empty", "options"),
            ],
        ),
        (
            "Best",
            None,
            [
                (
                    NOT_SUPPORTED,
                    "DNSPolicy: Best is not supported, valid values: [ClusterFirstWithHostNet ClusterFirst Default "
                    "None ]",
                    "spec.dnsPolicy",
                )
            ],
        ),
    ],
)
def test_dns(policy, dns, causes):
    assert judge([nic()], [POD], dnsPolicy=policy, dnsConfig=dns) == causes


def test_what_was_removed_is_all_that_a_virtual_machine_is_told():
    vm = put(talk_vm(), "spec.template.spec.domain.devices.interfaces.0", {"name": "default", "slirp": {}})
    vm["spec"]["template"]["spec"]["hostname"] = "A"
    [cause] = vms.validate(vm)
    assert (cause.message, cause.field) == (
        "Slirp interface support has been discontinued since v1.3",
        f"{NIC}[0].slirp",
    )


def claimed(name: str, **claim: str) -> dict[str, Any]:
    return {"name": name, "resourceClaim": claim}


@pytest.mark.parametrize(
    ("interfaces", "networks", "causes"),
    [
        ([nic(binding={"name": "sriov"})], [claimed("default", claimName="c", requestName="r")], []),
        (
            [nic(bridge={}), nic("red")],
            [claimed("default", claimName="c", requestName="r"), MULTUS],
            [
                (
                    INVALID,
                    "mixing Multus and DRA resourceClaim networks in the same VMI is not supported",
                    "spec.networks",
                )
            ],
        ),
        (
            [nic()],
            [claimed("default", claimName="c", requestName="r")],
            [(INVALID, 'DRA network "default" requires a binding plugin interface', NIC)],
        ),
        (
            [nic(binding={"name": "sriov"})],
            [claimed("default")],
            [
                (REQUIRED, "claimName is required for DRA network", "spec.networks[0].resourceClaim.claimName"),
                (REQUIRED, "requestName is required for DRA network", "spec.networks[0].resourceClaim.requestName"),
            ],
        ),
        (
            [nic(binding={"name": "sriov"})],
            [claimed("default", claimName="other", requestName="r")],
            [
                (
                    "FieldValueNotFound",
                    'network references resourceClaim "other" which is not defined in spec.resourceClaims',
                    "spec.networks[0].resourceClaim.claimName",
                )
            ],
        ),
        (
            [nic(binding={"name": "sriov"}), nic("red", binding={"name": "sriov"})],
            [claimed(name, claimName="c", requestName="r") for name in ("default", "red")],
            [(DUPLICATE, 'duplicate claimName/requestName combination "c/r"', "spec.networks[1]")],
        ),
    ],
)
def test_networks_of_resource_claims(interfaces, networks, causes):
    claims = [{"name": "c", "resourceClaimName": "claim"}]
    assert judge(interfaces, networks, gates("NetworkDevicesWithDRA"), resourceClaims=claims) == twice(causes)
