# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves directories of the Pod to the guest by virtiofs.

virtiofsd runs without privileges, as everything in the Pod: it can open what the launcher can, and what the guest
creates belongs to the launcher's user. That takes the virtiofsd that is written in Rust; its forerunner, which came
with QEMU 7 and before, needs root for its sandbox.
"""

import logging
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from turtles.domain import paths
from turtles.domain.definition.elements import devices_of
from turtles.launcher.errors import LaunchError

log = logging.getLogger(__name__)

#: Where distributions have it.
PROGRAMS = (Path("/usr/libexec/virtiofsd"), Path("/usr/bin/virtiofsd"))
_START_SECONDS = 10.0
_POLL_SECONDS = 0.01


def start(vmi: Mapping[str, Any], programs: tuple[Path, ...] = PROGRAMS) -> list[subprocess.Popen[bytes]]:
    """Start a server for each filesystem of a VMI, and wait until they listen. They end when the guest has.

    :raises LaunchError: there is no virtiofsd, it doesn't start, or a directory can't be shared.
    """
    spec = vmi["spec"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    names = [filesystem["name"] for filesystem in devices_of(spec).get("filesystems") or ()]
    if not names:
        return []
    program = next((path for path in programs if os.access(path, os.X_OK)), None)
    if program is None:
        raise LaunchError(
            f"filesystem {names[0]!r}: there is no virtiofsd that runs without root ({programs[0]}). Debian has it "
            "from version 13 on: install the package virtiofsd on a machine of its own; for a cluster, build the "
            "engine's image with engine_image_release: trixie"
        )
    return [_serve(program, name, _directory(volumes[name])) for name in names]


def _serve(program: Path, name: str, directory: Path) -> subprocess.Popen[bytes]:
    socket = Path(paths.filesystem_socket(name))
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    arguments = ("--socket-path", str(socket), "--shared-dir", str(directory), "--sandbox", "none", "--cache", "auto")
    try:
        process = subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL)
    except OSError as error:
        raise LaunchError(f"filesystem {name!r}: {program} doesn't start: {error}") from error
    deadline = time.monotonic() + _START_SECONDS
    while not socket.is_socket():
        if process.poll() is not None:
            raise LaunchError(
                f"filesystem {name!r}: {program} ended with exit status {process.returncode}; see the log above"
            )
        if time.monotonic() > deadline:
            process.kill()
            raise LaunchError(f"filesystem {name!r}: {program} doesn't listen within {_START_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)
    log.info("filesystem is served", extra={"filesystem": name, "directory": str(directory)})
    return process


def _directory(volume: Mapping[str, Any]) -> Path:
    """Return the directory of the Pod that is shared.

    :raises LaunchError: it doesn't exist, or isn't a volume of the Pod.
    """
    wanted = (volume.get("containerPath") or {}).get("path")
    path = Path(wanted or paths.files_dir(volume))
    if not path.is_dir():
        raise LaunchError(f"volume {volume['name']!r}: the Pod has no directory {path}")
    if wanted and not is_volume(path, Path("/proc/self/mountinfo").read_text()):
        raise LaunchError(
            f"volume {volume['name']!r}: containerPath {path} is not in a volume that is mounted in the Pod; what the "
            "container's own image has is not shared"
        )
    return path


def is_volume(path: Path, mountinfo: str) -> bool:
    """Say whether a path is in a volume of the Pod, and none of the engine's own.

    :param mountinfo: text of ``/proc/self/mountinfo`` (proc(5)).
    """
    real = PurePosixPath(path.resolve())
    mounts = [PurePosixPath(line.split()[4]) for line in mountinfo.splitlines()]
    holder = max((mount for mount in mounts if real.is_relative_to(mount)), key=lambda mount: len(mount.parts))
    own = [PurePosixPath(Path(folder).resolve()) for folder in paths.EMPTY_DIRS]
    kernel = [PurePosixPath(folder) for folder in ("/proc", "/sys", "/dev")]
    return holder != PurePosixPath("/") and not any(real.is_relative_to(folder) for folder in (*own, *kernel))
