# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""DataVolumes: what tests make of them, and wait for."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubernetes.watch import Watch

from engine import Engine, Object

DATA_VOLUMES = ("cdi.kubevirt.io", "v1beta1")
MIB = 1 << 20
IMMEDIATELY = {"cdi.kubevirt.io/storage.bind.immediate.requested": "true"}


def disk_of(archive: Path, folder: Path) -> bytes:
    """The disk of a containerDisk; the archive is unpacked in the folder."""
    with tarfile.open(archive) as layout:
        layout.extractall(folder, filter="data")
    index = json.loads((folder / "index.json").read_text())

    def blob(digest: str) -> Path:
        return folder / "blobs" / digest.replace(":", "/")

    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_text())
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer["digest"])) as files:
            for member in files:
                if member.isfile() and member.name.lstrip("./").startswith("disk/"):
                    found = files.extractfile(member)
                    assert found is not None
                    return found.read()
    raise AssertionError("the image has no disk")


def data_volume(name: str, source: Object, size: str = "160Mi", **annotations: str) -> Object:
    return {
        "apiVersion": "/".join(DATA_VOLUMES),
        "kind": "DataVolume",
        "metadata": {"name": name, "annotations": {**IMMEDIATELY, **annotations}},
        "spec": {"source": source, "storage": {"resources": {"requests": {"storage": size}}}},
    }


def create(cluster: Engine, namespace: str, obj: Object) -> Object:
    return cluster.custom.create_namespaced_custom_object(*DATA_VOLUMES, namespace, "datavolumes", obj)


def wait(cluster: Engine, namespace: str, name: str, done: Callable[[Object], Any], timeout: float = 40) -> Object:
    """Watch a DataVolume until something is true of its status."""
    seen: Object = {}
    for event in Watch().stream(
        cluster.custom.list_namespaced_custom_object,
        *DATA_VOLUMES,
        namespace,
        "datavolumes",
        field_selector=f"metadata.name={name}",
        timeout_seconds=cluster.seconds(timeout),
    ):
        seen = event["object"].get("status") or {}
        if done(seen):
            return seen
    raise AssertionError(f"{name}: {seen}\n" + "\n".join(cluster.events(namespace)))


def failure(status: Object) -> str:
    running = next((each for each in status.get("conditions") or () if each["type"] == "Running"), {})
    return str(running.get("message") or "") if running.get("reason") == "Error" else ""


def machine(cluster: Engine, *templates: Object) -> Object:
    """A machine whose first disk is the first of these DataVolumes, and that has the others besides."""
    vm = cluster.virtual_machine("web")
    spec = vm["spec"]["template"]["spec"]
    names = [each["metadata"]["name"] for each in templates]
    spec["volumes"][0] = {"name": "root", "dataVolume": {"name": names[0]}}
    for name in names[1:]:
        spec["domain"]["devices"]["disks"].append({"name": name, "disk": {"bus": "virtio"}})
        spec["volumes"].append({"name": name, "dataVolume": {"name": name}})
    vm["spec"]["dataVolumeTemplates"] = [
        {"metadata": {"name": each["metadata"]["name"]}, "spec": each["spec"]} for each in templates
    ]
    return vm


def token_for(cluster: Engine, namespace: str, claim: str) -> str:
    request = cluster.custom.create_namespaced_custom_object(
        "upload.cdi.kubevirt.io",
        "v1beta1",
        namespace,
        "uploadtokenrequests",
        {
            "apiVersion": "upload.cdi.kubevirt.io/v1beta1",
            "kind": "UploadTokenRequest",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {"pvcName": claim},
        },
    )
    return str(request["status"]["token"])
