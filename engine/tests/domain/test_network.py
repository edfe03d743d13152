# SPDX-License-Identifier: GPL-3.0-or-later
from pathlib import PurePosixPath
from typing import Any

import pytest

from turtles.domain import network, paths
from turtles.domain.network import PodInterface, Port

POD = PodInterface("eth0", "0a:58:0a:f4:00:05", (("fd00::5", 64), ("10.244.0.5", 16)), "10.244.0.1", 1400)
NETWORK = {"name": "default", "pod": {}}


def test_bridge_moves_the_pods_identity() -> None:
    plan = network.plan({"name": "default", "bridge": {}}, NETWORK, POD, "uid")
    assert (plan.guest_mac, plan.guest_ip, plan.prefix, plan.gateway) == (POD.mac, "10.244.0.5", 16, "10.244.0.1")
    assert (plan.bridge, plan.tap, plan.server_ip, plan.mtu) == ("k6t-eth0", "tap0", "169.254.75.10", 1400)


def test_masquerade() -> None:
    interface = {"name": "default", "masquerade": {}, "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}
    plan = network.plan(interface, NETWORK, POD, "uid")
    assert (plan.guest_ip, plan.prefix, plan.gateway, plan.server_ip) == ("10.0.2.2", 24, "10.0.2.1", "10.0.2.1")
    assert plan.ports == (Port("tcp", 80), Port("udp", 53))
    assert plan.guest_mac == network.generated_mac("uid", "default")


def test_masquerade_in_another_network() -> None:
    plan = network.plan(
        {"name": "default", "masquerade": {}}, {"name": "default", "pod": {"vmNetworkCIDR": "10.9.8.0/28"}}, POD, "uid"
    )
    assert (plan.guest_ip, plan.prefix, plan.gateway) == ("10.9.8.2", 28, "10.9.8.1")


@pytest.mark.parametrize("binding", ["bridge", "masquerade"])
@pytest.mark.parametrize("mac", ["02:00:00:AA:BB:CC", "02-00-00-aa-bb-cc"])
def test_a_mac_that_was_asked_for(binding: str, mac: str) -> None:
    plan = network.plan({"name": "default", binding: {}, "macAddress": mac}, NETWORK, POD, "uid")
    assert plan.guest_mac == "02:00:00:aa:bb:cc"


def test_generated_macs_are_stable_local_and_distinct() -> None:
    macs = {network.generated_mac(f"uid-{number}", "default") for number in range(100)}
    assert len(macs) == 100
    assert all(mac.startswith("02:") for mac in macs)
    assert network.generated_mac("uid-1", "default") in macs


@pytest.mark.parametrize(
    ("interface", "net", "pod", "message"),
    [
        ({"name": "a", "sriov": {}}, NETWORK, POD, "'a' has no supported binding"),
        ({"name": "a", "bridge": {}}, {"name": "a", "multus": {}}, POD, "not the Pod network"),
        ({"name": "a", "bridge": {}}, NETWORK, PodInterface("eth0", "", (), None, 1500), "no IPv4 address"),
    ],
)
def test_refusals(interface: dict[str, Any], net: dict[str, Any], pod: PodInterface, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network.plan(interface, net, pod, "uid")


def test_host_path() -> None:
    base = PurePosixPath("/pods/uid-1/volumes/kubernetes.io~empty-dir")
    assert paths.host_path("/pods", "uid-1", paths.LIBVIRT_SOCKET) == base / "sockets/libvirt-sock"
    assert paths.host_path("/pods", "uid-1", paths.vnc_socket("vmi")) == base / "private/vmi/virt-vnc"
    with pytest.raises(ValueError, match="/etc/passwd"):
        paths.host_path("/pods", "uid-1", PurePosixPath("/etc/passwd"))
