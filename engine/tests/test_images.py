# SPDX-License-Identifier: GPL-3.0-or-later
"""Guest images from strangers."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from turtles import images
from turtles.images import Image, ImageError, inspect

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


def qemu_img(*arguments: object) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def test_qcow2(tmp_path):
    qemu_img("create", "-f", "qcow2", tmp_path / "a", "10M")
    assert inspect(tmp_path / "a") == Image("qcow2", 10 * 2**20)


def test_old_qcow2(tmp_path):
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", tmp_path / "a", "10M")
    assert inspect(tmp_path / "a") == Image("qcow2", 10 * 2**20)


def test_raw_is_rounded_up_to_sectors(tmp_path):
    (tmp_path / "a").write_bytes(b"\xeb\x3c" + bytes(999))
    assert inspect(tmp_path / "a") == Image("raw", 1024)


def test_backing_file_is_refused_and_never_opened(tmp_path, monkeypatch):
    qemu_img("create", "-f", "qcow2", tmp_path / "base", "1M")
    qemu_img("create", "-f", "qcow2", "-b", tmp_path / "base", "-F", "qcow2", tmp_path / "a")
    monkeypatch.setattr(images, "_qemu_img", lambda *arguments: pytest.fail("qemu-img must not see it"))
    with pytest.raises(ImageError, match=r"has a backing file, which is not allowed.*qemu-img convert"):
        inspect(tmp_path / "a")


def test_external_data_file_is_refused_and_never_opened(tmp_path, monkeypatch):
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", tmp_path / "a", "1M")
    monkeypatch.setattr(images, "_qemu_img", lambda *arguments: pytest.fail("qemu-img must not see it"))
    with pytest.raises(ImageError, match="keeps its data in another file"):
        inspect(tmp_path / "a")


@pytest.mark.parametrize(
    ("format", "name"), [("vmdk", "VMDK"), ("vhdx", "VHDX"), ("vdi", "VDI"), ("vpc", "VHD"), ("qed", "QED")]
)
def test_other_formats_are_named(tmp_path, format, name):
    qemu_img("create", "-f", format, tmp_path / "a", "1M")
    with pytest.raises(ImageError, match=f"has the format {name}; convert it"):
        inspect(tmp_path / "a")


def test_compressed(tmp_path):
    (tmp_path / "a").write_bytes(b"\x1f\x8b" + bytes(1000))
    with pytest.raises(ImageError, match=r"is compressed \(gzip\)"):
        inspect(tmp_path / "a")


def test_broken_qcow2(tmp_path):
    qemu_img("create", "-f", "qcow2", tmp_path / "a", "10M")
    data = bytearray((tmp_path / "a").read_bytes())
    struct.pack_into(">I", data, 36, 0xFFFFFFFF)  # number of entries of its first table
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ImageError, match="is a broken qcow2 image"):
        inspect(tmp_path / "a")


def test_truncated_qcow2(tmp_path):
    (tmp_path / "a").write_bytes(b"QFI\xfb\0\0\0\3")
    with pytest.raises(ImageError, match="ends within its header"):
        inspect(tmp_path / "a")


def test_corrupt_qcow2(tmp_path):
    qemu_img("create", "-f", "qcow2", tmp_path / "a", "10M")
    data = bytearray((tmp_path / "a").read_bytes())
    data[79] |= 2  # incompatible feature "corrupt"
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ImageError, match=r"corrupt.*qemu-img check"):
        inspect(tmp_path / "a")


def test_absurd_size(tmp_path):
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=2M", tmp_path / "a", "1P")
    with pytest.raises(ImageError, match="claims to be 1125899906842624 bytes"):
        inspect(tmp_path / "a")


def test_encrypted(tmp_path):
    qemu_img("create", "-f", "qcow2", tmp_path / "a", "1M")
    data = bytearray((tmp_path / "a").read_bytes())
    struct.pack_into(">I", data, 32, 2)  # crypt_method LUKS
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ImageError, match="encrypted"):
        inspect(tmp_path / "a")


def test_empty_file_and_folder(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(ImageError, match="is empty"):
        inspect(tmp_path / "a")
    with pytest.raises(ImageError, match="is not a regular file"):
        inspect(tmp_path)


def test_missing_file_says_who_should_own_it(tmp_path):
    with pytest.raises(ImageError, match=r"can't be read by uid \d+ .* 107:107"):
        inspect(tmp_path / "a")


def test_time_limit(tmp_path, monkeypatch):
    (tmp_path / "slow").write_text("#!/bin/sh\nexec sleep 10\n")
    (tmp_path / "slow").chmod(0o755)
    qemu_img("create", "-f", "qcow2", tmp_path / "a", "1M")
    monkeypatch.setattr(images, "QEMU_IMG", str(tmp_path / "slow"))
    monkeypatch.setattr(images, "_TIMEOUT", 0.1)
    with pytest.raises(ImageError, match="busy for more than"):
        inspect(tmp_path / "a")


def test_overlay_keeps_size_and_format(tmp_path):
    backing = tmp_path / "base"
    backing.write_bytes(bytes(2**20))
    overlay = tmp_path / "new" / "folder" / "disk.qcow2"
    images.create_overlay(overlay, backing, Image("raw", 2**20))
    info = images.json.loads(images._qemu_img("info", "--output=json", str(overlay)))
    assert (info["virtual-size"], info["backing-filename"]) == (2**20, str(backing))
    assert info["backing-filename-format"] == "raw"


def test_full_file_system_is_reported_in_qemus_words(tmp_path):
    with pytest.raises(ImageError, match="can't be created: "):
        images.create_empty(Path("/proc/self/disk.qcow2"), 2**20)
