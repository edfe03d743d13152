# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachines that name an instance type or a preference, against an API server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakeapi import FakeApi
from test_controller import VM, VMI, bring_up, finish, make_vm, printable, vm_status

from turtles.controller.main import VirtController

GROUP = "/apis/instancetype.kubevirt.io/v1beta1"
MEDIUM = f"{GROUP}/virtualmachineclusterinstancetypes/medium"
LARGE = f"{GROUP}/namespaces/ns/virtualmachineinstancetypes/large"
LINUX = f"{GROUP}/virtualmachineclusterpreferences/linux"
REVISIONS = "/apis/apps/v1/namespaces/ns/controllerrevisions/"


def put(api: FakeApi, path: str, kind: str, spec: dict) -> None:
    metadata = {"name": path.rpartition("/")[2], "generation": 1}
    if "/namespaces/" in path:
        metadata["namespace"] = "ns"
    api.put(path, {"apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": kind, "metadata": metadata, "spec": spec})


def sizes(api: FakeApi) -> None:
    put(api, MEDIUM, "VirtualMachineClusterInstancetype", {"cpu": {"guest": 2}, "memory": {"guest": "128Mi"}})
    put(api, LARGE, "VirtualMachineInstancetype", {"cpu": {"guest": 4}, "memory": {"guest": "256Mi"}})
    put(api, LINUX, "VirtualMachineClusterPreference", {"cpu": {"preferredCPUTopology": "cores"}})


def machine(name: str = "testvm", **spec: object) -> dict:
    vm = make_vm(instancetype={"name": "medium", "kind": "virtualmachineclusterinstancetype"}, **spec)
    vm["metadata"]["name"] = name
    vm["spec"]["template"]["spec"] = {"domain": {"devices": {}}}
    return vm


def copies(api: FakeApi, word: str = "") -> list[str]:
    return [
        path.removeprefix(REVISIONS)
        for path in list(api.objects)
        if path.startswith(REVISIONS) and "revision-start-vm" not in path and word in path
    ]


def guest(api: FakeApi, vmi: str = VMI) -> tuple:
    domain = api.wait(lambda: (api.objects.get(vmi) or {}).get("spec"))["domain"]
    return domain["memory"]["guest"], domain["cpu"]["cores"], domain["cpu"]["sockets"]


def restart(api: FakeApi) -> None:
    uid = api.objects[VMI]["metadata"]["uid"]
    request = [{"action": "Stop", "uid": uid}, {"action": "Start"}]
    api.update(VM, {"status": {"stateChangeRequests": request}})
    api.wait(lambda: api.objects[VMI]["metadata"].get("deletionTimestamp"))
    finish(api, "Succeeded")
    api.wait(lambda: (api.objects.get(VMI) or {}).get("metadata", {}).get("uid") not in (None, uid))


def test_a_machine_keeps_what_it_was_started_with(api: FakeApi, controller: VirtController) -> None:
    sizes(api)
    api.put(VM, machine(preference={"name": "linux"}))
    assert guest(api) == ("128Mi", 2, 1)
    assert api.objects[VMI]["metadata"]["annotations"] | {"": ""} == api.objects[VMI]["metadata"]["annotations"] | {
        "": "",
        "kubevirt.io/cluster-instancetype-name": "medium",
        "kubevirt.io/cluster-preference-name": "linux",
    }
    status = vm_status(api)
    assert {key: status["instancetypeRef"][key] for key in ("name", "kind")} == {
        "name": "medium",
        "kind": "virtualmachineclusterinstancetype",
    }
    (revision,) = copies(api, "medium")
    assert status["instancetypeRef"]["controllerRevisionRef"] == {"name": revision}
    assert status["preferenceRef"]["controllerRevisionRef"] == {"name": copies(api, "linux")[0]}
    uid = api.objects[MEDIUM]["metadata"]["uid"]
    assert revision == f"ns-medium-v1beta1-{uid}-1"
    stored = api.objects[REVISIONS + revision]
    assert stored["data"]["spec"] == api.objects[MEDIUM]["spec"]
    assert stored["metadata"]["labels"] == {
        "instancetype.kubevirt.io/object-generation": "1",
        "instancetype.kubevirt.io/object-kind": "VirtualMachineClusterInstancetype",
        "instancetype.kubevirt.io/object-name": "medium",
        "instancetype.kubevirt.io/object-uid": uid,
        "instancetype.kubevirt.io/object-version": "v1beta1",
    }
    assert [owner["name"] for owner in stored["metadata"]["ownerReferences"]] == ["testvm"]
    bring_up(api)
    printable(api, "Running")
    api.update(MEDIUM, {"metadata": {"generation": 2}, "spec": {"memory": {"guest": "512Mi"}}})
    restart(api)
    assert guest(api) == ("128Mi", 2, 1), "the object changed, the machine's copy didn't"
    bring_up(api)
    api.delete(MEDIUM)
    restart(api)
    assert guest(api) == ("128Mi", 2, 1), "nor does it need the object any more"


def restart_required(api: FakeApi) -> bool:
    return any(each["type"] == "RestartRequired" for each in vm_status(api)["conditions"])


def live(api: FakeApi) -> dict:
    """Run a machine that may grow, as admission completes it."""
    sizes = {"small": (2, "1Gi"), "big": (4, "2Gi"), "other": (4, "2Gi")}
    for name, (processors, memory) in sizes.items():
        cpu = {"guest": processors, "maxSockets": 8, **({"model": "Nehalem"} if name == "other" else {})}
        path = f"{GROUP}/virtualmachineclusterinstancetypes/{name}"
        put(
            api, path, "VirtualMachineClusterInstancetype", {"cpu": cpu, "memory": {"guest": memory, "maxGuest": "4Gi"}}
        )
    vm = machine()
    vm["spec"]["instancetype"] = {"name": "small"}
    api.put(VM, vm)
    assert guest(api)[0] == "1Gi"
    bring_up(api)
    printable(api, "Running")
    status = {"currentCPUTopology": {"sockets": 2, "cores": 1, "threads": 1}, "memory": {"guestAtBoot": "1Gi"}}
    api.update(VMI, {"status": status, "spec": {"architecture": "amd64", "domain": {"cpu": {"threads": 1}}}})
    return api.objects[VMI]


def test_a_running_machine_follows_to_a_larger_instance_type(api: FakeApi, controller: VirtController) -> None:
    uid = live(api)["metadata"]["uid"]
    api.update(VM, {"spec": {"instancetype": {"name": "big"}}, "metadata": {"generation": 2}})
    api.wait(lambda: guest(api) == ("2Gi", 1, 4))
    assert api.objects[VMI]["metadata"]["uid"] == uid
    api.wait(lambda: vm_status(api)["instancetypeRef"].get("name") == "big")
    assert vm_status(api)["instancetypeRef"]["controllerRevisionRef"] == {"name": copies(api, "big")[0]}
    assert api.objects[VMI]["metadata"]["annotations"]["kubevirt.io/cluster-instancetype-name"] == "big"
    api.wait(lambda: not restart_required(api))
    # From then on its copy counts.
    path = f"{GROUP}/virtualmachineclusterinstancetypes/big"
    api.update(path, {"metadata": {"generation": 2}, "spec": {"memory": {"guest": "3Gi"}}})
    api.update(VM, {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}, "metadata": {"generation": 3}})
    api.wait(lambda: api.objects[VMI]["spec"].get("nodeSelector") == {"a": "b"})
    assert guest(api) == ("2Gi", 1, 4)
    api.update(VM, {"spec": {"instancetype": {"name": "small"}}, "metadata": {"generation": 4}})
    api.update(VMI, {"status": {"currentCPUTopology": {"sockets": 4}}})
    api.wait(lambda: restart_required(api))
    assert guest(api) == ("2Gi", 1, 4)


@pytest.mark.parametrize(("name", "words"), [("other", "non-live-updatable"), ("lost", "not found")])
def test_what_a_running_machine_can_not_follow(api: FakeApi, controller: VirtController, name: str, words: str) -> None:
    live(api)
    api.update(VM, {"spec": {"instancetype": {"name": name}}, "metadata": {"generation": 2}})
    api.wait(lambda: restart_required(api))
    (condition,) = [each for each in vm_status(api)["conditions"] if each["type"] == "RestartRequired"]
    assert words in condition["message"]
    assert guest(api) == ("1Gi", 1, 2)
    assert vm_status(api)["instancetypeRef"]["name"] == "small"


def test_another_instance_type_counts_from_the_next_start(api: FakeApi, controller: VirtController) -> None:
    sizes(api)
    api.put(VM, machine())
    assert guest(api) == ("128Mi", 1, 2)
    bring_up(api)
    printable(api, "Running")
    api.update(VM, {"spec": {"instancetype": {"name": "large", "kind": "VirtualMachineInstancetype"}}})
    api.wait(lambda: any(each["type"] == "RestartRequired" for each in vm_status(api)["conditions"]))
    assert guest(api) == ("128Mi", 1, 2)
    restart(api)
    assert guest(api) == ("256Mi", 1, 4)
    assert vm_status(api)["instancetypeRef"]["controllerRevisionRef"] == {"name": copies(api, "large")[0]}
    annotations = api.objects[VMI]["metadata"]["annotations"]
    assert annotations["kubevirt.io/instancetype-name"] == "large"
    assert "kubevirt.io/cluster-instancetype-name" not in annotations
    bring_up(api)
    api.update(VM, {"spec": {"instancetype": None, "template": {"spec": {"domain": {"memory": {"guest": "64Mi"}}}}}})
    api.wait(lambda: any(each["type"] == "RestartRequired" for each in vm_status(api)["conditions"]))
    assert "instancetypeRef" not in vm_status(api)
    restart(api)
    assert api.objects[VMI]["spec"]["domain"]["memory"]["guest"] == "64Mi"


def test_what_is_named_again_is_taken_as_it_is_then(api: FakeApi, controller: VirtController) -> None:
    sizes(api)
    api.put(VM, machine())
    bring_up(api)
    api.update(MEDIUM, {"metadata": {"generation": 2}, "spec": {"memory": {"guest": "512Mi"}}})
    named = api.objects[VM]["spec"]["instancetype"]
    api.update(VM, {"spec": {"instancetype": None}})
    api.wait(lambda: "instancetypeRef" not in vm_status(api))
    api.update(VM, {"spec": {"instancetype": named}})
    restart(api)
    assert guest(api) == ("512Mi", 1, 2)
    assert len(copies(api, "medium")) == 2


def test_machines_of_a_namespace_share_a_copy(api: FakeApi, controller: VirtController) -> None:
    sizes(api)
    api.put(VM, machine())
    guest(api)
    other = VM.replace("testvm", "other")
    api.put(other, machine("other"))
    assert guest(api, VMI.replace("testvm", "other")) == ("128Mi", 1, 2)
    (revision,) = copies(api)
    owners = api.objects[REVISIONS + revision]["metadata"]["ownerReferences"]
    assert [owner["name"] for owner in owners] == ["testvm", "other"]
    assert not any(owner.get("controller") for owner in owners)


def test_a_named_revision_counts(api: FakeApi, controller: VirtController) -> None:
    spec = {"cpu": {"guest": 3}, "memory": {"guest": "96Mi"}}
    body = {"metadata": {"name": "mine", "namespace": "ns"}, "data": {"spec": spec}}
    api.put(f"{REVISIONS}mine", {"apiVersion": "apps/v1", "kind": "ControllerRevision", **body})
    vm = machine()
    vm["spec"]["instancetype"]["revisionName"] = "mine"
    api.put(VM, vm)
    assert guest(api) == ("96Mi", 1, 3)
    assert vm_status(api)["instancetypeRef"]["controllerRevisionRef"] == {"name": "mine"}
    assert [owner["name"] for owner in api.objects[f"{REVISIONS}mine"]["metadata"]["ownerReferences"]] == ["testvm"]


def test_what_is_missing_is_waited_for(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, machine())

    def failure() -> dict:
        return next((each for each in vm_status(api).get("conditions", ()) if each["type"] == "Failure"), {})

    assert api.wait(failure)["reason"] == "FailedFindInstancetype"
    assert "medium" in failure()["message"]
    sizes(api)
    assert guest(api) == ("128Mi", 1, 2)
    api.wait(lambda: not failure())


def test_a_conflict_that_arose_since_is_told(api: FakeApi, controller: VirtController) -> None:
    sizes(api)
    vm = machine()
    vm["spec"]["template"]["spec"]["domain"]["cpu"] = {"cores": 2}
    api.put(VM, vm)
    api.wait(lambda: vm_status(api).get("conditions"))
    failure = api.wait(lambda: next((c for c in vm_status(api)["conditions"] if c["type"] == "Failure"), None))
    assert failure["message"].endswith("VMI conflicts with instancetype spec in fields: [spec.domain.cpu.cores]")
    assert VMI not in api.objects
    assert copies(api) == []


@pytest.mark.parametrize(
    ("own", "preferred"),
    [({}, {"preferredAutoattachInputDevice": True}), ({"autoattachInputDevice": True}, {})],
    ids=("the preference wants an input", "the machine does"),
)
def test_without_devices_a_preference_decides(
    api: FakeApi, start: Callable[..., VirtController], own: dict[str, bool], preferred: dict[str, bool]
) -> None:
    start()
    devices = {**preferred, "preferredInputBus": "virtio", "preferredDiskBus": "virtio"}
    put(api, LINUX, "VirtualMachineClusterPreference", {"devices": devices})
    vm = make_vm(preference={"name": "linux"})
    vm["spec"]["template"]["spec"] = {
        "domain": {"devices": own, "memory": {"guest": "64M"}},
        "volumes": [{"name": "root", "emptyDisk": {"capacity": "1Gi"}}],
    }
    api.put(VM, vm)
    found = api.wait(lambda: (api.objects.get(VMI) or {}).get("spec"))["domain"]["devices"]
    assert found["inputs"] == [{"name": "default-0", "bus": "virtio", "type": "tablet"}]
    assert found["disks"] == [{"name": "root", "disk": {"bus": "virtio"}}]
    assert found["interfaces"] == [{"name": "default", "bridge": {}}]
