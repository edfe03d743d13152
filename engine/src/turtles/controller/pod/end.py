# SPDX-License-Identifier: GPL-3.0-or-later
"""How launcher Pods end, and what a user should do about it. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from turtles.api.conditions import condition_of
from turtles.api.objects import Object
from turtles.api.phases import FAILED, is_final, phase_of
from turtles.api.times import parse_time

_COMPUTE = "compute"
_EVICTED = "Evicted"


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether the launcher has: the Pod itself continues while other containers run, such as a service mesh's."""
    status = pod.get("status") or {}
    return is_final(pod) or any(
        (container.get("state") or {}).get("terminated")
        for container in status.get("containerStatuses") or ()
        if container.get("name") == _COMPUTE
    )


def is_rejected(pod: Mapping[str, Any]) -> bool:
    """Whether the node's kubelet refused to take the Pod in: none of its containers has ever been started.

    It does so when a device plugin is away (UnexpectedAdmissionError), or when its node has less left than the
    scheduler thought (OutOfcpu, OutOfmemory, …). Another Pod may be taken in, as those of a ReplicaSet are.
    """
    status = pod.get("status") or {}
    started = any((each.get("state") or {}).keys() & {"running", "terminated"} for each in container_statuses(pod))
    return phase_of(pod) == FAILED and bool(status.get("reason")) and status["reason"] != _EVICTED and not started


def ended_at(pod: Object) -> datetime | None:
    """Return when its last container ended; None if that isn't known."""
    times = [moment for state in _terminated(pod) if (moment := parse_time(state.get("finishedAt")))]
    return max(times, default=None)


def container_statuses(pod: Mapping[str, Any]) -> list[Object]:
    """Return the statuses of its init containers and containers."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def why(pod: Object) -> tuple[str, str]:
    """Return an event's reason, and why the Pod ended in words with the remedy, if there is one."""
    status = pod.get("status") or {}
    if status.get("reason") == _EVICTED:
        return "LauncherEvicted", (
            f"the node evicted the virt-launcher Pod: {status.get('message') or 'no reason given'}; free "
            "resources on the node, or request what the guest needs (spec.domain.resources.requests), so that it is "
            "scheduled where that is available"
        )
    for container in container_statuses(pod):
        terminated = (container.get("state") or {}).get("terminated") or {}
        if terminated.get("reason") == "OOMKilled":
            return "LauncherOOMKilled", (
                f"container {container.get('name')} of the virt-launcher Pod reached its memory limit and was killed; "
                "raise or remove spec.domain.resources.limits.memory"
            )
    if status.get("reason"):
        # such as OutOfmemory, UnexpectedAdmissionError, NodeShutdown: a restarting kubelet admits its Pods again
        return "LauncherStopped", (
            f"the node stopped the virt-launcher Pod ({status['reason']}): {status.get('message') or 'no message'}; "
            "check that the node has what the Pod requests"
        )
    return "Failed", f"the virt-launcher Pod ended: {_last_words(pod)}"


def disruption(pod: Object) -> str:
    """Return why a Pod that runs is being deleted, as far as Kubernetes says (since 1.26, KEP-3329)."""
    condition = condition_of(pod, "DisruptionTarget")
    if condition and condition.get("status") == "True":
        return str(condition.get("message") or condition.get("reason") or "")
    return "a drain, an eviction, or someone deleted it"


def _terminated(pod: Object) -> list[Mapping[str, Any]]:
    states = [(container.get("state") or {}).get("terminated") for container in container_statuses(pod)]
    return [state for state in states if state]


def _last_words(pod: Object) -> str:
    """Return why a Pod ended, in the words of its container if it left any."""
    for state in _terminated(pod):
        if state.get("message"):
            return str(state["message"]).strip()
    status = pod.get("status") or {}
    if status.get("message"):
        return str(status["message"])
    codes = ", ".join(f"{state.get('reason') or 'exit code'} {state.get('exitCode')}" for state in _terminated(pod))
    return codes or "no reason given"
