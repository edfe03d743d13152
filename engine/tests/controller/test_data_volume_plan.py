# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api import cdi
from turtles.api.conditions import get_condition
from turtles.api.import_settings import ImportSettings
from turtles.api.storage_profiles import status
from turtles.controller.data_volume.claim import ClaimError, claim, disk_size, scratch
from turtles.controller.data_volume.plan import MAX_RESTARTS, plan
from turtles.controller.data_volume.pod import ImporterConfig, importer_pod, is_known_to_need_scratch, pod_name
from turtles.controller.data_volume.step import Observed, Plan
from turtles.controller.data_volume.transfer import Aside, copied_for

NOW = "2026-11-30T20:00:00Z"
MIB = 1 << 20
LOCAL = {
    "metadata": {
        "name": "local-path",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "turtles.kubevirt/local-path",
    "volumeBindingMode": "WaitForFirstConsumer",
}
AT_ONCE = {"metadata": {"name": "at-once"}, "provisioner": "example.com/x", "volumeBindingMode": "Immediate"}
CLASSES = (LOCAL, AT_ONCE)
CONFIG = ImporterConfig("importer:1")


def data_volume(source: dict | None = None, annotations: dict | None = None, **spec: Any) -> dict:
    form = {"storage": {"resources": {"requests": {"storage": "1Gi"}}}}
    return {
        "apiVersion": "cdi.kubevirt.io/v1beta1",
        "kind": "DataVolume",
        "metadata": {"name": "disk", "namespace": "ns", "uid": "dv", "annotations": annotations or {}},
        "spec": {"source": source or {"http": {"url": "http://x/disk.img"}}, **(spec or form)},
    }


def pvc(dv: dict | None = None, phase: str = "Bound", **annotations: str) -> dict:
    made = claim(dv or data_volume(), CLASSES)
    made["metadata"]["annotations"] |= annotations
    return {**made, "status": {"phase": phase}}


def pod(dv: dict | None = None, phase: str = "Running", scratch: bool = False, **container: Any) -> dict:
    dv = dv or data_volume()
    made = importer_pod(dv, pvc(dv), CONFIG, scratch=scratch)
    return {**made, "status": {"phase": phase, "containerStatuses": [container]}}


def ended(code: int, message: str = "", restarts: int = 0, **more: Any) -> dict:
    state = {"terminated": {"exitCode": code, "message": message, **more}}
    return {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": state, "restartCount": restarts}


def decide(dv: dict, **observed: Any) -> Plan:
    return plan(dv, Observed(classes=CLASSES, **observed), NOW)


def said(decided: Plan, type_: str = "Running") -> tuple[str, str, str]:
    found = get_condition(decided.status["conditions"], type_)
    assert found is not None
    return found["status"], found.get("reason", ""), found.get("message", "")


# Claims


def test_storage_is_completed_with_what_the_class_can_do() -> None:
    made = claim(data_volume(), CLASSES)
    assert made["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "storageClassName": "local-path",
        # 1024 MiB / 0.94
        "resources": {"requests": {"storage": "1090Mi"}},
    }
    assert disk_size(data_volume(), made) == 1024 * MIB
    assert made["metadata"]["ownerReferences"][0]["uid"] == "dv"


def test_pvc_is_taken_as_it_is_and_the_disk_leaves_the_file_system_its_share() -> None:
    form = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}
    dv = data_volume(pvc=form)
    assert claim(dv, CLASSES)["spec"] == form
    assert disk_size(dv, claim(dv, CLASSES)) == 94 * MIB
    block = data_volume(pvc={**form, "volumeMode": "Block"})
    assert disk_size(block, claim(block, CLASSES)) == 100 * MIB


def test_the_default_class_for_machines_comes_first() -> None:
    marked = {"storageclass.kubevirt.io/is-default-virt-class": "true"}
    fast = {"metadata": {"name": "fast", "annotations": marked}, "provisioner": "rbd.csi.ceph.com"}
    spec = claim(data_volume(), (LOCAL, fast))["spec"]
    assert (spec["storageClassName"], spec["accessModes"], spec["volumeMode"]) == ("fast", ["ReadWriteMany"], "Block")
    assert spec["resources"]["requests"]["storage"] == "1Gi"


@pytest.mark.parametrize(
    ("classes", "words"), [((), "no default StorageClass"), ((AT_ONCE,), "name accessModes in spec.storage")]
)
def test_nobody_says_how_the_volume_is_used(classes: tuple, words: str) -> None:
    storage = {"resources": {"requests": {"storage": "1Gi"}}}
    if classes:
        storage["storageClassName"] = "at-once"  # type: ignore[assignment]
    with pytest.raises(ClaimError, match=words):
        claim(data_volume(storage=storage), classes)
    decided = plan(data_volume(storage=storage), Observed(classes=classes), NOW)
    assert (decided.create_target, decided.status["phase"]) == (None, "Pending")
    assert words in said(decided)[2]
    assert [reason for _, reason, _ in decided.events] == ["Error"]


def test_scratch_space_is_as_large_as_the_disk() -> None:
    made = scratch(data_volume(), pvc())
    assert made["spec"]["resources"]["requests"] == {"storage": "1090Mi"}
    assert made["metadata"]["name"] == "disk-scratch"


def test_an_administrators_settings() -> None:
    settings = ImportSettings(
        overheads={"local-path": 0.5},
        scratch_class="scratch",
        insecure=frozenset(["a:5000"]),
        proxies={"HTTP_PROXY": "http://proxy:3128"},
        preallocation=True,
    )
    config = ImporterConfig("importer:1", settings=settings)
    dv = data_volume({"registry": {"url": "docker://a:5000/b:1", "pullMethod": "pod"}})
    made = claim(dv, CLASSES, settings=settings)
    assert made["spec"]["resources"]["requests"] == {"storage": "2Gi"}
    assert scratch(dv, made, settings)["spec"]["storageClassName"] == "scratch"
    bare = data_volume(pvc={**made["spec"], "resources": {"requests": {"storage": "100Mi"}}})
    assert disk_size(bare, claim(bare, CLASSES), settings) == 50 * MIB
    container = importer_pod(dv, made, config, scratch=True)["spec"]["containers"][0]
    assert {"--insecure", "--preallocate"} <= set(container["args"])
    assert container["env"] == [{"name": "HTTP_PROXY", "value": "http://proxy:3128"}]
    dv["spec"]["preallocation"] = False
    container = importer_pod(dv, made, config, scratch=True)["spec"]["containers"][0]
    assert "--preallocate" not in container["args"]


# What comes next


def test_first_there_is_a_claim() -> None:
    decided = decide(data_volume())
    assert decided.create_target is not None
    assert decided.status["phase"] == "Pending"
    assert said(decided, "Bound") == ("Unknown", "NotFound", "No PVC found")


def test_a_claim_that_waits_for_its_consumer() -> None:
    decided = decide(data_volume(), target=pvc(phase="Pending"))
    assert (decided.status["phase"], decided.create_pod) == ("WaitForFirstConsumer", False)
    assert said(decided, "Bound") == ("False", "Pending", "PVC disk Pending")
    asked = data_volume(annotations={cdi.BIND_IMMEDIATELY: "true"})
    assert decide(asked, target=pvc(asked, "Pending")).create_pod


def test_a_class_that_binds_at_once_is_waited_for() -> None:
    storage = {"accessModes": ["ReadWriteOnce"], "storageClassName": "at-once"}
    dv = data_volume(storage={**storage, "resources": {"requests": {"storage": "1Gi"}}})
    decided = decide(dv, target=pvc(dv, "Pending"))
    assert (decided.status["phase"], decided.create_pod) == ("Pending", False)


def test_a_bound_claim_gets_an_importer() -> None:
    decided = decide(data_volume(), target=pvc())
    assert (decided.status["phase"], decided.create_pod, decided.create_scratch) == ("PVCBound", True, None)
    assert said(decided, "Bound") == ("True", "Bound", "PVC disk Bound")


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("http://x/a.qcow2", True),
        ("http://x/a.VMDK.xz?b=c", True),
        ("http://x/a.img", False),
        ("http://x/a.raw.gz", False),
        ("http://x/a?file=b.qcow2", False),
    ],
)
def test_an_address_may_tell_that_scratch_space_is_needed(url: str, known: bool) -> None:
    dv = data_volume({"http": {"url": url}})
    assert is_known_to_need_scratch(dv) is known
    assert (decide(dv, target=pvc(dv)).create_scratch is not None) is known


def test_an_importer_asks_for_scratch_space() -> None:
    decided = decide(data_volume(), target=pvc(), pod=pod(**ended(42)))
    assert decided.create_scratch is not None
    assert decided.delete_pod
    assert not decided.note.get(cdi.POD_PHASE)
    leaving = pod(**ended(42))
    leaving["metadata"]["deletionTimestamp"] = NOW
    assert not decide(data_volume(), target=pvc(), pod=leaving).create_pod
    assert decide(data_volume(), target=pvc(), scratch=scratch(data_volume(), pvc())).create_pod


def test_progress() -> None:
    running = pod(state={"running": {}})
    decided = decide(data_volume(), target=pvc(), pod=running, progress=12.345)
    assert (decided.status["phase"], decided.status["progress"]) == ("ImportInProgress", "12.35%")
    assert said(decided) == ("True", "Pod is running", "")
    assert said(decided, "Ready")[:2] == ("False", "TransferRunning")
    assert decided.wait
    assert decide(data_volume(), target=pvc(), pod=running).status["progress"] == "N/A"


def test_success() -> None:
    decided = decide(data_volume(), target=pvc(), pod=pod(phase="Succeeded", restartCount=2))
    assert decided.note == {cdi.POD_PHASE: "Succeeded", cdi.POD_RESTARTS: "2"}
    assert decided.delete_pod
    assert (decided.status["phase"], decided.status["progress"]) == ("Succeeded", "100.0%")
    assert decided.status["restartCount"] == 2
    assert said(decided) == ("False", "Completed", "Import Complete")
    assert said(decided, "Ready")[0] == "True"
    assert decided.events == (("Normal", "ImportSucceeded", "Successfully imported into PVC disk"),)
    # Whatever happens to the Pod, and to the DataVolume's status
    noted = pvc(**decided.note)
    again = decide(data_volume(), target=noted, scratch=scratch(data_volume(), noted))
    assert (again.status["phase"], again.create_pod, again.delete_scratch) == ("Succeeded", False, True)
    assert again.status["restartCount"] == 2


def test_a_pod_that_is_to_stay() -> None:
    dv = data_volume(annotations={cdi.RETAIN_POD: "true"})
    assert not decide(dv, target=pvc(dv), pod=pod(dv, "Succeeded")).delete_pod


def test_a_failure_is_told_and_tried_again() -> None:
    decided = decide(data_volume(), target=pvc(), pod=pod(**ended(1, "404 Not Found", restarts=1)))
    assert decided.status["phase"] == "ImportInProgress"
    assert said(decided) == ("False", "Error", "404 Not Found")
    assert (decided.note, decided.delete_pod) == ({}, False)
    assert ("Warning", "Error", "404 Not Found") in decided.events
    before = {**data_volume(), "status": decided.status}
    assert not decide(before, target=pvc(), pod=pod(**ended(1, "404 Not Found", restarts=2))).events


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (ended(65, "another file"), "another file"),
        (ended(1, "404 Not Found", restarts=MAX_RESTARTS), f"404 Not Found (after {MAX_RESTARTS} restarts)"),
    ],
)
def test_it_fails_for_good(container: dict, words: str) -> None:
    decided = decide(data_volume(), target=pvc(), pod=pod(**container))
    assert decided.status["phase"] == "Failed"
    assert said(decided) == ("False", "Error", words)
    assert decided.note[cdi.POD_PHASE] == "Failed"
    assert decided.delete_pod
    noted = decide(data_volume(), target=pvc(**decided.note))
    assert (noted.status["phase"], noted.create_pod) == ("Failed", False)
    assert said(noted) == ("False", "Error", words)


def test_memory_that_doesnt_suffice() -> None:
    decided = decide(data_volume(), target=pvc(), pod=pod(**ended(137, reason="OOMKilled")))
    assert "more memory than its limit" in said(decided)[2]


def test_a_pod_that_was_evicted_is_replaced_and_counted() -> None:
    evicted = pod(phase="Failed")
    evicted["status"] |= {"reason": "Evicted", "message": "the node is low on memory"}
    decided = decide(data_volume(), target=pvc(), pod=evicted)
    assert (decided.delete_pod, decided.note) == (True, {cdi.POD_RESTARTS: "1"})
    assert "low on memory" in said(decided)[2]


def test_a_pod_that_cant_be_placed() -> None:
    waiting = pod(phase="Pending")
    waiting["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    ]
    decided = decide(data_volume(), target=pvc(), pod=waiting)
    assert decided.status["phase"] == "ImportScheduled"
    assert said(decided) == ("False", "Unschedulable", "no node")


KUBELET = 'MountVolume.SetUp failed for volume "{}" : {} "{}" not found'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            KUBELET.format("authorities", "configmap", "ca"),
            "ConfigMap ns/ca, which spec.source.http.certConfigMap names",
        ),
        (KUBELET.format("credentials", "secret", "login"), "Secret ns/login, which spec.source.http.secretRef names"),
        (KUBELET.format("headers-1", "secret", "b"), "Secret ns/b, which spec.source.http.secretExtraHeaders[1] names"),
        # As the Pod runner has it
        ("volume headers-0: Secret ns/a does not exist", "which spec.source.http.secretExtraHeaders[0] names"),
    ],
)
def test_what_an_importer_mounts_is_missing(text: str, words: str) -> None:
    http = {"url": "http://x/a", "certConfigMap": "ca", "secretRef": "login", "secretExtraHeaders": ["a", "b"]}
    dv = data_volume({"http": http})
    silent = pod(dv, "Pending", state={"waiting": {"reason": "ContainerCreating"}})
    decided = decide(dv, target=pvc(dv), pod=silent, told=[text])
    status, reason, message = said(decided)
    assert (decided.status["phase"], status, reason) == ("ImportScheduled", "False", "Error")
    assert words in message
    assert message.endswith("does not exist; the import starts once it is created")
    assert ("Warning", "Error", message) in decided.events
    assert decided.wait
    # In standalone mode, the status of the container says it, too
    loud = pod(dv, "Pending", state={"waiting": {"reason": "FailedMount", "message": text}})
    assert said(decide(dv, target=pvc(dv), pod=loud))[2] == message
    # Once it is there, the import goes on
    running = decide(dv, target=pvc(dv), pod=pod(dv, state={"running": {}}), told=[text])
    assert said(running)[0] == "True"


def test_a_claim_of_somebody_else() -> None:
    foreign = pvc()
    foreign["metadata"]["ownerReferences"] = []
    decided = decide(data_volume(), target=foreign)
    assert not any((decided.note, decided.create_pod, decided.delete_pod))
    assert 'Resource "disk" already exists and is not managed by DataVolume' in said(decided)[2]
    filled = data_volume(annotations={cdi.PRE_POPULATED: "disk"})
    assert decide(filled, target=foreign).status["phase"] == "Succeeded"
    assert decide(filled).create_target is None


def test_something_of_somebody_else_in_the_way() -> None:
    decided = decide(data_volume(), target=pvc(), in_the_way="Pod importer-disk")
    assert not decided.create_pod
    assert said(decided)[2].startswith("Pod importer-disk exists and is not managed")


# The Pod


def test_the_pod() -> None:
    http = {
        "url": "http://x/$(A)",
        "checksum": "md5:00",
        "extraHeaders": ["A: b"],
        "secretExtraHeaders": ["h"],
        "secretRef": "s",
        "certConfigMap": "c",
        "insecureSkipVerify": True,
    }
    dv = data_volume({"http": http})
    made = importer_pod(dv, pvc(dv), CONFIG, scratch=True)
    (container,) = made["spec"]["containers"]
    assert container["args"][:3] == ["http", "--owner=dv", f"--size={1024 * MIB}"]
    assert container["args"][5:] == [
        "--scratch=/scratch",
        "--url=http://x/$$(A)",
        "--checksum=md5:00",
        "--header=A: b",
        "--insecure",
        "--authorities=/authorities",
        "--credentials=/credentials",
        "--secret-headers=/headers/0",
    ]
    mounts = {each["name"]: (each["mountPath"], each.get("readOnly", False)) for each in container["volumeMounts"]}
    assert mounts == {
        "target": ("/data", False),
        "scratch": ("/scratch", False),
        "authorities": ("/authorities", True),
        "credentials": ("/credentials", True),
        "headers-0": ("/headers/0", True),
    }
    assert made["spec"]["restartPolicy"] == "OnFailure"
    assert made["spec"]["automountServiceAccountToken"] is False
    security = {**made["spec"]["securityContext"], **container["securityContext"]}
    assert (security["runAsUser"], security["readOnlyRootFilesystem"]) == (107, True)
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "600M"}


def test_an_image() -> None:
    dv = data_volume({"registry": {"url": "docker://registry.example.com/a:1"}})
    spec = importer_pod(dv, pvc(dv), CONFIG, scratch=False)["spec"]
    assert spec["volumes"][1] == {"name": "image", "image": {"reference": "registry.example.com/a:1"}}
    assert spec["containers"][0]["args"][-1] == "--image=registry.example.com/a:1"
    only = data_volume({"registry": {"url": "docker://registry.example.com/a:1", "pullMethod": "node"}})
    decided = decide(only, target=pvc(only), mounts_images=False)
    assert not decided.create_pod
    assert "mount container images as volumes" in said(decided)[2]
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    decided = decide(dv, target=pvc(dv), pod=pod(dv, "Pending", state=waiting))
    assert decided.status["phase"] == "ImportScheduled"
    assert said(decided)[2] == "ErrImagePull: no such image"


def test_an_image_that_the_importer_pulls() -> None:
    registry = {"url": "docker://registry.example.com/a:1", "secretRef": "login", "certConfigMap": "ca"}
    dv = data_volume({"registry": {**registry, "platform": {"architecture": "arm64"}}})
    decided = decide(dv, target=pvc(dv))
    assert (decided.create_pod, decided.create_scratch is not None) == (True, True)
    spec = importer_pod(dv, pvc(dv), CONFIG, scratch=True)["spec"]
    arguments = spec["containers"][0]["args"]
    assert arguments[0] == "pulled"
    assert {"--image=registry.example.com/a:1", "--architecture=arm64", "--scratch=/scratch"} < set(arguments)
    sources = {volume["name"]: volume for volume in spec["volumes"]}
    assert sources["credentials"]["secret"] == {"secretName": "login"}
    assert sources["authorities"]["configMap"] == {"name": "ca"}
    assert "image" not in sources
    # Where no node mounts images, the importer pulls whatever doesn't ask for the node
    plain = data_volume({"registry": {"url": "docker://a/b:1"}})
    assert decide(plain, target=pvc(plain), mounts_images=False).create_scratch is not None
    made = importer_pod(plain, pvc(plain), CONFIG, scratch=True, mounts_images=False)
    assert made["spec"]["containers"][0]["args"][0] == "pulled"
    assert decide(plain, target=pvc(plain)).create_scratch is None


@pytest.mark.parametrize(
    ("source", "first", "url"),
    [
        (
            {"s3": {"url": "https://s3.example.com/a/b.qcow2", "secretRef": "login"}},
            "s3",
            "https://s3.example.com/a/b.qcow2",
        ),
        ({"gcs": {"url": "gs://a/b c.qcow2"}}, "http", "https://storage.googleapis.com/a/b c.qcow2"),
        (
            {"gcs": {"url": "https://storage.cloud.google.com/a/b.qcow2"}},
            "http",
            "https://storage.cloud.google.com/a/b.qcow2",
        ),
    ],
)
def test_objects_in_buckets(source: dict, first: str, url: str) -> None:
    dv = data_volume(source)
    assert is_known_to_need_scratch(dv)
    arguments = importer_pod(dv, pvc(dv), CONFIG, scratch=True)["spec"]["containers"][0]["args"]
    assert arguments[0] == first
    assert f"--url={url}" in arguments
    assert ("--credentials=/credentials" in arguments) is (first == "s3")


def test_the_files_of_an_archive_need_a_file_system() -> None:
    blocks = {"metadata": {"name": "blocks"}, "provisioner": "rbd.csi.ceph.com"}
    storage = {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "blocks"}
    source = {"http": {"url": "http://x/files.qcow2"}}
    dv = data_volume(source, storage=storage, contentType="archive")
    made = claim(dv, (blocks,))
    assert made["spec"]["volumeMode"] == "Filesystem"
    assert made["metadata"]["annotations"][cdi.CONTENT_TYPE] == "archive"
    assert not is_known_to_need_scratch(dv)
    assert "--archive" in importer_pod(dv, made, CONFIG, scratch=False)["spec"]["containers"][0]["args"]
    assert claim(data_volume(source, storage=storage), (blocks,))["spec"]["volumeMode"] == "Block"


def test_a_copy_of_another_claim() -> None:
    dv = data_volume({"pvc": {"namespace": "ns", "name": "golden"}})
    golden = pvc()
    golden["metadata"]["name"] = "golden"
    decided = decide(dv, target=pvc(dv))
    assert (decided.status["phase"], decided.create_pod) == ("CloneScheduled", False)
    assert said(decided)[2] == "Source PVC ns/golden not found"
    assert "has no content yet" in said(decide(dv, target=pvc(dv), source=golden))[2]
    golden["metadata"]["annotations"][cdi.POD_PHASE] = "Succeeded"
    used = decide(dv, target=pvc(dv), source=golden, users=["web"])
    assert "is in use by VirtualMachineInstance web" in said(used)[2]
    assert not used.create_pod
    assert decide(dv, target=pvc(dv), source=golden).create_pod

    spec = importer_pod(dv, pvc(dv), CONFIG, scratch=False, source=golden)["spec"]
    assert spec["containers"][0]["args"][0] == "clone"
    assert spec["volumes"][1] == {
        "name": "source",
        "persistentVolumeClaim": {"claimName": "golden", "readOnly": True},
    }
    assert {"name": "source", "mountPath": "/source", "readOnly": True} in spec["containers"][0]["volumeMounts"]
    golden["spec"]["volumeMode"] = "Block"
    (container,) = importer_pod(dv, pvc(dv), CONFIG, scratch=False, source=golden)["spec"]["containers"]
    assert container["volumeDevices"] == [{"name": "source", "devicePath": "/dev/cdi-source-volume"}]
    assert "--source-block" in container["args"]

    running = decide(dv, target=pvc(dv), pod=pod(dv, state={"running": {}}), source=golden)
    assert running.status["phase"] == "CloneInProgress"
    done = decide(dv, target=pvc(dv), pod=pod(dv, "Succeeded"), source=golden)
    assert said(done)[2] == "Clone Complete"
    assert done.events == (("Normal", "CloneSucceeded", "Successfully cloned into PVC disk"),)


def test_a_device() -> None:
    form = {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "resources": {"requests": {"storage": "1Gi"}}}
    dv = data_volume({"blank": {}}, pvc=form)
    (container,) = importer_pod(dv, claim(dv, CLASSES), CONFIG, scratch=False)["spec"]["containers"]
    assert container["args"][0] == "blank"
    assert "--block" in container["args"]
    assert container["volumeDevices"] == [{"name": "target", "devicePath": "/dev/cdi-block-volume"}]
    assert container["volumeMounts"] == []


def test_long_names() -> None:
    dv = data_volume()
    dv["metadata"]["name"] = "a" * 253
    assert len(pod_name(dv)) < 253


# Storage profiles

RBD = {"metadata": {"name": "rbd"}, "provisioner": "rbd.csi.ceph.com"}


def profile(name: str, *sets: tuple[list[str], str]) -> dict:
    known = [{"accessModes": modes, "volumeMode": volume_mode} for modes, volume_mode in sets]
    return {"metadata": {"name": name}, "spec": {"claimPropertySets": known} if known else {}}


@pytest.mark.parametrize(
    ("storage", "sets", "modes", "volume_mode"),
    [
        ({}, [], ["ReadWriteMany"], "Block"),
        ({"volumeMode": "Filesystem"}, [], ["ReadWriteOnce"], "Filesystem"),
        ({"accessModes": ["ReadWriteOnce"]}, [], ["ReadWriteOnce"], "Block"),
        # What nobody knows of is the user's to know
        ({"accessModes": ["ReadOnlyMany"]}, [], ["ReadOnlyMany"], "Filesystem"),
        ({}, [(["ReadWriteOnce"], "Filesystem")], ["ReadWriteOnce"], "Filesystem"),
        (
            {"volumeMode": "Block"},
            [(["ReadWriteOnce"], "Filesystem"), (["ReadWriteMany"], "Block")],
            ["ReadWriteMany"],
            "Block",
        ),
    ],
)
def test_a_storage_profile_says_how_volumes_are_used(
    storage: dict, sets: list, modes: list[str], volume_mode: str
) -> None:
    form = {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "rbd", **storage}
    made = claim(data_volume(storage=form), (RBD,), profiles=[profile("other"), profile("rbd", *sets)])
    assert (made["spec"]["accessModes"], made["spec"]["volumeMode"]) == (modes, volume_mode)
    assert made["spec"]["resources"]["requests"]["storage"] == ("1Gi" if volume_mode == "Block" else "1090Mi")


def test_a_class_of_which_nobody_knows_anything() -> None:
    form = {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "at-once"}
    said_so = profile("at-once", (["ReadWriteOnce"], "Filesystem"))
    for more, profiles, words in (
        ({}, [profile("at-once")], "doesn't say how its volumes are used: name accessModes in spec.storage, or claim"),
        ({"volumeMode": "Block"}, [said_so], "has no volumes with volumeMode Block"),
    ):
        with pytest.raises(ClaimError, match=words):
            claim(data_volume(storage={**form, **more}), CLASSES, profiles=profiles)
    assert claim(data_volume(storage=form), CLASSES, profiles=[said_so])["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_profile_says_what_counts() -> None:
    known = status(RBD, profile("rbd"))
    assert known["provisioner"] == "rbd.csi.ceph.com"
    assert known["claimPropertySets"][0] == {"accessModes": ["ReadWriteMany"], "volumeMode": "Block"}
    own = profile("rbd", (["ReadWriteOnce"], "Filesystem"))
    assert status(RBD, own)["claimPropertySets"] == own["spec"]["claimPropertySets"]
    assert "claimPropertySets" not in status(AT_ONCE, profile("at-once"))


# Snapshots

SNAPSHOT = {"snapshot": {"namespace": "ns", "name": "monday"}}


def snapshot(**said: Any) -> dict:
    return {"metadata": {"name": "monday", "namespace": "ns"}, "status": {"readyToUse": True, **said}}


def test_a_snapshot_is_restored_by_the_storage() -> None:
    dv = data_volume(SNAPSHOT)
    made = decide(dv, snapshot=snapshot(restoreSize="1090Mi")).create_target
    assert made is not None
    assert made["spec"]["dataSource"] == {
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": "monday",
    }
    decided = decide(dv, target={**made, "status": {"phase": "Bound"}})
    assert decided.create_pod
    args = importer_pod(dv, made, CONFIG, scratch=False)["spec"]["containers"][0]["args"]
    assert args[0] == "snapshot"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "Source VolumeSnapshot ns/monday not found"),
        (snapshot(readyToUse=False), "Source VolumeSnapshot ns/monday is not ready to use"),
        (snapshot(restoreSize="2Gi"), "smaller than the source: Source VolumeSnapshot ns/monday needs a claim of 2Gi"),
    ],
)
def test_a_snapshot_that_cannot_be_restored(found: dict | None, words: str) -> None:
    decided = decide(data_volume(SNAPSHOT), snapshot=found)
    assert decided.create_target is None
    assert words in said(decided)[2]


# Other namespaces

ELSEWHERE = data_volume({"pvc": {"namespace": "images", "name": "root"}})
LABEL = {"instancetype.kubevirt.io/default-preference": "debian"}


def copied(phase: str = "Succeeded", **more: Any) -> dict:
    made = decide(ELSEWHERE).create_copy
    assert made is not None
    made["metadata"]["uid"] = "copy"
    return {**made, "status": {"phase": phase, **more}}


def aside(copy: dict | None = None, claim_ref: dict | None = None) -> Aside:
    held = {"namespace": "images", "name": "tmp-dv", "uid": "claim"} if claim_ref is None else claim_ref
    made = pvc(copy or copied())
    made["spec"]["volumeName"] = "pv"
    made["metadata"] |= {"uid": "claim", "labels": LABEL}
    volume = {"metadata": {"name": "pv", "uid": "pv", "resourceVersion": "1"}, "spec": {"claimRef": held}}
    return Aside(copy or copied(), made, volume)


def test_a_copy_is_made_beside_its_source() -> None:
    made = decide(ELSEWHERE)
    assert made.create_target is None
    assert made.create_copy is not None
    assert made.create_copy["metadata"]["namespace"] == "images"
    assert made.create_copy["spec"] == ELSEWHERE["spec"]
    assert copied_for(made.create_copy) == ("ns", "disk", "dv")
    running = {"type": "Running", "status": "False", "reason": "Error", "message": "in use by web"}
    waiting = decide(ELSEWHERE, aside=Aside(copied("CloneScheduled", conditions=[running])))
    assert (waiting.status["phase"], said(waiting)[2]) == ("CloneScheduled", "in use by web")
    failed = decide(ELSEWHERE, aside=Aside(copied("Failed", conditions=[running])))
    assert failed.status["phase"] == "Failed"


def test_a_volume_is_handed_over() -> None:
    made = decide(ELSEWHERE, aside=aside())
    assert not made.give_volume
    assert made.create_target is not None
    assert made.create_target["spec"]["volumeName"] == "pv"
    assert made.create_target["spec"]["storageClassName"] == "local-path"
    assert made.create_target["metadata"]["labels"].items() >= LABEL.items()
    made.create_target["metadata"]["uid"] = "target"
    target = {**made.create_target, "status": {"phase": "Pending"}}
    given = decide(ELSEWHERE, target=target, aside=aside())
    assert (given.give_volume, given.status["phase"]) == (True, "NamespaceTransferInProgress")
    # Its storage takes note of that
    again = decide(
        ELSEWHERE, target=target, aside=aside(claim_ref={"namespace": "ns", "name": "disk", "uid": "target"})
    )
    assert (again.give_volume, said(again)[1]) == (False, "")
    bound = decide(ELSEWHERE, target={**target, "status": {"phase": "Bound"}}, aside=aside())
    assert (bound.status["phase"], bound.note["cdi.kubevirt.io/storage.pod.phase"]) == ("Succeeded", "Succeeded")
    assert bound.delete_copy
    assert not bound.create_pod


def test_what_is_somebody_elses_is_not_handed_over() -> None:
    other = {**copied(), "spec": {**ELSEWHERE["spec"], "source": {"blank": {}}}}
    taken = aside(claim_ref={"namespace": "x", "name": "y", "uid": "z"})
    for found in (aside(copy=other), taken, Aside(copied())):
        decided = decide(ELSEWHERE, aside=found)
        assert decided.create_target is None
        assert said(decided)[1] == "Error"
    target = pvc(ELSEWHERE, "Pending")
    target["metadata"]["uid"] = "target"
    for found in (taken, Aside(copied())):
        decided = decide(ELSEWHERE, target=target, aside=found)
        assert not decided.give_volume
        assert said(decided)[1] == "Error"
