# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the Secrets with SSH keys that belong in cloud-init seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turtles.domain import credentials


def seed_keys(spec: Mapping[str, Any], method: str, root: Path = Path("/")) -> dict[str, str]:
    """Return the SSH keys of a seed as its metadata has them: by number.

    :param method: noCloud or configDrive.
    :param root: where the mounted Secrets are looked for (tests).
    """
    contents = {}
    for secret in credentials.secrets(spec):
        folder = root / str(credentials.secret_dir(secret)).lstrip("/")
        # Kubernetes keeps its own files in a mounted Secret under names that begin with two dots.
        files = [path for path in folder.iterdir() if not path.name.startswith("..")] if folder.is_dir() else []
        contents[secret] = {path.name: path.read_bytes() for path in files if path.is_file()}
    return {str(index): key for index, key in enumerate(credentials.seed_keys(spec, method, contents))}
