# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json

import pytest


def config(api):
    """The stored configuration of a network."""
    return json.loads(api.get("network-attachment-definitions", "default", "lan")["spec"]["config"])


def test_a_network_is_made_changed_and_removed_once(api, run):
    options = {
        "name": "lan",
        "bridge": {"name": "br-lan", "gateway": True, "mtu": 1400},
        "ipam": {
            "subnet": "192.0.2.0/24",
            "range_start": "192.0.2.10",
            "routes": [{"destination": "198.51.100.0/24", "gateway": "192.0.2.2"}],
        },
        "labels": {"team": "a"},
    }
    assert run("network", check=True, **options)["changed"]
    assert api.get("network-attachment-definitions", "default", "lan") is None
    made = run("network", **options)
    assert made["changed"]
    assert config(api) == {
        "cniVersion": "0.4.0",
        "name": "lan",
        "type": "bridge",
        "bridge": "br-lan",
        "isGateway": True,
        "mtu": 1400,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.10"}]],
            "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.2"}],
        },
    }
    assert not run("network", **options)["changed"]
    assert made["result"] == run("network_info", name="lan", namespace="default")["resources"][0]
    labelled = run("network", name="lan", labels={"team": "b"})
    assert (labelled["changed"], config(api)["bridge"]) == (True, "br-lan")
    run("network", name="lan", macvlan={"master": "eth1"})
    assert config(api) == {"cniVersion": "0.4.0", "name": "lan", "type": "macvlan", "master": "eth1"}
    assert run("network", name="lan", state="absent")["changed"]
    assert not run("network", name="lan", state="absent")["changed"]


def test_a_configuration_that_says_the_same_is_left_as_it_is_written(api, run):
    run("network", name="lan", config={"cniVersion": "0.3.1", "type": "macvlan", "master": "eth1"})
    stored = api.get("network-attachment-definitions", "default", "lan")
    stored["spec"]["config"] = '{"name":"lan", "master":"eth1","type":"macvlan",  "cniVersion":"0.3.1"}'
    api.put("network-attachment-definitions", stored)
    assert not run("network", name="lan", config={"cniVersion": "0.3.1", "type": "macvlan", "master": "eth1"})[
        "changed"
    ]


@pytest.mark.parametrize(
    ("options", "plugin"),
    [
        ({"vlan": {"master": "eth1", "id": 5}}, {"type": "vlan", "master": "eth1", "vlanId": 5}),
        ({"ipvlan": {"master": "eth1", "mode": "l3"}}, {"type": "ipvlan", "master": "eth1", "mode": "l3"}),
        ({"host_device": {"pci_address": "0000:00:1f.6"}}, {"type": "host-device", "pciBusID": "0000:00:1f.6"}),
        ({"bridge": {"name": "b", "vlan": 7}}, {"type": "bridge", "bridge": "b", "vlan": 7}),
        (
            {
                "ptp": {"masquerade": True},
                "ipam": {"type": "static", "addresses": ["192.0.2.7/24"], "gateway": "192.0.2.1"},
            },
            {
                "type": "ptp",
                "ipMasq": True,
                "ipam": {"type": "static", "addresses": [{"address": "192.0.2.7/24", "gateway": "192.0.2.1"}]},
            },
        ),
        ({"macvlan": {}, "ipam": {"type": "dhcp"}}, {"type": "macvlan", "ipam": {"type": "dhcp"}}),
    ],
)
def test_each_type(api, run, options, plugin):
    run("network", name="lan", **options)
    assert config(api) == {"cniVersion": "0.4.0", "name": "lan", **plugin}


def test_a_chain_of_plugins(api, run):
    run("network", name="lan", macvlan={"master": "eth1"}, chain=[{"type": "tuning", "promisc": True}])
    assert config(api)["plugins"] == [{"type": "macvlan", "master": "eth1"}, {"type": "tuning", "promisc": True}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ptp": {}}, "ipam: missing; a network of the type ptp needs addresses"),
        ({"ipam": {"subnet": "192.0.2.0/24"}}, "ipam: needs the type of the network: one of bridge, macvlan"),
        ({"macvlan": {}, "ipam": {}}, "ipam.subnet: missing"),
        ({"macvlan": {}, "ipam": {"subnet": "192.0.2.1/24"}}, "ipam.subnet: '192.0.2.1/24' isn't a network"),
        (
            {"macvlan": {}, "ipam": {"subnet": "192.0.2.0/24", "range_end": "198.51.100.1"}},
            "ipam.range_end: 198.51.100.1 isn't in the subnet 192.0.2.0/24",
        ),
        ({"macvlan": {}, "ipam": {"type": "static"}}, "ipam.addresses: missing"),
        ({"macvlan": {}, "ipam": {"type": "static", "addresses": ["x"]}}, "ipam.addresses: 'x' isn't an address"),
        ({"macvlan": {}, "chain": [{"mtu": 1}]}, "chain[0].type: missing"),
        ({"macvlan": {}, "name": "Not_a_name"}, "name: 'Not_a_name' isn't a Kubernetes name"),
    ],
)
def test_bad_input_names_the_option(api, run, options, message):
    failed = run("network", **{"name": "lan", **options})
    assert message in failed.msg
    assert api.get("network-attachment-definitions", "default", "lan") is None
