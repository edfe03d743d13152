# SPDX-License-Identifier: GPL-3.0-or-later
"""`spec.instancetype` and `spec.preference` of a VirtualMachine: what they may say, and which object they mean.

A machine keeps what it was first started with: its status names a ControllerRevision, which counts rather than the
object itself for as long as the machine names that object. Rules and messages are those of the KubeVirt API.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from turtles.api import cdi, data_sources, labels
from turtles.api.kind import Missing, Refusal
from turtles.api.kinds import instancetype, preference
from turtles.api.language import INVALID, NOT_FOUND, STRING, Cause, Struct, field
from turtles.api.objects import Object, get
from turtles.api.rules import Causes

Find = Callable[[str, str, str], Object]

#: Kinds of Kubernetes itself that are looked up.
REVISION, CLAIM = "ControllerRevision", "PersistentVolumeClaim"
#: The one of snapshot.storage.k8s.io.
VOLUME_SNAPSHOT = "VolumeSnapshot"
#: The one of the Containerized Data Importer.
DATA_VOLUME = "DataVolume"

#: What disks are copies of, by the key in a DataVolume's source.
_ORIGINS = {data_sources.CLAIM: CLAIM, data_sources.SNAPSHOT: VOLUME_SNAPSHOT}
_REJECT, _IGNORE = "Reject", "Ignore"
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
        found: Object | None = get(vm, "spec", self.field)
        return found

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
    field(
        "controllerRevisionRef",
        Struct("The copy in use.", field("name", STRING, "Name of the ControllerRevision.")),
        "The copy of the object that counts for the machine.",
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
    if policy is not None and policy not in (_REJECT, _IGNORE):
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


# --- defaults --------------------------------------------------------------------------------------------------------


def default_matchers(vm: Object, find: Find) -> None:
    """Give the matchers of a VirtualMachine, in place, the names that a volume suggests, and their kinds.

    :param vm: well-formed. Matchers with faults stay as they are.
    :raises Refusal: a volume is to suggest a name and doesn't.
    """
    if matcher_causes(vm):
        return
    for matcher in MATCHERS:
        wanted = matcher.of(vm)
        if wanted is not None and wanted.get("inferFromVolume"):
            _infer(vm, matcher, wanted, find)
    for matcher in MATCHERS:
        wanted = matcher.of(vm)
        if wanted is not None and not wanted.get("kind"):
            wanted["kind"] = matcher.cluster_kind.lower()


class _Silent(Exception):
    """A volume comes from nothing that could have labels. The message says why."""


def _infer(vm: Object, matcher: Matcher, wanted: Object, find: Find) -> None:
    ignores = wanted.get("inferFromVolumeFailurePolicy") == _IGNORE
    message = f"unable to find required {matcher.label} label on the volume"
    objects = _volume_objects(vm, wanted["inferFromVolume"], find)
    labelled = None
    try:
        labelled = next((each for each in objects if matcher.label in cdi.disk_labels(each)), None)
    except _Silent as error:
        message = str(error)
    if labelled is None:
        if ignores:
            del vm["spec"][matcher.field]
            return
        raise Refusal(message, 400)
    found = cdi.disk_labels(labelled)
    kind = found.get(f"{matcher.label}-kind")
    vm["spec"][matcher.field] = {"name": found[matcher.label], **({"kind": kind} if kind else {})}
    if ignores and matcher is INSTANCETYPE:
        # The machine's own memory was for the case that the volume names nothing.
        get(vm, "spec", "template", "spec", "domain").pop("memory", None)


def _volume_objects(vm: Object, volume: str, find: Find) -> Iterator[Object]:
    """Yield the objects whose labels say what suits a volume, the first of them first.

    :raises Refusal: there is no such volume, or one of the objects is missing.
    """
    volumes = get(vm, "spec", "template", "spec", "volumes") or ()
    found = next((each for each in volumes if each["name"] == volume), None)
    if found is None:
        raise Refusal(f"unable to find volume {volume} to infer defaults", 400)
    if claim := get(found, "persistentVolumeClaim", "claimName"):
        yield _needed(CLAIM, _namespace(vm), claim, find)
    elif name := get(found, "dataVolume", "name"):
        yield from _data_volume_objects(vm, name, find)
    else:
        raise _Silent(f"unable to infer defaults from volume {volume} as type is not supported")


def _needed(kind: str, namespace: str, name: str, find: Find) -> Object:
    try:
        return find(kind, namespace, name)
    except Missing as error:
        raise Refusal(str(error), 400) from error


def _data_volume_objects(vm: Object, name: str, find: Find) -> Iterator[Object]:
    """Yield the claim of a DataVolume, the DataVolume or its template, and what it is a copy of."""
    namespace, missing = _namespace(vm), ""
    templates = (each for each in get(vm, "spec", "dataVolumeTemplates") or () if get(each, "metadata", "name") == name)
    data_volume = next(templates, None)
    try:
        yield find(CLAIM, namespace, name)
    except Missing as error:
        missing = str(error)
    try:
        data_volume = find(DATA_VOLUME, namespace, name)
    except Missing:
        if data_volume is None:
            if missing:
                raise Refusal(missing, 400) from None
            return
    yield data_volume
    yield from _origins(data_volume, namespace, find)


def _origins(data_volume: Object, namespace: str, find: Find) -> Iterator[Object]:
    """Yield the DataSource that a DataVolume or a template names, and what either is a copy of."""
    source = data_sources.CopySource.of(get(data_volume, "spec", "source"), namespace)
    reference = get(data_volume, "spec", "sourceRef")
    if reference is not None and source is None:
        source = yield from _source_of(reference, namespace, find)
    elif source is None:
        raise _Silent("unable to infer defaults from DataVolumeSpec as DataVolumeSource is not supported")
    yield _needed(_ORIGINS[source.kind], source.namespace, source.name, find)


def _source_of(reference: Object, namespace: str, find: Find) -> Generator[Object, None, data_sources.CopySource]:
    """Yield the DataSource that is referred to, and return what it leads to."""
    if reference.get("kind") != data_sources.KIND:
        message = (
            f"unable to infer defaults from DataVolumeSourceRef as Kind {reference.get('kind') or ''} is not supported"
        )
        raise _Silent(message)
    where = reference.get("namespace") or namespace
    data_source = _needed(data_sources.KIND, where, reference.get("name") or "", find)
    yield data_source
    try:
        source = data_sources.resolve(data_source, lambda where, name: find(data_sources.KIND, where, name))
    except data_sources.Unresolved:
        source = None
    if source is None:
        raise _Silent("unable to infer defaults from DataSource that doesn't provide DataVolumeSourcePVC")
    return source


# --- lookup ----------------------------------------------------------------------------------------------------------


def find_spec(vm: Object, matcher: Matcher, find: Find) -> Object | None:
    """Return the spec that counts for a VirtualMachine; None if its matcher names nothing.

    :raises Missing: it doesn't exist, or is no such object.
    """
    if (revision := find_revision(vm, matcher, find)) is not None:
        return revision_spec(revision, matcher)
    found = find_object(vm, matcher, find)
    return None if found is None else dict(found["spec"])


def find_object(vm: Object, matcher: Matcher, find: Find) -> Object | None:
    """Return the object that a VirtualMachine's matcher names; None if it names none.

    :raises Missing: it doesn't exist.
    """
    wanted = matcher.of(vm)
    if wanted is None:
        return None
    kind = matcher.kind_of(wanted)
    return find(kind, _namespace(vm) if kind == matcher.kind else "", wanted.get("name") or "")


def find_revision(vm: Object, matcher: Matcher, find: Find) -> Object | None:
    """Return the ControllerRevision that counts for a VirtualMachine instead of the object; None if there is none.

    :raises Missing: it is named and doesn't exist.
    """
    wanted = matcher.of(vm)
    if wanted is None:
        return None
    if named := wanted.get("revisionName"):
        return find(REVISION, _namespace(vm), named)
    in_use = get(vm, "status", matcher.reference, "controllerRevisionRef", "name")
    if not in_use:
        return None
    revision = find(REVISION, _namespace(vm), in_use)
    of = get(revision, "metadata", "labels") or {}
    named = (label_value(wanted.get("name") or ""), matcher.kind_of(wanted))
    return revision if (of.get(labels.REVISION_OF_NAME), of.get(labels.REVISION_OF_KIND)) == named else None


def revision_spec(revision: Object, matcher: Matcher) -> Object:
    """Return the spec of which a ControllerRevision is a copy.

    :raises Missing: it is a copy of something else.
    """
    spec = _of_first_versions(get(revision, "data", "spec"))
    if causes := matcher.validate({"spec": spec}):
        name = revision["metadata"]["name"]
        raise Missing(f'ControllerRevision "{name}" holds no {matcher.kind}: {causes[0].message}')
    return dict(spec)


def _of_first_versions(spec: Any) -> Any:
    """Return the spec in a ControllerRevision: KubeVirt's first ones, of v1alpha1, hold it as bytes."""
    if not isinstance(spec, str):
        return spec
    try:
        return json.loads(base64.b64decode(spec, validate=True))
    except (ValueError, RecursionError):
        return spec


def _namespace(vm: Object) -> str:
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
    found: list[tuple[str, str, str] | None] = []
    for matcher in MATCHERS:
        wanted = matcher.of(vm)
        if wanted is None:
            found.append(None)
            continue
        kind = str(wanted.get("kind") or matcher.cluster_kind).lower().removesuffix("s")
        found.append((wanted.get("name") or "", kind, wanted.get("revisionName") or ""))
    return found


def instance_annotations(vm: Object) -> dict[str, str]:
    """Return the annotations of instances of a VirtualMachine that say what they were made with."""
    found = {}
    for matcher in MATCHERS:
        wanted = matcher.of(vm)
        if wanted is not None and wanted.get("name"):
            namespaced = matcher.kind_of(wanted) == matcher.kind
            found[matcher.annotation if namespaced else matcher.cluster_annotation] = wanted["name"]
    return found


def instance_annotations_of(vmi: Object) -> dict[str, str]:
    """Return those annotations of an instance."""
    annotations = get(vmi, "metadata", "annotations") or {}
    names = [name for matcher in MATCHERS for name in (matcher.annotation, matcher.cluster_annotation)]
    return {name: annotations[name] for name in names if name in annotations}
