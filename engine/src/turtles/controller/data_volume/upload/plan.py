# SPDX-License-Identifier: GPL-3.0-or-later
"""What a claim that is to be filled by an upload needs next: scratch space, a Pod, its identity, or nothing. Pure.

All that others hear of it is in annotations of the claim, CDI's: they outlive Pods, and a DataVolume's status is made
of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from turtles.api import cdi, uploads
from turtles.api.objects import Object, annotations_of, get, is_deleted
from turtles.api.phases import FAILED, PENDING, RUNNING, SUCCEEDED, phase_of
from turtles.controller.data_volume import claim as claims
from turtles.controller.data_volume.plan import MAX_RESTARTS
from turtles.controller.data_volume.upload.pod import fingerprint
from turtles.controller.storage_classes import storage_class_of
from turtles.controller.vmi.status import container_trouble

#: Seconds until another look, where nothing would call for it.
_LOOK = 2.0


@dataclass(frozen=True)
class Observed:
    """What there is for a claim; None for what doesn't exist.

    :param pod: its upload server. :param scratch: its scratch space.
    :param in_the_way: what somebody else has made that has the name of one of these.
    :param classes: all StorageClasses.
    :param authorities: virt-api's, in PEM; empty if they aren't known so far.
    :param is_busy: an upload is going on. Only asked for where it matters.
    """

    pod: Object | None = None
    scratch: Object | None = None
    in_the_way: str = ""
    classes: Iterable[Object] = ()
    authorities: str = ""
    is_busy: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to happen, in this order.

    :param note: annotations of the claim from now on.
    :param delete_pod: and :param delete_scratch: delete them.
    :param create_pod: create scratch space if there is none, and the Pod.
    :param identify: give the Pod its identity.
    :param wait: seconds until the next look, or None.
    """

    note: Mapping[str, str] = field(default_factory=dict)
    delete_pod: bool = False
    delete_scratch: bool = False
    create_pod: bool = False
    identify: bool = False
    wait: float | None = None


def is_target(claim: Object) -> bool:
    """Say whether a claim is to be filled by an upload, or has been."""
    spec = claim["spec"]
    return uploads.TARGET in annotations_of(claim) and not spec.get("dataSource") and not spec.get("dataSourceRef")


def is_outdated(pod: Object, authorities: str) -> bool:
    """Say whether an upload server knows other authorities than virt-api's now."""
    return bool(authorities) and annotations_of(pod).get(uploads.AUTHORITIES) != fingerprint(authorities)


def plan(claim: Object, observed: Observed) -> Plan:
    """Decide what to do for a claim."""
    pod, outcome = observed.pod, annotations_of(claim).get(cdi.POD_PHASE)
    if is_deleted(claim) or outcome in (cdi.SUCCEEDED, cdi.FAILED):
        return _done(claim, observed)
    if phase_of(claim) == "Lost":
        return Plan()
    if pod is None:
        return _start(claim, observed)
    if is_deleted(pod):
        return Plan(note={uploads.READY: "false"})
    if uploads.CERTIFICATE not in annotations_of(pod):
        return Plan(identify=True)
    return _watch(claim, observed, pod)


def _done(claim: Object, observed: Observed) -> Plan:
    keep = not is_deleted(claim) and annotations_of(claim).get(cdi.RETAIN_POD) == "true"
    return Plan(
        delete_pod=observed.pod is not None and not is_deleted(observed.pod) and not keep,
        delete_scratch=observed.scratch is not None and not is_deleted(observed.scratch) and not keep,
    )


def _start(claim: Object, observed: Observed) -> Plan:
    """There is no upload server: whether there is to be one."""
    if phase_of(claim) != "Bound":
        storage_class = storage_class_of(claim["spec"].get("storageClassName"), observed.classes)
        immediately = annotations_of(claim).get(cdi.BIND_IMMEDIATELY) == "true"
        if not claims.waits_for_consumer(storage_class) or not immediately:
            return Plan()
    if observed.in_the_way:
        message = f"{observed.in_the_way} exists and does not belong to the upload; delete it, or use another name"
        return Plan(note=_failing(message))
    if not observed.authorities:
        return Plan(wait=_LOOK)
    return Plan(note={cdi.POD_PHASE: PENDING, uploads.READY: "false"}, create_pod=True)


def _watch(claim: Object, observed: Observed, pod: Object) -> Plan:
    """There is an upload server: what it does, and what it says."""
    container: Object = next(iter(get(pod, "status", "containerStatuses") or ()), {})
    restarts = max(_restarts(claim), int(container.get("restartCount") or 0))
    counted = {cdi.POD_RESTARTS: str(restarts)}
    if phase_of(pod) == SUCCEEDED:
        done = {cdi.POD_PHASE: cdi.SUCCEEDED, uploads.READY: "false", cdi.RUNNING_CONDITION: "false"}
        return Plan(note={**counted, **done, cdi.FAILURE_REASON: "Completed", cdi.FAILURE_MESSAGE: "Upload Complete"})
    if is_outdated(pod, observed.authorities) and not observed.is_busy:
        return Plan(note={uploads.READY: "false"}, delete_pod=True)
    ended = get(container, "state", "terminated") or get(container, "lastState", "terminated") or {}
    message = str(ended.get("message") or "").strip() or f"the upload server ended with status {ended.get('exitCode')}"
    if ended.get("reason") == "OOMKilled":
        message = "the upload server needed more memory than its limit allows"
    if ended and restarts >= MAX_RESTARTS:
        failed = _failing(f"{message} (after {restarts} restarts)")
        return Plan(note={**counted, **failed, cdi.POD_PHASE: cdi.FAILED})
    if phase_of(pod) == FAILED:
        words = get(pod, "status", "message") or get(pod, "status", "reason") or message
        return Plan(note={**_failing(str(words)), cdi.POD_RESTARTS: str(restarts + 1)}, delete_pod=True)
    if get(container, "state", "running") is not None:
        ready = "true" if container.get("ready") else "false"
        note = {cdi.POD_PHASE: RUNNING, uploads.READY: ready}
        if ended:
            # What became of the last upload stays readable while the server waits for the next one
            return Plan(note={**counted, **_failing(message), **note})
        running = {cdi.RUNNING_CONDITION: ready, cdi.FAILURE_REASON: "Pod is running", cdi.FAILURE_MESSAGE: ""}
        return Plan(note={**note, **counted, **running})
    if ended:
        return Plan(note={**counted, **_failing(message)})
    if trouble := container_trouble(pod):
        return Plan(note=_failing(": ".join(trouble)))
    return Plan(note={cdi.POD_PHASE: PENDING, uploads.READY: "false"})


def _failing(message: str) -> dict[str, str]:
    return {
        uploads.READY: "false",
        cdi.RUNNING_CONDITION: "false",
        cdi.FAILURE_REASON: cdi.ERROR,
        cdi.FAILURE_MESSAGE: message,
    }


def _restarts(claim: Object) -> int:
    noted = annotations_of(claim).get(cdi.POD_RESTARTS, "0")
    return int(noted) if noted.isascii() and noted.isdigit() else 0
