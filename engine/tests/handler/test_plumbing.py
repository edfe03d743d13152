# SPDX-License-Identifier: GPL-3.0-or-later
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from turtles.domain import network
from turtles.handler import plumbing

from .rig import Pod

pytestmark = pytest.mark.root

MAC = "02:00:00:00:00:99"


@contextmanager
def netns_of(pod: Pod) -> Iterator[int]:
    descriptor = os.open(f"/var/run/netns/{pod.netns}", os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def links(pod: Pod) -> dict[str, Any]:
    output = subprocess.check_output(["ip", "-n", pod.netns, "-d", "-j", "addr"])
    return {link["ifname"]: link for link in json.loads(output)}


def addresses(link: dict[str, Any]) -> list[str]:
    return [f"{item['local']}/{item['prefixlen']}" for item in link["addr_info"] if item["family"] == "inet"]


def rules(pod: Pod) -> str:
    return subprocess.check_output(["ip", "netns", "exec", pod.netns, "nft", "list", "ruleset"], text=True)


@pytest.mark.parametrize("times", [1, 2])
def test_masquerade(make_pod: Callable[[], Pod], times: int) -> None:
    before = Path("/proc/thread-self/ns/net").readlink()
    pod = make_pod()
    with netns_of(pod) as netns:
        facts = plumbing.read_pod_interface(netns, "eth0")
        assert facts.ipv4() == (pod.ip, 24)
        assert facts.gateway == f"{pod.ip.rpartition('.')[0]}.1"
        assert facts.mtu == 1400
        interface = {"name": "default", "masquerade": {}, "ports": [{"port": 22}, {"port": 53, "protocol": "UDP"}]}
        plan = network.plan(interface, {"name": "default", "pod": {}}, facts, MAC)
        for _ in range(times):
            started = time.perf_counter()
            plumbing.connect(netns, plan, facts)
            print(f"connect: {(time.perf_counter() - started) * 1000:.1f} ms")
    made = links(pod)
    assert addresses(made["k6t-eth0"]) == ["10.0.2.1/24"]
    assert addresses(made["eth0"]) == [f"{pod.ip}/24"]
    assert made["tap0"]["master"] == "k6t-eth0"
    assert made["tap0"]["mtu"] == 1400
    text = rules(pod)
    assert 'iifname "eth0" tcp dport 22 counter' in text
    assert 'iifname "eth0" udp dport 53 counter' in text
    assert text.count("dnat to 10.0.2.2") == 4
    assert Path("/proc/thread-self/ns/net").readlink() == before


@pytest.mark.parametrize("interrupt", [None, "down", "renamed", "placeholder"])
def test_bridge_continues_where_it_stopped(make_pod: Callable[[], Pod], interrupt: str | None) -> None:
    pod = make_pod()
    with netns_of(pod) as netns:
        facts = plumbing.read_pod_interface(netns, "eth0")
        plan = network.plan({"name": "default", "bridge": {}}, {"name": "default", "pod": {}}, facts, "")
        steps = {
            "down": ["link set eth0 down", "addr flush dev eth0"],
            "renamed": ["link set eth0 name eth0-nic"],
            "placeholder": ["link add eth0 type bridge"],
        }
        for name, commands in steps.items():
            if interrupt is None:
                break
            for command in commands:
                subprocess.run(["ip", "-n", pod.netns, *command.split()], check=True)
            if name == interrupt:
                break
        plumbing.connect(netns, plan, facts)
        plumbing.connect(netns, plan, facts)
    made = links(pod)
    assert plan.guest_mac == facts.mac
    assert plan.guest_ip == pod.ip
    assert addresses(made["k6t-eth0"]) == ["169.254.75.10/32"]
    assert addresses(made["eth0"]) == [f"{pod.ip}/24"]
    assert made["eth0"]["operstate"] == "DOWN"
    assert made["eth0-nic"]["master"] == "k6t-eth0"
    assert made["eth0-nic"]["linkinfo"]["info_slave_data"]["learning"] is False
    assert made["eth0-nic"]["address"] != facts.mac or interrupt in ("renamed", "placeholder")
    assert made["tap0"]["master"] == "k6t-eth0"


def test_an_address_of_ones_own(make_pod: Callable[[], Pod]) -> None:
    pod = make_pod()
    with netns_of(pod) as netns:
        assert plumbing.in_namespace(netns, lambda: plumbing.own_address("eth0")) == pod.ip
        assert plumbing.in_namespace(netns, lambda: plumbing.own_address("migration0")) is None
        subprocess.run(["ip", "-n", pod.netns, "link", "add", "migration0", "type", "bridge"], check=True)
        with pytest.raises(plumbing.PlumbingError, match="the interface migration0 has no address"):
            plumbing.in_namespace(netns, lambda: plumbing.own_address("migration0"))


def setting(pod: Pod, key: str) -> str:
    return subprocess.check_output(["ip", "netns", "exec", pod.netns, "sysctl", "-n", key], text=True).strip()


def test_passt_may_listen_and_the_pod_keeps_its_interface(make_pod: Callable[[], Pod]) -> None:
    pod = make_pod()
    with netns_of(pod) as netns:
        facts = plumbing.read_pod_interface(netns, "eth0")
        before = links(pod)["eth0"]
        nets = {"default": {"name": "default", "pod": {}}, "blue": {"name": "blue", "multus": {"networkName": "blue"}}}
        plan = network.plan({"name": "default", "passtBinding": {}}, nets["default"], facts, MAC)
        # The next one allows fewer ports
        other = replace(network.plan({"name": "blue", "bridge": {}}, nets["blue"], facts, MAC), pod_interface="none")
        for _ in range(2):
            plumbing.connect(netns, plan, facts)
            with pytest.raises(plumbing.PlumbingError):
                plumbing.connect(netns, other, replace(facts, name="none"))
    assert setting(pod, "net.ipv4.ip_unprivileged_port_start") == "0"
    assert setting(pod, "net.ipv4.ping_group_range").split() == ["107", "107"]
    assert addresses(links(pod)["eth0"]) == [f"{pod.ip}/24"]
    assert links(pod)["eth0"]["address"] == before["address"]
    assert "k6t-eth0" not in links(pod)


def test_missing_interface(make_pod: Callable[[], Pod]) -> None:
    pod = make_pod()
    with netns_of(pod) as netns, pytest.raises(plumbing.PlumbingError, match="no interface 'eth7'"):
        plumbing.read_pod_interface(netns, "eth7")
