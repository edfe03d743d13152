# SPDX-License-Identifier: GPL-3.0-or-later
"""Why the Pod of an import doesn't start: a ConfigMap or a Secret that it mounts isn't there. Pure.

A kubelet says it in an event only ("MountVolume.SetUp failed … configmap "x" not found"), the Pod runner of standalone
mode in the status of the container, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from turtles.api.objects import Object, get
from turtles.api.phases import PENDING, phase_of
from turtles.controller.vmi.status import container_trouble

#: Reason of events about volumes that a Pod can't have.
FAILED_MOUNT = "FailedMount"
_MISSING = (
    re.compile(r'(?P<kind>configmap|secret) "(?P<name>[^"]+)" not found', re.IGNORECASE),
    re.compile(r"(?P<kind>configmap|secret) [^\s/]+/(?P<name>\S+) does not exist", re.IGNORECASE),
)
_KINDS = {"configmap": "ConfigMap", "secret": "Secret"}
#: The fields of a source that volumes of an importer's Pod are for.
_FIELDS = {"authorities": "certConfigMap", "credentials": "secretRef"}
_HEADERS = "headers-"


def waits_silently(pod: Object) -> bool:
    """Say whether a Pod that has a node doesn't start, and its status doesn't say why: its events may."""
    statuses = get(pod, "status", "containerStatuses") or ()
    return (
        phase_of(pod) == PENDING
        and bool(get(pod, "spec", "nodeName"))
        and all(get(each, "state", "waiting") is not None for each in statuses)
        and container_trouble(pod) is None
    )


def messages(events: Iterable[Object]) -> list[str]:
    """Return what events say about volumes that a Pod can't have, the newest first."""
    failed = [event for event in events if event.get("reason") == FAILED_MOUNT]
    failed.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), reverse=True)
    return [str(event.get("message") or "") for event in failed]


def missing(pod: Object, told: Iterable[str], source: str) -> str:
    """Return what a Pod waits for that isn't there, and which field names it; empty if nobody says so.

    :param told: what has been said about the Pod, the newest first.
    :param source: path of the import's source, such as `spec.source.http`.
    """
    for text in told:
        for pattern in _MISSING:
            if found := pattern.search(text):
                kind, name = _KINDS[found["kind"].lower()], found["name"]
                field = _field(pod, kind, name)
                named = f", which {source}.{field} names," if field else ""
                whole = f"{pod['metadata']['namespace']}/{name}"
                return f"{kind} {whole}{named} does not exist; the import starts once it is created"
    return ""


def _field(pod: Object, kind: str, name: str) -> str:
    """Return the field of the source that a volume of an importer's Pod is for; empty if it is for none."""
    for volume in get(pod, "spec", "volumes") or ():
        named = get(volume, "configMap", "name") if kind == "ConfigMap" else get(volume, "secret", "secretName")
        if named != name:
            continue
        if (field := _FIELDS.get(volume["name"])) is not None:
            return field
        if volume["name"].startswith(_HEADERS):
            return f"secretExtraHeaders[{volume['name'].removeprefix(_HEADERS)}]"
    return ""
