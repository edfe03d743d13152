# SPDX-License-Identifier: GPL-3.0-or-later
"""How far an import is, in a file beside what it has written: another process continues from there."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from turtles.api.texts import from_json
from turtles.importer.transfer import Version

_NAME = ".import.json"


@dataclass(frozen=True)
class Checkpoint:
    """What of a file is there for good.

    :param url: where it comes from.
    :param version: of the file.
    :param position: how many bytes of it are there.
    """

    url: str
    version: Version
    position: int


def load(folder: Path, url: str) -> Checkpoint | None:
    """Return what an earlier attempt left, None if there is nothing to continue from."""
    try:
        record = from_json((folder / _NAME).read_text())
        checkpoint = Checkpoint(record["url"], Version(**record["version"]), int(record["position"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = checkpoint.url == url and checkpoint.version.validator and checkpoint.position > 0
    return checkpoint if usable else None


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write it. What it says is there must be on the disk already."""
    draft = folder / f"{_NAME}.part"
    with draft.open("w") as file:
        json.dump(asdict(checkpoint), file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / _NAME)


def forget(folder: Path) -> None:
    """Remove it."""
    for name in (_NAME, f"{_NAME}.part"):
        with contextlib.suppress(OSError):
            (folder / name).unlink()
