# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels from images, and what images may not do."""

from pathlib import Path
from typing import Any

import pytest

from turtles.api import labels
from turtles.domain import paths
from turtles.launcher import boot
from turtles.launcher.errors import LaunchError


def in_root(root: Path, path: Any) -> Path:
    return root / path.relative_to("/")


def vmi(**container: str) -> dict[str, Any]:
    firmware = {"kernelBoot": {"container": {"image": "example.org/kernel", **container}}}
    return {"metadata": {"name": "x"}, "spec": {"domain": {"devices": {}, "firmware": firmware}}}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = in_root(tmp_path, paths.container_disk_image_dir(paths.KERNEL_IMAGE))
    (folder / "boot").mkdir(parents=True)
    (folder / "boot/vmlinuz").write_text("kernel")
    (folder / "initrd").symlink_to("boot/vmlinuz")
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("../../../../etc")
    return folder


def test_kernel_and_initrd(tmp_path: Path, image: Path) -> None:
    for _ in range(2):  # a launcher that starts again
        boot.prepare(vmi(kernelPath="/boot/vmlinuz", initrdPath="initrd"), tmp_path)
        assert in_root(tmp_path, paths.KERNEL).read_text() == "kernel"
        assert in_root(tmp_path, paths.INITRD).resolve() == image / "boot/vmlinuz"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/boot/nothing", "kernelBoot: image example.org/kernel has no file /boot/nothing"),
        ("/boot", "kernelBoot: image example.org/kernel: /boot is not a regular file"),
        ("../../../../etc/passwd", "points outside the image, which is not allowed"),
        ("/outside", "points outside the image, which is not allowed"),
        ("/up/passwd", "points outside the image, which is not allowed"),
    ],
)
def test_what_is_no_kernel(tmp_path: Path, image: Path, path: str, message: str) -> None:
    with pytest.raises(LaunchError) as caught:
        boot.prepare(vmi(kernelPath=path), tmp_path)
    assert message in str(caught.value)
    assert image.exists()


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="is not mounted in the Pod"):
        boot.prepare(vmi(kernelPath="/boot/vmlinuz"), tmp_path)


def test_nothing_and_ignition(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"metadata": {"name": "x"}, "spec": {"domain": {"devices": {}}}}
    boot.prepare(nothing, tmp_path)
    assert not list(tmp_path.iterdir())
    nothing["metadata"]["annotations"] = {labels.IGNITION: '{"ignition": {}}'}
    boot.prepare(nothing, tmp_path)
    assert in_root(tmp_path, paths.IGNITION).read_text() == '{"ignition": {}}'


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({}, {}),
        ({"u-1": "old"}, {"u-2": "old"}),
        ({"u-2": "own"}, {"u-2": "own"}),
        ({"u-1": "old", "u-2": "own"}, {"u-1": "old", "u-2": "own"}),
        ({"u-1": "a", "u-3": "b"}, {"u-1": "a", "u-3": "b"}),
    ],
)
def test_state_of_a_tpm_goes_with_its_claim(tmp_path: Path, kept: dict[str, str], expected: dict[str, str]) -> None:
    folder = in_root(tmp_path, paths.STATE_DIR) / boot.TPM_STATE
    folder.mkdir(parents=True)
    for uuid, text in kept.items():
        (folder / uuid).mkdir()
        (folder / uuid / "tpm2-00.permall").write_text(text)
    copy = {"metadata": {"name": "x", "uid": "u"}, "spec": {"domain": {"firmware": {"uuid": "u-2"}}}}
    for _ in range(2):
        boot.prepare(copy, tmp_path)
        found = {each.parent.name: each.read_text() for each in folder.glob("*/tpm2-00.permall")}
        assert found == expected
