# SPDX-License-Identifier: GPL-3.0-or-later
"""From a container image, which the Pod's runtime has pulled and mounted, to the disk on a claim."""

from pathlib import Path

from turtles.images import ImageError, find_disk
from turtles.importer.conversion import import_image
from turtles.importer.errors import ImportRefused
from turtles.importer.progress import Progress
from turtles.importer.target import Target


def run(image: Path, reference: str, target: Target, progress: Progress) -> None:
    """Import the image's one disk.

    :param image: where it is mounted.
    :param reference: for messages.
    :raises ImportFailed: there is no disk, and nothing that could be taken for one.
    """
    try:
        path = find_disk(image)
    except ImageError as error:
        raise ImportRefused(f"image {reference}{error}") from error
    with target.written("the disk can't be written"):
        try:
            import_image(path, target, progress.converted)
        except ImageError as error:
            raise ImportRefused(f"disk {path.name!r} of image {reference} {error}") from error
