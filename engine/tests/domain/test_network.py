# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from turtles.domain import network, paths
from turtles.domain.interface_names import further_interface_name, pod_interface_name
from turtles.domain.macs import chosen_mac, generated_mac
from turtles.domain.network import PodInterface, Port

POD = PodInterface("eth0", "0a:58:0a:f4:00:05", (("fd00::5", 64), ("10.244.0.5", 16)), "10.244.0.1", 1400)
NETWORK = {"name": "default", "pod": {}}
MAC = "02:00:00:00:00:01"


def test_bridge_moves_the_pods_identity() -> None:
    plan = network.plan({"name": "default", "bridge": {}}, NETWORK, POD, "")
    assert (plan.guest_mac, plan.guest_ip, plan.prefix, plan.gateway) == (POD.mac, "10.244.0.5", 16, "10.244.0.1")
    assert (plan.bridge, plan.tap, plan.server_ip, plan.mtu) == ("k6t-eth0", "tap0", "169.254.75.10", 1400)


def test_masquerade() -> None:
    interface = {"name": "default", "masquerade": {}, "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}
    plan = network.plan(interface, NETWORK, POD, MAC)
    assert (plan.guest_ip, plan.prefix, plan.gateway, plan.server_ip) == ("10.0.2.2", 24, "10.0.2.1", "10.0.2.1")
    assert plan.ports == (Port("tcp", 80), Port("udp", 53))
    assert plan.guest_mac == MAC


def test_passt() -> None:
    interface = {"name": "default", "passtBinding": {}, "ports": [{"port": 80}]}
    plan = network.plan(interface, NETWORK, POD, MAC, pairs=4)
    assert (plan.binding, plan.bridge, plan.tap, plan.queues, plan.has_address) == ("passt", "", "", 1, False)
    assert plan.addresses == ("fd00::5", "10.244.0.5"), "the status has them; passt gives them to the guest"
    assert plan.ports == (Port("tcp", 80),)
    assert chosen_mac({"metadata": {"uid": "uid"}}, interface, NETWORK) == generated_mac("uid", "default")
    with pytest.raises(ValueError, match="passt needs the Pod network"):
        network.plan(interface, {"name": "default", "multus": {"networkName": "blue"}}, POD, MAC)


def test_masquerade_in_another_network() -> None:
    plan = network.plan(
        {"name": "default", "masquerade": {}}, {"name": "default", "pod": {"vmNetworkCIDR": "10.9.8.0/28"}}, POD, MAC
    )
    assert (plan.guest_ip, plan.prefix, plan.gateway) == ("10.9.8.2", 28, "10.9.8.1")


@pytest.mark.parametrize("binding", ["bridge", "masquerade"])
@pytest.mark.parametrize("mac", ["02:00:00:AA:BB:CC", "02-00-00-aa-bb-cc"])
def test_a_mac_that_was_asked_for(binding: str, mac: str) -> None:
    interface = {"name": "default", binding: {}, "macAddress": mac}
    assert chosen_mac({"metadata": {"uid": "uid"}}, interface, NETWORK) == "02:00:00:aa:bb:cc"


def test_a_virtual_machine_keeps_its_macs() -> None:
    """Its instances come and go; only with a bridge on the Pod network they have each Pod's."""
    owners = [{"kind": "VirtualMachine", "uid": "vm", "controller": True}]
    one, other = ({"metadata": {"uid": uid, "ownerReferences": owners}} for uid in ("uid-1", "uid-2"))
    blue = {"name": "blue", "multus": {"networkName": "blue"}}
    for interface, each in (({"name": "default", "masquerade": {}}, NETWORK), ({"name": "blue", "bridge": {}}, blue)):
        mac = chosen_mac(one, interface, each)
        assert mac == chosen_mac(other, interface, each) == generated_mac("vm", interface["name"])
        assert mac != chosen_mac({"metadata": {"uid": "uid-1"}}, interface, each)
    assert chosen_mac(one, {"name": "default", "bridge": {}}, NETWORK) == ""


def test_further_networks() -> None:
    blue = {"name": "blue", "multus": {"networkName": "other/nad"}}
    spec = {
        "domain": {
            "devices": {
                "interfaces": [
                    {"name": "default", "masquerade": {}},
                    {"name": "blue", "bridge": {}},
                    {"name": "gone", "bridge": {}, "state": "absent"},
                ]
            }
        },
        "networks": [NETWORK, blue, {"name": "gone", "multus": {"networkName": "gone"}}],
    }
    name = pod_interface_name(blue)
    assert name == "pod16477688c0e"
    facts = {"eth0": POD, name: PodInterface(name, "02:00:00:00:00:02", (("192.0.2.7", 24),), None, 1450)}
    first, second = network.plans({"metadata": {"uid": "uid"}, "spec": spec}, facts)
    assert (first.name, first.tap, first.addresses) == ("default", "tap0", ("fd00::5", "10.244.0.5"))
    assert (second.name, second.bridge, second.tap) == ("blue", "k6t-16477688c0e", "tap16477688c0e")
    assert (second.wire, second.server_ip, second.guest_ip) == ("16477688c0e-nic", "169.254.75.11", "192.0.2.7")
    assert (second.gateway, second.mtu, second.own_addresses) == (None, 1450, ("192.0.2.7",))
    names = [*vars(second).values(), second.wire]
    assert all(len(each) <= 15 for each in names if isinstance(each, str) and "16477688c0e" in each)


def test_a_network_without_addresses() -> None:
    pod = PodInterface("pod1", "02:00:00:00:00:02", (), None, 1500)
    plan = network.plan({"name": "blue", "bridge": {}}, {"name": "blue", "multus": {"networkName": "n"}}, pod, MAC)
    assert (plan.has_address, plan.guest_ip, plan.server_ip, plan.own_addresses) == (False, "", "", ())


def test_a_network_instead_of_the_pod_network() -> None:
    instead = {"name": "blue", "multus": {"networkName": "n", "default": True}}
    assert pod_interface_name(instead) == "eth0"
    spec = {"domain": {"devices": {"interfaces": [{"name": "blue", "bridge": {}}]}}, "networks": [instead]}
    (plan,) = network.plans({"metadata": {"uid": "uid"}, "spec": spec}, {"eth0": POD})
    assert (plan.guest_mac, plan.tap) == (POD.mac, "tap0")


def test_generated_macs_are_stable_local_and_distinct() -> None:
    macs = {generated_mac(f"uid-{number}", "default") for number in range(100)}
    assert len(macs) == 100
    assert all(mac.startswith("02:") for mac in macs)
    assert generated_mac("uid-1", "default") in macs


@pytest.mark.parametrize(
    ("interface", "net", "pod", "message"),
    [
        ({"name": "a", "sriov": {}}, NETWORK, POD, "'a' has no supported binding"),
        ({"name": "a", "bridge": {}}, {"name": "a"}, POD, "neither the Pod network"),
        ({"name": "a", "masquerade": {}}, {"name": "a", "multus": {}}, POD, "masquerade needs the Pod network"),
        ({"name": "a", "bridge": {}}, NETWORK, PodInterface("eth0", "", (), None, 1500), "no IPv4 address"),
    ],
)
def test_refusals(interface: dict[str, Any], net: dict[str, Any], pod: PodInterface, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network.plan(interface, net, pod, MAC)


def test_host_path() -> None:
    base = PurePosixPath("/pods/uid-1/volumes/kubernetes.io~empty-dir")
    assert paths.host_path("/pods", "uid-1", paths.LIBVIRT_SOCKET) == base / "sockets/libvirt-sock"
    assert paths.host_path("/pods", "uid-1", paths.vnc_socket("vmi")) == base / "private/vmi/virt-vnc"
    with pytest.raises(ValueError, match="/etc/passwd"):
        paths.host_path("/pods", "uid-1", PurePosixPath("/etc/passwd"))


def test_ipv6() -> None:
    pod = network.PodInterface(
        "eth0", "02:00:00:00:00:01", (("10.244.0.5", 16), ("fd00::5", 64)), "10.244.0.1", 1450, gateway6="fd00::1"
    )
    plan = network.plan({"name": "default", "masquerade": {}}, {"name": "default", "pod": {}}, pod, "m")
    assert (plan.guest_ip6, plan.prefix6, plan.gateway6) == ("fd10:0:2::2", 120, "fd10:0:2::1")
    assert plan.own_addresses == ("10.0.2.2", "fd10:0:2::2")
    own = {"name": "default", "pod": {"vmIPv6NetworkCIDR": "fd11::/64"}}
    assert network.plan({"name": "default", "masquerade": {}}, own, pod, "m").guest_ip6 == "fd11::2"
    plan = network.plan({"name": "default", "bridge": {}}, {"name": "default", "pod": {}}, pod, "")
    assert (plan.guest_ip6, plan.prefix6, plan.gateway6) == ("fd00::5", 64, "fd00::1")
    only = replace(pod, name="pod1", addresses=(("fd00::5", 64),))
    plan = network.plan({"name": "a", "bridge": {}}, {"name": "a", "multus": {"networkName": "a"}}, only, "m")
    assert (plan.guest_ip, plan.guest_ip6, plan.has_address) == ("", "fd00::5", True)


@pytest.mark.parametrize(("attachment", "is_tap"), [("tap", True), ("managedTap", False)])
def test_binding_plugins(attachment: str, is_tap: bool) -> None:
    pod = network.PodInterface("pod1", "02:00:00:00:00:01", (("10.1.0.5", 16),), None, 1500, is_tap=is_tap)
    spec = {
        "domain": {"devices": {"interfaces": [{"name": "a", "binding": {"name": "fast"}}]}},
        "networks": [{"name": "a", "multus": {"networkName": "a"}}],
    }
    vmi = {"metadata": {"uid": "u", "name": "vm", "namespace": "ns"}, "spec": spec}
    name = further_interface_name("a")
    (plan,) = network.plans(vmi, {name: pod}, {"fast": attachment})
    assert (plan.binding, plan.tap, plan.has_address) == (attachment, "pod1" if is_tap else "tap1", False)
    assert plan.addresses == ("10.1.0.5",), "the status has them, nobody serves them"
    assert network.plans(vmi, {name: pod}, {"fast": ""}) == (), "its sidecar adds the interface"
    assert network.plans(vmi, {name: pod}) == ()
