# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A PersistentVolume is for the claim that it names, whatever other claims say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from kubernetes import client
from kubernetes.watch import Watch


@pytest.fixture
def volume(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[str]:
    """A volume with somebody's data, bound to the claim ``data`` of the test's namespace."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/disk.img").write_bytes(b"mine")
    name = f"{namespace}-data"
    cluster.core.create_persistent_volume(
        {
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "64Mi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(tmp_path / "data")},
            },
        }
    )
    claim(cluster, namespace, name)
    wait_claim(cluster, namespace, "Bound")
    yield name
    cluster.core.delete_persistent_volume(name)


def claim(cluster: Cluster, namespace: str, volume: str) -> None:
    cluster.core.create_namespaced_persistent_volume_claim(
        namespace,
        {
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "64Mi"}},
                "storageClassName": "",
                "volumeName": volume,
            },
        },
    )


def wait_claim(cluster: Cluster, namespace: str, phase: str) -> None:
    for event in Watch().stream(
        cluster.core.list_namespaced_persistent_volume_claim, namespace, timeout_seconds=cluster.seconds(20)
    ):
        if event["type"] != "DELETED" and event["object"].status.phase == phase:
            return
    raise AssertionError(f"the claim isn't {phase}:\n" + "\n".join(cluster.events(namespace)))


def wait_pod(cluster: Cluster, namespace: str) -> str:
    for event in Watch().stream(cluster.core.list_namespaced_pod, namespace, timeout_seconds=cluster.seconds(20)):
        return str(event["object"].metadata.name)
    raise AssertionError("no Pod:\n" + "\n".join(cluster.events(namespace)))


def machine(cluster: Cluster) -> dict[str, Any]:
    vm = cluster.virtual_machine("web")
    spec = vm["spec"]["template"]["spec"]
    spec["domain"]["devices"]["disks"].append({"name": "data", "disk": {"bus": "virtio"}})
    spec["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    return vm


def bind(cluster: Cluster, namespace: str, pod: str) -> None:
    """Do what only a scheduler or an administrator may, to get past the checks of placement."""
    node = next(node.metadata.name for node in cluster.core.list_node().items if not node.spec.unschedulable)
    body = client.V1Binding(
        metadata=client.V1ObjectMeta(name=pod),
        target=client.V1ObjectReference(api_version="v1", kind="Node", name=node),
    )
    cluster.core.create_namespaced_pod_binding(pod, namespace, body, _preload_content=False)


def test_a_claim_that_names_the_volume_of_another_tenant(cluster: Cluster, volume: str, tmp_path: Path) -> None:
    hostile = f"{volume}-hostile"
    cluster.core.create_namespace({"metadata": {"name": hostile}})
    try:
        claim(cluster, hostile, volume)
        wait_claim(cluster, hostile, "Pending")
        cluster.wait_event(hostile, "data", ["FailedBinding", volume, "already bound to a different claim"], timeout=60)
        cluster.create(hostile, machine(cluster))
        pod = wait_pod(cluster, hostile)
        cluster.wait_event(hostile, "web", ["FailedScheduling", volume, "a claim of another namespace"], timeout=60)
        # As if it said itself that it is bound, and the Pod were placed already
        cluster.core.patch_namespaced_persistent_volume_claim_status("data", hostile, {"status": {"phase": "Bound"}})
        bind(cluster, hostile, pod)
        cluster.wait_event(hostile, "web", ["FailedMount", volume], timeout=60)
        assert cluster.core.read_namespaced_pod(pod, hostile).status.phase == "Pending"
        assert (tmp_path / "data/disk.img").read_bytes() == b"mine"
        assert not [text for text in cluster.events(hostile) if f"{volume.removesuffix('-data')}/data" in text]
    finally:
        cluster.core.delete_namespace(hostile)
        cluster.wait_gone(hostile, "web")


def test_a_claim_that_was_made_again(cluster: Cluster, namespace: str, volume: str) -> None:
    cluster.core.delete_namespaced_persistent_volume_claim("data", namespace)
    for event in Watch().stream(
        cluster.core.list_namespaced_persistent_volume_claim, namespace, timeout_seconds=cluster.seconds(20)
    ):
        if event["type"] == "DELETED":
            break
    claim(cluster, namespace, volume)
    cluster.wait_event(
        namespace, "data", ["FailedBinding", f"an earlier claim {namespace}/data, which was deleted"], timeout=60
    )
    # As an administrator lets go of a volume whose data may be used again
    cluster.core.patch_persistent_volume(volume, {"spec": {"claimRef": None}})
    wait_claim(cluster, namespace, "Bound")
