# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Claims that CDI's populators fill, and the object CDI."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from conftest import VARIABLES
from data_volumes import token_for
from file_server import FileServer
from kubernetes.watch import Watch
from test_data_volumes import send

Object = dict[str, Any]
GROUP = ("cdi.kubevirt.io", "v1beta1")
DISK = b"populated" + bytes((4 << 20) - 9)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Address of a raw disk of 4 MiB."""
    server = FileServer(address="0.0.0.0")
    server.files["/disk.img"] = DISK
    yield f"http://{ipaddress.ip_network(VARIABLES['turtles_pod_cidr'])[1]}:{server.port}/disk.img"
    server.close()


def until(cluster: Cluster, call: Callable[..., Any], *arguments: str, done: Callable[[str, Object], Any]) -> Object:
    """Watch objects until one of them is as it should be, and return it."""
    seen: list[Object] = []
    for event in Watch().stream(call, *arguments, timeout_seconds=cluster.seconds(120)):
        seen = [*seen[-3:], event["raw_object"]]
        if done(event["type"], event["raw_object"]):
            return seen[-1]
    raise AssertionError(f"it didn't happen: {seen}")


def claim(cluster: Cluster, namespace: str, name: str, kind: str, source: str, *, immediately: bool = True) -> None:
    annotations = {"cdi.kubevirt.io/storage.bind.immediate.requested": "true"} if immediately else {}
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "16Mi"}},
        "dataSourceRef": {"apiGroup": GROUP[0], "kind": kind, "name": source},
    }
    body = {"metadata": {"name": name, "annotations": annotations}, "spec": spec}
    cluster.core.create_namespaced_persistent_volume_claim(namespace, body)


def source(cluster: Cluster, namespace: str, kind: str, name: str, wanted: Object) -> None:
    body = {"apiVersion": "/".join(GROUP), "kind": kind, "metadata": {"name": name}, "spec": {"source": wanted}}
    cluster.custom.create_namespaced_custom_object(*GROUP, namespace, f"{kind.lower()}s", body)


def bound(cluster: Cluster, namespace: str, name: str) -> Object:
    return until(
        cluster,
        cluster.core.list_namespaced_persistent_volume_claim,
        namespace,
        done=lambda _, obj: obj["metadata"]["name"] == name and obj.get("status", {}).get("phase") == "Bound",
    )


def disk(cluster: Cluster, found: Object) -> Path:
    volume = cluster.core.read_persistent_volume(found["spec"]["volumeName"])
    assert volume.spec.claim_ref.uid == found["metadata"]["uid"]
    return Path(volume.spec.local.path) / "disk.img"


def start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(9)


def test_claims_are_imported_and_copied(cluster: Cluster, namespace: str, url: str) -> None:
    claim(cluster, namespace, "first", "VolumeImportSource", "web")
    words = f"VolumeImportSource {namespace}/web doesn't exist"
    events = cluster.core.list_namespaced_event
    until(cluster, events, namespace, done=lambda _, obj: words in obj.get("message", ""))
    source(cluster, namespace, "VolumeImportSource", "web", {"http": {"url": url}})
    first = bound(cluster, namespace, "first")
    assert start_of(disk(cluster, first)) == b"populated"
    # What was filled in its place goes, and the volume stays
    until(cluster, events, namespace, done=lambda _, obj: obj.get("reason") == "importSucceeded")
    prime = f"prime-{first['metadata']['uid']}"

    def is_gone(type_: str, obj: Object) -> bool:
        names = [each.metadata.name for each in claims(namespace).items]
        return prime not in names

    claims = cluster.core.list_namespaced_persistent_volume_claim
    until(cluster, claims, namespace, done=is_gone)
    assert start_of(disk(cluster, first)) == b"populated"

    source(cluster, namespace, "VolumeCloneSource", "copy", {"kind": "PersistentVolumeClaim", "name": "first"})
    claim(cluster, namespace, "second", "VolumeCloneSource", "copy")
    second = bound(cluster, namespace, "second")
    assert start_of(disk(cluster, second)) == b"populated"
    assert disk(cluster, second) != disk(cluster, first)


def test_a_machine_waits_for_its_claim(cluster: Cluster, namespace: str, url: str) -> None:
    source(cluster, namespace, "VolumeImportSource", "web", {"http": {"url": url}})
    claim(cluster, namespace, "late", "VolumeImportSource", "web", immediately=False)
    devices = {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]}
    machine = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "late"},
        "spec": {
            "domain": {"memory": {"guest": "64Mi"}, "devices": devices},
            "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "late"}}],
        },
    }
    cluster.create(namespace, machine)
    assert start_of(disk(cluster, bound(cluster, namespace, "late"))) == b"populated"
    cluster.wait_phase(namespace, "late", "Running", timeout=90)


def test_an_upload_fills_a_claim(cluster: Cluster, namespace: str) -> None:
    body = {"apiVersion": "/".join(GROUP), "kind": "VolumeUploadSource", "metadata": {"name": "own"}, "spec": {}}
    cluster.custom.create_namespaced_custom_object(*GROUP, namespace, "volumeuploadsources", body)
    claim(cluster, namespace, "sent", "VolumeUploadSource", "own")
    ready = "cdi.kubevirt.io/storage.pod.ready"
    until(
        cluster,
        cluster.core.list_namespaced_persistent_volume_claim,
        namespace,
        done=lambda _, obj: (
            obj["metadata"]["name"] == "sent" and obj["metadata"].get("annotations", {}).get(ready) == "true"
        ),
    )
    assert send("/v1beta1/upload", token_for(cluster, namespace, "sent"), DISK)[0] == 200
    assert start_of(disk(cluster, bound(cluster, namespace, "sent"))) == b"populated"


def test_the_object_cdi(cluster: Cluster) -> None:
    body = {
        "apiVersion": "/".join(GROUP),
        "kind": "CDI",
        "metadata": {"name": "cdi"},
        "spec": {"config": {"filesystemOverhead": {"global": "0.07"}}},
    }
    everything = cluster.custom.list_cluster_custom_object
    cluster.custom.create_cluster_custom_object(*GROUP, "cdis", body)
    try:

        def in_force(_kind: str, obj: Object) -> bool:
            status = obj.get("status") or {}
            return bool((status.get("filesystemOverhead") or {}).get("global") == "0.07")

        until(cluster, everything, *GROUP, "cdiconfigs", done=in_force)
        found = cluster.custom.get_cluster_custom_object(*GROUP, "cdis", "cdi")
        assert found["status"]["phase"] == "Deployed"
    finally:
        cluster.custom.delete_cluster_custom_object(*GROUP, "cdis", "cdi")
        patch = {"spec": {"filesystemOverhead": None}}
        cluster.custom.patch_cluster_custom_object(*GROUP, "cdiconfigs", "config", patch)
