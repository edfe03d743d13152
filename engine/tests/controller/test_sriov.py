# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual functions of NICs: what their Pods ask for, and what is made of what they are given."""

import json
from typing import Any
from xml.etree.ElementTree import Element, tostring

import pytest

from turtles.controller.pod import sriov
from turtles.domain import migratability, network
from turtles.domain.connections import own_connections
from turtles.domain.definition.host_devices import add_functions
from turtles.domain.interface_names import further_interface_name

STATUS, INFO = "k8s.v1.cni.cncf.io/network-status", "kubevirt.io/network-info"
RESOURCE = "intel.com/sriov_net"


def vmi(*names: str, **more: Any) -> dict[str, Any]:
    """Return a VMI with these SR-IOV interfaces beside that of the Pod network."""
    interfaces = [{"name": "default", "masquerade": {}}, *({"name": name, "sriov": {}, **more} for name in names)]
    networks = [{"name": name, "multus": {"networkName": f"nics/{name}"}} for name in names]
    return {
        "metadata": {"name": "vm", "namespace": "ns", "uid": "u"},
        "spec": {
            "domain": {"devices": {"interfaces": interfaces}},
            "networks": [{"name": "default", "pod": {}}, *networks],
        },
    }


def test_the_definition_names_the_resource() -> None:
    assert sriov.definitions(vmi("blue")) == {"blue": ("nics", "blue")}
    where = ("nics", "blue")
    assert sriov.obstacle(where, None).startswith("NetworkAttachmentDefinition nics/blue does not exist")
    assert "has no annotation k8s.v1.cni.cncf.io/resourceName" in sriov.obstacle(where, {"metadata": {}})
    definition = {"metadata": {"annotations": {"k8s.v1.cni.cncf.io/resourceName": RESOURCE}}}
    assert (sriov.obstacle(where, definition), sriov.resource(definition)) == ("", RESOURCE)


def test_a_pod_asks_for_its_devices() -> None:
    pod: dict[str, Any] = {
        "containers": [{"resources": {"requests": {}, "limits": {}}, "env": [], "volumeMounts": []}],
        "volumes": [],
    }
    sriov.add({"blue": RESOURCE, "red": RESOURCE}, pod)
    (compute,), (volume,) = pod["containers"], pod["volumes"]
    assert compute["resources"] == {"requests": {RESOURCE: "2"}, "limits": {RESOURCE: "2"}}
    assert {each["name"]: each["value"] for each in compute["env"]} == {
        "KUBEVIRT_RESOURCE_NAME_blue": RESOURCE,
        "KUBEVIRT_RESOURCE_NAME_red": RESOURCE,
    }
    assert compute["volumeMounts"] == [{"name": volume["name"], "mountPath": "/etc/podinfo"}]
    (item,) = volume["downwardAPI"]["items"]
    assert item == {"path": "network-info", "fieldRef": {"fieldPath": f"metadata.annotations['{INFO}']"}}


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "5", "[5]", '{"a": 1}'])
def test_a_report_that_is_none_is_waited_for(text: str) -> None:
    assert sriov.info(vmi("blue"), {"metadata": {"annotations": {STATUS: text}}}) is None


def test_what_multus_reports_is_handed_on() -> None:
    device = {"type": "pci", "version": "1.0.0", "pci": {"pci-address": "0000:65:00.2"}}
    name = further_interface_name("blue")
    report = [{"name": "cni", "interface": "eth0"}, {"name": "nics/blue", "interface": name, "device-info": device}]
    pod: dict[str, Any] = {"metadata": {"annotations": {STATUS: json.dumps(report)}}}
    text = sriov.info(vmi("blue"), pod)
    assert json.loads(text or "") == {"interfaces": [{"network": "blue", "deviceInfo": device}]}
    pod["metadata"]["annotations"][INFO] = text
    assert sriov.info(vmi("blue"), pod) is None
    for broken in ("{", "[1]", "3", "", json.dumps(report[:1])):
        assert sriov.info(vmi("blue"), {"metadata": {"annotations": {STATUS: broken}}}) is None


def functions(machine: dict[str, Any], assigned: dict[str, str], info: dict[str, str]) -> str:
    devices = Element("devices")
    add_functions(devices, machine["spec"], assigned, info)
    return tostring(devices, encoding="unicode")


def test_a_guest_has_its_function() -> None:
    machine = vmi("blue", bootOrder=1, pciAddress="0000:81:01.0")
    assigned = {"KUBEVIRT_RESOURCE_NAME_blue": RESOURCE, "PCIDEVICE_INTEL_COM_SRIOV_NET": "0000:65:00.2"}
    text = functions(machine, assigned, {})
    assert '<hostdev type="pci" mode="subsystem" managed="no"><source>' in text
    assert '<address domain="0x0000" bus="0x65" slot="0x00" function="0x2" /></source><boot order="1" />' in text
    assert '<alias name="ua-sriov-blue" /><address type="pci" domain="0x0000" bus="0x81"' in text
    assert functions(vmi("blue", state="absent"), {}, {}) == "<devices />"
    assert 'function="0x7"' in functions(machine, {}, {"blue": "0000:65:00.7"}), "Multus knows better"


@pytest.mark.parametrize(
    ("assigned", "info", "words"),
    [
        ({}, {}, "was given no device"),
        ({"KUBEVIRT_RESOURCE_NAME_a": RESOURCE}, {}, "check that its plugin sets PCIDEVICE_INTEL_COM_SRIOV_NET"),
        (
            {
                "KUBEVIRT_RESOURCE_NAME_a": RESOURCE,
                "KUBEVIRT_RESOURCE_NAME_b": RESOURCE,
                "PCIDEVICE_INTEL_COM_SRIOV_NET": "0000:65:00.2,0000:65:00.3",
            },
            {},
            "several networks have devices of 'intel.com/sriov_net'",
        ),
        ({}, {"a": "../../etc", "b": "0000:65:00.2"}, "is not a PCI address"),
    ],
)
def test_devices_that_are_not_known(assigned: dict[str, str], info: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        functions(vmi("a", "b"), assigned, info)


def test_the_engine_connects_nothing() -> None:
    machine = vmi("blue")
    assert [interface["name"] for _, interface, _ in own_connections(machine["spec"])] == ["default"]
    assert network.plans(machine, {further_interface_name("blue"): network.PodInterface("x", "m", (), None, 1)}) == ()
    assert migratability.of({**machine, "status": {}}).reason == "HostDeviceNotLiveMigratable"
