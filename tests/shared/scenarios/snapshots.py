# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Snapshots of machines, and what becomes of those that are restored."""

from __future__ import annotations

from typing import Any

from kubernetes.client.exceptions import ApiException

from engine import Engine, condition
from scenarios.volumes import address_of, attach

_GROUP = "snapshot.kubevirt.io"
_VERSION = "v1beta1"
_WRITE = "echo {} | dd of=/dev/vdc conv=fsync 2>/dev/null"
_READ = "head -c 5 /dev/vdc"


def serves_snapshots(cluster: Engine) -> bool:
    """Whether there is a class for snapshots of volumes: a cluster has one if its CSI driver can make them."""
    try:
        classes = cluster.custom.list_cluster_custom_object("snapshot.storage.k8s.io", "v1", "volumesnapshotclasses")
    except ApiException as error:
        if error.status == 404:
            return False
        raise
    return bool(classes["items"])


def make(
    cluster: Engine, namespace: str, plural: str, kind: str, name: str, spec: dict[str, Any], group: str = _GROUP
) -> None:
    """Create a snapshot, a restore or, in their group, a clone."""
    body = {"apiVersion": f"{group}/{_VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}
    cluster.custom.create_namespaced_custom_object(group, _VERSION, namespace, plural, body)


def snapshot(cluster: Engine, namespace: str, name: str, vm: str) -> dict[str, Any]:
    """Make a snapshot of a machine; it as it is when it can be used."""
    source = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": vm}
    make(cluster, namespace, "virtualmachinesnapshots", "VirtualMachineSnapshot", name, {"source": source})
    return wait(cluster, namespace, "virtualmachinesnapshots", name, lambda o: o["status"].get("readyToUse"))


def restore(cluster: Engine, namespace: str, name: str, vm: str, of: str, **spec: Any) -> None:
    """Ask for a restore of a snapshot to a machine."""
    target = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": vm}
    spec = {"target": target, "virtualMachineSnapshotName": of, **spec}
    make(cluster, namespace, "virtualmachinerestores", "VirtualMachineRestore", name, spec)


def wait(
    cluster: Engine, namespace: str, plural: str, name: str, done: Any, timeout: float = 60, group: str = _GROUP
) -> dict[str, Any]:
    """Wait until a snapshot, a restore or, in their group, a clone is as wanted."""
    found = cluster.wait(
        namespace,
        plural,
        name,
        lambda o: o and o.get("status") and done(o),
        timeout=timeout,
        what="its end",
        group=group,
        version=_VERSION,
    )
    assert found is not None
    return found


def marker(cluster: Engine, namespace: str, vm: str, **options: Any) -> str:
    """What a running machine has on its disk."""
    vmi = cluster.wait_running(namespace, vm, timeout=120, **options)
    return cluster.ssh(address_of(vmi), _READ).strip()


def test_a_machine_is_restored(cluster: Engine, namespace: str) -> None:
    cluster.claim(namespace, "data", "16Mi")
    vm = cluster.virtual_machine("kept", grace_period=0)
    attach(vm, "data", {"persistentVolumeClaim": {"claimName": "data"}}, {"disk": {"bus": "virtio"}})
    cluster.create(namespace, vm)
    first = cluster.wait_running(namespace, "kept", timeout=120)
    cluster.ssh(address_of(first), _WRITE.format("first"))
    made = snapshot(cluster, namespace, "before", "kept")
    assert made["status"]["indications"] == ["Online", "NoGuestAgent"]
    assert made["status"]["snapshotVolumes"]["includedVolumes"] == ["data"]
    assert sorted(made["status"]["snapshotVolumes"]["excludedVolumes"]) == ["root", "seed"]
    cluster.ssh(address_of(first), _WRITE.format("later"))

    restore(cluster, namespace, "refused", "kept", "before", targetReadinessPolicy="FailImmediate")
    refused = wait(cluster, namespace, "virtualmachinerestores", "refused", lambda o: condition(o, "Failure"))
    assert "the target is running" in condition(refused, "Failure")["message"]

    restore(cluster, namespace, "patient", "kept", "before", targetReadinessPolicy="WaitEventually")
    waiting = wait(cluster, namespace, "virtualmachinerestores", "patient", lambda o: condition(o, "Ready"))
    assert condition(waiting, "Ready")["reason"] == "Waiting for target to be ready"
    assert cluster.ssh(address_of(first), _READ).strip() == "later"
    cluster.subresource(namespace, "kept", "stop")
    wait(cluster, namespace, "virtualmachinerestores", "patient", lambda o: o["status"].get("complete"))
    stopped = cluster.wait_stopped(namespace, "kept")
    assert "restoreInProgress" not in stopped["status"]
    cluster.subresource(namespace, "kept", "start")
    assert marker(cluster, namespace, "kept", not_uid=first["metadata"]["uid"]) == "first"

    source = {"apiGroup": _GROUP, "kind": "VirtualMachineSnapshot", "name": "before"}
    target = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "copy"}
    spec = {"source": source, "target": target, "volumeNamePolicy": "PrefixTargetName", "newSMBiosSerial": "S-1"}
    clones = {"plural": "virtualmachineclones", "name": "copied", "group": "clone.kubevirt.io"}
    make(cluster, namespace, kind="VirtualMachineClone", spec=spec, **clones)
    wait(cluster, namespace, done=lambda o: o["status"].get("phase") == "Succeeded", **clones)
    cluster.subresource(namespace, "copy", "start")
    assert marker(cluster, namespace, "copy") == "first"
    kept, copy = (cluster.get(namespace, "virtualmachines", name) or {} for name in ("kept", "copy"))
    for key in ("uuid", "serial"):
        assert firmware(kept)[key] != firmware(copy)[key]
    assert firmware(copy)["serial"] == "S-1"
    claim = cluster.core.read_namespaced_persistent_volume_claim("copy-data", namespace)
    assert [each.name for each in claim.metadata.owner_references] == ["copy"]


def firmware(vm: dict[str, Any]) -> dict[str, Any]:
    """The identity of a machine's firmware."""
    found: dict[str, Any] = vm["spec"]["template"]["spec"]["domain"]["firmware"]
    return found
