# SPDX-License-Identifier: GPL-3.0-or-later
"""What disks are copied from: claims and VolumeSnapshots, named by a DataVolume or by a DataSource.

Rules, reasons and messages: CDI API reference, DataSource, and CDI's document "DataSources".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api import cdi
from turtles.api.kind import Missing
from turtles.api.objects import Object, get

#: Sources that are copied.
CLAIM, SNAPSHOT = "pvc", "snapshot"
KIND = "DataSource"
#: Label of a DataSource that says what guests from it run on.
ARCHITECTURE_LABEL = "template.kubevirt.io/architecture"
_ARCHITECTURES = ("amd64", "arm64", "s390x")

Find = Callable[[str, str], Object]


@dataclass(frozen=True)
class CopySource:
    """A claim or a VolumeSnapshot that a disk is copied from.

    :param kind: `pvc` or `snapshot`, as in a DataVolume's spec.source.
    """

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Return it as a note has it (:data:`turtles.api.cdi.CLONE_SOURCE`)."""
        return f"{self.kind}/{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> CopySource | None:
        """Return the source that a text means (:data:`turtles.api.cdi.CLONE_SOURCE`); None if it means none."""
        parts = text.split("/")
        return cls(*parts) if len(parts) == 3 and parts[0] in (CLAIM, SNAPSHOT) and all(parts) else None

    @classmethod
    def of(cls, source: Any, namespace: str) -> CopySource | None:
        """Return what a `source` names, of a DataVolume or a DataSource; None if it is no copy.

        :param namespace: of the object that has it, which counts if it names none.
        """
        for kind in (CLAIM, SNAPSHOT):
            if named := get(source, kind):
                return cls(kind, named.get("namespace") or namespace, named.get("name") or "")
        return None

    def as_source(self) -> Object:
        """Return it as a DataVolume or a DataSource has it."""
        return {self.kind: {"namespace": self.namespace, "name": self.name}}


class Unresolved(Exception):
    """A DataSource leads to nothing that can be copied. The message says why.

    :ivar reason: in one word.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def reference_of(data_volume: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return namespace and name of the DataSource that a DataVolume names; None if it names none."""
    reference = get(dict(data_volume), "spec", "sourceRef")
    if not reference or reference.get("kind") != KIND:
        return None
    namespace = reference.get("namespace") or get(dict(data_volume), "metadata", "namespace") or ""
    return namespace, reference.get("name") or ""


def resolve(data_source: Object, find: Find) -> CopySource:
    """Return what a DataSource leads to, over one other DataSource at most.

    :param find: returns a DataSource by namespace and name, or raises Missing.
    :raises Unresolved: it leads to nothing.
    """
    source = get(data_source, "spec", "source") or {}
    namespace, name = data_source["metadata"]["namespace"], data_source["metadata"]["name"]
    if (other := source.get("dataSource")) is not None:
        wanted = (other.get("namespace") or namespace, other.get("name") or "")
        if wanted == (namespace, name):
            raise Unresolved("SelfReference", "DataSource cannot self-reference")
        if wanted[0] != namespace:
            raise Unresolved("CrossNamespaceReference", "DataSource cannot reference a DataSource in another namespace")
        try:
            data_source = find(*wanted)
        except Missing as error:
            raise Unresolved("NotFound", f"DataSource {'/'.join(wanted)} not found") from error
        source = get(data_source, "spec", "source") or {}
        if source.get("dataSource") is not None:
            raise Unresolved("MaxReferenceDepthReached", "DataSource reference chain exceeds maximum depth of 1")
    copied = CopySource.of(source, namespace)
    if copied is None:
        raise Unresolved("NoSource", "No source PVC or VolumeSnapshot set")
    return copied


def architecture(data_volumes: Iterable[Mapping[str, Any]], namespace: str, find: Find) -> str | None:
    """Return the processor architecture that the first DataSource with one of a machine's disks says it is for.

    :param data_volumes: templates of DataVolumes. :param namespace: of the machine.
    :param find: returns a DataSource by namespace and name, or raises Missing.
    """
    for data_volume in data_volumes:
        reference = get(dict(data_volume), "spec", "sourceRef") or {}
        if str(reference.get("kind")).lower() != KIND.lower():
            continue
        try:
            data_source = find(reference.get("namespace") or namespace, reference.get("name") or "")
            if (other := get(data_source, "spec", "source", "dataSource")) is not None:
                data_source = find(other.get("namespace") or namespace, other.get("name") or "")
        except Missing:
            continue
        label = get(data_source, "metadata", "labels", ARCHITECTURE_LABEL)
        if label in _ARCHITECTURES:
            return str(label)
    return None


def copy_source(data_volume: Mapping[str, Any]) -> CopySource | None:
    """Return what a DataVolume, as it is stored, is to be a copy of; None if it is no copy, or leads to nothing."""
    if get(dict(data_volume), "spec", "sourceRef") is not None:
        noted = get(dict(data_volume), "metadata", "annotations", cdi.CLONE_SOURCE)
        return CopySource.parse(noted or "")
    namespace = get(dict(data_volume), "metadata", "namespace") or ""
    return CopySource.of(get(dict(data_volume), "spec", "source"), namespace)
