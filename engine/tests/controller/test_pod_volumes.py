# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launcher's Pod has for each source of volumes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from turtles.api.import_settings import ImportSettings
from turtles.controller.claims import claim_names, claim_status, note_overheads, refreshed
from turtles.controller.pod.config import LauncherConfig
from turtles.controller.pod.launcher import launcher_pod
from turtles.controller.pod.memory import overhead
from turtles.controller.vmi.plan import plan

PRIVATE = "/var/run/kubevirt-private"


def make_vmi(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "testvm", "namespace": "ns", "uid": "vmi-uid"},
        "spec": spec,
    }


def spec(*volumes: dict[str, Any], **devices: Any) -> dict[str, Any]:
    return {"domain": {"memory": {"guest": "64M"}, "devices": devices}, "volumes": list(volumes)}


def brought(volume: dict[str, Any], **devices: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the Pod's volume for one of the VMI, its mount, and the Pod's spec."""
    pod = launcher_pod(make_vmi(spec({"name": "more", **volume}, **devices)), LauncherConfig("launcher:1"))["spec"]
    (found,) = [dict(each) for each in pod["volumes"] if each["name"] == "more"]
    (mount,) = [dict(each) for each in pod["containers"][0]["volumeMounts"] if each["name"] == "more"]
    for each in (found, mount):
        del each["name"]
    return found, mount, pod


@pytest.mark.parametrize(
    ("source", "volume", "mount"),
    [
        (
            {"dataVolume": {"name": "data"}},
            {"persistentVolumeClaim": {"claimName": "data"}},
            {"mountPath": f"{PRIVATE}/vmi-disks/more"},
        ),
        (
            {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
            {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
            {"mountPath": f"{PRIVATE}/vmi-disks/more"},
        ),
        (
            {"ephemeral": {"persistentVolumeClaim": {"claimName": "data"}}},
            {"persistentVolumeClaim": {"claimName": "data"}},
            {"mountPath": f"{PRIVATE}/vmi-disks/more", "readOnly": True},
        ),
        (
            {"hostDisk": {"path": "/srv/disks/a.img", "type": "Disk"}},
            {"hostPath": {"path": "/srv/disks", "type": "Directory"}},
            {"mountPath": f"{PRIVATE}/vmi-disks/more"},
        ),
        (
            {"hostDisk": {"path": "/srv/disks/a.img", "type": "DiskOrCreate", "capacity": "1Gi"}},
            {"hostPath": {"path": "/srv/disks", "type": "DirectoryOrCreate"}},
            {"mountPath": f"{PRIVATE}/vmi-disks/more"},
        ),
        (
            {"configMap": {"name": "a", "optional": True, "volumeLabel": "x"}},
            {"configMap": {"name": "a", "optional": True}},
            {"mountPath": f"{PRIVATE}/config-map/more", "readOnly": True},
        ),
        (
            {"secret": {"secretName": "a"}},
            {"secret": {"secretName": "a"}},
            {"mountPath": f"{PRIVATE}/secret/more", "readOnly": True},
        ),
        (
            {"downwardAPI": {"fields": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"mountPath": f"{PRIVATE}/downwardapi/more", "readOnly": True},
        ),
        (
            {"sysprep": {"configMap": {"name": "a"}}},
            {"configMap": {"name": "a"}},
            {"mountPath": f"{PRIVATE}/sysprep/more", "readOnly": True},
        ),
        (
            {"sysprep": {"secret": {"name": "a"}}},
            {"secret": {"secretName": "a"}},
            {"mountPath": f"{PRIVATE}/sysprep/more", "readOnly": True},
        ),
    ],
)
def test_volume(source: dict[str, Any], volume: dict[str, Any], mount: dict[str, Any]) -> None:
    found, mounted, pod = brought(source)
    assert (found, mounted) == (volume, mount)
    assert "serviceAccountName" not in pod
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("devices", "seconds"), [({}, 31536000), ({"filesystems": [{"name": "more", "virtiofs": {}}]}, 3607)]
)
def test_service_account(devices: dict[str, Any], seconds: int) -> None:
    found, mounted, pod = brought({"serviceAccount": {"serviceAccountName": "robot"}}, **devices)
    assert pod["serviceAccountName"] == "robot"
    assert mounted == {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    token, authority, namespace = found["projected"]["sources"]
    assert token == {"serviceAccountToken": {"path": "token", "expirationSeconds": seconds}}
    assert authority["configMap"]["name"] == "kube-root-ca.crt"
    assert namespace["downwardAPI"]["items"][0]["path"] == "namespace"


@pytest.mark.parametrize(
    "source",
    [
        {"downwardMetrics": {}},
        {"containerPath": {"path": "/var/run/x"}},
        # These are in Pods of their own
        {"persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}},
        {"dataVolume": {"name": "data", "hotpluggable": True}},
        {"memoryDump": {"claimName": "dump"}},
    ],
)
def test_nothing_to_bring(source: dict[str, Any]) -> None:
    pod = launcher_pod(make_vmi(spec({"name": "more", **source})), LauncherConfig("launcher:1"))["spec"]
    assert "more" not in [volume["name"] for volume in pod["volumes"]]


def test_memory() -> None:
    bare = overhead(spec(), kvm=True)
    assert overhead(spec({"name": "m", "downwardMetrics": {}}), kvm=True) == bare + 2**20
    shared = [{"name": name, "virtiofs": {}} for name in "ab"]
    assert overhead(spec(filesystems=shared), kvm=True) == bare + 2 * 80 * 10**6


CLAIMS = spec(
    {"name": "a", "persistentVolumeClaim": {"claimName": "one"}},
    {"name": "b", "dataVolume": {"name": "two"}},
    {"name": "c", "ephemeral": {"persistentVolumeClaim": {"claimName": "three"}}},
    {"name": "d", "memoryDump": {"claimName": "four"}},
    {"name": "e", "emptyDisk": {"capacity": "1Gi"}},
)


def test_claims() -> None:
    assert claim_names(CLAIMS) == ["one", "two", "three", "four"]
    pvc = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}, "status": {"capacity": {"storage": "2Gi"}}}
    entries = claim_status(CLAIMS, {"one": pvc, "two": {"spec": {"volumeMode": "Block"}}, "three": None, "four": {}})
    assert entries == [
        {
            "name": "a",
            "target": "",
            "persistentVolumeClaimInfo": {
                "claimName": "one",
                "volumeMode": "Filesystem",
                "capacity": {"storage": "2Gi"},
                "requests": {"storage": "1Gi"},
            },
            "size": 2 * 2**30,
        },
        {"name": "b", "target": "", "persistentVolumeClaimInfo": {"claimName": "two", "volumeMode": "Block"}},
        {
            "name": "d",
            "target": "",
            "persistentVolumeClaimInfo": {"claimName": "four", "volumeMode": "Filesystem"},
            "memoryDumpVolume": {"claimName": "four"},
        },
    ]


def test_what_file_systems_keep_for_themselves() -> None:
    pvcs = {
        "one": {"spec": {"storageClassName": "fast"}},
        "two": {"spec": {"volumeMode": "Block", "storageClassName": "fast"}},
        "four": {"spec": {}},
    }
    entries = claim_status(CLAIMS, pvcs)
    note_overheads([*entries, {"name": "e", "target": ""}], pvcs, ImportSettings(overheads={"fast": 0.1}))
    shares = {entry["name"]: entry["persistentVolumeClaimInfo"]["filesystemOverhead"] for entry in entries}
    assert shares == {"a": "0.1", "b": "0", "d": "0.06"}


def test_claims_that_grew() -> None:
    pvc = {"status": {"capacity": {"storage": "2Gi"}}}
    info = {"claimName": "one", "volumeMode": "Filesystem", "capacity": {"storage": "1Gi"}}
    entries = [{"name": "a", "target": "vda", "persistentVolumeClaimInfo": info, "size": 2**30}, {"name": "e"}]
    assert refreshed(entries, CLAIMS, {"one": pvc, "two": pvc}) == [
        {
            "name": "a",
            "target": "vda",
            "persistentVolumeClaimInfo": {**info, "capacity": {"storage": "2Gi"}},
            "size": 2 * 2**30,
        },
        {"name": "e"},
    ]
    assert refreshed(entries, CLAIMS, {"one": None}) == entries


@pytest.mark.parametrize(
    ("volume", "remedy"),
    [
        ({"dataVolume": {"name": "late"}}, "create a DataVolume of that name, or a PersistentVolumeClaim"),
        ({"persistentVolumeClaim": {"claimName": "late"}}, "create it, or correct the volume's claimName"),
    ],
)
def test_claim_that_is_missing(volume: dict[str, Any], remedy: str) -> None:
    decided = plan(make_vmi(spec({"name": "a", **volume})), [], {"late": None}, datetime.now(UTC))
    assert not decided.create_pod
    ((_, reason, message),) = decided.events
    assert reason == "FailedPvcNotFound"
    assert "PVC ns/late does not exist, waiting for it to appear" in message
    assert remedy in message
