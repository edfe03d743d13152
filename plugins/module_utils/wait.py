# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Waiting by watch, and telling why something didn't come."""

from __future__ import annotations

import time

from ansible_collections.turtles.kubevirt.plugins.module_utils import resources
from ansible_collections.turtles.kubevirt.plugins.module_utils.client import ApiError, KubeError

VM = resources.known("kubevirt.io/v1", "VirtualMachine")
VMI = resources.known("kubevirt.io/v1", "VirtualMachineInstance")
POD = resources.known("v1", "Pod")
EVENT = resources.known("v1", "Event")
NODE = resources.known("v1", "Node")

# States of a VirtualMachine (status.printableStatus) that don't cure themselves, and the seconds each is given all the
# same: the first attempt at an image may fail on a busy registry, a claim may still be on its way.
# ErrorUnschedulable isn't among them: a cluster may grow a node.
HOPELESS = {
    "CrashLoopBackOff": 0,
    "ImagePullBackOff": 0,
    "ErrImagePull": 15,
    "ErrorPvcNotFound": 10,
    "DataVolumeError": 30,
}
FAILURE_GRACE = 10
# Conditions that may well be false while all is as it should be.
HARMLESS = frozenset(("LiveMigratable", "StorageLiveMigratable"))
# A watch is begun anew now and then, so that one that a proxy has silently dropped costs seconds and not the timeout.
LONGEST_WATCH = 60


class GaveUp(Exception):
    """The state won't come (or didn't in time): why, and the object as it was last seen."""

    def __init__(self, why, obj):
        super().__init__(why)
        self.why = why
        self.obj = obj


def until(client, resource, namespace, name, timeout, done, hopeless=None):
    """Watches one object until done(object or None) is true and gives it.

    hopeless(object) gives {reason: grace in seconds} for states that won't get better by themselves. Raises GaveUp.
    """
    deadline = time.monotonic() + timeout
    first_seen = {}
    collection = resources.path(resource, namespace)
    selector = "metadata.name=%s" % name
    while True:
        items, version = client.list(collection, field_selector=selector)
        obj = items[0] if items else None
        pause = _judge(obj, done, hopeless, first_seen, deadline, timeout)
        if pause is None:
            return obj
        for kind, seen in client.watch(collection, version, min(pause, LONGEST_WATCH), field_selector=selector):
            if kind not in ("ADDED", "MODIFIED", "DELETED"):
                continue
            obj = None if kind == "DELETED" else seen
            next_pause = _judge(obj, done, hopeless, first_seen, deadline, timeout)
            if next_pause is None:
                return obj
            if next_pause < pause - 1:
                # There is less time than the open watch was given.
                break


def _judge(obj, done, hopeless, first_seen, deadline, timeout):
    """None when done, else the seconds until something must be decided again."""
    if done(obj):
        return None
    now = time.monotonic()
    pauses = [deadline - now]
    for reason, grace in (hopeless(obj) if hopeless and obj else {}).items():
        since = first_seen.setdefault(reason, now)
        if now - since >= grace:
            raise GaveUp(reason, obj)
        pauses.append(since + grace - now)
    if now >= deadline:
        raise GaveUp("not within %d seconds" % timeout, obj)
    return max(0.1, min(pauses))


def condition(obj, kind):
    """The condition of that type as a dict; {} where there is none."""
    for entry in ((obj or {}).get("status") or {}).get("conditions") or []:
        if entry.get("type") == kind:
            return entry
    return {}


def printable_status(vm):
    """status.printableStatus; "" where there is none."""
    return ((vm or {}).get("status") or {}).get("printableStatus") or ""


def vm_ready(vm):
    """Whether the VM's guest runs and its probes are content."""
    return bool(vm) and condition(vm, "Ready").get("status") == "True"


def vm_stopped(vm):
    """Whether no guest of the VM runs or is about to."""
    if not vm:
        return True
    ready = condition(vm, "Ready")
    return printable_status(vm) == "Stopped" or (
        ready.get("status") == "False" and ready.get("reason") == "VMINotExists" and not printable_status(vm)
    )


def vm_hopeless(vm):
    """{reason: grace} of a VM that should be coming up."""
    found = {}
    status = printable_status(vm)
    if status in HOPELESS:
        found[status] = HOPELESS[status]
    failure = condition(vm, "Failure")
    if failure.get("status") == "True":
        found["%s: %s" % (failure.get("reason"), failure.get("message"))] = FAILURE_GRACE
    return found


def diagnose(client, namespace, name):
    """What is known about why a VM isn't where it should be: a list of sentences and the facts behind them.

    Never raises KubeError: a diagnosis mustn't hide the failure it explains.
    """
    said, facts = [], {}
    vm = _quietly(lambda: client.get(resources.path(VM, namespace, name)))
    vmi = _quietly(lambda: client.get(resources.path(VMI, namespace, name)))
    # created-by is on the Pods of every KubeVirt version, the id only on those of newer ones.
    selector = "vmi.kubevirt.io/id=%s" % name
    if vmi:
        selector = "kubevirt.io/created-by=%s" % vmi["metadata"].get("uid")
    pods = _quietly(lambda: client.list(resources.path(POD, namespace), label_selector=selector)[0]) or []
    if vm:
        status = vm.get("status") or {}
        facts["printable_status"] = printable_status(vm)
        facts["conditions"] = status.get("conditions") or []
        said.append("printableStatus is %s" % (printable_status(vm) or "not set yet: is virt-controller running?"))
        failures = (status.get("startFailure") or {}).get("consecutiveFailCount")
        if failures:
            said.append("%d starts have failed in a row" % failures)
        said += _bad_conditions(vm)
    else:
        said.append("the VirtualMachine doesn't exist any more")
    if vmi:
        status = vmi.get("status") or {}
        facts["phase"] = status.get("phase")
        said.append("the VirtualMachineInstance is in phase %s" % (status.get("phase") or "(none)"))
        if status.get("reason"):
            said.append("reason %s" % status["reason"])
        said += [text for text in _bad_conditions(vmi) if text not in said]
    for pod in pods:
        said += _pod_troubles(pod)
    names = {name} | {pod["metadata"]["name"] for pod in pods}
    events = warning_events(client, namespace, names)
    # An earlier machine of that name had its own troubles. Seconds are all that creationTimestamp tells.
    born = ((vm or {}).get("metadata") or {}).get("creationTimestamp") or ""
    events = [event for event in events if (event["last_seen"] or born)[:19] >= born[:19]]
    facts["events"] = events
    # The latest ones, oldest first, as people read logs.
    for event in events[-3:]:
        said.append("Warning %s of %s: %s" % (event["reason"], event["object"], event["message"]))
    return said, facts


def _quietly(call):
    try:
        return call()
    except KubeError:
        return None


def _bad_conditions(obj):
    said = []
    for entry in (obj.get("status") or {}).get("conditions") or []:
        if entry.get("type") in HARMLESS:
            continue
        if entry.get("status") == "False" and entry.get("message"):
            said.append("%s is False (%s: %s)" % (entry.get("type"), entry.get("reason"), entry["message"]))
        elif entry.get("type") == "Failure" and entry.get("status") == "True":
            said.append("%s: %s" % (entry.get("reason"), entry.get("message")))
    return said


def _pod_troubles(pod):
    said = []
    status = pod.get("status") or {}
    name = "Pod %s" % pod["metadata"]["name"]
    for entry in status.get("conditions") or []:
        if entry.get("type") == "PodScheduled" and entry.get("status") == "False":
            said.append("%s isn't scheduled: %s" % (name, entry.get("message") or entry.get("reason")))
    for entry in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
        state = entry.get("state") or {}
        for phase in ("waiting", "terminated"):
            found = state.get(phase) or {}
            if found.get("message") or (phase == "waiting" and found.get("reason")):
                text = "%s: container %s is %s (%s)" % (name, entry.get("name"), phase, found.get("reason"))
                said.append(text + (": %s" % found["message"].strip() if found.get("message") else ""))
    return said


def selector_of(workload):
    """The label selector of a workload's Pods, as requests have it."""
    labels = ((workload.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return ",".join("%s=%s" % pair for pair in sorted(labels.items()))


def pods_on_silent_nodes(client, namespace, label_selector=None):
    """Pods on nodes whose kubelet doesn't report: they neither change nor end. None where that may not be read."""
    nodes = _quietly(lambda: client.list(resources.path(NODE))[0]) or []
    silent = {node["metadata"]["name"] for node in nodes if condition(node, "Ready").get("status") != "True"}
    if not silent:
        return []
    pods = _quietly(lambda: client.list(resources.path(POD, namespace), label_selector=label_selector)[0]) or []
    return [pod for pod in pods if (pod.get("spec") or {}).get("nodeName") in silent]


def warning_events(client, namespace, names):
    """Warning events of the objects with these names, oldest first."""
    url = resources.path(EVENT, namespace)
    try:
        events = client.list(url, field_selector="type=Warning")[0]
    except ApiError:
        events = _quietly(lambda: client.list(url)[0]) or []
    except KubeError:
        events = []
    found = []
    for event in events:
        about = event.get("involvedObject") or event.get("regarding") or {}
        if event.get("type") == "Warning" and about.get("name") in names:
            seen = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
            found.append(
                {
                    "object": "%s %s" % (about.get("kind"), about.get("name")),
                    "reason": event.get("reason"),
                    "message": event.get("message") or event.get("note"),
                    "count": event.get("count") or 1,
                    "last_seen": seen,
                }
            )
    return sorted(found, key=lambda event: event["last_seen"] or "")
