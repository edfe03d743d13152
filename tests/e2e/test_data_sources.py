# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks that others are copied from: DataSources, snapshots, and copies in other namespaces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from data_volumes import DATA_VOLUMES, MIB, create, data_volume, failure, machine, wait
from kubernetes import client
from kubernetes.client.exceptions import ApiException

Object = dict[str, Any]
SIZE = "160Mi"
DENIED = "has insufficient permissions in clone source namespace {}"


@pytest.fixture
def images(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A namespace with disks that others are copied from."""
    name = f"{namespace}-images"
    cluster.core.create_namespace({"metadata": {"name": name}})
    yield name
    cluster.core.delete_namespace(name)


def content(cluster: Cluster, namespace: str, claim: str) -> tuple[str, int]:
    """The hash of the first 32 MiB of a claim's disk, and its size."""
    volume = cluster.core.read_namespaced_persistent_volume_claim(claim, namespace).spec.volume_name
    disk = Path(cluster.core.read_persistent_volume(volume).spec.local.path, "disk.img")
    with disk.open("rb") as file:
        return hashlib.sha256(file.read(32 * MIB)).hexdigest(), disk.stat().st_size


def referring(name: str, images: str) -> Object:
    obj = data_volume(name, {}, SIZE)
    del obj["spec"]["source"]
    obj["spec"]["sourceRef"] = {"kind": "DataSource", "namespace": images, "name": "tiny"}
    return obj


def grant(cluster: Cluster, images: str, name: str, subject: Object) -> None:
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "kubevirt.io:edit"},
        "subjects": [{"apiGroup": group, **subject}],
    }
    client.RbacAuthorizationV1Api(cluster.core.api_client).create_namespaced_role_binding(images, binding)


def create_as(cluster: Cluster, user: str, namespace: str, obj: Object) -> None:
    """Create a DataVolume as somebody else."""
    with client.ApiClient(cluster.core.api_client.configuration) as theirs:
        theirs.set_default_header("Impersonate-User", user)
        custom = client.CustomObjectsApi(theirs)
        custom.create_namespaced_custom_object(*DATA_VOLUMES, namespace, "datavolumes", obj)


def succeeded(status: Object) -> bool:
    return bool(status.get("phase") == "Succeeded")


def test_copies_in_another_namespace(
    cluster: Cluster, namespace: str, images: str, ansible: Callable[..., Object]
) -> None:
    create(cluster, images, data_volume("tiny-1", {"registry": {"url": cluster.image}}, SIZE))
    options = {"kubeconfig": str(cluster.kubeconfig), "namespace": images, "name": "tiny"}
    made = ansible("turtles.kubevirt.data_source", {**options, "pvc": "tiny-1", "wait_timeout": cluster.seconds(60)})
    assert made["result"]["status"]["source"] == {"pvc": {"namespace": images, "name": "tiny-1"}}

    # A user who may create DataVolumes here only
    grant(cluster, namespace, "eve", {"kind": "User", "name": "eve"})
    explicit = data_volume("explicit", {"pvc": {"namespace": images, "name": "tiny-1"}}, SIZE)
    for obj in (referring("copy", images), explicit):
        with pytest.raises(ApiException) as error:
            create_as(cluster, "eve", namespace, obj)
        assert f"User eve {DENIED.format(images)}" in str(error.value.body)
    grant(cluster, images, "eve", {"kind": "User", "name": "eve"})
    create_as(cluster, "eve", namespace, referring("copy", images))
    cluster.kill("virt-controller")
    done = wait(cluster, namespace, "copy", succeeded, timeout=60)
    assert (done["progress"], done["claimName"]) == ("100.0%", "copy")
    assert content(cluster, namespace, "copy") == content(cluster, images, "tiny-1")
    # Nothing is left beside the source
    name, where = f"tmp-{uid(cluster, namespace, 'copy')}", {"group": DATA_VOLUMES[0], "version": DATA_VOLUMES[1]}
    cluster.wait(images, "datavolumes", name, lambda found: found is None, timeout=60, what="its end", **where)
    left = {each.metadata.name for each in cluster.core.list_namespaced_persistent_volume_claim(images).items}
    assert "tiny-1" in left

    # A machine may what its service account may
    cluster.create(namespace, machine(cluster, referring("root", images)))
    vm = cluster.wait(
        namespace,
        "virtualmachines",
        "web",
        lambda found: DENIED.format(images) in str((found or {}).get("status")),
        timeout=60,
        what="failure",
    )
    assert f"User system:serviceaccount:{namespace}:default" in str(vm)
    grant(cluster, images, "machines", {"kind": "Group", "name": f"system:serviceaccounts:{namespace}"})
    cluster.wait_running(namespace, "web", timeout=90)


def uid(cluster: Cluster, namespace: str, name: str) -> str:
    found = cluster.custom.get_namespaced_custom_object(*DATA_VOLUMES, namespace, "datavolumes", name)
    return str(found["metadata"]["uid"])


def test_snapshots_are_restored(cluster: Cluster, namespace: str, images: str) -> None:
    create(cluster, images, data_volume("tiny-1", {"registry": {"url": cluster.image}}, SIZE))
    wait(cluster, images, "tiny-1", succeeded)
    snapshot = {"metadata": {"name": "monday"}, "spec": {"source": {"persistentVolumeClaimName": "tiny-1"}}}
    source = {"snapshot": {"namespace": images, "name": "monday"}}
    create(cluster, images, data_volume("early", source, "200Mi"))
    assert "monday not found" in failure(wait(cluster, images, "early", failure))
    storage = ("snapshot.storage.k8s.io", "v1")
    body = {"apiVersion": "/".join(storage), "kind": "VolumeSnapshot", **snapshot}
    cluster.custom.create_namespaced_custom_object(*storage, images, "volumesnapshots", body)
    create(cluster, images, data_volume("small", source, "40Mi"))
    create(cluster, namespace, data_volume("elsewhere", source, SIZE))
    disk, size = content(cluster, images, "tiny-1")
    wait(cluster, images, "early", succeeded)
    assert content(cluster, images, "early") == (disk, 200 * MIB)
    wait(cluster, namespace, "elsewhere", succeeded, timeout=60)
    assert content(cluster, namespace, "elsewhere") == (disk, size)
    assert "smaller than the source" in failure(wait(cluster, images, "small", failure))
