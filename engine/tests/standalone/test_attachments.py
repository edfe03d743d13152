# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks that Pods choose: annotations and definitions, as the de-facto standard has them."""

import json

import pytest

from turtles.standalone.attachments import (
    AttachmentError,
    default_network,
    network_of,
    parse_config,
    plugin_types,
    selections,
    status_entry,
)


def chosen(value):
    """Return what an annotation asks for."""
    text = value if isinstance(value, str) else json.dumps(value)
    return selections({"k8s.v1.cni.cncf.io/networks": text}, "default")


def definition(config):
    """Return a definition with a configuration."""
    text = config if isinstance(config, str) else json.dumps(config)
    return {"metadata": {"namespace": "default", "name": "blue"}, "spec": {"config": text}}


def test_short_form():
    found = chosen("blue, other/red@data0,green")
    assert [(each.definition, each.interface) for each in found] == [
        ("default/blue", "net1"),
        ("other/red", "data0"),
        ("default/green", "net3"),
    ]
    assert chosen("") == []
    assert selections({}, "default") == []


def test_json_form():
    (one, two) = chosen(
        [
            {"name": "blue", "interface": "pod1", "mac": "02:00:00:00:00:01", "ips": ["192.0.2.7/24"]},
            {"name": "red", "namespace": "other", "cni-args": {"key": "value"}, "ipam-claim-reference": "unknown"},
        ]
    )
    assert (one.definition, one.interface) == ("default/blue", "pod1")
    assert one.capabilities == {"mac": "02:00:00:00:00:01", "ips": ["192.0.2.7/24"]}
    assert (two.definition, two.interface, two.args) == ("other/red", "net2", {"key": "value"})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON: it is nested too deeply"),
        ("[1]", "must be a JSON list of objects"),
        ("a/b/c", "'a/b' is not the name of a Kubernetes object"),
        ("blue@", "is not [NAMESPACE/]NAME[@INTERFACE]"),
        ("/blue", "is not [NAMESPACE/]NAME[@INTERFACE]"),
        ("Blue_1", "name 'Blue_1' is not the name of a Kubernetes object"),
        ("blue@far-too-long-name", "interface 'far-too-long-name' is not the name of a network interface"),
        ("blue@x,red@x", "interface 'x' is already taken"),
        ("blue@eth0", "interface 'eth0' is already taken"),
        ([{"name": "blue", "interface": "a/b"}], "interface 'a/b' is not the name of a network interface"),
        ([{"namespace": "blue"}], "name None is not the name"),
        ([{"name": "blue", "mac": "02-00-00-00-00-01"}], "default/blue: mac '02-00-00-00-00-01' is not a MAC address"),
        ([{"name": "blue", "ips": "192.0.2.7"}], "default/blue: ips '192.0.2.7' is not a list"),
        ([{"name": "blue", "default-route": ["192.0.2.1"]}], "default-route is not supported"),
    ],
)
def test_what_cannot_be_understood_is_named(value, words):
    with pytest.raises(AttachmentError, match=r"annotation k8s\.v1\.cni\.cncf\.io/networks") as raised:
        chosen(value)
    assert words in str(raised.value)


def test_network_instead_of_the_nodes():
    annotations = {"v1.multus-cni.io/default-network": "other/blue"}
    found = default_network(annotations, "default")
    assert (found.definition, found.interface) == ("other/blue", "eth0")
    assert default_network({}, "default") is None
    with pytest.raises(AttachmentError, match="default-network: needs exactly one network, not 2"):
        default_network({"v1.multus-cni.io/default-network": '[{"name": "a"}, {"name": "b"}]'}, "default")


def test_a_single_plugin_becomes_a_list():
    config = {"cniVersion": "0.3.1", "type": "bridge", "bridge": "br1", "ipam": {"type": "host-local"}}
    network = network_of(definition(config))
    assert network == {
        "cniVersion": "0.3.1",
        "name": "blue",
        "plugins": [{"type": "bridge", "bridge": "br1", "ipam": {"type": "host-local"}}],
    }
    assert plugin_types(network) == ["bridge", "host-local"]
    chain = {"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "macvlan", "ipam": {}}, {"type": "tuning"}]}
    assert network_of(definition(chain)) == chain
    assert plugin_types(chain) == ["macvlan", "tuning"]
    assert network_of(definition("")) is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "is not valid JSON: Expecting property name"),
        ("[" * 100_000, "is not valid JSON: it is nested too deeply"),
        ("[]", "must be a JSON object, a CNI network configuration, not a list"),
        ({"cniVersion": "0.4.0"}, "lacks the type: the name of a CNI plugin, such as bridge or macvlan"),
        ({"type": "../sh"}, "has type '../sh'"),
        ({"type": "bridge", "cniVersion": 1}, "has cniVersion 1"),
        ({"type": "bridge", "name": "a b"}, "has name 'a b'"),
        ({"plugins": []}, "has no plugins"),
        ({"plugins": [{"type": "bridge"}, {}]}, "lacks the type of plugins[1]"),
        ({"plugins": ["bridge"]}, "has a string as plugins[0]"),
        ({"type": "bridge", "ipam": "dhcp"}, "has a string as ipam"),
        ({"type": "bridge", "ipam": {"subnet": "10.0.0.0/8"}}, "lacks ipam.type"),
    ],
)
def test_what_is_wrong_with_a_definition(config, words):
    with pytest.raises(AttachmentError) as raised:
        network_of(definition(config))
    message = str(raised.value)
    assert message.startswith("NetworkAttachmentDefinition default/blue: spec.config ")
    assert words in message


def test_a_configuration_without_text_is_none():
    assert parse_config(None, "blue") is None
    assert parse_config("  ", "blue") is None


def test_status():
    result = {
        "interfaces": [
            {"name": "br1", "mac": "02:00:00:00:00:0a"},
            {"name": "net1", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"},
        ],
        "ips": [
            {"address": "192.0.2.7/24", "interface": 1, "gateway": "192.0.2.1"},
            {"address": "192.0.2.1/24", "interface": 0},
        ],
        "dns": {"nameservers": ["192.0.2.1"], "search": []},
    }
    assert status_entry("default/blue", "net1", result, default=False) == {
        "name": "default/blue",
        "interface": "net1",
        "ips": ["192.0.2.7"],
        "mac": "02:00:00:00:00:01",
        "dns": {"nameservers": ["192.0.2.1"]},
    }
    assert status_entry("turtles", "eth0", {}, default=True) == {
        "name": "turtles",
        "interface": "eth0",
        "ips": [],
        "default": True,
        "dns": {},
    }
