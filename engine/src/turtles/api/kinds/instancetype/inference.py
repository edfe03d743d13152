# SPDX-License-Identifier: GPL-3.0-or-later
"""The instance type and preference that a volume suggests: names in the labels of what its disk is made from."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from turtles.api import cdi, data_sources
from turtles.api.kind import Missing, Refusal
from turtles.api.kinds.instancetype.matchers import (
    CLAIM,
    DATA_VOLUME,
    IGNORE,
    INSTANCETYPE,
    MATCHERS,
    VOLUME_SNAPSHOT,
    Find,
    Matcher,
    matcher_causes,
    namespace_of,
)
from turtles.api.objects import Object, get

#: What disks are copies of, by the key in a DataVolume's source.
_ORIGINS = {data_sources.CLAIM: CLAIM, data_sources.SNAPSHOT: VOLUME_SNAPSHOT}


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
    ignores = wanted.get("inferFromVolumeFailurePolicy") == IGNORE
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
    suggested = cdi.disk_labels(labelled)
    kind = suggested.get(f"{matcher.label}-kind")
    vm["spec"][matcher.field] = {"name": suggested[matcher.label], **({"kind": kind} if kind else {})}
    if ignores and matcher is INSTANCETYPE:
        # The machine's own memory was for the case that the volume names nothing.
        get(vm, "spec", "template", "spec", "domain").pop("memory", None)


def _volume_objects(vm: Object, volume: str, find: Find) -> Iterator[Object]:
    """Yield the objects whose labels say what suits a volume, the first of them first.

    :raises Refusal: there is no such volume, or one of the objects is missing.
    """
    volumes = get(vm, "spec", "template", "spec", "volumes") or ()
    wanted = next((each for each in volumes if each["name"] == volume), None)
    if wanted is None:
        raise Refusal(f"unable to find volume {volume} to infer defaults", 400)
    if claim := get(wanted, "persistentVolumeClaim", "claimName"):
        yield _needed(CLAIM, namespace_of(vm), claim, find)
    elif name := get(wanted, "dataVolume", "name"):
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
    namespace, missing = namespace_of(vm), ""
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
