# SPDX-License-Identifier: GPL-3.0-or-later
"""What launcher Pods ask Multus for, and what is made of its report."""

import json
from dataclasses import replace
from typing import Any

from turtles.api.configuration import DEFAULT, BindingPlugin
from turtles.controller.pod import networks
from turtles.controller.pod.obstacles import obstacles
from turtles.domain import sidecars
from turtles.domain.macs import generated_mac

NETWORKS, INSTEAD, STATUS = (
    "k8s.v1.cni.cncf.io/networks",
    "v1.multus-cni.io/default-network",
    "k8s.v1.cni.cncf.io/network-status",
)


def vmi(*interfaces: dict[str, Any], **named: Any) -> dict[str, Any]:
    """Return a VMI with these interfaces; ``named`` are their networks."""
    return {
        "metadata": {"name": "vm", "namespace": "ns", "uid": "uid"},
        "spec": {
            "domain": {"devices": {"interfaces": list(interfaces)}},
            "networks": [{"name": name, **network} for name, network in named.items()],
        },
    }


def multus(name: str, **more: Any) -> dict[str, Any]:
    return {"multus": {"networkName": name, **more}}


def test_further_networks_are_asked_for() -> None:
    machine = vmi(
        {"name": "default", "masquerade": {}},
        {"name": "blue", "bridge": {}, "macAddress": "02-00-00-00-00-0A"},
        {"name": "red", "bridge": {}},
        {"name": "gone", "bridge": {}, "state": "absent"},
        default={"pod": {}},
        blue=multus("nad"),
        red=multus("other/nad"),
        gone=multus("nad"),
    )
    found = networks.annotations(machine)
    assert list(found) == [NETWORKS]
    assert json.loads(found[NETWORKS]) == [
        {"name": "nad", "namespace": "ns", "mac": "02:00:00:00:00:0a", "interface": "pod16477688c0e"},
        {"name": "nad", "namespace": "other", "mac": generated_mac("uid", "red"), "interface": "podb1f51a511f1"},
    ]
    assert networks.annotations(vmi({"name": "default", "masquerade": {}}, default={"pod": {}})) == {}


def test_a_network_instead_of_the_pod_network() -> None:
    machine = vmi({"name": "blue", "bridge": {}}, blue=multus("other/nad", default=True))
    assert networks.annotations(machine) == {INSTEAD: "other/nad"}


def test_what_multus_reports() -> None:
    machine = vmi(
        {"name": "default", "masquerade": {}}, {"name": "blue", "bridge": {}}, default={"pod": {}}, blue=multus("n")
    )

    def pod(text: str) -> dict[str, Any]:
        return {"metadata": {"annotations": {STATUS: text}}}

    report = [{"name": "cni", "interface": "eth0"}, {"name": "ns/n", "interface": "pod16477688c0e", "ips": []}]
    assert networks.reported(machine, pod(json.dumps(report))) == [
        {"name": "blue", "podInterfaceName": "pod16477688c0e", "infoSource": "multus-status"}
    ]
    assert networks.reported(machine, pod(json.dumps(report[:1]))) == []
    for text in ("", "{", "[1]", "{}", "3"):
        assert networks.reported(machine, pod(text)) == []
    assert networks.reported(machine, {"metadata": {}}) == []


def test_a_network_that_comes_and_goes() -> None:
    machine = vmi({"name": "default", "masquerade": {}}, default={"pod": {}})
    pod: dict[str, Any] = {"metadata": {"annotations": {}}}
    assert networks.changed(machine, pod) is None
    plugged = vmi(
        {"name": "default", "masquerade": {}}, {"name": "blue", "bridge": {}}, default={"pod": {}}, blue=multus("n")
    )
    text = networks.changed(plugged, pod)
    assert text == networks.annotations(plugged)[NETWORKS]
    pod["metadata"]["annotations"][NETWORKS] = text
    assert networks.changed(plugged, pod) is None
    # It is to go: the Pod keeps it as long as the guest has it.
    plugged["spec"]["domain"]["devices"]["interfaces"][1]["state"] = "absent"
    entry = {"name": "blue", "podInterfaceName": "pod16477688c0e", "infoSource": "domain, multus-status"}
    plugged["status"] = {"interfaces": [entry]}
    assert networks.changed(plugged, pod) is None
    entry["infoSource"] = "multus-status"
    assert networks.changed(plugged, pod) == "[]"
    own = {"name": "mesh", "namespace": "ns", "interface": "mesh0"}
    pod["metadata"]["annotations"][NETWORKS] = json.dumps([*json.loads(text), own])
    assert json.loads(networks.changed(plugged, pod) or "") == [own], "what the user has asked for stays"
    pod["metadata"]["annotations"] = {NETWORKS: "[]", STATUS: json.dumps([{"name": "cni", "interface": "eth0"}])}
    assert networks.reported(plugged, pod) == []


def test_binding_plugins() -> None:
    machine = vmi({"name": "default", "binding": {"name": "fast"}}, default={"pod": {}})
    plugin = BindingPlugin("tap", "plugins/fast", "registry/fast:1", memory="32Mi")
    assert json.loads(networks.annotations(machine, {"fast": plugin})[NETWORKS]) == [
        {"name": "fast", "namespace": "plugins", "cni-args": {"logicNetworkName": "default"}}
    ]
    assert networks.memory(machine, {"fast": plugin}) == 32 << 20
    assert networks.annotations(machine, {}) == {}
    assert [each.image for each in sidecars.of(machine, {"fast": plugin})] == ["registry/fast:1"]
    pod = {"metadata": {"annotations": networks.annotations(machine, {"fast": plugin})}}
    assert networks.changed(machine, pod) is None, "what a plugin asked for stays"
    (found,) = obstacles(machine, DEFAULT)
    assert "no network binding plugin 'fast' registered; add it to spec.configuration.network.binding" in found
    assert obstacles(machine, replace(DEFAULT, bindings={"fast": plugin})) == []
