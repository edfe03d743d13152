# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DataVolume needs next: a claim, scratch space, an importer's Pod, or nothing any more. Pure.

What became of the import is noted on the claim, as CDI does: that outlives Pods, and the DataVolume's status can be
made of it at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from turtles.api import cdi, quantity, uploads
from turtles.api.conditions import get_condition
from turtles.api.data_sources import CopySource
from turtles.api.import_settings import DEFAULT, ImportSettings
from turtles.api.objects import Object, controller_of, get, is_deleted
from turtles.api.phases import phase_of
from turtles.controller.data_volume import claim as claims
from turtles.controller.data_volume import transfer
from turtles.controller.data_volume.pod import (
    REFUSED,
    SCRATCH_NEEDED,
    has_scratch,
    is_known_to_need_scratch,
    is_pulled_by_node,
    source_of,
)
from turtles.controller.data_volume.status import UNKNOWN_PROGRESS, Running, is_copy, status
from turtles.controller.data_volume.waiting import missing, waits_silently
from turtles.controller.vmi.status import container_trouble

#: How many times an importer is started again before the DataVolume fails.
MAX_RESTARTS = 10
#: Seconds between two looks at a running import, whose progress is asked for; and at what waits for somebody else.
_LOOK = 2.0

#: What is done, by the source, and what was done: words of events.
_IDLE = Running()


@dataclass(frozen=True)
class Surroundings:
    """What there is for a DataVolume; None for what doesn't exist.

    :param target: the claim of its name, its own or not. :param scratch: its scratch space. :param pod: its importer.
    :param in_the_way: what somebody else has made that has the name of its scratch space, or of its importer.
    :param classes: all StorageClasses.
    :param progress: what the importer says, in per cent.
    :param mounts_images: Pods can have volumes of container images.
    :param source: the claim to copy. :param users: machines that use it, so that it may change.
    :param snapshot: the VolumeSnapshot to restore.
    :param aside: what there is beside a source in another namespace.
    :param profiles: all StorageProfiles. :param settings: those of all imports.
    :param told: what events say about volumes that the importer can't have.
    """

    target: Object | None = None
    scratch: Object | None = None
    pod: Object | None = None
    in_the_way: str = ""
    classes: Iterable[Object] = ()
    progress: float | None = None
    mounts_images: bool = True
    source: Object | None = None
    users: Sequence[str] = ()
    snapshot: Object | None = None
    aside: transfer.Aside = transfer.NOTHING
    profiles: Iterable[Object] = ()
    settings: ImportSettings = DEFAULT
    told: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """What is to happen, in this order.

    :param note: annotations of the claim from now on.
    :param create_copy: the DataVolume to create beside a source in another namespace.
    :param create_target: the claim to create. :param create_scratch: likewise.
    :param give_volume: hand the volume of the copy beside the source over to the claim.
    :param create_pod: create the importer's Pod.
    :param delete_pod: and :param delete_scratch: delete them. :param delete_copy: likewise.
    :param status: of the DataVolume from now on.
    :param events: (type, reason, message) to tell about it.
    :param wait: seconds until the next look, or None.
    """

    status: Object
    note: Mapping[str, str] = field(default_factory=dict)
    create_target: Object | None = None
    create_scratch: Object | None = None
    create_pod: bool = False
    delete_pod: bool = False
    delete_scratch: bool = False
    events: tuple[tuple[str, str, str], ...] = ()
    wait: float | None = None
    create_copy: Object | None = None
    give_volume: bool = False
    delete_copy: bool = False


@dataclass(frozen=True)
class _Step:
    """A plan without what is told of it."""

    phase: str
    running: Running = _IDLE
    note: Mapping[str, str] = field(default_factory=dict)
    create_target: Object | None = None
    create_scratch: Object | None = None
    create_pod: bool = False
    delete_pod: bool = False
    delete_scratch: bool = False
    progress: str = UNKNOWN_PROGRESS
    wait: float | None = None
    create_copy: Object | None = None
    give_volume: bool = False
    delete_copy: bool = False


def plan(data_volume: Object, around: Surroundings, now: str) -> Plan:
    """Decide what to do for a DataVolume that isn't being deleted.

    :param now: as the API writes it.
    """
    step = _step(data_volume, around)
    restarts = restarts_of(around.target, around.pod)
    new = status(
        data_volume,
        around.target,
        step.phase,
        step.running,
        now,
        progress=step.progress,
        restarts=restarts,
    )
    return Plan(
        new,
        step.note,
        step.create_target,
        step.create_scratch,
        step.create_pod,
        step.delete_pod,
        step.delete_scratch,
        tuple(_events(data_volume, step)),
        step.wait,
        step.create_copy,
        step.give_volume,
        step.delete_copy,
    )


def restarts_of(target: Object | None, pod: Object | None) -> int:
    """Return how many times the importer was started again: in Pods before this one, and in this one.

    Those of a Pod are noted on the claim when it is deleted, or has succeeded.
    """
    noted = _annotations(target).get(cdi.POD_RESTARTS, "0")
    before = int(noted) if noted.isascii() and noted.isdigit() else 0
    if pod is None or is_deleted(pod) or cdi.POD_PHASE in _annotations(target):
        return before
    return before + int((_container(pod) or {}).get("restartCount") or 0)


def is_foreign(data_volume: Object, target: Object) -> bool:
    """Say whether a claim of the DataVolume's name isn't the DataVolume's."""
    return bool((controller_of(target) or {}).get("uid") != data_volume["metadata"]["uid"])


def failed(message: str) -> Running:
    """Return what is said of an importer that fails, or can't be started."""
    return Running(False, cdi.ERROR, message)


def _step(data_volume: Object, around: Surroundings) -> _Step:
    target = around.target
    if target is None:
        if _annotations(data_volume).get(cdi.PRE_POPULATED) == data_volume["metadata"]["name"]:
            return _Step(cdi.PENDING)
        return _begin(data_volume, around)
    if is_foreign(data_volume, target):
        return _foreign(data_volume, target)
    if is_deleted(target):
        return _Step(cdi.PENDING, delete_pod=around.pod is not None, delete_scratch=around.scratch is not None)
    outcome = _annotations(target).get(cdi.POD_PHASE)
    if outcome in (cdi.SUCCEEDED, cdi.FAILED):
        return _done(data_volume, around, outcome)
    if get(target, "status", "phase") == "Lost":
        return _Step(cdi.FAILED, failed(f"the volume of PVC {target['metadata']['name']} is lost"))
    if transfer.source_elsewhere(data_volume) is not None:
        return _handed_over(data_volume, around, target)
    if source_of(data_volume) == "upload":
        return _uploading(data_volume, around, target)
    if around.pod is None:
        return _start(data_volume, around, target)
    if is_deleted(around.pod):
        return _Step(_phase(data_volume, _scheduled(data_volume)))
    return _watch(data_volume, around, target, around.pod)


def _begin(data_volume: Object, around: Surroundings) -> _Step:
    """There is no claim: whether there is to be one."""
    if (source := transfer.source_elsewhere(data_volume)) is not None:
        return _from_elsewhere(data_volume, source, around)
    if not source_of(data_volume):
        message = "the DataSource of spec.sourceRef led to nothing when the DataVolume was created; create it again"
        return _Step(cdi.PENDING, failed(message))
    try:
        target = claims.claim(data_volume, around.classes, around.source, around.profiles, around.settings)
    except claims.ClaimError as error:
        return _Step(cdi.PENDING, failed(str(error)))
    if source_of(data_volume) == "snapshot" and (why := _unrestorable(data_volume, around.snapshot, target)):
        return _Step(cdi.PENDING, failed(why))
    return _Step(cdi.PENDING, create_target=target)


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


def _from_elsewhere(data_volume: Object, source: CopySource, around: Surroundings) -> _Step:
    """The disk to copy is in another namespace: the copy is made there, and its volume handed over."""
    move = transfer.move(data_volume, source, around.aside)
    target = None
    if move.target is not None:
        target = {**claims.claim(data_volume, around.classes, around.aside.claim, around.profiles), "spec": move.target}
    return _Step(
        move.phase,
        move.running,
        create_target=target,
        progress=move.progress,
        create_copy=move.create,
    )


def _handed_over(data_volume: Object, around: Surroundings, target: Object) -> _Step:
    if get(target, "status", "phase") != "Bound":
        move = transfer.hand_over(target, around.aside)
        return _Step(move.phase, move.running, give_volume=move.give)
    return replace(_done(data_volume, around, cdi.SUCCEEDED), note={cdi.POD_PHASE: cdi.SUCCEEDED})


def _foreign(data_volume: Object, target: Object) -> _Step:
    name = data_volume["metadata"]["name"]
    if _annotations(data_volume).get(cdi.PRE_POPULATED) == name:
        return _Step(cdi.SUCCEEDED if get(target, "status", "phase") == "Bound" else cdi.PENDING)
    owner = controller_of(target)
    whose = f"belongs to {owner.get('kind')} {owner.get('name')}" if owner else "belongs to nobody"
    message = (
        f'Resource "{name}" already exists and is not managed by DataVolume: the PersistentVolumeClaim {whose}. '
        "It is left as it is; give the DataVolume another name, or delete the claim"
    )
    return _Step(cdi.PENDING, failed(message))


def _done(data_volume: Object, around: Surroundings, outcome: str) -> _Step:
    """The claim says how it ended: what was there for it goes."""
    keep = outcome == cdi.SUCCEEDED and _annotations(data_volume).get(cdi.RETAIN_POD) == "true"
    running = Running()
    if outcome == cdi.FAILED:
        running = failed(_annotations(around.target).get(cdi.FAILURE_MESSAGE) or "the import failed")
    return _Step(
        outcome,
        running,
        delete_pod=around.pod is not None and not is_deleted(around.pod) and not keep,
        delete_scratch=around.scratch is not None and not is_deleted(around.scratch) and not keep,
        delete_copy=around.aside.copy is not None and not is_deleted(around.aside.copy),
    )


def _uploading(data_volume: Object, around: Surroundings, target: Object) -> _Step:
    """Say what becomes of the upload, which is seen to for the claim (:mod:`turtles.controller.data_volume.upload`)."""
    noted = _annotations(target)
    words = noted.get(cdi.FAILURE_REASON, ""), noted.get(cdi.FAILURE_MESSAGE, "")
    running = Running(noted.get(cdi.RUNNING_CONDITION) == "true", *words)
    if noted.get(uploads.READY) == "true":
        progress = UNKNOWN_PROGRESS if around.progress is None else f"{min(around.progress, 100.0):.2f}%"
        return _Step(cdi.UPLOAD_READY, running, progress=progress, wait=_LOOK)
    if cdi.POD_PHASE in noted:
        return _Step(cdi.UPLOAD_SCHEDULED, running)
    if get(target, "status", "phase") == "Bound":
        return _Step(cdi.PVC_BOUND, running)
    found = claims.storage_class_of(target["spec"].get("storageClassName"), around.classes)
    immediately = _annotations(data_volume).get(cdi.BIND_IMMEDIATELY) == "true"
    waits = claims.waits_for_consumer(found) and not immediately
    return _Step(cdi.WAIT_FOR_FIRST_CONSUMER if waits else cdi.PENDING, running)


def _start(data_volume: Object, around: Surroundings, target: Object) -> _Step:
    """There is no importer: whether there is to be one."""
    if not around.mounts_images and is_pulled_by_node(data_volume):
        message = "the source registry needs nodes that mount container images as volumes (Kubernetes 1.35, or 1.31 "
        message += "with its gate ImageVolume): leave out pullMethod node, and the importer pulls the image"
        return _Step(_phase(data_volume, cdi.PENDING), failed(message))
    if source_of(data_volume) == "pvc" and (why := _unusable(data_volume, around)):
        return _Step(_scheduled(data_volume), failed(why))
    if around.in_the_way:
        message = f"{around.in_the_way} exists and is not managed by the DataVolume; delete it, or give another name"
        return _Step(_phase(data_volume, cdi.PENDING), failed(message))
    bound = get(target, "status", "phase") == "Bound"
    if not bound:
        immediately = _annotations(data_volume).get(cdi.BIND_IMMEDIATELY) == "true"
        found = claims.storage_class_of(target["spec"].get("storageClassName"), around.classes)
        if not claims.waits_for_consumer(found):
            return _Step(cdi.PENDING)
        if not immediately:
            return _Step(cdi.WAIT_FOR_FIRST_CONSUMER)
    phase = cdi.PVC_BOUND if bound else cdi.PENDING
    if around.scratch is None and is_known_to_need_scratch(data_volume, mounts_images=around.mounts_images):
        return _Step(phase, create_scratch=claims.scratch(data_volume, target, around.settings), create_pod=True)
    return _Step(phase, create_pod=True)


def _unusable(data_volume: Object, around: Surroundings) -> str:
    """Return why the claim to copy can't be copied now; empty if it can."""
    source = data_volume["spec"]["source"]["pvc"]
    name = f"Source PVC {source['namespace']}/{source['name']}"
    if around.source is None:
        return f"{name} not found"
    if around.users:
        return f"{name} is in use by VirtualMachineInstance {around.users[0]}; stop it, and it is copied"
    noted = _annotations(around.source)
    if cdi.IMPORT_SOURCE in noted and noted.get(cdi.POD_PHASE) != cdi.SUCCEEDED:
        return f"{name} has no content so far"
    return ""


def _scheduled(data_volume: Object) -> str:
    return cdi.CLONE_SCHEDULED if is_copy(data_volume) else cdi.IMPORT_SCHEDULED


def _in_progress(data_volume: Object) -> str:
    copies = {"pvc": cdi.CLONE_IN_PROGRESS, "snapshot": cdi.RESTORE_IN_PROGRESS}
    return copies.get(source_of(data_volume), cdi.IMPORT_IN_PROGRESS)


def _watch(data_volume: Object, around: Surroundings, target: Object, pod: Object) -> _Step:
    """There is an importer: how far it is, and what it says."""
    container, restarts = _container(pod) or {}, restarts_of(target, pod)
    noted = {cdi.POD_RESTARTS: str(restarts)}
    if get(pod, "status", "phase") == "Succeeded":
        return replace(_done(data_volume, around, cdi.SUCCEEDED), note={**noted, cdi.POD_PHASE: cdi.SUCCEEDED})
    ended = get(container, "state", "terminated") or get(container, "lastState", "terminated") or {}
    message = str(ended.get("message") or "").strip() or f"the importer ended with status {ended.get('exitCode')}"
    if ended.get("reason") == "OOMKilled":
        message = "the importer needed more memory than its limit allows"
    if ended.get("exitCode") == SCRATCH_NEEDED and not has_scratch(pod):
        create = None if around.scratch is not None else claims.scratch(data_volume, target, around.settings)
        return _Step(_phase(data_volume, _scheduled(data_volume)), note=noted, create_scratch=create, delete_pod=True)
    if ended.get("exitCode") == REFUSED:
        return _give_up(data_volume, around, message)
    if ended and restarts >= MAX_RESTARTS:
        return _give_up(data_volume, around, f"{message} (after {restarts} restarts)")
    if get(pod, "status", "phase") == "Failed":
        # Its node evicted or lost it: the next one counts as another start
        words = get(pod, "status", "message") or get(pod, "status", "reason") or message
        if restarts + 1 >= MAX_RESTARTS:
            return _give_up(data_volume, around, f"{words} (after {restarts} restarts)")
        note = {cdi.POD_RESTARTS: str(restarts + 1)}
        return _Step(_phase(data_volume, _scheduled(data_volume)), failed(str(words)), note=note, delete_pod=True)
    if get(container, "state", "running") is not None:
        progress = UNKNOWN_PROGRESS if around.progress is None else f"{min(around.progress, 100.0):.2f}%"
        return _Step(_in_progress(data_volume), Running(True, "Pod is running"), progress=progress, wait=_LOOK)
    if ended:
        progress = (data_volume.get("status") or {}).get("progress") or UNKNOWN_PROGRESS
        return _Step(_in_progress(data_volume), failed(message), progress=progress)
    trouble = container_trouble(pod)
    told = [": ".join(trouble or ()), *around.told]
    if words := missing(pod, told, f"spec.source.{source_of(data_volume)}"):
        return _Step(_scheduled(data_volume), failed(words), wait=_LOOK)
    if trouble:
        return _Step(_scheduled(data_volume), failed(": ".join(trouble)))
    waiting = get(container, "state", "waiting") or {}
    scheduled = get_condition(get(pod, "status", "conditions"), "PodScheduled") or {}
    why = scheduled if scheduled.get("status") == "False" else waiting
    running = Running(False, str(why.get("reason") or ""), str(why.get("message") or ""))
    return _Step(_scheduled(data_volume), running, wait=_LOOK if waits_silently(pod) else None)


def _give_up(data_volume: Object, around: Surroundings, message: str) -> _Step:
    restarts = str(restarts_of(around.target, around.pod))
    note = {
        cdi.POD_RESTARTS: restarts,
        cdi.POD_PHASE: cdi.FAILED,
        cdi.FAILURE_REASON: cdi.ERROR,
        cdi.FAILURE_MESSAGE: message,
    }
    step = _done(data_volume, around, cdi.FAILED)
    return replace(step, running=failed(message), note=note)


def _phase(data_volume: Object, otherwise: str) -> str:
    return phase_of(data_volume) or otherwise


def _events(data_volume: Object, step: _Step) -> Iterable[tuple[str, str, str]]:
    """Return what is told: phases when they are new, and each new failure."""
    name, phase = data_volume["metadata"]["name"], phase_of(data_volume)
    if step.phase != phase:
        told = {
            cdi.IMPORT_SCHEDULED: f"Import into {name} scheduled",
            cdi.IMPORT_IN_PROGRESS: f"Import into {name} in progress",
            cdi.CLONE_SCHEDULED: f"Cloning into {name} scheduled",
            cdi.CLONE_IN_PROGRESS: f"Cloning into {name} in progress",
            cdi.RESTORE_IN_PROGRESS: f"Cloning from a snapshot into {name} in progress",
            cdi.TRANSFER_IN_PROGRESS: f"Handing the copy over to {name} in progress",
            cdi.UPLOAD_SCHEDULED: f"Upload into {name} scheduled",
            cdi.UPLOAD_READY: f"Upload into {name} ready",
            cdi.WAIT_FOR_FIRST_CONSUMER: f"PVC {name} is pending until a Pod uses it",
        }
        if step.phase in told:
            yield "Normal", step.phase, told[step.phase]
        elif step.phase == cdi.SUCCEEDED:
            words = _words(data_volume)
            yield "Normal", f"{words[0]}Succeeded", f"Successfully {words[1]} into PVC {name}"
    if step.running.reason != cdi.ERROR:
        return
    before = get_condition(get(data_volume, "status", "conditions"), cdi.RUNNING) or {}
    if before.get("message") != step.running.message or step.phase != phase:
        reason = f"{_words(data_volume)[0]}Failed" if step.phase == cdi.FAILED else cdi.ERROR
        yield "Warning", reason, step.running.message


def _words(data_volume: Object) -> tuple[str, str]:
    """Return what happens to a DataVolume in words: the noun of its events' reasons, and what has been done."""
    if is_copy(data_volume):
        return "Clone", "cloned"
    return ("Upload", "uploaded") if source_of(data_volume) == "upload" else ("Import", "imported")


def _annotations(obj: Mapping[str, Any] | None) -> Mapping[str, str]:
    return ((obj or {}).get("metadata") or {}).get("annotations") or {}


def _container(pod: Object | None) -> Object | None:
    return next(iter(get(pod, "status", "containerStatuses") or ()), None)
