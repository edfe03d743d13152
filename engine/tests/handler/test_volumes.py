# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of every source, made by a real launcher and taken by a real libvirtd and QEMU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turtles.domain import paths

from .rig import Pod
from .test_sync import Agent, Cluster, _events, make_vmi, run

pytestmark = pytest.mark.root
__all__ = ["_events", "run"]

VIRTIO = {"disk": {"bus": "virtio"}}
VOLUMES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("base", {"ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}}, {**VIRTIO, "dedicatedIOThread": True}),
    ("imported", {"dataVolume": {"name": "imported"}}, {**VIRTIO, "blockSize": {"matchVolume": {"enabled": True}}}),
    (
        "host",
        {"hostDisk": {"path": "/srv/a.img", "type": "DiskOrCreate", "capacity": "1Mi", "shared": True}},
        {
            "disk": {"bus": "virtio", "pciAddress": "0000:00:1c.0"},
            "blockSize": {"custom": {"logical": 4096, "physical": 4096, "discardGranularity": 8192}},
        },
    ),
    ("settings", {"configMap": {"name": "settings", "volumeLabel": "cfg"}}, {"disk": {"bus": "sata"}}),
    ("keys", {"secret": {"secretName": "keys"}}, VIRTIO),
    ("labels", {"downwardAPI": {"fields": []}}, {"disk": {"bus": "usb"}}),
    ("answers", {"sysprep": {"configMap": {"name": "answers"}}}, {"cdrom": {"bus": "sata"}}),
    ("metrics", {"downwardMetrics": {}}, VIRTIO),
    ("scratch", {"emptyDisk": {"capacity": "2Mi"}}, {"disk": {"bus": "scsi"}}),
]


def fill(pod: Pod, path: Any, content: bytes) -> None:
    """Put a file where a volume would be mounted."""
    file = pod.volumes / "private" / path.relative_to(paths.PRIVATE_DIR)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    for each in (file, file.parent):
        each.chmod(0o777)


def test_disks(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    pod = make_pod()
    vmi = make_vmi(pod, startStrategy="Paused")
    devices = vmi["spec"]["domain"]["devices"]
    devices["blockMultiQueue"] = True
    for name, source, disk in VOLUMES:
        devices["disks"].append({"name": name, **disk})
        vmi["spec"]["volumes"].append({"name": name, **source})
    devices["disks"].append({"name": "empty", "cdrom": {"bus": "sata"}})
    vmi["spec"]["domain"]["ioThreadsPolicy"] = "auto"
    vmi["status"]["volumeStatus"] = [
        {"name": "imported", "persistentVolumeClaimInfo": {"capacity": {"storage": "4Mi"}}},
    ]
    fill(pod, paths.claim_disk("base"), bytes(2**20))
    for name in ("imported", "host"):
        fill(pod, paths.claim_dir(name) / "lost+found", b"")
    volumes = {name: {"name": name, **source} for name, source, _ in VOLUMES}
    for name, file in (("settings", "a"), ("keys", "key"), ("labels", "labels"), ("answers", "unattend.xml")):
        fill(pod, paths.files_dir(volumes[name]) / file, b"x")
    pod.start(vmi=vmi, wait=False)
    cluster = Cluster(vmi)
    run(cluster, pod)
    status = cluster.wait_phase("Running", 120)
    entries = {entry["name"]: entry for entry in status["volumeStatus"]}
    assert entries["scratch"]["size"] == 2 * 2**20
    assert entries["host"]["size"] == 2**20
    assert set(entries) >= {*volumes, "empty"}
    assert len({entry["target"] for entry in entries.values()}) == len(entries)
    overlay: Path = pod.volumes / "ephemeral-disks" / paths.overlay("base").relative_to(paths.EPHEMERAL_DISKS_DIR)
    assert overlay.is_file()
    host: Path = pod.volumes / "private" / paths.host_disk(volumes["host"]).relative_to(paths.PRIVATE_DIR)
    assert (host.stat().st_size, host.stat().st_uid) == (2**20, 107)


def test_growth(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> None:
    pod = make_pod()
    vmi = make_vmi(pod)
    for name, read_only in (("data", False), ("fixed", True)):
        vmi["spec"]["domain"]["devices"]["disks"].append({"name": name, **VIRTIO})
        claim = {"claimName": name, "readOnly": read_only}
        vmi["spec"]["volumes"].append({"name": name, "persistentVolumeClaim": claim})
        fill(pod, paths.claim_disk(name), bytes(2 * 2**20))
    files = [pod.volumes / "private" / paths.claim_disk(n).relative_to(paths.PRIVATE_DIR) for n in ("data", "fixed")]

    def offer(capacity: str, asked: str = "1Gi") -> Callable[[dict[str, Any]], None]:
        def change(vmi: dict[str, Any]) -> None:
            known = {"capacity": {"storage": capacity}, "requests": {"storage": asked}, "filesystemOverhead": "0.06"}
            info = {"persistentVolumeClaimInfo": known}
            old = {entry["name"]: entry for entry in vmi["status"].get("volumeStatus") or ()}
            vmi["status"]["volumeStatus"] = [{**old.get(n, {"name": n}), **info} for n in ("data", "fixed")]

        return change

    def sizes_become(*wanted: int) -> bool:
        end = time.monotonic() + 10
        while (sizes := tuple(file.stat().st_size // 2**20 for file in files)) != wanted and time.monotonic() < end:
            time.sleep(0.1)
        return sizes == wanted

    offer("2Mi")(vmi)
    pod.start(vmi=vmi, wait=False)
    cluster = Cluster(vmi)
    run(cluster, pod)
    cluster.wait_phase("Running", 120)
    cluster.update(offer("5M"))
    assert sizes_become(4, 2)
    cluster.update(offer("1Mi"))
    time.sleep(2)
    assert sizes_become(4, 2)
    # Of 8 MiB that are there 6 were asked for, of which the file system keeps some for itself.
    cluster.update(offer("8Mi", "6Mi"))
    assert sizes_become(5, 2)
