# SPDX-License-Identifier: GPL-3.0-or-later
"""What a DataImportCron needs next: an answer of its registry, an import, or fewer of them. Pure.

Of a claim, the uid stands for what a registry's digest is: a claim that has been made again is a newer one.

Names, conditions and their words are CDI's (controller of DataImportCrons). Its state is in the annotations and the
status of the object, so that it goes on from there whatever happens.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from turtles.api import cdi, times
from turtles.api.conditions import conditions_in, set_condition
from turtles.api.data_sources import CLAIM, CopySource
from turtles.api.kinds.data_import_cron import KEPT, NEVER, RETAIN_NONE
from turtles.api.kinds.data_source import DATA_SOURCE
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.api.objects import Object, annotations_of, get, is_deleted, labels_of, owner_reference
from turtles.api.phases import SUCCEEDED, is_final, phase_of
from turtles.api.schedules import ScheduleError, next_time
from turtles.controller.data_volume.waiting import missing
from turtles.controller.vmi.status import container_trouble

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UID = re.compile(r"uid:[0-9A-Za-z-]{1,253}")
#: Characters of a digest in a DataVolume's name.
_SHORT = 12
#: Seconds until a registry is asked again that gave no answer which can be used.
_AGAIN = 60.0


@dataclass(frozen=True)
class Observed:
    """What there is for a DataImportCron; None for what doesn't exist.

    :param data_volume: the one of the current import. :param claim: its claim.
    :param data_volumes: all of the DataImportCron. :param claims: likewise.
    :param data_source: the one of the name that it manages. :param poller: its poller's Pod.
    :param in_the_way: the DataVolume of the name of the next import, which isn't the DataImportCron's.
    :param origin: the claim to copy. :param refusal: why its creator may not copy it; empty if they may.
    :param told: what events say about volumes that the poller can't have.
    """

    data_volume: Object | None = None
    claim: Object | None = None
    data_volumes: Sequence[Object] = ()
    claims: Sequence[Object] = ()
    data_source: Object | None = None
    poller: Object | None = None
    in_the_way: Object | None = None
    origin: Object | None = None
    refusal: str = ""
    told: Sequence[str] = ()


@dataclass
class Plan:
    """What is to happen, in this order.

    :ivar annotations: of the DataImportCron from now on, beside others; None removes one.
    :ivar create_poller: create the poller's Pod. :ivar delete_poller: delete it.
    :ivar create: the DataVolume to create.
    :ivar note: annotations of the current claim from now on.
    :ivar create_source: the DataSource to create. :ivar patch_source: what to change of it.
    :ivar delete: DataVolumes and claims to delete.
    :ivar status: of the DataImportCron from now on.
    :ivar wait: seconds until the next look, or None.
    """

    status: Object
    annotations: dict[str, str | None] = field(default_factory=dict)
    create_poller: bool = False
    delete_poller: bool = False
    create: Object | None = None
    note: Mapping[str, str] = field(default_factory=dict)
    create_source: Object | None = None
    patch_source: Object | None = None
    delete: list[Object] = field(default_factory=list)
    wait: float | None = None


def import_name(cron: Object, digest: str) -> str:
    """Return the name of the DataVolume with an image, or with a copy of a claim."""
    return f"{cron['spec']['managedDataSource']}-{digest.partition(':')[2][:_SHORT].rstrip('-').lower()}"


def copied_claim(cron: Object) -> CopySource | None:
    """Return the claim of which a DataImportCron makes copies; None if it imports images."""
    source = CopySource.of(get(cron, "spec", "template", "spec", "source"), cron["metadata"]["namespace"])
    return source if source is not None and source.kind == CLAIM else None


def current_import(cron: Object) -> Mapping[str, str] | None:
    """Return the import that is going on, or the newest one."""
    return next(iter(get(cron, "status", "currentImports") or ()), None)


def desired_digest(cron: Object) -> str:
    """Return the digest that the source has, as far as that is known; empty if it isn't."""
    noted = str(annotations_of(cron).get(cdi.DESIRED_DIGEST) or "")
    pattern = _DIGEST if copied_claim(cron) is None else _UID
    return noted if pattern.fullmatch(noted) else ""


def plan(cron: Object, observed: Observed, now: datetime) -> Plan:
    """Decide what is to happen."""
    decided = Plan(copy.deepcopy(cron.get("status") or {}))
    trouble = _poll(cron, observed, decided, now)
    digest = decided.annotations.get(cdi.DESIRED_DIGEST) or desired_digest(cron)
    current = current_import(cron)
    is_complete, progressing = _progress(observed)
    if is_complete and current is not None:
        _complete(cron, current, observed, decided, times.rfc3339(now))
    elif current is not None and observed.data_volume is None:
        # Somebody has deleted it: it is imported again
        current = None
        decided.status.pop("currentImports", None)
    is_outdated = bool(digest) and (current is None or current["Digest"] != digest)
    if is_outdated:
        state = ("False", "Outdated", "Source digest updated since last import")
        if observed.data_volume is not None and not is_complete and cdi.failure_of(observed.data_volume):
            # What can't be imported is in the way of what came after it
            decided.delete.append(observed.data_volume)
            decided.status.pop("currentImports", None)
        elif is_complete or current is None:
            if observed.in_the_way is not None:
                name = import_name(cron, digest)
                message = f"DataVolume {name} exists and does not belong to this DataImportCron; delete it"
                state = ("False", "ImportFailed", message)
            elif observed.refusal:
                state = ("False", "ImportFailed", trouble)
            else:
                decided.create = _data_volume(cron, digest)
                decided.status["currentImports"] = [{"DataVolumeName": import_name(cron, digest), "Digest": digest}]
    elif is_complete:
        decided.status["sourceFormat"] = "pvc"
        state = ("True", "UpToDate", "Latest import is up to date")
    elif current is not None:
        state = ("False", "ImportProgressing", "Import is progressing")
    else:
        state = ("False", "NoDigest", f"No source digest: {trouble}" if trouble else "No source digest")
    if trouble and state[1] == "UpToDate":
        state = (*state[:2], f"{state[2]}(last known state): {trouble}")
    _source(cron, observed.data_source, decided)
    last = decided.annotations.get(cdi.LAST_CRON_TIME) or annotations_of(cron).get(cdi.LAST_CRON_TIME)
    if times.parse_time(last):
        decided.status["lastExecutionTimestamp"] = last
    conditions = conditions_in(decided.status)
    for type_, values in ((cdi.PROGRESSING, progressing), (cdi.UP_TO_DATE, state)):
        set_condition(conditions, type_, *values, times.rfc3339(now), probe_time=False)
    return decided


def _poll(cron: Object, observed: Observed, decided: Plan, now: datetime) -> str:
    """Decide about the poller; return why there is no answer, or an empty string."""
    schedule, pod = cron["spec"].get("schedule"), observed.poller
    if not schedule:
        decided.delete_poller = pod is not None and not is_deleted(pod)
        return ""
    try:
        following = next_time(schedule, now)
    except ScheduleError as error:
        return str(error)
    noted = times.parse_time(annotations_of(cron).get(cdi.NEXT_CRON_TIME))
    due = noted if noted is not None and noted <= following else now
    if (source := copied_claim(cron)) is not None:
        return _look_at(source, observed, decided, (due, now, following))
    if pod is None:
        decided.create_poller = due <= now
        decided.wait = None if decided.create_poller else (due - now).total_seconds()
        return ""
    if is_deleted(pod):
        return ""
    container: Object = next(iter(get(pod, "status", "containerStatuses") or ()), {})
    ended = get(container, "state", "terminated") or get(container, "lastState", "terminated") or {}
    message = str(ended.get("message") or "").strip()
    if phase_of(pod) == SUCCEEDED and _DIGEST.fullmatch(message):
        decided.delete_poller = True
        _answered(message, decided, now, following)
        return ""
    if is_final(pod):
        decided.delete_poller, decided.wait = True, _AGAIN
        return str(message or get(pod, "status", "message") or "the poller ended without reporting a digest")
    trouble = ": ".join(container_trouble(pod) or ())
    decided.wait = _AGAIN
    return message or missing(pod, [trouble, *observed.told], "spec.template.spec.source.registry") or trouble


def _look_at(source: CopySource, observed: Observed, decided: Plan, times_: tuple[datetime, datetime, datetime]) -> str:
    """Decide about a claim that is to be copied; return why it can't be, or an empty string.

    :param times_: when it is to be looked at, now, and when after that.
    """
    due, now, following = times_
    name = f"PersistentVolumeClaim {source.namespace}/{source.name}"
    if observed.refusal:
        # Also between two times: what is known of the claim isn't to be used
        decided.wait = _AGAIN
        return f"{name} can't be copied: {observed.refusal}"
    if due > now:
        decided.wait = (due - now).total_seconds()
        return ""
    if observed.origin is None or is_deleted(observed.origin):
        decided.wait = _AGAIN
        return f"{name} not found"
    _answered(f"uid:{observed.origin['metadata']['uid']}", decided, now, following)
    return ""


def _answered(digest: str, decided: Plan, now: datetime, following: datetime) -> None:
    decided.wait = (following - now).total_seconds()
    decided.annotations = {
        cdi.DESIRED_DIGEST: digest,
        cdi.LAST_CRON_TIME: times.rfc3339(now),
        cdi.NEXT_CRON_TIME: times.rfc3339(following),
    }


def _progress(observed: Observed) -> tuple[bool, tuple[str, str, str]]:
    """Return whether the current import is complete, and what is said of it."""
    nothing = ("False", "NoImport", "No current import")
    if observed.data_volume is None:
        noted = annotations_of(observed.claim).get(cdi.POD_PHASE)
        return noted == cdi.SUCCEEDED, nothing
    phase = phase_of(observed.data_volume)
    if phase == cdi.SUCCEEDED:
        return True, nothing
    if phase == cdi.IMPORT_SCHEDULED:
        return False, ("False", "ImportScheduled", _words("Import is scheduled", observed.data_volume))
    if phase == cdi.IMPORT_IN_PROGRESS:
        return False, ("True", "ImportProgressing", _words("Import is progressing", observed.data_volume))
    phase = phase or cdi.PENDING
    return False, ("False", phase, _words(f"Import DataVolume phase {phase}", observed.data_volume))


def _words(text: str, data_volume: Object) -> str:
    why = cdi.failure_of(data_volume)
    return f"{text}: {why}" if why else text


def _complete(cron: Object, current: Mapping[str, str], observed: Observed, decided: Plan, now: str) -> None:
    """The current import is complete: it is what the DataSource leads to, and older ones may go."""
    namespace, name = cron["metadata"]["namespace"], current["DataVolumeName"]
    claim = {"namespace": namespace, "name": name}
    is_new = get(cron, "status", "lastImportedPVC") != claim
    if is_new:
        decided.status |= {"lastImportedPVC": claim, "lastImportTimestamp": now}
    if observed.claim is not None and (is_new or cdi.LAST_USE_TIME not in annotations_of(observed.claim)):
        decided.note = {cdi.LAST_USE_TIME: now}
    if (cron["spec"].get("garbageCollect") or "") == NEVER:
        return
    kept = cron["spec"].get("importsToKeep")
    others = [each for each in observed.claims if each["metadata"]["name"] != name and not is_deleted(each)]
    others.sort(key=_last_use, reverse=True)
    # What the DataSource leads to is kept, however few are
    others = others[max(0, (KEPT if kept is None else kept) - 1) :]
    volumes = {each["metadata"]["name"]: each for each in observed.data_volumes}
    decided.delete += [volumes.get(each["metadata"]["name"], each) for each in others]
    claims = {each["metadata"]["name"] for each in observed.claims}
    decided.delete += [
        each for called, each in volumes.items() if called != name and called not in claims and not is_deleted(each)
    ]


def _last_use(claim: Object) -> str:
    return annotations_of(claim).get(cdi.LAST_USE_TIME) or str(claim["metadata"].get("creationTimestamp") or "")


def _belonging(cron: Object) -> Object:
    """Return the metadata of what belongs to a DataImportCron."""
    metadata: Object = {
        "namespace": cron["metadata"]["namespace"],
        "labels": {**cdi.disk_labels(cron), cdi.IMPORT_CRON: cron["metadata"]["name"]},
    }
    if cron["spec"].get("retentionPolicy") == RETAIN_NONE:
        metadata["labels"][cdi.IMPORT_CRON_CLEANUP] = "true"
        metadata["ownerReferences"] = [owner_reference(cron)]
    return metadata


def _data_volume(cron: Object, digest: str) -> Object:
    template = cron["spec"]["template"]
    spec = copy.deepcopy(template["spec"])
    if (registry := spec["source"].get("registry")) is not None:
        head, slash, last = registry["url"].rpartition("/")
        registry["url"] = f"{head}{slash}{last.partition(':')[0]}@{digest}"
    metadata, template_metadata = _belonging(cron), template.get("metadata") or {}
    passed = {key: value for key, value in annotations_of(cron).items() if key == cdi.RETAIN_POD}
    return {
        "apiVersion": DATA_VOLUME.api_version,
        "kind": DATA_VOLUME.kind,
        "metadata": {
            **metadata,
            "name": import_name(cron, digest),
            "labels": {**(template_metadata.get("labels") or {}), **metadata["labels"]},
            "annotations": {**(template_metadata.get("annotations") or {}), **passed, cdi.BIND_IMMEDIATELY: "true"},
        },
        "spec": spec,
    }


def _source(cron: Object, data_source: Object | None, decided: Plan) -> None:
    """Decide about the DataSource: one without the DataImportCron's label is its user's, and left as it is."""
    wanted = _belonging(cron)
    claim = decided.status.get("lastImportedPVC")
    source = {"pvc": dict(claim)} if claim else {}
    if data_source is None:
        decided.create_source = {
            "apiVersion": DATA_SOURCE.api_version,
            "kind": DATA_SOURCE.kind,
            "metadata": {**wanted, "name": cron["spec"]["managedDataSource"]},
            "spec": {"source": source},
        }
        return
    labels = labels_of(data_source)
    if not labels.get(cdi.IMPORT_CRON):
        return
    patch: Object = {}
    if missing := {key: value for key, value in wanted["labels"].items() if labels.get(key) != value}:
        patch["metadata"] = {"labels": missing}
    before = get(data_source, "spec", "source") or {}
    if claim and before != source:
        patch["spec"] = {"source": {**dict.fromkeys(before), **source}}
    decided.patch_source = patch or None
