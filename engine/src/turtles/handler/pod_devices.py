# SPDX-License-Identifier: GPL-3.0-or-later
"""The devices that a launcher's Pod was given: which they are, and to whom they belong."""

import contextlib
import itertools
import os
import stat
from collections.abc import Iterable
from pathlib import PurePosixPath

from turtles.api.guests import QEMU_UID
from turtles.domain import paths
from turtles.domain.definition import host_devices
from turtles.handler.launcher_process import LauncherProcess
from turtles.handler.peer import closing
from turtles.handler.pod_files import PodFiles

#: The devices a launcher may have been given, and their numbers (the kernel's devices.txt).
_DEVICES = {
    "kvm": os.makedev(10, 232),
    "net/tun": os.makedev(10, 200),
    "vhost-net": os.makedev(10, 238),
    "vhost-vsock": os.makedev(10, 241),
}
#: How many files of devices in a Pod are looked at.
_DEVICE_FILES = 64


class PodDevices:
    """The devices of one Pod."""

    def __init__(self, files: PodFiles, process: LauncherProcess) -> None:
        self._files, self._process = files, process

    def assigned(self) -> dict[str, str]:
        """Return what device plugins said in the launcher's environment about the devices that it was given."""
        environment = self._process.environment()
        return {name: value for name, value in environment.items() if name.startswith(host_devices.ALL_PREFIXES)}

    def has_kvm(self) -> bool:
        """Say whether the Pod was given /dev/kvm."""
        try:
            os.close(self._files.open(PurePosixPath("/dev/kvm"), os.O_PATH))
        except OSError:
            return False
        return True

    def own(self, disks: Iterable[str] = ()) -> None:
        """Change the owner of the devices in the Pod to QEMU's user: a kubelet keeps the node's owner and mode.

        What is changed is a file in the Pod's own /dev.

        :param disks: volumes that are block devices.
        """
        assigned = self._assigned_files()
        for path in (
            *(PurePosixPath("/dev", name) for name in _DEVICES),
            *map(paths.claim_device, disks),
            *assigned,
        ):
            number = _DEVICES.get(str(path.relative_to("/dev")))
            try:
                with (
                    closing(self._files.open(path.parent, os.O_PATH | os.O_DIRECTORY)) as folder,
                    closing(os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)) as device,
                ):
                    status = os.fstat(device)
                    # A runtime may show the node's very file instead of one of its own; that one isn't touched.
                    own = status.st_dev == os.fstat(folder).st_dev
                    if path in assigned:
                        fits = stat.S_ISCHR(status.st_mode)
                    elif number is None:
                        fits = stat.S_ISBLK(status.st_mode)
                    else:
                        fits = stat.S_ISCHR(status.st_mode) and status.st_rdev == number
                    if own and fits and status.st_uid != QEMU_UID:
                        os.chown(f"/proc/self/fd/{device}", QEMU_UID, QEMU_UID)
            except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
                continue

    def _assigned_files(self) -> list[PurePosixPath]:
        """Return the files of devices of the node that the Pod was given: all of VFIO's, and those of USB."""
        devices = self.assigned()
        if not devices:
            return []
        assigned = []
        with contextlib.suppress(OSError):
            folder = PurePosixPath("/dev/vfio")
            with (
                closing(self._files.open(folder, os.O_RDONLY | os.O_DIRECTORY)) as directory,
                os.scandir(directory) as files,
            ):
                assigned += [folder / entry.name for entry in itertools.islice(files, _DEVICE_FILES)]
        for name, text in devices.items():
            if name.startswith(host_devices.USB_PREFIX):
                assigned += [
                    PurePosixPath("/dev/bus/usb", *address.split(":")) for address in text.split(",") if address
                ]
        return assigned
