# SPDX-License-Identifier: GPL-3.0-or-later
"""Small state files that are either complete or missing."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file's content in one step, so that neither a reader nor a crash leaves half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(text.encode())
        temporary.replace(path)
    except BaseException:
        # A full disk must not be filled further by what could not be written to it.
        temporary.unlink(missing_ok=True)
        raise


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it; what can't be removed stays.

    Folders that Pods and images write may be in one another thousands of times, which shutil.rmtree doesn't get
    through: it recurses, with an open file for each.
    """
    if path.exists():
        subprocess.run(
            ["rm", "-rf", "--one-file-system", "--", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )


def sync_folder(path: Path) -> None:
    """Flush a folder, so that its changed entries survive a loss of power (fsync(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: Path, data: Any) -> None:
    """Replace a file's content with data as JSON."""
    write_text(path, json.dumps(data))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object's file, or None when the file is not there or not whole."""
    try:
        data = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return data if isinstance(data, dict) else None
