# SPDX-License-Identifier: GPL-3.0-or-later
"""DataVolumes against an API server: the test plays the user, the storage and the kubelet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakeapi import FakeApi, Refused
from test_data_volume_plan import LOCAL, data_volume

from turtles.api.crd import crd
from turtles.api.kinds.data_volume import DATA_VOLUME

DV = "/apis/cdi.kubevirt.io/v1beta1/namespaces/ns/datavolumes/disk"
CLAIM = "/api/v1/namespaces/ns/persistentvolumeclaims/disk"
SCRATCH = f"{CLAIM}-scratch"
POD = "/api/v1/namespaces/ns/pods/importer-disk"
VM = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines/web"
VMI = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances/web"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/datavolumes.cdi.kubevirt.io"


@pytest.fixture
def begin(api: FakeApi, start: Callable[..., Any]) -> Callable[..., None]:
    """Start the controller."""

    def begin(definition: dict | None = None) -> None:
        api.put(CRD, definition or crd(DATA_VOLUME))
        api.put("/apis/storage.k8s.io/v1/storageclasses/local-path", {**LOCAL, "kind": "StorageClass"})
        start()

    return begin


def phase(api: FakeApi) -> str:
    return (api.objects[DV].get("status") or {}).get("phase", "")


def bind(api: FakeApi, path: str = CLAIM) -> None:
    api.wait(lambda: path in api.objects)
    api.update(path, {"status": {"phase": "Bound"}})


def run(api: FakeApi, phase: str, **container: Any) -> None:
    api.update(POD, {"status": {"phase": phase, "containerStatuses": [container]}})


def test_from_a_data_volume_to_a_disk(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.put(DV, data_volume({"http": {"url": "http://x/disk"}}))
    api.wait(lambda: phase(api) == "WaitForFirstConsumer")
    bind(api)
    api.wait(lambda: POD in api.objects)
    terminated = {"exitCode": 42, "message": "has to be stored"}
    run(api, "Running", lastState={"terminated": terminated}, state={"waiting": {}})
    api.wait(lambda: SCRATCH in api.objects)
    api.wait(lambda: "disk-scratch" in str(api.objects.get(POD)))
    run(api, "Succeeded")
    api.wait(lambda: phase(api) == "Succeeded")
    api.wait(lambda: POD not in api.objects and SCRATCH not in api.objects)
    assert api.objects[CLAIM]["metadata"]["annotations"]["cdi.kubevirt.io/storage.pod.phase"] == "Succeeded"
    api.wait(lambda: any(each.get("reason") == "ImportSucceeded" for each in list(api.objects.values())))


def test_upstreams_cdi_does_it(api: FakeApi, begin: Callable[..., None]) -> None:
    theirs = crd(DATA_VOLUME)
    theirs["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "cdi-operator"}
    begin(theirs)
    api.put(DV, data_volume())
    api.put(VM, machine())
    api.wait(lambda: any(each[0] == "GET" and "customresourcedefinitions" in each[1] for each in api.requests))
    api.wait(lambda: "status" in api.objects[VM])
    assert CLAIM not in api.objects
    assert "status" not in api.objects[DV]


def test_data_volumes_are_looked_at_once_the_definition_is_ours(api: FakeApi, begin: Callable[..., None]) -> None:
    theirs = crd(DATA_VOLUME)
    theirs["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "cdi-operator"}
    begin(theirs)
    api.put(DV, data_volume())
    api.put(VM, machine())
    api.wait(lambda: "status" in api.objects[VM])
    assert "status" not in api.objects[DV]
    api.put(CRD, crd(DATA_VOLUME))
    api.wait(lambda: phase(api))
    lists = [each for each in api.requests if each[0] == "GET" and each[1].endswith("/customresourcedefinitions")]
    assert len(lists) <= 2, "one list and one watch for all controllers"


def test_a_quota_that_is_exceeded(api: FakeApi, begin: Callable[..., None]) -> None:
    refuse = True

    def admit(method: str, path: str, obj: dict) -> None:
        if method == "POST" and refuse and obj.get("kind") == "PersistentVolumeClaim":
            raise Refused(403, "Forbidden", "exceeded quota: small")

    api.admit = admit  # type: ignore[method-assign]
    begin()
    api.put(DV, data_volume())
    api.wait(lambda: "exceeded quota: small" in str(api.objects[DV].get("status")))
    refuse = False
    api.wait(lambda: phase(api) == "WaitForFirstConsumer")


def test_a_config_map_that_is_missing(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.put(DV, data_volume({"http": {"url": "http://x/disk", "certConfigMap": "company-ca"}}))
    bind(api)
    api.wait(lambda: POD in api.objects)
    uid = api.objects[POD]["metadata"]["uid"]
    text = 'MountVolume.SetUp failed for volume "authorities" : configmap "company-ca" not found'
    event = {"kind": "Event", "involvedObject": {"uid": uid}, "reason": "FailedMount", "message": text}
    api.put("/api/v1/namespaces/ns/events/a", event)
    other = {**event, "involvedObject": {"uid": "other"}, "message": text.replace("company-ca", "other")}
    api.put("/api/v1/namespaces/ns/events/b", other)
    api.update(POD, {"spec": {"nodeName": "node"}})
    run(api, "Pending", state={"waiting": {"reason": "ContainerCreating"}})
    words = "ConfigMap ns/company-ca, which spec.source.http.certConfigMap names, does not exist"
    api.wait(lambda: words in str(api.objects[DV]["status"]))
    assert phase(api) == "ImportScheduled"
    told = api.wait(lambda: [each for each in list(api.objects.values()) if words in str(each.get("message"))])
    assert [each["type"] for each in told] == ["Warning"]
    run(api, "Succeeded")
    api.wait(lambda: phase(api) == "Succeeded")


# Machines


def machine(name: str = "disk", **annotations: str) -> dict:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "web", "namespace": "ns", "annotations": annotations},
        "spec": {
            "runStrategy": "Always",
            "template": {
                "spec": {
                    "domain": {"memory": {"guest": "64M"}, "devices": {}},
                    "volumes": [{"name": "root", "dataVolume": {"name": name}}],
                }
            },
            "dataVolumeTemplates": [{"metadata": {"name": name}, "spec": data_volume()["spec"]}],
        },
    }


def printed(api: FakeApi) -> str:
    return (api.objects[VM].get("status") or {}).get("printableStatus", "")


def test_a_machine_waits_for_its_disk(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    uid = api.put(VM, machine())["metadata"]["uid"]
    api.wait(lambda: DV in api.objects)
    assert api.objects[DV]["metadata"]["ownerReferences"][0]["uid"] == uid
    # A claim that waits for its consumer gets one that needs what the machine needs
    api.wait(lambda: VMI in api.objects)
    api.wait(lambda: any("virt-provision-" in path for path in api.objects))
    (path,) = [path for path in api.objects if "/pods/virt-provision-" in path]
    consumer = api.objects[path]["spec"]
    assert [each["persistentVolumeClaim"]["claimName"] for each in consumer["volumes"]] == ["disk"]
    assert consumer["nodeSelector"]["kubevirt.io/schedulable"] == "true"
    bind(api)
    api.wait(lambda: POD in api.objects)
    api.wait(lambda: path not in api.objects)
    api.wait(lambda: printed(api) == "Provisioning")
    assert not [found for found in api.objects if "/pods/virt-launcher-" in found]
    ended = {"exitCode": 1, "message": "503 Service Unavailable"}
    run(api, "Running", lastState={"terminated": ended}, state={"waiting": {}})
    api.wait(lambda: printed(api) == "DataVolumeError")
    api.wait(lambda: "503 Service Unavailable" in str(api.objects[VMI].get("status")))
    run(api, "Succeeded")
    api.wait(lambda: [found for found in api.objects if "/pods/virt-launcher-" in found])
    api.wait(lambda: printed(api) == "Starting")


def test_a_disk_that_comes_later_is_filled_first(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1", "labels": {"kubevirt.io/schedulable": "true"}},
    }
    api.put("/api/v1/nodes/n1", node)
    vm = machine()
    del vm["spec"]["dataVolumeTemplates"]
    volumes = vm["spec"]["template"]["spec"]["volumes"] = [{"name": "tmp", "emptyDisk": {"capacity": "1Mi"}}]
    api.put(VM, vm)
    launcher = api.wait(lambda: next((path for path in list(api.objects) if "/pods/virt-launcher-" in path), ""))
    api.update(launcher, {"spec": {"nodeName": "n1"}})
    api.put(DV, data_volume())
    api.wait(lambda: phase(api) == "WaitForFirstConsumer")
    later = {"name": "more", "dataVolume": {"name": "disk", "hotpluggable": True}}
    api.update(VMI, {"spec": {"volumes": [*volumes, later]}})
    path = api.wait(lambda: next((path for path in list(api.objects) if "/pods/virt-provision-" in path), ""))
    assert "n1" in str(api.objects[path]["spec"]["affinity"])
    bind(api)
    api.wait(lambda: POD in api.objects)
    api.wait(lambda: "DataVolume disk has no content" in str(api.objects[VMI].get("status")))
    assert not [found for found in api.objects if "/pods/hp-volume-" in found]
    run(api, "Succeeded")
    api.wait(lambda: [found for found in list(api.objects) if "/pods/hp-volume-" in found])
    api.wait(lambda: path not in api.objects)


def test_a_machine_whose_disk_is_on_its_way_isnt_started(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    vm = machine()
    vm["spec"]["runStrategy"] = "RerunOnFailure"
    vm["metadata"]["uid"] = "vm"
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "web", "uid": "vm", "controller": True}
    dv = data_volume(annotations={"cdi.kubevirt.io/storage.bind.immediate.requested": "true"})
    dv["metadata"]["ownerReferences"] = [owner]
    api.put(DV, dv)
    bind(api)
    api.put(VM, {**vm, "status": {"runStrategy": "Halted"}})
    api.wait(lambda: printed(api) == "Provisioning")
    assert VMI not in api.objects
    # That it was switched on isn't forgotten
    run(api, "Succeeded")
    api.wait(lambda: VMI in api.objects)


def test_a_data_volume_of_somebody_else(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.put(DV, data_volume())
    api.wait(lambda: phase(api) == "WaitForFirstConsumer")
    api.put(VM, machine())
    api.wait(lambda: "belongs to nobody. It is left unchanged" in str(api.objects[VM].get("status")))
    assert VMI not in api.objects
    assert "ownerReferences" not in api.objects[DV]["metadata"]


def test_a_claim_that_is_there_is_used(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.put(
        CLAIM,
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "disk", "namespace": "ns"},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Bound"},
        },
    )
    api.put(VM, machine())
    api.wait(lambda: VMI in api.objects)
    assert DV not in api.objects


def test_disks_that_are_to_come_later(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    vm = machine(**{"kubevirt.io/immediate-data-volume-creation": "false"})
    vm["spec"]["runStrategy"] = "Halted"
    api.put(VM, vm)
    api.wait(lambda: printed(api) == "Stopped")
    assert DV not in api.objects
    api.update(VM, {"spec": {"runStrategy": "Always"}})
    api.wait(lambda: DV in api.objects)


def test_a_data_volume_that_is_refused(api: FakeApi, begin: Callable[..., None]) -> None:
    def admit(method: str, path: str, obj: dict) -> None:
        if method == "POST" and obj.get("kind") == "DataVolume":
            raise Refused(422, "Invalid", "spec.source.s3 is not supported by this engine")

    api.admit = admit  # type: ignore[method-assign]
    begin()
    api.put(VM, machine())
    words = "Error creating DataVolume disk: spec.source.s3 is not supported by this engine"
    api.wait(lambda: words in str(api.objects[VM].get("status")))
    assert VMI not in api.objects


SOURCE = "/apis/cdi.kubevirt.io/v1beta1/namespaces/ns/datasources/debian"
PROFILE = "/apis/cdi.kubevirt.io/v1beta1/storageprofiles/local-path"


def test_a_data_source_says_whether_its_disk_is_complete(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    named = {"pvc": {"namespace": "ns", "name": "disk"}}
    for name, source in (("debian", {"dataSource": {"name": "newest"}}), ("newest", named)):
        metadata = {"name": name, "namespace": "ns", "uid": name}
        api.put(
            SOURCE.replace("debian", name), {"kind": "DataSource", "metadata": metadata, "spec": {"source": source}}
        )

    def reason() -> str:
        conditions = (api.objects[SOURCE].get("status") or {}).get("conditions") or [{}]
        return str(conditions[0].get("reason"))

    api.wait(lambda: reason() == "NotFound")
    api.put(DV, data_volume({"http": {"url": "http://x/disk"}}))
    api.wait(lambda: reason() == "WaitForFirstConsumer")
    bind(api)
    api.wait(lambda: POD in api.objects)
    run(api, "Succeeded")
    api.wait(lambda: reason() == "Ready")
    assert api.objects[SOURCE]["status"]["source"] == named


def test_each_storage_class_has_a_profile(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.wait(lambda: "status" in api.objects.get(PROFILE, {}))
    profile = api.objects[PROFILE]
    assert profile["status"]["claimPropertySets"] == [
        {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"},
        {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block"},
    ]
    assert profile["metadata"]["ownerReferences"][0]["kind"] == "StorageClass"
    own = [{"accessModes": ["ReadWriteMany"], "volumeMode": "Filesystem"}]
    api.update(PROFILE, {"spec": {"claimPropertySets": own}})
    api.wait(lambda: api.objects[PROFILE]["status"]["claimPropertySets"] == own)
    api.put(DV, data_volume({"blank": {}}))
    api.wait(lambda: CLAIM in api.objects)
    assert api.objects[CLAIM]["spec"]["accessModes"] == ["ReadWriteMany"]
