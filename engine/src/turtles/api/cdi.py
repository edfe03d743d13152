# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of the Containerized Data Importer's API (CDI): groups, phases, annotations, labels.

Source: CDI API reference, cdi.kubevirt.io/v1beta1, and its documents "DataVolumes" and "WaitForFirstConsumer".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from turtles.api.objects import get
from turtles.api.phases import phase_of

GROUP = "cdi.kubevirt.io"

# Phases of a DataVolume
PENDING = "Pending"
PVC_BOUND = "PVCBound"
IMPORT_SCHEDULED, IMPORT_IN_PROGRESS = "ImportScheduled", "ImportInProgress"
CLONE_SCHEDULED, CLONE_IN_PROGRESS = "CloneScheduled", "CloneInProgress"
RESTORE_IN_PROGRESS = "CloneFromSnapshotSourceInProgress"
TRANSFER_IN_PROGRESS = "NamespaceTransferInProgress"
UPLOAD_SCHEDULED, UPLOAD_READY = "UploadScheduled", "UploadReady"
WAIT_FOR_FIRST_CONSUMER, PENDING_POPULATION = "WaitForFirstConsumer", "PendingPopulation"
SUCCEEDED, FAILED = "Succeeded", "Failed"
#: Phases in which a DataVolume waits for a Pod that uses its claim.
AWAITS_CONSUMER = (WAIT_FOR_FIRST_CONSUMER, PENDING_POPULATION)

# Conditions of a DataVolume
BOUND, RUNNING, READY = "Bound", "Running", "Ready"
# Conditions of a DataImportCron
PROGRESSING, UP_TO_DATE = "Progressing", "UpToDate"

# Annotations that users set on a DataVolume
#: "true": the importer is the first consumer of the claim.
BIND_IMMEDIATELY = "cdi.kubevirt.io/storage.bind.immediate.requested"
#: "true": the importer's Pod stays when it has succeeded.
RETAIN_POD = "cdi.kubevirt.io/storage.pod.retainAfterCompletion"
#: Its own name: the claim of this name exists, and has its content already.
PRE_POPULATED = "cdi.kubevirt.io/storage.prePopulated"
#: "false" on a VirtualMachine: its DataVolumes are created when it is started.
IMMEDIATE_CREATION = "kubevirt.io/immediate-data-volume-creation"

#: What a DataVolume's sourceRef meant when it was created: kind, namespace and name, such as "pvc/images/debian".
#: Admission writes it, and nobody can change it: the user who created the DataVolume was allowed to copy just this.
CLONE_SOURCE = "cdi.kubevirt.io/storage.clone.source"
#: Of a DataVolume beside the source of another one in another namespace: that one, as "namespace/name".
CLONE_TARGET = "cdi.kubevirt.io/storage.clone.target"

# Annotations of a claim, which tell what became of it
CONTENT_TYPE = "cdi.kubevirt.io/storage.contentType"
IMPORT_SOURCE = "cdi.kubevirt.io/storage.import.source"
POD_PHASE = "cdi.kubevirt.io/storage.pod.phase"
POD_RESTARTS = "cdi.kubevirt.io/storage.pod.restarts"
RUNNING_CONDITION = "cdi.kubevirt.io/storage.condition.running"
FAILURE_REASON = "cdi.kubevirt.io/storage.condition.running.reason"
FAILURE_MESSAGE = "cdi.kubevirt.io/storage.condition.running.message"

#: What a claim is a copy of, as "namespace/name".
CLONE_REQUEST = "k8s.io/CloneRequest"

#: Labels that go along with a disk to its copies: the instance type and the preference that suit it.
DISK_LABELS = "instancetype.kubevirt.io/default-"
# Labels of what belongs to a DataVolume
APP = "app"
APP_IMPORTER = "containerized-data-importer"
COMPONENT = "cdi.kubevirt.io"
COMPONENT_IMPORTER, COMPONENT_POLLER = "importer", "poller"
#: Name of the DataImportCron that something belongs to.
IMPORT_CRON = "cdi.kubevirt.io/dataImportCron"
#: "true": it goes with the DataImportCron.
IMPORT_CRON_CLEANUP = "cdi.kubevirt.io/dataImportCron.cleanup"

# Annotations of a DataImportCron
#: The digest that its image has now.
DESIRED_DIGEST = "cdi.kubevirt.io/storage.import.sourceDesiredDigest"
#: When the registry is asked next, and was asked last.
NEXT_CRON_TIME = "cdi.kubevirt.io/storage.import.nextCronTime"
LAST_CRON_TIME = "cdi.kubevirt.io/storage.import.lastCronTime"
#: When the claim with an import last became the newest one.
LAST_USE_TIME = "cdi.kubevirt.io/storage.import.lastUseTime"

#: Share of a file system that a disk image leaves free, for claims with volumeMode Filesystem.
FILESYSTEM_OVERHEAD = 0.06

#: Label of CustomResourceDefinitions that this engine installed, and its value. Others are upstream's, which then does
#: all of the work.
MANAGED_BY, ENGINE = "app.kubernetes.io/managed-by", "turtles.kubevirt"


#: Longest part of a Pod's name that is another object's.
_LONGEST = 200


def pod_name(prefix: str, name: str) -> str:
    """Return the name of the Pod that works for an object. The same one always gets the same name."""
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
    return f"{prefix}-{name}"


def is_ours(definition: Mapping[str, Any]) -> bool:
    """Say whether a CustomResourceDefinition of the group is this engine's, and not upstream's."""
    return (definition["metadata"].get("labels") or {}).get(MANAGED_BY) == ENGINE


def disk_labels(obj: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of an object that go along with a disk to its copies."""
    labels = get(dict(obj), "metadata", "labels") or {}
    return {key: value for key, value in labels.items() if key.startswith(DISK_LABELS)}


def is_populated(data_volume: Mapping[str, Any]) -> bool:
    """Tell whether the content of a DataVolume's claim is complete."""
    return phase_of(data_volume) == SUCCEEDED


def failure_of(data_volume: Mapping[str, Any]) -> str:
    """Return why a DataVolume has no content so far, or never gets any; empty if nothing went wrong."""
    for condition in get(dict(data_volume), "status", "conditions") or ():
        if condition.get("type") == RUNNING and condition.get("reason") == ERROR:
            return str(condition.get("message") or condition["reason"])
    return "it failed" if phase_of(data_volume) == FAILED else ""


#: Reason of the condition Running while an importer fails.
ERROR = "Error"
