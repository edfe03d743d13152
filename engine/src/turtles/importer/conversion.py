# SPDX-License-Identifier: GPL-3.0-or-later
"""Converts an image that has been inspected into the disk on the claim, with qemu-img and under limits."""

import contextlib
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from turtles.images import QEMU_IMG, Image, check_complete, inspect_foreign
from turtles.importer.errors import ImportFailed, ImportRefused
from turtles.importer.target import Target

#: Bytes of address space: the tables of the largest image, and stacks of 8 MiB for the 64 threads that QEMU reads and
#: writes with when the machine is busy. What is in memory is limited by the container.
_LIMITS = ("prlimit", "--as=2147483648", "--core=0", "--")
#: Each further arena of glibc reserves 64 MiB of that, and a thread that can't be made ends qemu-img.
_ARENAS = {"MALLOC_ARENA_MAX": "1"}
_PROGRESS = re.compile(rb"\(([0-9]+\.[0-9]+)/100%\)")


def import_image(path: Path, target: Target, done: Callable[[float], None]) -> None:
    """Make the disk on a claim of an image that is stored somewhere.

    :param done: told the part that is done, 0 to 1.
    :raises ImportFailed: the target can't be written.
    :raises ImportRefused: the image is larger than the disk, or broken.
    :raises ImageError: likewise, without the image's name.
    """
    image = inspect_foreign(path)
    if image.virtual_size > target.size:
        raise too_large(target, image.virtual_size)
    check_complete(path, image)
    target.prepare()
    if not target.is_device:
        target.close()
    convert(path, image, target.draft, done, device=target.is_device, preallocate=target.preallocate)
    target.publish()


def too_large(target: Target, size: int | None) -> ImportRefused:
    """Return the error of an image that is larger than the disk (CDI's words)."""
    words = f"size {size} is" if size else "size is"
    return ImportRefused(
        f"Virtual image {words} larger than the reported available storage {target.size}. A larger PVC is required."
    )


def convert(
    source: Path,
    image: Image,
    target: Path,
    done: Callable[[float], None],
    *,
    device: bool = False,
    preallocate: bool = False,
) -> None:
    """Convert an image to a raw one.

    :param image: what :func:`turtles.images.inspect_foreign` found it to be.
    :param target: a file that is created, or a device.
    :param done: told the part that is done, 0 to 1.
    :raises ImportFailed: the target can't be written.
    :raises ImportRefused: the image is broken.
    """
    options = ["-n"] if device else []
    if preallocate and not device:
        options += ["-S", "0", "-o", "preallocation=falloc"]
    command = [QEMU_IMG, "convert", "-p", "-t", "writeback", "-f", image.format, "-O", "raw", *options]
    process = subprocess.Popen(
        [*_LIMITS, *command, str(source), str(target)],
        env={**os.environ, **_ARENAS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        while output := process.stdout.read1(4096):  # type: ignore[attr-defined]
            if percentages := _PROGRESS.findall(output):
                done(float(percentages[-1]) / 100)
        words = process.communicate()[1].decode(errors="replace").strip().removeprefix("qemu-img: ")
    finally:
        if process.poll() is None:
            process.kill()
        with contextlib.suppress(OSError):
            process.wait()
    if not process.returncode:
        return
    message = f"the image can't be converted: {words or f'qemu-img ended with status {process.returncode}'}"
    if "No space left" in words or "error while writing" in words:
        raise ImportFailed(message)
    raise ImportRefused(message)
