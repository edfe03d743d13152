# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks from a server: DataVolumes, and machines that bring theirs along."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import signal
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from conftest import VARIABLES
from data_volumes import DATA_VOLUMES, MIB, create, data_volume, disk_of, failure, machine, token_for, wait
from file_server import FileServer, serving
from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch

Object = dict[str, Any]


@pytest.fixture(scope="module")
def disk(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The tiny guest's disk."""
    return disk_of(Path(cluster.image.removeprefix("oci-archive:")), tmp_path_factory.mktemp("disk"))


@pytest.fixture
def server(disk: bytes) -> Iterator[FileServer]:
    """A server that Pods reach."""
    bridge = ipaddress.ip_network(VARIABLES["turtles_pod_cidr"])[1]
    # The bridge is there once a Pod is
    with serving(address="0.0.0.0") as found:
        found.url = f"http://{bridge}:{found.port}"
        found.files["/tiny.qcow2"] = disk
        yield found


def importers(namespace: str, cluster: Cluster) -> list[int]:
    """Pids of importers' processes."""
    pod = next(each for each in cluster.core.list_namespaced_pod(namespace).items if "importer-" in each.metadata.name)
    return cluster.processes_of_pod(pod.metadata.uid, "virt-importer")


def test_a_machine_brings_its_disks_along_whoever_dies(cluster: Cluster, namespace: str, server: FileServer) -> None:
    disk, reached, proceed = server.files["/tiny.qcow2"], threading.Event(), threading.Event()

    def hold(position: int) -> None:
        if position > len(disk) // 2:
            reached.set()
            proceed.wait(60)

    server.before = hold
    checksum = f"sha256:{hashlib.sha256(disk).hexdigest()}"
    root = data_volume("web-root", {"http": {"url": f"{server.url}/tiny.qcow2", "checksum": checksum}}, "256Mi")
    vm = machine(cluster, root, data_volume("web-data", {"blank": {}}, "40Mi"))
    cluster.create(namespace, vm)
    # Claims wait for their first consumer, which the machine is
    assert reached.wait(40), cluster.events(namespace)
    cluster.wait_status(namespace, "web", "Provisioning", timeout=60)
    wait(cluster, namespace, "web-root", lambda status: status.get("progress", "N/A") not in ("N/A", ""))
    cluster.kill("virt-controller")
    (importer,) = importers(namespace, cluster)
    os.kill(importer, signal.SIGKILL)
    proceed.set()
    vmi = cluster.wait_running(namespace, "web", timeout=90)
    done = wait(cluster, namespace, "web-root", lambda status: status.get("phase") == "Succeeded")
    assert (done["progress"], done["claimName"], done["restartCount"]) == ("100.0%", "web-root", 1)
    address = vmi["status"]["interfaces"][0]["ipAddress"]
    assert cluster.ssh(address, "cat /sys/class/block/vda/size /sys/class/block/vdc/size").split() == [
        str(256 * MIB // 512),
        str(40 * MIB // 512),
    ]
    left = {each.metadata.name for each in cluster.core.list_namespaced_persistent_volume_claim(namespace).items}
    assert left == {"web-root", "web-data"}
    assert [each.metadata.labels["kubevirt.io"] for each in cluster.core.list_namespaced_pod(namespace).items] == [
        "virt-launcher"
    ]
    cluster.delete(namespace, "web")
    cluster.wait_gone(namespace, "web")
    # The disks go with their machine
    claims = cluster.core.list_namespaced_persistent_volume_claim(namespace)
    left = {each.metadata.name for each in claims.items}
    events = Watch().stream(
        cluster.core.list_namespaced_persistent_volume_claim,
        namespace,
        resource_version=claims.metadata.resource_version,
        timeout_seconds=cluster.seconds(20),
    )
    while left and (event := next(events, None)):
        left -= {event["object"].metadata.name} if event["type"] == "DELETED" else set()
    listed = cluster.custom.list_namespaced_custom_object(*DATA_VOLUMES, namespace, "datavolumes")
    assert (left, listed["items"]) == (set(), [])


def test_what_goes_wrong_is_told(cluster: Cluster, namespace: str, server: FileServer, disk: bytes) -> None:
    url = f"{server.url}/tiny.qcow2"
    refused = {
        "checksum": ({"url": url, "checksum": f"sha256:{'00' * 32}"}, "160Mi", "not 0000"),
        "small": ({"url": url}, "40Mi", "larger than the reported available storage"),
    }
    for name, (http, size, _words) in refused.items():
        create(cluster, namespace, data_volume(name, {"http": http}, size))
    create(cluster, namespace, data_volume("missing", {"http": {"url": f"{server.url}/missing"}}))
    foreign = create(cluster, namespace, data_volume("foreign", {"blank": {}}))
    for name, (_http, _size, words) in refused.items():
        assert words in failure(wait(cluster, namespace, name, lambda status: status.get("phase") == "Failed"))
    told = wait(cluster, namespace, "missing", failure)
    assert "/missing: the server answered 404" in failure(told)
    assert told["phase"] == "ImportInProgress"
    # It comes later
    server.files["/missing"] = disk
    wait(cluster, namespace, "missing", lambda status: status.get("phase") == "Succeeded")
    # A machine whose template has the name of what is somebody else's
    cluster.create(namespace, machine(cluster, data_volume("foreign", {"blank": {}})))
    vm = cluster.wait(
        namespace,
        "virtualmachines",
        "web",
        lambda found: "belongs to nobody. It is left unchanged" in str((found or {}).get("status")),
        timeout=60,
        what="failure",
    )
    assert vm is not None
    now = cluster.custom.get_namespaced_custom_object(*DATA_VOLUMES, namespace, "datavolumes", "foreign")
    assert now["metadata"]["uid"] == foreign["metadata"]["uid"]
    assert not now["metadata"].get("ownerReferences")
    with pytest.raises(ApiException) as error:
        create(cluster, namespace, data_volume("other", {"blank": {}, "http": {"url": url}}))
    assert "Multiple Data volume sources" in str(error.value.body)


def test_a_container_image_becomes_a_disk_that_stays(
    cluster: Cluster, namespace: str, ansible: Callable[..., Object]
) -> None:
    cluster.create(namespace, machine(cluster, data_volume("root", {"registry": {"url": cluster.image}})))
    vmi = cluster.wait_running(namespace, "web", timeout=60)
    address, uid = vmi["status"]["interfaces"][0]["ipAddress"], vmi["metadata"]["uid"]
    cluster.ssh(address, "echo kept | dd of=/dev/vda seek=300000 conv=notrunc,fsync")
    cluster.subresource(namespace, "web", "restart")
    address = cluster.wait_running(namespace, "web", timeout=60, not_uid=uid)["status"]["interfaces"][0]["ipAddress"]
    assert cluster.ssh(address, "dd if=/dev/vda skip=300000 count=1 | head -c 4") == "kept"
    # So does a copy of it, which waits until nobody writes
    options = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "name": "copy"}
    copy = {"source": {"pvc": {"namespace": namespace, "name": "root"}}, "size": "160Mi", "bind_immediately": True}
    ansible("turtles.kubevirt.data_volume", {**options, **copy, "wait": False})
    assert "in use by VirtualMachineInstance web" in failure(wait(cluster, namespace, "copy", failure))
    cluster.subresource(namespace, "web", "stop")
    done = ansible("turtles.kubevirt.data_volume", {**options, **copy})
    assert (done["changed"], done["phase"], done["progress"]) == (False, "Succeeded", "100.0%")
    pvc = cluster.core.read_namespaced_persistent_volume_claim("copy", namespace)
    path = cluster.core.read_persistent_volume(pvc.spec.volume_name).spec.local.path
    with Path(path, "disk.img").open("rb") as file:
        file.seek(300000 * 512)
        assert file.read(4) == b"kept"


def test_a_machine_tells_why_its_disk_is_missing(cluster: Cluster, namespace: str, server: FileServer) -> None:
    server.status = [503] * 100
    root = data_volume("root", {"http": {"url": f"{server.url}/tiny.qcow2"}})
    cluster.create(namespace, machine(cluster, root))
    cluster.wait_status(namespace, "web", "DataVolumeError", timeout=40)
    # The instance has its own controller, which may be a moment later.
    cluster.wait(
        namespace,
        "virtualmachineinstances",
        "web",
        lambda vmi: vmi and "503 Service Unavailable" in str(vmi.get("status")),
        timeout=60,
        what="the server's answer in the instance's status",
    )


def send(path: str, token: str, data: bytes | Iterator[bytes], length: int | None = None) -> tuple[int, str]:
    """Send an image to the upload proxy, as virtctl does."""
    connection = HTTPSConnection(
        "127.0.0.1", VARIABLES["turtles_virt_api_port"], timeout=90, context=ssl._create_unverified_context()
    )
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
    if length is not None:
        headers["Content-Length"] = str(length)
    try:
        connection.request("POST", path, data, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_an_upload_becomes_a_disk_after_all_that_goes_wrong(
    cluster: Cluster, namespace: str, disk: bytes, tmp_path: Path, ansible: Callable[..., Object]
) -> None:
    create(cluster, namespace, data_volume("root", {"upload": {}}))
    wait(cluster, namespace, "root", lambda status: status.get("phase") == "UploadReady")
    token = token_for(cluster, namespace, "root")
    assert send("/v1beta1/upload", "x.y.z", disk)[0] == 401
    # A size that is known, and too large for the claim: nothing of it is read
    status, words = send("/v1beta1/upload", token, iter([disk[:4096]]), length=1 << 40)
    assert (status, "larger PVC is required" in words) == (400, True), words
    # An image that refers to another file
    header = bytearray(disk[:65536])
    header[8:20] = struct.pack(">QI", 512, 11)
    header[512:523] = b"/etc/shadow"
    status, words = send("/v1beta1/upload", token, bytes(header))
    assert (status, "backing file" in words) == (400, True), words

    def broken() -> Iterator[bytes]:
        yield disk[: len(disk) // 2]
        # The server's process dies in the middle
        (server,) = uploading(cluster, namespace, "root")
        os.kill(server, signal.SIGKILL)
        yield disk[len(disk) // 2 :]

    with contextlib.suppress(OSError, HTTPException):
        assert send("/v1beta1/upload-async", token, broken(), length=len(disk))[0] == 503
    done = wait(cluster, namespace, "root", lambda status: status.get("phase") == "UploadReady" and failure(status))
    assert done["restartCount"] == 1
    (tmp_path / "tiny.qcow2").write_bytes(disk)
    options = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "name": "root"}
    options["src"] = str(tmp_path / "tiny.qcow2")
    done = ansible("turtles.kubevirt.image_upload", options)
    assert (done["changed"], done["phase"], done["bytes"]) == (True, "Succeeded", len(disk))
    assert not ansible("turtles.kubevirt.image_upload", options)["changed"]
    assert send("/v1beta1/upload", token, disk)[0] == 409
    vm = cluster.virtual_machine("web")
    vm["spec"]["template"]["spec"]["volumes"][0] = {"name": "root", "dataVolume": {"name": "root"}}
    cluster.create(namespace, vm)
    vmi = cluster.wait_running(namespace, "web", timeout=60)
    assert cluster.ssh(vmi["status"]["interfaces"][0]["ipAddress"], "echo up", timeout=120) == "up"
    left = {each.metadata.name for each in cluster.core.list_namespaced_persistent_volume_claim(namespace).items}
    assert "root-scratch" not in left


def uploading(cluster: Cluster, namespace: str, claim: str) -> list[int]:
    """Pids of the process that takes an upload."""
    pod = cluster.core.read_namespaced_pod(f"cdi-upload-{claim}", namespace)
    return cluster.processes_of_pod(pod.metadata.uid, "virt-importer")
