# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks from buckets, and files of archives."""

from __future__ import annotations

import base64
import io
import ipaddress
import os
import signal
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket import PASSWORD, USER, Bucket
from cluster import Cluster
from conftest import VARIABLES
from file_server import FileServer, serving
from test_data_volumes import create, data_volume, failure, importers, wait

MIB = 1 << 20
SIZE = "40Mi"
Object = dict[str, Any]


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server that Pods reach."""
    with serving(address="0.0.0.0") as found:
        found.url = f"http://{ipaddress.ip_network(VARIABLES['turtles_pod_cidr'])[1]}:{found.port}"
        yield found


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    found = Bucket(address="0.0.0.0")
    found.url = f"http://{ipaddress.ip_network(VARIABLES['turtles_pod_cidr'])[1]}:{found.port}"
    yield found
    found.close()


def folder_of(cluster: Cluster, namespace: str, claim: str) -> Path:
    volume = cluster.core.read_namespaced_persistent_volume_claim(claim, namespace).spec.volume_name
    return Path(cluster.core.read_persistent_volume(volume).spec.local.path)


def succeeded(status: Object) -> bool:
    return bool(status.get("phase") == "Succeeded")


def test_an_object_in_a_bucket(cluster: Cluster, namespace: str, bucket: Bucket) -> None:
    bucket.files["/images/a%20disk.img"] = b"object" + os.urandom(5 * MIB)
    bucket.breaks = [2 * MIB]
    secret = {"accessKeyId": USER, "secretKey": PASSWORD}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
    cluster.core.create_namespaced_secret(namespace, {"metadata": {"name": "owner"}, "data": data})
    url = f"{bucket.url}/images/a%20disk.img"
    create(cluster, namespace, data_volume("mine", {"s3": {"url": url, "secretRef": "owner"}}, SIZE))
    wait(cluster, namespace, "mine", succeeded)
    disk = (folder_of(cluster, namespace, "mine") / "disk.img").read_bytes()
    assert disk.startswith(bucket.files["/images/a%20disk.img"])
    create(cluster, namespace, data_volume("theirs", {"s3": {"url": url}}, SIZE))
    assert "the server answered 403" in failure(wait(cluster, namespace, "theirs", failure))


def archive(*names: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as made:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 2 * MIB
            made.addfile(info, io.BytesIO(name[:1].encode() * info.size))
    return raw.getvalue()


def test_the_files_of_an_archive_whoever_dies(cluster: Cluster, namespace: str, server: FileServer) -> None:
    server.files["/files.tar"] = archive("a/one", "b/two", "three")
    server.files["/hostile.tar"] = archive("fine", "../../outside")
    reached, proceed = threading.Event(), threading.Event()

    def hold(position: int) -> None:
        if position > 3 * MIB:
            reached.set()
            proceed.wait(60)

    server.before = hold
    files = data_volume("files", {"http": {"url": f"{server.url}/files.tar"}}, SIZE)
    files["spec"]["contentType"] = "archive"
    create(cluster, namespace, files)
    assert reached.wait(cluster.seconds(40)), cluster.events(namespace)
    (importer,) = importers(namespace, cluster)
    os.kill(importer, signal.SIGKILL)
    cluster.kill("virt-controller")
    proceed.set()
    done = wait(cluster, namespace, "files", succeeded, timeout=60)
    assert done["restartCount"] == 1
    folder = folder_of(cluster, namespace, "files")
    found = {str(path.relative_to(folder)): path.read_bytes()[:1] for path in folder.rglob("*") if path.is_file()}
    assert found == {"a/one": b"a", "b/two": b"b", "three": b"t"}
    hostile = data_volume("hostile", {"http": {"url": f"{server.url}/hostile.tar"}}, SIZE)
    hostile["spec"]["contentType"] = "archive"
    create(cluster, namespace, hostile)
    status = wait(cluster, namespace, "hostile", lambda status: status.get("phase") == "Failed")
    assert "'../../outside' of the archive points outside it" in failure(status)
    assert list(folder_of(cluster, namespace, "hostile").iterdir()) == []
