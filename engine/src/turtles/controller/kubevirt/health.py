# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the engine's components work, and what is missing. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from turtles.api.kind import SUBRESOURCES_GROUP, SUBRESOURCES_VERSIONS
from turtles.api.objects import Object
from turtles.controller.node import HEARTBEAT_TIMEOUT

#: The APIService by which virt-api is reached.
API_SERVICE = f"{SUBRESOURCES_VERSIONS[0]}.{SUBRESOURCES_GROUP}"


@dataclass(frozen=True)
class Component:
    """A part of the engine.

    :param working: it does its work, if perhaps with fewer replicas than wanted.
    :param complete: all of it runs, in the version that is wanted.
    :param message: what is missing.
    """

    name: str
    working: bool
    complete: bool
    message: str = ""


def deployment(obj: Object) -> Component:
    """Judge a Deployment (Kubernetes documentation, "Deployment status")."""
    status, wanted = obj.get("status") or {}, int((obj.get("spec") or {}).get("replicas", 1))
    current = int(status.get("observedGeneration") or 0) >= int(obj["metadata"].get("generation") or 0)
    available, updated = int(status.get("availableReplicas") or 0), int(status.get("updatedReplicas") or 0)
    superfluous = int(status.get("replicas") or 0) > updated
    name = obj["metadata"]["name"]
    complete = current and updated >= wanted and available >= wanted and not superfluous
    return Component(name, available > 0, complete, f"{name}: {available} of {wanted} replicas are available")


def daemonset(obj: Object) -> Component:
    """Judge a DaemonSet (Kubernetes documentation, "DaemonSet")."""
    status = obj.get("status") or {}
    current = int(status.get("observedGeneration") or 0) >= int(obj["metadata"].get("generation") or 0)
    wanted, available = int(status.get("desiredNumberScheduled") or 0), int(status.get("numberAvailable") or 0)
    updated = int(status.get("updatedNumberScheduled") or 0)
    name = obj["metadata"]["name"]
    message = f"{name}: available on {available} of {wanted} nodes"
    if current and not wanted:
        message = f"{name}: no node fits its placement"
    complete = current and wanted > 0 and available >= wanted and updated >= wanted
    return Component(name, available > 0, complete, message)


def api_service(obj: Object | None) -> Component:
    """Judge virt-api by its APIService."""
    for condition in ((obj or {}).get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Available":
            good = condition.get("status") == "True"
            why = condition.get("message") or condition.get("reason") or ""
            return Component("virt-api", good, good, f"virt-api: APIService {API_SERVICE} isn't available: {why}")
    return Component("virt-api", False, False, f"virt-api: APIService {API_SERVICE} isn't registered")


def node_agents(nodes: Iterable[Object], silence_of: Callable[[Object], float | None]) -> Component:
    """Judge virt-handler by the heartbeats of the nodes that ever had one.

    :param silence_of: gives the seconds for which a node was silent, None for one that never had a heartbeat.
    """
    silences = {node["metadata"]["name"]: silence_of(node) for node in nodes}
    agents = {name: silence for name, silence in silences.items() if silence is not None}
    silent = sorted(name for name, silence in agents.items() if silence > HEARTBEAT_TIMEOUT)
    if not agents:
        return Component("virt-handler", False, False, "virt-handler: no heartbeat from any node")
    message = f"virt-handler: no heartbeat from {', '.join(silent)}"
    return Component("virt-handler", len(silent) < len(agents), not silent, message)
