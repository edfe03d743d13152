# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets through the rules: a machine and its Pods in network namespaces of their own."""

import ctypes
import os
import socket
import subprocess
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from turtles.standalone.proxy import table as tables
from turtles.standalone.proxy.rules import Settings, compute, frame

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")

SETTINGS = Settings("t-services", "10.96.0.0/16", ("127.0.0.0/8", "10.9.0.0/24"), ("10.9.0.0/24",))


def service(name, address, node_port=None, **spec):
    """Return a Service that leads port 80 on."""
    port = {"port": 80, "protocol": "TCP"} | ({"nodePort": node_port} if node_port else {})
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "NodePort" if node_port else "ClusterIP", "clusterIP": address, "ports": [port], **spec},
    }


IPV6 = Settings("t-services", "fd00:96::/112", ("fd00:9::1/128",), ("fd00:9::/64",), ("2001:db8::/64",))


def leads_to(name, *addresses, port=8080, protocol="TCP"):
    """Return an EndpointSlice."""
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
        "ports": [{"name": "", "port": port, "protocol": protocol}],
        "endpoints": [{"addresses": [one], "conditions": {"ready": True}} for one in addresses],
    }


class Namespace:
    """A network namespace; what is called within it runs in a thread of its own."""

    def __init__(self, name):
        self.name = name
        self.ip("netns", "add", name, where=None)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words, where=""):
        """Run ip in the namespace."""
        prefix = [] if where is None else ["-n", self.name]
        subprocess.run(["ip", *prefix, *words], check=True, capture_output=True)

    def call(self, function, *args):
        """Return what a function returns that runs in here."""

        def entered():
            with open(f"/run/netns/{self.name}") as file:
                assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) == 0
            return function(*args)

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(entered).result(30)

    def serve(self, address, port=8080):
        """Tell every client who it is connected with and where from it seems to come."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = self.call(lambda: socket.create_server((address, port), family=family))

        def work():
            while True:
                try:
                    client, peer = listener.accept()
                except OSError:
                    return
                with client:
                    client.sendall(f"{self.name[-2:]} {peer[0]}".encode())

        threading.Thread(target=work, daemon=True).start()
        return listener

    def ask(self, address, port=80):
        """Return who answers and the address that it sees."""

        def connected():
            with socket.create_connection((address, port), timeout=5) as sock:
                return tuple(sock.makefile().read().split())

        return self.call(connected)


@pytest.fixture
def world():
    """A machine with a bridge and two Pods, each with a server."""
    prefix = f"t{uuid.uuid4().hex[:6]}"
    made, listeners = [], []
    try:
        host = Namespace(f"{prefix}-h0")
        made.append(host)
        host.ip("link", "add", "br0", "type", "bridge")
        host.ip("addr", "add", "10.9.0.1/24", "dev", "br0")
        host.ip("link", "set", "br0", "up")
        # No addresses that are tried for doubles first: they would come too late
        host.ip("addr", "add", "fd00:9::1/64", "dev", "br0", "nodad")
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            host.call(Path("/proc/sys/net", path).write_text, "1")
        pods = []
        for number in (1, 2):
            pod = Namespace(f"{prefix}-p{number}")
            made.append(pod)
            pods.append(pod)
            host.ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", pod.name)
            host.ip("link", "set", f"v{number}", "master", "br0", "up")
            # As the CNI plugin has it: with br_netfilter a Pod's own answer comes back on the same port.
            host.ip("link", "set", f"v{number}", "type", "bridge_slave", "hairpin", "on")
            pod.ip("addr", "add", f"10.9.0.1{number}/24", "dev", "eth0")
            pod.ip("link", "set", "eth0", "up")
            pod.ip("addr", "add", f"fd00:9::1{number}/64", "dev", "eth0", "nodad")
            pod.ip("route", "add", "default", "via", "10.9.0.1")
            pod.ip("route", "add", "default", "via", "fd00:9::1")
            listeners += [pod.serve(f"10.9.0.1{number}"), pod.serve(f"fd00:9::1{number}")]
        listeners.append(host.serve("127.0.0.1", 6443))
        yield host, *pods
    finally:
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for one in made:
            subprocess.run(["ip", "netns", "delete", one.name], check=True)


def test_a_cluster_ip_is_reached_from_machine_and_pods(world):
    host, p1, _ = world
    table = tables.Table(SETTINGS, ("br0",))
    services, slices = [service("web", "10.96.0.10")], [leads_to("web", "10.9.0.12")]
    host.call(table.apply, compute(SETTINGS, services, slices))
    # The machine has no other route than the bridge's: nothing leads to cluster IPs but what the table brings.
    assert host.ask("10.96.0.10") == ("p2", "10.9.0.1")
    assert p1.ask("10.96.0.10") == ("p2", "10.9.0.1")
    slices = [leads_to("web", "10.9.0.11", "10.9.0.12")]
    host.call(table.apply, compute(SETTINGS, services, slices))
    assert {host.ask("10.96.0.10")[0] for _ in range(40)} == {"p1", "p2"}
    host.call(table.apply, compute(SETTINGS, services, [leads_to("web", "10.9.0.11")]))
    assert host.ask("10.96.0.10")[0] == "p1"
    # A Pod reaches itself through its Service.
    assert p1.ask("10.96.0.10")[0] == "p1"


def test_where_nobody_is_the_client_learns_it_at_once(world):
    host, p1, _ = world
    table = tables.Table(SETTINGS, ("br0",))
    host.call(table.apply, compute(SETTINGS, [service("web", "10.96.0.10", 30080)], []))
    for where in (host, p1):
        for port in (80, 81):
            with pytest.raises(ConnectionRefusedError):
                where.ask("10.96.0.10", port)
        with pytest.raises(ConnectionRefusedError):
            where.ask("10.96.200.200")
    with pytest.raises(ConnectionRefusedError):
        host.ask("127.0.0.1", 30080)


def test_node_ports(world):
    host, p1, _ = world
    table = tables.Table(SETTINGS, ("br0",))
    host.ip("addr", "add", "198.51.100.1/32", "dev", "br0")
    rules = compute(SETTINGS, [service("web", "10.96.0.10", 30080)], [leads_to("web", "10.9.0.12")])
    host.call(table.apply, rules)
    assert host.ask("127.0.0.1", 30080) == ("p2", "10.9.0.1")
    assert host.ask("10.9.0.1", 30080)[0] == "p2"
    assert p1.ask("10.9.0.1", 30080)[0] == "p2"
    # Not among the addresses that were asked for.
    with pytest.raises(ConnectionRefusedError):
        host.ask("198.51.100.1", 30080)
    everywhere = Settings(SETTINGS.table, SETTINGS.service_range, ("0.0.0.0/0",), SETTINGS.pod_ranges)
    host.call(tables.Table(everywhere, ("br0",)).apply, rules)
    assert host.ask("198.51.100.1", 30080)[0] == "p2"
    assert p1.ask("198.51.100.1", 30080)[0] == "p2"


def balanced(name, address, *given, **spec):
    """Return a Service of type LoadBalancer that has addresses."""
    found = service(name, address, type="LoadBalancer", **spec)
    return found | {"status": {"loadBalancer": {"ingress": [{"ip": one} for one in given]}}}


def test_addresses_outside_the_cluster(world):
    host, p1, _ = world
    host.ip("addr", "add", "198.51.100.1/32", "dev", "br0")
    host.ip("addr", "add", "198.51.100.2/32", "dev", "br0")
    host.ip("addr", "add", "203.0.113.1/32", "dev", "br0")
    outside = Settings(*astuple(SETTINGS)[:4], ("198.51.100.0/24",))
    services = [
        balanced("web", "10.96.0.10", "198.51.100.1", externalIPs=["198.51.100.2", "203.0.113.1"]),
        balanced("thief", "10.96.0.11", "198.51.100.1"),
        balanced("few", "10.96.0.12", "198.51.100.2", loadBalancerSourceRanges=["10.9.0.11/32"]),
    ]
    services[2]["spec"]["ports"][0]["port"] = 81
    slices = [leads_to("web", "10.9.0.12"), leads_to("thief", "10.9.0.11"), leads_to("few", "10.9.0.12")]
    host.call(tables.Table(outside, ("br0",)).apply, compute(outside, services[::-1], slices))
    for client in (host, p1):
        assert client.ask("198.51.100.2")[0] == "p2"
    # Not among those that were given to Services
    with pytest.raises(ConnectionRefusedError):
        host.ask("203.0.113.1")
    # Of two that claim one address, one has it, always the same
    assert {host.ask("198.51.100.1")[0] for _ in range(5)} == {"p1"}
    assert p1.ask("198.51.100.2", 81)[0] == "p2"
    with pytest.raises(TimeoutError):
        host.ask("198.51.100.2", 81)


def test_loopback_stays_the_machines_own(world):
    host, p1, _ = world
    table = tables.Table(SETTINGS, ("br0",))
    services = [service("kubernetes", "10.96.0.1"), service("web", "10.96.0.10", 30080)]
    slices = [leads_to("kubernetes", "127.0.0.1", port=6443), leads_to("web", "10.9.0.12")]
    host.call(table.apply, compute(SETTINGS, services, slices))
    assert host.ask("10.96.0.1")[0] == "h0"
    with pytest.raises(ConnectionRefusedError):
        p1.ask("10.96.0.1")
    # A Pod that sends to 127.0.0.1 by the wire reaches nothing, though answers for it come in there.
    p1.call(lambda: Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1"))
    p1.ip("route", "del", "local", "127.0.0.0/8", "table", "local")
    p1.ip("route", "del", "local", "127.0.0.1", "table", "local")
    p1.ip("route", "add", "127.0.0.1", "via", "10.9.0.1", "src", "10.9.0.11")

    def connected():
        with socket.socket() as sock:
            sock.settimeout(1)
            sock.connect(("127.0.0.1", 6443))

    with pytest.raises(TimeoutError):
        p1.call(connected)


def test_clients_stay_with_their_pod(world):
    host, _, _ = world
    table = tables.Table(SETTINGS, ("br0",))
    services = [service("web", "10.96.0.10", sessionAffinity="ClientIP")]
    both = compute(SETTINGS, services, [leads_to("web", "10.9.0.11", "10.9.0.12")])
    host.call(table.apply, both)
    mine = host.ask("10.96.0.10")[0]
    assert {host.ask("10.96.0.10")[0] for _ in range(12)} == {mine}
    # Changes of other Services don't forget it.
    more = [*services, service("other", "10.96.0.11")]
    slices = [leads_to("web", "10.9.0.11", "10.9.0.12"), leads_to("other", "10.9.0.12")]
    host.call(table.apply, compute(SETTINGS, more, slices))
    assert {host.ask("10.96.0.10")[0] for _ in range(12)} == {mine}
    # Nor does a new process, which makes the table anew.
    changed = compute(SETTINGS, more, slices)
    for _ in range(8):
        table = tables.Table(SETTINGS)
        host.call(table.apply, changed)
        assert host.ask("10.96.0.10")[0] == mine
    other = {"p1": "10.9.0.12", "p2": "10.9.0.11"}[mine]
    host.call(table.apply, compute(SETTINGS, more, [leads_to("web", other), leads_to("other", "10.9.0.12")]))
    assert host.ask("10.96.0.10")[0] != mine


def test_a_restart_leaves_the_rules_and_a_teardown_nothing(world):
    host, _, _ = world
    rules = compute(SETTINGS, [service("web", "10.96.0.10")], [leads_to("web", "10.9.0.12")])
    host.call(tables.Table(SETTINGS, ("br0",)).apply, rules)
    assert host.ask("10.96.0.10")[0] == "p2"
    second = tables.Table(SETTINGS, ("br0",))
    host.call(second.apply, rules)
    assert host.ask("10.96.0.10")[0] == "p2"

    def listed():
        return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout

    # What Services leave behind goes as well.
    host.call(second.apply, compute(SETTINGS, [], []))
    assert "10.9.0.12" not in host.call(listed)
    assert "endpoint-" not in host.call(listed)

    # The next process may have other settings: nothing of those of before stays, and what is another's does.
    def routes():
        return subprocess.run(["ip", "-n", host.name, "route"], check=True, capture_output=True, text=True).stdout

    neighbour = replace(SETTINGS, table="another-services", service_range="10.95.0.0/16")
    host.call(tables.Table(neighbour).apply, compute(neighbour, [], []))
    elsewhere = replace(SETTINGS, service_range="10.97.0.0/16")
    host.call(tables.Table(elsewhere, ("br0",)).apply, compute(elsewhere, [], []))
    assert "10.97.0.0/16" in routes()
    assert "10.96" not in routes()
    assert "10.95.0.0/16" in routes()
    assert host.call(tables.remove, neighbour) is True
    assert host.call(tables.remove, SETTINGS) is True
    assert SETTINGS.table not in host.call(listed)
    assert host.call(tables.remove, SETTINGS) is False
    assert "10.9" not in routes().replace("10.9.0.", "")


def test_datagrams_follow_when_their_endpoint_goes(world):
    host, p1, p2 = world
    servers = {}
    for pod, address in ((p1, "10.9.0.11"), (p2, "10.9.0.12")):
        server = pod.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((address, 53))
        server.settimeout(60)
        servers[address] = server
    udp = service("dns", "10.96.0.53", 30053)
    udp["spec"]["ports"][0] |= {"protocol": "UDP", "port": 53}

    def leading(address):
        return compute(SETTINGS, [udp], [leads_to("dns", address, port=53, protocol="UDP")])

    table = tables.Table(SETTINGS, ("br0",))
    host.call(table.apply, leading("10.9.0.11"))
    client = host.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    try:
        for target in (("10.96.0.53", 53), ("127.0.0.1", 30053)):
            client.sendto(b"one", target)
            assert servers["10.9.0.11"].recv(10) == b"one"
        host.call(table.apply, leading("10.9.0.12"))
        for target in (("10.96.0.53", 53), ("127.0.0.1", 30053)):
            client.sendto(b"two", target)
            assert servers["10.9.0.12"].recv(10) == b"two"
    finally:
        for sock in (client, *servers.values()):
            sock.close()


def dual(name, *addresses, node_port=None, **spec):
    """Return a Service with cluster IPs of both families."""
    return service(name, addresses[0], node_port, clusterIPs=list(addresses), **spec)


def test_services_of_two_families(world):
    host, p1, p2 = world
    both = [(settings, tables.Table(settings, ("br0",))) for settings in (SETTINGS, IPV6)]

    def apply(services, slices):
        for settings, table in both:
            host.call(table.apply, compute(settings, services, slices))

    web = dual("web", "10.96.0.10", "fd00:96::10", node_port=30080, externalIPs=["2001:db8::1"])
    sticky = service("sticky", "fd00:96::20", sessionAffinity="ClientIP")
    slices = [
        leads_to("web", "10.9.0.12"),
        leads_to("web", "fd00:9::12"),
        leads_to("sticky", "fd00:9::11", "fd00:9::12"),
    ]
    apply([web, sticky], slices)
    assert host.ask("10.96.0.10") == ("p2", "10.9.0.1")
    assert host.ask("fd00:96::10") == ("p2", "fd00:9::1")
    assert p1.ask("fd00:96::10") == ("p2", "fd00:9::1")
    # A Pod reaches itself through its Service
    assert p2.ask("fd00:96::10")[0] == "p2"
    assert p1.ask("2001:db8::1")[0] == "p2"
    assert host.ask("fd00:9::1", 30080)[0] == "p2"
    mine = host.ask("fd00:96::20")[0]
    assert {host.ask("fd00:96::20")[0] for _ in range(12)} == {mine}
    # Where nobody is, on the machine and from a Pod
    for where in (host, p1):
        for address, port in (("fd00:96::10", 81), ("fd00:96::99", 80)):
            with pytest.raises(ConnectionRefusedError):
                where.ask(address, port)

    def left():
        rules = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
        routes = subprocess.run(
            ["ip", "-6", "route", "show", "table", "all"], check=True, capture_output=True, text=True
        ).stdout
        return "t-services" in rules, "fd00:96::" in routes

    assert host.call(left) == (True, True)
    for settings, _table in both:
        assert host.call(tables.remove, settings) is True
    assert host.call(left) == (False, False)


def test_datagrams_of_the_other_family(world):
    host, p1, p2 = world
    servers = {}
    for pod, address in ((p1, "fd00:9::11"), (p2, "fd00:9::12")):
        server = pod.call(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM)
        server.bind((address, 53))
        server.settimeout(60)
        servers[address] = server
    udp = service("dns", "fd00:96::53")
    udp["spec"]["ports"][0] |= {"protocol": "UDP", "port": 53}
    table = tables.Table(IPV6, ("br0",))
    client = host.call(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        for address, server in servers.items():
            slices = [leads_to("dns", address, port=53, protocol="UDP")]
            host.call(table.apply, compute(IPV6, [udp], slices))
            client.sendto(address.encode(), ("fd00:96::53", 53))
            assert server.recv(20) == address.encode()
    finally:
        for sock in (client, *servers.values()):
            sock.close()


def test_many_services(world):
    host, _, _ = world
    table = tables.Table(SETTINGS, ("br0",))
    services = [service(f"s{n}", f"10.96.{n // 200}.{n % 200 + 10}") for n in range(600)]
    slices = [leads_to(f"s{n}", "10.9.0.11", "10.9.0.12") for n in range(600)]
    host.call(table.apply, compute(SETTINGS, services, slices))
    assert host.ask("10.96.2.199")[0] in ("p1", "p2")
    host.call(table.apply, compute(SETTINGS, services[1:], slices[1:]))
    with pytest.raises(ConnectionRefusedError):
        host.ask("10.96.0.10")


def test_nodes_of_one_machine_see_each_others_addresses():
    """With several nodes the rules hide the Pods' addresses from other networks, and from those of other nodes not."""
    alone = frame(SETTINGS)
    assert not any("224.0.0.0/4" in line for line in alone)
    several = Settings("t", "10.96.0.0/16", (), ("10.9.0.0/24", "10.8.0.0/24"), masquerades=True)
    (rule,) = (line for line in frame(several) if "224.0.0.0/4" in line)
    networks = "10.9.0.0/24, 10.8.0.0/24"
    words = f"ip saddr {{ {networks} }} ip daddr != {{ {networks}, 224.0.0.0/4 }} masquerade"
    assert rule == f"add rule ip t postrouting {words}"
