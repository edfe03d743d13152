# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims that CDI's populators fill, which their `spec.dataSourceRef` names.

Such a claim stays unbound until its content is complete: a second claim, PVC', is filled in its place, and the volume
is handed over then. Names and annotations: CDI's document "CDI Volume Populators".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api import cdi
from turtles.api.objects import Object, get

IMPORT, UPLOAD, CLONE = "VolumeImportSource", "VolumeUploadSource", "VolumeCloneSource"
KINDS = (IMPORT, UPLOAD, CLONE)

# Annotations of a claim that a populator fills
#: Name of the claim that is filled in its place.
PRIME = f"{cdi.GROUP}/storage.populator.pvcPrime"
#: How much is done, such as "12.34%".
PROGRESS = f"{cdi.GROUP}/storage.populator.progress"
#: What becomes of a copy, and why there can't be one.
CLONE_PHASE, CLONE_ERROR = f"{cdi.GROUP}/clonePhase", f"{cdi.GROUP}/cloneError"
#: Annotation of a claim that is filled in the place of another one: the populator's kind.
KIND = f"{cdi.GROUP}/storage.populator.kind"

#: Annotation of a claim: the node of the Pod that uses it first (Kubernetes' scheduler).
SELECTED_NODE = "volume.kubernetes.io/selected-node"


@dataclass(frozen=True)
class Reference:
    """What a claim's dataSourceRef names.

    :param namespace: empty if it names none: the claim's.
    """

    kind: str
    name: str
    namespace: str = ""


def reference_of(claim: Mapping[str, Any]) -> Reference | None:
    """Return the populator's object that a claim names; None if it names none."""
    named = get(dict(claim), "spec", "dataSourceRef") or {}
    if named.get("apiGroup") != cdi.GROUP or named.get("kind") not in KINDS or not named.get("name"):
        return None
    return Reference(named["kind"], named["name"], named.get("namespace") or "")


def prime_name(claim: Mapping[str, Any]) -> str:
    """Return the name of the claim that is filled in the place of another one."""
    return f"prime-{claim['metadata']['uid']}"


def uploaded_into(claim: Object) -> str | None:
    """Return the name of the claim that uploads for a claim go into; None if no populator takes uploads for it."""
    reference = reference_of(claim)
    return prime_name(claim) if reference is not None and reference.kind == UPLOAD else None
