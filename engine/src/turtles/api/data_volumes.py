# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates of DataVolumes in a VirtualMachine: their shape, and what is wrong with them.

Rules and messages are those of the KubeVirt API (`spec.dataVolumeTemplates`) and of the Containerized Data Importer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api.core import METADATA
from turtles.api.language import (
    INVALID,
    OPEN_OBJECT,
    REQUIRED,
    STRING,
    Cause,
    ListOf,
    Struct,
    field,
)
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec

#: KubeVirt's messages name templates by a field of this name, which there isn't.
_FIELD = "dataVolumeTemplate"

TEMPLATES = ListOf(
    Struct(
        "A DataVolume to create for the machine.",
        field("apiVersion", STRING, "Ignored."),
        field("kind", STRING, "Ignored."),
        field("metadata", METADATA, "Its name, labels and annotations."),
        field("spec", OPEN_OBJECT, "Where its content comes from, and the claim that holds it.", required=True),
        field("status", OPEN_OBJECT, "Ignored."),
    )
)


def template_causes(spec: Spec, path: str) -> Causes:
    """Return what is wrong with the DataVolumes of the VirtualMachine's spec at `path`."""
    volumes = get(dict(spec), "template", "spec", "volumes") or ()
    claimed = {get(volume, "persistentVolumeClaim", "claimName") for volume in volumes}
    claimed |= {get(volume, "dataVolume", "name") for volume in volumes}
    for index, template in enumerate(spec.get("dataVolumeTemplates") or ()):
        here = f"{path}.{_FIELD}[{index}]"
        if cause := _cause(template, here):
            yield cause
        elif _name(template) not in claimed:
            message = f"DataVolumeTemplate entry {here} must be referenced in the VMI template's 'volumes' list"
            yield Cause(REQUIRED, message, here)


def namespace_causes(spec: Spec, namespace: str) -> Causes:
    """Return which templates name a namespace other than the VirtualMachine's."""
    for index, template in enumerate(spec.get("dataVolumeTemplates") or ()):
        theirs = get(template, "metadata", "namespace")
        if theirs and theirs != namespace:
            message = f"Embedded DataVolume namespace {theirs} differs from VM namespace {namespace}"
            yield Cause(INVALID, message, f"spec.dataVolumeTemplates[{index}]")


def _name(template: Mapping[str, Any]) -> str:
    name = get(dict(template), "metadata", "name")
    return name if isinstance(name, str) else ""


def _cause(template: Mapping[str, Any], here: str) -> Cause | None:
    if not _name(template):
        message = f"'name' field must not be empty for DataVolumeTemplate entry {here}.name."
        return Cause(REQUIRED, message, f"{here}.name")
    wanted = template.get("spec") or {}
    claim, storage = wanted.get("pvc"), wanted.get("storage")
    if claim is None and storage is None:
        return Cause(INVALID, "Missing Data volume PVC or Storage", f"{here}.PVC.Storage")
    if claim is not None and storage is not None:
        message = "Duplicate storage definition, both target storage and target pvc defined"
        return Cause(INVALID, message, f"{here}.PVC.Storage")
    target = storage if claim is None else claim
    populated = any(get(target, key) is not None for key in ("dataSourceRef", "dataSource"))
    source, reference = wanted.get("source"), wanted.get("sourceRef")
    if populated and (source is not None or reference is not None):
        return Cause(INVALID, "External population is incompatible with Source and SourceRef", f"{here}.source")
    if not populated and source is None and reference is None:
        message = "Data volume should have either Source, SourceRef, or be externally populated"
        return Cause(INVALID, message, f"{here}.source.sourceRef")
    if source is None:
        return None
    count = sum(each is not None for each in source.values()) if isinstance(source, dict) else 0
    if count == 1:
        return None
    message = "Multiple dataVolume sources" if count else "Missing dataVolume valid source"
    return Cause(INVALID, message, f"{here}.source")
