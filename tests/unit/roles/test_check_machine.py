# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program with which the role apiserver looks whether its variables can work on a machine."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[3] / "roles" / "apiserver" / "files" / "check_machine.py"
ROUTES = """default via 192.0.2.1 dev eth0
10.0.0.0/8 via 192.0.2.1 dev eth0
10.99.0.0/16 via 192.0.2.1 dev eth0
10.96.0.0/16 dev lo proto static scope link
172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 linkdown
198.51.100.0/24 dev mine0 proto kernel scope link src 198.51.100.1
local 192.0.2.7 dev eth0
""".splitlines()
ADDRESSES = """1: lo    inet 127.0.0.1/8 scope host lo\\ valid_lft forever
2: eth0    inet 192.0.2.7/24 brd 192.0.2.255 scope global eth0\\ valid_lft forever
9: wg0    inet 100.64.0.5 peer 100.64.0.6/32 scope global wg0\\ valid_lft forever
""".splitlines()


@pytest.fixture(name="program")
def _program(monkeypatch, free):
    spec = importlib.util.spec_from_file_location("check_machine", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ip", lambda *words: ROUTES if words[0] == "route" else ADDRESSES)
    return module


@pytest.fixture(name="free")
def _free():
    """Two ports that nobody uses."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture(name="judge")
def _judge(program, free, tmp_path):
    def judge(variables=(), known=("turtles_pod_cidr",), **chosen):
        values = {
            "instance": "turtles",
            "api_bind": "127.0.0.1",
            "api_port": free[0],
            "virt_api_port": free[1],
            "node_name": "node-1.example",
            "metrics_bind": "127.0.0.1",
            "metrics_ports": {},
            "bridge": "mine0",
            "pod_cidr": "10.244.0.0/16",
            "service_cidr": "10.97.0.0/16",
            "more_nodes": [],
            "external_addresses": ["192.0.2.7", "192.0.2.32/28"],
            "own": "/opt/turtles/venv/",
            "config_dir": str(tmp_path),
        }
        return list(program.judge({"variables": variables, "known": known, "machine": {**values, **chosen}}))

    return judge


def test_what_can_work_is_not_complained_about(judge):
    assert judge() == []
    assert judge(pod_cidr="198.51.100.0/24") == [], "that is what the Pods' bridge has by itself"
    nodes = [{"name": "b", "pod_cidr": "172.17.0.0/16", "bridge": "docker0"}]
    assert judge(more_nodes=nodes) == [], "that is what another node's bridge has by itself"
    assert judge(variables=["turtles_pod_cidr", "kubevirt_of_mine"]) == []


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"instance": "My/Lab"}, "turtles_instance is 'My/Lab': lower case"),
        ({"node_name": "A_b"}, "turtles_node_name is 'A_b': lower case letters"),
        ({"node_name": "a", "more_nodes": [{"name": "a", "pod_cidr": "10.1.0.0/16"}]}, "is 'a', as another one's"),
        (
            {"more_nodes": [{"name": "²", "pod_cidr": "10.1.0.0/16"}]},
            "the name of a node in turtles_more_nodes is '²':",
        ),
        (
            {"metrics_ports": {"virt-apis": 1}},
            "turtles_metrics_ports[virt-apis]: there is no such component. There are",
        ),
        ({"metrics_ports": {"virt-api": "x"}}, "turtles_metrics_ports[virt-api] is 'x': ports are numbers from 1"),
        ({"metrics_ports": {"virt-api": 0}}, "turtles_metrics_ports[virt-api] is 0: ports are numbers from 1"),
        (
            {"metrics_ports": {"virt-api": 7101, "virt-handler": "7101"}},
            "turtles_metrics_ports[virt-api] and turtles_metrics_ports[virt-handler] are all 7101: each needs its own.",
        ),
        ({"bridge": "a-very-long-bridge"}, "turtles_bridge is 'a-very-long-bridge': name an interface of at most 15"),
        ({"api_port": 70000}, "turtles_api_port is 70000: ports are numbers from 1 to 65535"),
        ({"api_bind": "203.0.113.9"}, "turtles_api_bind is 203.0.113.9, where nothing can listen"),
        ({"pod_cidr": "10.244.0.1/16"}, "Write one such as 10.244.0.0/16"),
        ({"more_nodes": [{"name": "b", "pod_cidr": "lan"}]}, "pod_cidr of turtles_more_nodes b is 'lan', which isn't"),
        (
            {"more_nodes": [{"name": "b", "pod_cidr": "10.244.128.0/17"}]},
            "turtles_pod_cidr 10.244.0.0/16 and pod_cidr of turtles_more_nodes b 10.244.128.0/17 overlap",
        ),
        (
            {"more_nodes": [{"name": "b", "pod_cidr": "172.17.0.0/16"}]},
            "pod_cidr of turtles_more_nodes b is 172.17.0.0/16, which overlaps 172.17.0.0/16 on the interface docker0",
        ),
        ({"external_addresses": ["lan"]}, "turtles_external_addresses has 'lan', which is no address or network"),
        ({"pod_cidr": "fd00::/64"}, "turtles_pod_cidr is 'fd00::/64', which isn't an IPv4 network"),
        ({"pod_cidr_ipv6": "fd00:10:244::/64"}, ""),
        ({"pod_cidr_ipv6": "10.1.0.0/16"}, "turtles_pod_cidr_ipv6 is '10.1.0.0/16', which isn't an IPv6 network"),
        ({"pod_cidr_ipv6": "fd00::/126"}, "turtles_pod_cidr_ipv6 is fd00::/126: too few addresses"),
        ({"service_cidr_ipv6": "fd00:96::/112", "pod_cidr_ipv6": "fd00::/64"}, ""),
        ({"service_cidr_ipv6": "fd00:96::/112"}, "and Pods have no IPv6 addresses: set turtles_pod_cidr_ipv6"),
        (
            {"service_cidr_ipv6": "fd00::/112", "pod_cidr_ipv6": "fd00::/64"},
            "turtles_service_cidr_ipv6 fd00::/112 and turtles_pod_cidr_ipv6 fd00::/64 overlap",
        ),
        (
            {
                "pod_cidr_ipv6": "fd00::/64",
                "more_nodes": [{"name": "b", "pod_cidr": "10.246.0.0/16", "pod_cidr_ipv6": "fd00::/80"}],
            },
            "pod_cidr_ipv6 of turtles_more_nodes b fd00::/80 and turtles_pod_cidr_ipv6 fd00::/64 overlap",
        ),
        ({"service_cidr": "10.97.0.0/31"}, "turtles_service_cidr is 10.97.0.0/31: too few addresses for Services"),
        ({"pod_cidr": "10.97.0.0/20"}, "overlap: give Services and the Pods of each node a network"),
        ({"pod_cidr": "192.0.0.0/16"}, "overlaps 192.0.2.0/24 on the interface eth0"),
        ({"pod_cidr": "10.99.128.0/17"}, ""),
        ({"pod_cidr": "10.98.0.0/15"}, "overlaps 10.99.0.0/16 on the interface eth0"),
        ({"pod_cidr": "172.17.128.0/17"}, "overlaps 172.17.0.0/16 on the interface docker0"),
        ({"service_cidr": "10.96.0.0/16"}, "overlaps 10.96.0.0/16 on the interface lo"),
        ({"pod_cidr": "100.64.0.0/16"}, "overlaps 100.64.0.5/32 on the interface wg0"),
    ],
)
def test_what_cannot_work_is_named_with_its_value_and_a_remedy(judge, chosen, words):
    found = judge(**chosen)
    assert len(found) == bool(words), found
    assert words in "".join(found)


def test_the_services_of_this_installation_are_not_in_its_way(judge, tmp_path):
    (tmp_path / "podrunner.yml").write_text("services: {cidr: 10.96.0.0/16}")
    assert judge(service_cidr="10.96.0.0/16") == []


def test_a_port_in_use_is_told_with_who_uses_it_unless_it_is_this_installation(judge):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (found,) = judge(virt_api_port=port)
        assert f"turtles_virt_api_port is {port}, which is in use" in found
        assert f"(process {os.getpid()})" in found
        program = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
        assert judge(virt_api_port=port, own=program) == []
        (found,) = judge(api_port=port, api_bind="0.0.0.0")
        assert f"turtles_api_port is {port}, which is in use" in found


def test_both_ports_must_differ(judge, free):
    (found,) = judge(virt_api_port=free[0])
    assert "need a port each" in found


def test_a_slip_of_the_keys_is_noticed(program):
    known = ["turtles_pod_cidr", "kubevirt_replicas", "handler_max_pods"]
    set_ = ["turtles_pod_cdir", "kubevirt_replcias", "handler_max_pod", "handler_of_mine", "kubevirt_vms", *known]
    found = list(program.judge({"variables": set_, "known": known, "machine": {}}))
    assert found == [
        "handler_max_pod is not a variable of these roles. Is handler_max_pods meant?",
        "kubevirt_replcias is not a variable of these roles. Is kubevirt_replicas meant?",
        "turtles_pod_cdir is not a variable of these roles. Is turtles_pod_cidr meant?",
    ]
