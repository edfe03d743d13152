# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Claims that are devices, on one machine: filled, booted from, grown, copied, rolled back, downloaded."""

from __future__ import annotations

import gzip
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from conftest import VARIABLES
from data_volumes import MIB, data_volume, disk_of, machine, wait
from data_volumes import create as create_data_volume
from file_server import FileServer, serving
from scenarios.snapshots import restore, snapshot
from scenarios.snapshots import wait as wait_for
from scenarios.volumes import address_of

from playbooks import playbook

WRITE = "echo {} | dd of=/dev/vdc conv=fsync 2>/dev/null"
SIZE = "cat /sys/class/block/vdc/size"


@pytest.fixture
def server(cluster: Cluster, tmp_path: Path) -> Iterator[FileServer]:
    """A server with the guest's disk, which Pods reach."""
    with serving(address="0.0.0.0") as found:
        found.url = f"http://{ipaddress.ip_network(VARIABLES['turtles_pod_cidr'])[1]}:{found.port}"
        found.files["/tiny.qcow2"] = disk_of(Path(cluster.image.removeprefix("oci-archive:")), tmp_path)
        yield found


def on_a_device(made: dict[str, Any]) -> dict[str, Any]:
    made["spec"]["storage"]["volumeMode"] = "Block"
    return made


def loops(cluster: Cluster) -> list[str]:
    """The files of the instance that are devices now."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [text for each in files if f"/{cluster.instance}/" in (text := each.read_text())]


def test_disks_on_devices(cluster: Cluster, namespace: str, server: FileServer, tmp_path: Path) -> None:
    root = on_a_device(data_volume("web-root", {"http": {"url": f"{server.url}/tiny.qcow2"}}, "256Mi"))
    data = on_a_device(data_volume("web-data", {"blank": {}}, "32Mi"))
    cluster.create(namespace, machine(cluster, root, data))
    first = cluster.wait_running(namespace, "web", timeout=180)
    address = address_of(first)
    assert cluster.ssh(address, SIZE).strip() == str(32 * MIB // 512)
    assert len(loops(cluster)) == 2, "of the machine, and none of importers any more"
    cluster.ssh(address, WRITE.format("first"))

    # The node's agent for Pods may die, and devices stay
    cluster.kill("podrunner")
    made = snapshot(cluster, namespace, "before", "web")
    assert len(made["status"]["snapshotVolumes"]["includedVolumes"]) == 2
    assert cluster.ssh(address, "head -c 5 /dev/vdc") == "first"
    cluster.ssh(address, WRITE.format("later"))

    # Grown while the guest runs
    larger = {"spec": {"resources": {"requests": {"storage": "48Mi"}}}}
    cluster.core.patch_namespaced_persistent_volume_claim("web-data", namespace, larger)
    cluster.ssh(address, f"until [ $({SIZE}) = {48 * MIB // 512} ]; do sleep 0.2; done")

    # Downloaded as it is now
    options = {"kubeconfig": str(cluster.kubeconfig), "backup_namespace": namespace, "backup_vms": "web"}
    playbook(
        "turtles.kubevirt.backup", "-e", json.dumps({**options, "backup_dest": str(tmp_path / "b")}), folder=tmp_path
    )
    (place,) = (tmp_path / "b" / namespace / "web").iterdir()
    with gzip.open(place / "web-data.img.gz") as file:
        content = file.read()
    assert (content[:5], len(content)) == (b"later", 48 * MIB)

    # Rolled back
    restore(cluster, namespace, "back", "web", "before", targetReadinessPolicy="StopTarget")
    wait_for(cluster, namespace, "virtualmachinerestores", "back", lambda o: o["status"].get("complete"), timeout=120)
    cluster.subresource(namespace, "web", "start")
    second = cluster.wait_running(namespace, "web", timeout=180, not_uid=first["metadata"]["uid"])
    assert cluster.ssh(address_of(second), "head -c 5 /dev/vdc") == "first"

    # Copied, as a device and as a file
    source = {"pvc": {"name": "web-data", "namespace": namespace}}
    create_data_volume(cluster, namespace, on_a_device(data_volume("copy", source, "48Mi")))
    create_data_volume(cluster, namespace, data_volume("file", source, "48Mi"))
    for name in ("copy", "file"):
        wait(cluster, namespace, name, lambda status: status.get("phase") == "Succeeded", timeout=120)
        claim = cluster.core.read_namespaced_persistent_volume_claim(name, namespace)
        volume = cluster.core.read_persistent_volume(claim.spec.volume_name).spec
        path = Path(volume.local.path, "device" if name == "copy" else "disk.img")
        with path.open("rb") as file:
            assert file.read(5) == b"later"
        assert path.stat().st_size == 48 * MIB
    cluster.delete(namespace, "web")
    cluster.wait_gone(namespace, "web")
    assert loops(cluster) == []
