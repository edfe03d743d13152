# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes come to a running guest and leave it: a real libvirtd, QEMU and mounts; the controller is played."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from turtles.domain import paths

from .rig import Pod
from .test_sync import GUEST, Agent, Cluster, _events, make_disk, make_vmi, run

pytestmark = pytest.mark.root
__all__ = ["_events", "run"]

#: A Pod that holds a claim: its folder of sockets and the claim are where the Pod has them.
HOLDER = """
set -e
mount --make-rprivate /
mount --bind "$SOCKETS" /opt && mount --bind "$CLAIM" /media
mount -t tmpfs t /run && mkdir -p /run/kubevirt/sockets /run/kubevirt-private/vmi-disks/$VOLUME
chmod 777 /run/kubevirt-private/vmi-disks/$VOLUME
mount --move /opt /run/kubevirt/sockets
[ -n "$UNMOUNTED" ] || mount --move /media /run/kubevirt-private/vmi-disks/$VOLUME
exec "$PYTHON" -c '
import os, sys
from turtles.launcher.main import main
os.setgroups([]); os.setgid(107); os.setuid(int(os.environ["USER_ID"]))
sys.exit(main(sys.argv[1:]))' attachment --volume $VOLUME --claim $VOLUME --size 4194304 $FOLDER
"""


class Holder:
    """A Pod that holds a claim, and the claim's entry in a VMI's status."""

    def __init__(
        self, pod: Pod, volume: str, claim: Path, *, user: int = 107, unmounted: bool = False, folder: bool = False
    ) -> None:
        self.uid, self.volume, self.claim = str(uuid.uuid4()), volume, claim
        sockets = Path(paths.attachment_dir(str(pod.pods_dir), self.uid))
        for path in (sockets, claim):
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, 107, 107)
        sockets.chmod(0o777)
        claim.chmod(0o777)
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHON": sys.executable,
            "SOCKETS": str(sockets),
            "CLAIM": str(claim),
            "VOLUME": volume,
            "USER_ID": str(user),
            "FOLDER": "--folder" if folder else "",
            "UNMOUNTED": "1" if unmounted else "",
        }
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", HOLDER],
            env=env,
            start_new_session=True,
        )

    @property
    def entry(self) -> dict[str, Any]:
        attached = {"attachPodName": f"hp-volume-{self.volume}", "attachPodUID": self.uid}
        return {"name": self.volume, "target": "", "phase": "AttachedToNode", "hotplugVolume": attached}

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


Hold = Callable[..., Holder]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    holders: list[Holder] = []

    def make(pod: Pod, volume: str, **options: Any) -> Holder:
        holders.append(Holder(pod, volume, tmp_path / "claims" / volume, **options))
        return holders[-1]

    yield make
    for holder in holders:
        holder.end()


def add(vmi: dict[str, Any], holder: Holder, bus: str = "scsi", kind: str = "disk") -> None:
    """Have a VMI want a volume, as the controller and a request would."""
    name = holder.volume
    vmi["spec"]["domain"]["devices"]["disks"].append({"name": name, kind: {"bus": bus}})
    source = {"persistentVolumeClaim": {"claimName": name, "hotpluggable": True}}
    vmi["spec"]["volumes"].append({"name": name, **source})
    vmi["status"].setdefault("volumeStatus", []).append(holder.entry)


def drop(vmi: dict[str, Any], name: str, *, disk: bool = True) -> None:
    """Have a VMI want a volume no longer."""
    vmi["spec"]["volumes"] = [each for each in vmi["spec"]["volumes"] if each["name"] != name]
    devices = vmi["spec"]["domain"]["devices"]
    if disk:
        devices["disks"] = [each for each in devices["disks"] if each["name"] != name]


def entry(status: dict[str, Any], name: str) -> dict[str, Any]:
    return next((each for each in status.get("volumeStatus") or () if each["name"] == name), {})


def becomes(name: str, phase: str, reason: str = "") -> Callable[[dict[str, Any]], bool]:
    return lambda status: (
        entry(status, name).get("phase") == phase and reason in ("", entry(status, name).get("reason"))
    )


@pytest.fixture
def running(make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent]) -> tuple[Pod, Cluster, Agent]:
    """A guest that runs."""
    pod = make_pod()
    make_disk(pod, GUEST)
    cluster = Cluster(make_vmi(pod))
    pod.start(wait=False)
    agent = run(cluster, pod)
    cluster.wait_phase("Running", 60)
    return pod, cluster, agent


def launcher_mounts(pod: Pod) -> str:
    """The claims that a launcher sees."""
    assert pod.process is not None
    inside = subprocess.run(["pgrep", "-P", str(pod.process.pid)], capture_output=True, text=True).stdout.split()
    lines = Path(f"/proc/{inside[0]}/mountinfo").read_text().splitlines()
    return "\n".join(line for line in lines if "/vmi-disks/" in line)


def test_disks_come_and_go(
    running: tuple[Pod, Cluster, Agent], hold: Hold, run: Callable[[Cluster, Pod], Agent]
) -> None:
    pod, cluster, agent = running
    data, more = hold(pod, "data"), hold(pod, "more")
    cluster.update(lambda vmi: add(vmi, data))
    status = cluster.wait(becomes("data", "Ready"))
    assert entry(status, "data")["target"] == "sda"
    assert (data.claim / "disk.img").stat().st_size == 4 << 20
    assert "/vmi-disks/data" in launcher_mounts(pod)
    assert ("Normal", "VolumeReady", "Successfully attach hotplugged volume data to VM") in cluster.events
    # The agent is killed; it goes on with what it finds
    agent.stop()
    cluster.update(lambda vmi: add(vmi, more, "virtio"))
    run(cluster, pod)
    status = cluster.wait(becomes("more", "Ready"))
    assert entry(status, "more")["target"] == "vdb"
    # The Pod with the claim goes first, against the rules
    data.end()
    cluster.update(lambda vmi: drop(vmi, "data"))
    status = cluster.wait(becomes("data", "UnMountedFromPod"))
    assert entry(status, "data")["target"] == ""
    assert "/vmi-disks/data" not in launcher_mounts(pod)
    # This guest doesn't listen
    cluster.update(lambda vmi: drop(vmi, "more"))
    cluster.wait(becomes("more", "Detaching", "VolumeDetaching"))
    assert "/vmi-disks/more" in launcher_mounts(pod)


def test_a_guest_starts_with_its_volumes(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], hold: Hold
) -> None:
    pod = make_pod()
    make_disk(pod, GUEST)
    vmi = make_vmi(pod)
    cluster = Cluster(vmi)
    data = hold(pod, "data")
    add(vmi, data, "virtio")
    vmi["spec"]["volumes"].append(
        {"name": "late", "persistentVolumeClaim": {"claimName": "late", "hotpluggable": True}}
    )
    vmi["spec"]["domain"]["devices"]["disks"].append({"name": "late", "disk": {"bus": "virtio"}})
    vmi["status"]["volumeStatus"].append({"name": "late", "phase": "Pending", "hotplugVolume": {}})
    pod.start(wait=False)
    run(cluster, pod)
    status = cluster.wait_phase("Running", 60)
    assert entry(status, "data")["phase"] == "Ready"
    assert entry(status, "data")["target"] == "vdb"
    assert entry(status, "late")["phase"] == "Pending"


def test_a_medium_comes_to_a_drive_and_goes(
    make_pod: Callable[[], Pod], run: Callable[[Cluster, Pod], Agent], hold: Hold
) -> None:
    pod = make_pod()
    make_disk(pod, GUEST)
    vmi = make_vmi(pod)
    vmi["spec"]["domain"]["devices"]["disks"].append({"name": "data", "cdrom": {"bus": "sata"}})
    cluster = Cluster(vmi)
    pod.start(wait=False)
    run(cluster, pod)
    cluster.wait_phase("Running", 60)
    data = hold(pod, "data")

    def insert(vmi: dict[str, Any]) -> None:
        source = {"persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}
        vmi["spec"]["volumes"].append({"name": "data", **source})
        others = [each for each in vmi["status"]["volumeStatus"] if each["name"] != "data"]
        vmi["status"]["volumeStatus"] = [*others, data.entry]

    cluster.update(insert)
    assert entry(cluster.wait(becomes("data", "Ready")), "data")["target"] == "sda"
    cluster.update(lambda vmi: drop(vmi, "data", disk=False))
    cluster.wait(becomes("data", "UnMountedFromPod"))
    assert "/vmi-disks/data" not in launcher_mounts(pod)


def test_what_cannot_be(running: tuple[Pod, Cluster, Agent], hold: Hold) -> None:
    """Pods that aren't what they should be; a disk that another guest uses."""
    pod, cluster, _ = running
    stranger, bare, used = hold(pod, "stranger", user=65534), hold(pod, "bare", unmounted=True), hold(pod, "used")
    cluster.update(lambda vmi: [add(vmi, each) for each in (stranger, bare)])
    status = cluster.wait(becomes("stranger", "AttachedToNode", "FailedAttachVolume"))
    assert "belongs to user 65534" in entry(status, "stranger")["message"]
    status = cluster.wait(becomes("bare", "AttachedToNode", "FailedAttachVolume"))
    assert "without the claim" in entry(status, "bare")["message"]
    assert launcher_mounts(pod) == ""

    used.claim.mkdir(exist_ok=True)
    disk = used.claim / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    os.chown(disk, 107, 107)
    command = ["stdbuf", "-oL", "qemu-io", "-f", "raw", "-c", "read 0 512", "-c", "sleep 600000", str(disk)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert b"read 512/512" in other.stdout.readline()  # so it has its lock
        cluster.update(lambda vmi: add(vmi, used))
        status = cluster.wait(becomes("used", "MountedToPod", "FailedAttachVolume"), 20)
        assert '"write" lock; a running machine already uses the claim' in entry(status, "used")["message"]
    finally:
        other.kill()
        other.communicate()
    assert [event for event in cluster.events if event[1] == "FailedAttachVolume"]


def test_memory_is_dumped(running: tuple[Pod, Cluster, Agent], hold: Hold) -> None:
    pod, cluster, _ = running
    dump = hold(pod, "dump", folder=True)

    def ask(vmi: dict[str, Any]) -> None:
        vmi["spec"]["volumes"].append({"name": "dump", "memoryDump": {"claimName": "dump", "hotpluggable": True}})
        vmi["status"]["volumeStatus"].append({**dump.entry, "memoryDumpVolume": {"claimName": "dump"}})

    cluster.update(ask)
    status = cluster.wait(becomes("dump", "MemoryDumpCompleted"))
    info = entry(status, "dump")["memoryDumpVolume"]
    assert info["claimName"] == "dump"
    assert info["startTimestamp"] <= info["endTimestamp"]
    file = dump.claim / info["targetFileName"]
    assert file.name.startswith("testvm-dump-")
    assert file.read_bytes()[:4] == b"\x7fELF"
    assert file.stat().st_size >= 30 << 20
    assert not (dump.claim / "disk.img").exists()
    cluster.update(lambda vmi: drop(vmi, "dump"))
    cluster.wait(becomes("dump", "UnMountedFromPod"))
