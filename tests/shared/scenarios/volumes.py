# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What guests see of their volumes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from engine import Engine
from playbooks import playbook, recap

_ROOT = Path(__file__).parents[3]


def attach(vm: dict[str, Any], name: str, source: dict[str, Any] | None, target: dict[str, Any]) -> None:
    """Give a virtual machine one more disk, and its volume if it has one."""
    spec = vm["spec"]["template"]["spec"]
    spec["domain"]["devices"]["disks"].append({"name": name, **target})
    if source is not None:
        spec["volumes"].append({"name": name, **source})


def share(vm: dict[str, Any], name: str, source: dict[str, Any]) -> None:
    """Give a virtual machine one more filesystem, and its volume."""
    spec = vm["spec"]["template"]["spec"]
    spec["domain"]["devices"].setdefault("filesystems", []).append({"name": name, "virtiofs": {}})
    spec["volumes"].append({"name": name, **source})


def address_of(vmi: dict[str, Any]) -> str:
    """Where a guest is reached."""
    address: str = vmi["status"]["interfaces"][0]["ipAddress"]
    return address


@pytest.fixture
def configured(cluster: Engine, namespace: str) -> str:
    """The test's namespace, with a ConfigMap, a Secret and a service account."""
    cluster.core.create_namespaced_config_map(
        namespace, {"metadata": {"name": "settings"}, "data": {"app.conf": "answer=42\n", "autounattend.xml": "<x/>"}}
    )
    key = base64.b64encode(b"hush").decode()
    cluster.core.create_namespaced_secret(namespace, {"metadata": {"name": "keys"}, "data": {"key": key}})
    cluster.core.create_namespaced_service_account(namespace, {"metadata": {"name": "robot"}})
    return namespace


def read(cluster: Engine, address: str, device: str, path: str) -> str:
    """Read a file of a disk in the guest."""
    script = f"mkdir -p /mnt/x && mount -o ro -t iso9660 /dev/{device} /mnt/x && cat '/mnt/x/{path}'; umount /mnt/x"
    return cluster.ssh(address, script)


def test_files_as_disks(cluster: Engine, configured: str) -> None:
    vm = cluster.virtual_machine("files", labels={"tier": "front"})
    virtio = {"disk": {"bus": "virtio"}}
    labels = {"path": "meta/labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    attach(vm, "settings", {"configMap": {"name": "settings", "volumeLabel": "cfg"}}, virtio)
    attach(vm, "keys", {"secret": {"secretName": "keys"}}, virtio)
    attach(vm, "account", {"serviceAccount": {"serviceAccountName": "robot"}}, virtio)
    attach(vm, "labels", {"downwardAPI": {"fields": [labels]}}, {**virtio, "serial": "LABELS"})
    attach(vm, "absent", {"configMap": {"name": "nowhere", "optional": True}}, virtio)
    attach(vm, "answers", {"sysprep": {"configMap": {"name": "settings"}}}, {"cdrom": {"bus": "sata"}})
    attach(vm, "empty", None, {"cdrom": {"bus": "sata"}})
    cluster.create(configured, vm)
    vmi = cluster.wait_running(configured, "files", timeout=120)
    address = address_of(vmi)
    targets = {entry["name"]: entry["target"] for entry in vmi["status"]["volumeStatus"]}
    assert read(cluster, address, targets["settings"], "app.conf") == "answer=42"
    assert read(cluster, address, targets["keys"], "key") == "hush"
    assert read(cluster, address, targets["account"], "namespace") == configured
    assert read(cluster, address, targets["account"], "token").count(".") == 2
    assert 'tier="front"' in read(cluster, address, targets["labels"], "meta/labels")
    assert cluster.ssh(address, f"cat /sys/block/{targets['labels']}/serial") == "LABELS"
    assert "answers" in targets
    # The CD-ROM drives are in the order of the disks: the second one is empty.
    assert read(cluster, address, "sr0", "autounattend.xml") == "<x/>"
    assert cluster.ssh(address, "head -c 1 /dev/sr1 2>/dev/null | wc -c") == "0"
    label = cluster.ssh(address, f"dd if=/dev/{targets['settings']} bs=1 skip=32808 count=32 2>/dev/null")
    assert label.strip() == "cfg"
    pod = cluster.launcher(configured, "files")
    assert pod.spec.service_account_name == "robot"


def test_ephemeral_disk_keeps_its_claim_as_it_was(cluster: Engine, namespace: str) -> None:
    cluster.claim(namespace, "data", "64Mi")
    writer = cluster.virtual_machine("writer")
    attach(writer, "data", {"dataVolume": {"name": "data"}}, {"disk": {"bus": "virtio"}})
    cluster.create(namespace, writer)
    vmi = cluster.wait_running(namespace, "writer", timeout=120)
    (entry,) = [entry for entry in vmi["status"]["volumeStatus"] if entry["name"] == "data"]
    assert entry["persistentVolumeClaimInfo"]["claimName"] == "data"
    assert entry["size"] >= 64 * 2**20 * 0.9
    cluster.ssh(address_of(vmi), f"echo base | dd of=/dev/{entry['target']} conv=fsync 2>/dev/null")
    cluster.delete(namespace, "writer")
    cluster.wait_gone(namespace, "writer")
    reader = cluster.virtual_machine("reader")
    attach(reader, "data", {"ephemeral": {"persistentVolumeClaim": {"claimName": "data"}}}, {"disk": {"bus": "virtio"}})
    cluster.create(namespace, reader)
    first = cluster.wait_running(namespace, "reader", timeout=120)
    assert cluster.ssh(address_of(first), "head -c 4 /dev/vdc") == "base"
    cluster.ssh(address_of(first), "echo lost | dd of=/dev/vdc conv=fsync 2>/dev/null")
    assert cluster.ssh(address_of(first), "head -c 4 /dev/vdc") == "lost"
    cluster.subresource(namespace, "reader", "restart")
    second = cluster.wait_running(namespace, "reader", timeout=120, not_uid=first["metadata"]["uid"])
    assert cluster.ssh(address_of(second), "head -c 4 /dev/vdc") == "base"


def test_a_data_volume_waits_for_its_claim(cluster: Engine, namespace: str) -> None:
    vm = cluster.virtual_machine("waiting")
    attach(vm, "data", {"dataVolume": {"name": "late"}}, {"disk": {"bus": "virtio"}})
    cluster.create(namespace, vm)
    words = ["FailedPvcNotFound", f"PVC {namespace}/late does not exist", "create a DataVolume of that name"]
    cluster.wait_event(namespace, "waiting", words, timeout=30)
    cluster.claim(namespace, "late", "32Mi")
    cluster.wait_running(namespace, "waiting", timeout=120)


def test_tuned_disks(cluster: Engine, namespace: str) -> None:
    vm = cluster.virtual_machine("tuned")
    devices = vm["spec"]["template"]["spec"]["domain"]["devices"]
    devices["blockMultiQueue"] = True
    scratch = {"emptyDisk": {"capacity": "16Mi"}}
    blocks = {"custom": {"logical": 4096, "physical": 4096, "discardGranularity": 8192}}
    attach(vm, "large", scratch, {"disk": {"bus": "virtio"}, "blockSize": blocks, "dedicatedIOThread": True})
    attach(vm, "locked", scratch, {"disk": {"bus": "virtio", "readonly": True, "pciAddress": "0000:00:1c.0"}})
    cluster.create(namespace, vm)
    address = address_of(cluster.wait_running(namespace, "tuned", timeout=120))
    # Names are by address, and one disk has another.
    (queue,) = cluster.ssh(address, "dirname $(grep -l 4096 /sys/block/vd*/queue/logical_block_size)").splitlines()
    assert cluster.ssh(address, f"cat {queue}/discard_granularity") == "8192"
    assert cluster.ssh(address, "cat /sys/block/vd*/ro | sort | uniq -c | awk '$2 == 1 {print $1}'")
    assert (
        cluster.ssh(address, "for disk in /sys/block/vd*; do readlink -f $disk; done | grep -c /0000:00:1c.0/") == "1"
    )


@pytest.fixture
def example(cluster: Engine) -> Iterator[None]:
    """The namespace of the example is gone in the end, whatever happens."""
    yield
    try:
        cluster.core.delete_namespace("volumes")
    except ApiException as error:
        if error.status != 404:
            raise
    cluster.wait_gone("volumes", "app")


@pytest.mark.usefixtures("example")
def test_the_example(cluster: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(cluster.kubeconfig))
    output = playbook(str(_ROOT / "docs/examples/volumes.yml"), "-e", f"image={cluster.image}", folder=tmp_path).stdout
    assert (recap(output)["changed"], recap(output)["failed"]) == (7, 0), output
    assert "data is vdd" in output
    assert "archive is sda" in output
