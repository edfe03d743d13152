# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tiny guest finds every disk and NIC that the API can give it."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import re
import select
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from turtles.api.kinds.vmi.rules.network import NIC_MODELS
from turtles.launcher.cloudinit import render_seed

from playbooks import playbook, recap

#: QEMU's devices of the API's models that are called otherwise.
DEVICES = {"virtio": "virtio-net-pci"}
PATIENCE = 120


def test_a_manifest_without_buses(cluster: Cluster, namespace: str) -> None:
    """KubeVirt's default bus is sata."""
    machine = cluster.virtual_machine("plain")
    domain = machine["spec"]["template"]["spec"]["domain"]["devices"]
    volumes = machine["spec"]["template"]["spec"]["volumes"]
    domain["disks"] = [{"name": "root", "disk": {}}, {"name": "seed", "cdrom": {}}]
    domain["interfaces"][0]["model"] = "e1000"
    for bus in ("virtio", "scsi", "usb"):
        domain["disks"].append({"name": bus, "disk": {"bus": bus}, "serial": f"on-{bus}"})
        volumes.append({"name": bus, "emptyDisk": {"capacity": "8Mi"}})
    cluster.create(namespace, machine)
    address = cluster.wait_running(namespace, "plain")["status"]["interfaces"][0]["ipAddress"]
    # A disk on USB is found in the background.
    seen = cluster.ssh(
        address,
        "tries=0; while [ $(ls -d /sys/block/*/device | wc -l) -lt 5 ] && [ $tries -lt 50 ]; do"
        " tries=$((tries + 1)); usleep 200000; done;"
        " for link in /sys/block/*/device /sys/class/net/eth0/device/driver; do readlink -f $link; done",
    )
    assert len(re.findall(r"/ata\d+/", seen)) == 2, seen
    assert len(re.findall(r"/usb\d+/", seen)) == 1, seen
    assert len(re.findall(r"/virtio\d+/host\d+/", seen)) == 1, seen
    assert len(re.findall(r"/virtio\d+$", seen, re.MULTILINE)) == 1, seen
    assert seen.endswith("/e1000"), seen


@pytest.fixture
def disk(cluster: Cluster, tmp_path: Path) -> Path:
    """The disk in the guest's image."""
    archive, disk = Path(cluster.image.removeprefix("oci-archive:")), tmp_path / "disk.qcow2"
    with tarfile.open(archive) as image:
        (blob,) = (member for member in image if member.size > 1 << 20)
        with tarfile.open(fileobj=image.extractfile(blob)) as layer:
            (file,) = (member for member in layer if member.isfile())
            with disk.open("wb") as target:
                # extractall() has no filter in Debian 12's Python 3.11.2, and later ones want it.
                shutil.copyfileobj(layer.extractfile(file), target)
    return disk


def lines(qemu: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    """What the guest's console says, line by line, until the deadline or the guest's end."""
    assert qemu.stdout is not None
    rest = b""
    while (left := deadline - time.monotonic()) > 0:
        if select.select([qemu.stdout], [], [], left)[0]:
            read = qemu.stdout.read1(65536)
            if not read:
                return
            *complete, rest = (rest + read).split(b"\n")
            yield from (line.decode(errors="replace").strip() for line in complete)


def test_every_bus_and_nic_model_in_one_guest(disk: Path, tmp_path: Path) -> None:
    """An instance has one NIC, so this guest is QEMU's alone: each NIC is in a network of its own, with DHCP."""
    known = subprocess.run(["qemu-system-x86_64", "-device", "help"], check=True, capture_output=True, text=True).stdout
    models = sorted(model for model in NIC_MODELS if f'name "{DEVICES.get(model, model)}"' in known)
    assert set(NIC_MODELS) - set(models) <= {"igb"}  # which QEMU has since 8.0
    seed, extra = tmp_path / "seed.iso", tmp_path / "extra.raw"
    report = b"#!/bin/sh\nfor link in /sys/block/*/device; do echo disk: $(readlink -f $link); done >/dev/console\n"
    seed.write_bytes(render_seed("cidata", {"meta-data": b"instance-id: one\n", "user-data": report}))
    extra.write_bytes(bytes(1 << 20))
    devices = ["qemu-xhci,id=usb", "virtio-scsi-pci,id=scsi", "usb-tablet", "virtio-tablet-pci", "i6300esb"]
    drives = [f"file={disk},format=qcow2,id=root", f"file={seed},format=raw,id=seed,readonly=on"]
    devices += ["usb-storage,drive=root,bootindex=1", "scsi-cd,bus=scsi.0,drive=seed"]
    for bus, device in enumerate(("ide-hd,bus=ide.0", "ide-cd,bus=ide.1", "scsi-hd,bus=scsi.0", "virtio-blk-pci")):
        drives.append(f"file={extra},format=raw,id=extra{bus},readonly={'on' if 'cd' in device else 'off'},snapshot=on")
        devices.append(f"{device},drive=extra{bus}")
    words = [word for drive in drives for word in ("-drive", f"if=none,{drive}")]
    for number, model in enumerate(models):
        words += ["-netdev", f"user,id=net{number},net=10.0.{number}.0/24,restrict=on"]
        devices.append(f"{DEVICES.get(model, model)},netdev=net{number}")
    words += [word for device in devices for word in ("-device", device)]
    qemu = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "96", "-nodefaults", "-display", "none"),
            *("-serial", "stdio", "-no-reboot", "-snapshot", *words),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said: list[str] = []
    leased: set[str] = set()
    disks: set[str] = set()
    wanted = {"sata": r"/ata\d+/.*", "scsi": r"/virtio\d+/host.*", "usb": r"/usb\d+/.*", "virtio": r"/virtio\d+"}
    try:
        for line in lines(qemu, time.monotonic() + PATIENCE):
            said.append(line)
            if lease := re.search(r"tiny: eth\d+ has 10\.0\.(\d+)\.15/24", line):
                leased.add(models[int(lease[1])])
            if "disk: " in line:
                disks |= {bus for bus, path in wanted.items() if re.search(rf"{path}$", line)}
            if leased == set(models) and disks == set(wanted):
                break
    finally:
        qemu.kill()
        qemu.communicate()
    assert (leased, disks) == (set(models), set(wanted)), "\n".join(said)


CLOUD = """
- hosts: localhost
  gather_facts: false
  roles:
    - role: turtles.kubevirt.guest_image
      guest_image_type: cloud
      guest_image_cloud: appliance:1
      guest_image_catalogue: "{{ playbook_dir }}/images.yml"
      guest_image_archive: "{{ playbook_dir }}/appliance.tar"
      guest_image_downloads_dir: "{{ playbook_dir }}/disks"
"""


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Path]:
    """A folder that a web server serves, with a disk and its checksum; images.yml beside it names them."""
    folder = tmp_path / "published"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        entry = {"disk": f"{address}/disk.qcow2", "checksum": f"sha256:{address}/SHA256SUMS"}
        (tmp_path / "images.yml").write_text(json.dumps({"appliance:1": entry}))
        (tmp_path / "cloud.yml").write_text(CLOUD)
        yield folder
        server.shutdown()


def publish(folder: Path, size: str) -> None:
    """Publish a disk."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder / "disk.qcow2", size], check=True)
    digest = hashlib.sha256((folder / "disk.qcow2").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest} *disk.qcow2\n{'0' * 64} *other.qcow2\n")


def test_a_disk_that_somebody_publishes(published: Path, tmp_path: Path) -> None:
    def changes(*words: str) -> int:
        return recap(playbook("cloud.yml", *words, folder=tmp_path).stdout)["changed"]

    def failure() -> str:
        failed = playbook("cloud.yml", folder=tmp_path, check=False)
        assert failed.returncode == 2
        return failed.stdout

    disk = tmp_path / "disks/appliance-1.img"
    assert f"put it at {disk}" in failure(), "there is nothing yet"
    publish(published, "1M")
    (published / "SHA256SUMS").write_text(f"{'0' * 64} *disk.qcow2\n")
    assert "The checksum for" in failure()
    assert not disk.exists()
    publish(published, "1M")
    assert changes("--check") > 0
    assert not disk.exists()
    assert changes() > 0
    first = (tmp_path / "appliance.tar").read_bytes()
    publish(published, "2M")
    assert changes() == 0, "what is there stays"
    assert changes("-e", "guest_image_refresh=true") > 0
    assert (tmp_path / "appliance.tar").read_bytes() != first
    assert changes("-e", "guest_image_refresh=true") == 0
