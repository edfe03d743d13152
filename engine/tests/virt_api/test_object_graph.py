# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects that machines consist of and need."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.configuration import DEFAULT
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.guests import launcher_pod_name
from turtles.kube.kubevirt import VM, VMI
from turtles.virt_api.status import Failure
from turtles.virt_api.subresources import handlers

from .fakes import FakeClient, FakeNodes

ON = from_kubevirt({"spec": {"configuration": {"developerConfiguration": {"featureGates": ["ObjectGraph"]}}}})
SPEC = {
    "domain": {"devices": {"tpm": {"persistent": True}}},
    "accessCredentials": [
        {"sshPublicKey": {"source": {"secret": {"secretName": "keys"}}}},
        {"userPassword": {"source": {"secret": {"secretName": "words"}}}},
    ],
    "volumes": [
        {"name": "a", "dataVolume": {"name": "imported"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "claim"}},
        {"name": "c", "cloudInitNoCloud": {"secretRef": {"name": "user"}, "networkDataSecretRef": {"name": "net"}}},
        {"name": "d", "configMap": {"name": "settings"}},
        {"name": "e", "serviceAccount": {"serviceAccountName": "robot"}},
        {"name": "f", "containerDisk": {"image": "x"}},
        {"name": "g", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
    ],
    "networks": [{"name": "n", "pod": {}}, {"name": "m", "multus": {"networkName": "other/red"}}],
}


def make(*, running: bool = True) -> FakeClient:
    metadata = {"namespace": "ns", "name": "web"}
    vm = {
        "metadata": {**metadata, "uid": "v"},
        "spec": {
            "instancetype": {"name": "small"},
            "preference": {"name": "linux", "kind": "VirtualMachinePreference", "revisionName": "kept"},
            "template": {"spec": SPEC},
        },
        "status": {"instancetypeRef": {"controllerRevisionRef": {"name": "copy"}}},
    }
    owner = {"kind": "VirtualMachine", "name": "web", "uid": "v", "controller": True}
    vmi = {
        "metadata": {**metadata, "uid": "i", "ownerReferences": [owner]},
        "spec": SPEC,
        "status": {"activePods": {"p": "node"}},
    }
    return FakeClient((VM, vm), *([(VMI, vmi)] if running else []))


def graph(client: FakeClient, kind: str, configuration: Any = ON, **options: Any) -> Any:
    found = handlers(client, FakeNodes(), lambda: configuration)  # type: ignore[arg-type]
    return found[f"object_graph_{kind}"]("ns", "web", options)


def names(node: dict[str, Any]) -> list[Any]:
    return [
        (each["objectReference"]["kind"], each["objectReference"]["name"], *names(each))
        for each in node.get("children", ())
    ]


NEEDED = [
    ("Secret", "keys"),
    ("Secret", "words"),
    ("DataVolume", "imported", ("PersistentVolumeClaim", "imported")),
    ("PersistentVolumeClaim", "claim"),
    ("Secret", "user"),
    ("Secret", "net"),
    ("ConfigMap", "settings"),
    ("ServiceAccount", "robot"),
    ("PersistentVolumeClaim", "base"),
    ("PersistentVolumeClaim", "persistent-state-for-web"),
    ("NetworkAttachmentDefinition", "red"),
]
POD = ("Pod", launcher_pod_name({"metadata": {"name": "web", "uid": "i"}}))


def test_a_machine():
    found = graph(make(), "vm")
    assert found["objectReference"] == {
        "apiGroup": "kubevirt.io",
        "kind": "VirtualMachine",
        "name": "web",
        "namespace": "ns",
    }
    assert names(found) == [
        ("VirtualMachineInstance", "web", POD),
        ("VirtualMachineClusterInstancetype", "small"),
        ("ControllerRevision", "copy"),
        ("VirtualMachinePreference", "linux"),
        ("ControllerRevision", "kept"),
        *NEEDED,
    ]
    assert found["children"][1] == {
        "objectReference": {
            "apiGroup": "instancetype.kubevirt.io",
            "kind": "VirtualMachineClusterInstancetype",
            "name": "small",
            "namespace": "",
        },
        "labels": {"kubevirt.io/dependency-type": "config"},
        "optional": True,
    }
    assert found["children"][-1]["objectReference"]["namespace"] == "other"
    assert names(graph(make(running=False), "vm"))[0] == ("VirtualMachineClusterInstancetype", "small")


def test_an_instance():
    assert names(graph(make(), "vmi")) == [POD, *NEEDED]


def test_what_is_asked_for():
    storage = {"matchLabels": {"kubevirt.io/dependency-type": "storage"}}
    assert names(graph(make(), "vmi", labelSelector=storage)) == [
        each for each in NEEDED if each[0] in ("DataVolume", "PersistentVolumeClaim")
    ]
    assert names(graph(make(), "vmi", includeOptionalNodes=False)) == [POD, *NEEDED[:-1]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labelSelector": 7}, "ObjectGraphOptions: "),
        ({"includeOptionalNodes": "no"}, "ObjectGraphOptions: "),
        (
            {"labelSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "must be specified when `operator`",
        ),
    ],
)
def test_options_that_can_not_be_read(options, words):
    with pytest.raises(Failure) as raised:
        graph(make(), "vm", **options)
    assert raised.value.code == 400
    assert words in raised.value.message


@pytest.mark.parametrize("kind", ["vm", "vmi"])
def test_without_the_gate_and_without_the_object(kind):
    with pytest.raises(Failure) as raised:
        graph(make(), kind, DEFAULT)
    assert (raised.value.code, raised.value.message) == (
        400,
        "ObjectGraph feature gate not enabled: Unable to return object graph.",
    )
    with pytest.raises(Failure) as raised:
        graph(FakeClient(), kind)
    assert raised.value.code == 404
