# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of a VM, made below a temporary root."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from turtles.domain import paths
from turtles.launcher import disks
from turtles.launcher.errors import LaunchError

from .conftest import make_vmi

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
REFERENCE = "example.org/guest:1"


def below(root: Path, path: Any) -> Path:
    return root / str(path).lstrip("/")


@pytest.fixture
def image(tmp_path):
    """The mounted image of the containerDisk "root", with an empty /disk."""
    folder = below(tmp_path, paths.container_disk_image_dir("root"))
    (folder / "disk").mkdir(parents=True)
    return folder


def container_disk(**more: Any) -> dict[str, Any]:
    return {"name": "root", "containerDisk": {"image": REFERENCE, **more}}


def prepare(root: Path, *volumes: dict[str, Any], status: Any = None) -> None:
    vmi = make_vmi(volumes=list(volumes))
    if status:
        vmi["status"] = {"volumeStatus": status}
    disks.prepare(vmi, root)


def fails(root: Path, *volumes: dict[str, Any], status: Any = None) -> str:
    with pytest.raises(LaunchError) as caught:
        prepare(root, *volumes, status=status)
    return str(caught.value)


def info(path: Path) -> dict[str, Any]:
    output = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True).stdout
    return disks.images.json.loads(output)


def test_container_disk_is_used_through_an_overlay(tmp_path, image):
    (image / "disk/guest.img").write_bytes(bytes(2**20))
    prepare(tmp_path, container_disk())
    overlay = info(below(tmp_path, paths.overlay("root")))
    assert overlay["format"] == "qcow2"
    assert overlay["backing-filename"] == str(image / "disk/guest.img")
    assert overlay["virtual-size"] == 2**20


def test_container_disk_path(tmp_path, image):
    (image / "disk/a").write_bytes(bytes(512))
    (image / "images").mkdir()
    (image / "images/b").write_bytes(bytes(1024))
    prepare(tmp_path, container_disk(path="/images/b"))
    assert info(below(tmp_path, paths.overlay("root")))["virtual-size"] == 1024


def test_no_disk(tmp_path, image):
    message = fails(tmp_path, container_disk())
    assert message.startswith(f"volume 'root': image {REFERENCE} is not a containerDisk: it has no file in /disk")
    (image / "disk").rmdir()
    assert fails(tmp_path, container_disk()) == message


def test_two_disks(tmp_path, image):
    for name in "ab":
        (image / "disk" / name).write_bytes(bytes(512))
    message = fails(tmp_path, container_disk())
    assert f"image {REFERENCE} has 2 files in /disk (a, b), where one is expected" in message
    assert "containerDisk.path" in message


def test_missing_path(tmp_path, image):
    assert f"image {REFERENCE} has no file /disk/x" in fails(tmp_path, container_disk(path="/disk/x"))


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/disk/../../../../etc/passwd"])
def test_path_out_of_the_image(tmp_path, image, path):
    assert "points outside the image" in fails(tmp_path, container_disk(path=path))


def test_link_out_of_the_image(tmp_path, image):
    (image / "disk/guest.img").symlink_to("/etc/passwd")
    assert "/disk/guest.img points outside the image" in fails(tmp_path, container_disk())


def test_folder_that_is_a_link(tmp_path, image):
    (image / "disk").rmdir()
    (image / "disk").symlink_to("/etc")
    assert "has no file in /disk" in fails(tmp_path, container_disk())


def test_backing_file(tmp_path, image):
    command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw"]
    subprocess.run([*command, image / "disk/guest.qcow2", "1M"], check=True)
    message = fails(tmp_path, container_disk())
    assert message.startswith(f"volume 'root': disk 'guest.qcow2' of image {REFERENCE} has a backing file")
    assert not below(tmp_path, paths.overlay("root")).exists()


def test_image_is_not_mounted(tmp_path):
    assert f"image {REFERENCE} is not mounted in the Pod" in fails(tmp_path, container_disk())


def test_empty_disk(tmp_path):
    prepare(tmp_path, {"name": "scratch", "emptyDisk": {"capacity": "10M"}})
    made = info(below(tmp_path, paths.empty_disk("scratch")))
    assert (made["format"], made["virtual-size"]) == ("qcow2", 10 * 2**20)


@pytest.mark.parametrize("capacity", [None, "ten", "0", "1E"])
def test_empty_disk_with_a_bad_capacity(tmp_path, capacity):
    assert "volume 'scratch': emptyDisk.capacity" in fails(
        tmp_path, {"name": "scratch", "emptyDisk": {"capacity": capacity}}
    )


def test_not_enough_space(tmp_path, image, monkeypatch):
    (image / "disk/guest.img").write_bytes(bytes(512))
    monkeypatch.setattr(disks, "_free", lambda directory: 20 * 2**20)
    message = fails(tmp_path, container_disk(), {"name": "scratch", "emptyDisk": {"capacity": "10Mi"}})
    assert (
        "26.0 MiB are needed by the volumes 'root' (containerDisk) 16.0 MiB, 'scratch' (emptyDisk) 10.0 MiB" in message
    )
    assert "only 20.0 MiB are free" in message
    assert not list(below(tmp_path, paths.EPHEMERAL_DISKS_DIR).iterdir())


def test_nothing_is_written_if_a_later_volume_is_bad(tmp_path):
    seed = {"name": "seed", "cloudInitNoCloud": {"userDataBase64": "no base64"}}
    message = fails(tmp_path, {"name": "scratch", "emptyDisk": {"capacity": "1Mi"}}, seed)
    assert "volume 'seed': cloudInitNoCloud.userDataBase64 is not valid base64" in message
    assert not below(tmp_path, paths.empty_disk("scratch")).exists()


# PersistentVolumeClaims

CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "db"}}


@pytest.fixture
def claim(tmp_path):
    folder = below(tmp_path, paths.claim_dir("data"))
    folder.mkdir(parents=True)
    return folder


def claim_status(size: str) -> list[dict[str, Any]]:
    return [{"name": "data", "persistentVolumeClaimInfo": {"capacity": {"storage": size}}}]


def test_claim_gets_a_sparse_disk(tmp_path, claim):
    prepare(tmp_path, CLAIM, status=claim_status("10Mi"))
    status = (claim / "disk.img").stat()
    assert status.st_size == 10 * 2**20
    assert status.st_blocks == 0


def test_claim_keeps_its_disk(tmp_path, claim):
    (claim / "disk.img").write_bytes(b"precious")
    prepare(tmp_path, CLAIM)
    assert (claim / "disk.img").read_bytes() == b"precious"


def test_claim_with_a_little_less_room(tmp_path, claim, monkeypatch):
    monkeypatch.setattr(disks, "_free", lambda directory: 95 * 2**20 + 5)
    prepare(tmp_path, CLAIM, status=claim_status("100Mi"))
    assert (claim / "disk.img").stat().st_size == 95 * 2**20


def test_claim_with_much_less_room(tmp_path, claim, monkeypatch):
    monkeypatch.setattr(disks, "_free", lambda directory: 80 * 2**20)
    message = fails(tmp_path, CLAIM, status=claim_status("100Mi"))
    assert "volume 'data': claim 'db' asks for a disk of 100.0 MiB, but only 80.0 MiB are free" in message
    assert not (claim / "disk.img").exists()


def test_claim_of_unknown_size(tmp_path, claim):
    assert "claim 'db' has no disk.img, and no disk can be created because its size isn't known" in fails(
        tmp_path, CLAIM
    )


def test_claim_is_not_mounted(tmp_path):
    assert "claim 'db' is not mounted" in fails(tmp_path, CLAIM)


def test_claim_with_a_link(tmp_path, claim):
    (claim / "disk.img").symlink_to("/etc/passwd")
    assert "not a regular file" in fails(tmp_path, CLAIM)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_claim_of_somebody_else(tmp_path, claim):
    (claim / "disk.img").write_bytes(b"x")
    (claim / "disk.img").chmod(0)
    assert re.search(r"uid \d+ may not use", fails(tmp_path, CLAIM))


def test_a_claim_without_its_block_device(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/data").touch()
    vmi = make_vmi(volumes=[CLAIM])
    vmi["status"] = {"volumeStatus": [{"name": "data", "persistentVolumeClaimInfo": {"volumeMode": "Block"}}]}
    with pytest.raises(LaunchError, match=r"volume 'data': .*/dev/data is not a block device"):
        disks.prepare(vmi, tmp_path)


EPHEMERAL = {"name": "root", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}}


def test_ephemeral_disk_is_an_overlay_of_the_claim(tmp_path):
    base = below(tmp_path, paths.claim_disk("root"))
    base.parent.mkdir(parents=True)
    base.write_bytes(b"QFI\xfb" + bytes(2**20 - 4))
    prepare(tmp_path, EPHEMERAL)
    overlay = info(below(tmp_path, paths.overlay("root")))
    assert overlay["backing-filename"] == str(base)
    # A guest may have written anything to it.
    assert overlay["backing-filename-format"] == "raw"
    assert overlay["virtual-size"] == 2**20


def test_ephemeral_disk_of_a_block_device(tmp_path, monkeypatch):
    device = below(tmp_path, paths.claim_device("root"))
    device.parent.mkdir(parents=True)
    device.write_bytes(bytes(2**20))
    monkeypatch.setattr(Path, "is_block_device", lambda path: path == device)
    prepare(tmp_path, EPHEMERAL, status=[{"name": "root", "persistentVolumeClaimInfo": {"volumeMode": "Block"}}])
    assert info(below(tmp_path, paths.overlay("root")))["backing-filename"] == str(device)


def test_ephemeral_disk_of_an_empty_claim(tmp_path):
    below(tmp_path, paths.claim_dir("root")).mkdir(parents=True)
    assert fails(tmp_path, EPHEMERAL).startswith("volume 'root': claim 'base' has no disk.img; an ephemeral disk needs")
    below(tmp_path, paths.claim_disk("root")).touch()
    assert "has a disk of 0 bytes" in fails(tmp_path, EPHEMERAL)


def test_data_volume_is_its_claim(tmp_path):
    below(tmp_path, paths.claim_dir("root")).mkdir(parents=True)
    status = [{"name": "root", "persistentVolumeClaimInfo": {"capacity": {"storage": "4Mi"}}}]
    prepare(tmp_path, {"name": "root", "dataVolume": {"name": "imported"}}, status=status)
    assert below(tmp_path, paths.claim_disk("root")).stat().st_size == 4 * 2**20
