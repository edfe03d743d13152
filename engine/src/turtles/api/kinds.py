# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of the KubeVirt API which this engine serves, as data.

A kind says how the API server names, lists and prints an object. Its schema is in `turtles.api.model`,
the CustomResourceDefinition made from both in `turtles.api.crd`.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP = "kubevirt.io"
STORAGE_VERSION = "v1"
V1ALPHA3_WARNING = "kubevirt.io/v1alpha3 is now deprecated and will be removed in a future release."

SUBRESOURCES_GROUP = "subresources.kubevirt.io"
SUBRESOURCES_VERSIONS = ("v1", "v1alpha3")


@dataclass(frozen=True)
class Version:
    """One version of a kind. All served versions share one schema, so none needs conversion.

    `deprecation_warning`: what the API server tells clients that use this version, None if it is current.
    """

    name: str
    storage: bool = False
    deprecation_warning: str | None = None


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`. `priority` 1 shows it with `-o wide` only."""

    name: str
    type: str
    json_path: str
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind: its names, versions and how it is listed. `versions` holds exactly one storage version."""

    group: str
    versions: tuple[Version, ...]
    kind: str
    plural: str
    singular: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    status_subresource: bool = False

    @property
    def version(self) -> str:
        """The storage version's name: what the engine itself reads and writes."""
        return next(version.name for version in self.versions if version.storage)

    @property
    def list_kind(self) -> str:
        """The kind of a list of these objects."""
        return self.kind + "List"

    @property
    def api_version(self) -> str:
        """`group/version` of the storage version."""
        return f"{self.group}/{self.version}"

    @property
    def crd_name(self) -> str:
        """The name of the CustomResourceDefinition."""
        return f"{self.plural}.{self.group}"


_VERSIONS = (
    Version(STORAGE_VERSION, storage=True),
    Version("v1alpha3", deprecation_warning=V1ALPHA3_WARNING),
)
_AGE = Column("Age", "date", ".metadata.creationTimestamp")

VM = Kind(
    group=GROUP,
    versions=_VERSIONS,
    kind="VirtualMachine",
    plural="virtualmachines",
    singular="virtualmachine",
    short_names=("vm", "vms"),
    categories=("all",),
    columns=(
        _AGE,
        Column("Status", "string", ".status.printableStatus", description="Human Readable Status"),
        Column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
    ),
    status_subresource=True,
)

# A VirtualMachineInstance has no status subresource: the engine's components write labels and status in one
# request, and the mutating webhook restores the status when anybody else writes.
VMI = Kind(
    group=GROUP,
    versions=_VERSIONS,
    kind="VirtualMachineInstance",
    plural="virtualmachineinstances",
    singular="virtualmachineinstance",
    short_names=("vmi", "vmis"),
    categories=("all",),
    columns=(
        _AGE,
        Column("Phase", "string", ".status.phase"),
        Column("IP", "string", ".status.interfaces[0].ipAddress"),
        Column("NodeName", "string", ".status.nodeName"),
        Column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Live-Migratable", "string", ".status.conditions[?(@.type=='LiveMigratable')].status", priority=1),
        Column("Paused", "string", ".status.conditions[?(@.type=='Paused')].status", priority=1),
    ),
)

# How the engine itself is set up. There is one, in the engine's own namespace.
KUBEVIRT = Kind(
    group=GROUP,
    versions=_VERSIONS,
    kind="KubeVirt",
    plural="kubevirts",
    singular="kubevirt",
    short_names=("kv", "kvs"),
    categories=("all",),
    columns=(_AGE, Column("Phase", "string", ".status.phase")),
    status_subresource=True,
)

KINDS: tuple[Kind, ...] = (VM, VMI, KUBEVIRT)
