# SPDX-License-Identifier: GPL-3.0-or-later
"""References to images: names of a registry's, or files of this machine."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turtles.standalone.stamp import stamp

_LOCAL = ("oci-archive", "docker-archive", "oci")
_REFERENCE = re.compile(r"[a-z0-9A-Z][\w.:/\-]*(@sha256:[0-9a-f]{64})?", re.ASCII)


class ImageError(Exception):
    """An image is not available. ``reason`` is what Kubernetes shows for a waiting container."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class LocalImage:
    """A reference to files of this machine."""

    transport: str
    path: Path
    tag: str

    @property
    def url(self) -> str:
        """The reference in skopeo's form."""
        return f"{self.transport}:{self.path}" + (f":{self.tag}" if self.tag else "")

    def fingerprint(self) -> str | None:
        """Return a fingerprint of the image; None if that isn't certain yet."""
        try:
            now = stamp(self.path / "index.json" if self.transport == "oci" else self.path)
        except OSError:
            return None
        return None if now is None else f"{self.path}:{self.tag}:{':'.join(map(str, now))}"


def default_policy(reference: str) -> str:
    """Return the pull policy of an image that has none: Always for the tag latest, else IfNotPresent."""
    if "@" in reference:
        return "IfNotPresent"
    tag = reference.rsplit("/", 1)[-1].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def is_local(reference: str) -> bool:
    """Say whether a reference names files of this machine."""
    transport, colon, rest = reference.partition(":")
    return bool(colon) and transport in _LOCAL and rest.startswith("/")


def local_image(reference: str, allowed_dirs: Sequence[Path]) -> LocalImage | None:
    """Return what a reference to this machine's files means, None for a registry's.

    :param allowed_dirs: where they may point; without symbolic links.
    :raises ImageError: ErrImagePull: it points outside the allowed directories;
        InvalidImageName: it is no reference.
    """
    transport, _, rest = reference.partition(":")
    if not is_local(reference):
        if not _REFERENCE.fullmatch(reference) or ".." in reference:
            raise ImageError(
                "InvalidImageName",
                f"{reference!r} is not an image reference: use registry/name:tag, or oci:, oci-archive: or "
                "docker-archive: with an absolute path",
            )
        return None
    name, _, tag = rest.partition(":")
    path = Path(os.path.realpath(name))
    if not any(path.is_relative_to(allowed) for allowed in allowed_dirs):
        allowed_text = ", ".join(str(allowed) for allowed in allowed_dirs) or "(none)"
        raise ImageError(
            "ErrImagePull",
            f"image {reference}: files of this machine may only be used from: {allowed_text}",
        )
    return LocalImage(transport, path, tag)
