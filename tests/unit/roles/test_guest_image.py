# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The programs of the role guest_image: packing, partition table, initramfs, what makes an image anew."""

from __future__ import annotations

import argparse
import json
import lzma
import os
import tarfile
from pathlib import Path

import building
import container_disk
import debian_packages
import disks
import guest_image
import kernel_modules
import pytest
import trees


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
    first = disks.Partition(1 << 20, 24 << 20, disks.FAT_TYPE, bootable=True)
    second = disks.Partition(25 << 20, 96 << 20, disks.LINUX_TYPE)
    sector = disks.master_boot_record(b"code", [first, second])
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert (sector[446], sector[450], sector[462], sector[466]) == (0x80, 0x0E, 0, 0x83)
    assert int.from_bytes(sector[454:458], "little") == 2048
    assert int.from_bytes(sector[474:478], "little") == 96 << 11
    with pytest.raises(ValueError, match="440 bytes"):
        disks.master_boot_record(bytes(441), [first])


def module(*, depends: str = "", aliases: tuple[str, ...] = (), signature: bytes = b"") -> bytes:
    parts = [
        b"\x7fELF",
        b"license=GPL",
        *(f"alias={alias}".encode() for alias in aliases),
        b"depends=" + depends.encode(),
    ]
    code = b"\0".join([*parts, b"name=x", b""])
    return code + (signature and signature + bytes(8) + len(signature).to_bytes(4, "big") + SIGNED)


SIGNED = b"~Module signature appended~\n"
KERNEL = {
    "drivers/virtio/virtio-rng.ko": module(depends="virtio", aliases=("virtio:d00000004v*",)),
    "drivers/virtio/virtio.ko": module(depends="virtio_ring"),
    "drivers/virtio/virtio_ring.ko": module(),
}


def kernel(root: Path, usr: str = "", compress: str = "") -> kernel_modules.Modules:
    folder = root / f"{usr}lib/modules/6.1.0-9"
    for name, code in KERNEL.items():
        path = folder / "kernel" / f"{name}{compress}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(code) if compress == ".xz" else code)
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return kernel_modules.Modules(root)


@pytest.mark.parametrize(("usr", "compress"), [("", ""), ("usr/", ".xz")], ids=["bookworm", "trixie"])
def test_modules_are_loaded_after_what_they_depend_on(tmp_path: Path, usr: str, compress: str) -> None:
    modules = kernel(tmp_path / "kernel", usr, compress)
    wanted = ["virtio-rng", "virtio", "ext4"]
    assert modules.with_dependencies(wanted) == ["virtio_ring", "virtio", "virtio_rng"]

    trees.add_modules(tmp_path / "root", modules.with_dependencies(wanted), modules)
    folder = tmp_path / "root/lib/modules/6.1.0-9"
    assert (folder / "virtio_rng.ko").read_bytes() == KERNEL["drivers/virtio/virtio-rng.ko"]
    assert (folder / "modules.dep").read_text().splitlines() == [
        *("virtio_ring.ko:", "virtio.ko: virtio_ring.ko", "virtio_rng.ko: virtio.ko virtio_ring.ko"),
    ]
    assert (folder / "modules.alias").read_text() == "alias virtio:d00000004v* virtio_rng\n"


def test_a_kernel_without_a_driver_is_refused(tmp_path: Path) -> None:
    modules = kernel(tmp_path)
    with pytest.raises(building.BuildError, match=r"6\.1\.0-9 has no driver ahci"):
        modules.with_dependencies(["virtio", "ahci"])
    assert modules.with_dependencies(["ext4", kernel_modules.CHECKSUMS]) == []


def test_a_package_without_modules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(building.BuildError, match="0 folders"):
        kernel_modules.Modules(tmp_path)


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ko.lz9").write_bytes(b"")
    with pytest.raises(building.BuildError, match=r"x\.ko\.lz9 is compressed as \.lz9"):
        kernel_modules.read_module(tmp_path / "x.ko.lz9")


def test_signatures_of_modules_are_removed() -> None:
    assert kernel_modules.without_signature(module(signature=b"PKCS#7")) == module()
    assert kernel_modules.without_signature(module()) == module()


TARGETS = """\
http://mirror.example/debian/|bookworm|main|/usr/share/keyrings/debian-archive-keyring.gpg
http://mirror.example/debian/|bookworm|contrib|/usr/share/keyrings/debian-archive-keyring.gpg
http://mirror.example/debian/|bookworm-backports|main|/usr/share/keyrings/debian-archive-keyring.gpg
http://security.example/|bookworm-security|main|$(SIGNED_BY)
http://security.example/|bookworm-security|main|$(SIGNED_BY)
"""


def test_another_release_comes_from_the_machines_mirrors() -> None:
    assert debian_packages.release_sources(TARGETS, "trixie").splitlines() == [
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian/ trixie main",
        "deb http://security.example/ trixie-security main",
    ]
    with pytest.raises(building.BuildError, match="no Debian mirror"):
        debian_packages.release_sources("http://mirror.example/ubuntu/|noble|universe|x\n", "trixie")


APT = """#!/bin/sh
echo "$0 $*" >>"{folder}/calls"
case "$0 $*" in
*" indextargets "*) echo "http://mirror.example/debian/|bookworm|main|x" ;;
*" update "*) [ ! -e "{folder}/offline" ] ;;
*"/apt-cache show "*)
    release=${{APT_CONFIG:+trixie}}
    printf 'Version: 1\\nDepends: linux-image-6-%s (= 1)\\n' "${{release:-bookworm}}" ;;
esac
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """apt-get and apt-cache that only remember; offline while there is a file of that name in the folder."""
    folder = tmp_path / "apt"
    folder.mkdir()
    for name in ("apt-get", "apt-cache"):
        (folder / name).write_text(APT.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("APT_CONFIG", raising=False)
    return folder


def test_the_guests_kernel_does_not_depend_on_the_machines_release(apt: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert debian_packages.guest_kernel("trixie", cache)[1] == "linux-image-6-trixie=1"
    # Known for a day: nothing is fetched, and a mirror that can't be reached doesn't matter.
    (apt / "offline").touch()
    (apt / "calls").unlink()
    assert debian_packages.guest_kernel("trixie", cache)[1] == "linux-image-6-trixie=1"
    assert " update " not in (apt / "calls").read_text()
    os.utime(cache / "trixie/kernel", (0, 0))
    assert debian_packages.guest_kernel("trixie", cache)[1] == "linux-image-6-trixie=1"
    assert " update " in (apt / "calls").read_text()


def test_without_that_release_the_machines_own_kernel_is_taken(
    apt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (apt / "offline").touch()
    assert debian_packages.guest_kernel("trixie", tmp_path / "cache")[1] == "linux-image-6-bookworm=1"
    assert "no kernel of trixie" in capsys.readouterr().err
    (apt / "offline").unlink()
    assert debian_packages.guest_kernel("trixie", tmp_path / "cache")[1] == "linux-image-6-trixie=1"
    assert debian_packages.guest_kernel("", tmp_path / "cache")[1] == "linux-image-6-bookworm=1"


def test_an_initramfs_is_sorted_aligned_and_ends_with_the_trailer(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").write_bytes(b"12345")
    (tmp_path / "bin/link").symlink_to("tool")
    archive = trees.cpio(tmp_path)
    assert len(archive) % 4 == 0
    names = [name for name in (b"bin\0", b"bin/link\0", b"bin/tool\0", b"TRAILER!!!\0") if name in archive]
    assert len(names) == 4
    assert sorted(names, key=archive.index) == names
    assert archive.count(b"070701") == 4


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("Package: m\nVersion: 6.1.5-2\nDepends: linux-image-6.1.0-9-amd64 (= 6.1.5-2)\n", "6.1.0-9"),
        ("Version: 6.1.5-2\nDepends: a, linux-image-6.1.0-9-amd64, b\n", "6.1.0-9"),
    ],
)
def test_the_kernel_behind_the_meta_package(text: str, package: str) -> None:
    assert debian_packages.parse_kernel_package(text) == f"linux-image-{package}-amd64=6.1.5-2"


def test_no_kernel_says_what_to_do() -> None:
    with pytest.raises(building.BuildError, match="apt-get update"):
        debian_packages.parse_kernel_package("")


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


def test_programs_of_root_are_found_with_the_path_of_a_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(guest_image, "build", lambda options: building.run("mke2fs", "-V"))
    assert guest_image.main(["tiny", "--output", str(tmp_path / "tiny.tar")]) == 0
