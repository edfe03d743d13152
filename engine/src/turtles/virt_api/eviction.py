# SPDX-License-Identifier: GPL-3.0-or-later
"""The webhook of evictions: applies the eviction strategies of machines when their node is drained.

The rules are KubeVirt's (user guide, "Node maintenance", evictionStrategy):

- None: the Pod is evicted, its guest shuts down.
- LiveMigrate: refused, and the VMI says which node to leave (``status.evacuationNodeName``), whereupon virt-controller
  migrates it. One that can't be migrated live stays until it is stopped.
- LiveMigrateIfPossible: likewise, but one that can't be migrated live is evicted.
- External: refused, and the VMI says which node to leave, for its manager to act on.

Refusals are 429, after which ``kubectl drain`` tries again. While virt-api is away the disruption budget of the VMI
refuses in its place (:mod:`turtles.controller.disruption`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api import labels
from turtles.api.conditions import condition_of, has_condition
from turtles.api.objects import Object, labels_of
from turtles.api.phases import is_final
from turtles.kube.client import JSON, ApiError, Client, Invalid, NotFound
from turtles.kube.events import Recorder
from turtles.kube.kubevirt import VMI
from turtles.kube.resources import POD

#: Path the webhook is served under.
VALIDATE = "/launcher-eviction-validate"

_ALLOWED: Object = {"allowed": True}


class EvictionReview:
    """Judges evictions of Pods. Called on threads: it asks the API server."""

    def __init__(self, client: Client, recorder: Recorder) -> None:
        self._client = client
        self._recorder = recorder

    def __call__(self, request: Object) -> Object:
        """Return the response of an AdmissionReview's request."""
        namespace, name = request.get("namespace"), request.get("name")
        if not isinstance(namespace, str) or not isinstance(name, str):
            return dict(_ALLOWED)
        try:
            return self._review(namespace, name, dry_run=bool(request.get("dryRun")))
        except ApiError as error:
            # Better kept a while longer than lost
            return _denied(f"can't determine which machine owns Pod {namespace}/{name}: {error.message}")

    def _review(self, namespace: str, name: str, *, dry_run: bool) -> Object:
        pod = self._client.find(POD, namespace, name)
        if pod is None:
            return dict(_ALLOWED)
        app = labels_of(pod).get(labels.APP)
        if app == labels.APP_HOTPLUG_DISK:
            return self._judge_attachment(pod)
        vmi = self._vmi_of(pod) if app == labels.APP_LAUNCHER else None
        return self._judge(vmi, name, dry_run=dry_run) if vmi else dict(_ALLOWED)

    def _judge_attachment(self, attachment: Object) -> Object:
        """Keep the volumes of a guest that runs: they leave the node along with it."""
        metadata = attachment["metadata"]
        owners = metadata.get("ownerReferences") or ()
        launcher = self._client.find(POD, metadata["namespace"], owners[0]["name"]) if owners else None
        vmi = self._vmi_of(launcher) if launcher else None
        if vmi is None:
            return dict(_ALLOWED)
        return _denied(
            f"cannot evict hotplug pod: {metadata['name']} associated with running vmi: {vmi['metadata']['name']} in "
            f"namespace {metadata['namespace']}"
        )

    def _vmi_of(self, pod: Object) -> Object | None:
        """Return the VMI that runs in a Pod; None where none does."""
        of_pod = pod["metadata"]
        if is_final(pod) or (of_pod.get("labels") or {}).get(labels.APP) != labels.APP_LAUNCHER:
            return None
        name = (of_pod.get("annotations") or {}).get(labels.DOMAIN)
        vmi = self._client.find(VMI, of_pod["namespace"], name) if name else None
        if vmi is None or not _has_guest(vmi, of_pod):
            # One that a guest left, or is on its way to: that migration fails, and the guest stays where it is
            return None
        return vmi if vmi["metadata"]["uid"] == of_pod["labels"].get(labels.CREATED_BY) else None

    def _judge(self, vmi: Object, pod: str, *, dry_run: bool) -> Object:
        strategy = vmi["spec"].get("evictionStrategy")
        name = f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}"
        migrates = strategy in ("LiveMigrate", "LiveMigrateIfPossible")
        if migrates and has_condition(vmi, "LiveMigratable"):
            if not dry_run:
                self._mark(vmi, f"Pod {pod} has to leave node {{node}}: its guest is migrated to another node")
            return _evacuation(vmi, name)
        if strategy == "LiveMigrate":
            message = (
                f"VMI {name} is configured with an eviction strategy but is not live-migratable "
                f"({_why_not(vmi)}); stop it, or set evictionStrategy to LiveMigrateIfPossible or None and restart it"
            )
            if not dry_run:
                text = f"the eviction of Pod {pod} is refused: {message}"
                self._recorder.event(vmi, "Warning", "EvictionRefused", text)
            return _denied(message)
        if strategy == "External":
            if not dry_run:
                self._mark(
                    vmi,
                    f"Pod {pod} has to leave node {{node}}: evictionStrategy External leaves that to its manager, "
                    "which finds the node in status.evacuationNodeName; stopping the machine lets the drain continue",
                )
            return _evacuation(vmi, name)
        return dict(_ALLOWED)

    def _mark(self, vmi: Object, message: str) -> None:
        """Write into the VMI's status which node it has to leave.

        :param message: what that means, with {node} in it.
        """
        metadata, status = vmi["metadata"], vmi.get("status") or {}
        node = status.get("nodeName")
        if not node or status.get("evacuationNodeName") == node:
            return
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            {"op": "test", "path": "/status/nodeName", "value": node},
            {"op": "add", "path": "/status/evacuationNodeName", "value": node},
        ]
        try:
            self._client.patch(VMI, metadata["namespace"], metadata["name"], patch, kind=JSON)
        except (NotFound, Invalid):
            return  # it has ended in the meantime: the next try is allowed
        self._recorder.event(vmi, "Normal", "EvacuationRequested", message.format(node=node))


def _has_guest(vmi: Mapping[str, Any], of_pod: Mapping[str, Any]) -> bool:
    """Say whether the guest of a VMI runs in a Pod, or is to start there.

    :param of_pod: the Pod's metadata.
    """
    status = vmi.get("status") or {}
    active, node = status.get("activePods") or {}, status.get("nodeName")
    if node not in active.values():
        return not of_pod["labels"].get(labels.MIGRATION_JOB_UID)
    return bool(active.get(of_pod["uid"]) == node)


def _why_not(vmi: Mapping[str, Any]) -> str:
    condition = condition_of(vmi, "LiveMigratable") or {}
    return str(condition.get("message") or "its guest has not been started yet")


def _evacuation(vmi: Mapping[str, Any], name: str) -> Object:
    """Return the refusal of an eviction that makes a guest leave its node. The descheduler looks for its words."""
    again = "Evacuation in progress: " if (vmi.get("status") or {}).get("evacuationNodeName") else ""
    return _denied(f'{again}Eviction triggered evacuation of VMI "{name}"')


def _denied(message: str) -> Object:
    status = {"status": "Failure", "message": message, "reason": "TooManyRequests", "code": 429}
    return {"allowed": False, "status": status}
