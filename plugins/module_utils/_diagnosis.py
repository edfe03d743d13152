# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What objects, Pods and events say about why something didn't come."""

from __future__ import annotations

from . import _resources
from ._errors import ApiError, KubeError
from ._wait import condition

POD = _resources.known("v1", "Pod")
EVENT = _resources.known("v1", "Event")
NODE = _resources.known("v1", "Node")

# Conditions that may well be false while all is as it should be.
_HARMLESS = frozenset(("LiveMigratable", "StorageLiveMigratable"))


def quietly(call):
    """Return what call() returns, None where it raises KubeError: a diagnosis mustn't hide the failure it explains."""
    try:
        return call()
    except KubeError:
        return None


def bad_conditions(obj):
    """Return a sentence for each condition of an object that says what is wrong with it."""
    troubles = []
    for entry in (obj.get("status") or {}).get("conditions") or []:
        if entry.get("type") in _HARMLESS:
            continue
        if entry.get("status") == "False" and entry.get("message"):
            troubles.append("%s is False (%s: %s)" % (entry.get("type"), entry.get("reason"), entry["message"]))
        elif entry.get("type") == "Failure" and entry.get("status") == "True":
            troubles.append("%s: %s" % (entry.get("reason"), entry.get("message")))
    return troubles


def pod_troubles(pod):
    """Return a sentence for each thing that keeps a Pod from running: its place, and what its containers say."""
    status = pod.get("status") or {}
    name = "Pod %s" % pod["metadata"]["name"]
    troubles = []
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        troubles.append("%s isn't scheduled: %s" % (name, scheduled.get("message") or scheduled.get("reason")))
    for entry in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
        state, where = entry.get("state") or {}, "%s: container %s" % (name, entry.get("name"))
        waiting = state.get("waiting") or {}
        ended = state.get("terminated") or (entry.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason"):
            message = ": %s" % waiting["message"].strip() if waiting.get("message") else ""
            troubles.append("%s is waiting (%s)%s" % (where, waiting["reason"], message))
        if ended.get("message") or (ended.get("exitCode") and not entry.get("ready")):
            last = (ended.get("message") or "").strip().splitlines()[-1:]
            code = "%s, exit code %s" % (ended.get("reason"), ended.get("exitCode"))
            troubles.append("%s ended (%s)%s" % (where, code, "".join(": %s" % line for line in last)))
    return troubles


def selector_of(workload):
    """Return the label selector of a workload's Pods, as requests have it."""
    labels = ((workload.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return ",".join("%s=%s" % pair for pair in sorted(labels.items()))


def pods_on_silent_nodes(client, namespace, label_selector=None):
    """Return Pods on nodes whose kubelet doesn't report: they neither change nor end. [] where reading is forbidden."""
    nodes = quietly(lambda: client.list(_resources.path(NODE))[0]) or []
    silent = {node["metadata"]["name"] for node in nodes if condition(node, "Ready").get("status") != "True"}
    if not silent:
        return []
    pods = quietly(lambda: client.list(_resources.path(POD, namespace), label_selector=label_selector)[0]) or []
    return [pod for pod in pods if (pod.get("spec") or {}).get("nodeName") in silent]


def warning_events(client, namespace, names):
    """Return warning events of the objects with these names, oldest first."""
    url = _resources.path(EVENT, namespace)
    try:
        events = client.list(url, field_selector="type=Warning")[0]
    except ApiError:
        events = quietly(lambda: client.list(url)[0]) or []
    except KubeError:
        events = []
    warnings = []
    for event in events:
        about = event.get("involvedObject") or event.get("regarding") or {}
        if event.get("type") == "Warning" and about.get("name") in names:
            seen = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
            warnings.append(
                {
                    "object": "%s %s" % (about.get("kind"), about.get("name")),
                    "reason": event.get("reason"),
                    "message": event.get("message") or event.get("note"),
                    "count": event.get("count") or 1,
                    "last_seen": seen,
                }
            )
    return sorted(warnings, key=lambda event: event["last_seen"] or "")
