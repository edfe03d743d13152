# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to do for an export, by what it is of and what there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from turtles.api import cdi, exports, uploads
from turtles.api.conditions import get_condition
from turtles.controller.export import manifests, sources
from turtles.controller.export.plan import Observed, Plan, plan
from turtles.controller.export.pod import ExporterConfig, exporter_pod
from turtles.controller.export.sources import Situation, Source, Volume

NOW = datetime(2026, 12, 1, 10, 30, tzinfo=UTC)
GROUPS = {"VirtualMachine": "kubevirt.io", "VirtualMachineSnapshot": "snapshot.kubevirt.io"}


def export(kind: str = "VirtualMachine", of: str = "web", **spec: Any) -> dict[str, Any]:
    source = {"kind": kind, "name": of, **({"apiGroup": GROUPS[kind]} if kind in GROUPS else {})}
    metadata = {"name": "e", "namespace": "ns", "uid": "u-e", "creationTimestamp": "2026-12-01T10:00:00Z"}
    return {
        "apiVersion": "export.kubevirt.io/v1",
        "kind": "VirtualMachineExport",
        "metadata": metadata,
        "spec": {"source": source, **spec},
    }


def claim(name: str = "root", phase: str = "Bound", owner: str = "", **annotations: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "ns", "uid": f"u-{name}", "annotations": annotations}
    if owner:
        metadata["ownerReferences"] = [{"kind": "DataVolume", "name": name, "uid": owner, "controller": True}]
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "pv"}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase}}


def data_volume(phase: str = "Succeeded", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "root", "uid": "dv"}, "spec": spec, "status": {"phase": phase}}


def machine(*volumes: dict[str, Any], **spec: Any) -> dict[str, Any]:
    volumes = volumes or ({"name": "root", "dataVolume": {"name": "root"}},)
    template = {"spec": {"volumes": list(volumes), "domain": {"devices": {}}, **spec}}
    return {
        "metadata": {"name": "web", "namespace": "ns", "uid": "u-web", "labels": {"a": "b"}, "managedFields": [1]},
        "spec": {"runStrategy": "Halted", "template": template},
        "status": {"printableStatus": "Stopped"},
    }


def of(obj: dict[str, Any], **found: Any) -> Source:
    return sources.of(obj, Situation(**found))


def decide(obj: dict[str, Any], source: Source, now: datetime = NOW, **observed: Any) -> Plan:
    return plan(obj, source, Observed(**observed), now)


def ready_of(decided: Plan) -> tuple[str, str, str, str]:
    found = get_condition(decided.status["conditions"], "Ready") or {}
    return decided.status["phase"], found["status"], found["reason"], found.get("message", "")


SOURCE = Source(("PVCReady", "True", "PVCBound", ""), (Volume("root", "root", True),))


def pod(source: Source = SOURCE, phase: str = "Running", ready: bool = True, **container: Any) -> dict[str, Any]:
    made = exporter_pod(
        export(), source.volumes, ExporterConfig("exporter:1"), "secret", "2026-12-01T12:00:00Z", manifests=True
    )
    made["metadata"]["annotations"][exports.CERTIFICATE] = "pem\n"
    return {**made, "status": {"phase": phase, "containerStatuses": [{"ready": ready, **container}]}}


@pytest.mark.parametrize(
    ("found", "obstacle", "condition"),
    [
        ({}, ("Initializing", "not found"), ("PVCReady", "False", "PVCNotFound")),
        ({"claims": {"root": claim()}}, None, ("PVCReady", "True", "PVCBound")),
        ({"claims": {"root": claim(phase="Pending")}}, None, ("PVCReady", "False", "PVCPending")),
        ({"claims": {"root": claim(phase="Lost")}}, ("Unknown", "lost"), ("PVCReady", "False", "Unknown")),
        (
            {"claims": {"root": claim()}, "users": {"root": ["Pod busy"]}},
            ("InUse", "in use by Pod busy"),
            ("PVCReady", "True", "PVCBound"),
        ),
        (
            {"claims": {"root": claim(owner="dv")}, "data_volumes": {"root": data_volume("ImportInProgress")}},
            ("PVCPending", "is not populated"),
            ("PVCReady", "True", "PVCBound"),
        ),
        (
            {"claims": {"root": claim(**{uploads.TARGET: ""})}},
            ("PVCPending", "is not populated"),
            ("PVCReady", "True", "PVCBound"),
        ),
        (
            {"claims": {"root": claim(**{uploads.TARGET: "", cdi.POD_PHASE: "Succeeded"})}},
            None,
            ("PVCReady", "True", "PVCBound"),
        ),
    ],
)
def test_a_claim(found: dict[str, Any], obstacle: tuple[str, str] | None, condition: tuple[str, str, str]) -> None:
    source = of(export("PersistentVolumeClaim", "root"), **found)
    assert source.condition[:3] == condition
    if obstacle is None:
        assert source.obstacle is None
    else:
        assert source.obstacle is not None
        assert (source.obstacle[0], obstacle[1] in source.obstacle[1]) == (obstacle[0], True), source.obstacle


@pytest.mark.parametrize(
    ("obj", "data_volumes", "disks", "is_disk"),
    [
        (claim(), {}, frozenset(), False),
        (claim(), {}, frozenset({"root"}), True),
        (claim(**{cdi.CONTENT_TYPE: "kubevirt"}), {}, frozenset(), True),
        (claim(**{cdi.CONTENT_TYPE: "archive"}), {}, frozenset(), False),
        (claim(owner="dv"), {"root": data_volume()}, frozenset(), True),
        (claim(owner="dv"), {"root": data_volume(contentType="archive")}, frozenset(), False),
        (claim(owner="another"), {"root": data_volume()}, frozenset(), False),
    ],
)
def test_what_is_a_disk(obj: dict[str, Any], data_volumes: Any, disks: frozenset[str], is_disk: bool) -> None:
    found = {"claims": {"root": obj}, "data_volumes": data_volumes, "disks": disks}
    (volume,) = of(export("PersistentVolumeClaim", "root"), **found).volumes
    assert volume.is_disk is is_disk


def test_a_device_is_a_disk() -> None:
    obj = claim()
    obj["spec"]["volumeMode"] = "Block"
    (volume,) = of(export("PersistentVolumeClaim", "root"), claims={"root": obj}).volumes
    assert (volume.is_disk, volume.is_block) == (True, True)


@pytest.mark.parametrize(
    ("found", "obstacle"),
    [
        ({"vm": machine(), "claims": {"root": claim()}}, None),
        ({"vm": machine(), "claims": {"root": claim()}, "vmi": {"status": {"phase": "Succeeded"}}}, None),
        ({"vm": machine(), "claims": {"root": claim()}, "vmi": {"status": {"phase": "Running"}}}, "InUse"),
        ({"vm": machine(), "claims": {"root": claim()}, "users": {"root": ["Pod virt-launcher-web"]}}, "InUse"),
        ({"vm": machine()}, "VolumesNotPopulated"),
        ({}, "VMNotFound"),
        ({"vm": machine({"name": "seed", "cloudInitNoCloud": {}})}, "VMNoVolumes"),
    ],
)
def test_a_machine(found: dict[str, Any], obstacle: str | None) -> None:
    source = of(export(), **found)
    assert (source.obstacle or [None])[0] == obstacle
    assert source.machine_name == "web"
    assert source.is_empty is (obstacle == "VMNoVolumes")


def test_the_volumes_of_a_machine() -> None:
    vm = machine(
        {"name": "root", "dataVolume": {"name": "root"}},
        {"name": "again", "persistentVolumeClaim": {"claimName": "root"}},
        {"name": "shared", "persistentVolumeClaim": {"claimName": "files"}},
        {"name": "base", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
        domain={"devices": {"filesystems": [{"name": "shared", "virtiofs": {}}], "tpm": {"persistent": True}}},
    )
    names = sources.claims_of(vm, "restored")
    assert names == ["root", "files", "restored"]
    source = of(export(), vm=vm, claims={name: claim(name) for name in names}, state_claim="restored")
    assert [(each.name, each.is_disk) for each in source.volumes] == [
        ("root", True),
        ("files", False),
        ("persistent-state-for-web", False),
    ]
    # That with the state comes with the first start
    found = of(export(), vm=vm, claims={name: claim(name) for name in names[:2]}, state_claim="restored")
    assert len(found.volumes) == 2


def content() -> dict[str, Any]:
    backup = {"volumeName": "root", "persistentVolumeClaim": {"metadata": {"name": "root"}, "spec": claim()["spec"]}}
    vm = machine()
    source = {"virtualMachine": {"metadata": vm["metadata"], "spec": vm["spec"]}}
    return {"spec": {"source": source, "volumeBackups": [{**backup, "volumeSnapshotName": "vs"}]}}


def snapshot(ready: bool = True) -> dict[str, Any]:
    return {"metadata": {"name": "s"}, "spec": {"source": {"name": "web"}}, "status": {"readyToUse": ready}}


READY = {"vs": {"metadata": {"name": "vs"}, "status": {"readyToUse": True, "restoreSize": "2Gi"}}}


def test_a_snapshot_gets_claims() -> None:
    obj = export("VirtualMachineSnapshot", "s")
    found = {"snapshot": snapshot(), "content": content(), "volume_snapshots": READY}
    source = of(obj, **found)
    (made,) = source.create
    assert (made["metadata"]["name"], made["metadata"]["ownerReferences"][0]["uid"]) == ("e-root", "u-e")
    assert made["spec"]["dataSource"]["name"] == "vs"
    assert made["spec"]["resources"] == {"requests": {"storage": "2Gi"}}
    assert "volumeName" not in made["spec"]
    assert source.condition[1:3] == ("False", "NotAllPVCsReady")
    source = of(obj, **found, claims={"e-root": {**made, "status": {"phase": "Bound"}}})
    assert (source.create, source.condition[1:3]) == ((), ("True", "AllPVCsReady"))
    assert source.volumes == (Volume("root", "e-root", True),)
    # What the machine keeps beside its disks has the same name, whatever claim it was on
    kept = content()
    (backup,) = kept["spec"]["volumeBackups"]
    backup |= {"volumeName": "persistent-state-for-web"}
    backup["persistentVolumeClaim"]["metadata"]["name"] = "restored"
    source = of(obj, **{**found, "content": kept}, claims={})
    assert source.volumes == (Volume("persistent-state-for-web", "e-restored", False),)
    # Somebody else's
    source = of(obj, **found, claims={"e-root": claim("e-root")})
    assert source.obstacle is not None
    assert "does not belong to this export" in source.obstacle[1]


@pytest.mark.parametrize(
    ("found", "reason", "is_empty"),
    [
        ({}, "VMSnapshotNoVolumes", False),
        ({"snapshot": snapshot(ready=False)}, "NotAllPVCsCreated", False),
        ({"snapshot": snapshot()}, "NotAllPVCsCreated", False),
        ({"snapshot": snapshot(), "content": content()}, "NotAllPVCsCreated", False),
        ({"snapshot": snapshot(), "content": {"spec": {"volumeBackups": []}}}, "VMSnapshotNoVolumes", True),
    ],
)
def test_a_snapshot_that_has_none(found: dict[str, Any], reason: str, is_empty: bool) -> None:
    source = of(export("VirtualMachineSnapshot", "s"), **found)
    assert (source.condition[2], source.is_empty, source.volumes) == (reason, is_empty, ())
    assert decide(export(), source).status["phase"] == ("Skipped" if is_empty else "Pending")


def test_from_a_source_to_links() -> None:
    first = decide(export(), SOURCE)
    assert first.create_pod
    assert ready_of(first)[:3] == ("Pending", "False", "PodPending")
    assert first.status["ttlExpirationTime"] == "2026-12-01T12:00:00Z"
    assert (first.status["tokenSecretRef"], first.status["serviceName"]) == ("export-token-e", "virt-export-e")
    assert first.wait == timedelta(hours=1.5).total_seconds()
    unknown = pod()
    del unknown["metadata"]["annotations"][exports.CERTIFICATE]
    assert decide(export(), SOURCE, pod=unknown).identify
    assert ready_of(decide(export(), SOURCE, pod=pod(ready=False)))[2] == "PodPending"
    done = decide(export(), SOURCE, pod=pod(), address="https://192.0.2.1:8443", authorities="ca\n")
    assert ready_of(done)[:3] == ("Ready", "True", "PodReady")
    links = done.status["links"]
    assert (links["internal"]["cert"], links["external"]["cert"]) == ("pem", "ca")
    assert [each["url"] for each in links["internal"]["volumes"][0]["formats"]] == [
        "https://virt-export-e.ns.svc/volumes/root/disk.img",
        "https://virt-export-e.ns.svc/volumes/root/disk.img.gz",
    ]
    assert links["external"]["manifests"][0] == {
        "type": "all",
        "url": "https://192.0.2.1:8443/api/export.kubevirt.io/v1/namespaces/ns/virtualmachineexports/e"
        "/external/manifests/all",
    }
    assert "external" not in decide(export(), SOURCE, pod=pod()).status["links"]
    # What is ready is said once
    again = decide({**export(), "status": done.status}, SOURCE, pod=pod(), address="https://192.0.2.1:8443",
                   authorities="ca\n")  # fmt: skip
    assert again.status == done.status


def test_what_ends_it() -> None:
    assert decide(export(), SOURCE, datetime(2026, 12, 1, 12, 0, tzinfo=UTC), pod=pod()).delete_export
    assert not decide(export(ttlDuration="3h"), SOURCE, datetime(2026, 12, 1, 12, 0, tzinfo=UTC)).delete_export
    busy = Source(SOURCE.condition, SOURCE.volumes, ("InUse", "Virtual Machine ns/web is running"))
    decided = decide({**export(), "status": {"links": {"internal": {}}}}, busy, pod=pod())
    assert decided.delete_pod
    assert decided.event == ("Warning", "ExportPaused", "Virtual Machine ns/web is running")
    assert "links" not in decided.status
    assert ready_of(decided)[2] == "InUse"
    assert not decide(export(), busy).create_pod


@pytest.mark.parametrize(
    ("found", "phase", "deleted", "words"),
    [
        (pod(phase="Succeeded"), "Terminated", True, ""),
        (pod(phase="Failed"), "Pending", True, "is in phase Failed"),
        (pod(Source(SOURCE.condition, (Volume("other", "other", True),))), "Pending", True, "replaced"),
        (
            pod(ready=False, lastState={"terminated": {"message": "volume root: no disk.img\n"}}),
            "Pending",
            False,
            "volume root: no disk.img",
        ),
        (
            pod(phase="Pending", ready=False, state={"waiting": {"reason": "ErrImagePull", "message": "no route"}}),
            "Pending",
            False,
            "ErrImagePull: no route",
        ),
    ],
)
def test_a_pod_that_does_not_serve(found: dict[str, Any], phase: str, deleted: bool, words: str) -> None:
    decided = decide(export(), SOURCE, pod=found)
    assert (decided.status["phase"], decided.delete_pod) == (phase, deleted)
    assert words in ready_of(decided)[3]


def test_somebody_elses_pod() -> None:
    decided = decide(export(), SOURCE, in_the_way="Pod virt-export-e")
    assert not decided.create_pod
    assert "Pod virt-export-e exists and does not belong to this export" in ready_of(decided)[3]


def test_the_pod_can_only_read() -> None:
    volumes = (Volume("root", "root", True), Volume("raw", "raw", True, True), Volume("etc", "etc", False))
    made = exporter_pod(export(), volumes, ExporterConfig("i"), "secret", "2026-12-01T12:00:00Z", manifests=False)
    (container,) = made["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["resources"]["limits"]
    assert not made["spec"]["automountServiceAccountToken"]
    assert made["spec"]["securityContext"]["runAsNonRoot"]
    assert all(each["readOnly"] for each in container["volumeMounts"])
    claims = [each["persistentVolumeClaim"] for each in made["spec"]["volumes"] if "persistentVolumeClaim" in each]
    assert claims == [{"claimName": name, "readOnly": True} for name in ("root", "raw", "etc")]
    assert container["args"][-3:] == [
        "--disk=root=/export-volumes/volume-0",
        "--disk=raw=/dev/export-volumes/volume-1",
        "--files=etc=/export-volumes/volume-2",
    ]


def test_objects_that_make_the_machine_again() -> None:
    vm = machine({"name": "root", "dataVolume": {"name": "root"}}, {"name": "data", "persistentVolumeClaim": {}})
    vm["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "keep": "me"}
    vm["spec"]["dataVolumeTemplates"] = [
        {"metadata": {"name": "root"}, "spec": {"storage": {}, "sourceRef": {"kind": "DataSource", "name": "debian"}}}
    ]
    kept = "persistent-state-for-web"
    volumes = (Volume("root", "root", True), Volume("data", "data", True), Volume(kept, "restored", False))
    claims = {name: claim(name)["spec"] for name in ("root", "data", kept)}
    found = manifests.objects(export(), vm, volumes, claims, "https://x/e", "pem")["items"]
    authorities, again, disk, state = found
    assert authorities["data"] == {"ca.pem": "pem"}
    assert again["metadata"] == {"name": "web", "labels": {"a": "b"}, "annotations": {"keep": "me"}}
    assert "status" not in again
    http = {
        "url": "https://x/e/volumes/root/disk.img.gz",
        "secretExtraHeaders": ["header-secret-e"],
        "certConfigMap": authorities["metadata"]["name"],
    }
    assert again["spec"]["dataVolumeTemplates"][0]["spec"] == {"storage": {}, "source": {"http": http}}
    assert (disk["kind"], disk["metadata"]) == ("DataVolume", {"name": "data"})
    # A file system needs some of the claim, and the disk may need all of it
    assert disk["spec"]["storage"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    # Files, and what the machine keeps beside its disks: no volume of its own, so nobody would begin to use it
    assert state["spec"]["contentType"] == "archive"
    assert state["spec"]["source"]["http"]["url"] == f"https://x/e/volumes/{kept}/disk.tar.gz"
    assert state["metadata"] == {
        "name": kept,
        "annotations": {"cdi.kubevirt.io/storage.bind.immediate.requested": "true"},
    }
    # One whose certificate everybody trusts
    found = manifests.objects(export(), vm, volumes, claims, "https://x/e", "")["items"]
    assert [each["kind"] for each in found] == ["VirtualMachine", "DataVolume", "DataVolume"]
    assert "certConfigMap" not in found[1]["spec"]["source"]["http"]
