# SPDX-License-Identifier: GPL-3.0-or-later
"""What a claim that a populator fills needs next: PVC', its volume, or nothing any more. Pure.

PVC' is the claim of a DataVolume of its name, so that whatever fills DataVolumes fills it. When it has its content, its
volume is handed over to the claim, which is bound then. Names, annotations and reasons are CDI's ("CDI Volume
Populators").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from turtles.api import cdi, uploads
from turtles.api.conditions import condition_of
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.api.kinds.volume_clone_source import copied
from turtles.api.objects import Object, annotations_of, get, is_deleted, owner_reference
from turtles.api.phases import FAILED, PENDING, RUNNING, SUCCEEDED, phase_of
from turtles.api.populators import (
    CLONE,
    CLONE_ERROR,
    CLONE_PHASE,
    IMPORT,
    KIND,
    PRIME,
    PROGRESS,
    SELECTED_NODE,
    UPLOAD,
    prime_name,
    reference_of,
)
from turtles.controller.data_volume import claim as claims

CREATED = ("Normal", "CreatedPVCPrimeSuccessfully", "PVC Prime created successfully")
NOT_CREATED = "ErrCreatingPVCPrime"
_MIGRATED = "pv.kubernetes.io/migrated-to"
#: Reasons and messages of events when a claim has its content, and when it gets none.
_SUCCEEDED = {
    IMPORT: ("importSucceeded", "Successfully imported into {}"),
    UPLOAD: ("UploadSucceeded", "Successfully uploaded into {}"),
    CLONE: ("CloneSucceeded", "Successfully cloned into {}"),
}
_FAILED = {
    IMPORT: ("importFailed", "import into {} failed"),
    UPLOAD: ("UploadFailed", "Upload into {} failed"),
    CLONE: ("CloneFailed", "Cloning into {} failed"),
}
#: Phases of a copy that is going on, by those of its DataVolume; PENDING for others.
_CLONE_PHASES = {
    cdi.CLONE_IN_PROGRESS: "HostClone",
    cdi.RESTORE_IN_PROGRESS: "SnapshotClone",
    cdi.SUCCEEDED: "Rebind",
}
#: What of a claim goes for PVC'.
_FORM = ("accessModes", "resources", "storageClassName", "volumeMode")
_Event = tuple[str, str, str]


@dataclass(frozen=True)
class Observed:
    """What there is for a claim; None for what doesn't exist.

    :param source: what its dataSourceRef names. :param storage_class: the one that it names.
    :param data_volume: the one of PVC'. :param in_the_way: somebody else's DataVolume of that name.
    :param prime: PVC'. :param volume: that of PVC', once it has its content.
    """

    source: Object | None = None
    storage_class: Object | None = None
    data_volume: Object | None = None
    in_the_way: bool = False
    prime: Object | None = None
    volume: Object | None = None


@dataclass(frozen=True)
class Plan:
    """What is to happen, in this order.

    :param create: the DataVolume to create. :param give: hand the volume of PVC' over to the claim.
    :param note: annotations of the claim from now on; None removes one.
    :param events: (type, reason, message) to tell about the claim. :param delete: delete the DataVolume.
    """

    create: Object | None = None
    give: bool = False
    note: Mapping[str, str | None] = field(default_factory=dict)
    events: tuple[_Event, ...] = ()
    delete: bool = False


def plan(claim: Object, observed: Observed) -> Plan:
    """Decide what to do for a claim that names a populator and isn't being deleted."""
    reference = reference_of(claim)
    if reference is None or phase_of(claim) == "Lost":
        return Plan()
    if phase_of(claim) == "Bound":
        return _bound(claim, observed, reference.kind)
    if observed.data_volume is None:
        return _begin(claim, observed)
    if is_deleted(observed.data_volume):
        return Plan()
    if phase_of(observed.data_volume) == cdi.SUCCEEDED:
        return _rebind(claim, observed, reference.kind)
    return _watch(claim, observed, reference.kind)


def _bound(claim: Object, observed: Observed, kind: str) -> Plan:
    """The claim has a volume: what was there for it goes."""
    if observed.data_volume is None:
        return Plan()
    done: dict[str, str | None] = {
        cdi.POD_PHASE: cdi.SUCCEEDED,
        PROGRESS: "100.0%",
        PRIME: None,
        cdi.RUNNING_CONDITION: "false",
        cdi.FAILURE_REASON: "Completed",
        cdi.FAILURE_MESSAGE: "Clone Complete" if kind == CLONE else f"{kind[len('Volume') : -len('Source')]} Complete",
    }
    if kind == UPLOAD:
        done[uploads.READY] = "false"
    if kind == CLONE:
        done |= {CLONE_PHASE: SUCCEEDED, CLONE_ERROR: None}
    reason, words = _SUCCEEDED[kind]
    told: tuple[_Event, ...] = ()
    if annotations_of(claim).get(cdi.POD_PHASE) != cdi.SUCCEEDED:
        told = (("Normal", reason, words.format(claim["metadata"]["name"])),)
    keep = annotations_of(claim).get(cdi.RETAIN_POD) == "true"
    return Plan(note=done, delete=not keep and not is_deleted(observed.data_volume), events=told)


def _begin(claim: Object, observed: Observed) -> Plan:
    """There is no PVC': whether there is to be one."""
    reference = reference_of(claim)
    assert reference is not None
    metadata, spec = claim["metadata"], claim["spec"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    if reference.namespace not in ("", metadata["namespace"]):
        message = f"spec.dataSourceRef.namespace {reference.namespace!r} is not the claim's namespace; "
        return _impossible(claim, f"{message}remove it, and use a {reference.kind} in the claim's namespace")
    if observed.source is None or not _is_for(observed.source, claim):
        why = "is for another claim (spec.targetClaim)" if observed.source else "doesn't exist: create it"
        return _impossible(claim, f"{reference.kind} {metadata['namespace']}/{reference.name} {why}")
    if (class_name := spec.get("storageClassName")) is None:
        # It may get one later
        return Plan()
    if not class_name:
        return _impossible(claim, f"PVC {name} has empty storage class name, and a populator needs one")
    if observed.storage_class is None:
        return _impossible(claim, f"storage class {class_name} not found")
    provisioner = str(observed.storage_class.get("provisioner") or "")
    if provisioner.startswith("kubernetes.io/") and not annotations_of(claim).get(_MIGRATED):
        return _impossible(claim, f"can't use populator for PVC {name} with in-tree storage class {provisioner}")
    waits = claims.waits_for_consumer(observed.storage_class) and SELECTED_NODE not in annotations_of(claim)
    if waits and annotations_of(claim).get(cdi.BIND_IMMEDIATELY) in (None, "false"):
        # What was wrong before isn't any more
        was_wrong = annotations_of(claim).get(cdi.FAILURE_REASON) == cdi.ERROR
        return Plan(note={cdi.FAILURE_REASON: "", cdi.FAILURE_MESSAGE: ""} if was_wrong else {})
    if observed.in_the_way:
        return _impossible(claim, f"DataVolume {prime_name(claim)} exists and does not belong to this claim; delete it")
    return Plan(
        note={PRIME: prime_name(claim), **_state(reference.kind, PENDING)}, create=prime(claim, observed.source)
    )


def _is_for(source: Object, claim: Object) -> bool:
    wanted = source["spec"].get("targetClaim")
    return not wanted or bool(wanted == claim["metadata"]["name"])


def _impossible(claim: Object, message: str) -> Plan:
    """Say why there is no PVC'; once, as long as it stays so."""
    noted = {cdi.RUNNING_CONDITION: "false", cdi.FAILURE_REASON: cdi.ERROR, cdi.FAILURE_MESSAGE: message}
    if (reference := reference_of(claim)) is not None and reference.kind == CLONE:
        noted |= {CLONE_PHASE: "Error", CLONE_ERROR: message}
    is_new = annotations_of(claim).get(cdi.FAILURE_MESSAGE) != message
    return Plan(note=noted, events=(("Warning", NOT_CREATED, message),) if is_new else ())


def refused(claim: Object, message: str) -> Plan:
    """Return what to say of a DataVolume that the API server doesn't take."""
    return _impossible(claim, message)


def prime(claim: Object, source: Object) -> Object:
    """Return the DataVolume that makes and fills PVC'."""
    metadata, wanted = claim["metadata"], source["spec"]
    kind = source_kind(claim)
    spec: Object = {"pvc": {key: claim["spec"][key] for key in _FORM if claim["spec"].get(key) is not None}}
    given = ("contentType", "preallocation", "priorityClassName")
    spec |= {key: wanted[key] for key in given if wanted.get(key) is not None}
    if kind == UPLOAD:
        spec["source"] = {"upload": {}}
    else:
        spec["source"] = wanted["source"] if kind == IMPORT else copied(source).as_source()
    passed = (SELECTED_NODE, cdi.RETAIN_POD)
    return {
        "apiVersion": DATA_VOLUME.api_version,
        "kind": DATA_VOLUME.kind,
        "metadata": {
            "name": prime_name(claim),
            "namespace": metadata["namespace"],
            "labels": {cdi.APP: cdi.APP_IMPORTER, "velero.io/exclude-from-backup": "true"},
            "annotations": {
                **{key: annotations_of(claim)[key] for key in passed if key in annotations_of(claim)},
                cdi.BIND_IMMEDIATELY: "true",
                KIND: kind,
            },
            "ownerReferences": [owner_reference({**claim, "apiVersion": "v1", "kind": "PersistentVolumeClaim"})],
        },
        "spec": spec,
    }


def source_kind(claim: Object) -> str:
    """Return the kind that a claim with a populator names."""
    reference = reference_of(claim)
    return reference.kind if reference is not None else ""


def _rebind(claim: Object, observed: Observed, kind: str) -> Plan:
    """PVC' has its content: its volume is handed over."""
    note = {PROGRESS: "100.0%", **_state(kind, cdi.SUCCEEDED)}
    held = get(observed.volume, "spec", "claimRef", "uid")
    if held == claim["metadata"]["uid"]:
        # Whoever binds claims has to see it
        return Plan(note=note)
    if observed.prime is None or observed.volume is None or held != observed.prime["metadata"]["uid"]:
        message = f"the volume of PersistentVolumeClaim {prime_name(claim)}, which has the content of "
        message += f"{claim['metadata']['name']}, is gone or is another claim's; delete DataVolume {prime_name(claim)}"
        return _impossible(claim, message)
    return Plan(note=note, give=True)


def _watch(claim: Object, observed: Observed, kind: str) -> Plan:
    """PVC' is on its way: how far it is, and what is said of it."""
    data_volume = observed.data_volume or {}
    phase, name = phase_of(data_volume), claim["metadata"]["name"]
    running = condition_of(data_volume, cdi.RUNNING) or {}
    restarts = get(data_volume, "status", "restartCount")
    note: dict[str, str | None] = {
        PRIME: prime_name(claim),
        PROGRESS: str(get(data_volume, "status", "progress") or "N/A"),
        cdi.RUNNING_CONDITION: "true" if running.get("status") == "True" else "false",
        cdi.FAILURE_REASON: str(running.get("reason") or ""),
        cdi.FAILURE_MESSAGE: str(running.get("message") or ""),
        cdi.POD_RESTARTS: str(restarts or 0),
        **_state(kind, phase),
    }
    if kind == UPLOAD:
        note[uploads.READY] = annotations_of(observed.prime).get(uploads.READY, "false")
    why = cdi.failure_of(data_volume)
    if kind == CLONE:
        note |= {CLONE_PHASE: "Error", CLONE_ERROR: why} if why else {CLONE_ERROR: None}
    noted = annotations_of(claim)
    is_new = bool(why) and any(noted.get(key) != note[key] for key in (cdi.FAILURE_MESSAGE, cdi.POD_PHASE))
    reason, words = _FAILED[kind] if phase == cdi.FAILED else (cdi.ERROR, "{}")
    text = f"{words.format(name)}: {why}" if phase == cdi.FAILED else why
    return Plan(note=note, events=(("Warning", reason, text),) if is_new else ())


def _state(kind: str, phase: str) -> dict[str, str | None]:
    """Return what tells how far PVC' is, by the phase of its DataVolume."""
    pod = {cdi.SUCCEEDED: SUCCEEDED, cdi.FAILED: FAILED}.get(phase, PENDING)
    if phase.endswith("InProgress") or phase == cdi.UPLOAD_READY:
        pod = RUNNING
    state: dict[str, str | None] = {cdi.POD_PHASE: pod if phase != cdi.SUCCEEDED else RUNNING}
    if kind == CLONE:
        state[CLONE_PHASE] = _CLONE_PHASES.get(phase, PENDING)
    return state
