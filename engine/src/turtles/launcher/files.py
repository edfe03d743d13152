# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks made of files: what the Pod has of a ConfigMap, a Secret, its own fields or its token, as ISO 9660 images.

Source: KubeVirt user guide, "Disks and volumes" and "Startup scripts" (sysprep). A disk is made once; what changes
afterwards in the Pod doesn't reach the guest.
"""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from turtles.domain import paths
from turtles.launcher.cloudinit import render_seed
from turtles.launcher.errors import LaunchError

#: Labels by which guests find the disks, where the volume names none.
_LABEL, _SYSPREP_LABEL = "cfgdata", "unattendCD"
#: Of these the setup of Windows needs one, in any case.
_ANSWERS = ("autounattend.xml", "unattend.xml")
#: Far more than fits into a ConfigMap or Secret; folders nested deeper are none of ISO 9660.
_MAX_BYTES, _MAX_DEPTH = 16 * 2**20, 7


def read(volume: Mapping[str, Any], root: Path = Path("/")) -> dict[str, bytes]:
    """Return the files of a *volume* by their path.

    :param volume: an entry of ``spec.volumes``, see :func:`paths.files_source`.
    :param root: prefix of all paths (tests).
    :raises LaunchError: they are too many or too large, or an answer file is missing.
    :raises OSError: they can't be read.
    """
    name, folder = volume["name"], paths.in_root(root, paths.files_dir(volume))
    if not folder.is_dir():
        raise LaunchError(f"volume {name!r} is not mounted in the Pod ({folder} is missing)")
    files: dict[str, bytes] = {}
    left = _MAX_BYTES
    for path in _below(folder, folder.resolve(), _MAX_DEPTH):
        left -= path.stat().st_size
        if left < 0:
            raise LaunchError(
                f"volume {name!r} has more than {_MAX_BYTES} bytes of files, which is too much for a disk"
            )
        files[str(path.relative_to(folder))] = path.read_bytes()
    if "sysprep" in volume and not any(file.lower() in _ANSWERS for file in files):
        raise LaunchError(
            f"volume {name!r} has neither {_ANSWERS[0]} nor {_ANSWERS[1]}, which the setup of Windows looks for; "
            "add one of them to the ConfigMap or Secret"
        )
    return files


def make_image(volume: Mapping[str, Any], root: Path = Path("/")) -> None:
    """Write the image of a *volume* to where its disk expects it.

    :raises LaunchError: see :func:`read`.
    :raises OSError: it can't be written.
    """
    source = paths.files_source(volume) or ""
    label = _SYSPREP_LABEL if source == "sysprep" else (volume[source] or {}).get("volumeLabel") or _LABEL
    path = paths.in_root(root, paths.files_image(volume["name"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # it may hold passwords
    path.write_bytes(render_seed(label, read(volume, root)))


def _below(folder: Path, volume: Path, depth: int) -> Iterator[Path]:
    """Give the files in a folder of a volume; links are followed, as long as they don't lead out of it.

    The kubelet's own entries, which begin with two dots, are left out: the others are links to what is in them.
    """
    for path in sorted(folder.iterdir()):
        if path.name.startswith("..") or not path.resolve().is_relative_to(volume):
            continue
        kind = path.stat().st_mode
        if stat.S_ISREG(kind):
            yield path
        elif stat.S_ISDIR(kind) and depth:
            yield from _below(path, volume, depth - 1)
