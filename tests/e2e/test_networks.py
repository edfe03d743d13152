# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests on several networks of different types: reached from where they should be, and from nowhere else."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from kubernetes.client.exceptions import ApiException

from engine import condition

GROUP, PLURAL = "k8s.cni.cncf.io", "network-attachment-definitions"
STATUS = "k8s.v1.cni.cncf.io/network-status"
#: An address of the outside world behind the macvlan network, and the guest's there.
OUTSIDE, GUEST = "203.0.113.1", "203.0.113.9"


@pytest.fixture
def wire() -> Iterator[str]:
    """A link of the machine for macvlan; its other end, in a namespace of the same name, is the outside world."""
    name = f"tn{uuid.uuid4().hex[:8]}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    ip("netns", "add", name)
    ip("link", "add", f"{name}m", "type", "veth", "peer", "name", "wire", "netns", name)
    ip("link", "set", f"{name}m", "up")
    ip("-n", name, "addr", "add", f"{OUTSIDE}/24", "dev", "wire")
    ip("-n", name, "link", "set", "wire", "up")
    yield name
    ip("netns", "delete", name)
    subprocess.run(["ip", "link", "delete", f"{name}b"], capture_output=True, check=False)


def ipv4(wire: str) -> str:
    """The beginning of a network's addresses that the machine has one of; runs of the tests don't meet."""
    return f"100.{64 + int(wire[2:4], 16) % 64}.{int(wire[4:6], 16)}."


def define(cluster: Cluster, namespace: str, name: str, config: dict[str, Any] | str) -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    body = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name},
        "spec": {"config": text},
    }
    cluster.custom.create_namespaced_custom_object(GROUP, "v1", namespace, PLURAL, body)


def with_networks(vm: dict[str, Any], *names: str) -> dict[str, Any]:
    """Add interfaces on secondary networks."""
    spec = vm["spec"]["template"]["spec"]
    for name in names:
        spec["networks"].append({"name": name, "multus": {"networkName": name}})
        spec["domain"]["devices"]["interfaces"].append({"name": name, "bridge": {}})
    return vm


def answers(run: Callable[[str], str], address: str) -> bool:
    """Whether an address answers, asked by way of a shell."""
    return run(f"busybox ping -c 1 -W 2 {address} >/dev/null 2>&1 && echo yes || echo no").strip() == "yes"


@pytest.fixture
def binding_plugin(cluster: Cluster) -> Iterator[str]:
    """A network binding plugin that has the engine make bridge and tap; its name."""
    where = ("kubevirt.io", "v1", "kubevirt", "kubevirts", "kubevirt")

    def register(plugins: dict[str, Any] | None) -> None:
        body = {"spec": {"configuration": {"network": {"binding": plugins}}}}
        cluster.custom.patch_namespaced_custom_object(*where, body)

    register({"wired": {"domainAttachmentType": "managedTap"}})
    yield "wired"
    register(None)


def test_a_guest_with_three_interfaces(
    cluster: Cluster, namespace: str, wire: str, tmp_path: Path, binding_plugin: str
) -> None:
    leases = tmp_path / "ipam"
    ipam = {"type": "host-local", "dataDir": str(leases), "subnet": "198.51.100.0/24"}
    define(cluster, namespace, "blue", {"cniVersion": "0.4.0", "type": "bridge", "bridge": f"{wire}b", "ipam": ipam})
    define(cluster, namespace, "red", {"cniVersion": "0.4.0", "type": "macvlan", "master": f"{wire}m"})
    cluster.create(namespace, with_networks(cluster.virtual_machine("three"), "blue", "red"))
    vm = with_networks(cluster.virtual_machine("two"), "blue", "red")
    vm["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][2] = {
        "name": "red",
        "binding": {"name": binding_plugin},
    }
    cluster.create(namespace, vm)
    three, two = (cluster.wait_running(namespace, name) for name in ("three", "two"))
    default, blue, red = three["status"]["interfaces"]
    assert [each["name"] for each in (default, blue, red)] == ["default", "blue", "red"]
    assert blue["ipAddress"].startswith("198.51.100.")
    assert "ipAddress" not in red
    assert [each["infoSource"] for each in (default, blue)] == ["domain", "domain, multus-status"]
    reported = json.loads(cluster.launcher(namespace, "three").metadata.annotations[STATUS])
    assert [each["name"] for each in reported[1:]] == [f"{namespace}/blue", f"{namespace}/red"]
    assert [each["interface"] for each in reported[1:]] == [blue["podInterfaceName"], red["podInterfaceName"]]
    assert [each["mac"] for each in reported[1:]] == [blue["mac"], red["mac"]]

    def in_three(command: str) -> str:
        return cluster.ssh(default["ipAddress"], command, timeout=120)

    def in_two(command: str) -> str:
        return cluster.ssh(two["status"]["interfaces"][0]["ipAddress"], command, timeout=120)

    def outside(command: str) -> str:
        return subprocess.run(
            ["ip", "netns", "exec", wire, "sh", "-c", command], capture_output=True, text=True, check=True
        ).stdout

    macs = in_three("cat /sys/class/net/eth0/address /sys/class/net/eth1/address /sys/class/net/eth2/address")
    assert macs.split() == [default["mac"], blue["mac"], red["mac"]]
    in_three(f"ip addr add {GUEST}/24 dev eth2")
    other = two["status"]["interfaces"][1]["ipAddress"]
    for run, address in ((in_three, blue["ipAddress"]), (in_two, other)):
        lease = f"ip addr show eth1 | grep -q {address}/24"
        run(f"n=0; until {lease} || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done; {lease} && echo yes")
    # from where it should be
    assert answers(in_two, blue["ipAddress"])
    assert answers(outside, GUEST)
    assert answers(in_three, OUTSIDE)
    # and from nowhere else
    assert not answers(in_two, GUEST)
    outside(f"ip route add 198.51.100.0/24 via {GUEST}; ip route add 10.0.0.0/8 via {GUEST}")
    assert not answers(outside, other)
    assert not answers(outside, two["status"]["interfaces"][0]["ipAddress"])
    machine = subprocess.run(["busybox", "ping", "-c1", "-W1", blue["ipAddress"]], capture_output=True, check=False)
    assert machine.returncode, "the bridge has no address on the machine"

    # A binding plugin connects it as well, and doesn't have it served.
    assert "ipAddress" not in two["status"]["interfaces"][2]
    in_two("ip addr add 203.0.113.8/24 dev eth2")
    assert answers(in_two, OUTSIDE)
    # A MAC address that another machine uses on the same network
    vm = with_networks(cluster.virtual_machine("double"), "blue")
    vm["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][1]["macAddress"] = blue["mac"]
    cluster.create(namespace, vm)
    words = f"VirtualMachineInstance three uses {blue['mac']} on the same network; give one of them another MAC"
    cluster.wait_event(namespace, "double", ["FailedCreate", words], timeout=30)
    cluster.delete(namespace, "double")

    # In another's name: an address that isn't the guest's, and a MAC.
    assert answers(in_three, other)
    in_three("ip addr add 198.51.100.200/24 dev eth1")
    assert "0 packets received" in in_three(f"ping -c 1 -W 2 -I 198.51.100.200 {other}; true")
    in_three("ip addr del 198.51.100.200/24 dev eth1; ip link set eth2 address 02:00:00:00:00:77")
    assert not answers(in_three, OUTSIDE)
    in_three(f"ip link set eth2 address {red['mac']}")
    assert answers(in_three, OUTSIDE)

    # Whoever set this up isn't needed.
    cluster.kill("virt-standalone podrunner")
    cluster.kill("virt-handler")
    assert answers(in_two, blue["ipAddress"])
    cluster.subresource(namespace, "three", "restart")
    again = cluster.wait_running(namespace, "three", not_uid=three["metadata"]["uid"])
    assert [each["mac"] for each in again["status"]["interfaces"]] == [each["mac"] for each in (default, blue, red)]
    for name in ("three", "two"):
        cluster.delete(namespace, name)
    for name in ("three", "two"):
        cluster.wait_gone(namespace, name)
    assert not list(leases.rglob("192.*")), "addresses are released"


def test_a_network_that_is_not_there_is_named(cluster: Cluster, namespace: str, wire: str) -> None:
    cluster.create(namespace, with_networks(cluster.virtual_machine("waits"), "blue"))
    words = f"NetworkAttachmentDefinition {namespace}/blue does not exist"
    cluster.wait_event(namespace, "waits", ["CreatePodSandboxError", words], timeout=30)
    vmi = cluster.get(namespace, "virtualmachineinstances", "waits")
    assert vmi is not None
    assert words in condition(vmi, "Synchronized")["message"]
    with pytest.raises(ApiException) as refused:
        define(cluster, namespace, "blue", "{")
    assert (refused.value.status, "spec.config" in refused.value.body) == (422, True)
    define(cluster, namespace, "blue", {"cniVersion": "0.4.0", "type": "bridge", "bridge": f"{wire}b"})
    cluster.wait_running(namespace, "waits")


def wait_inside(run: Callable[[str], str], condition: str) -> None:
    """Wait in a guest until a condition of its shell holds."""
    loop = f"n=0; until {condition} || [ $n -gt 300 ]; do usleep 100000; n=$((n+1)); done"
    assert run(f"{loop}; {condition} && echo yes || true").strip() == "yes", condition


def test_an_interface_comes_and_goes(cluster: Cluster, namespace: str, wire: str, tmp_path: Path) -> None:
    """It is plugged into a running guest, loses its link and gets it back, and is unplugged."""
    cluster.create(namespace, cluster.virtual_machine("plugs", binding="masquerade"))
    vmi = cluster.wait_running(namespace, "plugs")
    address = vmi["status"]["interfaces"][0]["ipAddress"]
    cluster.ssh(address, "true", timeout=180)
    template = vmi["spec"]
    lan = {"name": "lan", "multus": {"networkName": "lan"}}

    def template_with(*interfaces: dict[str, Any]) -> None:
        spec = {
            "domain": {"devices": {"interfaces": [*template["domain"]["devices"]["interfaces"], *interfaces]}},
            "networks": [*template["networks"], *([lan] if interfaces else [])],
        }
        cluster.patch(namespace, "plugs", {"spec": {"template": {"spec": spec}}})

    def wait_interface(matches: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        def entry(obj: dict[str, Any] | None) -> dict[str, Any]:
            return next((each for each in (obj or {})["status"]["interfaces"] if each.get("name") == "lan"), {})

        kind = "virtualmachineinstances"
        return entry(cluster.wait(namespace, kind, "plugs", lambda obj: matches(entry(obj)), timeout=60, what=what))

    def inside(command: str) -> str:
        return cluster.ssh(address, command)

    def until(condition: str) -> None:
        wait_inside(inside, condition)

    template_with({"name": "lan", "bridge": {}})
    launcher = cluster.launcher(namespace, "plugs").metadata
    events = f"NetworkAttachmentDefinition {namespace}/lan does not exist"
    cluster.wait_event(namespace, launcher.name, ["FailedAttachNetwork", events], timeout=30)
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "subnet": f"{ipv4(wire)}0/24"}
    bridge = {"cniVersion": "0.4.0", "type": "bridge", "bridge": f"{wire}b", "isGateway": True, "ipam": ipam}
    define(cluster, namespace, "lan", bridge)
    plugged = wait_interface(lambda each: "domain" in each.get("infoSource", ""), "interface in the guest")
    assert plugged["infoSource"] == "domain, multus-status"
    assert plugged["linkState"] == "up"
    until("test -e /sys/class/net/eth1")
    assert cluster.ssh(address, "cat /sys/class/net/eth1/address").strip() == plugged["mac"]
    cluster.ssh(address, "ip link set eth1 up; udhcpc -i eth1 -n -q -t 10 -s /bin/dhcp")
    until(f"ip addr show eth1 | grep -q {plugged['ipAddress']}/24")
    subprocess.run(["busybox", "ping", "-c1", "-W5", plugged["ipAddress"]], check=True, capture_output=True)

    template_with({"name": "lan", "bridge": {}, "state": "down"})
    wait_interface(lambda each: each.get("linkState") == "down", "link that is down")
    until("test $(cat /sys/class/net/eth1/carrier) = 0")
    template_with({"name": "lan", "bridge": {}, "state": "up"})
    until("test $(cat /sys/class/net/eth1/carrier) = 1")

    cluster.kill("virt-handler")
    template_with({"name": "lan", "bridge": {}, "state": "absent"})
    wait_interface(lambda each: not each, "interface that is gone")
    until("test ! -e /sys/class/net/eth1")
    launcher = cluster.launcher(namespace, "plugs").metadata
    assert launcher.annotations["k8s.v1.cni.cncf.io/networks"] == "[]"
    assert [each["name"] for each in json.loads(launcher.annotations[STATUS])][1:] == []
    assert not list((tmp_path / "ipam").rglob(f"{ipv4(wire)}*")), "its address is released"
    vm = cluster.wait(
        namespace,
        "virtualmachines",
        "plugs",
        lambda obj: len(obj["spec"]["template"]["spec"]["networks"]) == 1,
        timeout=30,
        what="template without the interface",
    )
    assert not condition(vm or {}, "RestartRequired")
    assert cluster.get(namespace, "virtualmachineinstances", "plugs")["metadata"]["uid"] == vmi["metadata"]["uid"]


def check_ipv6(cluster: Cluster, addresses: dict[str, list[str]], prefix: str) -> None:
    """With a bridge (web), the guest has the Pod's address; with masquerade (db), the Pod leads to the guest."""

    def inside(name: str) -> Callable[[str], str]:
        return lambda command: cluster.ssh(addresses[name][0], command, timeout=180)

    for name, own, length in (("web", addresses["web"][1], 64), ("db", "fd10:0:2::2", 120)):
        wait_inside(inside(name), "ip -6 route show default dev eth0 | grep -q 'via fe80::'")
        # The image has no client for DHCPv6.
        inside(name)(f"ip -6 addr add {own}/{length} dev eth0")
        wait_inside(inside(name), "! ip -6 addr show dev eth0 | grep -q tentative")
    for name, other in (("web", "db"), ("db", "web")):
        for address in (addresses[other][1], f"{prefix}1"):
            wait_inside(inside(name), f"ping -6 -c 1 -W 5 {address} >/dev/null 2>&1")
        assert "yes" in cluster.ssh(addresses[name][1], "echo yes"), "from the machine, by IPv6"
    inside("web")(f"ip -6 addr add {prefix}bad/64 dev eth0; sleep 2")
    spoofed = f"ping -6 -c 1 -W 2 -I {prefix}bad {prefix}1 >/dev/null 2>&1 && echo yes || echo no"
    assert inside("web")(spoofed).strip() == "no", "in another's name"
    inside("web")(f"ip -6 addr del {prefix}bad/64 dev eth0")


def test_ipv6_and_network_policies(
    cluster: Cluster, namespace: str, kubectl: Callable[..., str], wire: str, tmp_path: Path
) -> None:
    """Between guests of either binding, in both address families. The machine itself isn't restricted."""
    prefix = f"fd00:{wire[2:6]}:{wire[6:10]}:1::"
    ipam = {
        "type": "host-local",
        "dataDir": str(tmp_path / "ipam"),
        "ranges": [[{"subnet": f"{ipv4(wire)}0/24"}], [{"subnet": f"{prefix}/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    bridge = {"cniVersion": "0.4.0", "type": "bridge", "bridge": f"{wire}b", "isGateway": True, "ipam": ipam}
    define(cluster, namespace, "dual", bridge)
    addresses: dict[str, list[str]] = {}
    for name, binding in (("web", "bridge"), ("db", "masquerade")):
        vm = cluster.virtual_machine(name, binding=binding, labels={"app": name})
        vm["spec"]["template"]["metadata"]["annotations"] = {"v1.multus-cni.io/default-network": "dual"}
        cluster.create(namespace, vm)
    for name in ("web", "db"):
        (interface,) = cluster.wait_running(namespace, name)["status"]["interfaces"]
        addresses[name] = interface["ipAddresses"]
        assert interface["ipAddress"].startswith(ipv4(wire))
        assert [address.startswith(prefix) for address in interface["ipAddresses"]] == [False, True]
    check_ipv6(cluster, addresses, prefix)

    def reaches(name: str, other: str) -> set[str]:
        """What an attempt in each address family says."""
        attempts = (
            f"timeout 3 nc {one} 22 </dev/null | grep -q SSH && echo yes || echo no" for one in addresses[other]
        )
        return set(cluster.ssh(addresses[name][0], "; ".join(attempts)).split())

    def until(wanted: str, name: str, other: str) -> None:
        deadline = time.monotonic() + cluster.seconds(30)
        while reaches(name, other) != {wanted}:  # rules can't be watched from outside
            assert time.monotonic() < deadline

    def apply(name: str, spec: dict[str, Any]) -> None:
        kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
        kubectl("apply", "-f", "-", stdin=json.dumps({**kind, "metadata": {"name": name}, "spec": spec}))

    for pair in (("web", "db"), ("db", "web")):
        until("yes", *pair)
    apply("none", {"podSelector": {}, "policyTypes": ["Ingress"]})
    for pair in (("web", "db"), ("db", "web")):
        until("no", *pair)
    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    apply("db", {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [web], "ports": [{"port": 22}]}]})
    until("yes", "web", "db")
    assert reaches("db", "web") == {"no"}
    cluster.kill("virt-standalone podrunner")
    assert reaches("db", "web") == {"no"}
    kubectl("delete", "networkpolicy", "--all")
    until("yes", "db", "web")


def has_passt() -> bool:
    """Whether this machine's libvirt knows passt: from Debian 13 on."""
    words = subprocess.run(["libvirtd", "--version"], capture_output=True, text=True, check=True).stdout.split()
    return tuple(map(int, words[-1].split(".")[:2])) >= (11, 1)


def test_a_guest_behind_passt(cluster: Cluster, namespace: str) -> None:
    """It has its Pod's address and is reached there, or is told why it can't be."""
    vm = cluster.virtual_machine("web", binding="passtBinding")
    vm["spec"]["runStrategy"] = "Once"
    (interface,) = vm["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"]
    interface["ports"] = [{"port": 22}]
    cluster.create(namespace, vm)
    if not has_passt():
        cluster.wait_event(namespace, "web", ["passtBinding needs libvirt 11.1.0 or later in the launcher"], timeout=60)
        vmi = cluster.wait_phase(namespace, "web", "Failed")
        assert condition(vmi, "LiveMigratable").get("reason") != "InterfaceNotLiveMigratable"
        return
    vmi = cluster.wait_running(namespace, "web")
    (found,) = vmi["status"]["interfaces"]
    pod = cluster.launcher(namespace, "web")
    assert found["ipAddress"] == pod.status.pod_ip
    assert f" {pod.status.pod_ip}/" in cluster.ssh(pod.status.pod_ip, "ip -4 -o addr show eth0")
