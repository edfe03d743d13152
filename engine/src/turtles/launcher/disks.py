# SPDX-License-Identifier: GPL-3.0-or-later
"""Getting a VM's disks ready in its Pod, in the order of ``spec.volumes`` (KubeVirt user guide, "Disks and volumes").

Everything that can be known to go wrong is found before the first byte is written.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turtles import images
from turtles.api import quantity
from turtles.api.guests import QEMU_UID
from turtles.api.kinds.vmi.hotplug import is_hotpluggable
from turtles.domain import paths
from turtles.domain.definition.elements import devices_of
from turtles.launcher import cloudinit, files
from turtles.launcher.errors import LaunchError
from turtles.launcher.metrics import DISK_SIZE, MetricsDisk

#: Room an overlay gets before a start is attempted: its tables and what a guest writes while it boots.
OVERLAY_ROOM = 16 * 2**20
#: Room for a cloud-init seed's file system beside its data.
SEED_ROOM = 2**20
#: How much smaller than its claim a disk.img may be, for the file system's own use (KubeVirt: lessPVCSpaceToleration).
CLAIM_TOLERANCE = 0.10
_MIB = 2**20
_CLOUD_INIT = ("cloudInitNoCloud", "cloudInitConfigDrive")


def prepare(vmi: Mapping[str, Any], root: Path = Path("/"), hook: cloudinit.Hook | None = None) -> None:
    """Make every disk of *vmi* ready at the path that :mod:`turtles.domain.paths` gives it.

    :param vmi: metadata (name, namespace, uid), spec and, for claims without a disk.img, ``status.volumeStatus``.
    :param root: prefix of all paths (tests).
    :param hook: changes cloud-init data.
    :raises LaunchError: naming volume, image and remedy.
    """
    volumes = backing_volumes(vmi["spec"])
    backings = {v["name"]: found for v in volumes if (found := _backing(v, vmi, root)) is not None}
    needs = {v["name"]: need for v in volumes if (need := _need(v, vmi, root)) is not None}
    if needs:
        _check_space(paths.in_root(root, paths.EPHEMERAL_DISKS_DIR), needs)
    for volume in volumes:
        name = volume["name"]
        try:
            if name in backings:
                images.create_overlay(paths.in_root(root, paths.overlay(name)), *backings[name])
            elif "emptyDisk" in volume:
                images.create_empty(paths.in_root(root, paths.empty_disk(name)), _capacity(volume))
            elif name in paths.block_volumes(vmi):
                _check_device(name, paths.in_root(root, paths.claim_device(name)))
            elif "persistentVolumeClaim" in volume or "dataVolume" in volume:
                prepare_claim(volume, _claim_size(name, vmi), root)
            elif any(kind in volume for kind in _CLOUD_INIT):
                cloudinit.make_seed(volume, vmi, root, hook)
            elif "downwardMetrics" in volume:
                MetricsDisk(paths.in_root(root, paths.metrics_disk(name)), vmi).create()
            elif paths.files_source(volume) is not None:
                files.make_image(volume, root)
        except (images.ImageError, OSError) as error:
            raise LaunchError(f"volume {name!r}: its disk can't be prepared: {error}") from error


def backing_volumes(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the volumes of a VMI's *spec* that back disks and are there when it starts: not those shared as
    filesystems, or that come later."""
    shared = {filesystem["name"] for filesystem in devices_of(spec).get("filesystems") or ()}
    volumes: Sequence[Mapping[str, Any]] = spec.get("volumes") or ()
    return [volume for volume in volumes if volume["name"] not in shared and not is_hotpluggable(volume)]


def _backing(volume: Mapping[str, Any], vmi: Mapping[str, Any], root: Path) -> tuple[Path, images.Image] | None:
    """Return the disk that an overlay keeps the guest's changes of, and what it is; None for volumes without one."""
    if "containerDisk" in volume:
        return _inspect_container_disk(volume, root)
    if "ephemeral" not in volume:
        return None
    name = volume["name"]
    block = name in paths.block_volumes(vmi)
    disk = paths.in_root(root, paths.claim_device(name) if block else paths.claim_disk(name))
    what = f"volume {name!r}: claim {paths.claim_of(volume)!r}"
    if block:
        _check_device(name, disk)
    elif not disk.is_file() or disk.is_symlink():
        raise LaunchError(f"{what} has no disk.img; an ephemeral disk needs one as its backing file")
    try:
        with disk.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise LaunchError(
            f"{what} has a disk that uid {os.geteuid()} may not read ({error.strerror}); "
            f"give it to {QEMU_UID}:{QEMU_UID}"
        ) from error
    if not 0 < size <= images.MAX_VIRTUAL_SIZE:
        raise LaunchError(f"{what} has a disk of {size} bytes, which is not a valid disk size")
    # What is on a claim is raw, whatever it looks like: a guest may have written it.
    return disk, images.Image("raw", size)


def _inspect_container_disk(volume: Mapping[str, Any], root: Path) -> tuple[Path, images.Image]:
    """Return the disk file of a containerDisk *volume* and what it is."""
    name, reference = volume["name"], volume["containerDisk"].get("image")
    disk = find_disk(
        name, reference, paths.in_root(root, paths.container_disk_image_dir(name)), volume["containerDisk"].get("path")
    )
    try:
        return disk, images.inspect(disk)
    except images.ImageError as error:
        raise LaunchError(f"volume {name!r}: disk {disk.name!r} of image {reference} {error}") from error


def find_disk(volume: str, reference: str, image_dir: Path, path: str | None) -> Path:
    """Return the one disk file of a containerDisk.

    :param volume: name of the volume and
    :param reference: image reference, both for messages.
    :param image_dir: where the image is mounted.
    :param path: the user's ``containerDisk.path``; without it, the image has exactly one file in /disk.
    :raises LaunchError: if there is no such file, more than one, or it lies outside of the image.
    """
    try:
        return images.find_disk(image_dir, path)
    except images.ImageError as error:
        raise LaunchError(f"volume {volume!r}: image {reference}{error}") from error


def _capacity(volume: Mapping[str, Any]) -> int:
    """Return the size in bytes of an emptyDisk *volume*, in whole MiB (rounded up)."""
    try:
        size = quantity.to_int(volume["emptyDisk"]["capacity"])
    except (KeyError, TypeError, quantity.QuantityError) as error:
        raise LaunchError(
            f"volume {volume['name']!r}: emptyDisk.capacity is missing or not a quantity ({error})"
        ) from error
    if not 0 < size <= images.MAX_VIRTUAL_SIZE:
        raise LaunchError(f"volume {volume['name']!r}: emptyDisk.capacity {size} is out of range")
    return -(-size // _MIB) * _MIB


def _need(volume: Mapping[str, Any], vmi: Mapping[str, Any], root: Path) -> tuple[str, int] | None:
    """Return the kind of *volume* and the bytes it must find free among the ephemeral disks; None if none.

    An emptyDisk is created sparse, but its capacity is a promise to the guest; an overlay grows as the guest writes,
    it is unknown how far.
    """
    for kind in ("containerDisk", "ephemeral"):
        if kind in volume:
            return kind, OVERLAY_ROOM
    if "downwardMetrics" in volume:
        return "downwardMetrics", DISK_SIZE
    if "emptyDisk" in volume:
        return "emptyDisk", _capacity(volume)
    for kind in _CLOUD_INIT:
        if kind in volume:
            return kind, SEED_ROOM + sum(map(len, cloudinit.seed_files(volume, vmi, root).values()))
    if source := paths.files_source(volume):
        return source, SEED_ROOM + sum(map(len, files.read(volume, root).values()))
    return None


def _free(directory: Path) -> int:
    """Return the bytes an ordinary user can still write in *directory*."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def _check_space(directory: Path, needs: Mapping[str, tuple[str, int]]) -> None:
    """Check that all *needs* (volume → kind, bytes) fit into *directory* together."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        free = _free(directory)
    except OSError as error:
        raise LaunchError(f"the folder of ephemeral disks {directory} can't be used: {error}") from error
    total = sum(size for _, size in needs.values())
    if total > free:
        parts = ", ".join(f"{name!r} ({kind}) {_mib(size)}" for name, (kind, size) in needs.items())
        raise LaunchError(
            f"not enough space on the node for the VM's disks: {_mib(total)} are needed by the volumes {parts}, "
            f"but only {_mib(free)} are free; free some space on the node, or give emptyDisks a smaller capacity"
        )


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"


def prepare_claim(volume: Mapping[str, Any], requested: int | None, root: Path = Path("/")) -> None:
    """Check the disk.img on a claim; create it where the claim has none yet.

    The file is sparse, and as large as the claim or, within the tolerance, as what its file system has left.

    :param requested: bytes that the claim has; None if that isn't known yet.
    :raises LaunchError: naming volume, claim and remedy.
    """
    name = volume["name"]
    what = f"volume {name!r}: claim {paths.claim_of(volume)!r}"
    directory, disk = paths.in_root(root, paths.claim_dir(name)), paths.in_root(root, paths.claim_disk(name))
    if not directory.is_dir():
        raise LaunchError(f"{what} is not mounted in the Pod ({directory} is missing)")
    try:
        status = disk.lstat()
    except FileNotFoundError:
        status = None
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise LaunchError(f"{what} has a disk.img that is not a regular file")
    if status is not None and status.st_size > 0:
        if not os.access(disk, os.R_OK if paths.is_read_only(volume) else os.R_OK | os.W_OK):
            raise LaunchError(
                f"{what} has a disk.img that uid {os.geteuid()} may not use; give it to {QEMU_UID}:{QEMU_UID}"
            )
        return
    if requested is None:
        raise LaunchError(f"{what} has no disk.img, and no disk can be created because its size isn't known yet")
    free = _free(directory)
    if free < requested * (1 - CLAIM_TOLERANCE):
        raise LaunchError(
            f"{what} asks for a disk of {_mib(requested)}, but only {_mib(free)} are free on it, "
            f"which exceeds the tolerance of {CLAIM_TOLERANCE:.0%}"
        )
    size = min(requested, free) // _MIB * _MIB
    if size <= 0:
        raise LaunchError(f"{what} is too small for a disk: {requested} bytes")
    # An interrupted creation leaves an empty file, which counts as none.
    descriptor = os.open(disk, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
    try:
        os.truncate(descriptor, size)
    finally:
        os.close(descriptor)


def _check_device(name: str, device: Path) -> None:
    """Check that the claim's block device is there; its owner is the node agent's job."""
    if not device.is_block_device():
        raise LaunchError(
            f"volume {name!r}: {device} is not a block device; the claim's volume can't be used as a disk"
        )


def _claim_size(name: str, vmi: Mapping[str, Any]) -> int | None:
    """Return the capacity in bytes of the claim behind the volume *name*, from the VMI's status; None if not there."""
    for status in (vmi.get("status") or {}).get("volumeStatus") or ():
        if status.get("name") == name:
            info = status.get("persistentVolumeClaimInfo") or {}
            for amounts in ("capacity", "requests"):
                if storage := (info.get(amounts) or {}).get("storage"):
                    return quantity.to_int(storage)
    return None
