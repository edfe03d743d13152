# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests behind Services: by cluster IP and by node port, from the machine and from another guest."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import dns.exception
import dns.message
import dns.query
import pytest
from cluster import Cluster
from conftest import VARIABLES

Kubectl = Callable[..., str]


@pytest.fixture
def pair(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Two running guests, of either binding; their addresses."""
    for name, binding in (("one", "masquerade"), ("two", "bridge")):
        vm = cluster.virtual_machine(name, binding=binding, labels={"app": name})
        cluster.create(namespace, vm)
    addresses = {}
    for name in ("one", "two"):
        addresses[name] = cluster.wait_running(namespace, name)["status"]["interfaces"][0]["ipAddress"]
        cluster.ssh(addresses[name], "true", timeout=180)
    return addresses


def banner(address: str, port: int, *, timeout: float = 30) -> str:
    """The first words of an SSH server."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection((address, port), timeout=5) as sock:
                return sock.recv(8).decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)  # rules that lead there can't be watched from outside


def refused(address: str, port: int, *, timeout: float = 30) -> None:
    """Until connections are refused."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address, port), timeout=5).close()
        except ConnectionRefusedError:
            return
        except TimeoutError:
            continue
        time.sleep(0.1)  # rules can't be watched from outside
    raise AssertionError(f"{address}:{port} still accepts connections")


def service(kubectl: Kubectl, name: str) -> dict[str, Any]:
    return json.loads(kubectl("get", "service", name, "-o", "json"))["spec"]


def addresses(cluster: Cluster, name: str, kind: str = "A") -> set[str]:
    """What a name leads to; nothing if there is none."""
    server = cluster.core.read_namespaced_service("kube-dns", "kube-system").spec.cluster_ip
    query = dns.message.make_query(name, kind)
    for _attempt in range(10):
        with contextlib.suppress(dns.exception.Timeout, ConnectionRefusedError):  # it was killed, and begins again
            answer = dns.query.udp(query, server, timeout=3)
            break
    else:
        raise AssertionError(f"no answer from {server}")
    return {item.to_text() for records in answer.answer for item in records}


def wait_addresses(cluster: Cluster, name: str, expected: set[str], *, timeout: float = 30) -> None:
    """Until a name leads somewhere."""
    deadline = time.monotonic() + timeout
    while (found := addresses(cluster, name)) != expected:
        assert time.monotonic() < deadline, f"{name} leads to {found}, not to {expected}"
        time.sleep(0.1)  # DNS can't be watched


def test_guests_behind_services(cluster: Cluster, namespace: str, pair: dict[str, str], kubectl: Kubectl) -> None:
    for name in ("one", "two"):
        (pod,) = kubectl("get", "pod", "-l", f"vmi.kubevirt.io/id={name}", "-o", "name").split()
        kubectl(
            "expose",
            pod,
            "--name",
            name,
            "--port",
            "2222",
            "--target-port",
            "22",
            "--type",
            "NodePort",
            "--selector",
            f"app={name}",
        )
    for name in ("one", "two"):
        spec = service(kubectl, name)
        assert banner(spec["clusterIP"], 2222).startswith("SSH-")
        for address in ("127.0.0.1", f"{pair[name].rsplit('.', 2)[0]}.0.1"):
            assert banner(address, spec["ports"][0]["nodePort"]).startswith("SSH-")
    # The machine's other addresses serve no node port unless asked.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        outward = probe.getsockname()[0]
    with pytest.raises(OSError, match=r"refused|unreachable"):
        socket.create_connection((outward, service(kubectl, "one")["ports"][0]["nodePort"]), timeout=5)
    # From outside the cluster, at an address of the machine's.
    kubectl("patch", "service", "two", "--type=merge", "-p", json.dumps({"spec": {"type": "LoadBalancer"}}))
    (outside,) = VARIABLES["turtles_external_addresses"]
    kubectl("wait", "service/two", f"--for=jsonpath={{.status.loadBalancer.ingress[0].ip}}={outside}", "--timeout=30s")
    assert "SSH-" in cluster.ssh(pair["one"], f"(sleep 5 | nc {outside} 2222) | head -c 4")
    # By name, as DHCP told the guests where to ask, and from the machine.
    for client, target in (("one", "two"), ("two", "one")):
        told = cluster.ssh(pair[client], f"(sleep 5 | nc {target} 2222) | head -c 4")
        assert "SSH-" in told, (client, target)
    domain = f"{namespace}.svc.cluster.local"
    assert addresses(cluster, f"one.{domain}") == {service(kubectl, "one")["clusterIP"]}
    assert addresses(cluster, f"two.{namespace}.svc.cluster.example") == set()
    # From the other guest, and from itself.
    for client, target in (("one", "two"), ("two", "one"), ("one", "one"), ("two", "two")):
        address = service(kubectl, target)["clusterIP"]
        told = cluster.ssh(pair[client], f"(sleep 5 | nc {address} 2222) | head -c 4")
        assert "SSH-" in told, (client, target)
    # A second family comes. The image has no client for DHCPv6.
    cluster.ssh(pair["one"], "ip -6 addr add fd10:0:2::2/120 dev eth0")
    kubectl(
        "patch", "service", "one", "--type=merge", "-p", json.dumps({"spec": {"ipFamilyPolicy": "PreferDualStack"}})
    )
    ipv4, ipv6 = service(kubectl, "one")["clusterIPs"]
    assert ipv6.startswith(VARIABLES["turtles_service_cidr_ipv6"].partition("::")[0])
    for address in (ipv4, ipv6):
        assert banner(address, 2222).startswith("SSH-")
    assert addresses(cluster, f"one.{domain}", "AAAA") == {ipv6}
    assert "SSH-" in cluster.ssh(pair["one"], f"(sleep 5 | nc {ipv6} 2222) | head -c 4")


def test_a_service_without_running_guest_refuses(cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    kubectl("create", "service", "clusterip", "nobody", "--tcp=22:22")
    address = service(kubectl, "nobody")["clusterIP"]
    refused(address, 22)
    guest = cluster.virtual_machine("late", labels={"app": "nobody"}, grace_period=8)
    cluster.create(namespace, guest)
    own = cluster.wait_running(namespace, "late")["status"]["interfaces"][0]["ipAddress"]
    assert banner(address, 22, timeout=180).startswith("SSH-")
    # A guest that has been told to shut down, and takes its time, is served no more.
    cluster.ssh(own, "rmmod button; rmmod evdev; true")
    cluster.patch(namespace, "late", {"spec": {"runStrategy": "Halted"}})
    refused(address, 22)
    leaving = cluster.get(namespace, "virtualmachineinstances", "late")
    assert leaving is not None
    assert leaving["status"]["phase"] == "Running"
    cluster.wait_stopped(namespace, "late")
    refused(address, 22)


def test_a_guest_with_a_name_of_its_own(cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    kubectl("create", "service", "clusterip", "db", "--clusterip=None", "--tcp=22:22")
    kubectl("label", "service", "db", "app=db")
    guest = cluster.virtual_machine("first", labels={"app": "db"}, grace_period=0)
    guest["spec"]["template"]["spec"] |= {"hostname": "primary", "subdomain": "db"}
    cluster.create(namespace, guest)
    address = cluster.wait_running(namespace, "first")["status"]["interfaces"][0]["ipAddress"]
    name = f"db.{namespace}.svc.cluster.local"
    for asked in (name, f"primary.{name}"):
        wait_addresses(cluster, asked, {address})
    # The server finds everything again, and what has gone has no name any more.
    cluster.kill("virt-standalone dns")
    cluster.patch(namespace, "first", {"spec": {"runStrategy": "Halted"}})
    cluster.wait_stopped(namespace, "first")
    for asked in (name, f"primary.{name}"):
        wait_addresses(cluster, asked, set())


def test_the_rules_outlive_the_podrunner(cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    cluster.create(namespace, cluster.virtual_machine("web", labels={"app": "web"}))
    kubectl("create", "service", "clusterip", "web", "--tcp=22:22")
    cluster.wait_running(namespace, "web")
    address = service(kubectl, "web")["clusterIP"]
    assert banner(address, 22, timeout=180).startswith("SSH-")
    cluster.kill("virt-standalone podrunner")
    assert banner(address, 22, timeout=0).startswith("SSH-")
    rules = subprocess.run(
        ["nft", "list", "table", "ip", f"{cluster.instance}-services"], check=True, capture_output=True, text=True
    ).stdout
    assert address in rules
