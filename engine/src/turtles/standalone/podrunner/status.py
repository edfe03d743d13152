# SPDX-License-Identifier: GPL-3.0-or-later
"""A Pod's status from what is known of its containers: pure functions, no I/O.

Rules: Kubernetes documentation, "Pod Lifecycle" (phases, conditions, readiness gates) and "Configure Quality of Service
for Pods".
"""

from turtles.api.objects import Object
from turtles.api.quantity import parse
from turtles.standalone.pods import FINAL_PHASES


def qos_class(spec: Object) -> str:
    """Return Guaranteed, Burstable or BestEffort."""
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    any_set, guaranteed = False, True
    for container in containers:
        resources = container.get("resources") or {}
        limits = resources.get("limits") or {}
        requests = limits | (resources.get("requests") or {})
        for name in ("cpu", "memory"):
            limit, request = limits.get(name), requests.get(name)
            any_set = any_set or limit is not None or request is not None
            guaranteed = guaranteed and limit is not None and request is not None and parse(limit) == parse(request)
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def oom_score_adj(spec: Object, container: Object, memory_capacity: int) -> int:
    """Return the oom_score_adj of a container's processes, as the kubelet computes it."""
    quality = qos_class(spec)
    if quality != "Burstable":
        return -997 if quality == "Guaranteed" else 1000
    resources = container.get("resources") or {}
    request = parse(((resources.get("limits") or {}) | (resources.get("requests") or {})).get("memory", 0))
    return min(999, max(3, 1000 - int(1000 * request / max(1, memory_capacity))))


def phase(spec: Object, containers: dict[str, Object], init: dict[str, Object]) -> str:
    """Return the Pod's phase.

    :param containers: containerStatuses' ``state`` by name.
    :param init: initContainerStatuses' ``state`` by name.
    """
    policy = spec.get("restartPolicy") or "Always"
    if policy == "Never" and any(_exit_code(state) not in (None, 0) for state in init.values()):
        return "Failed"
    if any(_exit_code(state) != 0 for state in init.values()):
        return "Pending"
    codes = [_exit_code(state) for state in containers.values()]
    started = any("running" in state or "terminated" in state for state in containers.values())
    if codes and all(code is not None for code in codes):
        if policy == "Never" or (policy == "OnFailure" and not any(codes)):
            return "Failed" if any(codes) else "Succeeded"
        return "Running"
    return "Running" if started else "Pending"


def _exit_code(state: Object) -> int | None:
    terminated = state.get("terminated")
    return None if terminated is None else int(terminated["exitCode"])


def condition(kind: str, good: bool, now: str, reason: str = "", message: str = "") -> Object:
    """Return a condition as of now; see :func:`merge_conditions`."""
    entry: Object = {
        "type": kind,
        "status": "True" if good else "False",
        "lastProbeTime": None,
        "lastTransitionTime": now,
    }
    if reason:
        entry["reason"] = reason
    if message:
        entry["message"] = message
    return entry


def observed(pod: Object) -> Object:
    """Return what says which generation of a Pod a status or condition is about."""
    generation = pod["metadata"].get("generation")
    return {"observedGeneration": generation} if generation else {}


def merge_conditions(old: list[Object], new: list[Object]) -> list[Object]:
    """Return old with new in it; a condition whose status did not change keeps its lastTransitionTime."""
    known = {entry["type"]: entry for entry in old}
    for entry in new:
        before = known.get(entry["type"])
        if before is not None and before["status"] == entry["status"]:
            entry = entry | {"lastTransitionTime": before.get("lastTransitionTime", entry["lastTransitionTime"])}
        known[entry["type"]] = entry
    return list(known.values())


def conditions(pod: Object, new_phase: str, statuses: list[Object], initialized: bool, now: str) -> list[Object]:
    """Return the conditions the podrunner owns, merged into those the Pod has (readiness gates are others')."""
    old = (pod.get("status") or {}).get("conditions") or []
    spec = pod["spec"]
    unready = [status["name"] for status in statuses if not status["ready"]]
    done = new_phase in FINAL_PHASES
    if done:
        reason = "PodCompleted" if new_phase == "Succeeded" else "PodFailed"
        containers_ready = condition("ContainersReady", False, now, reason)
    elif unready:
        containers_ready = condition(
            "ContainersReady",
            False,
            now,
            "ContainersNotReady",
            f"containers with unready status: [{' '.join(unready)}]",
        )
    else:
        containers_ready = condition("ContainersReady", True, now)
    gates = [gate["conditionType"] for gate in spec.get("readinessGates") or []]
    have = {entry["type"]: entry["status"] for entry in old}
    closed = [gate for gate in gates if have.get(gate) != "True"]
    ready = {**containers_ready, "type": "Ready"}
    if containers_ready["status"] == "True" and closed:
        text = "; ".join(
            f'the status of pod readiness gate "{gate}" is not "True", but {have.get(gate, "False")}'
            if gate in have
            else f'corresponding condition of pod readiness gate "{gate}" does not exist.'
            for gate in closed
        )
        ready = condition("Ready", False, now, "ReadinessGatesNotReady", text)
    new = [
        condition("PodScheduled", True, now),
        condition("PodReadyToStartContainers", bool(statuses) and not done, now),
        condition("Initialized", initialized, now, "" if initialized else "ContainersNotInitialized"),
        containers_ready,
        ready,
    ]
    merged = merge_conditions(old, [entry | observed(pod) for entry in new])
    return sorted(merged, key=lambda entry: _ORDER.get(entry["type"], 0))


_ORDER = {"PodReadyToStartContainers": 1, "Initialized": 2, "Ready": 3, "ContainersReady": 4, "PodScheduled": 5}


def differs(old: Object, new: Object) -> bool:
    """Say whether a status patch would change anything."""
    return any(old.get(key) != value for key, value in new.items())
