# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes with ``volumeMode: Block``: a file in the volume's directory, and the loop devices that Pods see it by.

The provisioner makes the file. A node gives each Pod a loop device of its own, so that nobody has to know who else
uses a volume; all of them share the file's pages. Which device that is is noted before it is set up: whoever looks for
it after a crash finds it, or finds that the device is somebody else's by now.
"""

import contextlib
import os
import stat
import subprocess
from pathlib import Path

from turtles.standalone.files import read_json, remove_tree, write_json

#: The file in a volume's directory.
NAME = "device"
#: Sizes are multiples of what devices count in, whatever they are.
_BLOCK = 4096
_LOOP_MAJOR = 7
#: What the kernel adds to the name of a file that is gone.
_DELETED = " (deleted)"
#: How often another free device is looked for when somebody else was faster.
_TRIES = 20


class BlockFileError(Exception):
    """A volume can't be had as a device; the message says why."""


def make(directory: Path, size: int) -> None:
    """Create the file, or grow it. What is new has holes.

    :raises OSError: it can't be written.
    """
    size = -(-size // _BLOCK) * _BLOCK
    descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    for device in _devices_of(directory / NAME):
        with contextlib.suppress(BlockFileError):
            _losetup("--set-capacity", device)


def is_file(directory: Path) -> bool:
    """Say whether a directory is that of a volume with a device."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISREG((directory / NAME).lstat().st_mode)
    return False


def attach(directory: Path, record: Path) -> Path:
    """Return the device of a volume for a Pod, which is set up if there is none.

    :param record: where the device is noted.
    :raises BlockFileError: there can't be one.
    """
    file = directory / NAME
    if not is_file(directory):
        raise BlockFileError(f"{directory} has no file {NAME}")
    if (present := _noted(record, file)) is not None:
        return present
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for _ in range(_TRIES):
        device = Path(_losetup("--find").strip())
        _make_node(device)
        write_json(record, {"device": str(device), "file": str(file)})
        try:
            _losetup(str(device), str(file))
        except BlockFileError:
            if _backing_file(device) is None:
                raise
            continue  # somebody else has taken it
        return device
    raise BlockFileError("no loop device stays free")


def detach(record: Path) -> None:
    """Give a Pod's device back. One that is still open goes when it is closed."""
    noted = read_json(record)
    # The volume may be gone already, with its claim
    if noted is not None and _backing_file(Path(noted["device"])) in (noted["file"], noted["file"] + _DELETED):
        with contextlib.suppress(BlockFileError):
            _losetup("--detach", noted["device"])
    record.unlink(missing_ok=True)


def detach_below(folder: Path) -> bool:
    """Give back all devices that are noted below a folder, which is removed; say whether there were any."""
    records = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    for record in records:
        detach(record)
    remove_tree(folder)
    return bool(records)


def _noted(record: Path, file: Path) -> Path | None:
    """Return the device that is noted, if it still is one of the file."""
    noted = read_json(record)
    if noted is None or noted["file"] != str(file):
        return None
    device = Path(noted["device"])
    return device if _backing_file(device) == str(file) else None


def _devices_of(file: Path) -> list[str]:
    loops = Path("/sys/block").glob("loop*")
    return [f"/dev/{loop.name}" for loop in loops if _backing_file(Path("/dev", loop.name)) == str(file)]


def _backing_file(device: Path) -> str | None:
    try:
        return Path("/sys/block", device.name, "loop/backing_file").read_text().rstrip("\n")
    except OSError:
        return None


def _make_node(device: Path) -> None:
    """Create the device's file where nobody else does: in a container, /dev is as it was when that was made."""
    with contextlib.suppress(FileExistsError):
        number = os.makedev(_LOOP_MAJOR, int(device.name.removeprefix("loop")))
        os.mknod(device, stat.S_IFBLK | 0o600, number)


def _losetup(*words: str) -> str:
    try:
        done = subprocess.run(["losetup", *words], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BlockFileError(f"losetup: {error}") from error
    if done.returncode:
        raise BlockFileError(done.stderr.strip() or f"losetup ended with {done.returncode}")
    return done.stdout
