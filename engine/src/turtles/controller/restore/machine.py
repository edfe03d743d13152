# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine and the claims that a restore makes from a snapshot's content. Pure."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jsonpatch

from turtles.api import labels
from turtles.api.kinds.vm import VM
from turtles.api.labels import LAST_APPLIED
from turtles.api.objects import Object, annotations_of, get, labels_of
from turtles.api.run_strategies import HALTED
from turtles.api.snapshots import (
    IN_PLACE,
    LAST_RESTORE,
    PREFIX_TARGET_NAME,
    RESTORE_NAME,
    RESTORE_UID,
    restored_by,
)
from turtles.controller import state_claims
from turtles.controller.restored_claims import own_annotations, restored_spec

_SOURCE_NAME, _SOURCE_NAMESPACE = "restore.kubevirt.io/source-vm-name", "restore.kubevirt.io/source-vm-namespace"


class NotPossible(Exception):
    """What was asked for can't be; the message names the field."""


def volumes(restore: Object, content: Object) -> list[Object]:
    """Return a restore's ``status.restores``: each volume with its claim and what that is filled from."""
    spec, uid = restore["spec"], restore["metadata"]["uid"]
    policy, overrides = spec.get("volumeRestorePolicy"), _overrides(restore)
    restored = []
    for backup in content["spec"].get("volumeBackups") or ():
        volume = backup["volumeName"]
        name = f"restore-{uid}-{volume}"
        if policy == IN_PLACE:
            name = backup["persistentVolumeClaim"]["metadata"]["name"]
        elif policy == PREFIX_TARGET_NAME:
            name = f"{spec['target']['name']}-{volume}"
        restored.append(
            {
                "volumeName": volume,
                "persistentVolumeClaim": overrides.get(volume, {}).get("restoreName") or name,
                "volumeSnapshotName": backup["volumeSnapshotName"],
            }
        )
    return restored


def claim(restore: Object, content: Object, entry: Object, volume_snapshot: Object) -> Object:
    """Return the claim for an entry of ``status.restores``.

    :param volume_snapshot: what it is filled from.
    """
    volume = entry["volumeName"]
    backup = next(each for each in content["spec"]["volumeBackups"] if each["volumeName"] == volume)
    before, override = backup["persistentVolumeClaim"], _overrides(restore).get(volume, {})
    metadata, machine = before["metadata"], content["spec"]["source"]["virtualMachine"]
    source = machine["metadata"]
    kept = {key: value for key, value in (metadata.get("labels") or {}).items() if key != state_claims.LABEL}
    if state_claims.is_in_backup(machine, backup):
        kept[state_claims.LABEL] = state_claims.label_value(restore["spec"]["target"]["name"])
    annotations = own_annotations(metadata)
    marks = {RESTORE_NAME: restore["metadata"]["name"], RESTORE_UID: restore["metadata"]["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": entry["persistentVolumeClaim"],
            "namespace": restore["metadata"]["namespace"],
            "labels": {
                **kept,
                _SOURCE_NAME: source["name"],
                _SOURCE_NAMESPACE: source["namespace"],
                **(override.get("labels") or {}),
            },
            "annotations": {**annotations, **(override.get("annotations") or {}), **marks},
        },
        "spec": restored_spec(backup, volume_snapshot),
    }


def has_state(content: Object | None) -> bool:
    """Say whether a snapshot has what its machine keeps beside its disks."""
    if content is None:
        return False
    vm, backups = content["spec"]["source"]["virtualMachine"], content["spec"].get("volumeBackups") or ()
    return any(state_claims.is_in_backup(vm, backup) for backup in backups)


def is_own(restore: Object, pvc: Object) -> bool:
    """Say whether a claim was created by a restore."""
    return bool(get(pvc, "metadata", "annotations", RESTORE_UID) == restore["metadata"]["uid"])


def restored(restore: Object, content: Object, entries: Sequence[Object], target: Object | None) -> Object:
    """Return the machine as it is to be: stopped, and on the restored claims.

    :param entries: ``status.restores``.
    :param target: the machine that exists; without, a new one with an identity of its own is made.
    :raises NotPossible: patches that can't be applied.
    """
    source = content["spec"]["source"]["virtualMachine"]
    spec = copy.deepcopy(source["spec"])
    if spec.get("running") is not None:
        spec["running"] = False
    else:
        spec["runStrategy"] = HALTED
    _use_claims(spec, {entry["volumeName"]: entry["persistentVolumeClaim"] for entry in entries})
    mark = {LAST_RESTORE: restored_by(restore)}
    if target is not None:
        metadata = {**target["metadata"], "annotations": {**annotations_of(target), **mark}}
        return _checked({**target, "metadata": metadata, "spec": spec})
    _forget_identity(spec["template"]["spec"])
    own = annotations_of(source).items()
    annotations = {key: value for key, value in own if key not in (LAST_APPLIED, LAST_RESTORE)}
    vm: Object = {
        "apiVersion": VM.api_version,
        "kind": VM.kind,
        "metadata": {
            "name": restore["spec"]["target"]["name"],
            "namespace": restore["metadata"]["namespace"],
            "labels": dict(labels_of(source)),
            "annotations": {**annotations, **mark},
        },
        "spec": spec,
    }
    return _checked(_patched(vm, restore["spec"].get("patches") or ()))


def _use_claims(spec: Object, claims: Mapping[str, str]) -> None:
    """Have the machine's volumes name restored claims, which need no DataVolume to make them."""
    template = spec["template"]["spec"]
    kept, made = [], set()
    for volume in template.get("volumes") or ():
        if "memoryDump" in volume:
            continue
        name = claims.get(volume["name"])
        if name is None:
            kept.append(volume)
            continue
        before = volume.get("persistentVolumeClaim") or {}
        made.add((volume.get("dataVolume") or {}).get("name"))
        kept.append({"name": volume["name"], "persistentVolumeClaim": {**before, "claimName": name}})
    if template.get("volumes"):
        template["volumes"] = kept
    templates = [each for each in spec.get("dataVolumeTemplates") or () if get(each, "metadata", "name") not in made]
    if templates:
        spec["dataVolumeTemplates"] = templates
    else:
        spec.pop("dataVolumeTemplates", None)


def _forget_identity(template: Object) -> None:
    """Take away what no two machines may have in common; admission and the network give new ones."""
    domain = template.get("domain") or {}
    firmware = domain.get("firmware") or {}
    for key in ("uuid", "serial"):
        firmware.pop(key, None)
    if "firmware" in domain and not firmware:
        del domain["firmware"]
    for interface in get(domain, "devices", "interfaces") or ():
        interface.pop("macAddress", None)


def _patched(vm: Object, patches: Sequence[str]) -> Object:
    if not patches:
        return vm
    try:
        patched: Any = jsonpatch.apply_patch(vm, [json.loads(text) for text in patches])
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise NotPossible(f"spec.patches can't be applied to the machine: {error}") from error
    return dict(patched)


def _checked(vm: Object) -> Object:
    """Return a machine unless it has labels that admission refuses to users, but not to this engine."""
    template_labels = get(vm, "spec", "template", "metadata", "labels") or {}
    if reserved := [label for label in labels.RESERVED_VMI_LABELS if label in template_labels]:
        raise NotPossible(f"spec.template.metadata.labels: {', '.join(reserved)} can only be set by the engine")
    return vm


def _overrides(restore: Object) -> dict[str, Object]:
    return {each["volumeName"]: each for each in restore["spec"].get("volumeRestoreOverrides") or ()}
