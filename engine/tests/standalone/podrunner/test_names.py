# SPDX-License-Identifier: GPL-3.0-or-later
import copy
from dataclasses import replace

import pytest

from turtles.standalone.podrunner import names
from turtles.standalone.podrunner.config import DNSConfig

POD = {
    "metadata": {"name": "p", "namespace": "n"},
    "spec": {
        "hostname": "h",
        "subdomain": "s",
        "dnsPolicy": "ClusterFirst",
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}],
        "dnsConfig": {"searches": ["extra"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]},
    },
}
HOST = "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch here\noptions timeout:1\n"


def pod(**spec):
    found = copy.deepcopy(POD)
    found["spec"] |= spec
    return found


@pytest.fixture
def served(config):
    """The configuration of a node with the cluster's DNS."""
    return replace(config, dns=DNSConfig("10.9.0.10", "cluster.example"))


def test_hosts(config, served):
    hosts = names.hosts_file(POD, config, "10.0.0.2")
    assert "10.0.0.2\th.s.n.svc.cluster.local\th\n" in hosts
    assert "1.2.3.4\tx y\n" in hosts
    assert "h.s.n.svc.cluster.example" in names.hosts_file(POD, served, "")


def test_without_dns_of_the_cluster(config):
    assert names.resolv_conf(POD, config, HOST, {}) == (
        "nameserver 9.9.9.9\nsearch here extra\noptions timeout:1 ndots:2 edns0\n"
    )
    network = {"nameservers": ["192.0.2.1"], "search": ["there"]}
    assert names.resolv_conf(pod(dnsConfig=None), config, HOST, network) == "nameserver 192.0.2.1\nsearch there\n"


def test_the_cluster_first(served):
    expected = (
        "nameserver 10.9.0.10\nsearch n.svc.cluster.example svc.cluster.example cluster.example here\noptions ndots:5\n"
    )
    for changed in ({}, {"dnsPolicy": None}, {"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True}):
        assert names.resolv_conf(pod(dnsConfig=None, **changed), served, HOST, {}) == expected
    own = names.resolv_conf(POD, served, HOST, {})
    assert own.endswith("cluster.example here extra\noptions ndots:2 edns0\n")


def test_the_hosts_own(served):
    for changed in ({"dnsPolicy": "Default"}, {"hostNetwork": True}):
        assert names.resolv_conf(pod(**changed), served, HOST, {}).startswith("nameserver 9.9.9.9\nsearch here extra\n")


def test_none(served):
    changed = {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.7"]}}
    assert names.resolv_conf(pod(**changed), served, HOST, {}) == "nameserver 192.0.2.7\n"
