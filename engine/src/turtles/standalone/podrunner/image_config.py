# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image says about its containers: command, variables, user. Pure, no I/O.

Format: OCI image specification, "Image Configuration". It is untrusted input: what doesn't conform is refused.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from turtles.image_manifest import ManifestError, decoded


@dataclass(frozen=True)
class ImageConfig:
    """The part of an image's configuration that containers are started with."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    stop_signal: str = ""

    def data(self) -> dict[str, Any]:
        """Return it as JSON data, from which :func:`restored` makes it again."""
        return asdict(self)


def restored(data: Mapping[str, Any]) -> ImageConfig:
    """Return what :meth:`ImageConfig.data` described."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return ImageConfig(**fields)


def parse(raw: bytes) -> ImageConfig:
    """Return what an image's configuration says.

    :raises ManifestError: it isn't acceptable.
    """
    data = decoded(raw, "configuration")
    config = (data.get("config") if isinstance(data, dict) else None) or {}
    if not isinstance(config, dict):
        raise ManifestError("the image's configuration is not usable: its config is not an object")
    return ImageConfig(
        user=_text(config, "User"),
        env=_texts(config, "Env"),
        entrypoint=_texts(config, "Entrypoint"),
        cmd=_texts(config, "Cmd"),
        working_dir=_text(config, "WorkingDir"),
        stop_signal=_text(config, "StopSignal"),
    )


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key) or ""
    if not isinstance(value, str) or "\0" in value:
        raise ManifestError(f"the image's configuration is not usable: its {key} is not text")
    return value


def _texts(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = data.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) and "\0" not in value for value in values):
        raise ManifestError(f"the image's configuration is not usable: its {key} is not a list of texts")
    return tuple(values)
