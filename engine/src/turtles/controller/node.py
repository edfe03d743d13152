# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes whose agent is silent: nothing new is sent there, and VMIs that lost their Pod with it are failed.

The rules are KubeVirt's node controller's. While a node's kubelet is there, a VMI whose Pod lives is left alone however
long the agent is away: the guest runs on without it. When the kubelet is silent too, or the node's object is deleted,
nobody knows what became of the guest, and the VMI fails. Its VM starts again when the Pod is gone, not before: then the
old guest can't run any more. Kubernetes removes the Pods of nodes that are back, deleted, or tainted as out of service;
this controller does it as well, for servers that don't (before 1.28).

While the API server is away no agent can say that it is there, and afterwards all of them look silent: nobody is judged
before they have had the time to be heard.
"""

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from turtles.api import labels, times
from turtles.api.conditions import GUEST_NOT_RUNNING, condition_of, set_condition
from turtles.api.objects import Object, annotations_of, controller_of, labels_of
from turtles.api.phases import FAILED, HANDED_OVER, is_final, phase_of, set_phase
from turtles.controller.caches import BY_NODE, BY_OWNER
from turtles.controller.shared import Shared
from turtles.kube.client import NotFound
from turtles.kube.informer import Key, key_of
from turtles.kube.manager import Controller, Trigger

log = logging.getLogger(__name__)

#: Seconds without a heartbeat after which a node's agent counts as gone, and between two looks at such a node.
HEARTBEAT_TIMEOUT, RECHECK = 300.0, 60.0
#: Seconds in which agents and kubelets are heard again when the API server is back: a heartbeat a minute, a timeout.
SETTLE = 90.0
REASON = "NodeUnresponsive"
#: Taint by which an administrator says that a node is switched off (Kubernetes, "Non-graceful node shutdown").
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


def is_alive(pod: Mapping[str, Any]) -> bool:
    """Whether a Pod may still run something: one that is stuck in its deletion may not if all its containers ended."""
    status = pod.get("status") or {}
    if is_final(pod):
        return False
    containers = status.get("containerStatuses") or ()
    ended = bool(containers) and all((each.get("state") or {}).get("terminated") for each in containers)
    return not ended


def is_ready(node: Mapping[str, Any]) -> bool:
    """Whether the node's kubelet reports, as far as is known."""
    ready = condition_of(node, "Ready")
    return ready is None or ready.get("status") == "True"


def is_out_of_service(node: Mapping[str, Any] | None) -> bool:
    """Whether nothing runs on the node for certain: its object is gone, or somebody vouches for it."""
    taints = ((node or {}).get("spec") or {}).get("taints") or ()
    return node is None or any(taint.get("key") == OUT_OF_SERVICE for taint in taints)


def is_news(old: Object | None, new: Object | None) -> bool:
    """Whether a change of a node calls for a look. Its status changes all the time; silence is looked for by itself."""
    if old is None or new is None:
        return True
    return (
        _has_heartbeat(old) != _has_heartbeat(new)
        or is_ready(old) != is_ready(new)
        or is_out_of_service(old) != is_out_of_service(new)
    )


def _has_heartbeat(node: Mapping[str, Any]) -> bool:
    return bool(annotations_of(node).get(labels.NODE_HEARTBEAT))


def failed(vmi: Object, message: str, now: str) -> Object:
    """Return the VMI as failed because of its node.

    :param message: says what is wrong with the node.
    """
    status = dict(vmi.get("status") or {})
    set_phase(status, FAILED, now)
    status["reason"] = REASON
    # In the same write, lest a failed machine counts as ready for a moment
    status["conditions"] = list(status.get("conditions") or ())
    set_condition(status["conditions"], "Ready", "False", *GUEST_NOT_RUNNING, now)
    set_condition(status["conditions"], "Synchronized", "False", REASON, message, now)
    return {**vmi, "status": status}


class NodeController:
    """Looks after nodes."""

    def __init__(self, shared: Shared, in_touch_since: Callable[[], float]) -> None:
        """Make the controller.

        :param in_touch_since: gives the moment (monotonic) since which the API server has answered, where somebody asks
            all the time. A watch alone doesn't notice a server that is there and does nothing.
        """
        caches = shared.caches
        self._writer, self._recorder, self._in_touch_since = shared.writer, shared.recorder, in_touch_since
        self._nodes, self._vmis, self._pods = caches.nodes, caches.vmis, caches.pods
        self._heartbeats = caches.heartbeats

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        trigger = Trigger(self._nodes, lambda old, new: [key_of(new or old or {})] if is_news(old, new) else [])
        return Controller("node", self.reconcile, [trigger], reads=(self._vmis, self._pods))

    def _hearing_since(self) -> float:
        """Return the moment since which a heartbeat that is written is seen here."""
        return max(self._nodes.watching_since, self._in_touch_since())

    def reconcile(self, key: Key) -> float | None:
        """Look at one node; returns seconds after which to look again."""
        name, node = key[1], self._nodes.get(*key)
        if is_out_of_service(node):
            return self._abandon(name)
        assert node is not None
        silence = self._heartbeats.silence(node, datetime.now(UTC))
        if silence is None:
            return None
        if silence <= HEARTBEAT_TIMEOUT:
            return HEARTBEAT_TIMEOUT - silence + 1
        if (heard := time.monotonic() - self._hearing_since()) < SETTLE:
            return SETTLE - heard
        if labels_of(node).get(labels.NODE_SCHEDULABLE) == "true":
            # Unless it has changed: a heartbeat of this very moment is not overruled.
            self._writer.patch(self._nodes, node, {"metadata": {"labels": {labels.NODE_SCHEDULABLE: "false"}}})
            log.warning("node unresponsive", extra={"node": name, "seconds": round(silence)})
            self._recorder.event(
                node,
                "Warning",
                REASON,
                f"virt-handler is not responsive on node {name}, marking it as unschedulable for virtual machines",
            )
        ready = is_ready(node)
        for vmi in self._vmis.by_index(BY_NODE, name):
            pods = self._pods.by_index(BY_OWNER, vmi["metadata"]["uid"])
            if phase_of(vmi) not in HANDED_OVER:
                continue
            if not any(is_alive(pod) for pod in pods):
                self._fail(vmi, f"virt-handler on node {name} is not responsive, marking VMI as failed")
            elif not ready:
                self._fail(
                    vmi,
                    (
                        f"node {name} is not responsive, marking VMI as failed; a new one can start when the Pod is "
                        f"gone: bring the node back, or, if it is shut down, delete its Node object or taint it with "
                        f"{OUT_OF_SERVICE}:NoExecute"
                    ),
                )
        return RECHECK

    def _abandon(self, node: str) -> float | None:
        """Nothing runs there any more: VMIs fail, and their Pods go without anybody's confirmation."""
        left = False
        for vmi in self._vmis.by_index(BY_NODE, node):
            if phase_of(vmi) in HANDED_OVER:
                self._fail(vmi, f"node {node} is gone or out of service, marking VMI as failed")
            for pod in self._pods.by_index(BY_OWNER, vmi["metadata"]["uid"]):
                if (pod.get("spec") or {}).get("nodeName") != node:
                    continue
                left = True
                self._writer.delete(self._pods, pod, grace_period=0)
        return RECHECK if left else None

    def _fail(self, vmi: Object, message: str) -> None:
        try:
            self._writer.store_members(self._vmis, vmi, failed(vmi, message, times.now()), [("status", "*")])
        except NotFound:
            return
        self._recorder.event(vmi, "Warning", REASON, message)
        if (owner := controller_of(vmi)) is not None:
            self._recorder.event({**owner, "namespace": vmi["metadata"]["namespace"]}, "Warning", REASON, message)
