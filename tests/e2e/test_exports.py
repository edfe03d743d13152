# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks that are downloaded: of a claim, of a stopped machine, of a snapshot."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import os
import signal
import ssl
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from cluster import Cluster
from kubernetes import client
from kubernetes.watch import Watch
from scenarios.snapshots import serves_snapshots, snapshot
from scenarios.volumes import address_of, attach

from engine import condition

GROUP = "export.kubevirt.io"
HEADER = "x-kubevirt-export-token"
WRITE, READ = "echo {} | dd of=/dev/vdc conv=fsync 2>/dev/null", "head -c 5 /dev/vdc"
Object = dict[str, Any]


def export(cluster: Cluster, namespace: str, name: str, kind: str, of: str, **spec: Any) -> None:
    groups = {"VirtualMachine": "kubevirt.io", "VirtualMachineSnapshot": "snapshot.kubevirt.io"}
    source = {"kind": kind, "name": of, **({"apiGroup": groups[kind]} if kind in groups else {})}
    body = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "VirtualMachineExport",
        "metadata": {"name": name},
        "spec": {"source": source, **spec},
    }
    cluster.custom.create_namespaced_custom_object(GROUP, "v1", namespace, "virtualmachineexports", body)


def wait(cluster: Cluster, namespace: str, name: str, done: Callable[[Object], Any], timeout: float = 60) -> Object:
    found = cluster.wait(
        namespace,
        "virtualmachineexports",
        name,
        lambda obj: obj and obj.get("status") and done(obj),
        timeout=timeout,
        what="its end",
        group=GROUP,
        version="v1",
    )
    assert found is not None
    return found


def is_ready(obj: Object) -> bool:
    return bool(obj["status"].get("phase") == "Ready")


def token_of(cluster: Cluster, namespace: str, obj: Object) -> str:
    secret = cluster.core.read_namespaced_secret(obj["status"]["tokenSecretRef"], namespace)
    return base64.b64decode(secret.data["token"]).decode()


class Links:
    """The external links of an export."""

    def __init__(self, cluster: Cluster, namespace: str, obj: Object) -> None:
        self._link = obj["status"]["links"]["external"]
        self.token = token_of(cluster, namespace, obj)

    def url(self, volume: str, format: str) -> str:
        found = next(each for each in self._link["volumes"] if each["name"] == volume)
        return str(next(each["url"] for each in found["formats"] if each["format"] == format))

    def manifest(self, type_: str) -> str:
        return str(next(each["url"] for each in self._link["manifests"] if each["type"] == type_))

    def open(self, url: str, **headers: str) -> HTTPResponse:
        """Ask for something, trusting the link's certificate only."""
        parts = urlsplit(url)
        context = ssl.create_default_context(cadata=self._link["cert"])
        connection = HTTPSConnection(parts.hostname or "", parts.port, timeout=60, context=context)
        connection.request("GET", parts.path, headers={HEADER: self.token, **headers})
        return connection.getresponse()

    def get(self, url: str, **headers: str) -> tuple[int, bytes]:
        answer = self.open(url, **headers)
        return answer.status, answer.read()


def processes(cluster: Cluster, namespace: str, name: str) -> list[int]:
    pod = cluster.core.read_namespaced_pod(f"virt-export-{name}", namespace)
    return cluster.processes_of_pod(pod.metadata.uid, "virt-exportserver")


def test_a_stopped_machine(cluster: Cluster, namespace: str) -> None:
    cluster.claim(namespace, "data", "16Mi")
    vm = cluster.virtual_machine("kept", grace_period=0)
    attach(vm, "data", {"persistentVolumeClaim": {"claimName": "data"}}, {"disk": {"bus": "virtio"}})
    cluster.create(namespace, vm)
    vmi = cluster.wait_running(namespace, "kept", timeout=120)
    cluster.ssh(address_of(vmi), WRITE.format("first"))
    export(cluster, namespace, "whole", "VirtualMachine", "kept")
    waiting = wait(cluster, namespace, "whole", lambda obj: condition(obj, "Ready"))
    ready = condition(waiting, "Ready")
    assert (waiting["status"]["phase"], ready["reason"]) == ("Pending", "InUse")
    assert ready["message"] == f"Virtual Machine {namespace}/kept is running"
    # A claim that a machine uses
    export(cluster, namespace, "part", "PersistentVolumeClaim", "data")
    used = wait(cluster, namespace, "part", lambda obj: condition(obj, "Ready"))
    assert condition(used, "Ready")["reason"] == "InUse"
    assert "VirtualMachineInstance kept" in condition(used, "Ready")["message"]

    cluster.subresource(namespace, "kept", "stop")
    links = Links(cluster, namespace, wait(cluster, namespace, "whole", is_ready))
    status, disk = links.get(links.url("data", "raw"))
    assert (status, disk[:5]) == (200, b"first")
    status, packed = links.get(links.url("data", "gzip"))
    assert (status, hashlib.sha256(gzip.decompress(packed)).digest()) == (200, hashlib.sha256(disk).digest())
    assert links.get(links.url("data", "raw"), **{HEADER: "wrong"})[0] == 401
    # The process dies in the middle; the rest comes from the next one
    answer = links.open(links.url("data", "raw"))
    tag, first = answer.headers["ETag"], answer.read(4 << 20)
    (server,) = processes(cluster, namespace, "whole")
    os.kill(server, signal.SIGKILL)
    with contextlib.suppress(OSError, HTTPException):
        while piece := answer.read(1 << 20):
            first += piece
    wait(
        cluster, namespace, "whole", lambda obj: is_ready(obj) and server not in processes(cluster, namespace, "whole")
    )
    half = first[: len(first) // 2]
    deadline, status = time.monotonic() + cluster.seconds(30), 503
    # The status may not tell yet that the first process is gone
    while status == 503 and time.monotonic() < deadline:
        time.sleep(0.2)
        status, rest = links.get(links.url("data", "raw"), Range=f"bytes={len(half)}-", **{"If-Range": tag})
    assert status == 206
    assert hashlib.sha256(half + rest).digest() == hashlib.sha256(disk).digest()

    found = json.loads(links.get(links.manifest("all"))[1])["items"]
    assert [each["kind"] for each in found] == ["ConfigMap", "VirtualMachine", "DataVolume"]
    assert found[2]["spec"]["source"]["http"]["url"] == links.url("data", "gzip")
    # Machines don't wait for downloads
    cluster.subresource(namespace, "kept", "start")
    cluster.wait_running(namespace, "kept", timeout=120, not_uid=vmi["metadata"]["uid"])
    paused = wait(cluster, namespace, "whole", lambda obj: obj["status"]["phase"] == "Pending")
    assert "links" not in paused["status"]
    cluster.wait_event(namespace, "whole", ["ExportPaused"], timeout=60)


def test_a_snapshot_becomes_a_machine_elsewhere(cluster: Cluster, namespace: str, kubectl: Callable[..., str]) -> None:
    if not serves_snapshots(cluster):
        pytest.skip("there is no class for snapshots of volumes")
    cluster.claim(namespace, "data", "16Mi")
    vm = cluster.virtual_machine("kept", grace_period=0)
    attach(vm, "data", {"persistentVolumeClaim": {"claimName": "data"}}, {"disk": {"bus": "virtio"}})
    cluster.create(namespace, vm)
    vmi = cluster.wait_running(namespace, "kept", timeout=120)
    cluster.ssh(address_of(vmi), WRITE.format("first"))
    snapshot(cluster, namespace, "before", "kept")
    cluster.ssh(address_of(vmi), WRITE.format("later"))
    export(cluster, namespace, "frozen", "VirtualMachineSnapshot", "before")
    obj = wait(cluster, namespace, "frozen", is_ready)
    assert obj["status"]["virtualMachineName"] == "kept"
    assert condition(obj, "VolumesCreated")["status"] == "True"
    links = Links(cluster, namespace, obj)
    assert links.get(links.url("data", "raw"))[1][:5] == b"first"

    other = f"{namespace}-copy"
    cluster.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=other)))
    try:
        for type_ in ("auth-header-secret", "all"):
            # With addresses that Pods reach
            url = links.manifest(type_).replace("/external/manifests/", "/internal/manifests/")
            status, text = links.get(url, Accept="application/yaml")
            assert status == 200
            kubectl("--namespace", other, "create", "-f", "-", stdin=text.decode())
        copy = cluster.wait_running(other, "kept", timeout=180)
        assert cluster.ssh(address_of(copy), READ).strip() == "first"
    finally:
        cluster.core.delete_namespace(other)
        cluster.wait_gone(other, "kept")
    claim = "frozen-data"
    cluster.core.read_namespaced_persistent_volume_claim(claim, namespace)
    cluster.custom.delete_namespaced_custom_object(GROUP, "v1", namespace, "virtualmachineexports", "frozen")
    for event in Watch().stream(
        cluster.core.list_namespaced_persistent_volume_claim,
        namespace,
        field_selector=f"metadata.name={claim}",
        timeout_seconds=cluster.seconds(60),
    ):
        if event["type"] == "DELETED":
            return
    raise AssertionError(f"{claim} is left")


def test_a_claim_for_some_seconds(cluster: Cluster, namespace: str) -> None:
    cluster.claim(namespace, "data", "16Mi")
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="mine"), string_data={"token": "let-me-in"})
    # A claim that was never a machine's holds files
    export(cluster, namespace, "files", "PersistentVolumeClaim", "data", tokenSecretRef="mine", ttlDuration="45s")
    wait(cluster, namespace, "files", lambda obj: condition(obj, "Ready"))
    cluster.core.create_namespaced_secret(namespace, secret)
    obj = wait(cluster, namespace, "files", is_ready)
    assert obj["status"]["tokenSecretRef"] == "mine"
    links = Links(cluster, namespace, obj)
    assert links.token == "let-me-in"
    assert [each["format"] for each in obj["status"]["links"]["internal"]["volumes"][0]["formats"]] == ["dir", "tar.gz"]
    assert links.get(links.url("data", "dir"))[0] == 200
    assert gzip.decompress(links.get(links.url("data", "tar.gz"))[1])
    cluster.wait(
        namespace,
        "virtualmachineexports",
        "files",
        lambda obj: obj is None,
        timeout=60,
        what="deletion",
        group=GROUP,
        version="v1",
    )
