# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Volumes that come to a running guest and leave it."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch

from engine import Engine, condition

_SELECTOR = "kubevirt.io=hotplug-disk"
#: Waits until the guest has a disk with a serial number; what it is called. The guest has no udev, so that nobody loads
#: the driver of a device that comes later.
_FIND = """
modprobe -a -q virtio_scsi sd_mod
for try in $(seq 200); do
    for disk in /sys/block/[sv]d*; do
        serial=$(cat $disk/serial 2>/dev/null || tail -c +5 $disk/device/vpd_pg80 2>/dev/null)
        [ "$serial" = {serial} ] && basename $disk && exit
    done
    sleep 0.1
done
echo none
"""


def option(name: str, bus: str, claim: str = "", **disk: Any) -> dict[str, Any]:
    """The body of a request to add a volume, whose disk has its name in capitals as its serial number."""
    source = {"persistentVolumeClaim": {"claimName": claim or name}}
    return {"name": name, "disk": {"disk": {"bus": bus}, "serial": name.upper(), **disk}, "volumeSource": source}


def put(cluster: Engine, namespace: str, plural: str, name: str, action: str, body: dict[str, Any]) -> None:
    """PUT a subresource of a VM or VMI."""
    cluster.subresource(namespace, name, action, body, plural=plural)


def entry_of(obj: dict[str, Any] | None, volume: str) -> dict[str, Any]:
    """A volume's entry in a VMI's status, or an empty dict."""
    entries = ((obj or {}).get("status") or {}).get("volumeStatus") or ()
    return next((dict(entry) for entry in entries if entry["name"] == volume), {})


def wait_volume(
    cluster: Engine, namespace: str, name: str, volume: str, phase: str, *, reason: str = "", timeout: float = 60
) -> dict[str, Any]:
    """A volume's entry in the VMI's status once it is in that phase; without a phase, once it is gone."""

    def fits(obj: dict[str, Any] | None) -> bool:
        entry = entry_of(obj, volume)
        return entry.get("phase", "") == phase and (not reason or entry.get("reason") == reason)

    what = f"{volume} {phase or 'gone'} {reason}"
    vmi = cluster.wait(namespace, "virtualmachineinstances", name, fits, timeout=timeout, what=what)
    return entry_of(vmi, volume)


def wait_memory_dump(cluster: Engine, namespace: str, name: str, phase: str) -> dict[str, Any]:
    """A VM's request to dump memory once it is in that phase; without a phase, once there is none."""

    def request(vm: dict[str, Any] | None) -> dict[str, Any]:
        return ((vm or {}).get("status") or {}).get("memoryDumpRequest") or {}

    vm = cluster.wait(
        namespace,
        "virtualmachines",
        name,
        lambda vm: request(vm).get("phase", "") == phase,
        timeout=60,
        what=f"memory dump {phase or 'gone'}",
    )
    return request(vm)


def wait_no_attachments(cluster: Engine, namespace: str) -> None:
    """Until no Pod holds a claim."""
    listed = cluster.core.list_namespaced_pod(namespace, label_selector=_SELECTOR)
    pods = {pod.metadata.name for pod in listed.items}
    if not pods:
        return
    for event in Watch().stream(
        cluster.core.list_namespaced_pod,
        namespace,
        label_selector=_SELECTOR,
        resource_version=listed.metadata.resource_version,
        timeout_seconds=cluster.seconds(30),
    ):
        pods.discard(event["object"].metadata.name) if event["type"] == "DELETED" else None
        if not pods:
            return
    raise AssertionError(f"Pods are still there: {pods}\n" + "\n".join(cluster.events(namespace)))


def find(cluster: Engine, address: str, serial: str) -> str:
    """What the guest calls the disk with that serial number."""
    return cluster.ssh(address, _FIND.format(serial=serial), timeout=180)


def test_volumes_come_and_go(cluster: Engine, namespace: str) -> None:
    """Persistent and not, on both buses, by requests; what is refused; a restart; the end."""
    for claim in ("data", "more", "extra"):
        cluster.claim(namespace, claim, "32Mi")
    machine = cluster.virtual_machine("web")
    cluster.create(namespace, machine)
    vmi = cluster.wait_running(namespace, "web", timeout=120)
    address = vmi["status"]["interfaces"][0]["ipAddress"]
    boot = cluster.ssh(address, "cat /proc/sys/kernel/random/boot_id", timeout=180)

    with pytest.raises(ApiException, match="requires bus to be 'scsi' or 'virtio'"):
        put(cluster, namespace, "virtualmachines", "web", "addvolume", option("data", "sata"))
    with pytest.raises(ApiException, match="not hotpluggable"):
        put(cluster, namespace, "virtualmachines", "web", "removevolume", {"name": "root"})

    put(cluster, namespace, "virtualmachines", "web", "addvolume", option("data", "scsi"))
    put(cluster, namespace, "virtualmachineinstances", "web", "addvolume", option("more", "virtio"))
    data = wait_volume(cluster, namespace, "web", "data", "Ready")
    more = wait_volume(cluster, namespace, "web", "more", "Ready")
    assert (data["target"], data["reason"]) == ("sda", "VolumeReady")
    assert data["hotplugVolume"]["attachPodName"].startswith("hp-volume-")
    assert data["persistentVolumeClaimInfo"]["claimName"] == "data"
    assert find(cluster, address, "DATA") == "sda"
    device = find(cluster, address, "MORE")
    assert device.startswith("vd"), more
    assert cluster.ssh(address, f"cat /sys/block/{device}/size /sys/block/sda/size").split()[0] > "0"
    cluster.ssh(address, "echo kept | dd of=/dev/sda conv=fsync 2>/dev/null")

    vm = cluster.get(namespace, "virtualmachines", "web") or {}
    volumes = {volume["name"]: volume for volume in vm["spec"]["template"]["spec"]["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "data", "hotpluggable": True}
    assert "more" not in volumes
    assert not condition(vm, "RestartRequired")
    with pytest.raises(ApiException, match="because volume with that name already exists"):
        put(cluster, namespace, "virtualmachines", "web", "addvolume", option("data", "scsi", "extra"))

    put(cluster, namespace, "virtualmachineinstances", "web", "removevolume", {"name": "more"})
    wait_volume(cluster, namespace, "web", "more", "")
    assert cluster.ssh(address, f"ls /sys/block | grep -c {device}") == "0"
    assert cluster.boot_id(address) == boot

    # A claim that isn't there yet, asked for in the template
    spec = vm["spec"]["template"]["spec"]
    late = option("late", "virtio")
    spec["domain"]["devices"]["disks"].append({**late["disk"], "name": "late"})
    spec["volumes"].append({"name": "late", "persistentVolumeClaim": {"claimName": "late", "hotpluggable": True}})
    cluster.patch(namespace, "web", {"spec": {"template": {"spec": spec}}})
    pending = wait_volume(cluster, namespace, "web", "late", "Pending", reason="FailedPvcNotFound")
    assert pending["message"] == "PVC late not found"
    cluster.claim(namespace, "late", "16Mi")
    wait_volume(cluster, namespace, "web", "late", "Ready")
    assert find(cluster, address, "LATE").startswith("vd")
    assert not condition(cluster.get(namespace, "virtualmachines", "web") or {}, "RestartRequired")

    # Its memory, to a claim that is large enough
    with pytest.raises(ApiException, match="should be bigger"):
        put(cluster, namespace, "virtualmachines", "web", "memorydump", {"claimName": "extra"})
    cluster.claim(namespace, "memory", "256Mi")
    put(cluster, namespace, "virtualmachines", "web", "memorydump", {"claimName": "memory"})
    dump = wait_memory_dump(cluster, namespace, "web", "Completed")
    assert dump["fileName"].startswith("web-memory-")
    assert dump["startTimestamp"] <= dump["endTimestamp"]
    put(cluster, namespace, "virtualmachines", "web", "removememorydump", {})
    wait_memory_dump(cluster, namespace, "web", "")
    assert cluster.boot_id(address) == boot

    cluster.subresource(namespace, "web", "restart")
    again = cluster.wait_running(namespace, "web", timeout=120, not_uid=vmi["metadata"]["uid"])
    address = again["status"]["interfaces"][0]["ipAddress"]
    assert cluster.ssh(address, f"head -c 4 /dev/{find(cluster, address, 'DATA')}", timeout=180) == "kept"
    put(cluster, namespace, "virtualmachines", "web", "removevolume", {"name": "data"})
    wait_volume(cluster, namespace, "web", "data", "")
    cluster.delete(namespace, "web")
    cluster.wait_gone(namespace, "web")
    wait_no_attachments(cluster, namespace)
