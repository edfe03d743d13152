# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivers its VMI to a launcher, as a file in one of the Pod's own folders that only the Pod's user may read.

The Pod controls what is in that folder. So the folder is opened without following links, nothing in it is read, and a
complete file is renamed into place, whatever was there: the launcher sees all of it or nothing.
"""

import contextlib
import os
import uuid
from collections.abc import Mapping
from typing import Any

from turtles.api.guests import QEMU_UID
from turtles.domain import handover, paths


def deliver(pods_dir: str, pod_uid: str, vmi: Mapping[str, Any]) -> None:
    """Write a VMI to where its launcher waits for it. A launcher that already has it ignores it.

    :param pods_dir: the kubelet's folder of Pods.
    :raises FileNotFoundError: if the Pod's folder doesn't exist, yet or any more.
    :raises OSError: if the VMI can't be written there.
    """
    content, name = handover.launcher_view(vmi), paths.DELIVERED_VMI.name
    folder = paths.host_path(pods_dir, pod_uid, paths.DELIVERED_VMI.parent)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Unpredictable: neither the Pod nor a second agent (there are two during an upgrade) can get in the way.
        draft = f".{name}.{uuid.uuid4().hex}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(draft, flags, 0o600, dir_fd=directory), "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o400)
                os.fchown(file.fileno(), QEMU_UID, QEMU_UID)
            os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=directory)
            raise
    finally:
        os.close(directory)
