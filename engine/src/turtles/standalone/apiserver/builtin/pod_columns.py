# SPDX-License-Identifier: GPL-3.0-or-later
"""What kubectl shows of Pods."""

from collections.abc import Iterable
from typing import Any

from turtles.standalone.apiserver.builtin.columns import (
    AGE,
    NAME,
    age,
    as_list,
    as_map,
    column,
    conditions_of,
    created,
    name_of,
    wide,
)
from turtles.standalone.apiserver.wire.errors import Object
from turtles.standalone.pods import FINAL_PHASES

_SPEC, _STATUS = "@core.v1.PodSpec.", "@core.v1.PodStatus."
COLUMNS = (
    NAME,
    column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    column("Status", "The aggregate status of the containers in this pod."),
    column(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last "
        "container in this pod has restarted.",
    ),
    AGE,
    wide("IP", f"{_STATUS}podIP"),
    wide("Node", f"{_SPEC}nodeName"),
    wide("Nominated Node", f"{_STATUS}nominatedNodeName"),
    wide("Readiness Gates", f"{_SPEC}readinessGates"),
)
_ENDS = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}


def cells(obj: Object) -> list[Any]:
    """Return the cells of a Pod's row."""
    spec, status = as_map(obj.get("spec")), as_map(obj.get("status"))
    containers = _Containers(obj)
    reason = containers.reason
    if obj["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in FINAL_PHASES:
            reason = "Terminating"
    gates, conditions = as_list(spec.get("readinessGates")), conditions_of(obj)
    met = sum(conditions.get(gate.get("conditionType"), {}).get("status") == "True" for gate in gates)
    addresses = as_list(status.get("podIPs"))
    return [
        name_of(obj),
        f"{containers.ready}/{containers.total}",
        reason,
        containers.restarted,
        created(obj),
        addresses[0].get("ip", "") if addresses else "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        f"{met}/{len(gates)}" if gates else "<none>",
    ]


def row_conditions(obj: Object) -> list[Object]:
    """Return what a row says of its Pod's state."""
    phase = as_map(obj.get("status")).get("phase")
    if phase not in _ENDS:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": _ENDS[phase]}]


def _state(container: Object) -> tuple[Object, Object]:
    state = as_map(container.get("state"))
    return as_map(state.get("waiting")), as_map(state.get("terminated"))


def _ended(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


class _Containers:
    """What the states of a Pod's containers come to."""

    def __init__(self, pod: Object) -> None:
        spec, status = as_map(pod.get("spec")), as_map(pod.get("status"))
        self._status = status
        # Init containers that are restarted always are sidecars: they count as the others do.
        self._sidecars = {
            one.get("name") for one in as_list(spec.get("initContainers")) if one.get("restartPolicy") == "Always"
        }
        self._first = len(as_list(spec.get("initContainers")))
        self.total = len(as_list(spec.get("containers"))) + len(self._sidecars)
        self.ready = self.restarts = 0
        self._last = ""
        self.reason = str(status.get("reason") or status.get("phase") or "")
        conditions = conditions_of(pod)
        if conditions.get("PodScheduled", {}).get("reason") == "SchedulingGated":
            self.reason = "SchedulingGated"
        initializing = self._initialize()
        if not initializing or conditions.get("Initialized", {}).get("status") == "True":
            self._run(conditions.get("Ready", {}).get("status") == "True")

    @property
    def restarted(self) -> str:
        """How often containers were started again, and how long ago the last time was."""
        return f"{self.restarts} ({age(self._last)} ago)" if self.restarts and self._last else str(self.restarts)

    def _count(self, containers: Iterable[Object]) -> None:
        self.restarts, self._last = 0, ""
        for container in containers:
            self.restarts += container.get("restartCount", 0)
            before = as_map(as_map(container.get("lastState")).get("terminated"))
            self._last = max(self._last, before.get("finishedAt") or "")

    def _initialize(self) -> bool:
        containers = as_list(self._status.get("initContainerStatuses"))
        self._count(containers)
        for index, container in enumerate(containers):
            waiting, terminated = _state(container)
            if "terminated" in as_map(container.get("state")) and not terminated.get("exitCode"):
                continue
            if container.get("name") in self._sidecars and container.get("started"):
                self.ready += bool(container.get("ready"))
                continue
            if terminated:
                self.reason = f"Init:{_ended(terminated)}"
            elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
                self.reason = f"Init:{waiting['reason']}"
            else:
                self.reason = f"Init:{index}/{self._first}"
            return True
        return False

    def _run(self, ready: bool) -> None:
        containers = as_list(self._status.get("containerStatuses"))
        sidecars = [one for one in as_list(self._status.get("initContainerStatuses")) if one["name"] in self._sidecars]
        self._count([*sidecars, *containers])
        running = False
        for container in reversed(containers):
            waiting, terminated = _state(container)
            if waiting.get("reason"):
                self.reason = str(waiting["reason"])
            elif "terminated" in as_map(container.get("state")):
                self.reason = _ended(terminated)
            elif container.get("ready") and "running" in as_map(container.get("state")):
                running = True
                self.ready += 1
        if self.reason == "Completed" and running:
            self.reason = "Running" if ready else "NotReady"
