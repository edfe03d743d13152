# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DataVolume needs next: a claim, scratch space, an importer's Pod, or nothing any more. Pure.

What became of the import is noted on the claim, as CDI does: that outlives Pods, and the DataVolume's status can be
made of it at any time.
"""

from __future__ import annotations

from dataclasses import replace

from turtles.api import cdi, quantity, uploads
from turtles.api.conditions import condition_of
from turtles.api.data_sources import CopySource
from turtles.api.objects import Object, annotations_of, controller_of, get, is_controlled_by, is_deleted
from turtles.api.phases import FAILED, SUCCEEDED, phase_of
from turtles.controller.data_volume import claim as claims
from turtles.controller.data_volume import transfer
from turtles.controller.data_volume.phase_events import events
from turtles.controller.data_volume.pod import (
    REFUSED,
    SCRATCH_NEEDED,
    has_scratch,
    is_known_to_need_scratch,
    is_pulled_by_node,
    source_of,
)
from turtles.controller.data_volume.status import UNKNOWN_PROGRESS, Running, is_copy, status
from turtles.controller.data_volume.step import Observed, Plan, Step
from turtles.controller.data_volume.waiting import missing, waits_silently
from turtles.controller.storage_classes import storage_class_of
from turtles.controller.vmi.status import container_trouble

#: How many times an importer is started again before the DataVolume fails.
MAX_RESTARTS = 10
#: Seconds between two looks at a running import, whose progress is asked for; and at what waits for somebody else.
_LOOK = 2.0


def plan(data_volume: Object, observed: Observed, now: str) -> Plan:
    """Decide what to do for a DataVolume that isn't being deleted.

    :param now: as the API writes it.
    """
    step = _step(data_volume, observed)
    restarts = restarts_of(observed.target, observed.pod)
    new = status(
        data_volume,
        observed.target,
        step.phase,
        step.running,
        now,
        progress=step.progress,
        restarts=restarts,
    )
    return Plan(new, tuple(events(data_volume, step)), **step.actions())


def restarts_of(target: Object | None, pod: Object | None) -> int:
    """Return how many times the importer was started again: in Pods before this one, and in this one.

    Those of a Pod are noted on the claim when it is deleted, or has succeeded.
    """
    noted = annotations_of(target).get(cdi.POD_RESTARTS, "0")
    before = int(noted) if noted.isascii() and noted.isdigit() else 0
    if pod is None or is_deleted(pod) or cdi.POD_PHASE in annotations_of(target):
        return before
    return before + int((_container(pod) or {}).get("restartCount") or 0)


def is_foreign(data_volume: Object, target: Object) -> bool:
    """Say whether a claim of the DataVolume's name isn't the DataVolume's."""
    return not is_controlled_by(target, data_volume)


def failed(message: str) -> Running:
    """Return what is said of an importer that fails, or can't be started."""
    return Running(False, cdi.ERROR, message)


def _step(data_volume: Object, observed: Observed) -> Step:
    target = observed.target
    if target is None:
        if annotations_of(data_volume).get(cdi.PRE_POPULATED) == data_volume["metadata"]["name"]:
            return Step(cdi.PENDING)
        return _begin(data_volume, observed)
    if is_foreign(data_volume, target):
        return _foreign(data_volume, target)
    if is_deleted(target):
        return Step(cdi.PENDING, delete_pod=observed.pod is not None, delete_scratch=observed.scratch is not None)
    outcome = annotations_of(target).get(cdi.POD_PHASE)
    if outcome in (cdi.SUCCEEDED, cdi.FAILED):
        return _done(data_volume, observed, outcome)
    if phase_of(target) == "Lost":
        return Step(cdi.FAILED, failed(f"the volume of PVC {target['metadata']['name']} is lost"))
    if transfer.source_elsewhere(data_volume) is not None:
        return _handed_over(data_volume, observed, target)
    if source_of(data_volume) == "upload":
        return _uploading(data_volume, observed, target)
    if observed.pod is None:
        return _start(data_volume, observed, target)
    if is_deleted(observed.pod):
        return Step(_phase(data_volume, _scheduled(data_volume)))
    return _watch(data_volume, observed, target, observed.pod)


def _begin(data_volume: Object, observed: Observed) -> Step:
    """There is no claim: whether there is to be one."""
    if (source := transfer.source_elsewhere(data_volume)) is not None:
        return _from_elsewhere(data_volume, source, observed)
    if not source_of(data_volume):
        message = "the DataSource in spec.sourceRef had no source when the DataVolume was created; create it again"
        return Step(cdi.PENDING, failed(message))
    try:
        target = claims.claim(data_volume, observed.classes, observed.source, observed.profiles, observed.settings)
    except claims.ClaimError as error:
        return Step(cdi.PENDING, failed(str(error)))
    if source_of(data_volume) == "snapshot" and (why := _unrestorable(data_volume, observed.snapshot, target)):
        return Step(cdi.PENDING, failed(why))
    return Step(cdi.PENDING, create_target=target)


def _unrestorable(data_volume: Object, snapshot: Object | None, target: Object) -> str:
    """Return why a VolumeSnapshot can't be restored now; empty if it can."""
    source = data_volume["spec"]["source"]["snapshot"]
    name = f"Source VolumeSnapshot {source['namespace']}/{source['name']}"
    if snapshot is None:
        return f"{name} not found"
    if not get(snapshot, "status", "readyToUse"):
        return f"{name} is not ready to use"
    wanted, needed = target["spec"]["resources"]["requests"]["storage"], get(snapshot, "status", "restoreSize")
    if needed is not None and quantity.parse(wanted) < quantity.parse(needed):
        return f"target resources requests storage size is smaller than the source: {name} needs a claim of {needed}"
    return ""


def _from_elsewhere(data_volume: Object, source: CopySource, observed: Observed) -> Step:
    """The disk to copy is in another namespace: the copy is made there, and its volume handed over."""
    move = transfer.move(data_volume, source, observed.aside)
    target = None
    if move.target is not None:
        target = {
            **claims.claim(data_volume, observed.classes, observed.aside.claim, observed.profiles),
            "spec": move.target,
        }
    return Step(
        move.phase,
        move.running,
        create_target=target,
        progress=move.progress,
        create_copy=move.create,
    )


def _handed_over(data_volume: Object, observed: Observed, target: Object) -> Step:
    if phase_of(target) != "Bound":
        move = transfer.hand_over(target, observed.aside)
        return Step(move.phase, move.running, give_volume=move.give)
    return replace(_done(data_volume, observed, cdi.SUCCEEDED), note={cdi.POD_PHASE: cdi.SUCCEEDED})


def _foreign(data_volume: Object, target: Object) -> Step:
    name = data_volume["metadata"]["name"]
    if annotations_of(data_volume).get(cdi.PRE_POPULATED) == name:
        return Step(cdi.SUCCEEDED if phase_of(target) == "Bound" else cdi.PENDING)
    owner = controller_of(target)
    whose = f"belongs to {owner.get('kind')} {owner.get('name')}" if owner else "belongs to nobody"
    message = (
        f'Resource "{name}" already exists and is not managed by DataVolume: the PersistentVolumeClaim {whose}. '
        "It is left unchanged; rename the DataVolume, or delete the claim"
    )
    return Step(cdi.PENDING, failed(message))


def _done(data_volume: Object, observed: Observed, outcome: str) -> Step:
    """The claim says how it ended: what was there for it goes."""
    keep = outcome == cdi.SUCCEEDED and annotations_of(data_volume).get(cdi.RETAIN_POD) == "true"
    running = Running()
    if outcome == cdi.FAILED:
        running = failed(annotations_of(observed.target).get(cdi.FAILURE_MESSAGE) or "the import failed")
    return Step(
        outcome,
        running,
        delete_pod=observed.pod is not None and not is_deleted(observed.pod) and not keep,
        delete_scratch=observed.scratch is not None and not is_deleted(observed.scratch) and not keep,
        delete_copy=observed.aside.copy is not None and not is_deleted(observed.aside.copy),
    )


def _uploading(data_volume: Object, observed: Observed, target: Object) -> Step:
    """Say what becomes of the upload, which is seen to for the claim (:mod:`turtles.controller.data_volume.upload`)."""
    noted = annotations_of(target)
    words = noted.get(cdi.FAILURE_REASON, ""), noted.get(cdi.FAILURE_MESSAGE, "")
    running = Running(noted.get(cdi.RUNNING_CONDITION) == "true", *words)
    if noted.get(uploads.READY) == "true":
        progress = UNKNOWN_PROGRESS if observed.progress is None else f"{min(observed.progress, 100.0):.2f}%"
        return Step(cdi.UPLOAD_READY, running, progress=progress, wait=_LOOK)
    if cdi.POD_PHASE in noted:
        return Step(cdi.UPLOAD_SCHEDULED, running)
    if phase_of(target) == "Bound":
        return Step(cdi.PVC_BOUND, running)
    storage_class = storage_class_of(target["spec"].get("storageClassName"), observed.classes)
    immediately = annotations_of(data_volume).get(cdi.BIND_IMMEDIATELY) == "true"
    waits = claims.waits_for_consumer(storage_class) and not immediately
    return Step(cdi.WAIT_FOR_FIRST_CONSUMER if waits else cdi.PENDING, running)


def _start(data_volume: Object, observed: Observed, target: Object) -> Step:
    """There is no importer: whether there is to be one."""
    if not observed.mounts_images and is_pulled_by_node(data_volume):
        message = "the source registry needs nodes that mount container images as volumes (Kubernetes 1.35, or 1.31 "
        message += "with its gate ImageVolume): remove pullMethod node to let the importer pull the image"
        return Step(_phase(data_volume, cdi.PENDING), failed(message))
    if source_of(data_volume) == "pvc" and (why := _unusable(data_volume, observed)):
        return Step(_scheduled(data_volume), failed(why))
    if observed.in_the_way:
        message = f"{observed.in_the_way} exists and is not managed by the DataVolume; delete it, or use another name"
        return Step(_phase(data_volume, cdi.PENDING), failed(message))
    bound = phase_of(target) == "Bound"
    if not bound:
        immediately = annotations_of(data_volume).get(cdi.BIND_IMMEDIATELY) == "true"
        storage_class = storage_class_of(target["spec"].get("storageClassName"), observed.classes)
        if not claims.waits_for_consumer(storage_class):
            return Step(cdi.PENDING)
        if not immediately:
            return Step(cdi.WAIT_FOR_FIRST_CONSUMER)
    phase = cdi.PVC_BOUND if bound else cdi.PENDING
    if observed.scratch is None and is_known_to_need_scratch(data_volume, mounts_images=observed.mounts_images):
        return Step(phase, create_scratch=claims.scratch(data_volume, target, observed.settings), create_pod=True)
    return Step(phase, create_pod=True)


def _unusable(data_volume: Object, observed: Observed) -> str:
    """Return why the claim to copy can't be copied now; empty if it can."""
    source = data_volume["spec"]["source"]["pvc"]
    name = f"Source PVC {source['namespace']}/{source['name']}"
    if observed.source is None:
        return f"{name} not found"
    if observed.users:
        return f"{name} is in use by VirtualMachineInstance {observed.users[0]}; stop it to let the copy begin"
    noted = annotations_of(observed.source)
    if cdi.IMPORT_SOURCE in noted and noted.get(cdi.POD_PHASE) != cdi.SUCCEEDED:
        return f"{name} has no content yet"
    return ""


def _scheduled(data_volume: Object) -> str:
    return cdi.CLONE_SCHEDULED if is_copy(data_volume) else cdi.IMPORT_SCHEDULED


def _in_progress(data_volume: Object) -> str:
    copies = {"pvc": cdi.CLONE_IN_PROGRESS, "snapshot": cdi.RESTORE_IN_PROGRESS}
    return copies.get(source_of(data_volume), cdi.IMPORT_IN_PROGRESS)


def _watch(data_volume: Object, observed: Observed, target: Object, pod: Object) -> Step:
    """There is an importer: how far it is, and what it says."""
    container, restarts = _container(pod) or {}, restarts_of(target, pod)
    noted = {cdi.POD_RESTARTS: str(restarts)}
    if phase_of(pod) == SUCCEEDED:
        return replace(_done(data_volume, observed, cdi.SUCCEEDED), note={**noted, cdi.POD_PHASE: cdi.SUCCEEDED})
    ended = get(container, "state", "terminated") or get(container, "lastState", "terminated") or {}
    message = str(ended.get("message") or "").strip() or f"the importer ended with status {ended.get('exitCode')}"
    if ended.get("reason") == "OOMKilled":
        message = "the importer needed more memory than its limit allows"
    if ended.get("exitCode") == SCRATCH_NEEDED and not has_scratch(pod):
        create = None if observed.scratch is not None else claims.scratch(data_volume, target, observed.settings)
        return Step(_phase(data_volume, _scheduled(data_volume)), note=noted, create_scratch=create, delete_pod=True)
    if ended.get("exitCode") == REFUSED:
        return _give_up(data_volume, observed, message)
    if ended and restarts >= MAX_RESTARTS:
        return _give_up(data_volume, observed, f"{message} (after {restarts} restarts)")
    if phase_of(pod) == FAILED:
        # Its node evicted or lost it: the next one counts as another start
        words = get(pod, "status", "message") or get(pod, "status", "reason") or message
        if restarts + 1 >= MAX_RESTARTS:
            return _give_up(data_volume, observed, f"{words} (after {restarts} restarts)")
        note = {cdi.POD_RESTARTS: str(restarts + 1)}
        return Step(_phase(data_volume, _scheduled(data_volume)), failed(str(words)), note=note, delete_pod=True)
    if get(container, "state", "running") is not None:
        progress = UNKNOWN_PROGRESS if observed.progress is None else f"{min(observed.progress, 100.0):.2f}%"
        return Step(_in_progress(data_volume), Running(True, "Pod is running"), progress=progress, wait=_LOOK)
    if ended:
        progress = (data_volume.get("status") or {}).get("progress") or UNKNOWN_PROGRESS
        return Step(_in_progress(data_volume), failed(message), progress=progress)
    trouble = container_trouble(pod)
    told = [": ".join(trouble or ()), *observed.told]
    if words := missing(pod, told, f"spec.source.{source_of(data_volume)}"):
        return Step(_scheduled(data_volume), failed(words), wait=_LOOK)
    if trouble:
        return Step(_scheduled(data_volume), failed(": ".join(trouble)))
    waiting = get(container, "state", "waiting") or {}
    scheduled = condition_of(pod, "PodScheduled") or {}
    why = scheduled if scheduled.get("status") == "False" else waiting
    running = Running(False, str(why.get("reason") or ""), str(why.get("message") or ""))
    return Step(_scheduled(data_volume), running, wait=_LOOK if waits_silently(pod) else None)


def _give_up(data_volume: Object, observed: Observed, message: str) -> Step:
    restarts = str(restarts_of(observed.target, observed.pod))
    note = {
        cdi.POD_RESTARTS: restarts,
        cdi.POD_PHASE: cdi.FAILED,
        cdi.FAILURE_REASON: cdi.ERROR,
        cdi.FAILURE_MESSAGE: message,
    }
    step = _done(data_volume, observed, cdi.FAILED)
    return replace(step, running=failed(message), note=note)


def _phase(data_volume: Object, otherwise: str) -> str:
    return phase_of(data_volume) or otherwise


def _container(pod: Object | None) -> Object | None:
    return next(iter(get(pod, "status", "containerStatuses") or ()), None)
