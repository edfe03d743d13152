# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows for an export. Pure.

An export that isn't ready has no links. Its Pod is deleted when somebody begins to use what it serves: machines don't
wait for downloads.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime

from turtles.api import exports
from turtles.api.conditions import conditions_in, set_condition
from turtles.api.objects import Object, get, is_deleted
from turtles.api.phases import FINAL_PHASES, RUNNING, SUCCEEDED
from turtles.api.times import rest_of, rfc3339
from turtles.controller.export import pod as pods
from turtles.controller.export.sources import INITIALIZING, Source, Volume
from turtles.controller.vmi.status import container_trouble

#: Reasons of the condition Ready.
POD_PENDING, POD_READY, POD_COMPLETED = "PodPending", "PodReady", "PodCompleted"
#: Reasons of events.
CREATED_POD, PAUSED, ENDED_POD = "ExporterPodCreated", "ExportPaused", "ExporterPodFailedOrCompleted"
#: Seconds until another look at what is in use: nothing tells of Pods of others.
_LOOK = 3.0


@dataclass(frozen=True)
class Observed:
    """What there is for an export.

    :param pod: its Pod. :param in_the_way: a Pod or Service of its name that isn't its own: "Pod virt-export-web".
    :param address: where users reach virt-api; empty if nobody knows.
    :param authorities: of virt-api's certificate there, in PEM; empty if those of the system are.
    """

    pod: Object | None = None
    in_the_way: str = ""
    address: str = ""
    authorities: str = ""


@dataclass
class Plan:
    """What is to happen, in this order.

    :param status: of the export. :param delete_export: its time is over; nothing else counts.
    :param create_claims: claims for volumes of a snapshot. :param delete_pod: delete it. :param create_pod: create it.
    :param identify: give the Pod its certificate. :param event: type, reason, message.
    :param wait: seconds after which to look again.
    """

    status: Object
    delete_export: bool = False
    create_claims: tuple[Object, ...] = ()
    delete_pod: bool = False
    create_pod: bool = False
    identify: bool = False
    event: tuple[str, str, str] | None = None
    wait: float | None = None


def plan(export: Object, source: Source, observed: Observed, now: datetime) -> Plan:
    """Decide about an export that isn't being deleted."""
    decided = Plan(copy.deepcopy(export.get("status") or {}))
    status, expiry = decided.status, exports.expires_at(export)
    if expiry is not None:
        limit = exports.ttl(export).total_seconds()
        rest = rest_of(limit, expiry - exports.ttl(export), now)
        if rest <= 0:
            decided.delete_export = True
            return decided
        decided.wait = rest
        status["ttlExpirationTime"] = rfc3339(expiry)
    status |= {"tokenSecretRef": exports.token_secret(export), "serviceName": exports.name_of(export)}
    if source.machine_name:
        status["virtualMachineName"] = source.machine_name
    conditions = conditions_in(status)
    stamp = rfc3339(now)
    decided.create_claims = source.create
    phase, ready = _serve(export, source, observed, decided)
    status["phase"] = phase
    if phase == exports.READY:
        status["links"] = _links(export, source.volumes, observed)
    else:
        status.pop("links", None)
    set_condition(conditions, exports.READY_CONDITION, *ready, stamp)
    set_condition(conditions, *source.condition, stamp)
    return decided


def _serve(export: Object, source: Source, observed: Observed, decided: Plan) -> tuple[str, tuple[str, str, str]]:
    """Decide about the Pod; return phase and condition Ready."""
    pod = observed.pod
    if source.obstacle is not None:
        reason, message = source.obstacle
        if pod is not None and not is_deleted(pod):
            decided.delete_pod = True
            decided.event = ("Warning", PAUSED, message)
        if not source.is_empty:
            decided.wait = min(_LOOK, decided.wait or _LOOK)
        return exports.SKIPPED if source.is_empty else exports.PENDING, ("False", reason, message)
    if pod is None:
        if observed.in_the_way:
            message = f"{observed.in_the_way} exists and does not belong to this export; delete it"
            decided.wait = min(_LOOK, decided.wait or _LOOK)
            return exports.PENDING, ("False", INITIALIZING, message)
        decided.create_pod = True
        name = f"{export['metadata']['namespace']}/{exports.name_of(export)}"
        decided.event = ("Normal", CREATED_POD, f"Created exporter pod {name}")
        return exports.PENDING, ("False", POD_PENDING, "")
    return _watch(pod, source, decided)


def _watch(pod: Object, source: Source, decided: Plan) -> tuple[str, tuple[str, str, str]]:
    phase, metadata = get(pod, "status", "phase"), pod["metadata"]
    if is_deleted(pod):
        return exports.PENDING, ("False", POD_PENDING, "the Pod is being replaced")
    if phase in FINAL_PHASES:
        decided.delete_pod = True
        message = f"Exporter pod {metadata['namespace']}/{metadata['name']} is in phase {phase}"
        decided.event = ("Warning", ENDED_POD, message)
        if phase == SUCCEEDED:
            return exports.TERMINATED, ("False", POD_COMPLETED, "")
        return exports.PENDING, ("False", POD_PENDING, get(pod, "status", "message") or message)
    if not pods.serves(pod, source.volumes):
        decided.delete_pod = True
        decided.event = ("Warning", PAUSED, "The volumes of the source have changed")
        return exports.PENDING, ("False", POD_PENDING, "the Pod is being replaced")
    if exports.CERTIFICATE not in (metadata.get("annotations") or {}):
        decided.identify = True
        return exports.PENDING, ("False", POD_PENDING, "")
    container: Object = next(iter(get(pod, "status", "containerStatuses") or ()), {})
    if phase == RUNNING and container.get("ready"):
        return exports.READY, ("True", POD_READY, "")
    return exports.PENDING, ("False", POD_PENDING, _trouble(pod, container))


def _trouble(pod: Object, container: Object) -> str:
    """Return why a Pod isn't ready; empty if it may yet be."""
    ended = get(container, "state", "terminated") or get(container, "lastState", "terminated") or {}
    if ended.get("message"):
        return str(ended["message"]).strip()
    if trouble := container_trouble(pod):
        return ": ".join(trouble)
    for condition in get(pod, "status", "conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or "")
    return ""


def _links(export: Object, volumes: tuple[Volume, ...], observed: Observed) -> Object:
    pod = observed.pod or {}
    certificate = pod["metadata"]["annotations"][exports.CERTIFICATE].strip()
    with_manifests = pods.has_manifests(pod)
    links = {exports.INTERNAL: _link(exports.INTERNAL, pods.address(export), certificate, volumes, with_manifests)}
    if observed.address:
        address = external_address(export, observed.address)
        authorities = observed.authorities.strip()
        links[exports.EXTERNAL] = _link(exports.EXTERNAL, address, authorities, volumes, with_manifests)
    return links


def external_address(export: Object, address: str) -> str:
    """Return where an export's server is reached through virt-api.

    :param address: where virt-api is.
    """
    return f"{address.rstrip('/')}{exports.proxy_path(export)}"


def _link(link: str, address: str, certificate: str, volumes: tuple[Volume, ...], with_manifests: bool) -> Object:
    result: Object = {
        "cert": certificate,
        "volumes": [
            {
                "name": volume.name,
                "formats": [
                    {"format": name, "url": f"{address}/{exports.volume_path(volume.name, name)}"}
                    for name in (exports.DISK_FORMATS if volume.is_disk else exports.ARCHIVE_FORMATS)
                ],
            }
            for volume in volumes
        ],
    }
    if with_manifests:
        result["manifests"] = [
            {"type": type_, "url": f"{address}/{link}/{path}"} for type_, path in exports.MANIFESTS.items()
        ]
    return result
