# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks made of files, read back from their images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from turtles.domain import paths
from turtles.launcher import cloudinit, disks, files
from turtles.launcher.errors import LaunchError

from .conftest import make_vmi

CONFIG_MAP = {"name": "more", "configMap": {"name": "settings"}}
SECRET = {"name": "more", "secret": {"secretName": "keys", "volumeLabel": "keys"}}
ACCOUNT = {"name": "more", "serviceAccount": {"serviceAccountName": "default"}}
DOWNWARD = {"name": "more", "downwardAPI": {"fields": []}}
SYSPREP = {"name": "more", "sysprep": {"configMap": {"name": "answers"}}}


def mounted(root: Path, volume: dict[str, Any], content: dict[str, str]) -> Path:
    """Make the folder of a volume as a kubelet does: the files are links to what is in a folder with a date."""
    folder = root / paths.files_dir(volume).relative_to("/")
    hidden = folder / "..2026_01_01"
    hidden.mkdir(parents=True)
    (folder / "..data").symlink_to(hidden.name)
    for name, text in content.items():
        path = hidden / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        first = name.split("/")[0]
        if not (folder / first).is_symlink():
            (folder / first).symlink_to(f"..data/{first}")
    return folder


def read_back(image: bytes) -> tuple[str, dict[str, bytes]]:
    """Return label and files of an image, as Linux finds them."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    try:
        found = {}
        for folder, _, names in iso.walk(rr_path="/"):
            for name in names:
                path, content = f"{folder.rstrip('/')}/{name}", io.BytesIO()
                iso.get_file_from_iso_fp(content, rr_path=path)
                found[path] = content.getvalue()
        return iso.pvd.volume_identifier.decode().rstrip(), found
    finally:
        iso.close()


@pytest.mark.parametrize(
    ("volume", "label", "content"),
    [
        (CONFIG_MAP, "cfgdata", {"a.conf": "a=1\n", "B": ""}),
        (SECRET, "keys", {"key": "secret"}),
        (ACCOUNT, "cfgdata", {"token": "t", "namespace": "default", "ca.crt": "c"}),
        (DOWNWARD, "cfgdata", {"meta/labels": 'a="b"', "name": "x"}),
        (SYSPREP, "unattendCD", {"Autounattend.xml": "<unattend/>"}),
    ],
)
def test_image(tmp_path, volume, label, content):
    mounted(tmp_path, volume, content)
    disks.prepare(make_vmi(volumes=[volume]), tmp_path)
    image = tmp_path / paths.files_image("more").relative_to("/")
    assert image.stat().st_mode & 0o777 == 0o600
    expected = {f"/{name}": text.encode() for name, text in content.items()}
    assert read_back(image.read_bytes()) == (label, expected)


def test_long_names_and_labels(tmp_path):
    name, label = "a" * 200, "l" * 32
    volume = {"name": "more", "configMap": {"name": "settings", "volumeLabel": label}}
    mounted(tmp_path, volume, {name: "x"})
    files.make_image(volume, tmp_path)
    image = tmp_path / paths.files_image("more").relative_to("/")
    assert read_back(image.read_bytes()) == (label, {f"/{name}": b"x"})


def test_links_out_of_the_volume_are_left_out(tmp_path):
    folder = mounted(tmp_path, CONFIG_MAP, {"a": "x"})
    (tmp_path / "outside").write_text("not yours")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(".")
    assert {name.split("/")[-1] for name in files.read(CONFIG_MAP, tmp_path)} == {"a"}


def test_no_answers(tmp_path):
    mounted(tmp_path, SYSPREP, {"other.xml": ""})
    with pytest.raises(LaunchError, match=r"volume 'more' has neither autounattend\.xml nor unattend\.xml"):
        files.read(SYSPREP, tmp_path)


def test_not_mounted(tmp_path):
    with pytest.raises(LaunchError, match=r"volume 'more' is not mounted in the Pod"):
        files.read(SECRET, tmp_path)


def test_too_much(tmp_path):
    folder = mounted(tmp_path, CONFIG_MAP, {})
    with (folder / "large").open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    with pytest.raises(LaunchError, match="too much for a disk"):
        files.read(CONFIG_MAP, tmp_path)


def test_filesystems_and_dumps_need_no_disk(tmp_path):
    volumes = [CONFIG_MAP, {"name": "dump", "memoryDump": {"claimName": "dump"}}]
    vmi = make_vmi(volumes=volumes)
    vmi["spec"]["domain"].setdefault("devices", {})["filesystems"] = [{"name": "more", "virtiofs": {}}]
    disks.prepare(vmi, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tags_are_in_the_config_drive():
    vmi = make_vmi(volumes=[{"name": "seed", "cloudInitConfigDrive": {"userData": "x"}}])
    vmi["spec"]["domain"].setdefault("devices", {})["disks"] = [
        {"name": "a", "disk": {"bus": "virtio", "pciAddress": "0000:00:1f.1"}, "tag": "data", "serial": "s"},
        {"name": "b", "disk": {"bus": "scsi"}, "tag": "log"},
        {"name": "c", "disk": {"bus": "scsi"}},
    ]
    (volume,) = vmi["spec"]["volumes"]
    meta = cloudinit.json.loads(cloudinit.seed_files(volume, vmi)["openstack/latest/meta_data.json"])
    assert meta["devices"] == [
        {"type": "disk", "bus": "pci", "address": "0000:00:1f.1", "serial": "s", "tags": ["data"]},
        {"type": "disk", "bus": "scsi", "tags": ["log"]},
    ]
