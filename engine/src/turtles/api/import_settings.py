# SPDX-License-Identifier: GPL-3.0-or-later
"""What the object CDIConfig says about all imports (CDI's document "CDI configuration")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from turtles.api import cdi
from turtles.api.objects import Object, get

#: Variables of an importer's environment, and the fields of importProxy that they come from.
_PROXIES = {"HTTP_PROXY": "HTTPProxy", "HTTPS_PROXY": "HTTPSProxy", "NO_PROXY": "noProxy"}


@dataclass(frozen=True)
class ImportSettings:
    """Settings of all imports.

    :param overhead: share of a file system that a disk leaves free. :param overheads: likewise, by StorageClass.
    :param scratch_class: StorageClass of scratch space; that of the disk if empty.
    :param insecure: registries, as host and port, whose certificate isn't verified, or which have none.
    :param proxies: variables of an importer's environment.
    :param preallocation: reserve the storage of disks whose DataVolume says nothing about it.
    """

    overhead: float = cdi.FILESYSTEM_OVERHEAD
    overheads: Mapping[str, float] = field(default_factory=dict)
    scratch_class: str = ""
    insecure: frozenset[str] = frozenset()
    proxies: Mapping[str, str] = field(default_factory=dict)
    preallocation: bool = False

    @classmethod
    def of(cls, config: Object | None) -> ImportSettings:
        """Return what a CDIConfig says, or None; admission has judged it."""
        spec = get(config, "spec") or {}
        overhead, proxy = spec.get("filesystemOverhead") or {}, spec.get("importProxy") or {}
        return cls(
            float(overhead.get("global") or cdi.FILESYSTEM_OVERHEAD),
            {name: float(share) for name, share in (overhead.get("storageClass") or {}).items()},
            spec.get("scratchSpaceStorageClass") or "",
            frozenset(spec.get("insecureRegistries") or ()),
            {name: proxy[key] for name, key in _PROXIES.items() if proxy.get(key)},
            bool(spec.get("preallocation")),
        )

    def overhead_of(self, storage_class: str | None) -> float:
        """Return the share of a file system that a disk leaves free, for volumes of a StorageClass."""
        return self.overheads.get(storage_class or "", self.overhead)


def status(config: Object, classes: list[str]) -> dict[str, Any]:
    """Return what a CDIConfig's status says of imports.

    :param classes: names of all StorageClasses.
    """
    settings = ImportSettings.of(config)
    new: dict[str, Any] = {
        "filesystemOverhead": {
            "global": share_text(settings.overhead),
            "storageClass": {name: share_text(settings.overhead_of(name)) for name in sorted(classes)},
        },
        "preallocation": settings.preallocation,
        "scratchSpaceStorageClass": settings.scratch_class,
    }
    if proxy := get(config, "spec", "importProxy"):
        new["importProxy"] = dict(proxy)
    return new


def share_text(number: float) -> str:
    """Return a share as CDIConfig and the status of a volume have it, such as 0.06."""
    return f"{number:.3f}".rstrip("0").rstrip(".") or "0"


#: What counts if there is no CDIConfig.
DEFAULT = ImportSettings()
