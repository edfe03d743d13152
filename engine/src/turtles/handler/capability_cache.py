# SPDX-License-Identifier: GPL-3.0-or-later
"""What a probe of this node found out about QEMU, for a launcher's libvirtd: finding it out takes a second."""

import os
from pathlib import Path

from turtles.api.guests import QEMU_UID
from turtles.domain import paths
from turtles.handler.pod_files import PodFiles, own_folder


def bring(cache: Path, files: PodFiles, *, kvm: bool) -> None:
    """Give libvirtd what is known about this node's QEMU, if it knows nothing yet.

    :param cache: made by a probe of this node. libvirt takes no notice of it if it is about another QEMU.
    :param kvm: the Pod has /dev/kvm.
    :raises OSError: if the Pod's folder can't be written to, or something else is in its place.
    """
    source = cache / ("kvm" if kvm else "emulation") / paths.CAPABILITY_CACHE
    if not source.is_dir():
        return
    known = [(path.name, path.read_bytes()) for path in source.iterdir()]
    path = paths.PRIVATE_DIR / "libvirt/cache" / paths.CAPABILITY_CACHE
    directory = files.open_volume(paths.PRIVATE_DIR)
    try:
        for part in path.relative_to(paths.PRIVATE_DIR).parts:
            deeper = own_folder(directory, part, 0o700)
            os.close(directory)
            directory = deeper
        with os.scandir(directory) as entries:
            if next(entries, None) is not None:
                return
        for name, content in known:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
                os.fchown(file.fileno(), QEMU_UID, QEMU_UID)
                file.write(content)
    finally:
        os.close(directory)
