# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The programs of the role guest_image: packing, partition table, initramfs, what makes an image anew."""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path

import container_disk
import guest_image
import pytest


def test_an_archive_holds_one_layer_with_the_disk_for_qemu(tmp_path: Path) -> None:
    disk = tmp_path / "app.qcow2"
    disk.write_bytes(b"QFI\xfb" + bytes(5000))
    archive = tmp_path / "out" / "app.tar"
    digest = container_disk.pack(disk, archive, "app.qcow2", "inputs-1")
    assert container_disk.read_digest(archive) == digest
    assert container_disk.read_inputs(archive) == "inputs-1"
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("blobs/" + digest.replace(":", "/")))
        (layer,) = manifest["layers"]
        with tarfile.open(fileobj=tar.extractfile("blobs/" + layer["digest"].replace(":", "/"))) as content:
            members = {m.name: (m.uid, m.gid, oct(m.mode), m.mtime) for m in content}
            assert content.extractfile("disk/app.qcow2").read() == disk.read_bytes()
    assert members == {"disk": (107, 107, "0o755", 0), "disk/app.qcow2": (107, 107, "0o440", 0)}
    assert [p.name for p in archive.parent.iterdir()] == ["app.tar"]


def test_equal_disks_make_equal_archives(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"disk")
        container_disk.pack(tmp_path / name, tmp_path / f"{name}.tar", "disk.img", "x")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no tar", bytes(10240)])
def test_what_is_no_archive_of_ours_is_made_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    assert container_disk.read_inputs(tmp_path / "x.tar") is None
    assert container_disk.read_inputs(tmp_path / "missing.tar") is None


def test_partition_table() -> None:
    first = guest_image.Partition(1 << 20, 24 << 20, guest_image.FAT_TYPE, bootable=True)
    second = guest_image.Partition(25 << 20, 96 << 20, guest_image.LINUX_TYPE)
    sector = guest_image.master_boot_record(b"code", [first, second])
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert (sector[446], sector[450], sector[462], sector[466]) == (0x80, 0x0E, 0, 0x83)
    assert int.from_bytes(sector[454:458], "little") == 2048
    assert int.from_bytes(sector[474:478], "little") == 96 << 11
    with pytest.raises(ValueError, match="440 bytes"):
        guest_image.master_boot_record(bytes(441), [first])


def test_modules_are_loaded_after_what_they_depend_on(tmp_path: Path) -> None:
    modules = {}
    for name, depends in (("virtio-rng", "virtio"), ("virtio", "virtio_ring"), ("virtio_ring", "")):
        path = tmp_path / f"{name}.ko"
        path.write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0")
        modules[name.replace("-", "_")] = path
    assert guest_image.load_order(["virtio-rng", "virtio", "ext4"], modules) == ["virtio_ring", "virtio", "virtio-rng"]


def test_an_initramfs_is_sorted_aligned_and_ends_with_the_trailer(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").write_bytes(b"12345")
    (tmp_path / "bin/link").symlink_to("tool")
    archive = guest_image.cpio(tmp_path)
    assert len(archive) % 4 == 0
    names = [name for name in (b"bin\0", b"bin/link\0", b"bin/tool\0", b"TRAILER!!!\0") if name in archive]
    assert len(names) == 4
    assert sorted(names, key=archive.index) == names
    assert archive.count(b"070701") == 4


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("Package: m\nVersion: 6.1.5-2\nDepends: linux-image-6.1.0-9-cloud-amd64 (= 6.1.5-2)\n", "6.1.0-9"),
        ("Version: 6.1.5-2\nDepends: a, linux-image-6.1.0-9-cloud-amd64, b\n", "6.1.0-9"),
    ],
)
def test_the_kernel_behind_the_meta_package(text: str, package: str) -> None:
    assert guest_image.parse_kernel_package(text) == f"linux-image-{package}-cloud-amd64=6.1.5-2"


def test_no_kernel_says_what_to_do() -> None:
    with pytest.raises(guest_image.BuildError, match="apt-get update"):
        guest_image.parse_kernel_package("")


def test_an_image_is_made_once_until_an_input_changes(tmp_path: Path) -> None:
    made = []

    def recipe(arguments: argparse.Namespace) -> guest_image.Recipe:
        def make(scratch: Path) -> Path:
            made.append(scratch)
            (scratch / "disk").write_bytes(b"disk")
            return scratch / "disk"

        return guest_image.Recipe("disk.img", [arguments.version], make)

    def build(version: str, check: bool = False) -> dict[str, object]:
        output = tmp_path / "images" / "x.tar"
        return guest_image.build(
            argparse.Namespace(output=output, recipe=recipe, kind="tiny", check=check, version=version)
        )

    assert build("1", check=True)["changed"] is True
    assert made == []
    first = build("1")
    assert first["changed"] is True
    again = build("1")
    assert (again["changed"], again["digest"]) == (False, first["digest"])
    assert build("2", check=True)["changed"] is True
    assert build("2")["changed"] is True
    assert len(made) == 2
    assert [p.name for p in (tmp_path / "images").iterdir()] == ["x.tar"]
