# SPDX-License-Identifier: GPL-3.0-or-later
"""Getting ready what a guest boots with besides its disks: kernel, Ignition's configuration, state of its TPM."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turtles.api import labels
from turtles.api.objects import annotations_of
from turtles.domain import paths
from turtles.domain.definition import domain_uuid
from turtles.launcher.errors import LaunchError

#: Where libvirt keeps the state of TPMs, below the claim that outlives the machine: a folder for each UUID.
TPM_STATE = "swtpm"
_FILES = (("kernelPath", paths.KERNEL), ("initrdPath", paths.INITRD))


def prepare(vmi: Mapping[str, Any], root: Path = Path("/")) -> None:
    """Make what *vmi* boots with ready at the paths of :mod:`turtles.domain.paths`.

    :param root: prefix of all paths (tests).
    :raises LaunchError: naming image, path and remedy.
    """
    container = paths.images(vmi["spec"]).get(paths.KERNEL_IMAGE)
    if container is not None:
        image_dir = paths.in_root(root, paths.container_disk_image_dir(paths.KERNEL_IMAGE))
        for field, link in _FILES:
            if container.get(field):
                _link(paths.in_root(root, link), _find(container["image"], image_dir, container[field]))
    configuration = annotations_of(vmi).get(labels.IGNITION)
    if configuration:
        file = paths.in_root(root, paths.IGNITION)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(configuration)
    tpm = paths.in_root(root, paths.STATE_DIR) / TPM_STATE
    if tpm.is_dir():
        _take_over_tpm(tpm, domain_uuid(vmi))


def _take_over_tpm(folder: Path, uuid: str) -> None:
    """Have libvirt find the state of the machine's TPM if that was made under another UUID.

    That is so for the copy of a machine, whose disks may be encrypted by what is in it. A claim has the state of one
    machine; where there are several folders, nobody knows whose they are.
    """
    made = [each for each in folder.iterdir() if each.is_dir()]
    if len(made) == 1 and made[0].name != uuid:
        made[0].rename(folder / uuid)


def _find(image: str, image_dir: Path, path: str) -> Path:
    """Return a file of an image.

    :raises LaunchError: if it isn't there, lies outside of the image, or can't be read.
    """
    what = f"kernelBoot: image {image}"
    if not image_dir.is_dir():
        raise LaunchError(f"{what} is not mounted in the Pod ({image_dir} is missing)")
    base = image_dir.resolve()
    resolved = (base / path.lstrip("/")).resolve()
    if not resolved.is_relative_to(base):
        raise LaunchError(f"{what}: {path} points outside the image, which is not allowed")
    try:
        status = resolved.stat()
    except OSError:
        raise LaunchError(f"{what} has no file {path}") from None
    if not stat.S_ISREG(status.st_mode):
        raise LaunchError(f"{what}: {path} is not a regular file")
    if not os.access(resolved, os.R_OK):
        raise LaunchError(f"{what}: {path} can't be read by uid {os.geteuid()}; make it readable by all in the image")
    return resolved


def _link(link: Path, file: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(file)
