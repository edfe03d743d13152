# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks on a cluster: from a web server, from the user's machine, and from the disks of another namespace."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from data_volumes import create, data_volume, disk_of, failure, machine, wait
from deployed import NAMESPACE, Deployed
from file_server import FileServer, serving
from kubernetes import client

Object = dict[str, Any]


def succeeded(status: Object) -> bool:
    return bool(status.get("phase") == "Succeeded")


@pytest.fixture(scope="module")
def disk(cluster: Deployed, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The tiny guest's disk."""
    return disk_of(cluster.archive, tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module", autouse=True)
def profile(cluster: Deployed) -> Iterator[None]:
    """An administrator says how the volumes of the default StorageClass are used, which the engine can't know."""
    profiles = ("cdi.kubevirt.io", "v1beta1", "storageprofiles")
    (name,) = (
        each.metadata.name
        for each in client.StorageV1Api(cluster.core.api_client).list_storage_class().items
        if (each.metadata.annotations or {}).get("storageclass.kubernetes.io/is-default-class") == "true"
    )
    sets = [{"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}]
    cluster.custom.patch_cluster_custom_object(*profiles, name, {"spec": {"claimPropertySets": sets}})
    yield
    cluster.custom.patch_cluster_custom_object(*profiles, name, {"spec": {"claimPropertySets": None}})


@pytest.fixture
def server(cluster: Deployed, disk: bytes) -> Iterator[FileServer]:
    """A server on this machine, which Pods of the tests' own cluster reach."""
    if not cluster.kubernetes.nodes:
        pytest.skip("somebody else's Pods may not reach this machine")
    with serving(address=cluster.kubernetes.host_address) as found:
        found.files["/tiny.qcow2"] = disk
        yield found


def test_a_machine_brings_its_disks_along(cluster: Deployed, namespace: str, server: FileServer, disk: bytes) -> None:
    checksum = f"sha256:{hashlib.sha256(disk).hexdigest()}"
    root = data_volume("root", {"http": {"url": f"{server.url}/tiny.qcow2", "checksum": checksum}}, "256Mi")
    cluster.create(namespace, machine(cluster, root, data_volume("data", {"blank": {}}, "40Mi")))
    vmi = cluster.wait_running(namespace, "web", timeout=120)
    sizes = cluster.ssh(vmi["status"]["interfaces"][0]["ipAddress"], "cat /sys/class/block/vd[ac]/size")
    assert [int(each) for each in sizes.split()] == [256 << 11, 40 << 11]
    assert wait(cluster, namespace, "root", succeeded)["progress"] == "100.0%"


def test_what_goes_wrong_is_told(cluster: Deployed, namespace: str, server: FileServer) -> None:
    url = f"{server.url}/tiny.qcow2"
    create(cluster, namespace, data_volume("checksum", {"http": {"url": url, "checksum": f"sha256:{'00' * 32}"}}))
    create(cluster, namespace, data_volume("small", {"http": {"url": url}}, "40Mi"))
    create(cluster, namespace, data_volume("missing", {"http": {"url": f"{server.url}/missing"}}))
    for name, words in (("checksum", "not 0000"), ("small", "larger than the reported available storage")):
        status = wait(cluster, namespace, name, lambda status: status.get("phase") == "Failed", timeout=60)
        assert words in failure(status)
    assert "the server answered 404" in failure(wait(cluster, namespace, "missing", failure, timeout=60))


def test_an_upload_and_copies_of_it(
    cluster: Deployed, namespace: str, disk: bytes, tmp_path: Path, ansible: Callable[..., Object]
) -> None:
    common = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "wait_timeout": cluster.seconds(60)}
    proxy = cluster.core.read_namespaced_service("cdi-uploadproxy", NAMESPACE).spec.cluster_ip
    (tmp_path / "tiny.qcow2").write_bytes(disk)
    upload = {**common, "name": "tiny-1", "src": str(tmp_path / "tiny.qcow2"), "size": "160Mi"}
    # Its certificate is for its name, which counts inside the cluster
    upload |= {"upload_proxy_url": f"https://{proxy}", "upload_proxy_insecure": True}
    done = ansible("turtles.kubevirt.image_upload", upload)
    assert (done["changed"], done["phase"], done["bytes"]) == (True, "Succeeded", len(disk))
    assert not ansible("turtles.kubevirt.image_upload", upload)["changed"]
    ansible("turtles.kubevirt.data_source", {**common, "name": "tiny", "pvc": "tiny-1"})

    def copy(name: str) -> Object:
        obj = data_volume(name, {})
        del obj["spec"]["source"]
        obj["spec"]["sourceRef"] = {"kind": "DataSource", "namespace": namespace, "name": "tiny"}
        return obj

    cluster.create(namespace, machine(cluster, copy("here")))
    # Another namespace, whose machines may copy this one's disks
    other = f"{namespace}-shop"
    cluster.core.create_namespace({"metadata": {"name": other}})
    try:
        cluster.create(other, machine(cluster, copy("there")))
        cluster.wait(
            other,
            "virtualmachines",
            "web",
            lambda vm: f"insufficient permissions in clone source namespace {namespace}" in str(vm),
            timeout=20,
            what="refusal",
        )
        allow(cluster, namespace, f"system:serviceaccounts:{other}")
        for where in (namespace, other):
            vmi = cluster.wait_running(where, "web", timeout=120)
            assert cluster.ssh(vmi["status"]["interfaces"][0]["ipAddress"], "echo up") == "up"
    finally:
        cluster.core.delete_namespace(other)
        cluster.ending.append(other)


def allow(cluster: Deployed, namespace: str, group: str) -> None:
    """Let a group copy a namespace's disks."""
    rbac = client.RbacAuthorizationV1Api(cluster.core.api_client)
    binding = {
        "metadata": {"name": "copies"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kubevirt.io:edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    }
    rbac.create_namespaced_role_binding(namespace, binding)


def test_an_image_from_the_registry_is_exported_again(cluster: Deployed, namespace: str, tmp_path: Path) -> None:
    registry = cluster.kubernetes.registry
    authority = (registry.certificates / "ca.crt").read_text()
    cluster.core.create_namespaced_config_map(namespace, {"metadata": {"name": "ca"}, "data": {"ca.pem": authority}})
    source = {"registry": {"url": f"docker://{cluster.image}", "pullMethod": "pod", "certConfigMap": "ca"}}
    create(cluster, namespace, data_volume("root", source))
    wait(cluster, namespace, "root", succeeded, timeout=120)
    exports = ("export.kubevirt.io", "v1")
    body = {
        "apiVersion": "/".join(exports),
        "kind": "VirtualMachineExport",
        "metadata": {"name": "root"},
        "spec": {"source": {"kind": "PersistentVolumeClaim", "name": "root"}},
    }
    cluster.custom.create_namespaced_custom_object(*exports, namespace, "virtualmachineexports", body)
    where = {"group": exports[0], "version": exports[1]}
    done = cluster.wait(
        namespace,
        "virtualmachineexports",
        "root",
        lambda obj: obj and obj.get("status", {}).get("phase") == "Ready",
        timeout=60,
        what="export that is ready",
        **where,
    )
    assert done is not None
    token = cluster.core.read_namespaced_secret(done["status"]["tokenSecretRef"], namespace).data["token"]
    link = done["status"]["links"]["internal"]
    # The certificate is for the name of the Service, which this machine can't look up
    address = cluster.core.read_namespaced_service(done["status"]["serviceName"], namespace).spec.cluster_ip
    parts = urlsplit(link["volumes"][0]["formats"][0]["url"])
    pool = urllib3.HTTPSConnectionPool(
        address, ca_cert_data=link["cert"], assert_hostname=parts.hostname, server_hostname=parts.hostname
    )
    for sent, status in (("wrong", 401), (base64.b64decode(token).decode(), 200)):
        answer = pool.request("GET", parts.path, headers={"x-kubevirt-export-token": sent}, preload_content=False)
        assert answer.status == status
        assert sum(len(piece) for piece in answer.stream(1 << 20)) == 160 << 20 or status == 401
