# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines of a pool, and its revisions: names, indexes, and what a machine of one index looks like. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from turtles.api.kinds.vmi.comparison import is_same_template
from turtles.api.labels import POOL_FINALIZER, POOL_REVISION
from turtles.api.objects import Object, get, owner_reference
from turtles.kube.kubevirt import VM
from turtles.kube.resources import CONTROLLERREVISION

#: Sources of volumes with the references that get an index, by the option of `nameGeneration` that asks for it.
_REFERENCES = {
    "appendIndexToConfigMapRefs": ((("configMap",), "name"), (("sysprep", "configMap"), "name")),
    "appendIndexToSecretRefs": (
        (("secret",), "secretName"),
        (("sysprep", "secret"), "name"),
        *(
            ((source, reference), "name")
            for source in ("cloudInitNoCloud", "cloudInitConfigDrive")
            for reference in ("secretRef", "networkDataSecretRef", "metaDataSecretRef")
        ),
    ),
}
_DATA_VOLUMES = (("dataVolume", "name"), ("persistentVolumeClaim", "claimName"))
#: What admission gives a machine for life.
_IDENTITY = ("uuid", "serial")


def name_of(pool: Object, index: int) -> str:
    """Return the name of the machine of an index."""
    return f"{pool['metadata']['name']}-{index}"


def index_of(pool: Object, name: str) -> int | None:
    """Return the index of a machine; None for a name that isn't one of the pool's."""
    text = name.removeprefix(f"{pool['metadata']['name']}-")
    return int(text) if text != name and text.isdecimal() and str(int(text)) == text else None


def indexes(pool: Object, taken: Iterable[str], count: int) -> list[int]:
    """Return the lowest indexes whose names aren't taken."""
    names, free, index = set(taken), list[int](), 0
    while len(free) < count:
        if name_of(pool, index) not in names:
            free.append(index)
        index += 1
    return free


def make_machine(pool: Object, index: int) -> Object:
    """Return a new machine of a pool."""
    metadata = template_of(pool).get("metadata") or {}
    revision = revision_name(pool)
    return {
        "apiVersion": VM.api_version,
        "kind": VM.kind,
        "metadata": {
            "name": name_of(pool, index),
            "namespace": pool["metadata"]["namespace"],
            "labels": {**(metadata.get("labels") or {}), POOL_REVISION: revision},
            "annotations": dict(metadata.get("annotations") or {}),
            "finalizers": [POOL_FINALIZER],
            "ownerReferences": [owner_reference(pool)],
        },
        "spec": _spec(pool, index, revision),
    }


def updated(pool: Object, machine: Object, before: Mapping[str, Any] | None) -> Object:
    """Return a machine as the pool's template has it now.

    What admission gave it for life stays. So do labels and annotations which the template didn't give it.

    :param before: `spec.virtualMachineTemplate` that the machine has so far, if that is known.
    """
    index = index_of(pool, machine["metadata"]["name"])
    assert index is not None
    wanted = make_machine(pool, index)
    before_metadata = get(before, "metadata") or {}
    metadata = {**machine["metadata"]}
    for key in ("labels", "annotations"):
        old, new = before_metadata.get(key) or {}, wanted["metadata"][key]
        kept = {name: value for name, value in (metadata.get(key) or {}).items() if name not in old or name in new}
        metadata[key] = {**kept, **new}
    spec = wanted["spec"]
    _keep_identity(machine, spec)
    return {**machine, "metadata": metadata, "spec": spec}


def _keep_identity(machine: Object, spec: Object) -> None:
    was, new = (get(each, "template", "spec") or {} for each in (machine["spec"], spec))
    before, domain = was.get("domain"), new.get("domain")
    if not before or domain is None:
        return
    if was.get("architecture") and not new.get("architecture"):
        new["architecture"] = was["architecture"]
    kept = {key: value for key, value in (before.get("firmware") or {}).items() if key in _IDENTITY and value}
    if kept:
        domain["firmware"] = {**(domain.get("firmware") or {}), **kept}
    if (type_ := get(before, "machine", "type")) and not get(domain, "machine", "type"):
        domain["machine"] = {**(domain.get("machine") or {}), "type": type_}


def _spec(pool: Object, index: int, revision: str) -> Object:
    spec: Object = copy.deepcopy(template_of(pool).get("spec") or {})
    template = spec["template"] = spec.get("template") or {}
    metadata = template["metadata"] = template.get("metadata") or {}
    metadata["labels"] = {**(metadata.get("labels") or {}), POOL_REVISION: revision}
    own = set()
    for data_volume in spec.get("dataVolumeTemplates") or ():
        own.add(data_volume["metadata"]["name"])
        data_volume["metadata"]["name"] += f"-{index}"
    options = pool["spec"].get("nameGeneration") or {}
    for volume in get(template, "spec", "volumes") or ():
        for source, key in _DATA_VOLUMES:
            if get(volume, source, key) in own:
                volume[source][key] += f"-{index}"
        for option, references in _REFERENCES.items():
            for path, key in references if options.get(option) else ():
                if (reference := get(volume, *path)) and reference.get(key):
                    reference[key] += f"-{index}"
    return spec


# Revisions


def template_of(pool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the template of the machines; also of what a revision keeps of a pool."""
    return get(dict(pool), "spec", "virtualMachineTemplate") or {}


def revision_name(pool: Object) -> str:
    """Return the name of the revision of the pool's present generation."""
    return f"{pool['metadata']['name']}-{pool['metadata'].get('generation') or 0}"


def make_revision(pool: Object) -> Object:
    """Return the ControllerRevision of the pool's present generation."""
    name = revision_name(pool)
    return {
        "apiVersion": CONTROLLERREVISION.api_version,
        "kind": CONTROLLERREVISION.kind,
        "metadata": {
            "name": name,
            "namespace": pool["metadata"]["namespace"],
            # By which pools' revisions are told from those of machines
            "labels": {POOL_REVISION: name},
            "ownerReferences": [owner_reference(pool)],
        },
        "data": copy.deepcopy(pool["spec"]),
        "revision": int(pool["metadata"].get("generation") or 0),
    }


def template_in(revision: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the template that a revision keeps; None without a revision."""
    return None if revision is None else (revision.get("data") or {}).get("virtualMachineTemplate") or {}


def revision_of(obj: Mapping[str, Any]) -> str | None:
    """Return the name of the revision that a machine or an instance was made from."""
    name = get(dict(obj), "metadata", "labels", POOL_REVISION)
    return str(name) if name else None


def is_same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two templates of machines make the same instance."""
    mine, theirs = (get(dict(each), "spec", "template") or {} for each in (one, other))
    if (mine.get("metadata") or {}) != (theirs.get("metadata") or {}):
        return False
    return is_same_template(mine.get("spec") or {}, theirs.get("spec") or {})


def has_same_disks(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two templates of machines ask for the same DataVolumes."""
    mine, theirs = (get(dict(each), "spec", "dataVolumeTemplates") or [] for each in (one, other))
    return bool(mine == theirs)
