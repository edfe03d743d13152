# SPDX-License-Identifier: GPL-3.0-or-later
"""virt-controller against an API server: the test plays the user, the kubelet and the node agent."""

from collections.abc import Callable

import pytest
from aiohttp import web
from fakeapi import FakeApi, status

from turtles.api import labels
from turtles.controller.main import VirtController

VM = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines/testvm"
VMI = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances/testvm"
VMIS = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances"
PODS = "/api/v1/namespaces/ns/pods"
NODE = "/api/v1/nodes/n"


def make_vm(**spec: object) -> dict:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "testvm", "namespace": "ns"},
        "spec": {
            "runStrategy": "Always",
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"domain": {"memory": {"guest": "64M"}}}},
            **spec,
        },
    }


def vm_status(api: FakeApi) -> dict:
    return api.objects[VM].get("status") or {}


def phase(api: FakeApi) -> str | None:
    return (api.objects.get(VMI) or {}).get("status", {}).get("phase")


def printable(api: FakeApi, word: str) -> None:
    api.wait(lambda: vm_status(api).get("printableStatus") == word)


def the_pod(api: FakeApi) -> str:
    return api.wait(lambda: next((path for path in list(api.objects) if path.startswith(PODS)), None))


def bring_up(api: FakeApi) -> str:
    """Play scheduler, kubelet and node agent until the VMI runs; returns the Pod's path."""
    pod = the_pod(api)
    api.wait(lambda: phase(api) == "Scheduling")
    api.update(
        pod,
        {
            "spec": {"nodeName": "n"},
            "status": {
                "phase": "Running",
                "qosClass": "Burstable",
                "conditions": [{"type": "ContainersReady", "status": "True"}],
            },
        },
    )
    api.wait(lambda: phase(api) == "Scheduled")

    def gate() -> bool:
        return any(each["type"] == labels.UNPAUSED_READINESS_GATE for each in api.objects[pod]["status"]["conditions"])

    api.wait(gate)
    api.update(
        pod,
        {"status": {"conditions": [*api.objects[pod]["status"]["conditions"], {"type": "Ready", "status": "True"}]}},
    )
    api.update(VMI, {"status": {"phase": "Running", "phaseTransitionTimestamps": [{"phase": "Running"}]}})
    return pod


def finish(api: FakeApi, final: str) -> None:
    """Play the node agent whose guest ended."""
    others = [each for each in api.objects[VMI]["status"]["conditions"] if each["type"] != "Ready"]
    api.update(VMI, {"status": {"phase": final, "conditions": [*others, {"type": "Ready", "status": "False"}]}})


def test_from_vm_to_ready_and_away(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    pod = bring_up(api)
    printable(api, "Running")
    api.wait(lambda: vm_status(api).get("ready"))
    vmi = api.objects[VMI]
    assert vmi["metadata"]["labels"] == {"app": "web", "kubevirt.io/nodeName": "n"}
    assert vmi["status"]["activePods"] == {api.objects[pod]["metadata"]["uid"]: "n"}
    assert len([path for path in api.objects if "/controllerrevisions/revision-start-vm-" in path]) == 1
    api.delete(VM)
    printable(api, "Terminating")
    api.wait(lambda: api.objects[VMI]["metadata"].get("deletionTimestamp"))
    assert pod in api.objects, "the guest shuts down first"
    finish(api, "Succeeded")
    api.wait(lambda: VMI not in api.objects and VM not in api.objects and pod not in api.objects)
    controller.recorder.close()
    reasons = {
        (each["involvedObject"]["kind"], each["reason"]) for path, each in api.objects.items() if "/events/" in path
    }
    assert reasons >= {
        ("VirtualMachine", "SuccessfulCreate"),
        ("VirtualMachine", "SuccessfulDelete"),
        ("VirtualMachineInstance", "SuccessfulCreate"),
        ("VirtualMachineInstance", "SuccessfulDelete"),
    }


def test_a_guest_that_shuts_down_under_always_starts_anew(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    first = bring_up(api)
    uid = api.objects[VMI]["metadata"]["uid"]
    printable(api, "Running")
    finish(api, "Succeeded")
    api.wait(lambda: (api.objects.get(VMI) or {}).get("metadata", {}).get("uid") not in (None, uid))
    api.wait(lambda: first not in api.objects)
    bring_up(api)
    printable(api, "Running")
    assert "startFailure" not in vm_status(api)


def test_halting_stops_and_starting_again_makes_a_revision(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    bring_up(api)
    printable(api, "Running")
    api.update(VM, {"spec": {"runStrategy": "Halted"}})
    printable(api, "Stopping")
    finish(api, "Succeeded")
    printable(api, "Stopped")
    gone = ("/controllerrevisions/", PODS)
    api.wait(lambda: not [path for path in list(api.objects) if any(part in path for part in gone)])
    assert vm_status(api)["runStrategy"] == "Halted"
    api.update(VM, {"spec": {"runStrategy": "Always"}})
    bring_up(api)
    printable(api, "Running")


def test_a_changed_template_asks_for_a_restart(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    bring_up(api)
    api.update(VM, {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "128M"}}}}}})
    api.wait(lambda: any(each["type"] == "RestartRequired" for each in vm_status(api)["conditions"]))
    api.update(VM, {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "64M"}}}}}})
    api.wait(lambda: not any(each["type"] == "RestartRequired" for each in vm_status(api)["conditions"]))


def test_a_running_instance_follows_its_template(api: FakeApi, controller: VirtController) -> None:
    vm = make_vm()
    template = vm["spec"]["template"]["spec"]
    template["domain"]["cpu"] = {"sockets": 1, "maxSockets": 4}
    template["nodeSelector"] = {"zone": "a"}
    api.put(VM, vm)
    bring_up(api)
    printable(api, "Running")
    uid = api.objects[VMI]["metadata"]["uid"]
    change = {"domain": {"cpu": {"sockets": 2}}, "nodeSelector": None, "tolerations": [{"operator": "Exists"}]}
    api.update(VM, {"spec": {"template": {"spec": change}}})
    api.wait(lambda: api.objects[VMI]["spec"]["domain"]["cpu"]["sockets"] == 2)
    spec = api.objects[VMI]["spec"]
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert "nodeSelector" not in spec
    api.wait(lambda: vm_status(api)["desiredGeneration"] == api.objects[VM]["metadata"]["generation"])
    assert "RestartRequired" not in conditions(api)
    # More than there is room for, and a field that no guest can follow
    for beyond in ({"domain": {"cpu": {"sockets": 8}}}, {"domain": {"cpu": {"cores": 2}}}):
        api.update(VM, {"spec": {"template": {"spec": beyond}}})
        api.wait(lambda: "RestartRequired" in conditions(api))
        assert api.objects[VMI]["spec"]["domain"]["cpu"]["sockets"] == 2
        api.update(VM, {"spec": {"template": {"spec": {"domain": {"cpu": {"sockets": 2, "cores": None}}}}}})
        api.wait(lambda: "RestartRequired" not in conditions(api))
    assert api.objects[VMI]["metadata"]["uid"] == uid


def test_orphaned(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    pod = bring_up(api)
    printable(api, "Running")
    api.update(VM, {"metadata": {"finalizers": [*api.objects[VM]["metadata"]["finalizers"], "orphan"]}})
    api.delete(VM)
    api.wait(lambda: api.objects[VM]["metadata"]["finalizers"] == ["orphan"])
    assert api.objects[VMI]["metadata"]["ownerReferences"] == []
    assert labels.VM_FINALIZER not in api.objects[VMI]["metadata"]["finalizers"]
    api.update(VM, {"metadata": {"finalizers": []}})
    assert VM not in api.objects
    assert phase(api) == "Running"
    assert pod in api.objects
    [revision] = revisions(api)
    assert [each["uid"] for each in revision["metadata"]["ownerReferences"]] == [api.objects[VMI]["metadata"]["uid"]]


def conditions(api: FakeApi) -> dict[str, dict]:
    return {each["type"]: each for each in vm_status(api).get("conditions") or ()}


def revisions(api: FakeApi) -> list[dict]:
    return [obj for path, obj in list(api.objects.items()) if "/controllerrevisions/" in path]


def orphan(api: FakeApi) -> str:
    """Delete the VM and leave its VMI, as the garbage collector does; returns the VMI's uid."""
    api.put(VM, make_vm())
    bring_up(api)
    printable(api, "Running")
    api.update(VM, {"metadata": {"finalizers": [*api.objects[VM]["metadata"]["finalizers"], "orphan"]}})
    api.delete(VM)
    api.wait(lambda: api.objects[VM]["metadata"]["finalizers"] == ["orphan"])
    api.update(VM, {"metadata": {"finalizers": []}})
    return api.objects[VMI]["metadata"]["uid"]


@pytest.mark.parametrize(("memory", "differs"), [("64M", False), ("64000000", False), ("96M", True)])
def test_an_adopted_instance_is_compared_with_what_it_was_started_with(
    api: FakeApi, controller: VirtController, memory: str, differs: bool
) -> None:
    uid = orphan(api)
    vm = make_vm()
    vm["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = memory
    api.put(VM, vm)
    printable(api, "Running")
    owners = api.objects[VMI]["metadata"]["ownerReferences"]
    assert [each["uid"] for each in owners] == [api.objects[VM]["metadata"]["uid"]]
    assert api.objects[VMI]["metadata"]["uid"] == uid
    assert ("RestartRequired" in conditions(api)) is differs
    assert vm_status(api).get("observedGeneration") == (None if differs else vm_status(api)["desiredGeneration"])
    assert labels.VM_GENERATION not in api.objects[VMI]["metadata"]["annotations"], "it is that of another VM"
    api.update(VM, {"spec": {"runStrategy": "Halted"}})
    printable(api, "Stopping")
    finish(api, "Succeeded")
    printable(api, "Stopped")
    api.wait(lambda: VMI not in api.objects and not revisions(api))


def test_an_instance_made_by_hand_is_adopted(api: FakeApi, controller: VirtController) -> None:
    spec = {"domain": {"devices": {}, "memory": {"guest": "32M"}}}
    instance = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "spec": spec}
    api.put(VMI, {**instance, "metadata": {"name": "testvm", "namespace": "ns"}})
    bring_up(api)
    api.put(VM, make_vm())
    printable(api, "Running")
    api.wait(lambda: "RestartRequired" in conditions(api))


def test_a_halted_vm_adopts_nothing(api: FakeApi, controller: VirtController) -> None:
    """It would shut down at once what somebody else has started."""
    orphan(api)
    api.put(VM, make_vm(runStrategy="Halted"))
    failure = api.wait(lambda: conditions(api).get("Failure"))
    assert failure["reason"] == "NotAdopted"
    assert "is halted" in failure["message"]
    assert api.objects[VMI]["metadata"]["ownerReferences"] == []
    assert "deletionTimestamp" not in api.objects[VMI]["metadata"]
    assert (vm_status(api)["printableStatus"], vm_status(api).get("created")) == ("Stopped", None)
    api.update(VM, {"spec": {"runStrategy": "Manual"}})
    printable(api, "Running")
    api.wait(lambda: "Failure" not in conditions(api))
    assert api.objects[VMI]["metadata"]["ownerReferences"]
    controller.recorder.close()
    told = [each for path, each in api.objects.items() if "/events/" in path and each["reason"] == "NotAdopted"]
    assert [each.get("count", 1) for each in told] == [1]


def test_a_corrected_template_replaces_an_instance_that_never_ran(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm(runStrategy="Manual"))
    printable(api, "Stopped")
    api.update(VM, {"status": {"stateChangeRequests": [{"action": "Start"}]}})
    pod = the_pod(api)
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    api.update(pod, {"status": {"conditions": [unschedulable]}})
    printable(api, "ErrorUnschedulable")
    uid = api.objects[VMI]["metadata"]["uid"]
    # The same, written differently
    api.update(VM, {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "64000000"}}}}}})
    api.wait(lambda: vm_status(api)["desiredGeneration"] == api.objects[VM]["metadata"]["generation"])
    assert api.objects[VMI]["metadata"]["uid"] == uid
    assert "RestartRequired" not in conditions(api)
    api.update(VM, {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "32M"}}}}}})
    api.wait(lambda: api.objects.get(VMI, {}).get("metadata", {}).get("uid") not in (None, uid))
    assert api.objects[VMI]["spec"]["domain"]["memory"]["guest"] == "32M"
    bring_up(api)
    printable(api, "Running")
    assert len(revisions(api)) == 1
    assert "stateChangeRequests" not in vm_status(api)


def test_a_guest_that_shuts_down_is_neither_ready_nor_served(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    pod = bring_up(api)
    api.wait(lambda: vm_status(api).get("ready"))
    api.delete(VMI)
    api.wait(lambda: conditions(api)["Ready"]["status"] == "False")
    assert conditions(api)["Ready"]["reason"] == "PodTerminating"
    assert "ready" not in vm_status(api)

    def of(path: str, type_: str) -> str:
        return next(each["status"] for each in api.objects[path]["status"]["conditions"] if each["type"] == type_)

    api.wait(lambda: of(VMI, "Ready") == "False" and of(pod, labels.UNPAUSED_READINESS_GATE) == "False")
    assert "deletionTimestamp" not in api.objects[pod]["metadata"]


def test_a_halted_vm_is_started_paused(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm(runStrategy="Halted"))
    printable(api, "Stopped")
    api.update(VM, {"status": {"stateChangeRequests": [{"action": "Start", "data": {"paused": "true"}}]}})
    the_pod(api)
    assert api.objects[VMI]["spec"]["startStrategy"] == "Paused"
    assert api.objects[VM]["spec"]["runStrategy"] == "Always"
    api.wait(lambda: "stateChangeRequests" not in vm_status(api))


def test_a_pod_that_its_node_rejects_fails_no_start(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    pod = the_pod(api)
    uid, vmi = api.objects[pod]["metadata"]["uid"], api.wait(lambda: api.objects.get(VMI))["metadata"]["uid"]
    api.wait(lambda: phase(api) == "Scheduling")
    api.update(pod, {"status": {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no devices"}})
    api.wait(lambda: api.objects.get(pod, {}).get("metadata", {}).get("uid") not in (None, uid))
    bring_up(api)
    printable(api, "Running")
    assert api.objects[VMI]["metadata"]["uid"] == vmi


def test_machines_have_the_annotations_that_clients_read(api: FakeApi, controller: VirtController) -> None:
    """Admission sets them on new ones; this one was there before."""
    api.put(VM, make_vm())
    api.wait(lambda: labels.OBSERVED_VERSIONS.items() <= (api.objects[VM]["metadata"].get("annotations") or {}).items())


def test_quota(api: FakeApi, controller: VirtController) -> None:
    api.intercept = lambda method, path: (
        status(403, "Forbidden", "exceeded quota: count/vmis") if (method, path) == ("POST", VMIS) else None
    )
    api.put(VM, make_vm())

    def failure() -> dict | None:
        return next((each for each in vm_status(api).get("conditions") or () if each["type"] == "Failure"), None)

    assert api.wait(failure)["message"] == "exceeded quota: count/vmis"
    api.intercept = lambda method, path: (
        status(403, "Forbidden", "exceeded quota: pods") if (method, path) == ("POST", PODS) else None
    )
    api.wait(
        lambda: (
            phase(api) == "Pending"
            and any(
                "exceeded quota: pods" in each.get("message", "") for each in api.objects[VMI]["status"]["conditions"]
            )
        )
    )
    api.wait(lambda: failure() is None)
    api.intercept = lambda method, path: None
    bring_up(api)
    printable(api, "Running")


def test_a_launcher_that_fails_again_and_again(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    pod = the_pod(api)
    api.update(
        pod,
        {
            "status": {
                "phase": "Failed",
                "containerStatuses": [
                    {"name": "compute", "state": {"terminated": {"exitCode": 1, "message": "image x has no /disk"}}}
                ],
            }
        },
    )
    printable(api, "CrashLoopBackOff")
    assert vm_status(api)["startFailure"]["consecutiveFailCount"] == 1
    api.wait(lambda: VMI not in api.objects and not vm_status(api).get("created"))
    assert "image x has no /disk" in conditions(api)["Failure"]["message"]
    controller.recorder.close()
    told = {
        each["involvedObject"]["kind"]
        for path, each in api.objects.items()
        if "/events/" in path and "image x has no /disk" in each["message"]
    }
    assert told == {"VirtualMachine", "VirtualMachineInstance"}


def test_a_vmi_of_somebody_else_is_left_alone(api: FakeApi, controller: VirtController) -> None:
    owner = {"kind": "VirtualMachinePool", "name": "p", "uid": "1", "controller": True}
    api.put(
        VMI,
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "spec": {"domain": {}},
            "metadata": {"name": "testvm", "namespace": "ns", "ownerReferences": [owner]},
        },
    )
    api.put(VM, make_vm())
    api.wait(
        lambda: any(
            "VirtualMachinePool p" in each.get("message", "") for each in vm_status(api).get("conditions") or ()
        )
    )


def test_a_restart_of_the_controller_goes_on(
    api: FakeApi, start: Callable[..., VirtController], controller: VirtController
) -> None:
    api.put(VM, make_vm())
    the_pod(api)
    controller.stop()
    start()
    bring_up(api)
    printable(api, "Running")


def test_a_restart_of_the_server_is_survived(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    the_pod(api)
    api.stop()
    api.start()
    bring_up(api)
    printable(api, "Running")


def test_a_silent_node(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm(runStrategy="RerunOnFailure"))
    pod = bring_up(api)
    controller.caches.nodes.watching_since -= 3600
    api.put(
        "/api/v1/nodes/n",
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": "n",
                "labels": {labels.NODE_SCHEDULABLE: "true"},
                "annotations": {labels.NODE_HEARTBEAT: "2020-01-01T00:00:00Z"},
            },
        },
    )
    api.wait(lambda: api.objects[NODE]["metadata"]["labels"][labels.NODE_SCHEDULABLE] == "false")
    assert phase(api) == "Running", "its Pod lives"
    assert pod in api.objects


@pytest.mark.parametrize(
    ("runtimes", "policy", "mounted"),
    [
        (("containerd://2.1.4",), "IfNotPresent", True),
        (("containerd://2.1.4", "containerd://1.7.28"), "IfNotPresent", False),
        # A kubelet would pull it once a minute while the machine runs
        (("containerd://2.1.4",), "Always", False),
        (("turtles://0.1.0",), "Always", True),
    ],
)
def test_container_disks_are_what_the_nodes_can_do(
    api: FakeApi, controller: VirtController, runtimes: tuple[str, ...], policy: str, mounted: bool
) -> None:
    api.intercept = lambda method, path: (
        web.json_response({"major": "1", "minor": "35"}) if path == "/version" else None
    )
    # one that takes no machines doesn't count
    for number, runtime in enumerate((*runtimes, "docker://1.0")):
        takes = {labels.NODE_SCHEDULABLE: str(number < len(runtimes)).lower()}
        api.put(
            f"/api/v1/nodes/{number}",
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": str(number), "labels": takes},
                "status": {"nodeInfo": {"kubeletVersion": "v1.35.0", "containerRuntimeVersion": runtime}},
            },
        )
    api.wait(lambda: len(controller.caches.nodes.list()) > len(runtimes))
    template = make_vm()["spec"]["template"]
    template["spec"]["volumes"] = [
        {"name": "root", "containerDisk": {"image": "reg/disk:1", "imagePullPolicy": policy}}
    ]
    api.put(VM, make_vm(template=template))
    spec = api.objects[the_pod(api)]["spec"]
    images = {each["image"] for each in [*spec.get("initContainers", ()), *spec["containers"]]}
    assert ("reg/disk:1" not in images) is mounted
    assert any("image" in volume for volume in spec["volumes"]) is mounted


def test_the_way_is_short(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    bring_up(api)
    api.wait(lambda: vm_status(api).get("ready"))
    writes = [(method, path) for method, path in api.requests if method != "GET" and "/events" not in path]
    # VM: finalizer and a handful of status changes; VMI: create, Scheduling, Scheduled, Ready; revision; Pod, its gate.
    assert len(writes) <= 13, writes


def test_a_stop_takes_few_writes(api: FakeApi, controller: VirtController) -> None:
    api.put(VM, make_vm())
    bring_up(api)
    api.wait(lambda: vm_status(api).get("ready"))
    api.requests.clear()
    api.update(VM, {"spec": {"runStrategy": "Halted"}})
    printable(api, "Stopping")
    api.wait(lambda: api.objects[VMI]["metadata"].get("deletionTimestamp"))
    finish(api, "Succeeded")
    api.wait(lambda: VMI not in api.objects and vm_status(api).get("created") is None)
    # VM: Stopping and not ready, Stopped, not created. VMI: not ready; the finalizers of the VM and of the VMI at once,
    # or one after the other, perhaps in a second try, if its Pod went before the VM could take note.
    assert len([path for method, path in api.requests if (method, path) == ("PATCH", f"{VM}/status")]) <= 4
    assert len([path for method, path in api.requests if (method, path) == ("PATCH", VMI)]) <= 4
    # What it was started from is known, before and after its revision is deleted
    assert not [path for method, path in api.requests if method == "GET" and "/controllerrevisions/" in path]
