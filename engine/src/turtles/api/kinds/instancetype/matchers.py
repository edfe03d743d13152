# SPDX-License-Identifier: GPL-3.0-or-later
"""`spec.instancetype` and `spec.preference` of a VirtualMachine: what they may say, and which object they mean.

A machine keeps what it was first started with: its status names a ControllerRevision, which counts rather than the
object itself for as long as the machine names that object. Rules and messages are those of the KubeVirt API.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from turtles.api import data_sources, labels
from turtles.api.kind import Missing
from turtles.api.kinds import instancetype, preference
from turtles.api.language import INVALID, NOT_FOUND, STRING, Cause, Struct, field, group
from turtles.api.objects import Object, get
from turtles.api.rules import Causes

Find = Callable[[str, str, str], Object]

#: Kinds of Kubernetes itself that are looked up.
REVISION, CLAIM = "ControllerRevision", "PersistentVolumeClaim"
#: The one of snapshot.storage.k8s.io.
VOLUME_SNAPSHOT = "VolumeSnapshot"
#: The one of the Containerized Data Importer.
DATA_VOLUME = "DataVolume"

_REJECT, IGNORE = "Reject", "Ignore"
#: Longest value of a label, and how much of a hash tells longer ones apart.
_MAX_LABEL, _HASH = 63, 8


@dataclass(frozen=True)
class Matcher:
    """A field of a VirtualMachine's spec that names an object of one of two kinds, which differ in their scope.

    :param field: its name.
    :param reference: the field of the status that says what is in use.
    :param title: how messages call it.
    :param kind: the kind in a namespace.
    :param cluster_kind: the kind without; the default.
    :param label: of a volume; its value is the name that the volume suggests.
    :param annotation: of instances, with the name; another one if the object has no namespace.
    :param validate: returns what is wrong with such an object.
    """

    field: str
    reference: str
    title: str
    kind: str
    cluster_kind: str
    label: str
    annotation: str
    cluster_annotation: str
    validate: Callable[[Any], list[Cause]]

    def of(self, vm: Object) -> Object | None:
        """Return what a VirtualMachine has in the field; None if it names nothing."""
        matcher: Object | None = get(vm, "spec", self.field)
        return matcher

    def kind_of(self, wanted: Object) -> str:
        """Return the kind that is meant. Like KubeVirt it may be written as a plural, in upper or lower case.

        :raises Missing: it is none of the two.
        """
        written = str(wanted.get("kind") or self.cluster_kind).lower()
        for kind in (self.kind, self.cluster_kind):
            if written in (kind.lower(), f"{kind.lower()}s"):
                return kind
        raise Missing(f"got unexpected kind in {self.title}: {wanted['kind']}")


INSTANCETYPE = Matcher(
    "instancetype",
    "instancetypeRef",
    "InstancetypeMatcher",
    instancetype.INSTANCETYPE.kind,
    instancetype.CLUSTER_INSTANCETYPE.kind,
    labels.DEFAULT_INSTANCETYPE,
    labels.INSTANCETYPE,
    labels.CLUSTER_INSTANCETYPE,
    instancetype.validate,
)
PREFERENCE = Matcher(
    "preference",
    "preferenceRef",
    "PreferenceMatcher",
    preference.PREFERENCE.kind,
    preference.CLUSTER_PREFERENCE.kind,
    labels.DEFAULT_PREFERENCE,
    labels.PREFERENCE,
    labels.CLUSTER_PREFERENCE,
    preference.validate,
)
MATCHERS = (INSTANCETYPE, PREFERENCE)

#: Kinds of all objects that are looked up for a VirtualMachine.
LOOKED_UP = (
    *(kind for each in MATCHERS for kind in (each.kind, each.cluster_kind)),
    REVISION,
    CLAIM,
    VOLUME_SNAPSHOT,
    DATA_VOLUME,
    data_sources.KIND,
)


def matcher_schema(matcher: Matcher, doc: str) -> Struct:
    """Return the type of the field."""
    return Struct(
        doc,
        field("name", STRING, "Name of the object."),
        field("kind", STRING, f"{matcher.cluster_kind} (the default) or {matcher.kind}."),
        field("revisionName", STRING, "ControllerRevision with a copy of the object, which then counts."),
        field(
            "inferFromVolume", STRING, "Volume whose claim, DataVolume or DataSource has name and kind in its labels."
        ),
        field("inferFromVolumeFailurePolicy", STRING, "What to do if it hasn't: Reject (the default) or Ignore."),
    )


REFERENCE = Struct(
    "What is in use.",
    field("name", STRING, "Name of the object."),
    field("kind", STRING, "Kind of the object."),
    group(
        "controllerRevisionRef",
        "The copy of the object that counts for the machine.",
        field("name", STRING, "Name of the ControllerRevision."),
    ),
    field("inferFromVolume", STRING, "Volume that the name was taken from."),
    field("inferFromVolumeFailurePolicy", STRING, "What was to happen if the volume named nothing."),
)

# --- validation ------------------------------------------------------------------------------------------------------


def matcher_causes(vm: Object) -> list[Cause]:
    """Return what is wrong with the first matcher of a VirtualMachine that has faults. The schema has been checked."""
    for matcher in MATCHERS:
        if (wanted := matcher.of(vm)) is not None and (causes := list(_causes(matcher, wanted))):
            return causes
    return []


def _causes(matcher: Matcher, wanted: Object) -> Causes:
    here = f"spec.{matcher.field}"
    volume, policy = wanted.get("inferFromVolume"), wanted.get("inferFromVolumeFailurePolicy")
    if not wanted.get("name") and not volume:
        message = f"Either Name or InferFromVolume should be provided within the {matcher.field} matcher"
        yield Cause(NOT_FOUND, message, here)
    for key in ("name", "kind"):
        if volume and wanted.get(key):
            message = (
                f"{key.title()} should not be provided when InferFromVolume is used within the {matcher.field} matcher"
            )
            yield Cause(NOT_FOUND, message, f"{here}.{key}")
    if policy is not None and policy not in (_REJECT, IGNORE):
        message = f"Invalid value '{policy}' for InferFromVolumeFailurePolicy"
        yield Cause(INVALID, message, f"{here}.inferFromVolumeFailurePolicy")


def matcher_update_causes(vm: Object, old: Object) -> list[Cause]:
    """Return what is wrong with a change of matchers: a revision belongs to the object that it is a copy of."""
    for matcher in MATCHERS:
        new, before = matcher.of(vm) or {}, matcher.of(old) or {}
        revision = before.get("revisionName")
        if revision and new.get("name") != before.get("name") and new and new.get("revisionName") == revision:
            message = "the Matcher Name has been updated without updating the RevisionName"
            return [Cause(INVALID, message, f"spec.{matcher.field}.revisionName")]
    return []


def namespace_of(vm: Object) -> str:
    """Return the namespace of a VirtualMachine; empty if it has none so far."""
    return get(vm, "metadata", "namespace") or ""


def label_value(name: str) -> str:
    """Return a name as the value of a label."""
    return shortened(name, _MAX_LABEL)


def shortened(name: str, limit: int) -> str:
    """Return a name; one that is too long is cut, and told apart by a part of its hash."""
    if len(name) <= limit:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:_HASH]
    return f"{name[: limit - _HASH - 1]}-{mark}"


def named_by(vm: Object) -> list[tuple[str, str, str] | None]:
    """Return what the matchers of a VirtualMachine name, in a form that is the same however it is written."""
    names: list[tuple[str, str, str] | None] = []
    for matcher in MATCHERS:
        wanted = matcher.of(vm)
        if wanted is None:
            names.append(None)
            continue
        kind = str(wanted.get("kind") or matcher.cluster_kind).lower().removesuffix("s")
        names.append((wanted.get("name") or "", kind, wanted.get("revisionName") or ""))
    return names


def instance_annotations(vm: Object) -> dict[str, str]:
    """Return the annotations of instances of a VirtualMachine that say what they were made with."""
    names = {}
    for matcher in MATCHERS:
        wanted = matcher.of(vm)
        if wanted is not None and wanted.get("name"):
            namespaced = matcher.kind_of(wanted) == matcher.kind
            names[matcher.annotation if namespaced else matcher.cluster_annotation] = wanted["name"]
    return names


def instance_annotations_of(vmi: Object) -> dict[str, str]:
    """Return those annotations of an instance."""
    annotations = get(vmi, "metadata", "annotations") or {}
    names = [name for matcher in MATCHERS for name in (matcher.annotation, matcher.cluster_annotation)]
    return {name: annotations[name] for name in names if name in annotations}
