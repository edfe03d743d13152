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
    api.put(VM, make_vm())
    api.wait(lambda: api.objects[VMI]["metadata"]["ownerReferences"])
    printable(api, "Running")


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
    ("runtimes", "mounted"), [(("containerd://2.1.4",), True), (("containerd://2.1.4", "containerd://1.7.28"), False)]
)
def test_container_disks_are_what_the_nodes_can_do(
    api: FakeApi, controller: VirtController, runtimes: tuple[str, ...], mounted: bool
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
    template["spec"]["volumes"] = [{"name": "root", "containerDisk": {"image": "reg/disk:1"}}]
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
